"""Records of a box as sentences. Only codes, counts and names of packages are in them; there is nothing else to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from appliance.fleet.server.console import words
from appliance.records import Detail
from appliance.web.i18n import N_
from appliance.web.issue_words import ISSUES

Body = Mapping[str, Any]

_DAEMON = {
    "started": Detail(N_("The box's software started")),
    "stopped": Detail(N_("The box's software stopped")),
}
_ISSUE = {
    "raised": N_("Trouble began: {issue}"),
    "cleared": N_("No longer so: {issue}"),
    "acknowledged": N_("Seen at the box: {issue}"),
    "shelved": N_("Put off at the box: {issue}"),
}
_ENGINE = {
    "building": N_("An engine for {package} is being built"),
    "ready": N_("An engine for {package} is built"),
    "rejected": N_("An engine for {package} failed its check and is not used"),
    "serves": N_("{package} runs on its engine"),
    "fallback": N_("{package} runs without the engine built for it"),
    "checked": N_("The engine of {package} was checked"),
}


def sentence(kind: str, body: Body, gettext: Callable[[str], str]) -> str:
    """What a record says; one of a kind that is not known says that."""
    make = _KINDS.get(kind)
    return Detail(N_("A record of kind {kind}"), {"kind": kind}).told(gettext) if make is None else make(body, gettext)


def issue_word(code: str, gettext: Callable[[str], str]) -> str:
    """What an issue is called; its code where a newer box has one that is not known here."""
    return gettext(ISSUES[code]) if code in ISSUES else code


def total(counts: Mapping[str, int] | None) -> int:
    """The sum over kinds."""
    return sum((counts or {}).values())


def _told(text: str, gettext: Callable[[str], str], **values: Any) -> str:
    return Detail(text, values).told(gettext)


def _results(d: Body, _: Callable[[str], str]) -> str:
    values = {"package": d["package"], "version": d["version"], "n": d["n"], "hour": d["hour"]}
    counted = {"flagged": total(d.get("flagged")), "nothing": d.get("nothing_flagged", 0)}
    counted["not"] = total(d.get("not_analysed"))
    text = N_(
        "{package} {version}, from {hour} on: {n} analyses, findings flagged {flagged}, not flagged {nothing},"
        " not analysed {not}"
    )
    return _told(text, _, **values, **counted)


def _study(d: Body, _: Callable[[str], str]) -> str:
    return _told(N_("One analysis by {package} {version}"), _, package=d["package"], version=d["version"])


def _health(d: Body, _: Callable[[str], str]) -> str:
    return _told(N_("Health over {n} minutes: {studies} studies"), _, n=d["minutes"], studies=d.get("studies", 0))


def _issue(d: Body, _: Callable[[str], str]) -> str:
    return _told(_ISSUE[d["state"]], _, issue=issue_word(d["code"], _))


def _daemon(d: Body, _: Callable[[str], str]) -> str:
    return " ".join(filter(None, (_DAEMON[d["state"]].told(_), d.get("version") or "")))


def _package(d: Body, _: Callable[[str], str]) -> str:
    word = words.PACKAGE_STATES[d["state"]]
    state = _(word)
    return _told(N_("{package} {version}: {state}"), _, package=d["package"], version=d["version"], state=state)


def _engine(d: Body, _: Callable[[str], str]) -> str:
    return _told(_ENGINE[d["state"]], _, package=d["package"])


def _job(d: Body, _: Callable[[str], str]) -> str:
    word = str(words.JOB_STATES.get(d["state"], d["state"]))
    state = _(word)
    said = _told(N_("Job {ctr}: {state}"), _, ctr=d["ctr"], state=state)
    if d.get("percent") is not None:
        said += f" {d['percent']:.0f} %"
    return f"{said} ({d['code']})" if d.get("code") else said


def _gap(d: Body, _: Callable[[str], str]) -> str:
    text = N_("The line was too bad: {n} rows of health were left out ({first} to {last})")
    return _told(text, _, n=d["n"], first=d["first_seq"], last=d["last_seq"])


def _access(d: Body, _: Callable[[str], str]) -> str:
    text = N_("Sign-ins from {hour} on: {n}, failed {failed}, refused by role {denied}")
    given = {"n": d.get("signed_in", 0), "failed": d.get("sign_in_failed", 0), "denied": d.get("denied", 0)}
    return _told(text, _, hour=d["hour"], **given)


def _anchor(d: Body, _: Callable[[str], str]) -> str:
    return _told(N_("The box's journal reaches row {seq}; its chain is anchored here"), _, seq=d["seq"])


def _equipment(d: Body, _: Callable[[str], str]) -> str:
    values = {"source": d["source"], "modality": d["modality"], "make": d["make"], "model": d["model"]}
    return _told(N_("Source {source} is {modality}, {make} {model}"), _, **values)


_KINDS: dict[str, Callable[[Body, Callable[[str], str]], str]] = {
    "results": _results,
    "study": _study,
    "health": _health,
    "issue": _issue,
    "daemon": _daemon,
    "package": _package,
    "engine": _engine,
    "job": _job,
    "gap": _gap,
    "access": _access,
    "anchor": _anchor,
    "equipment": _equipment,
}
