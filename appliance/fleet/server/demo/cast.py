"""Who is in the demo: hospitals, sites, boxes with their scanners, and which of them do not bear the bad version."""

from __future__ import annotations

from dataclasses import dataclass

VENDOR, DEALER, LAB = "demo-vendor", "demo-dealer", "demo-lab-1"
#: (modality, make, model) of simulated boxes, and of real agents: so canaries, which cover them all, are of both kinds.
SIMULATED = (
    ("DX", "SIEMENS", "Ysio Max"),
    ("DX", "GE Healthcare", "Definium 6000"),
    ("DX", "Philips", "DigitalDiagnost C90"),
    ("DX", "MINDRAY", "DigiEye 680"),
    ("CR", "FUJIFILM", "FCR Capsula X"),
)
#: What the bad version cannot read.
ODD = ("CR", "KONICA MINOLTA", "REGIUS 110")
REAL = (("DX", "CARESTREAM", "DRX-Compass"), ("DX", "Wandong", "HF50-RA"), ODD)
HARDWARE = ("mini-pc", "server-gpu")
#: One box in so many is slow, or has a bad line.
_SLOW_EVERY, _FLAPS_EVERY = 17, 40
_SLOW_S, _QUICK_S = (0.5, 1.5), (0.02, 0.25)


@dataclass(frozen=True, slots=True)
class Hospital:
    """A tenant with one site."""

    tenant: str
    site: str
    name: str
    parent: str
    country: str


HOSPITALS = (
    Hospital(LAB, "demo-lab-site", "Service laboratory", VENDOR, "CN"),
    Hospital("demo-hospital-1", "demo-site-01", "North Hospital", DEALER, "CN"),
    Hospital("demo-hospital-2", "demo-site-02", "East Hospital", DEALER, "CN"),
    Hospital("demo-hospital-3", "demo-site-03", "South Hospital", VENDOR, "CN"),
    Hospital("demo-hospital-4", "demo-site-04", "West Hospital", VENDOR, "DE"),
    Hospital("demo-hospital-5", "demo-site-05", "Lake Hospital", VENDOR, "DE"),
)


@dataclass(frozen=True, slots=True)
class Part:
    """One box. Number 1 stands in the laboratory.

    Attributes:
        is_odd: It has the scanner that the bad version cannot read.
    """

    number: int
    is_real: bool
    hospital: Hospital
    source: tuple[str, str, str]
    hardware: str
    step_s: tuple[float, float]
    flaps_s: float

    @property
    def is_odd(self) -> bool:
        """Whether the bad version fails here."""
        return self.source == ODD

    @property
    def serial(self) -> str:
        """Of its machine."""
        return f"DEMO-{self.number:04d}"


def cast(real: int, simulated: int) -> tuple[Part, ...]:
    """All boxes; three real ones or more, so that one has the odd scanner."""
    return tuple(_part(number, is_real=number <= real) for number in range(1, real + simulated + 1))


def _part(number: int, *, is_real: bool) -> Part:
    sources = REAL if is_real else SIMULATED
    return Part(
        number=number,
        is_real=is_real,
        hospital=HOSPITALS[0] if number == 1 else HOSPITALS[1 + number % (len(HOSPITALS) - 1)],
        source=sources[number % len(sources)],
        hardware=HARDWARE[number % len(HARDWARE)],
        step_s=_SLOW_S if number % _SLOW_EVERY == 0 else _QUICK_S,
        flaps_s=60.0 if number % _FLAPS_EVERY == 0 else 0.0,
    )
