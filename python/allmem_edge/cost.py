"""What a token costs by the shapes of a model, in operations and bytes: the bound that `bench` gives.

A multiply and an add are two operations. Bytes are those that cannot stay in a cache from one token to the
next: weights, keys and values, the memory's state. Norms, gates and RoPE are left out; they are below a
percent. docs/performance.md has the formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GRADIENT_BLOCK = 32  # tokens that the runtime learns in one pass over the gradient
Q8_BYTES = 1 + 4 / 64  # of an 8-bit number with its share of a float32 scale


@dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    dim: int  # of a head
    vocabulary: int
    window: int
    sinks: int
    chunk: int
    memory: int  # hidden size of a memory network
    linear: bool = False  # the memory is a matrix per KV head, written with every token
    memory_layers: int | None = None  # layers that have a memory; None: all
    maps: bool = False  # linear maps on q and k per head, in front of the memory

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Shape | None:
        """The sizes that config.json tells; None if it lacks some."""
        names = {
            "layers": "num_hidden_layers",
            "hidden": "hidden_size",
            "mlp": "intermediate_size",
            "heads": "num_attention_heads",
            "kv_heads": "num_key_value_heads",
            "dim": "head_dim",
            "vocabulary": "vocab_size",
            "window": "window",
            "sinks": "sinks",
            "chunk": "chunk",
            "memory": "memory_ratio",
        }
        values = {name: config.get(key) for name, key in names.items()}
        if values["dim"] is None and type(values["hidden"]) is int and values["heads"]:
            values["dim"] = values["hidden"] // values["heads"]
        if not all(type(value) is int and value >= 0 for value in values.values()):
            return None
        shape: dict[str, int] = {name: int(value or 0) for name, value in values.items()}
        shape["memory"] *= shape["dim"]
        layers = config.get("memory_layers")
        return cls(
            **shape,
            linear=config.get("memory") == "linear",
            memory_layers=len(layers) if isinstance(layers, list) else None,
            maps=config.get("memory_maps") is True,
        )


@dataclass(frozen=True)
class Work:
    """Operations on 8-bit and on float32 numbers, and bytes moved."""

    integer: float = 0.0
    floating: float = 0.0
    bytes: float = 0.0

    @property
    def operations(self) -> float:
        return self.integer + self.floating

    def __add__(self, other: Work) -> Work:
        return Work(self.integer + other.integer, self.floating + other.floating, self.bytes + other.bytes)


@dataclass(frozen=True)
class Machine:
    """How much a machine does in a second at best: bytes read, operations on 8-bit and on float32 numbers.

    Where activations have 8 bits, what is left in float32 is the memory's learning: that is then measured.
    """

    read_bytes: float
    integer: float
    floating: float

    def bound(self, work: Work) -> tuple[float, str]:
        """The seconds that `work` takes at least, and what takes them: "bandwidth" or "arithmetic"."""
        moving = work.bytes / self.read_bytes
        computing = work.integer / self.integer + work.floating / self.floating
        return max((moving, "bandwidth"), (computing, "arithmetic"))


@dataclass(frozen=True)
class Cost:
    """The work of a model in this runtime.

    weight_bytes: of all its weights. exact: computed in float32 throughout; else in 8 bits, but for learning.
    full_attention: the same model with attention over all its context instead of window and memory.
    memory_use: whether the memory is read and written ("on"), read alone ("frozen") or left out ("off").
    """

    shape: Shape
    weight_bytes: int
    exact: bool
    full_attention: bool = False
    memory_use: str = "on"  # or "frozen", or "off"

    def prefill(self, tokens: int, depth: int = 0) -> Work:
        """A prompt of `tokens` after `depth` others, in one go, with the logits of the last.

        Weights and what the window or the memory holds are counted once, as the least that must be touched.
        """
        return (
            self.layers(tokens)
            + self.logits()
            + self.attention(tokens, depth, together=True)
            + self.memory(tokens, depth, together=True)
        )

    def decode(self, depth: int) -> Work:
        """One token after `depth` others, with its logits, and its share of learning and of the updates."""
        return (
            self.layers(1)
            + self.logits()
            + self.attention(1, depth, together=False)
            + self.memory(1, depth, together=False)
        )

    def layers(self, tokens: int) -> Work:
        """The projections of the mixers and the MLPs, and all weights once, the vocabulary included."""
        s = self.shape
        weights = s.layers * s.hidden * (2 * s.heads * s.dim + 2 * s.kv_heads * s.dim + 3 * s.mlp)
        return self._work(2 * tokens * weights, self.weight_bytes)

    def logits(self) -> Work:
        """The vocabulary for one token; layers() counts its bytes."""
        return self._work(2 * self.shape.vocabulary * self.shape.hidden, 0)

    def attention(self, tokens: int, depth: int, *, together: bool) -> Work:
        """Scores and weighted sums. `together`: in blocks, so that each key is read once for all tokens."""
        s = self.shape
        limit = depth + tokens if self.full_attention else s.window + s.sinks
        # Token t sees min(t + 1, limit) keys, itself among them.
        growing = min(max(limit - depth, 0), tokens)
        seen = growing * depth + growing * (growing + 1) // 2 + (tokens - growing) * limit
        read = min(depth + tokens, limit + tokens - 1) if together else seen
        # A key and a value; in 8 bits, a value has one scale for all its channels.
        row = s.kv_heads * (8 * s.dim if self.exact else s.dim * Q8_BYTES + s.dim + 4)
        return self._work(4 * s.layers * s.heads * s.dim * seen, s.layers * row * read)

    def memory(self, tokens: int, depth: int, *, together: bool) -> Work:
        """Reading for every query head, learning for every KV head, the update at the end of each chunk."""
        s = self.shape
        if self.full_attention or self.memory_use == "off":
            return Work()
        if s.linear:
            return self._linear_memory(tokens, together=together)
        weights = 3 * s.memory * s.dim  # of one memory
        layers = s.layers if s.memory_layers is None else s.memory_layers
        memories = layers * s.kv_heads
        writes = (depth + tokens) // s.chunk - depth // s.chunk if together else tokens / s.chunk
        trips = 1 if together else tokens  # for reading
        gradients = 1 if together else tokens / GRADIENT_BLOCK
        width = 4 if self.exact else Q8_BYTES
        read = self._work(2 * tokens * layers * s.heads * weights, trips * memories * weights * width)
        if s.maps:  # whose bytes are among the weights
            read += self._work(2 * tokens * layers * (s.heads + s.kv_heads) * s.dim * s.dim, 0)
        if self.memory_use == "frozen":
            return read
        # Forward through three matrices, back through one, outer products of three: W read, G changed. In 8
        # bits W is W_0, in float32, and its difference.
        learn = Work(
            floating=2 * tokens * memories * (2 * weights + weights // 3),
            bytes=gradients * (3 * 4 if self.exact else 4 + 3 * Q8_BYTES) * memories * weights,
        )
        # S = β S + G, W = r W - S, G = 0, and the norms of rows: W, S and G changed; in float32 W is read
        # again, in 8 bits it is at hand, and the copy for reading is made of it.
        update = Work(
            floating=writes * 6 * memories * weights,
            bytes=writes * (7 * 4 if self.exact else 4 + 7 * Q8_BYTES) * memories * weights,
        )
        return read + learn + update

    def _linear_memory(self, tokens: int, *, together: bool) -> Work:
        """S q̃ for every query head; for every KV head S k̃ and S = β S + e k̃ᵀ. In float32 throughout."""
        s = self.shape
        layers = s.layers if s.memory_layers is None else s.memory_layers
        matrix, trips = s.dim * s.dim, 1 if together else tokens
        read = Work(
            floating=2 * tokens * layers * s.heads * matrix, bytes=trips * layers * s.kv_heads * matrix * 4
        )
        if s.maps:
            read += self._work(2 * tokens * layers * (s.heads + s.kv_heads) * matrix, 0)
        if self.memory_use == "frozen":
            return read
        write = Work(
            floating=5 * tokens * layers * s.kv_heads * matrix,
            bytes=trips * layers * s.kv_heads * matrix * 4,
        )
        return read + write

    def _work(self, operations: float, count: float) -> Work:
        if self.exact:
            return Work(floating=operations, bytes=count)
        return Work(integer=operations, bytes=count)


def share_of_full_attention(cost: Cost, tokens: int) -> dict[str, float]:
    """What `tokens` of context cost, to what they cost with attention over all of it in the same runtime.

    "token": the one after them. "prefill": all of them as one prompt. "decode": all of them one at a time.
    """
    full = Cost(cost.shape, cost.weight_bytes, cost.exact, full_attention=True)
    token, full_token = cost.decode(tokens), full.decode(tokens)
    return {
        "token_operations": token.operations / full_token.operations,
        "token_bytes": token.bytes / full_token.bytes,
        "prefill_operations": cost.prefill(tokens).operations / full.prefill(tokens).operations,
        "decode_bytes": _decode_bytes(cost, tokens) / _decode_bytes(full, tokens),
    }


def _decode_bytes(cost: Cost, tokens: int) -> float:
    mixers = cost.attention(tokens, 0, together=False) + cost.memory(tokens, 0, together=False)
    return mixers.bytes + tokens * cost.weight_bytes
