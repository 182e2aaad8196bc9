"""Adapters, bases and checkpoints that are not what they should be are refused in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import bases
from adapters import CARD, change_base, change_manifest, make_adapter
from allmem_edge.assembly.adapter import (
    MANIFEST,
    WEIGHTS,
    find_adapter,
    read_adapter,
    sha256_of,
    slots_file,
)
from allmem_edge.assembly.assemble import assemble, cached_path, pull
from allmem_edge.assembly.base import INDEX, GgufBase, open_base
from allmem_edge.assembly.find_base import check_base
from allmem_edge.assembly.safetensors_file import SafetensorsFile, write_safetensors
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


def reshape(adapter: Path, name: str, shape: list[int]) -> None:
    file = SafetensorsFile(adapter / WEIGHTS)
    tensors = {each: np.array(file.floats(each), np.float16) for each in file.names}
    write_safetensors(adapter / WEIGHTS, tensors | {name: tensors[name].reshape(shape)})
    sign(adapter)


def change_slots(adapter: Path, ending: str, **changes: object) -> None:
    path = adapter / slots_file("int8")
    slots = [
        dict(zip(("name", "dtype", "shape"), slot, strict=True)) for slot in json.loads(path.read_text())
    ]
    changed = [slot | changes if slot["name"].endswith(ending) else slot for slot in slots]
    path.write_text(json.dumps([list(slot.values()) for slot in changed]))
    sign(adapter)


def sign(adapter: Path) -> None:
    """Makes the manifest's checksums those of the files."""
    files = json.loads((adapter / MANIFEST).read_text())["files"]
    change_manifest(adapter, files={name: sha256_of(adapter / name) for name in files})


Spoil = Callable[[Path, Path], object]
ALPHA, DOWN = "model.layers.0.self_attn.memory.alpha", "model.layers.1.self_attn.q_proj.lora_A"
UP = DOWN.replace("lora_A", "lora_B")
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
    "a size without end": (
        lambda b, a: change_base(a, size=float("inf")),
        ModelFormatError,
        "not valid JSON",
    ),
    "a size of four hundred digits": (
        lambda b, a: change_base(a, size=10**400),
        ModelFormatError,
        "is no size",
    ),
    "half a character in its config": (
        lambda b, a: change_manifest(a, config={"x": "\ud800"}),
        ModelFormatError,
        "not valid JSON",
    ),
    "half a character among its options": (
        lambda b, a: change_manifest(a, generation={"\ud800": 1}),
        ModelFormatError,
        "not valid JSON",
    ),
    "a flat update": (lambda b, a: reshape(a, DOWN, [-1]), ModelFormatError, "do not fit each other"),
    "another flat update": (lambda b, a: reshape(a, UP, [-1]), ModelFormatError, "do not fit each other"),
    "a scale without a shape": (
        lambda b, a: change_slots(a, "q_proj.weight.scales", shape=[]),
        ModelFormatError,
        "do not fit each other",
    ),
    "a place without end": (
        lambda b, a: change_slots(a, "q_proj.weight.scales", shape=[float("inf")]),
        ModelFormatError,
        "not valid JSON",
    ),
    "a place without a name": (
        lambda b, a: change_slots(a, "q_proj.weight.scales", name=1),
        ModelFormatError,
        "do not fit each other",
    ),
    "a place of no type": (
        lambda b, a: change_slots(a, "q_proj.weight.scales", dtype="(,)f4"),
        ModelFormatError,
        "is no type",
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
        pull(adapter, base=base, mode="int8")
    assert "\n" not in str(caught.value)
    assert not cached_path("tiny", "int8").exists()
    left = list((cache / "allmem-edge" / "models").iterdir()) if cache.exists() else []
    assert [path.name for path in left] in ([], [".tiny-int8.lock"], [".tiny.lock"])


STRANGE = [None, [], {}, [[]], {"": []}, "", "x\0", "\ud800", True, -1, 1.5, 10**400, float("inf")]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value, with each of its keys."""
    for key in range(len(value)) if isinstance(value, list) else list(value):
        yield value, key
        if isinstance(value[key], (list, dict)):
            yield from places(value[key])


def test_a_manifest_changed_anywhere_raises_nothing_but_our_errors(copied: tuple[Path, Path]) -> None:
    adapter = copied[1]
    manifest = json.loads((adapter / MANIFEST).read_text())
    refused = 0
    for container, key in places(manifest):
        for strange in STRANGE:
            original, container[key] = container[key], strange
            (adapter / MANIFEST).write_text(json.dumps(manifest))
            container[key] = original
            try:
                found = find_adapter(adapter)
                json.dumps([found.config, found.generation], ensure_ascii=False, allow_nan=False).encode()
                check_base(found.base, adapter / "adapter.safetensors")
            except AllMemError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 200


def test_a_header_of_tensors_changed_anywhere_raises_nothing_but_our_errors(tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS
    tensor = {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}
    header = {"a": tensor, "b": tensor | {"data_offsets": [8, 16]}}
    for container, key in places(header):
        for strange in [*STRANGE, [float("inf")], [0, 10**30], [-1, -4], [0, 8]]:
            original, container[key] = container[key], strange
            text = json.dumps(header).encode()
            path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
            container[key] = original
            try:
                file = SafetensorsFile(path)
                assert sum(file.floats(name).size for name in file.names if 0 not in file.shape(name)) <= 8
            except ModelFormatError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("content", ["[]", "{", "NaN", '{"top_p": NaN}', '{"x": "\\ud800"}', "\udcff"])
def test_generation_settings_of_a_base_that_are_none_are_refused(
    content: str, made: tuple[Path, Path], tmp_path: Path
) -> None:
    class Spoiled(GgufBase):
        def write_tokenizer(self, folder: Path) -> None:
            super().write_tokenizer(folder)
            (folder / "generation_config.json").write_bytes(content.encode(errors="surrogateescape"))

    base, adapter = made
    with pytest.raises(ModelFormatError, match=r"The generation_config\.json of .* is not a JSON object"):
        assemble(read_adapter(adapter), Spoiled(base), tmp_path / "out", "int8")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "weight_map", [{"a": []}, {"a": {}}, {"a": "../x"}, {"a": 1}, {}, "\ud800", {"a": "x\0"}]
)
def test_an_index_of_weights_that_is_none_is_refused(weight_map: object, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises((ModelFormatError, ModelNotFoundError)):
        open_base(tmp_path)


def remove_tensor(checkpoint: Path, name: str) -> None:
    path = checkpoint / "adapter.safetensors"
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path)


def set_tensor(checkpoint: Path, name: str, value: torch.Tensor) -> None:
    path = checkpoint / "adapter.safetensors"
    save_file(load_file(path) | {name: value}, path)


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
