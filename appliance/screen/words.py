"""Codes in words: reasons, withdrawals, issues. Marked for extraction here, translated where they are shown."""

from __future__ import annotations

from appliance.records import CommunicationMethod, QualityChoice, QualityReason, Reason
from appliance.store.readmodels import REJECTED
from appliance.web import issue_words
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

#: What the heads of this software measure, where the package that did no longer tells its own name for it.
MEASURES = {"volume": N_("Volume"), "area": N_("Area"), "diameter": N_("Diameter")}

#: Every issue there is; the fleet's server calls them the same.
ISSUES = issue_words.ISSUES


def reason(code: str) -> tuple[str, str]:
    """What is wrong and what to do, as message ids."""
    return IMAGES_REJECTED if code == REJECTED else REASONS.get(code, REASONS[Reason.FAILED])
