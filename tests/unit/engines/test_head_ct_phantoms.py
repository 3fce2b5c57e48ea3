"""The figures of ``head-ct-hyperdensity`` on drawn phantoms: a tenth of them, all with ``--full``."""

from __future__ import annotations

from pathlib import Path

import head_ct_phantoms
import measure_head_ct
import pytest

import engines

ROOT = Path(__file__).resolve().parents[3]

#: At a thirtieth of the phantoms some seconds each, at full size eight minutes in all.
pytestmark = pytest.mark.timeout(1800)


def _some(cases, scale):
    return list(cases)[:: 1 if scale == 1 else 31]  # every thickness, and a volume each


@pytest.mark.req("R-MODEL-04")
def test_volume_of_a_bleed_is_measured_within_its_tolerance(head_pipeline, scale):
    wrong = []
    for case in _some(head_ct_phantoms.with_bleed(), scale):
        score, measured, truth = measure_head_ct.measured_ml(head_pipeline, case)
        off = max(abs(measured / truth - 1), abs(score / truth - 1))
        if off > head_ct_phantoms.tolerance(case):
            wrong.append(f"{case}: measured {measured:.2f} ml, scored {score:.2f} ml")
    assert not wrong, "\n".join(wrong)


@pytest.mark.req("R-MODEL-05")
def test_no_phantom_without_a_bleed_is_flagged(head_pipeline, head_package, scale):
    least = min(point.threshold for point in head_package.manifest.findings[0].operating_points)
    scores = {
        case: measure_head_ct.measured_ml(head_pipeline, case)[0]
        for case in _some(head_ct_phantoms.without_bleed(), scale)
    }
    assert not {case: score for case, score in scores.items() if score >= least}


@pytest.mark.req("R-MODEL-04")
def test_tolerances_are_10_percent_where_slices_are_thin_or_bleeds_large_and_35_elsewhere():
    found = {
        (case.thickness_mm, case.volume_ml): head_ct_phantoms.tolerance(case) for case in head_ct_phantoms.with_bleed()
    }
    assert {thickness for thickness, _ in found} == {1.25, 2.5, 5.0, 7.0}
    for (thickness, volume), allowed in found.items():
        assert allowed == (0.1 if (thickness <= 2.5 and volume >= 5) or volume >= 20 else 0.35)
    assert len(list(head_ct_phantoms.without_bleed())) == 50


@pytest.mark.req("R-MODEL-02")
def test_the_rule_reads_no_ranges_of_the_phantoms(head_package):
    (folder,) = engines.__path__
    names = (head_ct_phantoms.RANGES.name, "phantoms.yaml", "head_ct_phantoms")
    for file in (ROOT / "tools/models/head_ct.py", *head_package.path.parents[1].rglob("*.py")):
        assert not any(name in file.read_text() for name in names), file
    assert str(head_package.path).startswith(folder)
