"""Random texts and bytes for tokenizers: many scripts, white space, special tokens, invalid UTF-8."""

from __future__ import annotations

import random
from collections.abc import Iterator

SAMPLE = (
    "the cat's we'll I'M they'RE don't hello Hello world naïve été Straße ΣΊΣΥΦΟΣ привет мир 你好 世界 今日は"
    " カタカナ 안녕 مرحبا שלום नमस्ते ไทย 😀 👩\u200d👩\u200d👧 🏳\ufe0f\u200d🌈 x=1; foo_bar() 123 2024 ½ ②"
    " Ⅷ e\u0301 a\u0327\u0301 \ufb01 \u212b '\u017f \u212a"
)
WORDS = SAMPLE.split(" ")
SPACES = [
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\xa0",
    "\u3000",
    "\u180e",
    "\u200b",
    "\u2028",
    "\x85",
    "\n\n  ",
    " \r",
]
SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<think>",
    "<|im",
]
BLOCKS = [
    (0x00, 0x7F), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0x97F),
    (0xE00, 0xE7F), (0x1100, 0x11FF), (0x2000, 0x206F), (0x2100, 0x218F), (0x3040, 0x30FF),
    (0x4E00, 0x4FFF), (0xAC00, 0xAD00), (0xF900, 0xFAFF), (0xFE00, 0xFE0F), (0x1D100, 0x1D1FF),
    (0x1F300, 0x1F64F), (0x20000, 0x200FF),
]  # fmt: skip


def random_text(rng: random.Random) -> str:
    parts: list[str] = []
    for _ in range(rng.randint(1, 7)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(WORDS))
        elif kind < 0.55:
            parts.append(rng.choice(SPACES) * rng.choice((1, 1, 2, 5)))
        elif kind < 0.65:
            parts.append(rng.choice(SPECIALS))
        elif kind < 0.7:
            parts.append(str(rng.randrange(10 ** rng.randint(1, 12))))
        elif kind < 0.72:
            parts.append(rng.choice("a!1 \n😀\u0301") * rng.randint(1, 100))
        else:
            low, high = rng.choice(BLOCKS)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 4))))
    return "".join(parts)


def random_bytes(rng: random.Random) -> bytes:
    """Text with bytes put in, taken out or changed: mostly invalid UTF-8."""
    data = bytearray(random_text(rng).encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        data[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
    return bytes(data)


def batches(count: int, size: int = 1000) -> Iterator[list[bytes]]:
    rng = random.Random(20)
    for _ in range(count // size):
        yield [random_bytes(rng) if rng.random() < 0.2 else random_text(rng).encode() for _ in range(size)]
