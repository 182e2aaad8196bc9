"""What training's sequences are made of: tokens, some of which are marked, and the documents of a corpus."""

from __future__ import annotations

import json
import random
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from .task import ConfigError


@dataclass
class Sequence:
    """Tokens, and the spans of those that repeat a value: (start, end, how far back it was last seen)."""

    ids: list[int] = field(default_factory=list)
    answers: list[tuple[int, int, int]] = field(default_factory=list)
    replies: list[tuple[int, int]] = field(default_factory=list)  # that are to be learned, word for word
    wrong: list[tuple[int, int]] = field(default_factory=list)  # replies that nobody should give
    told: list[tuple[int, int]] = field(default_factory=list)  # what may be asked for
    filler: list[tuple[int, int]] = field(default_factory=list)  # what never is
    seen: dict[str, int] = field(default_factory=dict)  # where a value was seen last


@dataclass
class Documents:
    """Tokenised documents of one side of the split, and paragraphs of prose in them."""

    tokens: np.ndarray  # [N], all documents one after the other
    offsets: np.ndarray  # [documents + 1]
    paragraphs: list[str]
    chats: list[list[tuple[str, str]]] = field(default_factory=list)  # own_answers.py


def load_documents(corpus: Path, tokenizer: PreTrainedTokenizerBase, *, held_out: bool) -> Documents:
    """Reads corpus.py's file of one side, tokenising it the first time. Raises ConfigError."""
    source = corpus / ("held_out.jsonl" if held_out else "train.jsonl")
    fingerprint = zlib.crc32(tokenizer.backend_tokenizer.to_str().encode())
    cache = source.with_suffix(f".{fingerprint:08x}.npz")
    try:
        texts = [json.loads(line)["text"] for line in source.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{source} cannot be read ({error}). Make it: `python -m allmem_export.corpus --out {corpus}`."
        ) from error
    if not cache.exists() or cache.stat().st_mtime < source.stat().st_mtime:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        offsets = np.cumsum([0, *map(len, ids)])
        np.savez(cache, tokens=np.concatenate([np.array(x, np.int32) for x in ids]), offsets=offsets)
    stored = np.load(cache)
    chats = corpus / "answers.jsonl"
    lines = chats.read_text(encoding="utf-8").splitlines() if chats.exists() else []
    return Documents(
        stored["tokens"],
        stored["offsets"],
        [p for text in texts for p in _prose(text)],
        [json.loads(line) for line in lines],
    )


def _prose(text: str) -> list[str]:
    """The paragraphs that are sentences, not tables, lists or code."""
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [p for p in paragraphs if re.fullmatch(r"[A-Z](?=.{150,900}$)[A-Za-z0-9 ,.'()\-]*\.", p)]


class Writer:
    """Writes marked sequences in the tokens of a tokenizer, with text of one side of the corpus."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, documents: Documents, *, held_out: bool) -> None:
        self.tokenizer = tokenizer
        self.documents = documents
        self.held_out = held_out

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _add(
        self, seq: Sequence, text: str, values: dict[str, str] | None = None, *, ask: bool = False
    ) -> None:
        """Appends a text that says each of `values` (by key); `ask`: as an answer, if it was seen before."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        base, at = len(seq.ids), 0
        for key, value in (values or {}).items():
            first = text.find(value, at) if not ask else text.rfind(value)
            if first < 0:
                continue
            end = first + len(value)
            spans = enumerate(encoded["offset_mapping"])
            covered = [i for i, (a, b) in spans if b > first and a < end and text[a:b].strip()]
            if ask and key in seq.seen and covered:
                start = base + covered[0]
                seq.answers.append((start, base + covered[-1] + 1, start - seq.seen[key]))
            if covered:
                seq.seen[key] = base + covered[0]
        seq.ids += encoded["input_ids"]

    def _pass(self, seq: Sequence, rng: random.Random, length: int) -> None:
        """Appends real text that nobody asks for."""
        start = len(seq.ids)
        seq.ids += self.passage(rng, length)
        seq.filler.append((start, len(seq.ids)))

    def passage(self, rng: random.Random, length: int) -> list[int]:
        """`length` tokens of running text, of more than one document if need be."""
        offsets, out = self.documents.offsets, list[int]()
        while len(out) < length:
            i = rng.randrange(len(offsets) - 1)
            size = int(offsets[i + 1] - offsets[i])
            first = offsets[i] + rng.randrange(max(1, size - length + 1))
            out += self.documents.tokens[first : min(offsets[i + 1], first + length - len(out))].tolist()
        return out
