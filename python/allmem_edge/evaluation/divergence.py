"""How far a model's answers to ordinary questions are from those of the base that it was made from."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_edge.errors import InvalidArgumentError
from allmem_edge.evaluation.journal import Journal
from allmem_edge.evaluation.log_softmax import log_softmax
from allmem_edge.model import Model
from allmem_edge.turns import Turns

_MAX_ANSWER = 100  # tokens


def questions() -> list[str]:
    """Ordinary questions, none of them in the data that an adapter is trained on."""
    text = resources.files("allmem_edge.evaluation").joinpath("ordinary.txt").read_text(encoding="utf-8")
    return text.splitlines()


def kl_of(base: NDArray[np.float32], model: NDArray[np.float32]) -> NDArray[np.float64]:
    """KL(base ‖ model) of the next-token distributions in nats, [T]; of logits [T, vocab]."""
    p, q = log_softmax(base), log_softmax(model)
    divergence: NDArray[np.float64] = (np.exp(p) * (p - q)).sum(axis=-1)
    return divergence


def measure(
    base: Model,
    model: Model,
    asked: list[str],
    journal: Journal,
    *,
    threads: int,
    done: Callable[[], None],
) -> dict[str, Any]:
    """The base answers each question greedily; both models then read question and answer.

    Returns the mean of KL(base ‖ model) over the answers' tokens, its standard error over questions, and the
    share of tokens at which both have the same most likely next token. Raises InvalidArgumentError for models
    of different vocabularies.
    """
    tokenizer = base.tokenizer
    if model.engine.vocab_size != base.engine.vocab_size:
        raise InvalidArgumentError(
            f"{model.name} and {base.name} have different vocabularies: {model.engine.vocab_size} and "
            f"{base.engine.vocab_size} tokens."
        )
    turns = Turns(base.chat_template, tokenizer.special_tokens)
    chat = base.chat(
        threads=threads, temperature=0.0, repetition_penalty=1.0, max_tokens=_MAX_ANSWER, undo_bytes=0
    )
    sessions = base.session(threads), model.session(threads)
    sums = []
    for question in asked:
        if question not in journal:
            chat.reset()
            answer = "".join(chat.send(question))
            prompt = tokenizer.encode_parts(turns.turn(question, after=0, last=None))
            ids = [*prompt, *tokenizer.encode(answer, False)]
            logits = []
            for session in sessions:
                session.reset()
                logits.append(session.forward(ids)[len(prompt) - 1 :])
            divergence = kl_of(*logits)
            agree = logits[0].argmax(axis=-1) == logits[1].argmax(axis=-1)
            journal.put(question, [float(divergence.sum()), int(agree.sum()), len(divergence)])
        sums.append(journal[question])
        done()
    total = np.array(sums)
    tokens = total[:, 2].sum()
    mean = total[:, 0].sum() / tokens
    # Of a ratio of sums: questions are independent of each other, tokens of one answer are not.
    spread = total[:, 0] - mean * total[:, 2]
    error = math.sqrt(float(np.square(spread).sum()) * len(asked) / max(1, len(asked) - 1)) / tokens
    return {
        "questions": len(asked),
        "tokens": int(tokens),
        "kl": float(mean),
        "standard_error": error,
        "same_most_likely": float(total[:, 1].sum() / tokens),
    }
