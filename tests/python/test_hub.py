"""Finding a model: bundled, a directory, or a hub id with the local cache first. No network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

import allmem_edge as ae
from allmem_edge import hub
from allmem_edge.checksums import write_checksums


class FakeHub:
    """snapshot_download from a directory, or from a hub that cannot be reached (None)."""

    def __init__(self, online: Path | None = None) -> None:
        self.online = online
        self.calls: list[dict[str, Any]] = []

    def __call__(self, repo: str, *, local_dir: Path, **options: Any) -> str:
        self.calls.append({"repo": repo, **options})
        if self.online is None:
            raise LocalEntryNotFoundError("not here")
        shutil.copytree(self.online, local_dir, dirs_exist_ok=True)
        return str(local_dir)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of its own for every test; returns where org/name would lie."""
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "allmem-edge" / "org" / "name"


def install(monkeypatch: pytest.MonkeyPatch, fake: FakeHub) -> FakeHub:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    return fake


def test_a_directory_is_itself(tiny_dir: Path) -> None:
    assert hub.find_model(str(tiny_dir)) == tiny_dir


def test_what_is_not_cached_is_downloaded_and_only_the_models_files(
    monkeypatch: pytest.MonkeyPatch, tiny_dir: Path, cache: Path
) -> None:
    fake = install(monkeypatch, FakeHub(tiny_dir))
    assert hub.find_model("org/name") == cache
    assert fake.calls == [{"repo": "org/name", "allow_patterns": hub.FILES}]
    ae.Model.load("org/name")


def test_a_complete_copy_in_the_cache_is_used_without_the_network(
    monkeypatch: pytest.MonkeyPatch, tiny_dir: Path, cache: Path
) -> None:
    shutil.copytree(tiny_dir, cache)
    fake = install(monkeypatch, FakeHub())
    assert hub.find_model("org/name") == cache
    assert fake.calls == []


def test_an_incomplete_copy_is_completed(
    monkeypatch: pytest.MonkeyPatch, tiny_dir: Path, cache: Path
) -> None:
    shutil.copytree(tiny_dir, cache)
    (cache / "model.onnx.data").unlink()
    fake = install(monkeypatch, FakeHub(tiny_dir))
    assert hub.find_model("org/name") == cache
    assert len(fake.calls) == 1


def test_a_download_that_was_cut_short_is_completed_though_it_looks_whole(
    monkeypatch: pytest.MonkeyPatch, tiny_dir: Path, cache: Path
) -> None:
    def cut(repo: str, *, local_dir: Path, **options: Any) -> str:
        shutil.copytree(tiny_dir, local_dir, dirs_exist_ok=True)
        (local_dir / "chat_template.jinja").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cut)
    with pytest.raises(KeyboardInterrupt):
        hub.find_model("org/name")
    with pytest.raises(ae.ModelNotFoundError, match="nor can the hub be reached"):
        install(monkeypatch, FakeHub())
        hub.find_model("org/name")
    fake = install(monkeypatch, FakeHub(tiny_dir))
    assert (hub.find_model("org/name") / "chat_template.jinja").is_file()
    hub.find_model("org/name")
    assert len(fake.calls) == 1


def test_a_damaged_download_is_refused_and_fetched_anew(
    monkeypatch: pytest.MonkeyPatch, tiny_dir: Path, cache: Path, tmp_path: Path
) -> None:
    online = Path(shutil.copytree(tiny_dir, tmp_path / "online"))
    write_checksums(online)
    whole = (online / "model.onnx.data").read_bytes()
    (online / "model.onnx.data").write_bytes(bytes(len(whole)))
    fake = install(monkeypatch, FakeHub(online))
    with pytest.raises(ae.ModelFormatError, match=r"model\.onnx\.data is not what SHA256SUMS says"):
        hub.find_model("org/name")
    (online / "model.onnx.data").write_bytes(whole)
    assert hub.find_model("org/name") == cache
    assert len(fake.calls) == 2 and (cache / "model.onnx.data").read_bytes() == whole


def test_offline_and_unknown_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeHub())
    with pytest.raises(ae.ModelNotFoundError, match="neither in the local cache"):
        hub.find_model("org/name")


def test_a_repository_without_a_model_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    install(monkeypatch, FakeHub(empty))
    with pytest.raises(ae.ModelNotFoundError, match=r"no model\.onnx"):
        hub.find_model("org/name")


def test_a_failing_disk_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(repo: str, **options: Any) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ae.StorageError, match="No space left"):
        hub.find_model("org/name")


@pytest.mark.parametrize("name", ["../org", "org/../../etc", "/org/name", "org", "a/b/c", "org/", "~/model"])
def test_what_only_looks_like_a_path_never_goes_to_the_hub(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fake = install(monkeypatch, FakeHub())
    with pytest.raises(ae.ModelNotFoundError):
        hub.find_model(name)
    assert fake.calls == []


def test_a_missing_bundled_model_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "BUNDLED", tmp_path)
    with pytest.raises(ae.ModelNotFoundError, match="no bundled model"):
        ae.Model.load()
