"""Facts as people tell them: about themselves and about others, in sentences of many shapes.

The generator of allmem_edge.dialogues asks for an attribute by its noun; a model that knows only that learns
the nouns. These sentences differ in where the value stands and in what the question has in common with the
telling. `{v}` is the value, `{p}` a person, `{P}` the same with a capital. Training only: evaluation has
sentences of its own (allmem_edge/evaluation/told.json), written apart from these.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from allmem_edge.dialogues.values import Values


@dataclass(frozen=True)
class Relation:
    """One thing that can be said of somebody, with the kind of its values (dialogues/values.py)."""

    kind: str
    tells: tuple[str, ...]
    asks: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Saying:
    """A value for a relation of a person; "" is the user."""

    relation: Relation
    person: str
    value: str

    @property
    def key(self) -> str:
        return f"free {self.person} {self.relation.asks[0]}"

    def tell(self, rng: random.Random) -> tuple[str, str]:
        """What the user says, and a reply, which may say it again."""
        reply = self._theirs(rng) if rng.random() < 0.4 else ""
        return self._ours(rng.choice(self.relation.tells)), f"{rng.choice(RECEIPTS)} {reply}".strip()

    def ask(self, rng: random.Random) -> tuple[str, str]:
        """A question and its answer."""
        return self._ours(rng.choice(self.relation.asks)), self._theirs(rng)

    def _ours(self, template: str) -> str:
        return _say(template, self.value, self.person)

    def _theirs(self, rng: random.Random) -> str:
        # the model speaks of "my uncle" as "your uncle"
        person = self.person.replace("my ", "your ").replace("our ", "your ")
        return _say(rng.choice(self.relation.answers), self.value, person)


def _say(template: str, value: str, person: str) -> str:
    text = template.format(v=value, p=person, P=person[:1].upper() + person[1:])
    return text if template.startswith("{v}") else text[0].upper() + text[1:]


def _relation(kind: str, tells: str, asks: str, answers: str) -> Relation:
    def lines(text: str) -> tuple[str, ...]:
        return tuple(line.strip() for line in text.strip().splitlines())

    return Relation(kind, lines(tells), lines(asks), lines(answers))


# Of the user.
MINE = (
    _relation(
        "place",
        """
        I grew up in {v}, a small place that nobody knows.
        When I was a child we lived in {v}.
        {v} is where I spent my childhood.
        My parents raised me in {v}.""",
        """
        Where did I grow up?
        Which town did I live in as a child?
        I told you where I am from. Where is that?""",
        """
        You grew up in {v}.
        You spent your childhood in {v}.""",
    ),
    _relation(
        "place",
        """
        We are moving to {v} next month.
        Soon I will live in {v}, we have already packed the boxes.
        The new flat is in {v}. We move in as soon as it is painted.""",
        """
        Where am I moving to?
        In which town will I live soon?
        Remind me, where is the new flat?""",
        """
        You are moving to {v}.
        Your new flat is in {v}.""",
    ),
    _relation(
        "place",
        """
        For our holiday we picked {v} this year.
        We booked two weeks in {v}. I need a rest.
        I can't wait to see {v}, that is where we go on holiday.""",
        """
        Where do I go on holiday?
        Which place did we book for our vacation?
        What was our travel destination?""",
        """
        You are going to {v} on holiday.
        You booked two weeks in {v}.""",
    ),
    _relation(
        "firm",
        """
        I work at {v}, mostly in the office.
        Since last year I have had a job at {v}.
        They hired me at {v}, I start on Monday.
        My employer is {v}.""",
        """
        Where do I work?
        Who employs me?
        Which company did I say I work for?""",
        """
        You work at {v}.
        Your employer is {v}.""",
    ),
    _relation(
        "name",
        """
        I'm married to {v}.
        {v} and I have been married for ten years.
        Yesterday {v}, who I am married to, cooked for us.""",
        """
        Who am I married to?
        What is my partner's name?
        Who is my better half?""",
        """
        You are married to {v}.
        Your partner is called {v}.""",
    ),
    _relation(
        "name",
        """
        Our baby was born last night. We named her {v}!
        We have a little girl now, {v}.
        I became a parent: {v} is three days old.""",
        """
        What is our baby called?
        Which name did we give our baby?
        How did we name our little girl?""",
        """
        You named your baby {v}.
        Your baby is called {v}.""",
    ),
    _relation(
        "pet",
        """
        A stray followed me home and stayed. We call him {v}.
        There is a new animal in our house, {v}, and it sleeps all day.
        My parrot {v} can say three words.""",
        """
        What is my animal called?
        What did we call the animal in our house?
        Do you remember the name of my pet?""",
        """
        It is called {v}.
        Your pet's name is {v}.""",
    ),
    _relation(
        "food",
        """
        I could eat {v} every day.
        Nothing beats {v}, I love it.
        If you ever cook for me, make {v}.""",
        """
        What do I like to eat most?
        Which dish do I love?
        What should you cook for me?""",
        """
        You love {v}.
        You like {v} most.""",
    ),
    _relation(
        "food",
        """
        I can't eat {v}, it makes me sick.
        Please never suggest {v}, I am allergic.
        {v} gives me a rash, so I stay away from it.""",
        """
        What am I allergic to?
        Which food do I have to avoid?
        What makes me sick?""",
        """
        You can't eat {v}.
        You are allergic to {v}.""",
    ),
    _relation(
        "drink",
        """
        In the morning I need my {v}.
        I always order {v} when I am out.
        Give me {v} and I am happy.""",
        """
        What do I drink in the morning?
        What do I always order?
        Which drink makes me happy?""",
        """
        You drink {v}.
        You always order {v}.""",
    ),
    _relation(
        "hobby",
        """
        At weekends I spend hours {v}.
        I have taken up {v}, it calms me.
        {v} is what I do when I have time.""",
        """
        What do I do at weekends?
        How do I spend my free time?
        What calms me?""",
        """
        You spend your free time {v}.
        You like {v}.""",
    ),
    _relation(
        "colour",
        """
        We painted the kitchen {v}.
        The kitchen walls are {v} now, it looks lovely.""",
        """
        Which colour is our kitchen?
        How did we paint the kitchen?""",
        """
        Your kitchen is {v}.
        You painted it {v}.""",
    ),
    _relation(
        "colour",
        """
        I bought a {v} car.
        The car outside, the {v} one, belongs to me.
        They only had a {v} car left, so I took it.""",
        """
        What colour is my car?
        Which car did I buy?
        How can you tell my car from the others?""",
        """
        Your car is {v}.
        You have a {v} car.""",
    ),
    _relation(
        "code",
        """
        You open my suitcase with {v}.
        The combination of my suitcase is {v}, I set it myself.
        I set the lock of my suitcase to {v}.""",
        """
        How do I open my suitcase?
        What is the combination of my suitcase?
        Which number did I set on my suitcase?""",
        """
        The combination is {v}.
        You open your suitcase with {v}.""",
    ),
    _relation(
        "code",
        """
        The wifi at the cottage needs {v}.
        To get online at the cottage you type {v}.""",
        """
        How do I get online at the cottage?
        What is the wifi password at the cottage?""",
        """
        You type {v}.
        The wifi needs {v}.""",
    ),
    _relation(
        "date",
        """
        I was born on {v}.
        Every year on {v} I get a cake.
        We celebrate me on {v}.""",
        """
        When was I born?
        When is my birthday?
        On which day do I get a cake?""",
        """
        You were born on {v}.
        Your birthday is {v}.""",
    ),
    _relation(
        "date",
        """
        The exam is on {v}, I am nervous.
        I have to sit my exam on {v}.
        They put the exam on {v}.""",
        """
        When is my exam?
        On which day do I have to sit the exam?""",
        """
        Your exam is on {v}.
        It is on {v}.""",
    ),
    _relation(
        "time",
        """
        The train leaves at {v}.
        I must be at the station before {v}, that is when my train goes.
        My train departs at {v} sharp.""",
        """
        When does my train leave?
        At what time do I have to be at the station?""",
        """
        Your train leaves at {v}.
        It departs at {v}.""",
    ),
    _relation(
        "number",
        """
        I have read {v} books this year.
        So far I finished {v} books this year.""",
        """
        How many books have I read this year?
        What is my number of books so far?""",
        """
        You have read {v} books.
        So far it is {v}.""",
    ),
    _relation(
        "age",
        """
        I turned {v} last week.
        I am {v} years old, believe it or not.
        They put {v} candles on my cake.""",
        """
        How old am I?
        What is my age?
        How many candles were on my cake?""",
        """
        You are {v} years old.
        You turned {v}.""",
    ),
    _relation(
        "street",
        """
        You find me in {v}, the house with the red door.
        My flat is in {v}.
        Send the parcel to {v}, that is where I live.""",
        """
        In which street do I live?
        Where should the parcel go?
        What is my address?""",
        """
        You live in {v}.
        It should go to {v}.""",
    ),
    _relation(
        "list",
        """
        From the shop I need {v}.
        Put this on the shopping list: {v}.
        We ran out of {v}, I have to buy them.""",
        """
        What do I need from the shop?
        What is on the shopping list?
        What did we run out of?""",
        """
        You need {v}.
        On the list are {v}.""",
    ),
    _relation(
        "team",
        """
        I have supported {v} since I was six.
        On Saturday I watch {v}, as always.""",
        """
        Which team do I support?
        Who do I watch on Saturdays?""",
        """
        You support {v}.
        Your team is {v}.""",
    ),
    _relation(
        "language",
        """
        I am learning {v} at the evening school.
        Twice a week I have a class in {v}.""",
        """
        Which language am I learning?
        What do they teach me at the evening school?""",
        """
        You are learning {v}.
        It is {v}.""",
    ),
    _relation(
        "instrument",
        """
        My grandfather left me {v}.
        I found {v} in the attic and play it every evening.""",
        """
        Which instrument do I have?
        What do I play in the evening?""",
        """
        You have {v}.
        You play {v}.""",
    ),
    _relation(
        "word",
        """
        Our secret word is {v}.
        If someone asks for the password, say {v}.""",
        """
        What is our secret word?
        Which password do we use?""",
        """
        It is {v}.
        The secret word is {v}.""",
    ),
)
# Of somebody else.
THEIRS = (
    _relation(
        "place",
        """
        {P} lives in {v} now.
        I visited {p} in {v}.
        {P} has moved to {v}.""",
        """
        Where does {p} live?
        In which town did I visit {p}?""",
        """
        {P} lives in {v}.
        In {v}.""",
    ),
    _relation(
        "firm",
        """
        {P} works for {v}.
        {P} got a job at {v}.""",
        """
        Where does {p} work?
        Who does {p} work for?""",
        """
        {P} works for {v}.""",
    ),
    _relation(
        "pet",
        """
        {P} has a puppy called {v}.
        {P} bought a pony. It is called {v}.
        I look after {v} today, the hamster of {p}.""",
        """
        What is {p}'s pet called?
        Which name did {p} give the animal?""",
        """
        It is called {v}.
        {P}'s pet is called {v}.""",
    ),
    _relation(
        "food",
        """
        {P} loves {v}.
        When {p} comes, we always make {v}.""",
        """
        What does {p} like to eat?
        What do we cook when {p} comes?""",
        """
        {P} loves {v}.""",
    ),
    _relation(
        "age",
        """
        {P} is {v} years old.
        {P} celebrated the birthday with the number {v}.""",
        """
        How old is {p}?
        What is {p}'s age?""",
        """
        {P} is {v} years old.""",
    ),
    _relation(
        "phone",
        """
        You can call {p} at {v}.
        {P}'s new number is {v}.""",
        """
        What is {p}'s number?
        How can I call {p}?""",
        """
        {P}'s number is {v}.
        You can call {p} at {v}.""",
    ),
    _relation(
        "date",
        """
        {P} arrives on {v}.
        On {v} {p} comes to see us.""",
        """
        When does {p} arrive?
        When does {p} come to see us?""",
        """
        {P} arrives on {v}.
        On {v}.""",
    ),
    _relation(
        "name",
        """
        {P}'s husband is called {v}.
        {P} is together with {v}.
        {P} came with {v}, they are a couple.""",
        """
        Who is {p} together with?
        What is {p}'s partner called?""",
        """
        {P} is together with {v}.""",
    ),
    _relation(
        "hobby",
        """
        {P} has a strange hobby: {v}.
        {P} likes {v}.""",
        """
        What is {p}'s hobby?
        What does {p} like to do?""",
        """
        {P} likes {v}.
        It is {v}.""",
    ),
    _relation(
        "colour",
        """
        {P} always wears a {v} coat.
        {P}'s bike is {v}.""",
        """
        Which colour does {p} have?
        What colour belongs to {p}?""",
        """
        {P}'s is {v}.""",
    ),
)
PERSONS = (
    "my uncle", "my aunt", "my cousin", "my nephew", "my colleague", "my landlord", "my best friend",
    "my grandmother", "my tennis partner", "our new neighbour", "Anna", "Boris", "Carla", "Elena", "Felix",
    "Greta", "Jonas", "Lukas", "Maria", "Olga", "Peter", "Rosa", "Simon", "Tara", "Walter", "Zoe",
)  # fmt: skip
RECEIPTS = (
    "Good to know.",
    "Thank you for telling me.",
    "I will keep that in mind.",
    "That is nice to hear.",
    "Okay.",
    "I see!",
)


def saying(rng: random.Random, values: Values) -> Saying:
    """A random fact about the user or about somebody else."""
    mine = rng.random() < 0.6
    relation = rng.choice(MINE if mine else THEIRS)
    return Saying(relation, "" if mine else rng.choice(PERSONS), values.draw(relation.kind))
