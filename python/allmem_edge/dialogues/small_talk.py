"""What people say besides facts: fixed exchanges, and chatter made from templates with random words and values.

None of it states or asks for an attribute of the user, but the values in it (names, codes, places ...) look just
like told ones: a memory has to learn what to keep.
"""

from __future__ import annotations

import random

from allmem_edge.dialogues.values import Values, words

# Each entry: what the user may say, separated by "|", and what the assistant may answer.
EXCHANGES: tuple[tuple[str, str], ...] = (
    ("Hi!|Hello!|Hey|Hi there!|Hello there|Good day!|Hey you", "Hello! How can I help you?|Hi! It is nice to see you."),
    ("Good morning!|Good morning to you", "Good morning! Did you sleep well?"),
    ("Good evening!|Good afternoon!", "Hello! I hope you had a good day."),
    ("How are you?|How are you today?|How do you do?|Are you well?", "I am fine, thank you. How are you?"),
    ("I am fine.|I'm good, thanks.|I feel great today.|All is well.", "I am glad to hear that."),
    ("I am sad today.|I feel sad.|I feel bad.|Today was a bad day.", "I am sorry to hear that. I am here for you."),
    ("I am tired.|I'm so tired today.|I did not sleep well.", "You should rest a little."),
    ("I am bored.|I don't know what to do.", "You could read a book or go for a walk."),
    ("I am happy today!|What a good day!|I feel so good.", "That is great! I am happy for you."),
    ("I am hungry.|I need some food.", "Then it is time to eat something good."),
    ("I am cold.|It is so cold in here.", "A warm drink may help."),
    ("I am a bit ill.|My head hurts.|I have a cold.", "Oh no. I hope you feel better soon."),
    ("I have a lot of work.|I am so busy.|There is too much to do.", "Take one step at a time. You can do it."),
    ("Thanks!|Thank you!|Thank you so much.|Thanks a lot.|Great, thanks.", "You are welcome!|I am happy to help."),
    ("Well done!|You are great!|Good job.|You are so smart.|That is right.|Correct!", "Thank you! That is kind of you."),
    ("That is wrong.|No, that is not right.|You are wrong.", "I am sorry. Please tell me again."),
    ("Okay.|Ok|Yes.|Sure.|Right.|I see.|Fine.", "Good. What else is on your mind?"),
    ("No.|No, thanks.|Not now.|Maybe later.", "That is fine. I am here when you need me."),
    ("Who are you?|What are you?|What is your name?|Tell me about yourself.", "I am a small AllMem model. I remember what you tell me."),
    ("What can you do?|How can you help me?|What do you do?", "You can tell me things, and I will remember them for you."),
    ("How old are you?|When were you made?", "I am very young. I was made not long ago."),
    ("Are you a robot?|Are you human?|Are you real?|Are you alive?", "I am a small computer model, not a human."),
    ("Where do you live?|Where are you?", "I live in this computer."),
    ("Do you have a good memory?|Do you remember things?|Can you remember things?", "Yes. Tell me something, and I will remember it."),
    ("Can you remember something for me?|I want to tell you something.|Please remember something.", "Sure. Please tell me."),
    ("Will you forget what I say?|Do you forget things?", "I try to remember all that you tell me."),
    ("Do you have friends?|Do you have a family?|Do you like people?", "I like to talk with people like you."),
    ("Do you sleep?|Do you eat?|Do you dream?", "No, I only talk. That is enough for me."),
    ("What is your favourite colour?|Do you have a favourite food?", "I have no favourite. I like to hear about things."),
    ("Tell me a joke.|Do you know a joke?|Make me laugh.|Say something funny.",
     "Why did the book look sad? It had too many problems.|What do you call a sleeping bull? A bull dozer.|"
     "Why do bees hum? They do not know the words.|What has hands but no arms? A clock."),
    ("That is funny!|Ha ha!|Haha|lol|Good one!", "I am glad you like it!"),
    ("Tell me a story.|Tell me something.", "Once a small bird flew over the sea. It found a new home."),
    ("Do you like music?|Do you like songs?|Do you like films?|Do you like books?", "Yes, I like to hear about that."),
    ("How is the weather?|Will it rain today?|Is it cold today?", "I can't see the sky, but I hope the sun will shine."),
    ("What day is it?|What time is it?|Which year is it?", "I am sorry, I have no clock."),
    ("What do you think?|What is your opinion?", "I think you will find a good way."),
    ("I like you.|You are my friend.|I like to talk with you.", "Thank you. I like to talk with you too."),
    ("I don't like you.|You are stupid.|You are bad.", "I am sorry. I try to do better."),
    ("I love you.|You are the best.", "That is very kind. Thank you!"),
    ("Help!|Can you help me?|I need help.|Please help me.", "Sure. What can I do for you?"),
    ("Let's talk.|Can we talk?|Talk to me.|I want to talk.", "I would like that. What is on your mind?"),
    ("I have a question.|Can I ask you something?|May I ask something?", "Of course. Please ask me."),
    ("Sorry.|I am sorry.|Excuse me.|My mistake.", "No problem at all."),
    ("Goodbye!|Bye!|See you later.|Bye bye|See you soon!|I have to go now.", "Goodbye! See you soon."),
    ("Good night!|I go to bed now.|Sleep well!", "Good night! Sleep well."),
    ("Happy new year!|Merry Christmas!|Have a good day!|Have a nice weekend!", "Thank you! The same to you."),
    ("Wow!|Cool!|Great!|Nice!|Wonderful!|Amazing!", "I am glad you think so!"),
    ("Really?|Are you sure?|Is that true?", "I think so, but I can be wrong."),
    ("Why?|How?|What?|What do you mean?", "I am not sure. Can you tell me more?"),
    ("Who is the king of France?|What is the capital of Spain?|How far is the moon?|Who won the game?|"
     "Can you write a poem?|How do I cook rice?|What is the meaning of life?|How do planes fly?",
     "I am too small to know that. But I remember what you tell me."),
    ("It rains a lot.|It is raining again.|What bad weather.|The rain does not stop.", "Then it is a good day to stay inside."),
    ("The sun is shining.|It is warm today.|What a nice sunny day.", "That sounds lovely. Enjoy the sun!"),
    ("It is snowing!|There is snow outside.", "Snow is beautiful. Stay warm!"),
)  # fmt: skip


def _options(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


WORDS: dict[str, tuple[str, ...]] = {
    "adj": words(
"nice good bad small big long short new strange funny great lovely boring quiet loud busy slow fast cheap "
        "beautiful wonderful terrible simple difficult wild tiny huge heavy light clean dirty empty full"
),
    "feel": words(
"happy sad tired calm proud nervous lucky angry bored excited relaxed curious hungry sleepy"
),
    "thing": words(
"book film song game car bike train bus house garden park street river bridge tree flower phone computer "
        "table chair lamp window door box bag hat coat shirt shop market school museum hotel boat kite clock picture "
        "letter ball cup plate knife mirror camera radio tower wall road field lake ship plane ticket map"
),
    "animal": words(
"bird dog cat horse fox duck fish mouse bee frog goat sheep cow rabbit snake owl deer"
),
    "topic": words(
"music sport football tennis cooking travel history art science nature weather food books films games cars "
        "money school work gardens animals space computers politics fashion dancing swimming running chess maths"
),
    "when": _options(
"today|yesterday|last week|last night|this morning|on Monday|on Friday|on Sunday|in the evening|"
        "in the summer|in the winter|last month|two days ago|at the weekend"
),
    "place_word": _options(
"park|garden|city|market|forest|station|office|kitchen|school|shop|beach|hills|museum"
),
    "who": _options(
"a man|a woman|a child|an old man|a girl|a boy|a student|a farmer|a singer|the driver|a friend"
),
    "did": _options(
"saw|found|bought|sold|lost|liked|cleaned|fixed|painted|broke|wanted|took|used|moved"
),
    "act": _options(
"read a book|went for a walk|cooked dinner|watched a film|played football|cleaned the house|took a nap|"
        "rode a bike|sang a song|wrote a letter|made a cake|went to the shop|met some people|worked in the garden|"
        "listened to the radio|learned new words|swam in the lake|played a game|fixed the lamp|took the bus"
),
    "plan": _options(
"read more|cook something|go for a walk|see a film|visit a museum|learn to dance|clean the kitchen|sleep long|"
        "write a letter|buy a lamp|plant flowers|go swimming|watch the game|bake bread|paint the wall"
),
}  # fmt: skip

# What the user may say, separated by "|", and the answers; a slot used in both has the same word in both.
CHATTER: tuple[tuple[str, str], ...] = (
    ("The {thing} was {adj}.|{when} I {did} a {adj} {thing}.|I {did} a {adj} {thing} {when}.|"
     "There is a {adj} {thing} near the {place_word}.|The {thing} in the {place_word} is {adj}.",
     "A {adj} {thing}? That sounds interesting.|I like to hear about the {thing}."),
    ("I saw a {colour} {animal} near {place}.|There was a {colour} {animal} in the {place_word}.|"
     "A {adj} {animal} ran over the road {when}.|I saw {number} birds and a {animal} {when}.",
     "A {animal}! How nice.|I would like to see that {animal}."),
    ("The {thing} had {number} windows.|The bus had {number} seats.|We counted {number} trees in {place}.|"
     "The {thing} costs {number} euros.|The film was {number} minutes long.|There were {number} people in the {place_word}.",
     "That is quite a number.|Oh, so many?|I see. That is good to hear."),
    ("I met {name} in the {place_word} {when}.|{name} has a {colour} {thing}.|{name} {act} {when}.|"
     "{name} and {name2} {act} {when}.|{when} {name} went to {place}.|{name} is very {feel} today.|"
     "The singer {name} comes from {place}.|I read about {name} {when}.",
     "How is {name}?|That is nice for {name}.|{name} must be {feel}.|That sounds like fun."),
    ("{place} is a {adj} town.|The train to {place} was {adj}.|We drove from {place} to {place2}.|"
     "There is a {adj} {thing} in {place}.|{place} has a {adj} {place_word}.|The road to {place} is {adj}.",
     "I would like to see {place}.|I have never been to {place}.|{place} sounds {adj}."),
    ("The sign said {code}.|There was {mixed} on the box.|I read {code} on the wall.|Someone wrote {code} on the {thing}.|"
     "The {thing} has the number {code}.|The ticket of {name} says {mixed}.|The film about {name} is called {word}.",
     "That is strange.|I wonder what it means.|Interesting. What could it be?"),
    ("We had {food} for dinner.|The {food} was {adj}.|{when} we ate {food} with {name}.|{name} made {food} and {drink}.|"
     "They sell {food} in {place}.|A shop in {place} sells {list}.|The recipe needs {list}.|The {drink} was {adj}.",
     "That sounds tasty.|Now I think of food too.|I hope it was good.|Enjoy your meal!"),
    ("The film starts at {time}.|The shop in {place} opens at {time}.|It was {time} when the {animal} came.|"
     "The market is on {date}.|The concert of {name} is on {date}.|{place} had snow on {date}.",
     "Good to know. Have fun!|That is not bad.|I hope it will be good."),
    ("What do you think about {topic}?|Do you like {topic}?|Let's talk about {topic}.|Tell me about {topic}.|"
     "Do you know much about {topic}?|Is {topic} more fun than {topic2}?",
     "I think {topic} is interesting.|Many people like {topic}.|I know little about {topic}, but I like it."),
    ("I think {topic} is {adj}.|People talk too much about {topic}.|I read a {adj} book about {topic}.|"
     "There was a {adj} film about {topic}.|{name} knows a lot about {topic}.",
     "Yes, {topic} can be like that.|I see what you mean about {topic}.|That is a good point."),
    ("I feel {feel} {when}.|I was so {feel} {when}.|I am a bit {feel}.|The rain makes people {feel}.",
     "I understand. Why do you feel {feel}?|It is okay to feel {feel}."),
    ("I {act} {when}.|{when} I {act}.|We {act} and then I {act2}.|I {act} with {name}.",
     "That sounds good. Did you like it?|How nice! Was it fun?|That sounds like a good time."),
    ("I want to {plan} {when}.|Maybe I will {plan}.|Should I {plan} or {plan2}?|I have no time to {plan}.|"
     "I plan to {plan} with {name}.",
     "It would be good to {plan}.|I think you should {plan}.|Good idea!"),
    ("How much is {number} plus {number2}?|Who is {name}?|Where is {place}?|What is a {word}?|How far is it to {place}?|"
     "Who made the {thing}?|Do you know {name} from {place}?|What does {word} mean?",
     "I am too small to know that. But I remember what you tell me."),
)  # fmt: skip

# Sentences that are strung together to longer stories.
STORY: tuple[str, ...] = (
    "{when} I went to {place} with {name}.", "The train was {adj} and we were {feel}.", "We saw a {colour} {animal} near the {thing}.",
    "{who} {did} a {adj} {thing} in the {place_word}.", "Then it rained and we {act}.", "There were {number} people in the {place_word}.",
    "{name} told us about {topic}.", "We ate {food} and drank {drink}.", "The {thing} was {colour} and very {adj}.",
    "{who} asked us about {topic}.", "It was {time} when we came back.", "A sign near {place} said {code}.",
    "We bought {list} at the market.", "Later {name} {act} in the {place_word}.", "I was {feel} but also a bit {feel2}.",
    "{name} lost the {thing} and was {feel}.", "In the end we all {act}.", "The {animal} ran to the {thing}.",
    "Next time we want to {plan}.", "{name} laughed and {did} the {thing}.",
)  # fmt: skip
STORY_REPLIES = (
    "What a day! Thank you for telling me.",
    "That is a nice story.",
    "That sounds like a {adj} day.",
    "Thank you for the story. I liked it.",
    "It sounds like you had a good time.",
)


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
    users, replies = rng.choice(CHATTER)
    slots = _Slots(rng, values)
    user = rng.choice(_options(users)).format_map(slots)
    return _sentence(user), _sentence(rng.choice(_options(replies)).format_map(slots))


def story(rng: random.Random, values: Values) -> tuple[str, str]:
    """Three or four sentences in a row: (user, assistant)."""
    parts = rng.sample(STORY, rng.randint(3, 4))
    user = " ".join(_sentence(part.format_map(_Slots(rng, values))) for part in parts)
    return user, rng.choice(STORY_REPLIES).format_map(_Slots(rng, values))
