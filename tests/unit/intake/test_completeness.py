"""When is a series whole? The rule over evidence, without sockets, database or waiting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.intake.completeness import Ready, Wait, decide, quiet_s
from appliance.store.revisions import ImageEvidence, SeriesEvidence

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
