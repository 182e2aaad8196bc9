"""How fast a session is: one prefill, and tokens decoded after it."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from allmem_edge.engine import EngineSession


class Timed(NamedTuple):
    """Tokens a second, and the seconds until the first token was known."""

    prefill: float
    decode: float
    first: float


def timed(session: EngineSession, ids: NDArray[np.int64], count: int) -> Timed:
    """Gives a session `ids` at once, and has it decode `count` tokens, each the most likely one."""
    begin = time.perf_counter()
    logits = session.forward(ids, True)
    prefill = len(ids) / (time.perf_counter() - begin)
    token = logits[-1].argmax(keepdims=True)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    for _ in range(count):
        token = session.forward(token, True)[-1].argmax(keepdims=True)
    return Timed(prefill, count / (time.perf_counter() - begin), first)
