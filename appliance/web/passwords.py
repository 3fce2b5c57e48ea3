"""Passwords: which are taken, how they are kept (Argon2id), and that a wrong name takes as long as a wrong password."""

from __future__ import annotations

import re
import secrets
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from appliance.web.i18n import N_

SHORTEST = 10
#: A longer one is no better, and every byte of it is hashed.
LONGEST = 256

# OWASP's first choice for Argon2id; two at a time take 38 MiB of a small box.
_MEMORY_KIB = 19 * 1024
_PASSES = 2
_LANES = 1

#: No letter or digit that looks like another.
_ONE_TIME = "abcdefghjkmnpqrstuvwxyz23456789"
#: What guessers try first, without the digits and marks that people put around it, and with a for @ and so on.
_COMMON = frozenset(
    {
        *("abc", "abcd", "abcde", "abcdef", "abcdefgh", "abcdefghij", "admin", "administrator", "asdf", "asdfgh"),
        *("asdfghjkl", "changeme", "clinic", "default", "doctor", "dragon", "football", "geheim", "hallo", "hello"),
        *(
            "hospital",
            "iloveyou",
            "kennwort",
            "krankenhaus",
            "letmein",
            "login",
            "master",
            "monkey",
            "pacs",
            "passwort",
        ),
        *(
            "passwd",
            "password",
            "princess",
            "qazwsx",
            "qazwsxedc",
            "qq",
            "qwe",
            "qwer",
            "qwert",
            "qwerty",
            "qwertyuiop",
        ),
        *("qwertz", "radiologie", "radiologist", "radiology", "root", "scanner", "scanside", "secret", "service"),
        *("sunshine", "superman", "technologist", "test", "user", "viewer", "welcome", "willkommen", "woaini"),
        *("woaiwojia", "xray", "yiyuan", "zaqwsx", "zxcvbn", "zxcvbnm"),
    }
)
_READ_AS = str.maketrans("0134578@$!", "oieastbasi")
_AROUND = re.compile(r"^[\W\d_]+|[\W\d_]+$")

FAULT_SHORT = N_("Give at least 10 characters.")
FAULT_LONG = N_("Give at most 256 characters.")
FAULT_NAME = N_("The password must not hold the name that you sign in with.")
FAULT_COMMON = N_("This is one of the first that somebody would try. Several words in a row make a good password.")


def fault(password: str, name: str) -> str:
    """Why a password is not taken, as a message id; empty for a good one.

    Length is what counts (NIST SP 800-63B); nobody has to mix kinds of characters, and no password grows old.
    """
    text = _plain(password)
    bare = text.casefold()
    if len(text) < SHORTEST:
        return FAULT_SHORT
    if len(text) > LONGEST:
        return FAULT_LONG
    if len(name) > 2 and name.casefold() in bare:
        return FAULT_NAME
    is_monotonous = len(set(bare)) < 5 or not any(sign.isalpha() for sign in bare)
    if is_monotonous or {_AROUND.sub("", bare), _AROUND.sub("", bare).translate(_READ_AS)} & _COMMON:
        return FAULT_COMMON
    return ""


def one_time() -> str:
    """A password that somebody is told and must change: 79 bits, easy to read out."""
    return "-".join("".join(secrets.choice(_ONE_TIME) for _ in range(4)) for _ in range(4))


class Passwords:
    """Makes and checks hashes; each takes tens of milliseconds and 19 MiB, so call it in a pool."""

    def __init__(self) -> None:
        """Make a hash that nothing fits, to be checked where there is no account."""
        self._hasher = PasswordHasher(time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES)
        self._nobody = self._hasher.hash(secrets.token_urlsafe(16))

    def hashed(self, password: str) -> str:
        """What is kept of a password, with its parameters and salt in it."""
        return self._hasher.hash(_plain(password))

    def fits(self, kept: str, password: str) -> bool:
        """Whether a password is the one that was kept. An empty ``kept`` (nobody, or no password) takes as long."""
        try:
            self._hasher.verify(kept or self._nobody, _plain(password)[: LONGEST + 1])
        except (VerificationError, InvalidHashError):
            return False
        return bool(kept)

    def is_outdated(self, kept: str) -> bool:
        """Whether it was made with other parameters than those of today, and should be made anew."""
        return self._hasher.check_needs_rehash(kept)


def _plain(password: str) -> str:
    """One form for what keyboards write in several ways (NFKC, as NIST SP 800-63B advises)."""
    return unicodedata.normalize("NFKC", password)
