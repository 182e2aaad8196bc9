"""What a grafted memory is trained with: facts in people's words, and the base model's own answers."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from allmem_edge import Model
from allmem_edge import __file__ as package
from allmem_edge.dialogues.values import Values
from allmem_edge.dialogues.values import is_held_out as is_held_out_value
from allmem_edge.evaluation.divergence import questions
from allmem_edge.evaluation.recall import told
from allmem_export import own_answers
from allmem_export.chat_phrases import CORRECTIONS, PEOPLE
from allmem_export.free_talk import MINE, PERSONS, THEIRS, Relation, Saying, saying
from allmem_export.own_answers import question

BUNDLED = Path(package).parent / "models" / "small"


def test_people_say_things_in_ways_of_their_own() -> None:
    rng = random.Random(1)
    values = Values(rng, held_out=False)
    for _ in range(300):
        fact = saying(rng, values)
        (told, _), (question, answer) = fact.tell(rng), fact.ask(rng)
        assert fact.value in told and fact.value in answer and fact.value not in question
        assert "{" not in told + question + answer and not is_held_out_value(fact.value)


def test_a_saying_of_each_relation_states_its_value_and_names_its_person() -> None:
    rng = random.Random(1)
    values = Values(rng, held_out=False)
    for relation in (*MINE, *THEIRS):
        assert all(template.count("{v}") == 1 for template in (*relation.tells, *relation.answers)), relation
        assert not any("{v}" in template for template in relation.asks), relation
        assert min(len(relation.tells), len(relation.asks)) >= 5 and len(relation.answers) >= 2, relation
        named = [
            "{p}" in template.lower() for template in (*relation.tells, *relation.asks, *relation.answers)
        ]
        assert all(named) if relation in THEIRS else not any(named), relation
        person = rng.choice(PERSONS) if relation in THEIRS else ""
        fact = Saying(relation, person, values.draw(relation.kind))
        told, (question, answer) = fact.tell(rng)[0], fact.ask(rng)
        assert fact.value in told and fact.value in answer and "{" not in told + question + answer


def test_a_question_belongs_to_one_relation_alone() -> None:
    for relations in (MINE, THEIRS):
        asks = Counter(plain(ask) for relation in relations for ask in relation.asks)
        tells = Counter(plain(tell) for relation in relations for tell in relation.tells)
        assert not [text for text, count in (asks + tells).items() if count > 1]
    assert len(set(PERSONS)) == len(PERSONS)


def test_nobody_of_training_has_a_name_that_is_held_out() -> None:
    names = [word for person in (*PEOPLE, *PERSONS) for word in person.split() if word[0].isupper()]
    assert not [name for name in names if is_held_out_value(name)]
    assert len(PEOPLE) >= 30 and len(PERSONS) >= 50


@pytest.mark.parametrize(
    ("person", "answer"),
    [("my uncle", "Your uncle"), ("our new neighbour", "Your new neighbour"), ("Amy", "Amy")],
)
def test_the_model_speaks_of_the_users_people_as_theirs(person: str, answer: str) -> None:
    relation = Relation("age", ("{P} is {v}.",), ("How old is {p}?",), ("{P} is {v}.",))
    fact = Saying(relation, person, "40")
    assert fact.ask(random.Random(1)) == (f"How old is {person}?", f"{answer} is 40.")


def plain(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text.lower())


def test_a_corrected_fact_is_of_the_same_thing_with_another_value() -> None:
    rng = random.Random(2)
    values = Values(rng, held_out=False)
    for _ in range(300):
        fact = saying(rng, values)
        new = fact.corrected(values)
        assert new.key == fact.key and new.value not in fact.value and new.value not in new.person


def test_the_sayings_of_training_are_not_those_of_the_evaluation() -> None:
    assert not set(map(plain, told()["corrections"])) & set(map(plain, CORRECTIONS))
    evaluation = {plain(line) for kind in told()["kinds"] for line in (*kind["tells"], *kind["asks"])}
    training = {plain(line) for relation in (*MINE, *THEIRS) for line in (*relation.tells, *relation.asks)}
    assert not evaluation & training


def test_the_questions_of_the_divergence_are_not_those_of_training() -> None:
    asked = set(questions())
    assert len(asked) == 60
    rng = random.Random(1)
    assert not asked & {question(rng) for _ in range(20_000)}


@pytest.fixture
def asker() -> own_answers.Asker:
    """The bundled model, asked without its memory."""
    return own_answers.Asker(Model.load(BUNDLED, memory="off"), random.Random(1))


def test_answers_that_are_made_together_are_those_of_each_chat(asker: own_answers.Asker) -> None:
    asked = ["What is the capital of France?", "Hello!", "My dog is called Rex."]
    chats = [Model.load(BUNDLED, memory="off").chat(temperature=0.0) for _ in asked]
    alone = ["".join(chat.send(text)).strip() for chat, text in zip(chats, asked, strict=True)]
    prompts = [asker._prompt(text) for text in asked]
    assert all(alone) and asker.written(prompts, [{"temperature": 0.0}] * 3) == alone
    assert asker.written(prompts, [{"max_tokens": 1}] * 3) == [""] * 3  # not ended


def test_what_a_model_asks_itself_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> list[str]:
        answers = own_answers.Asker(Model.load(BUNDLED, memory="off"), random.Random(7)).answers()
        made = [next(answers) for _ in range(30)]
        assert all(user and answer for user, answer in made)
        return [user for user, _ in made]

    rng = random.Random(1)
    ours = {question(rng) for _ in range(20_000)}
    own = [text for text in asked() if text not in ours]
    assert own
    monkeypatch.setattr(own_answers, "KEPT_OUT", frozenset(map(own_answers.plain, own)))
    assert own[0] not in asked()
