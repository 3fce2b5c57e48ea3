"""Telling of alerts outside the screens: a thread for each sink, so that none waits for another and no alert for any.

What a sink is owed stands in the store (``store.escalations``). It is tried again with back-off, for as long as the
news is of use; a sink that fails is an issue.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

from appliance.clock import Clock
from appliance.config import AlertSinkChoice, Config, WebhookSink
from appliance.deliver.connect import client_context
from appliance.deliver.light import Light
from appliance.deliver.pager import Pager
from appliance.deliver.retry import next_try
from appliance.errors import ConfigError, TransientError
from appliance.store import Store
from appliance.store.escalations import Escalations, Notice

#: A page about an alert of half an hour ago helps nobody; what calls no longer must still be said a while.
GIVE_UP_S = 1800.0
#: It is tried again at least so often: each second counts.
LONGEST_WAIT_S = 30.0
#: So many failures in a row are an issue.
FAILURES_TO_ISSUE = 2


class AlertSink(Protocol):
    """Something outside the screens that calls people. One thread uses it; each call is bounded by its own limit."""

    def tell(self, notice: Notice) -> None:
        """Pass a notice on. A repeated one must do no harm: an answer may have been lost.

        Raises:
            TransientError: It was not taken, or nobody knows; the message says how to mend it.
        """
        ...


class AlertSinkStage:
    """Tells one sink what it is owed, in order."""

    def __init__(
        self,
        choice: AlertSinkChoice,
        sink: AlertSink,
        escalations: Escalations,
        clock: Clock,
        *,
        rng: random.Random | None = None,
    ) -> None:
        """Tell ``sink``, configured as ``choice``."""
        self.name = f"alert sink {choice.name}"
        # Resolve, connect, shake hands, answer; ten notices.
        self.max_step_s = 30.0 + 10 * 4 * choice.timeout_s
        self._sink_name = choice.name
        self._sink = sink
        self._escalations = escalations
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter

    def step(self) -> bool:
        """Tell what is due. True when there may be more at once."""
        owed = self._escalations.owed(self._sink_name, self._clock.now(), limit=1)
        if not owed:
            return False
        notice = owed[0]
        try:
            self._sink.tell(notice)
        except TransientError as error:
            return self._failed(notice, str(error))
        self._escalations.told(notice)
        return True

    def _failed(self, notice: Notice, error: str) -> bool:
        attempt = notice.attempt + 1
        now = self._clock.now()
        wait = timedelta(seconds=min(next_try(attempt, self._rng), LONGEST_WAIT_S))
        self._escalations.failed(notice, error, now + wait, is_issue=attempt >= FAILURES_TO_ISSUE)
        if now - notice.owed_at > timedelta(seconds=GIVE_UP_S):
            self._escalations.give_up(notice)
            return True
        return False


def alert_sink_stages(
    config: Config, drivers: Mapping[str, AlertSink], store: Store, clock: Clock
) -> list[AlertSinkStage]:
    """A stage for each configured sink, by its driver. What was owed to others is owed to nobody."""
    store.escalations.forget_other_sinks(drivers)
    return [AlertSinkStage(one, drivers[one.name], store.escalations, clock) for one in config.alert_sinks]


def alert_sinks(config: Config, clock: Clock) -> dict[str, AlertSink]:
    """The drivers of the configured sinks, by name.

    Raises:
        ConfigError: A certificate or secret cannot be read.
    """
    return {choice.name: sink_of(choice, config, clock) for choice in config.alert_sinks}


def sink_of(choice: AlertSinkChoice, config: Config, clock: Clock) -> AlertSink:
    """The driver of a configured sink.

    Raises:
        ConfigError: A certificate or secret of it cannot be read.
    """
    if not isinstance(choice, WebhookSink):
        return Light(choice)
    try:
        if choice.tls is not None:
            client_context(choice.tls)
        return Pager(choice, clock, site=config.site.name, evaluation=config.site.mode == "evaluation")
    except ConfigError as error:
        raise ConfigError(f"alert sink {choice.name!r}: {error}") from error
