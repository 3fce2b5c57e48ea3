"""``make bench`` runs, measures every figure of the design and loses nothing; how fast it was is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FIGURES = {"xray", "ct", "ct-ways", "ingest-1", "ingest-4", "load", "kill", "start", "memory"}
FIGURES |= {"session", "gate", "engine", "report"}


@pytest.mark.timeout(600)
@pytest.mark.req("R-BENCH-01")
def test_bench_measures_every_figure_and_loses_nothing(repo, tmp_path):
    figures = tmp_path / "bench.json"
    command = [sys.executable, repo / "tools" / "bench", "--quick", "--json", figures, "--folder", tmp_path]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=580, check=False)

    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads(figures.read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in document["rows"]}
    assert set(rows) == FIGURES
    for row in rows.values():
        assert row["measured"], row
        assert row["bound"], row
        assert row["figure"] in done.stdout
    # Counts, unlike times, hold on a busy machine too.
    assert rows["kill"]["ok"], rows["kill"]
    assert rows["ct-ways"]["ok"], rows["ct-ways"]
    assert rows["ingest-1"]["details"]["lost"] == rows["ingest-4"]["details"]["lost"] == 0
    assert rows["load"]["details"]["failed_to_send"] == []
    assert document["machine"]["cpu"]
    assert document["machine"]["cpu"] in done.stdout
