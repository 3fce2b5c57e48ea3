"""What people were told, and what they did about it."""

from __future__ import annotations

from appliance.records import AlertStep, CommunicationMethod
from appliance.store.facts.kinds import Body, Kind


class AlertRaised(Body):  # noqa: D101
    kind = Kind.ALERT_RAISED
    alert: int
    analysis: int
    category: int
    active: bool
    chime: bool
    predecessor: int | None = None


class AlertUpdated(Body):
    """The alert now rests on another analysis of the same findings: nothing new to tell, no chime."""

    kind = Kind.ALERT_UPDATED
    alert: int
    analysis: int


class AlertPresented(Body):  # noqa: D101
    kind = Kind.ALERT_PRESENTED
    alert: int
    screen: str = ""


class AlertAcknowledged(Body):  # noqa: D101
    kind = Kind.ALERT_ACKNOWLEDGED
    alert: int


class AlertWithdrawn(Body):  # noqa: D101
    kind = Kind.ALERT_WITHDRAWN
    alert: int
    why: str


class AlertCommunicated(Body):
    """ACR's six fields: finding by its code, time found, who told (the row's actor), who received, when, how."""

    kind = Kind.ALERT_COMMUNICATED
    alert: int
    communication: int
    findings: tuple[str, ...]
    found_at: str
    received_by: str
    received_at: str
    method: CommunicationMethod
    read_back: bool


class AlertDecided(Body):
    """A radiologist said what it is. ``decision``: the review's code."""

    kind = Kind.ALERT_DECIDED
    alert: int
    decision: str


class AlertEscalated(Body):
    """Nobody acknowledged it for so long that this step was due. ``sinks``: those that are told of it.

    ``screens``: further screens that show it from now on; None in facts from before that was noted.
    """

    kind = Kind.ALERT_ESCALATED
    alert: int
    step: AlertStep
    sinks: tuple[str, ...] = ()
    screens: tuple[str, ...] | None = None


class AlertSinkTold(Body):
    """A sink outside the screens took a step of an alert, or of a test."""

    kind = Kind.ALERT_SINK_TOLD
    sink: str
    step: AlertStep
    alert: int | None = None
    test: int | None = None


class AlertSinkFailed(Body):
    """It was tried for as long as it made sense."""

    kind = Kind.ALERT_SINK_FAILED
    sink: str
    step: AlertStep
    attempts: int
    alert: int | None = None
    test: int | None = None


class TestAlertRaised(Body):
    """``source``: whose screens show it; empty: all of them."""

    __test__ = False
    kind = Kind.TEST_ALERT_RAISED
    test: int
    source: str


class TestAlertPresented(Body):  # noqa: D101
    __test__ = False
    kind = Kind.TEST_ALERT_PRESENTED
    test: int
    screen: str = ""


class TestAlertAcknowledged(Body):  # noqa: D101
    __test__ = False
    kind = Kind.TEST_ALERT_ACKNOWLEDGED
    test: int


class TestAlertEnded(Body):
    """Nobody acknowledged it."""

    __test__ = False
    kind = Kind.TEST_ALERT_ENDED
    test: int
