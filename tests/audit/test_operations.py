"""A request that may change something is logged, after its answer, once, without its secrets."""

import asyncio
import json
import logging
from uuid import uuid4

import asyncpg
import pytest

from backend.audit import service as audit
from backend.audit.noting import columns
from backend.audit.service import Recorder
from backend.audit.tasks import log_operation, sweep_audit_outbox
from backend.core.db import Database
from devstack.servers import PostgresServer
from tests.audit.conftest import Logged, operations, waiting
from tests.factories.notes import noted
from tests.fixtures.product import Product, Start, eventually
from tests.fixtures.sent import Sent
from tests.recordings.uploads.files import wav

DISCARD = "/api/dead-letters/{}/discard"
TEMPLATES = "/api/job-templates"


async def test_a_request_is_logged_with_who_what_and_how_it_ended(product: Product, logged: Logged) -> None:
    headers = {"User-Agent": "tests/1", "X-Request-ID": "trace-9"}
    url, body = f"{TEMPLATES}/77?why=no+use", {"version": 1, "description": "gone"}
    answer = await product.client.patch(url, headers=headers, json=body)
    assert answer.status_code == 404
    (entry,) = await logged()
    assert (entry.actor_kind, entry.actor, entry.user_id) == ("service", "service", None)
    assert (entry.method, entry.status, entry.route) == ("PATCH", 404, f"{TEMPLATES}/{{template_id}}")
    assert (entry.path, entry.params) == (f"{TEMPLATES}/77", {"template_id": "77"})
    assert (entry.address, entry.user_agent, entry.request_id) == ("127.0.0.1", "tests/1", "trace-9")
    assert entry.request == {"query": {"why": "no use"}, "body": body}
    assert 0 < entry.duration_ms < 20_000


@pytest.mark.parametrize(
    ("content_type", "body", "kept"),
    [
        ("application/json", b'{"text": "plum", "version": 3}', {"text": "[redacted]", "version": 3}),
        ("application/x-www-form-urlencoded", b"text=plum&version=3", {"text": "[redacted]", "version": "3"}),
        ("application/json", b'["plum"]', {"omitted": "application/json", "bytes": 8}),
        ("application/json", b"plum", {"omitted": "application/json", "bytes": 4}),
    ],
)
def test_of_a_body_with_peoples_own_words_the_log_has_the_rest(
    content_type: str, body: bytes, kept: dict[str, object]
) -> None:
    given = noted(content_type=content_type, body=body, size=len(body), private=frozenset({"text"}))
    assert columns(given)["request"] == {"body": kept}


async def test_of_an_upload_the_log_has_neither_its_name_nor_its_title(product: Product, logged: Logged) -> None:
    words = {"title": "About plums", "filename": "plums.wav", "hints": "plum jam", "language": "en"}
    assert (await product.client.post("/api/recordings", params=words, content=wav())).status_code == 201
    began = {"Tus-Resumable": "1.0.0", "Upload-Length": "9000"}
    assert (await product.client.post("/api/recordings", params=words, headers=began)).status_code == 201
    for entry in await logged(2):
        assert entry.request["query"] == dict.fromkeys(words, "[redacted]") | {"language": "en"}
        assert "plum" not in entry.model_dump_json()


def test_of_a_query_with_peoples_own_words_the_log_has_the_rest() -> None:
    given = noted(query="text=plum&version=3", private=frozenset({"text"}))
    assert columns(given)["request"] == {"query": {"text": "[redacted]", "version": "3"}}


async def test_the_route_of_a_page_is_its_whole_template(product: Product, logged: Logged) -> None:
    answer = await product.client.post("/ops/schedules/1/pause")
    assert answer.status_code in {401, 403, 404, 303}
    (entry,) = await logged()
    assert (entry.path, entry.method) == ("/ops/schedules/1/pause", "POST")
    assert entry.route.startswith("/ops/schedules/{")


async def test_reading_is_not_logged_and_neither_is_what_lies_elsewhere(product: Product, logged: Logged) -> None:
    for path in ("/api/tasks", "/ops/calls", "/healthz"):
        await product.client.get(path)
    await product.client.head("/api/tasks")
    await product.client.post("/elsewhere", json={})
    await product.client.post("/apiary", json={})
    await product.client.post("/api/no-such-thing", json={})
    entries = await logged()
    assert [(entry.path, entry.route, entry.status) for entry in entries] == [("/api/no-such-thing", "", 404)]


async def test_what_was_refused_is_logged_too(product: Product, logged: Logged) -> None:
    await product.client.post(TEMPLATES, json={}, headers={"Authorization": "Bearer stranger"})
    await product.client.post(TEMPLATES, json={"kind": 5})
    stranger, invalid = await logged(2)
    assert (stranger.status, stranger.actor_kind, stranger.actor) == (401, "anonymous", "")
    assert (invalid.status, invalid.actor_kind) == (422, "service")


async def test_a_message_is_sent_for_each_batch_and_its_second_delivery_does_nothing(product: Product) -> None:
    for _ in range(3):
        await product.client.post(DISCARD.format(uuid4()))

    async def told() -> bool:
        return bool(await waiting(product.db)) and bool(product.sent.named("log_operation"))

    await eventually(told)
    await asyncio.sleep(0.2)
    batches = [str(wish["batch"]) for wish in product.sent.named("log_operation")]
    first = [(await log_operation(product.runtime, batch=batch))["logged"] for batch in batches]
    again = [(await log_operation(product.runtime, batch=batch))["logged"] for batch in batches]
    assert (sum(first), sum(again)) == (3, 0)
    assert len(await operations(product.db)) == 3
    assert await waiting(product.db) == []


async def test_messages_and_sweeps_at_once_log_each_operation_once(db: Database, sent: Sent) -> None:
    recorder = Recorder(db, sent)
    recorder.start()
    for number in range(1_200):
        recorder.note(noted(path=f"/api/things/{number}"))
    await recorder.close()
    batches = [str(wish["batch"]) for wish in sent.named("log_operation")]
    assert len(batches) >= 3
    runtime = Moving(db)
    work = [log_operation(runtime, batch=batch) for batch in batches * 2]  # type: ignore[arg-type]
    work += [sweep_audit_outbox(runtime) for _ in range(4)]  # type: ignore[arg-type]
    counts = [done["logged"] for done in await asyncio.gather(*work)]
    assert sum(counts) == 1_200
    assert len({entry.path for entry in await operations(db)}) == 1_200


class Moving:
    """As much of a runtime as the tasks of the audit use."""

    def __init__(self, db: Database) -> None:
        self.db = db


async def test_without_a_broker_operations_wait_and_the_sweep_logs_them(product: Product) -> None:
    product.sent.away = True
    for _ in range(5):
        assert (await product.client.post(DISCARD.format(uuid4()))).status_code == 404

    async def stored() -> bool:
        return len(await waiting(product.db)) == 5

    await eventually(stored)
    assert await operations(product.db) == []
    product.sent.away = False
    assert await sweep_audit_outbox(product.runtime) == {"logged": 5}
    assert len(await operations(product.db)) == 5
    assert await sweep_audit_outbox(product.runtime) == {"logged": 0}


async def test_without_a_database_operations_are_kept_and_stored_later(
    product: Product, postgres: PostgresServer, logged: Logged
) -> None:
    await asyncio.to_thread(postgres.stop)
    try:
        statuses = [(await product.client.post(DISCARD.format(uuid4()))).status_code for _ in range(3)]
        await asyncio.sleep(0.5)
    finally:
        await asyncio.to_thread(postgres.start)
    assert statuses == [503] * 3
    entries = await logged(3, within=30)
    assert [entry.status for entry in entries] == [503] * 3


async def test_the_answer_does_not_wait_for_the_log(product: Product, postgres: PostgresServer, logged: Logged) -> None:
    lock = await asyncpg.connect(postgres.url)
    try:
        async with lock.transaction():
            await lock.execute("lock table audit_outbox in access exclusive mode")
            answers = [await product.client.post(DISCARD.format(uuid4())) for _ in range(5)]
            # Every answer has come, although nothing can be stored.
            assert [answer.status_code for answer in answers] == [404] * 5
    finally:
        await lock.close()
    assert len(await logged(5)) == 5


async def test_requests_that_end_together_share_a_transaction(product: Product, logged: Logged) -> None:
    await asyncio.gather(*(product.client.post(DISCARD.format(uuid4())) for _ in range(40)))
    assert len(await logged(40)) == 40
    assert len(product.sent.named("log_operation")) < 20


async def test_what_is_noted_is_stored_when_the_api_stops(start: Start, db: Database) -> None:
    product = await start()
    await product.client.post(DISCARD.format(uuid4()))
    await product.stop_api()
    assert len(await waiting(db)) == 1


async def test_secrets_phones_and_files_are_nowhere(product: Product, logged: Logged) -> None:
    secret = "swordfish-4711"
    body = {
        "name": "x",
        "kind": "http_request",
        "password": secret,
        "parameters": {"headers": {"Authorization": f"Bearer {secret}"}, "url": f"https://ana:{secret}@example.net"},
        "customers": [{"phone_e164": "+919812300007", "note": "call 9812300007 or +91 98123-00008"}],
        "quoted": f"token={secret}",
    }
    await product.client.post(TEMPLATES, json=body)
    await product.client.post(f"{TEMPLATES}?api_key={secret}", data={"password": secret, "why": "x"})
    await product.client.post(f"/api/no-such/{secret}", headers={"User-Agent": f"agent token={secret}"}, json=[secret])
    csv = f"phone,name\n+919812300009,{secret}\n".encode()
    await product.client.post(TEMPLATES, content=csv, headers={"Content-Type": "text/csv"})
    await product.client.post("/api/imports", files={"file": ("a.csv", csv, "text/csv")})
    await product.client.delete("/api/do-not-call/+919812300007")
    await product.client.delete("/api/do-not-call/98 12 30 00 07")
    entries = await logged(7)
    for entry in (*entries[:2], *entries[3:]):
        text = entry.model_dump_json()
        assert secret not in text
        for phone in ("9812300007", "98123-00008", "919812300009", "98 12 30"):
            assert phone not in text
    assert entries[0].request["body"]["password"] == "[redacted]"
    assert entries[1].request == {"query": {"api_key": "[redacted]"}, "body": {"password": "[redacted]", "why": "x"}}
    assert entries[3].request["body"] == {"omitted": "text/csv", "bytes": len(csv)}
    assert entries[4].request["body"]["omitted"] == "multipart/form-data"
    assert "swordfish" not in entries[2].user_agent
    assert {entry.path for entry in entries[5:]} == {"/api/do-not-call/[redacted]"}


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"{" + b'"a":' * 3 + b"}", {"omitted": "application/json", "bytes": 14}),
        (b"[" * 8_000, {"omitted": "application/json", "bytes": 8_000}),
        (json.dumps({"a": "x" * 9_000}).encode(), {"omitted": "application/json", "bytes": 9_009}),
        (json.dumps({"a": "x" * 1_000}).encode(), {"a": "x" * 200 + "…"}),
        (json.dumps(list(range(30))).encode(), [*range(20), "… 10 more"]),
        (json.dumps({str(n): "y" * 150 for n in range(50)}).encode(), {"omitted": "long", "bytes": 7_990}),
        (b'{"a": "\\u0000\\ud800"}', {"a": "\ufffd\ufffd"}),
        (
            b'{"to": ["ana@example.net", {"email": "Bea <bea@example.net>"}], "from": "us@example.net"}',
            {"to": ["[redacted]", {"email": "Bea <[redacted]>"}], "from": "us@example.net"},
        ),
        (b"\xff\xfe", {"omitted": "application/json", "bytes": 2}),
        (
            b'{"at": "2026-11-21T10:00:00+05:30", "n": 12345678901}',
            {"at": "2026-11-21T10:00:00+05:30", "n": 12345678901},
        ),
    ],
)
async def test_any_body_is_summarized_within_bounds(
    product: Product, logged: Logged, content: bytes, kept: object
) -> None:
    headers = {"Content-Type": "application/json"}
    await product.client.post("/api/dead-letters/requeue?a=%00&b=%ff", content=content, headers=headers)
    (entry,) = await logged()
    assert entry.request["body"] == kept
    assert entry.request["query"] == {"a": "\ufffd", "b": "\ufffd"}


async def test_what_finds_no_room_is_told_loudly(db: Database, sent: Sent, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(db, sent, capacity=3)
    recorder.start()
    for number in range(5):
        recorder.note(noted(path=f"/api/things/{number}", request_id=f"r-{number}"))
    await recorder.close()
    assert len(await waiting(db)) == 3
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(lines) == 2
    assert "r-3" in lines[0]
    assert "r-4" in lines[1]


async def test_a_strangers_flood_leaves_room_for_people(
    db: Database, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(db, sent)
    recorder.start()
    for _ in range(1_500):
        recorder.note(noted(principal=None))
    recorder.note(noted(path="/api/mine", body=b"{}", size=2))
    await recorder.close()
    entries = await waiting(db)
    assert len(entries) == 1_001
    (mine,) = [entry for entry in entries if entry.body["path"] == "/api/mine"]
    assert mine.body["request"] == {"body": {"omitted": "application/json", "bytes": 2}}
    assert sum(record.levelno == logging.CRITICAL for record in caplog.records) == 500


async def test_what_cannot_be_stored_at_the_end_is_told_loudly(sent: Sent, caplog: pytest.LogCaptureFixture) -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:9/none", pool_size=1)
    try:
        recorder = Recorder(nowhere, sent)
        recorder.start()
        recorder.note(noted(request_id="r-1"))
        await recorder.close(within=0.3)
        recorder.note(noted(request_id="r-2"))
    finally:
        await nowhere.close()
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert ["r-1" in lines[0], "r-2" in lines[1]] == [True, True]


async def test_an_entry_that_no_table_takes_does_not_hold_up_the_others(
    db: Database, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(db, sent)
    recorder.start()
    recorder.note(noted(path="/api/first"))
    recorder.note(noted(path="/api/bad", request_id="\x00"))
    recorder.note(noted(path="/api/last"))
    await recorder.close()
    assert [entry.body["path"] for entry in await waiting(db)] == ["/api/first", "/api/last"]
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "/api/bad" in line


async def test_a_batch_that_is_stored_again_after_its_answer_was_lost_is_logged_once(db: Database, sent: Sent) -> None:
    recorder, note = Recorder(db, sent), noted()
    for _ in range(2):
        await recorder._insert([note])
    assert len(await waiting(db)) == 1
    await audit.sweep(db)
    await recorder._insert([note])
    await audit.sweep(db)
    assert [entry.id for entry in await operations(db)] == [note.id]
    assert await waiting(db) == []
    await recorder.close()
