"""Facts of who was here and what they looked at or changed: the audit part of the journal."""

from __future__ import annotations

from appliance.records import UserRole
from appliance.store.facts.kinds import Body, Kind


class SignedIn(Body):
    """``how``: password | oidc | pairing | token."""

    kind = Kind.SIGNED_IN
    how: str


class SignInFailed(Body):
    """Somebody gave a wrong name or password. A name is kept only if an account has it: people type secrets there."""

    kind = Kind.SIGN_IN_FAILED
    how: str
    account: str = ""


class SignedOut(Body):
    """``why``: asked | idle | disabled | revoked."""

    kind = Kind.SIGNED_OUT
    why: str


class AccessDenied(Body):
    """A page or act that the role does not have; the pattern of the address, never its values."""

    kind = Kind.ACCESS_DENIED
    route: str


class Accessed(Body):
    """Somebody saw what is not on every screen: ``what`` is identity, study, images, worklist, audit, export, ..."""

    kind = Kind.ACCESSED
    what: str


class AccountChanged(Body):
    """``change``: added | role | name | password | enabled | disabled."""

    kind = Kind.ACCOUNT_CHANGED
    account: str
    change: str
    role: UserRole
    reason: str = ""


class ScreenChanged(Body):
    """``change``: added | code | paired | sources | revoked."""

    kind = Kind.SCREEN_CHANGED
    screen: str
    change: str
    sources: tuple[str, ...] = ()
    reason: str = ""


class TokenChanged(Body):
    """``change``: added | revoked."""

    kind = Kind.TOKEN_CHANGED
    token: str
    change: str
    role: UserRole
    sources: tuple[str, ...] = ()
