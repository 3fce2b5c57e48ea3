"""How many drawn heads that are cut off, out of order or off their scale are noticed: the counts of the card."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter

import head_ct_phantoms
import numpy as np
import pytest

from engines.errors import ContentError

EACH = 7


def _heads():
    """Heads without a bleed, as many of each thickness; after one of each comes the second of any."""
    by_thickness = {}
    for case in head_ct_phantoms.without_bleed():
        by_thickness.setdefault(case.thickness_mm, []).append(case)
    return list(itertools.chain(*list(zip(*by_thickness.values(), strict=False))[:EACH]))


def _orders(count):
    places = np.arange(count)
    pairs = places.copy()
    pairs[: count // 2 * 2] = pairs[: count // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()
    return {
        "slices in no order": np.random.default_rng(3).permutation(count),
        "odd slices after even ones": np.r_[0:count:2, 1:count:2],
        "halves exchanged": np.r_[count // 2 : count, 0 : count // 2],
        "slices sorted by the text of their number": np.array(sorted(places, key=lambda place: str(place + 1))),
        "each pair of slices swapped": pairs,
    }


def _changed(head, thickness_mm):
    """Each change that the card tells of, and the head so changed."""
    count = len(head.array)
    for end, lost_mm in (("top", 25), ("base", 30), ("base", 20)):
        lost = math.ceil(lost_mm / thickness_mm)
        keep = slice(0, count - lost) if end == "top" else slice(lost, count)
        kept = {name: getattr(head, name)[keep] for name in ("array", "slice_ids", "positions_mm")}
        yield f"{end}: {lost_mm} mm of slices are missing", dataclasses.replace(head, **kept)
    for name, order in _orders(count).items():
        of = "" if "pair" not in name else ", 5 and 7 mm" if thickness_mm >= 5 else ", 1.25 and 2.5 mm"
        yield name + of, dataclasses.replace(head, array=head.array[order])
    for shift in (-12, 12, -8, 8):
        yield f"densities shifted by {shift:+} HU", dataclasses.replace(head, array=head.array + np.int16(shift))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.req("R-MODEL-07")
def test_card_tells_how_many_changed_heads_are_noticed(head_pipeline, head_package):
    tried, noticed = Counter(), Counter()
    for case in _heads():
        head, _ = head_ct_phantoms.make(case)
        head_pipeline.run_volume(head)  # as it is, it is analysed
        for change, moved in _changed(head, case.thickness_mm):
            tried[change] += 1
            try:
                head_pipeline.run_volume(moved)
            except ContentError:
                noticed[change] += 1
    rows = [f"| {change} | {noticed[change]} of {tried[change]} |" for change in tried]
    card = (head_package.path / "CARD.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row not in card] == [], "\n".join(rows)
