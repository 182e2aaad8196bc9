"""The model inside the wheel does what the README says of it."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest

import allmem_edge as ae
from allmem_edge.dialogues import Generator
from allmem_edge.hub import BUNDLED


@pytest.fixture(scope="module")
def bundled() -> ae.Model:
    return ae.Model.load()


def recall(distance: int, questions: int, *options: str) -> float:
    """Accuracy that `allmem-edge eval recall` reports on the bundled model."""
    command = [sys.executable, "-m", "allmem_edge", "eval", "recall", "--json", "--seed", "5"]
    command += ["--distance", str(distance), "--questions", str(questions), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (result,) = json.loads(done.stdout)["results"]
    assert result["total"] == questions and result["distance"] == distance
    return float(result["accuracy"])


def at_least(accuracy: float, questions: int) -> float:
    """What a model of this true accuracy stays above with 99.99 % probability (normal approximation).

    The two questions of a conversation may stand and fall together, so conversations are what counts.
    """
    return accuracy - 3.72 * math.sqrt(accuracy * (1 - accuracy) / (questions / 2))


def test_the_bundled_model_is_small_and_its_window_short(bundled: ae.Model) -> None:
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) <= 12e6
    assert bundled.engine.window <= 128


def test_it_recalls_held_out_values_eight_windows_back(bundled: ae.Model) -> None:
    assert recall(8 * bundled.engine.window, 100) >= at_least(0.95, 100)  # docs/model.md, "What it reaches"


@pytest.mark.slow
def test_it_recalls_held_out_values_128_windows_back(bundled: ae.Model) -> None:
    assert recall(128 * bundled.engine.window, 50) >= at_least(0.92, 50)


@pytest.mark.slow
def test_it_says_so_when_it_was_not_told(bundled: ae.Model) -> None:
    assert recall(8 * bundled.engine.window, 60, "--unknown") >= at_least(0.97, 60)


@pytest.mark.slow
def test_with_a_frozen_memory_it_recalls_nothing(bundled: ae.Model) -> None:
    # Guessing: shoe sizes, ages and months have few values, so a guess is right now and then.
    assert recall(8 * bundled.engine.window, 100, "--frozen") <= 0.05


@pytest.mark.parametrize("longest", [1, 5, 90])
def test_how_its_tokens_are_cut_into_calls_changes_no_bit(bundled: ae.Model, longest: int) -> None:
    rng = np.random.default_rng(longest)
    ids = rng.integers(bundled.engine.vocab_size, size=700)  # ten chunks and some
    cuts = np.cumsum(rng.integers(1, longest + 1, size=700))
    session = bundled.session(threads=1)
    parts = [session.forward(part) for part in np.split(ids, cuts[cuts < 700])]
    np.testing.assert_array_equal(np.concatenate(parts), bundled.session(threads=1).forward(ids))


def answer(chat: ae.Chat, text: str) -> str:
    return "".join(chat.send(text))


def test_a_name_and_a_code_are_answered_after_2000_tokens_of_other_talk(bundled: ae.Model) -> None:
    chat = bundled.chat(temperature=0.0)
    answer(chat, "Hi, my name is Tobias.")
    answer(chat, "My door code is 4711.")
    small_talk = Generator(11)
    told = chat.session.position
    while chat.session.position < told + 2000:
        turn = small_talk.small_talk()
        chat.read([(turn.user, turn.assistant)])
    assert "Tobias" in answer(chat, "What is my name?")
    assert "4711" in answer(chat, "What is my door code?")


def test_a_correction_replaces_what_was_told(bundled: ae.Model) -> None:
    chat = bundled.chat(temperature=0.0)
    answer(chat, "My door code is 4711.")
    answer(chat, "My new door code is 8056.")
    small_talk = Generator(12)
    for _ in range(20):
        turn = small_talk.small_talk()
        chat.read([(turn.user, turn.assistant)])
    assert "8056" in answer(chat, "What is my door code?")
