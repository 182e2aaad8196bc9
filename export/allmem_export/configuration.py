"""AllMem's config: the base model's, plus every choice that the AllMem paper leaves open."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import Qwen3Config

from .families import Family, family_of


@strict
class AllMemConfig(Qwen3Config):
    """The base model's config with the fields of the two memories (paper: arXiv 2602.13680, section 3).

    Args:
        base_type: the family of the base model (families.py).
        mlp_bias: biases in the MLP, which some Llama models have.
        window: tokens of the sliding-window attention, the current one included (W).
        sinks: first tokens of the stream that stay visible forever (S).
        chunk: tokens between two writes of the fast weights (C ≤ W: nothing leaves the window unlearned).
        memory: "mlp", AllMem's network that learns while it reads, or "linear", a matrix per KV head by the
            gated delta rule, for comparison. "linear" is written with every token: its chunk is 1, whatever
            is given, and memory_ratio and memory_init_std mean nothing to it.
        memory_delta: of a linear memory, whether a token first takes out what its key returned before.
        memory_ratio: hidden size of a memory network, in head dimensions (h = ratio · head_dim).
        memory_layers: ascending numbers of the layers that have a memory; None for all.
        memory_init_std: standard deviation of the initial W_g and W_u; None for 1/√head_dim.
        memory_maps: a learned linear map on q and k for each head, in front of scale and bias.
        memory_norm: RMS norm per head on what the memory returns.
        gate: "static", a learned α per channel, or "dynamic", α · 2·sigmoid(w x + b) with one
            factor for each query head.
        gate_init: initial α. 0 leaves a converted model unchanged; from scratch 0.1 works.
        eta_init: initial learning rate of the fast weights, before training makes it depend on the input; of
            a linear memory the write strength, below 1.
        beta_init: initial momentum of the fast weights; of a linear memory what it keeps from token to token.
            None for 0.5 and 0.999.
        memory_eps: ε of the memory's l2 norm (added to the sum of squares) and of its output's RMS norm.
    """

    model_type = "allmem"

    window: int = 4096
    sinks: int = 128
    chunk: int = 512
    base_type: str = "qwen3"
    mlp_bias: bool = False
    memory: str = "mlp"
    memory_delta: bool = True
    memory_layers: list[int] | None = None
    memory_ratio: int = 2
    memory_init_std: float | None = None
    memory_maps: bool = False
    memory_norm: bool = True
    gate: str = "static"
    gate_init: float = 0.0
    eta_init: float = 0.1
    beta_init: float | None = None
    memory_eps: float = 1e-6

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        # The mixer replaces every layer's attention.
        self.layer_types = ["full_attention"] * self.num_hidden_layers
        if self.memory not in ("mlp", "linear"):
            raise ValueError(f'memory must be "mlp" or "linear", got {self.memory!r}')
        if self.memory == "linear":
            self.chunk = 1
        if self.window < 1 or self.sinks < 0 or not 1 <= self.chunk <= self.window:
            raise ValueError(
                f"AllMem needs window ≥ 1, sinks ≥ 0 and 1 ≤ chunk ≤ window; "
                f"got window={self.window}, sinks={self.sinks}, chunk={self.chunk}"
            )
        if self.memory_ratio < 1:
            raise ValueError(f"memory_ratio must be at least 1, got {self.memory_ratio}")
        family_of(self.base_type)
        layers = self.memory_layers
        if layers is not None and (
            layers != sorted(set(layers)) or not all(0 <= i < self.num_hidden_layers for i in layers)
        ):
            raise ValueError(
                f"memory_layers must be ascending layer numbers below {self.num_hidden_layers}, got {layers}"
            )
        largest = 1.0 if self.memory == "linear" else float("inf")
        if not 0 < self.eta_init < largest or not 0 < self.initial_beta < 1:
            raise ValueError(
                f"eta_init must lie above 0 (and below 1 for a linear memory) and beta_init between 0 and 1; "
                f"got eta_init={self.eta_init}, beta_init={self.initial_beta}"
            )
        if self.gate not in ("static", "dynamic"):
            raise ValueError(f'gate must be "static" or "dynamic", got {self.gate!r}')

    @property
    def family(self) -> Family:
        """What differs between the base models."""
        return family_of(self.base_type)

    def has_memory(self, layer: int) -> bool:
        """Whether a layer has a memory beside its window."""
        return self.memory_layers is None or layer in self.memory_layers

    @property
    def initial_beta(self) -> float:
        """beta_init, or the default of the memory's kind."""
        if self.beta_init is not None:
            return self.beta_init
        return 0.999 if self.memory == "linear" else 0.5

    @property
    def kv_heads(self) -> int:
        """KV heads: num_key_value_heads, which is None only before the config is initialised."""
        assert self.num_key_value_heads is not None
        return self.num_key_value_heads

    @property
    def memory_hidden(self) -> int:
        """Hidden size h of a memory network."""
        return self.memory_ratio * int(self.head_dim)
