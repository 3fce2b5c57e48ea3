"""Results as signed JSON, by the Standard Webhooks specification: no name, number or birth date of a patient.

``webhook-id`` follows from the SOP Instance UID of the statement, so that a receiver knows what is sent again; the
signature is HMAC-SHA256 over id, time and body, so that nobody else can say a result, nor this one at another time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import IO, Any

from appliance.clock import Clock
from appliance.config import WebhookDestination, WebhookSink
from appliance.deliver.connect import read_secret
from appliance.deliver.http import HttpConnection, Reply, Server
from appliance.deliver.retry import Fault, Judgement, NoAssociation, Verdict
from appliance.errors import ConfigError
from appliance.store.deliveries import Delivery

_PREFIX = "whsec_"
#: What the specification asks of a secret.
_SECRET_BYTES = range(24, 65)
#: Of the statement; patient, names of physicians and the study's own texts stay here.
_TOLD = (
    *("schema", "id", "predecessors", "box_version", "done_at", "late", "evaluation", "permitted_use", "package"),
    *("outcome", "summary", "reason", "reason_text", "findings", "looked_for", "not_looked_for", "caveats"),
)


class WebhookSender:
    """A server that wants to be told."""

    def __init__(self, destination: WebhookDestination, clock: Clock) -> None:
        """Speak to ``destination``; raises ``ConfigError`` where its secret cannot be read."""
        self._destination = destination
        self._clock = clock
        signing_key(destination)

    def batch(self, owed: list[Delivery]) -> list[Delivery]:
        """Everything."""
        return owed

    def open(self, batch: list[Delivery]) -> WebhookChannel:  # noqa: ARG002 - one channel takes them all
        """Connect; raises ``NoAssociation``."""
        return WebhookChannel(self._destination, self._clock)


class WebhookChannel:
    """A connection."""

    def __init__(self, destination: WebhookDestination, clock: Clock) -> None:
        """Connect; raises ``NoAssociation``."""
        try:
            self._key = signing_key(destination)
        except ConfigError as error:
            raise NoAssociation(str(error)) from error
        self._clock = clock
        self._http = HttpConnection(Server(url=destination.url, timeout_s=destination.timeout_s, tls=destination.tls))

    def takes(self, batch: list[Delivery]) -> bool:  # noqa: ARG002 - any
        """Whether it stands."""
        return self._http.is_alive()

    def send(self, delivery: Delivery, stream: IO[bytes], size: int) -> Judgement:
        """Tell one result."""
        statement = json.loads(stream.read(size))
        return judge_webhook(self._post(message_id(delivery.sop_instance_uid), body_of(statement)))

    def probe(self) -> Judgement:
        """Tell that this is a test; raises as ``send``."""
        body = json.dumps({"type": "scanside.test", "timestamp": self._clock.now().isoformat(), "data": {}}).encode()
        return judge_webhook(self._post(message_id(body.decode()), body))

    def release(self) -> None:
        """Close it."""
        self._http.close()

    def interrupt(self) -> None:
        """Cut it."""
        self._http.cut()

    def _post(self, webhook_id: str, body: bytes) -> Reply:
        at_s = int(self._clock.now().timestamp())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": signature(self._key, webhook_id, at_s, body),
        }
        return self._http.post(headers, [body], len(body))


def message_id(sop_instance_uid: str) -> str:
    """The ``webhook-id`` of a statement: the same at every attempt, and no UID."""
    return "msg_" + hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:32]


def body_of(statement: dict[str, Any]) -> bytes:
    """The body that tells a statement: of identity no more than study and accession number."""
    review = statement.get("review")
    # A reviewer's name and own words, which may name the patient, stay here.
    words = " ".join(review["words"]) if review else ""
    data = {
        **{key: statement[key] for key in _TOLD},
        "summary": statement["summary"].removeprefix(words).strip(),
        "review": {key: review[key] for key in ("version", "decision", "signed_at")} if review else None,
        "study_instance_uid": statement["study"]["study_instance_uid"],
        "accession_number": statement["order"]["accession_number"],
        "modality": statement["study"]["modality"],
    }
    body = {"type": "scanside.result", "timestamp": statement["done_at"], "data": data}
    return json.dumps(body, separators=(",", ":")).encode()


def signature(key: bytes, webhook_id: str, at_s: int, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    digest = hmac.new(key, f"{webhook_id}.{at_s}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def signing_key(destination: WebhookDestination | WebhookSink) -> bytes:
    """The key out of the secret's file.

    Raises:
        ConfigError: It cannot be read, everybody may read it, or it holds something else.
    """
    text = read_secret("secret_path", destination.secret_path)
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(_PREFIX) or len(key) not in _SECRET_BYTES:
        raise ConfigError(
            f"secret_path: {destination.secret_path} holds no secret; write one with"
            f' (umask 077; echo "{_PREFIX}$(openssl rand -base64 32)" > {destination.secret_path})'
        )
    return key


def judge_webhook(reply: Reply) -> Judgement:
    """What an answer means: 2xx taken, 4xx never, anything else later."""
    status = reply.status
    if 200 <= status < 300:
        return Judgement(verdict=Verdict.STORED, status=status)
    if status in {408, 425, 429} or not 400 <= status < 500:
        fault = Fault.EITHER if status >= 500 else Fault.DESTINATION
        return Judgement(
            verdict=Verdict.RETRY, words=f"HTTP {status}: it does not take it now", status=status, fault=fault
        )
    what = "this address is gone for good; correct url" if status == 410 else "it does not take what we tell"
    return Judgement(verdict=Verdict.PARK, words=f"HTTP {status}: {what}; mend it there, then retry", status=status)
