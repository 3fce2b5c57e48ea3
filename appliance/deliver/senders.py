"""Which code speaks to which kind of destination."""

from __future__ import annotations

from collections.abc import Callable

from appliance.clock import Clock
from appliance.config import ClientTls, Config, Destination, DicomDestination, Hl7Destination, StowDestination
from appliance.deliver.channel import Sender
from appliance.deliver.connect import client_context
from appliance.deliver.dicom import DicomSender
from appliance.deliver.mllp import Hl7Sender
from appliance.deliver.stow import StowSender
from appliance.deliver.webhook import WebhookSender
from appliance.errors import ConfigError
from appliance.store.said import Said


def check_tls(config: Config) -> None:
    """Read the certificates for the others that we call: a fault in a file is told at the start, not by them.

    Raises:
        ConfigError: One of them cannot be read.
    """
    others: list[tuple[str, ClientTls | None]] = [
        *((f"source {source.name!r}: commitment_tls", source.commitment_tls) for source in config.sources),
        ("worklist", config.worklist.tls if config.worklist else None),
    ]
    for who, tls in others:
        try:
            if tls is not None:
                client_context(tls)
        except ConfigError as error:
            raise ConfigError(f"{who}: {error}") from error


def sender_of(
    destination: Destination,
    box_ae_title: str,
    clock: Clock,
    *,
    locale: str = "en",
    said: Callable[[int], Said | None] = lambda _: None,
) -> Sender:
    """The sender for a destination.

    Args:
        destination: As configured.
        box_ae_title: Our own AE title.
        clock: For the times in what is sent.
        locale: The site's, for words that people read.
        said: What the analysis said that a delivery tells of (``Deliveries.said``).

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
            return Hl7Sender(destination, clock, locale, said)
        return WebhookSender(destination, clock)
    except ConfigError as error:
        raise ConfigError(f"destination {destination.name!r}: {error}") from error
