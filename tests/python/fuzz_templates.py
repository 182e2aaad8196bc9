"""`python tests/python/fuzz_templates.py SECONDS`: random chat templates and messages, against transformers.

Whatever comes, the answer is a rendering or a ChatTemplateError; where both render, the texts are equal; and
where the template writes no special token, no words of people's make one.
"""

from __future__ import annotations

import random
import sys
import time
import warnings
from typing import Any

from chat_templates import TEMPLATES
from transformers.utils.chat_template_utils import render_jinja_template

import allmem_edge as ae
from allmem_edge import _core
from allmem_edge.hub import BUNDLED
from allmem_edge.template import ChatTemplate
from allmem_edge.words import text_of

TEXTS = [
    *(
        "",
        " ",
        "Hello",
        " a  b\n",
        "\n\n",
        "<|im_end|>",
        "<|im_start|>system\n",
        "<",
        ">",
        "|>",
        "<|im_",
        "end|>",
    ),
    *(
        "</think>",
        "<think>x</think>\n\ny",
        "{{ x }}",
        "{% if %}",
        "é字\u2028",
        "\U000f0000\U000f0001",
        "a,b,c",
        "0",
    ),
]
VALUES = [
    *(
        "message.content",
        "message['content']",
        "messages[0].content",
        "messages[-1]['content']",
        "message.role",
    ),
    *(
        "message",
        "messages",
        "tools",
        "documents",
        "bos_token",
        "eos_token",
        "enable_thinking",
        "'x'",
        "''",
        "0",
        "1",
    ),
    *(
        "loop.index",
        "loop.last",
        "ns.x",
        "none",
        "true",
        "[1, 'a']",
        "{'a': message.content}",
        "undefined_name",
    ),
]
FILTERS = [
    *(
        "trim",
        "upper",
        "lower",
        "title",
        "capitalize",
        "length",
        "first",
        "last",
        "list",
        "string",
        "int",
        "tojson",
    ),
    *(
        "tojson(indent=2)",
        "tojson(ensure_ascii=true)",
        "replace('<', '(')",
        "replace('a', message.content)",
        "join",
    ),
    *(
        "join(',')",
        "default('d')",
        "reverse",
        "sort",
        "unique | list",
        "batch(2) | list",
        "indent(2)",
        "wordcount",
    ),
    *(
        "truncate(5)",
        "center(9)",
        "select | list",
        "map('upper') | list",
        "items | list",
        "safe",
        "striptags",
        "e",
    ),
]
METHODS = [
    *(
        "strip()",
        "lstrip('\\n')",
        "rstrip()",
        "split()",
        "split('</think>')",
        "split('<')",
        "rsplit('>', 1)",
        "upper()",
    ),
    *(
        "splitlines()",
        "replace('</think>', '')",
        "replace('', '-')",
        "startswith('<')",
        "endswith('|>')",
        "title()",
    ),
    *(
        "find('<|')",
        "count('<')",
        "partition('<')",
        "rpartition('|')",
        "removeprefix('<|')",
        "removesuffix('>')",
    ),
    *(
        "isdigit()",
        "zfill(5)",
        "center(7)",
        "format(1)",
        "join(['a', 'b'])",
        "encode()",
        "lower()",
        "swapcase()",
    ),
]


class Generator:
    """Templates of a random shape."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def expression(self, depth: int = 0) -> str:
        pick = self.rng.random()
        if depth > 3 or pick < 0.3:
            return self.rng.choice(VALUES)
        inner = self.expression(depth + 1)
        if pick < 0.45:
            return f"({inner} | {self.rng.choice(FILTERS)})"
        if pick < 0.65:
            return f"({inner}).{self.rng.choice(METHODS)}"
        if pick < 0.75:
            return f"({inner})[{self.rng.choice(['0', '-1', '1:', ':2', '::-1', ':-1'])}]"
        other = self.expression(depth + 1)
        operator = self.rng.choice(
            ["+", "~", "==", "in", "not in", "and", "or", "*", "%", "<", "if true else"]
        )
        return f"({inner} {operator} {other})"

    def block(self, depth: int = 0) -> str:
        pick = self.rng.random()
        if depth > 3 or pick < 0.4:
            return (
                "{{"
                + self.rng.choice(["", "-"])
                + f" {self.expression()} "
                + self.rng.choice(["", "-"])
                + "}}"
            )
        body = "".join(self.block(depth + 1) for _ in range(self.rng.randint(1, 3)))
        if pick < 0.55:
            return (
                "{% for message in "
                + self.rng.choice(["messages", "messages[1:]", self.expression()])
                + f" %}}{body}{{% endfor %}}"
            )
        if pick < 0.7:
            return f"{{% if {self.expression()} %}}{body}{{% else %}}-{{% endif %}}"
        if pick < 0.78:
            return f"{{% set ns.x = {self.expression()} %}}"
        if pick < 0.84:
            return f"{{% generation %}}{body}{{% endgeneration %}}"
        if pick < 0.9:
            return f"{{%- set y = {self.expression()} -%}}{{{{ y }}}}"
        return self.rng.choice(
            ["\n", "text ", "<|im_start|>", "{# c #}", "{% break %}", "{{ raise_exception('no') }}"]
        )

    def template(self) -> str:
        if self.rng.random() < 0.25:  # a real one, with a piece cut out, doubled or replaced
            source = self.rng.choice(list(TEMPLATES.values()))
            a, b = sorted(self.rng.randrange(len(source)) for _ in range(2))
            b = min(b, a + 40)
            return source[:a] + self.rng.choice(["", source[a:b] * 2, self.block()]) + source[b:]
        return "{% set ns = namespace(x='') %}" + "".join(self.block() for _ in range(self.rng.randint(1, 5)))

    def messages(self) -> list[dict[str, Any]]:
        roles = ["user", "assistant", "system", "tool"]
        return [
            {
                "role": self.rng.choice(roles),
                "content": "".join(self.rng.choices(TEXTS, k=self.rng.randint(0, 4))),
            }
            for _ in range(self.rng.randint(1, 4))
        ]


def one(generator: Generator, tokenizer: _core.Tokenizer) -> bool:
    """One template; whether both rendered it. Raises what should not have been raised."""
    source, messages = generator.template(), generator.messages()
    tokens: dict[str, Any] = {"bos_token": "[B]", "eos_token": "[E]"}
    try:
        template = ChatTemplate(source, "t", special_tokens=tokens)
        segments = template.render(messages, control=tokenizer.special_tokens)
    except ae.ChatTemplateError as error:
        assert "\n" not in str(error), (source, messages)
        return False
    if "<" not in source and "chr" not in source:
        ids = tokenizer.encode_parts(segments)
        assert not any(map(tokenizer.is_special, ids)), (source, messages)
    try:
        rendered = render_jinja_template(
            conversations=[messages], chat_template=source, add_generation_prompt=True, **tokens
        )
    except Exception:  # whatever a template raises there
        return False
    assert text_of(segments) == rendered[0][0], (source, messages)
    return True


def main(seconds: float, seed: int) -> None:
    warnings.simplefilter("ignore")  # Python's remarks on what templates compile to
    generator = Generator(seed)
    tokenizer = _core.Tokenizer.from_file(BUNDLED / "tokenizer.json")
    end, count, both = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        both += one(generator, tokenizer)
        count += 1
    print(f"{count} templates, {both} rendered by both, seed {seed}")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
