"""A CT dose report (X-Ray Radiation Dose SR, PS3.16 TID 10011): no image, and of no interest to any package."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, XRayRadiationDoseSRStorage

from appliance.simulate.dicomize import base, code, finish
from appliance.simulate.study import Study

_UNITS = {"mGy": "mGy", "mGy.cm": "mGy.cm", "mm": "mm", "s": "s", "kV": "kV", "mA": "mA", "{events}": "events"}


def dose_report(study: Study, *, syntax: UID = ExplicitVRLittleEndian, series_number: int = 501) -> Dataset:
    """The dose of one head scan, as most scanners send it after the images."""
    ds = base(study, XRayRadiationDoseSRStorage, "SR", series_number, 1)
    ds.SeriesDescription = "Dose Report"
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CompletionFlag = "COMPLETE"
    ds.VerificationFlag = "UNVERIFIED"
    ds.ValueType = "CONTAINER"
    ds.ConceptNameCodeSequence = [code("113701", "DCM", "X-Ray Radiation Dose Report")]
    ds.ContinuityOfContent = "SEPARATE"
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "10011"
    ds.ContentTemplateSequence = [template]
    begun = f"{study.order.study_date}{study.order.study_time}"
    procedure = _code("HAS CONCEPT MOD", ("121058", "Procedure reported"), ("77477000", "SCT", "CT"))
    intent = _code("HAS CONCEPT MOD", ("363703001", "Has Intent"), ("261004008", "SCT", "Diagnostic Intent"))
    intent.ConceptNameCodeSequence = [code("363703001", "SCT", "Has Intent")]
    procedure.ContentSequence = [intent]
    ds.ContentSequence = [
        procedure,
        _code("HAS OBS CONTEXT", ("121005", "Observer Type"), ("121007", "DCM", "Device")),
        _uid("HAS OBS CONTEXT", ("121012", "Device Observer UID"), study.uid("device")),
        _time("HAS OBS CONTEXT", ("113809", "Start of X-Ray Irradiation"), begun),
        _time("HAS OBS CONTEXT", ("113810", "End of X-Ray Irradiation"), begun),
        _code("HAS OBS CONTEXT", ("113705", "Scope of Accumulation"), ("113014", "DCM", "Study")),
        _container(
            ("113811", "CT Accumulated Dose Data"),
            _number(("113812", "Total Number of Irradiation Events"), 1, "{events}"),
            _number(("113813", "CT Dose Length Product Total"), 720, "mGy.cm"),
        ),
        _container(
            ("113819", "CT Acquisition"),
            _text(("125203", "Acquisition Protocol"), "Head routine"),
            _code("CONTAINS", ("123014", "Target Region"), ("69536005", "SCT", "Head")),
            _code("CONTAINS", ("113820", "CT Acquisition Type"), ("113804", "DCM", "Sequenced Acquisition")),
            _uid("CONTAINS", ("113769", "Irradiation Event UID"), study.uid("irradiation event")),
            _container(
                ("113829", "CT Dose"),
                _number(("113830", "Mean CTDIvol"), 45, "mGy"),
                _number(("113838", "DLP"), 720, "mGy.cm"),
            ),
        ),
        _code("CONTAINS", ("113854", "Source of Dose Information"), ("113856", "DCM", "Automated Data Collection")),
    ]
    scope = ds.ContentSequence[5]
    scope.ContentSequence = [_uid("HAS PROPERTIES", ("110180", "Study Instance UID"), study.study_instance_uid)]
    return finish(ds, study, syntax)


def _entry(relationship: str, value_type: str, name: tuple[str, str]) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [code(name[0], "DCM", name[1])]
    return item


def _code(relationship: str, name: tuple[str, str], value: tuple[str, str, str]) -> Dataset:
    item = _entry(relationship, "CODE", name)
    item.ConceptCodeSequence = [code(*value)]
    return item


def _uid(relationship: str, name: tuple[str, str], value: UID) -> Dataset:
    item = _entry(relationship, "UIDREF", name)
    item.UID = value
    return item


def _time(relationship: str, name: tuple[str, str], value: str) -> Dataset:
    item = _entry(relationship, "DATETIME", name)
    item.DateTime = value
    return item


def _text(name: tuple[str, str], value: str) -> Dataset:
    item = _entry("CONTAINS", "TEXT", name)
    item.TextValue = value
    return item


def _number(name: tuple[str, str], value: float, unit: str) -> Dataset:
    item = _entry("CONTAINS", "NUM", name)
    measured = Dataset()
    measured.NumericValue = f"{value:g}"
    measured.MeasurementUnitsCodeSequence = [code(unit, "UCUM", _UNITS[unit])]
    item.MeasuredValueSequence = [measured]
    return item


def _container(name: tuple[str, str], *content: Dataset) -> Dataset:
    item = _entry("CONTAINS", "CONTAINER", name)
    item.ContinuityOfContent = "SEPARATE"
    item.ContentSequence = list(content)
    return item
