"""Factories for the store: a real database on a fake clock, headers and received images of one head CT."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.clock import FakeClock
from appliance.records import Header, Identity, Received
from appliance.store import Store

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until a test moves it."""
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    """An empty store."""
    opened = Store.open(tmp_path, clock, reserve_bytes=0)
    yield opened
    opened.close()


@pytest.fixture
def make_header() -> Callable[..., Header]:
    """A head CT slice; keywords replace fields, those of Identity too."""

    def make(n: int = 1, **changes: Any) -> Header:
        names = {field.name for field in dataclasses.fields(Identity)}
        identity = Identity(
            **{
                "study_instance_uid": "1.2.3",
                "patient_id": "P1",
                "patient_name": "Doe^Jane",
                **{key: value for key, value in changes.items() if key in names},
            }
        )
        fields = {
            "sop_class_uid": CT,
            "sop_instance_uid": f"1.2.3.4.{n}",
            "transfer_syntax_uid": EXPLICIT_LE,
            "series_instance_uid": "1.2.3.4",
            "modality": "CT",
            "body_part_examined": "HEAD",
            "instance_number": n,
            "image_position_patient": (0.0, 0.0, 5.0 * n),
            "image_orientation_patient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            "has_pixels": True,
            "meaning_digest": "m",
        }
        return Header(identity=identity, **{**fields, **{k: v for k, v in changes.items() if k not in names}})

    return make


@pytest.fixture
def receive(store: Store, clock: FakeClock) -> Callable[..., Received]:
    """What the SCP hands to the sink, with a file in the spool."""
    counter = itertools.count(1)

    def make(header: Header, *, association: int = 1, data: bytes | None = None, **changes: Any) -> Received:
        part = store.spool.open_part()
        part.write(memoryview(data if data is not None else b"data %d" % next(counter)))
        path = part.commit()
        return Received(
            **{
                "header": header,
                "path": path,
                "size": 10,
                "data_sha256": part.data_sha256,
                "association_id": association,
                "source": "CT-1",
                "stat": False,
                "received_mono": clock.monotonic(),
                **changes,
            }
        )

    return make
