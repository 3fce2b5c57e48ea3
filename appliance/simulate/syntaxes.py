"""Writing a data set in a chosen transfer syntax (PS3.5 Annex A)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from copy import deepcopy
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)

#: Encoder of pydicom per syntax; each is one of the box's own pinned codecs.
_PLUGINS = {RLELossless: "pydicom", JPEG2000Lossless: "pylibjpeg", JPEGLSLossless: "pyjpegls"}
_DCMCJPEG = {
    JPEGBaseline8Bit: ["+eb", "+q", "95"],
    JPEGExtended12Bit: ["+ee", "+q", "95"],
    JPEGLossless: ["+el"],
    JPEGLosslessSV1: ["+e1"],
}
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, HTJ2K)


class EncoderMissing(RuntimeError):  # noqa: N818 - a fact about the machine that a test turns into a skip
    """This machine has no encoder for a transfer syntax; the message says what to install."""


def encode(ds: Dataset, syntax: UID) -> Dataset:
    """A copy of a native little endian ``ds`` in ``syntax``, with its file meta information.

    Raises:
        EncoderMissing: DCMTK's dcmcjpeg (JPEG) or imagecodecs (HTJ2K) is not installed.
        ValueError: No encoder is known for ``syntax``.
    """
    out = deepcopy(ds)
    if syntax in NATIVE:
        _native(out, syntax)
    elif "PixelData" not in out:
        raise ValueError(f"an object without pixel data has no use for {UID(syntax).name}")
    elif syntax in _PLUGINS:
        out.compress(syntax, encoding_plugin=_PLUGINS[syntax], generate_instance_uid=False)
    elif syntax in _DCMCJPEG:
        out = _dcmcjpeg(out, _DCMCJPEG[syntax])
    elif syntax in {HTJ2KLossless, HTJ2K}:
        _htj2k(out, syntax)
    else:
        raise ValueError(f"the simulator has no encoder for {UID(syntax).name}")
    return out


def _native(ds: Dataset, syntax: UID) -> None:
    if syntax == ExplicitVRBigEndian and ds.get("BitsAllocated") == 16:
        # pydicom swaps every element but this one, whose words only the caller knows.
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = syntax


def _frames(ds: Dataset) -> np.ndarray:
    """The stored values [F, H, W] of a native little endian, single-sample data set."""
    kind = "i" if ds.PixelRepresentation else "u"
    values = np.frombuffer(ds.PixelData, f"<{kind}{ds.BitsAllocated // 8}")
    return values[: (values.size // (ds.Rows * ds.Columns)) * ds.Rows * ds.Columns].reshape(-1, ds.Rows, ds.Columns)


def _htj2k(ds: Dataset, syntax: UID) -> None:
    try:
        from imagecodecs import htj2k_encode  # older ones, those of Python 3.10, have none
    except ImportError as error:
        raise EncoderMissing(
            "HTJ2K needs the test extra on Python 3.11 or later: pip install 'scanside[test]'"
        ) from error
    options = {"reversible": True} if syntax == HTJ2KLossless else {"level": 0.001}
    frames = [htj2k_encode(np.ascontiguousarray(frame), **options) for frame in _frames(ds)]
    ds.PixelData = encapsulate([bytes(frame) for frame in frames])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == HTJ2K:
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionRatio = "10"
        ds.LossyImageCompressionMethod = "ISO_15444_15"


def _dcmcjpeg(ds: Dataset, options: list[str]) -> Dataset:
    program = shutil.which("dcmcjpeg")
    if program is None:
        raise EncoderMissing("JPEG needs DCMTK's dcmcjpeg: apt-get install dcmtk")
    with tempfile.TemporaryDirectory(prefix="scanside-") as folder:
        source, target = Path(folder, "in.dcm"), Path(folder, "out.dcm")
        ds.save_as(source, enforce_file_format=True)
        # +un: the same instance in another syntax keeps its UID.
        subprocess.run(
            [program, *options, "+un", str(source), str(target)], check=True, capture_output=True, timeout=60
        )
        out = dcmread(target)
        out.PixelData  # noqa: B018 - read before the file goes
        return out
