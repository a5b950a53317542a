"""`maskrcnn data check` and `maskrcnn data shapes`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from maskrcnn.commands import console
from maskrcnn.commands.app import App
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import (
    BoxesAsMasks,
    ByName,
    ClassAttribute,
    DatasetPath,
    Encoding,
    Force,
    Format,
    Images,
    MaskKinds,
)
from maskrcnn.data.readers.options import ReadOptions

app = App(help="Check a dataset, or make a synthetic one.")


@app.command()
def check(  # noqa: PLR0913  (one argument per option)
    dataset: DatasetPath,
    *,
    images: Images = None,
    rows: Annotated[bool, Option("--all", help="List every finding, not only the first of each kind.")] = False,
    format_: Format = None,
    class_attribute: ClassAttribute = None,
    by_name: ByName = False,
    boxes_as_masks: BoxesAsMasks = False,
    mask_values: MaskKinds = None,
    encoding: Encoding = None,
) -> None:
    """Find the errors of a dataset before training."""
    with failures("data check"):
        from maskrcnn.data.readers.check import check_dataset  # noqa: PLC0415

        options = ReadOptions(by_name, boxes_as_masks, mask_values, encoding)
        found = check_dataset(dataset, images, format_, None, class_attribute, options=options)
        code = console.findings(dataset, found, rows)
    raise Exit(code)


@app.command()
def shapes(
    folder: Annotated[Path, Argument(metavar="FOLDER", help="Folder for the dataset.")],
    count: Annotated[int, Option(min=1, metavar="N", help="Number of images.")] = 1000,
    seed: Annotated[int, Option(min=0, metavar="N", help="Seed of the random numbers.")] = 0,
    force: Force = False,
) -> None:
    """Write a synthetic dataset of squares, circles and triangles as COCO JSON."""
    with failures("data shapes"):
        from maskrcnn.data.synthetic.shapes import write_shapes  # noqa: PLC0415

        path = write_shapes(folder, count, seed, overwrite=force)
        console.show((), images=count, seed=seed)
        console.written(path)
