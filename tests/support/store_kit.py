"""Stores that are made quickly: without hundreds of folders that no test looks at."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from types import SimpleNamespace

import pytest


@contextmanager
def few_folders():
    """Every file of a spool lies in its folders 00: making and removing 768 takes four times as long as all the rest.

    What has the other folders already, or is another process, is none the worse. ``test_spool.py`` has them all.
    """
    first = SimpleNamespace(token_hex=lambda count: "00" + secrets.token_hex(count - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("appliance.store.spool.range", lambda _: (0,), raising=False)
        patch.setattr("appliance.store.part.secrets", first)
        yield
