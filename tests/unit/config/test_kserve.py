"""The section kserve of the configuration, and what a session gets of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_packages
import yaml

from appliance.config import Config, load_config
from appliance.errors import ConfigError
from appliance.triage.kserve import kserve_server, kserve_wishes
from engines.backends.kserve import KServeServer
from engines.manifest import Manifest

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.req("R-KSERVE-04")


def loaded(folder, text):
    path = folder / "appliance.yaml"
    path.write_text(text, "utf-8")
    return load_config(path)


def test_nothing_is_sent_anywhere_unless_it_is_configured():
    assert Config().kserve is None
    assert load_config(ROOT / "config" / "appliance.yaml").kserve is None


def test_the_commented_example_is_a_valid_section(tmp_path):
    lines = (ROOT / "config" / "appliance.yaml").read_text("utf-8").splitlines()
    first = lines.index("# kserve:")
    section = []
    for line in lines[first:]:
        if not line.startswith("# "):
            break
        section.append(line.removeprefix("# "))
    text = "\n".join(section)
    assert set(yaml.safe_load(text)["kserve"]) == {"address", "packages", "timeout_s", "tls"}
    assert loaded(tmp_path, text).kserve.address == "10.1.2.20:8001"


@pytest.mark.parametrize("address", ["10.1.2.20:8001", "127.0.0.1:1", "[fd00::5]:65535"])
def test_an_address_is_one_ip_address_and_a_port(tmp_path, address):
    assert loaded(tmp_path, f"kserve: {{address: '{address}'}}").kserve.address == address


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("triton.example:8001", "names are not looked up"),
        ("10.1.2.0/24:8001", "one IP address"),
        ("10.1.2.20", "one IP address"),
        ("10.1.2.20:", "is no port"),
        ("10.1.2.20:0", "is no port"),
        ("10.1.2.20:65536", "is no port"),
        ("10.1.2.20:8001,10.1.2.21:8001", "one IP address"),
        ("fd00::5:8001", "stands in brackets"),
        ("[10.1.2.20]:8001", "stands in brackets"),
        ("0.0.0.0:8001", "is no machine's address"),
        ("[ff02::1]:8001", "is no machine's address"),
    ],
)
def test_anything_else_is_refused_with_its_line(tmp_path, address, words):
    with pytest.raises(ConfigError, match=r"line 2: kserve\.address") as caught:
        loaded(tmp_path, f"kserve:\n  address: '{address}'\n")
    assert words in str(caught.value)


def test_in_clinical_mode_pixels_leave_the_box_by_tls_only(tmp_path):
    with pytest.raises(ConfigError, match="by TLS only"):
        loaded(tmp_path, "site: {mode: clinical}\nkserve: {address: '10.1.2.20:8001'}\n")
    loaded(tmp_path, "site: {mode: clinical}\nkserve: {address: '127.0.0.1:8001'}\n")
    loaded(tmp_path, "site: {mode: clinical}\nkserve: {address: '10.1.2.20:8001', tls: {ca_path: /ca.pem}}\n")


def test_a_certificate_needs_its_key(tmp_path):
    with pytest.raises(ConfigError, match="belong together"):
        loaded(tmp_path, "kserve: {address: '10.1.2.20:8001', tls: {ca_path: /a, certificate_path: /b}}")


def test_a_session_gets_the_certificates_as_text(tmp_path):
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text(f"-----BEGIN {name}-----\n", "utf-8")
    tls = (
        f"{{ca_path: {tmp_path}/ca, certificate_path: {tmp_path}/cert, key_path: {tmp_path}/key, server_name: triton}}"
    )
    section = loaded(tmp_path, f"kserve: {{address: '10.1.2.20:8001', timeout_s: 3, tls: {tls}}}").kserve
    server = kserve_server(section)
    assert (server.address, server.timeout_s, server.server_name) == ("10.1.2.20:8001", 3, "triton")
    assert (server.ca, server.certificate, server.key) == tuple(
        f"-----BEGIN {name}-----\n" for name in ("ca", "cert", "key")
    )


@pytest.mark.req("R-KSERVE-11")
def test_the_worker_is_told_the_server_for_the_packages_that_run_there_and_for_no_other(tmp_path):
    (tmp_path / "ca").write_text("-----BEGIN ca-----\n", "utf-8")
    server = f"address: '10.1.2.20:8001', timeout_s: 3, tls: {{ca_path: {tmp_path}/ca}}"
    manifest = Manifest.model_validate(toy_packages.manifest(name="toy"))
    for packages, is_there in (("[]", True), ("[other, toy]", True), ("[other]", False)):
        wish = kserve_wishes(loaded(tmp_path, f"kserve: {{{server}, packages: {packages}}}"))(manifest)
        assert (wish is not None) == is_there
        assert wish is None or KServeServer(**wish.model_dump()) == KServeServer(
            address="10.1.2.20:8001", timeout_s=3, ca="-----BEGIN ca-----\n"
        )
    assert kserve_wishes(Config())(manifest) is None
    (tmp_path / "ca").unlink()
    with pytest.raises(ConfigError, match=r"kserve\.tls\.ca_path"):
        kserve_wishes(loaded(tmp_path, f"kserve: {{{server}}}"))


def test_a_missing_or_wrong_file_is_named_with_its_key(tmp_path):
    section = loaded(tmp_path, f"kserve: {{address: '10.1.2.20:8001', tls: {{ca_path: {tmp_path}/none}}}}").kserve
    with pytest.raises(ConfigError, match=r"kserve.tls.ca_path: .*none cannot be read: No such file"):
        kserve_server(section)
    (tmp_path / "none").write_bytes(b"\x30\x82")
    with pytest.raises(ConfigError, match="cannot be read"):
        kserve_server(section)
    (tmp_path / "none").write_bytes(b"DER")
    with pytest.raises(ConfigError, match="holds no PEM"):
        kserve_server(section)
    bundle = "-----BEGIN CERTIFICATE-----\n".ljust(256 * 1024, "A")
    (tmp_path / "none").write_text(bundle, "ascii")
    assert kserve_server(section).ca == bundle
    (tmp_path / "none").write_text(bundle + "A", "ascii")
    with pytest.raises(ConfigError, match=r"none is longer than 256 KiB; name a file"):
        kserve_server(section)
