"""`allmem-edge train CONFIG.toml`: the training loop, the same for every task.

The loop stands on accelerate, so one config runs on a CPU, a GPU or, under torchrun, on many machines. What
is trained, on what and with which loss is a Task (dialogue_task.py, distill_task.py, graft_task.py,
qwen3_task.py), named by `task` in the config. A batch depends only on (seed, step, process), never on what
came before: a resumed run sees what an uninterrupted one sees.

    task = "dialogues"            # the Task
    seed = 1
    out = "runs/small"            # checkpoint/, metrics.jsonl and the finished model
    [optimizer]
    steps = 1000
    learning_rate = 2e-3
    warmup = 100                  # steps of linear warm-up; then a cosine down to final_fraction
    final_fraction = 0.05
    weight_decay = 0.01
    kind = "adamw"                # or "muon", with muon_learning_rate
    clip = 1.0                    # gradient norm
    log_every = 50                # steps between lines of metrics
    save_every = 500              # steps between checkpoints (what --resume continues from)
    keep = 1                      # of them, the last ones; average.py takes their mean
    workers = 0                   # processes that prepare batches ahead; a GPU needs some
    rates = { eta_proj = 0.3 }    # factors on the learning rate of parameters with this in their name
    [model] …  [task settings] …  # the Task's own tables
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from .dialogue_task import DialogueTask
from .distill_task import DistillTask
from .graft_task import GraftTask
from .muon import Muon
from .qwen3_task import Qwen3Task
from .task import ConfigError, Metrics, Task

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TASKS: dict[str, Callable[[dict[str, Any]], Task]] = {
    "dialogues": DialogueTask,
    "distill": DistillTask,
    "graft": GraftTask,
    "qwen3": Qwen3Task,
}


def load_config(path: Path) -> dict[str, Any]:
    """Reads a training config. Raises ConfigError with a sentence."""
    try:
        config: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the training config {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    for key in ("task", "seed", "out", "optimizer"):
        if key not in config:
            raise ConfigError(f"{path} lacks `{key}`.")
    return config


def make_task(config: dict[str, Any]) -> Task:
    """The Task that the config names."""
    task = TASKS.get(str(config["task"]))
    if task is None:
        raise ConfigError(f"Unknown task {config['task']!r}: this version has {', '.join(TASKS)}.")
    return task(config)


def learning_rate_factor(step: int, steps: int, warmup: int, final_fraction: float) -> float:
    """Linear warm-up, then a cosine from 1 down to final_fraction at the last step."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimizers(model: nn.Module, settings: dict[str, Any]) -> list[torch.optim.Optimizer]:
    """AdamW over what requires gradients; "muon": Muon for the layers' matrices.

    What has two axes or more decays: matrices, and the scales, biases and maps of single heads as well.
    A model this small learns recall from about half as many tokens with Muon (docs/model.md).
    """
    rate, decay = float(settings["learning_rate"]), float(settings.get("weight_decay", 0.01))
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    kind = settings.get("kind", "adamw")
    if kind not in ("adamw", "muon"):
        raise ConfigError(f'optimizer.kind must be "adamw" or "muon", not {kind!r}.')
    muon = {
        name
        for name, p in named
        if kind == "muon" and p.ndim == 2 and name.endswith("_proj.weight") and min(p.shape) > 8
    }
    factors: dict[str, float] = settings.get("rates", {})
    by_kind: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in named:
        if name not in muon:
            factor = next((float(f) for part, f in factors.items() if part in name), 1.0)
            by_kind.setdefault((factor, decay if p.ndim >= 2 else 0.0), []).append(p)
    groups = [{"params": ps, "lr": rate * f, "weight_decay": d} for (f, d), ps in by_kind.items()]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))]
    if muon:
        matrices = [p for name, p in named if name in muon]
        optimizers.append(Muon(matrices, lr=float(settings["muon_learning_rate"]), weight_decay=decay))
    return optimizers


class Log:
    """Progress bar on a terminal, plain lines elsewhere, and every figure in metrics.jsonl."""

    def __init__(self, out: Path, steps: int, quiet: bool) -> None:
        self._file = (out / "metrics.jsonl").open("a", encoding="utf-8") if not quiet else None
        self._console = Console(stderr=True, quiet=quiet)
        columns = (
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self._progress = Progress(
            *columns, console=self._console, disable=quiet or not self._console.is_terminal
        )
        self._bar = self._progress.add_task("", total=steps)

    def __enter__(self) -> Log:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        if self._file:
            self._file.close()

    def step(self, step: int) -> None:
        self._progress.update(self._bar, completed=step)

    def write(self, step: int, metrics: Metrics) -> None:
        text = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self._progress.update(self._bar, description=text)
        if not self._console.is_terminal:
            self._console.print(f"step {step}  {text}", highlight=False, soft_wrap=True)
        if self._file:
            self._file.write(json.dumps({"step": step, **metrics}) + "\n")
            self._file.flush()


def _accelerator() -> Accelerator:
    """One process, or its share of a torchrun; accelerate alone would not join processes that have no GPU."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return Accelerator(cpu=several and not torch.accelerator.is_available())


def train(config_path: Path, *, resume: bool = False) -> None:
    """Runs a training config to its end and saves the model in its `out`.

    `resume` continues from the last checkpoint under `out`, if there is one. Raises ConfigError.
    """
    config = load_config(config_path)
    settings, seed, out = config["optimizer"], int(config["seed"]), Path(config["out"])
    steps = int(settings["steps"])
    accelerator = _accelerator()
    set_seed(seed)
    task = make_task(config)
    model, *optimizers = accelerator.prepare(task.model, *make_optimizers(task.model, settings))
    accelerator.register_save_state_pre_hook(_without_frozen)
    out.mkdir(parents=True, exist_ok=True)
    start = 0
    if resume and (checkpoint := last_checkpoint(out)):
        accelerator.load_state(str(checkpoint), strict=False)
        start = int(json.loads((checkpoint / "step.json").read_text())["step"])

    with Log(out, steps, quiet=not accelerator.is_main_process) as log:
        _run_steps(config, task, accelerator, model, optimizers, start, steps, out, log)
        if accelerator.is_main_process:
            log.write(steps, task.evaluate(accelerator.unwrap_model(model)))
            task.save(accelerator.unwrap_model(model), out)
    accelerator.end_training()


def _without_frozen(models: list[nn.Module], weights: list[dict[str, Tensor]], _: str) -> None:
    """Leaves out of a checkpoint what training does not change."""
    for model, state in zip(models, weights, strict=True):
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if not parameter.requires_grad:
                state.pop(name, None)


def checkpoints(out: Path) -> list[Path]:
    """The complete checkpoints of a run, newest last; one that a kill cut short has no step.json."""
    complete = [path.parent for path in out.glob("checkpoint*/step.json")]
    return sorted(complete, key=lambda path: int(path.name.partition("-")[2] or 0))


def last_checkpoint(out: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    return next(reversed(checkpoints(out)), None)


def save_checkpoint(accelerator: Accelerator, out: Path, step: int, keep: int) -> None:
    """Writes checkpoint-STEP and removes all but the last `keep` once it is complete."""
    target = out / f"checkpoint-{step}"
    accelerator.save_state(str(target))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (target / "step.json").write_text(json.dumps({"step": step}))
        complete = checkpoints(out)  # beyond this step: of an earlier run, which is not what goes on
        kept = complete[: complete.index(target) + 1][-keep:]
        for old in out.glob("checkpoint*"):
            if old not in kept:
                shutil.rmtree(old)


class Batches(Dataset[dict[str, Tensor]]):
    """The batches of a run by step."""

    def __init__(self, task: Task, seed: int, process: int, steps: int) -> None:
        self._task, self._seed, self._process, self._steps = task, seed, process, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self._task.batch(step, hash((self._seed, step, self._process)) & 0x7FFFFFFF)


def _run_steps(
    config: dict[str, Any],
    task: Task,
    accelerator: Accelerator,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    start: int,
    steps: int,
    out: Path,
    log: Log,
) -> None:
    settings = config["optimizer"]
    log_every, save_every = int(settings.get("log_every", 50)), int(settings.get("save_every", 500))
    keep = max(1, int(settings.get("keep", 1)))
    warmup = int(settings.get("warmup", 0))
    final_fraction = float(settings.get("final_fraction", 0.05))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:
        group.setdefault("initial_lr", group["lr"])  # resumed groups carry theirs
    seen_tokens, since = 0, time.monotonic()
    totals: dict[str, list[float]] = {}
    model.train()
    batches = Batches(task, int(config["seed"]), accelerator.process_index, steps)
    workers = int(settings.get("workers", 0))
    loader = DataLoader(
        Subset(batches, range(start, steps)),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    for step, made in enumerate(loader, start):
        factor = learning_rate_factor(step, steps, warmup, final_fraction)
        for group in groups:
            group["lr"] = group["initial_lr"] * factor
        batch = {name: value.to(accelerator.device) for name, value in made.items()}
        loss, metrics = task.loss(model, batch)
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), float(settings.get("clip", 1.0)))
        if norm is None or torch.isfinite(norm):  # one bad batch must not undo hours
            for optimizer in optimizers:
                optimizer.step()
        model.zero_grad(set_to_none=True)

        seen_tokens += batch["input_ids"].numel()
        for name, value in {"loss": loss.item(), **metrics}.items():
            totals.setdefault(name, []).append(value)
        done = step + 1
        log.step(done)
        if done % log_every == 0:
            rate = seen_tokens / (time.monotonic() - since)
            means = {name: sum(values) / len(values) for name, values in totals.items()}
            log.write(done, {**means, "lr": groups[0]["lr"], "tokens_per_s": rate})
            seen_tokens, since, totals = 0, time.monotonic(), {}
        if done % save_every == 0 and done < steps:
            save_checkpoint(accelerator, out, done, keep)
            if accelerator.is_main_process:
                model.eval()
                log.write(done, task.evaluate(accelerator.unwrap_model(model)))
                model.train()
            since = time.monotonic()
