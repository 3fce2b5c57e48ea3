"""What the sections of the configuration are made of: addresses, names, texts, and ``Section`` itself."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _network(text: str) -> str:
    ipaddress.ip_network(text, strict=False)
    return text


def _listening(text: str) -> str:
    try:
        ipaddress.ip_address("127.0.0.1" if text == "localhost" else text)
    except ValueError:
        msg = f"{text!r} is no IP address of this machine; 0.0.0.0 listens on all, 127.0.0.1 for this machine alone"
        raise ValueError(msg) from None
    return text


def _socket_address(text: str) -> str:
    """An IP address with its port, as 10.1.2.3:8001 or [fd00::5]:8001."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError as error:
        msg = "give one IP address and its port, as 10.1.2.3:8001; names are not looked up"
        raise ValueError(msg) from error
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        msg = f"{port!r} is no port; give one IP address and its port, as 10.1.2.3:8001"
        raise ValueError(msg)
    if (address.version == 6) != host.startswith("["):
        msg = "an IPv6 address stands in brackets, as [fd00::5]:8001"
        raise ValueError(msg)
    if address.is_unspecified or address.is_multicast:
        msg = f"{address} is no machine's address"
        raise ValueError(msg)
    return text


def _url(text: str) -> str:
    """An http or https address with a host, and nothing in it that is secret or means nothing to a server."""
    parts = urlsplit(text)
    try:
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        has_port = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not has_port or not text.isascii():
        msg = "give an address as https://host:port/path"
        raise ValueError(msg)
    if any(ord(letter) <= 0x20 for letter in text):
        msg = "no blanks stand in an address; write them as %20"
        raise ValueError(msg)
    if parts.username is not None or parts.fragment:
        msg = "no user, password or '#' stands in an address; passwords and tokens are read from a file"
        raise ValueError(msg)
    return text


def _https(text: str) -> str:
    if not _url(text).startswith("https://"):
        msg = "give an https address: who reads this on the way could sign in as anybody"
        raise ValueError(msg)
    return text


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine without a doubt."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Section(BaseModel):
    """A part of the configuration: frozen, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AeTitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[\x20-\x5b\x5d-\x7e]*[\x21-\x5b\x5d-\x7e]+$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Port = Annotated[int, Field(ge=0, le=65535)]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}$|^\[[0-9A-Fa-f:]+\]$")]
Origin = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.-]+(:\d{1,5})?$")]
HexBytes = Annotated[str, Field(pattern=r"^([0-9a-fA-F]{2}){1,64}$")]
Network = Annotated[str, AfterValidator(_network)]
SocketAddress = Annotated[str, AfterValidator(_socket_address)]
ListenAddress = Annotated[str, AfterValidator(_listening)]
Url = Annotated[str, AfterValidator(_url)]
HttpsUrl = Annotated[str, AfterValidator(_https)]
Language = Literal["en", "zh_Hans_CN"]
PhoneText = Annotated[str, Field(max_length=40, pattern=r"^[^\x00-\x1f\x7f]*$")]
