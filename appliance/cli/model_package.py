"""``scanside model verify|sign|export``: what makers of packages do. None of it needs a box or its store."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from appliance.cli.common import config_option, opened, read_config
from appliance.commands import Exit, json_option, print_json
from appliance.errors import ConflictError, NotFoundError
from engines.errors import PackageError
from engines.signing import PrivateKey, PublicKey, generate, load_private, load_public

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--trust", type=_FILE, multiple=True, help="Public key (PEM) of a maker; may be repeated.")
@click.option("--unsigned", is_flag=True, help="For makers: check all but the signature.")
@json_option
@click.pass_context
def verify(ctx: click.Context, package: Path, trust: tuple[Path, ...], unsigned: bool, as_json: bool) -> None:  # noqa: FBT001
    """Check PACKAGE (a folder or an archive) as a box does before it installs it, and try it on this machine."""
    if bool(trust) == unsigned:
        msg = "name the maker's key with --trust, or say --unsigned"
        raise click.UsageError(msg)
    _existing(package)
    try:
        keys = [load_public(path) for path in trust]
        with tempfile.TemporaryDirectory(prefix="scanside-") as scratch:
            checked = _check(package, keys, Path(scratch), trusted=unsigned)
    except PackageError as error:
        refuse(ctx, package, error, as_json=as_json)
        return
    if as_json:
        print_json({"valid": True, **checked})
        return
    told = f"signed by {', '.join(checked['signed_by'])}" if checked["signed_by"] else "THE SIGNATURE WAS NOT CHECKED"
    trial = checked["trial"]
    click.echo(
        f"{package}: {checked['name']} {checked['version']} passes; {told}\n"
        f"  digest {checked['digest']}, {len(checked['files'])} files, {len(checked['stages'])} graphs\n"
        f"  here {trial['p50_ms']:.0f} ms p50, {trial['p95_ms']:.0f} ms p95, {trial['peak_mb']:.0f} MB"
        f" ({trial['runs']} runs)"
    )


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--key", "key_files", type=_FILE, multiple=True, help="Private key (PEM); may be repeated.")
@click.option("--new-key", type=_FILE, help="Make a key there (and FILE.pub, to hand to sites), and sign with it.")
@json_option
@click.pass_context
def sign(ctx: click.Context, folder: Path, key_files: tuple[Path, ...], new_key: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Sign the package in FOLDER, once it passes all that a box checks."""
    from engines.package import sign_package

    if bool(key_files) == bool(new_key):
        msg = "name a key with --key, or make one with --new-key"
        raise click.UsageError(msg)
    _existing(folder)
    if new_key is not None and _is_in(new_key, folder):
        msg = f"{new_key} would lie in the package and be handed out with it; keep keys elsewhere"
        raise ConflictError(msg)
    try:
        keys = [load_private(path) for path in key_files]
        checked = _check(folder, [], folder, trusted=True)
        package = sign_package(folder, keys if new_key is None else [_make_key(new_key)])
    except PackageError as error:
        refuse(ctx, folder, error, as_json=as_json)
        return
    if as_json:
        print_json({**checked, "signed_by": list(package.signed_by)})
    else:
        click.echo(f"{folder}: {package.name} {package.version} signed by {', '.join(package.signed_by)}")


@click.command()
@click.argument("package")
@click.option("--output", "-o", "target", type=_FILE, required=True, help="The archive to write.")
@config_option
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    package: str,
    target: Path,
    config_path: Path,
    site: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Write PACKAGE (a folder, NAME of a bundled or installed one, or NAME@VERSION) as one archive."""
    from engines.archive import pack
    from engines.contents import SIGNATURE_NAME
    from engines.package import bundled_packages

    folder = Path(package)
    if not folder.is_dir():
        bundled = bundled_packages()
        folder = bundled[package] if package in bundled else _installed(package, config_path, site)
    try:
        pack(folder, target)
    except PackageError as error:
        refuse(ctx, folder, error, as_json=as_json)
        return
    signed = (folder / SIGNATURE_NAME).is_file()
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    if as_json:
        print_json({"archive": str(target), "sha256": digest, "signed": signed})
    else:
        hint = "" if signed else "; NOT SIGNED: boxes refuse it until 'scanside model sign' was called on its folder"
        click.echo(f"{target}: SHA-256 {digest}{hint}")


def _installed(package: str, config_path: Path, site: Path | None) -> Path:
    """The folder of a package that this box has; of several versions the one that serves, else the newest."""
    from appliance.store.package_files import PackageFiles
    from appliance.store.package_rows import PackageState

    config = read_config(config_path, site)
    with opened(config) as store:
        here = [row for row in store.packages.all() if row.folder and row.state is not PackageState.REMOVED]
    rows = [row for row in here if package in {row.name, f"{row.name}@{row.version}"}]
    if not rows:
        msg = f"{package!r} is neither a folder nor a package of this box; 'scanside model list' shows them"
        raise NotFoundError(msg)
    best = max(rows, key=lambda row: (row.state is PackageState.LIVE, row.id))
    return PackageFiles(config.state_path).path(best.folder)


def _check(package: Path, keys: Sequence[PublicKey], scratch: Path, *, trusted: bool) -> dict[str, Any]:
    """The gate and the trial, as ``install`` has them; an archive is unpacked into ``scratch`` first."""
    from dataclasses import asdict

    from engines.archive import unpack
    from engines.gate import gate_package
    from engines.package import load_package
    from engines.trial import try_package

    folder = package if package.is_dir() else unpack(package, scratch / "package")
    try:
        report = gate_package(folder, keys, trusted=trusted)
        trial = try_package(load_package(folder, keys=keys, trusted=trusted), keys, trusted=trusted)
    except PackageError as error:
        raise PackageError(str(error).replace(str(folder), str(package))) from error
    return {**asdict(report), "trial": asdict(trial)}


def refuse(ctx: click.Context, package: Path, error: PackageError, *, as_json: bool) -> None:
    """Tell every fault on a line of its own, and end as a check that failed."""
    faults = str(error).splitlines()
    if as_json:
        print_json({"valid": False, "package": str(package), "faults": faults, "exit": int(Exit.CHECK_FAILED)})
    else:
        for line in faults:
            click.echo(f"Error: {line}", err=True)
    ctx.exit(int(Exit.CHECK_FAILED))


def _existing(path: Path) -> None:
    if not path.exists():
        msg = f"{path} does not exist"
        raise NotFoundError(msg)


def _is_in(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


def _make_key(path: Path) -> PrivateKey:
    """Write a new private key and, beside it, its public half; neither replaces a file."""
    key = generate(path.stem)
    public = path.with_name(f"{path.name}.pub")
    try:
        for target, text, mode in ((path, key.pem(), 0o600), (public, key.public.pem(), 0o644)):
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
                file.write(text)
    except FileExistsError as error:
        msg = f"{error.filename} exists already; sign with --key, or name another file"
        raise ConflictError(msg) from error
    return key
