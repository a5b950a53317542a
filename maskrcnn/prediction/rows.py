"""One row per image in Parquet, the same from one machine and from many: its schema, how it is made and written."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maskrcnn.prediction.documents import Row
from maskrcnn.prediction.output_folder import NAMES_FILE, ROWS_FILE
from maskrcnn.prediction.settings import RunSettings
from maskrcnn.prediction.sources import Failure, Source
from runtime.atomic import atomic_write
from runtime.errors import ImageError, MissingPackageError
from runtime.json_file import read_json_file
from runtime.one_line import one_line, printable_path, utf8_path

_ROWS_PER_GROUP = 1000
MARK_COLUMNS = ("model_sha256", "settings_sha256")  # of `Marks`
WRITING = {"write_page_checksum": True}  # so that a damaged page is noticed, and is no other number


class Marks(NamedTuple):
    """What every row of a run repeats: digests of the model and of all settings."""

    model: str
    settings: str

    @classmethod
    def of(cls, settings: RunSettings) -> "Marks":
        """Return the marks of a run with these settings."""
        return cls(settings.model, settings.digest)


def require_arrow() -> Any:
    """Import pyarrow.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise MissingPackageError("pyarrow", "batch", "reading and writing Parquet") from error
    return pa


def row_schema() -> Any:
    """Return the schema, a `pyarrow.Schema`."""
    pa = require_arrow()
    detection = [
        ("class_id", pa.int32()),
        ("name", pa.string()),
        ("score", pa.float32()),
        ("box", pa.list_(pa.float32(), 4)),
        ("rle", pa.string()),
    ]
    texts = {name: pa.string() for name in ("path", "content_sha256", "error", "message")}
    sides = {"height": pa.int32(), "width": pa.int32()}
    marks = {name: pa.string() for name in ("device", "model_sha256", "settings_sha256")}
    return pa.schema({**texts, **sides, **marks, "detections": pa.list_(pa.struct(detection))})


def found_row(path: str, content: str | None, document: Mapping[str, Any], marks: Marks) -> dict[str, Any]:
    """Return the row of a predicted image.

    Args:
        path: Of the image.
        content: SHA-256 of its bytes.
        document: As `to_document` makes it.
        marks: Of the run.
    """
    height, width = document["image_size"]
    detections = [
        {name: found[name] for name in ("class_id", "name", "score", "box")} | {"rle": found["mask"]["counts"]}
        for found in document["detections"]
    ]
    row = _row(path, content, marks) | {"height": height, "width": width, "device": document.get("device")}
    return row | {"detections": detections}


def failed_row(path: str, content: str | None, error: str, message: str, marks: Marks) -> dict[str, Any]:
    """Return the row of an image that could not be used: the class and text of its error."""
    return _row(path, content, marks) | {"error": error, "message": one_line(message) or "no further description"}


def _row(path: str, content: str | None, marks: Marks) -> dict[str, Any]:
    same = {"path": path, "content_sha256": content, "model_sha256": marks.model, "settings_sha256": marks.settings}
    return same | dict.fromkeys(("error", "message", "height", "width", "device")) | {"detections": []}


def row_table(rows: list[dict[str, Any]]) -> Any:
    """Return rows as a `pyarrow.Table`."""
    return require_arrow().Table.from_pylist(rows, row_schema())


def stored_detections(row: Mapping[str, Any]) -> list[Row]:
    """Return the detections of a row as a document has them."""
    size = [row["height"], row["width"]]
    return [
        {name: found[name] for name in ("class_id", "name", "score")}
        | {"box": [round(side, 2) for side in found["box"]], "mask": {"size": size, "counts": found["rle"]}}
        for found in row["detections"]
    ]


def require_utf8(sources: Sequence[Source], unreadable: Sequence[Failure]) -> None:
    """Refuse names that are not UTF-8: rows have texts, in which two such names could be equal.

    Raises:
        ImageError: A file has such a name, or a folder that cannot be read.
    """
    odd = [printable_path(source.path) for source in sources if utf8_path(source.path) is None]
    odd += [each.path for each in unreadable if "\ufffd" in each.path and not os.path.lexists(each.path)]
    if odd:
        raise ImageError(f"{odd[0]!r} is a file name that is not UTF-8: rename it, or leave out --format parquet")


def write_rows(
    folder: Path,
    settings: RunSettings,
    done: Iterable[tuple[Source, Path]],
    failures: Iterable[Failure],
    unusable: Mapping[str, str | None],
) -> tuple[int, int]:
    """Write `results.parquet`, sorted by path, from the documents of images, which are read one at a time.

    Args:
        folder: Of the run.
        settings: Of the run.
        done: The images, each with its document.
        failures: Images that could not be used; a row each.
        unusable: SHA-256 of those among them that were read, by path.

    Returns:
        The number of images with a document, and of detections.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415  (an extra)

    marks, images, detections = Marks.of(settings), 0, 0
    entries: list[tuple[str, str, Path | Failure]] = [
        (printable_path(source.path), source.name, document) for source, document in done
    ]
    entries += [(failure.path, failure.name, failure) for failure in failures]
    entries.sort(key=lambda entry: entry[0])
    with atomic_write(folder / NAMES_FILE, overwrite=True) as temporary:
        temporary.write_bytes(names_content({path: name for path, name, _ in entries}))
    with (
        atomic_write(folder / ROWS_FILE, overwrite=True) as temporary,
        pq.ParquetWriter(temporary, row_schema(), **WRITING) as to,
    ):
        for start in range(0, len(entries), _ROWS_PER_GROUP):
            rows = list(_rows(entries[start : start + _ROWS_PER_GROUP], marks, unusable))
            images += sum(row["error"] is None for row in rows)
            detections += sum(len(row["detections"]) for row in rows)
            to.write_table(row_table(rows))
    return images, detections


def _rows(
    entries: Iterable[tuple[str, str, Path | Failure]], marks: Marks, unusable: Mapping[str, str | None]
) -> Iterator[dict[str, Any]]:
    for path, _, found in entries:
        if isinstance(found, Failure):
            yield failed_row(path, unusable.get(path), found.error, found.message, marks)
        else:
            document = read_json_file(found)
            yield found_row(path, document.get("content_sha256"), document, marks)  # older versions have none


def names_content(names: Mapping[str, str]) -> bytes:
    """Return the content of `_names.arrow`: path and name of each image, sorted by path."""
    pa = require_arrow()
    paths = sorted(names)
    table = pa.table(
        {"path": pa.array(paths, pa.string()), "name": pa.array([names[path] for path in paths], pa.string())}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def names_table(content: bytes) -> Any:
    """Read what `names_content` returned; raise ValueError for anything else."""
    pa = require_arrow()
    try:
        table = pa.ipc.open_file(content).read_all()
        table.validate(full=True)
    except arrow_errors() as error:
        raise ValueError(one_line(error)[:200]) from error
    wanted = pa.schema({"path": pa.string(), "name": pa.string()})
    if not table.schema.equals(wanted) or any(column.null_count for column in table.columns):
        raise ValueError("it has no paths and names")
    return table


def arrow_errors() -> tuple[type[Exception], ...]:
    """Return what pyarrow raises for damaged files."""
    return (require_arrow().ArrowException, OSError, ValueError)
