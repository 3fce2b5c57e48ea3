"""The door: who may try a password and how often, whether it is right, and what the journal hears of wrong ones."""

from __future__ import annotations

import math

from starlette.requests import Request

from appliance.records import Actor
from appliance.store import Store
from appliance.store.accounts import Account
from appliance.web.passwords import Passwords
from appliance.web.pool import Pool
from appliance.web.throttle import Rate, SignInThrottle, address_key


class WaitFirst(Exception):  # noqa: N818 - a state, not a fault
    """Too many attempts; ``wait_s`` whole seconds to wait."""

    def __init__(self, wait_s: float) -> None:
        """Round up, so that who comes back then is let through."""
        self.wait_s = math.ceil(wait_s)
        super().__init__(f"wait {self.wait_s} s")


class Door:
    """Checks passwords. Hashing has a pool of its own: whoever tries many passwords only makes others wait there."""

    def __init__(self, store: Store, pool: Pool) -> None:
        """Ask ``store`` in ``pool``."""
        clock = store.db.clock
        self._store = store
        self._pool = pool
        self._slow = pool.beside(2, "web-password")
        self._passwords = Passwords()
        self._throttle = SignInThrottle(clock)
        self._told = Rate(clock, 1, 1.0)

    async def check(self, request: Request, name: str, password: str) -> Account | None:
        """The account that this name and password open, or None.

        Raises:
            WaitFirst: Too many attempts for this account or from this address.
        """
        address = address_of(request)
        if wait_s := self._throttle.attempt(name, address):
            raise WaitFirst(wait_s)
        found = await self._pool.run(self._store.accounts.by_name, name)
        kept = found[1] if found else ""
        fits = await self._slow.run(self._passwords.fits, kept, password)
        if found is None or not fits or not found[0].is_active:
            await self.tell_failed(request, "password", found[0].name if found else "")
            return None
        account = found[0]
        self._throttle.succeeded(name, address)
        if self._passwords.is_outdated(kept):
            new = await self._slow.run(self._passwords.hashed, password)
            await self._pool.run(self._store.accounts.rehash, account.id, kept, new)
        return account

    async def change(self, account: Account, password: str, actor: Actor, *, must_change: bool) -> None:
        """Give an account another password; every browser of it is signed out."""
        kept = await self.hashed(password)
        await self._pool.run(self._store.accounts.set_password, account.id, kept, actor, must_change=must_change)

    async def hashed(self, password: str) -> str:
        """What the store keeps of a password."""
        return await self._slow.run(self._passwords.hashed, password)

    async def tell_failed(self, request: Request, how: str, account: str = "") -> None:
        """A fact for the journal; at most one a second of each address, for whoever reaches the page can make them."""
        if not self._told.take(address_of(request)):
            await self._pool.run(self._store.audit.sign_in_failed, how, account)


def address_of(request: Request) -> str:
    """Where a request comes from, as the rates count it."""
    return address_key(request.client.host if request.client else "")
