"""Sequences that ask for what was said long before: what a memory grafted on a real model is trained with.

Every sequence is a list of tokens in which some are marked: values that can only be known from an earlier
place. Kinds: `chat` (facts told to the assistant and asked for, between real text and small talk), `needle`
(statements in real text), `list` (lines "name thing: code" that come again), `copy` (passages that come
again), `document` and, where the corpus has answers.jsonl, `talk` (the base model's own answers).
Values and documents are split for ever into training and held-out ones (dialogues/values.py, corpus.py).
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from allmem_edge.dialogues import Fact, Generator, Turn
from allmem_edge.dialogues.values import Values, is_held_out

from .chat_phrases import (
    ABOUT_ITSELF,
    AFTER,
    BEFORE,
    BOTH,
    CORRECTIONS,
    INTRODUCTIONS,
    LEADS,
    PEOPLE,
    PROMPTS,
    QUESTIONS,
    RECEIPTS,
    STATEMENTS,
    THINGS,
    UNKNOWN,
)
from .free_talk import Saying, saying
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


class SequenceMaker:
    """Makes sequences of one side of the split in the tokens and chat format of a tokenizer.

    Raises ConfigError if its template is no ChatML: <|im_start|>role, a line end, the text, <|im_end|>.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, documents: Documents, *, held_out: bool) -> None:
        self.tokenizer = tokenizer
        self.documents = documents
        self.held_out = held_out
        self.kinds: dict[str, Callable[[random.Random, int], Sequence]] = {
            "chat": self.chat,
            "needle": self.needle,
            "list": self.list,
            "copy": self.copy,
            "document": self.document,
        }
        if documents.chats:
            self.kinds["talk"] = self.talk
        text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
        user = "<|im_start|>user\nHi<|im_end|>\n"
        if not isinstance(text, str) or not text.endswith(user):
            raise ConfigError(
                "The data of this task is written in ChatML; the tokenizer's chat template is another."
            )
        system = text.removesuffix(user)
        self._start = self._encode(system)
        named = re.search(r"named (\S+), trained by ([^<.\n]+)", system)
        self._identity = {"name": named[1], "maker": named[2]} if named else {}

    # --- pieces

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

    def _say(
        self,
        seq: Sequence,
        user: str,
        reply: str,
        values: dict[str, str],
        *,
        asked: bool = False,
        learned: bool = False,
        wrong: bool = False,
    ) -> None:
        """A turn. asked: the reply is an answer; else the user tells values and the reply may repeat them.

        learned: the reply is to be learned, word for word. wrong: not even its teacher should have a say.
        """
        first = len(seq.ids)
        self._add(
            seq, f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n", {} if asked else values
        )
        start = len(seq.ids)
        said = {key: value for key, value in values.items() if value in reply}
        self._add(seq, f"{reply}<|im_end|>", said, ask=True)
        if learned or wrong:
            (seq.wrong if wrong else seq.replies).append((start, len(seq.ids)))
        if not asked:
            (seq.told if values else seq.filler).append((first, len(seq.ids)))
        self._add(seq, "\n")

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

    # --- chats

    def _filler(self, seq: Sequence, rng: random.Random, talk: Generator) -> None:
        draw, paragraph = rng.random(), rng.choice(self.documents.paragraphs)
        if self.documents.chats and rng.random() < 0.4:
            for question, answer in rng.choice(self.documents.chats):
                self._say(seq, question, answer, {})
        elif draw < 0.3:
            turn = talk.small_talk()
            self._say(seq, turn.user, turn.assistant, {})
        elif draw < 0.65:
            self._say(seq, rng.choice(INTRODUCTIONS) + paragraph, rng.choice(RECEIPTS), {})
        else:
            self._say(seq, rng.choice(PROMPTS), paragraph, {})

    def tell(
        self,
        seq: Sequence,
        rng: random.Random,
        fact: Fact | Saying,
        talk: Generator,
        turn: Turn | None = None,
        *,
        instead: str | None = None,
    ) -> str:
        """The turn in which a fact is told or, with `turn`, corrected. -> The reply.

        instead: a wrong reply, in the place of the right one.
        """
        user, reply = (turn.user, turn.assistant) if turn else self._telling(rng, fact, talk)
        if rng.random() < 0.25:
            user = rng.choice(BEFORE) + user
        if rng.random() < 0.25:
            user = user + ("" if user[-1] in ".!?" else ".") + rng.choice(AFTER)
        wrong, reply = instead is not None, instead or reply
        self._say(seq, user, reply, {fact.key: fact.value}, learned=not wrong, wrong=wrong)
        return reply

    def _telling(self, rng: random.Random, fact: Fact | Saying, talk: Generator) -> tuple[str, str]:
        """What the user says to tell a fact, and a reply."""
        if isinstance(fact, Saying):
            return fact.tell(rng)
        turn = talk.tell(fact)
        return turn.user, turn.assistant

    def _tell_two(
        self, seq: Sequence, rng: random.Random, first: Fact | Saying, second: Fact | Saying, talk: Generator
    ) -> None:
        """Two facts in one turn: "I'm Kerstin and I live in Porto."."""
        (a, _), (b, reply) = (self._telling(rng, fact, talk) for fact in (first, second))
        if first.value in b or second.value in a:  # which one is meant could not be told
            for fact in (first, second):
                self.tell(seq, rng, fact, talk)
            return
        if rng.random() < 0.5:
            user = f"{a} {b}" if a[-1] in ".!?" else f"{a}. {b}"
        else:
            user = a.rstrip(".!?") + rng.choice((" and ", ", and ", ", ")) + b
        if rng.random() < 0.6:
            reply = rng.choice(BOTH)
        self._say(seq, user, reply, {first.key: first.value, second.key: second.value}, learned=True)

    def _ask_unknown(
        self, seq: Sequence, rng: random.Random, known: list[Fact | Saying], talk: Generator
    ) -> str:
        """A question for what nobody has told. -> The reply.

        Facts of the generator and sayings have no thing in common.
        """
        if rng.random() < 0.5:
            turn = talk.ask_unknown(fact for fact in known if isinstance(fact, Fact))
            user, reply = turn.user, turn.assistant
        else:
            taken = {fact.key for fact in known}
            fact = self._sayings(rng, 1)[0]
            while fact.key in taken:
                fact = self._sayings(rng, 1)[0]
            user, reply = fact.ask(rng)[0], rng.choice(UNKNOWN)
        self._say(seq, user, reply, {}, asked=True, learned=True)
        return reply

    def _ask_itself(self, seq: Sequence, rng: random.Random) -> str:
        """A question about the model itself, which a user's name is no answer to. -> The reply."""
        questions, answers = rng.choice(ABOUT_ITSELF)
        reply = rng.choice(answers).format(**self._identity)
        self._say(seq, rng.choice(questions), reply, {}, asked=True, learned=True)
        return reply

    def ask(self, seq: Sequence, rng: random.Random, fact: Fact | Saying, talk: Generator) -> None:
        """A question for a told fact, and the answer."""
        if isinstance(fact, Saying):
            user, reply = fact.ask(rng)
        else:
            turn = talk.ask(fact)
            user, reply = turn.user, turn.assistant
        if rng.random() < 0.2:
            user = rng.choice(LEADS) + user
        self._say(seq, user, reply, {fact.key: fact.value}, asked=True, learned=True)

    def _correct(
        self, seq: Sequence, rng: random.Random, fact: Fact | Saying, talk: Generator
    ) -> Fact | Saying:
        """The turn in which another value is told for a fact. -> What is true from then on."""
        if isinstance(fact, Fact):
            new, turn = talk.correct(fact)
            self.tell(seq, rng, new, talk, turn)
            return new
        said = fact.corrected(Values(rng, held_out=self.held_out))
        user, reply = said.tell(rng)
        self._say(seq, rng.choice(CORRECTIONS) + user, reply, {said.key: said.value}, learned=True)
        return said

    def _ask_two(self, seq: Sequence, first: Fact, second: Fact) -> None:
        a, b = first.attribute.noun, second.attribute.noun
        reply = f"Your {a} is {first.value} and your {b} is {second.value}."
        if first.value in second.value or second.value in first.value:
            return
        user = f"What are my {a} and my {b}?"
        self._add(seq, f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n")
        start = len(seq.ids)
        head, tail = reply[: reply.index(" and your")], reply[reply.index(" and your") :]
        self._add(seq, head, {first.key: first.value}, ask=True)
        self._add(seq, f"{tail}<|im_end|>", {second.key: second.value}, ask=True)
        seq.replies.append((start, len(seq.ids)))
        self._add(seq, "\n")

    def chat(self, rng: random.Random, length: int) -> Sequence:
        """Facts told, corrected and asked for at all distances, between real text and small talk."""
        talk = Generator(rng.randrange(1 << 30), held_out=self.held_out)
        seq = Sequence(list(self._start))
        filler = rng.choice((0.1, 0.3, 0.5, 0.7))
        count = rng.randint(2, max(10, length // 100))
        own = rng.randint(0, count)  # in the generator's words; the others as people say it
        pending: list[Fact | Saying] = [*talk._new_facts(own, []), *self._sayings(rng, count - own)]
        rng.shuffle(pending)
        known: list[Fact | Saying] = []
        while len(seq.ids) < length + 200:
            if pending and (not known or rng.random() < 0.35):
                fresh = [pending.pop() for _ in range(min(len(pending), rng.choice((1, 1, 2, 3))))]
                if len(fresh) == 2 and rng.random() < 0.5:
                    self._tell_two(seq, rng, fresh[0], fresh[1], talk)
                else:
                    for fact in fresh:
                        self.tell(seq, rng, fact, talk)
                known += fresh
            elif rng.random() < filler:
                self._filler(seq, rng, talk)
            elif rng.random() < 0.07:
                self._ask_unknown(seq, rng, known, talk)
            elif self._identity and rng.random() < 0.04:
                self._ask_itself(seq, rng)
            elif rng.random() < 0.08:
                i = rng.randrange(len(known))
                known[i] = self._correct(seq, rng, known[i], talk)
            elif rng.random() < 0.08 and len(facts := [fact for fact in known if isinstance(fact, Fact)]) > 1:
                self._ask_two(seq, *rng.sample(facts, 2))
            else:
                self.ask(seq, rng, rng.choice(known), talk)
        return seq

    def _sayings(self, rng: random.Random, count: int) -> list[Saying]:
        """`count` facts about as many things."""
        values = Values(rng, held_out=self.held_out)
        by_key: dict[str, Saying] = {}
        while len(by_key) < count:
            fact = saying(rng, values)
            by_key.setdefault(fact.key, fact)
        return list(by_key.values())

    def recall(self, rng: random.Random, distance: int, facts: int) -> Sequence:
        """An evaluation: facts told in a chat, `distance` tokens of filler, a question for each fact."""
        talk = Generator(rng.randrange(1 << 30), held_out=self.held_out)
        seq = Sequence(list(self._start))
        told = talk._new_facts(facts, [])
        for fact in told:
            self.tell(seq, rng, fact, talk)
        begin, seq.answers = len(seq.ids), []
        while len(seq.ids) - begin < distance:
            self._filler(seq, rng, talk)
        rng.shuffle(told)
        for fact in told:
            self.ask(seq, rng, fact, talk)
        return seq

    # --- text

    def _codes(self, rng: random.Random, count: int) -> list[dict[str, str]]:
        pairs = rng.sample([(name, thing) for name in PEOPLE for thing in THINGS], count)
        return [{"name": name, "thing": thing, "value": self._code(rng)} for name, thing in pairs]

    def _code(self, rng: random.Random) -> str:
        while True:
            code = "".join(rng.choices("0123456789", k=rng.choice((4, 4, 5, 6))))
            if is_held_out(code) == self.held_out:
                return code

    def needle(self, rng: random.Random, length: int) -> Sequence:
        """Statements scattered in real text, and questions for them."""
        seq, codes = Sequence(), self._codes(rng, rng.randint(2, 8))
        gap, told = rng.choice((20, 60, 150, 300)), 0
        while len(seq.ids) < length:
            self._pass(seq, rng, rng.randint(gap // 2, gap))
            if told < len(codes) and (told == 0 or rng.random() < 0.4):
                self._state(seq, rng, codes[told], STATEMENTS, ask=False)
                told += 1
            else:
                self._state(seq, rng, codes[rng.randrange(told)], QUESTIONS, ask=True)
        return seq

    def _state(
        self, seq: Sequence, rng: random.Random, code: dict[str, str], forms: tuple[str, ...], *, ask: bool
    ) -> None:
        text = "\n" + rng.choice(forms).format(**code) + "\n"
        start = len(seq.ids)
        self._add(seq, text, {f"{code['name']} {code['thing']}": code["value"]}, ask=ask)
        if not ask:
            seq.told.append((start, len(seq.ids)))

    def needle_recall(self, rng: random.Random, distance: int, count: int) -> Sequence:
        """An evaluation: statements, `distance` tokens of real text, a question for each."""
        seq, codes = Sequence(self.passage(rng, 60)), self._codes(rng, count)
        for code in codes:
            self._state(seq, rng, code, STATEMENTS, ask=False)
        seq.ids += self.passage(rng, distance)
        rng.shuffle(codes)
        for code in codes:
            self._state(seq, rng, code, QUESTIONS[:1], ask=True)
        return seq

    def list(self, rng: random.Random, length: int, distance: int | None = None) -> Sequence:
        """Lines "name thing: code" that come again; with `distance` an evaluation: that much text between."""
        seq, codes = Sequence(), self._codes(rng, 8 if distance is not None else rng.randint(4, 16))

        def line(code: dict[str, str]) -> None:
            key, start = f"{code['name']} {code['thing']}", len(seq.ids)
            known = key in seq.seen
            self._add(seq, f"{key}: {code['value']}\n", {key: code["value"]}, ask=True)
            if not known:
                seq.told.append((start, len(seq.ids)))

        for code in codes:
            line(code)
        if distance is not None:
            self._pass(seq, rng, distance)
            self._add(seq, "\n\n")
            for code in rng.sample(codes, len(codes)):
                line(code)
            return seq
        gap = rng.choice((0, 0, 20, 60))
        while len(seq.ids) < length:
            for _ in range(rng.randint(2, len(codes))):
                line(rng.choice(codes))
            if gap:
                self._pass(seq, rng, rng.randint(1, gap * 4))
                self._add(seq, "\n")
        return seq

    def copy(self, rng: random.Random, length: int) -> Sequence:
        """Passages of real text, some of which come again."""
        seq, passages = Sequence(), [self.passage(rng, rng.choice((40, 80, 160)))]
        seq.ids += passages[0]
        while len(seq.ids) < length:
            draw = rng.random()
            if draw < 0.35:
                passages.append(self.passage(rng, rng.choice((40, 80, 160))))
                seq.ids += passages[-1]
            elif draw < 0.6:
                seq.ids += self.passage(rng, rng.randint(20, 300))
            else:
                again = rng.choice(passages)
                first = rng.randrange(len(again) // 2)
                start = len(seq.ids) + 8  # by then it is clear which passage it is
                seq.ids += again[first:]
                if start < len(seq.ids):
                    seq.answers.append((start, len(seq.ids), len(seq.ids)))
            self._add(seq, "\n")
        return seq

    def talk(self, rng: random.Random, length: int) -> Sequence:
        """Ordinary questions and the base model's own answers; now and then a fact, or who the model is.

        In every other one some replies are an earlier one once more, as in a conversation that has begun to
        go round in circles; the right ones after them are to be learned word for word, as the base, which
        reads the same, would go on in the circle.
        """
        talk = Generator(rng.randrange(1 << 30), held_out=self.held_out)
        seq = Sequence(list(self._start))
        circles, spoiled, said = rng.random() < 0.5, False, list[str]()
        known: list[Fact | Saying] = []

        def again() -> str | None:
            return rng.choice(said[-2:]) if circles and said and rng.random() < 0.4 else None

        while len(seq.ids) < length:
            if rng.random() < 0.4:
                fact = talk.fact() if rng.random() < 0.5 else self._sayings(rng, 1)[0]
                instead = again()
                said.append(self.tell(seq, rng, fact, talk, instead=instead))
                known.append(fact)
                spoiled |= instead is not None
            if self._identity and rng.random() < 0.15:
                said.append(self._ask_itself(seq, rng))
            if rng.random() < 0.1:
                said.append(self._ask_unknown(seq, rng, known, talk))
            for question, answer in rng.choice(self.documents.chats):
                instead = again()
                wrong, reply = instead is not None, instead or answer
                self._say(seq, question, reply, {}, learned=spoiled and not wrong, wrong=wrong)
                said.append(reply)
                spoiled |= wrong
        seq.answers.clear()
        return seq

    def document(self, rng: random.Random, length: int) -> Sequence:
        """Running text, in which nothing is marked."""
        return Sequence(self.passage(rng, length))

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
