"""Telling one scanner what is committed (storage commitment as SCP, PS3.4 Annex J), until it has taken the report.

The scanner is called on an association of our own, under the AE title that it called when it asked, as the SCP of the
class (PS3.7 §D.3.3.4).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import timedelta

from appliance.clock import Clock
from appliance.config import Config, Source
from appliance.deliver.dicom_scu import Association, Peer
from appliance.deliver.retry import AssociationLost, ContextRefused, NoAssociation, next_try
from appliance.deliver.wire import Context
from appliance.dicom import commands
from appliance.dicom.classes import STORAGE_COMMITMENT_INSTANCE, STORAGE_COMMITMENT_PUSH
from appliance.dicom.commitment import ALL_COMMITTED, CONTEXTS, FAILURES_EXIST, encode_report
from appliance.dicom.pdus import RoleSelection
from appliance.store.commitment_requests import CommitmentRequests, Report

#: How often the requests are held against what was committed; the stage is woken after each report of a PACS too.
LOOK_S = 2.0
#: While a PACS is away for days requests for 100,000 images may wait, and a look takes a second: at most every tenth.
_PAUSE_PER_LOOK = 10.0
#: A scanner that has not taken a report for so long becomes an issue.
ISSUE_AFTER = timedelta(days=1)
_TIMEOUT_S = 30.0
_RESOLVER_S = 30.0
_AS_SCP = (RoleSelection(STORAGE_COMMITMENT_PUSH, is_scu=False, is_scp=True),)


class CommitmentReportStage:
    """Reports to one source. ``step`` is called from one thread; ``interrupt`` may come from any."""

    #: Connect, shake hands, associate, the report in two parts, its answer; then the release.
    max_step_s = _RESOLVER_S + 6 * _TIMEOUT_S + 10.0

    def __init__(
        self,
        source: Source,
        config: Config,
        requests: CommitmentRequests,
        clock: Clock,
        *,
        rng: random.Random | None = None,
        associate: Callable[[Peer, Sequence[Context], Sequence[RoleSelection]], Association] = Association,
    ) -> None:
        """Report to ``source``, which has a commitment_host.

        Args:
            source: Whom.
            config: Says which destinations must have committed.
            requests: What the scanner asked.
            clock: Wall clock for the rows, monotonic clock for pauses.
            rng: Jitter of the back-off.
            associate: How an association is made; tests give another.
        """
        self.name = f"commitment report {source.name}"
        self._source = source
        self._config = config
        self._requests = requests
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._associate = associate
        self._association: Association | None = None
        self._stopping = False
        self._failures = 0
        self._paused_until = 0.0
        self._next_look = 0.0

    def wake(self) -> None:
        """Look now: a destination has committed to something, or the scanner has asked."""
        self._next_look = 0.0

    def step(self) -> bool:
        """Decide what can be decided, and make one report that is due."""
        now = self._clock.monotonic()
        if now < max(self._next_look, self._paused_until):
            return False
        self._next_look = now + LOOK_S
        self._requests.decide(self._source.name, self._config.committing)
        self._next_look += _PAUSE_PER_LOOK * (self._clock.monotonic() - now)
        report = self._requests.next_report(self._source.name)
        if report is None:
            return False
        self._report(report)
        self._next_look = 0.0
        return self._failures == 0

    def interrupt(self) -> None:
        """End a wait for the scanner, so that the daemon can stop now. The report stays due."""
        self._stopping = True
        association = self._association
        if association is not None:
            association.interrupt()

    def _report(self, report: Report) -> None:
        peer = Peer(
            host=self._source.commitment_host,
            port=self._source.commitment_port or 0,
            called_ae=report.calling_ae,
            calling_ae=report.called_ae,
            timeout_s=_TIMEOUT_S,
            tls=self._source.commitment_tls,
        )
        try:
            self._association = association = self._associate(peer, CONTEXTS, _AS_SCP)
            try:
                context = next((one for one in CONTEXTS if one in association.accepted), CONTEXTS[0])
                data = encode_report(report.transaction_uid, report.committed, report.failed, context[1])
                event = FAILURES_EXIST if report.failed else ALL_COMMITTED
                status = association.ask(
                    context, commands.N_EVENT_REPORT_RQ, STORAGE_COMMITMENT_INSTANCE, data, type_id=event
                )
            finally:
                self._association = None
                association.release()
        except (NoAssociation, ContextRefused, AssociationLost) as error:
            if not self._stopping:
                self._not_taken(report, str(error))
            return
        if status != commands.SUCCESS:
            self._not_taken(report, f"{peer} answers the report of storage commitment with status 0x{status:04X}")
            return
        self._failures = 0
        self._requests.reported(report)

    def _not_taken(self, report: Report, words: str) -> None:
        self._failures += 1
        is_long = self._clock.now() - report.asked_at >= ISSUE_AFTER
        self._requests.not_reported(report, words, raise_issue_too=is_long)
        self._paused_until = self._clock.monotonic() + next_try(self._failures, self._rng)
