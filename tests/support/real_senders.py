"""Real files over the wire: by DCMTK's storescu where it can send them as they are, else by the raw sender.

What storescu puts on the wire is its own encoding of the file, so it is sent to a tap first: a PACS of ours that keeps
every byte. The tap's digest is what the box under test must have kept and forwarded.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from appliance.simulate.pacs import Pacs
from appliance.simulate.part10 import split
from appliance.simulate.rawscu import RawScu

#: storescu proposes uncompressed syntaxes unless told otherwise; deflated files it inflates.
_OPTIONS = {
    "1.2.840.10008.1.2": ["-xi"],
    "1.2.840.10008.1.2.4.50": ["-xy"],
    "1.2.840.10008.1.2.4.51": ["-xx"],
    "1.2.840.10008.1.2.4.70": ["-xs"],
    "1.2.840.10008.1.2.4.80": ["-xt"],
    "1.2.840.10008.1.2.4.81": ["-xu"],
    "1.2.840.10008.1.2.4.90": ["-xv"],
    "1.2.840.10008.1.2.4.91": ["-xw"],
    "1.2.840.10008.1.2.5": ["-xr"],
}
#: What the raw sender announces for a file that has no such UID.
NO_CLASS, NO_INSTANCE = "1.2.3", "1.2.3.4"


@dataclass(frozen=True)
class Parcel:
    """One file as it goes over the wire."""

    path: Path
    #: ``storescu`` or ``raw``.
    way: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    #: Of the data set as sent.
    sha256: str

    @property
    def name(self):
        return f"{self.path.parent.name}/{self.path.name}"


def storescu(program, port, *paths, calling="CT-1", options=()):
    """Run DCMTK's storescu; whether every image was answered with success."""
    words = [program, "-R", *options, "-aet", calling, "-aec", "SCANSIDE", "127.0.0.1", port, *paths]
    # DCMTK reads TCP_NODELAY from the environment; without it every message waits 40 ms for an acknowledgement.
    env = {**os.environ, "TCP_NODELAY": "1"}
    done = subprocess.run([str(word) for word in words], capture_output=True, timeout=60, check=False, env=env)
    return done.returncode == 0


def wrap(paths, program, folder):
    """One ``Parcel`` per file: which way it goes, and which bytes then go."""
    parcels = []
    with Pacs(folder) as tap:
        for path in paths:
            part = split(path)
            options = _OPTIONS.get(part.transfer_syntax_uid, [])
            before = len(tap.arrivals)
            if part.transfer_syntax_uid and storescu(program, tap.port, path, options=options):
                arrival = tap.arrivals[before]
                if arrival.transfer_syntax_uid == part.transfer_syntax_uid:
                    parcels.append(
                        Parcel(path, "storescu", arrival.sop_instance_uid, part.transfer_syntax_uid, arrival.sha256)
                    )
                    continue
            uid = part.sop_instance_uid or NO_INSTANCE
            parcels.append(Parcel(path, "raw", uid, part.transfer_syntax_uid, part.sha256))
    return parcels


def send(parcel, program, port, calling="CT-1"):
    """Send one file; its status, or None where the peer accepts no presentation context for it."""
    if parcel.way == "storescu":
        options = _OPTIONS.get(parcel.transfer_syntax_uid, [])
        # Without --verbose storescu tells failure by its exit code alone; refusals are told by the raw sender.
        return 0 if storescu(program, port, parcel.path, calling=calling, options=options) else 0xC000
    return send_raw(parcel.path, port, calling)


def send_raw(path, port, calling="CT-1"):
    """Send a file's data set byte for byte; its status, or None without an accepted presentation context."""
    part = split(path)
    sop_class, uid = part.sop_class_uid or NO_CLASS, part.sop_instance_uid or NO_INSTANCE
    with RawScu("127.0.0.1", port, calling=calling, called="SCANSIDE") as raw:
        accepted = raw.associate([(sop_class, [part.transfer_syntax_uid])])
        status = raw.store(next(iter(accepted)), sop_class, uid, part.data) if accepted else None
        raw.release()
    return status


def disjoint(parcels):
    """Groups in which no SOP Instance UID comes twice: each file of a group meets a store without its UID."""
    groups = []
    for parcel in parcels:
        for group in groups:
            if all(other.sop_instance_uid != parcel.sop_instance_uid for other in group):
                group.append(parcel)
                break
        else:
            groups.append([parcel])
    return groups
