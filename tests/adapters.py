"""Tiny memory adapters: bases, what training leaves of them, packages with a base, changed manifests."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import bases
from allmem_edge.assembly.adapter import MANIFEST, MODES, Mode
from allmem_export.adapter import export_adapter
from allmem_export.convert import convert

CARD: dict[str, Any] = {
    "name": "tiny",
    "title": "A tiny model with a memory",
    "about": ["It says nothing that makes sense."],
    "license": "Apache-2.0",
    "attribution": "Made by the tests.",
    "base": {
        "name": "Tiny-Base",
        "author": "The tests",
        "license": "Apache-2.0",
        "url": "https://example.org/tiny",
        "sources": [{"package": "tiny-base==1.0", "member": "tiny_base/base.gguf"}],
    },
    "trained": {"window": "24"},
    "generation": {"temperature": 0.5, "eos_token_id": [2, 0]},
    "evaluation": {"recall": "none"},
}
MEMORY: dict[str, Any] = {"window": 24, "sinks": 3, "chunk": 16, "memory_layers": [0, 2], "gate": "dynamic"}


def make_base(folder: Path, family: str, name: str, **fields: Any) -> Path:
    base = bases.random_base(family, **fields)
    if name.endswith(".gguf"):
        return bases.save_gguf(base, folder / name, kinds=lambda _: "Q8_0")
    return bases.save_base(base, folder / name, max_shard_size="60KB")


def train(base: Path, folder: Path, **fields: Any) -> Path:
    """A converted base whose memory and low-rank update are random: what training leaves behind."""
    convert(base, folder / "converted", **MEMORY, **fields)
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for path in sorted((folder / "converted").glob("*.safetensors")):
        for name, value in load_file(path).items():
            if ".memory." in name:
                noise = torch.randn(value.shape, generator=generator)
                tensors[name] = value + (noise.abs() if name.endswith("alpha") else 0.1 * noise)
            elif name.endswith(("q_proj.weight", "v_proj.weight")):
                rows, cols = value.shape
                tensors[name.replace(".weight", ".lora_A")] = torch.randn(3, cols, generator=generator) / 30
                tensors[name.replace(".weight", ".lora_B")] = torch.randn(rows, 3, generator=generator) / 30
    checkpoint = folder / "trained"
    checkpoint.mkdir()
    shutil.copy(folder / "converted" / "config.json", checkpoint)
    save_file(tensors, checkpoint / "adapter.safetensors")
    return checkpoint


def make_adapter(folder: Path, base: Path, checkpoint: Path, modes: tuple[Mode, ...] = MODES) -> Path:
    (folder / "card.json").write_text(json.dumps(CARD))
    export_adapter(checkpoint, folder / "adapter", base=base, card=folder / "card.json", modes=modes)
    return folder / "adapter"


def make_wheel(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir()
    info = "tiny_base-1.0.dist-info"
    files = files | {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-base\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / "tiny_base-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)


def change_manifest(adapter: Path, **changes: Any) -> None:
    path = adapter / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_base(adapter: Path, **changes: Any) -> None:
    described = json.loads((adapter / MANIFEST).read_text())["base"]
    described["sources"] = [source | changes for source in described["sources"]]
    change_manifest(adapter, base=described)
