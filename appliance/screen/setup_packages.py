"""The packages that the set-up offers: those that came with this software."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from engines.errors import EngineError
from engines.package import bundled_packages, load_package


def offered() -> list[tuple[str, Any]]:
    """Packages that came with this software, with their manifests; templates are left out."""
    found = []
    for name, folder in sorted(bundled_packages().items()):
        with suppress(EngineError):
            manifest = load_package(folder).manifest
            if manifest.template is None:
                found.append((name, manifest))
    return found


def in_order() -> Sequence[str]:
    """Names of what is offered, each after what it requires."""
    manifests = dict(offered())
    ordered: list[str] = []

    def add(name: str) -> None:
        for required in manifests[name].requires:
            if required.package in manifests and required.package not in ordered:
                add(required.package)
        if name not in ordered:
            ordered.append(name)

    for name in manifests:
        add(name)
    return ordered
