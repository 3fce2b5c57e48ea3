"""One HTTP connection to a destination: one request after the other, each within a limit; no redirect is followed."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from appliance.config import ClientTls
from appliance.deliver.connect import connect, cut, ended_after, tls_fault
from appliance.deliver.dicom_scu import longest_store_s
from appliance.deliver.retry import AssociationLost, NoAssociation

#: Of an answer no more is read; what says what became of one object needs some hundred bytes.
_MAX_ANSWER = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Whom we call, and how long we wait."""

    url: str
    timeout_s: float
    tls: ClientTls | None

    @property
    def host(self) -> str:
        """Its name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Its port."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def target(self) -> str:
        """What stands in the request line: path and query."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def __str__(self) -> str:
        """As messages call it: a query may hold a token."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Status and body of an answer."""

    status: int
    body: bytes


class HttpConnection:
    """Connects at once, and again where the server has closed. One thread uses it; ``cut`` may come from another."""

    def __init__(self, server: Server) -> None:
        """Connect.

        Raises:
            NoAssociation: It cannot be reached, or not with TLS.
        """
        self.server = server
        self._http: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._open()

    def is_alive(self) -> bool:
        """Whether the server has not closed since the last answer; one that closes after each is called anew."""
        if self._socket is None or self._http is None or self._http.sock is None:
            return False
        with suppress(OSError, ValueError):
            return not select.select([self._socket], [], [], 0)[0]
        return False

    def post(self, headers: Mapping[str, str], body: Iterable[bytes], size: int, *, target: str = "") -> Reply:
        """POST, and read the answer.

        Args:
            headers: Beside Host, Content-Length and Accept-Encoding.
            body: In pieces.
            size: Bytes of them all.
            target: Path below the URL's.

        Raises:
            NoAssociation: It cannot be reached, or refuses us whatever we send: who we are, or the address.
            AssociationLost: No valid answer: what was sent may have arrived or not.
        """
        if not self.is_alive():
            self.close()
            self._open()
        limit_s = longest_store_s(self.server.timeout_s, size)
        below = self.server.target.rstrip("/") + target if target else self.server.target
        try:
            answer, data = self._ask(below, {**headers, "Content-Length": str(size)}, body, limit_s)
        except AssociationLost:  # half of a request, or of an answer, is on its way
            self.close()
            raise
        except TimeoutError as error:
            self.close()
            raise AssociationLost(f"{self.server} gave no answer within {self.server.timeout_s:g} s") from error
        except ssl.SSLEOFError as error:  # it ended the connection: over this very object, perhaps
            self.close()
            raise AssociationLost(f"{self.server} closed the connection without an answer") from error
        except ssl.SSLError as error:
            self.close()
            if self.server.tls is None:  # pragma: no cover - there is no such error without TLS
                raise
            raise NoAssociation(f"{self.server}: {tls_fault(error, self.server.tls)}") from error
        except (http.client.RemoteDisconnected, OSError) as error:
            self.close()
            raise AssociationLost(f"{self.server} closed the connection without an answer") from error
        except (http.client.HTTPException, ValueError) as error:
            self.close()
            raise AssociationLost(f"{self.server} answered with something that is no HTTP") from error
        if answer.status in _REFUSES_US:
            raise NoAssociation(f"HTTP {answer.status}: {self.server} {_REFUSES_US[answer.status]}")
        if 300 <= answer.status < 400:
            raise NoAssociation(f"HTTP {answer.status}: {self.server} sends us to another address; put that into url")
        return Reply(status=answer.status, body=data)

    def _ask(
        self, target: str, headers: Mapping[str, str], body: Iterable[bytes], limit_s: float
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection, sock = self._http, self._socket
        if connection is None or sock is None:  # pragma: no cover - just opened
            raise NoAssociation(f"{self.server} cannot be reached")
        with ended_after(limit_s, sock):
            # It may answer before it has everything (413).
            with suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                connection.request("POST", target, body=body, headers=dict(headers))
            answer = connection.getresponse()
            data = answer.read(_MAX_ANSWER)
        if _is_torn(answer, data):
            raise AssociationLost(f"{self.server} closed the connection in the middle of its answer")
        if not answer.isclosed():
            self.close()  # the rest of it would be taken for the next answer
        return answer, data

    def close(self) -> None:
        """Close. Never raises."""
        if self._http is not None:
            with suppress(OSError):
                self._http.close()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
        self._http = self._socket = None

    def cut(self) -> None:
        """Make what the using thread waits for fail now."""
        if (sock := self._socket) is not None:
            cut(sock)

    def _open(self) -> None:
        server = self.server
        self._socket = connect(server, server.host, server.port, server.timeout_s, server.tls)
        self._socket.settimeout(server.timeout_s)
        self._http = http.client.HTTPConnection(server.host, server.port)
        # Ours, checked and encrypted; the library must never open one of its own.
        self._http.sock = self._socket
        self._http.auto_open = 0


def _is_torn(answer: http.client.HTTPResponse, data: bytes) -> bool:
    """Whether it ended early: the library lets that pass where the length of what to read is given."""
    length = answer.headers.get("Content-Length", "")
    if length.isdigit():
        return len(data) < min(int(length), _MAX_ANSWER)
    # Without a length it lasts until the connection ends; of one without a body only a status that says so is whole.
    return not data and not answer.chunked and answer.status != 204


#: Statuses that are about us and the address, not about what was sent: tried again for ever, and an issue.
_REFUSES_US = {
    401: "does not know our user, password or token, or wants one; correct them",
    403: "does not allow us to store there; give this box the right to",
    404: "has nothing under this address; correct url",
    405: "takes nothing under this address; correct url",
    407: "wants us to authenticate to a proxy; name the server itself in url",
    421: "is not the server of this address; correct url",
}
