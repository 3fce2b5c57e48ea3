"""The studies that the demo sends and the self-test expects: who sends what, and how each must end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydicom.dataset import Dataset

from appliance.records import Outcome, Reason
from appliance.simulate.bleed import Bleed
from appliance.simulate.chest_xray import Effusion, chest_xray
from appliance.simulate.dicomize import ct_series, localizer_image, xray
from appliance.simulate.dose import dose_report
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.knee_xray import knee_xray
from appliance.simulate.localizer import localizer
from appliance.simulate.phantom import parameters
from appliance.simulate.study import Device, Order, Patient, Study

_CT = Device(manufacturer_model_name="Phantom CT", station_name="CT-1", device_serial_number="CT0001")
_DX = Device(manufacturer_model_name="Phantom DX", station_name="DX-1", device_serial_number="DX0001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One study: its source, its objects in the order of sending, and its expected end."""

    name: str
    #: What a person is told that it is.
    title: str
    #: AE title of the scanner that sends it.
    source: str
    outcome: Outcome
    reason: Reason | None = None
    #: From a study number (so that a scenario can be sent again as another study) to its objects.
    build: Callable[[str], list[Dataset]]


def _study(
    name: str, run: str, number: int, *, patient: Patient, device: Device, description: str, charset: str = "ISO_IR 192"
) -> Study:
    order = Order(
        accession_number=f"SIM{number:05d}",
        study_id=str(number),
        requested_procedure_id=f"RP{number}",
        study_description=description,
        study_time=f"08{number % 60:02d}00",
    )
    return Study(seed=f"scenario/{name}/{run}", patient=patient, order=order, device=device, charset=charset)


def _seed(name: str) -> int:
    return int(parameters("scenario_seeds")[name])


def _head_ct_bleed(run: str) -> list[Dataset]:
    """A patient with a Chinese name in GB18030; the localizer comes first, as from a real scanner."""
    patient = Patient(name="Ceshi^Yi=测试^一", patient_id="SIM-0001", birth_date="19580312", sex="M", age="067Y")
    study = _study("head_ct_bleed", run, 1, patient=patient, device=_CT, description="Head CT", charset="GB18030")
    phantom = head_ct(
        _seed("head_ct_bleed"),
        bleeds=[Bleed(kind="IPH", volume_ml=22, place="left basal ganglia")],
        scan=HeadScan(calcified_plexus=True, noise_hu=4),
    )
    return [localizer_image(localizer(phantom), study), *ct_series(phantom, study)]


def _head_ct_no_bleed(run: str) -> list[Dataset]:
    patient = Patient(name="PHANTOM^Two", patient_id="SIM-0002", birth_date="19720921", sex="F", age="053Y")
    study = _study("head_ct_no_bleed", run, 2, patient=patient, device=_CT, description="Head CT")
    return ct_series(head_ct(_seed("head_ct_no_bleed"), scan=HeadScan(calcified_plexus=True, noise_hu=4)), study)


def _head_ct_missing_block(run: str) -> list[Dataset]:
    """Five slices in the middle never arrive; whatever is in the others must not be scored."""
    patient = Patient(name="PHANTOM^Three", patient_id="SIM-0003", birth_date="19450102", sex="M", age="081Y")
    study = _study("head_ct_missing_block", run, 3, patient=patient, device=_CT, description="Head CT")
    scan = HeadScan(missing=tuple(range(14, 19)), noise_hu=4)
    return ct_series(head_ct(_seed("head_ct_missing_block"), scan=scan), study)


def _chest_xray(run: str) -> list[Dataset]:
    patient = Patient(name="PHANTOM^Four", patient_id="SIM-0004", birth_date="19660704", sex="F", age="059Y")
    return [
        xray(
            chest_xray(_seed("chest_xray"), lifelike=True),
            _study("chest_xray", run, 4, patient=patient, device=_DX, description="Chest PA"),
        )
    ]


def _chest_xray_effusion(run: str) -> list[Dataset]:
    """The same chest, another patient: much fluid on the right, which what looks for it must notice."""
    patient = Patient(name="PHANTOM^Seven", patient_id="SIM-0007", birth_date="19511117", sex="M", age="074Y")
    fluid = Effusion(side="right", height_mm=150)
    return [
        xray(
            chest_xray(_seed("chest_xray"), effusion=fluid, lifelike=True),
            _study("chest_xray_effusion", run, 7, patient=patient, device=_DX, description="Chest PA"),
        )
    ]


def _knee_xray(run: str) -> list[Dataset]:
    patient = Patient(name="PHANTOM^Five", patient_id="SIM-0005", birth_date="19990615", sex="M", age="026Y")
    return [
        xray(
            knee_xray(_seed("knee_xray")),
            _study("knee_xray", run, 5, patient=patient, device=_DX, description="Knee AP"),
        )
    ]


def _dose_report(run: str) -> list[Dataset]:
    patient = Patient(name="PHANTOM^Six", patient_id="SIM-0006", birth_date="19811130", sex="F", age="044Y")
    return [dose_report(_study("dose_report", run, 6, patient=patient, device=_CT, description="Head CT"))]


#: In the order of sending.
SCENARIOS = (
    Scenario(
        name="head_ct_bleed",
        title="Head CT with a bleed in the brain",
        source="CT-1",
        outcome=Outcome.FINDING,
        build=_head_ct_bleed,
    ),
    Scenario(
        name="head_ct_no_bleed",
        title="Head CT without a bleed",
        source="CT-1",
        outcome=Outcome.NOTHING_FLAGGED,
        build=_head_ct_no_bleed,
    ),
    Scenario(
        name="head_ct_missing_block",
        title="Head CT with a block of slices missing",
        source="CT-1",
        outcome=Outcome.NOT_ANALYSED,
        reason=Reason.INCOMPLETE,
        build=_head_ct_missing_block,
    ),
    Scenario(
        name="chest_xray",
        title="Chest X-ray",
        source="DX-1",
        outcome=Outcome.NOTHING_FLAGGED,
        build=_chest_xray,
    ),
    Scenario(
        name="chest_xray_effusion",
        title="Chest X-ray with an effusion",
        source="DX-1",
        outcome=Outcome.FINDING,
        build=_chest_xray_effusion,
    ),
    Scenario(
        name="knee_xray",
        title="Knee X-ray",
        source="DX-1",
        outcome=Outcome.NOT_APPLICABLE,
        build=_knee_xray,
    ),
    Scenario(
        name="dose_report",
        title="Dose report of a CT",
        source="CT-1",
        outcome=Outcome.NOT_APPLICABLE,
        build=_dose_report,
    ),
)
