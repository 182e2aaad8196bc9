"""A layer's long-term memory, of either kind: its parameters and what drives it (docs/model.md)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration import AllMemConfig
from .fused import chunked_memory
from .linear_memory import chunked_linear_memory
from .memory import FastWeights, l2_normalize


class LongTermMemory(nn.Module):
    """What both kinds share: how queries and keys are prepared, the projections to η and β, the gate.

    A kind has parameters of its own (add_weights), says what η is (rates), and reads and writes (remember).
    """

    def __init__(self, config: AllMemConfig) -> None:
        super().__init__()
        heads, kv_heads, dim = config.num_attention_heads, config.kv_heads, config.head_dim
        self.config = config
        self.add_weights()
        self.query_scale = nn.Parameter(torch.empty(heads, dim))
        self.query_bias = nn.Parameter(torch.empty(heads, dim))
        self.key_scale = nn.Parameter(torch.empty(kv_heads, dim))
        self.key_bias = nn.Parameter(torch.empty(kv_heads, dim))
        self.eta_proj = nn.Linear(config.hidden_size, kv_heads)
        self.beta_proj = nn.Linear(config.hidden_size, kv_heads)
        self.alpha = nn.Parameter(torch.empty(heads * dim))
        if config.memory_maps:
            self.query_map = nn.Parameter(torch.empty(heads, dim, dim))
            self.key_map = nn.Parameter(torch.empty(kv_heads, dim, dim))
        if config.gate == "dynamic":
            self.gate_proj = nn.Linear(config.hidden_size, heads)
        self.reset_parameters()

    def add_weights(self) -> None:
        """Adds the parameters that only this kind has, in front of the others."""

    def initial_eta_bias(self) -> float:
        """The bias of η's projection for which η is the config's eta_init."""
        raise NotImplementedError

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """η, β and α start at the config's values for any input, maps as the identity."""
        config = self.config
        for scale in (self.query_scale, self.key_scale):
            nn.init.ones_(scale)
        for bias in (self.query_bias, self.key_bias):
            nn.init.zeros_(bias)
        for proj in (self.eta_proj, self.beta_proj):
            nn.init.zeros_(proj.weight)
        nn.init.constant_(self.eta_proj.bias, self.initial_eta_bias())
        nn.init.constant_(self.beta_proj.bias, _logit(config.initial_beta))
        nn.init.constant_(self.alpha, config.gate_init)
        if config.memory_maps:
            for maps in (self.query_map, self.key_map):
                maps.copy_(torch.eye(config.head_dim).expand_as(maps))
        if config.gate == "dynamic":
            nn.init.zeros_(self.gate_proj.weight)
            nn.init.zeros_(self.gate_proj.bias)

    def query(self, q: Tensor) -> Tensor:
        """q̃ of q [..., n_heads, D]."""
        if self.config.memory_maps:
            q = map_heads(q, self.query_map)
        return l2_normalize(F.silu(self.query_scale * q + self.query_bias), self.config.memory_eps)

    def key(self, k: Tensor) -> Tensor:
        """k̃ of k [..., n_kv_heads, D]."""
        if self.config.memory_maps:
            k = map_heads(k, self.key_map)
        return l2_normalize(F.silu(self.key_scale * k + self.key_bias), self.config.memory_eps)

    def rates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """η, how much a token changes the memory, and β, how much of what was carries over.

        x [..., d] -> two of [..., n_kv_heads].
        """
        raise NotImplementedError

    def remember(self, q: Tensor, k: Tensor, v: Tensor, eta: Tensor, beta: Tensor) -> Tensor:
        """Reads and writes the memory over whole sequences, from its start.

        q̃ [B, K, group, T, D], k̃ and v [B, K, T, D], eta and beta [B, K, T] -> [B, K, group, T, D].
        """
        raise NotImplementedError

    def gated(self, read: Tensor, x: Tensor) -> Tensor:
        """Gate ⊙ read, normalised first if the config says so.

        read [..., n_heads, D], x [..., d] -> [..., n_heads · D].
        """
        if self.config.memory_norm:
            read = F.rms_norm(read, (read.shape[-1],), eps=self.config.memory_eps)
        if self.config.gate == "dynamic":
            read = read * (2 * torch.sigmoid(self.gate_proj(x))).unsqueeze(-1)
        return self.alpha * read.flatten(-2)


class MlpMemory(LongTermMemory):
    """AllMem's own: a network per KV head that is trained while it reads (memory.py)."""

    def add_weights(self) -> None:
        kv_heads, hidden, dim = self.config.kv_heads, self.config.memory_hidden, self.config.head_dim
        self.weight_gate = nn.Parameter(torch.empty(kv_heads, hidden, dim))
        self.weight_up = nn.Parameter(torch.empty(kv_heads, hidden, dim))
        self.weight_down = nn.Parameter(torch.empty(kv_heads, dim, hidden))

    def initial_eta_bias(self) -> float:
        return math.log(math.expm1(self.config.eta_init))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Also W_g, W_u ~ N(0, std²), W_d ~ N(0, 1/h)/2."""
        config = self.config
        std = config.head_dim**-0.5 if config.memory_init_std is None else config.memory_init_std
        nn.init.normal_(self.weight_gate, std=std)
        nn.init.normal_(self.weight_up, std=std)
        nn.init.normal_(self.weight_down, std=0.5 * config.memory_hidden**-0.5)
        super().reset_parameters()

    @property
    def initial_weights(self) -> FastWeights:
        """W_0, each matrix [K, ., .]."""
        return FastWeights(self.weight_gate, self.weight_up, self.weight_down)

    def rates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """η = softplus(·), the learning rate, and β = sigmoid(·), the momentum."""
        return F.softplus(self.eta_proj(x)), torch.sigmoid(self.beta_proj(x))

    def remember(self, q: Tensor, k: Tensor, v: Tensor, eta: Tensor, beta: Tensor) -> Tensor:
        return chunked_memory(self.initial_weights, q, k, v, eta, beta, self.config.chunk)


class LinearMemory(LongTermMemory):
    """A matrix per KV head that starts as zeros (linear_memory.py)."""

    def initial_eta_bias(self) -> float:
        return _logit(self.config.eta_init)

    def rates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """η = sigmoid(·), the write strength, and β = sigmoid(·), the decay."""
        return torch.sigmoid(self.eta_proj(x)), torch.sigmoid(self.beta_proj(x))

    def remember(self, q: Tensor, k: Tensor, v: Tensor, eta: Tensor, beta: Tensor) -> Tensor:
        return chunked_linear_memory(q, k, v, eta, beta, self.config.memory_delta)


def make_memory(config: AllMemConfig) -> LongTermMemory:
    """A layer's memory, of the kind that the config names."""
    return LinearMemory(config) if config.memory == "linear" else MlpMemory(config)


def map_heads(x: Tensor, maps: Tensor) -> Tensor:
    """A linear map for each head: x [..., heads, D], maps [heads, D, D] (out, in) -> [..., heads, D]."""
    tokens = x.flatten(0, -3).transpose(0, 1)  # [heads, N, D]: one product of all tokens for each head
    mapped: Tensor = (tokens @ maps.mT).transpose(0, 1).unflatten(0, x.shape[:-2])
    return mapped


def _logit(p: float) -> float:
    return math.log(p / (1 - p))
