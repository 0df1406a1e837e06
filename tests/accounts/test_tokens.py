"""What tokens are made of."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from backend.accounts import tokens
from backend.config import Config, load
from backend.core.clock import utc_now

KEYS = tokens.Keys(b"a" * 32, b"b" * 32)


def config(**settings: str) -> Config:
    return load({"BEATLINE_SERVICE_KEY": "service-key-0123456789-0123456789", **settings})


@pytest.mark.parametrize("info", [b"", b"beatline access token"])
def test_keys_are_derived_as_rfc_5869_says(info: bytes) -> None:
    secret = b"service-key-0123456789-0123456789"
    assert tokens.hkdf(secret, info) == HKDF(SHA256(), 32, salt=None, info=info).derive(secret)


def test_no_key_is_the_service_key_or_the_other_one_and_a_token_key_replaces_both() -> None:
    derived = tokens.keys_of(config())
    assert config().service_key.encode() not in {derived.access, derived.refresh}
    assert derived.access != derived.refresh
    own = tokens.keys_of(config(BEATLINE_TOKEN_KEY="token-key-0123456789-0123456789-0"))
    assert {own.access, own.refresh}.isdisjoint({derived.access, derived.refresh})
    rotated = replace(config(), service_key="another-key-0123456789-0123456789")
    assert tokens.keys_of(rotated) != derived


def claims(**others: Any) -> dict[str, Any]:
    now = int(utc_now().timestamp())
    whole = {"iss": "beatline", "sub": str(uuid4()), "sid": str(uuid4()), "iat": now, "exp": now + 60, **others}
    return {name: value for name, value in whole.items() if value is not None}


def signed(key: bytes = KEYS.access, algorithm: str = "HS256", **others: Any) -> str:
    return jwt.encode(claims(**others), key, algorithm=algorithm)


def test_an_access_token_names_its_session() -> None:
    session_id = uuid4()
    token = tokens.access_token(
        KEYS, user_id=uuid4(), session_id=session_id, now=utc_now(), lasting=timedelta(minutes=1)
    )
    assert tokens.session_of_access(KEYS, token) == session_id


def test_a_token_of_a_host_whose_clock_is_ahead_is_good() -> None:
    assert tokens.session_of_access(KEYS, signed(iat=int(utc_now().timestamp()) + 30)) is not None


@pytest.mark.parametrize(
    "token",
    [
        "",
        "garbage",
        "a.b.c",
        "ключ",
        "bl_aaaaaaaaaa_x",
        signed(KEYS.refresh),
        signed(exp=int(utc_now().timestamp()) - 1),
        signed(exp=None),
        signed(sid=None),
        signed(sid="not-a-uuid"),
        signed(sid=7),
        signed(iss="somebody-else"),
        signed(b"c" * 48, "HS384"),
        signed(KEYS.access * 2, "HS512"),
        jwt.encode(claims(), "", algorithm="none"),
    ],
)
def test_any_other_access_token_names_none(token: str) -> None:
    assert tokens.session_of_access(KEYS, token) is None


def test_refresh_tokens_differ_by_session_number_seed_and_key_and_by_nothing_else() -> None:
    one: dict[str, Any] = {"session_id": uuid4(), "seed": tokens.new_seed(), "generation": 1}
    made = tokens.refresh_token(KEYS, **one)
    assert made == tokens.refresh_token(KEYS, **one)
    assert tokens.parts_of_refresh(made) == (one["session_id"], 1)
    others: list[dict[str, Any]] = [{"session_id": uuid4()}, {"seed": tokens.new_seed()}, {"generation": 2}]
    assert made not in {tokens.refresh_token(KEYS, **one | other) for other in others}
    assert made != tokens.refresh_token(tokens.Keys(KEYS.access, b"c" * 32), **one)


@pytest.mark.parametrize("token", ["", "blr_", "blr_0_1_2", f"blr_{'0' * 32}_9999999999_{'0' * 64}", "x" * 400])
def test_what_has_not_the_form_of_a_refresh_token_has_no_parts(token: str) -> None:
    assert tokens.parts_of_refresh(token) is None


def test_an_api_key_is_found_by_its_prefix_and_kept_as_a_hash() -> None:
    prefix, key = tokens.new_api_key()
    assert tokens.prefix_of(key) == prefix
    assert key.startswith(f"bl_{prefix}_")
    assert key[-48:] not in tokens.hashed(key)
    assert tokens.prefix_of(key + "0") is None
    assert tokens.prefix_of("bl_") is None
    assert len({tokens.new_api_key()[1] for _ in range(50)}) == 50
