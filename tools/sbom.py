"""The list of what a box runs, as CycloneDX JSON: Python packages with versions and licences, and the bundled models.

``cyclonedx-py`` lists a whole environment; what is there only for tests and checks is taken out again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def runtime_packages(root: str = "scanside") -> set[str]:
    """Canonical names of ``root`` and of everything that it needs on this machine without extras."""
    found: set[str] = set()
    open_ = [(root, frozenset[str]())]
    while open_:
        name, extras = open_.pop()
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            chosen = [{"extra": extra} for extra in (extras or {""})]
            if requirement.marker is None or any(requirement.marker.evaluate(extra) for extra in chosen):
                open_.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


def models(folder: Path = ROOT / "engines" / "models") -> list[dict[str, Any]]:
    """The packages inside the wheel as components of type machine-learning-model."""
    found = []
    for manifest in sorted(folder.glob("*/model.yaml")):
        said = yaml.safe_load(manifest.read_text("utf-8"))
        component: dict[str, Any] = {
            "type": "machine-learning-model",
            "bom-ref": f"model:{said['name']}@{said['version']}",
            "name": said["name"],
            "version": str(said["version"]),
            "licenses": [{"expression": said["licence"]}],
            "components": [
                {
                    "type": "file",
                    "name": path.name,
                    "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}],
                }
                for path in sorted(manifest.parent.glob("*.onnx"))
            ],
        }
        found.append(component)
    return found


def sbom() -> dict[str, Any]:
    """The document for the environment that runs this.

    Raises:
        RuntimeError: A package that a box runs is missing in what cyclonedx-py lists.
    """
    made = subprocess.run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "environment", sys.executable),
            *("--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application"),
            *("--output-format", "JSON", "--output-reproducible"),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    document: dict[str, Any] = json.loads(made.stdout)
    wanted = runtime_packages()
    main = document["metadata"]["component"]["bom-ref"]
    kept = [c for c in document["components"] if canonicalize_name(c["name"]) in wanted]
    missing = wanted - {canonicalize_name(c["name"]) for c in kept} - {"scanside"}
    if missing:
        msg = f"cyclonedx-py does not list {', '.join(sorted(missing))}; is the environment made by `make venv`?"
        raise RuntimeError(msg)
    refs = {c["bom-ref"] for c in kept} | {main}
    document["components"] = kept + models()
    document["dependencies"] = [
        {**row, **({"dependsOn": [ref for ref in row["dependsOn"] if ref in refs]} if "dependsOn" in row else {})}
        for row in document["dependencies"]
        if row["ref"] in refs
    ]
    return document


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="CycloneDX list of what a box runs")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "sbom.cdx.json")
    chosen = parser.parse_args()
    document = sbom()
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    print(f"{chosen.output}: CycloneDX {document['specVersion']}, {len(document['components'])} components")
    return 0


if __name__ == "__main__":
    sys.exit(main())
