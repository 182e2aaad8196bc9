"""Sequences that are chats: facts told, corrected and asked for, and ordinary conversations."""

from __future__ import annotations

import random
import re

from transformers import PreTrainedTokenizerBase

from allmem_edge.dialogues import ATTRIBUTES, Fact, Generator, Turn
from allmem_edge.dialogues.values import Values

from .chat_phrases import (
    ABOUT_ITSELF,
    AFTER,
    BEFORE,
    BOTH,
    CORRECTIONS,
    INTRODUCTIONS,
    LEADS,
    PROMPTS,
    RECEIPTS,
    UNKNOWN,
)
from .free_talk import Saying, saying
from .marked_text import Documents, Sequence, Writer
from .task import ConfigError

_ALIKE = frozenset(("room", "seat", "flight", "code"))  # kinds of which generator and sayings say the same


class ChatWriter(Writer):
    """Writes chats in ChatML: <|im_start|>role, a line end, the text, <|im_end|>.

    Raises ConfigError if that is not the tokenizer's chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, documents: Documents, *, held_out: bool) -> None:
        super().__init__(tokenizer, documents, held_out=held_out)
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

    # --- turns

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

        "My room" of the generator may mean the hospital room of a saying, so what one has told of these
        kinds the other does not ask for. Otherwise generator and sayings have no thing in common.
        """
        facts = [fact for fact in known if isinstance(fact, Fact)]
        if rng.random() < 0.5:
            told = {fact.relation.kind for fact in known if isinstance(fact, Saying) and not fact.person}
            also = {a.key for a in ATTRIBUTES if a.kind in told & _ALIKE}
            turn = talk.ask_unknown(facts, also_taken=also)
            user, reply = turn.user, turn.assistant
        else:
            taken = {fact.key for fact in known}
            alike = {fact.attribute.kind for fact in facts} & _ALIKE
            fact = self._sayings(rng, 1)[0]
            while fact.key in taken or (not fact.person and fact.relation.kind in alike):
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

    # --- kinds

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
