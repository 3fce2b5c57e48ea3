"""The way to a destination: a socket, with TLS where it is configured, or words that tell a person what to mend."""

from __future__ import annotations

import contextlib
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from appliance.config import ClientTls
from appliance.deliver.retry import NoAssociation
from appliance.dicom.bcp195 import harden, trust
from appliance.errors import ConfigError

#: No secret is longer; what is, is another file.
_MAX_SECRET = 4096


def connect(who: object, host: str, port: int, timeout_s: float, tls: ClientTls | None) -> socket.socket:
    """Connect, and shake hands where ``tls`` is given.

    Args:
        who: The destination, as messages call it.
        host: Its name or address.
        port: Its port.
        timeout_s: For the connection, and again for the handshake.
        tls: Whom to trust, and who we are.

    Raises:
        NoAssociation: It cannot be reached, or not with TLS; the message says how to mend it.
    """
    if tls is None:
        return _connected(who, host, port, timeout_s)
    try:
        context = client_context(tls)
    except ConfigError as error:
        raise NoAssociation(str(error)) from error
    connection = _connected(who, host, port, timeout_s)
    try:
        connection.getpeername()  # who takes a connection only to reset it may have done so already
        secured = context.wrap_socket(
            connection, server_hostname=tls.server_name or host, do_handshake_on_connect=False
        )
    except OSError as error:
        connection.close()
        raise NoAssociation(f"{who}: {tls_fault(error, tls)}") from error
    except ValueError as error:
        connection.close()
        raise NoAssociation(f"{who}: {host!r} is no name that a certificate can bear; set tls.server_name") from error
    try:
        with ended_after(timeout_s, secured):
            secured.do_handshake()
    except OSError as error:
        secured.close()
        raise NoAssociation(f"{who}: {tls_fault(error, tls)}") from error
    return secured


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """What ``tls`` says, read from its files now: a certificate that was renewed needs no restart.

    Raises:
        ConfigError: A file is missing, unreadable or no PEM, or key and certificate do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    harden(context)
    try:
        trust(context, tls.ca_path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"tls.ca_path: {tls.ca_path}: {_why(error)}; give a PEM file") from error
    if tls.certificate_path is not None and tls.key_path is not None:
        try:
            _check_secret(tls.key_path)
            # Without a password of its own OpenSSL asks the terminal for one.
            context.load_cert_chain(tls.certificate_path, tls.key_path, password="")
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"tls.certificate_path: {tls.certificate_path} with key {tls.key_path}: {_why(error)}; give PEM files"
                " that belong together, without a passphrase, that the service may read"
            ) from error
    return context


def read_secret(key: str, path: Path) -> str:
    """The one line of a file that only the service may read; a systemd credential is such a file.

    Args:
        key: What the configuration calls it.
        path: The file.

    Raises:
        ConfigError: It cannot be read, everybody may read it, or it holds no single line of text.
    """
    try:
        _check_secret(path)
        with path.open("rb") as file:
            text = file.read(_MAX_SECRET + 1).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: {path} cannot be read: {_why(error)}") from error
    if not text or len(text) >= _MAX_SECRET or not text.isprintable():
        raise ConfigError(f"{key}: {path} must hold one line of text and nothing else")
    return text


def _check_secret(path: Path) -> None:
    # The group may read it (root:scanside 0640), and the mask of a systemd credential's ACL looks like a group.
    if path.stat().st_mode & stat.S_IRWXO:
        raise ConfigError(f"{path} is open to everybody on this machine; call 'chmod o= {path}', and make a new secret")


def cut(connection: socket.socket) -> None:
    """Make whatever another thread waits for on this socket fail now.

    ``SSLSocket.shutdown`` would first take the encryption away under the thread that sends: what it sent in that
    moment would leave in plain text. The method of the plain socket leaves it where it is.
    """
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


@contextlib.contextmanager
def ended_after(seconds: float, connection: socket.socket) -> Iterator[None]:
    """Cut a connection after so long, however slowly its peer drips: the limit of a socket holds for one byte."""
    timer = threading.Timer(seconds, cut, (connection,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def tls_fault(error: OSError, tls: ClientTls) -> str:
    """What went wrong with TLS, in words that tell who must mend what; nothing that the peer wrote."""
    if isinstance(error, ssl.SSLCertVerificationError):
        words = _CERTIFICATE.get(error.verify_code)
        if words is None:
            words = f"its certificate is not accepted (OpenSSL's code {error.verify_code}); let it show another"
        return words.format(ca=tls.ca_path)
    reason = str(getattr(error, "reason", "") or "")
    for marks, words in _HANDSHAKE:
        if any(mark in reason for mark in marks):
            return words
    if isinstance(error, ssl.SSLError) and reason:
        return f"no TLS with it is possible ({reason}); check port and certificates"
    return (
        "it ended the connection during the TLS handshake; is this its port for TLS, and does it know our certificate?"
    )


def _connected(who: object, host: str, port: int, timeout_s: float) -> socket.socket:
    try:
        connection = socket.create_connection((host, port), timeout_s)
    except TimeoutError as error:
        raise NoAssociation(f"no answer from {who} within {timeout_s:g} s; check network and firewall") from error
    except (socket.gaierror, UnicodeError) as error:
        raise NoAssociation(f"the name {host!r} cannot be resolved; correct host of the destination") from error
    except ConnectionRefusedError as error:
        raise NoAssociation(f"nothing listens for {who}; start it, or correct host and port") from error
    except OSError as error:
        raise NoAssociation(f"{who} cannot be reached: {error.strerror}; check network and firewall") from error
    # Without it each object waits some 40 ms for a delayed acknowledgement.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _why(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)


#: OpenSSL's verify codes (openssl-verification-options, "Diagnostics").
_CERTIFICATE = {
    3: "the file tls.ca_path holds no CRL of the CA that signed its certificate; put the right one there",
    9: "its certificate is not valid yet; check the clocks of both machines",
    10: "its certificate has expired; let its administrator renew it, or check this box's clock",
    12: "the CRL in tls.ca_path has expired; put the CA's present one there",
    18: "its certificate is self-signed and not the one in {ca}; if it is the right one, name it as tls.ca_path",
    19: "its certificate is signed by another CA than {ca} holds; name the right one as tls.ca_path",
    20: "its certificate is signed by another CA than {ca} holds; name the right one as tls.ca_path",
    21: "its certificate is signed by another CA than {ca} holds, or it sends its chain incompletely",
    23: "its certificate has been revoked; let its administrator replace it",
    62: "its certificate is for another name; set tls.server_name to the name in it, or let it be issued anew",
    64: "its certificate is for another address; set tls.server_name to the name in it, or let it be issued anew",
    66: "its key is too weak; let its administrator replace the certificate",
    67: "the CA's key is too weak; let the certificate be issued by another",
    68: "its certificate is signed with a weak digest; let it be issued anew",
}
#: Marks in OpenSSL's reason of a failed handshake.
_HANDSHAKE = (
    (
        ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH", "HTTP_REQUEST"),
        "it answers without TLS; check its port, or leave tls out",
    ),
    (("UNSUPPORTED_PROTOCOL", "PROTOCOL_VERSION"), "it speaks only a TLS older than 1.2; let it be updated"),
    (("CERTIFICATE_REQUIRED",), "it asks for a certificate of this box; set tls.certificate_path and tls.key_path"),
    (("CERTIFICATE_EXPIRED",), "it says that the certificate of this box has expired; renew it"),
    (("CERTIFICATE_REVOKED",), "it says that the certificate of this box was revoked; replace it"),
    (
        ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "ACCESS_DENIED", "UNSUPPORTED_CERTIFICATE"),
        "it does not accept the certificate of this box; let it trust the CA that signed it",
    ),
    (
        ("HANDSHAKE_FAILURE", "INSUFFICIENT_SECURITY", "NO_SHARED_CIPHER"),
        "it has no cipher suite in common with us, or wants a certificate of this box",
    ),
    (
        ("DH_KEY_TOO_SMALL", "KEY_TOO_SMALL", "MD_TOO_WEAK"),
        "its key is too weak; let its administrator replace the certificate",
    ),
)
