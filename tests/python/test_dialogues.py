"""The dialogue generator: what training learns from and what the recall evaluation counts must be right."""

from __future__ import annotations

import re
from statistics import mean

import pytest

from allmem_edge.cli.eval import is_right
from allmem_edge.dialogues import ATTRIBUTES, DENIAL, Generator, Turn, is_held_out
from allmem_edge.dialogues.exchanges import EXCHANGES
from allmem_edge.dialogues.small_talk import CHATTER
from allmem_edge.dialogues.values import Values

# Kinds made from closed word lists: their words are vocabulary. All others are open: names and digits.
CLOSED_KINDS = {"colour", "food", "drink", "hobby", "instrument", "list"}
# turns, facts, filler, spread: dense, middling, sparse, all told at once
SETTINGS = [
    (40, 8, 0.0, 0.5),
    (60, 5, 0.5, 0.7),
    (120, 4, 0.9, 0.5),
    (10, 10, 0.3, 1.0),
]


def dialogues(seeds: range, *, held_out: bool = False) -> list[list[Turn]]:
    result = []
    for seed in seeds:
        turns, facts, filler, spread = SETTINGS[seed % len(SETTINGS)]
        generator = Generator(seed, held_out=held_out)
        result.append(generator.dialogue(turns, facts, filler, spread=spread))
    return result


def count_words(text: str) -> int:
    return len(text.split())


def test_same_seed_gives_the_same_dialogue_and_another_seed_another() -> None:
    def write(seed: int) -> list[Turn]:
        generator = Generator(seed)
        return generator.dialogue(50, 6, 0.4) + generator.recall_case(100, count_words, 4)

    assert write(7) == write(7)
    assert write(7) != write(8)


def test_values_of_training_and_held_out_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[bool, set[str]] = {False: set(), True: set()}
    draw = Values.draw

    def recording(self: Values, kind: str) -> str:
        value = draw(self, kind)
        drawn[side].add(value.casefold())
        return value

    monkeypatch.setattr(Values, "draw", recording)
    for side in (False, True):
        dialogues(range(100), held_out=side)
    assert min(len(values) for values in drawn.values()) > 1000
    assert not drawn[False] & drawn[True]
    assert not any(is_held_out(value) for value in drawn[False])


@pytest.mark.parametrize("held_out", [False, True])
def test_every_kind_has_values_on_both_sides_of_the_split(held_out: bool) -> None:
    generator = Generator(1, held_out=held_out)
    for attribute in ATTRIBUTES:
        values = {generator.fact(attribute.key).value.casefold() for _ in range(100)}
        assert len(values) >= 3, attribute.key
        assert all(is_held_out(value) == held_out for value in values)


def test_keys_and_nouns_are_unique() -> None:
    assert len({attribute.key for attribute in ATTRIBUTES}) == len(ATTRIBUTES) >= 45
    assert len({attribute.noun for attribute in ATTRIBUTES}) == len(ATTRIBUTES)


def test_every_phrasing_tells_and_answers_with_the_value() -> None:
    generator = Generator(2)
    for attribute in ATTRIBUTES:
        for _ in range(60):
            fact = generator.fact(attribute.key)
            assert fact.value in generator.tell(fact).user
            asked = generator.ask(fact)
            assert asked.answer == fact.value
            assert fact.value in asked.assistant
            assert fact.value not in asked.user or len(fact.value) < 3
            new, corrected = generator.correct(fact)
            assert new.key == fact.key and new.value.casefold() != fact.value.casefold()
            assert new.value in corrected.user and new.value in corrected.assistant


def test_no_slot_is_left_unfilled() -> None:
    for dialogue in dialogues(range(60)):
        for turn in dialogue:
            assert not re.search(r"[{}|]|  ", turn.user + turn.assistant), turn
            assert turn.user and turn.assistant


def test_an_answer_is_the_value_told_last() -> None:
    """Reads the dialogue as a person would: the last telling of a key before a question holds the answer."""
    asked = 0
    for dialogue in dialogues(range(120)):
        told: dict[str, str] = {}  # by key, what the user said last
        for turn in dialogue:
            assert turn.key is not None or turn.kind == "small_talk"
            if turn.kind in ("fact", "correct"):
                told[turn.key or ""] = turn.user
            elif turn.kind == "multi_fact":
                both = turn.user
                told.update(dict.fromkeys(str(turn.key).split("+"), both))
            elif turn.kind == "ask":
                asked += 1
                assert turn.answer is not None and turn.answer in turn.assistant
                assert turn.answer in told[turn.key or ""]
    assert asked > 1000


def test_what_was_told_is_never_asked_as_unknown() -> None:
    unknown = 0
    for dialogue in dialogues(range(120)):
        told: set[str] = set()
        for turn in dialogue:
            if turn.kind == "ask_unknown":
                unknown += 1
                assert turn.key not in told
                assert turn.assistant.startswith("I don't know your ")
            elif turn.key:
                told.update(turn.key.split("+"))
    assert unknown > 50


def test_the_code_is_asked_for_only_when_one_code_can_be_meant() -> None:
    vague = re.compile(r"\b(the|my|what|which) code( did|$)", re.IGNORECASE)
    by_key = {attribute.key: attribute for attribute in ATTRIBUTES}
    seen = 0
    for dialogue in dialogues(range(200)):
        codes: set[str] = set()
        for turn in dialogue:
            keys = turn.key.split("+") if turn.key else []
            codes |= {key for key in keys if by_key[key].is_code and turn.kind != "ask_unknown"}
            if turn.kind.startswith("ask") and vague.search(turn.user.rstrip(".?")):
                seen += 1
                assert turn.key == "code" or codes == {turn.key}
                assert turn.kind == "ask" or not codes
    assert seen > 20


@pytest.mark.parametrize(("turns", "facts", "filler", "spread"), SETTINGS)
def test_dialogue_has_the_turns_facts_and_filler_it_was_asked_for(
    turns: int, facts: int, filler: float, spread: float
) -> None:
    shares = []
    for seed in range(30):
        dialogue = Generator(seed).dialogue(turns, facts, filler, spread=spread)
        assert len(dialogue) == turns
        tellings = [turn for turn in dialogue if turn.kind in ("fact", "multi_fact")]
        told = [key for turn in tellings for key in str(turn.key).split("+")]
        assert len(told) == len(set(told)) == facts
        free = turns - len(tellings)
        shares.append(sum(turn.kind == "small_talk" for turn in dialogue) / max(free, 1))
    if turns > facts:
        # 30 dialogues of at least 32 free turns: a share's standard error is at most 0.5/sqrt(960) = 0.016;
        # four of them are allowed. Before the first fact, about spread/(facts + 1) of the dialogue, all is
        # small talk where otherwise a share `filler` would be; so begins a share `filler` of the dialogues.
        before = filler * (1 - filler) * spread / (facts + 1)
        assert filler - 0.065 <= mean(shares) <= filler + 0.065 + before


def test_too_many_facts_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 5 facts, not 6"):
        Generator(1).dialogue(5, 6)


def test_questions_come_at_all_distances() -> None:
    distances = []
    for dialogue in dialogues(range(0, 200, 4)):  # the dense setting
        last: dict[str, int] = {}
        for place, turn in enumerate(dialogue):
            if turn.kind == "ask":
                distances.append(place - last[str(turn.key)])
            elif turn.kind != "ask_unknown" and turn.key:
                last.update(dict.fromkeys(turn.key.split("+"), place))
    near = sum(distance <= 2 for distance in distances) / len(distances)
    far = sum(distance >= 10 for distance in distances) / len(distances)
    assert near > 0.1 and far > 0.3


@pytest.mark.parametrize("distance", [0, 64, 1024])
def test_recall_case_keeps_its_distance_with_small_talk_only(distance: int) -> None:
    case = Generator(3, held_out=True).recall_case(distance, count_words, 5)
    assert [turn.kind for turn in case[:5]] == ["fact"] * 5
    assert [turn.kind for turn in case[-5:]] == ["ask"] * 5
    filler = case[5:-5]
    assert all(turn.kind == "small_talk" for turn in filler)
    sizes = [count_words(turn.user) + count_words(turn.assistant) for turn in filler]
    assert sum(sizes) >= distance
    assert sum(sizes[:-1]) < distance or not sizes
    told = {turn.key: turn.user for turn in case[:5]}
    assert len(told) == 5 and set(told) == {turn.key for turn in case[-5:]}
    assert all(str(turn.answer) in told[turn.key] for turn in case[-5:])


def test_small_talk_is_varied() -> None:
    generator = Generator(4)
    turns = [generator.small_talk() for _ in range(20_000)]
    assert len({turn.user for turn in turns}) > 12_000
    assert all(turn.answer is None and turn.key is None for turn in turns)
    assert sum(count_words(turn.user) >= 15 for turn in turns) > 400


def test_vocabulary_is_small_and_turns_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: set[str] = set()
    draw = Values.draw

    def recording(self: Values, kind: str) -> str:
        value = draw(self, kind)
        if kind not in CLOSED_KINDS:
            drawn.update(words(value))
        return value

    def words(text: str) -> list[str]:
        return re.findall(r"[\w']+", text.lower())

    monkeypatch.setattr(Values, "draw", recording)
    turns = [turn for dialogue in dialogues(range(200)) for turn in dialogue]
    seen = {word for turn in turns for word in words(turn.user) + words(turn.assistant)}
    assert len(seen - drawn) <= 1500
    assert 4 <= mean(count_words(turn.user) for turn in turns) <= 12
    assert 3 <= mean(count_words(turn.assistant) for turn in turns) <= 10
    assert max(count_words(turn.user) for turn in turns) <= 60
    assert max(count_words(turn.assistant) for turn in turns) <= 25


def test_no_option_of_the_small_talk_is_empty() -> None:
    for users, replies in (*EXCHANGES, *CHATTER):
        assert all(option.strip() == option != "" for option in (users + "|" + replies).split("|")), users


def test_an_unknown_case_asks_only_for_what_was_not_told() -> None:
    for seed in range(20):
        turns = Generator(seed).recall_case(40, len, 3, unknown=True)
        told = {key for turn in turns[:-3] if turn.key for key in turn.key.split("+")}
        assert [turn.kind for turn in turns[-3:]] == ["ask_unknown"] * 3
        assert all(turn.key not in told and DENIAL in turn.assistant for turn in turns[-3:])


def test_denying_is_right_exactly_for_what_was_not_told() -> None:
    known, unknown = Turn("?", "It is 4711.", "ask", "4711"), Turn("?", DENIAL, "ask_unknown")
    assert is_right("It is 4711.", known) and not is_right("It is 47112.", known)
    assert is_right(f"I don't know your code yet. {DENIAL}", unknown) and not is_right("It is 4711.", unknown)
    assert is_right("You have not told me that yet.", unknown)  # as adapters are trained to say it
    assert not is_right(DENIAL, known)
