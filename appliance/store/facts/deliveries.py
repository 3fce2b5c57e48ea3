"""What is owed to destinations, and what they vouch for."""

from __future__ import annotations

from appliance.store.facts.kinds import Body, Kind


class DeliveryOwed(Body):  # noqa: D101
    kind = Kind.DELIVERY_OWED
    delivery: int
    destination: str
    object: str
    analysis: int | None = None


class ResultReissued(Body):  # noqa: D101
    kind = Kind.RESULT_REISSUED
    analysis: int
    object: str
    deliveries: int
    identity_revision: int


class DeliveryReplaced(Body):
    """It is not sent any more: what it says holds no longer."""

    kind = Kind.DELIVERY_REPLACED
    delivery: int
    destination: str
    object: str


class DeliveryBuilt(Body):  # noqa: D101
    kind = Kind.DELIVERY_BUILT
    analysis: int
    object: str
    size: int
    ms: float


class DeliverySent(Body):  # noqa: D101
    kind = Kind.DELIVERY_SENT
    delivery: int
    destination: str
    object: str
    attempt: int
    status: int


class DeliveryFailed(Body):
    """A try failed and will be made again. Only the first and every tenth of one delivery are journalled."""

    kind = Kind.DELIVERY_FAILED
    delivery: int
    destination: str
    object: str
    attempt: int
    error: str


class DeliveryParked(Body):  # noqa: D101
    kind = Kind.DELIVERY_PARKED
    delivery: int
    destination: str
    object: str
    status: int | None
    error: str


class DeliveryRetried(Body):  # noqa: D101
    kind = Kind.DELIVERY_RETRIED
    destination: str
    deliveries: int


class DestinationForgotten(Body):
    """A person has given up a destination that is no longer configured; nothing was sent, and no file went.

    ``owed``, ``held``, ``parked``: deliveries that ended; ``uncommitted``: sent ones that nobody is asked to commit to.
    """

    kind = Kind.DESTINATION_FORGOTTEN
    destination: str
    reason: str
    owed: int
    held: int
    parked: int
    uncommitted: int


class CommitmentAsked(Body):
    """A destination was asked to commit to objects that it has stored; ``commitment`` is the transaction's row."""

    kind = Kind.COMMITMENT_ASKED
    commitment: int
    destination: str
    objects: int


class CommitmentNotAsked(Body):
    """It does not take the request, and is asked again. Only the first and every tenth in a row are journalled."""

    kind = Kind.COMMITMENT_NOT_ASKED
    commitment: int
    destination: str
    times: int
    error: str


class CommitmentAnswered(Body):
    """A report of a destination: how many objects it now keeps for good, and how many it does not."""

    kind = Kind.COMMITMENT_ANSWERED
    commitment: int
    destination: str
    committed: int
    failed: int


class CommitmentFailed(Body):
    """The destination does not commit to this object. ``owed_again``: it has lost it, so it is sent once more."""

    kind = Kind.COMMITMENT_FAILED
    delivery: int
    destination: str
    object: str
    reason: int
    owed_again: bool


class CommitmentRequested(Body):
    """A scanner asks us to commit to images."""

    kind = Kind.COMMITMENT_REQUESTED
    request: int
    source: str
    objects: int
    association: int


class CommitmentReported(Body):
    """The scanner has taken the report on its request."""

    kind = Kind.COMMITMENT_REPORTED
    request: int
    source: str
    committed: int
    failed: int


class CommitmentNotReported(Body):
    """The scanner did not take the report; it is tried again. Only the first and every tenth try are journalled."""

    kind = Kind.COMMITMENT_NOT_REPORTED
    request: int
    source: str
    attempt: int
    error: str


class ResultsRemoved(Body):
    """The time of an analysis' pictures, masks and result objects is over; what it said stays."""

    kind = Kind.RESULTS_REMOVED
    analysis: int
    files: int
