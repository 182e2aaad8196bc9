"""Writes dialogues turn by turn: facts told, corrected and asked for, between small talk."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from allmem_edge.dialogues import phrases, small_talk
from allmem_edge.dialogues.facts import ATTRIBUTES, Attribute
from allmem_edge.dialogues.values import Values

_BY_KEY = {attribute.key: attribute for attribute in ATTRIBUTES}
_TWO_FACTS = ("My {n} is {v} and my {n2} is {v2}.", "My {n} is {v}, and my {n2} is {v2}.")
_NAME_AND_FACT = (
    "I'm {v} and my {n2} is {v2}.",
    "I am {v} and my {n2} is {v2}.",
    "My name is {v} and my {n2} is {v2}.",
    "Hi, I'm {v}. My {n2} is {v2}.",
)
_TWO_ACKS = ("Okay, your {n} is {v} and your {n2} is {v2}.", "Got it, I will remember both.")


@dataclass(frozen=True)
class Turn:
    """What the user says and what the assistant should answer.

    kind is "fact", "multi_fact", "correct", "ask", "ask_unknown" or "small_talk". For "ask", answer is the
    value exactly as it stands in `assistant`; for all others it is None. key names the attribute, if any;
    "multi_fact" has two: "name+door_code". old: in an evaluation's "ask", the value before its correction.
    """

    user: str
    assistant: str
    kind: str
    answer: str | None = None
    key: str | None = None
    old: str | None = None


@dataclass(frozen=True)
class Fact:
    """A value for an attribute of the user."""

    attribute: Attribute
    value: str

    @property
    def key(self) -> str:
        return self.attribute.key


def _casual(template: str, rng: random.Random) -> str:
    """Some people type without capitals, final punctuation or apostrophes; values stay as they are."""
    if rng.random() > 0.25:
        return template
    template = template.lower().rstrip(".?!")
    return template.replace("'", "") if rng.random() < 0.5 else template


def _upper_first(text: str, template: str) -> str:
    """Start a sentence with a capital unless it starts with a value, which must stay as told."""
    return text if template.startswith("{v") else text[0].upper() + text[1:]


class Generator:
    """An endless, seeded source of dialogues; held_out picks the side of the split of all values."""

    def __init__(self, seed: int, *, held_out: bool = False) -> None:
        self._rng = random.Random(seed)
        self._values = Values(self._rng, held_out=held_out)

    def fact(self, key: str | None = None) -> Fact:
        """A random value for the attribute `key`, or for a random attribute."""
        rng = self._rng
        attribute = _BY_KEY[key] if key is not None else self._pick_attribute(())
        value = self._values.draw(attribute.kind)
        return Fact(attribute, value.lower() if rng.random() < 0.07 else value)

    def tell(self, fact: Fact) -> Turn:
        template = self._choose(phrases.TELLS, fact.attribute.tells, fact.attribute.own_share)
        if template.endswith(".") and self._rng.random() < 0.1:
            template += self._rng.choice(phrases.REMINDERS)
        user = self._say(fact, template)
        ack = self._choose(phrases.ACKS, fact.attribute.acks, fact.attribute.own_share)
        return Turn(user, self._reply(fact, ack), "fact", key=fact.key)

    def tell_two(self, first: Fact, second: Fact) -> Turn:
        """Both facts in one turn; a name comes first: "I'm Marelo and my locker code is 5823."."""
        if second.key == "name":
            first, second = second, first
        names = {"n": first.attribute.noun, "v": first.value, "n2": second.attribute.noun, "v2": second.value}
        if self._rng.random() < 0.5:
            template = self._rng.choice(_NAME_AND_FACT if first.key == "name" else _TWO_FACTS)
            user = _casual(template, self._rng).format_map(names)
        else:
            user, more = self.tell(first).user, self.tell(second).user
            user += f" {more}" if user[-1] in ".?!" else f" and {more}"
        keys = f"{first.key}+{second.key}"
        return Turn(user, self._rng.choice(_TWO_ACKS).format_map(names), "multi_fact", key=keys)

    def ask(self, fact: Fact, *, only_code: bool = False) -> Turn:
        """Ask for a told fact. only_code: no other code is known, so "the code" may stand for this one."""
        attribute = fact.attribute
        template = self._question(attribute)
        if only_code and attribute.is_code and self._rng.random() < 0.3:
            template = self._rng.choice(phrases.CODE_ASKS)
        answer = self._choose(phrases.ANSWERS, attribute.answers, attribute.own_share)
        return Turn(self._say(fact, template), self._reply(fact, answer), "ask", fact.value, fact.key)

    def correct(self, fact: Fact) -> tuple[Fact, Turn]:
        """A new value for the attribute, and the turn that tells it."""
        new = self.fact(fact.key)
        while new.value.casefold() == fact.value.casefold():
            new = self.fact(fact.key)
        user = self._say(new, self._rng.choice(phrases.CORRECTIONS), old=fact.value)
        ack = self._rng.choice(phrases.CORRECTION_ACKS)
        return new, Turn(user, self._reply(new, ack), "correct", key=new.key)

    def ask_unknown(self, known: Iterable[Fact], *, also_taken: Iterable[str] = ()) -> Turn:
        """Ask for something that none of the known facts tells. also_taken: keys not to ask for either."""
        known = list(known)
        taken = {*also_taken, *(fact.key for fact in known)}
        if any(fact.attribute.is_code for fact in known):
            taken.add("code")  # "the code" could mean the one that is known
        attribute = self._pick_attribute(taken)
        user = self._say(Fact(attribute, ""), self._question(attribute))
        return Turn(user, phrases.UNKNOWN.format(n=attribute.noun), "ask_unknown", key=attribute.key)

    def small_talk(self) -> Turn:
        rng = self._rng
        draw = rng.random()
        if draw < 0.3:
            user, assistant = small_talk.exchange(rng)
            user = _casual(user, rng)
        elif draw < 0.92:
            user, assistant = small_talk.chatter(rng, self._values)
        else:
            user, assistant = small_talk.story(rng, self._values)
        return Turn(user, assistant, "small_talk")

    def dialogue(
        self,
        turns: int,
        facts: int,
        filler: float = 0.3,
        *,
        spread: float = 0.7,
        recent: float = 0.3,
        corrections: float = 0.06,
        unknown: float = 0.06,
    ) -> list[Turn]:
        """A dialogue of `turns` turns.

        facts: how many attributes are told, at random places in the first `spread` share of the dialogue.
        filler: share of small talk among the other turns (0 dense, 0.9 sparse).
        recent: share of questions about what was told last; the others are about any known fact, so that
        answers come at all distances.
        corrections, unknown: shares among the turns that are neither told nor filler.
        """
        if not 0 < facts <= min(turns, len(ATTRIBUTES)):
            raise ValueError(
                f"A dialogue of {turns} turns can tell 1 to {min(turns, len(ATTRIBUTES))} facts, not {facts}."
            )
        rng = self._rng
        slots = rng.sample(range(max(facts, round(turns * spread))), facts)
        shift = 0 if rng.random() < filler else min(slots)  # begin with a fact or, at times, with small talk
        tell_at = {slot - shift for slot in slots}
        known: list[Fact] = []  # in the order in which they were last told
        unasked: set[str] = set()
        result: list[Turn] = []
        while len(result) < turns:
            if len(result) in tell_at:
                two = len(result) + 1 in tell_at and rng.random() < 0.5
                fresh = self._new_facts(2 if two else 1, known)
                result.append(self.tell_two(*fresh) if two else self.tell(fresh[0]))
                if two:  # the next place is free again
                    tell_at.discard(len(result))
                known += fresh
                unasked.update(fact.key for fact in fresh)
            elif rng.random() < filler or not known:
                result.append(self.small_talk())
            elif rng.random() < unknown:
                result.append(self.ask_unknown(known))
            elif rng.random() < corrections:
                old = rng.choice(known)
                known.remove(old)
                new, turn = self.correct(old)
                known.append(new)
                unasked.add(new.key)
                result.append(turn)
            else:
                fact = self._pick_question(known, unasked, recent)
                unasked.discard(fact.key)
                result.append(self.ask(fact, only_code=sum(f.attribute.is_code for f in known) == 1))
        return result

    def recall_case(
        self, distance_tokens: int, count_tokens: Callable[[str], int], facts: int, *, unknown: bool = False
    ) -> list[Turn]:
        """Facts told, then small talk, then one question for each fact in random order; with `unknown` as
        many questions about what was not told instead.

        The texts of the small talk alone count at least `distance_tokens` tokens: so far at least lies every
        question from the telling of its fact, whatever a chat template adds.
        """
        told = self._new_facts(facts, [])
        result = [self.tell(fact) for fact in told]
        distance = 0
        while distance < distance_tokens:
            turn = self.small_talk()
            distance += count_tokens(turn.user) + count_tokens(turn.assistant)
            result.append(turn)
        self._rng.shuffle(told)
        return result + [self.ask_unknown(told) if unknown else self.ask(fact) for fact in told]

    def _new_facts(self, count: int, known: Iterable[Fact]) -> list[Fact]:
        taken = {fact.key for fact in known}
        fresh: list[Fact] = []
        for _ in range(count):
            fresh.append(self.fact(self._pick_attribute(taken).key))
            taken.add(fresh[-1].key)
        return fresh

    def _pick_attribute(self, taken: Iterable[str]) -> Attribute:
        """A free attribute; the name and the codes come more often, since people tell them most."""
        free = [attribute for attribute in ATTRIBUTES if attribute.key not in taken]
        weights = [6.0 if a.key == "name" else 2.0 if a.is_code else 1.0 for a in free]
        return self._rng.choices(free, weights)[0]

    def _pick_question(self, known: list[Fact], unasked: set[str], recent: float) -> Fact:
        if self._rng.random() < recent:
            return known[-1]
        never = [fact for fact in known if fact.key in unasked]
        return self._rng.choice(never if never and self._rng.random() < 0.5 else known)

    def _question(self, attribute: Attribute) -> str:
        template = self._choose(phrases.ASKS, attribute.asks, attribute.own_share)
        if template.startswith("W") and self._rng.random() < 0.12:
            return self._rng.choice(phrases.LEAD_INS) + template[0].lower() + template[1:]
        return template

    def _choose(self, common: tuple[str, ...], own: tuple[str, ...], own_share: float) -> str:
        return self._rng.choice(own if own and self._rng.random() < own_share else common)

    def _say(self, fact: Fact, template: str, old: str = "") -> str:
        template = template.replace("{n}", fact.attribute.noun)
        return _casual(template, self._rng).format(v=fact.value, o=old)

    def _reply(self, fact: Fact, template: str) -> str:
        return _upper_first(template.format(n=fact.attribute.noun, v=fact.value), template)
