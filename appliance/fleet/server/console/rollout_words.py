"""Roll-outs in words: states, boxes, gates. A gate that could not judge says so as loudly as one that failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from appliance.fleet.server.rollout.plan import BoxWord, Gate, LeftOut, Pause, RollOutState, Verdict, WaveState
from appliance.records import Detail
from appliance.web.i18n import N_

#: From here on a figure is told without a power of ten.
_MANY = 10_000
STATES: dict[str, str] = {
    str(RollOutState.DRAFT): N_("Draft"),
    str(RollOutState.WAITING_APPROVAL): N_("Waits for approval"),
    str(RollOutState.READY): N_("Approved, not begun"),
    str(RollOutState.RUNNING): N_("Running"),
    str(RollOutState.PAUSED): N_("Stands still"),
    str(RollOutState.FINISHED): N_("Finished"),
    str(RollOutState.ABORTED): N_("Broken off"),
    str(RollOutState.REVERTING): N_("Being taken back"),
    str(RollOutState.REVERTED): N_("Taken back"),
}
#: Shapes beside words; colour only repeats them.
SHAPES: dict[str, str] = {
    str(RollOutState.DRAFT): "○",
    str(RollOutState.WAITING_APPROVAL): "◇",
    str(RollOutState.READY): "◇",
    str(RollOutState.RUNNING): "▶",
    str(RollOutState.PAUSED): "❚❚",
    str(RollOutState.FINISHED): "●",
    str(RollOutState.ABORTED): "■",
    str(RollOutState.REVERTING): "↩",
    str(RollOutState.REVERTED): "↩",
}
PAUSES: dict[str, str] = {
    str(Pause.MANUAL): N_("Somebody stopped it."),
    str(Pause.FAILURES): N_("It stopped by itself: too many boxes failed or went back."),
    str(Pause.SAFETY): N_("It stopped by itself: a box told a code that concerns safety."),
    str(Pause.LATENCY): N_("It stopped by itself: analyses take longer than before."),
    str(Pause.ALERTS): N_("It stopped by itself: alerts come more often, or more rarely, than before."),
    str(Pause.ACCEPTANCE): N_("It stopped by itself: engines were refused or fell back."),
    str(Pause.NOT_JUDGED): N_("It stopped by itself: too little was seen to judge. A person decides now."),
    str(Pause.GRANT): N_("It stopped by itself: the release signature has expired or its key was retired."),
}
WAVES: dict[str, str] = {
    str(WaveState.WAITING): N_("Not begun"),
    str(WaveState.RUNNING): N_("Running"),
    str(WaveState.DONE): N_("Finished"),
}
#: Names of waves that are words.
WAVE_NAMES: dict[str, str] = {"lab": N_("Lab"), "canaries": N_("Canaries"), "all": N_("All others")}
BOXES: dict[str, str] = {
    str(BoxWord.SUCCEEDED): N_("Succeeded"),
    str(BoxWord.HAD_IT): N_("Had it already"),
    str(BoxWord.SOAKING): N_("Being watched"),
    str(BoxWord.WORKING): N_("Under way"),
    str(BoxWord.ASKED_SITE): N_("Waits for the hospital's administrator"),
    str(BoxWord.PENDING): N_("Away, has not answered"),
    str(BoxWord.WAITING): N_("Its turn has not come"),
    str(BoxWord.FAILED): N_("Failed"),
    str(BoxWord.ROLLED_BACK): N_("Went back"),
    str(BoxWord.SOAK_NOT_JUDGED): N_("Too few studies to judge"),
    str(BoxWord.DECLINED): N_("The hospital said no"),
    str(BoxWord.TIMED_OUT): N_("Not done in time"),
    str(BoxWord.CANCELED): N_("Taken back before it went out"),
    str(BoxWord.LEFT_OUT): N_("Left out"),
}
#: What a box's state is drawn as: the class of its part of a bar, and its shape. In the order of a bar.
DRAWN: dict[str, tuple[str, str]] = {
    str(BoxWord.SUCCEEDED): ("done", "●"),
    str(BoxWord.HAD_IT): ("done", "●"),
    str(BoxWord.SOAKING): ("watched", "◐"),
    str(BoxWord.WORKING): ("under", "◔"),
    str(BoxWord.FAILED): ("bad", "✕"),
    str(BoxWord.ROLLED_BACK): ("bad", "↩"),
    str(BoxWord.SOAK_NOT_JUDGED): ("unsure", "?"),
    str(BoxWord.DECLINED): ("out", "–"),
    str(BoxWord.TIMED_OUT): ("out", "–"),
    str(BoxWord.ASKED_SITE): ("asked", "◇"),
    str(BoxWord.PENDING): ("away", "○"),
    str(BoxWord.WAITING): ("later", "·"),
    str(BoxWord.CANCELED): ("out", "–"),
    str(BoxWord.LEFT_OUT): ("out", "–"),
}
LEFT_OUT: dict[str, str] = {
    str(LeftOut.HELD): N_("a hold stands"),
    str(LeftOut.HAS_IT): N_("has this version already"),
    str(LeftOut.NOT_ENROLLED): N_("not enrolled"),
    str(LeftOut.REPLACED): N_("replaced by another machine"),
    str(LeftOut.NO_SOURCE): N_("no source of that kind"),
    str(LeftOut.COUNTRY): N_("not allowed in its country"),
}
GATES: dict[str, str] = {
    str(Gate.FAILURES): N_("Failures"),
    str(Gate.SAFETY): N_("Safety codes"),
    str(Gate.LATENCY): N_("Time per study"),
    str(Gate.ALERTS): N_("Alert rate"),
    str(Gate.ACCEPTANCE): N_("Engines"),
    str(Pause.NOT_JUDGED).lower(): N_("NOT JUDGED"),
    str(Pause.GRANT).lower(): N_("Release signature"),
}
VERDICTS: dict[str, tuple[str, str]] = {
    "passed": ("●", N_("Passed")),
    "failed": ("✕", N_("FAILED")),
    "not_judged": ("?", N_("NOT JUDGED")),
}
_NOT_JUDGED: dict[Gate, str] = {
    Gate.FAILURES: N_("Nothing can be said: {n} boxes came to an end, and {needed} are needed."),
    Gate.SAFETY: N_("Nothing can be said: {n} boxes came to an end, and {needed} are needed."),
    Gate.LATENCY: N_("Nothing can be said: {n} analyses were timed, and {needed} are needed."),
    Gate.ALERTS: N_("Nothing can be said: {n} analyses were made, and {needed} are needed."),
    Gate.ACCEPTANCE: N_("Nothing can be said: {n} boxes told of their engine, and {needed} are needed."),
}
_NEVER = N_("Nothing can be said: {n} analyses were made, and with so few alerts before no number is enough.")
_JUDGED: dict[Gate, str] = {
    Gate.FAILURES: N_("{value} percent of {n} boxes that came to an end failed or went back; at most {bound} percent"
        " may."),
    Gate.SAFETY: N_("Codes that concern safety on {n} boxes: {told}; a single one stops it."),
    Gate.LATENCY: N_("{value} times as long as before on the same boxes, over {n} analyses; at most {bound} times."),
    Gate.ALERTS: N_("{value} times as many alerts as before on the same boxes, over {n} analyses; a factor of {bound}"
        " matters."),
    Gate.ACCEPTANCE: N_("{value} percent of {n} boxes do not run it on an engine of their own; at most {bound} percent"
        " may."),
}  # fmt: skip
#: Figures beside a verdict. One that is not here is left out.
FIGURES: dict[str, str] = {
    "alpha": N_("error level alpha"),
    "power": N_("power"),
    "factor": N_("smallest change that matters, times"),
    "tolerance": N_("no change up to, times"),
    "p": N_("p"),
    "looks": N_("looks"),
    "n_before": N_("n before"),
    "rate_before": N_("rate before"),
    "rate": N_("rate now"),
    "before_ms": N_("p95 before, ms"),
    "now_ms": N_("p95 now, ms"),
}
ACTS: dict[str, str] = {
    "rollout.make": N_("made the draft"),
    "rollout.submit": N_("sent it for approval"),
    "rollout.approve": N_("approved it"),
    "rollout.why": N_("gave the reason"),
    "rollout.discard": N_("threw the draft away"),
    "rollout.sign": N_("signed it with a release key"),
    "rollout.start": N_("started it"),
    "rollout.pause": N_("stopped it"),
    "rollout.resume": N_("went on with it"),
    "rollout.abort": N_("broke it off"),
    "rollout.revert": N_("began to take it back"),
    "rollout.wave": N_("a wave began"),
    "rollout.stop": N_("it stopped by itself"),
    "rollout.finish": N_("it is finished"),
    "rollout.reverted": N_("it is taken back"),
    "hold.add": N_("put a hold"),
    "hold.lift": N_("lifted a hold"),
}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a wave's bar; ``x`` and ``width`` of 100."""

    word: str
    n: int
    kind: str
    shape: str
    x: float
    width: float


def bar_of(counts: Mapping[BoxWord, int]) -> list[Part]:
    """What a wave's bar is made of, in the order in which it is drawn."""
    by_word = {str(word): n for word, n in counts.items()}
    whole = sum(by_word.values()) or 1
    parts: list[Part] = []
    x = 0.0
    for word, (kind, shape) in DRAWN.items():
        if n := by_word.get(word, 0):
            width = 100 * n / whole
            parts.append(Part(word, n, kind, shape, x, width))
            x += width
    return parts


def wave_name(name: str, gettext: Callable[[str], str]) -> str:
    """What a wave is called."""
    return gettext(WAVE_NAMES[name]) if name in WAVE_NAMES else name


def sentence(one: Verdict, gettext: Callable[[str], str]) -> str:
    """What a gate found: what was measured, on how many, and against which bound."""
    values: dict[str, Any] = {"n": one.n, "needed": one.needed, "told": sum(one.codes.values())}
    if one.word == "not_judged" and one.gate is Gate.ALERTS and not one.needed:
        return Detail(_NEVER, values).told(gettext)
    if one.word == "not_judged":
        return Detail(_NOT_JUDGED[one.gate], values).told(gettext)
    is_share = one.gate in {Gate.FAILURES, Gate.ACCEPTANCE}
    values |= {"value": _number(one.value, is_share=is_share), "bound": _number(one.bound, is_share=is_share)}
    return Detail(_JUDGED[one.gate], values).told(gettext)


def figures(one: Verdict, gettext: Callable[[str], str]) -> list[tuple[str, str]]:
    """The n that it stands on, what it needs, and the rest of what it measured, by what each is called."""
    named = [(gettext(FIGURES[key]), _figure(value)) for key, value in one.figures.items() if key in FIGURES]
    needed = [(gettext(N_("needed")), f"{one.needed}")] if one.needed else []
    return [("n", f"{one.n}"), *needed, *named]


def _figure(value: float) -> str:
    return f"{value:.4g}" if abs(value) < _MANY else f"{value:.0f}"


def _number(value: float | None, *, is_share: bool) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f}" if is_share else f"{value:.2f}"
