"""Finding a model: bundled, a directory, or a hub id with the local cache first. No network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

import allmem_edge as ae
from allmem_edge import hub


class FakeHub:
    """snapshot_download with a cache and a network that may be there or not."""

    def __init__(self, cached: Path | None = None, online: Path | None = None) -> None:
        self.cached, self.online = cached, online
        self.calls: list[dict[str, Any]] = []

    def __call__(self, repo: str, **options: Any) -> str:
        self.calls.append({"repo": repo, **options})
        found = self.cached if options.get("local_files_only") else self.online
        if found is None:
            raise LocalEntryNotFoundError("not here")
        return str(found)


def install(monkeypatch: pytest.MonkeyPatch, fake: FakeHub) -> FakeHub:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    return fake


def test_a_directory_is_itself(tiny_dir: Path) -> None:
    assert hub.find_model(str(tiny_dir)) == tiny_dir


def test_the_cache_is_asked_first_and_the_network_not_at_all(
    monkeypatch: pytest.MonkeyPatch, tiny_dir: Path
) -> None:
    fake = install(monkeypatch, FakeHub(cached=tiny_dir))
    assert hub.find_model("org/name") == tiny_dir
    assert [call.get("local_files_only") for call in fake.calls] == [True]


def test_what_is_not_cached_is_downloaded_and_only_the_models_files(
    monkeypatch: pytest.MonkeyPatch, tiny_dir: Path
) -> None:
    fake = install(monkeypatch, FakeHub(online=tiny_dir))
    assert hub.find_model("org/name") == tiny_dir
    assert fake.calls[-1]["allow_patterns"] == hub.FILES


def test_an_incomplete_cache_is_completed(
    monkeypatch: pytest.MonkeyPatch, tiny_dir: Path, tmp_path: Path
) -> None:
    fake = install(monkeypatch, FakeHub(cached=tmp_path, online=tiny_dir))
    assert hub.find_model("org/name") == tiny_dir
    assert len(fake.calls) == 2


def test_offline_and_unknown_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeHub())
    with pytest.raises(ae.ModelNotFoundError, match="neither in the local cache"):
        hub.find_model("org/name")


def test_a_repository_without_a_model_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, FakeHub(online=tmp_path))
    with pytest.raises(ae.ModelNotFoundError, match=r"no model\.onnx"):
        hub.find_model("org/name")


def test_a_failing_disk_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(repo: str, **options: Any) -> str:
        if options.get("local_files_only"):
            raise LocalEntryNotFoundError("not here")
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
