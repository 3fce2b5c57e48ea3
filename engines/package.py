"""A package is data in a folder: ``model.yaml``, its ONNX files, card, metrics, golden cases. Never Python.

Rules of loading:
- a package inside the installed wheel (``engines/models``) is trusted; any other needs a signature, which this
  version cannot check, so it is refused unless the caller, a test, hands ``trusted=True``;
- every complaint about ``model.yaml`` names its line;
- the digest covers ``model.yaml`` and the ONNX files; the bytes that run are the bytes that were digested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from engines.errors import PackageError
from engines.heads import HEADS
from engines.manifest import Manifest
from engines.preprocess import PREPROCESSORS

MANIFEST_NAME = "model.yaml"
_MANIFEST_BYTES = 256 * 1024
_MAX_DEPTH = 32
_BUNDLED = Path(__file__).resolve().parent / "models"


@dataclass(frozen=True, slots=True)
class Package:
    """A loaded package.

    Attributes:
        path: Its folder.
        manifest: Its checked ``model.yaml``.
        digest: SHA-256 over the sorted (file name, SHA-256) pairs of ``model.yaml`` and the ONNX files.
        files: Those file names with their SHA-256.
    """

    path: Path
    manifest: Manifest
    digest: str
    files: dict[str, str]

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
        name = self.manifest.stages[index].onnx
        data = _read(self.path / name)
        if hashlib.sha256(data).hexdigest() != self.files[name]:
            raise PackageError(f"{self.path / name} was altered after the package was loaded; load it again")
        return data


def bundled_packages() -> list[Path]:
    """The folders of the packages that came with this installation, by name."""
    return sorted(p.parent for p in _BUNDLED.glob(f"*/{MANIFEST_NAME}"))


def load_package(folder: Path, *, trusted: bool = False) -> Package:
    """Read and check a package; no graph is opened.

    Args:
        folder: The package's folder.
        trusted: For tests and for the tools that make packages; nothing that a site can set reaches it.

    Raises:
        PackageError: It is not trusted, a file is missing or a link, or ``model.yaml`` breaks the schema.
    """
    folder = folder.resolve()
    if not (trusted or folder.parent == _BUNDLED):
        raise PackageError(
            f"{folder} did not come with this installation; unsigned packages load once signatures exist. "
            "Use a bundled package"
        )
    manifest_path = folder / MANIFEST_NAME
    text = _read(manifest_path, _MANIFEST_BYTES)
    manifest = parse_manifest(text, str(manifest_path))
    files = {MANIFEST_NAME: hashlib.sha256(text).hexdigest()}
    for stage in manifest.stages:
        files[stage.onnx] = hashlib.sha256(_read(folder / stage.onnx)).hexdigest()
    listed = "".join(f"{name}\n{digest}\n" for name, digest in sorted(files.items()))
    return Package(folder, manifest, hashlib.sha256(listed.encode()).hexdigest(), files)


def parse_manifest(text: bytes, name: str = MANIFEST_NAME) -> Manifest:
    """Check the text of a ``model.yaml``.

    Args:
        text: The file's bytes, UTF-8.
        name: What complaints call the file.

    Raises:
        PackageError: Every complaint with its line.
    """
    root, data = _parse_yaml(text, name)
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        raise PackageError(_complaints(error, root, name, ())) from error
    for index, stage in enumerate(manifest.stages):
        for key, step, known in (
            ("preprocess", stage.preprocess, PREPROCESSORS),
            ("head", stage.head, HEADS),
        ):
            where = ("stages", index, key)
            factory: type[BaseModel] | None = known.get(step.name)
            if factory is None:
                line = _line(root, (*where, "name"))
                raise PackageError(f"{name}:{line}: no {key} is called {step.name!r}; known are {sorted(known)}")
            try:
                factory.model_validate(step.params)
            except ValidationError as error:
                raise PackageError(_complaints(error, root, name, (*where, "params"))) from error
    return manifest


def _read(path: Path, limit: int | None = None) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise PackageError(f"{path} is missing or is no plain file")
    size = path.stat().st_size
    if limit is not None and size > limit:
        raise PackageError(f"{path} has {size} bytes; at most {limit} are read")
    return path.read_bytes()


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
