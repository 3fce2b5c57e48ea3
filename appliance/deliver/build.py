"""The stage that turns what analyses said into objects: built in a limited child, then on disk for good, then owed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from appliance.deliver.part10 import data_digest, file_digest
from appliance.dicom import codes
from appliance.dicom.windows import window_of
from appliance.errors import ApplianceError, StoreError, TransientError
from appliance.records import DeliveryKind
from appliance.report.kinds import key_picture
from appliance.report.request import (
    NotBuildable,
    ReportImage,
    ReportObject,
    ReportPackage,
    ReportPredecessor,
    ReportRequest,
)
from appliance.store.deliveries import Deliveries
from appliance.store.notes import NoteToBuild
from appliance.store.spool import RESULTS, Spool
from appliance.store.to_build import ToBuild
from engines.child import Limits, run_limited
from engines.errors import ChildError

#: The child costs half a second before it builds anything, so what waits shares one.
BATCH = 8
#: A child that dies says nothing of the object: the machine may have been short of memory or time.
MAX_TRIES = 3
LIMITS = Limits(wall_s=60.0, cpu_s=45.0, memory_mb=1024)
_CHILD = "appliance.report.child"
SOP_CLASSES = {
    DeliveryKind.SR: "1.2.840.10008.5.1.4.1.1.88.34",
    DeliveryKind.SEG: "1.2.840.10008.5.1.4.1.1.66.4",
    DeliveryKind.GSPS: "1.2.840.10008.5.1.4.1.1.11.1",
    DeliveryKind.KO: "1.2.840.10008.5.1.4.1.1.88.59",
    DeliveryKind.SC: "1.2.840.10008.5.1.4.1.1.7",
    DeliveryKind.REJECTION_NOTE: "1.2.840.10008.5.1.4.1.1.88.59",
}
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


@dataclass(frozen=True, slots=True)
class _Job:
    """One object to build, and whose."""

    analysis_id: int
    identity_revision: int
    request: ReportRequest


class ReportStage:
    """Builds result objects. One that cannot be built becomes an issue with its reason, and the others go on."""

    name = "report"

    def __init__(
        self,
        deliveries: Deliveries,
        spool: Spool,
        packages: Mapping[str, ReportPackage],
        *,
        evaluation: bool,
        box_version: str,
        wake_delivery: Callable[[], None] = lambda: None,
        run_child: Callable[[str, dict[str, Any], Limits], dict[str, Any]] = run_limited,
    ) -> None:
        """Build from ``deliveries`` into ``spool``.

        Args:
            deliveries: What is owed and not built.
            spool: Where source images lie and results go.
            packages: Texts and codes by ``name@version`` or name; read anew in each step, so the caller may add to it.
            evaluation: ``site.mode`` is evaluation: the objects say so.
            box_version: Of this software.
            wake_delivery: Called when objects were built.
            run_child: ``engines.child.run_limited``; tests give another.
        """
        self._deliveries = deliveries
        self._spool = spool
        self._packages = packages
        self._evaluation = evaluation
        self._box_version = box_version
        self._wake_delivery = wake_delivery
        self._run_child = run_child
        self._codes = {
            name: {"value": code.code, "scheme": code.scheme, "meaning": code.meaning}
            for name, code in codes.table().items()
        }
        #: How many analyses are built one by one now, because a child that had several of them died.
        self._alone = 0
        self._tries: dict[int, int] = {}
        self.max_step_s = LIMITS.wall_s + 30.0

    def step(self) -> bool:
        """Build one batch."""
        ids = self._deliveries.analyses_to_build(1 if self._alone else BATCH)
        if not ids:
            return False
        self._alone = max(0, self._alone - 1)
        jobs: list[_Job] = []
        try:
            for analysis_id in ids:
                jobs += self._jobs(analysis_id)
            if jobs:
                self._build(ids, jobs)
        finally:
            for job in jobs:
                Path(job.request.output_path).unlink(missing_ok=True)
        self._wake_delivery()
        return True

    def _jobs(self, analysis_id: int) -> list[_Job]:
        """Its results and then its rejection notes: what keeps those from being built must not keep these."""
        return [
            *self._or_failed(analysis_id, None, self._results),
            *self._or_failed(analysis_id, DeliveryKind.REJECTION_NOTE, self._notes),
        ]

    def _or_failed(self, analysis_id: int, kind: DeliveryKind | None, jobs: Callable[[int], list[_Job]]) -> list[_Job]:
        try:
            return jobs(analysis_id)
        except (StoreError, TransientError):
            raise
        except (ApplianceError, ValidationError) as error:
            # pydantic quotes values; its own summary is enough beside the id.
            reason = str(error) if isinstance(error, ApplianceError) else "its row in the database is damaged"
            self._deliveries.build_failed(analysis_id, kind, reason)
            return []

    def _notes(self, analysis_id: int) -> list[_Job]:
        notes = self._deliveries.notes_to_build(analysis_id)
        return [_Job(analysis_id, note.identity_revision, self._note_request(note)) for note in notes]

    def _results(self, analysis_id: int) -> list[_Job]:
        if not self._deliveries.owes_results(analysis_id):
            return []  # the images that they need may have left the box
        owed = self._deliveries.to_build(analysis_id)
        package = self._texts(owed.package, owed.package_version)
        jobs = []
        for kind, sop_instance_uid in owed.objects.items():
            if kind in SOP_CLASSES or kind is DeliveryKind.STATEMENT:
                request = self._request(owed, package, kind, sop_instance_uid)
                jobs.append(_Job(analysis_id, owed.identity_revision, request))
            else:
                self._deliveries.build_failed(analysis_id, kind, f"this version does not build {kind} objects")
        return jobs

    def _texts(self, name: str, version: str) -> ReportPackage:
        """The texts of the version that made the analysis, which may not be the one that serves now.

        Raises:
            NotBuildable: The package is gone.
        """
        package = self._packages.get(f"{name}@{version}") or self._packages.get(name)
        if package is None:
            raise NotBuildable(f"package {name} is not installed; install it again, then 'scanside dest retry'")
        return package

    def _note_request(self, note: NoteToBuild) -> ReportRequest:
        return ReportRequest(
            kind=DeliveryKind.REJECTION_NOTE,
            sop_instance_uid=note.sop_instance_uid,
            predecessors=(),
            output_path=str(self._spool.scratch()),
            package=self._texts(note.package, note.package_version),
            package_version=note.package_version,
            box_version=self._box_version,
            result=note.result,
            late=False,
            evaluation=self._evaluation,
            done_at=note.owed_at,
            identity=note.identity,
            study_description=note.study_description,
            study_date=note.study_date,
            study_time=note.study_time,
            patient_age="",
            modality="",
            images=(),
            picture_path="",
            masks_path="",
            rejected=tuple(
                ReportObject(kind=one.kind, sop_class_uid=one.sop_class_uid, sop_instance_uid=one.sop_instance_uid)
                for one in note.named
            ),
        )

    def _request(
        self, owed: ToBuild, package: ReportPackage, kind: DeliveryKind, sop_instance_uid: str
    ) -> ReportRequest:
        shown = key_picture(owed.result)
        return ReportRequest(
            kind=kind,
            sop_instance_uid=sop_instance_uid,
            predecessors=tuple(
                ReportPredecessor(sop_instance_uid=one.sop_instance_uid, study_instance_uid=one.study_instance_uid)
                for one in owed.predecessors[kind]
            ),
            output_path=str(self._spool.scratch()),
            package=package,
            package_version=owed.package_version,
            box_version=self._box_version,
            result=owed.result,
            late=owed.late,
            evaluation=self._evaluation,
            done_at=owed.done_at,
            identity=owed.identity,
            study_description=owed.study_description,
            study_date=owed.study_date,
            study_time=owed.study_time,
            patient_age=owed.header.patient_age,
            modality=owed.header.modality,
            images=tuple(
                ReportImage(
                    sop_instance_uid=file.sop_instance_uid,
                    series_instance_uid=file.series_instance_uid,
                    path=str(self._spool.path(file.path)),
                )
                for file in owed.files
            ),
            picture_path=self._absolute(None if shown is None else owed.result.pictures[shown]),
            masks_path=self._absolute(owed.result.masks),
            window=window_of(package.body_parts),
            procedure=owed.procedure,
            review=owed.review,
            siblings={other: uid for other, uid in owed.objects.items() if other is not kind},
        )

    def _absolute(self, path: str | None) -> str:
        return str(self._spool.path(path)) if path else ""

    def _build(self, ids: list[int], jobs: list[_Job]) -> None:
        try:
            document = {"jobs": [job.request.to_json() for job in jobs], "codes": self._codes}
            answers = self._run_child(_CHILD, document, LIMITS)["objects"]
        except ChildError as error:
            self._child_died(ids, jobs, error)
            return
        except OSError as error:
            raise TransientError(f"no child process for reports could be started: {error.strerror}") from error
        for job, answer in zip(jobs, answers, strict=True):
            self._tries.pop(job.analysis_id, None)
            if "error" in answer:
                self._deliveries.build_failed(job.analysis_id, job.request.kind, answer["error"])
            else:
                self._keep(job, answer["ms"])

    def _keep(self, job: _Job, ms: float) -> None:
        request = job.request
        output = Path(request.output_path)
        with output.open("rb") as stream:
            if request.kind is DeliveryKind.STATEMENT:
                (sha256, size), offset = file_digest(stream), 0
            else:
                sha256, offset, size = data_digest(stream)
        suffix = ".json" if request.kind is DeliveryKind.STATEMENT else ".dcm"
        path = self._spool.write_blob(RESULTS, output, suffix=suffix)
        self._deliveries.built(
            job.analysis_id,
            request.kind,
            sop_instance_uid=request.sop_instance_uid,
            identity=request.identity,
            identity_revision=job.identity_revision,
            procedure=request.procedure,
            path=path,
            sha256=sha256,
            size=offset + size,
            # A statement is no DICOM object.
            sop_class_uid=SOP_CLASSES.get(request.kind, ""),
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN if request.kind in SOP_CLASSES else "",
            ms=ms,
        )

    def _child_died(self, ids: list[int], jobs: list[_Job], error: ChildError) -> None:
        if len(ids) > 1:
            self._alone = len(ids)
            return
        tries = self._tries.get(ids[0], 0) + 1
        self._tries[ids[0]] = tries
        if tries >= MAX_TRIES:
            del self._tries[ids[0]]
            # The notes among them, if it was not they alone, are tried once more without the results.
            are_notes = all(job.request.kind is DeliveryKind.REJECTION_NOTE for job in jobs)
            kind = DeliveryKind.REJECTION_NOTE if are_notes else None
            self._deliveries.build_failed(ids[0], kind, f"the child that builds it ended {tries} times: {error.fault}")
