"""Sentences that more than one kind of object says, each the id of its translations (``records.Detail``).

Objects of DICOM say them in English; what is told to people by HL7 says them in the language of its site.
"""

from __future__ import annotations

from appliance.records import Detail, Reason

#: Why something was not analysed.
REASONS: dict[Reason, Detail] = {
    Reason.OUT_OF_ENVELOPE: Detail("The series is not of the kind that this package was made for."),
    Reason.QUALITY: Detail("The images are not good enough for this package."),
    Reason.CANNOT_DECODE: Detail("The images could not be decoded."),
    Reason.INCOMPLETE: Detail("The series is incomplete."),
    Reason.UNRELIABLE_OUTPUT: Detail("The package gave an output that cannot be trusted."),
    Reason.FAILED: Detail("The analysis failed."),
    Reason.TIMED_OUT: Detail("The analysis did not end in time."),
    Reason.AI_UNAVAILABLE: Detail("The AI was not available."),
    Reason.WITHDRAWN: Detail("It was withdrawn."),
}
#: What a result may be used for: by the status of its package, once a person has reviewed it, and in evaluation mode.
USES = {
    "demonstrator": Detail("Demonstration. Not for clinical use."),
    "research": Detail("Research software. Not for clinical use."),
    "cleared": Detail("Preliminary result of a computer program that no person has verified."),
}
REVIEWED = Detail("Result of a computer program that a person has reviewed. Not a diagnostic report.")
EVALUATION = Detail("Evaluation, not for patient care.")
LATE = Detail("This result came late.")
