"""AllMem as a transformers model: a base model (families.py) whose attention is two parallel memories."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm, Qwen3RotaryEmbedding

from .attention import causal_attention, rotated_for_window
from .configuration import AllMemConfig
from .fused import window_attention
from .long_term_memory import LongTermMemory, make_memory


class AllMemMixer(nn.Module):
    """TokenMixer(x) = W_o (SWA(x) + α ⊙ MEM(x)) (docs/model.md, "The token mixer")."""

    def __init__(self, config: AllMemConfig, layer_index: int) -> None:
        super().__init__()
        self.config = config
        self.layer_index = layer_index
        d, dim, family = config.hidden_size, config.head_dim, config.family
        bias = family.qkv_bias(config)
        self.q_proj = nn.Linear(d, config.num_attention_heads * dim, bias=bias)
        self.k_proj = nn.Linear(d, config.kv_heads * dim, bias=bias)
        self.v_proj = nn.Linear(d, config.kv_heads * dim, bias=bias)
        self.o_proj = nn.Linear(config.num_attention_heads * dim, d, bias=family.o_bias(config))
        self.q_norm = Qwen3RMSNorm(dim, eps=config.rms_norm_eps) if family.qk_norm else nn.Identity()
        self.k_norm = Qwen3RMSNorm(dim, eps=config.rms_norm_eps) if family.qk_norm else nn.Identity()
        self.memory = make_memory(config) if config.has_memory(layer_index) else None
        # η of the last forward [B, T, n_kv_heads], for tasks that price writing
        self.last_eta: Tensor | None = None
        self.eta_factor: Tensor | None = None  # [B, T], of training (graft_task.py)
        self.use_memory = True  # training computes its teacher without

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unrotated q, k (normalised per head in some families) and v of x [..., d], each [..., heads, D]."""
        dim = self.config.head_dim
        q = self.q_norm(self.q_proj(x).unflatten(-1, (-1, dim)))
        k = self.k_norm(self.k_proj(x).unflatten(-1, (-1, dim)))
        return q, k, self.v_proj(x).unflatten(-1, (-1, dim))

    def forward(self, x: Tensor, inv_freq: Tensor, rope_scale: float) -> Tensor:
        """x [B, T, d] -> [B, T, d]."""
        q, k, v = self.project(x)
        mixed = self._attended(q, k, v, inv_freq, rope_scale)
        if self.memory is not None and self.use_memory:
            mixed = mixed + self._remembered(x, q, k, v)
        out: Tensor = self.o_proj(mixed)
        return out

    def parts(self, x: Tensor, inv_freq: Tensor, rope_scale: float) -> tuple[Tensor, Tensor]:
        """What the window and what the memory add to the residual stream, each [B, T, d]."""
        q, k, v = self.project(x)
        return self.o_proj(self._attended(q, k, v, inv_freq, rope_scale)), self.o_proj(
            self._remembered(x, q, k, v)
        )

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, inv_freq: Tensor, rope_scale: float) -> Tensor:
        """SWA: q, k, v [B, T, heads, D] -> [B, T, n_heads · D]."""
        window, sinks = self.config.window, self.config.sinks
        q, k, v = self._by_kv_head(q), k.transpose(1, 2), v.transpose(1, 2)
        if window >= q.shape[-2]:
            attended = causal_attention(q, k, v, inv_freq, rope_scale)
        else:
            rotated = rotated_for_window(q, k, inv_freq, rope_scale, window, sinks)
            attended = window_attention(*rotated, v, window, sinks)
        return _by_token(attended).flatten(-2)

    def _remembered(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Gate ⊙ MEM: x [B, T, d], q, k, v [B, T, heads, D] -> [B, T, n_heads · D], in float32."""
        memory = self.memory
        assert memory is not None
        with torch.autocast(x.device.type, enabled=False):
            if q.dtype == torch.bfloat16:
                x, q, k, v = x.float(), q.float(), k.float(), v.float()
            eta, beta = memory.rates(x)
            self.last_eta = eta
            if self.eta_factor is not None:
                eta = eta * self.eta_factor.unsqueeze(-1)
            read = memory.remember(
                self._by_kv_head(memory.query(q)),
                memory.key(k).transpose(1, 2),
                v.transpose(1, 2),
                eta.transpose(1, 2),
                beta.transpose(1, 2),
            )
            return memory.gated(_by_token(read), x)

    def _by_kv_head(self, y: Tensor) -> Tensor:
        """[B, T, heads, D] -> [B, K, group, T, D]."""
        grouped: Tensor = y.unflatten(2, (self.config.kv_heads, -1))
        return grouped.permute(0, 2, 3, 1, 4)


def last_etas(model: nn.Module) -> Tensor:
    """η of the last forward, in all layers with a memory: [layers, B, T, n_kv_heads]."""
    etas = (module.last_eta for module in model.modules() if isinstance(module, AllMemMixer))
    return torch.stack([eta for eta in etas if eta is not None])


def _by_token(y: Tensor) -> Tensor:
    """[B, K, group, T, D] -> [B, T, heads, D]."""
    return y.permute(0, 3, 1, 2, 4).flatten(2, 3)


class AllMemLayer(nn.Module):
    """A decoder layer of the base model with AllMem's token mixer."""

    def __init__(self, config: AllMemConfig, layer_index: int) -> None:
        super().__init__()
        self.self_attn = AllMemMixer(config, layer_index)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, x: Tensor, inv_freq: Tensor, rope_scale: float) -> Tensor:
        """x [B, T, d] -> [B, T, d]."""
        x = x + self.self_attn(self.input_layernorm(x), inv_freq, rope_scale)
        x = x + self.mlp(self.post_attention_layernorm(x))
        return x


class AllMemPreTrainedModel(PreTrainedModel):
    """What transformers needs to know to load, save and initialise AllMem models."""

    config: AllMemConfig
    config_class = AllMemConfig
    base_model_prefix = "model"
    _no_split_modules = ["AllMemLayer"]  # noqa: RUF012 (transformers reads it)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, LongTermMemory):
            module.reset_parameters()


class AllMemModel(AllMemPreTrainedModel):
    """The decoder without the vocabulary projection."""

    def __init__(self, config: AllMemConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(AllMemLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = Qwen3RotaryEmbedding(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor) -> Tensor:
        """input_ids [B, T] -> hidden states [B, T, d]."""
        x: Tensor = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = layer(x, self.rotary_emb.inv_freq, self.rotary_emb.attention_scaling)
        x = self.norm(x)
        return x


class AllMemForCausalLM(AllMemPreTrainedModel, GenerationMixin):
    """AllMem with the vocabulary projection. Sequences start at position 0; padding is on the right."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (transformers reads it)

    def __init__(self, config: AllMemConfig) -> None:
        super().__init__(config)
        self.model = AllMemModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
        logits_at: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutput:
        """input_ids [B, T] -> logits [B, T, vocab].

        With labels [B, T] (−100: ignored), or label_weights [B, T] (labels are then the inputs), also the
        mean next-token loss, weighted by label_weights; logits are then only those that have a label of
        weight > 0, [N, vocab]. With logits_at [B, T], a mask, only the logits there, [N, vocab].
        """
        hidden = self.model(input_ids)
        if logits_at is not None:
            return CausalLMOutput(logits=self.lm_head(hidden[logits_at]))
        if labels is None and label_weights is None:
            return CausalLMOutput(logits=self.lm_head(hidden))
        targets = (input_ids if labels is None else labels)[:, 1:]
        weights = (
            (targets != -100).float() if label_weights is None else label_weights[:, 1:] * (targets != -100)
        )
        chosen = weights > 0
        logits = self.lm_head(hidden[:, :-1][chosen])
        losses = F.cross_entropy(logits.float(), targets[chosen], reduction="none")
        return CausalLMOutput(loss=(losses * weights[chosen]).sum() / weights.sum(), logits=logits)

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The whole sequence every time: PyTorch is the reference, streaming is the runtime's business."""
        return {"input_ids": input_ids}


AutoConfig.register("allmem", AllMemConfig)
AutoModelForCausalLM.register(AllMemConfig, AllMemForCausalLM)
