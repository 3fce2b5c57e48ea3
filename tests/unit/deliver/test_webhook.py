"""What a webhook is told, how it is signed, and what its answers mean."""

from __future__ import annotations

import base64
import json

import pytest

from appliance.config import WebhookDestination
from appliance.deliver.http import Reply
from appliance.deliver.retry import Verdict
from appliance.deliver.webhook import body_of, judge_webhook, message_id, signature, signing_key
from appliance.errors import ConfigError

pytestmark = pytest.mark.req("R-DELIVER-03")


def test_the_signature_is_that_of_the_specifications_own_example():
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_of_the_patient_no_more_is_told_than_study_and_accession_number(statement):
    body = body_of(statement)
    data = json.loads(body)["data"]
    assert (data["study_instance_uid"], data["accession_number"]) == ("1.2.3.4", "ACC-7")
    assert data["outcome"] == "FINDING"
    assert data["findings"][0]["measurements"][0]["unit"] == "ml"
    for secret in ("Zhang", "P|1", "19700102", "Roe", "HOSP", "CT Head", "RP9"):
        assert secret.encode() not in body


def test_of_a_review_its_decision_is_told_and_neither_the_persons_name_nor_their_words(statement):
    words = [
        "Rejected by Li Wei (radiologist), 2026-11-22 10:00, version 2. Beam hardening of Mr Wang",
        "Blood: absent.",
    ]
    review = {"version": 2, "decision": "disagree", "signed_at": "2026-11-22T10:00:00+00:00", "words": words}
    summary = " ".join([*words, statement["summary"]])
    body = body_of({**statement, "summary": summary, "review": {**review, "reviewer": "Li Wei", "note": "Mr Wang"}})
    data = json.loads(body)["data"]
    assert data["summary"] == json.loads(body_of(statement))["data"]["summary"] == statement["summary"]
    assert (data["review"]["decision"], data["review"]["version"]) == ("disagree", 2)
    for secret in (b"Wei", b"Wang"):
        assert secret not in body


def test_a_result_that_is_sent_again_bears_the_same_id_and_no_uid():
    assert message_id("2.25.5") == message_id("2.25.5") != message_id("2.25.6")
    assert "2.25" not in message_id("2.25.5")


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.STORED),
        (204, Verdict.STORED),
        (400, Verdict.PARK),
        (410, Verdict.PARK),
        (422, Verdict.PARK),
        (408, Verdict.RETRY),
        (429, Verdict.RETRY),
        (500, Verdict.RETRY),
        (503, Verdict.RETRY),
    ],
)
def test_answers(status, verdict):
    assert judge_webhook(Reply(status=status, body=b"")).verdict is verdict


def destination(path):
    return WebhookDestination(kind="webhook", name="w", url="http://127.0.0.1/", secret_path=path)


@pytest.mark.parametrize("text", ["", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_???"])
def test_what_is_no_secret_is_refused_with_the_line_that_makes_one(tmp_path, text):
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"openssl rand|one line"):
        signing_key(destination(path))


def test_a_secret_that_everybody_may_read_is_refused(tmp_path):
    path = tmp_path / "secret"
    path.write_text("whsec_" + base64.b64encode(bytes(32)).decode() + "\n")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod o="):
        signing_key(destination(path))
    path.chmod(0o640)
    assert signing_key(destination(path)) == bytes(32)
    with pytest.raises(ConfigError, match="No such file"):
        signing_key(destination(tmp_path / "none"))
