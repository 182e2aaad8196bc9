"""Where the training tokens of a Qwen3 or of a distillation come from: the [data] table of a training config.

    [data]
    kind = "recall"               # key-value pairs between filler; needs no tokenizer
    length = 256                  # tokens of a sequence
    batch = 16                    # sequences of a batch
    symbols = 48                  # of each sort: keys, values, filler
    keys = [4, 32]                # how many keys a sequence has, drawn anew for each
    filler = [0.0, 0.5]           # how much of it is filler
    noise = 0.1                   # share of values that are wrong; 0 by default

    kind = "dialogues"            # the bundled model's dialogues, in the checkpoint's own tokens
    facts = [4, 16]
    filler = [0.3, 0.9]

    kind = "text"                 # any UTF-8 text, in the checkpoint's own tokens
    files = ["texts/*.txt"]

With every token comes a distance: how far back lies what it is predicted from. A recalled value is as far as
the place where it was last seen; of text nothing is known but that a token may depend on all before it.
"""

from __future__ import annotations

import glob
import random
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AutoTokenizer

from allmem_edge.dialogues import Generator

from .dialogue_task import DialogueEncoder
from .task import ConfigError


class Stream(Protocol):
    """A source of sequences."""

    vocab_size: int  # ids are below it

    def sample(self, rng: random.Random, length: int) -> tuple[list[int], list[int]]:
        """`length` ids, and how far before its predecessor lies what each depends on (0: nothing)."""


class RecallStream:
    """Pairs (key, value), a key's value the same all through a sequence but for the noise, between filler."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._symbols = int(settings["symbols"])
        self._keys: tuple[int, int] = tuple(settings["keys"])
        self._filler: tuple[float, float] = tuple(settings["filler"])
        self._noise = float(settings.get("noise", 0.0))
        if not 1 <= self._keys[0] <= self._keys[1] <= self._symbols:
            raise ConfigError(
                f"[data] keys = {list(self._keys)} must be ascending and lie between 1 and "
                f"symbols = {self._symbols}."
            )
        self.vocab_size = 3 * self._symbols

    def sample(self, rng: random.Random, length: int) -> tuple[list[int], list[int]]:
        symbols = self._symbols
        keys = rng.sample(range(symbols), rng.randint(*self._keys))
        value = {key: symbols + rng.randrange(symbols) for key in keys}
        filler = rng.uniform(*self._filler)
        ids: list[int] = []
        distance: list[int] = []
        told: dict[int, int] = {}  # key -> where its value was last seen
        while len(ids) < length:
            if rng.random() < filler:
                ids.append(2 * symbols + rng.randrange(symbols))
                distance.append(0)
            else:
                key = rng.choice(keys)
                distance += [0, len(ids) - told[key] if key in told else 0]
                wrong = rng.random() < self._noise
                ids += [key, symbols + rng.randrange(symbols) if wrong else value[key]]
                told[key] = len(ids) - 1
        return ids[:length], distance[:length]


class DialogueStream:
    """The generated dialogues that the bundled model learns from."""

    def __init__(self, settings: dict[str, Any], tokenizer: Any) -> None:
        self._encoder = DialogueEncoder(tokenizer)
        self._facts: tuple[int, int] = tuple(settings["facts"])
        self._filler: tuple[float, float] = tuple(settings["filler"])
        self.vocab_size = len(tokenizer)

    def sample(self, rng: random.Random, length: int) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        while len(ids) < length:
            facts = rng.randint(*self._facts)
            turns = facts + length // 24
            ids += self._encoder.encode(
                Generator(rng.getrandbits(48)).dialogue(turns, facts, rng.uniform(*self._filler))
            ).ids
        return ids[:length], list(range(length))


class TextStream:
    """Random stretches of text files."""

    def __init__(self, settings: dict[str, Any], tokenizer: Any) -> None:
        paths = sorted(path for pattern in settings["files"] for path in glob.glob(pattern, recursive=True))
        if not paths:
            raise ConfigError(f"[data] files = {settings['files']} matches no file.")
        self._ids: list[int] = []
        for path in paths:
            try:
                text = Path(path).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path} cannot be read as UTF-8 text: {error}.") from error
            self._ids += tokenizer(text, add_special_tokens=False)["input_ids"]
        self.vocab_size = len(tokenizer)

    def sample(self, rng: random.Random, length: int) -> tuple[list[int], list[int]]:
        if len(self._ids) < length:
            raise ConfigError(f"The text files hold {len(self._ids)} tokens; a sequence needs {length}.")
        start = rng.randint(0, len(self._ids) - length)
        return self._ids[start : start + length], list(range(length))


def make_stream(settings: dict[str, Any], checkpoint: Path | None) -> Stream:
    """The stream of a [data] table; `checkpoint` holds the tokenizer that text needs. Raises ConfigError."""
    kind = settings.get("kind")
    try:
        if kind == "recall":
            return RecallStream(settings)
        if kind in ("dialogues", "text"):
            if checkpoint is None or not (checkpoint / "tokenizer.json").is_file():
                raise ConfigError(
                    f'[data] kind = "{kind}" needs a checkpoint with a tokenizer.json; {checkpoint} has none.'
                )
            tokenizer = AutoTokenizer.from_pretrained(checkpoint)
            return (
                DialogueStream(settings, tokenizer)
                if kind == "dialogues"
                else TextStream(settings, tokenizer)
            )
    except KeyError as error:
        raise ConfigError(f'[data] of kind "{kind}" lacks {error}.') from error
    raise ConfigError(f'[data] kind must be "recall", "dialogues" or "text", not {kind!r}.')


def make_batch(stream: Stream, seed: int | str, sequences: int, length: int) -> dict[str, Tensor]:
    """input_ids and distance, both [sequences, length]: a function of the arguments alone."""
    rng = random.Random(seed)
    ids, distance = zip(*(stream.sample(rng, length) for _ in range(sequences)), strict=True)
    return {"input_ids": torch.tensor(ids), "distance": torch.tensor(distance)}
