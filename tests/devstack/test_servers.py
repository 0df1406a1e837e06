import asyncio
import os
import pwd
import shutil
import socket
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis import Redis

from devstack.processes import Account, Supervisor, family
from devstack.readiness import free_port
from devstack.servers import PostgresServer, ValkeyServer, embedded_postgres, embedded_valkey
from devstack.unprivileged import OUTSIDE, account_for_server, reachable_copy, reachable_home, reaches


async def ask(url: str, query: str) -> object:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_postgres_comes_back_on_its_port_with_its_data(tmp_path: Path) -> None:
    with embedded_postgres(tmp_path / "data", fast=True) as server:
        await ask(server.url, "create table kept (n int)")
        server.stop()
        with pytest.raises(ConnectionError):
            await ask(server.url, "select 1")
        server.start()
        assert await ask(server.url, "select count(*) from kept") == 0


async def test_postgres_recovers_what_was_committed_before_a_crash(tmp_path: Path) -> None:
    with embedded_postgres(tmp_path / "data", fast=True) as server:
        await ask(server.url, "create table kept (n int)")
        await ask(server.url, "insert into kept values (7)")
        server.kill()
        server.start()
        assert await ask(server.url, "select n from kept") == 7


async def test_a_paused_postgres_keeps_connections_and_answers_after_it_resumes(tmp_path: Path) -> None:
    with embedded_postgres(tmp_path / "data", fast=True) as server:
        connection = await asyncpg.connect(server.url)
        server.pause()
        late = asyncio.create_task(connection.fetchval("select 5"))
        await asyncio.sleep(0.3)
        assert not late.done()
        server.resume()
        assert await asyncio.wait_for(late, 5) == 5
        await connection.close()


async def test_postgres_asks_for_its_password(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "logs", tmp_path / "run")
    server = PostgresServer(supervisor, "postgres", free_port(), tmp_path / "data", "s3cret with space", fast=True)
    try:
        server.start()
        assert await ask(server.url, "select current_user") == "beatline"
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(server.url.replace("s3cret", "wrong"), "select 1")
    finally:
        supervisor.close()
        server.discard()
    assert {path.name for path in supervisor.run.parent.iterdir()} == {"logs", "run"}


async def test_postgres_speaks_unicode_and_utc(tmp_path: Path) -> None:
    with embedded_postgres(tmp_path / "data", fast=True) as server:
        assert await ask(server.url, "select lower('ÀÉÜ')") == "àéü"
        assert await ask(server.url, "show timezone") == "UTC"


def test_valkey_keeps_what_was_written_before_a_crash_and_never_evicts(tmp_path: Path) -> None:
    with embedded_valkey(tmp_path / "valkey") as server:
        with Redis(port=server.port, decode_responses=True) as client:
            client.set("kept", "yes")
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            # Written every second: a moment longer, and a crash of the process loses nothing.
            client.waitaof(1, 0, 3000)
        server.kill()
        server.start()
        with Redis(port=server.port, decode_responses=True) as client:
            assert client.get("kept") == "yes"


def test_valkey_asks_for_its_password_and_listens_on_loopback_alone(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "logs", tmp_path / "run")
    server = ValkeyServer(supervisor, "valkey", free_port(), tmp_path / "valkey", "s3cret")
    try:
        server.start()
        with Redis(port=server.port, password="s3cret") as client:
            assert client.ping()
        with socket.create_connection(("127.0.0.1", server.port)) as stranger:
            stranger.sendall(b"GET kept\r\n")
            assert stranger.recv(64).startswith(b"-NOAUTH")
        listening = {
            connection.laddr.ip
            for member in family(supervisor.running["valkey"].pid)
            for connection in member.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
    finally:
        supervisor.close()


def test_the_servers_end_with_their_context(tmp_path: Path) -> None:
    with embedded_valkey(tmp_path / "valkey") as server:
        pid = server.supervisor.running["valkey"].pid
    assert not psutil.pid_exists(pid)


def test_an_ordinary_user_runs_the_servers_as_himself_in_place(tmp_path: Path) -> None:
    assert reachable_home(None, tmp_path / "data") == tmp_path / "data"
    program = tmp_path / "tree" / "program"
    assert reachable_copy(None, program, (tmp_path / "tree",), "unused") == program


def test_root_runs_postgres_as_somebody_else() -> None:
    account = account_for_server()
    if os.geteuid() == 0:
        assert account is not None
        assert pwd.getpwuid(account.uid).pw_uid != 0
    else:
        assert account is None


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A folder into which only its owner may go."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    return folder


def test_data_behind_a_closed_folder_is_kept_outside_it_for_the_other_account(closed: Path) -> None:
    account = account_for_server() or Account(os.getuid(), os.getgid())
    if os.geteuid() != 0:
        assert reachable_home(None, closed / "data") == closed / "data"
        return
    home = reachable_home(account, closed / "data")
    try:
        assert not home.is_relative_to(closed)
        assert (closed / "data").readlink() == home
        assert reachable_home(account, closed / "data") == home
    finally:
        home.parent.rmdir()


def test_programs_behind_a_closed_folder_are_copied_once_to_where_the_other_account_can_run_them(closed: Path) -> None:
    account = account_for_server()
    if account is None:
        return
    program = closed / "tree" / "bin" / "program"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho runs\n")
    program.chmod(0o700)
    tag = f"test-{os.getpid()}"
    copied = reachable_copy(account, program, (closed / "tree",), tag)
    try:
        assert reaches(account, copied)
        assert reachable_copy(account, program, (closed / "tree",), tag) == copied
        copied.unlink()
        assert reaches(account, reachable_copy(account, program, (closed / "tree",), tag))
    finally:
        shutil.rmtree(OUTSIDE / f"beatline-{tag}")
