"""When is a series whole? The rule over evidence, without sockets, database or waiting."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.intake.completeness import Ready, Wait, decide, quiet_s
from appliance.store.revisions import ImageEvidence, SeriesEvidence
from appliance.store.steps import Listed

CT = "1.2.840.10008.5.1.4.1.1.2"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def image(n, association=1, z=None, is_new=True):
    return ImageEvidence(
        version_id=n,
        association_id=association,
        instance_number=n,
        position=(0.0, 0.0, 5.0 * n if z is None else z),
        orientation=AXIAL,
        received_mono=100.0 + n,
        is_new=is_new,
    )


def series(images, sop_class=CT, associations=None, peer_is_open=False, last_mono=110.0):
    return SeriesEvidence(
        series_id=1,
        study_id=1,
        source="CT-1",
        sop_class_uid=sop_class,
        modality="CT",
        revision=0,
        images=tuple(images),
        associations=associations or {1: "released"},
        peer_is_open=peer_is_open,
        last_mono=last_mono,
    )


def at(evidence, now, quiet=2.0):
    decision = decide(evidence, now_mono=now, quiet=quiet)
    return decision.rule if isinstance(decision, Ready) else None


WHOLE = [image(n) for n in range(1, 11)]


@pytest.mark.req("R-COMPLETE-01")
def test_single_image_class_is_whole_at_once_even_while_its_association_is_open():
    one = series([image(1)], sop_class=DX, associations={1: None}, peer_is_open=True)
    assert at(one, 110.0) == "single_image"


@pytest.mark.req("R-COMPLETE-02")
def test_released_association_with_a_regular_contiguous_series_is_whole_at_once():
    assert at(series(WHOLE), 110.0) == "released"


@pytest.mark.req("R-COMPLETE-02", "R-COMPLETE-03")
@pytest.mark.parametrize(
    "evidence",
    [
        series(WHOLE, associations={1: None}, peer_is_open=True),
        series(WHOLE, associations={1: "aborted"}),
        series(WHOLE, associations={1: "lost"}),
        series(WHOLE, peer_is_open=True),
        series([*WHOLE[:4], *WHOLE[5:]]),
        series([*WHOLE[:9], image(10, z=80.0)]),
        series([image(1)]),
        series([image(n, association=n) for n in range(1, 4)], associations=dict.fromkeys(range(1, 4), "released")),
    ],
    ids=["open", "aborted", "lost", "peer-sends", "number-missing", "gap", "one-image", "one-each"],
)
def test_weaker_evidence_waits_until_the_source_is_quiet(evidence):
    decision = decide(evidence, now_mono=111.9, quiet=2.0)
    assert decision == Wait(until_mono=112.0)
    assert at(evidence, 112.0) == "quiet"


def test_late_image_alone_in_its_association_waits_for_quiet():
    late = [*(image(n, is_new=False) for n in range(1, 11)), image(11, association=2)]
    evidence = series(late, associations={1: "released", 2: "released"})
    assert at(evidence, 110.0) is None
    assert at(evidence, 112.0) == "quiet"


@pytest.mark.req("R-COMPLETE-04")
def test_evidence_of_the_quiet_rule_names_what_was_wanting():
    decision = decide(series([*WHOLE[:4], *WHOLE[5:]], associations={1: "aborted"}), now_mono=112.0, quiet=2.0)
    assert decision.facts == {"quiet_s": 2.0, "associations": ["aborted"], "contiguous": False, "regular": False}


@pytest.mark.req("R-COMPLETE-03")
@given(st.lists(st.floats(0, 100), max_size=50))
def test_quiet_time_stays_within_its_bounds_and_grows_with_the_gaps(gaps):
    quiet = quiet_s(gaps, 2.0, 20.0)
    assert 2.0 <= quiet <= 20.0
    assert quiet_s([gap * 2 for gap in gaps], 2.0, 20.0) >= quiet


@pytest.mark.req("R-COMPLETE-03")
def test_quiet_time_is_five_times_the_usual_longest_gap():
    assert quiet_s([0.1] * 98 + [1.0, 1.0], 2.0, 20.0) == 5.0


@given(st.integers(0, 10), st.floats(0, 30))
def test_every_series_is_taken_as_whole_in_the_end(missing, waited):
    evidence = series([image(n) for n in range(1, 11) if n != missing] or [image(1)])
    assert at(evidence, 110.0 + 20.0 + waited, quiet=20.0) is not None


def with_list(images, *, missing=0, extra=0, discontinued=False, **changes):
    listed = Listed(images=len(images) + missing, missing=missing, extra=extra, discontinued=discontinued)
    return dataclasses.replace(series(images, **changes), listed=listed)


@pytest.mark.req("R-MPPS-01")
def test_series_is_whole_at_once_when_all_that_the_scanner_lists_is_there_however_it_came():
    ragged = [image(1), image(5, z=999.0), image(6, association=2)]
    busy = with_list(ragged, associations={1: None, 2: "aborted"}, peer_is_open=True)
    decision = decide(busy, now_mono=110.0, quiet=2.0, longest=20.0)
    assert isinstance(decision, Ready)
    assert decision.rule == "mpps"
    assert decision.facts == {"listed": 3, "missing": 0, "not_listed": 0, "discontinued": False}


@pytest.mark.req("R-MPPS-01")
def test_series_that_looks_whole_waits_for_what_the_scanner_lists_and_then_says_what_is_missing():
    short = with_list(WHOLE, missing=2)
    assert decide(short, now_mono=113.0, quiet=2.0, longest=20.0) == Wait(until_mono=130.0)
    decision = decide(short, now_mono=130.0, quiet=2.0, longest=20.0)
    assert isinstance(decision, Ready)
    assert (decision.rule, decision.facts["missing"]) == ("quiet", 2)


@pytest.mark.req("R-MPPS-01")
def test_discontinued_examination_runs_on_what_is_there_and_is_marked():
    short = with_list(WHOLE, missing=2, discontinued=True)
    decision = decide(short, now_mono=110.0, quiet=2.0, longest=20.0)
    assert isinstance(decision, Ready)
    assert (decision.rule, decision.facts["discontinued"], decision.facts["missing"]) == ("released", True, 0)


@pytest.mark.req("R-MPPS-01")
@given(
    count=st.integers(1, 12),
    missing=st.integers(0, 5),
    extra=st.integers(0, 5),
    discontinued=st.booleans(),
    waited=st.floats(0, 19.9),
    how=st.sampled_from(["released", "aborted", None]),
    busy=st.booleans(),
)
def test_listed_series_is_never_taken_early_and_never_late(count, missing, extra, discontinued, waited, how, busy):
    evidence = with_list(
        [image(n) for n in range(1, count + 1)],
        missing=missing,
        extra=extra,
        discontinued=discontinued,
        associations={1: how},
        peer_is_open=busy,
    )
    decision = decide(evidence, now_mono=110.0 + waited, quiet=2.0, longest=20.0)
    if not missing and not extra:
        assert isinstance(decision, Ready)
        assert decision.rule == "mpps"
    elif missing and not discontinued:
        assert isinstance(decision, Wait)
        assert decision.until_mono == 130.0
    else:  # the list is no proof, so the other rules hold as they do without it
        without = decide(dataclasses.replace(evidence, listed=None), now_mono=110.0 + waited, quiet=2.0, longest=20.0)
        assert type(decision) is type(without)
        assert getattr(decision, "rule", None) == getattr(without, "rule", None)
    ended = decide(evidence, now_mono=130.0, quiet=2.0, longest=20.0)
    assert isinstance(ended, Ready)


@pytest.mark.req("R-REJECT-01")
def test_what_a_note_leaves_of_a_whole_series_is_whole_at_once_but_new_images_are_waited_for():
    left = [image(n, is_new=False) for n in (1, 2, 5)]
    assert at(dataclasses.replace(series(left), taken_back=2), 110.0) == "rejected"
    more = [*left, image(6)]
    assert at(dataclasses.replace(series(more, associations={1: None}), taken_back=2), 110.0) is None
