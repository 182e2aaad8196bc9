"""AllMemLM in the real evaluation harness: tasks from local files, and the `hf` backend beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lm_eval
import numpy as np
import pytest
from test_convert import random_qwen3

import allmem_edge as ae
import tiny
from allmem_edge.lm_eval import AllMemLM
from allmem_export.convert import convert
from allmem_export.export import export

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("lm_eval")]
LENGTH = 600  # tokens: the window, so that attention is full


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A random Qwen3 with a tokenizer, and what convert and export make of it."""
    root = tmp_path_factory.mktemp("lm_eval")
    random_qwen3(vocab_size=tiny.VOCAB_SIZE, max_position_embeddings=2048).save_pretrained(root / "qwen3")
    tiny.make_tokenizer().save_pretrained(root / "qwen3")
    convert(root / "qwen3", root / "checkpoint", window=32, sinks=2, chunk=16)
    tiny.make_tokenizer().save_pretrained(root / "checkpoint")
    export(root / "checkpoint", root / "model")
    return root / "qwen3", root / "model"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three tasks over a local file: multiple choice, rolling perplexity, generation."""
    folder = tmp_path_factory.mktemp("tasks")
    rng = np.random.default_rng(0)
    words = ["baka", "dino", "felu", "gora", "kemi", "lupa", "moti", "nera"]
    with (folder / "data.jsonl").open("w") as file:
        for i in range(24):
            text = " ".join(rng.choice(words, 12))
            choices = [f" {word}" for word in rng.choice(words, 4, replace=False)]
            file.write(json.dumps({"text": text, "choices": choices, "label": i % 4}) + "\n")
    data = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {folder / 'data.jsonl'}\n"
    data += "test_split: test\n"
    (folder / "choice.yaml").write_text(
        f"task: ours_choice\n{data}output_type: multiple_choice\nfewshot_split: test\n"
        "doc_to_text: '{{text}}'\ndoc_to_choice: choices\ndoc_to_target: label\ntarget_delimiter: ''\n"
        "metric_list:\n  - metric: acc\n"
    )
    (folder / "rolling.yaml").write_text(
        f"task: ours_rolling\n{data}output_type: loglikelihood_rolling\ndoc_to_text: ''\n"
        "doc_to_target: '{{text}}'\nmetric_list:\n  - metric: word_perplexity\n"
    )
    (folder / "generate.yaml").write_text(
        f"task: ours_generate\n{data}output_type: generate_until\ndoc_to_text: '{{{{text}}}}'\n"
        "doc_to_target: '{{text}}'\ngeneration_kwargs:\n  until: ['zz']\n  max_gen_toks: 8\n"
        "metric_list:\n  - metric: exact_match\n"
    )
    return folder


def evaluate(model: Any, tasks: Path, **options: Any) -> Any:
    return lm_eval.simple_evaluate(
        model=model,
        tasks=["ours_choice", "ours_rolling", "ours_generate"],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
        **options,
    )


def test_it_agrees_with_the_hf_backend(models: tuple[Path, Path], tasks: Path) -> None:
    qwen3, model = models
    ours = evaluate(
        "allmem", tasks, model_args=f"pretrained={model},window={LENGTH},memory=off,exact=True,threads=1"
    )
    theirs = evaluate("hf", tasks, model_args=f"pretrained={qwen3},dtype=float32,device=cpu", batch_size=1)
    # Of up to 40 tokens, each logit, none above 4, and the logarithm of the sum of their exponentials.
    bound = 40 * 2 * tiny.rounding(np.array([4.0]))
    for task in ("ours_choice", "ours_rolling", "ours_generate"):
        for mine, other in zip(ours["samples"][task], theirs["samples"][task], strict=True):
            assert mine["doc"] == other["doc"]
            if task == "ours_generate":
                assert mine["filtered_resps"] == other["filtered_resps"]
                continue
            for a, b in zip(np.ravel(mine["filtered_resps"]), np.ravel(other["filtered_resps"]), strict=True):
                assert float(a) == pytest.approx(float(b), abs=bound)
    assert ours["results"]["ours_choice"]["acc,none"] == theirs["results"]["ours_choice"]["acc,none"]
    assert ours["results"]["ours_rolling"]["word_perplexity,none"] == pytest.approx(
        theirs["results"]["ours_rolling"]["word_perplexity,none"], rel=bound / 12
    )


def test_few_shots_and_the_chat_format_run(models: tuple[Path, Path], tasks: Path) -> None:
    _, model = models
    result = lm_eval.simple_evaluate(
        model="allmem",
        model_args={"pretrained": str(model), "threads": 1},
        tasks=["ours_choice"],
        num_fewshot=3,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        limit=6,
        task_manager=lm_eval.tasks.TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    # Three examples of two messages each, the question, and the opening of the answer.
    asked = result["samples"]["ours_choice"][0]["arguments"][0][0]
    assert asked.count("<|im_start|>") == 8


def request(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


def test_sharing_what_is_alike_changes_nothing(models: tuple[Path, Path]) -> None:
    _, model = models
    lm = AllMemLM(str(model), threads=1)
    shared = "baka dino felu gora kemi lupa moti nera " * 5
    contexts = [shared + extra for extra in ("", "baka", "baka dino", "felu " * 20, "felu " * 25 + "gora")]
    pairs = [(context, f" {word}") for context in (*contexts, "x", "") for word in ("lupa", "moti dino", "n")]
    together = lm.loglikelihood([request(*pair) for pair in pairs], disable_tqdm=True)
    alone = [lm.loglikelihood([request(*pair)], disable_tqdm=True)[0] for pair in pairs]
    assert [greedy for _, greedy in together] == [greedy for _, greedy in alone]
    # A token's log-probability is off by what its logit and the logarithm of the sum are, rounding() of each
    # (the memory of a converted model adds nothing yet); several tokens' errors, of either sign, add up as
    # the root of their number.
    largest = tiny.rounding(ae.Model.load(model).session(1).forward(lm.tok_encode(contexts[-1])))
    for (_, continuation), (one, _), (other, _) in zip(pairs, together, alone, strict=True):
        assert one == pytest.approx(other, rel=0, abs=2 * largest * len(lm.tok_encode(continuation)) ** 0.5)
    options = {"until": ["q"], "max_gen_toks": 6}
    texts = lm.generate_until([request(context, options) for context in contexts], disable_tqdm=True)
    singles = [lm.generate_until([request(c, options)], disable_tqdm=True)[0] for c in contexts]
    assert texts == singles


def test_a_long_text_is_read_on_or_cut_as_the_harness_does(models: tuple[Path, Path]) -> None:
    _, model = models
    text = "baka dino felu gora kemi lupa moti nera " * 40
    streaming, cut = AllMemLM(str(model), threads=1), AllMemLM(str(model), threads=1, max_length=64)
    ids = streaming.tok_encode(text)
    session = ae.Model.load(model).session(1)
    logits = session.forward([streaming.prefix_token_id, *ids[:-1]]).astype(np.float64)
    expected = sum(row[t] - np.log(np.exp(row).sum()) for row, t in zip(logits, ids, strict=True))
    assert streaming.loglikelihood_rolling([request(text)], disable_tqdm=True)[0] == pytest.approx(
        expected, abs=1e-2
    )
    assert cut.loglikelihood_rolling([request(text)], disable_tqdm=True)[0] != pytest.approx(
        expected, abs=1e-2
    )


def test_the_harnesss_command_line_knows_it(models: tuple[Path, Path], tasks: Path, tmp_path: Path) -> None:
    _, model = models
    command = [sys.executable, "-m", "allmem_edge.lm_eval", "run", "--model", "allmem"]
    command += ["--model_args", f"pretrained={model},threads=1", "--include_path", str(tasks)]
    command += ["--tasks", "ours_choice", "--limit", "4", "--output_path", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert b"ours_choice" in result.stdout
