"""The native tokenizer against Hugging Face's `tokenizers`: the same ids and the same text, on any text."""

from __future__ import annotations

import json
import random
import signal
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from random_texts import WORDS, batches

core = pytest.importorskip("allmem_edge._core")
hf = pytest.importorskip("tokenizers")

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_PATTERN = QWEN_PATTERN.replace(r"|\p{N}| ", r"|\p{N}{1,3}| ")
KINDS = ("qwen", "llama", "gpt2")
RANDOM_TEXTS = 102_000  # over the three kinds together


def train(kind: str) -> Any:
    """A small tokenizer with the parts of the real one: normaliser, pattern, added tokens, post-processor."""
    pre = hf.pre_tokenizers
    rng = random.Random(1)
    corpus = [rng.choice((" ", " ", "\n")).join(rng.choices(WORDS, k=40)) for _ in range(400)]
    tokenizer = hf.Tokenizer(hf.models.BPE(ignore_merges=kind == "llama"))
    tokenizer.decoder = hf.decoders.ByteLevel()
    if kind == "gpt2":
        tokenizer.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
        tokenizer.post_processor = hf.processors.ByteLevel(trim_offsets=False)
    else:
        pattern = QWEN_PATTERN if kind == "qwen" else LLAMA_PATTERN
        split = pre.Split(hf.Regex(pattern), "isolated", invert=False)
        bytes_only = pre.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre.Sequence([split, bytes_only])
        tokenizer.post_processor = hf.processors.ByteLevel(trim_offsets=False)
    if kind == "qwen":
        tokenizer.normalizer = hf.normalizers.NFC()
    alphabet = pre.ByteLevel.alphabet()
    trainer = hf.trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    added = {
        "qwen": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "llama": ["<|begin_of_text|>", "<|eot_id|>"],
        "gpt2": [hf.AddedToken("<|endoftext|>", normalized=True, special=True)],
    }[kind]
    tokenizer.add_special_tokens(added)
    if kind == "qwen":
        tokenizer.add_tokens([hf.AddedToken("<think>", normalized=False, special=False)])
    if kind == "llama":
        begin = tokenizer.token_to_id("<|begin_of_text|>")
        tokenizer.post_processor = hf.processors.TemplateProcessing(
            single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
        )
    return tokenizer


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    reference = train(request.param)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    reference.save(str(path))
    return reference, core.Tokenizer.from_file(str(path))


_trained: dict[str, str] = {}


def train_once(kind: str) -> Any:
    """A fresh copy of the trained tokenizer."""
    if kind not in _trained:
        _trained[kind] = train(kind).to_str()
    return hf.Tokenizer.from_str(_trained[kind])


def check_equal(reference: Any, folder: Path, count: int) -> None:
    path = folder / "tokenizer.json"
    reference.save(str(path))
    tokenizer = core.Tokenizer.from_file(str(path))
    for batch in batches(count):
        texts = [data.decode("utf-8", errors="replace") for data in batch]
        wanted = [e.ids for e in reference.encode_batch_fast(texts, add_special_tokens=False)]
        assert [tokenizer.encode(data) for data in batch] == wanted


def test_ids_and_text_equal_on_random_strings(pair: tuple[Any, Any]) -> None:
    reference, tokenizer = pair
    for batch in batches(RANDOM_TEXTS // len(KINDS)):
        texts = [data.decode("utf-8", errors="replace") for data in batch]
        wanted = [e.ids for e in reference.encode_batch_fast(texts, add_special_tokens=False)]
        assert [tokenizer.encode(data) for data in batch] == wanted
        for skip in (True, False):
            decoded = reference.decode_batch(wanted, skip_special_tokens=skip)
            assert [tokenizer.decode(ids, skip) for ids in wanted] == decoded


def test_special_strings_are_plain_text_without_special(pair: tuple[Any, Any]) -> None:
    reference, tokenizer = pair
    reference.encode_special_tokens = True
    try:
        for batch in batches(2000):
            texts = [data.decode("utf-8", errors="replace") for data in batch]
            wanted = [e.ids for e in reference.encode_batch_fast(texts, add_special_tokens=False)]
            assert [tokenizer.encode(data, special=False) for data in batch] == wanted
    finally:
        reference.encode_special_tokens = False


def test_ids_equal_on_every_assigned_character(pair: tuple[Any, Any]) -> None:
    reference, tokenizer = pair
    assigned = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Co", "Cs")]
    joined = ["a".join(assigned[i : i + 64]) for i in range(0, len(assigned), 64)]
    wanted = [e.ids for e in reference.encode_batch_fast(joined, add_special_tokens=False)]
    assert [tokenizer.encode(text) for text in joined] == wanted


def test_ids_equal_on_long_runs(pair: tuple[Any, Any]) -> None:
    reference, tokenizer = pair
    units = ("a", " ", "!", "7", "\n", " \n", "你", "e\u0301\u0327", "hello", "<|endoftext|>", "😀\u200d")
    for unit in units:
        text = unit * (20_000 // len(unit))
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False).ids, unit


def test_vocabulary_equals(pair: tuple[Any, Any]) -> None:
    reference, tokenizer = pair
    assert tokenizer.vocab_size == reference.get_vocab_size()
    for token, token_id in reference.get_vocab().items():
        assert tokenizer.token_id(token) == token_id
    assert tokenizer.token_id("no such token") is None


def test_stream_of_any_ids_joins_to_the_decoded_text(pair: tuple[Any, Any]) -> None:
    _, tokenizer = pair
    rng = random.Random(3)
    for _ in range(500):
        ids = [rng.randrange(tokenizer.vocab_size) for _ in range(rng.randint(0, 40))]
        stream = core.StreamDecoder(tokenizer)
        pieces = [stream.push(token_id) for token_id in ids]
        assert "".join(pieces) + stream.flush() == tokenizer.decode(ids)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@pytest.mark.parametrize("individual", [True, False])
def test_normal_forms_digits_and_prefix_space_equal(form: str, individual: bool, tmp_path: Path) -> None:
    reference = train_once("gpt2")
    pre = hf.pre_tokenizers
    reference.normalizer = hf.normalizers.Sequence([getattr(hf.normalizers, form)()])
    reference.pre_tokenizer = pre.Sequence([pre.Digits(individual), pre.ByteLevel(add_prefix_space=True)])
    reference.add_tokens([hf.AddedToken(text, normalized=True) for text in ("caf\u00e9", "\u212b")])
    check_equal(reference, tmp_path, 3000)


@pytest.mark.parametrize("invert", [True, False])
@pytest.mark.parametrize(
    "behavior", ["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"]
)
@pytest.mark.parametrize("pattern", [r"\p{N}", r"\s*", r"[\p{L}\p{M}]+|\p{Han}{1,2}", r"\w+", "plain a"])
def test_split_behaviors_equal(pattern: str, behavior: str, invert: bool, tmp_path: Path) -> None:
    reference = train_once("gpt2")
    split = pattern.removeprefix("plain ") if pattern.startswith("plain ") else hf.Regex(pattern)
    pre = hf.pre_tokenizers
    steps = [pre.Split(split, behavior, invert=invert), pre.ByteLevel(add_prefix_space=False)]
    reference.pre_tokenizer = pre.Sequence(steps)
    check_equal(reference, tmp_path, 1000)


@pytest.mark.parametrize("lstrip", [True, False])
@pytest.mark.parametrize("rstrip", [True, False])
@pytest.mark.parametrize("single_word", [True, False])
def test_added_token_flags_equal(lstrip: bool, rstrip: bool, single_word: bool, tmp_path: Path) -> None:
    reference = train_once("gpt2")
    for content, normalized in (("ell", False), (" ", True), ("<|", True), ("cat", True), ("wor", False)):
        flags = {"lstrip": lstrip, "rstrip": rstrip, "single_word": single_word, "normalized": normalized}
        reference.add_tokens([hf.AddedToken(content, **flags)])
    check_equal(reference, tmp_path, 3000)


@pytest.mark.parametrize("form", [None, "NFC", "NFD", "NFKC", "NFKD"])
@pytest.mark.parametrize("normalized", [False, True])
def test_added_tokens_are_decoded_as_the_normalizer_leaves_them(form: str | None, normalized: bool) -> None:
    reference = train("gpt2")
    if form:
        reference.normalizer = getattr(hf.normalizers, form)()
    contents = [
        "e\u0301",
        "na\xefve",
        "a b",
        "\u0120word",
        "\u212bngstrom",
        "\ufb01",
        "<tool \xe9>",
        "\xc3\xa9",
    ]
    reference.add_tokens([hf.AddedToken(text, normalized=normalized) for text in contents])
    json_text = reference.to_str()
    tokenizer = core.Tokenizer.from_json(json_text.encode(), "tokenizer.json")
    for token in json.loads(json_text)["added_tokens"]:
        for ids in ([token["id"]], reference.encode(f"x {token['content']} y").ids):
            assert tokenizer.decode(ids) == reference.decode(ids), (token, ids)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that counts the process's time")
def test_a_signal_ends_the_encoding_of_a_long_text() -> None:
    tokenizer = core.Tokenizer.from_file(Path(core.__file__).parent / "models" / "small" / "tokenizer.json")
    text = "I saw a red fox in the park and it ran away over the old bridge. " * 60_000

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    begin = time.process_time()
    wanted = tokenizer.encode(text)
    whole = time.process_time() - begin
    before = signal.signal(signal.SIGPROF, stop)
    try:
        for encode, argument in ((tokenizer.encode, text), (tokenizer.encode_parts, [(text, True)])):
            begin = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, whole / 10)
            with pytest.raises(KeyboardInterrupt):
                encode(argument)
            assert time.process_time() - begin < whole / 2
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert tokenizer.encode(text) == wanted
