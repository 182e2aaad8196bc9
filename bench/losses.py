"""What a token cost that a model had to expect: shared by both sides of a comparison. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def losses_of(logits: NDArray[Any], expected: Sequence[int]) -> list[float]:
    """-log p in nats, in float64, of expected tokens [T] by logits [T, vocab]."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    chosen = rows[np.arange(len(expected)), np.asarray(expected, np.int64)]
    nats: list[float] = (np.log(np.exp(rows).sum(axis=1)) - chosen).tolist()
    return nats
