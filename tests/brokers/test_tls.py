"""TLS to both brokers and to Redis as the store of results, with an authority of the test's own."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from kombu import pools

from backend.celery_app import create_app
from backend.config import load
from backend.scheduling.publisher import BrokerAway, Message, Publisher
from devstack.rabbitmq import RabbitServer
from devstack.servers import ValkeyServer
from tests.brokers.certificates import Authority, Issued
from tests.brokers.site import Site, wait_for

# What each broker's variables begin with.
PREFIX = {"redis": "REDIS", "rabbitmq": "CELERY_RABBITMQ"}


@pytest.fixture
def client(authority: Authority) -> Issued:
    return authority.issue("client")


@pytest.fixture(params=["redis", "rabbitmq"])
def secure(
    request: pytest.FixtureRequest,
    rabbitmq: RabbitServer,
    durable_valkey: ValkeyServer,
    rabbitmq_tls_port: int,
    valkey_tls_port: int,
    authority: Authority,
    client: Issued,
    tmp_path: Path,
) -> Iterator[Site]:
    """The broker by its TLS port, verified, with a client's certificate; Redis by its own in both cases."""
    environment = {"CELERY_BROKER": request.param, "REDIS_PORT": str(valkey_tls_port)}
    environment["CELERY_RABBITMQ_PORT"] = str(rabbitmq_tls_port)
    for prefix in PREFIX.values():
        environment |= {
            f"{prefix}_HOST": "localhost",
            f"{prefix}_TLS": "verify",
            f"{prefix}_TLS_CA": str(authority.file),
            f"{prefix}_TLS_CERTIFICATE": str(client.certificate),
            f"{prefix}_TLS_KEY": str(client.key),
        }
    server = durable_valkey if request.param == "redis" else rabbitmq
    site = Site(request.param, server, environment, create_app(load(environment)), tmp_path)
    yield site
    site.forget()
    pools.reset()


def publish(environment: dict[str, str], *, times: int = 1) -> None:
    publisher = Publisher(create_app(load(environment)))
    try:
        lines = set()
        for _ in range(times):
            run = Message(uuid4(), "leave_a_mark", "audio")
            assert publisher.publish([run]) == [run.run_id]
            lines.add(id(publisher._line))
        assert len(lines) == 1, "it connected again"
    finally:
        publisher.close()


def changed(site: Site, **parts: str) -> dict[str, str]:
    """The environment with other values for the broker's TLS."""
    return site.environment | {f"{PREFIX[site.kind]}_TLS{part}": value for part, value in parts.items()}


def test_tasks_results_and_delays_pass_through_tls(secure: Site) -> None:
    assert secure.app.connection().as_uri().startswith({"redis": "rediss://", "rabbitmq": "amqps://"}[secure.kind])
    worker = secure.start()
    result = secure.app.send_task("leave_a_mark", kwargs={"name": "sealed"})
    assert result.get(timeout=30) == "sealed"
    secure.send("leave_a_mark", "later", countdown=1)
    secure.marked("later")
    assert not worker.said("CRITICAL")


def test_the_relay_publishes_through_tls_on_one_connection(secure: Site) -> None:
    publish(secure.environment, times=3)
    assert secure.waiting("audio") == 3


def test_a_server_of_another_authority_is_refused_by_relay_and_worker(secure: Site, tmp_path: Path) -> None:
    stranger = changed(secure, _CA=str(Authority(tmp_path, "stranger").file))
    with pytest.raises(BrokerAway, match="certificate verify failed"):
        publish(stranger)
    worker = secure.start(**stranger)
    wait_for(lambda: worker.said("certificate verify failed"))
    assert not worker.said(" ready.")


def test_a_client_without_a_certificate_is_refused(secure: Site) -> None:
    with pytest.raises(BrokerAway):
        publish(changed(secure, _CERTIFICATE="", _KEY=""))


def test_without_verification_any_server_will_do(secure: Site) -> None:
    publish(changed(secure, **{"": "on", "_CA": ""}))
