"""How far quantised models, and the fast path with its 8 bits, are from float32: relative errors of logits.

    python bench/accuracy.py REFERENCE MODEL... [--read 512] [--tokens 256] [--seed 0] [--threads 0]

REFERENCE and each MODEL are model directories of one checkpoint; all errors are those of the logits of
--tokens random tokens, after --read others (a chunk or more: so the memory has been written), against the
exact logits of REFERENCE. A row is a model, exact or fast:

    error       ‖logits − reference‖ / ‖reference‖, over all tokens
    worst       the largest such error of one token
    same first  share of the tokens whose largest logit is the reference's
    of 8 bits   ‖fast − exact‖ / ‖exact‖ of the same model: what the fast path alone does
    by split    how far the same tokens in calls of 1 to 40, instead of one call, are from it
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import allmem_edge as ae
from table import markdown

Logits = NDArray[np.float32]
LONGEST_CALL = 40


def relative(logits: Logits, reference: Logits) -> float:
    """‖logits − reference‖ / ‖reference‖ of [..., vocab]."""
    return float(np.linalg.norm(logits - reference) / np.linalg.norm(reference))


def compared(logits: Logits, reference: Logits) -> dict[str, float]:
    """The figures of logits [T, vocab] against a reference."""
    pairs = list(zip(logits, reference, strict=True))
    return {
        "error": relative(logits, reference),
        "worst": max(relative(ours, theirs) for ours, theirs in pairs),
        "same first": float(np.mean([ours.argmax() == theirs.argmax() for ours, theirs in pairs])),
    }


def logits_of(model: ae.Model, read: NDArray[Any], calls: list[NDArray[Any]], threads: int) -> Logits:
    """Logits [T, vocab] of the tokens of `calls`, after those of `read`."""
    session = model.session(threads)
    if len(read):
        session.forward(read, last_only=True)
    return np.concatenate([session.forward(ids) for ids in calls])


def random_calls(ids: NDArray[Any], rng: np.random.Generator) -> list[NDArray[Any]]:
    """The same tokens in calls of 1 to LONGEST_CALL."""
    cuts = np.cumsum(rng.integers(1, LONGEST_CALL + 1, len(ids)))
    return np.split(ids, cuts[cuts < len(ids)])


def measure(reference: Path, models: list[Path], read: int, tokens: int, seed: int, threads: int) -> str:
    """The table."""
    exact = ae.Model.load(reference, exact=True)
    rng = np.random.default_rng(seed)
    before = rng.integers(exact.engine.vocab_size, size=read)
    ids = rng.integers(exact.engine.vocab_size, size=tokens)
    calls = random_calls(ids, rng)
    expected = logits_of(exact, before, [ids], threads)
    rows = []
    for path in [reference, *models]:
        exact_logits: Logits | None = None
        for is_exact in (True, False):
            model = ae.Model.load(path, exact=is_exact)
            if model.engine.vocab_size != exact.engine.vocab_size:
                raise SystemExit(f"{path} has another vocabulary than {reference}.")
            if model.engine.quantization == "none" and not is_exact:
                continue  # is always exact
            logits = logits_of(model, before, [ids], threads)
            if exact_logits is None:
                exact_logits = logits
            found = compared(logits, expected)
            split = relative(logits_of(model, before, calls, threads), logits)
            rows.append(
                {
                    "model": path.name,
                    "arithmetic": "exact" if is_exact else "fast",
                    "error": f"{found['error']:.2%}",
                    "worst": f"{found['worst']:.2%}",
                    "same first": f"{found['same first']:.1%}",
                    "of 8 bits": "" if is_exact else f"{relative(logits, exact_logits):.2%}",
                    "by split": f"{split:.1e}",
                }
            )
    return markdown([list(rows[0]), *(list(row.values()) for row in rows)])


def main() -> None:
    """The command line; see above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", type=Path)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--read", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    print(measure(args.reference, args.models, args.read, args.tokens, args.seed, args.threads))


if __name__ == "__main__":
    main()
