"""Messages that nobody of ours has sent: none of them stops a worker, each is followed by a good one that is executed."""

import json
from typing import Any
from uuid import uuid4

from backend.core.db import Database
from devstack.servers import PostgresServer
from tests.brokers.site import Site

HEADERS: dict[str, Any] = {
    "lang": "py",
    "task": "leave_a_mark",
    "id": "",
    "root_id": None,
    "parent_id": None,
    "group": None,
    "retries": 0,
    "timelimit": [None, None],
    "argsrepr": "()",
    "kwargsrepr": "{}",
    "origin": "elsewhere",
    "eta": None,
    "expires": None,
}
BODY = json.dumps([[], {"name": "forged"}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
PICKLED = b"cos\nsystem\n(S'touch /tmp/beatline-pwned'\ntR."


def of(**changes: Any) -> dict[str, Any]:
    """What to publish: a good message but for `changes`; `headers` are changed one by one, and one of `...` is left out."""
    headers = HEADERS | {"id": str(uuid4())} | changes.pop("headers", {})
    message = {"body": BODY, "content_type": "application/json", "content_encoding": "utf-8"}
    return message | {"headers": {name: value for name, value in headers.items() if value is not ...}} | changes


HOSTILE: dict[str, dict[str, Any]] = {
    "an unknown name": of(headers={"task": "os.system"}),
    "an unknown name without an id": of(headers={"task": "os.system", "id": ...}),
    "a name that is a list": of(headers={"task": ["leave_a_mark"]}),
    "no name": of(headers={"task": ...}),
    "no headers": of() | {"headers": {}},
    "no id": of(headers={"id": ...}),
    "an id that is a map": of(headers={"id": {"a": 1}}),
    "a body that is cut off": of(body=BODY[:20]),
    "a body that is not JSON": of(body="no json at all"),
    "an empty body": of(body=""),
    "a body of the wrong shape": of(body='{"args": 1, "kwargs": 2}'),
    "arguments that the task does not take": of(body=BODY.replace("name", "nome")),
    "a pickle": of(body=PICKLED, content_type="application/x-python-serialize", content_encoding="binary"),
    "a pickle that says it is JSON": of(body=PICKLED),
    "an unknown content type": of(content_type="application/x-unheard-of"),
    "an unknown encoding": of(content_encoding="klingon"),
    "an unknown compression": of(headers={"compression": "application/x-unheard-of"}),
    "limits that are words": of(headers={"timelimit": "long"}),
    "an expiry that is a word": of(headers={"expires": "tomorrow"}),
    "retries that are a word": of(headers={"retries": "many"}),
}

RAW = {
    "what is not JSON": b"\x00\xffnot json",
    "a number": b"17",
    "an empty map": b"{}",
    "a frame without a tag": json.dumps({"body": "", "headers": {}, "properties": {"delivery_info": {}}}).encode(),
    "a body in an unknown coding": json.dumps(
        {"body": "x", "headers": {}, "properties": {"delivery_info": {}, "delivery_tag": "1", "body_encoding": "rot13"}}
    ).encode(),
}


def publish(site: Site, message: dict[str, Any]) -> None:
    with site.app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        parts = dict(message)
        body = parts.pop("body")
        prepared = channel.prepare_message(
            body.encode() if isinstance(body, str) and site.kind == "rabbitmq" else body,
            0,
            parts["content_type"],
            parts["content_encoding"],
            parts["headers"],
            {"delivery_mode": 2, "correlation_id": str(uuid4()), "reply_to": str(uuid4())},
        )
        channel.basic_publish(prepared, exchange="", routing_key="default")


def test_no_message_stops_a_worker(site: Site, db: Database, postgres: PostgresServer) -> None:
    worker = site.start(DATABASE_URL=postgres.url)
    worker.ready()
    for number, (what, message) in enumerate(HOSTILE.items()):
        publish(site, message)
        site.send("leave_a_mark", f"good-{number}")
        site.marked(f"good-{number}", 15)
        assert worker.process.poll() is None, what
    assert not worker.said("Unrecoverable error")
    assert worker.log.read_text().count(" ready.") == 1, "the worker began anew"


def test_what_is_no_message_at_all_does_not_stop_a_worker(on_redis: Site) -> None:
    worker = on_redis.start()
    worker.ready()
    try:
        for number, (what, raw) in enumerate(RAW.items()):
            with on_redis.app.connection_for_write() as connection:
                client: Any = connection.default_channel
                client.client.lpush("default", raw)
            on_redis.send("leave_a_mark", f"good-{number}")
            on_redis.marked(f"good-{number}", 10)
            assert worker.process.poll() is None, what
        assert worker.log.read_text().count("dropped a message") == len(RAW)
    finally:
        on_redis.forget()
