"""A store in any state of the alert screen, on a fake clock."""

from __future__ import annotations

import pytest
import web_kit


@pytest.fixture(scope="package", autouse=True)
def _what_all_applications_share_is_made_once():
    with web_kit.made_once():
        yield
