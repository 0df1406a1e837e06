import os
import socket
from pathlib import Path

import pytest

from backend.config import load
from devstack.environment import SECRETS, Ports, inherited, load_secrets, variables
from devstack.readiness import free_port, http_answers, port_answers


def test_the_keys_are_made_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    path = tmp_path / "secrets.env"
    keys = load_secrets(path)
    assert set(keys) == set(SECRETS)
    assert {len(key) for key in keys.values()} == {48}
    assert len(set(keys.values())) == len(SECRETS)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_secrets(path) == keys


def test_beatline_accepts_the_environment_of_the_stack(tmp_path: Path) -> None:
    ports = Ports(postgres=1, valkey=2, simulator=3, api=4)
    own = variables(
        tmp_path, ports, load_secrets(tmp_path / "secrets.env"), "postgresql://beatline@127.0.0.1:1/beatline"
    )
    config = load({name: value for name, value in own.items() if not name.startswith("SIM_")})
    config.require("DATABASE_URL", "BEATLINE_SERVICE_KEY", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
    assert config.api_url == "http://127.0.0.1:4"
    assert config.livekit_url == "http://127.0.0.1:3"


def test_settings_of_the_shell_do_not_reach_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CALLS_PER_SECOND", "DATABASE_URL", "BEATLINE_TYPO", "PGHOST", "SIM_SPEED"):
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("UNRELATED", "kept")
    own = inherited()
    assert "leaked" not in own.values()
    assert own["UNRELATED"] == "kept"
    assert own["PATH"].endswith(os.environ["PATH"])


def test_a_port_in_use_is_not_chosen_and_a_free_one_is_kept() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        assert port_answers(taken)
        assert free_port(taken) != taken
    free = free_port()
    assert free_port(free) == free
    assert not port_answers(free)
    assert not http_answers(f"http://127.0.0.1:{free}/readyz")
