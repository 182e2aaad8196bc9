"""The exported directory: PyTorch's logits in stock onnxruntime, and the form docs/format.md promises."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from allmem_edge.assembly.initializers import ALIGNMENT
from allmem_edge.ort_backend import OrtModel, OrtSession
from allmem_export import export as export_module
from allmem_export.export import ExportError, export, graph_for
from allmem_export.streaming import StreamingDecoder, initial_fast_weights, state_shapes
from allmem_export.verify import TOLERANCE, random_cuts

TOKENS = 600
STANDARD_OPS = {"Gather", "Gemm", "RMSNormalization", "Reshape", "Swish", "Softplus", "Sigmoid", "Mul", "Add"}
MAP_OPS = {"Einsum"}
MEMORY_OPS = {"mlp": "TestTimeMemory", "linear": "LinearMemory"}


def random_ids(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, tiny.VOCAB_SIZE, TOKENS)


def pytorch_logits(model: torch.nn.Module, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(input_ids=torch.from_numpy(ids)[None]).logits[0].numpy()


def ort_logits(directory: Path, ids: np.ndarray, *, frozen: bool = False, seed: int = 1) -> np.ndarray:
    session = OrtSession(OrtModel(directory), 1)
    session.freeze(frozen)
    cuts = random_cuts(len(ids), np.random.default_rng(seed))
    return np.concatenate([session.forward(ids[start:stop]) for start, stop in cuts])


def load(directory: Path) -> onnx.ModelProto:
    return onnx.load(directory / "model.onnx", load_external_data=False)


@pytest.mark.parametrize("name", tiny.names())
def test_streaming_in_pytorch_gives_the_logits_of_the_whole_sequence(name: str) -> None:
    model, ids = tiny.make_model(name), random_ids()
    decoder = StreamingDecoder(model)
    w0 = initial_fast_weights(model)
    states = [w0.get(n, torch.zeros(shape)) for n, shape in state_shapes(model.config).items()]
    logits = []
    with torch.no_grad():
        for start, stop in random_cuts(TOKENS, np.random.default_rng(2)):
            piece, states = decoder(torch.from_numpy(ids[start:stop]), torch.tensor(start), states)
            logits.append(piece.numpy())
    np.testing.assert_allclose(np.concatenate(logits), pytorch_logits(model, ids), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", tiny.names())
def test_onnxruntime_gives_pytorchs_logits_for_any_split(name: str, exported: Callable[..., Any]) -> None:
    model, directory, ids = exported(name).model, exported(name).directory, random_ids()
    np.testing.assert_allclose(ort_logits(directory, ids), pytorch_logits(model, ids), atol=TOLERANCE, rtol=0)


def test_the_memory_matters_in_these_models(exported: Callable[..., Any]) -> None:
    directory, ids = exported("base").directory, random_ids()
    chunk = tiny.BASE["chunk"]
    difference = np.abs(ort_logits(directory, ids) - ort_logits(directory, ids, frozen=True)).max(-1)
    assert difference[:chunk].max() < TOLERANCE  # nothing is written before the first chunk ends
    assert np.median(difference[chunk:]) > 100 * TOLERANCE


@pytest.mark.parametrize("name", tiny.names())
def test_graph_has_the_documented_inputs_and_outputs(name: str, exported: Callable[..., Any]) -> None:
    model = load(exported(name).directory)
    c = exported(name).model.config
    kv, dim, hidden = c.num_key_value_heads, c.head_dim, c.memory_ratio * c.head_dim
    states: dict[str, list[Any]] = {}
    for i in range(c.num_hidden_layers):
        states |= {
            f"layers.{i}.attention.{n}.state": [kv, c.sinks + c.window, dim] for n in ("keys", "values")
        }
        if c.memory_layers is not None and i not in c.memory_layers:
            continue
        if c.memory == "linear":
            states[f"layers.{i}.memory.weight.matrix.state"] = [kv, dim, dim]
            continue
        for kind in ("weight", "momentum", "gradient"):
            states |= {f"layers.{i}.memory.{kind}.{n}.state": [kv, hidden, dim] for n in ("gate", "up")}
            states[f"layers.{i}.memory.{kind}.down.state"] = [kv, dim, hidden]
        states[f"layers.{i}.memory.beta_sum.state"] = [kv]

    def shapes(values: Any) -> dict[str, list[Any]]:
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    assert shapes(model.graph.input) == {"input_ids": ["T"], "position": []} | states
    logits = {"logits": ["T", c.vocab_size]}
    assert shapes(model.graph.output) == logits | {f"{n}.out": shape for n, shape in states.items()}
    initial = {t.name for t in model.graph.initializer} & states.keys()
    assert initial == (set() if c.memory == "linear" else {n for n in states if ".memory.weight." in n})


@pytest.mark.parametrize("name", tiny.names())
def test_graph_is_made_of_few_standard_operators(name: str, exported: Callable[..., Any]) -> None:
    model = load(exported(name).directory)
    standard = {n.op_type for n in model.graph.node if n.domain == ""}
    assert standard - MAP_OPS <= STANDARD_OPS
    assert MAP_OPS.issubset(standard) == exported(name).model.config.memory_maps
    allmem_ops = {"SlidingWindowAttention", MEMORY_OPS[exported(name).model.config.memory]}
    assert {n.op_type for n in model.graph.node if n.domain != ""} == allmem_ops
    assert {(o.domain, o.version) for o in model.opset_import} == {("", 24), ("allmem", 1)}
    assert {(f.domain, f.name) for f in model.functions} == {("allmem", n) for n in allmem_ops}
    constants = {t.name for t in model.graph.initializer}
    assert all(n.input[1] in constants for n in model.graph.node if n.op_type == "Reshape")
    tied = exported(name).model.config.tie_word_embeddings
    sizes = [list(t.dims) for t in model.graph.initializer]
    assert sizes.count([tiny.VOCAB_SIZE, exported(name).model.config.hidden_size]) == (1 if tied else 2)


@pytest.mark.parametrize("quantize", ["none", pytest.param("int4", marks=pytest.mark.slow)])
def test_weights_lie_apart_inside_the_data_file_at_aligned_offsets(
    quantize: str, exported: Callable[..., Any]
) -> None:
    directory = exported("base", quantize).directory
    end = 0
    for tensor in load(directory).graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:  # of the graph itself: shapes, ones
            assert not any(
                part in tensor.name for part in ("model.", "derived.", "lm_head.weight.s", ".state")
            )
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        assert where["location"] == "model.onnx.data"
        offset, length = int(where["offset"]), int(where["length"])
        assert offset % ALIGNMENT == 0
        assert end <= offset < end + ALIGNMENT
        end = offset + length
    assert end == (directory / "model.onnx.data").stat().st_size


@pytest.mark.parametrize(
    "name", tiny.names("base", "no_sinks_untied_dynamic", "llama_some_memories_maps", "linear")
)
def test_file_passes_the_full_checker(name: str, exported: Callable[..., Any]) -> None:
    onnx.checker.check_model(str(exported(name).directory / "model.onnx"), full_check=True)


@pytest.mark.slow
def test_metadata_is_complete(exported: Callable[..., Any]) -> None:
    properties = {p.key: p.value for p in load(exported("base", "int4").directory).metadata_props}
    assert properties.pop("allmem.exporter")
    assert properties == {
        "allmem.format": "1",
        "allmem.model_type": "allmem",
        "allmem.window": "24",
        "allmem.sinks": "3",
        "allmem.chunk": "16",
        "allmem.layers": "2",
        "allmem.vocab_size": str(tiny.VOCAB_SIZE),
        "allmem.quantization": "int4",
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "int8", "int4"])
@pytest.mark.parametrize("name", ["base", "no_sinks_untied_dynamic", "llama_some_memories_maps", "linear"])
def test_the_graph_follows_from_the_config_alone(name: str, mode: Any, exported: Callable[..., Any]) -> None:
    directory = exported(name, mode).directory
    graph, places = graph_for(exported(name).model.config, mode)
    assert graph == (directory / "model.onnx").read_bytes()
    end = places[-1].offset + places[-1].tensor.size
    assert end == (directory / "model.onnx.data").stat().st_size


def test_file_says_nothing_of_the_machine_that_wrote_it(exported: Callable[..., Any]) -> None:
    content = (exported("base").directory / "model.onnx").read_bytes()
    assert not any(text in content for text in (b".py", b"stack_trace", str(Path.home()).encode()))


def test_directory_holds_the_tokenizer_and_configs(exported: Callable[..., Any]) -> None:
    checkpoint, _, directory = exported("base")
    assert {p.name for p in directory.iterdir()} == {
        "model.onnx",
        "model.onnx.data",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "chat_format.json",
        "SHA256SUMS",
    }
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        assert (directory / name).read_bytes() == (checkpoint / name).read_bytes()
    assert json.loads((directory / "generation_config.json").read_text())["eos_token_id"] == 2


def test_chat_template_is_taken_from_the_tokenizer_config(tmp_path: Path, bare: Path) -> None:
    config = json.loads((bare / "tokenizer_config.json").read_text())
    (bare / "chat_template.jinja").unlink()
    listed = [{"name": "tool_use", "template": "B"}, {"name": "default", "template": "A {{ x }}"}]
    for name, template in (("one", "A {{ x }}"), ("several", listed)):
        (bare / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
        export(bare, tmp_path / name)
        assert (tmp_path / name / "chat_template.jinja").read_text() == "A {{ x }}"
    assert (tmp_path / "several" / "additional_chat_templates" / "tool_use.jinja").read_text() == "B"
    assert "unusable" in json.loads((tmp_path / "one" / "chat_format.json").read_text())


@pytest.fixture
def bare(tmp_path: Path, exported: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint to spoil, and an exporter that skips the slow step."""
    shutil.copytree(exported("base").checkpoint, tmp_path / "checkpoint")
    monkeypatch.setattr(export_module, "write_model", lambda *args: None)
    return tmp_path / "checkpoint"


def drop_a_weight(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["model.layers.1.self_attn.memory.alpha"]
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no directory": (shutil.rmtree, "no such checkpoint directory"),
    "no config": (lambda c: (c / "config.json").unlink(), "config.json: cannot be read"),
    "config not JSON": (lambda c: (c / "config.json").write_text("{"), "config.json: is not JSON"),
    "config a list": (lambda c: (c / "config.json").write_text("[]"), "does not hold a JSON object"),
    "another model": (
        lambda c: (c / "config.json").write_text('{"model_type": "qwen3"}'),
        "allmem-edge convert",
    ),
    "impossible config": (
        lambda c: (c / "config.json").write_text('{"model_type": "allmem", "window": 4, "chunk": 9}'),
        "cannot be loaded",
    ),
    "no tokenizer": (lambda c: (c / "tokenizer.json").unlink(), "tokenizer.json"),
    "no weights": (lambda c: (c / "model.safetensors").unlink(), "cannot be loaded"),
    "a weight missing": (drop_a_weight, "lack model.layers.1.self_attn.memory.alpha"),
    "truncated weights": (lambda c: (c / "model.safetensors").write_bytes(b"\1\2\3"), "cannot be loaded"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_checkpoint_is_refused_and_leaves_nothing_behind(
    case: str, bare: Path, tmp_path: Path
) -> None:
    spoil, message = SPOILT[case]
    spoil(bare)
    with pytest.raises(ExportError, match=message):
        export(bare, tmp_path / "new" / "out")
    assert not list(tmp_path.glob("new/*")) and not list(tmp_path.glob("new/.*"))


def test_an_export_that_fails_late_leaves_nothing_behind(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(model: Any, folder: Path, *args: Any) -> None:
        (folder / "model.onnx.data").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(export_module, "write_model", interrupted)
    (tmp_path / "new").mkdir()
    with pytest.raises(KeyboardInterrupt):
        export(bare, tmp_path / "new" / "out")
    assert not list((tmp_path / "new").iterdir())


def test_an_existing_directory_is_filled_only_if_it_is_empty(bare: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export(bare, out)
    kept = (out / "config.json").stat()
    with pytest.raises(ExportError, match="not an empty directory"):
        export(bare, out)
    assert (out / "config.json").stat() == kept


def test_an_unknown_quantization_is_refused(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="'int3'"):
        export(bare, tmp_path / "out", quantize="int3")  # type: ignore[arg-type]


def test_progress_runs_through_every_step_in_order(tmp_path: Path, exported: Callable[..., Any]) -> None:
    seen: list[tuple[str, float]] = []
    checkpoint = exported("base").checkpoint
    export(
        checkpoint, tmp_path / "out", quantize="int8", progress=lambda step, done: seen.append((step, done))
    )
    assert list(dict.fromkeys(step for step, _ in seen)) == ["load", "trace", "write"]
    for step in ("load", "trace", "write"):
        fractions = [done for s, done in seen if s == step]
        assert fractions == sorted(fractions) and fractions[-1] == 1.0
