"""Public names of a package, loaded on first use."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[list[str], Callable[[], list[str]], Callable[[str], Any]]:
    """Return `__all__`, `__dir__` and `__getattr__` of a package.

    `homes` maps modules to names, separated by spaces.
    """
    if f"{package}.errors" in homes:
        import_module(f"{package}.errors")  # `except maskrcnn.errors.ConfigError` needs no other import
    parents = {".".join(module.split(".")[:2]) for module in homes}
    home_of = {name: module for module, names in homes.items() for name in names.split()}

    def load(name: str) -> Any:
        if name in home_of:
            return getattr(import_module(home_of[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listed() -> list[str]:
        own = vars(sys.modules[package])
        return sorted({*home_of, *(name for name in own if name.startswith("__") or f"{package}.{name}" in parents)})

    return sorted(home_of), listed, load
