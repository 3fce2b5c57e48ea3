"""Roll-outs and holds at the command line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from fleet_kit import VENDOR
from rollout_kit import DIGEST, NEW, PACKAGE, RELEASE, PaperFleet
from sqlalchemy import insert

from appliance.fleet.server import tables as t
from appliance.fleet.server.cli import main
from appliance.fleet.server.db import write
from engines.durable import write_private


@pytest.fixture
def call(engine, tmp_path):
    """A command; its document, or what it said."""
    fleet = PaperFleet(engine, tmp_path)
    with write(engine) as connection:
        row = {"package": PACKAGE, "version": NEW, "digest": DIGEST[NEW], "target": "models/x.zip", "size": 1}
        row |= {"sha256": "b" * 64, "status": "research", "markets": [], "added_by": "t", "title": {"en": "x"}}
        connection.execute(insert(t.model).values(**row, added_at=fleet.now))
        connection.execute(t.status.update().values(due_at=fleet.now.replace(year=2100)))
    file = tmp_path / "fleet.yaml"
    file.write_text(f"folder: {tmp_path}\n")
    write_private(tmp_path / "release.key", RELEASE.pem().encode())

    def do(*words, code=0):
        config = () if words[1] == "sign" else ("--config", str(file))
        config += ("--tenant", VENDOR) if words[1] == "make" else ()
        done = CliRunner().invoke(main, [*words, *config])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if "--json" in words else done.output

    do.folder, do.fleet = tmp_path, fleet
    return do


@pytest.mark.req("R-FLEET-71")
def test_from_a_draft_to_a_start_with_the_key_on_another_machine(call):
    made = call("rollout", "make", PACKAGE, NEW, "--as", "maker", "--set", "soak_studies=0", "--json")
    ident = made["id"]
    assert (made["state"], made["digest"], made["plan"]["soak_studies"]) == ("DRAFT", DIGEST[NEW], 0)
    call("rollout", "submit", ident, "--as", "maker")
    file = str(call.folder / "grant.json")
    call("rollout", "grant", ident, "--out", file)
    told = call("rollout", "sign", file, "--key", str(call.folder / "release.key"), "--yes")
    assert f"{PACKAGE} {NEW} (live), digest {DIGEST[NEW]}, for 1 tenants" in told
    assert "waits for another word" in call("rollout", "put-grant", ident, file)
    key = str(call.folder / "release.key")
    assert "cannot approve" in call("rollout", "approve", ident, "--as", "maker", "--key", key, "--yes", code=6)
    assert "READY" in call("rollout", "approve", ident, "--as", "checker", "--yes")
    call("rollout", "start", ident, "--as", "maker")
    call("rollout", "pause", ident, "--as", "maker", "--why", "lunch")
    shown = call("rollout", "show", ident, "--boxes", "--json")
    assert (shown["state"], shown["paused_why"], len(shown["boxes"])) == ("PAUSED", "MANUAL", 12)
    assert "PAUSED (MANUAL)" in call("rollout", "list")
    assert "canaries" in call("rollout", "show", ident, "--boxes")
    call("rollout", "resume", ident, "--as", "checker", "--why", "back")
    call("rollout", "abort", ident, "--as", "checker", "--why", "enough")
    call("rollout", "revert", ident, "--as", "checker", "--why", "all of it")
    whys = [row.detail.get("why") for row in call.fleet.audit() if row.subject == ident]
    assert [why for why in whys if why] == ["lunch", "back", "enough", "all of it"]


@pytest.mark.req("R-FLEET-70")
def test_what_is_not_there_and_what_is_no_figure_is_told(call):
    assert "no model" in call("rollout", "make", PACKAGE, "9.9.9", "--as", "maker", code=4)
    assert "no account" in call("rollout", "make", PACKAGE, NEW, "--as", "nobody", code=4)
    assert "alpha" in call("rollout", "make", PACKAGE, NEW, "--as", "maker", "--set", "alpha=2", code=2)
    assert "NAME=VALUE" in call("rollout", "make", PACKAGE, NEW, "--as", "maker", "--set", "waves=1", code=2)
    assert "no roll-out" in call("rollout", "start", "X", "--as", "maker", code=4)
    (call.folder / "other").write_text("{}")
    key = str(call.folder / "release.key")
    assert "no grant" in call("rollout", "sign", str(call.folder / "other"), "--key", key, code=6)
    with write(call.fleet.engine) as connection:
        connection.execute(t.model.update().values(withdrawn_at=call.fleet.now))
    assert "withdrawn" in call("rollout", "make", PACKAGE, NEW, "--as", "maker", code=6)


@pytest.mark.req("R-FLEET-77")
def test_holds_are_added_listed_and_lifted(call):
    added = call("hold", "add", "site", "site-1000", "--why", "audit", "--days", "14", "--json")
    (found,) = call("hold", "list", "--json")["holds"]
    assert (found["kind"], found["subject"], found["why"], found["number"]) == ("site", "site-1000", "audit", 1)
    call("hold", "lift", str(added["hold"]), "--why", "over", "--as", "checker")
    assert call("hold", "list", "--json") == {"holds": []}
    assert "site-1000" in call("hold", "list", "--all")
    assert "no site" in call("hold", "add", "site", "site-9999", "--why", "x", code=4)
