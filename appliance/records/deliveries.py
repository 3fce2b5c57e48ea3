"""What is owed to destinations, and where each of it stands."""

from __future__ import annotations

from appliance.records.word import Word


class DeliveryState(Word):
    """Where one object owed to one destination stands. Nothing owed is ever deleted."""

    #: Waiting for something of ours: the object is not built, or a comparison is not finished.
    HELD = "held"
    OWED = "owed"
    SENT = "sent"
    #: The peer refuses this very object for good; a person must look. Others go on.
    PARKED = "parked"
    #: It is not sent any more, since what it says holds no longer. Where it was built, the destination may have it.
    REPLACED = "replaced"
    #: Its destination is no longer configured, and a person has ended what was owed to it.
    FORGOTTEN = "forgotten"


class DeliveryKind(Word):
    """What a delivery carries."""

    ORIGINAL = "original"
    SR = "sr"
    SEG = "seg"
    GSPS = "gsps"
    KO = "ko"
    SC = "sc"
    #: Of ours: that objects which were sent hold no longer (IHE IOCM).
    REJECTION_NOTE = "rejection_note"
    #: The result as plain values, out of which HL7 messages and webhooks are written.
    STATEMENT = "statement"
