"""The ingest benchmark runs, and counts what it says it counts; the figures themselves are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys


def test_benchmark_measures_our_scp_and_loses_nothing(repo, dcmtk, tmp_path):
    dcmtk("storescu")
    figures = tmp_path / "figures.json"

    command = [sys.executable, repo / "tools" / "bench_ingest.py", "--images", "8", "--rounds", "1", "--json", figures]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    result = json.loads(figures.read_text())
    assert set(result["servers"]["scanside"]) == {"1", "4"}
    assert result["servers"]["scanside"]["1"]["images_per_s"] > 0
    assert "scanside" in done.stdout
