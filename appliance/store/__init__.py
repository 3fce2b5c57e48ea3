"""The only durable state of the box: a database and a spool of files. Stages meet here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from appliance.clock import Clock
from appliance.store.accounts import Accounts
from appliance.store.alert_tests import AlertTests
from appliance.store.alerts import Alerts
from appliance.store.analyses import Analyses
from appliance.store.audit import Audit
from appliance.store.audit_log import AuditLog
from appliance.store.chain import Chain
from appliance.store.commitment_requests import CommitmentRequests
from appliance.store.commitments import Commitments
from appliance.store.communications import Communications
from appliance.store.database import Database
from appliance.store.deliveries import Deliveries
from appliance.store.destination_states import DestinationStates
from appliance.store.engines import EngineFacts
from appliance.store.escalations import Escalations
from appliance.store.fleet import FleetRows
from appliance.store.fleet_jobs import FleetJobs
from appliance.store.health_samples import HealthSamples
from appliance.store.images import Images
from appliance.store.issues import Issues
from appliance.store.journal import Journal
from appliance.store.labels import Labels
from appliance.store.model_figures import Models
from appliance.store.orders import Orders
from appliance.store.packages import Packages
from appliance.store.quality import Quality
from appliance.store.retention import Retention
from appliance.store.reviews import Reviews
from appliance.store.revisions import Revisions
from appliance.store.screens import Screens
from appliance.store.sessions import Sessions
from appliance.store.setup import Setup
from appliance.store.site_settings import SiteSettings
from appliance.store.spool import Spool
from appliance.store.steps import Steps
from appliance.store.studies import Studies
from appliance.store.timings import Timings
from appliance.store.tokens import Tokens
from appliance.store.views import Views
from appliance.store.worklist import Worklist

__all__ = ["Store"]


@dataclass(frozen=True, slots=True)
class Store:
    """Every part of the store, on one database and one spool."""

    db: Database
    spool: Spool
    journal: Journal
    studies: Studies
    revisions: Revisions
    analyses: Analyses
    alerts: Alerts
    quality: Quality
    deliveries: Deliveries
    commitments: Commitments
    commitment_requests: CommitmentRequests
    retention: Retention
    images: Images
    issues: Issues
    packages: Packages
    engines: EngineFacts
    views: Views
    steps: Steps
    orders: Orders
    accounts: Accounts
    screens: Screens
    sessions: Sessions
    audit: Audit
    reviews: Reviews
    labels: Labels
    communications: Communications
    escalations: Escalations
    alert_tests: AlertTests
    audit_log: AuditLog
    chain: Chain
    destinations: DestinationStates
    health: HealthSamples
    setup: Setup
    settings: SiteSettings
    models: Models
    tokens: Tokens
    worklist: Worklist
    timings: Timings
    fleet: FleetRows
    fleet_jobs: FleetJobs

    @classmethod
    def open(cls, state_path: Path, clock: Clock, *, reserve_bytes: int | None = None) -> Store:
        """Open or create the store below ``state_path``.

        Raises:
            ConfigError: The database is of a newer version of this software.
            StoreError: The database is damaged or the folder cannot be used.
        """
        db = Database(state_path / "scanside.db", clock)
        return cls(
            db=db,
            spool=Spool(state_path / "spool", reserve_bytes=reserve_bytes),
            journal=Journal(db),
            studies=Studies(db),
            revisions=Revisions(db),
            analyses=Analyses(db),
            alerts=Alerts(db),
            quality=Quality(db),
            deliveries=Deliveries(db),
            commitments=Commitments(db),
            commitment_requests=CommitmentRequests(db),
            retention=Retention(db),
            images=Images(db),
            issues=Issues(db),
            packages=Packages(db),
            engines=EngineFacts(db),
            views=Views(db),
            steps=Steps(db),
            orders=Orders(db),
            accounts=Accounts(db),
            screens=Screens(db),
            sessions=Sessions(db),
            audit=Audit(db),
            reviews=Reviews(db),
            labels=Labels(db),
            communications=Communications(db),
            escalations=Escalations(db),
            alert_tests=AlertTests(db),
            audit_log=AuditLog(db),
            chain=Chain(db),
            destinations=DestinationStates(db),
            health=HealthSamples(db),
            setup=Setup(db),
            settings=SiteSettings(db),
            models=Models(db),
            tokens=Tokens(db),
            worklist=Worklist(db),
            timings=Timings(db),
            fleet=FleetRows(db),
            fleet_jobs=FleetJobs(db),
        )

    def close(self) -> None:
        """Close the database."""
        self.db.close()
