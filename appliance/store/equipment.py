"""What the images of a source say that made them: make, model and kernel, counted by series (table ``equipment``).

These are texts of a header, which anybody may write anything into. So the make is one of a closed list, a model and a
kernel have few signs and are short, none of them is a word of the same series' names or numbers, and nothing is told
of before many series on several days have said the same. No serial number, no station, no AE title.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from appliance.records import SELF_TEST_SOURCE, Header
from appliance.store.database import Database, Transaction

#: How many series must have said the same, on how many days, before it is told.
SERIES, DAYS = 20, 3
OTHER, UNKNOWN = "OTHER", "UNKNOWN"
_MOST_KERNELS = 16
#: A source that invents a new kernel with every series must not fill the disk.
_MOST_ROWS = 200
_MODALITIES = frozenset({"CT", "CR", "DX"})
_TEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/-]{0,31}")
_WORD = re.compile(r"[^\W_]+")
#: By a word, or words in a row, of Manufacturer (0008,0070) in capitals; the first that fits counts.
_MAKES: tuple[tuple[str, str], ...] = (
    ("SIEMENS", "SIEMENS"),
    ("GE", "GE"),
    ("GENERAL ELECTRIC", "GE"),
    ("PHILIPS", "PHILIPS"),
    ("CANON", "CANON"),
    ("TOSHIBA", "CANON"),
    ("UNITED IMAGING", "UNITED IMAGING"),
    ("UIH", "UNITED IMAGING"),
    ("NEUSOFT", "NEUSOFT"),
    ("MINFOUND", "MINFOUND"),
    ("FUJIFILM", "FUJIFILM"),
    ("FUJI", "FUJIFILM"),
    ("HITACHI", "HITACHI"),
    ("CARESTREAM", "CARESTREAM"),
    ("KODAK", "CARESTREAM"),
    ("AGFA", "AGFA"),
    ("SAMSUNG", "SAMSUNG"),
    ("NEUROLOGICA", "SAMSUNG"),
    ("SHIMADZU", "SHIMADZU"),
    ("KONICA", "KONICA MINOLTA"),
    ("MINDRAY", "MINDRAY"),
    ("WANDONG", "WANDONG"),
    ("ANKE", "ANKE"),
    ("SINOVISION", "SINOVISION"),
    ("LANDWIND", "LANDWIND"),
    ("ANGELL", "ANGELL"),
    ("PERLOVE", "PERLOVE"),
    ("IRAY", "IRAY"),
    ("CARERAY", "CARERAY"),
    ("HOLOGIC", "HOLOGIC"),
    ("DRTECH", "DRTECH"),
    ("VIEWORKS", "VIEWORKS"),
    ("RAYENCE", "RAYENCE"),
    ("ALLENGERS", "ALLENGERS"),
    ("STEPHANIX", "STEPHANIX"),
    ("VILLA", "VILLA"),
    ("SWISSRAY", "SWISSRAY"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What one series says; ``kernel`` is empty where it has none that can be told."""

    modality: str
    make: str
    model: str
    kernel: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What most series of a source say; the most frequent kernels first."""

    source: str
    modality: str
    make: str
    model: str
    kernels: tuple[str, ...]


def machine_of(header: Header) -> Machine | None:
    """What a header says that may be kept; None of an object without pixels."""
    if not header.has_pixels:
        return None
    named = _names(header)
    return Machine(
        modality=header.modality if header.modality in _MODALITIES else "OT",
        make=_make(header.manufacturer),
        model=_plain(header.manufacturer_model_name, named) or UNKNOWN,
        kernel=_plain(header.convolution_kernel, named),
    )


def note_series(tx: Transaction, source: str, header: Header) -> None:
    """Count a new series, in the transaction that records its first image."""
    machine = machine_of(header) if source != SELF_TEST_SOURCE else None
    if machine is None:
        return
    key = (source, machine.modality, machine.make, machine.model, machine.kernel)
    counted = tx.execute(
        "UPDATE equipment SET series = series + 1, days = days + (substr(last_at, 1, 10) <> substr(?, 1, 10)),"
        " last_at = ? WHERE source = ? AND modality = ? AND make = ? AND model = ? AND kernel = ?",
        (tx.at, tx.at, *key),
    )
    if not counted.rowcount:
        tx.execute(
            "INSERT INTO equipment (source, modality, make, model, kernel, series, days, last_at)"
            " SELECT ?, ?, ?, ?, ?, 1, 1, ? WHERE (SELECT count(*) FROM equipment WHERE source = ?) < ?",
            (*key, tx.at, source, _MOST_ROWS),
        )


class Equipment:
    """Reads what was counted."""

    def __init__(self, db: Database) -> None:
        """Read from ``db``."""
        self._db = db

    def known(self) -> list[Known]:
        """Of each source what most of its series say, where that is enough (``SERIES``, ``DAYS``)."""
        totals: dict[tuple[str, str, str, str], list[int]] = defaultdict(lambda: [0, 0])
        kernels: dict[tuple[str, str, str, str], list[tuple[int, str]]] = defaultdict(list)
        for row in self._db.all("SELECT * FROM equipment ORDER BY source, modality, make, model, kernel"):
            key = (row["source"], row["modality"], row["make"], row["model"])
            totals[key][0] += row["series"]
            # On no fewer days than its most frequent kernel.
            totals[key][1] = max(totals[key][1], row["days"])
            if row["kernel"] and row["series"] >= SERIES and row["days"] >= DAYS:
                kernels[key].append((-row["series"], row["kernel"]))
        best: dict[str, tuple[int, tuple[str, str, str, str]]] = {}
        for key, (series, days) in totals.items():
            if series >= SERIES and days >= DAYS and series > best.get(key[0], (0, key))[0]:
                best[key[0]] = (series, key)
        return [
            Known(
                source=source,
                modality=key[1],
                make=key[2],
                model=key[3],
                kernels=tuple(kernel for _, kernel in sorted(kernels[key])[:_MOST_KERNELS]),
            )
            for source, (_, key) in sorted(best.items())
        ]


def _make(text: str) -> str:
    words = f" {' '.join(_WORD.findall(text.upper()))} "
    return next((make for sign, make in _MAKES if f" {sign} " in words), OTHER)


def _plain(text: str, named: frozenset[str]) -> str:
    """A model or kernel as it may be told; empty where it has other signs, is too long, or names somebody."""
    text = " ".join(text.split())
    if not _TEXT.fullmatch(text):
        return ""
    whole, words = text.casefold(), set(_words(text))
    joined = "".join(_words(text))
    if words & named or whole in named or joined in named:
        return ""
    # A serial number or an id that is part of a longer word.
    return "" if any(len(one) >= 4 and one in joined for one in named) else text


def _names(header: Header) -> frozenset[str]:
    """Words of the series' own names and numbers."""
    identity = header.identity
    texts = (
        *(identity.patient_name, identity.referring_physician_name, identity.patient_id, identity.accession_number),
        *(identity.study_id, identity.requested_procedure_id, identity.patient_birth_date),
        header.device_serial_number,
    )
    words = {word for text in texts for word in _words(text)}
    whole = {"".join(_words(text)) for text in texts}
    return frozenset(word for word in words | whole if len(word) >= 2)


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]
