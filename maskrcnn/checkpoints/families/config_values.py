"""Looking things up in the configuration of a family, and what it must say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from maskrcnn.checkpoints.families.recognize import SUPPORTED
from maskrcnn.errors import ConfigError


@dataclass(frozen=True)
class FamilyConfig:
    """What the configuration of a family says.

    Attributes:
        settings: By the dotted names of `Config`.
        bgr: Whether the network takes blue first; None: it is not said.
        class_names: Without the background; empty: they are not said.
        class_file: The file in which they are instead, which is not read; empty: none.
        coco: Whether the model was trained on COCO, whose class names are known.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    bgr: bool | None = None
    class_names: tuple[str, ...] = ()
    class_file: str = ""
    coco: bool = False


class Values:
    """The values of a configuration file, by dotted names such as "model.backbone.style".

    `defaults` are those of the program for values that are not in the file, by the same names.
    """

    def __init__(self, values: Mapping[str, Any], source: str, defaults: Mapping[str, Any] | None = None) -> None:
        self._values, self.source, self._defaults = values, source, defaults or {}

    def get(self, *names: str) -> Any:
        """Return the value of the first of several names that is there, or the default of the first, or None."""
        found = self._given(*names)
        return self._defaults.get(names[0]) if found is None else found

    def _given(self, *names: str) -> Any:
        for name in names:
            value: Any = self._values
            for key in name.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                return value
        return None

    def expect(self, name: str, *allowed: Any) -> None:
        """Refuse a value that none of our networks has."""
        value = self.get(name)
        if value is not None and _plain(value) not in map(_plain, allowed):
            self.refuse(name, f"expected {' or '.join(map(repr, allowed))}")

    def expect_nothing(self, name: str) -> None:
        """Refuse a part that none of our networks has."""
        if any(_leaves(self.get(name))):
            self.refuse(name, "expected nothing")

    def refuse(self, name: str, expected: str) -> NoReturn:
        """Raise the error about a value."""
        raise ConfigError(f"{self.source}: {name} is {self._shown(name)}, {expected}: {SUPPORTED}")

    def _shown(self, name: str) -> str:
        """Return a value for a message."""
        default = " by default" if self._given(name) is None and name in self._defaults else ""
        return f"{str(self.get(name))[:80]}{default}"

    def fits(self, name: str, found: Any, what: str) -> None:
        """Refuse a value that contradicts the weights."""
        value = self.get(name)
        if value is not None and _plain(value) != _plain(found):
            raise ConfigError(
                f"{self.source} is not the configuration of these weights: {name} is {self._shown(name)}, and the "
                f"weights have {what} {found}"
            )

    def number(self, *names: str) -> float | None:
        """Return a number, or None if it is not there."""
        value = self.get(*names)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{self.source}: {names[0]} is {str(value)[:80]}: expected a number")
        return value

    def numbers(self, *names: str) -> tuple[float, ...] | None:
        """Return numbers, or None if they are not there."""
        value = self.get(*names)
        if value is None:
            return None
        good = isinstance(value, Sequence) and not isinstance(value, str)
        if not good or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in value):
            raise ConfigError(f"{self.source}: {names[0]} is {str(value)[:80]}: expected a list of numbers")
        return tuple(value)

    def texts(self, *names: str) -> tuple[str, ...]:
        """Return texts, or one in place of a list; none if they are not there."""
        value = self.get(*names)
        listed = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
            raise ConfigError(f"{self.source}: {names[0]} is {str(value)[:80]}: expected a list of texts")
        return tuple(listed)


def _leaves(value: Any) -> list[Any]:
    """Return all values inside lists."""
    if isinstance(value, list | tuple):
        return [leaf for one in value for leaf in _leaves(one)]
    return [value]


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def in_our_order(values: Sequence[float]) -> tuple[float, ...]:
    """Return dx, dy, dw, dh in the order dy, dx, dh, dw."""
    x, y, width, height = values
    return y, x, height, width


def inverses(values: Sequence[float], where: str) -> tuple[float, ...]:
    """Return 1 / value of each.

    Raises:
        ConfigError: One is not above 0.
    """
    if any(value <= 0 for value in values):
        raise ConfigError(f"{where} is {list(values)}: expected positive numbers")
    return tuple(1 / value for value in values)
