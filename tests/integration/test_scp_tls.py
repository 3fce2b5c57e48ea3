"""DICOM over TLS with client certificates, made for the test by the openssl command, spoken by DCMTK."""

from __future__ import annotations

import socket
import subprocess
from types import SimpleNamespace

import pytest
from scp_kit import RawPeer, running_scp

from appliance.errors import ConfigError
from appliance.intake.contract import TlsSettings
from appliance.intake.tls import server_context

pytestmark = pytest.mark.req("R-INTAKE-06")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory, system_tool):
    """A hospital's CA with a certificate for the box and one for scanner CT1, and a stranger's certificate."""
    folder = tmp_path_factory.mktemp("certificates")
    openssl = str(system_tool("openssl"))

    def run(*args):
        subprocess.run([openssl, *args], cwd=folder, check=True, capture_output=True, timeout=60)

    def make_ca(name):
        run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip

    def make(name, common_name, ca):
        run("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={common_name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        run("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial",
            "-days", "2", "-out", f"{name}.pem")  # fmt: skip

    make_ca("hospital")
    make_ca("stranger-ca")
    make("box", "box.hospital", "hospital")
    make("scanner", "CT1", "hospital")
    make("stranger", "CT1", "stranger-ca")
    return folder


def tls(certificates, **more):
    return TlsSettings(
        certificate_path=certificates / "box.pem",
        key_path=certificates / "box.key",
        client_ca_path=certificates / "hospital.pem",
        **more,
    )


@pytest.fixture
def echo(dcmtk, certificates):
    """``echo(port, "scanner")``: C-ECHO over TLS with that certificate; returns whether it was answered."""

    def run(port, name, calling="CT1"):
        command = [
            dcmtk("echoscu"),
            "-aet",
            calling,
            "+tls",
            certificates / f"{name}.key",
            certificates / f"{name}.pem",
        ]
        command += ["+cf", certificates / "hospital.pem", "127.0.0.1", str(port)]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0

    return run


def test_scanner_with_the_hospitals_certificate_is_served(tmp_path, certificates, echo):
    with running_scp(tmp_path, tls=tls(certificates)) as box:
        assert echo(box.port, "scanner")
        box.sink.wait_for(lambda sink: sink.closed)
        assert box.sink.closed[0].how == "released"


@pytest.mark.fault("T43")
def test_certificate_of_another_ca_is_refused_and_recorded(tmp_path, certificates, echo):
    with running_scp(tmp_path, tls=tls(certificates)) as box:
        assert not echo(box.port, "stranger")
        box.sink.wait_for(lambda sink: sink.refusals)
        assert "client certificate" in box.sink.refusals[0].message
        assert box.sink.opened == []


@pytest.mark.fault("T43")
def test_plain_dicom_is_refused_where_tls_is_set(tmp_path, certificates):
    with running_scp(tmp_path, tls=tls(certificates)) as box, RawPeer(box.port) as peer:
        answer = peer.associate()
        assert answer is None or answer[0] != 2
        box.sink.wait_for(lambda sink: sink.refusals)
        assert box.sink.opened == []


@pytest.mark.fault("T43")
def test_old_tls_is_refused(tmp_path, certificates, system_tool):
    with running_scp(tmp_path, tls=tls(certificates)) as box:
        command = [system_tool("openssl"), "s_client", "-connect", f"127.0.0.1:{box.port}", "-tls1_1"]
        command += ["-cipher", "DEFAULT@SECLEVEL=0", "-cert", certificates / "scanner.pem"]
        command += ["-key", certificates / "scanner.key"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        assert b"Cipher is (NONE)" in done.stdout
        assert box.sink.opened == []


def test_ae_title_must_stand_in_the_certificate_where_that_is_set(tmp_path, certificates, echo):
    with running_scp(tmp_path, tls=tls(certificates, ae_in_certificate=True)) as box:
        assert echo(box.port, "scanner", "CT1")
        assert not echo(box.port, "scanner", "CT2")
        box.sink.wait_for(lambda sink: sink.refusals)
        assert "'CT2'" in box.sink.refusals[0].message


@pytest.mark.fault("T12")
@pytest.mark.req("R-INTAKE-05")
def test_connections_that_never_shake_hands_hold_nobody_up(tmp_path, certificates, echo):
    with running_scp(tmp_path, tls=tls(certificates)) as box:
        idle = [socket.create_connection(("127.0.0.1", box.port)) for _ in range(50)]
        assert echo(box.port, "scanner"), "within half of the time that the box gives them"
        for one in idle:
            one.close()


@pytest.mark.req("R-INTAKE-05")
def test_oldest_that_does_not_shake_hands_makes_room(tmp_path, certificates, echo):
    with running_scp(tmp_path, tls=tls(certificates), max_pending=3) as box:
        idle = [socket.create_connection(("127.0.0.1", box.port), timeout=60) for _ in range(10)]
        assert echo(box.port, "scanner")
        assert idle[0].recv(1) == b""
        for one in idle:
            one.close()


def test_many_images_pass_over_tls_unchanged(tmp_path, certificates, dcmtk):
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian
    from scp_kit import ct, encode, sha256

    folder = tmp_path / "images"
    folder.mkdir()
    sent = set()
    for number in range(10):
        ds = ct(rows=256)
        sent.add(sha256(encode(ds)))
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    with running_scp(tmp_path, tls=tls(certificates)) as box:
        command = [dcmtk("storescu"), "-pdu", "131072", "+tls", certificates / "scanner.key"]
        command += [certificates / "scanner.pem", "+cf", certificates / "hospital.pem", "+sd", "127.0.0.1"]
        subprocess.run([*command, str(box.port), folder], check=True, timeout=60)
        assert {row.data_sha256 for row in box.sink.stored} == sent


@pytest.mark.parametrize("missing", ["certificate_path", "key_path", "client_ca_path"])
def test_missing_file_is_a_configuration_error_that_names_it(certificates, missing):
    paths = SimpleNamespace(
        certificate_path=certificates / "box.pem",
        key_path=certificates / "box.key",
        client_ca_path=certificates / "hospital.pem",
    )
    setattr(paths, missing, certificates / "gone.pem")
    with pytest.raises(ConfigError, match=r"gone\.pem"):
        server_context(TlsSettings(**vars(paths)))
