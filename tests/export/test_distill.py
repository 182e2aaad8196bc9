"""Distillation: the memory alone learns, and the KL divergence from full attention falls."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from allmem_export.convert import convert
from allmem_export.distill_task import (
    DistillTask,
    divergence,
    full_attention_teacher,
    using_spans,
    without_memory,
)
from allmem_export.modeling import AllMemForCausalLM
from allmem_export.qwen3_task import Qwen3Task
from allmem_export.streams import make_batch, make_stream
from allmem_export.task import ConfigError
from allmem_export.train import train

RECALL = {"kind": "recall", "length": 24, "batch": 4, "symbols": 8, "keys": [2, 6], "filler": [0.0, 0.5]}


def random_qwen3(tied: bool) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        tie_word_embeddings=tied,
        initializer_range=0.3,  # random attention that matters
    )
    return Qwen3ForCausalLM(config).eval()


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def qwen3(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    random_qwen3(request.param).save_pretrained(tmp_path / "qwen3")
    return tmp_path / "qwen3"


@pytest.fixture
def checkpoint(qwen3: Path, tmp_path: Path) -> Path:
    convert(qwen3, tmp_path / "converted", window=8, sinks=1, chunk=4)
    return tmp_path / "converted"


def distillation(folder: Path, **tables: Any) -> dict[str, Any]:
    return {
        "task": "distill",
        "checkpoint": str(folder),
        "draw": {"window": [6, 10], "sinks": [0, 2], "chunk": [3, 6]},
        "data": RECALL,
        "evaluation": {"batches": 2},
    } | tables


def write_toml(path: Path, config: dict[str, Any]) -> Path:
    def value(x: Any) -> str:
        return (
            "{" + ", ".join(f"{k} = {value(v)}" for k, v in x.items()) + "}"
            if isinstance(x, dict)
            else json.dumps(x)
        )

    path.write_text("".join(f"{key} = {value(x)}\n" for key, x in config.items()))
    return path


def test_training_lowers_the_divergence(checkpoint: Path) -> None:
    task = DistillTask(distillation(checkpoint))
    batch = task.batch(0, 0)
    optimizer = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], 2e-2)
    losses = []
    for _ in range(30):
        loss, _ = task.loss(task.model, batch)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_a_run_changes_the_memory_and_nothing_else(checkpoint: Path, tmp_path: Path) -> None:
    optimizer = {"steps": 4, "learning_rate": 1e-2, "log_every": 2, "save_every": 1000}
    config = distillation(checkpoint, seed=1, out=str(tmp_path / "run"), optimizer=optimizer)
    train(write_toml(tmp_path / "distill.toml", config))
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    parts = ("loss", "loss_without_memory", "loss_full_attention", "kl")
    assert last.keys() == {"step", *(f"{place}_{part}" for place in ("near", "far") for part in parts)}
    old, new = (
        AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (checkpoint, tmp_path / "run")
    )
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    memory = {name for name in old if ".self_attn.memory." in name}
    assert changed <= memory
    assert {name.rsplit("memory.", 1)[1] for name in changed} == {
        name.rsplit("memory.", 1)[1] for name in memory
    }
    spans = AutoModelForCausalLM.from_pretrained(tmp_path / "run").config
    assert (spans.window, spans.sinks, spans.chunk) == (8, 1, 4)  # the drawn ones are not kept


def test_the_teacher_is_the_source_model_and_owns_no_weights(qwen3: Path, checkpoint: Path) -> None:
    student = AllMemForCausalLM.from_pretrained(checkpoint)
    teacher = full_attention_teacher(student)
    ids = torch.randint(0, 24, (2, 50))
    with torch.no_grad():
        assert torch.equal(teacher(ids).logits, AutoModelForCausalLM.from_pretrained(qwen3)(ids).logits)
    own = {p.data_ptr() for p in student.parameters()}
    assert all(p.data_ptr() in own for p in teacher.parameters())


def test_an_untrained_student_with_a_window_as_long_as_the_text_does_not_diverge(checkpoint: Path) -> None:
    student = AllMemForCausalLM.from_pretrained(checkpoint)
    ids = torch.randint(0, 24, (2, 50))
    with torch.no_grad():
        teacher = full_attention_teacher(student)(ids).logits
        assert divergence(teacher, student(ids).logits).mean() > 1e-3
        with using_spans(student.config, (50, 0, 16)):
            # the logits differ by rounding δ ≲ 1e-4 and KL is of second order in δ: its own sum's rounding is
            # left
            assert divergence(teacher, student(ids).logits).abs().max() < 1e-5
    assert (student.config.window, student.config.sinks, student.config.chunk) == (8, 1, 4)


def test_only_the_memory_requires_gradients(checkpoint: Path) -> None:
    task = DistillTask(distillation(checkpoint))
    for name, parameter in task.model.named_parameters():
        assert parameter.requires_grad == (".memory." in name)


def test_without_memory_means_alpha_zero_for_a_while(checkpoint: Path) -> None:
    student = AllMemForCausalLM.from_pretrained(checkpoint)
    ids = torch.randint(0, 24, (1, 30))
    with torch.no_grad():
        converted = student(ids).logits
        for layer in student.model.layers:
            layer.self_attn.memory.alpha += 0.5
        trained = student(ids).logits
        with without_memory(student):
            assert torch.equal(student(ids).logits, converted)
        assert torch.equal(student(ids).logits, trained) and not torch.equal(trained, converted)


def test_spans_are_drawn_within_their_ranges_and_chunks_fit_the_window(checkpoint: Path) -> None:
    task = DistillTask(distillation(checkpoint, draw={"window": [5, 12], "sinks": [0, 3], "chunk": [2, 20]}))
    drawn = [task.draw(random.Random(seed)) for seed in range(3000)]
    assert {window for window, _, _ in drawn} == set(range(5, 13))
    assert {sinks for _, sinks, _ in drawn} == {0, 1, 2, 3}
    assert all(2 <= chunk <= window for window, _, chunk in drawn)
    assert {chunk for _, _, chunk in drawn} == set(range(2, 13))


def test_a_batch_is_a_function_of_its_seed(checkpoint: Path) -> None:
    task = DistillTask(distillation(checkpoint))
    a, b, c = task.batch(0, 5), task.batch(9, 5), task.batch(0, 6)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["input_ids"], c["input_ids"])


def test_a_recalled_values_distance_leads_to_where_the_value_was() -> None:
    batch = make_batch(make_stream(RECALL, None), seed=3, sequences=8, length=200)
    recalled = 0
    for ids, distance in zip(batch["input_ids"].tolist(), batch["distance"].tolist(), strict=True):
        for t, back in enumerate(distance):
            if back:
                source = t - 1 - back  # the distance is counted from the token that predicts
                assert ids[source] == ids[t] and ids[source - 1] == ids[t - 1]
                assert ids[t] not in ids[source + 1 : t] or ids[t - 1] not in ids[source + 1 : t - 1]
                recalled += 1
    assert recalled > 200


def test_text_files_are_read_in_the_checkpoints_own_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", *["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(tmp_path)
    (tmp_path / "a.txt").write_text("the quick brown fox jumps over a lazy dog " * 3)
    stream = make_stream({"kind": "text", "files": [str(tmp_path / "*.txt")]}, tmp_path)
    ids, distance = stream.sample(random.Random(0), 12)
    assert len(ids) == 12 and all(b - a in (1, -8) for a, b in itertools.pairwise(ids))
    assert distance == list(range(12))
    with pytest.raises(ConfigError, match="27 tokens"):
        stream.sample(random.Random(0), 28)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"draw": {"window": [6, 10], "sinks": [0, 2]}}, "lacks 'chunk'"),
        ({"draw": {"window": [6, 5], "sinks": [0, 2], "chunk": [3, 4]}}, "window"),
        ({"draw": {"window": [6, 10], "sinks": 2, "chunk": [3, 4]}}, "sinks"),
        ({"draw": {"window": [6, 10], "sinks": [0, 2], "chunk": [7, 8]}}, "fits the smallest window"),
        ({"draw": {"window": [6, 60], "sinks": [0, 2], "chunk": [4, 24]}}, "before the memory is read"),
        ({"data": RECALL | {"kind": "poems"}}, "poems"),
        ({"data": RECALL | {"symbols": 9}}, "27 different tokens"),
        ({"data": RECALL | {"keys": [5, 2]}}, "keys"),
        ({"data": {k: v for k, v in RECALL.items() if k != "filler"}}, "lacks 'filler'"),
        ({"data": RECALL | {"kind": "text", "files": ["*.txt"]}}, "tokenizer.json"),
        ({"checkpoint": "absent/folder"}, "absent/folder"),
    ],
)
def test_a_config_that_cannot_work_is_refused_with_a_sentence(
    tables: dict[str, Any], message: str, checkpoint: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        DistillTask(distillation(checkpoint, **tables))
    assert "\n" not in str(caught.value)


def test_a_qwen3_is_not_taken_for_a_converted_one(qwen3: Path) -> None:
    with pytest.raises(ConfigError, match="convert"):
        DistillTask(distillation(qwen3))


def test_a_small_qwen3_learns_from_scratch() -> None:
    model = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    task = Qwen3Task({"data": RECALL, "model": model | {"num_key_value_heads": 1, "head_dim": 8}})
    optimizer = torch.optim.AdamW(task.model.parameters(), 1e-2)
    losses = []
    for step in range(40):
        loss, _ = task.loss(task.model, task.batch(step, step))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(losses[-5:]) < sum(losses[:5]) - 1  # it learns at least which sort of token comes next
    assert task.evaluate(task.model)["held_out_recall_loss"] > 0
