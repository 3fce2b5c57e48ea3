"""What the commands say of commitment and of images that have left the box."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner
from deliver_kit import running_box

from appliance.cli import main
from appliance.store.destinations import tell_gone

AT = "2026-01-01T00:00:00.000000Z"


@pytest.fixture
def scanside(tmp_path):
    """``scanside(*arguments)`` on a box with a PACS that commits and a scanner that asks; returns what it printed."""
    pacs = {"kind": "dicom", "name": "pacs", "host": "127.0.0.1", "port": 104, "ae_title": "PACS", "commitment": True}
    scanner = {"name": "CT-1", "ae_title": "CT-1", "mode": "inline"}
    asking = {**scanner, "commitment_host": "127.0.0.1", "commitment_port": 104}
    path = tmp_path / "box.yaml"
    document = {"state_path": str(tmp_path / "state"), "sources": [asking], "destinations": [pacs]}
    path.write_text(yaml.safe_dump(document))

    def call(*arguments, status=0, typed=None):
        done = CliRunner().invoke(main, [*arguments, "--config", str(path)], input=typed)
        assert done.exit_code == status, done.output
        return done.output

    return call


@pytest.mark.req("R-CUSTODY-02")
@pytest.mark.req("R-RETAIN-03")
def test_commands_tell_what_waits_for_commitment_and_which_images_are_gone(tmp_path, scanside):
    with running_box(tmp_path / "state") as box:
        first, second = (box.owe(state="sent", sent_at=AT) for _ in range(2))
        uids = [box.row(one)["sop_instance_uid"] for one in (first, second)]
        box.store.commitments.begin("pacs", "9.1", [first, second])
        box.store.commitments.answered("9.1", uids[:1], {uids[1]: 0x0213})
        box.store.commitment_requests.add(
            source="CT-1",
            transaction_uid="9.2",
            calling_ae="CT-1",
            called_ae="BOX",
            association_id=1,
            wanted=dict.fromkeys(uids, "1.2"),
        )
    (listed,) = json.loads(scanside("dest", "list", "--json"))["destinations"]
    assert (listed["uncommitted"]["objects"], listed["uncommitted"]["last_error"]) == (
        1,
        "it lacks resources (0x0213)",
    )
    assert "1 objects wait" in scanside("dest", "show", "pacs")
    assert "2 original to pacs: sent, 1 committed" in scanside("study", "show", "1")
    told = json.loads(scanside("status", "--json", status=3))
    assert [one["objects"] for one in told["uncommitted"]] == [1]
    assert [(one["source"], one["undecided"]) for one in told["commitment_requests"]] == [("CT-1", 2)]
    with running_box(tmp_path / "state") as box:
        box.store.commitments.answered("9.1", uids, {})
        with box.store.db.write() as tx:
            tx.execute("UPDATE study SET images_removed_at = ?", (AT,))
    assert "all that was sent is committed to" in scanside("dest", "show", "pacs")
    assert "images removed from this box on 2026-01-01" in scanside("study", "show", "1")


@pytest.mark.req("R-CUSTODY-06")
def test_a_person_gives_up_a_destination_that_is_gone_by_typing_its_name_and_no_other(tmp_path, scanside):
    with running_box(tmp_path / "state") as box:
        for n in range(2):
            box.owe(study=n + 1, destination="old")
        box.owe(destination="pacs")
        tell_gone(box.store.db, ["pacs"])

    def states():
        with running_box(tmp_path / "state") as box:
            return box.states(), box.issues()

    forget = ("dest", "forget", "old", "--reason", "replaced")
    assert "Missing option" in scanside("dest", "forget", "old", status=2)
    asked = scanside(*forget, typed="olt\n", status=6)
    assert "2 objects that it has not got" in asked
    assert "was not typed, so nothing has changed" in asked
    assert "was not typed" in scanside(*forget, typed="", status=6)
    assert "is configured and is still sent to" in scanside(
        "dest", "forget", "pacs", "--reason", "x", "--yes", status=6
    )
    assert states() == (["owed"] * 3, {"DESTINATION_GONE"})
    assert "old is forgotten: 2 objects" in scanside(*forget, typed="old\n")
    assert states() == (["forgotten", "forgotten", "owed"], set())
    assert "2 original to" not in scanside("dest", "list")
    assert "1 original to old: forgotten" in scanside("study", "show", "1")
    assert "nothing is owed to a destination 'old'" in scanside(*forget, "--yes", status=4)


@pytest.mark.req("R-CUSTODY-06")
def test_a_program_gives_up_a_destination_without_typing_and_reads_what_ended(tmp_path, scanside):
    with running_box(tmp_path / "state") as box:
        box.owe(destination="old", state="parked")
    told = json.loads(scanside("dest", "forget", "old", "--reason", "replaced", "--yes", "--json"))
    assert told == {"destination": "old", "ended": {"owed": 0, "held": 0, "parked": 1, "uncommitted": 0}}
