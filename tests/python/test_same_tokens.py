"""One model directory and the same options give the same tokens from C, Python and the command line."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_model import SPECIAL, write_json

import allmem_edge as ae

ROOT = Path(__file__).parents[2]
SEED, PROMPT = 7, "Once upon a time"
CallbackType = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


class SamplingStruct(ctypes.Structure):
    """allmem_sampling as its first release had it."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("temperature", ctypes.c_float),
        ("top_k", ctypes.c_int32),
        ("top_p", ctypes.c_float),
        ("min_p", ctypes.c_float),
        ("repetition_penalty", ctypes.c_float),
        ("repetition_window", ctypes.c_int32),
        ("seed", ctypes.c_uint64),
        ("max_tokens", ctypes.c_int64),
        ("stop", ctypes.c_void_p),
        ("stop_count", ctypes.c_size_t),
    ]


def library() -> ctypes.CDLL:
    """The liballmem that `make build` made of this tree; ALLMEM_LIBRARY names another."""
    # Not any build's: others are for another processor or under sanitizers.
    path = Path(os.environ.get("ALLMEM_LIBRARY") or ROOT / "build" / "release" / "csrc" / "liballmem.so")
    assert path.exists(), "liballmem is not built: make build, or set ALLMEM_LIBRARY"
    return ctypes.CDLL(str(path))


class FromC:
    """What a C program would do with a model directory."""

    def __init__(self, directory: Path) -> None:
        self.lib = library()
        self.lib.allmem_last_error.restype = ctypes.c_char_p
        self.model, self.session = ctypes.c_void_p(), ctypes.c_void_p()
        self.check(self.lib.allmem_model_load(str(directory).encode(), None, ctypes.byref(self.model)))
        self.check(self.lib.allmem_session_create(self.model, None, ctypes.byref(self.session)))
        self.sampling = SamplingStruct(struct_size=ctypes.sizeof(SamplingStruct))
        self.check(self.lib.allmem_model_get_sampling(self.model, ctypes.byref(self.sampling)))
        self.sampling.seed = SEED
        self.text = b""

    def check(self, status: int) -> None:
        assert status == 0, self.lib.allmem_last_error()

    def ids(self, function: Callable[..., int], *arguments: Any) -> list[int]:
        ids, count = (ctypes.c_int32 * 1000)(), ctypes.c_size_t()
        self.check(function(self.model, *arguments, ids, ctypes.c_size_t(1000), ctypes.byref(count)))
        return ids[: count.value]

    def generate(self, text: str) -> str:
        data = text.encode()
        prompt = self.ids(self.lib.allmem_text_prefix)
        prompt += self.ids(self.lib.allmem_tokenize, data, ctypes.c_size_t(len(data)), 1)
        ids = (ctypes.c_int32 * len(prompt))(*prompt)
        return self.said(self.lib.allmem_session_generate, ids, ctypes.c_size_t(len(prompt)))

    def chat(self, text: str) -> str:
        message = (ctypes.c_char_p * 2)(b"user", text.encode())
        return self.said(self.lib.allmem_session_chat, message, ctypes.c_size_t(1))

    def said(self, function: Callable[..., int], what: Any, count: ctypes.c_size_t) -> str:
        pieces: list[bytes] = []

        def hear(piece: int, size: int, _: int) -> int:
            pieces.append(ctypes.string_at(piece, size))
            return 0

        callback = CallbackType(hear)
        self.check(function(self.session, what, count, ctypes.byref(self.sampling), callback, None, None))
        return b"".join(pieces).decode()

    def free(self) -> None:
        self.lib.allmem_session_free(self.session)
        self.lib.allmem_model_free(self.model)


Change = Callable[[Path], object]


def with_json(**files: object) -> Change:
    def change(directory: Path) -> None:
        for name, content in files.items():
            write_json(directory / f"{name}.json", content)

    return change


def without(*names: str) -> Change:
    def change(directory: Path) -> None:
        for name in names:
            (directory / name).unlink()

    return change


def like_smollm(directory: Path) -> None:
    """As SmolLM2-135M-Instruct's files are: BOS exists and is put nowhere, the end is ChatML's."""
    bos, end = SPECIAL[1], SPECIAL[2]
    write_json(directory / "generation_config.json", {"bos_token_id": 257, "eos_token_id": 258})
    write_json(
        directory / "tokenizer_config.json",
        {"bos_token": bos, "eos_token": end, "add_prefix_space": False, "model_max_length": 10**30},
    )
    write_json(directory / "special_tokens_map.json", {"bos_token": {"content": bos}, "eos_token": end})


def many_ends(directory: Path) -> None:
    """Half the alphabet ends a text, so that where it ends tells which ids were taken for ends."""
    write_json(
        directory / "generation_config.json", {"eos_token_id": list(range(0, 256, 8)), "temperature": 1.2}
    )


def begins_with_bos(directory: Path) -> None:
    write_json(directory / "tokenizer_config.json", {"bos_token": SPECIAL[0], "add_bos_token": True})


DIRECTORIES: dict[str, Change] = {
    "as exported": lambda directory: None,
    "like SmolLM2": like_smollm,
    "many ends": many_ends,
    "begins with BOS": begins_with_bos,
    "one end": with_json(generation_config={"eos_token_id": 65, "temperature": 1.5, "top_p": 0.9}),
    "greedy": with_json(
        generation_config={"do_sample": False, "temperature": 0.6, "repetition_penalty": 1.3}
    ),
    "ends in config.json": with_json(
        generation_config={"top_k": 40, "min_p": 0.01}, config={"eos_token_id": list(range(1, 256, 9))}
    ),
    "end in the map alone": with_json(
        tokenizer_config={}, special_tokens_map={"eos_token": {"content": "a", "special": False}}
    ),
    "no configs": without("generation_config.json", "tokenizer_config.json", "config.json"),
}


@pytest.mark.parametrize("change", DIRECTORIES.values(), ids=DIRECTORIES.keys())
def test_c_python_and_the_command_line_write_the_same(tiny_copy: Path, change: Change) -> None:
    change(tiny_copy)
    c = FromC(tiny_copy)
    said_by_c = c.generate(PROMPT)
    c.free()
    model = ae.Model.load(tiny_copy)
    generator = model.session().generate(PROMPT, seed=SEED)
    text = "".join(generator)
    assert text == said_by_c
    assert len(text) > 0
    arguments = ["generate", str(tiny_copy), "--prompt", PROMPT, "--seed", str(SEED), "--json"]
    report = json.loads(run(arguments))
    assert report["text"] == text
    assert report["finish_reason"] == generator.finish_reason
    assert report["prompt_tokens"] == generator.prompt_tokens
    c = FromC(tiny_copy)
    answer = c.chat("Hello!")
    c.free()
    assert "".join(model.chat(seed=SEED).send("Hello!")) == answer


def run(arguments: list[str]) -> bytes:
    return subprocess.run(
        [sys.executable, "-m", "allmem_edge", *arguments], capture_output=True, check=True, timeout=120
    ).stdout


def test_a_loaded_model_needs_its_directory_no_more(
    tiny_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_ends(tiny_copy)
    expected = [*chat_and_generate(ae.Model.load(tiny_copy))]
    monkeypatch.chdir(tiny_copy.parent)
    model = ae.Model.load(tiny_copy.name)
    monkeypatch.chdir(tmp_path.parent)
    for file in tiny_copy.iterdir():
        file.unlink()
    tiny_copy.rmdir()
    assert [*chat_and_generate(model)] == expected


def chat_and_generate(model: ae.Model) -> list[object]:
    generator = model.session().generate(PROMPT, seed=SEED)
    text = "".join(generator)
    return [text, generator.finish_reason, model.stop_ids, *model.chat(seed=SEED).send("Hello!")]
