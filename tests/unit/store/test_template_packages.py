"""A package that is a template runs in no role, says why, and never keeps a box from starting."""

from __future__ import annotations

import pytest
from package_rows_kit import NAME, NOW, Acts, choice, model_yaml

from appliance.errors import ConflictError
from appliance.records import Role
from appliance.store.package_rules import Terms
from engines.errors import PackageError
from engines.package import parse_manifest

WHY = "its weights are not trained; train them"
TEMPLATE = {"template": {"en": WHY, "zh_Hans": "未经训练"}}


@pytest.fixture
def acts(store):
    return Acts(store)


def named(version="1.0.0", role=Role.LIVE):
    """What the configuration names, of a template that came with the software."""
    made = choice(version, role=role, **TEMPLATE)
    return type(made)(**{f: getattr(made, f) for f in made.__slots__ if f != "template"}, template=WHY)


def issues(store):
    return [(one.code, one.subject, one.detail["why"]) for one in store.issues.open()]


@pytest.mark.req("R-BONE-05")
@pytest.mark.parametrize(
    "terms", [NOW, Terms(days=7, studies=50), Terms(shadow=True)], ids=["live", "silent", "shadow"]
)
def test_template_is_installed_and_refuses_every_activation_with_its_reason(acts, terms):
    acts.install("1.0.0", **TEMPLATE)
    with pytest.raises(ConflictError, match=f"{NAME} 1.0.0 is a template and cannot be activated: {WHY}"):
        acts.activate(terms=terms)
    assert acts.states() == {"1.0.0": "installed"}


@pytest.mark.req("R-BONE-05")
def test_template_beside_a_live_version_is_no_shadow_and_the_live_one_goes_on(acts):
    acts.install("1.0.0")
    acts.activate()
    acts.install("2.0.0", **TEMPLATE)
    with pytest.raises(ConflictError, match="is a template"):
        acts.activate("2.0.0", terms=Terms(shadow=True))
    assert acts.states() == {"1.0.0": "live", "2.0.0": "installed"}


@pytest.mark.req("R-BONE-05")
@pytest.mark.parametrize("role", [Role.LIVE, Role.SILENT])
def test_template_that_the_configuration_names_does_not_run_and_an_issue_says_why(store, acts, role):
    for _ in range(2):  # over a restart too
        acts.sync(named(role=role))
        assert acts.states() == {"1.0.0": "installed"}
        assert issues(store) == [("PACKAGE_TEMPLATE", NAME, WHY)]
    acts.sync(named(role=Role.SILENT if role is Role.LIVE else Role.LIVE))
    assert acts.states() == {"1.0.0": "installed"}, "another role in the file changes nothing"
    (row,) = store.packages.all(NAME)
    assert row.why == WHY, "'scanside model list' shows it"
    acts.sync()
    assert store.issues.open() == []
    acts.sync(named(role=role))
    assert acts.states() == {"1.0.0": "installed"}
    assert issues(store) == [("PACKAGE_TEMPLATE", NAME, WHY)]


@pytest.mark.req("R-BONE-05")
def test_issue_of_a_template_ends_when_a_trained_version_runs(store, acts):
    acts.sync(named())
    acts.install("2.0.0")
    acts.activate("2.0.0")
    assert store.issues.open() == []
    acts.sync(named())
    assert acts.states() == {"1.0.0": "installed", "2.0.0": "live"}
    assert store.issues.open() == []


@pytest.mark.req("R-BONE-05")
def test_software_update_that_replaces_a_live_version_by_a_template_says_that_nothing_serves(store, acts):
    acts.sync(choice("1.0.0"))
    acts.sync(named("2.0.0"))
    assert acts.states() == {"1.0.0": "removed", "2.0.0": "installed"}
    assert {code for code, *_ in ((one.code,) for one in store.issues.open())} == {
        "PACKAGE_TEMPLATE",
        "PACKAGE_WITHDRAWN",
    }


def test_template_needs_its_reason_in_both_languages():
    assert parse_manifest(model_yaml().encode(), "toy").template is None
    with pytest.raises(PackageError, match="zh_Hans"):
        parse_manifest(model_yaml(template={"en": WHY}).encode(), "toy")
