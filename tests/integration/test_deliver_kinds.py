"""Deliveries to destinations that are no plain DICOM peers: DICOM over TLS, STOW-RS, HL7 over MLLP, webhooks."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import hl7 as parser
import pytest
from box_kit import Box, box_config
from deliver_kit import running_box
from http_kit import http_stub
from mllp_kit import ack_of, mllp_peer
from pydicom.uid import ExplicitVRLittleEndian
from scp_kit import ct, encode
from statement_kit import STATEMENT
from tls_kit import Authority, server_side, tls_front

from appliance.clock import FakeClock
from appliance.config import Config
from appliance.deliver.echo import probe
from appliance.deliver.hl7 import control_id
from appliance.deliver.senders import sender_of
from appliance.records import AnalysisResult, Detail, Outcome, Reason
from appliance.simulate.orthanc import Orthanc
from appliance.simulate.scenarios import SCENARIOS
from appliance.store.jsonable import dump
from engines.package import bundled_packages, parse_manifest

DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "hospital")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger", number=1)


@pytest.fixture
def box(tmp_path):
    with running_box(tmp_path / "state") as running:
        yield running


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_text("whsec_" + base64.b64encode(b"k" * 32).decode() + "\n")
    return path


def destination(kind, port=0, *, scheme="http", **settings):
    fields = {"kind": kind, "name": "pacs", "purpose": "test", "timeout_s": 30.0}
    if kind in {"stow", "webhook"}:
        fields["url"] = f"{scheme}://127.0.0.1:{port}" + ("/dicom-web" if kind == "stow" else "/hook?x=1")
    else:
        fields |= {"host": "127.0.0.1", "port": port}
    if kind == "dicom":
        fields["ae_title"] = "PACS"
    return Config.model_validate({"destinations": [{**fields, **settings}]}).destinations[0]


def owe_statement(box, n=1, **changes):
    """A statement in the spool, owed as the builder would."""
    one = {**STATEMENT, "id": f"2.25.{1000 + n}", **changes}
    return box.owe(json.dumps(one).encode(), uid=one["id"], kind="statement", sop_class="", syntax="", is_dicom=False)


# -- DICOM over TLS --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def storescp(dcmtk, pair, trusted, port, folder, wait_until):
    """DCMTK's storage SCP with TLS, that wants a certificate of ours."""
    folder.mkdir()
    command = [dcmtk("storescp"), "+tls", pair.key, pair.certificate, "+cf", trusted, "+B", "-od", folder, str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "TCP_NODELAY": "1"}
    )

    def listens():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        wait_until(listens)
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.req("R-DELIVER-04")
def test_dicom_over_tls_reaches_dcmtk_with_a_certificate_of_ours_and_not_without(
    box, dcmtk, authority, free_port, tmp_path, wait_until
):
    server, ours = authority.issue("pacs"), authority.issue("box", tag="-ours")
    with_ours = {"ca_path": authority.path, "certificate_path": ours.certificate, "key_path": ours.key}
    port, folder = free_port(), tmp_path / "got"
    sent = [box.owe(encode(ct())) for _ in range(3)]
    with storescp(dcmtk, server, authority.path, port, folder, wait_until):
        asked = probe(destination("dicom", port, tls=with_ours), "SCANSIDE", FakeClock())
        assert asked.ok, asked.words
        without = probe(destination("dicom", port, tls={"ca_path": authority.path}), "SCANSIDE", FakeClock())
        assert not without.ok
        assert "certificate" in without.words
        plain = probe(destination("dicom", port), "SCANSIDE", FakeClock())
        assert not plain.ok
        stage = box.stage(port, tls=with_ours)
        box.drain(stage)
        stage.close()
        assert len(list(folder.iterdir())) == len(sent)


@contextlib.contextmanager
def tls_listener(context):
    """Shakes hands and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(60)
                with context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(60)


@pytest.mark.fault("T43")
@pytest.mark.req("R-DELIVER-04")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("expired", "has expired"),
        ("future", "not valid yet"),
        ("name", "for another"),
        ("ca", "signed by another CA"),
        ("revoked", "has been revoked"),
        ("old", "older than 1.2"),
        ("weak", "no cipher suite in common"),
    ],
)
@pytest.mark.parametrize("kind", ["dicom", "stow", "hl7"])
def test_a_server_whose_tls_is_not_good_gets_nothing_and_the_words_say_what_to_mend(
    authority, stranger, kind, fault, words
):
    days = {"expired": (-9, -2), "future": (2, 9)}.get(fault, (-1, 2))
    addresses = ("10.9.8.7",) if fault == "name" else ("127.0.0.1",)
    ca = stranger if fault == "ca" else authority
    pair = ca.issue("server", days=days, addresses=addresses, tag=f"-{fault}")
    old = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
    weak = {"ciphers": "AES128-SHA:@SECLEVEL=0", "versions": (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)}
    with pytest.warns(DeprecationWarning, match="deprecated") if fault == "old" else contextlib.nullcontext():
        more = {"old": {"versions": old, "ciphers": "DEFAULT:@SECLEVEL=0"}, "weak": weak}.get(fault, {})
        context = server_side(pair, **more)
    trusted = authority.with_crl(pair.serial) if fault == "revoked" else authority.path
    with tls_listener(context) as port:
        result = probe(destination(kind, port, scheme="https", tls={"ca_path": trusted}), "SCANSIDE", FakeClock())
    assert not result.ok
    assert words in result.words


@pytest.mark.req("R-DELIVER-04")
def test_a_certificate_by_name_is_accepted_where_that_name_is_configured(authority):
    pair = authority.issue("named", names=("pacs.hospital",), addresses=())
    with http_stub(lambda _: (400, {}, b""), tls=server_side(pair)) as stub:
        tls = {"ca_path": authority.path, "server_name": "pacs.hospital"}
        assert probe(destination("stow", stub.port, scheme="https", tls=tls), "S", FakeClock()).ok
        other = {**tls, "server_name": "other.hospital"}
        refused = probe(destination("stow", stub.port, scheme="https", tls=other), "S", FakeClock())
        assert "for another name" in refused.words


# -- STOW-RS ---------------------------------------------------------------------------------------------------------


def orthanc_settings(folder, **more):
    """What makes Debian's Orthanc a DICOMweb server."""
    if not DICOMWEB.exists():
        pytest.skip("Orthanc's DICOMweb plugin is not installed (apt-get install orthanc-dicomweb)")
    return {"Plugins": [str(DICOMWEB)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, **more}


@pytest.mark.req("R-DELIVER-01")
def test_orthanc_takes_objects_by_stow_and_refuses_what_is_none(box, orthanc, tmp_path):
    images = [ct(InstanceNumber=n) for n in range(3)]
    good = {image.SOPInstanceUID: encode(image) for image in images}
    for uid, data in good.items():
        box.owe(data, sop_class=images[0].SOPClassUID, uid=uid)
    bad = box.owe(b"no data set", study=2)
    with Orthanc(tmp_path / "orthanc", settings=orthanc_settings(tmp_path)) as server:
        asked = probe(destination("stow", server.http_port), "SCANSIDE", FakeClock())
        assert asked.ok, asked.words
        elsewhere = destination("stow", server.http_port).model_copy(update={"url": f"{server.url}/nothing"})
        lost = probe(elsewhere, "SCANSIDE", FakeClock())
        assert not lost.ok
        assert "correct url" in lost.words
        stage = box.stage_to(destination("stow", server.http_port))
        for _ in range(10):
            stage.step()
            box.clock.advance(5)
        stage.close()
        held = server.instances()
        assert set(held) == set(good)
        for uid, data in good.items():
            assert server.fetch(held[uid]).endswith(data)
    assert box.states() == ["sent"] * 3 + [box.row(bad)["state"]]
    assert box.row(bad)["state"] in {"parked", "owed"}
    assert box.row(bad)["error"]


@pytest.mark.req("R-DELIVER-01", "R-DELIVER-04")
def test_orthanc_by_https_with_a_password_and_with_a_wrong_one(box, orthanc, authority, tmp_path):
    pair = authority.issue("orthanc")
    password, wrong = tmp_path / "password", tmp_path / "wrong"
    for path, text in ((password, "pass word"), (wrong, "other")):
        path.touch(mode=0o600)
        path.write_text(text, "utf-8")
    image = ct()
    box.owe(encode(image), sop_class=image.SOPClassUID, uid=image.SOPInstanceUID)
    settings = orthanc_settings(
        tmp_path,
        AuthenticationEnabled=True,
        RegisteredUsers={"box": "pass word"},
    )
    tls = {"ca_path": authority.path}
    # Debian's Orthanc 1.10.1 crashes on every HTTPS request; sites put a proxy before it anyway.
    with (
        Orthanc(tmp_path / "orthanc", settings=settings, wait_for_http=False) as server,
        tls_front(server_side(pair), server.http_port) as port,
    ):
        refused = destination("stow", port, scheme="https", tls=tls, user="box", password_path=wrong)
        stage = box.stage_to(refused)
        for _ in range(8):
            stage.step()
            box.clock.advance(60)
        stage.close()
        assert box.states() == ["owed"]
        assert "does not know our user, password" in box.row(1)["error"]
        assert box.issues() == {"DESTINATION_UNREACHABLE"}
        right = destination("stow", port, scheme="https", tls=tls, user="box", password_path=password)
        stage = box.stage_to(right)
        box.drain(stage)
        stage.close()
    assert box.states() == ["sent"]
    assert box.issues() == set()


@pytest.mark.req("R-DELIVER-01")
def test_a_stow_request_is_the_file_as_it_lies_in_the_spool_over_one_connection(box):
    uids = [f"1.2.3.{n}" for n in range(4)]
    ids = [box.owe(bytes(300_000), uid=uid) for uid in uids]

    def answer(got):
        uid = next(uid for uid in uids if uid.encode() in got.body)
        body = json.dumps({"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}}]}}).encode()
        return 200, {"Content-Type": "application/dicom+json"}, body

    with http_stub(answer) as stub:
        stage = box.stage_to(destination("stow", stub.port))
        box.drain(stage)
        stage.close()
    assert stub.connections == 1
    assert [got.path for got in stub.got] == ["/dicom-web/studies"] * 4
    for got, one in zip(stub.got, ids, strict=True):
        kind = got.headers["content-type"]
        boundary = kind.rpartition("boundary=")[2].encode()
        assert kind.startswith('multipart/related; type="application/dicom"; ')
        file = box.store.spool.path(box.row(one)["path"]).read_bytes()
        head = b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n"
        assert got.body == head + file + b"\r\n--" + boundary + b"--\r\n"


# -- HL7 over MLLP ---------------------------------------------------------------------------------------------------


@pytest.mark.req("R-DELIVER-02")
@pytest.mark.parametrize("with_tls", [False, True])
def test_results_reach_a_his_as_messages_that_another_parser_reads(box, authority, with_tls):
    ids = [owe_statement(box, n) for n in range(3)]
    context = server_side(authority.issue("his"), client_ca=authority.path) if with_tls else None
    ours = authority.issue("box", tag="-ours")
    tls = {"ca_path": authority.path, "certificate_path": ours.certificate, "key_path": ours.key} if with_tls else None
    with mllp_peer(lambda message: ack_of(message, "AA"), tls=context) as peer:
        stage = box.stage_to(destination("hl7", peer.port, tls=tls, charset="gb18030"))
        box.drain(stage)
        stage.close()
    assert box.states() == ["sent"] * 3
    assert peer.connections == 1
    read = [parser.parse(message.decode("gb18030")) for message in peer.got]
    assert [str(one.segment("MSH")[10]) for one in read] == [
        control_id(box.row(one)["sop_instance_uid"]) for one in ids
    ]
    assert "张^三" in str(read[0].segment("PID")[5])
    assert {str(obx[11]) for one in read for obx in one.segments("OBX")} == {"P"}


def owe_of_analysis(box, result, **changes):
    """A statement of an analysis by a package that came with the box, as they stand in its database."""
    manifest = parse_manifest((bundled_packages()["head-ct-hyperdensity"] / "model.yaml").read_bytes())
    text = (bundled_packages()["head-ct-hyperdensity"] / "model.yaml").read_text("utf-8")
    package = {"name": manifest.name, "version": manifest.version, "title": manifest.title.en}
    one = owe_statement(box, package=STATEMENT["package"] | package, **changes)
    with box.store.db.write() as tx:
        tx.insert(
            "package",
            name=manifest.name,
            version=manifest.version,
            digest="d",
            origin="config",
            manifest=text,
            state="live",
            state_at=tx.at,
            installed_at=tx.at,
        )
        analysis_id = tx.insert(
            "analysis",
            study_id=1,
            package=manifest.name,
            package_version=manifest.version,
            role="live",
            state="done",
            category=1,
            notify="active",
            intended_use="detection",
            ready_at=tx.at,
            ready_mono=0.0,
            boot="b",
            deadline_s=1.0,
            result=dump(result),
        )
        tx.execute("UPDATE delivery SET analysis_id = ? WHERE id = ?", (analysis_id, one))
    return manifest


@pytest.mark.req("R-DELIVER-02", "R-DELIVER-08")
@pytest.mark.parametrize("charset", ["gb18030", "utf-8"])
def test_a_his_reads_a_finding_and_its_caveats_in_chinese(box, charset):
    left_out = Detail("{count} of {total} images left out: localizer", {"count": 2, "total": 9})
    result = AnalysisResult(outcome=Outcome.FINDING, caveats=(left_out,))
    bleed, _ = STATEMENT["findings"]
    manifest = owe_of_analysis(box, result, findings=[bleed | {"id": "hyperdensity"}], predecessors=["2.25.9"])
    with mllp_peer(lambda message: ack_of(message, "AA")) as peer:
        stage = box.stage_to(destination("hl7", peer.port, charset=charset, language="zh_Hans_CN"))
        box.drain(stage)
        stage.close()
    message = parser.parse(peer.got[0].decode(charset))
    observed = [str(obx[5]) for obx in message.segments("OBX")]
    title = manifest.findings[0].title.zh_Hans
    assert f"{title}。" in observed
    assert title in observed
    assert manifest.title.zh_Hans in str(message.segment("OBR")[4])
    notes = [str(nte[3]) for nte in message.segments("NTE")]
    assert notes[:3] == ["评估模式，不得用于诊疗。", "演示。不得用于临床。", "不可用于诊断。"]
    assert notes[3:] == [
        f"本消息取代先前的消息（{control_id('2.25.9')}）。",
        f"检查内容：{manifest.looked_for.zh_Hans}",
        f"未检查：{manifest.not_looked_for.zh_Hans}",
        "9 幅图像中有 2 幅未采用：定位像",
    ]
    assert {str(obx[11]) for obx in message.segments("OBX")} == {"P"}


@pytest.mark.req("R-DELIVER-02", "R-DELIVER-08")
def test_a_his_reads_in_the_language_of_the_site_why_a_study_was_not_analysed(box, monkeypatch):
    missing = Detail("{count} images of the series are no longer on this box; send the study again", {"count": 3})
    result = AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.INCOMPLETE, details=(missing,))
    reason = {"reason": "incomplete", "reason_text": f"The series is incomplete. {missing}"}
    owe_of_analysis(box, result, outcome="NOT_ANALYSED", findings=[], **reason)
    with mllp_peer(lambda message: ack_of(message, "AA")) as peer:
        to = destination("hl7", peer.port, charset="gb18030")
        speaking = sender_of(to, "SCANSIDE", box.clock, locale="zh_Hans_CN", said=box.store.deliveries.said)
        monkeypatch.setattr("appliance.deliver.stage.sender_of", lambda *_, **__: speaking)
        stage = box.stage_to(to)
        box.drain(stage)
        stage.close()
    message = parser.parse(peer.got[0].decode("gb18030"))
    observed = [str(obx[5]) for obx in message.segments("OBX")]
    assert observed[1] == "未分析。"
    assert observed[2].startswith("incomplete: 序列不完整。 该序列有 3 幅图像已不在本机")


@pytest.mark.req("R-DELIVER-02", "R-DELIVER-08")
def test_a_running_box_tells_its_his_in_the_language_of_the_site_that_a_study_was_not_analysed(tmp_path):
    images = next(one for one in SCENARIOS if one.name == "head_ct_bleed").build("his")[:5]
    with mllp_peer(lambda message: ack_of(message, "AA")) as peer:
        his = {"kind": "hl7", "name": "his", "purpose": "test", "host": "127.0.0.1", "port": peer.port}
        config = box_config(tmp_path / "state", site={"language": "zh_Hans_CN"})
        config = type(config).model_validate(
            {**config.model_dump(mode="json"), "destinations": [{**his, "charset": "gb18030"}]}
        )
        with Box(config) as box:
            box.send(images)
            box.wait(lambda: peer.got, "message")
            (analysis,) = box.study(images[0].StudyInstanceUID).analyses
    message = parser.parse(peer.got[0].decode("gb18030"))
    observed = [str(obx[5]) for obx in message.segments("OBX")]
    assert observed[1] == "未分析。"
    assert observed[2].startswith(f"{analysis.reason}: ")
    assert not re.search("[a-z]{2}", observed[2].partition(": ")[2])
    assert "头颅" in str(message.segment("OBR")[4])


@pytest.mark.req("R-DELIVER-02", "R-DELIVER-06")
def test_dest_test_tells_a_his_from_what_is_none(authority):
    with mllp_peer(lambda message: ack_of(message, "AR", "ERR||MSH^1^9|200\r")) as peer:
        good = probe(destination("hl7", peer.port), "S", FakeClock())
        assert good.ok
        assert "speaks HL7" in good.words
        assert b"PID" not in peer.got[0]
    with http_stub(lambda _: (200, {}, b"")) as stub:
        wrong = probe(destination("hl7", stub.port, timeout_s=2), "S", FakeClock())
        assert not wrong.ok
    with mllp_peer(lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", framed=False) as peer:
        wrong = probe(destination("hl7", peer.port), "S", FakeClock())
        assert not wrong.ok
        assert "no HL7 over MLLP; check host and port" in wrong.words


# -- webhook ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-DELIVER-03")
def test_a_webhook_is_told_the_result_and_can_prove_who_told_it(box, secret, authority):
    one = owe_statement(box)
    with http_stub(lambda _: (204, {}, b""), tls=server_side(authority.issue("hook"))) as stub:
        tls = {"ca_path": authority.path}
        to = destination("webhook", stub.port, scheme="https", tls=tls, secret_path=secret)
        stage = box.stage_to(to)
        box.drain(stage)
        stage.close()
        assert probe(to, "S", box.clock).ok
    got, test = stub.got
    assert got.path == "/hook?x=1"
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    wanted = base64.b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{wanted}"
    assert int(got.headers["webhook-timestamp"]) == int(box.clock.now().timestamp())
    told = json.loads(got.body)
    assert (told["type"], told["data"]["outcome"]) == ("scanside.result", "FINDING")
    assert b"Zhang" not in got.body
    assert json.loads(test.body)["type"] == "scanside.test"
    assert (box.row(one)["state"], box.row(one)["status"]) == ("sent", 204)


# -- all kinds -------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-DELIVER-05")
@pytest.mark.parametrize("kind", ["stow", "hl7", "webhook"])
def test_in_evaluation_mode_no_kind_of_clinical_destination_gets_a_result(box, secret, kind):
    more = {"secret_path": secret} if kind == "webhook" else {}
    if kind == "stow":
        box.owe(kind="sr", syntax=ExplicitVRLittleEndian)
    else:
        owe_statement(box)
    with http_stub(lambda _: (200, {}, b"")) as stub:
        stage = box.stage_to(destination(kind, stub.port, purpose="clinical", **more), evaluation=True)
        for _ in range(3):
            stage.step()
        stage.close()
    assert box.states() == ["parked"]
    assert stub.got == []
    assert "purpose test" in box.row(1)["error"]


@pytest.mark.req("R-DELIVER-06")
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "user, password or token"),
        (403, "does not allow us"),
        (404, "correct url"),
        (302, "to another address"),
        (503, "would not take"),
    ],
)
def test_what_dest_test_says_of_a_server_that_refuses(status, words):
    with http_stub(lambda _: (status, {"Location": "http://10.0.0.1/"}, b"")) as stub:
        result = probe(destination("stow", stub.port), "S", FakeClock())
    assert not result.ok
    assert words in result.words
    assert len(stub.got) == 1
