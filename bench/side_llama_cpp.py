"""The side of llama.cpp: llama_decode() through llama-cpp-python's ctypes interface, nothing above it."""

from __future__ import annotations

import argparse
import ctypes
import math
import random
import re
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from losses import losses_of
from worker import Side, add_arguments, memory_use, read_file, serve

UBATCH = 512
LIBRARY = Path(llama_cpp.__file__).parent / "lib"
KV_TYPES = {"f16": llama_cpp.GGML_TYPE_F16, "q8_0": llama_cpp.GGML_TYPE_Q8_0}


def compiler(library: Path) -> str:
    """What a shared library says it was compiled by."""
    found = re.search(rb"clang version [\d.]+|GCC: \([^)]*\) [\d.]+", library.read_bytes())
    return found[0].decode() if found else "an unknown compiler"


class LlamaCpp(Side):
    """A GGUF file and one context of one sequence."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._log: list[str] = []
        self._callback = llama_cpp.llama_log_callback(
            lambda level, text, data: self._log.append(text.decode(errors="replace"))
        )
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._before = memory_use()["now"]
        self._rng = random.Random(0)

    def load(self) -> dict[str, Any]:
        args = self._args
        read_file(args.model)
        begin = time.perf_counter()
        options = llama_cpp.llama_model_default_params()
        options.use_extra_bufts = args.repack == "on"
        if args.mmap == "off":
            options.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        model = llama_cpp.llama_model_load_from_file(str(args.model).encode(), options)
        if model is None:
            raise SystemExit("".join(self._log))
        loaded = time.perf_counter()
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = args.context
        options.n_batch = options.n_ubatch = UBATCH
        options.n_threads = options.n_threads_batch = args.threads
        options.flash_attn_type = int(args.flash == "on")
        options.type_k = KV_TYPES[args.kv]
        options.type_v = KV_TYPES[args.kv if args.flash == "on" else "f16"]  # others need flash attention
        self._context = llama_cpp.llama_init_from_model(model, options)
        if self._context is None:
            raise SystemExit("".join(self._log))
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._model = model
        self._recurrent = llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model)
        self._snapshots: dict[int, Any] = {}  # of a recurrent state, which has no way back
        self._vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._depth = 0
        self._decode([0])
        ready = time.perf_counter()
        lines = "".join(self._log).splitlines()
        return {
            "load_s": loaded - begin,
            "first_logits_s": ready - begin,
            "file_bytes": args.model.stat().st_size,
            "version": llama_cpp.__version__,
            "system": llama_cpp.llama_print_system_info().decode().strip(),
            "buffers": [line.strip() for line in lines if "buffer size" in line],
            "library": str(LIBRARY),
            "compiler": compiler(LIBRARY / "libggml-cpu.so"),
        }

    def _tokens(self, count: int) -> list[int]:
        return [self._rng.randrange(self._vocab) for _ in range(count)]

    def _decode(self, ids: list[int]) -> None:
        """Reads ids in one llama_decode(), with the logits of the last; returns when they are there."""
        array = (llama_cpp.llama_token * len(ids))(*ids)
        batch = llama_cpp.llama_batch_get_one(array, len(ids))
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0 or not llama_cpp.llama_get_logits_ith(self._context, -1):
            raise SystemExit(f"llama_decode() failed with {status}.\n" + "".join(self._log[-20:]))

    def go_to(self, depth: int) -> dict[str, Any]:
        kept = self._take_back(depth)
        for begin in range(kept, depth, UBATCH):
            self._decode(self._tokens(min(UBATCH, depth - begin)))
        self._depth = depth
        if self._recurrent and depth and depth not in self._snapshots:
            size = llama_cpp.llama_state_seq_get_size(self._context, 0)
            snapshot = (ctypes.c_uint8 * size)()
            llama_cpp.llama_state_seq_get_data(self._context, snapshot, size, 0)
            self._snapshots[depth] = snapshot
        return {"run": f"kept {kept} tokens, read {depth - kept}"}

    def _take_back(self, depth: int) -> int:
        """Leaves at most `depth` tokens of context; returns how many."""
        if not self._recurrent:
            kept = min(self._depth, depth)
            llama_cpp.llama_memory_seq_rm(self._memory, 0, kept, -1)
            return kept
        llama_cpp.llama_memory_seq_rm(self._memory, 0, 0, -1)
        if depth not in self._snapshots:
            return 0
        snapshot = self._snapshots[depth]
        llama_cpp.llama_state_seq_set_data(self._context, snapshot, len(snapshot), 0)
        return depth

    def read(self, tokens: int) -> dict[str, Any]:
        blocks = [self._tokens(min(UBATCH, tokens - begin)) for begin in range(0, tokens, UBATCH)]
        begin = time.perf_counter()
        for ids in blocks:
            self._decode(ids)
        return {"seconds": time.perf_counter() - begin}

    def write(self, tokens: int) -> dict[str, Any]:
        ids = self._tokens(tokens)
        begin = time.perf_counter()
        for token in ids:
            self._decode([token])
        return {"seconds": time.perf_counter() - begin}

    def losses(self, ids: list[int]) -> dict[str, Any]:
        llama_cpp.llama_memory_seq_rm(self._memory, 0, 0, -1)
        self._depth = 0
        found: list[float] = []
        batch = llama_cpp.llama_batch_init(UBATCH, 0, 1)
        for begin in range(0, len(ids), UBATCH):
            block, expected = ids[begin : begin + UBATCH], ids[begin + 1 : begin + UBATCH + 1]
            batch.n_tokens = len(block)
            for i, token in enumerate(block):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, begin + i, 1, 1
                batch.seq_id[i][0] = 0
            if llama_cpp.llama_decode(self._context, batch) != 0:
                raise SystemExit("llama_decode() failed.\n" + "".join(self._log[-20:]))
            rows = llama_cpp.llama_get_logits(self._context)
            logits = np.ctypeslib.as_array(rows, (len(block), self._vocab))
            found += losses_of(logits[: len(expected)], expected)
        llama_cpp.llama_batch_free(batch)
        return {"nats": found}

    def tokenize(self, text: str) -> dict[str, Any]:
        """Ids of plain text, as the file's own tokenizer has them."""
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 1))()
        vocab = llama_cpp.llama_model_get_vocab(self._model)
        count = llama_cpp.llama_tokenize(vocab, data, len(data), ids, len(ids), False, False)
        return {"ids": list(ids[:count])}

    def facts(self) -> dict[str, Any]:
        logits = llama_cpp.llama_get_logits_ith(self._context, -1)
        if not all(map(math.isfinite, logits[: self._vocab])):
            raise SystemExit("The logits are not finite.")
        return {
            "position": llama_cpp.llama_memory_seq_pos_max(self._memory, 0) + 1,
            "state_bytes": llama_cpp.llama_state_seq_get_size(self._context, 0),
            "memory": memory_use(),
            "memory_before": self._before,
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--context", type=int, required=True, help="tokens that the K/V cache has room for")
    parser.add_argument("--flash", choices=["on", "off"], required=True)
    parser.add_argument("--kv", choices=list(KV_TYPES), required=True)
    parser.add_argument("--repack", choices=["on", "off"], required=True)
    parser.add_argument("--mmap", choices=["on", "off"], required=True)
    serve(LlamaCpp, parser.parse_args())
