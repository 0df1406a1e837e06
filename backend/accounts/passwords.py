"""Passwords: what is accepted, and hashes that cannot be turned back.

Argon2id with 46 MiB, one pass, one lane: of the settings of equal strength in OWASP's Password Storage Cheat Sheet the one that
takes the most memory. About 60 ms of one core. Hashes made with others are made anew when their owner signs in.
"""

import asyncio
import functools
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

T = TypeVar("T")

# NIST SP 800-63B-4 asks for 15 characters where nothing but a password is asked for; twelve of them and a lock after ten tries.
SHORTEST, LONGEST = 12, 256

_hasher = PasswordHasher(time_cost=1, memory_cost=47_104, parallelism=1)
# Not the threads of everybody else: a heap of sign-ins holds up no other work, and takes no more memory than two hashes do.
_threads = ThreadPoolExecutor(2, "beatline-password")

# What people choose first when they are asked for twelve characters.
_COMMON = {
    *(
        "password",
        "passwort",
        "passw0rd",
        "p@ssw0rd",
        "p@ssword",
        "qwerty",
        "qwertyuiop",
        "asdfghjkl",
        "zxcvbnm",
        "1q2w3e4r",
    ),
    *(
        "1q2w3e4r5t",
        "1qaz2wsx",
        "qazwsx",
        "letmein",
        "welcome",
        "iloveyou",
        "administrator",
        "admin",
        "beatline",
        "changeme",
    ),
    *(
        "default",
        "secret",
        "football",
        "princess",
        "dragon",
        "monkey",
        "trustno",
        "correcthorsebatterystaple",
        "master",
        "login",
    ),
}
_PADDING = "0123456789!@#$%^&*?._- "


def weakness(password: str, *names: str | None) -> str | None:
    """Why a password is not accepted; None for a good one. `names` are those of its owner, which it must not hold."""
    text = _normal(password).casefold()
    if not SHORTEST <= len(_normal(password)) <= LONGEST:
        return f"must have {SHORTEST} to {LONGEST} characters"
    if len(set(text)) < 5:
        return "must have five different characters"
    if text.strip(_PADDING) in {*_COMMON, ""} or _halves(text) or _is_sequence(text):
        return "is one of the first that anybody would try"
    if any(name and len(name) > 3 and name.casefold() in text for name in names):
        return "must not hold the user's name or address"
    return None


def _halves(text: str) -> bool:
    """Whether a common word and its repetition are all there is."""
    return any(text.replace(word, "").strip(_PADDING) == "" for word in _COMMON if len(word) > 3 and word in text)


def _is_sequence(text: str) -> bool:
    steps = [ord(second) - ord(first) for first, second in pairwise(text)]
    return sum(step in {1, -1} for step in steps) >= len(steps) - 2


async def hash_password(password: str) -> str:
    return await _in_thread(functools.partial(_hasher.hash, _normal(password)))


async def verify(password: str, password_hash: str | None) -> bool:
    """Whether this is the password. With no hash to compare it takes as long, and is not."""
    return await _in_thread(functools.partial(_verify, _normal(password), password_hash))


def is_outdated(password_hash: str) -> bool:
    """Whether it was made with other parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)


def _verify(password: str, password_hash: str | None) -> bool:
    try:
        _hasher.verify(password_hash or _of_nobody(), password)
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None


@functools.cache
def _of_nobody() -> str:
    return _hasher.hash("the password of nobody")


def _normal(password: str) -> str:
    """One form, whichever way a keyboard composes its characters (NIST SP 800-63B-4, 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads, work)
