"""What made the images: few signs of a closed list, counted by series, told only when many on several days agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.fleet.wire_records import Equipment as Told
from appliance.records import SELF_TEST_SOURCE, Header, Identity
from appliance.store.equipment import Equipment, Known, machine_of

pytestmark = pytest.mark.req("R-FLEET-34")


@pytest.mark.parametrize(
    ("written", "make"),
    [
        ("SIEMENS", "SIEMENS"),
        ("Siemens Healthineers", "SIEMENS"),
        ("GE MEDICAL SYSTEMS", "GE"),
        ("General Electric Co.", "GE"),
        ("Philips Medical Systems", "PHILIPS"),
        ("TOSHIBA", "CANON"),
        ("CANON INC.", "CANON"),
        ("UIH", "UNITED IMAGING"),
        ("Shanghai United Imaging Healthcare", "UNITED IMAGING"),
        ("FUJI PHOTO FILM Co., ltd.", "FUJIFILM"),
        ("KONICA MINOLTA", "KONICA MINOLTA"),
        ("St. Mary Hospital", "OTHER"),
        ("GEORGE'S WORKSHOP", "OTHER"),
        ("东软", "OTHER"),
        ("", "OTHER"),
    ],
)
def test_a_make_is_one_of_a_closed_list(make_header, written, make):
    assert machine_of(make_header(manufacturer=written)).make == make


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("SOMATOM Definition AS+", "UNKNOWN"),  # a sign that is none of those allowed
        ("SOMATOM Definition AS", "SOMATOM Definition AS"),
        ("  Revolution   CT ", "Revolution CT"),
        ("x" * 33, "UNKNOWN"),
        ("CT of Jane", "UNKNOWN"),
        ("ROOM-DOE-2", "UNKNOWN"),
        ("doe", "UNKNOWN"),
        ("Aquilion 8812345", "UNKNOWN"),
        ("Aquilion S8812345X", "UNKNOWN"),
        ("Aquilion P1", "UNKNOWN"),
        ("Aquilion ONE", "Aquilion ONE"),
        ("Лебедь", "UNKNOWN"),
        ("<script>", "UNKNOWN"),
    ],
)
def test_a_model_with_other_signs_or_a_word_of_the_same_study_is_dropped(make_header, model, told):
    header = make_header(
        manufacturer="SIEMENS",
        manufacturer_model_name=model,
        patient_name="Doe^Jane",
        device_serial_number="8812345",
        convolution_kernel=model,
    )
    machine = machine_of(header)
    assert (machine.model, machine.kernel) == (told, "" if told == "UNKNOWN" else told)


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_whatever_a_header_says_fits_what_may_leave_or_is_not_kept(manufacturer, model, kernel):
    header = Header(
        sop_class_uid="1",
        sop_instance_uid="1",
        transfer_syntax_uid="1",
        series_instance_uid="1",
        identity=Identity(study_instance_uid="1"),
        modality="CT",
        manufacturer=manufacturer,
        manufacturer_model_name=model,
        convolution_kernel=kernel,
        has_pixels=True,
    )
    made = machine_of(header)
    kernels = (made.kernel,) if made.kernel else ()
    Told(source=1, modality=made.modality, make=made.make, model=made.model, kernels=kernels)


def test_what_has_no_pixels_is_nobodys_machine(make_header):
    assert machine_of(make_header(has_pixels=False)) is None
    assert machine_of(make_header(modality="MG")).modality == "OT"


@pytest.fixture
def come(store, make_header, receive):
    """``come(series, images=1, ...)``: the images of a series."""

    def make(series, images=1, source="CT-1", **header):
        for image in range(images):
            uid = f"1.9.{series}.{image}"
            one = make_header(
                image + 1, sop_instance_uid=uid, series_instance_uid=f"1.9.{series}", manufacturer="GE", **header
            )
            assert store.studies.add_new(receive(one, source=source), ()) is not None

    return make


def test_a_series_is_counted_once_however_many_images_it_has(store, come):
    come(1, images=5, manufacturer_model_name="Revolution", convolution_kernel="STANDARD")
    come(2, manufacturer_model_name="Revolution", convolution_kernel="STANDARD")
    come(3, manufacturer_model_name="Revolution", convolution_kernel="BONE")
    come(4, source=SELF_TEST_SOURCE, manufacturer_model_name="Phantom")
    rows = [
        tuple(row) for row in store.db.all("SELECT make, model, kernel, series, days FROM equipment ORDER BY kernel")
    ]
    assert rows == [("GE", "Revolution", "BONE", 1, 1), ("GE", "Revolution", "STANDARD", 2, 1)]


def test_it_is_told_when_twenty_series_on_three_days_agree(store, clock, come):
    known = Equipment(store.db).known
    numbers = iter(range(100))
    for series in (7, 7, 5):
        clock.advance(86_400)
        for n in range(series):
            kernel = "STANDARD" if n else "BONE"
            come(next(numbers), manufacturer_model_name="Revolution", convolution_kernel=kernel)
            assert known() == []
    come(next(numbers), manufacturer_model_name="Revolution", convolution_kernel="STANDARD")
    assert known() == [Known(source="CT-1", modality="CT", make="GE", model="Revolution", kernels=())]
    for _ in range(3):
        come(next(numbers), manufacturer_model_name="Revolution", convolution_kernel="STANDARD")
    assert known()[0].kernels == ("STANDARD",)


def test_many_series_of_one_day_are_not_enough(store, come):
    for number in range(60):
        come(number, manufacturer_model_name="Revolution")
    assert Equipment(store.db).known() == []


def test_a_source_is_what_most_of_its_series_say_it_is(store):
    with store.db.write() as tx:
        for model, series in (("A", 50), ("B", 80), ("C", 19)):
            tx.execute("INSERT INTO equipment VALUES ('CT-1', 'CT', 'GE', ?, '', ?, 9, ?)", (model, series, tx.at))
    assert [one.model for one in Equipment(store.db).known()] == ["B"]


def test_a_source_that_invents_models_does_not_fill_the_disk(store, come):
    for number in range(220):
        come(number, manufacturer_model_name=f"M{number}")
    assert store.db.one("SELECT count(*) AS n FROM equipment")["n"] == 200
