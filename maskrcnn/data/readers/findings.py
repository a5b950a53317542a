"""Problems of a dataset, collected row by row.

Every reader notes invalid rows in a `Findings` and leaves them out. The check shows all findings; opening a dataset for
training raises the first error.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from maskrcnn.data.records import Dataset
from maskrcnn.errors import DatasetFormatError, DatasetNotFoundError
from runtime.one_line import one_line

Level = Literal["error", "warning", "info"]

_ORDER: tuple[Level, ...] = ("error", "warning", "info")
NO_PICTURES = "no-pictures"
CLASS_COUNT = "class-count"  # the one kind that a summary does not join: every class has its line
_MOST_CLASSES = 100  # classes with a line of their own


@dataclass(frozen=True)
class DatasetFinding:
    """One finding.

    Attributes:
        level: "error": cannot be used for training; "warning": probably a mistake; "info": for information.
        kind: Short name of the problem, such as "empty-mask".
        where: File and row.
        message: What is wrong, and what was expected; or what was converted, and how.
        count: Number of rows that this finding stands for; `where` is the first of them.
    """

    level: Level
    kind: str
    where: str
    message: str
    count: int = 1


class RowError(Exception):
    """A row is invalid; raised and caught inside the readers."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(one_line(message))
        self.kind = kind


@dataclass
class Row:
    """A row that is being read; `label` (class of its object) and `picture` (id of its image) as soon as known."""

    findings: "Findings"
    where: str
    label: str | None = None
    picture: int | str | None = None

    def converted(self, kind: str, message: str, level: Level = "info") -> None:
        """Note that a value was converted; rows of one kind share a finding."""
        self.findings.converted(kind, self.where, message, level)


@dataclass
class Findings:
    """Collects the findings of one dataset, in file order.

    `lost` counts the objects that were left out, by class and image.
    """

    items: list[DatasetFinding] = field(default_factory=list)
    lost: Counter[tuple[str, int | str | None]] = field(default_factory=Counter)
    _shared: dict[tuple[Level, str], int] = field(init=False, default_factory=dict)

    def converted(self, kind: str, where: str, message: str, level: Level = "info") -> None:
        """Add a finding, or count one more of its kind."""
        index = self._shared.setdefault((level, kind), len(self.items))
        if index == len(self.items):
            self.add(level, kind, where, message)
        else:
            self.items[index] = replace(self.items[index], count=self.items[index].count + 1)

    def add(self, level: Level, kind: str, where: str, message: str) -> None:
        """Add a finding; control characters from file contents are removed."""
        self.items.append(DatasetFinding(level, kind, one_line(where), one_line(message)))

    @contextmanager
    def row(self, where: str) -> Iterator[Row]:
        """Turn a `RowError` in the block into an error finding."""
        row = Row(self, where)
        try:
            yield row
        except RowError as error:
            self.add("error", error.kind, where, str(error))
            if row.label is not None:
                self.lost[row.label, row.picture] += 1

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

    `sizes` has (height, width) by image id, for images whose size the annotations state. `listed` is the number of
    images in the annotations, also of those that are left out.
    """

    dataset: Dataset
    findings: Findings
    sizes: dict[int | str, tuple[int, int]] = field(default_factory=dict)
    listed: int = 0

    def first(self, count: int) -> "Scan":
        """Return the scan without the images after the first `count`, and without what is lost in them."""
        records = self.dataset.records
        others = {record.image_id for record in records[count:]}
        lost = Counter({key: number for key, number in self.findings.lost.items() if key[1] not in others})
        dataset = replace(self.dataset, records=records[:count])
        return replace(self, dataset=dataset, findings=Findings(list(self.findings.items), lost))


def has_errors(findings: Sequence[DatasetFinding]) -> bool:
    """Return whether any finding is an error."""
    return any(finding.level == "error" for finding in findings)


def table_rows(findings: Sequence[DatasetFinding]) -> list[tuple[str, str, str, str]]:
    """Return level, kind, where and message of each finding; errors first, then warnings."""
    ranked = sorted(findings, key=lambda finding: _ORDER.index(finding.level))
    return [(finding.level, finding.kind, finding.where, finding.message) for finding in ranked]


def summary(findings: Sequence[DatasetFinding]) -> list[tuple[str, str, int, str]]:
    """Return level, kind, count and the text of the first finding for each kind; errors first.

    Classes have a line each, unless they are very many.
    """
    classes = [finding for finding in findings if finding.kind == CLASS_COUNT]
    groups: dict[tuple[Level, str, str], list[DatasetFinding]] = {}
    for finding in findings:
        own = finding.where if finding.kind == CLASS_COUNT and len(classes) <= _MOST_CLASSES else ""
        groups.setdefault((finding.level, finding.kind, own), []).append(finding)
    ranked = sorted(groups.items(), key=lambda group: _ORDER.index(group[0][0]))
    return [
        (level, kind, sum(member.count for member in members), f"{members[0].where}: {members[0].message}")
        for (level, kind, _), members in ranked
    ]
