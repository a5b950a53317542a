"""MMDetection's configurations, which are Python files: parsed, never run."""

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maskrcnn.checkpoints.pytorch.config_data import LARGEST_TEXT, Kind, Settings, merged, plain, read_with_bases
from maskrcnn.errors import ConfigError

_BASE = "_base_"
_COMPLETE = "as Config.fromfile('NAME.py').dump('ALL.py') of MMEngine writes"
_HINT = f"put it there, or give a complete file {_COMPLETE} it"
_NEEDED = ("model", _BASE)
_FILE_NAME = re.compile(r"^\S+\.py$", re.MULTILINE)  # lines between the files that old versions put into a checkpoint
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_LARGEST = 10**15


class _NotPlainError(Exception):
    """A value would need code to run."""

    def __init__(self, node: ast.AST) -> None:
        super().__init__()
        self.line = getattr(node, "lineno", 0)


def read_mmdet_config(source: str | Path) -> Settings:
    """Read a configuration of MMDetection together with those that it builds on (`_base_`).

    Nothing in it is run. Values are literals, `dict(...)`, sums and products of numbers, and names assigned before;
    imports and variables with other values are left out.

    Args:
        source: The .py file; or its text, such as checkpoints have it in `meta`: text has more than one line.

    Returns:
        All variables, as nested dictionaries and lists; tuples are lists.

    Raises:
        ConfigError: A file is missing or damaged; `model` needs code to run, or something else than an assignment does.
    """
    if isinstance(source, str) and "\n" in source:
        return _parse_text(source)
    return read_with_bases(Path(source), _KIND)


def _parse_text(text: str) -> Settings:
    """Read the text of one file, or of several in the order in which one builds on the other."""
    where = "the text in the checkpoint"
    if len(text) > LARGEST_TEXT:
        raise ConfigError(f"{where} has {len(text)} letters; expected a configuration of MMDetection")
    parts = [part for part in _FILE_NAME.split(text) if part.strip()]
    found: Settings = {}
    for part in parts:
        settings = _parse(part, where)
        if settings.pop(_BASE, None) and len(parts) == 1:
            raise ConfigError(f"the configuration in the checkpoint builds on other files: {_HINT}")
        found = merged(found, settings)
    return found


def _parse(text: str, where: str) -> Settings:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python says of odd texts
            tree = ast.parse(text)
    except SyntaxError as error:
        raise ConfigError(
            f"{where} line {error.lineno}: {error.msg}; expected a configuration of MMDetection"
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{where} is no configuration of MMDetection: it is nested too deeply") from error
    found: Settings = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                try:
                    found[name] = _value(value, found)
                except _NotPlainError as error:
                    found.pop(name, None)
                    if name in _NEEDED:
                        raise ConfigError(
                            f"{where} line {error.line}: the value of {name} needs code to run, which is not done; "
                            f"expected plain values, {_COMPLETE} them"
                        ) from error
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
                pass
            case _:
                raise ConfigError(
                    f"{where} line {statement.lineno}: {type(statement).__name__} is not run; expected assignments "
                    f"such as model = dict(...), {_COMPLETE} them"
                )
    copied: Settings = plain(found, where)
    return copied


def _value(node: ast.expr, known: Settings) -> Any:
    """Return the value of an expression that needs no code to run."""
    match node:
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, known) for item in items]
        case ast.Dict(keys=keys, values=values):
            return dict(_entry(key, value, known) for key, value in zip(keys, values, strict=True))
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords) if all(word.arg for word in keywords):
            return {str(word.arg): _value(word.value, known) for word in keywords}
    return _scalar(node, known)


def _scalar(node: ast.expr, known: Settings) -> Any:
    match node:
        case ast.Constant(value=None | bool() | str()):
            return node.value
        case ast.Constant():
            return _number(node.value, node)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(_value(operand, known), node)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            sides = _number(_value(left, known), node), _number(_value(right, known), node)
            try:
                return _number(_OPERATIONS[type(op)](*sides), node)
            except ArithmeticError:
                raise _NotPlainError(node) from None
    raise _NotPlainError(node)


def _entry(key: ast.expr | None, value: ast.expr, known: Settings) -> tuple[Any, Any]:
    if not isinstance(key, ast.Constant) or not isinstance(key.value, str | int):
        raise _NotPlainError(value)
    return key.value, _value(value, known)


def _number(value: Any, node: ast.AST) -> Any:
    if not isinstance(value, int | float) or abs(value) > _LARGEST or not math.isfinite(value):
        raise _NotPlainError(node)
    return value


_KIND = Kind("a .py of MMDetection", (".py",), _BASE, _parse, _HINT)
