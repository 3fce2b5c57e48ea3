"""Installing a signed package: checked, tried on this box, on disk for good, then given its slot in one transaction.

Interrupted at any step the box has the old or the new, never a half: until the transaction the new folder belongs to
nobody and is removed at the next start; afterwards it is whole. What runs meanwhile goes on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.errors import ApplianceError
from appliance.records import Actor
from appliance.store import Store
from appliance.store.package_files import PackageFiles
from appliance.store.packages import NewPackage
from engines.archive import unpack
from engines.contents import MANIFEST_NAME, walk
from engines.errors import EngineError, PackageError
from engines.gate import GateReport, gate_package
from engines.package import Package, load_package
from engines.signing import PublicKey
from engines.trial import TrialReport, try_package

#: It becomes part of a folder's name.
_MAX_VERSION = 64


class PackageRefused(ApplianceError):  # noqa: N818 - an answer, like RejectedInstance
    """A package was not installed; one line per fault: which file, what, how to mend it. What runs goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What this box asks of a package.

    Attributes:
        keys: Whose signatures count.
        ct_deadline_s: A CT must be analysed within this; half of it is what a package may take.
        xray_deadline_s: The same for an X-ray.
        threads: Of one inference; 0 = all cores.
        gate: ``engines.gate.gate_package``; tests give another.
        trial: ``engines.trial.try_package``; the same.
    """

    keys: Sequence[PublicKey]
    ct_deadline_s: float
    xray_deadline_s: float
    threads: int = 0
    gate: Callable[[Path, Sequence[PublicKey]], GateReport] = field(default=gate_package)
    trial: Callable[[Package, Sequence[PublicKey], int], TrialReport] = field(
        default=lambda package, keys, threads: try_package(package, keys, threads=threads)
    )


def install_package(store: Store, source: Path, site: Site, actor: Actor) -> NewPackage:
    """Install a package from a folder or an archive. It runs nowhere until ``Packages.activate``.

    Args:
        store: The box's.
        source: A folder, or an archive as ``scanside model export`` writes it.
        site: What this box asks of it.
        actor: Who installs.

    Raises:
        PackageRefused: It is not signed by a trusted key, altered, hostile, wrong or too slow for this box.
        ConflictError: It is here already, its slots are in use, or another one is being installed.
        StoreError: The disk refuses.
    """
    files = PackageFiles(store.db.path.parent)
    with files.locked():
        files.recover(store.packages.folders())
        incoming = files.incoming()
        try:
            new = _checked(store, files, _bring(source, incoming / "package"), site, source)
            try:
                leaving = store.packages.install(new, actor)
            except BaseException:
                files.remove(new.folder)
                raise
        except EngineError as error:
            raise PackageRefused(str(error).replace(str(incoming / "package"), str(source))) from error
        except OSError as error:
            raise PackageRefused(f"{source}: cannot be kept: {error.strerror}; free space on the disk") from error
        finally:
            files.discard(incoming)
        for folder in leaving:
            files.remove(folder)
    return new


def _bring(source: Path, target: Path) -> Path:
    """A copy of our own, which nobody changes after it was checked."""
    if not source.is_dir():
        return unpack(source, target)
    target.mkdir()
    for name in walk(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name, follow_symlinks=False)
    return target


def _checked(store: Store, files: PackageFiles, folder: Path, site: Site, source: Path) -> NewPackage:
    report = site.gate(folder, site.keys)
    store.packages.refuse_known(report.name, report.version, report.digest)
    threads = site.threads or len(os.sched_getaffinity(0))
    if len(report.version) > _MAX_VERSION:
        raise PackageError(f"{source}: the version {report.version!r} is longer than {_MAX_VERSION} characters")
    package = load_package(folder, keys=site.keys)
    trial = site.trial(package, site.keys, threads)
    is_ct = any("CT" in feed.input.modality for feed in package.manifest.inputs)
    deadline_s = site.ct_deadline_s if is_ct else site.xray_deadline_s
    if trial.p95_ms > deadline_s * 1000 / 2:
        raise PackageError(
            f"{source}: {package.name} {package.version} takes {trial.p95_ms / 1000:.1f} s on this box, more than "
            f"half of its deadline ({deadline_s / 2:g} s); it needs a faster box or a smaller model"
        )
    manifest = package.data(MANIFEST_NAME).decode("utf-8")
    return NewPackage(
        name=package.name,
        version=package.version,
        digest=package.digest,
        folder=files.place(folder, package.name, package.version, package.digest),
        manifest=manifest,
        signed_by=package.signed_by,
        p95_ms=trial.p95_ms,
    )
