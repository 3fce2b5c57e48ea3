"""What the report says, and that the validators find nothing wrong with how it says it."""

from __future__ import annotations

import dataclasses
import io

import highdicom as hd
import pytest
import report_kit
from pydicom import config, dcmread

from appliance.records import Detail, Measurement, Outcome, Reason, Region
from appliance.report.request import NotBuildable, ReportPredecessor
from appliance.report.sr import build_sr

DX = "1.2.840.10008.5.1.4.1.1.1.1"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
#: Words that no report of ours may use of a patient.
FORBIDDEN = ("normal", "negative", "absent", "272519000", "17621005")


@pytest.fixture
def build(classes, table, tmp_path):
    """``build(request)``: the report written and read again, with its path."""

    def make(request, sop_class=None):
        with config.disable_value_validation():
            report = build_sr(request, classes(request, sop_class) if sop_class else classes(request), table)
            path = tmp_path / "report.dcm"
            report.save_as(path, enforce_file_format=True)
        return dcmread(path), path

    return make


def walk(item):
    for child in item.get("ContentSequence", []):
        yield child
        yield from walk(child)


def concept(item):
    return item.ConceptNameCodeSequence[0].CodeMeaning


def values(report, name):
    found = []
    for item in walk(report):
        if "ConceptNameCodeSequence" in item and concept(item) == name:
            if item.ValueType == "CODE":
                found.append(item.ConceptCodeSequence[0].CodeValue)
            elif item.ValueType == "NUM":
                measured = item.MeasuredValueSequence[0]
                found.append((float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue))
            else:
                found.append(item.get("TextValue"))
    return found


def groups(report):
    return [item for item in walk(report) if item.ValueType == "CONTAINER" and concept(item) == "Measurement Group"]


@pytest.mark.req("R-RESULT-02")
def test_a_finding_has_its_place_its_volume_its_urgency_and_its_algorithm(build, make_request):
    report, _ = build(make_request())
    assert values(report, "CAD Processing and Findings Summary") == ["111242"]
    assert values(report, "Finding") == ["1386000", "1386000"]
    assert values(report, "Actionable finding classification") == ["RID49480", "RID49480"]
    assert values(report, "Volume") == [(12.5123, "ml"), (0.4, "ml")]
    assert values(report, "Algorithm Name") == ["head-ct-hyperdensity"] * 2
    assert any("score 12.5 ml, operating point default" in text for text in values(report, "Algorithm Parameters"))
    regions = [item for item in walk(report) if item.ValueType == "SCOORD"]
    # Pixel 10 to 30 and 20 to 45 in 0-based centres: the outer edges, counted from the corner of the first pixel.
    assert list(regions[0].GraphicData) == [10, 20, 31, 20, 31, 46, 10, 46, 10, 20]
    assert regions[0].ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.2"
    assert len({item.get("UID") for item in walk(report) if item.ValueType == "UIDREF"} - {None}) == 2


@pytest.mark.req("R-RESULT-02")
def test_nothing_flagged_is_no_finding_and_excludes_nothing(build, make_request, make_result):
    report, _ = build(make_request(make_result(Outcome.NOTHING_FLAGGED)))
    assert values(report, "CAD Processing and Findings Summary") == ["111241"]
    assert values(report, "Finding") == []
    (outcome,) = values(report, "Outcome of the analysis")
    assert outcome.startswith("Nothing flagged.")
    assert "not excluded" in outcome
    assert len(groups(report)) == 1


@pytest.mark.req("R-RESULT-02")
@pytest.mark.parametrize("reason", list(Reason))
def test_not_analysed_says_why(build, make_request, make_result, reason):
    report, _ = build(make_request(make_result(Outcome.NOT_ANALYSED, reason=reason)))
    assert values(report, "CAD Processing and Findings Summary") == ["111245"]
    assert values(report, "Outcome of the analysis") == ["Not analysed."]
    (text,) = values(report, "Reason why not analysed")
    assert text.endswith("slices 12 to 19 are missing")
    assert len(text) > len("slices 12 to 19 are missing") + 10


@pytest.mark.req("R-RESULT-02")
@pytest.mark.parametrize(("outcome", "code"), [(Outcome.FINDING, "111244"), (Outcome.NOTHING_FLAGGED, "111243")])
def test_a_caveat_is_coded_and_said(build, make_request, make_result, outcome, code):
    report, _ = build(make_request(make_result(outcome, caveats=(Detail("The quality package gave no answer."),))))
    assert values(report, "CAD Processing and Findings Summary") == [code]
    assert values(report, "Caveat") == ["The quality package gave no answer."]


def test_what_was_and_was_not_looked_for_is_always_said(build, make_request, make_result):
    for outcome in (Outcome.FINDING, Outcome.NOTHING_FLAGGED, Outcome.NOT_ANALYSED):
        report, _ = build(make_request(make_result(outcome)))
        assert values(report, "Looked for") == ["Hyperdense areas inside the skull, as of fresh bleeding."]
        assert len(values(report, "Not looked for")) == 1


def test_what_is_not_for_care_says_so_in_the_report_and_in_the_list_of_series(build, make_request):
    report, _ = build(make_request(evaluation=True, late=True))
    assert values(report, "Permitted use of this result") == [
        "Evaluation, not for patient care.",
        "Demonstration. Not for clinical use.",
    ]
    assert report.SeriesDescription == "Evaluation, not for patient care: head-ct-hyperdensity"
    assert values(report, "Caveat") == ["This result came late."]


@pytest.mark.req("R-SCREEN-07")
def test_no_report_calls_a_patient_normal_or_a_finding_absent(build, make_request, make_result, make_finding):
    for outcome in (Outcome.FINDING, Outcome.NOTHING_FLAGGED, Outcome.NOT_ANALYSED):
        report, _ = build(make_request(make_result(outcome), evaluation=True))
        said = str(report).lower()
        assert not [word for word in FORBIDDEN if word in said]


def test_it_is_complete_unverified_and_preliminary(build, make_request):
    report, _ = build(make_request())
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )


def test_every_analysed_image_is_evidence_and_the_algorithm_is_equipment(build, make_request):
    report, _ = build(make_request(images=300))
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 300
    (equipment,) = [item for item in report.ContributingEquipmentSequence if item.Manufacturer == "Scanside"]
    assert equipment.ManufacturerModelName == "head-ct-hyperdensity"
    assert equipment.DeviceUID in {item.get("UID") for item in walk(report)}


def test_another_package_digest_is_another_device(build, make_request, make_result):
    one, _ = build(make_request())
    two, _ = build(make_request(make_result(package_digest="ff" * 32)))
    devices = [
        item.DeviceUID for report in (one, two) for item in report.ContributingEquipmentSequence if "DeviceUID" in item
    ]
    assert len(set(devices)) == 2


@pytest.mark.req("R-RESULT-03")
def test_built_twice_it_is_the_same_object_and_a_revision_names_what_it_replaces(build, make_request):
    first, path = build(make_request())
    data = path.read_bytes()
    build(make_request())
    assert path.read_bytes() == data
    before = ReportPredecessor(
        sop_instance_uid=first.SOPInstanceUID, study_instance_uid=make_request().identity.study_instance_uid
    )
    second, _ = build(make_request(sop_instance_uid="2.25.99", predecessors=(before,)))
    assert second.SeriesInstanceUID == first.SeriesInstanceUID
    assert second.InstanceNumber == 2
    (named,) = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == first.SOPInstanceUID


def test_without_a_place_every_finding_is_in_a_group_without_one(build, make_request, make_result, make_finding):
    without = make_finding(id="other", score=0.93, regions=(), measurements=(), category=3)
    report, _ = build(make_request(make_result(Outcome.FINDING, make_finding(), without)))
    assert len(groups(report)) == 2
    assert not [item for item in walk(report) if item.ValueType == "SCOORD"]
    assert {item.ContentTemplateSequence[0].TemplateIdentifier for item in groups(report)} == {"1501"}
    assert values(report, "Certainty of Finding") == [(93.0, "%")]
    images = [item for item in walk(report) if item.ValueType == "IMAGE"]
    assert [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in images][:2] == ["1.2.3.4.2", "1.2.3.4.1"]


def test_a_triage_package_tells_no_place_and_no_key_slice(build, make_request, package):
    request = make_request(package=dataclasses.replace(package, intended_use="triage"))
    report, _ = build(request)
    assert not [item for item in walk(report) if item.ValueType in {"SCOORD", "IMAGE"}]
    assert values(report, "CAD Processing and Findings Summary") == ["111242"]


def test_what_is_not_flagged_beside_a_finding_is_named_and_not_excluded(build, make_request, make_result, make_finding):
    quiet = make_finding(id="other", score=0.1, flagged=False, regions=())
    report, _ = build(make_request(make_result(Outcome.FINDING, make_finding(), quiet)))
    (said,) = values(report, "Outcome of the analysis")
    suspected, _, rest = said.partition(". ")
    assert suspected == "Suspected hyperdense area inside the skull"
    assert rest == "Not flagged: Suspected opacity. What is not flagged is not excluded."
    assert len(groups(report)) == 2


def test_a_point_and_a_frame_of_a_multi_frame_image_are_placed(build, make_request, make_result, make_finding):
    region = Region(sop_instance_uid="1.2.3.4.1", kind="point", points=((4.0, 5.0),), frame_number=7)
    report, path = build(make_request(make_result(Outcome.FINDING, make_finding(regions=(region,)))), ENHANCED_CT)
    (place,) = [item for item in walk(report) if item.ValueType == "SCOORD"]
    assert (place.GraphicType, list(place.GraphicData)) == ("POINT", [4.5, 5.5])
    assert place.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 7
    assert report_kit.dciodvfy_errors(path) == []


@pytest.mark.parametrize("outcome", [Outcome.FINDING, Outcome.NOTHING_FLAGGED])
def test_a_finding_that_the_installed_package_does_not_know_is_said_and_not_guessed(
    build, make_request, make_result, make_finding, outcome
):
    with pytest.raises(NotBuildable, match="does not declare finding 'unheard-of'"):
        build(make_request(make_result(outcome, make_finding(id="unheard-of"))))


def requests(make_request, make_result, make_finding, with_identity):
    finding = make_request()
    yield "finding", finding
    yield "no region", make_request(make_result(Outcome.FINDING, make_finding(regions=())))
    many = tuple(
        Region(sop_instance_uid=f"1.2.3.4.{n}", kind="box", points=((1.0, 2.0), (30.0, 40.0))) for n in range(1, 61)
    )
    yield "many slices", make_request(make_result(Outcome.FINDING, make_finding(regions=many)), images=60)
    yield "nothing flagged", make_request(make_result(Outcome.NOTHING_FLAGGED))
    details = (Detail("头部切片缺失"),)
    for reason in (Reason.INCOMPLETE, Reason.WITHDRAWN):
        yield str(reason), make_request(make_result(Outcome.NOT_ANALYSED, reason=reason, details=details))
    earlier = tuple(
        ReportPredecessor(sop_instance_uid=uid, study_instance_uid=study)
        # The older one stands in the study that the images were in before their identity was corrected.
        for uid, study in (("2.25.7", "1.2.3"), ("2.25.6", "1.2.4"))
    )
    yield "revision", make_request(predecessors=earlier, evaluation=True, late=True)
    yield "chinese", with_identity(finding, patient_name="Wang^XiaoDong=王^小东", referring_physician_name="=李^四")
    yield "korean", with_identity(finding, patient_name="Hong^Gildong=洪^吉洞=홍^길동")
    yield (
        "nobody",
        dataclasses.replace(
            with_identity(
                finding,
                **dict.fromkeys(
                    (
                        "patient_id",
                        "patient_name",
                        "patient_birth_date",
                        "patient_sex",
                        "accession_number",
                        "study_id",
                        "referring_physician_name",
                    ),
                    "",
                ),
            ),
            study_date="",
            study_time="",
            study_description="",
            patient_age="",
            modality="",
        ),
    )
    yield (
        "measured",
        make_request(
            make_result(
                Outcome.FINDING,
                make_finding(
                    measurements=(
                        Measurement(name="volume", value=1e-7, unit="mm3"),
                        Measurement(name="a-thing-without-a-code", value=123456789.123, unit="mm/s"),
                    )
                ),
            )
        ),
    )


@pytest.mark.req("R-RESULT-01")
def test_dciodvfy_and_dsrdump_find_nothing_wrong_with_any_outcome_or_identity(
    build, make_request, make_result, make_finding, with_identity, dcmtk
):
    dsrdump = dcmtk("dsrdump")
    for name, request in requests(make_request, make_result, make_finding, with_identity):
        _, path = build(request)
        assert report_kit.dciodvfy_errors(path) == [], name
        assert report_kit.dsrdump_complaints(dsrdump, path) == [], name


@pytest.mark.long  # some 5 s of processor time each
@pytest.mark.timeout(900)
@pytest.mark.req("R-REPORT-01")
def test_pixelmed_finds_nothing_wrong_with_any_outcome_or_identity(
    build, make_request, make_result, make_finding, with_identity
):
    wrong = {}
    for name, request in requests(make_request, make_result, make_finding, with_identity):
        _, path = build(request)
        wrong |= {name: errors} if (errors := report_kit.pixelmed_errors(path)) else {}
    assert wrong == {}


@pytest.mark.req("R-RESULT-01")
def test_an_x_ray_report_is_valid_too(build, make_request, make_result, make_finding, package):
    triage = dataclasses.replace(package, intended_use="triage")
    request = make_request(make_result(Outcome.FINDING, make_finding(id="other", score=0.8)), modality="DX", images=1)
    for one in (request, dataclasses.replace(request, package=triage)):
        report, path = build(one, DX)
        assert report_kit.dciodvfy_errors(path) == []
        assert values(report, "Procedure reported") == ["363679005"]


def test_highdicoms_own_reader_gives_back_finding_volume_and_region(build, make_request):
    _, path = build(make_request())
    report = hd.sr.srread(io.BytesIO(path.read_bytes()))
    first, second = report.content.get_planar_roi_measurement_groups()
    assert first.finding_type.meaning == "Intracranial hemorrhage"
    volume, *_ = first.get_measurements()
    assert (volume.name.meaning, volume.value) == ("Volume", 12.5123)
    assert first.roi.value.tolist()[0] == [10, 20]
    assert first.tracking_uid == second.tracking_uid
