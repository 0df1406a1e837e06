"""Ways to tell that a process is ready for its work."""

from __future__ import annotations

import http.client
import secrets
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from devstack.processes import Running

ANSWER_SECONDS = 1.0


def free_port(preferred: int = 0) -> int:
    """A loopback port that nobody listens on: the preferred one when it is free.

    The others lie below those that Linux gives to outgoing connections (from 32,768 on): a server that starts a while later still
    finds its port free.
    """
    for port in (preferred, *(15_000 + secrets.randbelow(17_000) for _ in range(100))):
        if not port:
            continue
        with socket.socket() as probe:
            # As servers do: a port of which only closing connections are left counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free loopback port")


def port_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False


def http_answers(url: str) -> bool:
    """Whether a GET of `url` is answered with 2xx."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def when_port(port: int) -> Callable[[Running], bool]:
    return lambda _running: port_answers(port)


def when_http(url: str) -> Callable[[Running], bool]:
    return lambda _running: http_answers(url)


def when_logged(text: str) -> Callable[[Running], bool]:
    """Ready when the log holds `text`."""
    wanted = text.encode()
    return lambda running: wanted in running.log.read_bytes()
