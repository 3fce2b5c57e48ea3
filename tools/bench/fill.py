"""A state folder with many instances, recorded as the receiver does. ``fill.py STATE INSTANCES PER_STUDY``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from appliance.clock import SystemClock
from appliance.dicom.headers import read_header
from appliance.records import Received
from appliance.store import Store
from bench.images import small_ct_template


def fill(state: Path, instances: int, per_study: int) -> None:
    """Record studies of a scanner CT-1 without waiting for the disk: nothing here is at stake."""
    for call in ("fsync", "fdatasync"):
        setattr(os, call, lambda _: None)
    store = Store.open(state, SystemClock(), reserve_bytes=0)
    store.db.all("PRAGMA synchronous=OFF")
    template = small_ct_template(per_study)
    for number in range(instances // per_study):
        association_id = store.studies.open_association(
            source="CT-1", calling_ae="CT-1", called_ae="SCANSIDE", address="127.0.0.1"
        )
        for image in template.study(number).images:
            path = store.spool.write_blob("store", image.file)
            received = Received(
                header=read_header(store.spool.path(path)),
                path=path,
                size=len(image.file),
                data_sha256="0" * 64,
                association_id=association_id,
                source="CT-1",
                stat=False,
                received_mono=time.monotonic(),
            )
            store.studies.add_new(received, ())
        store.studies.close_association(association_id, how="released", images=per_study)
    store.close()


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
