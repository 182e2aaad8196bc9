"""Adapters, bases and checkpoints that are not what they should be are refused in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import bases
from adapters import CARD, change_base, change_manifest, make_adapter
from allmem_edge.assembly.adapter import MANIFEST, WEIGHTS
from allmem_edge.assembly.assemble import cached_path, pull
from allmem_edge.errors import (
    AllMemError,
    InvalidArgumentError,
    ModelFormatError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from allmem_export.adapter import export_adapter
from allmem_export.convert import ConvertError

pytestmark = pytest.mark.xdist_group("adapters")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def other_base(base: Path, adapter: Path) -> None:
    bases.save_gguf(
        bases.random_base("llama", seed=9, tie_word_embeddings=True), base, kinds=lambda _: "Q8_0"
    )


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
