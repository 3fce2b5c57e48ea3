"""Which pictures of a study a reader may be shown, put together from the store, and which are prepared for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from appliance.dicom.headers import read_header
from appliance.errors import NotFoundError, RejectedInstance
from appliance.screen.context import Context
from appliance.screen.display_work import Wish
from appliance.screen.image_list import PictureSeries, Policy, list_pictures
from appliance.screen.model import knows_findings
from appliance.screen.packages import PackageText
from appliance.store import Store
from appliance.store.images import ImageFile, ImageStudy, PointedAt
from appliance.web.access import Caller

#: Key slices that are prepared ahead, and so many on each side of one.
_AHEAD, _AROUND = 3, 2


def policy_of(context: Context, caller: Caller, *, reads_first: bool = False) -> Policy:
    """What this reader may be told of places."""
    is_told = knows_findings(caller.role)
    return Policy(
        packages=context.packages,
        is_silent=lambda package: not is_told and context.config.technologist_detail(package) == "priority_only",
        reads_first=reads_first,
    )


def prepare_ahead(store: Store, packages: Mapping[str, PackageText]) -> Callable[[int], Iterable[Wish]]:
    """What to prepare of a study for which an alert was raised: key slices and those beside them, else one image."""

    def plan(study_id: int) -> Iterable[Wish]:
        listed, _, shown = Lister(store, Policy(packages=packages)).look(study_id)
        for one in [series for series in listed if series.keys] or listed[:1]:
            near = {n + away for n in one.keys[:_AHEAD] or (one.first,) for away in range(-_AROUND, _AROUND + 1)}
            wish = wish_for(study_id, one, masks=shown)
            stems = {one.pictures[n].file.stem for n in near if 0 <= n < len(one.pictures)}
            yield Wish(
                study_id=study_id,
                series_id=one.series.id,
                images=tuple(image for image in wish.images if image[0] in stems),
                masks=wish.masks,
            )

    return plan


class Lister:
    """The pictures of a study, put together from the store and, for multi-frame objects, their headers."""

    def __init__(self, store: Store, policy: Policy) -> None:
        self._store, self._policy = store, policy

    def look(self, study_id: int) -> tuple[tuple[PictureSeries, ...], ImageStudy, tuple[PointedAt, ...]]:
        """The series in order, the study, and what its analyses point at.

        Raises:
            NotFoundError: No such study.
        """
        study = self._store.images.of_study(study_id)
        if study is None:
            raise NotFoundError(f"study {study_id} does not exist")
        pointed = self._store.images.pointed_at(study_id)
        return list_pictures(study, self._policy.pointing(pointed), self._frames_of), study, pointed

    def _frames_of(self, file: ImageFile) -> int:
        try:
            return read_header(self._store.spool.path(file.path)).number_of_frames or 1
        except (OSError, RejectedInstance):
            return 1


def wish_for(study_id: int, one: PictureSeries, *, wanted: int | None = None, masks: Sequence[PointedAt] = ()) -> Wish:
    """All pictures of a series in the order of need, with the masks that may be drawn."""
    images = {p.file.stem: p.file.path for p in one.in_order_of_need(wanted) if not p.file.is_gone}
    return Wish(
        study_id=study_id,
        series_id=one.series.id,
        images=tuple(images.items()),
        masks=tuple((lines_of(pointed), pointed.masks) for pointed in masks if pointed.masks and pointed.findings),
    )


def lines_of(pointed: PointedAt) -> str:
    """Under which name the lines of an analysis stand in the cache."""
    return f"lines-{pointed.analysis_id}"
