"""Random values of facts (names, codes, places ...), split for ever into training and held-out ones.

The split is a hash of the value itself, so that no list has to be kept and any process agrees on it.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence


def words(text: str) -> tuple[str, ...]:
    """The words of a list that is written as one text."""
    return tuple(text.split())


_ONSETS = words(
    "b br c ch cl d dr f fl fr g gl gr h j k kh kr l m n p pl pr qu r s sch sh sk sl sn st t th tr v w y z zh"
)
_LIGHT_ONSETS = words("b c d f g h j k l m n p r s t v w z")
_VOWELS = words("a a a e e e i i o o u ai ea ei ia ie oo ou y")
_CODAS = ["", "", "", "", "n", "r", "l", "s", "m", "t", "k", "d", "th", "x", "nd", "rt", "ck", "sh"]
_PLACE_ENDS = words(
    "ford dale ton wick ham burg field mouth port stead wood bridge haven berg ville bury holm stein"
)
FIRST_NAMES = words("""
Aaron Abby Adam Ahmed Aisha Alan Albert Alex Alice Alina Amir Amy Ana Andrea Andrew Angela Anika Anna Anne
Anton Arthur Astrid Ava Beatrice Ben Bella Boris Brian Bruno Carla Carlos Caroline Cecilia Charles Charlie
Chen Chloe Chris Clara Claire Colin Daniel David Daisy Diana Diego Dora Edward Elena Eli Elias Ella Emil
Emily Emma Eric Esther Eva Fatima Felix Finn Fiona Florian Frank Frida George Georgia Gina Grace Greta
Gustav Hannah Hans Harry Hassan Heidi Helen Henry Hugo Ian Ida Ines Ingrid Irene Isaac Ivan Ivy Jack Jacob
James Jan Jane Jasmin Javier Jenny Jim Joe John Jonas Jose Julia Julian Karen Karl Kate Katja Kevin Kim
Klara Lara Laura Lea Lena Leo Lily Linda Lisa Liam Louis Lucas Lucy Luis Luna Maja Marco Maria Marie Mark
Marta Martin Mary Mateo Max Maya Mei Mia Michael Mila Mina Mohamed Monica Nadia Nathan Nick Nina Noah Nora
Olga Oliver Olivia Omar Oscar Otto Pablo Paul Paula Peter Petra Philip Pia Priya Rahul Ravi Rita Robert Rosa
Ruth Ryan Sam Samir Sandra Sara Sarah Sasha Selma Simon Sofia Sonja Sophie Stefan Stella Steve Susan Sven
Tara Theo Thomas Tim Tina Tobias Tom Tony Uma Vera Victor Viktor Walter Wendy Will Yara Yusuf Yuki Zara Zoe
""")
_TONES = words("pale deep dark bright light soft warm cool dull faded dusty rich")
_COLOURS = words("green blue red yellow pink grey brown white black orange purple gold silver violet")
_TASTES = words("spicy cold hot sweet sour fresh fried baked creamy salty plain smoky roasted green")
_FOODS = words(
    "soup rice pasta pizza fish bread cake beans noodles salad potatoes chicken pie eggs curry "
    "cheese stew tofu"
)
_FLAVOURS = words("lemon ginger apple mint cherry honey peach lime berry mango orange rose vanilla plum")
_DRINKS = words("tea juice water soda milk coffee cider punch shake lemonade")
_ACTIONS = words("painting drawing collecting making building fixing carving photographing reading watching")
_ACTION_STYLES = words("old small wooden paper tiny wild foreign silver huge funny")
_ACTION_THINGS = words(
    "birds boats clocks maps trains houses stones books lamps toys stamps plates trees kites"
)
_INSTRUMENTS = words("guitar violin piano flute drum trumpet harp cello banjo horn organ fiddle lute oboe")
_ITEMS = words("""
eggs rice pears milk bread butter apples onions carrots tea coffee sugar salt flour soap candles cheese
grapes plums beans corn honey jam nuts oil pepper potatoes tomatoes yoghurt ham paper pens tape glue nails
rope string matches batteries socks towels plates cups spoons lemons limes bananas cherries berries garlic
leeks peas pasta noodles fish chicken juice water cake biscuits
""")
_MONTHS = words("January February March April May June July August September October November December")
_ANIMALS = words(
    "Lions Tigers Bears Eagles Wolves Foxes Hawks Sharks Bulls Rovers Stars Rockets Giants Kings"
)
_FIRMS = words("Bank School Hospital Bakery Library Museum Hotel Farm Garage Cinema Market Airport")
_ROADS = words("Street Road Lane Avenue Square Way")
_LANGUAGES = words(
    "French German Spanish Italian Polish Greek Turkish Arabic Hindi Swedish Danish Dutch "
    "Russian Chinese Japanese"
)
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"


def is_held_out(value: str) -> bool:
    """Whether a value belongs to the fifth of all values that training never draws; case does not matter."""
    return zlib.crc32(value.casefold().encode()) % 5 == 0


class Values:
    """Draws values of one side of the split from a shared random generator."""

    def __init__(self, rng: random.Random, *, held_out: bool) -> None:
        self._rng = rng
        self._held_out = held_out
        self._makers: dict[str, Callable[[], str]] = {
            "name": self._name,
            "pet": self._pet,
            "place": self._place,
            "colour": self._colour,
            "code": self._code,
            "mixed": self._mixed,
            "number": self._number,
            "age": self._age,
            "size": self._size,
            "room": self._room,
            "date": self._date,
            "time": self._time,
            "food": self._food,
            "drink": self._drink,
            "hobby": self._hobby,
            "instrument": self._instrument,
            "list": self._list,
            "word": self._word,
            "flight": self._flight,
            "spot": self._spot,
            "seat": self._seat,
            "street": self._street,
            "firm": self._firm,
            "team": self._team,
            "language": self._language,
            "phone": self._phone,
        }

    def draw(self, kind: str) -> str:
        """A random value of `kind` that lies on this generator's side of the split."""
        make = self._makers[kind]
        while True:
            value = make()
            if is_held_out(value) == self._held_out:
                return value

    def _syllables(self, count: int, onsets: Sequence[str]) -> str:
        pick = self._rng.choice
        return "".join(pick(onsets) + pick(_VOWELS) for _ in range(count))

    def _digits(self, count: int) -> str:
        return "".join(self._rng.choice("0123456789") for _ in range(count))

    def _made_up_name(self) -> str:
        onsets = _LIGHT_ONSETS if self._rng.random() < 0.6 else _ONSETS
        return (self._syllables(self._rng.randint(1, 3), onsets) + self._rng.choice(_CODAS)).capitalize()

    def _name(self) -> str:
        draw = self._rng.random()
        if draw < 0.4:
            return self._rng.choice(FIRST_NAMES)
        if draw < 0.46:
            return f"{self._rng.choice(FIRST_NAMES)} {self._made_up_name()}"
        name = self._made_up_name()
        return name if len(name) > 2 else name + self._rng.choice("nlrs")

    def _pet(self) -> str:
        if self._rng.random() < 0.15:
            return self._rng.choice(FIRST_NAMES)
        name = self._made_up_name()
        return name if len(name) > 2 else name + "ko"

    def _place(self) -> str:
        stem = self._syllables(self._rng.randint(1, 2), _LIGHT_ONSETS) + self._rng.choice(("", "n", "r", "l"))
        return (stem + self._rng.choice(_PLACE_ENDS)).capitalize()

    def _colour(self) -> str:
        return f"{self._rng.choice(_TONES)} {self._rng.choice(_COLOURS)}"

    def _code(self) -> str:
        return self._digits(self._rng.choices((3, 4, 5, 6, 7, 8), (2, 7, 2, 3, 1, 1))[0])

    def _mixed(self) -> str:
        letters = "".join(self._rng.choice(_LETTERS) for _ in range(self._rng.randint(1, 3)))
        return letters + self._digits(self._rng.randint(2, 3))

    def _number(self) -> str:
        return str(self._rng.randint(2, 99) if self._rng.random() < 0.7 else self._rng.randint(100, 999))

    def _age(self) -> str:
        return str(self._rng.randint(5, 99))

    def _size(self) -> str:
        return str(self._rng.randint(28, 50))

    def _room(self) -> str:
        return str(self._rng.randint(101, 999))

    def _date(self) -> str:
        return f"{self._rng.randint(1, 28)} {self._rng.choice(_MONTHS)}"

    def _time(self) -> str:
        return f"{self._rng.randint(1, 23)}:{self._rng.randint(0, 11) * 5:02d}"

    def _food(self) -> str:
        return f"{self._rng.choice(_TASTES)} {self._rng.choice(_FOODS)}"

    def _drink(self) -> str:
        return f"{self._rng.choice(_FLAVOURS)} {self._rng.choice(_DRINKS)}"

    def _hobby(self) -> str:
        pick = self._rng.choice
        style = pick(_ACTION_STYLES) + " " if self._rng.random() < 0.5 else ""
        return f"{pick(_ACTIONS)} {style}{pick(_ACTION_THINGS)}"

    def _instrument(self) -> str:
        return f"a {self._rng.choice(_TONES)} {self._rng.choice(_INSTRUMENTS)}"

    def _list(self) -> str:
        items = self._rng.sample(_ITEMS, self._rng.choice((2, 3, 3)))
        return ", ".join(items[:-1]) + " and " + items[-1]

    def _word(self) -> str:
        return self._syllables(self._rng.randint(2, 3), _LIGHT_ONSETS) + self._rng.choice(_CODAS)

    def _flight(self) -> str:
        return "".join(self._rng.choice(_LETTERS) for _ in range(2)) + self._digits(3)

    def _spot(self) -> str:
        return f"{self._rng.choice(_LETTERS)}{self._rng.randint(1, 60)}"

    def _seat(self) -> str:
        return f"{self._rng.randint(1, 60)}{self._rng.choice('ABCDEF')}"

    def _street(self) -> str:
        name = self._made_up_name() if self._rng.random() < 0.6 else self._place()
        return f"{name} {self._rng.choice(_ROADS)}"

    def _firm(self) -> str:
        return f"{self._place()} {self._rng.choice(_FIRMS)}"

    def _team(self) -> str:
        return f"{self._place()} {self._rng.choice(_ANIMALS)}"

    def _language(self) -> str:
        if self._rng.random() < 0.4:
            return self._rng.choice(_LANGUAGES)
        return (
            self._syllables(2, _LIGHT_ONSETS) + self._rng.choice(("nish", "nese", "nian", "ric"))
        ).capitalize()

    def _phone(self) -> str:
        return f"{self._digits(3)} {self._digits(3)}"
