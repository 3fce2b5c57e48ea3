"""What every command pays for before it does anything."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.req("R-HOUSE-01")
def test_a_command_starts_without_numpy_and_without_reading_packages():
    heavy = ["numpy", "engines.package", "cryptography"]
    code = f"import sys, appliance.cli.common; print([name for name in {heavy!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"
