"""One decoder step over T tokens with explicit state: what the ONNX graph says, traced or run in PyTorch.

`StreamingDecoder` wraps a model and leaves attention and memory to a `MemoryOps`: `EagerOps` computes them
token by token (the reference for any split of a stream), `SymbolicOps` leaves an `allmem::` node in a trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import rope_angles, rotate
from .configuration import AllMemConfig
from .linear_memory import linear_memory_step
from .long_term_memory import LongTermMemory
from .memory import FastWeights, MemoryState, recurrent_memory_step, row_norms
from .modeling import AllMemForCausalLM, AllMemLayer, AllMemMixer

MATRICES = ("gate", "up", "down")
Token = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # q̃, k̃, v, η, β of one, with a first axis of 1
PER_HEAD = "thk,hnk->thn"  # Einsum's equation of a product with a matrix for each head


def layer_state_shapes(config: AllMemConfig, layer: int) -> dict[str, tuple[int, ...]]:
    """The shape of each piece of a layer's state, in the order of the operators' inputs."""
    kv_heads, dim, hidden = config.kv_heads, config.head_dim, config.memory_hidden
    shapes: dict[str, tuple[int, ...]] = {
        f"attention.{name}.state": (kv_heads, config.sinks + config.window, dim)
        for name in ("keys", "values")
    }
    if not config.has_memory(layer):
        return shapes
    if config.memory == "linear":
        return shapes | {"memory.weight.matrix.state": (kv_heads, dim, dim)}
    for kind in ("weight", "momentum", "gradient"):
        for matrix in MATRICES:
            rows, cols = (dim, hidden) if matrix == "down" else (hidden, dim)
            shapes[f"memory.{kind}.{matrix}.state"] = (kv_heads, rows, cols)
    shapes["memory.beta_sum.state"] = (kv_heads,)
    return shapes


def state_shapes(config: AllMemConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every piece of state by name (docs/format.md), in the order of the graph's inputs."""
    return {
        f"layers.{i}.{name}": shape
        for i in range(config.num_hidden_layers)
        for name, shape in layer_state_shapes(config, i).items()
    }


def initial_fast_weights(model: AllMemForCausalLM) -> dict[str, Tensor]:
    """The states that do not start as zeros: W_0 of every memory; none of a linear one."""
    if model.config.memory == "linear":
        return {}
    return {
        f"layers.{i}.memory.weight.{matrix}.state": getattr(memory, f"weight_{matrix}").detach()
        for i, memory in _memories(model)
        for matrix in MATRICES
    }


def _memories(model: AllMemForCausalLM) -> list[tuple[int, LongTermMemory]]:
    memories = ((i, layer.self_attn.memory) for i, layer in enumerate(model.model.layers))
    return [(i, memory) for i, memory in memories if memory is not None]


class MemoryOps(Protocol):
    """The operators that docs/format.md adds to ONNX, on its shapes."""

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, state: Sequence[Tensor], position: Tensor
    ) -> list[Tensor]:
        """q [T, H·D], k and v [T, K·D] and the two states -> y [T, H·D] and the next states."""
        ...

    def memory(self, inputs: Sequence[Tensor], state: Sequence[Tensor], position: Tensor) -> list[Tensor]:
        """The memory of the config's kind: q̃, k̃, v, η, β and states -> y [T, H·D] and the next states.

        AllMem's own has ten states, and behind β the three row norms of W_0; a linear one has one state.
        """
        ...

    def per_head(self, x: Tensor, matrices: Tensor) -> Tensor:
        """Multiplies each head by a matrix of its own: x [T, heads, D], matrices [heads, D, D] (out, in)."""
        ...


class SymbolicOps:
    """Leaves the operators in the trace as nodes of domain `allmem`."""

    def __init__(self, config: AllMemConfig, inv_freq: Tensor, rope_scale: float) -> None:
        heads = {
            "num_heads": config.num_attention_heads,
            "num_kv_heads": config.kv_heads,
            "head_dim": config.head_dim,
        }
        self.attention_attributes: dict[str, Any] = {
            **heads,
            "window": config.window,
            "sinks": config.sinks,
            "rope_inv_freq": inv_freq.tolist(),
            "rope_scale": float(rope_scale),
        }
        self.memory_attributes: dict[str, Any] = (
            {**heads, "delta": int(config.memory_delta)}
            if config.memory == "linear"
            else {**heads, "hidden": config.memory_hidden, "chunk": config.chunk}
        )
        self.is_linear = config.memory == "linear"

    def _emit(
        self, name: str, inputs: Sequence[Tensor], state: Sequence[Tensor], attributes: dict[str, Any]
    ) -> list[Tensor]:
        results = [inputs[0], *state]
        outputs = torch.onnx.ops.symbolic_multi_out(
            f"allmem::{name}",
            inputs,
            attributes,
            dtypes=[x.dtype for x in results],
            shapes=[x.shape for x in results],
            version=1,
        )
        return list(outputs)

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, state: Sequence[Tensor], position: Tensor
    ) -> list[Tensor]:
        inputs = [q, k, v, *state, position]
        return self._emit("SlidingWindowAttention", inputs, state, self.attention_attributes)

    def memory(self, inputs: Sequence[Tensor], state: Sequence[Tensor], position: Tensor) -> list[Tensor]:
        if self.is_linear:
            return self._emit("LinearMemory", [*inputs, *state], state, self.memory_attributes)
        return self._emit("TestTimeMemory", [*inputs, *state, position], state, self.memory_attributes)

    def per_head(self, x: Tensor, matrices: Tensor) -> Tensor:
        y: Tensor = torch.onnx.ops.symbolic(
            "Einsum", [x, matrices], {"equation": PER_HEAD}, dtype=x.dtype, shape=x.shape
        )
        return y


class EagerOps:
    """Computes the operators token by token, as the recurrences that define them."""

    def __init__(self, config: AllMemConfig, inv_freq: Tensor, rope_scale: float) -> None:
        self.config = config
        self.inv_freq = inv_freq
        self.rope_scale = rope_scale

    def _rotate(self, x: Tensor, position: int) -> Tensor:
        rotated: Tensor = rotate(x, *rope_angles(torch.tensor([position]), self.inv_freq, self.rope_scale))
        return rotated

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, state: Sequence[Tensor], position: Tensor
    ) -> list[Tensor]:
        config, dim = self.config, self.config.head_dim
        window, sinks, kv_heads = config.window, config.sinks, config.kv_heads
        keys, values = (x.clone() for x in state)
        outputs = []
        for i, t in enumerate(range(int(position), int(position) + len(q))):
            slot = t if t < sinks else sinks + (t - sinks) % window
            keys[:, slot] = self._rotate(k[i].view(kv_heads, dim), t)
            values[:, slot] = v[i].view(kv_heads, dim)
            query = q[i].view(kv_heads, -1, dim)
            near = (
                self._rotate(query, t) @ keys[:, sinks:].mT
            )  # a slot of the window holds nothing but the window
            far = self._rotate(query, min(t, sinks + window - 1)) @ keys[:, :sinks].mT
            scores = torch.cat((far, near), dim=-1) * dim**-0.5  # [K, group, S+W]
            scores[..., t + 1 :] = float("-inf")  # slots fill in order
            outputs.append((torch.softmax(scores, dim=-1) @ values).flatten())
        return [torch.stack(outputs), keys, values]

    def memory(self, inputs: Sequence[Tensor], state: Sequence[Tensor], position: Tensor) -> list[Tensor]:
        dim, kv_heads = self.config.head_dim, self.config.kv_heads
        q, k, v, eta, beta = inputs[:5]
        tokens = [
            (
                q[i].view(1, kv_heads, -1, dim),
                k[i].view(1, kv_heads, dim),
                v[i].view(1, kv_heads, dim),
                eta[i].unsqueeze(0),
                beta[i].unsqueeze(0),
            )
            for i in range(len(q))
        ]
        if self.config.memory == "linear":
            return self._linear_memory(tokens, state[0])
        return self._mlp_memory(tokens, inputs[5:], state, int(position))

    def _linear_memory(self, tokens: Sequence[Token], state: Tensor) -> list[Tensor]:
        matrix, outputs = state.unsqueeze(0), []
        for token in tokens:
            y, matrix = linear_memory_step(matrix, *token, self.config.memory_delta)
            outputs.append(y.flatten())
        return [torch.stack(outputs), matrix.squeeze(0)]

    def _mlp_memory(
        self,
        tokens: Sequence[Token],
        norms: Sequence[Tensor],
        state: Sequence[Tensor],
        position: int,
    ) -> list[Tensor]:
        # recurrent_memory_step wants W_0 for the norms of its rows alone: any matrix with those norms will do
        w0 = FastWeights(*(F.pad(n.unsqueeze(-1), (0, self.config.head_dim - 1)) for n in norms))
        parts = [x.unsqueeze(0) for x in state]
        memory = MemoryState(
            FastWeights(*parts[:3]), FastWeights(*parts[3:6]), FastWeights(*parts[6:9]), parts[9]
        )
        outputs = []
        for i, token in enumerate(tokens):
            y, memory = recurrent_memory_step(memory, w0, *token, self.config.chunk, position + i)
            outputs.append(y.flatten())
        after = [getattr(w, m) for w in (memory.weight, memory.momentum, memory.gradient) for m in MATRICES]
        return [torch.stack(outputs), *(x.squeeze(0) for x in (*after, memory.beta_sum))]

    def per_head(self, x: Tensor, matrices: Tensor) -> Tensor:
        return torch.einsum(PER_HEAD, x, matrices)


class DerivedWeights(nn.Module):
    """What a graph holds instead of some of a memory's parameters, computed from them once.

    norm_gate, norm_up [K, h], norm_down [K, D]: norms of the rows of W_0, but for a linear memory. With maps,
    query_map [H, D, D] and key_map [K, D, D]: their rows times the scales that follow them. With a dynamic
    gate, alpha [H, D]: twice the memory's. assembly/initializers.py has the same rules for numpy.
    """

    query_map: Tensor
    key_map: Tensor
    alpha: Tensor

    def __init__(self, memory: LongTermMemory) -> None:
        super().__init__()
        config = memory.config
        matrices = () if config.memory == "linear" else MATRICES
        derived = {
            f"norm_{name}": row_norms(getattr(memory, f"weight_{name}")).squeeze(-1) for name in matrices
        }
        if config.memory_maps:
            derived["query_map"] = memory.query_scale.unsqueeze(-1) * memory.query_map
            derived["key_map"] = memory.key_scale.unsqueeze(-1) * memory.key_map
        if config.gate == "dynamic":
            derived["alpha"] = 2 * memory.alpha.view(config.num_attention_heads, -1)
        for name, value in derived.items():
            self.register_buffer(name, value.detach(), persistent=False)


class StreamingDecoder(nn.Module):
    """An AllMem model as a function of tokens, position and state. Parameters are the wrapped model's own.

    Norms are written as `rms_norm` wherever they can be, because that is one ONNX node: l2norm(x) with ε is
    rms_norm(x) with weight 1/√D and ε/D.
    """

    unit: Tensor
    ones: Tensor

    def __init__(self, model: AllMemForCausalLM, ops: type[EagerOps] | type[SymbolicOps] = EagerOps) -> None:
        super().__init__()
        self.config: AllMemConfig = model.config
        self.model = model.model
        self.lm_head = model.lm_head
        rotary = model.model.rotary_emb
        self.ops: MemoryOps = ops(self.config, rotary.inv_freq, rotary.attention_scaling)
        dim = self.config.head_dim
        self.register_buffer("unit", torch.full((dim,), dim**-0.5), persistent=False)
        self.register_buffer("ones", torch.ones(dim), persistent=False)
        self.derived = nn.ModuleDict({str(i): DerivedWeights(memory) for i, memory in _memories(model)})

    def forward(
        self, input_ids: Tensor, position: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """input_ids [T], position [], states in state_shapes' order -> logits [T, vocab], next states."""
        x = self.model.embed_tokens(input_ids)
        after: list[Tensor] = []
        for i, layer in enumerate(self.model.layers):
            state = states[len(after) : len(after) + len(layer_state_shapes(self.config, i))]
            x, next_state = self._layer(i, layer, x, position, state)
            after += next_state
        return self.lm_head(_rms_norm(self.model.norm, x)), after

    def _layer(
        self, i: int, layer: AllMemLayer, x: Tensor, position: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        mixed, after = self._mixer(i, layer.self_attn, _rms_norm(layer.input_layernorm, x), position, state)
        x = x + mixed
        y = _rms_norm(layer.post_attention_layernorm, x)
        mlp = layer.mlp
        return x + mlp.down_proj(F.silu(mlp.gate_proj(y)) * mlp.up_proj(y)), after

    def _mixer(
        self, i: int, mixer: AllMemMixer, x: Tensor, position: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        config = self.config
        heads, kv_heads, dim = config.num_attention_heads, config.kv_heads, config.head_dim
        q, k = mixer.q_proj(x).reshape(-1, heads, dim), mixer.k_proj(x).reshape(-1, kv_heads, dim)
        if config.family.qk_norm:
            q, k = _rms_norm(mixer.q_norm, q), _rms_norm(mixer.k_norm, k)
        v = mixer.v_proj(x)
        mixed, *after = self.ops.attention(
            q.reshape(-1, heads * dim), k.reshape(-1, kv_heads * dim), v, state[:2], position
        )
        if mixer.memory is not None:
            derived = self.derived[str(i)]
            assert isinstance(derived, DerivedWeights)
            read, fast_weights = self._read_and_write(
                mixer.memory, derived, x, (q, k, v), state[2:], position
            )
            mixed, after = mixed + read, [*after, *fast_weights]
        return mixer.o_proj(mixed), after

    def _read_and_write(
        self,
        memory: LongTermMemory,
        derived: DerivedWeights,
        x: Tensor,
        qkv: tuple[Tensor, Tensor, Tensor],
        state: list[Tensor],
        position: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        """What the memory adds to attention, [T, H·D], and its next state."""
        config, (q, k, v) = self.config, qkv
        heads, kv_heads, dim = config.num_attention_heads, config.kv_heads, config.head_dim
        if config.memory_maps:
            q = self.ops.per_head(q, derived.query_map)
            k = self.ops.per_head(k, derived.key_map)
        else:
            q, k = memory.query_scale * q, memory.key_scale * k
        eta, beta = memory.rates(x)
        inputs = [
            self._unit_length(q + memory.query_bias).reshape(-1, heads * dim),
            self._unit_length(k + memory.key_bias).reshape(-1, kv_heads * dim),
            v,
            eta,
            beta,
            *(getattr(derived, f"norm_{name}") for name in (() if config.memory == "linear" else MATRICES)),
        ]
        read, *fast_weights = self.ops.memory(inputs, state, position)
        if config.memory_norm:
            read = F.rms_norm(read.reshape(-1, heads, dim), (dim,), self.ones, config.memory_eps)
        if config.gate == "static":
            return memory.alpha * read.reshape(-1, heads * dim), fast_weights
        factor = torch.sigmoid(memory.gate_proj(x)).reshape(-1, heads, 1)
        gated = derived.alpha * read.reshape(-1, heads, dim) * factor
        return gated.reshape(-1, heads * dim), fast_weights

    def _unit_length(self, x: Tensor) -> Tensor:
        """l2norm(silu(x)) per head."""
        dim = self.config.head_dim
        return F.rms_norm(F.silu(x), (dim,), self.unit, self.config.memory_eps / dim)


def _rms_norm(norm: Any, x: Tensor) -> Tensor:
    """Qwen3RMSNorm as one operator."""
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)
