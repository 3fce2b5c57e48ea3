"""Acknowledged images that are not there after kill -9 under load.

A short loop at random moments. Each step of the receipt is hit one by one by ``make test``: T01-T03 in
``tests/faults/test_box_kill.py`` and ``tests/faults/test_scp_disk.py``, at full size by ``make test-long``.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import sys
import threading
import time
from collections.abc import Iterator

from bench.box import Box
from bench.images import Image, Template, small_ct_template
from bench.rows import ROOT, Bench, Row
from bench.send import association

_SENDERS = 4
_SLICES = 20


def measure(bench: Bench) -> list[Row]:
    """Kill and start again while scanners send; then hold every image that was acknowledged against the spool."""
    kills = bench.size(30, least=3)
    folder = bench.new_folder("kill")
    box = Box(folder)
    stop = threading.Event()
    template, numbers = small_ct_template(_SLICES), itertools.count()
    senders = [_Sender(box, _images(template, numbers), stop) for _ in range(_SENDERS)]
    rng = random.Random(20260105)  # noqa: S311 - the same in every run, no secret
    with box:
        for sender in senders:
            sender.start()
        for _ in range(kills):
            time.sleep(rng.uniform(0.1, 1.0))
            box.kill()
            box.start()
            box.wait_ready()
        stop.set()
        for sender in senders:
            sender.join()
    acknowledged = {uid: digest for sender in senders for uid, digest in sender.acknowledged.items()}
    wrong = _checked(box, acknowledged)
    return [
        Row(
            name="kill",
            figure=f"acknowledged images lost over {kills} x kill -9 under {_SENDERS} senders",
            measured=f"{len(wrong)} of {len(acknowledged)}",
            bound="0",
            ok=not wrong and bool(acknowledged),
            details={
                "acknowledged": len(acknowledged),
                "kills": kills,
                "wrong": wrong[:20],
                "every_step": "tests/faults/test_box_kill.py and tests/faults/test_scp_disk.py; make test-long",
            },
        )
    ]


def _images(template: Template, numbers: Iterator[int]) -> Iterator[Image]:
    for number in numbers:
        yield from template.study(number).images


class _Sender(threading.Thread):
    """Sends until told to stop, begins a new association after each loss, remembers what was acknowledged."""

    def __init__(self, box: Box, images: Iterator[Image], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._box, self._images, self._stop_asked = box, images, stop
        self.acknowledged: dict[str, str] = {}

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                self._send_some()
            except (OSError, SystemExit):
                time.sleep(0.02)

    def _send_some(self) -> None:
        images = list(itertools.islice(self._images, _SLICES))
        with association(self._box.port, "CT-1", images[0].sop_class_uid) as sender:
            for image in images:
                sender.store(image)
                self.acknowledged[image.sop_instance_uid] = hashlib.sha256(image.data).hexdigest()
                if self._stop_asked.is_set():
                    return


def _checked(box: Box, acknowledged: dict[str, str]) -> list[str]:
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from checker import check  # type: ignore[import-not-found]

    wrong: list[str] = check(box.state, acknowledged, expect_outcomes=False)
    return wrong
