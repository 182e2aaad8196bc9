"""tokenizer.json, tokenizer_config.json and the chat template out of a GGUF file's metadata.

A GGUF file has vocabulary and merges, and of how text is split before merging only a name: it stands for what
their makers publish in their own tokenizer.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from allmem_edge.assembly.gguf_file import GgufFile
from allmem_edge.errors import MALFORMED, ModelFormatError, UnsupportedModelError

_CONTROL, _USER_DEFINED = 3, 4  # token types
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_GPT2 = {**_BYTES, "use_regex": True}


def _split(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _BYTES]}


def _words(digits: str) -> str:
    """Of Llama 3 and Qwen: contractions, words, numbers of some digits, punctuation, blank lines, blanks."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_DIGITS_FIRST = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _GPT2]}
_LLAMA3 = _split(_words(r"\p{N}{1,3}"))
_QWEN = _split(_words(r"\p{N}"))
# By `tokenizer.ggml.pre`: pre-tokenizer, normaliser, and whether a word that is a token needs no merges.
_KINDS: dict[str, tuple[dict[str, Any], dict[str, Any] | None, bool]] = {
    "default": (_GPT2, None, False),
    "gpt-2": (_GPT2, None, False),
    "smollm": (_DIGITS_FIRST, None, False),
    "llama-bpe": (_LLAMA3, None, True),
    "llama3": (_LLAMA3, None, True),
    "qwen2": (_QWEN, {"type": "NFC"}, False),
}


def write_tokenizer(file: GgufFile, folder: Path) -> None:
    """Writes the tokenizer's files into `folder`. Raises UnsupportedModelError or ModelFormatError."""
    try:
        _write(file, folder)
    except MALFORMED as error:
        raise _inconsistent(file) from error


def _write(file: GgufFile, folder: Path) -> None:
    metadata = file.metadata
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2":
        raise UnsupportedModelError(
            f"{file.path} has a tokenizer of kind {kind!r}; the runtime has byte-level BPE ('gpt2') alone."
        )
    if pre not in _KINDS:
        raise UnsupportedModelError(
            f"{file.path} splits text in the way {pre!r}; known are {', '.join(_KINDS)}. "
            "Convert the original checkpoint, which brings its tokenizer.json."
        )
    tokens = _texts(file, "tokens")
    merges = _texts(file, "merges")
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    if len(types) != len(tokens) or any(merge.count(" ") != 1 for merge in merges):
        raise _inconsistent(file)
    pre_tokenizer, normalizer, ignore_merges = _KINDS[pre]
    added = [
        _added(number, token, special=token_type == _CONTROL)
        for number, (token, token_type) in enumerate(zip(tokens, types, strict=True))
        if token_type in (_CONTROL, _USER_DEFINED)
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": merges,
        },
    }
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(number, int) and 0 <= number < len(tokens):
            config[f"{name}_token"] = tokens[number]
    context = metadata.get(f"{metadata['general.architecture']}.context_length")
    if isinstance(context, int):
        config["model_max_length"] = context
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "tokenizer_config.json", config)
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8", newline="")
    stops = [config[key] for key in ("eos_token",) if key in config]
    ids = [tokens.index(stop) for stop in stops]
    _write_json(folder / "generation_config.json", {"eos_token_id": ids} if ids else {})


def _texts(file: GgufFile, key: str) -> list[str]:
    value = file.metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ModelFormatError(f"{file.path} has no tokenizer.ggml.{key}; it is not a complete model.")
    return value


def _inconsistent(file: GgufFile) -> ModelFormatError:
    return ModelFormatError(f"{file.path} has an inconsistent vocabulary; fetch it again.")


def _added(number: int, token: str, *, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, **flags, "special": special}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
