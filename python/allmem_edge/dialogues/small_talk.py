"""What people say besides facts: fixed exchanges, and chatter from templates with random words and values.

None of it states or asks for an attribute of the user, but the values in it (names, codes, places ...) look
just like told ones: a memory has to learn what to keep.
"""

from __future__ import annotations

import random

from allmem_edge.dialogues.exchanges import EXCHANGES
from allmem_edge.dialogues.values import Values, words


def _options(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


WORDS: dict[str, tuple[str, ...]] = {
    "adj": words(
        "nice good bad small big long short new strange funny great lovely boring quiet loud busy "
        "slow fast cheap beautiful wonderful terrible simple difficult wild tiny huge heavy light "
        "clean dirty full"
    ),
    "feel": words(
        "happy sad tired calm proud nervous lucky angry bored excited relaxed curious hungry sleepy"
    ),
    "thing": words(
        "book film song game car bike train bus house garden park street river bridge tree flower "
        "phone computer table chair lamp window door box bag hat coat shirt shop market school "
        "museum hotel boat kite clock picture letter ball cup plate knife mirror camera radio tower "
        "wall road field lake ship plane ticket map"
    ),
    "animal": words("bird dog cat horse fox duck fish mouse bee frog goat sheep cow rabbit snake wolf deer"),
    "topic": words(
        "music sport football tennis cooking travel history art science nature weather food "
        "theatre fishing sailing money school work fashion space singing television dancing "
        "swimming running chess reading writing baking"
    ),
    "when": _options(
        "today|yesterday|last week|last night|this morning|on Monday|on Friday|on Sunday|in the evening|"
        "in the summer|in the winter|last month|two days ago|at the weekend"
    ),
    "place_word": _options(
        "park|garden|city|market|forest|station|office|kitchen|school|shop|village|museum"
    ),
    "who": _options(
        "a man|a woman|a child|an old man|a girl|a boy|a student|a farmer|a singer|the driver|a friend"
    ),
    "did": _options("saw|found|bought|sold|lost|liked|cleaned|fixed|painted|broke|wanted|took|used|moved"),
    "act": _options(
        "read a book|went for a walk|cooked dinner|watched a film|played football|cleaned the house|"
        "took a nap|rode a bike|sang a song|wrote a letter|made a cake|went to the shop|"
        "met some people|worked in the garden|listened to the radio|learned new words|"
        "swam in the lake|played a game|fixed the lamp|took the bus"
    ),
    "plan": _options(
        "read more|cook something|go for a walk|see a film|visit a museum|learn to dance|"
        "clean the kitchen|sleep long|write a letter|buy a lamp|plant flowers|go swimming|"
        "watch the game|bake bread|paint the wall"
    ),
}

# What the user may say, separated by "|", and the answers; a slot used in both has the same word in both.
CHATTER: tuple[tuple[str, str], ...] = (
    (
        (
            "The {thing} was {adj}.|{when} I {did} a {adj} {thing}.|I {did} a {adj} {thing} {when}.|"
            "There is a {adj} {thing} near the {place_word}.|The {thing} in the {place_word} is {adj}."
        ),
        "A {adj} {thing}? That sounds interesting.|I like to hear about the {thing}.",
    ),
    (
        (
            "I saw a {colour} {animal} near {place}.|There was a {colour} {animal} in the {place_word}.|"
            "A {adj} {animal} ran over the road {when}.|I saw {number} birds and a {animal} {when}."
        ),
        "A {animal}! How nice.|I would like to see that {animal}.",
    ),
    (
        (
            "The {thing} had {number} windows.|The bus had {number} seats.|"
            "We counted {number} trees in {place}.|The {thing} costs {number} euros.|"
            "The film was {number} minutes long.|There were {number} people in the {place_word}."
        ),
        "That is quite a number.|Oh, so many?|I see. That is good to hear.",
    ),
    (
        (
            "I met {name} in the {place_word} {when}.|{name} has a {colour} {thing}.|"
            "{name} {act} {when}.|{name} and {name2} {act} {when}.|{when} {name} went to {place}.|"
            "{name} is very {feel} today.|The singer {name} comes from {place}.|"
            "I read about {name} {when}."
        ),
        "How is {name}?|That is nice for {name}.|{name} must be {feel}.|That sounds like fun.",
    ),
    (
        (
            "{place} is a {adj} town.|The train to {place} was {adj}.|We drove from {place} to {place2}.|"
            "There is a {adj} {thing} in {place}.|{place} has a {adj} {place_word}.|"
            "The road to {place} is {adj}."
        ),
        "I would like to see {place}.|I have never been to {place}.|{place} sounds {adj}.",
    ),
    (
        (
            "The sign said {code}.|There was {mixed} on the box.|I read {code} on the wall.|"
            "Someone wrote {code} on the {thing}.|The {thing} has the number {code}.|"
            "The ticket of {name} says {mixed}.|The film about {name} is called {word}."
        ),
        "That is strange.|I wonder what it means.|Interesting. What could it be?",
    ),
    (
        (
            "We had {food} for dinner.|The {food} was {adj}.|{when} we ate {food} with {name}.|"
            "{name} made {food} and {drink}.|They sell {food} in {place}.|"
            "A shop in {place} sells {list}.|The recipe needs {list}.|The {drink} was {adj}."
        ),
        "That sounds tasty.|Now I think of food too.|I hope it was good.|Enjoy your meal!",
    ),
    (
        (
            "The film starts at {time}.|The shop in {place} opens at {time}.|"
            "It was {time} when the {animal} came.|The market is on {date}.|"
            "The concert of {name} is on {date}.|{place} had snow on {date}."
        ),
        "Good to know. Have fun!|That is not bad.|I hope it will be good.",
    ),
    (
        (
            "What do you think about {topic}?|Do you like {topic}?|Let's talk about {topic}.|"
            "Tell me about {topic}.|Do you know much about {topic}?|Is {topic} more fun than {topic2}?"
        ),
        (
            "I think {topic} is interesting.|Many people like {topic}.|"
            "I know little about {topic}, but I like it."
        ),
    ),
    (
        (
            "I think {topic} is {adj}.|People talk too much about {topic}.|"
            "I read a {adj} book about {topic}.|There was a {adj} film about {topic}.|"
            "{name} knows a lot about {topic}."
        ),
        "Yes, {topic} can be like that.|I see what you mean about {topic}.|That is a good point.",
    ),
    (
        (
            "I feel {feel} today.|I was so {feel} {when}.|{name} made me {feel} {when}.|"
            "I am a bit {feel}.|The rain makes people {feel}."
        ),
        "I understand. Why do you feel {feel}?|It is okay to feel {feel}.",
    ),
    (
        "I {act} {when}.|{when} I {act}.|We {act} and then I {act2}.|I {act} with {name}.",
        "That sounds good. Did you like it?|How nice! Was it fun?|That sounds like a good time.",
    ),
    (
        (
            "Tomorrow I want to {plan}.|Maybe I will {plan}.|Should I {plan} or {plan2}?|"
            "I have no time to {plan}.|I plan to {plan} with {name}."
        ),
        "It would be good to {plan}.|I think you should {plan}.|Good idea!",
    ),
    (
        (
            "How much is {number} plus {number2}?|Who is {name}?|Where is {place}?|What is a {word}?|"
            "How far is it to {place}?|Who made the {thing}?|Do you know {name} from {place}?|"
            "What does {word} mean?"
        ),
        "I am too small to know that. But I remember what you tell me.",
    ),
)

# Sentences that are strung together to longer stories.
STORY: tuple[str, ...] = (
    "{when} I went to {place} with {name}.",
    "The train was {adj} and we were {feel}.",
    "We saw a {colour} {animal} near the {thing}.",
    "{who} {did} a {adj} {thing} in the {place_word}.",
    "Then it rained and we {act}.",
    "There were {number} people in the {place_word}.",
    "{name} told us about {topic}.",
    "We ate {food} and drank {drink}.",
    "The {thing} was {colour} and {adj}.",
    "{who} asked us about {topic}.",
    "It was {time} when we came back.",
    "A sign near {place} said {code}.",
    "We bought {list} at the market.",
    "Later {name} {act} in the {place_word}.",
    "I was {feel} but also a bit {feel2}.",
    "{name} lost the {thing} and was {feel}.",
    "In the end we all {act}.",
    "The {animal} ran to the {thing}.",
    "Next time we want to {plan}.",
    "{name} laughed and {did} the {thing}.",
)
STORY_REPLIES = (
    "What a day! Thank you for telling me.",
    "That is a nice story.",
    "That sounds like a {adj} day.",
    "Thank you for the story. I liked it.",
    "It sounds like you had a good time.",
)


# Every remark comes equally often.
_CHATTER_WEIGHTS = [len(_options(users)) for users, _ in CHATTER]


class _Slots(dict[str, str]):
    """Fills a slot when it is first named and keeps it, so that an answer can speak of the user's words."""

    def __init__(self, rng: random.Random, values: Values) -> None:
        super().__init__()
        self._rng = rng
        self._values = values

    def __missing__(self, slot: str) -> str:
        kind = slot.rstrip("2")
        word = self._rng.choice(WORDS[kind]) if kind in WORDS else self._values.draw(kind)
        self[slot] = word
        return word


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def exchange(rng: random.Random) -> tuple[str, str]:
    """One of the fixed exchanges: (user, assistant)."""
    users, replies = rng.choice(EXCHANGES)
    return rng.choice(_options(users)), rng.choice(_options(replies))


def chatter(rng: random.Random, values: Values) -> tuple[str, str]:
    """A remark or question with random words and values: (user, assistant)."""
    users, replies = rng.choices(CHATTER, _CHATTER_WEIGHTS)[0]
    slots = _Slots(rng, values)
    user = rng.choice(_options(users)).format_map(slots)
    return _sentence(user), _sentence(rng.choice(_options(replies)).format_map(slots))


def story(rng: random.Random, values: Values) -> tuple[str, str]:
    """Three or four sentences in a row: (user, assistant)."""
    parts = rng.sample(STORY, rng.randint(3, 4))
    user = " ".join(_sentence(part.format_map(_Slots(rng, values))) for part in parts)
    return user, rng.choice(STORY_REPLIES).format_map(_Slots(rng, values))
