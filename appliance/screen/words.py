"""Codes in words: reasons, withdrawals, issues. Marked for extraction here, translated where they are shown."""

from __future__ import annotations

from appliance.records import CommunicationMethod, QualityChoice, QualityReason, Reason
from appliance.store.readmodels import AI_UNAVAILABLE, REJECTED
from appliance.web.i18n import N_

#: Why a study was not analysed, and what the technologist does now.
REASONS: dict[str, tuple[str, str]] = {
    Reason.OUT_OF_ENVELOPE: (
        N_("This kind of image is outside what the AI can check"),
        N_("Read as usual. The AI did not check these images."),
    ),
    Reason.QUALITY: (
        N_("The image quality is too low for the AI"),
        N_("Look at the images before the patient leaves. Read as usual."),
    ),
    Reason.CANNOT_DECODE: (
        N_("The AI cannot open this image format"),
        N_("Read as usual. Tell service which scanner sent it."),
    ),
    Reason.INCOMPLETE: (
        N_("Images are missing"),
        N_("Check that the scanner sent every image, then send the study again."),
    ),
    Reason.UNRELIABLE_OUTPUT: (
        N_("The AI gave no answer that can be relied on"),
        N_("Read as usual. The AI did not check these images."),
    ),
    Reason.FAILED: (
        N_("The AI stopped while it worked on this study"),
        N_("Read as usual. Tell service if it happens again."),
    ),
    Reason.TIMED_OUT: (
        N_("The AI took too long"),
        N_("Read as usual. Tell service if it happens again."),
    ),
    Reason.AI_UNAVAILABLE: (
        N_("The AI was not working"),
        N_("Read as usual. It is analysed later, when the AI works again."),
    ),
    Reason.WITHDRAWN: (
        N_("The AI for this was taken out of service"),
        N_("Read as usual. The AI did not check these images."),
    ),
}

#: The same of images that a rejection note took back.
IMAGES_REJECTED = (
    N_("Withdrawn: the images were rejected"),
    N_("What the AI said of these images no longer holds. Read the study as usual."),
)

#: What a technologist did about a quality warning.
QUALITY_CHOICES: dict[str, str] = {
    QualityChoice.ACCEPTED_AS_IS: N_("The image stays as it is"),
    QualityChoice.IMAGE_ADDED: N_("Another image was taken"),
}

#: And why.
QUALITY_REASONS: dict[str, str] = {
    QualityReason.POSITIONING: N_("Positioning or rotation"),
    QualityReason.ANATOMY_CUTOFF: N_("Anatomy cut off"),
    QualityReason.MOTION: N_("Motion or breathing"),
    QualityReason.EXPOSURE: N_("Exposure or technique"),
    QualityReason.ARTIFACT: N_("Artifact or foreign object"),
    QualityReason.MARKER: N_("Marker wrong or cut off"),
    QualityReason.WRONG_EXAMINATION: N_("Wrong patient, side or body part"),
    QualityReason.EQUIPMENT: N_("Equipment or processing"),
    QualityReason.PATIENT: N_("The patient could not cooperate"),
    QualityReason.OTHER: N_("Another reason"),
    QualityReason.NO_FAULT_SEEN: N_("I see no such fault in the image"),
}

#: How a person was told of a finding.
METHODS: dict[str, str] = {
    CommunicationMethod.PHONE: N_("By phone"),
    CommunicationMethod.IN_PERSON: N_("In person"),
    CommunicationMethod.MESSAGE: N_("By message"),
}

#: Why an alert was withdrawn.
WITHDRAWN = {
    "superseded": N_("Replaced by a newer result"),
    "identity_corrected": N_("Patient data was corrected"),
    REJECTED: N_("The images were rejected"),
}

#: Priorities of an order that goes before the others.
PRIORITIES = {"STAT": N_("STAT"), "HIGH": N_("High priority")}

#: Issues that a technologist can read; others are shown by their code.
ISSUES = {
    AI_UNAVAILABLE: N_("AI NOT WORKING"),
    "DISK_RESERVE": N_("Disk full. New images are refused."),
    "VERSION_CONFLICT": N_("Different images came under one number. A person must choose."),
    "WORKLIST_MISMATCH": N_("The order is another patient's than the images. A person must look."),
    "WORKLIST_UNREACHABLE": N_("The worklist of the RIS does not answer. Orders are not known."),
    "STUDY_UID_SHARED": N_("Two patients came under one study number. They are kept apart."),
    "DELIVERY_PARKED": N_("A destination refuses an object. A person must look."),
    "DESTINATION_UNREACHABLE": N_("A destination does not answer. It is tried again."),
    "DESTINATION_GONE": N_("A destination is no longer configured. What it has not got stays on this box."),
    "COMMITMENT_REFUSED": N_("The PACS takes no request for storage commitment. What it was sent stays on this box."),
    "COMMITMENT_UNANSWERED": N_("The PACS never says whether it keeps what it was sent. It stays on this box."),
    "COMMITMENT_FAILED": N_("The PACS does not promise to keep an object. It stays on this box."),
    "COMMITMENT_UNREPORTED": N_("A scanner cannot be told that its images are safe."),
    "RESULT_NOT_BUILT": N_("A result could not be written for the PACS."),
    "SPOOL_CORRUPT": N_("A stored image is damaged."),
    "SPOOL_MISSING": N_("A stored image is missing."),
    "PACKAGE_REFUSED": N_("An AI package was refused."),
    "PACKAGE_TEMPLATE": N_("An AI package is a template and does not run. It must be trained first."),
    "PACKAGE_WITHDRAWN": N_("An AI package was taken out of service. What it looked for is not analysed."),
    "ENGINE_FALLBACK": N_("The AI runs without the engine built for this box. It may be slower."),
    "KSERVE_DEGRADED": N_("The site's AI server does not work as it must. This box computes. It may be slower."),
    "ENGINE_NOT_BUILT": N_("An engine for the AI could not be built. The AI goes on without it."),
    "ALERT_SINK_FAILING": N_("A light, buzzer or service that alerts are passed on to does not work."),
    "SCREEN_SOURCE_GONE": N_("A screen watches a source that is no longer configured. It shows none of its alerts."),
    "ESCALATION_NOWHERE": N_("An alert that nobody acknowledges reaches no further place."),
    "DESTINATION_PAUSED": N_("A destination is paused by a person. What it is owed stays on this box."),
    "SETTINGS_BROKEN": N_("The changed settings do not fit and are left out. The box runs with older ones."),
    "JOURNAL_BROKEN": N_("The journal is not what was written. A person must look."),
    "DATABASE_REBUILT": N_("The database was damaged and has been rebuilt."),
}


def reason(code: str) -> tuple[str, str]:
    """What is wrong and what to do, as message ids."""
    return IMAGES_REJECTED if code == REJECTED else REASONS.get(code, REASONS[Reason.FAILED])
