"""The file that goes back to a box without any network: envelopes, and what its jobs need of the TUF repository."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from appliance.errors import NotFoundError
from appliance.fleet.server.repository import Repository
from appliance.fleet.server.repository_files import METADATA, TARGETS
from appliance.fleet.server.repository_rules import TRUST
from appliance.fleet.server.sticks import Taken
from appliance.fleet.wire_stick import pack_stick


def write_answer(path: Path, taken: Taken, repository: Repository | None = None) -> tuple[str, ...]:
    """Write the file for 'scanside fleet import'; with ``repository``, also the models that its jobs need.

    Returns:
        The names of the repository's files in it.

    Raises:
        NotFoundError: The repository lists no target of a path that a job names.
        ConfigError: The repository is damaged.
        WireError: It would be larger than a stick's file may be.
        OSError: It cannot be written.
    """
    if repository is None:
        pack_stick(path, taken.envelopes, {})
        return ()
    timestamp = path.with_name(f".{path.name}.timestamp")
    try:
        # The timestamp first: what it names is there before it, and stays a while after the next.
        shutil.copyfile(repository.folder / METADATA / "timestamp.json", timestamp)
        files = {f"{METADATA}/{one.name}": one for one in _metadata(repository.folder / METADATA, timestamp)}
        files[f"{METADATA}/timestamp.json"] = timestamp
        files |= _targets(repository, taken.targets)
        pack_stick(path, taken.envelopes, files)
    except FileNotFoundError:
        raise NotFoundError(
            "there is no repository of models yet; 'scanside-fleet model' says how to make it"
        ) from None
    finally:
        timestamp.unlink(missing_ok=True)
    return tuple(sorted(files))


def _metadata(folder: Path, timestamp: Path) -> list[Path]:
    """All roots, and the lists that a timestamp leads to."""
    snapshot = folder / f"{_version(timestamp, 'snapshot.json')}.snapshot.json"
    targets = folder / f"{_version(snapshot, 'targets.json')}.targets.json"
    return [*sorted(folder.glob("*root.json")), snapshot, targets]


def _version(path: Path, of: str) -> int:
    return int(json.loads(path.read_bytes())["signed"]["meta"][of]["version"])


def _targets(repository: Repository, paths: Sequence[str]) -> dict[str, Path]:
    listed = repository.targets()
    found = {}
    for path in {*paths, TRUST}:
        one = listed.get(path)
        if one is None:
            raise NotFoundError(f"a job needs {path}, which no box may fetch; 'scanside-fleet model list' shows those")
        where = f"{TARGETS}/{one.get_prefixed_paths()[0]}"
        found[where] = repository.folder / where
    return found
