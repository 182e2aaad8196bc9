"""AllMem's config: Qwen3's, plus every choice that the AllMem paper leaves open."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import Qwen3Config


@strict
class AllMemConfig(Qwen3Config):
    """Qwen3's config with the fields of the two memories (paper: arXiv 2602.13680, section 3).

    Args:
        window: tokens of the sliding-window attention, the current one included (W).
        sinks: first tokens of the stream that stay visible forever (S).
        chunk: tokens between two writes of the fast weights (C ≤ W: nothing leaves the window unlearned).
        memory_ratio: hidden size of a memory network, in head dimensions (h = ratio · head_dim).
        gate: "static", a learned α per channel, or "dynamic", α ⊙ sigmoid(W_α x).
        gate_init: initial α. 0 leaves a converted model unchanged; from scratch 0.1 works.
        eta_init: initial learning rate of the fast weights, before training makes it depend on the input.
        beta_init: initial momentum of the fast weights.
        memory_eps: ε of the memory's l2 norm (added to the sum of squares) and of its output's RMS norm.
    """

    model_type = "allmem"

    window: int = 4096
    sinks: int = 128
    chunk: int = 512
    memory_ratio: int = 2
    gate: str = "static"
    gate_init: float = 0.0
    eta_init: float = 0.1
    beta_init: float = 0.5
    memory_eps: float = 1e-6

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        # The mixer replaces every layer's attention.
        self.layer_types = ["full_attention"] * self.num_hidden_layers
        if self.window < 1 or self.sinks < 0 or not 1 <= self.chunk <= self.window:
            raise ValueError(
                f"AllMem needs window ≥ 1, sinks ≥ 0 and 1 ≤ chunk ≤ window; "
                f"got window={self.window}, sinks={self.sinks}, chunk={self.chunk}"
            )
        if self.memory_ratio < 1:
            raise ValueError(f"memory_ratio must be at least 1, got {self.memory_ratio}")
        if self.gate not in ("static", "dynamic"):
            raise ValueError(f'gate must be "static" or "dynamic", got {self.gate!r}')

    @property
    def kv_heads(self) -> int:
        """KV heads: num_key_value_heads, which is None only before the config is initialised."""
        assert self.num_key_value_heads is not None
        return self.num_key_value_heads

    @property
    def memory_hidden(self) -> int:
        """Hidden size h of a memory network."""
        return self.memory_ratio * int(self.head_dim)
