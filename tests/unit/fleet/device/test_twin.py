"""The desired document: whole or not at all, from the server alone, and never further than this box lets it go."""

from __future__ import annotations

import pytest
from fleet_jobs_kit import JobBox, put
from hypothesis import given, settings
from hypothesis import strategies as st
from package_rows_kit import NAME, Acts, Terms

from appliance.errors import StoreError
from appliance.fleet.wire import Desired, Reported, Window, WireError
from appliance.store.fleet_twin import TwinRules, apply_twin
from engines.errors import SignatureError

BLOB = "bright-blob"


@pytest.fixture
def box(tmp_path, clock):
    made = JobBox(tmp_path, clock=clock)
    yield made
    made.close()


def give(box, dv, **desired):
    box.inbox.take_twin(box.twin(dv, **desired))
    return box.inbox.reported()


def wish(role=None, name=NAME, **points):
    return {"name": name, "role": role, "operating_points": {one.replace("_", "-"): p for one, p in points.items()}}


def facts(box, kind="fleet_twin"):
    return [f.body for f in box.store.journal.after(0, 10_000) if f.kind == kind]


def points(box):
    return {row.version: dict(row.operating_points) for row in box.store.packages.all(NAME)}


@pytest.mark.req("R-FLEET-48")
def test_box_without_a_document_does_as_a_box_does_and_reports_nothing(box):
    assert (box.inbox.dv, box.inbox.desired(), box.inbox.reported()) == (0, Desired(), None)


@pytest.mark.req("R-FLEET-48")
def test_document_holds_from_its_transaction_on_and_over_a_restart(box):
    told = give(box, 3, health_every_s=120, bytes_per_s=4096, held=True, window=Window(begin="22:00", end="02:00"))
    assert (told.rv, told.applied_dv, told.refused_dv, told.errors) == (1, 3, None, ())
    box.restart()
    desired = box.inbox.desired()
    assert (desired.health_every_s, desired.bytes_per_s, desired.held, desired.window.begin) == (
        120,
        4096,
        True,
        "22:00",
    )
    assert box.inbox.reported() == told
    assert facts(box) == [{"dv": 3, "applied": True, "errors": []}]


@pytest.mark.req("R-FLEET-48")
def test_document_that_was_never_signed_or_is_for_another_does_nothing(box):
    for key in ("stranger", "release"):
        with pytest.raises(SignatureError):
            box.inbox.take_twin(box.twin(1, sign=key, held=True))
    assert "FLEET_FORGED" in box.issues()
    with pytest.raises(WireError):
        box.inbox.take_twin(box.twin(1, aud="box-99999999", held=True))
    assert (box.inbox.dv, box.inbox.desired().held) == (0, False)


@pytest.mark.req("R-FLEET-48")
def test_older_document_is_refused_and_the_same_one_changes_nothing(box):
    give(box, 5, held=True)
    with pytest.raises(WireError):
        box.inbox.take_twin(box.twin(4, held=False))
    assert give(box, 5, held=False).rv == 1
    assert box.inbox.desired().held


@pytest.mark.req("R-FLEET-48")
def test_operating_point_is_one_of_the_package_s_own_list(box):
    box.serve("1.0.0")
    told = give(box, 1, packages=[wish(bright_blob="sensitive")])
    assert (told.applied_dv, points(box)) == (1, {"1.0.0": {BLOB: "sensitive"}})
    (change,) = facts(box, "operating_point_changed")
    assert (change["before"], change["point"]) == ("standard", "sensitive")
    told = give(box, 2, packages=[wish(bright_blob="reckless")])
    assert (told.applied_dv, told.refused_dv, told.errors) == (1, 2, ("POINT_UNKNOWN",))


@pytest.mark.req("R-FLEET-48")
@pytest.mark.parametrize(
    ("packages", "code"),
    [
        ([wish(name="nobody-has-it")], "PACKAGE_UNKNOWN"),
        ([wish(bright_blob="reckless")], "POINT_UNKNOWN"),
        ([wish(dark_blob="standard")], "POINT_UNKNOWN"),
        ([wish(), wish()], "PACKAGE_TWICE"),
    ],
)
def test_one_part_that_does_not_fit_refuses_the_whole(box, packages, code):
    box.serve("1.0.0")
    give(box, 1, health_every_s=90)
    good = wish(bright_blob="sensitive")
    told = give(box, 2, health_every_s=30, packages=[good, *packages] if code != "PACKAGE_TWICE" else packages)
    assert (told.applied_dv, told.refused_dv) == (1, 2)
    assert code in told.errors
    assert (box.inbox.desired().health_every_s, points(box)) == (90, {"1.0.0": {}})
    assert facts(box)[-1]["applied"] is False
    assert give(box, 3, health_every_s=30).refused_dv is None


@pytest.mark.req("R-FLEET-48")
def test_disk_that_is_full_in_the_middle_leaves_the_old_document_whole(box):
    box.serve("1.0.0")
    give(box, 1, health_every_s=90)
    with box.store.db.write() as tx:
        tx.execute(
            "CREATE TRIGGER full BEFORE INSERT ON journal WHEN new.kind = 'fleet_twin'"
            " BEGIN SELECT raise(ABORT, 'full'); END"
        )
    with pytest.raises(StoreError):
        give(box, 2, health_every_s=30, packages=[wish(bright_blob="sensitive")])
    assert (box.inbox.dv, box.inbox.desired().health_every_s, points(box)) == (1, 90, {"1.0.0": {}})


@pytest.mark.req("R-FLEET-48")
def test_silent_version_may_serve_when_its_time_is_over(box):
    put(box.store, "1.0.0")
    Acts(box.store).activate(terms=Terms(stays=True))
    assert give(box, 1, packages=[wish("silent")]).applied_dv == 1
    assert box.store.packages.promote_due(box.acts.owed) == []
    assert give(box, 2, packages=[wish("live")]).applied_dv == 2
    assert [row.version for row in box.store.packages.promote_due(box.acts.owed)] == ["1.0.0"]
    assert give(box, 3, packages=[wish("live")]).applied_dv == 3


@pytest.mark.req("R-FLEET-48")
def test_clinical_box_lets_a_document_end_no_silent_time_and_change_no_point(tmp_path, clock):
    box = JobBox(tmp_path, clock=clock, mode="clinical")
    put(box.store, "1.0.0")
    Acts(box.store).activate(terms=Terms(stays=True))
    give(box, 1, packages=[wish("live")])
    assert box.store.packages.promote_due(box.acts.owed) == []
    (row,) = box.store.packages.all(NAME)
    assert (row.live_after_days, row.live_after_studies) == (7.0, 50)
    assert give(box, 2, packages=[wish(bright_blob="sensitive")]).errors == ("POINT_CLINICAL",)
    assert give(box, 3, packages=[wish(bright_blob="standard")]).applied_dv == 3
    with box.store.db.write() as tx:
        tx.execute("UPDATE package SET state = 'live'")
    assert give(box, 4, packages=[wish("silent")]).errors == ("ROLE_CLINICAL",)
    box.close()


@pytest.mark.req("R-FLEET-48")
@pytest.mark.parametrize("role", ["live", "silent"])
def test_no_document_brings_a_version_in(box, role):
    put(box.store, "1.0.0")
    assert give(box, 1, packages=[wish(role)]).errors == ("ROLE_NEEDS_JOB",)
    assert box.packages() == {"1.0.0": "installed"}


@pytest.mark.req("R-FLEET-48")
def test_document_that_holds_the_box_activates_nothing(box):
    put(box.store, "1.0.0")
    Acts(box.store).activate(terms=Terms(stays=True))
    assert give(box, 1, held=True, packages=[wish("live")]).errors == ("HELD",)


@pytest.mark.req("R-FLEET-47")
@pytest.mark.parametrize("approval", ["site", "both"])
def test_no_document_changes_models_where_the_site_has_a_say(tmp_path, clock, approval):
    box = JobBox(tmp_path, clock=clock, approval=approval)
    box.serve("1.0.0")
    assert give(box, 1, packages=[wish(bright_blob="sensitive")]).errors == ("NEEDS_SITE",)
    assert give(box, 2, health_every_s=30, packages=[wish("live", bright_blob="standard")]).applied_dv == 2
    box.close()


@pytest.mark.req("R-FLEET-48")
def test_what_serves_goes_silent_only_in_a_trial(box):
    box.serve("1.0.0")
    assert give(box, 1, packages=[wish("silent")]).applied_dv == 1
    assert box.packages() == {"1.0.0": "silent"}


@pytest.mark.req("R-FLEET-48")
def test_link_and_stick_that_bring_one_document_at_once_apply_it_once(box):
    rules = TwinRules(clinical=False, asks_site=False, held=False, owed=box.acts.owed)
    assert apply_twin(box.store.db, 1, "{}", (), rules) is not None
    assert apply_twin(box.store.db, 1, '{"held": true}', (), rules) is None
    assert len(facts(box)) == 1


NAMES = st.sampled_from([NAME, "nobody-has-it"])
WISHES = st.builds(
    lambda name, role, points: {"name": name, "role": role, "operating_points": points},
    NAMES,
    st.sampled_from([None, "silent", "live"]),
    st.dictionaries(st.sampled_from([BLOB, "other"]), st.sampled_from(["standard", "sensitive", "reckless"])),
)


@pytest.mark.req("R-FLEET-48")
def test_document_of_a_fleet_that_the_box_left_holds_no_more_and_the_next_one_counts_from_one(box):
    assert give(box, 9, held=True).applied_dv == 9
    box.store.fleet.pass_over(0, 1)
    box.store.fleet.leave()
    assert (box.inbox.dv, box.inbox.desired(), box.inbox.reported()) == (0, Desired(), None)
    assert give(box, 1, health_every_s=30).applied_dv == 1


@pytest.fixture(scope="module")
def shared_box(tmp_path_factory):
    made = JobBox(tmp_path_factory.mktemp("box"))
    made.serve("1.0.0")
    yield made
    made.close()


@pytest.mark.req("R-FLEET-48")
@settings(max_examples=40)
@given(wishes=st.lists(WISHES, max_size=3), held=st.booleans())
def test_any_document_is_applied_whole_or_refused_whole(shared_box, wishes, held):
    box = shared_box
    before = (box.packages(), points(box), box.inbox.desired())
    dv = box.inbox.dv + 1
    told = give(box, dv, held=held, packages=wishes)
    assert isinstance(told, Reported)
    assert dv == box.inbox.dv
    after = (box.packages(), points(box), box.inbox.desired())
    if told.refused_dv == dv:
        assert told.errors
        assert after == before
    else:
        assert (told.applied_dv, told.errors) == (dv, ())
        assert after[2].held is held
        for one in wishes:
            chosen = after[1]["1.0.0"]
            assert all(chosen.get(f, "standard") == p for f, p in one["operating_points"].items())
