"""Which passwords are taken, how they are kept, and that a name that nobody has takes as long as a wrong password."""

from __future__ import annotations

import statistics
import time

import pytest
from argon2 import PasswordHasher, extract_parameters

from appliance.web.passwords import FAULT_COMMON, FAULT_LONG, FAULT_NAME, FAULT_SHORT, Passwords, fault, one_time

pytestmark = pytest.mark.req("R-ACCESS-01")


@pytest.fixture(scope="module")
def passwords():
    return Passwords()


def test_a_password_is_kept_as_argon2id_with_owasps_parameters_and_its_own_salt(passwords):
    first, second = passwords.hashed("correct horse"), passwords.hashed("correct horse")
    kept = extract_parameters(first)
    assert first.startswith("$argon2id$")
    assert (kept.memory_cost, kept.time_cost, kept.parallelism) == (19456, 2, 1)
    assert first != second
    assert passwords.fits(first, "correct horse")
    assert not passwords.fits(first, "correct horse ")


def test_a_damaged_or_missing_hash_lets_nobody_in(passwords):
    for kept in ("", "!", "$argon2id$v=19$m=1"):
        assert not passwords.fits(kept, "")
        assert not passwords.fits(kept, "anything")


def test_a_hash_of_other_parameters_still_fits_and_is_said_to_be_outdated(passwords):
    old = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash("correct horse")
    assert passwords.fits(old, "correct horse")
    assert passwords.is_outdated(old)
    assert not passwords.is_outdated(passwords.hashed("correct horse"))


def test_nobody_takes_as_long_as_a_wrong_password(passwords):
    kept = passwords.hashed("correct horse")

    def median(text):
        times = []
        for _ in range(9):
            begun = time.process_time()  # neighbours do not count
            passwords.fits(text, "wrong battery")
            times.append(time.process_time() - begun)
        return statistics.median(times)

    assert 0.4 < median("") / median(kept) < 2.5


def test_one_text_typed_in_two_ways_is_one_password(passwords):
    assert passwords.fits(passwords.hashed("ｓｃａｎｎｅｒ王Å staple"), "scanner王Å staple")


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("", FAULT_SHORT),
        ("ninechars", FAULT_SHORT),
        ("x" * 257, FAULT_LONG),
        ("i am Zhang.Wei indeed", FAULT_NAME),
        ("password123", FAULT_COMMON),
        ("P@ssw0rd2024", FAULT_COMMON),
        ("Scanside-2026!", FAULT_COMMON),
        ("0123456789", FAULT_COMMON),
        ("1990-12-31-2", FAULT_COMMON),
        ("aaaabbbbaaaa", FAULT_COMMON),
        ("ten chars.", ""),
        ("四个词语连在一起很好记", ""),
        ("staple battery horse", ""),
    ],
)
def test_length_counts_and_what_is_tried_first_is_refused(password, said):
    assert fault(password, "zhang.wei") == said


def test_a_one_time_password_is_taken_and_never_the_same():
    made = {one_time() for _ in range(100)}
    assert len(made) == 100
    assert not any(fault(one, "administrator") for one in made)
