"""What the RIS and the scanner say of the order and of the step that was performed."""

from __future__ import annotations

from appliance.records.word import Word


class OrderState(Word):
    """What the RIS said of the order of a study."""

    #: It knows none; asked again for a while.
    NONE = "none"
    FOUND = "found"
    #: It knows several that these images may belong to.
    SEVERAL = "several"
    #: The order under this accession number is another patient's: a person must look.
    OTHER_PATIENT = "other_patient"


class StepState(Word):
    """Where a performed procedure step stands (PS3.3 C.4.14, Performed Procedure Step Status)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"
