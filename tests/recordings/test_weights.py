import threading
from pathlib import Path

import pytest

from backend.recordings.speech.threads import cpu_quota, thread_count
from backend.recordings.speech.weights import MODEL_SHA256, WeightsMissing, model_folder


def test_the_packaged_halves_join_to_the_pinned_model(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    assert (folder / "model.bin").stat().st_size == 145_217_532
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.bin",
        "tokenizer.json",
        "vocabulary.txt",
    ]
    assert MODEL_SHA256[:12] in folder.name


def test_processes_that_start_together_share_one_cache(tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(model_folder(tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 3
    assert len(list(found[0].iterdir())) == 4


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    model = model_folder(tmp_path) / "model.bin"
    with model.open("r+b") as file:
        file.seek(1_000)
        file.write(b"damaged")
    (model.parent / "vocabulary.txt").write_text("nonsense")
    model_folder(tmp_path)
    with model.open("rb") as file:
        file.seek(1_000)
        assert file.read(7) != b"damaged"
    assert (model.parent / "vocabulary.txt").stat().st_size == 459_861


def test_a_cache_that_others_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / f"whisper-base-{MODEL_SHA256[:12]}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(WeightsMissing, match="BEATLINE_CACHE_DIR"):
        model_folder(tmp_path)


def test_a_setting_decides_the_threads() -> None:
    assert thread_count(3) == 3


def test_without_a_setting_there_is_at_least_one_thread() -> None:
    assert thread_count() >= 1


@pytest.mark.parametrize(("content", "quota"), [("150000 100000\n", 1.5), ("max 100000\n", None)])
def test_the_quota_of_a_container_is_read(tmp_path: Path, content: str, quota: float | None) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert cpu_quota(tmp_path / "cpu.max", tmp_path) == quota


@pytest.mark.parametrize(("granted", "quota"), [("200000", 2.0), ("-1", None)])
def test_the_quota_of_an_older_container_is_read(tmp_path: Path, granted: str, quota: float | None) -> None:
    (tmp_path / "cpu.cfs_quota_us").write_text(granted)
    (tmp_path / "cpu.cfs_period_us").write_text("100000")
    assert cpu_quota(tmp_path / "none", tmp_path) == quota


def test_a_machine_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "none", tmp_path) is None
