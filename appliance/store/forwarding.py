"""Which destinations images are owed to: asked when one is received, and when a person chooses between versions."""

from __future__ import annotations

from appliance.config import Config, DicomDestination
from appliance.records import DeliveryKind, SourceMode
from appliance.store.receiving import Original


def originals_for(config: Config, source_name: str) -> tuple[Original, ...]:
    """The destinations that images of a source are owed to: none for a parallel source (DESIGN §1.2)."""
    source = next((one for one in config.sources if one.name == source_name), None)
    if source is None or source.mode is not SourceMode.INLINE:
        return ()
    return tuple(
        Original(
            destination=one.name,
            calling_ae=(one.calling_ae_title if isinstance(one, DicomDestination) else None) or source.ae_title,
        )
        for one in config.destinations
        if DeliveryKind.ORIGINAL in one.send
    )
