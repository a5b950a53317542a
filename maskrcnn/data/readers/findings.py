"""Problems of a dataset, collected row by row.

Every reader notes invalid rows in a `Findings` and leaves them out. The check shows all findings; opening a dataset for
training raises the first error.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from maskrcnn.data.records import Dataset
from maskrcnn.errors import DatasetFormatError, DatasetNotFoundError
from runtime.one_line import one_line

Level = Literal["error", "warning", "info"]

_ORDER: tuple[Level, ...] = ("error", "warning", "info")
NO_PICTURES = "no-pictures"


@dataclass(frozen=True)
class DatasetFinding:
    """One finding.

    Attributes:
        level: "error": cannot be used for training; "warning": probably a mistake; "info": for information.
        kind: Short name of the problem, such as "empty-mask".
        where: File and row.
        message: What is wrong, and what was expected.
    """

    level: Level
    kind: str
    where: str
    message: str


class RowError(Exception):
    """A row is invalid; raised and caught inside the readers."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(one_line(message))
        self.kind = kind


@dataclass
class Findings:
    """Collects the findings of one dataset, in file order."""

    items: list[DatasetFinding] = field(default_factory=list)

    def add(self, level: Level, kind: str, where: str, message: str) -> None:
        """Add a finding; control characters from file contents are removed."""
        self.items.append(DatasetFinding(level, kind, one_line(where), one_line(message)))

    @contextmanager
    def row(self, where: str) -> Iterator[None]:
        """Turn a `RowError` in the block into an error finding."""
        try:
            yield
        except RowError as error:
            self.add("error", error.kind, where, str(error))

    def refuse(self, path: Path) -> None:
        """Raise an exception if there are errors.

        Raises:
            DatasetNotFoundError: None of the images was found.
            DatasetFormatError: A row is invalid; the message gives the first one and their number.
        """
        errors = [item for item in self.items if item.level == "error"]
        if not errors:
            return
        first = next((item for item in errors if item.kind == NO_PICTURES), errors[0])
        if first.kind == NO_PICTURES:
            raise DatasetNotFoundError(f"{first.where}: {first.message}")
        count = "1 row" if len(errors) == 1 else f"{len(errors)} rows"
        raise DatasetFormatError(
            f"{path} has {count} that cannot be used, first {first.where}: {first.message}; run `maskrcnn data check "
            f"{path}` to see all, or skip them with skip_bad=True (--skip-bad)"
        )


@dataclass(frozen=True)
class Scan:
    """The result of a reader: the valid rows, and what is wrong with the others.

    `sizes` has (height, width) by image id, for images whose size the annotations state.
    """

    dataset: Dataset
    findings: Findings
    sizes: dict[int | str, tuple[int, int]] = field(default_factory=dict)


def has_errors(findings: Sequence[DatasetFinding]) -> bool:
    """Return whether any finding is an error."""
    return any(finding.level == "error" for finding in findings)


def table_rows(findings: Sequence[DatasetFinding]) -> list[tuple[str, str, str, str]]:
    """Return level, kind, where and message of each finding; errors first, then warnings."""
    ranked = sorted(findings, key=lambda finding: _ORDER.index(finding.level))
    return [(finding.level, finding.kind, finding.where, finding.message) for finding in ranked]


def summary(findings: Sequence[DatasetFinding]) -> list[tuple[str, str, int, str]]:
    """Return level, kind, count and the text of the first finding for each kind; errors first."""
    groups: dict[tuple[Level, str], list[DatasetFinding]] = {}
    for finding in findings:
        groups.setdefault((finding.level, finding.kind), []).append(finding)
    ranked = sorted(groups.items(), key=lambda group: _ORDER.index(group[0][0]))
    return [
        (level, kind, len(members), f"{members[0].where}: {members[0].message}") for (level, kind), members in ranked
    ]
