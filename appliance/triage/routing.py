"""Which packages apply to a study, and which series of it each prefers. Pure: headers and manifests in, plans out.

What only pixels or geometry can tell (gaps, true spacing, whether this is a head) is checked by the worker; here the
header decides, and BodyPartExamined is a hint: a header that names another part takes the claim away, an empty one
does not, and content that disagrees ends in out_of_envelope.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from appliance.records import AnalysisResult, Detail, Header, Outcome, Reason, Role
from appliance.store.analyses import LeftOut, Plan
from appliance.store.orphans import withdrawn_result
from appliance.store.rejections import rejected_result
from appliance.store.revisions import Owed, Revision
from appliance.triage.claims import envelope_faults, has_contrast, plane, shows, speaks_for_part, unclaimed
from engines.manifest import Input, Manifest, Preference


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A package that runs on this box, as routing sees it; a withdrawn one still claims, loudly, what it would take."""

    manifest: Manifest
    role: Role
    withdrawn: bool = False


def plan_study(
    revisions: Sequence[Revision],
    candidates: Iterable[Candidate],
    owed: Sequence[Owed],
    *,
    ct_deadline_s: float,
    xray_deadline_s: float,
) -> tuple[tuple[Plan, ...], tuple[LeftOut, ...]]:
    """Decide what a study is owed now.

    Args:
        revisions: The newest READY revision of every series of the study.
        candidates: The packages that run.
        owed: What was decided before and is not superseded; an equal choice is not made twice.
        ct_deadline_s: Deadline from READY for tomographic inputs.
        xray_deadline_s: The same for projection images.

    Returns:
        New analyses, and for every revision not routed before that nothing took, why.
    """
    plans: list[Plan] = []
    taken: set[int] = set()
    why: dict[int, str] = {}
    newest = [revision for revision in revisions if revision.is_newest]
    for candidate in candidates:
        manifest = candidate.manifest
        inputs: dict[str, int] = {}
        claimed: list[Revision] = []
        chosen: list[Revision] = []
        is_whole = False
        faults: list[Detail] = []
        removed = 0
        late = False
        deadline_s = xray_deadline_s
        for feed in manifest.inputs:
            wanted = feed.input
            claims = []
            for revision in newest:
                refusal = unclaimed(wanted, revision.header)
                if refusal is not None:
                    why.setdefault(revision.id, refusal)
                elif len(manifest.inputs) == 1 or revision.images > 1 or shows(wanted.envelope, revision.header):
                    claims.append(revision)
                else:  # the other view of a pair is no claim; whether it comes, and what it shows, is not known yet
                    why.setdefault(revision.id, "not selected")
            if not claims:
                if feed.optional:
                    continue
                break
            best = min(claims, key=lambda revision: (revision.rejected is not None, _rank(wanted, revision)))
            claimed += claims
            for revision in claims:
                why[revision.id] = "not selected"
            inputs[wanted.role] = best.id
            chosen.append(best)
            faults += envelope_faults(wanted.envelope, best.header, best.images)
            removed += best.removed
            late = late or best.is_rebuilt
            if best.header.modality == "CT":
                deadline_s = ct_deadline_s
        else:
            is_whole = bool(inputs)
        if not is_whole:
            continue
        taken.update(inputs.values())
        if not _is_due(candidate, inputs, claimed, owed):
            continue
        plans.append(
            Plan(
                package=manifest.name,
                package_version=manifest.version,
                role=candidate.role,
                category=manifest.category,
                notify=manifest.notify,
                intended_use=manifest.intended_use,
                deadline_s=deadline_s,
                inputs=inputs,
                late=late,
                ended=_ended(candidate, chosen, faults) or _images_removed(removed),
            )
        )
    left_out = tuple(
        LeftOut(series_id=revision.series_id, n=revision.n, why=why.get(revision.id, "no package"))
        for revision in newest
        if revision.id not in taken and not revision.routed
    )
    return tuple(plans), left_out


def _is_due(candidate: Candidate, inputs: Mapping[str, int], claimed: Sequence[Revision], owed: Sequence[Owed]) -> bool:
    """Whether these inputs are to be analysed now: something that is claimed is new, or waits for a replaced version.

    A version that was activated meanwhile takes new images; it does not go back to old ones.
    """
    taken = [revision for revision in claimed if revision.id in inputs.values()]
    if any(not revision.routed for revision in taken):
        return True
    wanted = (candidate.manifest.name, candidate.role, inputs)
    before = [one for one in owed if (one.package, one.role, one.inputs) == wanted]
    if any(not revision.routed for revision in claimed):
        return not before
    # Of what has ended nothing is owed again, whichever version did it.
    is_waiting = bool(before) and not any(one.is_done or one.version == candidate.manifest.version for one in before)
    return is_waiting and any(revision.again for revision in taken)


def _ended(candidate: Candidate, chosen: Sequence[Revision], faults: list[Detail]) -> AnalysisResult | None:
    """How an analysis ends that needs no look at the images."""
    if candidate.withdrawn:
        return withdrawn_result(candidate.manifest.name)
    for revision in chosen:
        if revision.rejected is not None:
            return rejected_result(revision.rejected)
    missing = sum(revision.missing for revision in chosen)
    if missing:
        images = sum(revision.images for revision in chosen)
        detail = Detail(
            "the scanner lists {missing} more images than the {images} that came",
            {"missing": missing, "images": images},
        )
        return AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.INCOMPLETE, details=(detail,))
    return _out_of_envelope(faults)


def _out_of_envelope(faults: list[Detail]) -> AnalysisResult | None:
    if not faults:
        return None
    return AnalysisResult(
        outcome=Outcome.NOT_ANALYSED, reason=Reason.OUT_OF_ENVELOPE, details=tuple(dict.fromkeys(faults))
    )


def _images_removed(count: int) -> AnalysisResult | None:
    """A late image of a series whose other ones have left the box."""
    if not count:
        return None
    detail = Detail("{count} images of the series are no longer on this box; send the study again", {"count": count})
    return AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.INCOMPLETE, details=(detail,))


def _rank(wanted: Input, revision: Revision) -> tuple[float, ...]:
    """Lower is better.

    Inside the envelope, then the body part named, then the package's rules in order, then more images, then the older.
    """
    faults = len(envelope_faults(wanted.envelope, revision.header, revision.images))
    is_silent = not speaks_for_part(wanted.envelope, revision.header)
    rules = tuple(_preference(rule, revision.header) for rule in wanted.series_preference)
    return (float(faults), float(is_silent), *rules, -float(revision.images), float(revision.id))


def _preference(rule: Preference, header: Header) -> float:
    if rule.by == "kernel":
        for place, pattern in enumerate(rule.patterns):
            if re.search(pattern, header.convolution_kernel, re.IGNORECASE):
                return float(place)
        return float(len(rule.patterns))
    if rule.by == "thickness":
        return abs(header.slice_thickness_mm - rule.target_mm) if header.slice_thickness_mm else 1e6
    if rule.by == "orientation":
        return float(plane(header.image_orientation_patient) != rule.value)
    return float(has_contrast(header) != (rule.value == "contrast"))
