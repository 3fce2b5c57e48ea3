"""``make bench`` runs, measures every figure of the design and loses nothing; how fast it was is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: What each measurement gives; the first few are what ``make test`` has time for.
SOME = {"ingest": {"ingest-1", "ingest-4"}, "session": {"session"}, "report": {"report"}}
REST = {"ct": {"ct", "ct-ways"}, "load": {"load"}, "kill": {"kill"}, "start": {"start"}, "memory": {"memory"}}
REST |= {"gate": {"gate"}, "engine": {"engine"}, "xray": {"xray"}}


@pytest.fixture
def measured(repo, tmp_path):
    """``measured(names)``: the rows of the table by name, and the machine, of a quick run."""

    def measure(names):
        figures = tmp_path / "bench.json"
        only = [word for name in names for word in ("--only", name)]
        command = [sys.executable, repo / "tools" / "bench", "--quick", *only, "--json", figures, "--folder", tmp_path]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=580, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        document = json.loads(figures.read_text(encoding="utf-8"))
        rows = {row["name"]: row for row in document["rows"]}
        assert set(rows) == set().union(*names.values())
        for row in rows.values():
            assert row["measured"], row
            assert row["bound"], row
            assert row["figure"] in done.stdout
        assert document["machine"]["cpu"]
        assert document["machine"]["cpu"] in done.stdout
        return rows

    return measure


@pytest.mark.timeout(600)
@pytest.mark.req("R-BENCH-01")
def test_bench_measures_figures_and_loses_nothing(measured):
    rows = measured(SOME)
    # Counts, unlike times, hold on a busy machine too.
    assert rows["ingest-1"]["details"]["lost"] == rows["ingest-4"]["details"]["lost"] == 0


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.req("R-BENCH-01")
def test_bench_measures_the_other_figures_of_the_design_too(measured):
    rows = measured(REST)
    assert rows["kill"]["ok"], rows["kill"]
    assert rows["ct-ways"]["ok"], rows["ct-ways"]
    assert rows["load"]["details"]["failed_to_send"] == []
