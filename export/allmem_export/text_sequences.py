"""Sequences that are no chats: statements in real text, lists, passages that come again, documents."""

from __future__ import annotations

import random

from allmem_edge.dialogues.values import is_held_out

from .chat_phrases import PEOPLE, QUESTIONS, STATEMENTS, THINGS
from .marked_text import Sequence, Writer


class TextWriter(Writer):
    """Writes text in which values and passages come again."""

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

    def document(self, rng: random.Random, length: int) -> Sequence:
        """Running text, in which nothing is marked."""
        return Sequence(self.passage(rng, length))
