"""What the extras of this package installed into an environment, without the developer tools."""

import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def requirements(*extras: str, path: Path = PYPROJECT) -> list[str]:
    """Return what the package itself requires, with some of its extras, or with all if none is named."""
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for extra in extras or optional for text in optional[extra])]
    own = canonicalize_name(project["name"])
    return [text for text in texts if canonicalize_name(Requirement(text).name) != own]


def floor(requirement: Requirement) -> Version:
    """Return the lowest version that a requirement allows."""
    return max(Version(one.version) for one in requirement.specifier if one.operator in (">=", "~="))


def closure(texts: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Find everything that requirements need, directly or indirectly.

    Returns:
        The version of each installed package by its name, sorted; and the names of the requirements not installed.
    """
    found: dict[str, str] = {}
    missing: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), True) for text in texts]
    while waiting:
        requirement, asked_for_here = waiting.pop()
        name = canonicalize_name(requirement.name)
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            if asked_for_here:  # deeper ones depend on the platform
                missing.add(name)
            continue
        found[name] = installed.version
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                needed = (Requirement(text) for text in installed.requires or ())
                waiting += [(one, False) for one in needed if not one.marker or one.marker.evaluate({"extra": extra})]
    return dict(sorted(found.items())), sorted(missing)
