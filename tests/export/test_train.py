"""The training loop: batches depend on the step alone, resuming changes nothing, bad configs are named."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from allmem_export.configuration import AllMemConfig
from allmem_export.dialogue_task import DialogueTask, answer_accuracy, pad, start_from
from allmem_export.modeling import AllMemForCausalLM
from allmem_export.muon import Muon, orthogonalize
from allmem_export.task import ConfigError
from allmem_export.train import (
    checkpoints,
    learning_rate_factor,
    load_config,
    make_optimizers,
    make_task,
    save_checkpoint,
    train,
)

CONFIG = """
task = "dialogues"
seed = 3
out = "{out}"
eval_cases = 1
[optimizer]
steps = 4
learning_rate = 1e-3
kind = "{kind}"
muon_learning_rate = 2e-3
warmup = 1
log_every = 1
save_every = 2
[tokenizer]
vocab_size = 400
dialogues = 20
[model]
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 16
tie_word_embeddings = true
window = 16
sinks = 2
chunk = 8
gate_init = 0.1
[[stage]]
share = 1.0
length = 96
batch = 2
facts = [2, 3]
filler = [0.0, 0.5]
"""


def write_config(tmp_path: Path, name: str, kind: str = "muon") -> Path:
    path = tmp_path / f"{name}.toml"
    path.write_text(CONFIG.format(out=(tmp_path / name).as_posix(), kind=kind))
    return path


def weights(out: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(out / "model.safetensors")
    return loaded


def test_a_batch_depends_on_its_seed_alone(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, "run"))
    first, second = DialogueTask(config), DialogueTask(config)
    first.batch(0, 7)
    again, same = first.batch(1, 8), second.batch(1, 8)
    assert all(torch.equal(again[key], same[key]) for key in again)
    assert not torch.equal(again["input_ids"], second.batch(1, 9)["input_ids"])


def test_only_the_assistants_words_are_learned_and_answers_are_marked(tmp_path: Path) -> None:
    task = DialogueTask(load_config(write_config(tmp_path, "run")))
    batches = [task.batch(0, seed) for seed in range(20)]
    assert any(batch["answer"].any() for batch in batches)
    for batch in batches:
        assert ((batch["answer"] > 0) <= (batch["weight"] > 0)).all()
        text = task.tokenizer.decode(batch["input_ids"][0][batch["weight"][0] > 0])
        assert text and "user" not in text and "<|im_start|>" not in text


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_resumed_run_ends_in_the_same_weights_as_an_uninterrupted_one(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_config(tmp_path, "whole", kind)
    train(whole)

    interrupted = write_config(tmp_path, "interrupted", kind)
    batch = DialogueTask.batch

    def stop_at_step_three(self: DialogueTask, step: int, seed: int) -> dict[str, torch.Tensor]:
        if step == 3:
            raise KeyboardInterrupt
        return batch(self, step, seed)

    with monkeypatch.context() as patch:
        patch.setattr(DialogueTask, "batch", stop_at_step_three)
        with pytest.raises(KeyboardInterrupt):
            train(interrupted)
    train(interrupted, resume=True)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "interrupted")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_finished_run_loads_with_the_auto_classes_and_logs_its_metrics(tmp_path: Path) -> None:
    train(write_config(tmp_path, "run"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert model.config.model_type == "allmem"
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert any("recall_8w" in line for line in lines)


def test_a_model_without_any_memory_trains_on_dialogues_too(tmp_path: Path) -> None:
    path = write_config(tmp_path, "run")
    path.write_text(path.read_text().replace("chunk = 8", "chunk = 8\nmemory_layers = []"))
    train(path)
    assert not any("memory" in name for name in weights(tmp_path / "run"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["idle_writing"] for line in lines if "loss" in line] == [0.0] * 4


@pytest.mark.slow
def test_under_torchrun_the_processes_are_one_run(tmp_path: Path) -> None:
    config = write_config(tmp_path, "run")
    command = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "allmem_edge",
        "train",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, *command, str(config)], env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]  # one process writes
    alone = write_config(tmp_path, "alone")
    train(alone)
    a, b = weights(tmp_path / "run"), weights(tmp_path / "alone")
    assert a.keys() == b.keys()
    assert any(not torch.equal(a[name], b[name]) for name in a)  # the other's batches count as well


def test_answer_accuracy_needs_every_token_of_a_value() -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    answer = torch.tensor([[0, 1, 1, 2, 0]])
    logits = torch.nn.functional.one_hot(torch.tensor([[6, 3, 8, 0, 0]]), 10).float()
    assert answer_accuracy(logits, ids, answer) == (1, 2)


def test_padding_cuts_and_fills_to_the_length() -> None:
    from allmem_export.dialogue_task import Encoded

    batch = pad([Encoded([1, 2, 3], [1.0] * 3, [0, 0, 1], [False] * 3), Encoded([4], [1.0], [0], [True])], 2)
    assert batch["input_ids"].tolist() == [[1, 2], [4, 0]]
    assert batch["weight"].tolist() == [[1.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize("shape", [(8, 8), (4, 24), (24, 4)])
def test_orthogonalize_brings_every_singular_value_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, *shape)))
    # Five steps of the quintic bring singular values above a hundredth of the largest into [0.6, 1.3].
    assert values.min() > 0.5 and values.max() < 1.3


def test_muon_takes_the_layers_matrices_and_adamw_the_rest(tmp_path: Path) -> None:
    task = DialogueTask(load_config(write_config(tmp_path, "run")))
    adamw, muon = make_optimizers(
        task.model, {"learning_rate": 1e-3, "kind": "muon", "muon_learning_rate": 1e-3}
    )
    assert isinstance(muon, Muon)
    in_muon = {id(p) for group in muon.param_groups for p in group["params"]}
    in_adamw = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert not in_muon & in_adamw
    assert in_muon | in_adamw == {id(p) for p in task.model.parameters()}
    assert id(task.model.model.embed_tokens.weight) in in_adamw
    assert id(task.model.model.layers[0].mlp.up_proj.weight) in in_muon


def test_what_has_two_axes_decays_the_scales_and_maps_of_heads_as_well() -> None:
    model = torch.nn.ParameterDict(
        {"matrix": torch.ones(4, 4), "head_scale": torch.ones(2, 4), "map": torch.ones(2, 4, 4)}
        | {"norm": torch.ones(4)}
    )
    (adamw,) = make_optimizers(model, {"learning_rate": 1e-3, "weight_decay": 0.5})
    decay = {id(p): group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    found = {name: decay[id(p)] for name, p in model.items()}
    assert found == {"matrix": 0.5, "head_scale": 0.5, "map": 0.5, "norm": 0.0}


def test_the_rate_warms_up_and_falls_to_its_final_fraction() -> None:
    factors = [learning_rate_factor(step, 100, 10, 0.1) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0 == max(factors)
    assert factors[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("seed = 3", ""), "seed"),
        (('task = "dialogues"', 'task = "poems"'), "poems"),
        (('kind = "muon"', 'kind = "sgd"'), "sgd"),
        (("share = 1.0", "part = 1.0"), "part"),
        (("[optimizer]", "[optimizer"), "TOML"),
        (("vocab_size = 400", ""), "vocab_size"),
    ],
)
def test_a_wrong_config_is_named_in_one_sentence(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    path = write_config(tmp_path, "run")
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ConfigError, match=named):
        train(path)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        train(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    "name", ["bundled.toml", "bundled-2.toml", "bundled-3.toml", "bundled-4.toml", "bundled-5.toml"]
)
def test_the_bundled_config_is_complete(name: str) -> None:
    path = Path(__file__).parents[2] / "export" / "configs" / name
    config: dict[str, Any] = load_config(path)
    assert sum(stage["share"] for stage in config["stage"]) == pytest.approx(1.0)
    assert config["model"]["chunk"] <= config["model"]["window"] <= 128


def test_a_run_with_init_starts_from_that_checkpoint(tmp_path: Path) -> None:
    train(write_config(tmp_path, "first"))
    second = write_config(tmp_path, "second")
    text = second.read_text().replace("eval_cases", f'init = "{(tmp_path / "first").as_posix()}"\neval_cases')
    second.write_text(text.replace("rate = 1e-3", "rate = 0.0").replace("rate = 2e-3", "rate = 0.0"))
    train(second)
    a, b = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.equal(a[name], b[name]) for name in a)
    first_tokenizer, second_tokenizer = (tmp_path / name / "tokenizer.json" for name in ("first", "second"))
    assert first_tokenizer.read_text() == second_tokenizer.read_text()


def small_model(**settings: Any) -> AllMemForCausalLM:
    """A random model of one layer of the given settings."""
    base = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    memory = {"window": 8, "sinks": 2, "chunk": 8, "gate_init": 0.5}
    return AllMemForCausalLM(AllMemConfig(**(base | heads | memory | settings))).eval()


@torch.no_grad()
def test_init_may_have_narrower_memories_and_the_new_units_add_nothing_at_first() -> None:
    narrow, wide = small_model(memory_ratio=1), small_model(memory_ratio=2)
    start_from(wide, narrow)
    ids = torch.arange(8)[None]  # one chunk: nothing has been written
    # One layer, and a memory that is read: no more operators in a row than another layer has.
    expected = narrow(ids).logits
    assert (wide(ids).logits - expected).abs().max() <= tiny.rounding(expected, layers=2)
    down = wide.model.layers[0].self_attn.memory.weight_down
    assert down.shape[-1] == 32 and down[..., :16].any() and not down[..., 16:].any()


def test_an_init_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match="Only memory_ratio may be larger"):
        start_from(small_model(intermediate_size=64), small_model())
    with pytest.raises(ConfigError, match="Only memory_ratio may be larger"):
        start_from(small_model(memory_ratio=1), small_model(memory_ratio=2))


@pytest.mark.parametrize("task", ["dance", ["dialogues"], {"name": "dialogues"}])
def test_an_unknown_task_is_refused_with_the_names_of_those_there_are(task: object) -> None:
    with pytest.raises(ConfigError, match="this version has dialogues, distill, graft, qwen3"):
        make_task({"task": task})


def test_a_new_run_keeps_its_own_checkpoint_beside_what_an_earlier_one_left(tmp_path: Path) -> None:
    accelerator = Mock(is_main_process=True)
    accelerator.save_state.side_effect = lambda path: Path(path).mkdir()
    for step in (10, 20, 30, 40):
        save_checkpoint(accelerator, tmp_path, step, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-30", "checkpoint-40"]
    save_checkpoint(accelerator, tmp_path, 5, keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-5"]
