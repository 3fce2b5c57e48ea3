"""Thousands of studies of patients with equal names, their images interleaved: nobody gets another's result.

Mass without a network: the receiver's sink and the stages of the box on a real store, with a worker in its place that
answers by what stands in the files. A few studies more go over the network to the whole box.
"""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from box_kit import box_with_pacs
from toy_packages import make_toy_xray_package

from appliance.clock import FakeClock
from appliance.config import Config
from appliance.intake.record import StoreSink
from appliance.intake.stage import CompletenessStage
from appliance.records import Header, Identity, Outcome, Received
from appliance.simulate.bleed import Bleed
from appliance.simulate.dicomize import ct_series
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.scanner import interleave
from appliance.simulate.study import Patient, Study
from appliance.store import Store
from appliance.triage.packages import RunningPackages
from appliance.triage.protocol import Result, Scored
from appliance.triage.stage import Bench, RoutingStage, RunStage

DX = "1.2.840.10008.5.1.4.1.1.1.1"
NAMES = ("王^伟", "Zhang^Wei", "SMITH^JOHN")
SOURCES = ("DX-1", "DX-2", "DX-3", "DX-4")


@dataclass(frozen=True)
class Person:
    """One study of one person, as the world knows it."""

    number: int
    identity: Identity
    series_uid: str
    source: str
    flagged: bool

    def image(self, k):
        return f"1.2.826.{self.number}.{k}"


def people(count):
    """Equal names and equal ids throughout; every fiftieth study has the Study UID of the one before it by mistake."""
    rng = random.Random(33)
    made = []
    for number in range(count):
        is_twin = number % 50 == 49
        study_uid = made[-1].identity.study_instance_uid if is_twin else f"1.2.840.{number}"
        identity = Identity(
            study_instance_uid=study_uid,
            patient_name=NAMES[number % 3],
            patient_id=f"TWIN-{number}" if is_twin else f"ID-{number % 7}",
            patient_birth_date="19700101",
            accession_number=f"A{number}",
        )
        series_uid = made[-1].series_uid if number % 100 == 99 else f"1.2.840.{number}.1"
        made.append(Person(number, identity, series_uid, SOURCES[number % 4], rng.random() < 0.3))
    return made


class Reader:
    """In the worker's place: says what stands in the files, and refuses to see two persons in one analysis."""

    is_ready = True
    is_loading = False
    ready_since_mono = 0.0

    def __init__(self):
        self.mixed = 0

    def events(self):
        return []

    def want(self, wanted):
        """There is no process to want."""

    def serve(self, loads):
        """Nothing is loaded."""

    def drop(self, series_key):
        """Nothing is kept."""

    def finish(self, analysis_id, package, inputs, *, limit_s, study="", operating_points=None):
        (given,) = inputs.values()
        told = [json.loads(Path(one.path).read_bytes().rpartition(b"\n")[2]) for one in given.instances]
        self.mixed += len({one["person"] for one in told}) > 1
        score = Scored(
            id="bright-blob", score=0.9 if told[0]["flagged"] else 0.1, key_instances=tuple(one["uid"] for one in told)
        )
        return Result(
            analysis_id=analysis_id,
            findings=(score,),
            package_digest="p",
            engine_digest="e",
            backend="fake",
            precision="fp32",
        )


@pytest.fixture
def box(tmp_path):
    """Sink and stages of a box on a real store; (store, sink, reader, work)."""
    folder = make_toy_xray_package(tmp_path / "toy")
    config = Config.model_validate(
        {
            "state_path": tmp_path / "state",
            "sources": [{"name": name, "ae_title": name} for name in SOURCES],
            "packages": [{"name": "toy-bright-blob", "role": "live"}],
        }
    )
    clock = FakeClock()
    store = Store.open(config.state_path, clock, reserve_bytes=0)
    reader = Reader()
    bench = Bench(
        store=store, config=config, clock=clock, link=reader, packages=RunningPackages(store, config, [folder])
    )
    completeness = CompletenessStage(store, config.completeness, clock, wake_triage=lambda: None)
    routing = RoutingStage(bench, wake_runner=lambda: None)
    runner = RunStage(bench, wake_delivery=lambda: None)

    def work():
        completeness.step()
        routing.step()
        while runner.step():
            pass

    yield store, StoreSink(store, config, clock, wake=lambda: None), reader, work
    store.close()


def receive(store, person, k, associations):
    """What the receiver hands to the sink for one image."""
    uid = person.image(k)
    part = store.spool.open_part()
    part.write(b"\n" + json.dumps({"person": person.number, "flagged": person.flagged, "uid": uid}).encode())
    header = Header(
        identity=person.identity,
        sop_class_uid=DX,
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid=person.series_uid,
        modality="DX",
        body_part_examined="CHEST",
        view_position="PA",
        instance_number=k,
        has_pixels=True,
        meaning_digest="m",
    )
    return Received(
        header=header,
        path=part.commit(),
        size=100,
        data_sha256=part.data_sha256,
        association_id=associations[person.source],
        source=person.source,
        stat=False,
        received_mono=1000.0,
    )


@pytest.mark.fault("T33")
@pytest.mark.req("R-TRIAGE-15")
@pytest.mark.timeout(1200)  # full size: 20,000 images on disk for good, 14,000 analyses
def test_nobody_gets_the_result_of_another_of_the_same_name(box, scale):
    store, sink, reader, work = box
    everybody = people(round(10_000 * scale))
    rng = random.Random(1)
    images = [(person, k) for person in everybody for k in (1, 2)]
    images.sort(key=lambda one: one[0].number + rng.uniform(0, 40))  # some forty studies are open at any time
    associations = {
        name: store.studies.open_association(source=name, calling_ae=name, called_ae="S", address="::1")
        for name in SOURCES
    }
    for n, (person, k) in enumerate(images):
        sink.store(receive(store, person, k, associations))
        if n % 100 == 99:
            work()
    work()

    by_key = {(p.identity.study_instance_uid, p.identity.patient_key): p for p in everybody}
    assert len(by_key) == len(everybody)
    views = store.views.studies(limit=len(everybody) * 2)
    assert len(views) == len(everybody)
    assert reader.mixed == 0, "an analysis saw images of two persons"
    wrong = [view.id for view in views if not is_right(view, by_key)]
    assert wrong == []
    shared = [issue for issue in store.issues.open() if issue.code == "STUDY_UID_SHARED"]
    assert len(shared) == sum(p.identity.patient_id.startswith("TWIN") for p in everybody)


def is_right(view, by_key):
    """Whether identity, outcome, alert and key images of a study are those of one and the same person."""
    person = by_key.get((view.identity.study_instance_uid, view.identity.patient_key))
    if person is None or view.identity != person.identity or view.images != 2:
        return False
    expected = Outcome.FINDING if person.flagged else Outcome.NOTHING_FLAGGED
    last = view.analyses[-1]
    keys = {one.sop_instance_uid for finding in last.findings for one in finding.key_slices}
    return (
        view.outcome is expected
        and (view.alert is not None) == person.flagged
        and (view.alert is None or view.alert.analysis_id == last.id)
        and keys == {person.image(1), person.image(2)}
    )


@pytest.mark.fault("T33")
def test_patients_of_one_name_sent_in_turn_by_two_scanners_keep_their_own_results(tmp_path):
    scan = HeadScan(matrix=256, slices=22, thickness_mm=7.0, noise_hu=4)
    bleed, plain = head_ct(11, bleeds=[Bleed(kind="IPH", volume_ml=22)], scan=scan), head_ct(12, scan=scan)
    made = {}
    for n, head in enumerate((bleed, plain, plain, bleed)):
        patient = Patient(name="Wang^Wei=王^伟", patient_id=f"W{n}", birth_date="19700101")
        made[f"W{n}"] = (ct_series(head, Study(seed=f"interleaved/{n}", patient=patient)), head is bleed)
    series = [images for images, _ in made.values()]
    with box_with_pacs(tmp_path) as (box, _):
        with ThreadPoolExecutor(2) as pool:
            pairs = (("CT-1", series[:2]), ("CT-2", series[2:]))
            for one in [pool.submit(box.send, interleave(*pair), ae_title) for ae_title, pair in pairs]:
                one.result(60)
        for patient_id, (images, has_bleed) in made.items():
            view = box.ended(images[0].StudyInstanceUID)
            assert view.identity.patient_id == patient_id
            assert view.outcome is (Outcome.FINDING if has_bleed else Outcome.NOTHING_FLAGGED)
            own = {ds.SOPInstanceUID for ds in images}
            assert {one.sop_instance_uid for f in view.live[0].findings for one in f.key_slices} <= own
