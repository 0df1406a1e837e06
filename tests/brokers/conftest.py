"""Both brokers, each with a plain and a TLS port, and workers on them."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import pools

from backend.celery_app import create_app
from backend.config import load
from devstack.processes import Supervisor
from devstack.rabbitmq import DEBIAN, RabbitServer
from devstack.readiness import free_port
from devstack.servers import ValkeyServer, embedded_valkey
from tests.brokers.certificates import Authority, Issued
from tests.brokers.site import Site

_TLS = """
listeners.ssl.default = 127.0.0.1:{port}
ssl_options.cacertfile = {authority}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.fixture(scope="session")
def server_certificate(authority: Authority) -> Issued:
    return authority.issue("server")


@pytest.fixture(scope="session")
def rabbitmq_tls_port() -> int:
    return free_port()


@pytest.fixture(scope="session")
def rabbitmq(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, server_certificate: Issued, rabbitmq_tls_port: int
) -> Iterator[RabbitServer]:
    """A node of these tests' own, for they restart it, with a TLS port besides."""
    folder = tmp_path_factory.mktemp("rabbitmq-tls")
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "90-tls.conf").write_text(
        _TLS.format(
            port=rabbitmq_tls_port,
            authority=authority.file,
            certificate=server_certificate.certificate,
            key=server_certificate.key,
        )
    )
    supervisor = Supervisor(logs=folder, run=folder)
    server = RabbitServer(supervisor, "rabbitmq", free_port(), folder)
    try:
        server.start()
        yield server
    finally:
        supervisor.close()


@pytest.fixture(scope="session")
def durable_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """With its append-only file, for it is restarted."""
    with embedded_valkey(tmp_path_factory.mktemp("durable-valkey")) as server:
        yield server


def _site(kind: str, server: RabbitServer | ValkeyServer, environment: dict[str, str], folder: Path) -> Site:
    return Site(kind, server, environment, create_app(load(environment)), folder)


@pytest.fixture
def on_redis(durable_valkey: ValkeyServer, tmp_path: Path) -> Site:
    return _site("redis", durable_valkey, {"REDIS_PORT": str(durable_valkey.port)}, tmp_path)


@pytest.fixture
def on_rabbitmq(rabbitmq: RabbitServer, durable_valkey: ValkeyServer, tmp_path: Path) -> Site:
    environment = {
        "CELERY_BROKER": "rabbitmq",
        "CELERY_RABBITMQ_PORT": str(rabbitmq.port),
        "REDIS_PORT": str(durable_valkey.port),
    }
    return _site("rabbitmq", rabbitmq, environment, tmp_path)


@pytest.fixture(params=["on_redis", "on_rabbitmq"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    found: Site = request.getfixturevalue(request.param)
    yield found
    found.forget()
    # Kombu shares connections between applications, and the next test's would meet those that this one broke.
    pools.reset()


@pytest.fixture(scope="session")
def valkey_tls_port(durable_valkey: ValkeyServer, authority: Authority, server_certificate: Issued) -> Iterator[int]:
    """Valkey behind a TLS terminator that asks for a certificate: the embedded server is built without TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.load_cert_chain(server_certificate.certificate, server_certificate.key)
    context.verify_mode = ssl.CERT_REQUIRED

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", durable_valkey.port)
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

    port, stop = free_port(), threading.Event()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
        started.set()
        await asyncio.to_thread(stop.wait)
        server.close()

    started = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(run(),), name="tls-terminator")
    thread.start()
    assert started.wait(10)
    yield port
    stop.set()
    thread.join(10)


@pytest.fixture
def fresh_rabbitmq(rabbitmq: RabbitServer, tmp_path: Path) -> Iterator[Site]:
    """A virtual host in which nothing was ever declared, and a user who may use no other."""
    name = f"fresh/{tmp_path.name}"
    _control(rabbitmq, "add_vhost", name)
    _control(rabbitmq, "add_user", name, "p@ss/word")
    _control(rabbitmq, "set_permissions", "-p", name, name, ".*", ".*", ".*")
    environment = {
        "CELERY_BROKER": "rabbitmq",
        "CELERY_RABBITMQ_HOST": "127.0.0.1",
        "CELERY_RABBITMQ_PORT": str(rabbitmq.port),
        "CELERY_RABBITMQ_USERNAME": name,
        "CELERY_RABBITMQ_PASSWORD": "p@ss/word",
        "CELERY_RABBITMQ_VHOST": name,
    }
    site = _site("rabbitmq", rabbitmq, environment, tmp_path)
    yield site
    site.forget()
    pools.reset()
    _control(rabbitmq, "delete_vhost", name)
    _control(rabbitmq, "delete_user", name)


def _control(server: RabbitServer, *arguments: str) -> None:
    command = [str(DEBIAN.with_name("rabbitmqctl")), "-n", f"beatline-{server.port}@localhost", *arguments]
    subprocess.run(command, env=server._environment(), check=True, capture_output=True, timeout=60)
