"""``scanside audit``: the same check and the same rows as the page's."""

from __future__ import annotations

import csv
import json
from datetime import date

import pytest
from admin_kit import served
from click.testing import CliRunner

from appliance.cli import main
from appliance.clock import SystemClock
from appliance.commands import Exit
from appliance.records import Actor, ActorKind
from appliance.store import Store
from appliance.store.facts import Kind
from appliance.store.facts.admin import DestinationPaused
from appliance.store.facts.box import DaemonStopped

pytestmark = pytest.mark.req("R-ADMIN-03")


@pytest.fixture
def store(tmp_path):
    """Thirty facts of the box and one act of a person."""
    opened = Store.open(tmp_path, SystemClock(), reserve_bytes=0)
    with opened.db.write() as tx:
        for number in range(30):
            tx.journal(DaemonStopped(why=f"w{number}"))
        who = Actor(kind=ActorKind.PERSON, name="=Ada", role="administrator")
        tx.journal(DestinationPaused(destination="PACS", paused=True, why="moved"), actor=who)
    yield opened
    opened.close()


@pytest.fixture
def scanside(tmp_path, store):
    path = tmp_path / "appliance.yaml"
    path.write_text(f"state_path: {store.db.path.parent}\n", "utf-8")
    return lambda *words: CliRunner().invoke(main, ["audit", *map(str, words), "--config", str(path)])


def test_a_whole_chain_is_told_with_its_last_row_and_a_broken_one_ends_with_7_and_its_first(store, scanside):
    newest = store.journal.last_seq()
    done = scanside("verify", "--json")
    said = json.loads(done.stdout)
    (last,) = store.db.all("SELECT hash FROM journal WHERE seq = ?", (newest,))
    assert (done.exit_code, said["intact"], said["through"], said["hash"]) == (0, True, newest, last["hash"])
    assert scanside("verify").stdout == f"Chain intact to #{newest}, hash {last['hash']}\n"
    with store.db.write() as tx:
        tx.execute("UPDATE journal SET body = replace(body, 'w19', 'w91') WHERE body LIKE '%w19%'")
        (changed,) = tx.all("SELECT seq FROM journal WHERE body LIKE '%w91%'")
    done = scanside("verify", "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == Exit.CHECK_FAILED == 7
    assert (said["intact"], said["broken_at"], said["through"]) == (False, changed["seq"], changed["seq"] - 1)
    told = scanside("verify").stdout
    assert told.startswith(f"The chain breaks at #{changed['seq']}; it is intact to #{changed['seq'] - 1}.")
    assert "call service" in told


def test_an_export_is_the_pages_to_the_byte_and_stands_in_the_journal(store, scanside, scenes, tmp_path):
    out = tmp_path / "journal.jsonl"
    with served(store, store.db.clock, scenes.packages()) as somebody:
        ada = somebody("administrator")
        page = ada.get("/audit/export?who=&kind=daemon_stopped&form=jsonl").content
        table = ada.get("/audit/export?who=person&kind=destination_paused&form=csv").content
    done = scanside("export", "--kind", "daemon_stopped", "--out", out, "--json")
    said = json.loads(done.stdout)
    assert out.read_bytes() == page
    last = json.loads(out.read_text("utf-8").splitlines()[-1])
    assert (said["rows"], said["last"], said["hash"]) == (30, last["seq"], last["hash"])
    today = date.today().isoformat()  # noqa: DTZ011 - the machine's day
    asked = ("--who", "person", "--kind", "destination_paused", "--form", "csv", "--since", today, "--until", today)
    assert scanside("export", *asked, "--out", tmp_path / "t.csv").exit_code == 0
    assert (tmp_path / "t.csv").read_bytes() == table
    assert [row["actor_name"] for row in csv.DictReader(table.decode().splitlines())] == ["'=Ada"]
    assert len(scanside("export", "--out", "-").stdout.splitlines()) > 31
    exports = [fact.actor["role"] for fact in store.journal.after(0, 500, (Kind.ACCESSED,))]
    assert exports == ["administrator"] * 2 + ["service"] * 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--out", "here.jsonl"), Exit.CONFLICT, "name a new file"),
        (("--out", "-", "--json"), Exit.USAGE, "give a file"),
        (("--out", "x", "--since", "yesterday"), Exit.USAGE, "does not match the format"),
        (("--out", "x", "--kind", "nothing"), Exit.USAGE, "is not one of"),
    ],
)
def test_what_cannot_be_exported_is_told_and_nothing_is_overwritten(
    scanside, store, tmp_path, monkeypatch, words, code, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.jsonl").write_text("kept")
    done = scanside("export", *words)
    assert (done.exit_code, said in done.output) == (code, True), done.output
    assert (tmp_path / "here.jsonl").read_text() == "kept"
    assert store.journal.after(0, 500, (Kind.ACCESSED,)) == []
