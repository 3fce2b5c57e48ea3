"""An X-ray from its last byte to its alert."""

from __future__ import annotations

from bench.bare import Bare
from bench.box import TOY_XRAY, Box
from bench.images import XRAY_MATRIX, xray_template
from bench.rows import Bench, Row, medians, spread
from bench.send import send_in_one
from bench.toy import toy_package
from bench.watch import Watch

_P50_MS, _P95_MS = 100.0, 250.0


def measure(bench: Bench) -> list[Row]:
    """One X-ray after another; after each its bare time, on the file that the box has kept."""
    folder = bench.new_folder("xray")
    toy = toy_package(folder)
    template = xray_template()
    over, gross, bares, paths = [], [], [], []
    with Box(folder, packages=[TOY_XRAY], toy=toy) as box, Watch(box.state) as watch, Bare(toy) as bare:
        for number in range(bench.size(110, least=10)):
            study = template.study(number)
            sent = send_in_one(box.port, "DX-1", study.images)
            alert = watch.wait(study.study_instance_uid, "alert_raised")
            took = (alert.at_mono - sent.last_byte_mono) * 1000
            limit = bare.ms("xray", watch.paths(study.study_instance_uid, box.state))
            gross.append(took)
            bares.append(limit)
            over.append(took - limit["total"])
            acknowledged = (sent.response_mono - sent.last_byte_mono) * 1000
            path = watch.path_ms(study.study_instance_uid, sent.last_byte_mono)
            paths.append({"acknowledged": acknowledged, **path})
    told = spread(over)
    return [
        Row(
            name="xray",
            figure=f"X-ray ({XRAY_MATRIX} x {XRAY_MATRIX}): last byte sent to alert committed, minus bare",
            measured=f"p50 {told['p50']:.0f} ms, p95 {told['p95']:.0f} ms (n={len(over)})",
            bound=f"p50 {_P50_MS:.0f}, p95 {_P95_MS:.0f} ms",
            ok=told["p50"] <= _P50_MS and told["p95"] <= _P95_MS,
            details={
                "minus_bare_ms": told,
                "alert_ms": spread(gross),
                "bare_ms": spread([one["total"] for one in bares]),
                "bare_hops_ms": medians(bares),
                "path_ms": medians(paths),
            },
        )
    ]
