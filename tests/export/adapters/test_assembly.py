"""A memory adapter, from a base model to a chat: assembly gives the exported model."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import allmem_edge as ae
import bases
from adapters import CARD, make_adapter, make_base, train
from allmem_edge.assembly.adapter import MANIFEST, MODES, Mode
from allmem_edge.assembly.assemble import cached_path, merged, pull
from allmem_edge.assembly.initializers import Tensor, slots, write_data
from allmem_edge.checksums import check_files
from allmem_edge.cli import run
from allmem_export.export import export

pytestmark = pytest.mark.xdist_group("adapters")
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama-gguf": ("llama", "base.gguf", {"tie_word_embeddings": True}),
    "llama-linear": ("llama", "base.gguf", {}),
    "llama-checkpoint": ("llama", "base", {"attention_bias": True, "rope_parameters": bases.LLAMA3_ROPE}),
    "mistral-gguf": ("mistral", "base.gguf", {}),
    "qwen2-gguf": ("qwen2", "base.gguf", {"num_attention_heads": 4}),
    "qwen3-gguf": ("qwen3", "base.gguf", {"tie_word_embeddings": True}),
    "qwen3-sharded": ("qwen3", "base", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FAMILIES)
def test_the_assembled_model_is_the_export_of_the_merged_checkpoint(case: str, tmp_path: Path) -> None:
    family, name, fields = FAMILIES[case]
    base = make_base(tmp_path, family, name, **fields)
    checkpoint = train(base, tmp_path, memory="linear" if case == "llama-linear" else "mlp")
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


@contextmanager
def bounded_memory(peak: int) -> Iterator[None]:
    """Fails if the block allocates more bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= peak
    finally:
        tracemalloc.stop()


def test_the_update_of_a_weight_is_the_product_of_its_two_factors() -> None:
    rng = np.random.default_rng(0)
    weight, down, up = (rng.normal(size=shape).astype(np.float32) for shape in ((40, 30), (5, 30), (40, 5)))
    exact = weight.astype(np.float64) + up.astype(np.float64) @ down.astype(np.float64)
    bound = 6 * np.finfo(np.float32).eps * (np.abs(weight) + np.abs(up) @ np.abs(down))
    assert (np.abs(merged(weight, down, up) - exact) <= bound).all()


@pytest.mark.parametrize(
    ("weight", "down", "up"),
    [
        ((2, 2), (1, 4000), (4000, 1)),
        ((4000, 1), (1, 4000), (4000, 1)),
        ((1, 4000), (1, 4000), (4000, 1)),
        ((4, 4), (4,), (4, 1)),
        ((4, 4), (1, 4), (4,)),
        ((4, 4), (1, 4), (4, 2)),
        ((4,), (1, 4), (4, 1)),
        ((), (), ()),
    ],
)
def test_an_update_of_other_shapes_is_refused_before_it_is_multiplied(
    weight: tuple[int, ...], down: tuple[int, ...], up: tuple[int, ...]
) -> None:
    arrays = [np.ones(shape, np.float32) for shape in (weight, down, up)]
    with bounded_memory(1 << 20), pytest.raises(ValueError, match="update"):
        merged(*arrays)


@pytest.mark.parametrize(
    ("scale", "maps"), [((4000, 1), (1, 4000)), ((4000,), (4000,)), ((2,), (2000, 2, 1))]
)
def test_scales_of_other_shapes_than_their_maps_are_refused_before_they_are_multiplied(
    scale: tuple[int, ...], maps: tuple[int, ...], tmp_path: Path
) -> None:
    def read(name: str) -> NDArray[np.float32]:
        return np.ones(scale if name.endswith("_scale") else maps, np.float32)

    places = slots({"derived.0.query_map": Tensor("float32", (1,))})
    with bounded_memory(1 << 20), pytest.raises(ValueError, match="scales"):
        write_data(tmp_path / "data", places, read)


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
