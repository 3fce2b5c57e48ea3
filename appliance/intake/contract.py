"""What the receiver is told and whom it tells: its settings, and the sink that records what it received."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.records import Header, Received, SourceRef


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """DICOM over TLS with client certificates (PS3.15 §B.12: TLS 1.2 or later)."""

    certificate_path: Path
    key_path: Path
    client_ca_path: Path
    #: The calling AE title must stand in the client's certificate, as its common name or a DNS or URI alternative name.
    ae_in_certificate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScpSettings:
    """How the SCP listens and what it bounds. Nothing that a peer announces is believed without one of these."""

    #: Ours; it decides only with ``require_called_ae``.
    ae_title: str = "SCANSIDE"
    host: str = "127.0.0.1"
    #: 0 takes a free one; ``StorageScp.start`` returns it.
    port: int = 11112
    #: Established associations in all and from one address; one more is rejected as transient (local limit exceeded).
    max_associations: int = 200
    max_per_host: int = 160
    #: Connections that have not sent their A-ASSOCIATE-RQ yet; one more closes the oldest, never the newest, so that
    #: idle sockets cannot lock out a scanner.
    max_pending: int = 256
    max_object_bytes: int = 4 * 1024**3
    #: Announced to the peer, and the bound on what it may announce (PS3.8 §D.1).
    max_pdu_bytes: int = 131_072
    #: From connect to A-ASSOCIATE-RQ, TLS handshake included (ARTIM, PS3.8 §9.1.5).
    acse_timeout_s: float = 5.0
    #: An association on which nothing comes between two messages is aborted after this.
    network_timeout_s: float = 60.0
    #: From the first to the last byte of a PDU, and from one PDU of a message to the next.
    pdu_deadline_s: float = 30.0
    #: Reject an association that calls another AE title than ours.
    require_called_ae: bool = False
    tls: TlsSettings | None = None


class Sink(Protocol):
    """Who records. Called on association threads, several at once."""

    def association_opened(
        self, *, calling_ae: str, called_ae: str, address: str, source: SourceRef, can_store: bool
    ) -> int:
        """An association was accepted; ``can_store``: images may come on it.

        Returns:
            Its id, for the calls below.

        Raises:
            StoreError: It cannot be recorded; the association is rejected as transient.
        """
        ...

    def association_closed(self, association_id: int, *, how: str, images: int) -> None:
        """An association ended; ``how`` is released, aborted or lost, ``images`` counts what was acknowledged."""
        ...

    def refused(self, *, association_id: int | None, source: str, status: int, message: str) -> None:
        """Something was not taken. Messages of equal refusals are equal, so that the sink can count instead of write.

        Args:
            association_id: None where a whole association was rejected; ``source`` is then the peer's address.
            source: Name of the source.
            status: The C-STORE status, 0 for an association.
            message: What, and how to mend it; no patient data.
        """
        ...

    def store(self, received: Received) -> None:
        """Record one object that is on disk for good. Returns only when the transaction is committed.

        Raises:
            RejectedInstance: The object is refused with that status; the receiver removes the file.
            StoreError: It cannot be recorded; the receiver removes the file and answers 0xA700.
        """
        ...


class HeaderReader(Protocol):
    """Reads what the box needs of one Part 10 file, without its pixels."""

    def __call__(self, path: Path, *, assume_charset: str) -> Header:
        """Read and check it; ``assume_charset`` is that of a data set that declares none ("" = the default).

        Raises:
            RejectedInstance: It is no intact DICOM object (0xC000).
            OSError: The file cannot be read.
        """
        ...
