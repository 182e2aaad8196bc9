"""Bad input: every case is one clear sentence and a typed error or an exit code of 1 or 2, never a crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_model import VOCAB, write_json

import allmem_edge as ae
from allmem_edge.cli import run

Damage = Callable[[Path], None]


def check_sentence(error: BaseException) -> None:
    """What every message of the library must be."""
    text = str(error)
    assert len(text) > 20, text
    assert "\n" not in text, text
    assert text[0].isupper() or text[0] in "/'\"" or " " in text, text


# --- damaged model files ---


def edit_graph(edit: Callable[[onnx.ModelProto], None]) -> Damage:
    def damage(directory: Path) -> None:
        model = onnx.load(str(directory / "model.onnx"), load_external_data=False)
        edit(model)
        (directory / "model.onnx").write_bytes(model.SerializeToString())

    return damage


def node(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(n for n in model.graph.node if n.op_type == op_type)
    return found


def set_attribute(op_type: str, name: str, value: Any) -> Damage:
    def edit(model: onnx.ModelProto) -> None:
        target = node(model, op_type)
        kept = [a for a in target.attribute if a.name != name]
        del target.attribute[:]
        target.attribute.extend(kept)
        if value is not None:
            target.attribute.append(helper.make_attribute(name, value))

    return edit_graph(edit)


def external(name: str, key: str, value: str) -> Damage:
    """Changes one entry of a tensor's external data reference."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == name)
        next(e for e in tensor.external_data if e.key == key).value = value

    return edit_graph(edit)


def metadata(key: str, value: str | None) -> Damage:
    def edit(model: onnx.ModelProto) -> None:
        for entry in list(model.metadata_props):
            if entry.key == key:
                if value is None:
                    model.metadata_props.remove(entry)
                else:
                    entry.value = value

    return edit_graph(edit)


def truncate(name: str, keep: float) -> Damage:
    def damage(directory: Path) -> None:
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(data[: int(len(data) * keep)])

    return damage


def overwrite(name: str, content: bytes) -> Damage:
    def damage(directory: Path) -> None:
        (directory / name).write_bytes(content)

    return damage


def remove(name: str) -> Damage:
    return lambda directory: (directory / name).unlink()


def rename_op(old: str, new: str) -> Damage:
    return edit_graph(lambda model: setattr(node(model, old), "op_type", new))


def change_dims(name: str, dims: list[int]) -> Damage:
    def edit(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == name)
        del tensor.dims[:]
        tensor.dims.extend(dims)

    return edit_graph(edit)


def change_type(name: str, data_type: int) -> Damage:
    def edit(model: onnx.ModelProto) -> None:
        next(t for t in model.graph.initializer if t.name == name).data_type = data_type

    return edit_graph(edit)


def state_shape(name: str, shape: list[Any]) -> Damage:
    def edit(model: onnx.ModelProto) -> None:
        for values in (model.graph.input, model.graph.output):
            for value in values:
                if value.name.removesuffix(".out") == name:
                    value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape))

    return edit_graph(edit)


KEYS = "layers.0.attention.keys.state"
BROKEN_MODELS: dict[str, Damage] = {
    "model.onnx missing": remove("model.onnx"),
    "model.onnx empty": overwrite("model.onnx", b""),
    "model.onnx is text": overwrite("model.onnx", b"this is no protobuf at all, it is only text\n" * 9),
    "model.onnx is zeros": overwrite("model.onnx", bytes(4096)),
    "model.onnx is 0xff": overwrite("model.onnx", b"\xff" * 4096),
    **{f"model.onnx cut at {share:.0%}": truncate("model.onnx", share) for share in (0.1, 0.5, 0.9, 0.99)},
    "data missing": remove("model.onnx.data"),
    "data empty": overwrite("model.onnx.data", b""),
    "data cut": truncate("model.onnx.data", 0.9),
    "data path leaves the directory": external("embed", "location", "../copy/model.onnx.data"),
    "data path is absolute": external("embed", "location", "/etc/passwd"),
    "data path hides a step up": external("embed", "location", "x/../../copy/model.onnx.data"),
    "data path has a NUL": external("embed", "location", "model.onnx\0.data"),
    "data path is empty": external("embed", "location", ""),
    "data path is the directory": external("embed", "location", "."),
    "data offset behind the end": external("embed", "offset", "99999999999"),
    "data offset negative": external("embed", "offset", "-64"),
    "data offset overflows": external("embed", "offset", "18446744073709551615"),
    "data offset no number": external("embed", "offset", "abc"),
    "data length too long": external("embed", "length", "99999999999"),
    "data length too short": external("embed", "length", "4"),
    "data length overflows": external("embed", "length", "18446744073709551616"),
    "unknown op": rename_op("Softplus", "Hardmax"),
    "op of an unknown domain": edit_graph(
        lambda model: setattr(node(model, "Softplus"), "domain", "evil.corp")
    ),
    "op with a missing input": edit_graph(lambda model: node(model, "Add").input.pop() and None),
    "op reads what nobody writes": edit_graph(lambda model: node(model, "Add").input.insert(0, "ghost")),
    "two nodes write one value": edit_graph(lambda model: model.graph.node.append(model.graph.node[0])),
    "opset far in the future": edit_graph(lambda model: setattr(model.opset_import[0], "version", 9999)),
    "no opset": edit_graph(lambda model: model.ClearField("opset_import")),
    "no graph": edit_graph(lambda model: model.ClearField("graph")),
    "no input_ids": edit_graph(lambda model: model.graph.input.pop(0) and None),
    "no logits": edit_graph(lambda model: model.graph.output.pop(0) and None),
    "state without an output": edit_graph(lambda model: model.graph.output.pop() and None),
    "weight of wrong shape": change_dims("q", [7, 16]),
    "weight of wrong rank": change_dims("q", [256]),
    "weight of negative size": change_dims("q", [-16, -16]),
    "weight whose size overflows": change_dims("q", [1 << 62, 1 << 62]),
    "weight of a wrong dtype": change_type("q", TensorProto.INT32),
    "weight of an unknown dtype": change_type("q", 200),
    "state of a wrong rank": state_shape(KEYS, [10, 8]),
    "state of a wrong size": state_shape(KEYS, [1, 9, 8]),
    "state of a symbolic size": state_shape(KEYS, [1, "N", 8]),
    "state of size 0": state_shape(KEYS, [1, 0, 8]),
    "window 0": set_attribute("SlidingWindowAttention", "window", 0),
    "window negative": set_attribute("SlidingWindowAttention", "window", -8),
    "window missing": set_attribute("SlidingWindowAttention", "window", None),
    "window a string": set_attribute("SlidingWindowAttention", "window", "wide"),
    "window enormous": set_attribute("SlidingWindowAttention", "window", 1 << 62),
    "sinks negative": set_attribute("SlidingWindowAttention", "sinks", -1),
    "heads no multiple of kv heads": set_attribute("SlidingWindowAttention", "num_heads", 3),
    "rope frequencies too few": set_attribute("SlidingWindowAttention", "rope_inv_freq", [1.0]),
    "chunk 0": set_attribute("TestTimeMemory", "chunk", 0),
    "hidden 0": set_attribute("TestTimeMemory", "hidden", 0),
    "kv heads 0": set_attribute("TestTimeMemory", "num_kv_heads", 0),
    "head_dim odd": set_attribute("TestTimeMemory", "head_dim", 7),
}


@pytest.mark.parametrize("damage", BROKEN_MODELS.values(), ids=BROKEN_MODELS.keys())
def test_a_broken_model_is_refused_with_a_sentence(tiny_copy: Path, damage: Damage) -> None:
    damage(tiny_copy)
    with pytest.raises(ae.AllMemError) as caught:
        ae.Model.load(tiny_copy)
    check_sentence(caught.value)


def test_files_that_are_links_are_read_as_hub_caches_lay_them_out(tiny_copy: Path) -> None:
    blobs = tiny_copy.parent / "blobs"
    blobs.mkdir()
    for path in list(tiny_copy.iterdir()):
        path.rename(blobs / f"{path.name}-blob")
        path.symlink_to(blobs / f"{path.name}-blob")
    external("embed", "location", "./model.onnx.data")(tiny_copy)
    ae.Model.load(tiny_copy).session().forward([1, 2, 3])


def test_a_model_that_computes_nan_is_a_sentence_and_not_a_token(tiny_copy: Path) -> None:
    set_attribute("SlidingWindowAttention", "rope_inv_freq", [float("nan")] * 4)(tiny_copy)
    session = ae.Model.load(tiny_copy).session()
    with pytest.raises(ae.ModelFormatError, match="weights are damaged") as caught:
        list(session.generate("Hello"))
    check_sentence(caught.value)
    with pytest.raises(ae.PoisonedSessionError):
        session.snapshot()


def test_an_error_while_a_text_is_read_frozen_is_told_and_leaves_nothing_frozen(tiny_copy: Path) -> None:
    set_attribute("SlidingWindowAttention", "rope_inv_freq", [float("nan")] * 4)(tiny_copy)
    chat = ae.Model.load(tiny_copy).chat(undo_bytes=0)
    with pytest.raises(ae.ModelFormatError, match="weights are damaged"):
        list(chat.send("Hello", frozen=True))
    assert not chat.session.frozen
    chat.reset()
    assert not chat.session.frozen


def test_any_flipped_bit_of_the_graph_is_refused_or_harmless(tiny_copy: Path) -> None:
    """A flip may change a name or a weight's place within the file; it may never crash."""
    path = tiny_copy / "model.onnx"
    original = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(original)
        damaged[rng.integers(len(original))] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(damaged))
        try:
            session = ae.Model.load(tiny_copy).session(threads=1)
            session.forward(list(range(10)), last_only=True)
        except ae.AllMemError as error:
            check_sentence(error)


# --- damaged tokenizer, config and chat template ---


def edit_tokenizer(edit: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(directory: Path) -> None:
        content = json.loads((directory / "tokenizer.json").read_text())
        edit(content)
        write_json(directory / "tokenizer.json", content)

    return damage


BROKEN_TEXT_FILES: dict[str, Damage] = {
    "tokenizer missing": remove("tokenizer.json"),
    "tokenizer empty": overwrite("tokenizer.json", b""),
    "tokenizer cut": truncate("tokenizer.json", 0.5),
    "tokenizer no UTF-8": overwrite("tokenizer.json", b"\xff\xfe{}"),
    "tokenizer a list": overwrite("tokenizer.json", b"[1, 2, 3]"),
    "tokenizer without a model": edit_tokenizer(lambda t: t.pop("model")),
    "tokenizer of an unknown model": edit_tokenizer(lambda t: t["model"].update(type="Unigram")),
    "tokenizer with a negative id": edit_tokenizer(lambda t: t["model"]["vocab"].update({"!": -1})),
    "tokenizer with a huge id": edit_tokenizer(lambda t: t["model"]["vocab"].update({"!": 1 << 40})),
    "tokenizer with a merge of unknown tokens": edit_tokenizer(lambda t: t["model"].update(merges=["zz yy"])),
    "tokenizer with more tokens than the model": edit_tokenizer(
        lambda t: t["added_tokens"].append({**t["added_tokens"][0], "id": VOCAB, "content": "<|more|>"})
    ),
    "generation config no JSON": overwrite("generation_config.json", b"{"),
    "generation config a list": overwrite("generation_config.json", b"[]"),
    "eos a string": overwrite("generation_config.json", b'{"eos_token_id": "end"}'),
    "eos negative": overwrite("generation_config.json", b'{"eos_token_id": -1}'),
    "default temperature a string": overwrite("generation_config.json", b'{"temperature": "hot"}'),
    "default temperature NaN": overwrite("generation_config.json", b'{"temperature": NaN}'),
    "default top_k a fraction": overwrite("generation_config.json", b'{"top_k": 1.5}'),
    "tokenizer config no JSON": overwrite("tokenizer_config.json", b"not json"),
    "tokenizer config deeply nested": overwrite("tokenizer_config.json", b"[" * 100_000),
    "template missing": remove("chat_template.jinja"),
    "template no Jinja": overwrite("chat_template.jinja", b"{% for %}"),
    "template no UTF-8": overwrite("chat_template.jinja", b"\xff\xfe"),
    "template without the message": overwrite("chat_template.jinja", b"hello"),
    "template that raises": overwrite("chat_template.jinja", b"{{ raise_exception('no') }}"),
    "template that breaks on the second turn": overwrite(
        "chat_template.jinja",
        b"{% for m in messages %}{{ m.content }}{% endfor %}{{ 1 / (messages | length - 3) }}",
    ),
}


@pytest.mark.parametrize("damage", BROKEN_TEXT_FILES.values(), ids=BROKEN_TEXT_FILES.keys())
def test_a_broken_text_file_is_refused_with_a_sentence(tiny_copy: Path, damage: Damage) -> None:
    damage(tiny_copy)
    with pytest.raises(ae.AllMemError) as caught:
        ae.Model.load(tiny_copy).chat()
    check_sentence(caught.value)


# --- bad arguments in Python ---

NAN, INF = float("nan"), float("inf")
BAD_OPTIONS: list[dict[str, Any]] = [
    {"temperature": NAN},
    {"temperature": INF},
    {"temperature": -1},
    {"temperature": 1e300},
    {"temperature": "hot"},
    {"top_k": -1},
    {"top_k": 1.5},
    {"top_k": 1 << 40},
    {"top_k": 1 << 70},
    {"top_p": 0},
    {"top_p": NAN},
    {"top_p": 1.1},
    {"min_p": -0.1},
    {"min_p": NAN},
    {"repetition_penalty": 0},
    {"repetition_penalty": NAN},
    {"max_tokens": -1},
    {"max_tokens": 1 << 80},
    {"seed": -1},
    {"seed": 1 << 64},
    {"seed": 0.5},
    {"stop": [""]},
    {"stop": [1]},
    {"stop": ["\ud800"]},
    {"stop": 5},
    {"stop": b"x"},
    {"speculate": 1},
    {"speculate": "yes"},
    {"logit_bias": [1]},
    {"logit_bias": {VOCAB: 1}},
    {"logit_bias": {-1: 1}},
    {"logit_bias": {1 << 40: 1}},
    {"logit_bias": {"a": 1}},
    {"logit_bias": {1: NAN}},
    {"logit_bias": {1: 101}},
    {"logit_bias": {1: "x"}},
    {"logprobs": -1},
    {"logprobs": True},
    {"logprobs": 1.5},
    {"token_filter": 5},
    {"temprature": 1},
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_bad_options_are_refused_before_anything_is_read(tiny: ae.Model, options: dict[str, Any]) -> None:
    session = tiny.session()
    with pytest.raises(ae.InvalidArgumentError) as caught:
        session.generate("Hello", **options)
    check_sentence(caught.value)
    assert isinstance(caught.value, ValueError)
    assert session.position == 0


BAD_PROMPTS: list[Any] = [
    "",
    [],
    [-1],
    [VOCAB],
    [1 << 40],
    [1 << 63],
    [1 << 70],
    [0.5],
    [[1, 2]],
    ["a"],
    [None],
    "\udcff",
    7,
]


@pytest.mark.parametrize("prompt", BAD_PROMPTS, ids=repr)
def test_bad_prompts_are_refused_before_anything_is_read(tiny: ae.Model, prompt: Any) -> None:
    session = tiny.session()
    with pytest.raises(ae.InvalidArgumentError) as caught:
        session.generate(prompt)
    check_sentence(caught.value)
    if not isinstance(prompt, str):
        with pytest.raises(ae.InvalidArgumentError):
            session.forward(prompt)
    assert session.position == 0


@pytest.mark.parametrize("threads", [-1, 100_000, 1.5, "two", True])
def test_a_bad_number_of_threads_is_refused(tiny: ae.Model, threads: Any) -> None:
    with pytest.raises(ae.InvalidArgumentError) as caught:
        tiny.session(threads)
    check_sentence(caught.value)


@pytest.mark.parametrize("text", ["", "  \n ", "\ud800"])
def test_a_bad_message_is_refused(tiny: ae.Model, text: str) -> None:
    chat = tiny.chat()
    with pytest.raises(ae.InvalidArgumentError) as caught:
        chat.send(text)
    check_sentence(caught.value)


def test_an_unknown_backend_is_refused(tiny_dir: Path) -> None:
    with pytest.raises(ae.InvalidArgumentError):
        ae.Model.load(tiny_dir, backend="magic")  # type: ignore[arg-type]


# --- bad usage of the command line ---

BAD_USAGE: dict[str, tuple[list[str], int]] = {
    "unknown command": (["dance"], 2),
    "unknown option": (["generate", "MODEL", "--dance"], 2),
    "temperature NaN": (["generate", "MODEL", "--prompt", "x", "--temp", "nan"], 2),
    "temperature a word": (["generate", "MODEL", "--prompt", "x", "--temp", "hot"], 2),
    "top-p 2": (["generate", "MODEL", "--prompt", "x", "--top-p", "2"], 2),
    "top-k enormous": (["generate", "MODEL", "--prompt", "x", "--top-k", str(1 << 70)], 2),
    "seed negative": (["generate", "MODEL", "--prompt", "x", "--seed", "-1"], 2),
    "max-tokens negative": (["generate", "MODEL", "--prompt", "x", "--max-tokens", "-5"], 2),
    "threads negative": (["generate", "MODEL", "--prompt", "x", "--threads", "-1"], 2),
    "empty prompt": (["generate", "MODEL", "--prompt", ""], 2),
    "no such model": (["generate", "/no/such/model", "--prompt", "x"], 1),
    "model is a directory without a model": (["inspect", "."], 1),
    "model name with a NUL": (["inspect", "a\0b"], 1),
    "model name too long": (["inspect", "x" * 5000], 1),
    "chat temperature NaN": (["chat", "MODEL", "--temp", "nan"], 2),
    "bench depth a word": (["bench", "MODEL", "--depth", "deep"], 2),
    "bench depth negative": (["bench", "MODEL", "--depth", "-1"], 2),
    "bench prompt 0": (["bench", "MODEL", "--prompt", "0"], 2),
    "eval without a task": (["eval", "dance"], 2),
    "recall distance a fraction": (["eval", "recall", "MODEL", "--distance", "1.5"], 2),
    "recall of no questions": (["eval", "recall", "MODEL", "--questions", "0"], 2),
    "perplexity of no dialogues": (["eval", "perplexity", "MODEL", "--dialogues", "0"], 2),
    "perplexity of too short dialogues": (["eval", "perplexity", "MODEL", "--turns", "6"], 2),
    "export without --out": (["export", "x"], 2),
    "export to an unknown quantization": (["export", "x", "--out", "y", "--quantize", "int3"], 2),
    "convert without a source": (["convert", "--out", "y"], 2),
    "convert to a window of 0": (["convert", "x", "--out", "y", "--window", "0"], 2),
    "train without a config": (["train"], 2),
    "verify without a model": (["verify"], 2),
}


@pytest.mark.parametrize(("arguments", "code"), BAD_USAGE.values(), ids=BAD_USAGE.keys())
def test_bad_usage_is_one_sentence_and_an_exit_code(
    tiny_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([str(tiny_dir) if a == "MODEL" else a for a in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_without_the_export_extra_its_commands_name_the_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "allmem_export"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    for arguments in (
        ["convert", "x", "--out", "y"],
        ["train", "x.toml"],
        ["export", "x", "--out", "y"],
        ["verify", "x"],
    ):
        assert run(arguments) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "pip install 'allmem-edge[export]'" in captured.err
        assert captured.err.count("\n") == 1
