"""``scanside study quality`` and what ``study show`` tells of warnings, exposure and the choice."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.clock import SystemClock
from appliance.commands import Exit
from appliance.store import Store

CHOICE = ("--choice", "image_added", "--reason", "anatomy_cutoff")


@pytest.fixture
def scanside(tmp_path, scenes):
    """``scanside("study", ...)`` on a box whose study 1 has a quality warning and study 2 has none."""
    store = Store.open(tmp_path, SystemClock(), reserve_bytes=0)
    with store.db.write() as tx:
        scenes.warned(tx)
        scenes.nothing_flagged(tx)
    store.close()
    path = tmp_path / "appliance.yaml"
    path.write_text(f"state_path: {tmp_path}\n", "utf-8")
    return lambda *words: CliRunner().invoke(main, [*words, "--config", str(path)])


@pytest.mark.req("R-SCREEN-09")
def test_a_choice_by_name_is_recorded_and_shown(scanside, scenes):
    before = json.loads(scanside("study", "show", "1", "--json").stdout)["quality_warnings"]
    assert before == [
        {"analysis": 1, "package": scenes.QUALITY, "version": "0.1.0", "findings": ["bases"], "choice": None}
    ]
    done = scanside("study", "quality", "1", *CHOICE, "--by", "Li Wei", "--json")
    assert json.loads(done.stdout) == {
        "study": 1, "analyses": [1], "choice": "image_added", "reason": "anatomy_cutoff", "by": "Li Wei",
    }  # fmt: skip
    shown = json.loads(scanside("study", "show", "1", "--json").stdout)
    (warning,) = shown["quality_warnings"]
    assert (warning["choice"]["choice"], warning["choice"]["decided_by"]) == ("image_added", "Li Wei")
    assert shown["series"][0]["exposures"][0]["deviation_index"] == -0.9
    (fact,) = [fact for fact in shown["facts"] if fact["kind"] == "quality_decided"]
    assert fact["actor"] == "Li Wei"


def test_show_says_warning_exposure_and_choice_to_a_person(scanside):
    told = scanside("study", "show", "1").stdout
    assert "image 14: exposure index 325, target 400, deviation index -0.9 (81.3 % of the target exposure)" in told
    assert "quality warning of analysis 1: bases: not answered" in told
    assert scanside("study", "quality", "1", *CHOICE).exit_code == Exit.OK
    assert "bases: image_added (anatomy_cutoff) by " in scanside("study", "show", "1").stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("study", "quality", "9", *CHOICE), Exit.NOT_FOUND),
        (("study", "quality", "2", *CHOICE), Exit.CONFLICT),
        (("study", "quality", "1", *CHOICE, "--by", " "), Exit.CONFLICT),
        (("study", "quality", "1", "--choice", "repeat", "--reason", "motion"), Exit.USAGE),
        (("study", "quality", "1", "--choice", "image_added", "--reason", "because"), Exit.USAGE),
        (("study", "quality", "1", "--choice", "image_added"), Exit.USAGE),
    ],
    ids=str,
)
def test_what_cannot_be_recorded_says_so_by_its_exit_status(scanside, words, code):
    assert scanside(*words).exit_code == code
