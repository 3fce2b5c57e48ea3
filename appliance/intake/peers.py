"""Who may send: a pure rule over AE titles and address. An AE title is a claim; only an address or TLS is a proof."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.config import Config
from appliance.records import SourceMode, SourceRef

UnknownSources = Literal["refuse", "accept"]
_HARMFUL = re.compile(r"[^ -~]|[\\/<>&\"';]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """One configured scanner."""

    name: str
    ae_title: str
    #: Addresses or networks ("10.1.2.3", "10.1.2.0/24", "fd00::/64") it calls from; empty = any.
    addresses: tuple[str, ...] = ()
    mode: SourceMode = SourceMode.PARALLEL
    stat: bool = False
    assume_charset: str = ""
    #: False of a destination that calls back with a report: it is no scanner.
    may_store: bool = True

    def at(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        """Whether the source may call from there."""
        return not self.addresses or any(address in ipaddress.ip_network(net, strict=False) for net in self.addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why an association is rejected: the codes of PS3.8 Table 9-21, and a message for the journal."""

    result: int
    source: int
    reason: int
    message: str


CALLED_AE, CALLING_AE = (1, 1, 7), (1, 1, 3)


@dataclass(frozen=True, slots=True)
class Peers:
    """The configured sources and what happens to others."""

    sources: Sequence[SourceSettings] = ()
    unknown_sources: UnknownSources = "refuse"
    #: Ours, if a peer must call it; "" accepts any.
    required_called_ae: str = ""
    #: Others under which we call destinations, which call them back.
    own_titles: frozenset[str] = frozenset()

    def resolve(self, calling_ae: str, called_ae: str, address: str) -> SourceRef | Rejection:
        """Find the source that an association comes from.

        AE titles are compared without leading and trailing spaces (PS3.5 §6.2). Of several sources with one AE title,
        one that names the address goes before one that takes any, and a scanner before a destination that calls back.
        """
        shown = f"AE title {harmless(calling_ae)!r} from {address}"
        ours = {title.strip() for title in (self.required_called_ae, *self.own_titles)}
        if self.required_called_ae and called_ae.strip() not in ours:
            return _reject(
                CALLED_AE,
                f"{shown} called {harmless(called_ae)!r}; this box is {self.required_called_ae!r}: correct the scanner",
            )
        where = _address(address)
        same_ae = [source for source in self.sources if source.ae_title.strip() == calling_ae.strip()]
        found = sorted(
            (source for source in same_ae if source.at(where)),
            key=lambda source: (not source.may_store, not source.addresses),
        )
        if found:
            source = found[0]
            return SourceRef(
                name=source.name,
                mode=source.mode,
                stat=source.stat,
                assume_charset=source.assume_charset,
                may_store=source.may_store,
            )
        if self.unknown_sources == "accept":
            return SourceRef(name=f"unknown {harmless(calling_ae)} {address}", mode=SourceMode.PARALLEL)
        if same_ae:
            names = ", ".join(source.name for source in same_ae)
            return _reject(CALLING_AE, f"{shown}: source {names} has other addresses; add this one to it")
        return _reject(CALLING_AE, f"{shown} is no configured source; add it under sources")


def peers_of(config: Config) -> Peers:
    """Who may call this box: its scanners, and the destinations that call back to report on storage commitment."""
    scanners = [
        SourceSettings(
            name=source.name,
            ae_title=source.ae_title,
            addresses=source.addresses,
            mode=source.mode,
            stat=source.stat,
            assume_charset=source.assume_charset,
        )
        for source in config.sources
    ]
    # A PACS reports from whichever machine it likes, so its address is no condition; it may not store here. No name of
    # a source has a blank in it.
    asked = config.commitment_destinations
    reporting = [
        SourceSettings(name=f"destination {one.name}", ae_title=one.ae_title, may_store=False) for one in asked
    ]
    return Peers(
        sources=(*scanners, *reporting),
        unknown_sources=config.dicom.unknown_sources,
        own_titles=frozenset(one.calling_ae_title for one in asked if one.calling_ae_title),
    )


def harmless(text: str) -> str:
    """A peer's text for journal, screens and files: 16 printable ASCII characters, no quote, slash, ``< > & ;``."""
    return _HARMFUL.sub("?", text.strip())[:16]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    # A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
    return getattr(address, "ipv4_mapped", None) or address


def _reject(codes: tuple[int, int, int], message: str) -> Rejection:
    result, source, reason = codes
    return Rejection(result=result, source=source, reason=reason, message=message)
