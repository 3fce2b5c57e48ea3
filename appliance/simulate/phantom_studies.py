"""Phantoms as whole studies by name: what makers of packages record golden cases with, and send for a first try."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydicom.dataset import Dataset

from appliance.simulate.bleed import Bleed
from appliance.simulate.chest_ct import ChestScan, Nodule, chest_ct
from appliance.simulate.chest_xray import Effusion, Opacity, chest_xray
from appliance.simulate.dicomize import ct_series, xray
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.knee_xray import knee_xray
from appliance.simulate.phantom import Phantom
from appliance.simulate.study import Device, Order, Study

#: Small: golden cases are made of them, and run each time a package starts.
_CHEST = ChestScan(matrix=256)
_HEAD = HeadScan(matrix=256)

#: From a number, which decides every draw, to the phantom.
PHANTOMS: Mapping[str, Callable[[int], Phantom]] = {
    "chest-ct": lambda seed: chest_ct(seed, scan=_CHEST),
    "chest-ct-nodule": lambda seed: chest_ct(seed, nodules=[Nodule(diameter_mm=16)], scan=_CHEST),
    "chest-xray": chest_xray,
    "chest-xray-effusion": lambda seed: chest_xray(seed, effusion=Effusion(height_mm=90)),
    "chest-xray-opacity": lambda seed: chest_xray(seed, opacity=Opacity(radius_mm=45)),
    "head-ct": lambda seed: head_ct(seed, scan=_HEAD),
    "head-ct-bleed": lambda seed: head_ct(seed, bleeds=[Bleed(kind="IPH", volume_ml=25)], scan=_HEAD),
    "knee-xray": knee_xray,
}


def phantom_study(name: str, seed: int) -> list[Dataset]:
    """The objects of one study of a fictitious person, in the order of sending; the same for the same seed.

    Raises:
        KeyError: There is no such phantom.
    """
    is_ct = "-ct" in name
    study = Study(
        seed=f"phantom/{name}/{seed}",
        order=Order(accession_number=f"PHANTOM{seed}", study_description=name.replace("-", " ")),
        device=Device(manufacturer_model_name=f"Phantom {'CT' if is_ct else 'DX'}"),
    )
    made = PHANTOMS[name](seed)
    return ct_series(made, study) if is_ct else [xray(made, study)]
