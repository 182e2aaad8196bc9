"""The paper's memory-efficient fine-tuning: only a converted model's memory learns, from full attention.

The teacher owns no weights: it is transformers' Qwen3 over the student's own frozen base weights, so a run
costs the gradients of the memory's parameters and no second model. The loss is the KL divergence from the
teacher's next-token distribution to the student's. Every batch draws window, sinks and chunk anew, so that
the memory comes to work with any of them.

    task = "distill"
    checkpoint = "runs/converted"       # what `allmem-edge convert` wrote
    [draw]                              # ranges [low, high], both included
    window = [512, 8192]
    sinks = [0, 256]
    chunk = [512, 4096]                 # never above the window drawn; below [data] length
    [data] …                            # streams.py
    [evaluation]
    batches = 4                         # of held-out sequences
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from .configuration import AllMemConfig
from .long_term_memory import LongTermMemory
from .modeling import AllMemForCausalLM
from .sources import COPIED
from .streams import make_batch, make_stream
from .task import ConfigError, Metrics

Spans = tuple[int, int, int]  # window, sinks, chunk


@contextmanager
def using_spans(config: AllMemConfig, spans: Spans) -> Iterator[None]:
    """Computes with another window, sinks and chunk: all layers of a model read the one config object."""
    own = config.window, config.sinks, config.chunk
    config.window, config.sinks, config.chunk = spans
    try:
        yield
    finally:
        config.window, config.sinks, config.chunk = own


@contextmanager
def without_memory(model: AllMemForCausalLM) -> Iterator[None]:
    """Computes with every gate at 0: what the converted model was before it learned."""
    alphas = [m.alpha for m in model.modules() if isinstance(m, LongTermMemory)]
    learned = [alpha.data for alpha in alphas]
    for alpha in alphas:
        alpha.data = torch.zeros_like(alpha)
    try:
        yield
    finally:
        for alpha, value in zip(alphas, learned, strict=True):
            alpha.data = value


def full_attention_teacher(student: AllMemForCausalLM) -> Qwen3ForCausalLM:
    """transformers' Qwen3 over the very parameters of the student's base model, which it freezes."""
    config = Qwen3Config(
        **{k: v for k, v in student.config.to_dict().items() if k in Qwen3Config.__annotations__}
    )
    with torch.device("meta"):
        teacher = Qwen3ForCausalLM(config).requires_grad_(
            False
        )  # loading gives this to the student's parameters, too
    teacher.model.rotary_emb = Qwen3RotaryEmbedding(config)  # its tables are no parameters
    base = {name: p for name, p in student.named_parameters() if ".self_attn.memory." not in name}
    base.setdefault("lm_head.weight", base["model.embed_tokens.weight"])
    teacher.load_state_dict(base, assign=True)
    nn.Module.train(teacher, False)
    return teacher


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher ‖ student) of every token: logits [B, T, vocab] -> [B, T]."""
    target = torch.log_softmax(teacher.float(), -1)
    return (target.exp() * (target - torch.log_softmax(student.float(), -1))).sum(-1)


def load_student(checkpoint: Path) -> AllMemForCausalLM:
    """A converted model in float32. Raises ConfigError."""
    try:
        if not isinstance(AutoConfig.from_pretrained(checkpoint, local_files_only=True), AllMemConfig):
            raise ConfigError(
                f"{checkpoint} is not an AllMem checkpoint; make one with `allmem-edge convert`."
            )
        model = AllMemForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{checkpoint} cannot be loaded: {' '.join(str(error).split())}") from error
    assert isinstance(model, AllMemForCausalLM)
    return model


class DistillTask:
    """Distils full attention into the memory (a Task of task.py)."""

    model: AllMemForCausalLM

    def __init__(self, config: dict[str, Any]) -> None:
        try:
            self._checkpoint = Path(config["checkpoint"])
            self._data: dict[str, Any] = config["data"]
            self._length, self._sequences = int(self._data["length"]), int(self._data["batch"])
            draw = config["draw"]
            self._window, self._sinks, self._chunk = (
                _range(draw, name) for name in ("window", "sinks", "chunk")
            )
            self._eval_batches = int(config["evaluation"]["batches"])
        except KeyError as error:
            raise ConfigError(f"The config of a distillation lacks {error}.") from error
        if self._window[0] < 1 or self._chunk[0] < 1 or self._chunk[0] > self._window[0]:
            raise ConfigError(
                "[draw] needs windows and chunks of at least 1, and a chunk that fits the smallest window."
            )
        if self._chunk[1] >= self._length:
            raise ConfigError(
                f"[draw] chunk goes up to {self._chunk[1]}; sequences of [data] length = {self._length} "
                "would end before the memory is read once."
            )
        self.model = load_student(self._checkpoint)
        self._teacher = full_attention_teacher(self.model)
        learning = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        assert learning and all(".self_attn.memory." in name for name in learning)
        self._stream = make_stream(self._data, self._checkpoint)
        if self._stream.vocab_size > self.model.config.vocab_size:
            raise ConfigError(
                f"The data has {self._stream.vocab_size} different tokens, "
                f"the model in {self._checkpoint} only {self.model.config.vocab_size}."
            )

    def draw(self, rng: random.Random) -> Spans:
        """Window, sinks and chunk of a batch; window and chunk by their logarithm."""
        window = _log_uniform(rng, *self._window)
        return (
            window,
            rng.randint(*self._sinks),
            _log_uniform(rng, self._chunk[0], min(self._chunk[1], window)),
        )

    def batch(self, step: int, seed: int) -> dict[str, Tensor]:
        spans = torch.tensor(self.draw(random.Random(f"spans {seed}")))
        return {"spans": spans, **make_batch(self._stream, seed, self._sequences, self._length)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
        window, sinks, chunk = batch["spans"].tolist()
        with using_spans(self.model.config, (window, sinks, chunk)):
            student = model(input_ids=batch["input_ids"]).logits
        return divergence(self._teach(batch["input_ids"]), student).mean(), {}

    @torch.no_grad()
    def _teach(self, ids: Tensor) -> Tensor:
        """The teacher's logits, [B, T, vocab]."""
        self._teacher.model.rotary_emb.to(ids.device)  # the parameters move with the student's
        logits: Tensor = self._teacher(input_ids=ids, use_cache=False).logits
        return logits

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Metrics:
        """The losses on held-out tokens that depend on something inside the window (near) or beyond it (far).

        Window, sinks and chunk are the checkpoint's own. Three models: the student, the student without its
        memory (as it was converted) and the teacher (full attention); and the student's KL divergence from
        the teacher.
        """
        assert isinstance(model, AllMemForCausalLM)
        device = next(model.parameters()).device
        sums: dict[str, float] = {}
        count = {"near": 0, "far": 0}
        for number in range(self._eval_batches):
            batch = make_batch(self._stream, f"held out {number}", self._sequences, self._length)
            ids, distance = batch["input_ids"].to(device), batch["distance"][:, 1:].to(device)
            parts = {
                "near": (distance > 0) & (distance < model.config.window),
                "far": distance >= model.config.window,
            }
            teacher, student = self._teach(ids), model(input_ids=ids).logits
            with without_memory(model):
                bare = model(input_ids=ids).logits
            kl = divergence(teacher, student)[:, :-1]
            losses = {
                name: F.cross_entropy(logits[:, :-1].mT.float(), ids[:, 1:], reduction="none")
                for name, logits in (
                    ("loss", student),
                    ("loss_without_memory", bare),
                    ("loss_full_attention", teacher),
                )
            }
            for part, mask in parts.items():
                count[part] += int(mask.sum())
                for name, values in (*losses.items(), ("kl", kl)):
                    sums[f"{part}_{name}"] = sums.get(f"{part}_{name}", 0.0) + values[mask].sum().item()
        return {name: total / max(1, count[name.split("_")[0]]) for name, total in sums.items()}

    def save(self, model: nn.Module, out: Path) -> None:
        assert isinstance(model, AllMemForCausalLM)
        model.save_pretrained(str(out))
        for name in COPIED:
            if (self._checkpoint / name).is_file():
                shutil.copyfile(self._checkpoint / name, out / name)


def _range(table: dict[str, Any], name: str) -> tuple[int, int]:
    value = table[name]
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(x, int) for x in value)):
        raise ConfigError(f"[draw] {name} must be a range of two whole numbers, not {value!r}.")
    low, high = value
    if not 0 <= low <= high:
        raise ConfigError(f"[draw] {name} = {value} must be ascending and not negative.")
    return low, high


def _log_uniform(rng: random.Random, low: int, high: int) -> int:
    return min(high, int(math.exp(rng.uniform(math.log(low), math.log(high + 1)))))
