"""What the journal says of a study, in sentences: one for each kind of fact, in the words of the screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from appliance.records import (
    AlertStep,
    DeliveryKind,
    OrderState,
    Outcome,
    RejectionTitle,
    ReviewDecision,
    ReviewReason,
    Role,
    StepState,
)
from appliance.screen import words
from appliance.store.facts import Kind
from appliance.store.readmodels import FactView
from appliance.web.i18n import N_

Body = Mapping[str, Any]

#: Equal facts this close together are one line: images and their deliveries come in turn.
_NEAR = 8

OUTCOMES: dict[str, str] = {
    Outcome.FINDING: N_("flagged"),
    Outcome.NOTHING_FLAGGED: N_("nothing flagged"),
    Outcome.NOT_ANALYSED: N_("not analysed"),
    Outcome.NOT_APPLICABLE: N_("not for the AI"),
}
OBJECTS: dict[str, str] = {
    DeliveryKind.ORIGINAL: N_("Images"),
    DeliveryKind.SR: N_("Report (SR)"),
    DeliveryKind.SEG: N_("Segmentation (SEG)"),
    DeliveryKind.GSPS: N_("Marks (GSPS)"),
    DeliveryKind.KO: N_("Key images (KO)"),
    DeliveryKind.SC: N_("Picture (SC)"),
    DeliveryKind.REJECTION_NOTE: N_("Rejection note"),
    DeliveryKind.STATEMENT: N_("Message"),
}
#: By which rule a series was taken as whole (``intake.completeness``).
RULES: dict[str, str] = {
    "single_image": N_("a single image"),
    "released": N_("the transfer ended and no image is missing in between"),
    "mpps": N_("the scanner lists exactly these images"),
    "quiet": N_("no further image came for a while"),
    "short": N_("the scanner lists more, and no further image came"),
    "rejected": N_("what a rejection note left"),
}
LEFT_OUT: dict[str, str] = {
    "localizer": N_("a localizer"),
    "reformat": N_("a reformat"),
    "projection": N_("a projection of other images"),
    "screen save": N_("a screen save"),
    "dose report": N_("a dose report"),
    "no image": N_("no image"),
    "other modality": N_("no AI here is for this modality"),
    "other body part": N_("no AI here is for this body part"),
    "not selected": N_("another series of the study fits better"),
    "no package": N_("no AI is in service"),
}
ORDERS: dict[str, str] = {
    OrderState.NONE: N_("the RIS knows none"),
    OrderState.FOUND: N_("found"),
    OrderState.SEVERAL: N_("several that these images may belong to"),
    OrderState.OTHER_PATIENT: N_("it is another patient's; a person must look"),
}
_CHANGES: dict[str, str] = {
    "identity": N_("other patient data"),
    "attributes": N_("other particulars"),
    "syntax": N_("other encoding"),
    "pixels": N_("other pixels"),
    "comparing": N_("being compared"),
}
_TITLES: dict[str, str] = {
    RejectionTitle.QUALITY: N_("for their quality"),
    RejectionTitle.PATIENT_SAFETY: N_("for the patient's safety"),
    RejectionTitle.WORKLIST_ENTRY: N_("they stood under a wrong order"),
    RejectionTitle.RETENTION_EXPIRED: N_("their time was over"),
}
_STEP_STATES: dict[str, str] = {
    StepState.IN_PROGRESS: N_("in progress"),
    StepState.COMPLETED: N_("completed"),
    StepState.DISCONTINUED: N_("discontinued"),
}
_STEPS: dict[str, str] = {
    AlertStep.RAISED: N_("raised"),
    AlertStep.REPEAT: N_("the chime is repeated"),
    AlertStep.TELL: N_("further places are told"),
    AlertStep.OVERDUE: N_("overdue on every screen"),
    AlertStep.REMIND: N_("a reminder"),
    AlertStep.TEST: N_("a test"),
    AlertStep.CLEARED: N_("it calls no longer"),
}
_DECISIONS: dict[str, str] = {
    ReviewDecision.AGREE: N_("agreed"),
    ReviewDecision.DISAGREE: N_("disagreed"),
    ReviewDecision.AMEND: N_("amended"),
    ReviewDecision.CANNOT_JUDGE: N_("could not judge"),
}
_REVIEW_REASONS: dict[str, str] = {
    ReviewReason.ARTEFACT: N_("an artefact"),
    ReviewReason.ANATOMY: N_("a variant of anatomy"),
    ReviewReason.OLD_FINDING: N_("an old finding"),
    ReviewReason.WRONG_SUBJECT: N_("another patient or body part"),
    ReviewReason.OTHER: N_("another reason"),
}
SEEN: dict[str, str] = {
    "study": N_("the study"),
    "identity": N_("the patient's name"),
    "images": N_("the images"),
    "picture": N_("the key picture of an alert"),
    "state": N_("the state of the study, by the API"),
    "communication": N_("who was told"),
    "worklist": N_("the worklist"),
    "review": N_("the review"),
}


@dataclass(frozen=True, slots=True)
class Sentence:
    """A message id with what stands in its places: values as they are, and further message ids."""

    text: str
    values: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the history."""

    at: datetime
    #: Empty: the box itself.
    actor: str
    sentence: Sentence


def _plain(text: str, *keys: str, **tables: Mapping[str, str]) -> Callable[[Body], Sentence]:
    """A sentence with fields of the body as they are, and codes of it in words."""
    return lambda body: said_of(text, body, *keys, **tables)


def said_of(text: str, body: Body, *keys: str, **tables: Mapping[str, str]) -> Sentence:
    """A code without a word stands as it is: what is no message id must not be taken for one."""
    codes = {key: str(body.get(key, "")) for key in tables}
    return Sentence(
        text,
        {key: body.get(key, "") for key in keys}
        | {key: code for key, code in codes.items() if code not in tables[key]},
        {key: tables[key][code] for key, code in codes.items() if code in tables[key]},
    )


def _ended(body: Body) -> Sentence:
    if body.get("reason"):
        values = {"package": body["package"], "version": body["version"]}
        reason = {"reason": words.reason(str(body["reason"]))[0]}
        return Sentence(N_("%(package)s %(version)s ended: not analysed. %(reason)s"), values, reason)
    return said_of(N_("%(package)s %(version)s ended: %(outcome)s"), body, "package", "version", outcome=OUTCOMES)


def _outcome(body: Body) -> Sentence:
    if body.get("reason"):
        reason = {"reason": words.reason(str(body["reason"]))[0]}
        return Sentence(N_("Result of the study: not analysed. %(reason)s"), {}, reason)
    return said_of(N_("Result of the study: %(outcome)s"), body, outcome=OUTCOMES)


def _presented(body: Body) -> Sentence:
    if body.get("screen"):
        return Sentence(N_("The screen %(screen)s showed the alert"), {"screen": body["screen"]})
    return Sentence(N_("A screen showed the alert"))


def _escalated(body: Body) -> Sentence:
    if body.get("step") == AlertStep.TELL and not body.get("sinks") and body.get("screens") == []:
        return Sentence(N_("Nobody has acknowledged the alert: there is no further place to tell"))
    return said_of(N_("Nobody has acknowledged the alert: %(step)s"), body, step=_STEPS)


def _compared(body: Body) -> Sentence:
    if body["same_pixels"]:
        return Sentence(N_("Two versions of an image were compared: the same pixels"))
    return Sentence(N_("Two versions of an image were compared: other pixels. A person must choose."))


def _reviewed(body: Body) -> Sentence:
    if body.get("reason"):
        text = N_("Review signed, version %(version)s: %(decision)s, %(reason)s")
        return said_of(text, body, "version", decision=_DECISIONS, reason=_REVIEW_REASONS)
    return said_of(N_("Review signed, version %(version)s: %(decision)s"), body, "version", decision=_DECISIONS)


SENTENCES: dict[str, Callable[[Body], Sentence]] = {
    Kind.INSTANCE_STORED: _plain(N_("Images received from %(source)s: %(count)s"), "source"),
    Kind.INSTANCE_REPEATED: _plain(N_("Images that came again unchanged: %(count)s")),
    Kind.VERSION_STORED: _plain(N_("Images that came in another version (%(why)s): %(count)s"), why=_CHANGES),
    Kind.VERSION_COMPARED: _compared,
    Kind.VERSION_CHOSEN: _plain(N_("Version %(n)s of an image was chosen"), "n"),
    Kind.IDENTITY_CORRECTED: _plain(N_("Patient data was corrected")),
    Kind.IMAGES_REJECTED: _plain(
        N_("A rejection note from %(source)s took back %(images)s images %(title)s"), "source", "images", title=_TITLES
    ),
    Kind.PERFORMED_STEP: _plain(N_("The scanner reports its examination: %(state)s"), state=_STEP_STATES),
    Kind.ORDER_ASKED: _plain(N_("The RIS was asked for the order: %(state)s"), state=ORDERS),
    Kind.SERIES_READY: _plain(N_("A series of %(images)s images was taken as whole: %(rule)s"), "images", rule=RULES),
    Kind.SERIES_LEFT_OUT: _plain(N_("A series was left out: %(why)s"), why=LEFT_OUT),
    Kind.ANALYSIS_QUEUED: _plain(N_("%(package)s %(version)s waits for its turn"), "package", "version"),
    Kind.ANALYSIS_STARTED: _plain(N_("%(package)s begins"), "package"),
    Kind.ANALYSIS_RETURNED: _plain(N_("%(package)s was cut short and begins again"), "package"),
    Kind.ANALYSIS_DONE: _ended,
    Kind.ANALYSIS_SUPERSEDED: _plain(N_("An earlier result of %(package)s is replaced"), "package"),
    Kind.STUDY_OUTCOME: _outcome,
    Kind.STUDY_REPROCESSED: _plain(N_("The study is to be analysed again")),
    Kind.ALERT_RAISED: _plain(N_("An alert of category %(category)s was raised"), "category"),
    Kind.ALERT_UPDATED: _plain(N_("The alert now rests on a newer result")),
    Kind.ALERT_PRESENTED: _presented,
    Kind.ALERT_ACKNOWLEDGED: _plain(N_("The alert was acknowledged")),
    Kind.ALERT_WITHDRAWN: _plain(N_("The alert was withdrawn: %(why)s"), why=words.WITHDRAWN),
    Kind.ALERT_COMMUNICATED: _plain(
        N_("%(received_by)s was told of the finding (%(method)s)"), "received_by", method=words.METHODS
    ),
    Kind.ALERT_DECIDED: _plain(N_("A radiologist decided the alert: %(decision)s"), decision=_DECISIONS),
    Kind.ALERT_ESCALATED: _escalated,
    Kind.ALERT_SINK_TOLD: _plain(N_("%(sink)s was told of the alert: %(step)s"), "sink", step=_STEPS),
    Kind.ALERT_SINK_FAILED: _plain(N_("%(sink)s could not be told of the alert: %(step)s"), "sink", step=_STEPS),
    Kind.QUALITY_DECIDED: _plain(
        N_("The quality warning was answered: %(choice)s, %(reason)s"),
        choice=words.QUALITY_CHOICES,
        reason=words.QUALITY_REASONS,
    ),
    Kind.REVIEW_ASKED: _plain(N_("A radiologist's review was asked for")),
    Kind.REVIEW_SAMPLED: _plain(N_("Chosen by chance for review")),
    Kind.REVIEW_SIGNED: _reviewed,
    Kind.DELIVERY_OWED: _plain(N_("%(object)s: %(count)s to go to %(destination)s"), "destination", object=OBJECTS),
    Kind.RESULT_REISSUED: _plain(N_("%(object)s is issued again, with what was corrected"), object=OBJECTS),
    Kind.DELIVERY_REPLACED: _plain(
        N_("%(object)s for %(destination)s is not sent any more"), "destination", object=OBJECTS
    ),
    Kind.DELIVERY_BUILT: _plain(N_("%(object)s was written"), object=OBJECTS),
    Kind.DELIVERY_SENT: _plain(N_("%(object)s: %(destination)s took %(count)s"), "destination", object=OBJECTS),
    Kind.DELIVERY_FAILED: _plain(
        N_("%(object)s: %(destination)s did not take it at try %(attempt)s. It is tried again."),
        "destination",
        "attempt",
        object=OBJECTS,
    ),
    Kind.DELIVERY_PARKED: _plain(
        N_("%(object)s: %(destination)s refuses it. A person must look."), "destination", object=OBJECTS
    ),
    Kind.COMMITMENT_FAILED: _plain(
        N_("%(object)s: %(destination)s does not promise to keep it"), "destination", object=OBJECTS
    ),
    Kind.IMAGES_REMOVED: _plain(N_("%(images)s images were removed from this box by the site's rule"), "images"),
    Kind.IMAGE_RESTORED: _plain(N_("Removed images that came again: %(count)s")),
    Kind.RESULTS_REMOVED: _plain(N_("Pictures and result objects were removed from this box by the site's rule")),
    Kind.ISSUE_RAISED: _plain(N_("Trouble: %(code)s"), code=words.ISSUES),
    Kind.ISSUE_CLEARED: _plain(N_("No longer so: %(code)s"), code=words.ISSUES),
    Kind.ISSUE_ACKNOWLEDGED: _plain(N_("Seen: %(code)s"), code=words.ISSUES),
    Kind.ISSUE_SHELVED: _plain(N_("Told again later: %(code)s"), code=words.ISSUES),
    Kind.ACCESSED: _plain(N_("Looked at %(what)s"), what=SEEN),
}
#: Facts that one line may tell of many, with the fields that must agree.
_FOLDED: dict[str, tuple[str, ...]] = {
    Kind.INSTANCE_STORED: ("source",),
    Kind.INSTANCE_REPEATED: (),
    Kind.VERSION_STORED: ("why",),
    Kind.IMAGE_RESTORED: (),
    Kind.DELIVERY_OWED: ("destination", "object"),
    Kind.DELIVERY_SENT: ("destination", "object"),
    Kind.RESULT_REISSUED: ("object",),
    Kind.DELIVERY_BUILT: ("object",),
}


def history(facts: Iterable[FactView], packages: Mapping[int, str], hidden: frozenset[int]) -> list[Entry]:
    """The facts of a study as lines, oldest first; silent and shadow analyses are none of the reader's business.

    Args:
        facts: In their order.
        packages: Name of the package by analysis.
        hidden: Analyses that are not told of.
    """
    entries: list[Entry] = []
    keys: list[tuple[Any, ...]] = []
    for fact in facts:
        body = {**fact.body}
        if _is_hidden(fact, hidden):
            continue
        if "analysis" in body:
            body.setdefault("package", packages.get(body["analysis"], ""))
        actor = "" if fact.actor in {"system", "fleet"} else fact.actor
        fields = _FOLDED.get(fact.kind)
        key = (fact.seq,) if fields is None else (fact.kind, actor, *(body.get(name) for name in fields))
        near = max(len(keys) - _NEAR, 0)
        if key in keys[near:]:
            place = near + keys[near:].index(key)
            told = entries[place]
            values = {**told.sentence.values, "count": told.sentence.values["count"] + 1}
            entries[place] = replace(told, sentence=replace(told.sentence, values=values))
            continue
        sentence = sentence_of(fact.kind, body)
        if fields is not None:
            sentence = replace(sentence, values={**sentence.values, "count": 1})
        entries.append(Entry(at=fact.at, actor=actor, sentence=sentence))
        keys.append(key)
    return entries


def sentence_of(kind: str, body: Body) -> Sentence:
    """What a fact says; one of a kind that has no sentence is told by its name rather than left out."""
    say = SENTENCES.get(kind)
    return say(body) if say else Sentence(N_("Recorded: %(kind)s"), {"kind": kind})


def _is_hidden(fact: FactView, hidden: frozenset[int]) -> bool:
    if fact.kind == Kind.SHADOW_AGREEMENT or fact.body.get("role", Role.LIVE) != Role.LIVE:
        return True
    return fact.body.get("analysis") in hidden
