"""The conformance statement says what the code does, and is stale as soon as the code does another thing."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pydicom._uid_dict import UID_dictionary

from appliance import config
from appliance.deliver import build, commitment, orders, retry, stow
from appliance.dicom import codes, commands, implementation
from appliance.intake import negotiation, performed
from appliance.records import DeliveryKind
from appliance.report import maker
from appliance.store import commitments

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tool():
    """The tool, and with it what it builds of phantoms, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")
        yield importlib.import_module("conformance")
    for name in [name for name in sys.modules if name.startswith("conformance")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def written():
    return (ROOT / "docs" / "conformance.md").read_text("utf-8")


@pytest.mark.req("R-CONFORM-01")
def test_the_conformance_statement_is_what_the_code_says(tool, capsys):
    assert tool.main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.req("R-CONFORM-01")
@pytest.mark.parametrize("known", [True, False])
def test_the_statement_does_not_hang_on_what_other_libraries_put_into_the_dictionary(tool, written, monkeypatch, known):
    name = ("JPEG XL Lossless", "Transfer Syntax", "", "", "JPEGXLLossless")
    if known:
        monkeypatch.setitem(UID_dictionary, "1.2.840.10008.1.2.4.110", name)
    else:
        monkeypatch.delitem(UID_dictionary, "1.2.840.10008.1.2.4.110", raising=False)
    assert tool.fill("accepted_syntaxes") in written


def without(mapping, key):
    return {name: value for name, value in mapping.items() if name != key}


VERSION_NAME = "IMPLEMENTATION_VERSION_NAME"
BRAIN = codes.get("brain")
CHANGES = {
    "a syntax less": ("accepted_syntaxes", negotiation, "ACCEPTED_SYNTAXES", frozenset({"1.2.840.10008.1.2"})),
    "a storage class less": ("storage_classes", negotiation, "is_storage", lambda uid: uid.endswith(".2")),
    "an object less": ("results_contexts", build, "SOP_CLASSES", without(build.SOP_CLASSES, "sc")),
    "roles refused": ("roles", negotiation, "accept_roles", lambda proposed: ()),
    "a status read otherwise": ("sent_statuses", retry, "_STATUS", without(retry._STATUS, 0x0124)),
    "an HTTP status read otherwise": ("stow_statuses", stow, "_FOR_GOOD", without(stow._FOR_GOOD, 413)),
    "a failure reason less": ("reasons_read", commitments, "_REASONS", without(commitments._REASONS, 0x0131)),
    "a worklist attribute less": ("worklist_keys", orders, "_TEXTS", without(orders._TEXTS, "priority")),
    "a code less": ("codes", codes, "table", lambda: {"brain": BRAIN}),
    "another scheme": ("private_codes", maker, "PRIVATE_SCHEME", "99OTHER"),
    "another state that a step may have": ("step_statuses", commands, "INVALID_ATTRIBUTE_VALUE", 0x0105),
    "a constant in the prose": ("appliance.deliver.commitment.MOST", commitment, "MOST", 7001),
    "another name": (f"{implementation.__name__}.{VERSION_NAME}", implementation, VERSION_NAME, "OTHER_9"),
}


@pytest.mark.req("R-CONFORM-01")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_table_that_changes_makes_the_statement_stale(tool, written, monkeypatch, change):
    table, module, name, value = change
    before = tool.fill(table)
    assert before in written
    monkeypatch.setattr(module, name, value)
    assert tool.fill(table) != before


@pytest.mark.req("R-CONFORM-01")
def test_check_reports_a_stale_statement_and_writes_nothing(tool, written, monkeypatch, capsys):
    monkeypatch.setattr(negotiation, "ACCEPTED_SYNTAXES", frozenset({"1.2.840.10008.1.2"}))
    assert tool.main(["--check"]) == 1
    assert "not up to date" in capsys.readouterr().out
    assert tool.STATEMENT.read_text("utf-8") == written


@pytest.mark.req("R-CONFORM-01")
def test_a_setting_with_another_default_makes_the_statement_stale(tool, written, monkeypatch):
    monkeypatch.setattr(config.Dicom.model_fields["network_timeout_s"], "default", 61.0)
    assert tool.fill("config_dicom") not in written


@pytest.mark.req("R-CONFORM-01")
def test_a_refusal_that_is_written_into_the_flow_of_the_code_is_told(tool, tmp_path, monkeypatch):
    """Statuses are read from the source itself, so that none can be forgotten in a table."""
    probe = sys.modules["conformance_probe"]
    before = probe.answers(performed)
    source = Path(performed.__file__).read_text("utf-8")
    line = "        said = _status(ds)\n"
    refusal = "        if said == 'X':\n            return Failure(commands.NO_SUCH_ACTION, 'new')\n"
    more = source.replace(line, line + refusal, 1)
    (tmp_path / "changed_performed.py").write_text(more, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    changed: ModuleType = importlib.import_module("changed_performed")
    monkeypatch.delitem(sys.modules, "changed_performed")
    assert set(probe.answers(changed)) - set(before) == {(commands.NO_SUCH_ACTION, "new")}


@pytest.mark.req("R-CONFORM-01")
def test_every_object_that_is_built_and_every_service_that_is_given_has_its_place(tool, written):
    services = sys.modules["conformance_services"]
    uids = {*build.SOP_CLASSES.values(), *services.given()}
    assert [uid for uid in uids if f"| {uid} |" not in written] == []
    assert {*sys.modules["conformance_objects"].OBJECTS, DeliveryKind.REJECTION_NOTE} == set(build.SOP_CLASSES)


@pytest.mark.req("R-CONFORM-01")
def test_a_table_without_a_place_in_the_text_is_an_error(tool, monkeypatch):
    monkeypatch.setitem(tool.TABLES, "forgotten", lambda: "")
    with pytest.raises(RuntimeError, match="forgotten"):
        tool.statement()
