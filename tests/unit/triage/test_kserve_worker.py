"""A package on a KServe server, in a real worker process: who computed, what is said, and what a bad server changes.

The server is the stub, in this process, so that it can be stopped, started and made to lie.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import toy_packages
from kserve_stub import Stub
from worker_kit import LinkFactory, SpoolOfFiles, load_message, series, xray_file

from appliance.triage.engine_messages import Checked, KServeWish
from appliance.triage.protocol import Loaded, Result
from appliance.triage.serving import TRIES, OpenPackage, Plan
from engines.package import load_package
from engines.pipeline import Pipeline

NAME = "toy-bright-blob"


class Bench:
    """A stub that serves a toy package's graph, and a real worker that is told to ask it."""

    def __init__(self, folder, port):
        spool = SpoolOfFiles(folder / "spool")
        self.folder = folder
        self.package = toy_packages.add_golden(
            toy_packages.make_toy_xray_package(folder / "toy", precisions=["fp32", "fp16"])
        )
        self.stub = Stub(load_package(self.package, trusted=True).read_onnx(), NAME, port=port)
        self.sha256 = self.stub.sha256
        self.picture = spool.take([xray_file(folder)])
        self.factory = LinkFactory(folder, spool.root)
        self.link = self.factory(self.package)
        self.untold, self.analyses = [], 0
        self.here = self.analyse()

    def load(self, **changes):
        """Have the package loaded anew, on a server that is as it should be but for what the test has changed."""
        self.link.engine_news()
        self.untold = []
        # The time tells one wish from the other: the same one again would change nothing in the worker.
        wish = KServeWish(address=self.stub.address, timeout_s=20 + self.analyses + len(self.stub.calls) / 1000)
        message = load_message(self.package)
        self.link.serve([message.model_copy(update={"kserve": wish, **changes})])
        return self.until(Loaded)

    def until(self, kind, timeout_s=60.0):
        deadline = time.monotonic() + timeout_s
        while True:
            self.untold += self.link.engine_news()
            while self.untold:
                news = self.untold.pop(0)
                if isinstance(news, kind):
                    return news
            assert time.monotonic() < deadline, f"no {kind.__name__}"
            time.sleep(0.01)

    def analyse(self, limit_s=60.0):
        self.analyses += 1
        inputs = {"chest-xray": series(self.picture, "xray", f"x{self.analyses}")}
        answer = self.link.finish(self.analyses, NAME, inputs, limit_s=limit_s)
        assert isinstance(answer, Result), answer
        return answer

    def close(self):
        self.factory.stop()
        self.stub.stop()


@pytest.fixture(scope="module")
def made(tmp_path_factory, free_port):
    bench = Bench(tmp_path_factory.mktemp("bench"), free_port())
    yield bench
    bench.close()


@pytest.fixture
def bench(made):
    yield made
    made.stub.sha256 = made.sha256
    made.stub.faults.clear()
    made.stub.go_on.clear()


def lying(response):
    """Another score under the right digest: only a golden case tells."""
    import numpy as np

    response.raw_output_contents[0] = np.full(response.outputs[0].shape, 0.4, np.float32).tobytes()
    return response


@pytest.mark.req("R-KSERVE-11")
def test_the_server_computes_the_golden_cases_and_the_studies(bench):
    before = bench.stub.count("ModelInfer")
    loaded = bench.load()
    assert (loaded.backend, loaded.precision, loaded.fallback, loaded.lacks_engine) == ("kserve", "fp32", "", False)
    assert bench.stub.count("ModelInfer") == before + 3, "warm-up and two golden cases"
    assert any(one.step == "engine" for one in bench.link.progress)
    result = bench.analyse()
    assert bench.stub.count("ModelInfer") == before + 4
    assert (result.backend, result.engine_digest) == ("kserve", loaded.engine_digest)
    assert bench.here.backend == "onnxruntime"
    assert result.findings[0].score == bench.here.findings[0].score


@pytest.mark.req("R-KSERVE-11")
def test_when_the_server_dies_the_study_is_analysed_here_and_both_turns_are_told(bench):
    bench.load()
    bench.stub.stop()
    result = bench.analyse()
    assert result.backend == "kserve+onnxruntime"
    assert result.findings[0].score == bench.here.findings[0].score
    told = bench.until(Loaded)
    assert (told.backend, told.engine_digest) == ("kserve+onnxruntime", result.engine_digest)
    assert "UNAVAILABLE" in told.fallback
    assert not told.lacks_engine
    bench.stub.start()
    back = bench.analyse()
    assert back.backend == "kserve"
    told = bench.until(Loaded)
    assert (told.backend, told.fallback, told.engine_digest) == ("kserve", "", back.engine_digest)
    bench.analyse()
    assert [one for one in bench.link.engine_news() if isinstance(one, Loaded)] == [], "said once"


@pytest.mark.req("R-KSERVE-11")
def test_a_server_that_hangs_takes_no_more_than_half_of_what_the_study_has_left(bench):
    bench.load()

    def hang(response):
        bench.stub.go_on.wait(60)
        return response

    bench.stub.faults.append(hang)
    begun = time.monotonic()
    result = bench.analyse(limit_s=9.0)  # later than that there would be no result: the worker ends itself
    took_s = time.monotonic() - begun
    bench.stub.go_on.set()
    assert result.backend == "kserve+onnxruntime"
    assert took_s > 3.0
    assert "DEADLINE_EXCEEDED" in bench.until(Loaded).fallback


@pytest.mark.req("R-KSERVE-11")
def test_a_server_that_is_not_there_at_load_is_asked_again_by_the_studies(bench):
    bench.stub.stop()
    loaded = bench.load()
    assert loaded.backend == "kserve+onnxruntime"
    assert "UNAVAILABLE" in loaded.fallback
    assert bench.analyse().backend == "kserve+onnxruntime"
    bench.stub.start()


@pytest.mark.req("R-KSERVE-11")
def test_a_server_with_another_graph_is_found_at_load_and_the_box_computes(bench):
    bench.stub.sha256 = "0" * 64
    loaded = bench.load()
    assert loaded.backend == "kserve+onnxruntime"
    assert "ran a graph of SHA-256 0000" in loaded.fallback
    result = bench.analyse()
    assert (result.backend, result.findings[0].score) == ("kserve+onnxruntime", bench.here.findings[0].score)


@pytest.mark.req("R-KSERVE-11")
def test_a_server_that_gives_other_answers_to_the_golden_cases_is_not_asked_for_studies(bench):
    bench.stub.faults += [lying] * 10
    loaded = bench.load()
    assert loaded.backend == "onnxruntime"
    assert "gives other answers than the package must: golden case blob.npz" in loaded.fallback
    assert "restart the worker" in loaded.fallback
    asked = bench.stub.count("ModelInfer")
    assert bench.analyse().backend == "onnxruntime"
    assert bench.stub.count("ModelInfer") == asked


@pytest.mark.req("R-KSERVE-11")
def test_a_server_that_fails_three_spot_checks_is_given_up_and_its_package_goes_on(bench):
    bench.load()
    bench.stub.faults += [lying] * 10
    bench.link.spot_check(NAME)
    checked = bench.until(Checked)
    assert (checked.ok, checked.fell_back) == (False, True)
    assert len(bench.stub.faults) == 10 - TRIES
    told = bench.until(Loaded)
    assert told.backend == "onnxruntime"
    assert "gives other answers" in told.fallback
    assert bench.analyse().backend == "onnxruntime"


@pytest.mark.req("R-KSERVE-11")
def test_a_spot_check_finds_the_server_well_again(bench):
    bench.load()
    bench.stub.stop()
    bench.analyse()
    assert bench.until(Loaded).fallback
    bench.stub.start()
    bench.link.spot_check(NAME)
    assert bench.until(Checked).ok
    assert bench.until(Loaded).fallback == ""


@pytest.mark.req("R-KSERVE-11")
def test_a_new_engine_of_this_box_does_not_take_a_package_from_its_server(bench):
    wish = KServeWish(address=bench.stub.address, timeout_s=20)
    opened = OpenPackage(load_package(bench.package, trusted=True), Plan(backend="onnxruntime", threads=1, kserve=wish))
    assert not opened.look_again()
    assert (opened.pipeline.backend, opened.fallback) == ("kserve", "")
    opened.close()


def test_stages_of_which_a_server_computed_some_are_named_once_each():
    sessions = [SimpleNamespace(backend=name) for name in ("kserve", "kserve+onnxruntime", "kserve")]
    assert Pipeline.backend.fget(SimpleNamespace(_sessions=sessions)) == "kserve+onnxruntime"


@pytest.mark.req("R-KSERVE-11")
def test_a_package_whose_server_ended_the_worker_too_often_runs_without_it(bench):
    loaded = bench.load(no_engine="its engine ended the worker 2 times in a row")
    assert (loaded.backend, loaded.fallback) == ("onnxruntime", "its engine ended the worker 2 times in a row")
