"""The same GGUF file in llama.cpp and, converted, here: the perplexity of the same text with full attention.

    python bench/same_file.py BASE.gguf TEXT MODEL... --rival RIVAL/bin/python [--tokens 20480]

BASE.gguf is a base model without a memory; each MODEL is a directory made of it, without training:

    allmem-edge convert BASE.gguf --out base
    for q in none int8 int4; do allmem-edge export base --out base-$q --quantize $q; done

Its memory is off and its window as long as a piece of --length tokens, so that both sides compute the same
function of the same weights. What is left of a difference is rounding: of the weights, which are float32
again or in blocks of 8 or 4 bits here, and of what meets them, which has 8 bits on both sides unless the
weights here are float32. A row is the perplexity over all pieces, and how far the losses of single tokens,
in nats, are from the rival's: the mean, and the root of the mean square. TEXT is cut into ids by both
tokenizers, which must agree.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import allmem_edge as ae
from against_llama_cpp import SETTINGS, check_rival, cpu_cores, machine_facts, our_worker, rival_worker, say
from table import markdown
from worker import Worker

HEAD = ("side", "weights", "perplexity", "to the rival's", "mean difference", "rms difference")


def losses(worker: Worker, pieces: list[list[int]]) -> NDArray[np.float64]:
    """-log p of all tokens but the pieces' first, in nats."""
    found: list[float] = []
    for number, piece in enumerate(pieces, 1):
        found += worker.ask("losses", ids=piece)["nats"]
        say(f"{worker.name}: {number} of {len(pieces)}, perplexity {math.exp(np.mean(found)):.3f}")
    return np.array(found)


def rows_of(sides: list[tuple[str, str, NDArray[np.float64]]]) -> list[tuple[str, ...]]:
    """The table of (side, how, losses), of which the first is the rival."""
    rival = sides[0][2]
    rows: list[tuple[str, ...]] = []
    for side, how, found in sides:
        gap = found - rival
        share = math.exp(gap.mean()) - 1
        cells = [f"{share:+.2%}", f"{gap.mean():+.4f}", f"{math.sqrt(np.square(gap).mean()):.4f}"]
        rows.append(
            (side, how, f"{math.exp(found.mean()):.3f}", *(cells if found is not rival else ("", "", "")))
        )
    return rows


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything, for the report."""
    tokenizer = ae.Model.load(args.models[0]).tokenizer
    text = args.text.read_text(encoding="utf-8", errors="replace")[: 8 * args.tokens]
    ids = tokenizer.encode(text, False)[: args.tokens]
    pieces = [ids[begin : begin + args.length] for begin in range(0, len(ids), args.length)]
    rival = rival_worker("llama.cpp", args.rival, args.base, SETTINGS["f16"], args.length, args)
    system = rival.ask("load")
    check_rival(system["system"], args.isa)
    theirs = rival.ask("tokenize", text=text)["ids"][: len(ids)]
    if theirs != ids:
        raise SystemExit("The two tokenizers do not agree on this text.")
    sides = [("llama.cpp", f"{args.base.stem}", losses(rival, pieces))]
    rival.close()
    for path in args.models:
        options = ["--window", str(args.length), "--memory", "off"]
        worker = our_worker(path.name, path, args, *options)
        kind = worker.ask("load")["quantization"].replace("none", "float32")
        sides.append(("allmem-edge", kind, losses(worker, pieces)))
        worker.close()
    return {
        "machine": machine_facts(),
        "rival": {"version": system["version"], "system": system["system"]},
        "tokens": len(ids),
        "length": args.length,
        "table": [HEAD, *rows_of(sides)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--rival", required=True, help="a Python that has llama-cpp-python")
    parser.add_argument("--tokens", type=int, default=20_480)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--isa", default="best", choices=["best", "avx2"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cores", help="which both sides run on; default: the first ones")
    parser.add_argument("--json", type=Path, help="where to write what was measured")
    args = parser.parse_args()
    args.cores = cpu_cores(parser, args)
    report = measure(args)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    print(markdown(report["table"]))


if __name__ == "__main__":
    main()
