"""The bundled model's task: dialogues in which facts are told, and asked for at every distance.

Only the assistant's words are learned. Training begins with short, dense dialogues whose answers lie inside
the window and just beyond it, so that attention learns the binding that the memory then stores, and goes on
to longer and sparser ones (docs/model.md, "How the bundled model was trained").
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerFast

from allmem_edge.dialogues import Generator, Turn

from .bundled_tokenizer import save_tokenizer, train_tokenizer
from .configuration import AllMemConfig
from .fused import compile_fused
from .modeling import AllMemForCausalLM, last_etas
from .task import ConfigError, Metrics


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum. Ranges are [low, high], drawn anew for every sequence."""

    share: float  # of all steps
    length: int  # tokens of a sequence
    batch: int  # sequences of a batch
    facts: tuple[int, int]
    filler: tuple[float, float]  # share of small talk
    spread: tuple[float, float] = (0.7, 0.7)  # the first part of the dialogue, in which facts are told
    unknown: float = 0.06  # share of questions about what was never told

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> Stage:
        """A [[stage]] of a config, whose ranges are lists."""
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
        return cls(**settings)


@dataclass
class Encoded:
    """A dialogue as tokens; weight and answer describe the token at the same place."""

    ids: list[int]
    weight: list[float]  # of this token in the loss; answers to questions weigh more
    answer: list[int]  # 0: not part of an answer's value; else 1 + the number of the question
    idle: list[bool]  # part of small talk, which need not be remembered


class DialogueEncoder:
    """Turns -> tokens in ChatML, with the places of the answers."""

    def __init__(self, tokenizer: Any, answer_weight: float = 1.0) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._answer_weight = answer_weight
        self._before_user = self.ids("<|im_start|>user\n")
        self._before_assistant = self.ids("<|im_end|>\n<|im_start|>assistant\n")
        self._end, self._newline = self.ids("<|im_end|>"), self.ids("\n")

    def ids(self, text: str) -> list[int]:
        """Ids of a text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode(self, turns: list[Turn]) -> Encoded:
        """All turns of a dialogue, from its first token."""
        texts = [text for turn in turns for text in (turn.user, turn.assistant)]
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        out = Encoded([], [], [], [])
        questions = 0

        def add(ids: list[int], weight: float) -> None:
            out.ids += ids
            out.weight += [weight] * len(ids)
            out.answer += [0] * len(ids)
            out.idle += [turn.kind == "small_talk"] * len(ids)

        for turn, user, assistant in zip(turns, encodings[::2], encodings[1::2], strict=True):
            add(self._before_user + user.ids + self._before_assistant, 0.0)
            first = len(out.ids)
            asked = turn.kind in ("ask", "ask_unknown")  # its first words show if it is known
            add(assistant.ids + self._end, self._answer_weight if asked else 1.0)
            if turn.answer is not None:
                questions += 1
                begin = turn.assistant.index(turn.answer)
                for i, (a, b) in enumerate(assistant.offsets):
                    if a < begin + len(turn.answer) and b > begin:
                        out.answer[first + i] = questions
            add(self._newline, 0.0)
        return out


def pad(encoded: list[Encoded], length: int | None = None) -> dict[str, Tensor]:
    """Stacks dialogues into [B, T] tensors, cut or padded on the right to `length` (default: the longest)."""
    length = length or max(len(e.ids) for e in encoded)

    def stack(rows: list[list[Any]], dtype: torch.dtype) -> Tensor:
        return torch.tensor([(row + [0] * length)[:length] for row in rows], dtype=dtype)

    return {
        "input_ids": stack([e.ids for e in encoded], torch.long),
        "weight": stack([e.weight for e in encoded], torch.float),
        "answer": stack([e.answer for e in encoded], torch.long),
        "idle": stack([e.idle for e in encoded], torch.bool),
    }


def answer_accuracy(logits: Tensor, ids: Tensor, answer: Tensor) -> tuple[int, int]:
    """How many questions have every token of their value predicted right: (right, total).

    logits [B, T, vocab], ids and answer [B, T] as pad() makes them.
    """
    wrong = (logits[:, :-1].argmax(-1) != ids[:, 1:]) & (answer[:, 1:] > 0)
    right = total = 0
    for row_wrong, row_answer in zip(wrong, answer[:, 1:], strict=True):
        questions = set(row_answer[row_answer > 0].tolist())
        missed = set(row_answer[row_wrong].tolist())
        right += len(questions - missed)
        total += len(questions)
    return right, total


@torch.no_grad()
def start_from(model: AllMemForCausalLM, init: AllMemForCausalLM) -> None:
    """Copies init's parameters into a model of the same shape, or one whose memories have more hidden units.

    A new unit keeps its random input weights and gets output weights of zero, so that both models read the
    same from memories that have not been written.
    """
    started = init.state_dict()
    for name, target in model.state_dict().items():
        source = started[name]
        if name.endswith("memory.weight_down"):
            target.zero_()
        if name.endswith(("memory.weight_gate", "memory.weight_up", "memory.weight_down")):
            target = target[tuple(slice(n) for n in source.shape)]
        if target.shape != source.shape:
            raise ConfigError(
                f"`init` does not fit the config's model: {name} is {list(source.shape)} there and "
                f"{list(target.shape)} here. Only memory_ratio may be larger than init's."
            )
        target.copy_(source)


class DialogueTask:
    """Trains an AllMem model from scratch on generated dialogues (a Task of task.py)."""

    def __init__(self, config: dict[str, Any]) -> None:
        try:
            self._stages = [Stage.from_table(table) for table in config["stage"]]
            self.tokenizer = self._tokenizer(config)
            self._model_settings: dict[str, Any] = config["model"]
        except (KeyError, TypeError) as error:
            names = ", ".join(field.name for field in fields(Stage))
            raise ConfigError(
                f"The config of a dialogues run is incomplete: {error}. A stage has {names}."
            ) from error
        self._steps = int(config["optimizer"]["steps"])
        self._encoder = DialogueEncoder(self.tokenizer, float(config.get("answer_weight", 1.0)))
        self._idle_cost = float(config.get("idle_cost", 0.0))
        self._eval_cases = int(config.get("eval_cases", 16))
        if config.get("fused", False):  # the memory's and the window's operations, compiled for this machine
            compile_fused()
        self.model = self._new_model()
        if "init" in config:  # go on from a finished checkpoint with the same tokenizer
            start_from(self.model, AllMemForCausalLM.from_pretrained(config["init"]))

    @staticmethod
    def _tokenizer(config: dict[str, Any]) -> Any:
        """That of `init`, or the run's own: trained at its start, and kept in `out` for a resumed run."""
        out = Path(config.get("init", config["out"]))
        if not (out / "tokenizer.json").exists():
            settings = config["tokenizer"]
            out.mkdir(parents=True, exist_ok=True)
            save_tokenizer(
                train_tokenizer(settings["vocab_size"], settings["dialogues"], int(config["seed"])), out
            )
        return PreTrainedTokenizerFast.from_pretrained(str(out))

    def _new_model(self) -> AllMemForCausalLM:
        return AllMemForCausalLM(
            AllMemConfig(
                vocab_size=len(self.tokenizer),
                eos_token_id=self.tokenizer.eos_token_id,
                pad_token_id=None,
                bos_token_id=None,
                **self._model_settings,
            )
        )

    def stage(self, step: int) -> Stage:
        """The stage that a step belongs to."""
        done = 0.0
        for stage in self._stages:
            done += stage.share
            if step < done * self._steps:
                return stage
        return self._stages[-1]

    def batch(self, step: int, seed: int) -> dict[str, Tensor]:
        stage, rng = self.stage(step), random.Random(seed)
        return pad([self._sequence(stage, rng) for _ in range(stage.batch)], stage.length)

    def _sequence(self, stage: Stage, rng: random.Random) -> Encoded:
        """One dialogue of at least stage.length tokens."""
        filler, spread = rng.uniform(*stage.filler), rng.uniform(*stage.spread)
        turns = max(stage.length // 24, stage.facts[0] + 1)
        facts = min(rng.randint(*stage.facts), turns)
        while True:
            generator = Generator(rng.getrandbits(48))
            dialogue = generator.dialogue(turns, facts, filler, spread=spread, unknown=stage.unknown)
            encoded = self._encoder.encode(dialogue)
            if len(encoded.ids) >= stage.length:
                return encoded
            turns += 1 + turns // 8

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
        out = model(input_ids=batch["input_ids"], label_weights=batch["weight"])
        with torch.no_grad():  # how many of the answers' tokens come out right
            labels = batch["input_ids"][:, 1:][batch["weight"][:, 1:] > 0]
            in_answer = batch["answer"][:, 1:][batch["weight"][:, 1:] > 0] > 0
            right = (out.logits.argmax(-1) == labels)[in_answer].float().mean().item()
        idle = self._idle_writing(batch["idle"])
        return out.loss + self._idle_cost * idle, {"answer_tokens": right, "idle_writing": idle.item()}

    def _idle_writing(self, idle: Tensor) -> Tensor:
        """How strongly small talk is written into the memory: mean log(1 + η/1e-3) over its tokens [B, T]."""
        if self.model.config.memory_layers == [] or not idle.any():
            return torch.zeros((), device=idle.device)
        etas = last_etas(self.model)  # [L, B, T, K]
        return torch.log1p(etas[:, idle] / 1e-3).mean()

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Metrics:
        """Recall of held-out values, told 4 facts at a time, 8 and 32 windows before the questions."""
        window = self._model_settings["window"]
        return {f"recall_{n}w": self.recall(model, n * window) for n in (1, 8, 32)}

    def recall(self, model: nn.Module, distance: int) -> float:
        """Share of values fully recalled `distance` tokens after they were told (teacher-forced)."""
        right = total = 0
        for case in range(self._eval_cases):
            generator = Generator(900_000 + case, held_out=True)
            turns = generator.recall_case(distance, lambda text: len(self._encoder.ids(text)), 4)
            batch = pad([self._encoder.encode(turns)])
            logits = model(input_ids=batch["input_ids"].to(next(model.parameters()).device)).logits.cpu()
            r, t = answer_accuracy(logits, batch["input_ids"], batch["answer"])
            right, total = right + r, total + t
        return right / total

    def save(self, model: nn.Module, out: Path) -> None:
        assert isinstance(model, AllMemForCausalLM)
        model.generation_config = GenerationConfig(
            do_sample=True, temperature=0.3, top_p=0.9, eos_token_id=self.tokenizer.eos_token_id
        )
        model.save_pretrained(str(out))
        save_tokenizer(self.tokenizer, out)
