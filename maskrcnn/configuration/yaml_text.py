"""YAML of strangers, read as texts, lists and mappings."""

from typing import Any

from runtime.errors import MissingPackageError

_LARGEST = 200_000  # letters; more would take seconds
_DEEPEST = 30  # the time that PyYAML takes grows with the square of the depth
_OPENING = ("FlowSequenceStartToken", "FlowMappingStartToken", "BlockSequenceStartToken", "BlockMappingStartToken")
_CLOSING = ("FlowSequenceEndToken", "FlowMappingEndToken", "BlockEndToken")
_TAGS = ("python/tuple", "python/unicode", "python/str", "str", "int", "float", "bool", "null", "seq", "map")


def parse_yaml(text: str, purpose: str) -> Any:
    """Return the content of a YAML text; every value is a text, so that a class called "no" is no truth value.

    The same list may occur many times in it, because YAML has aliases.

    Args:
        text: The text.
        purpose: What it is read for, for the message of a missing package.

    Raises:
        ValueError: It is not YAML, is too large or nested too deeply, or asks for objects of a program.
        MissingPackageError: PyYAML is not installed.
    """
    try:
        import yaml  # noqa: PLC0415 - needed for few files
    except ImportError as error:
        raise MissingPackageError("yaml", "tf", purpose) from error
    if len(text) > _LARGEST:
        raise ValueError(f"it has {len(text)} characters, and at most {_LARGEST} are read")
    depth = 0
    try:
        for token in yaml.scan(text, Loader=yaml.BaseLoader):
            kind = type(token).__name__
            depth += (kind in _OPENING) - (kind in _CLOSING)
            if depth > _DEEPEST:
                raise ValueError(f"line {token.start_mark.line + 1} is more than {_DEEPEST} levels deep")
            if kind == "TagToken" and token.value[1] not in _TAGS:
                raise ValueError(
                    f"line {token.start_mark.line + 1} asks for {token.value[1][:100]}, which is not run; expected "
                    "plain values"
                )
        # The loader that makes only texts, lists and mappings, and copies no mappings into others.
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
