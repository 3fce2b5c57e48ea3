"""Modality Performed Procedure Step as SCP (PS3.4 Annex F.7): what a scanner says that it has made, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from appliance.dicom import commands
from appliance.dicom.classes import MODALITY_PERFORMED_PROCEDURE_STEP
from appliance.dicom.commands import Failure, Request
from appliance.errors import ConflictError, NotFoundError
from appliance.intake.receive import Peer, Services
from appliance.records import StepState
from appliance.store.steps import ListedImage, Steps

#: Error ID of an N-SET on a step that has ended (PS3.4 §F.7.2.2.3).
_MAY_NOT_BE_UPDATED = 0xA506
_STATES = {str(state): state for state in StepState}
_REFERENCES = ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")


class PerformedSteps:
    """Records what modalities report. Only what the box uses is required of them: the state and the lists."""

    def __init__(self, steps: Steps, *, wake: Callable[[], None]) -> None:
        """Record into ``steps``; ``wake`` is called after each act, from the association's thread."""
        self._steps = steps
        self._wake = wake

    def services(self) -> Services:
        """For ``StorageScp``."""
        return {
            MODALITY_PERFORMED_PROCEDURE_STEP: {commands.N_CREATE_RQ: self.create, commands.N_SET_RQ: self.set},
        }

    def create(self, peer: Peer, request: Request, ds: Dataset) -> int:
        """N-CREATE: a step begins, and only as IN PROGRESS (PS3.4 §F.7.2.1)."""
        if not commands.is_uid(request.sop_instance_uid):
            return Failure(commands.INVALID_INSTANCE, "no SOP Instance UID of the step")
        said = _status(ds)
        if not said:
            return Failure(commands.MISSING_ATTRIBUTE, "no Performed Procedure Step Status")
        if said != StepState.IN_PROGRESS:
            return Failure(commands.INVALID_ATTRIBUTE_VALUE, "a step is created as IN PROGRESS")
        try:
            self._steps.begin(request.sop_instance_uid, peer.source.name, listed_images(ds) or ())
        except ConflictError:
            return Failure(commands.DUPLICATE_INSTANCE, "this step exists already")
        self._wake()
        return commands.SUCCESS

    def set(self, peer: Peer, request: Request, ds: Dataset) -> int:
        """N-SET: the step goes on, or ends for good (PS3.4 §F.7.2.2)."""
        said = _status(ds)
        if said and said not in _STATES:
            return Failure(commands.INVALID_ATTRIBUTE_VALUE, "unknown Performed Procedure Step Status")
        try:
            self._steps.set(request.sop_instance_uid, peer.source.name, _STATES.get(said), listed_images(ds))
        except NotFoundError:
            return Failure(commands.NO_SUCH_INSTANCE, "no such performed procedure step")
        except ConflictError:
            return Failure(
                commands.PROCESSING_FAILURE,
                "Performed Procedure Step Object may no longer be updated",
                error_id=_MAY_NOT_BE_UPDATED,
            )
        self._wake()
        return commands.SUCCESS


def _status(ds: Dataset) -> str:
    return str(ds.get("PerformedProcedureStepStatus", "") or "").strip()


def listed_images(ds: Dataset) -> set[ListedImage] | None:
    """Series and SOP Instance UID of all that a Performed Series Sequence lists; None where there is no such sequence.

    What is no UID is left out: it can name nothing that the box has.
    """
    if "PerformedSeriesSequence" not in ds:
        return None
    return {
        (series_uid, uid)
        for series in _items(ds, "PerformedSeriesSequence")
        for keyword in _REFERENCES
        for reference in _items(series, keyword)
        if commands.is_uid(series_uid := str(series.get("SeriesInstanceUID", "")))
        and commands.is_uid(uid := str(reference.get("ReferencedSOPInstanceUID", "")))
    }


def _items(ds: Dataset, keyword: str) -> Iterable[Dataset]:
    """The items of a sequence, as far as the peer sent one under that name."""
    items = ds.get(keyword)
    return items if isinstance(items, Sequence) else ()
