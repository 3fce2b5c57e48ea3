"""T26: a PACS that is down for seven days, and back. Nothing is lost, the order holds, few objects go twice."""

from __future__ import annotations

import itertools
from collections import defaultdict
from datetime import timedelta

import pytest
from deliver_kit import Box

from appliance.deliver.retry import LONGEST_S
from appliance.simulate.pacs import Manner, Pacs

pytestmark = [pytest.mark.fault("T26"), pytest.mark.req("R-FORWARD-06"), pytest.mark.timeout(1800)]


def full_once():
    """Out of room for the first object, not for the others."""
    rest = iter([0xA700])
    return lambda _uid: next(rest, 0x0000)


def test_seven_days_without_a_pacs_lose_nothing_and_what_waits_goes_in_order(tmp_path, request, free_port):
    objects = 20_000 if request.config.getoption("--full") else 1_000
    studies = objects // 20
    box = Box(tmp_path / "state")
    pacs = Pacs(tmp_path / "pacs", port=free_port())  # nobody takes it while the PACS is down
    pacs.start()
    stage = box.stage(pacs.port)
    wanted = defaultdict(list)
    knocks = []
    asked = stage._sender.open

    def counted(batch):
        knocks.append(box.clock.monotonic())
        return asked(batch)

    stage._sender.open = counted
    try:
        pacs.stop()
        begin = box.clock.now()
        alarm_at = None
        left = objects
        while box.clock.now() - begin < timedelta(days=7):
            # They come in over the first days, images of several studies mixed.
            for _ in range(min(left, objects // 100)):
                study = 1 + (objects - left) % studies
                delivery = box.owe(b"%06d" % left + bytes(1018), study=study)
                wanted[study].append(box.row(delivery)["sop_instance_uid"])
                left -= 1
            assert not stage.step()
            if alarm_at is None and box.issues():
                alarm_at = box.clock.now() - begin
            box.clock.advance(60 if left else 150)
        assert left == 0
        assert box.issues() == {"DESTINATION_UNREACHABLE"}
        assert alarm_at <= timedelta(minutes=5)
        waits = [later - earlier for earlier, later in itertools.pairwise(knocks)]
        # A step comes only when the test makes one, up to 150 s after the pause has ended.
        assert max(waits) <= LONGEST_S + 150
        assert len({round(wait) for wait in waits}) > 1
        assert box.states() == ["owed"] * objects

        pacs.start()
        box.clock.advance(LONGEST_S)
        for n in range(objects):
            if n == 1:
                pacs.manner = Manner.LOSE_RESPONSE  # as it wakes, it stumbles
            elif n == 2:
                pacs.manner = Manner.ANSWER
                pacs.status = full_once()
            if not stage.step():
                if not box.store.deliveries.backlog():
                    break
                box.clock.advance(10)
    finally:
        stage.close()
        pacs.stop()
        states = set(box.states())
        open_issues = box.issues()
        box.close()
    assert states == {"sent"}
    assert open_issues == set()
    arrived = [arrival.sop_instance_uid for arrival in pacs.arrivals]
    assert set(arrived) == {uid for uids in wanted.values() for uid in uids}
    assert 1 <= len(arrived) - objects <= objects // 100
    of_study = {uid: study for study, uids in wanted.items() for uid in uids}
    came = defaultdict(list)
    for uid in dict.fromkeys(reversed(arrived)):  # the last time that each came
        came[of_study[uid]].append(uid)
    assert {study: uids[::-1] for study, uids in came.items()} == wanted
