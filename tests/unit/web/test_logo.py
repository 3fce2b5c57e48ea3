"""The site's own mark beside its name."""

from __future__ import annotations

import re

import httpx
import pytest

from appliance.clock import SystemClock
from appliance.config import Config
from appliance.errors import ConfigError
from appliance.screen import screen_app
from appliance.web.logo import logo_route
from appliance.web.server import WebServer

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0h9v9z"/></svg>'


@pytest.mark.req("R-SCREEN-05")
def test_name_and_logo_of_the_site_stand_on_its_pages(tmp_path, store):
    (tmp_path / "logo.svg").write_bytes(SVG)
    config = Config.model_validate({"site": {"name": "Hospital 9", "logo_path": tmp_path / "logo.svg"}})
    server = WebServer(screen_app(store, config, {}, SystemClock()), port=0)
    try:
        address = f"http://127.0.0.1:{server.start()}"
        page = httpx.get(f"{address}/sign-in", timeout=60).text
        answer = httpx.get(f"{address}/logo", timeout=60)
    finally:
        server.stop()
    assert re.search(r'<img src="/logo" alt="">\s*Hospital 9', page)
    assert (answer.content, answer.headers["content-type"]) == (SVG, "image/svg+xml")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("data", [None, b"GIF89a", SVG + b" " * 100_000])
def test_a_logo_that_is_no_small_picture_is_a_fault_of_the_configuration(tmp_path, data):
    if data is not None:
        (tmp_path / "logo").write_bytes(data)
    with pytest.raises(ConfigError, match=r"site\.logo_path"):
        logo_route(tmp_path / "logo")
