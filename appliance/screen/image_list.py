"""Which images of a study a viewer shows, in which order, where it begins, and what it may be told over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from appliance.dicom.geometry import Geometry, SlicePlace, sort_slices
from appliance.errors import NotAnalysable
from appliance.records import Detail, FindingResult, Region, slice_id, split_id
from appliance.screen.packages import PackageText, text_of
from appliance.store.images import ImageFile, ImageSeries, ImageStudy, PointedAt

#: Packages over whose images something may be drawn; a ``quality`` package names no place, a ``triage`` one must not.
_DRAWN = frozenset({"detection", "measurement"})
#: One object is one picture here, whatever else the standard allows: no header need be read to know it.
_ONE_FRAME = frozenset({"CT", "MR", "CR", "DX", "PT", "MG"})
_NAMED_GAPS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One slice, film or frame."""

    file: ImageFile
    #: From 1.
    frame: int
    #: How many the object has.
    frames: int
    #: It shows a finding best, by a package that may say so.
    is_key: bool = False

    @property
    def id(self) -> str:
        """What addresses name it by; it never means another picture, whatever arrives."""
        return f"{self.file.version_id}.{self.frame}"

    @property
    def names(self) -> tuple[str, ...]:
        """The slice ids by which results may mean it."""
        uid = self.file.sop_instance_uid
        return (slice_id(uid, self.frame), *((uid,) if self.frames == 1 else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSeries:
    """The pictures of a series in the order in which they are shown."""

    series: ImageSeries
    pictures: tuple[Picture, ...]
    #: What a reader must know of the series as a whole.
    notes: tuple[Detail, ...]

    @property
    def first(self) -> int:
        """Where a viewer begins: at the first key slice, else in the middle."""
        keys = self.keys
        return keys[0] if keys else len(self.pictures) // 2

    @property
    def keys(self) -> tuple[int, ...]:
        """Indexes of the key slices."""
        return tuple(n for n, picture in enumerate(self.pictures) if picture.is_key)

    def in_order_of_need(self, wanted: int | None = None) -> tuple[Picture, ...]:
        """The one that is wanted, the key slices, those around them, then the rest."""
        centres = [*([] if wanted is None else [wanted]), *self.keys] or [self.first]
        far = {n: min(abs(n - centre) for centre in centres) for n in range(len(self.pictures))}
        order = sorted(far, key=lambda n: (n != wanted, far[n], n))
        return tuple(self.pictures[n] for n in order)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a site and its packages let a reader be told of places (ui.md's policy gate: data, not code).

    Attributes:
        packages: Texts, and with them the intended use.
        is_silent: Of a package: this reader is told the priority alone, so that a marked slice would say too much.
        reads_first: The reader has not said yet what they see: no place of any package is told.
    """

    packages: Mapping[str, PackageText]
    is_silent: Callable[[str], bool] = lambda _: False
    reads_first: bool = False

    def pointing(self, pointed: Sequence[PointedAt]) -> tuple[PointedAt, ...]:
        """The analyses whose key slices may be told: of a ``triage`` package these would be a place."""
        return tuple(one for one in pointed if "triage" not in self._uses(one) and not self._hides(one))

    def drawing(self, pointed: Sequence[PointedAt]) -> tuple[PointedAt, ...]:
        """The analyses whose places may be drawn over the images."""
        return tuple(one for one in pointed if self._uses(one) <= _DRAWN and not self._hides(one))

    def _hides(self, one: PointedAt) -> bool:
        return self.reads_first or self.is_silent(one.package)

    def _uses(self, one: PointedAt) -> set[str]:
        """As the analysis was made, and as the package says today; of an unknown package the strictest."""
        return {one.intended_use, text_of(self.packages, one.package, one.package_version).intended_use}


def list_pictures(
    study: ImageStudy, pointed: Sequence[PointedAt], frames_of: Callable[[ImageFile], int]
) -> tuple[PictureSeries, ...]:
    """The series that have images here, in the order of their numbers.

    Args:
        study: What is there.
        pointed: Analyses whose key slices may be told.
        frames_of: Frames of an object, asked only where it may have several.
    """
    keys = {name for one in pointed for finding in one.findings for name in _keys(finding)}
    listed = []
    for series in study.series:
        files, notes = _in_order(series)
        pictures = []
        for file in files:
            single = series.frames == 1 and series.modality in _ONE_FRAME
            count = 1 if single or file.is_gone else max(frames_of(file), 1)
            made = [Picture(file=file, frame=n + 1, frames=count) for n in range(count)]
            pictures += [
                Picture(file=file, frame=one.frame, frames=count, is_key=not keys.isdisjoint(one.names)) for one in made
            ]
        if series.is_open:
            notes = (Detail("Images of this series are still arriving"), *notes)
        if series.rejected == 1:
            notes += (Detail("1 image was taken back and is not shown"),)
        elif series.rejected:
            notes += (Detail("{count} images were taken back and are not shown", {"count": series.rejected}),)
        listed.append(PictureSeries(series=series, pictures=tuple(pictures), notes=notes))
    return tuple(one for one in listed if one.pictures or one.series.rejected)


def regions_on(picture: Picture, findings: Sequence[FindingResult]) -> list[tuple[str, Region]]:
    """Finding and region for everything that a result places in this picture."""
    return [
        (finding.id, region)
        for finding in findings
        for region in finding.regions
        if slice_id(region.sop_instance_uid, region.frame_number) in picture.names
    ]


def _keys(finding: FindingResult) -> list[str]:
    """Slice ids; of a multi-frame object that is named as a whole, the frames with a region."""
    placed = [slice_id(region.sop_instance_uid, region.frame_number) for region in finding.regions]
    named: list[str] = []
    for key in finding.key_instances:
        within = [one for one in placed if split_id(one)[0] == key and split_id(one)[1] is not None]
        named += within or [key]
    return named


def _in_order(series: ImageSeries) -> tuple[Sequence[ImageFile], tuple[Detail, ...]]:
    """By position, in the direction in which the scanner counts; by number where positions do not say."""
    places = [
        SlicePlace(file.position, file.orientation) for file in series.files if file.position and file.orientation
    ]
    if len(places) != len(series.files) or len(places) < 2:
        return series.files, ()
    try:
        geometry = sort_slices(places)
    except NotAnalysable:
        return series.files, ()
    if geometry.duplicates:
        return series.files, ()
    files = [series.files[n] for n in geometry.order]
    first, last = files[0].number, files[-1].number
    backwards = first is not None and last is not None and first > last
    return files[::-1] if backwards else files, _gaps(geometry, backwards=backwards)


def _gaps(geometry: Geometry, *, backwards: bool) -> tuple[Detail, ...]:
    if not geometry.gaps:
        return ()
    total = len(geometry.order) + geometry.missing
    spans = [(gap.first_number, gap.last_number) for gap in geometry.gaps]
    if backwards:
        spans = [(total + 1 - last, total + 1 - first) for first, last in reversed(spans)]
    named = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    slices = ", ".join([*named[:_NAMED_GAPS], *(["..."] if len(named) > _NAMED_GAPS else [])])
    if geometry.missing == 1:
        return (
            Detail(
                "1 slice is missing: {slices} of {total}, counted along the series", {"slices": slices, "total": total}
            ),
        )
    values: dict[str, str | int | float] = {"count": geometry.missing, "slices": slices, "total": total}
    return (Detail("{count} slices are missing: {slices} of {total}, counted along the series", values),)
