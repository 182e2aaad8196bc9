"""Training a memory that is grafted on a real model, in three stages (docs/smollm2.md says why).

    task = "graft"
    stage = "tune"                      # or "transfer", "memory"
    checkpoint = "runs/smollm2"         # what `allmem-edge convert` wrote: the base and the memory's shape
    adapter = "runs/tune/adapter.safetensors"   # what an earlier stage learned; none for the first
    rank = 16                           # of the low-rank update, for "tune"
    joint = false                       # "memory": the low-rank update goes on learning, and the base teaches
    kl_weight = 1.0                     # of the KL to the teacher, beside the cross-entropy on answers
    [draw]                              # window, sinks and chunk of a batch: lists to choose from
    window = [64, 128]
    sinks = [4]
    chunk = [32, 64]
    stretch = [1, 4]                    # how many times filler counts; 1 if it is left out (_stretched)
    [data]
    corpus = "runs/corpus"              # corpus.py
    length = [512]                      # of sequences; a list to choose from
    lengths = { talk = [256, 512] }     # the same for single kinds; those of `length` if it is left out
    tokens = 1024                       # of a batch
    kinds = { chat = 4, needle = 2, list = 2, copy = 1, document = 1 }   # shares (sequences.py)
    [price]                             # "memory": what learning costs where nothing needs remembering
    eta = 0.1
    [evaluation]
    distances = [256, 1024]             # tokens between telling and asking
    sequences = 4

* `tune`: a low-rank update of the base, with full attention, learns to answer from far back: cross-entropy on
  answers, KL to the untouched base elsewhere. The result is the teacher of the other stages.
* `transfer`: every memory by itself learns what the window misses: the squared error, behind the output
  projection, between full attention and window plus memory, on the teacher's own hidden states. One process
  trains it.
* `memory`: end to end: cross-entropy on answers, KL to the full-attention teacher elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer

from .distill_task import divergence, load_student, using_spans
from .fused import compile_fused
from .long_term_memory import LongTermMemory
from .low_rank import LowRankLinear, add_low_rank, merge, without_updates
from .marked_text import Sequence, load_documents
from .modeling import AllMemForCausalLM, AllMemMixer, last_etas
from .sequences import SequenceMaker
from .sources import COPIED
from .task import ConfigError, Metrics

STAGES = ("tune", "transfer", "memory")
FULL = 1 << 20  # a window that no sequence fills
NEAR_WEIGHT = 0.3  # of answers whose value is still in the window
REPLY_WEIGHT = 0.2  # of an answer's other tokens
LEAST_WEIGHT = 20.0  # of a batch; with less, its few tokens do not count as much as those of a whole batch
TALK_SHARE = 0.5  # the same, of the base model's own answers
FIRST_GATE = 0.1  # α where no memory has learned yet
KL_SHARE = {"tune": 0.1, "transfer": 0.0, "memory": 0.2}  # of the positions that are no answers


def _computes_bfloat16(device: str) -> bool:
    """Whether bfloat16 is faster than float32; where a processor emulates it, it is eight times slower."""
    return device != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def mixed_precision(device: str) -> torch.autocast:
    """Autocast to bfloat16 where the device computes in it."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=_computes_bfloat16(device))


def _processes() -> int:
    """How many train together, as torchrun and accelerate say."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def full_attention(model: AllMemForCausalLM) -> Iterator[None]:
    """Computes with a window without end and without memories."""
    mixers = [module for module in model.modules() if isinstance(module, AllMemMixer)]
    with using_spans(model.config, (FULL, 0, 1)):
        for mixer in mixers:
            mixer.use_memory = False
        try:
            yield
        finally:
            for mixer in mixers:
                mixer.use_memory = True


@contextmanager
def _stretched(model: AllMemForCausalLM, factor: Tensor) -> Iterator[None]:
    """Computes with η [B, T, heads] times factor [B, T].

    A memory forgets by what it writes later. Filler that is written so many times as strongly disturbs it as
    that much more filler would, so that sequences of some thousand tokens train for tens of thousands.
    """
    mixers = [module for module in model.modules() if isinstance(module, AllMemMixer)]
    for mixer in mixers:
        mixer.eta_factor = factor
    try:
        yield
    finally:
        for mixer in mixers:
            mixer.eta_factor = None


class GraftTask:
    """One stage of the training (the Task of train.py)."""

    model: AllMemForCausalLM

    def __init__(self, config: dict[str, Any]) -> None:
        try:
            self._stage = str(config["stage"])
            self._low_rank_learns = self._stage == "tune" or bool(config.get("joint", False))
            self._checkpoint = Path(config["checkpoint"])
            data, self._draw, self._evaluation = config["data"], config["draw"], config["evaluation"]
            self._kinds: dict[str, float] = dict(data["kinds"])
            self._lengths: dict[str, list[int]] = {kind: list(data["length"]) for kind in self._kinds}
            self._lengths |= data.get("lengths", {})
            self._tokens = int(data["tokens"])
            corpus, rank = Path(data["corpus"]), int(config.get("rank", 16))
            self._kl_weight = float(config.get("kl_weight", 1.0))
            self._price = float(config.get("price", {}).get("eta", 0.0))
            self._spans = [list(self._draw[name]) for name in ("window", "sinks", "chunk")]
            self._stretch = list(self._draw.get("stretch", [1]))
        except KeyError as error:
            raise ConfigError(f"The config of a graft lacks {error}.") from error
        if self._stage not in STAGES:
            raise ConfigError(f"stage must be one of {', '.join(STAGES)}, not {self._stage!r}.")
        if self._stage == "transfer" and _processes() > 1:
            raise ConfigError(
                "The stage transfer trains in one process: several would not share what they learn. Start it "
                "without torchrun."
            )
        self.model = load_student(self._checkpoint)
        if self._stage != "tune":
            compile_fused()
        self._adapter = load_adapter(Path(config["adapter"])) if "adapter" in config else {}
        self._prepare(rank)
        tokenizer = AutoTokenizer.from_pretrained(self._checkpoint, local_files_only=True)
        self._train, self._held_out = (
            SequenceMaker(tokenizer, load_documents(corpus, tokenizer, held_out=side), held_out=side)
            for side in (False, True)
        )
        unknown = set(self._lengths) - set(self._train.kinds)
        if unknown:
            raise ConfigError(
                f"[data] names the kind {min(unknown)!r}; there are {', '.join(self._train.kinds)}."
            )

    def _prepare(self, rank: int) -> None:
        """Loads the adapter and leaves gradients to what this stage trains."""
        low_rank = {name: x for name, x in self._adapter.items() if ".lora_" in name}
        memory = {name: x for name, x in self._adapter.items() if ".lora_" not in name}
        self._low_rank = low_rank
        self.model.requires_grad_(False)
        if self._low_rank_learns:
            add_low_rank(self.model, rank)
            memory |= low_rank
        else:
            merge(self.model.state_dict(), low_rank)
        if self._stage != "tune" and not any(".memory." in name for name in memory):
            for module in self.model.modules():
                if isinstance(module, LongTermMemory):  # a gate of 0 would teach the memory nothing
                    nn.init.constant_(module.alpha, FIRST_GATE)
        wrong = self.model.load_state_dict(memory, strict=False).unexpected_keys
        if wrong:
            raise ConfigError(f"The adapter has {wrong[0]}, which {self._checkpoint} has no place for.")
        if _computes_bfloat16("cuda" if torch.cuda.is_available() else "cpu"):
            for layer in self.model.model.layers:  # what autocast would convert anew at each step
                for module in (*layer.mlp.children(), *layer.self_attn.children()):
                    if isinstance(module, nn.Linear):
                        module.weight.data = module.weight.data.to(torch.bfloat16)
        for module in self.model.modules():
            if isinstance(module, LowRankLinear):
                module.lora_A.requires_grad_(True)
                module.lora_B.requires_grad_(True)
            elif isinstance(module, AllMemMixer) and module.memory is not None and self._stage != "tune":
                module.memory.requires_grad_(True)

    # --- batches

    def batch(self, step: int, seed: int) -> dict[str, Tensor]:
        rng = random.Random(seed)
        kind = rng.choices(list(self._kinds), list(self._kinds.values()))[0]
        length = rng.choice(self._lengths[kind])
        window, sinks, chunk = (rng.choice(values) for values in self._spans)
        if kind != "talk":  # what talk has to teach, manners, is needed inside the window, too
            window = min(window, length // 4)  # so that most of a sequence is beyond it
        made = self._train.batch(rng, kind, max(1, self._tokens // length), length)
        spans = torch.tensor([window, sinks, min(window, chunk)])
        answer, reply = torch.from_numpy(made["answer"]), torch.from_numpy(made["reply"])
        needed = torch.from_numpy(made["needed"])
        share = KL_SHARE[self._stage]
        if kind == "talk":
            share = TALK_SHARE
        elif self._stage == "memory" and kind not in ("document", "copy") and rng.random() < 0.7:
            share = 0.0  # the teacher is expensive, and answers need none
        generator = torch.Generator().manual_seed(seed)
        teach = torch.rand(answer.shape, generator=generator) < share
        weight = torch.where(answer > 0, torch.where(answer > window, 1.0, NEAR_WEIGHT), REPLY_WEIGHT * reply)
        if kind == "copy":  # what is copied is the teacher's to say
            teach |= answer > 0
            weight.zero_()
        return {
            "input_ids": torch.from_numpy(made["ids"]),
            "spans": spans,
            "weight": weight,  # of the cross-entropy of a token
            "far": answer > window,
            "teach": teach & (weight == 0) & ~torch.from_numpy(made["wrong"]),
            "needed": needed,
            "eta_factor": torch.where(needed < 0, float(rng.choice(self._stretch)), 1.0),
        }

    # --- losses

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
        device = batch["input_ids"].device.type
        with mixed_precision(device):
            if self._stage == "transfer":
                return self._transfer_loss(batch)
            return self._answer_loss(model, batch)

    def _answer_loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
        ids, weight, teach = batch["input_ids"], batch["weight"][:, 1:], batch["teach"][:, 1:]
        where = F.pad((weight > 0) | teach, (0, 1))  # positions whose prediction counts
        if not where.any():
            where[:, 0] = True
        if self._stage == "tune":
            with full_attention(self.model):
                logits = model(input_ids=ids, logits_at=where).logits
        else:
            spans = using_spans(self.model.config, tuple(batch["spans"].tolist()))
            with spans, _stretched(self.model, batch["eta_factor"]):
                logits = model(input_ids=ids, logits_at=where).logits
        targets, weights, taught = (F.pad(x, (0, 1))[where] for x in (ids[:, 1:], weight, teach))
        losses = F.cross_entropy(logits.float(), targets, reduction="none")
        loss = (losses * weights).sum() / weights.sum().clamp_min(LEAST_WEIGHT)
        metrics: Metrics = {}
        if self._price:
            price, rates = self._learning_price(batch["needed"])
            metrics |= rates
            loss = loss + self._price * price
        far = F.pad(batch["far"][:, 1:], (0, 1))[where] & (weights > 0)
        if far.any():
            metrics["far_loss"] = losses[far].mean().item()
            metrics["far_right"] = (logits[far].argmax(-1) == targets[far]).float().mean().item()
        if taught.any():
            kl = divergence(self._teach(ids, where)[taught], logits[taught]).mean()
            metrics["kl"] = kl.item()
            loss = loss + self._kl_weight * kl
        return loss, metrics

    def _learning_price(self, needed: Tensor) -> tuple[Tensor, Metrics]:
        """What η costs, and its means over what is told and over filler; η in units of its first value.

        Filler pays η in proportion. What is told pays when η leaves [0.5, 2], by the square of the logarithm:
        otherwise the price would first of all lower the bias that both share, and a memory that learns much
        faster than it was made for diverges.
        """
        eta = last_etas(self.model) / self.model.config.eta_init  # [layers, B, T, K]
        price, metrics = eta.new_zeros(()), Metrics()
        if (needed < 0).any():
            filler = eta[:, needed < 0].mean()
            price, metrics["eta_filler"] = price + filler, filler.item()
        if (needed > 0).any():
            told = eta[:, needed > 0]
            price = price + F.relu(told.clamp_min(1e-9).log().abs() - math.log(2)).square().mean()
            metrics["eta_told"] = told.mean().item()
        return price, metrics

    @torch.no_grad()
    def _teach(self, ids: Tensor, where: Tensor) -> Tensor:
        """The teacher's logits at `where`, [N, vocab]: of the base, or later of the tuned base."""
        with full_attention(self.model), without_updates(self.model):
            logits: Tensor = self.model(input_ids=ids, logits_at=where).logits
        return logits

    def _transfer_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
        """Σ over layers of ‖W_o (full − window − memory)‖² / ‖W_o (full − window)‖², answers 5 times."""
        spans = tuple(batch["spans"].tolist())
        weight = torch.ones_like(batch["weight"])
        weight[:, :-1] += 4.0 * (batch["far"] & (batch["weight"] > 0))[:, 1:]
        weight[:, : spans[0]] = 0.0
        errors: list[Tensor] = []
        model, config = self.model.model, self.model.config
        inv_freq, scale = model.rotary_emb.inv_freq, model.rotary_emb.attention_scaling
        x = model.embed_tokens(batch["input_ids"])
        for layer in model.layers:
            with torch.no_grad(), full_attention(self.model):
                h = layer.input_layernorm(x)
                full = layer.self_attn(h, inv_freq, scale)
                x = x + full
                x = x + layer.mlp(layer.post_attention_layernorm(x))
            if layer.self_attn.memory is None:
                continue
            with using_spans(config, spans):
                window, memory = layer.self_attn.parts(h, inv_freq, scale)
                missing = (full - window).detach()
                error = missing.float() - memory.float()
            energy = (missing.float().square().sum(-1) * weight).sum()
            errors.append((error.square().sum(-1) * weight).sum() / energy.clamp_min(1e-9))
        stacked = torch.stack(errors)
        return stacked.sum(), {"unexplained": stacked.mean().item()}

    # --- evaluation

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Metrics:
        """Share of held-out values, and of their tokens, predicted right (given the tokens before them)."""
        device = next(model.parameters()).device
        results: Metrics = {}
        for distance in self._evaluation["distances"]:
            rng, count = random.Random(f"evaluation {distance}"), int(self._evaluation["sequences"])
            maker = self._held_out
            sets = {
                "chat": [maker.recall(rng, distance, 5) for _ in range(count)],
                "needle": [maker.needle_recall(rng, distance, 5) for _ in range(count)],
                "list": [maker.list(rng, 0, distance) for _ in range(count)],
            }
            for name, sequences in sets.items():
                values, tokens = zip(*(self._right(seq, device) for seq in sequences), strict=True)
                results[f"{name}_{distance}"] = sum(map(sum, values)) / sum(map(len, values))
                results[f"{name}_{distance}_tokens"] = sum(map(sum, tokens)) / sum(map(len, tokens))
        results["document_kl"] = self._document_kl(device)
        return results

    @torch.no_grad()
    def _right(self, seq: Sequence, device: torch.device) -> tuple[list[bool], list[bool]]:
        """Which values, and which of their tokens, are predicted right."""
        ids = torch.tensor(seq.ids, device=device)[None]
        where = torch.zeros_like(ids, dtype=torch.bool)
        for start, end, _ in seq.answers:
            where[0, start - 1 : end - 1] = True
        predicted = self._run(ids, where).argmax(-1)
        right = torch.zeros(ids.shape[1], dtype=torch.bool)
        right[1:][where[0, :-1].cpu()] = (predicted == ids[0, 1:][where[0, :-1]]).cpu()
        spans = [right[start:end].tolist() for start, end, _ in seq.answers]
        return [all(span) for span in spans], [token for span in spans for token in span]

    def _run(self, ids: Tensor, where: Tensor) -> Tensor:
        """Logits of the model as this stage uses it: full attention while the base is tuned."""
        with mixed_precision(ids.device.type):
            if self._stage == "tune":
                with full_attention(self.model):
                    logits: Tensor = self.model(input_ids=ids, logits_at=where).logits
            else:
                logits = self.model(input_ids=ids, logits_at=where).logits
        return logits

    @torch.no_grad()
    def _document_kl(self, device: torch.device) -> float:
        """KL from the teacher to the model on held-out documents, mean of two sequences of 1,024 tokens."""
        rng, total = random.Random("documents"), 0.0
        for _ in range(2):
            ids = torch.tensor(self._held_out.document(rng, 1024).ids[:1024], device=device)[None]
            where = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)).to(device) < 0.2
            with mixed_precision(device.type):
                teacher = self._teach(ids, where)
            total += divergence(teacher, self._run(ids, where)).mean().item()
        return total / 2

    def save(self, model: nn.Module, out: Path) -> None:
        """adapter.safetensors (memory and low-rank update), config.json and the tokenizer beside it."""
        assert isinstance(model, AllMemForCausalLM)
        save_file({**self._low_rank, **learned(model.state_dict())}, out / "adapter.safetensors")
        model.config.save_pretrained(out)
        (out / "base.json").write_text(json.dumps({"checkpoint": str(self._checkpoint)}) + "\n")
        for name in COPIED:
            if (self._checkpoint / name).is_file():
                shutil.copyfile(self._checkpoint / name, out / name)


def learned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of a model's tensors that a graft trains: the memory's and the low-rank update's."""
    return {name: x for name, x in tensors.items() if ".self_attn.memory." in name or ".lora_" in name}


def load_adapter(path: Path) -> dict[str, Tensor]:
    """The tensors of an adapter, in float32. Raises ConfigError."""
    try:
        return {name: value.float() for name, value in load_file(path).items()}
    except (OSError, ValueError) as error:
        raise ConfigError(f"The adapter {path} cannot be read: {' '.join(str(error).split())}") from error
