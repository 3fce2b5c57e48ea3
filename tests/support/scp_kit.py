"""For tests of the receiver: small objects, a recording sink, a running SCP, and a peer that sends what it likes."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from io import BytesIO
from types import SimpleNamespace

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from appliance.clock import SystemClock
from appliance.intake.peers import Peers
from appliance.intake.scp import ScpSettings, StorageScp
from appliance.store.spool import Spool

VERIFICATION = "1.2.840.10008.1.1"


def ct(rows=16, **values):
    """A small CT image with fresh UIDs."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientName, ds.PatientID, ds.Modality, ds.InstanceNumber = "Phantom^Test", "P1", "CT", 1
    ds.Rows = ds.Columns = rows
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PixelData = np.random.default_rng(rows).integers(0, 4096, (rows, rows), dtype=np.uint16).tobytes()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def encode(ds, syntax=ExplicitVRLittleEndian):
    """The bytes of a data set as they go over the wire."""
    stream = DicomBytesIO()
    stream.is_little_endian = True
    stream.is_implicit_VR = syntax == ImplicitVRLittleEndian
    write_dataset(stream, ds)
    return stream.getvalue()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@dataclass
class RecordingSink:
    """Remembers every call; ``on_store`` may raise or wait."""

    on_store: object = None
    opened: list = field(default_factory=list)
    closed: list = field(default_factory=list)
    refusals: list = field(default_factory=list)
    stored: list = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def association_opened(self, **fact):
        return self._add(self.opened, SimpleNamespace(**fact))

    def association_closed(self, association_id, **fact):
        self._add(self.closed, SimpleNamespace(id=association_id, **fact))

    def refused(self, **fact):
        self._add(self.refusals, SimpleNamespace(**fact))

    def store(self, received):
        if self.on_store:
            self.on_store(received)
        self._add(self.stored, received)

    def _add(self, rows, row):
        with self.changed:
            rows.append(row)
            self.changed.notify_all()
            return len(rows)

    def wait_for(self, predicate, timeout_s=60):
        with self.changed:
            assert self.changed.wait_for(lambda: predicate(self), timeout_s), "the sink was not told in time"


@contextlib.contextmanager
def running_scp(folder, *, peers=None, sink=None, spool=None, read_header=None, services=None, **settings):
    """An SCP on a free port; ends with all its threads gone."""
    sink = sink or RecordingSink()
    spool = spool or Spool(folder / "spool", reserve_bytes=0)
    more = {"read_header": read_header} if read_header else {}
    # No stall of the machine ends an association: a test of a deadline gives its own.
    patient = {"acse_timeout_s": 120, "network_timeout_s": 120, "pdu_deadline_s": 120}
    scp = StorageScp(
        ScpSettings(**{"port": 0, **patient, **settings}),
        sink,
        peers or Peers(unknown_sources="accept"),
        spool,
        SystemClock(),
        services=services,
        **more,
    )
    port = scp.start()
    try:
        yield SimpleNamespace(scp=scp, port=port, sink=sink, spool=spool)
    finally:
        # The second stop waits for a thread that waits for the disk.
        assert scp.stop(timeout=0.1) or scp.stop(timeout=30), "a thread of the SCP did not end"


def parts_left(spool):
    """Files that are half-received."""
    return list((spool.root / "incoming").iterdir())


class RawPeer:
    """A DICOM peer made of bytes: no library between the test and the wire."""

    def __init__(self, port, host="127.0.0.1", timeout_s=60):
        self.sock = socket.create_connection((host, port), timeout=timeout_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def read(self):
        """The next PDU: (type, body); None when the peer closed."""
        header = self._exactly(6)
        if header is None:
            return None
        kind, length = struct.unpack(">BxL", header)
        return kind, self._exactly(length)

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            try:
                more = self.sock.recv(count - len(data))
            except ConnectionError:
                return None
            if not more:
                return None
            data += more
        return data

    def associate(self, *contexts, calling="RAW", called="SCANSIDE"):
        """Open an association; contexts are (abstract syntax, transfer syntax, ...), ids 1, 3, 5, ...

        Returns the answer PDU.
        """
        self.send(associate_rq(contexts or ((CTImageStorage, ExplicitVRLittleEndian),), calling, called))
        return self.read()

    def store(self, data, *, sop_class=CTImageStorage, sop_instance, context=1, pdv_bytes=16_000, **command):
        """C-STORE ``data``; returns the status."""
        self.send(data_pdu(context, store_rq(sop_class, sop_instance, **command), command=True))
        for pdu in data_pdus(context, data, pdv_bytes):
            self.send(pdu)
        return self.status()

    def status(self):
        """The status of the next response; None when the association ended instead."""
        answer = self.read()
        if answer is None or answer[0] != 4:
            return None
        elements = command_elements(answer[1][6:])
        return struct.unpack("<H", elements[0x0900])[0]

    def release(self):
        self.send(struct.pack(">BBLL", 5, 0, 4, 0))
        return self.read()

    def reset(self):
        """Close with a RST, as a crashed peer or a firewall does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def associate_rq(contexts, calling="RAW", called="SCANSIDE", version=1, application="1.2.840.10008.3.1.1.1"):
    body = struct.pack(">HH", version, 0) + called.encode().ljust(16) + calling.encode().ljust(16) + bytes(32)
    body += _item(0x10, application.encode())
    for number, (abstract, *syntaxes) in enumerate(contexts):
        inner = _item(0x30, abstract.encode()) + b"".join(_item(0x40, syntax.encode()) for syntax in syntaxes)
        body += _item(0x20, bytes((2 * number + 1, 0, 0, 0)) + inner)
    body += _item(0x50, _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.3"))
    return struct.pack(">BxL", 1, len(body)) + body


def _item(kind, value):
    return struct.pack(">BxH", kind, len(value)) + value


def store_rq(sop_class, sop_instance, *, message_id=1, priority=0, data_set_type=0):
    return command_set(
        {
            0x0002: _even(sop_class),
            0x0100: struct.pack("<H", 1),
            0x0110: struct.pack("<H", message_id),
            0x0700: struct.pack("<H", priority),
            0x0800: struct.pack("<H", data_set_type),
            0x1000: _even(sop_instance),
        }
    )


def echo_rq():
    return command_set(
        {
            0x0002: _even(VERIFICATION),
            0x0100: struct.pack("<H", 0x30),
            0x0110: struct.pack("<H", 7),
            0x0800: struct.pack("<H", 0x0101),
        }
    )


def command_set(elements):
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements.items())
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def command_elements(data):
    elements, stream = {}, BytesIO(data)
    while header := stream.read(8):
        _, tag, length = struct.unpack("<HHL", header)
        elements[tag] = stream.read(length)
    return elements


def _even(text):
    value = text if isinstance(text, bytes) else text.encode()
    return value + b"\0" * (len(value) % 2)


def data_pdu(context, fragment, *, command=False, last=True):
    pdv = struct.pack(">LBB", len(fragment) + 2, context, (1 if command else 0) | (2 if last else 0)) + fragment
    return struct.pack(">BxL", 4, len(pdv)) + pdv


def data_pdus(context, data, pdv_bytes=16_000):
    """A data set as P-DATA-TF PDUs."""
    starts = range(0, max(len(data), 1), pdv_bytes)
    for start in starts:
        yield data_pdu(context, data[start : start + pdv_bytes], last=start == starts[-1])
