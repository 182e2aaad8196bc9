"""What several files say of a tokenizer: all of it is read, or refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_model import SPECIAL
from transformers import PreTrainedTokenizerFast

import allmem_edge as ae
from allmem_edge.files import ModelFiles
from allmem_edge.template import ChatTemplate, Message

ELSEWHERE: dict[str, tuple[str, dict[str, object]]] = {
    "a decoder": (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"259": {"content": "<|x|>", "special": True}}},
    ),
    "a list": ("tokenizer_config.json", {"additional_special_tokens": ["<|im_end|>", "<|x|>"]}),
    "named ones": ("tokenizer_config.json", {"extra_special_tokens": {"image_token": "<|x|>"}}),
    "bos": ("tokenizer_config.json", {"bos_token": "<|x|>"}),
    "the map": ("special_tokens_map.json", {"eos_token": {"content": "<|x|>"}}),
    "added_tokens.json": ("added_tokens.json", {"<|x|>": 259}),
}


@pytest.mark.parametrize(("name", "content"), ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_tokens_that_only_another_file_has_are_refused(
    tiny_copy: Path, name: str, content: dict[str, object]
) -> None:
    (tiny_copy / name).write_text(json.dumps(content))
    with pytest.raises(ae.TokenizerError, match=r"<\|x\|>.*tokenizer\.json does not"):
        ae.Model.load(tiny_copy)


BOS, START, END = SPECIAL
DECODER = {"added_tokens_decoder": {"256": {"content": BOS, "special": True}}}
# tokenizer_config.json, special_tokens_map.json
SAID_TWICE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"bos_token": BOS}, {}),
    ({"bos_token": BOS}, {"bos_token": START}),
    ({"bos_token": BOS}, {"bos_token": {"content": START}, "pad_token": END}),
    ({"bos_token": BOS}, {"bos_token": None, "eos_token": END}),
    ({"bos_token": BOS, **DECODER}, {"bos_token": START, "eos_token": END}),
    ({"added_tokens_decoder": {}}, {"bos_token": START}),
    ({"image_token": START}, {"image_token": END}),
    ({}, {"image_token": END}),
    ({"extra_special_tokens": {"image": START}}, {"extra_special_tokens": {"image": END, "sound": BOS}}),
    ({"extra_special_tokens": {"image": START}, **DECODER}, {"extra_special_tokens": {"image": END}}),
    ({"extra_special_tokens": {"bos_token": START}, "bos_token": BOS}, {"bos_token": END}),
    ({"extra_special_tokens": [START]}, {"extra_special_tokens": [END], "unk_token": BOS}),
]


@pytest.mark.parametrize(("config", "legacy"), SAID_TWICE)
def test_special_tokens_that_several_files_name_are_those_of_transformers(
    tiny_copy: Path, config: dict[str, Any], legacy: dict[str, Any]
) -> None:
    (tiny_copy / "tokenizer_config.json").write_text(json.dumps(config))
    (tiny_copy / "special_tokens_map.json").write_text(json.dumps(legacy))
    wanted = PreTrainedTokenizerFast.from_pretrained(tiny_copy).special_tokens_map
    model = ae.Model.load(tiny_copy)
    assert model.text.special_tokens == wanted
    (tiny_copy / "chat_template.jinja").write_text("{{ bos_token }}{{ image }}{{ messages[-1].content }}")
    (segment,) = ae.Model.load(tiny_copy).chat_template.render([Message("user", "x")])
    assert segment.text == wanted.get("bos_token", "") + wanted.get("image", "") + "x"


def test_tokens_that_the_tokenizer_has_or_no_text_needs_may_be_elsewhere_too(tiny_copy: Path) -> None:
    config = {"additional_special_tokens": ["<|im_end|>"], "pad_token": "[PAD]", "bos_token": None}
    (tiny_copy / "tokenizer_config.json").write_text(json.dumps(config))
    assert ae.Model.load(tiny_copy).tokenizer.vocab_size == 259


def test_bos_may_be_in_the_map_of_special_tokens_alone(tiny_copy: Path) -> None:
    (tiny_copy / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<|endoftext|>"}))
    (tiny_copy / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[-1].content }}")
    (segment,) = ae.Model.load(tiny_copy).chat_template.render([Message("user", "x")])
    assert segment.text == "<|endoftext|>x"


@pytest.mark.parametrize(
    "value",
    [1, [1], [{"name": [], "template": "x"}], [{"name": {}}], [{}], {"default": 1}, [["default", "x"]]],
)
def test_named_templates_that_are_none_are_a_sentence(value: Any) -> None:
    files = ModelFiles({"tokenizer_config.json": json.dumps({"chat_template": value}).encode()})
    with pytest.raises(ae.ChatTemplateError, match="neither a text nor a list of named ones"):
        ChatTemplate.of_model(files)


def test_of_several_named_templates_the_default_is_taken_or_the_names_are_told(tiny_copy: Path) -> None:
    def load(*names: str) -> ae.Model:
        (tiny_copy / "chat_template.jinja").unlink(missing_ok=True)
        listed = [{"name": name, "template": name + " {{ messages[-1].content }}"} for name in names]
        (tiny_copy / "tokenizer_config.json").write_text(json.dumps({"chat_template": listed}))
        return ae.Model.load(tiny_copy)

    message, template = [Message("user", "x")], load("rag", "default", "tool_use").chat_template
    assert template.render(message)[0].text == "default x"
    assert template.render(message, tools=[{"name": "f"}])[0].text == "tool_use x"
    with pytest.raises(ae.ChatTemplateError, match=r"named rag, tool_use, and none of them default"):
        _ = load("rag", "tool_use").chat_template
