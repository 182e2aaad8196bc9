"""Finding a model: bundled, a directory, or a hub id with the local cache first. No network."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

import allmem_edge as ae
from allmem_edge import hub
from allmem_edge.appearing import appearing
from allmem_edge.checksums import check_files, write_checksums


class FakeHub:
    """A repository whose newest revision is a directory's content; None cannot be reached."""

    def __init__(self, cache: Path, online: Path | None = None) -> None:
        self.cache, self.online = cache, online
        self.asked: list[float | None] = []  # timeouts
        self.calls: list[dict[str, Any]] = []

    def model_info(self, repo: str, *, timeout: float | None = None) -> SimpleNamespace:
        self.asked.append(timeout)
        if self.online is None:
            raise TimeoutError("no answer")
        files = sorted(path for path in self.online.rglob("*") if path.is_file())
        names = [path.relative_to(self.online).as_posix() for path in files]
        sha = hashlib.sha1(b"".join(path.read_bytes() for path in files) + repr(names).encode()).hexdigest()
        return SimpleNamespace(sha=sha, siblings=[SimpleNamespace(rfilename=name) for name in names])

    def snapshot_download(self, repo: str, *, revision: str, **options: Any) -> str:
        self.calls.append({"repo": repo, **options})
        if self.online is None:
            raise LocalEntryNotFoundError("not here")
        assert revision == self.model_info(repo).sha
        for name in options["allow_patterns"]:
            target = self.cache / revision / name
            if (self.online / name).is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.online / name, target)
        return str(self.cache / revision)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of its own for every test; returns where org/name would lie."""
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "allmem-edge" / "org" / "name"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    """No network: a hub that nobody reaches until it is given a directory."""
    fake = FakeHub(tmp_path / "snapshots")
    monkeypatch.setattr(huggingface_hub, "model_info", lambda *args, **named: fake.model_info(*args, **named))
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *args, **named: fake.snapshot_download(*args, **named)
    )
    return fake


@pytest.fixture
def online(fake: FakeHub, tiny_copy: Path) -> Path:
    """The newest revision, to be changed."""
    fake.online = tiny_copy
    return tiny_copy


def test_a_directory_is_itself(tiny_dir: Path) -> None:
    assert hub.find_model(str(tiny_dir)) == tiny_dir


def test_what_is_not_cached_is_downloaded_and_only_the_models_files(
    fake: FakeHub, online: Path, cache: Path
) -> None:
    (online / "README.md").write_text("no file of a model")
    assert hub.find_model("org/name") == cache
    assert fake.calls == [{"repo": "org/name", "allow_patterns": hub.FILES}]
    assert not (cache / "README.md").exists()
    assert not any(path.is_symlink() for path in cache.rglob("*"))
    ae.Model.load("org/name")


def test_what_is_cached_is_used_where_the_hub_does_not_answer_within_seconds(
    fake: FakeHub, online: Path, cache: Path
) -> None:
    hub.find_model("org/name")
    fake.online, fake.calls, fake.asked = None, [], []
    assert hub.find_model("org/name") == cache
    assert fake.calls == [] and fake.asked == [hub._PATIENCE] and hub._PATIENCE <= 3


def test_the_newest_revision_is_downloaded_once(fake: FakeHub, online: Path, cache: Path) -> None:
    hub.find_model("org/name")
    hub.find_model("org/name")
    assert len(fake.calls) == 1
    (online / "generation_config.json").write_text('{"temperature": 0.25}')
    (online / "tokenizer_config.json").unlink()
    for _ in range(2):
        model = ae.Model.load("org/name")
        assert model.sampling["temperature"] == 0.25
        assert not (cache / "tokenizer_config.json").exists()
    assert len(fake.calls) == 2
    assert {path.name for path in cache.parent.iterdir()} == {"name", ".name.lock"}


def test_a_revision_that_cannot_be_had_leaves_the_one_in_the_cache(
    fake: FakeHub, online: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.find_model("org/name")
    whole = (cache / "model.onnx.data").read_bytes()

    def lost(repo: str, **options: Any) -> str:
        raise LocalEntryNotFoundError("the network went away")

    def cut(repo: str, *, revision: str, **options: Any) -> str:
        (fake.cache / revision).mkdir()
        return str(fake.cache / revision)  # as huggingface_hub gives it without the network

    (online / "model.onnx.data").write_bytes(bytes(len(whole)))
    write_checksums(online)
    (online / "model.onnx.data").write_bytes(whole[::-1])  # damaged
    for download in (lost, cut, fake.snapshot_download):
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        with pytest.warns(UserWarning, match="revision in the cache is used"):
            assert hub.find_model("org/name") == cache
        assert (cache / "model.onnx.data").read_bytes() == whole
    ae.Model.load(cache)
    (online / "model.onnx.data").write_bytes(bytes(len(whole)))
    hub.find_model("org/name")
    assert (cache / "model.onnx.data").read_bytes() == bytes(len(whole))


@pytest.mark.parametrize("missing", ["model.onnx.data", "tokenizer.json", None])
def test_what_an_earlier_version_left_half_is_completed(
    fake: FakeHub, online: Path, cache: Path, missing: str | None
) -> None:
    shutil.copytree(online, cache)
    (cache / (missing or "chat_template.jinja")).unlink()
    if missing is None:
        (cache / ".download").touch()
    assert hub.find_model("org/name") == cache
    assert len(fake.calls) == 1 and (cache / "chat_template.jinja").is_file()
    ae.Model.load("org/name")


def test_a_download_that_was_cut_short_is_completed(
    fake: FakeHub, online: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(repo: str, *, revision: str, **options: Any) -> str:
        fake.snapshot_download(repo, revision=revision, **options)
        (fake.cache / revision / "chat_template.jinja").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(huggingface_hub, "snapshot_download", cut)
        with pytest.raises(KeyboardInterrupt):
            hub.find_model("org/name")
    fake.online = None
    with pytest.raises(ae.ModelNotFoundError, match="nor can the hub be reached"):
        hub.find_model("org/name")
    fake.online = online
    assert (hub.find_model("org/name") / "chat_template.jinja").is_file()


def test_a_directory_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, synced, real = tmp_path / "out", list[tuple[int, bool]](), os.fsync

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, out.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with appearing(out) as partial:
        (partial / "sub").mkdir()
        (partial / "a").write_text("a")
        (partial / "sub" / "b").write_text("b")
    inside = {(path.stat().st_ino, False) for path in (out, out / "a", out / "sub", out / "sub" / "b")}
    assert set(synced[:-1]) == inside
    assert synced[-1] == (tmp_path.stat().st_ino, True)


def test_a_damaged_download_is_refused_and_fetched_anew(fake: FakeHub, online: Path, cache: Path) -> None:
    write_checksums(online)
    whole = (online / "model.onnx.data").read_bytes()
    (online / "model.onnx.data").write_bytes(bytes(len(whole)))
    with pytest.raises(ae.ModelFormatError, match=r"model\.onnx\.data is not what SHA256SUMS says"):
        hub.find_model("org/name")
    assert not cache.exists()
    revision = fake.model_info("org/name").sha
    assert not (fake.cache / revision / "model.onnx.data").exists()
    (online / "model.onnx.data").write_bytes(whole)
    assert hub.find_model("org/name") == cache
    assert (cache / "model.onnx.data").read_bytes() == whole


def test_two_that_load_a_revision_at_once_fetch_it_once_and_whole(
    fake: FakeHub, online: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checksums(online)
    hub.find_model("org/name")
    (online / "generation_config.json").write_text('{"temperature": 0.25}')
    write_checksums(online)
    link, found = hub._link, list[Path]()
    second = threading.Thread(target=lambda: found.append(hub.find_model("org/name")))

    def meanwhile(source: Path, target: Path) -> None:
        link(source, target)
        if target.name == "SHA256SUMS" and not second.ident:  # the first is about to check what it has
            second.start()
            second.join(0.5)  # which it must not be done in

    monkeypatch.setattr(hub, "_link", meanwhile)
    assert hub.find_model("org/name") == cache
    second.join()
    assert found == [cache] and len(fake.calls) == 2
    check_files(cache)
    assert {path.name for path in cache.parent.iterdir()} == {"name", ".name.lock"}


def test_killed_between_moving_a_revision_away_and_another_in_it_is_put_back(
    fake: FakeHub, online: Path, cache: Path
) -> None:
    hub.find_model("org/name")
    left = cache.with_name(".name.partial-x")
    left.mkdir()
    cache.rename(left / "old")
    fake.online = None
    assert hub.find_model("org/name") == cache
    ae.Model.load(cache)
    assert {path.name for path in cache.parent.iterdir()} == {"name", ".name.lock"}


def test_a_damaged_download_costs_only_files_of_a_model(
    fake: FakeHub, online: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checksums(online)
    other = fake.cache / fake.model_info("org/name").sha / "thesis.txt"
    other.parent.mkdir(parents=True)
    other.write_text("of another program")
    monkeypatch.setattr(hub, "damaged_files", lambda *_, **__: {"thesis.txt": "It is damaged."})
    with pytest.raises(ae.ModelFormatError, match="It is damaged"):
        hub.find_model("org/name")
    assert other.exists()


def test_offline_and_unknown_is_a_sentence(fake: FakeHub) -> None:
    with pytest.raises(ae.ModelNotFoundError, match="neither in the local cache"):
        hub.find_model("org/name")


def test_what_the_hub_refuses_is_a_sentence(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(repo: str, **options: Any) -> str:
        response: Any = SimpleNamespace(headers={}, request=None)
        raise HfHubHTTPError("401: who are you?", response=response)

    monkeypatch.setattr(huggingface_hub, "model_info", refuse)
    with pytest.raises(ae.ModelNotFoundError, match="refused the model of that name: 401"):
        hub.find_model("org/name")


def test_a_repository_without_a_model_is_a_sentence(fake: FakeHub, tmp_path: Path) -> None:
    fake.online = tmp_path / "empty"
    fake.online.mkdir()
    with pytest.raises(ae.ModelNotFoundError, match=r"no model\.onnx"):
        hub.find_model("org/name")


def test_a_failing_disk_is_a_sentence(online: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(repo: str, **options: Any) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ae.StorageError, match="No space left"):
        hub.find_model("org/name")


@pytest.mark.parametrize("name", ["../org", "org/../../etc", "/org/name", "org", "a/b/c", "org/", "~/model"])
def test_what_only_looks_like_a_path_never_goes_to_the_hub(fake: FakeHub, name: str) -> None:
    with pytest.raises(ae.ModelNotFoundError):
        hub.find_model(name)
    assert fake.calls == [] and fake.asked == []


def test_a_missing_bundled_model_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "BUNDLED", tmp_path)
    with pytest.raises(ae.ModelNotFoundError, match="no bundled model"):
        ae.Model.load()
