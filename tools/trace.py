"""Requirement x test: which test shows which promise of docs/requirements.yaml.

Reads the markers ``req`` and ``fault`` from the tests' source, so that it needs neither peers nor data. Prints a table,
or with ``--json`` a document; ``--untested`` prints only what no test carries, and fails if there is any.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def requirements(path: Path = ROOT / "docs" / "requirements.yaml") -> dict[str, str]:
    """Id to promise, in the order of the file.

    Raises:
        ValueError: An id stands twice.
    """
    found: dict[str, str] = {}
    for row in yaml.safe_load(path.read_text("utf-8")):
        if row["id"] in found:
            msg = f"{path.name}: {row['id']} stands twice; give the later one a new id"
            raise ValueError(msg)
        found[row["id"]] = row["promise"]
    return found


def benches(path: Path = ROOT / "docs" / "requirements.yaml") -> Iterator[tuple[str, str]]:
    """Pairs of (requirement id, bench) for figures: a test measures them, and only the bench judges how fast it was."""
    for row in yaml.safe_load(path.read_text("utf-8")):
        if "bench" in row:
            yield row["id"], f"tools/bench --only {row['bench']}"


def marks(tests: Path = ROOT / "tests") -> Iterator[tuple[str, str]]:
    """Pairs of (requirement id, test as ``tests/path.py::[Class::]name``) for every marker in the tests' source."""
    for path in sorted(tests.rglob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"), str(path))
        shown = path.relative_to(tests.parent).as_posix()
        yield from _walk(tree, shown, _module_ids(tree))


def _walk(node: ast.Module | ast.ClassDef, prefix: str, inherited: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for child in node.body:
        if isinstance(child, ast.ClassDef) and child.name.startswith("Test"):
            ids = inherited + _ids(child.decorator_list)
            inner = list(_walk(child, f"{prefix}::{child.name}", ids))
            # A class whose tests are all inherited (a contract for one more backend) is shown as itself.
            yield from inner or ((requirement, f"{prefix}::{child.name}") for requirement in ids)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and child.name.startswith("test_"):
            for requirement in inherited + _ids(child.decorator_list):
                yield requirement, f"{prefix}::{child.name}"


def _module_ids(tree: ast.Module) -> tuple[str, ...]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets):
            return _ids(node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value])
    return ()


def _ids(decorators: list[ast.expr]) -> tuple[str, ...]:
    found = []
    for call in decorators:
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        if ast.unparse(call.func) not in {"pytest.mark.req", "pytest.mark.fault"}:
            continue
        prefix = "R-FAULT-" if call.func.attr == "fault" else ""
        found += [prefix + str(ast.literal_eval(argument)) for argument in call.args]
    return tuple(found)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="requirement x test")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--untested", action="store_true", help="only what no test carries; exit 1 if there is any")
    chosen = parser.parse_args()
    table: dict[str, list[str]] = {requirement: [] for requirement in requirements()}
    for requirement, test in (*marks(), *benches()):
        table.setdefault(requirement, []).append(test)
    untested = [requirement for requirement, tests in table.items() if not tests]
    if chosen.json:
        print(json.dumps({"requirements": table, "untested": untested}, indent=2))
        return 0
    for requirement, promise in requirements().items():
        if chosen.untested and table[requirement]:
            continue
        print(f"{requirement}  {promise}")
        for test in table[requirement]:
            print(f"    {test}")
        if not table[requirement]:
            print("    NO TEST")
    print(f"{len(table)} requirements, {len(table) - len(untested)} with a test, {len(untested)} without")
    return 1 if chosen.untested and untested else 0


if __name__ == "__main__":
    sys.exit(main())
