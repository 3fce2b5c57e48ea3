"""Which code speaks to which kind of destination."""

from __future__ import annotations

from appliance.clock import Clock
from appliance.config import Destination, DicomDestination, Hl7Destination, StowDestination
from appliance.deliver.channel import Sender
from appliance.deliver.connect import client_context
from appliance.deliver.dicom import DicomSender
from appliance.deliver.mllp import Hl7Sender
from appliance.deliver.stow import StowSender
from appliance.deliver.webhook import WebhookSender
from appliance.errors import ConfigError


def sender_of(destination: Destination, box_ae_title: str, clock: Clock) -> Sender:
    """The sender for a destination.

    Args:
        destination: As configured.
        box_ae_title: Our own AE title.
        clock: For the times in what is sent.

    Raises:
        ConfigError: A certificate or secret of the destination cannot be read.
    """
    try:
        if destination.tls is not None:
            client_context(destination.tls)  # a fault in a file is told at the start, not with the first result
        if isinstance(destination, DicomDestination):
            return DicomSender(destination, box_ae_title)
        if isinstance(destination, StowDestination):
            return StowSender(destination)
        if isinstance(destination, Hl7Destination):
            return Hl7Sender(destination, clock)
        return WebhookSender(destination, clock)
    except ConfigError as error:
        raise ConfigError(f"destination {destination.name!r}: {error}") from error
