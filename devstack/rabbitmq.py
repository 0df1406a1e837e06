"""RabbitMQ from the system's package, as a local process on loopback ports.

A node of its own: its name, cookie, data, port mapper and ports are nobody else's, and nothing under /etc/rabbitmq is read.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from devstack.processes import Service, Supervisor
from devstack.readiness import ANSWER_SECONDS, free_port, when_port
from devstack.servers import Server

INSTALL = "apt-get install -y --no-install-recommends rabbitmq-server"

# Not the one in /usr/sbin, which lets nobody but root and the user rabbitmq start it.
DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

# AMQP 0-9-1, section 4.2.2: a client opens with this, and the server answers with a method frame (type 1).
_HEADER, _METHOD_FRAME = b"AMQP\x00\x00\x09\x01", b"\x01"

# The write-ahead log of quorum queues is kept in memory too, up to 512 MB of it by default.
_SETTINGS = "raft.wal_max_size_bytes = 64000000\nvm_memory_high_watermark.absolute = 512MB\n"


class RabbitMissing(Exception):
    """The package is not installed; the message names the command that installs it."""


@dataclass(slots=True)
class RabbitServer(Server):
    """A RabbitMQ node without plugins, with the user guest; what is durable outlives `kill` and `stop`."""

    directory: Path
    distribution_port: int = field(default_factory=free_port)
    mapper_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        """Start the port mapper unless it runs, and the node; wait until it serves."""
        mapper = self._mapper()
        if mapper.name not in self.supervisor.running:
            self.supervisor.start(mapper)
            self.supervisor.wait_ready(mapper.name)
        Server.start(self)

    def stop(self) -> None:
        self.supervisor.stop(self.name, f"{self.name}-epmd")

    def service(self) -> Service:
        self._prepare()
        return Service(
            self.name,
            (str(program()),),
            self._environment(),
            lambda _running: _rabbitmq_ready(self.port),
            cwd=self.directory,
            stage=1,
            grace_seconds=20.0,
        )

    def _mapper(self) -> Service:
        """Erlang's port mapper in the foreground: the node would leave a daemon behind."""
        epmd = shutil.which("epmd")
        if epmd is None:
            raise RabbitMissing(f"Erlang's epmd is not installed; `{INSTALL}` installs it")
        argv = (epmd, "-address", "127.0.0.1", "-port", str(self.mapper_port))
        return Service(f"{self.name}-epmd", argv, {"PATH": os.defpath}, when_port(self.mapper_port))

    def _prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        cookie = self.directory / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(secrets.token_hex(16))
            cookie.chmod(0o400)
        (self.directory / "rabbitmq.conf").write_text(_SETTINGS)
        (self.directory / "enabled_plugins").write_text("[].\n")
        (self.directory / "rabbitmq-env.conf").write_text("")

    def _environment(self) -> dict[str, str]:
        """Documented at rabbitmq.com/docs/configure; RUNNING_UNDER_SYSTEMD lets the shell script become the node."""
        home = self.directory
        return {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "RUNNING_UNDER_SYSTEMD": "true",
            "ERL_EPMD_PORT": str(self.mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"beatline-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(home / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "logs"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(home / "rabbitmq.pid"),
        }


@contextlib.contextmanager
def rabbitmq(folder: Path, port: int | None = None) -> Iterator[RabbitServer]:
    """A running server over `folder` on 127.0.0.1 and `.port`; raises RabbitMissing without the system's package."""
    supervisor = Supervisor(logs=folder, run=folder)
    server = RabbitServer(supervisor, "rabbitmq", port or free_port(), folder)
    try:
        server.start()
        yield server
    finally:
        supervisor.close()


def program(preferred: Path = DEBIAN, search: str | None = None) -> Path:
    """The start script: `preferred`, or the first of that name on the path `search` (None: the environment's)."""
    found = preferred if preferred.exists() else shutil.which("rabbitmq-server", path=search)
    if found is None:
        raise RabbitMissing(f"rabbitmq-server is not installed; `{INSTALL}` installs it")
    return Path(found)


def _rabbitmq_ready(port: int) -> bool:
    """Whether it greets: the port opens when every queue has recovered."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(_HEADER)
            return connection.recv(1) == _METHOD_FRAME
    except OSError:
        return False
