"""The site's settings: a file that the pages write, above all others, and never a reason for a box to stay down."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from admin_kit import settings_in

from appliance.config import load_config
from appliance.errors import ConfigError
from appliance.settings import GOOD_NAME, NAME, Settings, load_box

pytestmark = pytest.mark.req("R-ADMIN-05")


@pytest.fixture
def base(tmp_path):
    return f"""\
state_path: {tmp_path / "state"}
site: {{name: Base, mode: evaluation}}
dicom: {{port: 104}}
sources: [{{name: CT-1, ae_title: CT1}}]
"""


@pytest.fixture
def settings(tmp_path, base):
    return settings_in(tmp_path, base)


def test_only_what_differs_is_written_so_that_the_files_below_still_count(tmp_path, base, settings):
    settings.write(settings.propose({"site": {"name": "Ward 3", "mode": "evaluation"}}))
    assert "Ward 3" in settings.text()
    assert "mode" not in settings.text()
    assert load_box(tmp_path / "appliance.yaml").config.site.name == "Ward 3"
    (tmp_path / "appliance.yaml").write_text(base.replace("port: 104", "port: 11112"), encoding="utf-8")
    assert load_box(tmp_path / "appliance.yaml").config.dicom.port == 11112


def test_the_file_of_the_pages_wins_over_the_overlay_of_the_command_line(tmp_path, settings):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("site: {name: Overlay, language: zh_Hans_CN}\n", encoding="utf-8")
    settings.write(settings.propose({"site": {"name": "Pages", "mode": "evaluation"}}))
    loaded = load_box(tmp_path / "appliance.yaml", overlay)
    assert (loaded.config.site.name, loaded.config.site.language) == ("Pages", "zh_Hans_CN")
    assert [path.name for path in loaded.files] == ["appliance.yaml", "overlay.yaml", NAME]


def test_what_does_not_fit_is_told_by_its_key_and_not_written(settings):
    with pytest.raises(ConfigError, match=r"dicom\.port: .*65535") as told:
        settings.propose({"dicom": {"port": 99999}})
    assert "line" not in str(told.value)
    with pytest.raises(ConfigError, match="is inline, but no destination takes originals"):
        settings.propose({"sources": [{"name": "CT-1", "ae_title": "CT1", "mode": "inline"}]})
    with pytest.raises(ConfigError, match="no section"):
        settings.propose({"state_path": "/elsewhere"})
    with pytest.raises(ConfigError, match=r"dicom\.port: is set in the box's own files"):
        settings.propose({"dicom": {"ae_title": "X"}})
    assert settings.text() == ""
    assert list(settings.path.parent.glob(".*")) == []


def test_two_checks_at_once_do_not_meet(settings, monkeypatch):
    both = threading.Barrier(2, timeout=60)

    def slowly(base, site=None, tried=None):
        if tried is not None and tried.suffix == ".tried":
            both.wait()
        return load_config(base, site, tried)

    monkeypatch.setattr("appliance.settings.load_config", slowly)
    with ThreadPoolExecutor(2) as people:
        found = people.map(lambda name: settings.proposal_of(f"site: {{name: {name}}}"), ("Ward 3", "Ward 4"))
        assert [proposal.config.site.name for proposal in found] == ["Ward 3", "Ward 4"]
    assert list(settings.path.parent.glob(".*")) == []


def test_a_proposal_shows_what_changes_and_is_refused_after_somebody_elses(settings):
    proposal = settings.propose({"sources": [{"name": "CT-1", "ae_title": "CT9"}]})
    assert proposal.sections == ("sources",)
    assert "-  ae_title: CT1" in proposal.diff
    assert "+  ae_title: CT9" in proposal.diff
    settings.write(settings.propose({"site": {"name": "Else", "mode": "evaluation"}}))
    with pytest.raises(ConfigError, match="somebody else"):
        settings.write(proposal)


def test_to_give_a_section_back_to_the_files_below_empties_the_file(settings):
    settings.write(settings.propose({"site": {"name": "Ward 3", "mode": "evaluation"}}))
    proposal = settings.propose({"site": None})
    assert proposal.text == ""
    settings.write(proposal)
    assert settings.next_config().site.name == "Base"
    assert not settings.is_pending


def test_a_box_starts_with_the_settings_of_last_time_when_newer_ones_do_not_fit(tmp_path, settings):
    settings.write(settings.propose({"site": {"name": "Good", "mode": "evaluation"}}))
    Settings(load_box(tmp_path / "appliance.yaml")).keep_as_good()
    settings.path.write_text("site: {name: 7, colour: green}\n", encoding="utf-8")
    loaded = load_box(tmp_path / "appliance.yaml")
    assert loaded.config.site.name == "Good"
    assert "colour" in loaded.broken
    (settings.path.parent / GOOD_NAME).unlink()
    loaded = load_box(tmp_path / "appliance.yaml")
    assert loaded.config.site.name == "Base"
    assert loaded.settings is None
    assert "colour" in loaded.broken


def test_a_start_that_failed_leaves_the_newest_settings_out(tmp_path, settings):
    settings.write(settings.propose({"site": {"name": "Fits, but the port is taken", "mode": "evaluation"}}))
    loaded = load_box(tmp_path / "appliance.yaml", attempt=2, broken="port 104 is taken")
    assert (loaded.config.site.name, loaded.broken) == ("Base", "port 104 is taken")


def test_a_restart_is_pending_only_while_the_file_differs_from_the_one_that_runs(settings):
    assert not settings.is_pending
    proposal = settings.propose({"site": {"name": "Ward 3", "mode": "evaluation"}})
    settings.write(proposal)
    assert settings.is_pending
