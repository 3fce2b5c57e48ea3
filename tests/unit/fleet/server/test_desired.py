"""Desired documents as people write them, and what differs from what a box says."""

from __future__ import annotations

import pytest

from appliance.errors import ConfigError
from appliance.fleet.server.desired import Difference, differences, read_desired, with_values
from appliance.fleet.wire import Desired, DesiredPackage, Window

pytestmark = pytest.mark.req("R-FLEET-87")

CHEST = DesiredPackage(name="chest", role="live", operating_points={"nodule": "sensitive"})


def test_values_go_over_what_stands_and_the_rest_stays():
    stands = Desired(health_every_s=30, packages=(CHEST, DesiredPackage(name="head")))
    made = with_values(
        stands,
        [
            "bytes_per_s=2048",
            "window.end=06:30",
            "packages.chest.operating_points.nodule=specific",
            "packages.head=",
            "packages.ich-ct.role=silent",
        ],
    )
    assert made == Desired(
        health_every_s=30,
        bytes_per_s=2048,
        window=Window(end="06:30"),
        packages=(
            DesiredPackage(name="chest", role="live", operating_points={"nodule": "specific"}),
            DesiredPackage(name="ich-ct", role="silent"),
        ),
    )
    assert with_values(made, []) == made


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        ("health_every_s=5", "health_every_s: Input should be greater than or equal to 10"),
        ("health_every_s=often", "health_every_s: "),
        ("window.begin=25:00", "window.begin: "),
        ("colour=red", "colour: there is no such key"),
        ("packages.chest.role=shadow", "packages.chest.role: "),
        ("packages.Chest Ä.role=live", "packages.Chest Ä.name: "),
        ("packages.chest.weights=x", "packages.chest.weights: there is no such key"),
        ("packages.chest=live", "packages.chest: name what of it"),
        ("packages=live", "packages: name one"),
        ("health_every_s.x=1", "health_every_s has no parts"),
        ("window=02:00", "window: "),
        ("held", "give KEY=VALUE"),
        (".=1", "give KEY=VALUE"),
    ],
)
def test_what_the_model_refuses_is_refused_with_its_key(pair, told):
    with pytest.raises(ConfigError) as refused:
        with_values(Desired(packages=(CHEST,)), [pair])
    assert told in str(refused.value)


def test_a_file_is_a_whole_document_and_each_fault_has_its_line():
    assert read_desired("", "x") == Desired()
    text = "window: {begin: '02:00'}\npackages:\n  - {name: chest, role: live, operating_points: {nodule: sensitive}}\n"
    assert read_desired(text, "x") == Desired(window=Window(begin="02:00"), packages=(CHEST,))
    with pytest.raises(ConfigError) as refused:
        read_desired(f"{text}  - {{name: head, role: loud}}\nbytes_per_s: 3\n", "a.yaml")
    assert [line.partition(": In")[0] for line in str(refused.value).splitlines()] == [
        "a.yaml: line 5: bytes_per_s",
        "a.yaml: line 4: packages.1.role",
    ]
    with pytest.raises(ConfigError, match=r"a\.yaml: "):
        read_desired("a: [", "a.yaml")


def test_what_differs_is_told_value_by_value():
    wanted = Desired(held=True, packages=(CHEST,))
    has = Desired(packages=(DesiredPackage(name="chest", role="silent"), DesiredPackage(name="head", role="live")))
    assert differences(wanted, has) == [
        Difference("held", "true", "false"),
        Difference("packages.chest.operating_points.nodule", "sensitive", None),
        Difference("packages.chest.role", "live", "silent"),
        Difference("packages.head", None, "listed"),
        Difference("packages.head.role", None, "live"),
    ]
    assert differences(wanted, wanted) == []
    assert {one.reported for one in differences(wanted, None)} == {None}
