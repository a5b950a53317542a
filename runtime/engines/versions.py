"""Comparison of engine versions."""

import re
from pathlib import Path

from runtime.errors import ArtifactError


def check_engine(path: Path, package: str, installed: str, minimum: str | None) -> None:
    """Raise ArtifactError if the installed engine is older than the artifact at `path` needs."""
    if minimum and version_numbers(installed) < version_numbers(minimum):
        raise ArtifactError(
            f"{path} needs {package} {minimum} or later, but {installed} is installed: pip install -U {package}"
        )


def version_numbers(text: str) -> tuple[int, ...]:
    """Return the first three numbers of a version, for comparison."""
    numbers = re.findall("[0-9]+", text.split("+", maxsplit=1)[0])
    return tuple(int(number) for number in [*numbers, 0, 0, 0][:3])
