"""Cursors."""

import base64
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from backend.core.errors import Invalid
from backend.core.paging import decode_cursor, encode_cursor


def test_a_cursor_gives_its_position_back() -> None:
    position = (datetime(2026, 11, 21, 4, 30, 0, 123456, UTC), uuid4())
    assert decode_cursor(encode_cursor(position)) == position


def test_no_cursor_means_the_beginning() -> None:
    assert decode_cursor(None) is None


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", "MjAyNg", "\u00e9", "YWJjfGRlZg"])
def test_a_cursor_that_was_not_ours_is_refused_with_the_fix(cursor: str) -> None:
    with pytest.raises(Invalid, match="leave it out"):
        decode_cursor(cursor)


def test_an_instant_that_no_clock_has_in_utc_is_refused() -> None:
    forged = base64.urlsafe_b64encode(f"0001-01-01T00:00:00+14:00|{uuid4()}".encode()).decode().rstrip("=")
    with pytest.raises(Invalid, match="leave it out"):
        decode_cursor(forged)
