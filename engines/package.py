"""A package is data in a folder: ``model.yaml``, its ONNX files, card, metrics, golden cases. Never Python.

Rules of loading:
- a package inside the installed wheel (``engines/models``) is trusted; any other needs ``SIGNATURE.json``, by a key
  that the site trusts, over every other file of the folder; a test or a maker's tool may hand ``trusted=True``;
- the signature is checked before anything else is parsed;
- every complaint about ``model.yaml`` names its line;
- the digest covers ``model.yaml`` and the ONNX files; the bytes that are used are the bytes that were digested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from engines.contents import (
    MANIFEST_NAME,
    PAYLOAD_TYPE,
    SIGNATURE_NAME,
    coverage_faults,
    file_facts,
    parse_statement,
    read_file,
    statement,
    walk,
)
from engines.errors import PackageError, SignatureError
from engines.heads import HEADS
from engines.manifest import Manifest, Step
from engines.preprocess import PREPROCESSORS
from engines.signing import MAX_ENVELOPE_BYTES, PrivateKey, PublicKey, Verified, sign, verify

_MANIFEST_BYTES = 256 * 1024
_MAX_DEPTH = 32
#: How a text begins that ``scanside model new`` leaves to the maker.
FILL_IN = "fill in:"
_BUNDLED = Path(__file__).resolve().parent / "models"


@dataclass(frozen=True, slots=True)
class Package:
    """A loaded package.

    Attributes:
        path: Its folder.
        manifest: Its checked ``model.yaml``.
        digest: SHA-256 over the sorted (file name, SHA-256) pairs of ``model.yaml`` and the ONNX files.
        files: SHA-256 by relative name, of every file but the signature.
        signed_by: Ids of the trusted keys that signed it; empty for a bundled package.
    """

    path: Path
    manifest: Manifest
    digest: str
    files: dict[str, str]
    signed_by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The package's name."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The package's version."""
        return self.manifest.version

    def read_onnx(self, index: int = 0) -> bytes:
        """The ONNX bytes of one stage.

        Raises:
            PackageError: The file was altered since the package was loaded.
        """
        return self.data(self.manifest.stages[index].onnx)

    def data(self, name: str) -> bytes:
        """The bytes of one of ``files``, by its relative name.

        Raises:
            PackageError: The package has no such file, or it was altered since the package was loaded.
        """
        if name not in self.files:
            raise PackageError(f"{self.path}: the package has no file {name!r}")
        data = read_file(self.path / name)
        if hashlib.sha256(data).hexdigest() != self.files[name]:
            raise PackageError(f"{self.path / name} was altered after the package was loaded; load it again")
        return data


def bundled_packages() -> dict[str, Path]:
    """The folders of the packages that came with this installation, by name; each folder is called like its package."""
    return {p.parent.name: p.parent for p in sorted(_BUNDLED.glob(f"*/{MANIFEST_NAME}"))}


def load_package(folder: Path, *, keys: Sequence[PublicKey] = (), trusted: bool = False) -> Package:
    """Read and check a package; no graph is opened.

    Args:
        folder: The package's folder.
        keys: Whose signatures count.
        trusted: For tests and for the tools that make packages; nothing that a site can set reaches it.

    Raises:
        SignatureError: It is not signed by one of ``keys``.
        PackageError: A file is altered, missing, not signed or a link, or ``model.yaml`` breaks the schema.
    """
    folder = folder.resolve()
    names = walk(folder)
    needs_signature = not (trusted or folder.parent == _BUNDLED)
    verified = _verify(folder, keys) if needs_signature else None
    found = {name: file_facts(folder / name) for name in names if name != SIGNATURE_NAME}
    signed = parse_statement(verified.payload) if verified is not None else None
    if signed is not None and (faults := coverage_faults(signed, found)):
        raise PackageError("\n".join(f"{folder}: {line}" for line in faults))
    manifest_path = folder / MANIFEST_NAME
    text = read_file(manifest_path, _MANIFEST_BYTES)
    files = {name: facts.sha256 for name, facts in found.items()}
    if hashlib.sha256(text).hexdigest() != files.get(MANIFEST_NAME):
        raise PackageError(f"{manifest_path} was altered while the package was loaded; load it again")
    manifest = parse_manifest(text, str(manifest_path))
    if signed is not None and (signed.name, signed.version) != (manifest.name, manifest.version):
        raise PackageError(
            f"{folder}: signed as {signed.name} {signed.version}, but {MANIFEST_NAME} says {manifest.name} "
            f"{manifest.version}; sign the package again"
        )
    run = sorted({MANIFEST_NAME, *(stage.onnx for stage in manifest.stages)})
    missing = [name for name in run if name not in files]
    if missing:
        raise PackageError(f"{folder / missing[0]} is missing or is no plain file; {MANIFEST_NAME} names it")
    listed = "".join(f"{name}\n{files[name]}\n" for name in run)
    digest = hashlib.sha256(listed.encode()).hexdigest()
    return Package(folder, manifest, digest, files, verified.keyids if verified is not None else ())


def sign_package(folder: Path, keys: Sequence[PrivateKey]) -> Package:
    """Write ``SIGNATURE.json`` over every file of a folder, replacing one that is there.

    Raises:
        PackageError: The folder is no package.
    """
    package = load_package(folder, trusted=True)
    found = {name: file_facts(package.path / name) for name in package.files}
    envelope = sign(PAYLOAD_TYPE, statement(package.name, package.version, found), keys)
    fresh = package.path / f"{SIGNATURE_NAME}.new"
    fresh.write_bytes(envelope)
    fresh.replace(package.path / SIGNATURE_NAME)
    return load_package(folder, keys=[key.public for key in keys])


def _verify(folder: Path, keys: Sequence[PublicKey]) -> Verified:
    path = folder / SIGNATURE_NAME
    if not path.is_file():
        raise SignatureError(
            f"{folder} is not signed: {SIGNATURE_NAME} is missing. Take the package as its maker exported it, or sign "
            "your own with 'scanside model sign'"
        )
    if not keys:
        raise SignatureError(f"{path}: no key is trusted here; name the maker's public key under trusted_keys")
    try:
        return verify(read_file(path, MAX_ENVELOPE_BYTES), PAYLOAD_TYPE, keys)
    except SignatureError as error:
        raise SignatureError(f"{path}: {error}") from error


def parse_manifest(text: bytes, name: str = MANIFEST_NAME) -> Manifest:
    """Check the text of a ``model.yaml``.

    Args:
        text: The file's bytes, UTF-8.
        name: What complaints call the file.

    Raises:
        PackageError: Every complaint with its line.
    """
    root, data = _parse_yaml(text, name)
    if left := [f"{name}:{line}: {shown}" for line, shown in _fill_ins(root)]:
        raise PackageError("\n".join(left))
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        raise PackageError(_complaints(error, root, name, ())) from error
    for where, step, known in _named_steps(manifest):
        factory: type[BaseModel] | None = known.get(step.name)
        if factory is None:
            line = _line(root, (*where, "name"))
            raise PackageError(f"{name}:{line}: no {where[-1]} is called {step.name!r}; known are {sorted(known)}")
        try:
            factory.model_validate(step.params)
        except ValidationError as error:
            raise PackageError(_complaints(error, root, name, (*where, "params"))) from error
    return manifest


def _named_steps(manifest: Manifest) -> Iterator[tuple[tuple[int | str, ...], Step, Mapping[str, type[BaseModel]]]]:
    """Every preprocessor and head that the manifest names, with its place and where it must be known."""
    for index, stage in enumerate(manifest.stages):
        if stage.preprocess is not None:
            yield ("stages", index, "preprocess"), stage.preprocess, PREPROCESSORS
        if stage.head is not None:
            yield ("stages", index, "head"), stage.head, HEADS
    for index, feed in enumerate(manifest.pipeline.inputs if manifest.pipeline is not None else ()):
        yield ("pipeline", "inputs", index, "preprocess"), feed.preprocess, PREPROCESSORS


def _parse_yaml(text: bytes, name: str) -> tuple[yaml.Node, Any]:
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark is not None else 1
            # An alias can make a small file expand without end, and no manifest needs one.
            if isinstance(event, yaml.AliasEvent):
                raise PackageError(f"{name}:{line}: aliases are not allowed")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise PackageError(f"{name}:{line}: nested more than {_MAX_DEPTH} deep")
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise PackageError(f"{name}:1: expected keys and values")
        _refuse_duplicates(root, name)
        return root, loader.construct_document(root)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if isinstance(mark, yaml.Mark) else 1
        raise PackageError(f"{name}:{line}: not YAML: {getattr(error, 'problem', None) or error}") from error


def _fill_ins(node: yaml.Node, where: tuple[str, ...] = ()) -> Iterator[tuple[int, str]]:
    """What a maker still has to say: line, and place with what belongs there."""
    if isinstance(node, yaml.ScalarNode) and str(node.value).startswith(FILL_IN):
        yield node.start_mark.line + 1, f"{'.'.join(where)}: {node.value}"
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _fill_ins(value, (*where, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _fill_ins(value, (*where, str(index)))


def _refuse_duplicates(node: yaml.Node, name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                raise PackageError(f"{name}:{key.start_mark.line + 1}: the key {key.value!r} stands twice")
            seen.add(str(key.value))
            _refuse_duplicates(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_duplicates(value, name)


def _complaints(error: ValidationError, root: yaml.Node, name: str, base: tuple[int | str, ...]) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        where = (*base, *problem["loc"])
        unknown = problem["type"] == "extra_forbidden"
        text = "unknown key" if unknown else problem["msg"]
        shown = ".".join(str(part) for part in where)
        lines.append((_line(root, where), f"{shown}: {text}" if shown else text))
    return "\n".join(f"{name}:{line}: {text}" for line, text in sorted(lines))


def _line(root: yaml.Node, where: Sequence[int | str]) -> int:
    """The line of the deepest node on the way to ``where``; parts that pydantic adds (union tags) are passed over."""
    node, line = root, root.start_mark.line + 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    node, line = value, key.start_mark.line + 1
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
