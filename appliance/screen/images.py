"""The images of a study for the viewer: lists, pixels as children prepared them, and what may be drawn over them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from appliance.errors import NotFoundError
from appliance.records import Detail
from appliance.report.places import outline
from appliance.screen.context import Context
from appliance.screen.display import Display
from appliance.screen.display_work import Wish
from appliance.screen.image_list import Picture, PictureSeries, Policy, regions_on
from appliance.screen.image_wishes import Lister, lines_of, policy_of, wish_for
from appliance.screen.packages import PackageText, text_of
from appliance.screen.viewer import READS_FIRST
from appliance.store.images import ImageFile, ImageStudy, PointedAt
from appliance.web.access import CLINICAL, Caller, Guarded, caller_of
from appliance.web.i18n import N_, language_of

_PICTURE = re.compile(r"([1-9]\d{0,17})\.([1-9]\d{0,5})")
#: How long a request waits for an image that a child is at; then it is asked for again.
_WAIT_S = 8.0
_ONE_LOOK_S = 300.0
_LOOKERS = 1000
_META = "Image-Meta"
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
        if not await self._prepared(asked, *(f"{lines_of(one)}.json" for one in masked)):
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
        lister = Lister(self._store, Policy(packages=self._context.packages))
        listed, _, shown = lister.look(asked.study_id)
        one = next((series for series in listed if series.series.id == asked.series_id), None)
        if one is None:
            return
        wanted = next((n for n, p in enumerate(one.pictures) if p.file.stem == asked.file.stem), None)
        if preview:
            images = ((asked.file.stem, asked.file.path),)
            self._display.want(Wish(study_id=asked.study_id, series_id=asked.series_id, images=images, preview=preview))
        else:
            self._display.want(wish_for(asked.study_id, one, wanted=wanted, masks=shown))

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
        listed, study, pointed = Lister(self._store, policy).look(study_id)
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
            masks = self._display.cache.document(asked.study_id, lines_of(one)) or {}
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


def _reads_first(request: Request) -> bool:
    return request.query_params.get(READS_FIRST) == "1"


def _title(text: PackageText, finding: str, language: str) -> str:
    title = text.words(finding)[0]
    return title.get(language) or title.get("en", finding)
