"""Issues: acknowledged and shelved by name, listed all the while, told anew, ended only by what raised them."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.clock import SystemClock
from appliance.errors import ConflictError, NotFoundError
from appliance.health.checks import ShelfCheck
from appliance.records import Actor, ActorKind, Severity
from appliance.store import Store
from appliance.store.facts import Kind

pytestmark = pytest.mark.req("R-FLEET-35")
LI = Actor(kind=ActorKind.PERSON, name="Li Wei", role="administrator")
ZHAO = Actor(kind=ActorKind.PERSON, name="Zhao Lei", role="service")
DAY = timedelta(days=1)


@pytest.fixture
def raised(store):
    store.issues.raise_("DISK_FAULT", "spool", Severity.FAULT, {"why": "x"})
    store.issues.raise_("SOURCE_SILENT", "CT-1", Severity.WARNING)
    return store.issues


def facts(store, *kinds):
    kinds = kinds or (Kind.ISSUE_RAISED, Kind.ISSUE_CLEARED, Kind.ISSUE_ACKNOWLEDGED, Kind.ISSUE_SHELVED)
    return [(str(one.kind), one.subject, one.actor["name"]) for one in store.journal.after(0, 100, kinds)]


def test_acknowledging_is_recorded_once_by_name_and_the_issue_stands(store, clock, raised):
    clock.advance(60)
    raised.acknowledge("DISK_FAULT", "spool", LI)
    raised.acknowledge("DISK_FAULT", "spool", ZHAO)
    disk, silent = raised.open()
    assert (disk.acknowledged_by, disk.acknowledged_at, disk.shelved_until) == ("Li Wei", clock.now(), None)
    assert silent.acknowledged_at is None
    assert facts(store, Kind.ISSUE_ACKNOWLEDGED) == [("issue_acknowledged", "spool", "Li Wei")]


def test_what_is_on_the_shelf_is_listed_and_told_anew_after_its_time(store, clock, raised):
    check = ShelfCheck(store)
    raised.shelve("DISK_FAULT", "spool", clock.now() + DAY, LI)
    (disk, _) = raised.open()
    assert (disk.shelved_until, disk.acknowledged_by) == (clock.now() + DAY, "Li Wei")
    raised.raise_("DISK_FAULT", "spool", Severity.FAULT)
    clock.advance(DAY.total_seconds() - 1)
    check.run()
    assert facts(store)[2:] == [("issue_acknowledged", "spool", "Li Wei"), ("issue_shelved", "spool", "Li Wei")]
    clock.advance(1)
    check.run()
    check.run()
    assert facts(store)[4:] == [("issue_raised", "spool", "")]
    (disk, _) = raised.open()
    assert (disk.shelved_until, disk.acknowledged_at, disk.since_at) == (None, None, clock.now() - DAY)
    anew = store.journal.after(0, 100, (Kind.ISSUE_RAISED,))[-1]
    assert anew.body == {"code": "DISK_FAULT", "severity": "fault", "detail": {"why": "x"}}


def test_an_issue_that_ends_on_the_shelf_has_ended_and_the_next_one_is_new(store, clock, raised):
    raised.shelve("DISK_FAULT", "spool", clock.now() + DAY, LI)
    raised.clear("DISK_FAULT", "spool")
    raised.raise_("DISK_FAULT", "spool", Severity.FAULT)
    disk = raised.open()[-1]
    assert (disk.shelved_until, disk.acknowledged_at) == (None, None)
    clock.advance(2 * DAY.total_seconds())
    assert raised.tell_anew() == 0


@pytest.mark.fault("T35")
def test_a_clock_that_is_set_back_by_a_year_does_not_leave_it_on_the_shelf_for_a_year(store, clock, raised):
    raised.shelve("DISK_FAULT", "spool", clock.now() + DAY, LI)
    clock.jump(-365 * 86_400)
    assert raised.tell_anew() == 1


def test_nothing_is_shelved_without_a_name_into_the_past_or_for_ever(store, clock, raised):
    nobody = Actor(kind=ActorKind.PERSON, name=" ")
    with pytest.raises(ConflictError, match="name"):
        raised.acknowledge("DISK_FAULT", "spool", nobody)
    for until in (clock.now(), clock.now() + timedelta(days=30, seconds=1)):
        with pytest.raises(ConflictError, match="30 days"):
            raised.shelve("DISK_FAULT", "spool", until, LI)
    with pytest.raises(NotFoundError, match="scanside issue list"):
        raised.acknowledge("DISK_FAULT", "another", LI)
    assert facts(store, Kind.ISSUE_ACKNOWLEDGED, Kind.ISSUE_SHELVED) == []


# Command line --------------------------------------------------------------------------------------------------------


@pytest.fixture
def box(tmp_path):
    opened = Store.open(tmp_path / "state", SystemClock(), reserve_bytes=0)
    opened.issues.raise_("DISK_FAULT", "spool", Severity.FAULT)
    for source in ("CT-1", "DX-1"):
        opened.issues.raise_("SOURCE_SILENT", source, Severity.WARNING)
    (tmp_path / "appliance.yaml").write_text(f"state_path: {tmp_path / 'state'}\n", "utf-8")
    yield opened
    opened.close()


@pytest.fixture
def scanside(tmp_path, box):
    config = ("--config", str(tmp_path / "appliance.yaml"))
    return lambda *words: CliRunner().invoke(main, [*map(str, words), *config])


def test_the_command_line_does_what_the_page_does(box, scanside):
    done = scanside("issue", "acknowledge", "DISK_FAULT", "--name", "Li Wei")
    assert (done.exit_code, done.stdout) == (0, "DISK_FAULT spool is acknowledged by Li Wei\n")
    assert scanside("issue", "acknowledge", "SOURCE_SILENT").exit_code == 4, "which of the two is not said"
    assert scanside("issue", "acknowledge", "NO_SUCH").exit_code == 4
    done = scanside("issue", "shelve", "SOURCE_SILENT", "DX-1", "--hours", 2, "--name", "Li Wei", "--json")
    said = json.loads(done.stdout)["issue"]
    assert (said["code"], said["subject"], said["acknowledged_by"]) == ("SOURCE_SILENT", "DX-1", "Li Wei")
    assert scanside("issue", "shelve", "DISK_FAULT", "--hours", 721).exit_code == 2
    listed = json.loads(scanside("issue", "list", "--json").stdout)["issues"]
    assert [(one["subject"], bool(one["shelved_until"])) for one in listed] == [
        ("spool", False), ("CT-1", False), ("DX-1", True),
    ]  # fmt: skip
    shown = scanside("issue", "list").stdout
    assert all(word in shown for word in ("DISK_FAULT", "Li Wei", "DX-1"))
    status = json.loads(scanside("status", "--json").stdout)["box"]["issues"]
    assert [one["acknowledged_by"] for one in status] == ["Li Wei", "", "Li Wei"]
    assert facts(box, Kind.ISSUE_SHELVED) == [("issue_shelved", "DX-1", "Li Wei")]
