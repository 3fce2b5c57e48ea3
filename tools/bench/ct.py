"""A thin-slice head CT from the response to its last image to its alert, in the ways that scanners send."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.bare import Bare
from bench.box import HEAD_CT, Box
from bench.images import Image, Sample, ct_template
from bench.rows import ROOT, Bench, Row, medians, spread
from bench.send import Sent, association, send_each, send_in_one
from bench.watch import Watch

_FACTOR, _MORE_MS = 1.3, 300.0
_PACKAGE = ROOT / "engines" / "models" / HEAD_CT
#: How long a second alert is waited for: longer than the box waits for more images, and analyses.
_SETTLE_S, _SETTLE_QUICK_S = 4.0, 1.0
_PAUSE_S = 1.5


@dataclass(slots=True)
class Measured:
    """Several studies, sent the same way."""

    after_ms: list[float] = field(default_factory=list)
    bare_ms: list[float] = field(default_factory=list)
    paths: list[dict[str, float]] = field(default_factory=list)
    sending_s: list[float] = field(default_factory=list)
    premature: int = 0
    doubled: int = 0


def measure(bench: Bench) -> list[Row]:
    """One association; then the other ways, where the box must wait longer because it cannot know."""
    slices, settle_s = (30, _SETTLE_QUICK_S) if bench.quick else (300, _SETTLE_S)
    folder = bench.new_folder("ct")
    template = ct_template(slices)
    with Box(folder, packages=[HEAD_CT]) as box, Watch(box.state) as watch, Bare(_PACKAGE) as bare:
        numbers = iter(range(10**6))

        def run(rounds: int, send: Callable[[Sample], Sent]) -> Measured:
            measured = Measured()
            for _ in range(rounds):
                _one(box, watch, bare, template.study(next(numbers)), send, measured, settle_s)
            return measured

        one = run(bench.size(5), lambda study: send_in_one(box.port, "CT-1", study.images))
        ways = {
            "an association per image": run(1, lambda study: send_each(box.port, "CT-1", study.images)),
            "held open": run(1, lambda study: _held_open(box, watch, study)),
            "with pauses": run(1, lambda study: send_in_one(box.port, "CT-1", study.images, _pauses(slices))),
            "two studies interleaved": run(1, lambda study: _interleaved(box, template.study(next(numbers)), study)),
        }
    return [_one_association(slices, one), _other_ways(slices, ways)]


def _one(
    box: Box,
    watch: Watch,
    bare: Bare,
    study: Sample,
    send: Callable[[Sample], Sent],
    measured: Measured,
    settle_s: float,
) -> None:
    begun = time.monotonic()
    sent = send(study)
    uid = study.study_instance_uid
    alert = watch.wait(uid, "alert_raised")
    measured.sending_s.append(sent.response_mono - begun)
    measured.after_ms.append((alert.at_mono - sent.response_mono) * 1000)
    # While the bare time is taken, a doubled alert has its time to come.
    settled = time.monotonic() + settle_s
    measured.bare_ms.append(bare.ms("ct", watch.paths(uid, box.state))["total"])
    time.sleep(max(0.0, settled - time.monotonic()))
    measured.paths.append(watch.path_ms(uid, sent.response_mono))
    measured.premature += alert.at_mono < sent.response_mono
    measured.doubled += len(watch.of(uid, "alert_raised")) + len(watch.of(uid, "analysis_done")) - 2


def _held_open(box: Box, watch: Watch, study: Sample) -> Sent:
    """The scanner keeps its association after the last image, until the alert is there."""
    with association(box.port, "CT-1", study.images[0].sop_class_uid) as sender:
        for image in study.images:
            sent = sender.store(image)
        watch.wait(study.study_instance_uid, "alert_raised")
    return sent


def _pauses(slices: int) -> Callable[[int], None]:
    """Two pauses, shorter than any that the box may take for the end."""

    def pause(number: int) -> None:
        if number in {slices // 3, 2 * slices // 3}:
            time.sleep(_PAUSE_S)

    return pause


def _interleaved(box: Box, other: Sample, study: Sample) -> Sent:
    """Image by image from two studies in one association; the one that is measured ends last."""
    images: list[Image] = [image for pair in zip(other.images, study.images, strict=True) for image in pair]
    return send_in_one(box.port, "CT-1", images)


def _one_association(slices: int, measured: Measured) -> Row:
    after, bare = spread(measured.after_ms)["p50"], spread(measured.bare_ms)["p50"]
    bound = _FACTOR * bare + _MORE_MS
    return Row(
        name="ct",
        figure=f"CT {slices} x 512 x 512, one association: last response to alert committed",
        measured=f"{after:.0f} ms (bare {bare:.0f} ms, n={len(measured.after_ms)})",
        bound=f"1.3 x bare + 300 = {bound:.0f} ms",
        ok=after <= bound,
        details={
            "after_ms": spread(measured.after_ms),
            "bare_ms": spread(measured.bare_ms),
            "sending_s": spread(measured.sending_s),
            "path_ms": medians(measured.paths),
        },
    )


def _other_ways(slices: int, ways: dict[str, Measured]) -> Row:
    wrong = sum(one.premature + one.doubled for one in ways.values())
    times = ", ".join(f"{way} {spread(one.after_ms)['p50'] / 1000:.1f} s" for way, one in ways.items())
    return Row(
        name="ct-ways",
        figure=f"CT {slices} x 512 x 512, other ways of sending: last response to alert committed",
        measured=f"{wrong} premature or doubled alerts; {times}",
        bound="0; times stated",
        ok=wrong == 0,
        details={
            way: {
                "after_ms": spread(one.after_ms),
                "bare_ms": spread(one.bare_ms),
                "sending_s": spread(one.sending_s),
                "premature": one.premature,
                "doubled": one.doubled,
                "path_ms": medians(one.paths),
            }
            for way, one in ways.items()
        },
    )
