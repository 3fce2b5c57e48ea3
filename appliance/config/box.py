"""``Config``: all sections together, and what must hold between them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from appliance.config.alerts import AlertSinkChoice, WebhookSink
from appliance.config.analysis import Engines, KServe, PackageChoice, Triage
from appliance.config.destinations import Destination, DicomDestination, StowDestination, WebhookDestination
from appliance.config.fleet import Fleet
from appliance.config.intake import Completeness, Dicom, Source, Worklist
from appliance.config.screen import Review, Screen
from appliance.config.site import PROFILE_DETAIL, Disk, Retention, Site, TechnologistDetail
from appliance.config.values import Section, is_loopback
from appliance.records import AlertStep, DeliveryKind, SourceMode


class Config(Section):
    """Everything that a box is told."""

    state_path: Path = Path("/var/lib/scanside")
    runtime_path: Path | None = Field(default=None, description="Folder of the worker's socket; state_path when absent")
    site: Site = Site()
    dicom: Dicom = Dicom()
    sources: tuple[Source, ...] = ()
    destinations: tuple[Destination, ...] = ()
    packages: tuple[PackageChoice, ...] = ()
    trusted_keys: tuple[Path, ...] = Field(
        default=(), description="Public keys (PEM) of makers; a package that one of them signed may be installed"
    )
    completeness: Completeness = Completeness()
    triage: Triage = Triage()
    engines: Engines = Engines()
    kserve: KServe | None = None
    worklist: Worklist | None = Field(
        default=None, description="Asked for priority, procedure and, where the images have none, accession number"
    )
    disk: Disk = Disk()
    retention: Retention = Retention()
    screen: Screen = Screen()
    review: Review = Review()
    fleet: Fleet | None = Field(default=None, description="Reports to a fleet server; absent: to nobody")
    alert_sinks: tuple[AlertSinkChoice, ...] = Field(
        default=(), description="Who else is told of alerts that nobody acknowledges; never in evaluation mode"
    )

    @model_validator(mode="after")
    def _cross_checks(self) -> Config:
        for what, names in (
            ("source", [s.name for s in self.sources]),
            ("destination", [d.name for d in self.destinations]),
            ("package", [p.name for p in self.packages]),
            ("alert sink", [sink.name for sink in self.alert_sinks]),
        ):
            for name in names:
                if names.count(name) > 1:
                    msg = f"two {what}s are named {name!r}; give each its own name"
                    raise ValueError(msg)
        inline = [s.name for s in self.sources if s.mode is SourceMode.INLINE]
        if inline and not any(DeliveryKind.ORIGINAL in d.send for d in self.destinations):
            msg = f"source {inline[0]!r} is inline, but no destination takes originals; add 'original' to a 'send'"
            raise ValueError(msg)
        for one in self.destinations:
            if isinstance(one, StowDestination | WebhookDestination) and self.site.mode == "clinical":
                host = urlsplit(one.url).hostname or ""
                if one.tls is None and not is_loopback(host):
                    msg = f"destination {one.name!r}: in clinical mode results leave the box by https only; add tls"
                    raise ValueError(msg)
        for sink in self.alert_sinks:
            if not isinstance(sink, WebhookSink) or self.site.mode != "clinical" or sink.tls is not None:
                continue
            if not is_loopback(urlsplit(sink.url).hostname or ""):
                msg = f"alert sink {sink.name!r}: in clinical mode alerts leave the box by https only; add tls"
                raise ValueError(msg)
        for source in self.sources:
            if source.commitment_host and not self.committing(source.name):
                msg = (
                    f"source {source.name!r} has a commitment_host, but no destination of its originals has commitment:"
                    " true; the box vouches only for what such a destination keeps"
                )
                raise ValueError(msg)
        if self.kserve is not None:
            host = self.kserve.address.rpartition(":")[0].strip("[]")
            if self.site.mode == "clinical" and self.kserve.tls is None and not is_loopback(host):
                # A head CT shows a face, with or without its header.
                msg = "kserve: in clinical mode pixels leave the box by TLS only; add kserve.tls"
                raise ValueError(msg)
        return self

    def technologist_detail(self, package: str) -> TechnologistDetail:
        """What technologists are told of a package's findings: its own word, else the site's, else its profile's."""
        choice = next((one.technologist_detail for one in self.packages if one.name == package), None)
        return choice or self.site.technologist_detail or PROFILE_DETAIL[self.site.profile]

    def sinks_of(self, step: AlertStep) -> tuple[str, ...]:
        """Names of the alert sinks that are told of a step; of a test all are."""
        return tuple(sink.name for sink in self.alert_sinks if step is AlertStep.TEST or step in sink.steps)

    def committing(self, source_name: str) -> tuple[str, ...]:
        """The destinations that commit to the images of a source; none of a parallel one."""
        if not any(one.name == source_name and one.mode is SourceMode.INLINE for one in self.sources):
            return ()
        return tuple(one.name for one in self.commitment_destinations if DeliveryKind.ORIGINAL in one.send)

    @property
    def commitment_destinations(self) -> tuple[DicomDestination, ...]:
        """Those that are asked for storage commitment."""
        return tuple(one for one in self.destinations if isinstance(one, DicomDestination) and one.commitment)

    @property
    def engines_path(self) -> Path:
        """Where the engines of this box lie; written by the worker."""
        return self.state_path / "engines"

    @property
    def socket_path(self) -> Path:
        """The Unix socket on which the daemon listens for its worker."""
        return (self.runtime_path or self.state_path) / "worker.sock"
