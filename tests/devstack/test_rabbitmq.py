import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from kombu import Connection, Exchange, Producer, Queue
from kombu.exceptions import OperationalError

from devstack.processes import family
from devstack.rabbitmq import INSTALL, RabbitMissing, RabbitServer, program
from devstack.rabbitmq import rabbitmq as running_rabbitmq

KEPT = Queue("kept", Exchange(""), "kept", durable=True, queue_arguments={"x-queue-type": "quorum"})

# RabbitMQ 3.10 writes the name of a new quorum queue to the disk up to 3 s later, confirmed messages or not.
NAME_WRITTEN_SECONDS = 5


def connect(server: RabbitServer) -> Connection:
    options = {"confirm_publish": True, "read_timeout": 10, "max_retries": 1, "interval_start": 0}
    return Connection(server.url, connect_timeout=3, transport_options=options)


def put(server: RabbitServer, body: str) -> None:
    with connect(server) as connection:
        Producer(connection).publish(body, exchange="", routing_key="kept", declare=[KEPT], delivery_mode=2)


def take(server: RabbitServer) -> object:
    with connect(server) as connection:
        channel: Any = connection.default_channel
        deadline = time.monotonic() + 10
        while (message := KEPT(channel).get(no_ack=True)) is None:
            assert time.monotonic() < deadline, "nothing arrived"
            time.sleep(0.05)
        return message.payload


def listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    found = set()
    for process in processes:
        for socket_ in process.net_connections("inet"):
            if socket_.status == psutil.CONN_LISTEN:
                found.add((socket_.laddr.ip, socket_.laddr.port))
    return found


def test_it_serves_on_loopback_alone_and_leaves_nothing_running_but_others(
    rabbitmq: RabbitServer, tmp_path: Path
) -> None:
    with running_rabbitmq(tmp_path) as server:
        members = [member for running in server.supervisor.running.values() for member in family(running.pid)]
        assert {ip for ip, _ in listening(members)} <= {"127.0.0.1", "::1"}
        put(server, "hello")
        assert take(server) == "hello"
    assert not [member for member in members if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]
    for port in (server.port, server.mapper_port, server.distribution_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)
    put(rabbitmq, "the other")
    assert take(rabbitmq) == "the other"


def test_a_durable_message_outlives_a_crash_a_pause_and_a_stop(tmp_path: Path) -> None:
    with running_rabbitmq(tmp_path) as server:
        port = server.port
        put(server, "before the crash")
        time.sleep(NAME_WRITTEN_SECONDS)
        server.kill()
        with pytest.raises(OperationalError, match="refused"):
            put(server, "nobody is there")
        server.start()
        assert server.port == port
        assert take(server) == "before the crash"

        put(server, "before the stop")
        server.pause()
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection, pytest.raises(TimeoutError):
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            connection.recv(1)
        server.resume()
        server.stop()
        server.start()
        assert take(server) == "before the stop"


def test_without_the_package_the_error_names_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(RabbitMissing, match=INSTALL):
        program(tmp_path / "rabbitmq-server", search=str(tmp_path))
