"""Where the time of a study went, as a bar and as a table beside what is usual here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.store.timings import TO_RESULT, AnalysisTiming, Hop, Spread, Usual
from appliance.web.i18n import N_

#: Width of the bar in its own units.
WIDTH = 1000.0
_SECOND_MS, _SECONDS_MS, _MINUTES_MS = 1000, 10_000, 120_000

HOPS: dict[Hop, str] = {
    Hop.CLOSED: N_("Last image until the transfer ended"),
    Hop.DECIDED: N_("Until it was certain that all images are here"),
    Hop.QUEUED: N_("Waiting for the AI"),
    Hop.DECODE: N_("Decoding"),
    Hop.PREPARE: N_("Preparing"),
    Hop.INFERENCE: N_("Inference"),
    Hop.FINISH: N_("Evaluating, drawing pictures"),
    Hop.ENCODE: N_("Writing result objects"),
    Hop.ACCEPTED: N_("Result until the PACS took it"),
    Hop.PRESENTED: N_("Result until a screen showed it"),
    Hop.SEEN: N_("Until it was acknowledged"),
    Hop.TOLD: N_("Until the radiologist was told"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A piece of the bar."""

    hop: Hop
    x: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A hop in the table; texts are empty where nothing was measured."""

    hop: Hop
    ms: str
    p50: str
    p95: str
    #: Longer than 95 of 100.
    is_slow: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingView:
    """The time of one analysis."""

    analysis_id: int
    total: Line | None
    ahead: str
    #: On how many analyses "usual" rests.
    usual_of: int
    segments: tuple[Segment, ...]
    #: Up to the result; then what goes on beside one another.
    to_result: tuple[Line, ...]
    after: tuple[Line, ...]


def timing_view(timing: AnalysisTiming, usual: Usual) -> TimingView:
    """Pure: what is drawn of an analysis' time."""
    total = None
    if timing.total_ms is not None:
        total = _line(Hop.FINISH, timing.total_ms, usual.total)
    return TimingView(
        analysis_id=timing.analysis_id,
        total=total,
        ahead=duration(timing.ahead_ms) if timing.ahead_ms is not None else "",
        usual_of=usual.analyses,
        segments=_segments(timing.hops_ms),
        to_result=tuple(_line(hop, timing.hops_ms.get(hop), usual.hops.get(hop)) for hop in TO_RESULT),
        after=tuple(_line(hop, timing.hops_ms.get(hop), usual.hops.get(hop)) for hop in Hop if hop not in TO_RESULT),
    )


def duration(ms: float) -> str:
    """Milliseconds up to ten seconds, then what a person reads: ``1,640 ms``, ``12.4 s``, ``3:20 min``, ``2:05 h``."""
    if ms < _SECONDS_MS:
        return f"{ms:,.0f} ms"
    if ms < _MINUTES_MS:
        return f"{ms / _SECOND_MS:.1f} s"
    minutes, seconds = divmod(round(ms / _SECOND_MS), 60)
    if minutes < 120:
        return f"{minutes}:{seconds:02} min"
    return f"{minutes // 60:,}:{minutes % 60:02} h"


def _segments(hops_ms: Mapping[Hop, float]) -> tuple[Segment, ...]:
    whole = sum(hops_ms.get(hop, 0.0) for hop in TO_RESULT)
    segments: list[Segment] = []
    x = 0.0
    for hop in TO_RESULT:
        width = WIDTH * hops_ms.get(hop, 0.0) / whole if whole else 0.0
        if width > 0:
            segments.append(Segment(hop=hop, x=round(x, 2), width=round(width, 2)))
            x += width
    return tuple(segments)


def _line(hop: Hop, ms: float | None, usual: Spread | None) -> Line:
    return Line(
        hop=hop,
        ms=duration(ms) if ms is not None else "",
        p50=duration(usual.p50_ms) if usual else "",
        p95=duration(usual.p95_ms) if usual else "",
        is_slow=ms is not None and usual is not None and usual.n > 1 and ms > usual.p95_ms,
    )
