"""`maskrcnn results`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from maskrcnn.commands import console, shared
from maskrcnn.commands.failures import failures
from runtime.one_line import count_of


def results(
    folder: Annotated[str, Argument(metavar="FOLDER", help="Folder or URL of a prediction run that wrote Parquet.")],
    *,
    output: Annotated[
        Path, Option("--output", "-o", metavar="FILE", help="File to write: .json for COCO JSON, .csv for a table.")
    ],
    force: shared.Force = False,
) -> None:
    """Write the rows of a prediction run as COCO JSON or CSV, sorted by path."""
    with failures("results"):
        from maskrcnn.batch.results import write_row_results  # noqa: PLC0415

        totals = write_row_results(folder, output, overwrite=force)
        lines = [f"{count_of(totals.pictures, 'image')}, {count_of(totals.detections, 'detection')}"]
        console.show(lines, images=totals.pictures, detections=totals.detections)
        console.written(output)
