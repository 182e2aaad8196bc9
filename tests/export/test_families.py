"""Every family from a checkpoint or a GGUF file, computes after conversion what it did before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import bases
import tiny
from allmem_edge import _core
from allmem_edge.assembly import gguf_file
from allmem_edge.assembly.gguf_file import GgufFile
from allmem_edge.assembly.gguf_tokenizer import write_tokenizer
from allmem_edge.errors import AllMemError, ModelFormatError, UnsupportedModelError
from allmem_export.convert import ConvertError, convert

TOKENS = 200

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "one-kv-head": {"num_attention_heads": 4, "num_key_value_heads": 1},
    "no-groups": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rms_norm_eps": 1e-3},
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"{family}-{name}": (family, shape)
        for name, shape in SHAPES.items()
        for family in ("qwen3", "llama", "mistral")
    },
    "llama-3": ("llama", {"rope_parameters": bases.LLAMA3_ROPE}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "qwen3-biases": ("qwen3", {"attention_bias": True}),
    "qwen2": ("qwen2", {"num_attention_heads": 4}),
    "qwen2-tied": ("qwen2", {"num_attention_heads": 8, "tie_word_embeddings": True}),
    "qwen2-yarn": (
        "qwen2",
        {
            "num_attention_heads": 4,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 128,
            },
        },
    ),
    "mistral-long-window": ("mistral", {"sliding_window": 4096}),
}


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids).logits.float()


def random_ids() -> torch.Tensor:
    return torch.randint(0, tiny.VOCAB_SIZE, (2, TOKENS), generator=torch.Generator().manual_seed(1))


def converted(source: Path, out: Path, **fields: Any) -> Any:
    convert(source, out, window=TOKENS, sinks=8, chunk=32, **fields)
    return AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()


@pytest.mark.parametrize("case", CASES)
def test_a_converted_checkpoint_gives_the_bases_logits(case: str, tmp_path: Path) -> None:
    family, fields = CASES[case]
    base = bases.random_base(family, **fields)
    ours = converted(bases.save_base(base, tmp_path / "base"), tmp_path / "allmem")
    theirs = logits(base, random_ids())
    assert theirs.std() > 0.5  # tokens have logits of their own
    assert (logits(ours, random_ids()) - theirs).abs().max() <= tiny.rounding(theirs)


GGUF_CASES = (
    "llama-plain",
    "llama-tied",
    "llama-3",
    "qwen2",
    "qwen2-tied",
    "qwen3-plain",
    "qwen3-tied",
    "mistral-plain",
)


@pytest.mark.parametrize("case", GGUF_CASES)
def test_a_converted_gguf_file_gives_the_bases_logits(case: str, tmp_path: Path) -> None:
    family, fields = CASES[case]
    base = bases.random_base(family, **fields)
    ours = converted(bases.save_gguf(base, tmp_path / "base.gguf"), tmp_path / "allmem")
    theirs = logits(base, random_ids())
    assert (logits(ours, random_ids()) - theirs).abs().max() <= tiny.rounding(theirs)
    assert ours.config.tie_word_embeddings == base.config.tie_word_embeddings
    assert ours.config.rms_norm_eps == base.config.rms_norm_eps


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_weights_of_every_type_are_those_that_transformers_reads(kind: str, tmp_path: Path) -> None:
    base = bases.random_base("llama", tie_word_embeddings=True)
    path = bases.save_gguf(base, tmp_path / "base.gguf", kinds=lambda name: kind)
    ours = converted(path, tmp_path / "allmem")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32).eval()
    read = logits(theirs, random_ids())
    assert (logits(ours, random_ids()) - read).abs().max() <= tiny.rounding(read)
    assert (logits(ours, random_ids()) - logits(base, random_ids())).abs().max() > 1e-3  # they are rounded


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "Q4_1", "Q5_0"])
def test_blocks_are_dequantised_as_the_gguf_package_does(kind: str, tmp_path: Path) -> None:
    type_ = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[type_]
    blocks = np.random.default_rng(0).integers(0, 64, (7, 512 // block * size), np.uint8)
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "llama")
    writer.add_tensor("token_embd.weight", blocks, raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(tmp_path / "x.gguf")
    assert file.shape("model.embed_tokens.weight") == (7, 512)
    expected = gguf.quants.dequantize(blocks, type_)
    np.testing.assert_array_equal(file.floats("model.embed_tokens.weight"), expected)


def test_half_precision_stays_and_blocks_become_float32(tmp_path: Path) -> None:
    kinds = {"blk.0.attn_q.weight": "F16", "blk.1.attn_q.weight": "BF16", "blk.2.attn_q.weight": "Q8_0"}
    base = bases.random_base("llama")
    path = bases.save_gguf(base, tmp_path / "base.gguf", kinds=lambda name: kinds.get(name, "F32"))
    convert(path, tmp_path / "allmem", window=64, chunk=16)
    from safetensors.torch import load_file

    stored = {
        name: tensor.dtype
        for file in (tmp_path / "allmem").glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    found = [stored[f"model.layers.{i}.self_attn.q_proj.weight"] for i in range(3)]
    assert found == [torch.float16, torch.bfloat16, torch.float32]


def test_the_tokenizer_of_a_gguf_file_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    base = bases.random_base("llama")
    convert(bases.save_gguf(base, tmp_path / "base.gguf"), tmp_path / "allmem", window=64, chunk=16)
    theirs, ours = tiny.make_tokenizer(), AutoTokenizer.from_pretrained(tmp_path / "allmem")
    native = _core.Tokenizer.from_file(str(tmp_path / "allmem" / "tokenizer.json"))
    for text in ("bada fe  lomo 12\n", "<|im_start|>user\nné 你好", ""):
        wanted = theirs(text).input_ids
        assert ours(text).input_ids == wanted == native.encode(text)
    assert ours.eos_token_id == 2 and ours.chat_template == tiny.CHAT_TEMPLATE
    generation = json.loads((tmp_path / "allmem" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2]


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("smollm", "a  12", ["a", "ĠĠ", "1", "2"]),  # every digit for itself, before anything else
        ("gpt-2", "a  12", ["a", "Ġ", "Ġ12"]),
        ("llama-bpe", "a 1234", ["a", "Ġ", "123", "4"]),
        ("qwen2", "a 12\n", ["a", "Ġ", "1", "2", "Ċ"]),
    ],
)
def test_text_is_split_as_the_makers_of_the_model_say(
    pre: str, text: str, pieces: list[str], tmp_path: Path
) -> None:
    from tokenizers import Tokenizer

    path = bases.save_gguf(bases.random_base("llama"), tmp_path / "base.gguf")
    file = GgufFile(path)
    file.metadata["tokenizer.ggml.pre"] = pre
    write_tokenizer(file, tmp_path)
    pre_tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).pre_tokenizer
    assert [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)] == pieces


@pytest.mark.parametrize("number", [-99, -1, 10**6, 1.0, "a", [0]])
def test_a_token_that_is_none_is_left_out(number: object, tmp_path: Path, good_gguf: bytes) -> None:
    (tmp_path / "base.gguf").write_bytes(good_gguf)
    file = GgufFile(tmp_path / "base.gguf")
    file.metadata |= {f"tokenizer.ggml.{key}_token_id": number for key in ("bos", "eos", "padding")}
    write_tokenizer(file, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert not {"bos_token", "eos_token", "pad_token"} & config.keys()
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {}


@pytest.fixture(scope="module")
def good_gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "base.gguf"
    return bases.save_gguf(bases.random_base("llama"), path).read_bytes()


def test_a_gguf_file_cut_anywhere_is_refused_with_a_sentence(good_gguf: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    header = good_gguf.index(b"blk.2.ffn_down.weight")
    cuts = [*range(0, 400, 7), *range(400, header, header // 60), len(good_gguf) // 2, len(good_gguf) - 40]
    for cut in cuts:
        path.write_bytes(good_gguf[:cut])
        with pytest.raises(ModelFormatError, match="not a complete GGUF file"):
            GgufFile(path)


def test_tensors_that_share_bytes_are_refused(
    good_gguf: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shared.gguf"
    path.write_bytes(good_gguf)
    read = gguf_file._Header.read

    def shared(self: Any) -> Any:
        metadata, tensors = read(self)
        return metadata, {name: tensor._replace(offset=0) for name, tensor in tensors.items()} | {
            f"blk.{i}.attn_q.weight": tensors["blk.0.attn_q.weight"] for i in range(100)
        }

    monkeypatch.setattr(gguf_file._Header, "read", shared)
    with pytest.raises(ModelFormatError, match="not a complete GGUF file"):
        GgufFile(path)


def test_changed_bytes_of_a_gguf_header_raise_nothing_but_our_errors(
    good_gguf: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "changed.gguf"
    rng = np.random.default_rng(0)
    header = good_gguf.index(b"blk.2.ffn_down.weight")
    refused = 0
    for _ in range(300):
        data = bytearray(good_gguf)
        data[int(rng.integers(header))] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            file = GgufFile(path)
            file.config()
        except AllMemError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 10


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.model", "llama", "byte-level BPE"),
        ("tokenizer.ggml.pre", "klingon", "splits text in the way 'klingon'"),
        ("tokenizer.ggml.pre", ["gpt-2"], "inconsistent vocabulary"),
        ("tokenizer.ggml.tokens", ["a"], "inconsistent vocabulary"),
        ("tokenizer.ggml.token_type", 1, "inconsistent vocabulary"),
        ("tokenizer.ggml.merges", None, "no tokenizer.ggml.merges"),
        ("llama.attention.head_count", None, "lacks llama.attention.head_count"),
        ("llama.rope.scaling.type", "spiral", "'spiral'"),
    ],
)
def test_what_is_not_supported_is_said_in_a_sentence(
    key: str, value: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bases.save_gguf(bases.random_base("llama"), tmp_path / "base.gguf")
    read = gguf_file._Header.read

    def changed(self: Any) -> Any:
        metadata, tensors = read(self)
        return metadata | {key: value}, tensors

    monkeypatch.setattr(gguf_file._Header, "read", changed)
    with pytest.raises(AllMemError, match=message):
        convert(path, tmp_path / "allmem", window=64, chunk=16)
    assert not (tmp_path / "allmem").exists()


def test_a_gguf_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "mamba")
    writer.add_tensor("token_embd.weight", np.ones((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        UnsupportedModelError, match="architecture 'mamba'; supported are llama, qwen2, qwen3"
    ):
        GgufFile(tmp_path / "x.gguf")


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_a_checkpoint_of_another_family_is_refused(family: str, tmp_path: Path) -> None:
    source = bases.save_base(bases.random_base("llama"), tmp_path / "base")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"model_type": family}))
    with pytest.raises(ConvertError, match=f"'{family}' are not supported; supported: qwen3, qwen2, llama"):
        convert(source, tmp_path / "allmem")
