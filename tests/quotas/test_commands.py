"""`beatline quotas …`, as it is typed."""

from uuid import uuid4

import pytest

from backend.core.db import Database
from devstack.servers import PostgresServer
from tests.fixtures.command import beatline
from tests.fixtures.people import add_user
from tests.quotas.conftest import reserve, rows, standing


async def test_limits_are_set_and_shown(db: Database, postgres: PostgresServer) -> None:
    vera = await add_user(db, "vera")
    await add_user(db, "otto")
    none = await beatline("quotas", "list", "--used", url=postgres.url)
    assert (none.exit_code, none.stdout) == (0, "nobody has used anything today\n")
    done = await beatline("quotas", "set", "vera", "--minutes", "10", "--extra-files", "2", url=postgres.url)
    assert done.exit_code == 0
    now = await standing(db, vera)
    assert (now.limit_seconds, now.extra_files) == (600, 2)
    await reserve(db, vera, uuid4(), 90)
    for used, names in (((), {"vera", "otto"}), (("--used",), {"vera"})):
        shown = await beatline("quotas", "list", *used, url=postgres.url)
        lines = [line.split() for line in shown.stdout.splitlines()[1:]]
        assert {line[0] for line in lines} == names
    assert lines == [["vera", "standard", "0.0", "1.5", "8.5", "10.0", "0", "1", "101", "102"]]
    assert await rows(db, "select updated_by from user_quotas") == [("cli",)]


async def test_a_plan_is_made_given_and_shown(db: Database, postgres: PostgresServer) -> None:
    await add_user(db, "vera")
    made = await beatline("quotas", "set-plan", "pro", "--minutes", "900", url=postgres.url)
    assert (made.exit_code, made.stdout) == (0, "pro: minutes a day 900, files a day no limit\n")
    given = await beatline("quotas", "set", "vera", "--plan", "pro", url=postgres.url)
    assert given.stdout.splitlines()[1].split()[:2] == ["vera", "pro"]
    shown = await beatline("quotas", "plans", url=postgres.url)
    assert [line.split() for line in shown.stdout.splitlines()[1:]] == [
        ["pro", "900", "no", "limit", "1"],
        ["standard", "600", "100", "0"],
    ]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("set", "nobody"), "nobody"),
        (("set", "vera", "--plan", "gold"), "there are: standard"),
        (("set", "vera", "--minutes", "-1"), "--minutes"),
        (("set-plan", "No Plan"), "lower-case"),
    ],
)
async def test_what_cannot_be_is_refused_in_one_line(
    db: Database, postgres: PostgresServer, arguments: tuple[str, ...], why: str
) -> None:
    await add_user(db, "vera")
    answer = await beatline("quotas", *arguments, url=postgres.url)
    assert answer.exit_code == 2
    assert why in answer.stderr
