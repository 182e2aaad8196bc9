"""A griffe extension for `make docs`: lines such as `path: a model directory` of a docstring make a list."""

from __future__ import annotations

import re
from typing import Any

import griffe

PARAMETER = re.compile(r"^([a-z_0-9]+(?:, [a-z_0-9]+)*): ", re.MULTILINE)


class ParameterLists(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = PARAMETER.sub(r"- `\1`: ", obj.docstring.value)
