"""Compares PyTorch, stock onnxruntime and the native runtime: the same tokens must give the same logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from allmem_edge.errors import AllMemError
from allmem_edge.ort_backend import OrtModel, OrtSession

from .export import load_checkpoint
from .modeling import AllMemForCausalLM
from .quantize import dequantized_weights

TOLERANCE = 1e-3  # on logits, in float32
_PIECES = 12  # calls a stream is cut into

Floats = NDArray[np.float32]
Forward = Callable[[NDArray[np.int64]], Floats]


class VerifyError(AllMemError):
    """The comparison cannot be made; the message says why and what to do."""


@dataclass(frozen=True)
class VerifyRow:
    """One pair of implementations."""

    name: str
    max_abs_diff: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.max_abs_diff <= self.tolerance  # not so for NaN


@dataclass(frozen=True)
class VerifyReport:
    """What verify() found."""

    tokens: int
    quantization: str
    rows: list[VerifyRow]

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)


def verify(
    model_dir: Path, *, checkpoint: Path | None = None, tokens: int = 600, seed: int = 0
) -> VerifyReport:
    """Compares the logits of `tokens` random tokens between every two implementations.

    PyTorch takes part if the checkpoint is given: it reads the tokens at once, with the file's weights if
    that is quantised. Each runtime reads them in calls cut at random places, its own.
    """
    model_dir = Path(model_dir)
    if tokens < 1:
        raise VerifyError(f"tokens is {tokens}; it must be at least 1")
    ort_model = OrtModel(model_dir)
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, ort_model.vocab_size, tokens)
    logits: dict[str, Floats] = {}
    if checkpoint is not None:
        logits["PyTorch"] = _pytorch_logits(Path(checkpoint), model_dir, ort_model, ids)
    native = _native_forward(model_dir)
    logits["native"] = _in_pieces(native, ids, rng)
    logits["onnxruntime"] = _in_pieces(OrtSession(ort_model, 0).forward, ids, rng)
    rows = [
        VerifyRow(f"{a} ↔ {b}", float(np.abs(logits[a] - logits[b]).max()), TOLERANCE)
        for a, b in combinations(logits, 2)
    ]
    return VerifyReport(tokens, ort_model.quantization, rows)


def random_cuts(tokens: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """[0, tokens) in up to _PIECES consecutive pieces."""
    edges = (
        [0, *sorted(set(rng.integers(1, tokens, _PIECES - 1).tolist())), tokens]
        if tokens > 1
        else [0, tokens]
    )
    return list(pairwise(edges))


def _in_pieces(forward: Forward, ids: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    return np.concatenate([forward(ids[start:stop]) for start, stop in random_cuts(len(ids), rng)])


def _native_forward(model_dir: Path) -> Forward:
    try:
        from allmem_edge import Model
    except ImportError as error:
        raise VerifyError(
            f"the native runtime is not built ({error}); install the package: pip install ."
        ) from error
    return Model.load(model_dir, exact=True).session().forward


def _pytorch_logits(checkpoint: Path, model_dir: Path, ort_model: OrtModel, ids: NDArray[np.int64]) -> Floats:
    model = load_checkpoint(checkpoint)
    if model.config.vocab_size != ort_model.vocab_size:
        raise VerifyError(
            f"{checkpoint} has {model.config.vocab_size} tokens and {model_dir} {ort_model.vocab_size}: "
            "these are different models"
        )
    if ort_model.quantization != "none":
        use_weights_of(model, model_dir)
    with torch.no_grad():
        logits: Floats = model(input_ids=torch.from_numpy(ids)[None]).logits[0].numpy()
    return logits


def use_weights_of(model: AllMemForCausalLM, model_dir: Path) -> None:
    """Replaces the weights that a quantised model directory holds in blocks by their dequantised values."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, weight in dequantized_weights(model_dir / "model.onnx"):
        if name.startswith("derived."):  # a map whose rows have taken in the scales that follow it
            _, layer, matrix = name.split(".")
            memory = f"model.layers.{layer}.self_attn.memory"
            name = f"{memory}.{matrix}"
            parameters[f"{memory}.{matrix.removesuffix('_map')}_scale"].data.fill_(1)
        if name not in parameters or parameters[name].shape != weight.shape:
            raise VerifyError(
                f"{model_dir}: the checkpoint has no weight {name} of shape {list(weight.shape)}"
            )
        parameters[name].data = torch.from_numpy(weight)
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            parameters["model.embed_tokens.weight"].data = parameters[name].data
