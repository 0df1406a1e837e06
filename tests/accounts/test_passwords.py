"""Which passwords are accepted, and how they are kept."""

import time

import pytest
from argon2 import PasswordHasher

from backend.accounts import passwords
from tests.fixtures.people import PASSWORD


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "12 to 256"),
        ("x" * 257, "12 to 256"),
        ("aaaaaaaaaaaaaa", "five different"),
        ("abababababab", "five different"),
        ("password1234", "first"),
        ("Passw0rd!!!!!!", "first"),
        ("qwertyqwerty12", "first"),
        ("1234567890123", "first"),
        ("abcdefghijklmn", "first"),
        ("zyxwvutsrqponm", "first"),
        ("!!2024!!2025!!", "first"),
        ("AdaLovelace-x9-kv", "name"),
        ("kv ada.l@example.net kv", "name"),
    ],
)
def test_a_password_that_is_guessed_first_is_refused_with_the_reason(password: str, why: str) -> None:
    assert why in (passwords.weakness(password, "adalovelace", "ada.l@example.net") or "")


@pytest.mark.parametrize(
    "password", [PASSWORD, "Tr4in-to-Ulm!", "пароль из девяти слов", "x7#kQ9!mZ2@p", "passwords are hard to guess"]
)
def test_others_are_accepted(password: str) -> None:
    assert passwords.weakness(password, "adalovelace", None) is None


def test_length_is_counted_after_normalisation() -> None:
    # One letter and its accent are one character.
    assert passwords.weakness("e\u0301" * 6 + "abcde") is not None


async def test_a_hash_is_argon2id_of_the_stated_cost_and_verifies_its_own_password_alone() -> None:
    made = await passwords.hash_password(PASSWORD)
    assert made.startswith("$argon2id$v=19$m=47104,t=1,p=1$")
    assert await passwords.verify(PASSWORD, made)
    assert not await passwords.verify(PASSWORD + " ", made)
    assert made != await passwords.hash_password(PASSWORD)
    assert not passwords.is_outdated(made)


async def test_the_same_characters_composed_otherwise_are_the_same_password() -> None:
    assert await passwords.verify("cafe\u0301 au lait, deux", await passwords.hash_password("caf\u00e9 au lait, deux"))


async def test_a_hash_of_other_parameters_verifies_and_is_outdated() -> None:
    old = PasswordHasher(time_cost=1, memory_cost=8_192, parallelism=1).hash(PASSWORD)
    assert await passwords.verify(PASSWORD, old)
    assert passwords.is_outdated(old)


@pytest.mark.parametrize("kept", ["none", "", "$argon2id$v=19$broken"])
async def test_what_is_no_hash_verifies_nothing(kept: str) -> None:
    assert not await passwords.verify(PASSWORD, kept)


async def test_with_nothing_to_compare_it_takes_as_long_and_fails() -> None:
    made = await passwords.hash_password(PASSWORD)
    await passwords.verify(PASSWORD, None)
    spent = {}
    for name, kept in (("known", made), ("unknown", None)):
        began = time.process_time()
        for _ in range(5):
            assert not await passwords.verify("wrong password", kept)
        spent[name] = time.process_time() - began
    assert 0.5 < spent["unknown"] / spent["known"] < 2
