"""GGUF files: what the header says, and the weights in float32 under Hugging Face's names.

The header is read here, strictly and in a tenth of a second; blocks are dequantised by the `gguf` package.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from allmem_edge.assembly.mapped_file import mapped
from allmem_edge.errors import MALFORMED, MissingDependencyError, ModelFormatError, UnsupportedModelError

Floats = NDArray[np.float32]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_ALIGNMENT = 32

# Family by GGUF's name of the architecture. Mistral's files say "llama", whose computation is the same.
_FAMILIES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROPE_FACTORS = "rope_freqs.weight"


class _Tensor(NamedTuple):
    shape: tuple[int, ...]  # [rows, columns], as numpy counts
    kind: int  # a ggml type
    offset: int  # from the start of the tensors' data


class GgufFile:
    """A base model in one file."""

    def __init__(self, path: Path) -> None:
        """Raises ModelNotFoundError, StorageError, UnsupportedModelError or, for damage, ModelFormatError."""
        self.path = path
        self._data = mapped(path)
        reader = _Header(self._data)
        try:
            self.metadata, tensors = reader.read()
        except _NewerVersion as error:
            raise UnsupportedModelError(
                f"{path} is GGUF version {error}; only 2 and 3 can be read."
            ) from error
        except (*MALFORMED, struct.error, MemoryError) as error:
            raise self._damaged() from error
        self._start = reader.end
        self._types = _block_types()
        self._tensors = {name: tensor for name, tensor in tensors.items() if name != _ROPE_FACTORS}
        self._rope_factors = tensors.get(_ROPE_FACTORS)
        room = len(self._data) - self._start
        for name, tensor in tensors.items():
            self._check_place(name, tensor)
            room -= self._bytes(tensor)
        if room < 0:  # tensors that share bytes
            raise self._damaged()
        self._prefix = self._text("general.architecture")
        if self._prefix not in _FAMILIES:
            raise UnsupportedModelError(
                f"{path} holds a model of architecture {self._prefix!r}; "
                f"supported are {', '.join(sorted(_FAMILIES))}."
            )
        self._names = {self._renamed(name): name for name in self._tensors}

    @property
    def names(self) -> list[str]:
        """The weights' names, as Hugging Face's checkpoints call them."""
        return list(self._names)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[self._names[name]].shape

    def kind(self, name: str) -> str:
        """ggml's name of the type that it is stored in: "F16", "Q4_1"."""
        from gguf import GGMLQuantizationType

        return GGMLQuantizationType(self._tensors[self._names[name]].kind).name

    def floats(self, name: str) -> Floats:
        """The weight in float32, with q and k in the order of rows of Hugging Face's checkpoints."""
        own_name = self._names[name]
        values = self._dequantised(own_name, self._tensors[own_name])
        if self._prefix == "llama" and ".self_attn." in name:
            heads = {"q_proj": "head_count", "k_proj": "head_count_kv"}.get(name.split(".")[-2])
            if heads is not None:
                count = self._heads()[heads]
                if len(values) % (2 * count):
                    raise self._damaged()
                return _halves_apart(values, count)
        return values

    def config(self) -> dict[str, Any]:
        """What config.json would say."""
        heads = self._heads()
        hidden = self._number("embedding_length")
        config: dict[str, Any] = {
            "model_type": _FAMILIES[self._prefix],
            "vocab_size": self.shape("model.embed_tokens.weight")[0]
            if "model.embed_tokens.weight" in self
            else 0,
            "hidden_size": hidden,
            "intermediate_size": self._number("feed_forward_length"),
            "num_hidden_layers": self._number("block_count"),
            "num_attention_heads": heads["head_count"],
            "num_key_value_heads": heads["head_count_kv"],
            "head_dim": self._number("attention.key_length", hidden // heads["head_count"]),
            "max_position_embeddings": self._number("context_length", 2048),
            "rms_norm_eps": _shortest(self._number("attention.layer_norm_rms_epsilon", 1e-6)),
            "rope_parameters": self._rope(),
            "tie_word_embeddings": "lm_head.weight" not in self,
            "hidden_act": "silu",
        }
        if self._prefix != "qwen2":
            config["attention_bias"] = any(name.endswith("q_proj.bias") for name in self._names)
        for key in ("bos", "eos"):
            token = self.metadata.get(f"tokenizer.ggml.{key}_token_id")
            if isinstance(token, int):
                config[f"{key}_token_id"] = token
        return config

    def _rope(self) -> dict[str, Any]:
        theta = _shortest(self._number("rope.freq_base", 10000.0))
        kind = self.metadata.get(f"{self._prefix}.rope.scaling.type", "none")
        context = self._number("rope.scaling.original_context_length", 0)
        if self._rope_factors is not None:
            # One divisor for each frequency, as Llama 3 has them; "longrope" can say that for any divisors.
            factors = self._dequantised(_ROPE_FACTORS, self._rope_factors).tolist()
            return {
                "rope_type": "longrope",
                "rope_theta": theta,
                "short_factor": factors,
                "long_factor": factors,
                "factor": 1.0,
                "attention_factor": 1.0,
                "original_max_position_embeddings": self._number("context_length", 2048),
            }
        if kind == "none":
            return {"rope_type": "default", "rope_theta": theta}
        factor = _shortest(self._number("rope.scaling.factor", 1.0))
        if kind == "linear":
            return {"rope_type": "linear", "rope_theta": theta, "factor": factor}
        if kind == "yarn" and context:
            rope = {"rope_type": "yarn", "rope_theta": theta, "factor": factor}
            return {**rope, "original_max_position_embeddings": context}
        raise UnsupportedModelError(
            f"{self.path} scales its rotary embedding in a way {kind!r} that is unknown."
        )

    def _heads(self) -> dict[str, int]:
        heads = self._number("attention.head_count")
        counts = {"head_count": heads, "head_count_kv": self._number("attention.head_count_kv", heads)}
        if min(counts.values()) < 1:
            raise self._damaged()
        return counts

    def _number(self, key: str, default: Any = None) -> Any:
        value = self.metadata.get(f"{self._prefix}.{key}", default)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ModelFormatError(f"{self.path} lacks {self._prefix}.{key}; it is not a complete model.")
        return value

    def _text(self, key: str) -> str:
        value = self.metadata.get(key)
        if not isinstance(value, str):
            raise ModelFormatError(f"{self.path} lacks {key}; it is not a complete model.")
        return value

    def _renamed(self, name: str) -> str:
        if name in _OUTSIDE:
            return _OUTSIDE[name]
        parts = name.split(".")
        if len(parts) == 4 and parts[0] == "blk" and parts[2] in _IN_LAYER and parts[3] in ("weight", "bias"):
            return f"model.layers.{parts[1]}.{_IN_LAYER[parts[2]]}.{parts[3]}"
        raise UnsupportedModelError(
            f"{self.path} holds {name}, which no supported model has; its architecture is a variant."
        )

    def _check_place(self, name: str, tensor: _Tensor) -> None:
        if tensor.kind not in self._types:
            raise UnsupportedModelError(f"{name} in {self.path} has the unknown type {tensor.kind}.")
        block, _ = self._types[tensor.kind]
        if (
            not tensor.shape
            or tensor.shape[-1] % block
            or self._start + tensor.offset + self._bytes(tensor) > len(self._data)
        ):
            raise self._damaged()

    def _bytes(self, tensor: _Tensor) -> int:
        block, size = self._types[tensor.kind]
        return math.prod(tensor.shape) // block * size

    def _dequantised(self, name: str, tensor: _Tensor) -> Floats:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        block, size = self._types[tensor.kind]
        *rows, columns = tensor.shape
        start = self._start + tensor.offset
        raw = self._data[start : start + self._bytes(tensor)].reshape(*rows, columns // block * size)
        kind = GGMLQuantizationType(tensor.kind)
        try:
            if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
                raw = raw.view(np.float32 if kind == GGMLQuantizationType.F32 else np.float16)
            values = dequantize(raw, kind)
        except NotImplementedError as error:
            raise UnsupportedModelError(
                f"{name} in {self.path} is {kind.name}, which the gguf package cannot dequantise."
            ) from error
        return np.asarray(values, np.float32).reshape(tensor.shape)

    def _damaged(self) -> ModelFormatError:
        return ModelFormatError(f"{self.path} is not a complete GGUF file; fetch it again.")


class _NewerVersion(Exception):
    """Of the format."""


class _Header:
    """Reads metadata and the list of tensors; any IndexError or ValueError means a damaged file."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._data = data
        self.end = 0

    def read(self) -> tuple[dict[str, Any], dict[str, _Tensor]]:
        if self._bytes(4) != _MAGIC:
            raise ValueError("magic")
        version = self._scalar("I")
        if version not in _VERSIONS:
            raise _NewerVersion(version)
        tensor_count, field_count = self._scalar("Q"), self._scalar("Q")
        metadata: dict[str, Any] = {}
        for _ in range(field_count):
            key = self._string()
            metadata[key] = self._value(self._scalar("I"))
        tensors: dict[str, _Tensor] = {}
        for _ in range(tensor_count):
            name = self._string()
            dimensions = self._scalar("I")
            if dimensions > _MAX_DIMENSIONS or name in tensors:
                raise ValueError(name)
            shape = tuple(self._scalar("Q") for _ in range(dimensions))[::-1]
            tensors[name] = _Tensor(shape, self._scalar("I"), self._scalar("Q"))
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError("alignment")
        self.end += -self.end % alignment
        return metadata, tensors

    def _bytes(self, count: int) -> bytes:
        start, self.end = self.end, self.end + count
        if self.end > len(self._data):
            raise IndexError(self.end)
        return self._data[start : self.end].tobytes()

    def _scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self._bytes(struct.calcsize("<" + code)))[0]

    def _string(self) -> str:
        return self._bytes(self._scalar("Q")).decode("utf-8")

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind != _ARRAY or depth > 1:
            raise ValueError(kind)
        item, count = self._scalar("I"), self._scalar("Q")
        if item in _SCALARS:
            code = _SCALARS[item]
            return list(struct.unpack(f"<{count}{code}", self._bytes(count * struct.calcsize("<" + code))))
        return [self._value(item, depth + 1) for _ in range(count)]


def _block_types() -> dict[int, tuple[int, int]]:
    """Weights and bytes of a block, by ggml type."""
    try:
        from gguf import GGML_QUANT_SIZES
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "Reading a GGUF file needs gguf, which is missing: pip install gguf."
        ) from error
    return {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}


def _halves_apart(values: Floats, heads: int) -> Floats:
    """Rows [heads · D] in neighbouring rotary pairs ▶ pairs (i, i + D/2), as Hugging Face has them."""
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])
    apart: Floats = pairs.swapaxes(1, 2).reshape(values.shape)
    return apart


def _shortest(value: float) -> float:
    """A float32 as people wrote it: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
