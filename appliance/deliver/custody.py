"""The stages of storage commitment that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable

from appliance.clock import Clock
from appliance.config import Config
from appliance.deliver.commitment import CommitmentStage
from appliance.deliver.commitment_report import CommitmentReportStage
from appliance.store import Store


def custody_stages(
    store: Store, config: Config, clock: Clock, *, wake_reports: Callable[[], None]
) -> list[CommitmentStage | CommitmentReportStage]:
    """One stage for each destination that is asked to commit, one for each scanner that may ask us.

    Args:
        store: Requests, answers, reports.
        config: Says which.
        clock: For all of them.
        wake_reports: Called when a destination has committed to something.
    """
    asking = [
        CommitmentStage(
            destination,
            store.commitments,
            store.deliveries,
            clock,
            box_ae_title=config.dicom.ae_title,
            wake_reports=wake_reports,
        )
        for destination in config.commitment_destinations
    ]
    reporting = [
        CommitmentReportStage(source, config, store.commitment_requests, clock)
        for source in config.sources
        if source.commitment_host
    ]
    return [*asking, *reporting]
