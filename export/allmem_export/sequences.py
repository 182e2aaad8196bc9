"""Sequences that ask for what was said long before: what a memory grafted on a real model is trained with.

Every sequence is a list of tokens in which some are marked: values that can only be known from an earlier
place. Kinds: `chat` (facts told to the assistant and asked for, between real text and small talk), `needle`
(statements in real text), `list` (lines "name thing: code" that come again), `copy` (passages that come
again), `document` and, where the corpus has answers.jsonl, `talk` (the base model's own answers); those of
chats are in chat_sequences.py, the others in text_sequences.py, what all are made of in marked_text.py.
Values and documents are split for ever into training and held-out ones (dialogues/values.py, corpus.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from .chat_sequences import ChatWriter
from .marked_text import Documents, Sequence
from .text_sequences import TextWriter


class SequenceMaker(ChatWriter, TextWriter):
    """Makes sequences of one side of the split in the tokens and chat format of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, documents: Documents, *, held_out: bool) -> None:
        """Raises ConfigError if the tokenizer's chat template is no ChatML."""
        super().__init__(tokenizer, documents, held_out=held_out)
        self.kinds: dict[str, Callable[[random.Random, int], Sequence]] = {
            "chat": self.chat,
            "needle": self.needle,
            "list": self.list,
            "copy": self.copy,
            "document": self.document,
        }
        if documents.chats:
            self.kinds["talk"] = self.talk

    def batch(self, rng: random.Random, kind: str, count: int, length: int) -> dict[str, Any]:
        """`count` sequences of a kind, cut to `length`.

        ids [count, length]; answer [count, length], how far back the value of which this token is a part was
        last seen (0: none); reply [count, length], whether the token belongs to a reply that is to be
        learned; wrong [count, length], to one that nobody should give; needed [count, length], 1 for what may
        be asked for, −1 for what never is, 0 for the rest.
        """
        ids = np.zeros((count, length), np.int64)
        answer = np.zeros((count, length), np.int64)
        reply, wrong = np.zeros((2, count, length), bool)
        needed = np.zeros((count, length), np.int8)
        for row in range(count):
            seq = self.kinds[kind](rng, length)
            ids[row] = seq.ids[:length]
            for start, end, distance in seq.answers:
                answer[row, start:end] = distance
            for marks, replies in ((reply, seq.replies), (wrong, seq.wrong)):
                for start, end in replies:
                    marks[row, start:end] = True
            for spans, mark in ((seq.told, 1), (seq.filler, -1)):
                for start, end in spans:
                    needed[row, start:end] = mark
        return {"ids": ids, "answer": answer, "reply": reply, "wrong": wrong, "needed": needed}
