"""A scanner that sends small CT images for ever and remembers what was acknowledged."""

from __future__ import annotations

import hashlib
import threading

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
