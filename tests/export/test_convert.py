"""A converted Qwen3 computes what transformers' Qwen3 computes, and bad input is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

import allmem_export.sources
import tiny
from allmem_export.convert import ConvertError, convert

BASE: dict[str, Any] = {
    "vocab_size": 211,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
}
LONG_FACTORS = {"short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [2.0 + i for i in range(8)]}
SHAPES: dict[str, dict[str, Any]] = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "one-kv-head": {"num_key_value_heads": 1},
    "no-groups": {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 12},
    "heads-wider-than-the-model": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32},
    "odd-width": {"hidden_size": 50, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 10},
    "attention-bias": {"attention_bias": True, "tie_word_embeddings": True},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rms_norm_eps": 1e-5},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}},
    "dynamic": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    "yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 8.0,
            "original_max_position_embeddings": 64,
        }
    },
    "llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "longrope": {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "factor": 2.0,
            "original_max_position_embeddings": 256,
            **LONG_FACTORS,
        }
    },
}


def random_qwen3(seed: int = 0, **fields: Any) -> Qwen3ForCausalLM:
    """A Qwen3 none of whose parameters sits at a value (0 or 1) that would hide a mistake."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(Qwen3Config(**(BASE | fields))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def save(model: Qwen3ForCausalLM, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    return folder


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids).logits.float()


@pytest.fixture
def qwen3(tmp_path: Path) -> Path:
    """A small checkpoint directory to spoil."""
    return save(random_qwen3(), tmp_path / "qwen3")


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_evicted_means_qwen3s_logits(shape: str, tmp_path: Path) -> None:
    model = random_qwen3(**SHAPES[shape])
    convert(save(model, tmp_path / "qwen3"), tmp_path / "allmem", window=200, sinks=8, chunk=32)
    ids = torch.randint(0, 211, (2, 200))
    theirs = logits(model, ids)
    ours = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "allmem"), ids)
    assert theirs.std() > 0.5  # tokens have logits of their own
    assert (ours - theirs).abs().max() <= tiny.rounding(theirs)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("window", "chunk", "tokens"), [(32, 32, 200), (17, 5, 131), (1, 1, 40)])
def test_without_sinks_a_smaller_window_means_qwen3s_own_sliding_window(
    window: int, chunk: int, tokens: int, attention: str, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}
    model = random_qwen3(attn_implementation=attention, **fields)
    convert(save(model, tmp_path / "qwen3"), tmp_path / "allmem", window=window, sinks=0, chunk=chunk)
    ids = torch.randint(0, 211, (2, tokens))
    theirs = logits(model, ids)
    ours = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "allmem"), ids)
    assert (ours - theirs).abs().max() <= tiny.rounding(theirs)
    model.config.layer_types = ["full_attention"] * 3
    full = Qwen3ForCausalLM(Qwen3Config(**BASE)).eval()
    full.load_state_dict(model.state_dict())
    assert (logits(full, ids) - theirs).abs().max() > 0.1  # the window matters


def test_the_legacy_spelling_of_rope_scaling_is_read(tmp_path: Path) -> None:
    model = random_qwen3(**SHAPES["yarn"])
    source = save(model, tmp_path / "qwen3")
    config = json.loads((source / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    (source / "config.json").write_text(json.dumps(config))
    convert(source, tmp_path / "allmem", window=128, sinks=0, chunk=32)
    ids = torch.randint(0, 211, (1, 128))
    theirs = logits(model, ids)
    ours = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "allmem"), ids)
    assert (ours - theirs).abs().max() <= tiny.rounding(theirs)


def test_a_sharded_checkpoint_converts_to_the_same_model(tmp_path: Path) -> None:
    model = random_qwen3()
    one, many = save(model, tmp_path / "one"), save(model, tmp_path / "many", max_shard_size="40KB")
    assert len(list(many.glob("*.safetensors"))) > 3
    seen: list[tuple[int, int]] = []
    convert(one, tmp_path / "a", window=64, chunk=16)
    convert(
        many, tmp_path / "b", window=64, chunk=16, progress=lambda done, total: seen.append((done, total))
    )
    a, b = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in "ab")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] == sum(
        t.numel() * t.element_size()
        for file in (tmp_path / "b").glob("*.safetensors")
        for t in load_file(file).values()
    )


def test_base_weights_keep_their_bytes_and_the_memory_is_float32(tmp_path: Path) -> None:
    model = random_qwen3(tie_word_embeddings=True).bfloat16()
    source = save(model, tmp_path / "qwen3")
    convert(source, tmp_path / "allmem", window=64, chunk=16)
    stored: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "allmem").glob("*.safetensors"):
        stored |= load_file(file)
    before = load_file(source / "model.safetensors")
    memory = {name for name in stored if ".memory." in name}
    assert stored.keys() - memory == before.keys() and "lm_head.weight" not in stored
    assert all(
        stored[name].dtype == torch.bfloat16 and torch.equal(stored[name], before[name]) for name in before
    )
    assert memory and all(stored[name].dtype == torch.float32 for name in memory)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "allmem")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_the_seed_decides_the_memory_and_leaves_the_callers_random_state_alone(
    qwen3: Path, tmp_path: Path
) -> None:
    state = torch.random.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        convert(qwen3, tmp_path / name, window=64, chunk=16, seed=seed)
    assert torch.equal(state, torch.random.get_rng_state())
    a, b, c = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).model.layers[1].self_attn.memory
        for name in "abc"
    )
    assert torch.equal(a.weight_up, b.weight_up) and not torch.equal(a.weight_up, c.weight_up)
    assert not a.alpha.any()


def test_tokenizer_files_come_along_and_nothing_else(qwen3: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "README.md", "train.log"):
        (qwen3 / name).write_text(name)
    convert(qwen3, tmp_path / "allmem", window=64, chunk=16)
    copied = {p.name for p in (tmp_path / "allmem").iterdir() if p.suffix != ".safetensors"}
    assert copied == {
        "config.json",
        "model.safetensors.index.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert (tmp_path / "allmem" / "tokenizer.json").read_text() == "tokenizer.json"


def test_every_choice_becomes_a_field_of_the_config(qwen3: Path, tmp_path: Path) -> None:
    convert(qwen3, tmp_path / "allmem", window=64, sinks=3, chunk=16, ratio=3, gate="dynamic")
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "allmem").config
    got = (config.window, config.sinks, config.chunk, config.memory_ratio, config.gate, config.gate_init)
    assert got == (64, 3, 16, 3, "dynamic", 0.0)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", Path("Qwen/Qwen3-0.6B")], ids=["str", "path"])
def test_a_hub_id_is_fetched_and_converted(
    name: Path | str, qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        allmem_export.sources, "snapshot_download", lambda name, **_: asked.append(name) or str(qwen3)
    )
    convert(name, tmp_path / "allmem", window=64, chunk=16)
    assert asked == ["Qwen/Qwen3-0.6B"] and (tmp_path / "allmem" / "config.json").is_file()


def test_a_hub_that_delivers_nothing_is_reported_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(name: str, **_: object) -> str:
        raise LocalEntryNotFoundError("Cannot reach the hub.\nTry again.")

    monkeypatch.setattr(allmem_export.sources, "snapshot_download", unreachable)
    with pytest.raises(
        ConvertError, match=r"absent/model is neither a directory nor .* Cannot reach the hub\.$"
    ):
        convert("absent/model", tmp_path / "allmem")


def edit_config(source: Path, **fields: Any) -> None:
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def edit_weights(source: Path, **changes: torch.Tensor | None) -> None:
    path = source / "model.safetensors"
    tensors = load_file(path)
    for name, value in changes.items():
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    save_file(tensors, path)


def truncate(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


NORM = "model.norm.weight"
SPOILED = {
    "no config": (lambda d: (d / "config.json").unlink(), "has no config.json"),
    "config is no JSON": (lambda d: (d / "config.json").write_text("{"), "cannot be read as JSON"),
    "config is a list": (lambda d: (d / "config.json").write_text("[]"), "JSON object"),
    "another model": (lambda d: edit_config(d, model_type="gpt2"), "gpt2"),
    "no model type": (lambda d: edit_config(d, model_type=None), "supported: qwen3"),
    "quantised": (lambda d: edit_config(d, quantization_config={"bits": 4}), "quantised"),
    "a field of the wrong type": (lambda d: edit_config(d, hidden_size="many"), "hidden_size"),
    "unknown rope scaling": (
        lambda d: edit_config(d, rope_parameters={"rope_type": "spiral", "rope_theta": 1e4}),
        "spiral",
    ),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "model.safetensors is missing"),
    "weights cut short": (
        lambda d: truncate(d / "model.safetensors", 50_000),
        "not a complete safetensors file",
    ),
    "header cut short": (lambda d: truncate(d / "model.safetensors", 100), "not a complete safetensors file"),
    "empty weights": (lambda d: truncate(d / "model.safetensors", 0), "not a complete safetensors file"),
    "a tensor less": (lambda d: edit_weights(d, **{NORM: None}), f"lack {NORM}"),
    "a tensor more": (lambda d: edit_weights(d, **{"model.extra": torch.ones(2)}), "model.extra"),
    "another shape": (lambda d: edit_weights(d, **{NORM: torch.ones(7)}), r"shape \[7\]"),
    "integers": (lambda d: edit_weights(d, **{NORM: torch.ones(48, dtype=torch.int8)}), "I8"),
    "more layers than weights": (
        lambda d: edit_config(d, num_hidden_layers=4, layer_types=None),
        "model.layers.3",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_checkpoint_is_refused_with_a_sentence_and_leaves_nothing_behind(
    case: str, qwen3: Path, tmp_path: Path
) -> None:
    spoil, message = SPOILED[case]
    spoil(qwen3)
    with pytest.raises(ConvertError, match=message) as caught:
        convert(qwen3, tmp_path / "allmem")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["qwen3"]


@pytest.mark.parametrize("name", ["gone.safetensors", "../model.safetensors", "/etc/passwd"])
def test_an_index_that_names_a_file_outside_or_absent_is_refused(
    name: str, qwen3: Path, tmp_path: Path
) -> None:
    weights = load_file(qwen3 / "model.safetensors")
    (qwen3 / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(weights, name)})
    )
    with pytest.raises(
        ConvertError, match="is missing" if name.startswith("gone") else "not a file of that directory"
    ):
        convert(qwen3, tmp_path / "allmem")


@pytest.mark.parametrize("source", ["no/such/folder", "nonsense", "./absent", Path("/absent/folder")])
def test_a_source_that_is_nowhere_is_refused(source: Path | str, tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match="is not a directory"):
        convert(source, tmp_path / "allmem")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 64, "chunk": 65}, "chunk"),
        ({"sinks": -1}, "sinks"),
        ({"ratio": 0}, "ratio"),
        ({"gate": "on"}, "gate"),
    ],
)
def test_impossible_choices_are_refused(
    options: dict[str, Any], message: str, qwen3: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConvertError, match=message):
        convert(qwen3, tmp_path / "allmem", **options)


def test_an_output_that_holds_something_is_left_alone(qwen3: Path, tmp_path: Path) -> None:
    (tmp_path / "allmem").mkdir()
    (tmp_path / "allmem" / "mine.txt").write_text("keep me")
    for out in (tmp_path / "allmem", tmp_path / "allmem" / "mine.txt", qwen3):
        with pytest.raises(ConvertError, match="already exists"):
            convert(qwen3, out)
    assert (tmp_path / "allmem" / "mine.txt").read_text() == "keep me"
    shutil.rmtree(tmp_path / "allmem")
    (tmp_path / "allmem").mkdir()
    convert(qwen3, tmp_path / "allmem", window=64, chunk=16)  # an empty directory is as good as none


@pytest.mark.slow
def test_layers_of_qwen3_0_6bs_shape_convert_exactly(tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 1e6}
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=151936,
            hidden_size=1024,
            intermediate_size=3072,
            num_hidden_layers=6,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            max_position_embeddings=40960,
            tie_word_embeddings=True,
            rope_parameters=rope,
        )
    ).eval()
    ids = torch.randint(0, 151936, (1, 48))
    theirs = logits(model, ids)
    save(model, tmp_path / "qwen3")
    del model
    convert(tmp_path / "qwen3", tmp_path / "allmem")
    shutil.rmtree(tmp_path / "qwen3")
    difference = (logits(AutoModelForCausalLM.from_pretrained(tmp_path / "allmem"), ids) - theirs).abs().max()
    assert difference <= tiny.rounding(theirs, layers=6)
