"""The log-probabilities that logits stand for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """log p of every next token in nats, in float64, [T, vocab]; of logits [T, vocab]."""
    log_p: NDArray[np.float64] = logits.astype(np.float64)
    log_p -= log_p.max(axis=-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
    return log_p
