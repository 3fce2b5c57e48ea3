"""The only durable state of the box: a database and a spool of files. Stages meet here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from appliance.clock import Clock
from appliance.store.alerts import Alerts
from appliance.store.analyses import Analyses
from appliance.store.commitment_requests import CommitmentRequests
from appliance.store.commitments import Commitments
from appliance.store.database import Database
from appliance.store.deliveries import Deliveries
from appliance.store.engines import EngineFacts
from appliance.store.issues import Issues
from appliance.store.journal import Journal
from appliance.store.orders import Orders
from appliance.store.packages import Packages
from appliance.store.quality import Quality
from appliance.store.retention import Retention
from appliance.store.revisions import Revisions
from appliance.store.spool import Spool
from appliance.store.steps import Steps
from appliance.store.studies import Studies
from appliance.store.views import Views

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
    issues: Issues
    packages: Packages
    engines: EngineFacts
    views: Views
    steps: Steps
    orders: Orders

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
            issues=Issues(db),
            packages=Packages(db),
            engines=EngineFacts(db),
            views=Views(db),
            steps=Steps(db),
            orders=Orders(db),
        )

    def close(self) -> None:
        """Close the database."""
        self.db.close()
