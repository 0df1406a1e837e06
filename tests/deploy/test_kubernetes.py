"""The manifests: valid, confined, and in step with the images and the settings."""

import ast
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from backend.config import load
from tests.test_docs import Recording

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
OBJECTS: list[dict[str, Any]] = [
    found for path in sorted(FOLDER.glob("*.yaml")) for found in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
DEPLOYMENTS = {found["metadata"]["name"]: found for found in OBJECTS if found["kind"] == "Deployment"}
IMAGES = {
    "beatline-api": "Containerfile.api",
    "celery-beat": "Containerfile.celery-beat",
    "celery-worker": "Containerfile.celery",
}


def pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = DEPLOYMENTS[name]["spec"]["template"]["spec"]
    return found


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    return dict(found)


def instruction(file: str, word: str) -> list[str]:
    """The arguments of the last instruction of this kind; a health check's are those of its CMD."""
    text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(rf"^{word} .*?(\[.*\])$", text, re.MULTILINE)
    arguments: list[str] = ast.literal_eval(lines[-1])
    return arguments


@pytest.mark.parametrize("found", OBJECTS, ids=lambda found: f"{found['kind']}-{found['metadata']['name']}")
@pytest.mark.parametrize("version", ["1.29", "1.33"])
def test_a_manifest_fits_kubernetes_own_schema(found: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(found, version, strict=True)


def test_the_workers_are_ten_with_half_a_processor_and_512_mebibytes_each() -> None:
    assert DEPLOYMENTS["celery-worker"]["spec"]["replicas"] == 10
    worker = container("celery-worker")
    assert worker["resources"]["requests"] == {"cpu": "500m", "memory": "512Mi"}
    assert worker["command"][:4] == ["celery", "-A", "backend.celery_app", "worker"]
    assert "--concurrency=4" in worker["command"]


def test_the_workers_together_read_every_queue() -> None:
    read = [container(name)["command"] for name in DEPLOYMENTS if name.startswith("celery-worker")]
    queues = [queue for command in read for queue in command[command.index("-Q") + 1].split(",")]
    assert sorted(queues) == ["audio", "default", "high_priority", "low_priority", "scheduled"]


@pytest.mark.parametrize("name", IMAGES)
def test_a_pod_runs_what_its_image_runs_and_asks_what_its_image_asks(name: str) -> None:
    assert set(instruction(IMAGES[name], "CMD")) <= set(container(name)["command"])
    if name != "beatline-api":
        probe = container(name)["livenessProbe"]["exec"]["command"]
        assert probe == instruction(IMAGES[name], "HEALTHCHECK")


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_pod_is_confined(name: str) -> None:
    spec = pod(name)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for each in (*spec["containers"], *spec.get("initContainers", [])):
        assert each["securityContext"]["readOnlyRootFilesystem"] is True
        assert each["securityContext"]["allowPrivilegeEscalation"] is False
        assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_clusters_own_variables_are_not_taken_for_settings(name: str) -> None:
    assert pod(name)["enableServiceLinks"] is False


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_pod_has_probes(name: str) -> None:
    assert {"livenessProbe", "readinessProbe"} <= container(name).keys()


def test_secrets_come_by_reference_and_each_process_is_given_what_it_needs() -> None:
    def secrets(name: str) -> list[str]:
        given = container(name)["envFrom"]
        return [source["secretRef"]["name"] for source in given if "secretRef" in source]

    assert secrets("celery-beat") == ["beatline-stores"]
    assert secrets("celery-worker") == ["beatline-stores", "beatline-service"]
    assert secrets("beatline-api") == ["beatline-stores", "beatline-service", "beatline-livekit"]
    for found in OBJECTS:
        if found["kind"] == "Secret":
            assert set(found["stringData"].values()) == {""}
    assert not any("env" in container(name) for name in DEPLOYMENTS)


def test_every_variable_is_a_setting() -> None:
    known = Recording()
    load(known)
    given = {name for found in OBJECTS for name in {**found.get("data", {}), **found.get("stringData", {})}}
    assert given
    assert given - known.asked == set()


def test_a_worker_is_given_time_to_end_its_tasks() -> None:
    assert pod("celery-worker")["terminationGracePeriodSeconds"] > 300
    assert pod("celery-worker-audio")["terminationGracePeriodSeconds"] > 5_400
