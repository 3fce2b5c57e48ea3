"""Waits after failed attempts: in memory, of bounded size, and never for ever."""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass

from appliance.clock import Clock

#: Whom we remember; the one who failed longest ago is forgotten first.
_KEYS = 4096
_FORGET_S = 3600.0


@dataclass(slots=True)
class _Failures:
    count: int
    last: float
    #: Until then nothing is checked.
    until: float


class Throttle:
    """Five attempts are free; then 30 s of waiting, doubled by every further failure up to 15 min."""

    def __init__(self, clock: Clock, *, free: int = 5, first_s: float = 30.0, longest_s: float = 900.0) -> None:
        """Count by ``clock``'s monotonic hand."""
        self._clock = clock
        self._free = free
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._lock = threading.Lock()

    def attempt(self, key: str) -> float:
        """Somebody wants to try: the seconds to wait first, or 0, and then the attempt counts as failed.

        To count before checking is what stops many attempts at the same moment.
        """
        now = self._clock.monotonic()
        with self._lock:
            found = self._failures.pop(key, None)
            if found is None or now - found.last > _FORGET_S:
                found = _Failures(0, now, 0.0)
            self._failures[key] = found
            while len(self._failures) > _KEYS:
                self._failures.popitem(last=False)
            if found.until > now:
                return found.until - now
            found.count += 1
            found.last = now
            if found.count >= self._free:
                # The exponent is bounded before the power is: nobody waits for a number of a million digits.
                doublings = min(found.count - self._free, 16)
                found.until = now + min(self._first_s * 2**doublings, self._longest_s)
            return 0.0

    def forget(self, key: str) -> None:
        """The attempt succeeded, and what was before it is forgiven."""
        with self._lock:
            self._failures.pop(key, None)

    def give_back(self, key: str) -> None:
        """The last attempt was none, or succeeded; what was before it stays."""
        with self._lock:
            found = self._failures.get(key)
            if found is not None:
                found.count -= 1
                found.until = 0.0


class SignInThrottle:
    """Who may try a password: by account and by address.

    An account is known to be at home at the addresses where it signed in since the start. There it is counted apart:
    who fails on purpose elsewhere cannot keep its owner out.
    """

    def __init__(self, clock: Clock) -> None:
        """Begin with nobody waiting."""
        self._names = Throttle(clock)
        # Several people share a workstation.
        self._addresses = Throttle(clock, free=10)
        self._homes: OrderedDict[str, None] = OrderedDict()

    def attempt(self, name: str, address: str) -> float:
        """Seconds to wait, or 0: then the attempt counts until it ``succeeded``."""
        wait_s = self._addresses.attempt(address)
        if not wait_s:
            wait_s = self._names.attempt(self._key(name, address))
            if wait_s:
                self._addresses.give_back(address)
        return wait_s

    def succeeded(self, name: str, address: str) -> None:
        """The password was right. Others who failed at this address still count: their accounts are not this one."""
        self._names.forget(self._key(name, address))
        self._addresses.give_back(address)
        self._homes[_at(name, address)] = None
        self._homes.move_to_end(_at(name, address))
        while len(self._homes) > _KEYS:
            self._homes.popitem(last=False)

    def _key(self, name: str, address: str) -> str:
        at = _at(name, address)
        return at if at in self._homes else name.casefold()[:64]


def _at(name: str, address: str) -> str:
    return f"{name.casefold()[:64]} at {address}"


class Rate:
    """At most so many within a time, of each key."""

    def __init__(self, clock: Clock, count: int, within_s: float) -> None:
        """Let ``count`` through in any ``within_s`` seconds."""
        self._clock = clock
        self._count = count
        self._within_s = within_s
        self._times: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str = "") -> float:
        """Take one: 0, or the seconds until there is one to take."""
        now = self._clock.monotonic()
        with self._lock:
            times = self._times.pop(key, deque())
            self._times[key] = times
            while len(self._times) > _KEYS:
                self._times.popitem(last=False)
            while times and now - times[0] >= self._within_s:
                times.popleft()
            if len(times) >= self._count:
                return self._within_s - (now - times[0])
            times.append(now)
            return 0.0

    def give_back(self, key: str = "") -> None:
        """The one taken last did not count."""
        with self._lock:
            times = self._times.get(key)
            if times:
                times.pop()


def address_key(host: str) -> str:
    """One caller's address; of IPv6 the network that a single machine has to itself."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 6 and not address.is_loopback:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
