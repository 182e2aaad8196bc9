"""The attributes a user can tell about: their nouns, value kinds and own phrasings.

An attribute's own phrasings add to the common ones of phrases.py and have the same slots.
"""

from __future__ import annotations

from dataclasses import dataclass

from allmem_edge.dialogues.phrases import CODE_ASKS


@dataclass(frozen=True)
class Attribute:
    """One thing a user can have: a key, the noun for it, the kind of its values and its own phrasings."""

    key: str
    noun: str
    kind: str
    tells: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    acks: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    own_share: float = 0.4  # how often one of its own phrasings is used, where it has any

    @property
    def is_code(self) -> bool:
        return self.noun.endswith("code")


def _person(key: str) -> Attribute:
    return Attribute(
        key,
        f"{key}'s name",
        "name",
        (
            f"My {key} is called {{v}}.",
            f"The name of my {key} is {{v}}.",
            f"{{v}} is the name of my {key}.",
            f"I have a {key}. The name is {{v}}.",
        ),
        (
            f"What is the name of my {key}?",
            f"What is my {key} called?",
            f"Who is my {key}?",
            f"How is my {key} called?",
        ),
        (f"Okay, your {key} is called {{v}}.",),
        (f"Your {key} is called {{v}}.",),
    )


def _pet(key: str) -> Attribute:
    return Attribute(
        key,
        f"{key}'s name",
        "pet",
        (
            f"My {key} is called {{v}}.",
            f"I have a {key} called {{v}}.",
            f"I have a {key}. It is called {{v}}.",
            f"We have a {key} named {{v}}.",
            f"The name of my {key} is {{v}}.",
        ),
        (f"What is my {key} called?", f"What is the name of my {key}?", f"How is my {key} called?"),
        (f"Okay, your {key} is called {{v}}.",),
        (f"Your {key} is called {{v}}.",),
    )


def _code(key: str, thing: str) -> Attribute:
    return Attribute(
        f"{key}_code",
        f"{key} code",
        "code",
        (
            f"The code for my {thing} is {{v}}.",
            f"The {key} code is {{v}}.",
            f"The code of my {thing} is {{v}}.",
            f"Can you remember that my {key} code is {{v}}?",
            f"{key} code: {{v}}",
        ),
        (
            f"What is the code for my {thing}?",
            f"What is the {key} code?",
            f"I need the {key} code.",
            f"Which code opens my {thing}?",
            f"{key} code?",
        ),
    )


_NAME = Attribute(
    "name",
    "name",
    "name",
    (
        "I am {v}.",
        "I'm {v}.",
        "Hi, I am {v}.",
        "Hi, my name is {v}.",
        "Hello, my name is {v}.",
        "Hello, I'm {v}.",
        "Hey, I am {v}.",
        "Hi! I'm {v}. Nice to meet you.",
        "Call me {v}.",
        "You can call me {v}.",
        "People call me {v}.",
        "I am called {v}.",
        "The name is {v}.",
        "It's me, {v}.",
    ),
    (
        "Who am I?",
        "Who am I?",
        "Do you know who I am?",
        "What am I called?",
        "Do you remember who I am?",
        "Do you still know my name?",
        "Hey, what is my name?",
        "So, what is my name?",
        "Say my name.",
    ),
    ("Nice to meet you, {v}!", "Nice to meet you, {v}!", "Hello, {v}!", "Hi {v}, good to meet you."),
    ("You are {v}.", "Of course. Your name is {v}."),
    0.65,
)

ATTRIBUTES: tuple[Attribute, ...] = (
    _NAME,
    *(
        _person(who)
        for who in ("sister", "brother", "mother", "father", "son", "daughter", "wife", "husband")
    ),
    *(_person(who) for who in ("friend", "teacher", "boss", "dentist", "neighbour", "doctor")),
    *(_pet(animal) for animal in ("dog", "cat", "horse", "rabbit")),
    _code("door", "door"),
    _code("locker", "locker"),
    _code("bike", "bike"),
    _code("safe", "safe"),
    _code("gate", "gate"),
    _code("alarm", "alarm"),
    _code("phone", "phone"),
    Attribute(
        "code",
        "code",
        "code",
        (
            "The code is {v}.",
            "Remember this code: {v}.",
            "Please remember the code {v}.",
            "Here is the code: {v}.",
        ),
        CODE_ASKS,
        ("Okay, the code is {v}.", "I will remember the code {v}."),
        ("The code is {v}.",),
        0.7,
    ),
    Attribute("pin", "pin", "code", ("The pin of my card is {v}.",), ("What is the pin of my card?",)),
    Attribute(
        "wifi", "wifi password", "mixed", ("The wifi password is {v}.",), ("What is the wifi password?",)
    ),
    Attribute("password", "password", "word", ("The password is {v}.",), ("What is the password?",)),
    Attribute(
        "code_word", "secret word", "word", ("The secret word is {v}.",), ("What is the secret word?",)
    ),
    Attribute("phone", "phone number", "phone", ("You can call me at {v}.",), ("What number do I have?",)),
    Attribute(
        "colour",
        "favourite colour",
        "colour",
        ("The colour I like best is {v}.",),
        ("Which colour do I like best?",),
        (),
        ("You like {v} best.",),
    ),
    Attribute(
        "food",
        "favourite food",
        "food",
        ("The food I like best is {v}.", "I love to eat {v}."),
        ("Which food do I like best?", "What do I love to eat?"),
        (),
        ("You love to eat {v}.",),
    ),
    Attribute(
        "drink",
        "favourite drink",
        "drink",
        ("The drink I like best is {v}.", "I love to drink {v}."),
        ("Which drink do I like best?", "What do I love to drink?"),
        (),
        ("You love to drink {v}.",),
    ),
    Attribute(
        "number",
        "favourite number",
        "number",
        ("The number I like best is {v}.",),
        ("Which number do I like best?",),
    ),
    Attribute(
        "lucky",
        "lucky number",
        "number",
        ("The number {v} brings me luck.",),
        ("Which number brings me luck?",),
    ),
    Attribute(
        "town",
        "home town",
        "place",
        (
            "I live in {v}.",
            "I'm from {v}.",
            "I come from {v}.",
            "My home is in {v}.",
            "I live in a town called {v}.",
        ),
        ("Where do I live?", "Where am I from?", "Which town do I live in?", "Do you know where I live?"),
        ("Okay, you live in {v}.",),
        ("You live in {v}.",),
        0.6,
    ),
    Attribute(
        "street",
        "street",
        "street",
        ("I live on {v}.",),
        ("Which street do I live on?",),
        (),
        ("You live on {v}.",),
    ),
    Attribute(
        "work",
        "workplace",
        "firm",
        ("I work at {v}.", "I have a job at {v}."),
        ("Where do I work?", "Do you know where I work?"),
        ("Okay, you work at {v}.",),
        ("You work at {v}.",),
        0.6,
    ),
    Attribute(
        "school",
        "school town",
        "place",
        ("I went to school in {v}.",),
        ("Where did I go to school?",),
        (),
        ("You went to school in {v}.",),
    ),
    Attribute(
        "holiday",
        "holiday place",
        "place",
        ("I will go on holiday to {v}.", "My next holiday is in {v}."),
        ("Where will I go on holiday?", "Where is my next holiday?"),
        (),
        ("You will go on holiday to {v}.",),
    ),
    Attribute(
        "birthday",
        "birthday",
        "date",
        ("I was born on {v}.", "My birthday is on {v}."),
        ("When is my birthday?", "When was I born?"),
        ("Okay, your birthday is on {v}.",),
        ("Your birthday is on {v}.",),
    ),
    Attribute(
        "party",
        "party date",
        "date",
        ("My party is on {v}.",),
        ("When is my party?",),
        (),
        ("Your party is on {v}.",),
    ),
    Attribute(
        "age",
        "age",
        "age",
        ("I am {v} years old.", "I'm {v} years old."),
        ("How old am I?", "Do you know how old I am?"),
        ("Okay, you are {v} years old.",),
        ("You are {v} years old.",),
        0.7,
    ),
    Attribute(
        "meeting",
        "meeting time",
        "time",
        ("My meeting is at {v}.", "I have a meeting at {v}."),
        ("When is my meeting?", "What time is my meeting?"),
        ("Okay, your meeting is at {v}.",),
        ("Your meeting is at {v}.",),
    ),
    Attribute(
        "train",
        "train time",
        "time",
        ("My train leaves at {v}.", "I take the train at {v}."),
        ("When does my train leave?", "What time is my train?"),
        ("Okay, your train leaves at {v}.",),
        ("Your train leaves at {v}.",),
    ),
    Attribute(
        "alarm",
        "alarm time",
        "time",
        ("I get up at {v}.",),
        ("When do I get up?",),
        (),
        ("You get up at {v}.",),
    ),
    Attribute("shoe", "shoe size", "size", ("I wear shoes in size {v}.",), ("What size are my shoes?",)),
    Attribute(
        "car",
        "car colour",
        "colour",
        ("My car is {v}.", "I drive a {v} car."),
        ("What colour is my car?", "Which colour does my car have?"),
        ("Okay, your car is {v}.",),
        ("Your car is {v}.",),
    ),
    Attribute(
        "bag",
        "bag colour",
        "colour",
        ("My bag is {v}.", "I have a {v} bag."),
        ("What colour is my bag?",),
        ("Okay, your bag is {v}.",),
        ("Your bag is {v}.",),
    ),
    Attribute(
        "hat",
        "hat colour",
        "colour",
        ("My hat is {v}.",),
        ("What colour is my hat?",),
        (),
        ("Your hat is {v}.",),
    ),
    Attribute(
        "hobby",
        "hobby",
        "hobby",
        ("In my free time I like {v}.",),
        ("What do I like in my free time?", "Which hobby do I have?"),
        (),
        ("In your free time you like {v}.",),
    ),
    Attribute(
        "instrument",
        "instrument",
        "instrument",
        ("I play {v}.",),
        ("Which instrument do I play?", "What do I play?"),
        ("Okay, you play {v}.",),
        ("You play {v}.",),
    ),
    Attribute(
        "shopping",
        "shopping list",
        "list",
        ("I need to buy {v}.", "I have to buy {v}.", "Put {v} on my shopping list."),
        ("What do I need to buy?", "What is on my shopping list?", "What do I have to buy?"),
        ("Okay, you need to buy {v}.",),
        ("You need to buy {v}.",),
    ),
    Attribute(
        "packing",
        "packing list",
        "list",
        ("I must pack {v}.",),
        ("What must I pack?", "What is on my packing list?"),
        (),
        ("You must pack {v}.",),
    ),
    Attribute(
        "room",
        "hotel room",
        "room",
        ("I am in room {v}.", "My room number is {v}."),
        ("Which room am I in?", "What is my room number?"),
        (),
        ("You are in room {v}.",),
    ),
    Attribute(
        "bus",
        "bus number",
        "number",
        ("I take bus {v}.",),
        ("Which bus do I take?",),
        (),
        ("You take bus {v}.",),
    ),
    Attribute(
        "flight",
        "flight",
        "flight",
        ("My flight number is {v}.",),
        ("What is my flight number?", "Which flight do I take?"),
    ),
    Attribute(
        "gate",
        "flight gate",
        "spot",
        ("My flight leaves from gate {v}.",),
        ("Which gate does my flight leave from?",),
    ),
    Attribute("seat", "seat", "seat", ("I sit in seat {v}.",), ("Where do I sit?", "Which seat do I have?")),
    Attribute(
        "parking",
        "parking spot",
        "spot",
        ("My car is parked at {v}.", "I parked at {v}."),
        ("Where did I park?", "Where is my car parked?"),
        (),
        ("You parked at {v}.",),
    ),
    Attribute(
        "team", "favourite team", "team", ("The team I like best is {v}.",), ("Which team do I like best?",)
    ),
    Attribute(
        "language",
        "first language",
        "language",
        ("At home I speak {v}.",),
        ("What do I speak at home?",),
        (),
        ("At home you speak {v}.",),
    ),
    Attribute(
        "order",
        "order number",
        "mixed",
        ("The number of my order is {v}.",),
        ("What is the number of my order?",),
    ),
)
