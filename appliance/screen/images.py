"""The images of a study for the viewer: lists, pixels as children prepared them, and what may be drawn over them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from appliance.dicom.headers import read_header
from appliance.errors import NotFoundError, RejectedInstance
from appliance.records import Detail
from appliance.report.places import outline
from appliance.screen.context import Context
from appliance.screen.display import Display, Wish
from appliance.screen.image_list import Picture, PictureSeries, Policy, list_pictures, regions_on
from appliance.screen.model import knows_findings
from appliance.screen.packages import PackageText, text_of
from appliance.store import Store
from appliance.store.images import ImageFile, ImageStudy, PointedAt
from appliance.store.readmodels import StudyView
from appliance.web.access import CLINICAL, Caller, Guarded, caller_of
from appliance.web.i18n import N_, language_of

_PICTURE = re.compile(r"([1-9]\d{0,17})\.([1-9]\d{0,5})")
#: How long a request waits for an image that a child is at; then it is asked for again.
_WAIT_S = 8.0
_ONE_LOOK_S = 300.0
_LOOKERS = 1000
#: Key slices that are prepared ahead, and so many on each side of one.
_AHEAD, _AROUND = 3, 2
_META = "Image-Meta"
#: In the query of list and lines: who reads has not said yet what they see, and is told no place of the AI.
READS_FIRST = "first"

#: Windows by key, centre and width in HU, as radiologists know them.
CT_WINDOWS: tuple[tuple[str, float, float], ...] = (
    (N_("Brain"), 40, 80),
    (N_("Subdural"), 75, 215),
    (N_("Bone"), 500, 2500),
    (N_("Lung"), -600, 1500),
    (N_("Soft tissue"), 40, 400),
)
_GONE = N_("This image was removed from the box; the result was kept")
_ALL_GONE = N_("The images were removed from this box by the site's rule. The result was kept.")
_NO_IMAGES = N_("This study has no images to show")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A picture that an address names."""

    study_id: int
    series_id: int
    file: ImageFile
    frame: int

    @property
    def name(self) -> str:
        return f"{self.file.stem}.{self.frame}"


def viewer_context(
    context: Context,
    caller: Caller,
    study: StudyView,
    *,
    locale: str,
    editable: bool = False,
    reads_first: bool = False,
) -> dict[str, Any]:
    """What ``viewer.html`` needs; a page includes it with ``{% include "viewer.html" %}``. Blocks: call it in the pool.

    The first image is wanted at once: a child is at it before the browser asks.

    Args:
        context: Of the page.
        caller: Who will look.
        study: Which study.
        locale: Of the page.
        editable: Whether the reader may draw a box (events ``image-view:region``).
        reads_first: Tell no place of the AI until the page takes ``data-first`` from the viewer and has it ``renew``.
    """
    lister = _Lister(context.store, policy_of(context, caller, reads_first=reads_first))
    listed, _, shown = lister.look(study.id)
    begin = next((one for one in listed if one.keys), listed[0] if listed else None)
    preview = ""
    if begin is not None and any(not picture.file.is_gone for picture in begin.pictures):
        first = begin.pictures[begin.first]
        preview = f"/studies/{study.id}/images/{begin.series.id}/{first.id}/preview.png"
        context.display.want(_wish(study.id, begin, masks=shown))
    return {
        "viewer": {
            "study": study.id,
            "preview": preview,
            "editable": editable,
            "reads_first": reads_first,
            "windows": [[context.templates.translated(locale, label), c, w] for label, c, w in CT_WINDOWS],
        }
    }


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
        listed, _, shown = _Lister(store, Policy(packages=packages)).look(study_id)
        for one in [series for series in listed if series.keys] or listed[:1]:
            near = {n + away for n in one.keys[:_AHEAD] or (one.first,) for away in range(-_AROUND, _AROUND + 1)}
            wish = _wish(study_id, one, masks=shown)
            stems = {one.pictures[n].file.stem for n in near if 0 <= n < len(one.pictures)}
            yield Wish(
                study_id=study_id,
                series_id=one.series.id,
                images=tuple(image for image in wish.images if image[0] in stems),
                masks=wish.masks,
            )

    return plan


class ImagePages:
    """Lists, pixels, lines."""

    def __init__(self, context: Context) -> None:
        """Serve from ``context.display``."""
        self._context = context
        self._store = context.store
        self._display: Display = context.display
        self._looked: dict[tuple[str, int], float] = {}

    def routes(self) -> list[Guarded]:
        """The addresses."""
        study = "/studies/{study_id:int}/images"
        picture = study + "/{series_id:int}/{picture}"
        return [
            Guarded(study, self.listed, roles=CLINICAL),
            Guarded(picture, self.pixels, roles=CLINICAL),
            Guarded(f"{picture}/overlay", self.overlay, roles=CLINICAL),
            Guarded(f"{picture}/preview.png", self.preview, roles=CLINICAL),
        ]

    # Answers ---------------------------------------------------------------------------------------------------

    async def listed(self, request: Request) -> Response:
        """Series and pictures in order, key slices, what is missing, whether anything may be drawn."""
        return JSONResponse(await self._context.pool.run(self._list, request))

    async def pixels(self, request: Request) -> Response:
        """One frame: display size, or whole with ``?px=0``; 202 while it is being prepared."""
        asked = await self._context.pool.run(self._asked, request)
        await self._prepared(asked, f"{asked.file.stem}.json")
        whole = request.query_params.get("px") == "0"
        cache = self._display.cache
        got = await self._context.pool.run(cache.pixels, asked.study_id, asked.file.stem, asked.frame, whole=whole)
        told = self._display.fault(asked.study_id, asked.file.stem) if got is None else got
        if told is None:
            return JSONResponse({"state": "preparing"}, status_code=202)
        if isinstance(told, Detail):
            raise HTTPException(422, self._told(request, told))
        meta = json.dumps(told.meta | {"got": told.size}, separators=(",", ":"))
        return Response(told.data, media_type="application/octet-stream", headers={_META: meta})

    async def overlay(self, request: Request) -> Response:
        """What is drawn over a picture: lines in its own coordinates, (0, 0) at the corner of the first pixel."""
        asked, drawn, masked = await self._context.pool.run(self._drawn, request)
        if not await self._prepared(asked, *(f"{_lines_of(one)}.json" for one in masked)):
            return JSONResponse({"state": "preparing"}, status_code=202)
        return JSONResponse(await self._context.pool.run(self._lines, request, asked, drawn))

    async def preview(self, request: Request) -> Response:
        """A picture for browsers without scripts: in the image's own window, never with anything drawn over it."""
        asked = await self._context.pool.run(self._asked, request)
        await self._prepared(asked, f"{asked.name}.png", preview=asked.name)
        data = await self._context.pool.run(self._read_png, asked)
        if data is None:
            raise HTTPException(503, self._told(request, Detail("The image is still being prepared; reload the page")))
        return Response(data, media_type="image/png")

    # Asking ----------------------------------------------------------------------------------------------------

    async def _prepared(self, asked: _Asked, *names: str, preview: str = "") -> bool:
        """Wait, within bounds, until files of the cache are there or known never to come; whether they are."""
        cache, study_id, stem = self._display.cache, asked.study_id, asked.file.stem

        def is_there() -> bool:
            if self._display.fault(study_id, stem):
                return True
            return all(cache.has(study_id, name) or self._display.fault(study_id, name[:-5]) for name in names)

        if is_there():
            return True
        if preview or not self._display.is_coming(asked.series_id, stem):
            await self._context.pool.run(self._want, asked, preview)
        return await self._display.until(is_there, _WAIT_S)

    def _want(self, asked: _Asked, preview: str) -> None:
        lister = _Lister(self._store, Policy(packages=self._context.packages))
        listed, _, shown = lister.look(asked.study_id)
        one = next((series for series in listed if series.series.id == asked.series_id), None)
        if one is None:
            return
        wanted = next((n for n, p in enumerate(one.pictures) if p.file.stem == asked.file.stem), None)
        if preview:
            images = ((asked.file.stem, asked.file.path),)
            self._display.want(Wish(study_id=asked.study_id, series_id=asked.series_id, images=images, preview=preview))
        else:
            self._display.want(_wish(asked.study_id, one, wanted=wanted, masks=shown))

    def _asked(self, request: Request) -> _Asked:
        """The picture of an address, for who may see it; the look is a fact.

        Raises:
            NotFoundError: There is no such picture here, or it is not the caller's to see.
            HTTPException: 410, its file is gone.
        """
        study_id, series_id = request.path_params["study_id"], request.path_params["series_id"]
        named = _PICTURE.fullmatch(request.path_params["picture"])
        self._look(study_id, caller_of(request))
        file = self._store.images.file(study_id, series_id, int(named[1])) if named else None
        if named is None or file is None:
            raise NotFoundError("there is no such image in this series")
        if file.is_gone:
            raise HTTPException(410, self._told(request, Detail(_GONE)))
        return _Asked(study_id, series_id, file, int(named[2]))

    def _look(self, study_id: int, caller: Caller) -> None:
        """Who looks at the images of whom is a fact, once a while.

        Raises:
            NotFoundError: No such study, or none of the caller's sources.
        """
        source = self._store.images.source(study_id)
        if source is None or (caller.sources and source not in caller.sources):
            raise NotFoundError(f"study {study_id} does not exist")
        key, now = (f"{caller.actor.role} {caller.actor.name}", study_id), self._context.clock.monotonic()
        if now - self._looked.get(key, now - _ONE_LOOK_S) >= _ONE_LOOK_S:
            if len(self._looked) >= _LOOKERS:
                self._looked.clear()
            self._looked[key] = now
            self._store.audit.accessed("images", caller.actor, study_id=study_id)

    # Reading ---------------------------------------------------------------------------------------------------

    def _list(self, request: Request) -> dict[str, Any]:
        study_id, caller = request.path_params["study_id"], caller_of(request)
        self._look(study_id, caller)
        policy = policy_of(self._context, caller, reads_first=_reads_first(request))
        listed, study, pointed = _Lister(self._store, policy).look(study_id)
        drawn = policy.drawing(pointed)
        return {
            "study": study_id,
            "open": any(one.series.is_open for one in listed),
            "note": self._note(request, study, listed),
            "overlay": any(finding.regions for one in drawn for finding in one.findings)
            or any(one.masks for one in drawn),
            "series": [self._series(request, study_id, one) for one in listed],
        }

    def _note(self, request: Request, study: ImageStudy, listed: Sequence[PictureSeries]) -> str:
        here = [p for one in listed for p in one.pictures if not p.file.is_gone]
        if here:
            return ""
        return self._told(request, Detail(_NO_IMAGES if study.removed_at is None else _ALL_GONE))

    def _series(self, request: Request, study_id: int, one: PictureSeries) -> dict[str, Any]:
        series, cache = one.series, self._display.cache
        return {
            "id": series.id,
            "number": series.number,
            "modality": series.modality,
            "description": series.description,
            "open": series.is_open,
            "notes": [self._told(request, note) for note in one.notes],
            "first": one.first,
            "pictures": [
                {
                    "id": picture.id,
                    "number": picture.file.number,
                    "frame": picture.frame if picture.frames > 1 else None,
                    "key": picture.is_key,
                    "gone": picture.file.is_gone,
                    "ready": cache.has(study_id, f"{picture.file.stem}.json"),
                }
                for picture in one.pictures
            ],
        }

    def _drawn(self, request: Request) -> tuple[_Asked, tuple[PointedAt, ...], tuple[PointedAt, ...]]:
        """The picture, the analyses that may draw on it, and those of them with masks.

        Raises:
            NotFoundError: No package may draw over images of this study, for this reader.
        """
        asked = self._asked(request)
        policy = policy_of(self._context, caller_of(request), reads_first=_reads_first(request))
        drawn = policy.drawing(self._store.images.pointed_at(asked.study_id))
        if not drawn:
            raise NotFoundError("nothing may be drawn over the images of this study")
        return asked, drawn, tuple(one for one in drawn if one.masks and one.findings)

    def _lines(self, request: Request, asked: _Asked, drawn: Sequence[PointedAt]) -> dict[str, Any]:
        language = language_of(self._context.locale(request))
        document = self._display.cache.document(asked.study_id, asked.file.stem) or {}
        count = len(document.get("frames", ())) or 1
        picture = Picture(file=asked.file, frame=asked.frame, frames=count)
        lines = []
        for one in drawn:
            text = text_of(self._context.packages, one.package, one.package_version)
            masks = self._display.cache.document(asked.study_id, _lines_of(one)) or {}
            for finding in one.findings:
                title = _title(text, finding.id, language)
                by_slice = masks.get(finding.id, {})
                covered = [line for name in picture.names for line in by_slice.get(name, ())]
                # As in the presentation state: a mask says more than the box around it.
                shapes = covered or [outline(region).tolist() for _, region in regions_on(picture, [finding])]
                lines += [{"finding": finding.id, "title": title, "points": points} for points in shapes]
        return {"picture": f"{asked.file.version_id}.{asked.frame}", "lines": lines}

    def _read_png(self, asked: _Asked) -> bytes | None:
        try:
            return (self._display.cache.folder(asked.study_id) / f"{asked.name}.png").read_bytes()
        except FileNotFoundError:
            return None

    def _told(self, request: Request, detail: Detail) -> str:
        locale = self._context.locale(request)
        return detail.told(lambda text: self._context.templates.translated(locale, text))


class _Lister:
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


def _wish(study_id: int, one: PictureSeries, *, wanted: int | None = None, masks: Sequence[PointedAt] = ()) -> Wish:
    images = {p.file.stem: p.file.path for p in one.in_order_of_need(wanted) if not p.file.is_gone}
    return Wish(
        study_id=study_id,
        series_id=one.series.id,
        images=tuple(images.items()),
        masks=tuple((_lines_of(pointed), pointed.masks) for pointed in masks if pointed.masks and pointed.findings),
    )


def _reads_first(request: Request) -> bool:
    return request.query_params.get(READS_FIRST) == "1"


def _lines_of(pointed: PointedAt) -> str:
    """Under which name the lines of an analysis stand in the cache."""
    return f"lines-{pointed.analysis_id}"


def _title(text: PackageText, finding: str, language: str) -> str:
    title = text.words(finding)[0]
    return title.get(language) or title.get("en", finding)
