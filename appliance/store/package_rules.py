"""The rules of packages' slots, silent times and operating points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import ConflictError, NotFoundError
from appliance.store.database import Transaction
from appliance.store.package_rows import PackageRow, PackageState

if TYPE_CHECKING:
    from engines.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a version begins: silent for so many days and studies before it is live, or for good, or shadow for good."""

    days: float = 7.0
    studies: int = 50
    shadow: bool = False
    #: Silent until another act, however long that takes.
    stays: bool = False

    @property
    def is_at_once(self) -> bool:
        """No silent time at all."""
        return not self.shadow and not self.stays and self.days <= 0 and self.studies <= 0

    @property
    def until(self) -> tuple[float, int] | tuple[None, None]:
        """The days and studies after which it is live by itself; None where it never is."""
        return (None, None) if self.shadow or self.stays else (self.days, self.studies)


def manifest_of(tx: Transaction, row: PackageRow) -> Manifest:
    """The manifest of a version, as it was checked when it was installed.

    Raises:
        PackageError: This software no longer understands it.
    """
    # Here, because it brings numpy with it, and every command imports the store.
    from engines.package import parse_manifest

    found = tx.one("SELECT manifest FROM package WHERE id = ?", (row.id,))
    return parse_manifest(str(found["manifest"] if found else "").encode(), f"{row.name} {row.version}")


def pick(
    rows: Sequence[PackageRow],
    name: str,
    version: str,
    first: Sequence[PackageState],
    then: Sequence[PackageState] = (),
) -> PackageRow:
    """The version that an act means.

    Args:
        rows: All versions of the package.
        name: The package, for messages.
        version: As the person said; empty: the newest in a state of ``first``, else of ``then``, in their order.
        first: Looked through first.
        then: Looked through afterwards.

    Raises:
        NotFoundError: There is no such package or version here.
        ConflictError: No version is meant without saying which.
    """
    here = [row for row in rows if row.state is not PackageState.REMOVED and row.chosen]
    if not here:
        raise NotFoundError(f"no package is named {name!r} here; 'scanside model list' shows those that are")
    told = ", ".join(f"{row.version} ({row.state})" for row in here)
    if version:
        for row in reversed(here):
            if row.version == version:
                return row
        raise NotFoundError(f"{name} has no version {version} here; there are {told}")
    for state in (*first, *then):
        for row in reversed(here):
            if row.state is state:
                return row
    if not first and not then:
        return here[-1]
    raise ConflictError(f"say which version of {name} with --version; there are {told}")


def refuse_known(rows: Sequence[PackageRow], name: str, version: str, digest: str) -> None:
    """Refuse a version that is here.

    Raises:
        ConflictError: It is, or it was, with other contents.
    """
    for row in rows:
        if row.version != version:
            continue
        if row.digest != digest:
            raise ConflictError(
                f"{name} {version} was here with other contents; its maker must give changed contents a new version"
            )
        if row.state is not PackageState.REMOVED:
            raise ConflictError(f"{name} {version} is installed ({row.state}); 'scanside model activate' lets it run")


def gives_way(rows: Sequence[PackageRow]) -> list[PackageRow]:
    """The versions that leave their slot for a new one: all but the one that serves, or did until it was withdrawn.

    Where nothing serves the newest of them stays.

    Raises:
        ConflictError: One of them runs.
    """
    here = sorted((row for row in rows if row.state is not PackageState.REMOVED), key=lambda row: row.state_at)
    serving = next((row for row in here if row.state is PackageState.LIVE), None)
    keep = serving or next((row for row in here if row.is_missed), None) or (here[-1] if here else None)
    leaving = [row for row in here if row is not keep]
    for row in leaving:
        if row.runs:
            raise ConflictError(
                f"both slots of {row.name} are in use: {row.version} is {row.state}; "
                f"'scanside model withdraw {row.name} --version {row.version}' frees its slot"
            )
    return leaving


def check_activation(
    row: PackageRow,
    rows: Sequence[PackageRow],
    manifest: Manifest,
    terms: Terms,
    running: set[str],
    *,
    clinical: bool,
) -> None:
    """Refuse what must not run, or not yet.

    Raises:
        ConflictError: With the next step.
    """
    said = f"{row.name} {row.version}"
    if row.state is PackageState.REMOVED:
        raise ConflictError(f"{said} has no slot any more; install it again")
    if row.state is PackageState.LIVE:
        raise ConflictError(f"{said} is live; 'scanside model withdraw {row.name}' takes it out of service")
    if manifest.template is not None:
        raise ConflictError(f"{said} is a template and cannot be activated: {manifest.template.en}")
    if clinical and manifest.status != "cleared":
        raise ConflictError(f"{said} has status {manifest.status} and cannot run in clinical mode")
    if clinical and not terms.shadow and (terms.days <= 0 or terms.studies <= 0):
        raise ConflictError(
            f"{said}: in clinical mode a version is silent for at least one study and some time before it is live; "
            "give --days and --studies above 0"
        )
    others = [one for one in rows if one.id != row.id and one.runs]
    live = [one for one in others if one.state is PackageState.LIVE]
    for one in others:
        if one not in live:
            raise ConflictError(
                f"{one.name} {one.version} is {one.state} already; "
                f"'scanside model withdraw {one.name} --version {one.version}' ends that first"
            )
    if terms.shadow and not live:
        raise ConflictError(f"{said}: no version of {row.name} is live, so there is nothing to run beside")
    for requirement in manifest.requires:
        if requirement.package not in running:
            raise ConflictError(f"{said} requires {requirement.package}, which does not run here; activate it first")


def must_be_as_seen(row: PackageRow, seen: str) -> None:
    """Nobody else has acted on a version since a person looked at it.

    Args:
        row: The version as it stands now.
        seen: Its ``seen`` as the person saw it; empty: they did not look.

    Raises:
        ConflictError: Somebody, or its silent time, was faster.
    """
    if seen not in {"", row.seen}:
        raise ConflictError(
            f"{row.name} {row.version} has changed since you looked: it is {row.state} since "
            f"{row.state_at:%Y-%m-%d %H:%M:%S} UTC; nothing was done, look again"
        )


def set_point(tx: Transaction, row: PackageRow, finding: str, point: str, reason: str, actor: str) -> str:
    """Write an operating point of a version's closed list. Returns the point that was used until now.

    Raises:
        NotFoundError: The version has no such finding or point.
    """
    manifest = manifest_of(tx, row)
    offered = {one.id: [p.name for p in one.operating_points] for one in manifest.findings}
    if point not in offered.get(finding, []):
        raise NotFoundError(f"{row.name} {row.version} has no operating point {finding}: {point}; it has {offered}")
    before = row.operating_points.get(finding) or manifest.finding(finding).default_point.name
    tx.execute(
        "INSERT INTO operating_point VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (package, version, finding)"
        " DO UPDATE SET point = excluded.point, since_at = excluded.since_at, actor = excluded.actor,"
        " reason = excluded.reason",
        (row.name, row.version, finding, point, tx.at, actor, reason),
    )
    return before


def inherit_points(tx: Transaction, serving: PackageRow | None, row: PackageRow) -> dict[str, str]:
    """Give a version the site's points of the one before it, where its own list has them.

    Returns:
        finding: point that it runs at now, defaults included.
    """
    manifest = manifest_of(tx, row)
    points = {one.id: row.operating_points.get(one.id) or one.default_point.name for one in manifest.findings}
    for one in manifest.findings:
        chosen = serving.operating_points.get(one.id) if serving is not None else None
        names = {point.name for point in one.operating_points}
        if chosen in names and one.id not in row.operating_points:
            points[one.id] = str(chosen)
            reason = f"as version {serving.version if serving else ''}"
            set_point(tx, row, one.id, str(chosen), reason, "system")
    return points
