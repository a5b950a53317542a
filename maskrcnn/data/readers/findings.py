"""What is wrong with a dataset: found row by row, told all at once.

Every reader scans its rows with one `Findings`: a bad row is noted and left out. The check shows what was noted; a
reader for training raises the first of it.
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
    """One thing that was noticed.

    Attributes:
        level: "error" cannot be trained on; "warning" is probably a mistake; "info" is to be known.
        kind: Short name of the fault, such as "empty-mask".
        where: File and row.
        message: What is wrong and what was expected.
    """

    level: Level
    kind: str
    where: str
    message: str


class RowError(Exception):
    """A row cannot be used; raised and caught inside the readers."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(one_line(message))
        self.kind = kind


@dataclass
class Findings:
    """Collects the findings of one dataset.

    Attributes:
        items: In the order in which they were noticed.
    """

    items: list[DatasetFinding] = field(default_factory=list)

    def add(self, level: Level, kind: str, where: str, message: str) -> None:
        """Note one; what names and values of the files would do to a terminal is taken out of the texts."""
        self.items.append(DatasetFinding(level, kind, one_line(where), one_line(message)))

    @contextmanager
    def row(self, where: str) -> Iterator[None]:
        """Note the `RowError` that ends the block, and go on after it."""
        try:
            yield
        except RowError as error:
            self.add("error", error.kind, where, str(error))

    def refuse(self, path: Path) -> None:
        """Raise if there is an error.

        Raises:
            DatasetNotFoundError: No picture at all was found.
            DatasetFormatError: Naming the first bad row and the number of them.
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
            f"{path}` to see all, or leave them out with skip_bad=True (--skip-bad)"
        )


@dataclass(frozen=True)
class Scan:
    """What a reader got out of a file or folder.

    Attributes:
        dataset: The good rows.
        findings: The bad ones, and more.
        sizes: (height, width) of pictures, by image id, where the annotations tell it.
    """

    dataset: Dataset
    findings: Findings
    sizes: dict[int | str, tuple[int, int]] = field(default_factory=dict)


def has_errors(findings: Sequence[DatasetFinding]) -> bool:
    """Whether any is an error: the exit decision of `maskrcnn data check`."""
    return any(finding.level == "error" for finding in findings)


def table_rows(findings: Sequence[DatasetFinding]) -> list[tuple[str, str, str, str]]:
    """Level, kind, where, message of each; errors first, then warnings."""
    ranked = sorted(findings, key=lambda finding: _ORDER.index(finding.level))
    return [(finding.level, finding.kind, finding.where, finding.message) for finding in ranked]


def summary(findings: Sequence[DatasetFinding]) -> list[tuple[str, str, int, str]]:
    """Level, kind, how many, and the first of them in words; errors first."""
    groups: dict[tuple[Level, str], list[DatasetFinding]] = {}
    for finding in findings:
        groups.setdefault((finding.level, finding.kind), []).append(finding)
    ranked = sorted(groups.items(), key=lambda group: _ORDER.index(group[0][0]))
    return [
        (level, kind, len(members), f"{members[0].where}: {members[0].message}") for (level, kind), members in ranked
    ]
