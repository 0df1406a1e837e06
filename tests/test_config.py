"""The environment, read and checked."""

import os
import subprocess
import sys
from datetime import time
from pathlib import Path

import pytest

from backend.config import load
from backend.environment import ConfigError, Window

ROOT = Path(__file__).parents[1]


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    config = load({})
    assert config.broker_url == "redis://127.0.0.1:6379/0"
    assert config.calls_window == Window(time(10), time(19))
    assert config.timezone == "Asia/Kolkata"
    assert config.broker_is_redis


def test_the_rabbitmq_virtual_host_and_password_are_encoded() -> None:
    config = load({"CELERY_BROKER": "rabbitmq", "CELERY_RABBITMQ_HOST": "mq", "CELERY_RABBITMQ_PASSWORD": "a/b@c"})
    assert config.broker_url == "amqp://guest:a%2Fb%40c@mq:5672/%2F"
    assert not config.broker_is_redis


def test_every_variable_of_rabbitmq_is_honoured() -> None:
    config = load(
        {
            "CELERY_BROKER": "rabbitmq",
            "CELERY_RABBITMQ_HOST": "mq",
            "CELERY_RABBITMQ_PORT": "5673",
            "CELERY_RABBITMQ_USERNAME": "beat:line",
            "CELERY_RABBITMQ_PASSWORD": "p@ss",
            "CELERY_RABBITMQ_VHOST": "a/b",
        }
    )
    assert config.broker_url == "amqp://beat%3Aline:p%40ss@mq:5673/a%2Fb"


def test_the_databases_of_messages_and_results_are_chosen_apart() -> None:
    config = load({"CELERY_BROKER_REDIS_DATABASE": "7", "CELERY_RESULT_REDIS_DATABASE": "8"})
    assert config.broker_url.endswith("/7")
    assert config.result_backend.endswith("/8")


def test_results_in_postgresql_stand_in_the_products_database() -> None:
    config = load({"CELERY_RESULT_BACKEND": "postgresql", "DATABASE_URL": "postgresql://u:p@db:5432/b"})
    assert config.result_backend == "db+postgresql+psycopg://u:p@db:5432/b"


def test_tls_shows_in_the_addresses_and_moves_rabbitmqs_port() -> None:
    config = load({"CELERY_BROKER": "rabbitmq", "CELERY_RABBITMQ_TLS": "verify", "REDIS_TLS": "on"})
    assert config.broker_url == "amqps://guest:guest@127.0.0.1:5671/%2F"
    assert config.result_backend == "rediss://127.0.0.1:6379/1"
    assert config.broker_tls is not None
    assert config.redis_tls is not None
    assert (config.broker_tls.verify, config.redis_tls.verify) == (True, False)


def test_a_redis_password_is_encoded() -> None:
    assert load({"REDIS_PASSWORD": "p@ss"}).broker_url == "redis://:p%40ss@127.0.0.1:6379/0"


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("REDIS_PORT", "abc", "whole number from 1 to 65535"),
        ("CELERY_BROKER", "kafka", "one of redis, rabbitmq"),
        ("CELERY_RESULT_BACKEND", "mysql", "one of redis, postgresql"),
        ("REDIS_TLS", "yes", "one of off, on, verify"),
        ("REDIS_TLS_CA", "/nowhere/ca.pem", "absolute path of a file that can be read"),
        ("REDIS_TLS_CA", __file__, "needs REDIS_TLS=verify"),
        ("CELERY_RABBITMQ_TLS_CERTIFICATE", __file__, "needs CELERY_RABBITMQ_TLS=on or verify"),
        ("REDIS_TLS_KEY", __file__, "needs REDIS_TLS_CERTIFICATE"),
        ("CELERY_SIGNING_CERT_STORE", "/nowhere", "must be set together"),
        ("DATABASE_URL", "mysql://x/y", "begins with postgresql://"),
        ("CALLS_WINDOW", "19:00-10:00", "its end after its start"),
        ("CALLS_WINDOW", "10-19", "such as 10:00-19:00"),
        ("CALLS_WINDOW", "25:00-26:00", "such as 10:00-19:00"),
        ("CALLS_BACKOFF_SCALE", "fast", "number from 0 to 100"),
        ("CALLS_RECORDING", "yes", "on or off"),
        ("DATETIME_TIMEZONE", "Mars/Olympus", "IANA time zone"),
        ("DEFAULT_REGION", "india", "two-letter country code"),
        ("EGRESS_DIR", "egress", "absolute path"),
        ("LIVEKIT_SIP_NUMBER", "1600", "E.164"),
        ("LOG_LEVEL", "LOUD", "one of DEBUG"),
        ("BEATLINE_SEND_RATE", "fast", "a rate such as 600/minute"),
        ("BEATLINE_SERVICE_KEY", "short", "at least 32 characters"),
    ],
)
def test_a_malformed_value_names_the_variable_and_the_fix(name: str, value: str, fix: str) -> None:
    with pytest.raises(ConfigError, match=name) as fault:
        load({name: value})
    assert fix in str(fault.value)


def test_a_secret_never_appears_in_its_own_complaint() -> None:
    with pytest.raises(ConfigError) as fault:
        load({"LIVEKIT_API_SECRET": "hunter2"})
    assert "hunter2" not in str(fault.value)


def test_a_misspelt_setting_is_named_with_its_neighbour() -> None:
    with pytest.raises(ConfigError, match="CALLS_WINDW is not a setting; did you mean CALLS_WINDOW?"):
        load({"CALLS_WINDW": "10:00-19:00"})


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as fault:
        load({"REDIS_PORT": "0", "CALLS_MAX_ATTEMPTS": "0"})
    assert "REDIS_PORT" in str(fault.value)
    assert "CALLS_MAX_ATTEMPTS" in str(fault.value)


def test_a_process_that_lacks_what_it_needs_says_what() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL, BEATLINE_SERVICE_KEY must be set"):
        load({}).require("DATABASE_URL", "BEATLINE_SERVICE_KEY")


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "celery", "-A", "backend.celery_app", "beat"],
        ["-m", "celery", "-A", "backend.celery_app", "worker", "--include=backend.tasks"],
        ["-m", "uvicorn", "backend.main:app"],
    ],
)
@pytest.mark.parametrize("environ", [{"REDIS_PORT": "abc"}])
def test_every_process_stops_with_one_line_and_exit_code_2(command: list[str], environ: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "beatline: configuration: REDIS_PORT='abc' must be a whole number from 1 to 65535"


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "celery", "-A", "backend.celery_app", "worker", "--include=backend.tasks"],
        ["-m", "uvicorn", "backend.main:app"],
    ],
)
def test_a_process_without_its_secrets_stops_with_one_line_and_exit_code_2(command: list[str]) -> None:
    environ = os.environ | {"BEATLINE_SERVICE_KEY": ""}
    done = subprocess.run(
        [sys.executable, *command], env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    # Before it imports the tasks, Celery warns whoever runs it as root.
    assert done.stderr.strip().splitlines()[-1] == (
        "beatline: configuration: BEATLINE_SERVICE_KEY must be set; .env.example says how"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("broker", "transport"), [("redis", "redis"), ("rabbitmq", "amqp")])
def test_the_celery_command_does_not_take_our_broker_variable_for_its_own(broker: str, transport: str) -> None:
    # Celery's command line reads CELERY_BROKER as --broker.
    command = [sys.executable, "-m", "celery", "-A", "backend.celery_app", "report"]
    done = subprocess.run(
        command,
        env=os.environ | {"CELERY_BROKER": broker},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"transport:{transport} " in done.stdout
