"""Runs the tests at full size and leaves their result and date in docs/testing.md."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "testing.md"
BEGIN, END = "<!-- test-long: written by tools/test_long.py -->\n", "<!-- test-long: end -->"


def summary(report: Path, commit: str) -> str:
    """What docs/testing.md says of one run, from pytest's JUnit file."""
    suite = ET.parse(report).getroot().find("testsuite")  # noqa: S314 - our own file of a moment ago
    if suite is None:
        msg = f"{report} holds no test suite"
        raise ValueError(msg)
    number = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    passed = number["tests"] - number["failures"] - number["errors"] - number["skipped"]
    result = (
        f"{datetime.now(timezone.utc):%Y-%m-%d}, commit {commit}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {platform.machine()}: {passed} passed, "
        f"{number['failures'] + number['errors']} failed, {number['skipped']} skipped in "
        f"{float(suite.get('time', '0')) / 60:.0f} minutes."
    )
    lines = [result]
    reasons: dict[str, int] = {}
    for skipped in suite.iter("skipped"):
        reason = skipped.get("message", "")
        reasons[reason] = reasons.get(reason, 0) + 1
    if reasons:
        lines += ["", "Skipped:", "", *(f"- {count} x {reason}" for reason, count in sorted(reasons.items()))]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run pytest with what is given, then write the page if the whole suite was run."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "--full", f"--junitxml={report}", *sys.argv[1:]]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if len(sys.argv) > 1:
            print("test-long: only a part was asked for; docs/testing.md stays as it is", file=sys.stderr)
        elif report.exists():
            text = PAGE.read_text("utf-8")
            found = re.search(re.escape(BEGIN) + ".*" + re.escape(END), text, flags=re.DOTALL)
            if found is None:
                msg = f"{PAGE} has lost the marks between which this program writes"
                raise ValueError(msg)
            text = text[: found.start()] + BEGIN + summary(report, commit or "unknown") + END + text[found.end() :]
            PAGE.write_text(text, "utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
