"""What every kind of destination gives the stage: a way that is opened, used for a while, and released."""

from __future__ import annotations

from typing import IO, Protocol

from appliance.deliver.retry import Judgement
from appliance.store.deliveries import Delivery


class Channel(Protocol):
    """An open way to a destination. One thread uses it; only ``interrupt`` may come from another."""

    def takes(self, batch: list[Delivery]) -> bool:
        """Whether it is still open and fit for all of these."""
        ...

    def send(self, delivery: Delivery, stream: IO[bytes], size: int) -> Judgement:
        """Send one object and judge the answer.

        Args:
            delivery: What it is.
            stream: At the data set, or at the first byte of what is no DICOM object.
            size: Bytes from there to the end.

        Raises:
            AssociationLost: No valid answer: the object may have arrived or not. The channel is closed.
            NoAssociation: The destination takes nothing from us, whatever it is.
        """
        ...

    def release(self) -> None:
        """End it in order, briefly. Never raises."""
        ...

    def interrupt(self) -> None:
        """Make whatever the using thread waits for fail now."""
        ...


class Sender(Protocol):
    """One configured destination, as one kind speaks to it."""

    def batch(self, owed: list[Delivery]) -> list[Delivery]:
        """What of this can go over one channel, beginning with the first, the order in each study kept."""
        ...

    def open(self, batch: list[Delivery]) -> Channel:
        """Open a channel for these.

        Raises:
            NoAssociation: It cannot be reached, or refuses us; the message says how to mend it.
        """
        ...
