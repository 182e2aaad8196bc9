"""`allmem-edge eval perplexity`: which tokens count, what each costs, and what is printed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from tiny_model import rounding

import allmem_edge as ae
from allmem_edge.cli.perplexity import held_out_dialogues, token_losses, tokens_of
from allmem_edge.dialogues import Turn, is_held_out

DIALOGUE = [
    Turn("My code is 4711.", "Okay, 4711.", "fact", key="door_code"),
    Turn("How are you?", "Fine.", "small_talk"),
    Turn("What is my code?", "It is 4711.", "ask", "4711", "door_code"),
    Turn("What is my name?", "You did not tell me.", "ask_unknown", key="name"),
]


def decoded(model: ae.Model, ids: list[int], mask: NDArray[np.bool_]) -> str:
    return model.tokenizer.decode([token for token, counts in zip(ids, mask, strict=True) if counts], False)


def test_the_assistants_words_count_and_the_mark_that_ends_them(tiny: ae.Model) -> None:
    ids, parts = tokens_of(tiny, DIALOGUE)
    assert decoded(tiny, ids, parts["assistant"]) == "".join(f"{t.assistant}<|im_end|>" for t in DIALOGUE)
    assert decoded(tiny, ids, parts["replies to questions"]) == "It is 4711.<|im_end|>"


def test_a_dialogue_is_the_tokens_that_a_chat_reads(tiny: ae.Model) -> None:
    ids, _ = tokens_of(tiny, DIALOGUE)
    chat = tiny.chat()
    chat.read((turn.user, turn.assistant) for turn in DIALOGUE)
    end = len(tiny.tokenizer.encode("<|im_end|>\n", special=True))  # which a chat reads with the next turn
    assert chat.session.position == len(ids) - end
    session = tiny.session()
    session.forward(ids[:-end])
    expected = session.forward([5])
    np.testing.assert_allclose(chat.session.forward([5]), expected, atol=rounding(expected), rtol=0)


class Uniform:
    """Finds all of 7 tokens equally likely."""

    def forward(self, ids: ArrayLike) -> NDArray[np.float32]:
        return np.full((len(np.asarray(ids)), 7), 300.0, np.float32)  # exp would overflow


def test_where_all_tokens_are_equally_likely_perplexity_is_their_number() -> None:
    losses = token_losses(cast("ae.Session", Uniform()), [0, 1, 2] * 200)
    np.testing.assert_allclose(np.exp(losses[1:]), 7)
    assert losses[0] == 0


def test_a_tokens_loss_is_that_of_the_logits_before_it(tiny: ae.Model) -> None:
    ids = np.random.default_rng(0).integers(tiny.engine.vocab_size, size=600).tolist()
    logits = tiny.session().forward(ids).astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = [-math.log(probabilities[i - 1, ids[i]]) for i in range(1, 600)]
    # A loss is off by what its logit is, and by what the sum of all is.
    np.testing.assert_allclose(
        token_losses(tiny.session(), ids)[1:], expected, atol=2 * rounding(logits), rtol=0
    )


def test_dialogues_are_repeatable_and_their_values_held_out() -> None:
    dialogues = held_out_dialogues(3, 4, 40)
    assert dialogues == held_out_dialogues(3, 4, 40)
    assert dialogues != held_out_dialogues(4, 4, 40)
    assert [len(dialogue) for dialogue in dialogues] == [40] * 4
    answers = {turn.answer for dialogue in dialogues for turn in dialogue if turn.answer is not None}
    assert len(answers) > 4
    assert all(is_held_out(answer) for answer in answers)


def evaluate(*arguments: str | Path) -> dict[str, float | None]:
    """Perplexity by part."""
    command = [sys.executable, "-m", "allmem_edge", "eval", "perplexity", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {row["of"]: row["perplexity"] for row in json.loads(done.stdout)["results"]}


def test_the_command_prints_the_exponential_of_the_mean_loss(tiny: ae.Model, tiny_dir: Path) -> None:
    arguments = (tiny_dir, "--dialogues", "2", "--turns", "7", "--seed", "4")
    found = evaluate(*arguments)
    losses, masks = [], []
    for dialogue in held_out_dialogues(4, 2, 7):
        ids, parts = tokens_of(tiny, dialogue)
        losses.append(token_losses(tiny.session(), ids))
        masks.append(parts["assistant"])
    expected = math.exp(np.concatenate(losses)[np.concatenate(masks)].mean())
    assert found["assistant"] == pytest.approx(expected, rel=1e-4)
    frozen = evaluate(*arguments, "--frozen")["assistant"]
    assert frozen is not None and abs(frozen / expected - 1) > 1e-3
