"""The TUF repository in the server's folder, from which boxes fetch models and learn whose signatures count.

Whatever is written becomes true by one rename, in such an order that a reader between any two steps, or a server that
was killed there, has one whole state: blobs, targets, snapshot, timestamp; a new root last, when the others already
bear the signatures that it asks for. What was replaced stays for a week, for those who began to read it.

Release keys are given to a call and kept nowhere. Two processes (the command line, the server's tick) take turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.metadata import (  # type: ignore[attr-defined]  # its __all__ has not all
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.device.identity import Trust
from appliance.fleet.server import repository_rules as rules
from appliance.fleet.server.repository_files import TIMESTAMP, RepositoryFiles, State, versioned
from appliance.fleet.server.repository_rules import RENEW, TRUST, Expiry
from engines.signing import PrivateKey

#: Below the server's folder.
TUF = "tuf"
_WAIT_S = 10.0


class Repository:
    """The repository of one server."""

    def __init__(self, folder: Path, *, wait_s: float = _WAIT_S) -> None:
        """Nothing is opened or made.

        Args:
            folder: ``tuf`` of the server's folder.
            wait_s: How long to wait for another process that changes it.
        """
        self.folder = folder
        self._files = RepositoryFiles(folder, wait_s)

    def exists(self) -> bool:
        """Whether it was ever made."""
        return self._files.exists()

    # By release keys -------------------------------------------------------------------------------------------------

    def create(self, trust: Trust, signers: Sequence[PrivateKey], online: PrivateKey, now: datetime) -> None:
        """Make it, with ``trust`` and no model.

        Raises:
            ConflictError: It is there, or too few release keys sign.
            ConfigError: Too few release keys are known, or ``online`` is not of ``trust``.
        """
        root = rules.new_root(trust, 1, now)
        rules.check_release([root], signers, trust)
        rules.check_online([root], online)
        self._files.make()
        with self._files.alone():
            if self.exists():
                raise ConflictError(f"{self.folder} is there already; 'scanside-fleet key publish' changes its keys")
            self._write_lists({TRUST: self._files.put_trust(trust)}, signers, online, now)
            self._write_root(root, signers)

    def put(self, source: Path, path: str, custom: Mapping[str, Any]) -> TargetFile:
        """Bring a file in; no box sees it before ``publish`` lists it. The same again changes nothing.

        Raises:
            ConfigError: It cannot be read or kept, or ``path`` is no path of a target.
        """
        sha256, size = self._files.put(source, path)
        return rules.file_target(path, sha256, size, custom)

    def publish(
        self,
        signers: Sequence[PrivateKey],
        online: PrivateKey,
        now: datetime,
        *,
        add: Sequence[TargetFile] = (),
        withdraw: Sequence[str] = (),
        trust: Trust | None = None,
    ) -> int:
        """Change the list of targets, the keys, or nothing but the dates; returns the version of the root that holds.

        Args:
            signers: Release keys; where the keys change, enough of the old ones and enough of the new ones.
            online: The server's key.
            now: When.
            add: Made by ``put``; one of the same path is replaced.
            withdraw: Paths that are listed no more.
            trust: Whose signatures count from now on; as before where None.

        Raises:
            NotFoundError: There is no repository, or no target of a path to withdraw.
            ConflictError: Too few release keys sign.
            ConfigError: ``online`` is unknown to the repository, or a file of it is damaged.
        """
        files = self._files
        with files.alone():
            state = files.state()
            told = trust or files.trust(state)
            root = self._next_root(state, told, signers, online, now)
            listed = dict(state.targets.targets)
            for path in withdraw:
                if listed.pop(path, None) is None:
                    raise NotFoundError(f"no target is called {path!r}; 'scanside-fleet model list' shows them")
            listed |= {one.path: one for one in add}
            listed[TRUST] = files.put_trust(told)
            left = [files.blob(one) for path, one in state.targets.targets.items() if listed.get(path) != one]
            self._write_lists(listed, signers, online, now, state)
            if root is not state.root:
                self._write_root(root, signers)
            files.replaced(state, left)
            return root.version

    def refuse(self, trust: Trust, signers: Sequence[PrivateKey], online: PrivateKey, now: datetime) -> None:
        """Raise what ``publish`` would raise of keys, and write nothing."""
        self._next_root(self._files.state(), trust, signers, online, now)

    # By the server's own key -----------------------------------------------------------------------------------------

    def refresh(self, online: PrivateKey, now: datetime, *, force: bool = False) -> bool:
        """Sign snapshot and timestamp anew where they end soon; returns whether.

        Args:
            online: The server's key.
            now: When.
            force: Sign in any case, as after a start: a restored backup may be older than what boxes have seen.

        Raises:
            NotFoundError: There is no repository.
            ConfigError: ``online`` is unknown to the repository, or a file of it is damaged.
            TransientError: Another process is at it.
        """
        files = self._files
        with files.alone():
            state = files.state()
            files.copy_root(state.root)
            renew_snapshot = force or state.snapshot.expires - now < RENEW[Snapshot.type]
            if not renew_snapshot and state.timestamp.expires - now >= RENEW[Timestamp.type]:
                return False
            rules.check_online([state.root], online)
            data, version = state.snapshot_bytes, state.snapshot.version
            if renew_snapshot:
                version = rules.next_version(version, now)
                data = self._write_snapshot(state.targets_bytes, state.targets.version, version, online, now)
            self._write_timestamp(data, version, rules.next_version(state.timestamp.version, now), online, now)
            if renew_snapshot:
                files.replaced(state, [])
            files.tidy(now)
        return True

    def check(self, now: datetime) -> tuple[Expiry, ...]:
        """When each role ends, the next first.

        Raises:
            NotFoundError: There is no repository.
            ConfigError: A file of it is damaged.
        """
        state = self._files.state()
        return rules.expiries([state.root, state.targets, state.snapshot, state.timestamp], now)

    def targets(self) -> dict[str, TargetFile]:
        """What boxes may fetch, by path.

        Raises:
            NotFoundError: There is no repository.
            ConfigError: A file of it is damaged.
        """
        return dict(self._files.state().targets.targets)

    def trust(self) -> Trust:
        """Whose signatures count, as boxes that ask are told.

        Raises:
            NotFoundError: There is no repository.
            ConfigError: A file of it is damaged.
        """
        return self._files.trust(self._files.state())

    # Steps -----------------------------------------------------------------------------------------------------------

    @staticmethod
    def _next_root(
        state: State, trust: Trust, signers: Sequence[PrivateKey], online: PrivateKey, now: datetime
    ) -> Root:
        """The root that holds, or the one after it where keys change or it ends; checked against who signs."""
        root = state.root
        if not rules.says_same(root, trust) or root.expires - now < RENEW[Root.type]:
            root = rules.new_root(trust, root.version + 1, now)
        roots = [state.root] if root is state.root else [state.root, root]
        rules.check_release(roots, signers, trust)
        rules.check_online(roots, online)
        return root

    def _write_lists(
        self,
        listed: Mapping[str, TargetFile],
        signers: Sequence[PrivateKey],
        online: PrivateKey,
        now: datetime,
        state: State | None = None,
    ) -> None:
        before = (0, 0, 0)
        if state is not None:
            before = (state.targets.version, state.snapshot.version, state.timestamp.version)
        targets, snapshot, timestamp = (rules.next_version(one, now) for one in before)
        data = rules.signed_bytes(rules.new_targets(listed, targets, now), signers)
        self._files.write(self._files.metadata / versioned(targets, Targets.type), data)
        data = self._write_snapshot(data, targets, snapshot, online, now)
        self._write_timestamp(data, snapshot, timestamp, online, now)

    def _write_snapshot(
        self, targets: bytes, targets_version: int, version: int, online: PrivateKey, now: datetime
    ) -> bytes:
        data = rules.signed_bytes(rules.new_snapshot(targets, targets_version, version, now), [online])
        self._files.write(self._files.metadata / versioned(version, Snapshot.type), data)
        return data

    def _write_timestamp(
        self, snapshot: bytes, snapshot_version: int, version: int, online: PrivateKey, now: datetime
    ) -> None:
        made = rules.new_timestamp(snapshot, snapshot_version, version, now)
        self._files.write(self._files.metadata / TIMESTAMP, rules.signed_bytes(made, [online]))

    def _write_root(self, root: Root, signers: Sequence[PrivateKey]) -> None:
        name = versioned(root.version, Root.type)
        self._files.write(self._files.metadata / name, rules.signed_bytes(root, signers))
        self._files.copy_root(root)
