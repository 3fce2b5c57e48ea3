"""An hour of a busy department: 180 X-rays and 45 CTs by scanners that send differently, reports to a PACS as they end.

The whole hour runs with ``--full``. Otherwise a part of it at the rate of a busier one, which is said in the row.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from appliance.simulate.pacs import Pacs
from bench.box import HEAD_CT, TOY_XRAY, Box
from bench.images import Sample, Template, ct_template, xray_template
from bench.rows import Bench, Row, spread
from bench.send import Sent, send_each, send_in_one
from bench.toy import toy_package
from bench.watch import Watch

_XRAYS_AN_HOUR, _CTS_AN_HOUR = 180, 45
_SLICES = 300
_BUSIER = 4
_DRAIN_S = 180.0
#: Of a scanner that reconstructs while it sends.
_PACE_S = 0.02


@dataclass(slots=True)
class Day:
    """What was sent, and what went wrong in sending it."""

    sent: dict[str, tuple[str, Sent]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def measure(bench: Bench) -> list[Row]:
    """Send, let everything end, and ask the box's own rows."""
    busier, span_s = (1, 3600.0) if bench.full else (_BUSIER, 5.0 if bench.quick else 180.0)
    slices = 30 if bench.quick else _SLICES
    folder = bench.new_folder("load")
    packages = [HEAD_CT, TOY_XRAY]
    day = Day()
    with (
        Pacs(folder / "pacs") as pacs,
        Box(folder, packages=packages, toy=toy_package(folder), pacs_port=pacs.port) as box,
        Watch(box.state) as watch,
    ):
        plan = _plan(span_s, busier, box.port, ct_template(slices), xray_template())
        bench.say(f"load: {len(plan)} studies within {span_s:g} s")
        _run(plan, day)
        deadline = time.monotonic() + _DRAIN_S
        while len(_ended(watch, day)) < len(day.sent) and time.monotonic() < deadline:
            time.sleep(0.2)
        ends = watch.ends()
        alerts = _alerts_ms(watch, day)
        while (objects := len(list((folder / "pacs").rglob("*.dcm")))) < len(ends) and time.monotonic() < deadline:
            time.sleep(0.2)
    return [_row(busier, span_s, slices, day, ends, alerts, objects)]


@dataclass(frozen=True, slots=True)
class _Arrival:
    at_s: float
    kind: str
    study: Sample
    send: Callable[[Sample], Sent]


def _plan(span_s: float, busier: int, port: int, ct: Template, xray: Template) -> list[_Arrival]:
    """Who sends what when: by chance, as patients come, but the same in every run."""
    rng = random.Random(20260105)  # noqa: S311 - the same in every run, no secret
    cts, xrays = (max(2, round(n * busier * span_s / 3600)) for n in (_CTS_AN_HOUR, _XRAYS_AN_HOUR))
    ways = itertools.cycle(
        (
            lambda study: send_in_one(port, "CT-1", study.images),
            lambda study: send_in_one(port, "CT-2", study.images, lambda _: time.sleep(_PACE_S)),
            lambda study: send_each(port, "CT-1", study.images),
        )
    )
    plan = [_Arrival(rng.uniform(0, span_s), "ct", ct.study(number), next(ways)) for number in range(cts)]
    for number in range(xrays):
        ae_title = ("DX-1", "DX-2")[number % 2]
        study = xray.study(number)
        plan.append(_Arrival(rng.uniform(0, span_s), "xray", study, _one_by(port, ae_title)))
    return sorted(plan, key=lambda arrival: arrival.at_s)


def _one_by(port: int, ae_title: str) -> Callable[[Sample], Sent]:
    return lambda study: send_in_one(port, ae_title, study.images)


def _run(plan: list[_Arrival], day: Day) -> None:
    begun = time.monotonic()
    threads = []
    for arrival in plan:
        time.sleep(max(0.0, begun + arrival.at_s - time.monotonic()))
        threads.append(threading.Thread(target=_send, args=(arrival, day), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join()


def _send(arrival: _Arrival, day: Day) -> None:
    try:
        day.sent[arrival.study.study_instance_uid] = (arrival.kind, arrival.send(arrival.study))
    except (OSError, SystemExit) as error:
        day.failed.append(f"{arrival.kind}: {error}")


def _ended(watch: Watch, day: Day) -> list[str]:
    return [uid for uid in day.sent if watch.of(uid, "study_outcome")]


def _alerts_ms(watch: Watch, day: Day) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"ct": [], "xray": []}
    for uid, (kind, sent) in day.sent.items():
        for alert in watch.of(uid, "alert_raised")[:1]:
            since = sent.response_mono if kind == "ct" else sent.last_byte_mono
            found[kind].append((alert.at_mono - since) * 1000)
    return found


def _row(
    busier: int,
    span_s: float,
    slices: int,
    day: Day,
    ends: list[dict[str, Any]],
    alerts: dict[str, list[float]],
    objects: int,
) -> Row:
    cts = sum(kind == "ct" for kind, _ in day.sent.values())
    in_time = [
        end for end in ends if end["outcome"] in {"FINDING", "NOTHING_FLAGGED"} and end["took_s"] <= end["deadline_s"]
    ]
    whole = len(day.sent)
    longest = max((end["took_s"] for end in ends if end["took_s"] is not None), default=0.0)
    of_the_hour = "the whole hour" if busier == 1 else f"{span_s:g} s at {busier} x the rate of the hour"
    return Row(
        name="load",
        figure=f"180 X-ray + 45 CT an hour, mixed senders: {of_the_hour}, {whole - cts} X-ray + {cts} CT of {slices}",
        measured=f"{len(in_time)} of {whole} ended within their deadline (longest {longest:.1f} s after READY)",
        bound="every one",
        ok=len(in_time) == whole == len(ends) and not day.failed,
        details={
            "analyses": len(ends),
            "not_in_time": [end for end in ends if end not in in_time][:20],
            "failed_to_send": day.failed,
            "alert_ms": {kind: spread(values) for kind, values in alerts.items() if values},
            "reports_in_pacs": objects,
        },
    )
