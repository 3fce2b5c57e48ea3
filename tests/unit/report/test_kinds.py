"""Which objects tell of which result: a pure rule over use, outcome, urgency and what the worker left."""

from __future__ import annotations

import dataclasses

import pytest

from appliance.records import DeliveryKind, Outcome
from appliance.report.kinds import applies, key_picture

USES = ("triage", "detection", "measurement", "quality")
KINDS = (DeliveryKind.SR, DeliveryKind.SEG, DeliveryKind.GSPS, DeliveryKind.KO, DeliveryKind.SC)


@pytest.fixture
def found(make_result):
    """A result with everything: flagged in category 1, regions, a mask, a picture."""
    return make_result(pictures=("p0.png",), masks="m.npz")


def kinds_of(use, result):
    return {str(kind) for kind in KINDS if applies(kind, use, result)}


@pytest.mark.req("R-REPORT-07")
def test_a_finding_with_places_is_told_in_all_five(found):
    assert kinds_of("detection", found) == {"sr", "seg", "gsps", "ko", "sc"}


@pytest.mark.req("R-REPORT-07")
def test_a_triage_package_tells_no_place_whatever_it_has(found):
    assert kinds_of("triage", found) == {"sr", "ko"}


@pytest.mark.req("R-REPORT-07")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("outcome", [Outcome.NOTHING_FLAGGED, Outcome.NOT_ANALYSED])
def test_without_a_finding_the_report_alone_says_so(make_result, use, outcome):
    result = make_result(outcome, pictures=("p0.png",), masks="m.npz")
    assert kinds_of(use, result) == {"sr"}


@pytest.mark.req("R-REPORT-07")
def test_only_what_is_urgent_has_key_objects(make_result, make_finding, found):
    for category, is_urgent in ((1, True), (2, True), (3, False)):
        result = make_result(Outcome.FINDING, make_finding(category=category))
        assert applies(DeliveryKind.KO, "detection", result) is is_urgent
    quiet = make_finding(id="other", flagged=False, category=1, regions=())
    mixed = make_result(Outcome.FINDING, make_finding(category=3), quiet)
    assert not applies(DeliveryKind.KO, "detection", mixed), "what is urgent was not flagged"


@pytest.mark.req("R-REPORT-07")
def test_what_the_worker_left_decides_over_masks_regions_and_pictures(make_result, make_finding, found):
    assert kinds_of("detection", dataclasses.replace(found, masks=None)) == {"sr", "gsps", "ko", "sc"}
    assert kinds_of("detection", dataclasses.replace(found, pictures=())) == {"sr", "seg", "gsps", "ko"}
    nowhere = make_result(Outcome.FINDING, make_finding(regions=()), pictures=("p0.png",), masks="m.npz")
    assert kinds_of("detection", nowhere) == {"sr", "ko", "sc"}


def test_what_is_no_object_of_ours_is_left_to_who_makes_it(make_result):
    assert applies(DeliveryKind.ORIGINAL, "triage", make_result(Outcome.NOT_ANALYSED))
    assert applies(DeliveryKind.STATEMENT, "triage", make_result(Outcome.NOT_ANALYSED))


def test_the_picture_that_is_shown_is_of_a_finding_that_was_flagged(make_result, make_finding):
    quiet = make_finding(id="other", flagged=False, key_instances=("1.2.3.4.3",), regions=())
    pictures = ("of other", "of ours", "second of other")
    result = make_result(Outcome.FINDING, quiet, make_finding(), pictures=pictures)
    assert pictures[key_picture(result)] == "of ours"
    shared = dataclasses.replace(quiet, key_instances=("1.2.3.4.2",))
    both = make_result(Outcome.FINDING, shared, make_finding(), pictures=("of both", "second"))
    assert key_picture(both) == 0
    assert key_picture(dataclasses.replace(both, pictures=())) is None
    lost = dataclasses.replace(result, pictures=("of other",))
    assert key_picture(lost) is None, "better none than that of another finding"
