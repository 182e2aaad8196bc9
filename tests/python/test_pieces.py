"""A model in pieces, from memory and from parts of open files; and what its log tells."""

from __future__ import annotations

import gc
import mmap
import os
from pathlib import Path

import pytest

import allmem_edge as ae
from allmem_edge.checksums import CHECKSUMS
from allmem_edge.hub import BUNDLED


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def answer(model: ae.Model) -> str:
    return "".join(model.chat(threads=1, max_tokens=24, temperature=0).send("Hello!"))


def test_a_model_from_memory_answers_as_from_its_directory(tiny_dir: Path, tiny: ae.Model) -> None:
    model = ae.Model.load_memory(contents(tiny_dir))
    assert answer(model) == answer(tiny) != ""
    assert (model.path, model.name) == (None, "in memory")
    assert model.engine.fingerprint == tiny.engine.fingerprint  # type: ignore[attr-defined]
    assert (model.sampling, model.stop_ids) == (tiny.sampling, tiny.stop_ids)
    saved = tiny.session()
    saved.forward([1, 2, 3])
    assert model.session().restore(saved.snapshot(b"note")) == b"note"


def test_memory_stays_borrowed_while_a_session_of_the_model_lives(tiny_dir: Path, tiny: ae.Model) -> None:
    files = {name: bytearray(content) for name, content in contents(tiny_dir).items()}
    graph = files["model.onnx"]
    session = ae.Model.load_memory(files).session(threads=1)
    gc.collect()
    with pytest.raises(BufferError):  # it could move
        graph.append(0)
    assert (session.forward([1, 2, 3]) == tiny.session(threads=1).forward([1, 2, 3])).all()
    del session
    gc.collect()
    graph.append(0)  # given back


def test_a_mapping_of_a_file_is_memory_too(tiny_dir: Path, tiny: ae.Model) -> None:
    with (tiny_dir / "model.onnx").open("rb") as file:
        graph = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert answer(ae.Model.load_memory(contents(tiny_dir) | {"model.onnx": graph})) == answer(tiny)


def test_a_model_from_parts_of_an_open_file_answers_as_from_its_directory(
    tiny_dir: Path, tiny: ae.Model, tmp_path: Path
) -> None:
    package, parts = b"some other asset", {}  # so that no part begins at a page
    for name, content in contents(tiny_dir).items():
        parts[name] = (len(package), len(content))
        package += content
    (tmp_path / "package").write_bytes(package)
    fd = os.open(tmp_path / "package", os.O_RDONLY)
    model = ae.Model.load_fds({name: (fd, *part) for name, part in parts.items()})
    with pytest.raises(ae.InvalidArgumentError, match=r"'model\.onnx' should be"):
        ae.Model.load_fds({"model.onnx": (fd, 1, len(package))})
    os.close(fd)
    assert answer(model) == answer(tiny)
    with pytest.raises(ae.StorageError):
        ae.Model.load_fds({"model.onnx": (fd, 0, 1)})


def test_pieces_are_checked_with_the_checksums_among_them(tmp_path: Path) -> None:
    files = contents(BUNDLED)
    damaged = files | {"tokenizer_config.json": files["tokenizer_config.json"] + b" "}
    weights = bytearray(files["model.onnx.data"])
    weights[len(weights) // 2] ^= 1
    bare = {name: content for name, content in files.items() if name != CHECKSUMS}
    left_out = {name: content for name, content in files.items() if name != "config.json"}

    def from_fds(files: dict[str, bytes], check: bool | None) -> ae.Model:
        with (tmp_path / "package").open("w+b") as package:
            parts = {}
            for name, content in files.items():
                parts[name] = (package.fileno(), package.tell(), len(content))
                package.write(content)
            package.flush()
            return ae.Model.load_fds(parts, check=check)

    def from_memory(files: dict[str, bytes], check: bool | None) -> ae.Model:
        return ae.Model.load_memory(files, check=check)

    for load in (from_memory, from_fds):
        for whole in (files, left_out):
            load(whole, True)
        with pytest.raises(ae.ModelFormatError, match=r"tokenizer_config\.json is not what SHA256SUMS says"):
            load(damaged, True)
        load(damaged, None)
        with pytest.raises(ae.ModelFormatError, match=r"model\.onnx\.data is not what SHA256SUMS says"):
            load(files | {"model.onnx.data": bytes(weights)}, None)
        load(files | {"model.onnx.data": bytes(weights)}, False)
        with pytest.raises(ae.ModelNotFoundError, match="no SHA256SUMS"):
            load(bare, True)
        load(bare, None)


def test_pieces_that_are_no_model_are_sentences(tiny_dir: Path) -> None:
    files = contents(tiny_dir)
    with pytest.raises(ae.ModelNotFoundError, match=r"model\.onnx"):
        ae.Model.load_memory({})
    with pytest.raises(ae.ModelFormatError):
        ae.Model.load_memory({"model.onnx": b"garbage"})
    with pytest.raises(ae.TokenizerError, match=r"tokenizer\.json is not valid JSON"):
        ae.Model.load_memory(files | {"tokenizer.json": b""})
    for name in ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json"):
        with pytest.raises(ae.TokenizerError, match=name):
            ae.Model.load_memory(files | {name: b"{"})
    with pytest.raises(ae.ChatTemplateError, match=r"chat_template\.jinja"):
        ae.Model.load_memory({name: files[name] for name in files if name != "chat_template.jinja"}).chat()
    with pytest.raises(TypeError):
        ae.Model.load_memory({"model.onnx": 3})  # type: ignore[dict-item]


def test_the_log_tells_of_loading_and_saving_and_nothing_else(tiny_dir: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    model = ae.Model.load(tiny_dir, log=lines.append)
    assert len(lines) == 1 and lines[0].startswith("loaded: 1 layers, window 8")
    session = model.session()
    session.forward([1, 2, 3])
    assert len(lines) == 1
    session.save(tmp_path / "memory")
    session.load(tmp_path / "memory")
    assert lines[1:] == ["saved a memory of 3 tokens", "loaded a memory of 3 tokens"]
    ae.Model.load_memory(contents(tiny_dir), log=lines.append)
    assert lines[3] == lines[0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_log_that_raises_disturbs_nothing(tiny_dir: Path) -> None:
    def log(line: str) -> None:
        raise ValueError(line)

    model = ae.Model.load(tiny_dir, log=log)
    assert model.session().forward([1]).shape[0] == 1


def test_onnxruntime_has_no_log(tiny_dir: Path) -> None:
    with pytest.raises(ae.InvalidArgumentError, match="native"):
        ae.Model.load(tiny_dir, backend="onnxruntime", log=print)
