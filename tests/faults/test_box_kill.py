"""The whole box under kill -9, SIGTERM and power cuts while scanners send: nothing acknowledged is lost."""

from __future__ import annotations

import hashlib
import random
import threading

import pytest
from box_process import BoxProcess
from checker import check
from scp_kit import ct, encode

from appliance.simulate.rawscu import RawScu

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"


class Sender:
    """Sends small CT images for ever, reconnecting; remembers what was acknowledged."""

    def __init__(self, box, seed):
        self._box = box
        self._seed = seed
        self.acknowledged = {}
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        number = 0
        while not self.stop.is_set():
            try:
                scu = RawScu("127.0.0.1", self._box.dicom_port, calling="CT-1", called="SCANSIDE", timeout_s=10)
                scu.connect()
                try:
                    (context,) = scu.associate([(CT, [EXPLICIT_LE])])
                    for _ in range(20):
                        if self.stop.is_set():
                            break
                        number += 1
                        ds = ct(
                            InstanceNumber=number, StudyInstanceUID=f"1.2.826.{self._seed}", SeriesInstanceUID="1.2.3"
                        )
                        data = encode(ds)
                        if scu.store(context, CT, str(ds.SOPInstanceUID), data) == 0:
                            self.acknowledged[str(ds.SOPInstanceUID)] = hashlib.sha256(data).hexdigest()
                    scu.release()
                finally:
                    scu.close()
            except OSError:
                self.stop.wait(0.05)

    def end(self):
        self.stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.acknowledged


@pytest.mark.fault("T01")
@pytest.mark.req("R-INTAKE-01")
def test_kill_at_random_times_under_eight_senders_loses_no_acknowledged_image(tmp_path, scale):
    rng = random.Random(20261121)
    with BoxProcess(tmp_path) as box:
        senders = [Sender(box, seed) for seed in range(8)]
        for _ in range(max(4, int(100 * scale))):
            threading.Event().wait(rng.uniform(0.1, 1.5))
            box.kill()
            box.start()
        acknowledged = {}
        for sender in senders:
            acknowledged |= sender.end()
        assert box.terminate()[0] == 0
        box.start()  # the recovery of a clean stop changes nothing, and the last studies end
        threading.Event().wait(3.0)
        assert box.terminate()[0] == 0
    assert len(acknowledged) > 50
    assert check(tmp_path / "state", acknowledged, expect_outcomes=False) == []


@pytest.mark.fault("T49")
def test_sigterm_under_load_ends_in_time_and_loses_nothing(tmp_path, wait_until):
    with BoxProcess(tmp_path) as box:
        senders = [Sender(box, seed) for seed in range(4)]
        wait_until(lambda: all(len(sender.acknowledged) > 5 for sender in senders))
        status, took_s = box.terminate()
        acknowledged = {}
        for sender in senders:
            acknowledged |= sender.end()
    assert status == 0
    assert took_s <= 20
    assert check(tmp_path / "state", acknowledged, expect_outcomes=False) == []
