"""The small data sets of services other than storage, as a peer sent them."""

from __future__ import annotations

from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from appliance.dicom import elements
from appliance.dicom.pdus import IMPLICIT_VR_LITTLE_ENDIAN
from appliance.dicom.source import Source

#: A list of 40,000 images has fewer; pydicom takes 1.4 kB of memory and 30 us for each.
_MOST_ELEMENTS = 200_000


def read_data_set(data: bytes, transfer_syntax: str) -> Dataset | None:
    """Read a whole data set in one of the two plain syntaxes; None where it cannot be read to its end."""
    is_implicit = transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
    try:
        # It believes no length, and nests only so deep; pydicom takes what is cut off for whole.
        source = Source(data)
        source.elements_left = _MOST_ELEMENTS
        elements.walk(source, 0, elements.IMPLICIT_LE if is_implicit else elements.EXPLICIT_LE)
        ds = read_dataset(BytesIO(data), is_implicit_VR=is_implicit, is_little_endian=True)
        # Elements are read when they are asked for: what is broken must break here.
        for _ in ds.iterall():
            pass
    except Exception:  # noqa: BLE001 - foreign bytes enter
        return None
    return ds
