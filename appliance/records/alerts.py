"""Alerts: where one stands, what happens when nobody acknowledges it, how somebody was told."""

from __future__ import annotations

from appliance.records.word import Word


class AlertState(Word):
    """Where one study's alert stands. Only the first two call for somebody; nothing but the last takes it back."""

    RAISED = "raised"
    PRESENTED = "presented"
    ACKNOWLEDGED = "acknowledged"
    COMMUNICATED = "communicated"
    #: A radiologist has said what it is.
    DECIDED = "decided"
    WITHDRAWN = "withdrawn"


class AlertStep(Word):
    """What happens about an alert that nobody acknowledges, and what a sink outside the screens is told."""

    #: Only for sinks that call from the first second, as a light.
    RAISED = "raised"
    #: The chime is repeated.
    REPEAT = "repeat"
    #: Further targets are told.
    TELL = "tell"
    #: Every screen says so.
    OVERDUE = "overdue"
    #: Category 2: a passive reminder.
    REMIND = "remind"
    #: Somebody tries whether alerts arrive.
    TEST = "test"
    #: What a sink was told of calls no longer.
    CLEARED = "cleared"


class CommunicationMethod(Word):
    """How a finding was told to a person (ACR)."""

    PHONE = "phone"
    IN_PERSON = "in_person"
    MESSAGE = "message"
