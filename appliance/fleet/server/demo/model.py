"""The demo's model: a small package that came with this software, in versions of its own, signed by the demo's key."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from engines.archive import pack
from engines.contents import MANIFEST_NAME
from engines.package import bundled_packages, load_package, sign_package
from engines.signing import PrivateKey

#: The smallest that there is; nobody runs it here.
PACKAGE = "cxr-quality"


@dataclass(frozen=True, slots=True)
class Model:
    """One version as an archive.

    Attributes:
        digest: Of the package, which boxes compare.
    """

    version: str
    digest: str
    path: Path

    @property
    def target(self) -> str:
        """Its name in the repository."""
        return f"models/{PACKAGE}/{self.version}.zip"


def make_model(folder: Path, version: str, key: PrivateKey) -> Model:
    """Write ``folder/{version}.zip``."""
    source, copy = bundled_packages()[PACKAGE], folder / version
    came_as = load_package(source).version
    shutil.copytree(source, copy)
    manifest = copy / MANIFEST_NAME
    text = manifest.read_text("utf-8")
    manifest.write_text(text.replace(f"\nversion: {came_as}\n", f"\nversion: {version}\n", 1), "utf-8")
    made = sign_package(copy, [key])
    archive = pack(copy, folder / f"{version}.zip")
    shutil.rmtree(copy)
    return Model(made.version, made.digest, archive)
