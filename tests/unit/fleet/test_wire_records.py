"""The models of what leaves the box: closed words and numbers, and no field in which a person could stand."""

from __future__ import annotations

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from appliance.fleet import wire_records
from appliance.fleet.wire_records import Health, Part, Record, Told

pytestmark = pytest.mark.req("R-FLEET-39")
MODELS = [
    one for one in vars(wire_records).values() if isinstance(one, type) and issubclass(one, Part) and one is not Part
]
TOLD = TypeAdapter(Told)
#: A record of each kind, whose every text a test replaces.
ONES = {
    "results": {"package": "p", "version": "1", "role": "live", "hour": "2026-01-01T08Z", "n": 1,
                "flagged": {"bleed": 1}, "not_analysed": {"quality": 1}, "psi": {"bleed": 0.1}},
    "study": {"package": "p", "version": "1", "role": "live", "outcome": "finding", "reason": "quality",
              "flagged": ["x"]},
    "issue": {"code": "DISK_FAULT", "severity": "fault", "state": "raised", "ref": "0" * 8},
    "daemon": {"state": "started", "version": "1", "mode": "clinical"},
    "package": {"package": "p", "version": "1", "digest": "0" * 64, "state": "live"},
    "engine": {"package": "p", "state": "ready", "backend": "tensorrt", "precision": "fp16"},
    "job": {"job": "0" * 26, "ctr": 1, "state": "QUEUED", "version": 1, "code": "DISK", "figures": {"p95_ms": 1}},
    "gap": {"skipped": "health", "first_seq": 1, "last_seq": 2, "n": 2},
    "access": {"hour": "2026-01-01T08Z"},
    "anchor": {"seq": 1, "hash": "0" * 64},
    "equipment": {"source": 1, "modality": "CT", "make": "GE", "model": "Revolution", "kernels": ["BONE"]},
    "health": {"minutes": 5, "machine": {}},
}  # fmt: skip
#: Equipment's texts come out of images: what stands there is the gate's and the store's business.
FROM_IMAGES = {("equipment", "make"), ("equipment", "model"), ("equipment", "kernels")}
NAMES = [
    "Doe^Jane",
    "WANG XIAOMING",
    "王小明",
    "1.2.840.113619.2.55",
    "St. Mary's Hospital",
    "PID 00123",
    "a b",
    "/media/x",
    "a\nb",
]


def test_every_model_refuses_a_field_that_it_does_not_know():
    assert len(MODELS) > 15
    assert all(model.model_config["extra"] == "forbid" for model in MODELS)


def texts(value, path=()):
    """Every text of a document, with where it stands."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for key, one in value.items():
            yield (*path, key, None)
            yield from texts(one, (*path, key))
    elif isinstance(value, list):
        for n, one in enumerate(value):
            yield from texts(one, (*path, n))


def replaced(document, path, text):
    """The same with another text there; where the path ends in None, with another key."""
    if path[-1] is None and len(path) == 2:
        return {text if key == path[0] else key: one for key, one in document.items()}
    if len(path) == 1:
        copy = document.copy()
        copy[path[0]] = text
        return copy
    copy = document.copy()
    copy[path[0]] = replaced(document[path[0]], path[1:], text)
    return copy


@pytest.mark.parametrize("k", sorted(ONES))
def test_no_name_number_or_path_fits_any_place_of_any_record(k):
    document = {"k": k, **ONES[k]}
    TOLD.validate_python(document)
    places = [path for path in texts(document) if (k, path[0]) not in FROM_IMAGES]
    assert places
    for path in places:
        for name in NAMES:
            with pytest.raises(ValidationError):
                TOLD.validate_python(replaced(document, path, name))


def test_every_kind_of_record_is_tried():
    kinds = {model.model_fields["k"].default for model in typing.get_args(typing.get_args(Told)[0])}
    assert kinds == set(ONES)


@pytest.mark.parametrize("version", ["1", "0.1.0", "0.1.0.dev3", "2.0.0-rc.1", "1.2.3+20260101", "10.0.1b2"])
def test_what_is_a_version_is_one(version):
    assert TOLD.validate_python({"k": "package", **ONES["package"], "version": version}).version == version


@given(st.text(max_size=80))
def test_what_equipment_can_say_is_short_and_of_few_signs(text):
    document = {"k": "equipment", **ONES["equipment"], "model": text}
    try:
        made = TOLD.validate_python(document)
    except ValidationError:
        return
    assert len(made.model) <= 32
    assert made.model.isascii()
    assert not set(made.model) & set("^=\\<>\"'\n\r\t")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 101])
def test_numbers_that_mean_nothing_are_refused(value):
    with pytest.raises(ValidationError):
        TOLD.validate_python({"k": "health", "minutes": 5, "machine": {"cpu": value}})


def test_a_record_has_a_number_and_a_time_and_nothing_else():
    assert set(Record.model_fields) == {"seq", "ts", "boot", "mono", "clk", "d"}
    assert not {"study", "subject", "actor", "source_name"} & set(Health.model_fields)
