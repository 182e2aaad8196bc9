"""allmem-edge against llama.cpp: the same shape, bits, cores and threads, side by side in one run.

    python bench/against_llama_cpp.py --dir MODELS --rival RIVAL/bin/python --json report.json

MODELS is a directory for the models (2 GB), made at the first run, which needs allmem-edge[export]:

    allmem-edge convert --random --like qwen3-0.6b --out MODELS/qwen3-0.6b
    allmem-edge export MODELS/qwen3-0.6b --out MODELS/qwen3-0.6b-int4-pure --quantize int4-pure

The rival's file has the same shape and random weights in Q4_0 everywhere, the vocabulary included
(write_gguf.py). `--vocabulary 8` gives both a finer vocabulary, as their users have it: 8 bits here, Q6_K
there.

The rival is llama-cpp-python, compiled here in an environment of its own; --no-cache-dir keeps pip from
taking what it compiled with other options before:

    python -m venv RIVAL
    CC=clang CXX=clang++ CMAKE_ARGS="-DGGML_NATIVE=ON" \\
      RIVAL/bin/pip install --no-cache-dir --no-binary llama-cpp-python llama-cpp-python gguf

GGML_NATIVE turns on all that the processor has, AMX too. (GCC 12 miscompiles the loading of AMX's
tile configuration: the rival then crashes at its first prefill. Hence Clang; 14 does not know AMX by the
name that the rival asks for, 19 does.) Its AMX path need not be its
fastest: give a build without it as well, with a second --rival, compiled with

    -DGGML_NATIVE=OFF -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON
    -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON

and for `--isa avx2`, which limits both sides to AVX2, one compiled with the first line alone.

For a real model, `--ours DIR --theirs FILE` names a model directory and the GGUF file of the same base.

Compared are one call that reads 512 tokens and calls that read one token each, with the logits of the last
token only, at several depths of context. Each side is a process of its own; they run in turn, one
repetition each. The rival runs in several settings (flash attention off and on, K/V in f16 and q8_0 or K
alone, weights repacked and not), and every row takes its fastest one. Figures are medians over the
repetitions.

The rival reads its whole context. Ours reads until its window is full and is then placed further on
(allmem_edge.cli.bench.go_to_depth): from there on no work depends on the number of tokens read. Beyond an
empty context it writes a whole chunk, so that one update of the memory is in every repetition.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from allmem_edge import _core
from allmem_edge.cost import Cost, Shape
from shapes import state_of
from table import markdown, table
from worker import Worker

HERE = Path(__file__).parent
READ = 512  # tokens of a prefill
WRITE = 64  # tokens of a decode run
FAR = 131_072  # where ours is measured as well, and states are compared
REST = 0.3  # seconds between two sides: the threads of a side spin for a while before they sleep
SETTINGS = {  # of the rival
    "f16": {"flash": "off", "kv": "f16", "repack": "on", "mmap": "on"},
    "f16 flash": {"flash": "on", "kv": "f16", "repack": "on", "mmap": "on"},
    "q8_0 flash": {"flash": "on", "kv": "q8_0", "repack": "on", "mmap": "on"},
    "q8_0 keys": {"flash": "off", "kv": "q8_0", "repack": "on", "mmap": "on"},  # values need flash
    "f16 as mapped": {"flash": "off", "kv": "f16", "repack": "off", "mmap": "on"},
}
# Only started: repacked weights are as fast however they were read, but the mapped file takes room, too.
UNMAPPED = {"flash": "on", "kv": "f16", "repack": "on", "mmap": "off"}


def say(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


def our_model(folder: Path, like: str, quantize: str) -> Path:
    """The model directory, made if it is not there."""
    checkpoint, out = folder / like, folder / f"{like}-{quantize}"
    command = [sys.executable, "-m", "allmem_edge"]
    if not out.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        if not checkpoint.is_dir():
            subprocess.run([*command, "convert", "--random", "--like", like, "--out", checkpoint], check=True)
        subprocess.run([*command, "export", checkpoint, "--out", out, "--quantize", quantize], check=True)
    return out


def rival_model(folder: Path, like: str, vocabulary: str, config: Path, python: str) -> Path:
    """The rival's file, made if it is not there."""
    out = folder / f"{like}-{vocabulary}.gguf"
    if not out.is_file():
        partial = out.with_suffix(".partial")
        command = [python, str(HERE / "write_gguf.py"), str(config), str(partial), "--vocabulary", vocabulary]
        subprocess.run(command, check=True)
        partial.rename(out)
    return out


class Sides:
    """The models, and how to start a worker of each side."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        quantize, vocabulary = {4: ("int4-pure", "q4_0"), 8: ("int4", "q6_k")}[args.vocabulary]
        self.our_model = args.ours or our_model(args.dir, args.like, quantize)
        config = self.our_model / "config.json"
        self.config: dict[str, Any] = json.loads(config.read_text())
        self.rival_model = args.theirs or rival_model(args.dir, args.like, vocabulary, config, args.rival[0])
        self.rivals = {  # name -> (python, settings)
            f"{setting}, build {build}" if len(args.rival) > 1 else setting: (python, SETTINGS[setting])
            for (build, python), setting in itertools.product(enumerate(args.rival, 1), args.setting)
        }
        self.started = self.rivals | {"f16 flash, not mapped": (args.rival[0], UNMAPPED)}
        weights = (self.our_model / "model.onnx.data").stat().st_size
        shape = Shape.from_config(self.config)
        assert shape is not None, "config.json lacks a size"
        self.token_bytes = int(Cost(shape, weights, exact=False).decode(max(args.depths)).bytes)

    def start(self, name: str, context: int) -> Worker:
        """A worker of "ours" or of a rival by name; the rival's has room for `context` tokens."""
        if name == "ours":
            return our_worker(name, self.our_model, self.args)
        python, settings = self.started[name]
        return rival_worker(name, python, self.rival_model, settings, context, self.args)


def our_worker(name: str, model: Path, args: argparse.Namespace, *options: str) -> Worker:
    """A process of our side; `args`: threads, cores, isa; `options`: more of side_allmem.py's."""
    command = [sys.executable, str(HERE / "side_allmem.py"), "--model", str(model), *_common(args), *options]
    return Worker(name, command, {} if args.isa == "best" else {"ALLMEM_ISA": args.isa})


def rival_worker(
    name: str, python: str, model: Path, settings: dict[str, str], context: int, args: argparse.Namespace
) -> Worker:
    """A process of the rival's, with room for `context` tokens."""
    command = [python, str(HERE / "side_llama_cpp.py"), "--model", str(model), *_common(args)]
    options = [text for key, value in settings.items() for text in (f"--{key}", value)]
    return Worker(name, [*command, *options, "--context", str(context)])


def _common(args: argparse.Namespace) -> list[str]:
    return ["--threads", str(args.threads), "--cores", args.cores]


def check_rival(system: str, isa: str) -> None:
    """Refuses a rival that was not built for what is measured. `system`: its line of features."""
    features = {part.split("=")[0].split(":")[-1].strip() for part in system.split("|") if "= 1" in part}
    more = {"AVX512", "AVX512_VNNI", "AVX_VNNI", "AMX_INT8"}
    if isa == "avx2" and ("AVX2" not in features or features & more):
        raise SystemExit(f"With --isa avx2 the rival must have AVX2 and no more, but it has: {system}")
    if isa == "best" and "avx512_vnni" in cpu_facts()["flags"] and "AVX512_VNNI" not in features:
        raise SystemExit(f"This machine has AVX-512 VNNI, but the rival was built without: {system}")


def once(worker: Worker, depth: int, write: int) -> dict[str, float]:
    """Tokens per second of one repetition at `depth`."""
    worker.ask("go_to", depth=depth)
    read_s = worker.ask("read", tokens=READ)["seconds"]
    worker.ask("go_to", depth=max(1, depth))  # a token without any context is no ordinary one
    write_s = worker.ask("write", tokens=write)["seconds"]
    time.sleep(REST)
    return {"read": READ / read_s, "write": write / write_s}


def measure(sides: Sides, args: argparse.Namespace) -> dict[str, Any]:
    """Loads all sides, then lets them run in turn at each depth."""
    context = room(max(args.depths))
    workers = {name: sides.start(name, context) for name in ("ours", *sides.rivals)}
    loads = {name: worker.ask("load") for name, worker in workers.items()}
    for name, facts in loads.items():
        say(f"{name}: {facts['system']}")
        if name != "ours":
            check_rival(facts["system"], args.isa)
    chunk = loads["ours"]["chunk"]
    results: dict[tuple[str, int], list[dict[str, float]]] = {}
    machine: list[dict[str, float]] = []
    runs: dict[str, str] = {}
    for depth in args.depths:
        ours_at = [depth, *(args.far if depth == max(args.depths) else [])]
        lanes = [("ours", at) for at in ours_at] + [(name, depth) for name in sides.rivals]
        runs |= in_turn(workers, lanes, {"ours": chunk}, args.repeat, results)
        machine.append(workers["ours"].ask("machine", bytes=sides.token_bytes))
    facts = {name: worker.ask("facts") for name, worker in workers.items()}
    for worker in workers.values():
        worker.close()
    return {
        "sides": {name: {"load": loads[name], "facts": facts[name]} for name in workers},
        "runs": runs,
        "machine_speed": {key: max(speeds[key] for speeds in machine) for key in machine[0]},
        "speeds": speeds_of(results),
    }


def room(depth: int) -> int:
    """Tokens of context that a rival needs to be measured at `depth`."""
    return -(-(depth + READ + WRITE) // 256) * 256


def in_turn(
    workers: dict[str, Worker],
    lanes: list[tuple[str, int]],
    chunks: dict[str, int],
    repeat: int,
    results: dict[tuple[str, int], list[dict[str, float]]],
) -> dict[str, str]:
    """Measures each lane (name, depth) `repeat` times, one after the other; says how depths were reached.

    chunks: by name, of sides that write a whole chunk beyond an empty context, for the update of the memory.
    """
    runs = {}
    for name, at in lanes:
        say(f"{name}: going to a depth of {at:,}")
        runs[f"{name} at {at}"] = workers[name].ask("go_to", depth=at)["run"]
        once(workers[name], at, 1)  # touches every page that the repetitions use
    for repetition, (name, at) in itertools.product(range(1, repeat + 1), lanes):
        result = once(workers[name], at, chunks.get(name, WRITE) if at > 0 else WRITE)
        results.setdefault((name, at), []).append(result)
        speeds = f"reads {result['read']:.1f}, writes {result['write']:.2f} tokens/s"
        say(f"depth {at:,}, repetition {repetition}, {name}: {speeds}")
    return runs


def speeds_of(results: dict[tuple[str, int], list[dict[str, float]]]) -> list[dict[str, Any]]:
    """A row for each side and depth."""
    return [
        {
            "side": name,
            "depth": depth,
            **{what: summary([x[what] for x in values]) for what in ("read", "write")},
        }
        for (name, depth), values in results.items()
    ]


def measure_starts(sides: Sides, args: argparse.Namespace) -> dict[str, Any]:
    """Load times and memory of fresh processes, in turn, with the files in the page cache."""
    starts: dict[str, list[dict[str, Any]]] = {}
    for _ in range(args.repeat):
        for name in ("ours", *sides.started):
            worker = sides.start(name, 2 * READ)
            start = worker.ask("load")
            worker.ask("read", tokens=READ)
            worker.ask("write", tokens=WRITE)
            starts.setdefault(name, []).append(start | worker.ask("facts"))
            worker.close()
    return {
        name: {
            "load_s": summary([x["load_s"] for x in values]),
            "first_logits_s": summary([x["first_logits_s"] for x in values]),
            "peak_bytes": summary([x["memory"]["peak"] for x in values]),
            **{key: values[-1][key] for key in ("memory", "memory_before", "state_bytes", "file_bytes")},
        }
        for name, values in starts.items()
    }


def summary(values: list[float]) -> dict[str, Any]:
    """Median, quartiles, standard deviation, and the values."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {
        "median": statistics.median(values),
        "quartiles": [quartiles[0], quartiles[-1]],
        "deviation": statistics.pstdev(values),
        "all": values,
    }


def stripped_size(paths: list[Path]) -> int:
    """Bytes of shared libraries without their symbols."""
    total = 0
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            shutil.copyfile(path, copy)
            subprocess.run(["strip", "--strip-unneeded", str(copy)], check=True)
            total += copy.stat().st_size
    return total


def library_sizes(report: dict[str, Any], ours: Path | None) -> dict[str, int]:
    """Stripped sizes: liballmem if --library names it, our Python module, and the rival's smallest build.

    Takes the rival's folders out of the report: where they lie says nothing.
    """
    sizes = {"module": stripped_size([Path(_core.__file__)])}
    if ours is not None:
        sizes["library"] = stripped_size([ours.resolve()])
    names = ("libllama.so", "libggml.so", "libggml-base.so", "libggml-cpu.so")
    folders = {side["load"].pop("library") for name, side in report["sides"].items() if name != "ours"}
    sizes["rival"] = min(stripped_size([Path(folder) / name for name in names]) for folder in folders)
    return sizes


def rival_state(config: dict[str, Any], tokens: int) -> dict[str, int]:
    """Bytes of the rival's f16 keys and values for so many tokens."""
    return {"tokens": tokens, "bytes": state_of(config).bytes(tokens)}


def machine_facts() -> dict[str, Any]:
    """Where and when something is measured."""
    return {
        "cpu": cpu_facts()["name"],
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "date": datetime.date.today().isoformat(),
        "load_before": os.getloadavg()[0],
    }


def cpu_facts() -> dict[str, Any]:
    """The processor's name and features, as Linux tells them."""
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    return {"name": facts.get("model name", platform.machine()), "flags": facts.get("flags", "").split()}


def numbers(text: str) -> list[int]:
    """ "0,4096" -> [0, 4096]."""
    return [int(part) for part in text.split(",") if part]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, default=Path("models"), help="where the models are, or will be")
    parser.add_argument("--ours", type=Path, help="a model directory instead")
    parser.add_argument("--theirs", type=Path, help="the GGUF file of the same base, with --ours")
    parser.add_argument("--rival", action="append", required=True, help="a Python that has llama-cpp-python")
    parser.add_argument("--like", default="qwen3-0.6b", help="the shape")
    parser.add_argument("--vocabulary", type=int, choices=[4, 8], default=4, help="bits of its table")
    parser.add_argument("--isa", default="best", choices=["best", "avx2"])
    parser.add_argument(
        "--setting", action="append", choices=list(SETTINGS), help="the rival's; default: all"
    )
    parser.add_argument("--depths", type=numbers, default=[0, 4096, 8192])
    parser.add_argument("--far", type=numbers, default=[FAR], help="depths for ours alone")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cores", help="which both sides run on; default: the first ones")
    parser.add_argument("--library", type=Path, help="liballmem.so, to give its size")
    parser.add_argument("--json", type=Path, help="where to write all that was measured")
    args = parser.parse_args()
    if (args.ours is None) != (args.theirs is None):
        parser.error("--ours and --theirs go together.")
    if args.ours is not None:
        args.like = args.ours.name
    args.setting = args.setting or list(SETTINGS)
    args.cores = cpu_cores(parser, args)
    return args


def cpu_cores(parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    """The cores that --cores names, or the first ones."""
    cores: str = args.cores or ",".join(map(str, sorted(os.sched_getaffinity(0))[: args.threads]))
    if len(cores.split(",")) != args.threads:
        parser.error("--cores must name as many cores as there are threads.")
    return cores


def main() -> None:
    args = parse_arguments()
    sides = Sides(args)
    report: dict[str, Any] = {
        "machine": machine_facts(),
        "arguments": {
            key: getattr(args, key)
            for key in ("like", "vocabulary", "isa", "depths", "far", "repeat", "threads", "cores")
        }
        | {"read_tokens": READ, "write_tokens": WRITE},
        "start_tokens": 2 * READ,
        "starts": measure_starts(sides, args),
        **measure(sides, args),
        "config": {
            key: value for key, value in sides.config.items() if type(value) in (int, bool, list, str)
        },
        "rival_state": rival_state(sides.config, FAR),
    }
    report["libraries"] = library_sizes(report, args.library)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    print(markdown(table(report)))


if __name__ == "__main__":
    main()
