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
    kept = await beatline("quotas", "delete-plan", "pro", url=postgres.url)
    assert (kept.exit_code, kept.stderr.startswith("beatline: one user has the plan 'pro'")) == (2, True)
    await beatline("quotas", "set", "vera", "--plan", "standard", url=postgres.url)
    gone = await beatline("quotas", "delete-plan", "pro", url=postgres.url)
    assert (gone.exit_code, gone.stdout) == (0, "the plan pro is deleted\n")


async def test_what_is_left_out_stays_and_a_word_takes_it_back(db: Database, postgres: PostgresServer) -> None:
    vera = await add_user(db, "vera")
    await beatline("quotas", "set-plan", "pro", "--minutes", "900", "--files", "50", url=postgres.url)
    for given, minutes, files in (
        (("--plan", "pro"), 900, 50),
        (("--minutes", "90"), 90, 50),
        (("--extra-files", "10"), 90, 60),
        (("--minutes", "plan", "--extra-files", "0"), 900, 50),
        (("--files", "0"), 900, 0),
        (("--files", "plan"), 900, 50),
        (("--plan", "standard"), 600, 100),
    ):
        done = await beatline("quotas", "set", "vera", *given, url=postgres.url)
        assert done.exit_code == 0, done.output
        now = await standing(db, vera)
        assert (now.limit_seconds, now.limit_files) == (minutes * 60, files)


async def test_a_limit_of_a_plan_that_is_left_out_stays(db: Database, postgres: PostgresServer) -> None:
    for name, given, told in (
        ("pro", ("--files", "50"), "minutes a day no limit, files a day 50"),
        ("pro", ("--minutes", "900"), "minutes a day 900, files a day 50"),
        ("pro", ("--files", "none"), "minutes a day 900, files a day no limit"),
        ("standard", ("--minutes", "30"), "minutes a day 30, files a day 100"),
    ):
        done = await beatline("quotas", "set-plan", name, *given, url=postgres.url)
        assert (done.exit_code, done.stdout) == (0, f"{name}: {told}\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("set", "nobody", "--files", "1"), "nobody"),
        (("set", "vera", "--plan", "gold"), "there are: standard"),
        (("set", "vera", "--minutes", "-1"), "--minutes"),
        (("set", "vera", "--minutes", "1000001"), "is neither a"),
        (("set", "vera", "--files", "none"), "is neither a"),
        (("set", "vera"), "say what to change"),
        (("delete-plan", "gold"), "no plan 'gold'"),
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
