"""Escalated alerts as signed JSON (Standard Webhooks), as results are: of the patient the accession number alone."""

from __future__ import annotations

import hashlib
import json

from appliance.clock import Clock
from appliance.config import WebhookSink
from appliance.deliver.http import HttpConnection, Server
from appliance.deliver.retry import Verdict
from appliance.deliver.webhook import judge_webhook, signature, signing_key
from appliance.errors import ConfigError, TransientError
from appliance.store.escalations import Notice


class Pager:
    """A server that calls people. A connection is made for each message: there are few."""

    def __init__(self, choice: WebhookSink, clock: Clock, *, site: str, evaluation: bool) -> None:
        """Speak to ``choice``.

        Raises:
            ConfigError: Its secret cannot be read.
        """
        self._choice = choice
        self._clock = clock
        self._site = site
        self._evaluation = evaluation
        signing_key(choice)

    def tell(self, notice: Notice) -> None:
        """Send it; raises ``TransientError`` where it is not taken."""
        try:
            key = signing_key(self._choice)
        except ConfigError as error:
            raise TransientError(str(error)) from error
        body = self._body(notice)
        webhook_id, at_s = message_id(notice), int(self._clock.now().timestamp())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": signature(key, webhook_id, at_s, body),
        }
        choice = self._choice
        connection = HttpConnection(Server(url=choice.url, timeout_s=choice.timeout_s, tls=choice.tls))
        try:
            judgement = judge_webhook(connection.post(headers, [body], len(body)))
        finally:
            connection.close()
        if judgement.verdict is not Verdict.STORED:
            raise TransientError(judgement.words)

    def _body(self, notice: Notice) -> bytes:
        data = {
            "schema": 1,
            "site": self._site,
            "step": str(notice.step),
            "is_test": notice.is_test,
            "is_evaluation": self._evaluation,
            "alert": notice.alert_id,
            "test": notice.test_id,
            "category": notice.category,
            "source": notice.source,
            "accession_number": notice.accession_number,
            "raised_at": notice.raised_at.isoformat(),
        }
        body = {"type": "scanside.alert", "timestamp": notice.owed_at.isoformat(), "data": data}
        return json.dumps(body, separators=(",", ":")).encode()


def message_id(notice: Notice) -> str:
    """The ``webhook-id``: the same at every attempt."""
    text = f"{notice.sink}/{notice.alert_id}/{notice.test_id}/{notice.step}/{notice.raised_at.isoformat()}"
    return "msg_" + hashlib.sha256(text.encode()).hexdigest()[:32]
