"""Series as they become whole: the evidence of completeness, the revisions made of it, and what routing reads."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from appliance.errors import NotFoundError
from appliance.records import Header, RejectionTitle, Role, Vector
from appliance.store.database import Database
from appliance.store.facts.intake import SeriesReady
from appliance.store.jsonable import load
from appliance.store.short_series import SHORT, Follows, after_ready, no_longer_missing
from appliance.store.steps import Listed, listed_images

#: The rule of revisions that were made of the spool after a damaged database.
REBUILT = "rebuilt"
#: ``revision.routed`` of what routing has seen, but must look at once more: a package was replaced.
LOOK_AGAIN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSeries:
    """A series that holds images which are in no revision yet."""

    id: int
    sop_class_uid: str
    source: str
    #: Whether any association of the same source, on which images may come, is open now.
    peer_is_open: bool
    #: Monotonic reading at which its last image was received; of an earlier boot: 0.
    last_mono: float
    #: What the modality listed, once every step that names the series has ended.
    listed: Listed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEvidence:
    """What completeness reads of one image."""

    version_id: int
    association_id: int
    instance_number: int | None
    position: Vector | None
    orientation: tuple[float, float, float, float, float, float] | None
    received_mono: float
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesEvidence:
    """Everything that the rule of completeness may look at."""

    series_id: int
    study_id: int
    source: str
    sop_class_uid: str
    modality: str
    revision: int
    images: tuple[ImageEvidence, ...]
    #: How each association that carried images of the series ended: released, aborted, lost; None while open.
    associations: dict[int, str | None]
    peer_is_open: bool
    last_mono: float
    listed: Listed | None = None
    #: Images of the newest revision that have been rejected since it was made.
    taken_back: int = 0
    #: ``RejectionTitle`` where a note has rejected every image before any was taken; then ``images`` are those.
    rejected: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One READY revision of a series, for routing."""

    id: int
    series_id: int
    study_id: int
    n: int
    images: int
    header: Header
    ready_mono: float
    last_image_mono: float
    is_newest: bool
    routed: bool
    #: Made of the spool after a damaged database: what follows from it is late and never sounds.
    is_rebuilt: bool
    #: Routed, but a version that was to analyse it no longer runs: what is missing is owed again.
    again: bool = False
    #: How many of its images retention has removed from this box.
    removed: int = 0
    #: An image of it has been rejected since, or all were before: it is not analysed.
    rejected: RejectionTitle | None = None
    #: Images that the modality lists and that had not come when it was taken as whole.
    missing: int = 0
    #: The modality says that it ended the examination early.
    discontinued: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """A not superseded analysis of a study, for routing: which package already has which revisions."""

    package: str
    role: Role
    inputs: dict[str, int]
    version: str = ""
    #: One that waits for a version that no longer runs is owed again, by the version that took over.
    is_done: bool = True


class Revisions:
    """Reads and acts around completeness."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def open_series(self) -> list[OpenSeries]:
        """Series that hold images which are in no revision yet: cheap, asked several times a second."""
        rows = self._db.all(
            "SELECT s.id, s.sop_class_uid, s.changed_mono, s.boot, t.source, EXISTS (SELECT 1 FROM association a"
            " WHERE a.source = t.source AND a.how IS NULL AND a.can_store = 1) AS busy,"
            " s.series_instance_uid FROM series s JOIN study t ON t.id = s.study_id WHERE s.open = 1 ORDER BY s.id"
        )
        return [
            OpenSeries(
                id=row["id"],
                sop_class_uid=row["sop_class_uid"],
                source=row["source"],
                peer_is_open=bool(row["busy"]),
                last_mono=row["changed_mono"] if row["boot"] == self._db.boot else 0.0,
                listed=listed_images(self._db, row["id"], row["series_instance_uid"]),
            )
            for row in rows
        ]

    def evidence(self, series: OpenSeries) -> SeriesEvidence:
        """Everything that the rule of completeness may look at, for one open series."""
        row = self._db.one("SELECT * FROM series WHERE id = ?", (series.id,))
        if row is None:
            msg = f"series {series.id} does not exist"
            raise NotFoundError(msg)
        images = self._db.all(
            "SELECT v.id, v.association_id, v.source, v.instance_number, v.position, v.orientation, v.received_mono,"
            " rv.version_id IS NULL AS is_new, x.title FROM instance i JOIN version v ON v.id = i.version_id"
            " LEFT JOIN revision r ON r.series_id = i.series_id AND r.n = ?"
            " LEFT JOIN revision_version rv ON rv.revision_id = r.id AND rv.version_id = v.id"
            " LEFT JOIN rejected_instance x ON v.state = 'rejected' AND x.sop_instance_uid = i.sop_instance_uid"
            " WHERE i.series_id = ? ORDER BY v.id",
            (row["revision"], row["id"]),
        )
        taken_back = self._db.one(
            "SELECT count(DISTINCT i.id) AS n FROM revision r JOIN revision_version rv ON rv.revision_id = r.id"
            " JOIN version v ON v.id = rv.version_id JOIN instance i ON i.id = v.instance_id"
            " JOIN version c ON c.id = i.version_id"
            " WHERE r.series_id = ? AND r.n = ? AND r.rejected IS NOT NULL AND c.state = 'rejected'",
            (row["id"], row["revision"]),
        )
        rejected = ""
        standing = [image for image in images if image["title"] is None]
        if not standing and images and not row["revision"]:
            standing, rejected = images, images[0]["title"]
        images = standing
        carried = sorted({image["association_id"] for image in images})
        marks = ", ".join("?" * len(carried))
        ends = self._db.all(f"SELECT id, how FROM association WHERE id IN ({marks})", tuple(carried))  # noqa: S608
        return SeriesEvidence(
            series_id=row["id"],
            study_id=row["study_id"],
            source=series.source,
            sop_class_uid=row["sop_class_uid"],
            modality=row["modality"],
            revision=row["revision"],
            images=tuple(
                ImageEvidence(
                    version_id=image["id"],
                    association_id=image["association_id"],
                    instance_number=image["instance_number"],
                    position=tuple(json.loads(image["position"])) if image["position"] else None,
                    orientation=tuple(json.loads(image["orientation"])) if image["orientation"] else None,
                    received_mono=image["received_mono"],
                    is_new=bool(image["is_new"]),
                )
                for image in images
            ),
            associations={end["id"]: end["how"] for end in ends},
            peer_is_open=series.peer_is_open,
            last_mono=series.last_mono,
            listed=series.listed,
            taken_back=int(taken_back["n"]) if taken_back else 0,
            rejected=rejected,
        )

    def gaps_s(self, source: str, *, longest_s: float, limit: int = 500) -> list[float]:
        """The latest gaps between successive images of each series from a source, in seconds.

        Other series may come in between: a scanner that interleaves three of them leaves long gaps in each.

        Args:
            source: The source's name.
            longest_s: A longer gap is no pause: the rest was sent anew, or the box was off.
            limit: How many images to look back.
        """
        rows = self._db.all(
            "SELECT gap FROM (SELECT v.received_mono - lag(v.received_mono) OVER"
            " (PARTITION BY i.series_id ORDER BY v.id) AS gap FROM (SELECT id, instance_id, received_mono"
            " FROM version WHERE source = ? ORDER BY id DESC LIMIT ?) v JOIN instance i ON i.id = v.instance_id)"
            " WHERE gap BETWEEN 0 AND ?",
            (source, limit, longest_s),
        )
        return [row["gap"] for row in rows]

    def make_ready(self, evidence: SeriesEvidence, rule: str, facts: dict[str, Any]) -> int | None:
        """Take a series as whole: a new revision of exactly the images that the evidence names.

        Images that arrived since stay for the next revision.

        Returns:
            The id of the revision, or None when it would say nothing new.
        """
        is_new = bool(evidence.images) and (evidence.taken_back or any(image.is_new for image in evidence.images))
        with self._db.write() as tx:
            if not is_new:
                listed, missing = (facts.get(name, 0) if evidence.images else 0 for name in ("listed", "missing"))
                follows = after_ready(
                    tx, series_id=evidence.series_id, study_id=evidence.study_id, listed=listed, missing=missing
                )
                if follows is Follows.NOTHING:
                    tx.execute("UPDATE series SET open = 0 WHERE id = ?", (evidence.series_id,))
                if follows is not Follows.REVISION:
                    return None
                rule = SHORT
            no_longer_missing(tx, evidence.series_id)
            n = evidence.revision + 1
            revision_id = tx.insert(
                "revision",
                series_id=evidence.series_id,
                n=n,
                images=len(evidence.images),
                evidence=json.dumps({"rule": rule, **facts}, sort_keys=True),
                ready_at=tx.at,
                ready_mono=tx.mono,
                last_image_mono=evidence.last_mono,
                boot=tx.boot,
                rejected=evidence.rejected or None,
            )
            for image in evidence.images:
                tx.execute("INSERT INTO revision_version VALUES (?, ?)", (revision_id, image.version_id))
            more = tx.one(
                "SELECT count(*) AS n FROM instance i JOIN version v ON v.id = i.version_id WHERE i.series_id = ?"
                " AND v.state <> 'rejected' AND v.id NOT IN"
                " (SELECT version_id FROM revision_version WHERE revision_id = ?)",
                (evidence.series_id, revision_id),
            )
            tx.execute(
                "UPDATE series SET revision = ?, open = ? WHERE id = ?",
                (n, int(bool(more and more["n"])), evidence.series_id),
            )
            tx.journal(
                SeriesReady(
                    series=evidence.series_id,
                    revision=revision_id,
                    n=n,
                    images=len(evidence.images),
                    rule=rule,
                    facts=facts,
                ),
                study_id=evidence.study_id,
            )
            return revision_id

    def studies_to_route(self) -> list[int]:
        """Ids of studies with revisions that routing has not seen, oldest first."""
        rows = self._db.all(
            "SELECT DISTINCT s.study_id FROM revision r JOIN series s ON s.id = r.series_id"
            " WHERE r.routed <> 1 ORDER BY +r.id"  # the +: through the index of unrouted ones
        )
        return [row["study_id"] for row in rows]

    def of_study(self, study_id: int) -> list[Revision]:
        """The newest revision of every series of a study, and older ones that are to be routed."""
        return self._select("s.study_id = ? AND (r.n = s.revision OR r.routed <> 1)", study_id)

    def _select(self, condition: str, parameter: int) -> list[Revision]:
        rows = self._db.all(
            "SELECT r.*, s.study_id, s.revision AS newest, s.header, (SELECT count(*) FROM revision_version rv"  # noqa: S608 - literals
            " JOIN version v ON v.id = rv.version_id WHERE rv.revision_id = r.id AND v.removed_at IS NOT NULL)"
            " AS removed FROM revision r"
            f" JOIN series s ON s.id = r.series_id WHERE {condition} ORDER BY r.id",
            (parameter,),
        )
        return [_revision(row, self._db.boot) for row in rows]

    def header(self, series_id: int) -> Header:
        """The header of the first image of a series."""
        row = self._db.one("SELECT header FROM series WHERE id = ?", (series_id,))
        if row is None:
            msg = f"series {series_id} does not exist"
            raise NotFoundError(msg)
        return load(Header, row["header"])

    def study_of(self, series_id: int) -> int | None:
        """The study of a series."""
        row = self._db.one("SELECT study_id FROM series WHERE id = ?", (series_id,))
        return int(row["study_id"]) if row else None

    def version_path(self, version_id: int) -> str:
        """Path in the spool of one version."""
        row = self._db.one("SELECT path FROM version WHERE id = ?", (version_id,))
        if row is None:
            msg = f"version {version_id} does not exist"
            raise NotFoundError(msg)
        return str(row["path"])

    def get(self, revision_id: int) -> Revision:
        """One revision by id."""
        found = self._select("r.id = ?", revision_id)
        if not found:
            msg = f"revision {revision_id} does not exist"
            raise NotFoundError(msg)
        return found[0]

    def owed(self, study_id: int) -> list[Owed]:
        """The not superseded analyses of a study."""
        rows = self._db.all(
            "SELECT a.id, a.package, a.package_version, a.state, a.role, i.role AS input, i.revision_id FROM analysis a"
            " JOIN analysis_input i ON i.analysis_id = a.id WHERE a.study_id = ? AND a.superseded_by IS NULL",
            (study_id,),
        )
        grouped: dict[int, Owed] = {}
        for row in rows:
            have = grouped.get(row["id"])
            inputs = {**(have.inputs if have else {}), row["input"]: row["revision_id"]}
            grouped[row["id"]] = Owed(
                package=row["package"],
                role=Role(row["role"]),
                inputs=inputs,
                version=row["package_version"],
                is_done=row["state"] == "done",
            )
        return list(grouped.values())


def _revision(row: sqlite3.Row, boot: str) -> Revision:
    evidence = json.loads(row["evidence"])
    return Revision(
        id=row["id"],
        series_id=row["series_id"],
        study_id=row["study_id"],
        n=row["n"],
        images=row["images"],
        header=load(Header, row["header"]),
        ready_mono=row["ready_mono"],
        last_image_mono=row["last_image_mono"] if row["boot"] == boot else 0.0,
        is_newest=row["n"] == row["newest"],
        routed=bool(row["routed"]),
        is_rebuilt=evidence["rule"] == REBUILT,
        again=row["routed"] == LOOK_AGAIN,
        removed=row["removed"],
        rejected=RejectionTitle(row["rejected"]) if row["rejected"] else None,
        missing=evidence.get("missing", 0),
        discontinued=evidence.get("discontinued", False),
    )
