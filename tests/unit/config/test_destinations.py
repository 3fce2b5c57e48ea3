"""Destinations of every kind in the configuration: what is refused, and whether the words say how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tls_kit import Authority

from appliance.clock import FakeClock
from appliance.config import Hl7Destination, StowDestination, WebhookDestination, load_config
from appliance.deliver.senders import check_tls, sender_of
from appliance.errors import ConfigError
from appliance.records import AnalysisResult, DeliveryKind, Outcome, Reason
from appliance.triage.packages import owed_results

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.req("R-DELIVER-05")

DICOM = {"kind": "dicom", "name": "d", "host": "h", "port": 104, "ae_title": "PACS"}
STOW = {"kind": "stow", "name": "s", "url": "https://pacs/dicom-web", "tls": {"ca_path": "/ca.pem"}}
HL7 = {"kind": "hl7", "name": "h", "host": "his", "port": 2575}
HOOK = {"kind": "webhook", "name": "w", "url": "http://127.0.0.1:1/", "secret_path": "/secret"}


@pytest.fixture
def loaded(tmp_path):
    def load(*destinations, **more):
        path = tmp_path / "appliance.yaml"
        path.write_text(yaml.safe_dump({"destinations": list(destinations), **more}, sort_keys=False), "utf-8")
        return load_config(path)

    return load


def test_the_commented_examples_are_valid_destinations_of_every_kind(tmp_path):
    lines = (ROOT / "config" / "appliance.yaml").read_text("utf-8").splitlines()
    begin = lines.index("destinations: []") + 1
    section = []
    for line in lines[begin:]:
        if not line.startswith("#"):
            break
        section.append(line.removeprefix("#"))
    (tmp_path / "a.yaml").write_text("destinations:\n" + "\n".join(section) + "\n", "utf-8")
    config = load_config(tmp_path / "a.yaml")
    assert [one.kind for one in config.destinations] == ["dicom", "stow", "hl7", "webhook"]
    assert {one.purpose for one in config.destinations} == {"test"}


def test_each_kind_is_owed_what_it_can_take_and_in_evaluation_mode_only_for_tests(loaded):
    everybody = [{**one, "purpose": "test"} for one in (DICOM, STOW, HL7, HOOK)]
    result = AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.FAILED)
    owed = {(one.destination, one.kind) for one in owed_results(loaded(*everybody), "p", result)}
    assert owed == {
        ("d", DeliveryKind.SR),
        ("s", DeliveryKind.SR),
        ("h", DeliveryKind.STATEMENT),
        ("w", DeliveryKind.STATEMENT),
    }
    assert not owed_results(loaded(DICOM, STOW, HL7, HOOK), "p", result)
    silent = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED)
    assert not owed_results(loaded(*everybody), "p", silent)


def test_defaults_are_the_safe_ones(loaded):
    stow, his, hook = loaded(STOW, HL7, HOOK).destinations
    assert isinstance(stow, StowDestination)
    assert isinstance(his, Hl7Destination)
    assert isinstance(hook, WebhookDestination)
    assert (his.charset, his.processing_id, his.sending_application) == ("utf-8", "P", "SCANSIDE")
    assert his.send == hook.send == (DeliveryKind.STATEMENT,)


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ({**HL7, "send": ["sr"]}, "line 6: destinations.0.send: Extra inputs are not permitted; remove it"),
        ({**DICOM, "send": ["statement"]}, "'statement' is no DICOM object"),
        ({**STOW, "tls": None}, "https needs tls with the ca_path"),
        ({**STOW, "url": "http://pacs/"}, "write https:"),
        ({**STOW, "url": "ftp://pacs/"}, "give an address as https://"),
        ({**STOW, "url": "https://user:secret@pacs/"}, "read from a file"),
        ({**STOW, "url": "https://pacs:99999/"}, "give an address as https://"),
        ({**STOW, "url": "https://pacs/a b"}, "write them as %20"),
        ({**STOW, "url": "https://pacs/a?b=c"}, "has no '?'"),
        ({**STOW, "user": "box"}, "user and password_path belong together"),
        ({**STOW, "user": "b", "password_path": "/p", "token_path": "/t"}, "exclude each other"),
        ({**STOW, "tls": {"ca_path": "/a", "key_path": "/k"}}, "certificate_path and key_path belong together"),
        ({**HL7, "sending_facility": "A|B"}, "pattern"),
        ({**HL7, "charset": "gbk"}, "'utf-8' or 'gb18030'"),
        ({**HL7, "language": "zh"}, "'en' or 'zh_Hans_CN'"),
        ({**HL7, "processing_id": "D"}, "'P' or 'T'"),
        ({**HOOK, "secret_path": None}, "secret_path"),
        ({**HOOK, "kind": "fax"}, "dicom"),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(loaded, destination, words):
    given = {key: value for key, value in destination.items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        loaded(given)
    assert words in str(caught.value)
    assert "line" in str(caught.value)


def test_a_file_that_is_missing_or_open_to_everybody_is_told_with_the_destinations_name(loaded, tmp_path):
    def sender(one):
        return sender_of(loaded(one).destinations[0], "SCANSIDE", FakeClock())

    with pytest.raises(ConfigError, match=r"destination 's': tls.ca_path: /ca.pem: No such file"):
        sender(STOW)
    ours = Authority(tmp_path, "hospital").issue("box")
    tls = {
        "ca_path": str(tmp_path / "hospital.pem"),
        "certificate_path": str(ours.certificate),
        "key_path": str(ours.key),
    }
    for one in (DICOM, HL7, STOW):
        sender({**one, "tls": tls})
    ours.key.chmod(0o644)
    with pytest.raises(ConfigError, match=r"destination 'd': .*open to everybody.*chmod o= "):
        sender({**DICOM, "tls": tls})
    token = tmp_path / "token"
    token.write_text("one\ntwo")
    token.chmod(0o600)
    with pytest.raises(ConfigError, match=r"destination 's': token_path: .*one line"):
        sender({**STOW, "tls": {"ca_path": tls["ca_path"]}, "token_path": str(token)})
    with pytest.raises(ConfigError, match=r"destination 'w': secret_path: /secret cannot be read"):
        sender(HOOK)


def test_a_certificate_for_a_scanner_or_the_ris_that_cannot_be_read_is_told_with_whose_it_is(loaded, tmp_path):
    ca = str(Authority(tmp_path, "hospital").path)
    pacs = {**DICOM, "commitment": True}
    scanner = {"name": "CT-1", "ae_title": "CT1", "mode": "inline", "commitment_host": "h", "commitment_port": 104}
    ris = {"host": "ris", "port": 104, "ae_title": "RIS"}

    def configured(scanner_ca, ris_ca):
        sources = [{**scanner, "commitment_tls": {"ca_path": scanner_ca}}]
        return loaded(pacs, sources=sources, worklist={**ris, "tls": {"ca_path": ris_ca}})

    check_tls(configured(ca, ca))
    with pytest.raises(ConfigError, match=r"source 'CT-1': commitment_tls: tls.ca_path: /no.pem: No such file"):
        check_tls(configured("/no.pem", ca))
    with pytest.raises(ConfigError, match=r"worklist: tls.ca_path: /no.pem: No such file"):
        check_tls(configured(ca, "/no.pem"))


def test_in_clinical_mode_results_leave_by_https_only(loaded):
    clinical = {"site": {"mode": "clinical"}}
    with pytest.raises(ConfigError, match=r"destination 'w': in clinical mode results leave the box by https only"):
        loaded({**HOOK, "url": "http://hook.example/"}, **clinical)
    loaded(HOOK, STOW, {**HOOK, "name": "local", "url": "http://localhost/x"}, **clinical)
