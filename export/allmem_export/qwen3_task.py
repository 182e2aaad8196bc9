"""A small full-attention Qwen3 from scratch: the teacher in the example of a distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from .streams import make_batch, make_stream
from .task import ConfigError, Metrics


class Qwen3Task:
    """Next-token prediction in which a value that can be recalled counts more (a Task of task.py).

    task = "qwen3"
    [model]  fields of Qwen3Config      [data]  as streams.py says
    """

    def __init__(self, config: dict[str, Any]) -> None:
        try:
            self._data: dict[str, Any] = config["data"]
            self._length, self._sequences = int(self._data["length"]), int(self._data["batch"])
            self._stream = make_stream(self._data, None)
            self.model = Qwen3ForCausalLM(Qwen3Config(vocab_size=self._stream.vocab_size, **config["model"]))
        except KeyError as error:
            raise ConfigError(f"The config of a qwen3 run lacks {error}.") from error
        except (TypeError, StrictDataclassError) as error:
            raise ConfigError(
                f"[model] does not describe a Qwen3: {' '.join(str(error).split())}."
            ) from error

    def batch(self, step: int, seed: int) -> dict[str, Tensor]:
        return make_batch(self._stream, seed, self._sequences, self._length)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
        ids, recalled = batch["input_ids"], batch["distance"][:, 1:] > 0
        losses = F.cross_entropy(model(input_ids=ids).logits[:, :-1].mT, ids[:, 1:], reduction="none")
        recall = losses[recalled].mean()
        return losses.mean() + recall, {"recall_loss": recall.item()}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Metrics:
        """The loss on what can be known from the context, in sequences never trained on."""
        batch = make_batch(self._stream, "held out", self._sequences, self._length)
        batch = {name: value.to(next(model.parameters()).device) for name, value in batch.items()}
        return {"held_out_recall_loss": self.loss(model, batch)[1]["recall_loss"]}

    def save(self, model: nn.Module, out: Path) -> None:
        assert isinstance(model, Qwen3ForCausalLM)
        model.save_pretrained(str(out))
