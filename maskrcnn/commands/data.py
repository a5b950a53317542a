"""`maskrcnn data check` and `maskrcnn data shapes`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option, Typer

from maskrcnn.commands import console
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import ClassAttribute, DatasetPath, Force, Format

app = Typer(help="Check a dataset, or make a synthetic one.", no_args_is_help=True)


@app.command()
def check(
    dataset: DatasetPath,
    images: Annotated[Path | None, Option(metavar="FOLDER", help="Folder of the images.", show_default="found")] = None,
    rows: Annotated[bool, Option("--all", help="List every finding, not only the first of each kind.")] = False,
    format_: Format = None,
    class_attribute: ClassAttribute = None,
) -> None:
    """Find the errors of a dataset before training."""
    with failures("train", "maskrcnn data check"):
        from maskrcnn.data.readers.check import check_dataset  # noqa: PLC0415

        code = console.findings(dataset, check_dataset(dataset, images, format_, None, class_attribute), rows)
    raise Exit(code)


@app.command()
def shapes(
    folder: Annotated[Path, Argument(metavar="FOLDER", help="Folder for the dataset.")],
    count: Annotated[int, Option(min=1, metavar="N", help="Number of images.")] = 1000,
    seed: Annotated[int, Option(min=0, metavar="N", help="Seed of the random numbers.")] = 0,
    force: Force = False,
) -> None:
    """Write a synthetic dataset of squares, circles and triangles as COCO JSON."""
    with failures("train", "maskrcnn data shapes"):
        from maskrcnn.data.synthetic.shapes import write_shapes  # noqa: PLC0415

        console.written(write_shapes(folder, count, seed, overwrite=force))
