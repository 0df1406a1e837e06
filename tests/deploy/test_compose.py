"""The compose files: what scales, and the production shape."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


class _Loader(yaml.SafeLoader):
    """Knows compose's own tag for a list that takes the place of the one below."""


def _replacing(loader: yaml.SafeLoader, node: yaml.Node) -> object:
    assert isinstance(node, yaml.SequenceNode)
    return loader.construct_sequence(node)


_Loader.add_constructor("!reset", _replacing)


def services(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((ROOT / path).read_text(encoding="utf-8"), _Loader)["services"]
    return found


def test_no_service_has_a_name_of_its_own_so_that_each_can_be_scaled() -> None:
    assert [name for name, service in services("compose.yaml").items() if "container_name" in service] == []


def test_the_production_shape_is_three_apis_five_workers_of_four_processes_and_one_beat() -> None:
    production = services("deploy/compose.production.yaml")
    replicas = {name: service["deploy"]["replicas"] for name, service in production.items() if "deploy" in service}
    assert replicas == {"api": 3, "worker": 5, "beat": 1}
    assert "--concurrency=4" in production["worker"]["command"]
    assert production.keys() - {"proxy"} <= services("compose.yaml").keys()


def test_the_load_balancer_alone_is_published() -> None:
    production = services("deploy/compose.production.yaml")
    assert production["api"]["ports"] == []
    assert production["proxy"]["ports"] == ["${API_PUBLISH:-127.0.0.1:8000}:8080"]
    configuration = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    assert "listen 8080;" in configuration
    assert "server api:8000;" in configuration
    # What people search for stands in the query, which `combined` and `$request` would write down.
    (form,) = re.findall(r"log_format without_query (.*?);", configuration, re.DOTALL)
    assert "$uri" in form
    assert not {"$request", "$request_uri", "$args"} & set(re.findall(r"\$\w+", form))
    assert re.findall(r"access_log (.*?);", configuration) == ["/dev/stdout without_query", "off"]


@pytest.mark.parametrize("service", ["rabbitmq", "flower"])
def test_what_is_optional_waits_for_its_profile_and_is_published_on_loopback(service: str) -> None:
    found = services("compose.yaml")[service]
    assert found["profiles"] == [service]
    assert all(":-127.0.0.1:" in port for port in found["ports"])


def test_flowers_password_is_no_part_of_its_command() -> None:
    flower = services("compose.yaml")["flower"]
    assert flower["command"] == ["celery", "-A", "backend.celery_app", "flower", "--port=8555"]
    assert flower["environment"]["FLOWER_BASIC_AUTH"] == "${FLOWER_BASIC_AUTH:-}"


def test_beat_needs_the_broker_and_the_database_and_no_other_service() -> None:
    assert set(services("compose.yaml")["beat"]["depends_on"]) == {"redis", "postgres"}
