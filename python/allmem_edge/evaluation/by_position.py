"""The perplexity of texts by position: how well a token is expected, by how many came before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_edge.checksums import sha256_of
from allmem_edge.errors import InvalidArgumentError, ModelNotFoundError, StorageError
from allmem_edge.evaluation.journal import Journal
from allmem_edge.model import Model
from allmem_edge.session import Session

Losses = Callable[[Session, Sequence[int]], NDArray[np.float64]]


def bands_of(length: int, first: int = 256) -> list[tuple[int, int]]:
    """Positions [begin, end): up to `first`, then as many as came before, up to `length`."""
    ends = [first]
    while ends[-1] < length:
        ends.append(2 * ends[-1])
    ends = [end for end in ends if end < length] + [length]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def pieces_of(model: Model, paths: Sequence[Path], length: int) -> Iterator[tuple[str, list[int]]]:
    """(name, tokens) of each stretch of `length` tokens; the last of a file may be half of that at least.

    Names tell files by their content, too, as there may be two of one name.
    """
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError as error:
            raise ModelNotFoundError(f"There is no file {path}.") from error
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
        ids = model.tokenizer.encode(text, False)
        if len(ids) < 2:
            raise InvalidArgumentError(f"{path} has too little text to measure: {len(ids)} tokens.")
        file = f"{path.name} {sha256_of(path)[:16]}"
        for begin in range(0, len(ids), length):
            piece = ids[begin : begin + length]
            if begin == 0 or len(piece) >= length // 2:
                yield f"{file} from token {begin}", piece


def measure(
    session: Session, ids: Sequence[int], bands: Sequence[tuple[int, int]], losses: Losses
) -> list[list[float]]:
    """For each band: the sum of -log p, of its square, and how many tokens."""
    session.reset()
    each = losses(session, ids)
    sums = []
    for begin, end in bands:
        within = each[max(begin, 1) : min(end, len(ids))]  # nothing is expected before the first token
        sums.append([float(within.sum()), float(np.square(within).sum()), float(len(within))])
    return sums


def run(
    session: Session,
    pieces: Sequence[tuple[str, list[int]]],
    bands: Sequence[tuple[int, int]],
    losses: Losses,
    journal: Journal,
    done: Callable[[], None],
) -> list[dict[str, Any]]:
    """A row for each band: perplexity, its standard error and the tokens it is of.

    The error counts tokens as independent of each other, which neighbours are not quite.
    """
    totals = np.zeros((len(bands), 3))
    for name, ids in pieces:
        if name not in journal:
            journal.put(name, measure(session, ids, bands, losses))
        totals += np.array(journal[name])
        done()
    rows = []
    for (begin, end), (total, squares, count) in zip(bands, totals.tolist(), strict=True):
        mean = total / count if count else math.nan
        variance = max(squares / count - mean * mean, 0.0) if count else math.nan
        perplexity = math.exp(mean) if count else None
        rows.append(
            {
                "begin": begin,
                "end": end,
                "tokens": int(count),
                "perplexity": perplexity,
                "standard_error": perplexity * math.sqrt(variance / count) if perplexity else None,
            }
        )
    return rows
