"""Versions of engines, compared."""

import re
from pathlib import Path

from runtime.errors import ArtifactError


def check_engine(path: Path, package: str, installed: str, minimum: str | None) -> None:
    """Refuse an engine that is older than the artifact at `path` needs.

    Raises:
        ArtifactError: It is.
    """
    if minimum and version_numbers(installed) < version_numbers(minimum):
        raise ArtifactError(f"{path} needs {package} {minimum}, installed is {installed}: pip install -U {package}")


def version_numbers(text: str) -> tuple[int, ...]:
    """The first three numbers of a version, for comparing."""
    numbers = re.findall("[0-9]+", text.split("+", maxsplit=1)[0])
    return tuple(int(number) for number in [*numbers, 0, 0, 0][:3])
