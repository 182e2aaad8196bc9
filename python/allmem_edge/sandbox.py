"""Jinja's sandbox with an account for each rendering, so that no line of a template takes gigabytes or hours.

A rendering has units to spend. A unit is a character that is made or looked at (at most four bytes of memory,
some nanoseconds). Whatever runs pays first, by an upper bound: a block for what stands in it each time it is
entered, an operator, a filter, a test or a method for the texts and lists that it is given and makes.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from types import FunctionType
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from markupsafe import Markup

_CALL = 64  # of a call, and of a turn of a loop
_ITEM = 2  # of an item in a list: a pointer
_LOOK = 8  # at an item
_CHARACTER = 64  # of a text that becomes an object of its own
_ESCAPED = 12  # characters that one may become, in JSON, in a URL or as a repr
_MAX_WIDTH = 10_000  # of a column; numbers of a range
_MAX_NUMBER = 1 << 64  # an integer that is computed; larger ones take more than a moment
_MAX_DIGITS = 10_000  # of a text that becomes a number
_MAX_FORMAT = 10_000  # characters of a text with places for others
_MAX_DEPTH = 100  # of what lies in what; C code hashes without looking at its stack

# Filters that only pick something, and those that go through a list without looking into its items.
_AT_ONCE = frozenset(("attr", "count", "d", "default", "first", "items", "last", "length", "random"))
_WALKS = frozenset(
    ("batch", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "slice")
)
_GROWTH = (
    dict.fromkeys(("capitalize", "casefold", "lower", "swapcase", "title", "upper"), 3)
    | dict.fromkeys(("escape", "e", "forceescape", "tojson", "urlencode", "urlize", "xmlattr"), _ESCAPED)
    | {"encode": 4}
)
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
# Of a format: a width of five digits or that is given apart, and attributes of what is formatted.
_WIDE = re.compile(r"%(\([^)]*\))?[^a-zA-Z%]*?(\d{5}|\*)|\{[^{}]*(\d{5}|:[^{}]*\{)|\{[^{}:!]*\.")
_LARGE = "a number is 2^64 or more"
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
    "in": lambda item, items: item in items,
    "notin": lambda item, items: item not in items,
}


# --- the account


class _Account:
    def __init__(self, units: int) -> None:
        self.units = self.left = units


_account: ContextVar[_Account] = ContextVar("account")


@contextmanager
def account(units: int) -> Iterator[None]:
    """What runs within may spend so much."""
    token = _account.set(_Account(units))
    try:
        yield
    finally:
        _account.reset(token)


def spend(units: int) -> bool:
    """Pays for what comes next. Raises TemplateRuntimeError when the account is empty."""
    mine = _account.get()
    mine.left -= units
    if mine.left < 0:
        _refuse(f"it makes or goes through more than {mine.units:,} characters on the way")
    return True


def _refuse(problem: str) -> NoReturn:
    raise jinja2.TemplateRuntimeError(problem)


# --- what things cost


def _length(value: Any) -> int:
    """What a value takes by itself, without its items' own."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, (list, tuple, Mapping, Set)):
        return _ITEM * len(value)
    return int(value).bit_length() // 8 if isinstance(value, int) else 1


def _size(value: Any, depth: int = 0) -> int:
    """What a value takes with its items, shared ones as often as they occur, deep ones with an indent.

    Whatever goes into a value's items pays this first, so that none of it is too deep for a stack.
    """
    if depth > _MAX_DEPTH:
        _refuse(f"a value lies in more than {_MAX_DEPTH} others")
    if isinstance(value, Namespace):
        value = object.__getattribute__(value, "_Namespace__attrs")
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    elif not isinstance(value, (list, tuple, Set, range, ValuesView)):
        return 1 + _length(value)
    total, left = 0, _account.get().left
    for item in value:
        total += _LOOK + depth + _size(item, depth + 1)
        if total > left:
            break
    return total


def _hashed(value: Any) -> int:
    """What looking a value up takes; of what can be hashed, only tuples have items."""
    return _size(value) if isinstance(value, tuple) else _length(value)


def _written(value: Any, growth: int = 1) -> int:
    """Characters of str(value) at most. growth: how many a character of a text becomes."""
    return growth * len(value) if isinstance(value, str) else max(growth, _ESCAPED) * _size(value)


def _is_large(value: Any) -> bool:
    return isinstance(value, int) and abs(value) >= _MAX_NUMBER


def _pieces(name: str, text: Any, more: Sequence[Any]) -> int:
    """How many times something can be put into a text or between items."""
    if not isinstance(text, str):
        return len(text) if name == "join" and hasattr(text, "__len__") else _written(text)
    if name == "replace" and more and isinstance(more[0], str):
        return text.count(more[0])
    if name == "expandtabs":
        return text.count("\t")
    if name == "indent":
        return 1 + sum(map(text.count, _LINE_ENDS))
    return len(text)


def _split(name: str, text: str, more: Sequence[Any]) -> int:
    """Parts at most."""
    if name == "splitlines":
        return 1 + sum(map(text.count, _LINE_ENDS))
    most = next((item for item in more if isinstance(item, int) and item >= 0), len(text))
    mark = next((item for item in more if isinstance(item, str) and item), None)
    return 1 + min(most, len(text) // 2 if mark is None else text.count(mark))


def _formatted(form: str, values: Sequence[Any]) -> int:
    if len(form) > _MAX_FORMAT:
        _refuse(f"a format has more than {_MAX_FORMAT} characters")
    spend(len(form) * len(form) // 16)  # for looking whether it is wide
    if _WIDE.search(form):
        _refuse(f"a format has a width above {_MAX_WIDTH} or beside its text, or asks for attributes")
    widest = min(_MAX_WIDTH, max(map(int, re.findall(r"\d{1,9}", form)), default=0))
    longest = max((_written(value, _ESCAPED) for value in values), default=0)
    return len(form) + (form.count("%") + form.count("{")) * (longest + widest)


def _asked(name: str, value: Any, more: Sequence[Any]) -> int:
    """Of a filter, or of a method of a text or list, that is asked of `value` with the arguments `more`."""
    if name in ("format", "format_map") and isinstance(value, str):
        return _formatted(value, more)
    others = sum(abs(item) if isinstance(item, int) else _written(item) for item in more)
    if name in _WALKS:
        return others + (_CHARACTER * len(value) if isinstance(value, str) else _length(value))
    size = _written(value, _GROWTH.get(name, 1))
    if name in ("split", "rsplit", "splitlines"):
        return size + others + _CHARACTER * _split(name, value, more)
    if name == "int" and isinstance(value, str) and len(value) > _MAX_DIGITS:
        _refuse(f"a text of more than {_MAX_DIGITS} characters is no number")
    if name == "round":
        return 64 * others  # computes a power of ten
    if name == "sum" and any(isinstance(item, (list, tuple)) for item in more):
        return size * len(value)  # lists are copied for each that is added
    putting = ("join", "replace", "expandtabs", "indent", "tojson", "translate", "urlize", "wordwrap")
    if name in putting or (name in ("count", "index") and not isinstance(value, str)):
        return size + others * (1 + _pieces(name, value, more))
    return size + others


def _compared(name: str, left: Any, right: Any) -> int:
    if name in ("in", "notin"):
        if isinstance(right, Set):  # the keys or items of a mapping
            return _size(left) + _size(right)
        if isinstance(right, (list, tuple, ValuesView)):
            return _size(right) + len(right) * _size(left)
        return _hashed(left) + (len(right) if isinstance(right, str) else 0)
    if isinstance(left, str) or isinstance(right, str):
        return sum(len(side) for side in (left, right) if isinstance(side, str))
    sized = (list, tuple, Mapping, Set)
    if not isinstance(left, sized) or not isinstance(right, sized):
        return 0
    return _size(left) + _size(right) if len(left) == len(right) or name not in ("eq", "ne") else 0


# --- the sandbox


def _weight(block: Sequence[nodes.Node]) -> int:
    """What a block costs: as a call, for its nodes and for the characters of its texts."""
    found = [node for outer in block for node in (outer, *outer.find_all(nodes.Node))]
    texts = (getattr(node, "data", None) or getattr(node, "value", None) for node in found)
    return _CALL + len(found) + sum(len(text) for text in texts if isinstance(text, str))


class _CodeGenerator(CodeGenerator):
    """Compiles in what pays, and computes nothing before there is an account."""

    def blockvisit(self, block: Any, frame: Frame) -> None:
        self.writeline(f"environment.spend({_weight(block)})")
        super().blockvisit(block, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        if node.test is not None:  # runs for items that the body never sees
            spent = nodes.EnvironmentAttribute("spend")
            paid = nodes.Call(spent, [nodes.Const(_weight([node.test]))], [], None, None, lineno=node.lineno)
            node.test = nodes.And(paid, node.test, lineno=node.lineno).set_environment(self.environment)
        super().visit_For(node, frame)

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        if _is_large(node.value):
            self.fail(_LARGE, node.lineno)
        super().visit_Const(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concatenate((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("environment.compare(")
        self.visit(node.expr, frame)
        for side in node.ops:
            self.write(f", ({side.op!r}, ")
            self.visit(side.expr, frame)
            self.write(")")
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("{")
        for item in node.items:
            self.write("environment.key(")
            self.visit(item.key, frame)
            self.write("): ")
            self.visit(item.value, frame)
            self.write(", ")
        self.write("}")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        is_slice = isinstance(node.arg, nodes.Slice)
        self.write("environment.made(" if is_slice else "")
        super().visit_Getitem(node, frame)
        self.write(")" if is_slice else "")

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible()
        return super()._output_child_to_const(node, frame, finalize)

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        super()._output_child_pre(node, frame, finalize)
        escaped = frame.eval_ctx.volatile or frame.eval_ctx.autoescape
        self.write(f"environment.shown({_ESCAPED if escaped else 1}, ")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write(")")
        super()._output_child_post(node, frame, finalize)


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles and runs templates within account()."""

    code_generator_class = _CodeGenerator
    intercepted_binops = frozenset(["*", "**", "+", "-", "/", "//", "%"])

    def __init__(self, filters: Mapping[str, Callable[..., Any]], **options: Any) -> None:
        """filters: beside or instead of Jinja's."""
        super().__init__(optimized=False, **options)
        self.filters.update(filters)
        del self.globals["lipsum"], self.filters["pprint"]
        self.globals["range"] = _short_range
        self.filters = {name: self._filter(name, function) for name, function in self.filters.items()}
        self.tests = {name: _test(name, function) for name, function in self.tests.items()}

    spend = staticmethod(spend)

    def key(self, value: Any) -> Any:
        """What something is to be found by."""
        spend(_hashed(value))
        return value

    def made(self, value: Any) -> Any:
        if _is_large(value):
            _refuse(_LARGE)
        spend(_length(value))
        return value

    def shown(self, growth: int, value: Any) -> Any:
        """What {{ }} writes."""
        spend(_written(value, growth))
        return value

    def concatenate(self, parts: tuple[Any, ...]) -> str:
        """What ~ does."""
        spend(sum(map(_written, parts)))
        return "".join([str(part) for part in parts])

    def compare(self, left: Any, *pairs: tuple[str, Any]) -> Any:
        """What a chain of comparisons does."""
        result: Any = True
        for name, right in pairs:
            right = _listed(right) if name in ("in", "notin") else right
            spend(_compared(name, left, right))
            result = _COMPARISONS[name](left, right)
            if not result:
                break
            left = right
        return result

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, type):  # dict[int] is a type, which can be in others without end
            _refuse("types have no items for templates")
        found = super().getitem(obj, self.key(argument))
        if not isinstance(obj, (str, list, tuple, Mapping, Namespace)):
            spend(_size(found))  # what the size of a loop or cycler does not tell
        return found

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sized = (str, bytes, list, tuple)
        if operator == "%" and isinstance(left, str):
            spend(_formatted(left, right if isinstance(right, tuple) else [right]))
        elif _is_large(left) or _is_large(right):
            _refuse(_LARGE)
        elif operator == "+":
            escaped = isinstance(left, Markup) or isinstance(right, Markup)
            spend((_ESCAPED if escaped else 1) * (_length(left) + _length(right)))
        elif operator == "-":
            right = _listed(right)
            spend(_size(left) + _size(right))  # of the keys or items of mappings it makes sets
        elif operator == "*" and (isinstance(left, sized) or isinstance(right, sized)):
            spend(max(0, *(item * _length(other) for item, other in _factors(left, right))))
        elif operator == "%" and isinstance(left, bytes):
            _refuse("bytes cannot be formatted")
        elif operator in ("*", "**"):
            numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
            if not numbers or (operator == "**" and abs(right) > 64):
                _refuse(f"the operands of {operator} are not small numbers")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        spend(_CALL)
        method = getattr(function, "__wrapped__", function)  # Jinja wraps str.format
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, (bytes, int, float, type)):
            _refuse(f"methods of {type(owner).__name__} are not for templates")
        if isinstance(owner, Mapping):
            spend(sum(map(_hashed, args)))
        elif owner is not None:
            args = tuple(map(_listed, args))
            more = [*args, *(value for key, value in kwargs.items() if not key.startswith("_"))]
            if name == "join" and more:  # what the filter `join` filters
                owner, more = more[0], [owner]
            spend(_asked(name, owner, more))
        elif isinstance(function, (type, FunctionType)):  # not a macro, whose body pays
            args = tuple(map(_listed, args))
            spend(sum(map(_size if isinstance(function, type) else _written, args)))
        return self.made(super().call(context, function, *args, **kwargs))

    def _filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        first = int(hasattr(function, "jinja_pass_arg"))  # which argument is what is filtered

        @functools.wraps(function)
        def paid(*args: Any, **kwargs: Any) -> Any:
            before, values = args[:first], [*args[first:]]
            if name in _AT_ONCE:
                spend(_CALL + sum(map(_hashed, [*values[1:], *kwargs.values()])))
            else:
                values = values if name in _WALKS else [*map(_listed, values)]
                spend(_CALL + _asked(name, values[0], [*values[1:], *kwargs.values()]))
            return self.made(function(*before, *values, **kwargs))

        return paid


def _factors(left: Any, right: Any) -> list[tuple[int, Any]]:
    pairs = ((left, right), (right, left))
    return [(item, other) for item, other in pairs if isinstance(item, int)] or [(0, "")]


def _listed(value: Any) -> Any:
    """Items that come one by one, so that they can be looked at before they are used."""
    if not isinstance(value, Iterator):
        return value
    items = []
    for item in value:
        spend(_ITEM)
        items.append(item)
    return items


def _test(name: str, function: Any) -> Callable[..., Any]:
    kind = {"==": "eq", "equalto": "eq", "!=": "ne"}.get(name, name)
    first = int(hasattr(function, "jinja_pass_arg"))

    @functools.wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:
        args = tuple(map(_listed, args)) if kind == "in" else args
        values = [*args[first:], *kwargs.values()]
        if len(values) == 2:
            spend(_CALL + _compared(kind, *values))
        else:
            spend(_CALL + sum(map(_hashed, values)))
        return function(*args, **kwargs)

    return paid


def _short_range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > _MAX_WIDTH:
        _refuse(f"a range has more than {_MAX_WIDTH} numbers")
    return numbers
