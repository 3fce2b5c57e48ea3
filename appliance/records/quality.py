"""What technologists do about warnings of image quality."""

from __future__ import annotations

from appliance.records.word import Word


class QualityChoice(Word):
    """What a technologist did about a quality warning. The box never advises which."""

    ACCEPTED_AS_IS = "accepted_as_is"
    IMAGE_ADDED = "image_added"


class QualityReason(Word):
    """Why, by the categories of a reject analysis, so that a site can count them as it counts its rejects.

    They follow AAPM Report 305 (Little et al., Guidance for standardization of vendor-neutral reject analysis in
    radiography, J Appl Clin Med Phys 24(5), 2023, e13938) at its coarsest level. The codes are ours: a site that sends
    them elsewhere maps them to the report's own list first.
    """

    POSITIONING = "positioning"
    ANATOMY_CUTOFF = "anatomy_cutoff"
    MOTION = "motion"
    EXPOSURE = "exposure"
    ARTIFACT = "artifact"
    MARKER = "marker"
    WRONG_EXAMINATION = "wrong_examination"
    EQUIPMENT = "equipment"
    PATIENT = "patient"
    OTHER = "other"
    #: The person saw nothing of what the warning said: what a false warning looks like in the statistics.
    NO_FAULT_SEEN = "no_fault_seen"
