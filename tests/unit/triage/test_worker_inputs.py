"""A real worker process with packages of several inputs and of several stages."""

from __future__ import annotations

import nodule_detector
import pytest
import segmenter
from pair_kit import make_pair_package
from worker_kit import LinkFactory, SpoolOfFiles, box_head, ct_files, series, xray_file

from appliance.records import Reason
from appliance.simulate.chest_ct import ChestScan, Nodule, chest_ct
from appliance.triage.protocol import Failed, Result


@pytest.fixture(scope="module")
def spool(tmp_path_factory):
    return SpoolOfFiles(tmp_path_factory.mktemp("spool"))


@pytest.fixture(scope="module")
def link(tmp_path_factory, spool):
    folder = tmp_path_factory.mktemp("packages")
    factory = LinkFactory(tmp_path_factory.mktemp("link"), spool.root)
    # Golden cases are run before each of them serves.
    yield factory(
        make_pair_package(folder / "pair"),
        segmenter.write(folder / "segmenter"),
        nodule_detector.write(folder / "detector"),
    )
    factory.stop()


@pytest.mark.req("R-PIPE-08")
def test_a_pair_of_views_in_one_series_and_in_two_scores_the_same(link, spool, tmp_path):
    frontal, lateral = spool.take(
        [xray_file(tmp_path, 0.3, seed="1", stem="pa"), xray_file(tmp_path, 0.8, seed="2", stem="ll", view="LL")]
    )
    inputs = {"frontal": series([frontal], "xray", "1"), "lateral": series([lateral], "xray", "2")}
    apart = link.finish(1, "toy-pair", inputs, limit_s=30)
    both = series([lateral, frontal], "xray", "3")
    together = link.finish(2, "toy-pair", {"frontal": both, "lateral": both}, limit_s=30)
    assert isinstance(apart, Result)
    assert isinstance(together, Result)
    assert apart.findings == together.findings
    assert len(apart.pictures) == 1


def test_half_a_pair_fails_with_what_is_missing(link, spool, tmp_path):
    (frontal,) = spool.take([xray_file(tmp_path, 0.3)])
    answer = link.finish(3, "toy-pair", {"frontal": series([frontal], "xray", "9")}, limit_s=30)
    assert isinstance(answer, Failed)
    assert answer.reason is Reason.FAILED
    assert "no input 'lateral'" in answer.detail


@pytest.mark.req("R-PIPE-07")
def test_packages_of_several_stages_answer_like_any_other(link, spool, tmp_path):
    nodules = [Nodule(diameter_mm=8), Nodule(diameter_mm=15)]
    phantom = chest_ct(3, nodules=nodules, scan=ChestScan(slices=36, thickness_mm=2.5, matrix=256))
    refs = spool.take(ct_files(tmp_path / "chest", phantom))
    found = link.finish(4, "example-nodule-detector", {"chest-ct": series(refs, "ct", "20")}, limit_s=60)
    assert isinstance(found, Result)
    (nodule,) = found.findings
    assert nodule.score >= 0.5
    assert len(nodule.regions) >= 2
    assert [m.name for m in nodule.measurements] == ["diameter"]
    assert len(found.engine_digest) == 64
    assert found.pictures
    refs = spool.take(ct_files(tmp_path / "box", box_head(range(0, 60, 5), matrix=64)))
    bone = link.finish(5, "example-segmenter", {"ct": series(refs, "ct", "21")}, limit_s=60)
    assert isinstance(bone, Result)
    assert bone.findings[0].measurements[0].unit == "ml"
    assert bone.engine_digest != found.engine_digest
