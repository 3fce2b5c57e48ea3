"""What the server's TUF repository says (theupdateframework.github.io/specification): rules without a disk.

Roles and keys follow ``Trust``, which says who signs what boxes obey: root and targets are signed by the release keys,
snapshot and timestamp by the server's online key. So the repository and the boxes never mean different keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]  # its __all__ has not all
from tuf.api.metadata import (  # type: ignore[attr-defined]  # the same
    Metadata,
    MetaFile,
    Role,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from appliance.errors import ConfigError, ConflictError
from appliance.fleet.device.identity import Trust
from engines.signing import PrivateKey, PublicKey

#: The target that says who signs what boxes obey: a ``Trust`` as JSON.
TRUST = "trust.json"
ROLES = (Root.type, Targets.type, Snapshot.type, Timestamp.type)
#: How long each role holds from its signing. What is over blocks new installations, never what runs.
LIFE = {
    Root.type: timedelta(days=730),
    Targets.type: timedelta(days=180),
    Snapshot.type: timedelta(days=30),
    Timestamp.type: timedelta(days=7),
}
#: A role with less than this before it is signed anew: snapshot and timestamp by the server, root with the next change.
RENEW = {Root.type: timedelta(days=365), Snapshot.type: timedelta(days=15), Timestamp.type: timedelta(days=6)}
#: With less than this before it, somebody is told.
SOON = {
    Root.type: timedelta(days=90),
    Targets.type: timedelta(days=30),
    Snapshot.type: timedelta(days=10),
    Timestamp.type: timedelta(days=3),
}


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a role of the repository ends."""

    role: str
    at: datetime
    left: timedelta

    @property
    def is_soon(self) -> bool:
        """Whether somebody must act, or the server has not."""
        return self.left < SOON[self.role]

    @property
    def is_over(self) -> bool:
        """Whether boxes take nothing new any more."""
        return self.left <= timedelta(0)


def tuf_key(key: PublicKey) -> SSlibKey:
    """A key as TUF writes it, under the id that the specification computes."""
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(key.raw))


def model_target(package: str, version: str) -> str:
    """Path of a model among the targets; no version has a "_", and a job's ``target`` takes no "+"."""
    return f"models/{package}/{version.replace('+', '_')}.zip"


def bytes_target(path: str, data: bytes) -> TargetFile:
    """A small target that is made here."""
    return TargetFile(len(data), {"sha256": hashlib.sha256(data).hexdigest()}, path)


def file_target(path: str, sha256: str, size: int, custom: Mapping[str, Any]) -> TargetFile:
    """A target and what stands beside its hash, under ``custom.scanside``."""
    return TargetFile(size, {"sha256": sha256}, path, {"custom": {"scanside": dict(custom)}})


def next_version(before: int, now: datetime) -> int:
    """Of timestamp, snapshot and targets: above the one before, and not below the clock's seconds.

    So a server that was restored from an older backup goes on above what boxes have seen, which they would else refuse
    as rolled back.
    """
    return max(before + 1, int(now.timestamp()))


def new_root(trust: Trust, version: int, now: datetime) -> Root:
    """The root that says what ``trust`` says.

    Raises:
        ConfigError: There are fewer release keys than must sign.
    """
    release, online = trust.release_keys(), trust.online_keys()
    if len(release) < trust.release_threshold:
        raise ConfigError(
            f"release_threshold is {trust.release_threshold}, and {len(release)} release keys are known; make one with"
            " 'scanside-fleet key new FILE' and add it with 'scanside-fleet key add FILE.pub --name WHOSE'"
        )
    offline = [tuf_key(key) for key in release]
    own = [tuf_key(key) for key in online]
    roles = {
        Root.type: _role(offline, trust.release_threshold),
        Targets.type: _role(offline, trust.release_threshold),
        Snapshot.type: _role(own, 1),
        Timestamp.type: _role(own, 1),
    }
    keys = {key.keyid: key for key in (*offline, *own)}
    return Root(version, expires=now + LIFE[Root.type], keys=dict(keys), roles=roles, consistent_snapshot=True)


def says_same(root: Root, trust: Trust) -> bool:
    """Whether a root has the keys and thresholds of ``trust``."""
    wanted = new_root(trust, root.version, root.expires)
    return all(
        (set(root.roles[role].keyids), root.roles[role].threshold)
        == (set(wanted.roles[role].keyids), wanted.roles[role].threshold)
        for role in ROLES
    )


def new_targets(targets: Mapping[str, TargetFile], version: int, now: datetime) -> Targets:
    """The list of what boxes may fetch."""
    return Targets(version, expires=now + LIFE[Targets.type], targets=dict(targets))


def new_snapshot(targets: bytes, targets_version: int, version: int, now: datetime) -> Snapshot:
    """Which list holds: ``targets`` are its bytes."""
    meta = {"targets.json": MetaFile.from_data(targets_version, targets, ["sha256"])}
    return Snapshot(version, expires=now + LIFE[Snapshot.type], meta=meta)


def new_timestamp(snapshot: bytes, snapshot_version: int, version: int, now: datetime) -> Timestamp:
    """That this is the newest: ``snapshot`` are the bytes of what is."""
    meta = MetaFile.from_data(snapshot_version, snapshot, ["sha256"])
    return Timestamp(version, expires=now + LIFE[Timestamp.type], snapshot_meta=meta)


def signed_bytes(signed: Signed, signers: Sequence[PrivateKey]) -> bytes:
    """A role's file, signed by every key."""
    metadata: Metadata[Any] = Metadata(signed)
    for key in signers:
        private = Ed25519PrivateKey.from_private_bytes(key.raw)
        metadata.sign(CryptoSigner(private, tuf_key(key.public)), append=True)
    return metadata.to_bytes()


def check_online(roots: Sequence[Root], online: PrivateKey) -> None:
    """Refuse a server's key that boxes would not take.

    Raises:
        ConfigError: One of the roots does not name it.
    """
    if any(tuf_key(online.public).keyid not in root.roles[Timestamp.type].keyids for root in roots):
        raise ConfigError(
            f"the repository does not know the server's key {online.public.keyid}; call 'scanside-fleet key publish"
            " --key FILE', or put keys/online.key back from a backup"
        )


def check_release(roots: Sequence[Root], signers: Sequence[PrivateKey], trust: Trust) -> None:
    """Refuse a signature that boxes would not take, before anything is written.

    Args:
        roots: The root that holds, and the one to come where there is one: enough keys of each must sign.
        signers: The keys at hand.
        trust: By whose names the missing ones are told.

    Raises:
        ConflictError: Too few of the keys that must sign are at hand, or one has no say.
    """
    given = {tuf_key(key.public).keyid for key in signers}
    known = {keyid for root in roots for keyid in root.roles[Root.type].keyids}
    for key in signers:
        if tuf_key(key.public).keyid not in known:
            raise ConflictError(
                f"{key.name or 'the key'} ({key.public.keyid}) is no release key of this server; 'scanside-fleet key"
                " list' shows them"
            )
    for root in roots:
        role: Role = root.roles[Root.type]
        have = len(given & set(role.keyids))
        if have < role.threshold:
            ids = {tuf_key(key).keyid: key.keyid for key in trust.release_keys()}
            missing = ", ".join(sorted(ids.get(one, f"{one[:16]} (as TUF counts)") for one in role.keyids))
            which = "that hold until now" if len(roots) > 1 and root is roots[0] else "of this server"
            raise ConflictError(
                f"{have} of {role.threshold} release keys {which} are named; name each file by --key (known: {missing})"
            )


def expiries(signed: Sequence[Signed], now: datetime) -> tuple[Expiry, ...]:
    """When each role ends, the next first."""
    found = [Expiry(one.type, one.expires, one.expires - now) for one in signed]
    return tuple(sorted(found, key=lambda one: one.left))


def _role(keys: Sequence[SSlibKey], threshold: int) -> Role:
    return Role([key.keyid for key in keys], threshold)
