"""The command line: measure, print the table, write the document."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench import ct, demo, engine, gate, ingest, kill, load, memory, report, screens, session, start, viewer, xray
from bench.machine import line, machine
from bench.rows import Bench, Row

SCHEMA = 1
_MEASURES: dict[str, Callable[[Bench], list[Row]]] = {
    "xray": xray.measure,
    "ct": ct.measure,
    "ingest": ingest.measure,
    "load": load.measure,
    "kill": kill.measure,
    "start": start.measure,
    "memory": memory.measure,
    "session": session.measure,
    "gate": gate.measure,
    "engine": engine.measure,
    "report": report.measure,
    "images": viewer.measure,
    "screens": screens.measure,
    "demo": demo.measure,
}


def table(document: dict[str, Any], rows: list[Row]) -> str:
    """The rows for a person, each on lines of its own: figures do not fit beside one another."""
    out = []
    for row in rows:
        out += [f"{row.verdict:<4} {row.figure}", f"     measured {row.measured}", f"     bound    {row.bound}"]
    size = "; quick: a tenth of the size, no figure to quote" if document["quick"] else ""
    return "\n".join([*out, "", line(document["machine"]) + size])


def main() -> int:
    """Measure what was asked for. 0 even where a bound does not hold: the table says it."""
    parser = argparse.ArgumentParser(prog="python tools/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, to see that everything is measured")
    parser.add_argument("--full", action="store_true", help="the load row runs its real hour, the soak its half")
    parser.add_argument("--only", action="append", choices=list(_MEASURES), help="only this; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was measured there")
    parser.add_argument("--folder", type=Path, help="work below this folder (default: that of temporary files)")
    told = parser.parse_args()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "quick": told.quick,
        "machine": machine(),
    }
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="scanside-bench-", dir=told.folder) as name:
        bench = Bench(folder=Path(name), quick=told.quick, full=told.full)
        # The demo and the viewer have no smaller size, and tests of their own.
        for wanted in told.only or [n for n in _MEASURES if not (told.quick and n in {"demo", "images", "screens"})]:
            begun = time.monotonic()
            rows += _MEASURES[wanted](bench)
            bench.say(f"{wanted}: {time.monotonic() - begun:.0f} s")
    document["machine"]["load_after"] = [round(value, 2) for value in os.getloadavg()]
    document["rows"] = [row.document() for row in rows]
    print(table(document, rows))
    if told.json:
        told.json.parent.mkdir(parents=True, exist_ok=True)
        told.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0
