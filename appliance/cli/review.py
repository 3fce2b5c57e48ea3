"""``scanside review``: what waits for a radiologist, and signed reviews as labels for training."""

from __future__ import annotations

import dataclasses
import getpass
import json
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from appliance.cli.common import config_option, me, opened, read_config
from appliance.commands import Group, NotAllowed, json_option, print_json, print_table
from appliance.dicom.deidentify import Deidentifier, HeldBackError
from appliance.errors import ConflictError
from appliance.records import Actor, ActorKind, Region, ReviewedFinding, UserRole
from appliance.store import Store
from appliance.store.accounts import Account
from appliance.store.labels import Label, LabelAnalysis
from appliance.store.readmodels import to_json

#: Who may take data with names out of the box, and who may stand beside it.
RELEASERS = frozenset({UserRole.RADIOLOGIST, UserRole.ADMINISTRATOR})
LABELS, HELD_BACK, ABOUT = "labels.jsonl", "held-back.jsonl", "export.json"


@click.group(cls=Group)
def review() -> None:
    """Reviews: what waits for a radiologist, and labels for training."""


@review.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10000))
@config_option
@json_option
def list_(limit: int, config_path: Path, site: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Studies that wait for a review, most urgent first."""
    with opened(read_config(config_path, site)) as store:
        waiting = store.reviews.queue(limit)
        store.audit.accessed("reviews", me())
    if as_json:
        print_json({"waiting": to_json(waiting)})
        return
    print_table(
        "Waiting for a review (times in UTC)",
        ["Study", "Why", "Category", "Since", "Asked by"],
        [
            [
                str(one.study_id),
                one.why,
                str(one.category or ""),
                one.since_at.strftime("%Y-%m-%d %H:%M:%S"),
                one.asked_by,
            ]
            for one in waiting
        ],
        "No study waits for a review.",
    )


@review.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder that is not there, or is empty.")
@click.option("--since", default="", metavar="DATE", help="Only what was signed from this day on (2026-03-31).")
@click.option("--package", default="", help="Only analyses of this package.")
@click.option("--identified", is_flag=True, help="With names and original files. Needs --by, --second and --reason.")
@click.option("--reason", default="", help="Why data with names leave the box; stands in the journal.")
@click.option("--by", "first", default="", metavar="ACCOUNT", help="Who exports: a radiologist or administrator.")
@click.option("--second", default="", metavar="ACCOUNT", help="Another one, who stands beside it.")
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The passwords of both, a line each, where no terminal asks for them.",
)
@config_option
@json_option
def export(
    out: Path,
    since: str,
    package: str,
    identified: bool,  # noqa: FBT001
    reason: str,
    first: str,
    second: str,
    password_file: Path | None,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Signed reviews and their images as labels for training: labels.jsonl and images.

    De-identified unless --identified: images are built anew from a short list of attributes, and those of which that
    cannot be proven are held back and listed with the reason.
    """
    begin = _day(since)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConflictError(f"{out} is not an empty folder; name another one")
    with opened(read_config(config_path, site)) as store:
        actor, beside = (me(), None)
        if identified:
            actor, beside = _release(store, first, second, reason, password_file)
        labels = store.labels.read(begin, package)
        out.mkdir(parents=True, exist_ok=True)
        writer: _Writer = _Identified(store, out) if identified else _Anonymous(store, out)
        done = False
        try:
            for label in labels:
                writer.add(label)
            writer.close({"identified": identified, "package": package, "since": since})
            done = True
        finally:
            # What was written is out, whether or not the rest came.
            if done or writer.count.images or writer.count.labels:
                store.labels.exported(
                    actor,
                    identified=identified,
                    reviews=writer.count.labels,
                    images=writer.count.images,
                    held_back=writer.count.held_back,
                    package=package,
                    reason=reason,
                    second=beside.full_name if beside else "",
                )
    if as_json:
        print_json({"out": str(out), "identified": identified, **dataclasses.asdict(writer.count)})
        return
    count = writer.count
    click.echo(f"{count.labels} reviewed studies and {count.images} images written to {out}")
    if count.held_back:
        click.echo(f"{count.held_back} images held back; {out / HELD_BACK} says why")


@dataclass(slots=True)
class _Count:
    labels: int = 0
    images: int = 0
    held_back: int = 0


@dataclass(slots=True)
class _Files:
    """What became of the images of one label: by SOP Instance UID."""

    names: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


class _Writer(ABC):
    """Writes one export."""

    def __init__(self, store: Store, out: Path) -> None:
        self.count = _Count()
        self._store = store
        self._out = out
        self._lines: list[str] = []
        self._held: list[str] = []

    def add(self, label: Label) -> None:
        """One reviewed study."""
        files = self._images(label)
        self._lines.append(json.dumps(self._label(label, files), ensure_ascii=False, sort_keys=True))
        self.count.labels += 1
        for uid, reason in files.reasons.items():
            self._held.append(json.dumps(self._held_line(label, uid, reason), ensure_ascii=False, sort_keys=True))
            self.count.held_back += 1

    def close(self, about: Mapping[str, Any]) -> None:
        """Write the lists."""
        (self._out / LABELS).write_text("".join(f"{line}\n" for line in self._lines), "utf-8")
        (self._out / HELD_BACK).write_text("".join(f"{line}\n" for line in self._held), "utf-8")
        text = json.dumps({**about, **dataclasses.asdict(self.count), "schema": 1}, indent=2, sort_keys=True)
        (self._out / ABOUT).write_text(f"{text}\n", "utf-8")

    def _images(self, label: Label) -> _Files:
        files = _Files()
        for image in {one.sop_instance_uid: one for analysis in label.analyses for one in analysis.images}.values():
            uid = image.sop_instance_uid
            if not image.path:
                files.reasons[uid] = "it has left this box"
                continue
            try:
                files.names[uid] = self._image(label, self._store.spool.path(image.path), self.count.images + 1)
            except HeldBackError as error:
                files.reasons[uid] = str(error)
            except OSError as error:
                files.reasons[uid] = f"its file cannot be read ({type(error).__name__})"
            else:
                self.count.images += 1
        return files

    @abstractmethod
    def _image(self, label: Label, path: Path, n: int) -> str: ...

    @abstractmethod
    def _label(self, label: Label, files: _Files) -> dict[str, Any]: ...

    @abstractmethod
    def _held_line(self, label: Label, uid: str, reason: str) -> dict[str, Any]: ...

    def _judged(self, label: Label, files: _Files) -> dict[str, Any]:
        """What a package said and a person signed: codes and numbers, nobody's words."""
        review = label.review
        return {
            "version": review.version,
            "decision": str(review.decision),
            "reason": str(review.reason) if review.reason else None,
            "role": review.role,
            "sampled": label.is_sampled,
            "analyses": [self._analysis(analysis, label, files) for analysis in label.analyses],
        }

    def _analysis(self, analysis: LabelAnalysis, label: Label, files: _Files) -> dict[str, Any]:
        uids = [image.sop_instance_uid for image in analysis.images]
        return {
            "package": analysis.package,
            "package_version": analysis.package_version,
            "outcome": analysis.outcome,
            "images": [files.names[uid] for uid in uids if uid in files.names],
            "held_back": sum(uid in files.reasons for uid in uids),
            "scores": [
                {
                    "finding": finding.id,
                    "score": finding.score,
                    "operating_point": finding.operating_point,
                    "threshold": finding.threshold,
                    "flagged": finding.flagged,
                }
                for finding in analysis.findings
            ],
            "labels": [_said(one, files) for one in label.review.of(analysis.id)],
        }


class _Anonymous(_Writer):
    """De-identified. Names of files are numbers; what links studies of one patient is made for this export alone."""

    def __init__(self, store: Store, out: Path) -> None:
        super().__init__(store, out)
        self._deidentifier = Deidentifier()
        (out / "images").mkdir()

    def _image(self, label: Label, path: Path, n: int) -> str:
        name = f"images/{n:06d}.dcm"
        ds = self._deidentifier.image(path, self._subject(label))
        self._deidentifier.write(ds, self._out / name)
        return name

    def _label(self, label: Label, files: _Files) -> dict[str, Any]:
        return {"subject": self._subject(label), "study": self._study(label), **self._judged(label, files)}

    def _held_line(self, label: Label, uid: str, reason: str) -> dict[str, Any]:
        del uid
        return {"study": self._study(label), "reason": reason}

    def _subject(self, label: Label) -> str:
        return self._deidentifier.name("P", json.dumps(label.identity.patient_key))

    def _study(self, label: Label) -> str:
        return self._deidentifier.name("S", str(label.study_id))


class _Identified(_Writer):
    """With names, original files and everybody's words."""

    def __init__(self, store: Store, out: Path) -> None:
        super().__init__(store, out)
        out.chmod(0o700)
        (out / "images").mkdir(mode=0o700)

    def _image(self, label: Label, path: Path, n: int) -> str:
        del label
        name = f"images/{n:06d}.dcm"
        shutil.copyfile(path, self._out / name)
        return name

    def _label(self, label: Label, files: _Files) -> dict[str, Any]:
        review = label.review
        return {
            "study": label.study_id,
            "identity": dataclasses.asdict(label.identity),
            "note": review.note,
            "reviewer": review.reviewer,
            "organization": review.organization,
            "signed_at": review.signed_at.isoformat(),
            **self._judged(label, files),
        }

    def _held_line(self, label: Label, uid: str, reason: str) -> dict[str, Any]:
        return {"study": label.study_id, "sop_instance_uid": uid, "reason": reason}


def _said(said: ReviewedFinding, files: _Files) -> dict[str, Any]:
    return {
        "finding": said.finding or None,
        "code": said.code or None,
        "presence": str(said.presence),
        "flagged": said.flagged,
        "right": said.is_right,
        "added": said.added,
        "side": str(said.side) if said.side else None,
        "category": said.category,
        "region": _region(said.region, files) if said.region else None,
    }


def _region(region: Region, files: _Files) -> dict[str, Any]:
    return {
        "image": files.names.get(region.sop_instance_uid),
        "frame": region.frame_number,
        "kind": region.kind,
        "points": [list(point) for point in region.points],
    }


def _release(store: Store, first: str, second: str, reason: str, password_file: Path | None) -> tuple[Actor, Account]:
    """Two people who may, by their passwords, and why.

    Raises:
        NotAllowed: One of them may not, or is not who they say.
    """
    if not (first and second and reason.strip()):
        raise click.UsageError("an identified export needs --by, --second and --reason")
    given = password_file.read_text("utf-8").splitlines() if password_file else []
    if password_file and len(given) < 2:
        raise click.UsageError(f"{password_file} must hold two lines, the passwords of --by and --second")
    if not password_file and not sys.stdin.isatty():
        raise click.UsageError("no terminal asks for the passwords; name a file with --password-file")
    people = []
    for n, name in enumerate((first, second)):
        password = given[n] if given else getpass.getpass(f"Password of {name}: ")
        people.append(_proven(store, name, password))
    if people[0].id == people[1].id:
        raise NotAllowed("the second person must be another one than the first")
    who = people[0]
    return Actor(kind=ActorKind.PERSON, name=who.full_name, role=str(who.role)), people[1]


def _proven(store: Store, name: str, password: str) -> Account:
    from appliance.web.passwords import Passwords

    found = store.accounts.by_name(name)
    account, kept = found or (None, "")
    if not Passwords().fits(kept, password) or account is None or not account.is_active:
        store.audit.sign_in_failed("password", account.name if account else "")
        raise NotAllowed(f"{name}: name or password is wrong, or the account is switched off")
    if account.role not in RELEASERS:
        raise NotAllowed(f"{name} is {account.role}; data with names leave by a radiologist or administrator only")
    return account


def _day(text: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").astimezone()
    except ValueError as error:
        raise click.UsageError(f"{text!r} is no date; write 2026-03-31, in the box's time zone") from error
