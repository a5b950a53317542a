"""`maskrcnn data check` and `maskrcnn data shapes`."""

from pathlib import Path
from typing import Annotated

import typer

from maskrcnn.commands import console
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import ClassAttribute, DatasetPath, Format

app = typer.Typer(help="Look at data sets, and make one.", no_args_is_help=True)


@app.command()
def check(
    dataset: DatasetPath,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of the pictures.")] = None,
    format_: Format = None,
    class_attribute: ClassAttribute = None,
    rows: Annotated[bool, typer.Option("--all", help="Every finding, not the first of each kind.")] = False,
) -> None:
    """Find what is wrong with a data set, before hours are spent on it."""
    with failures("train", "maskrcnn data check"):
        from maskrcnn.data.readers.check import check_dataset  # noqa: PLC0415

        code = console.findings(dataset, check_dataset(dataset, images, format_, None, class_attribute), rows)
    raise typer.Exit(code)


@app.command()
def shapes(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.", show_default=False)],
    count: Annotated[int, typer.Option(min=1, help="Number of pictures.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other pictures.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an older folder of shapes.")] = False,
) -> None:
    """Write pictures of squares, circles and triangles with their annotations as COCO JSON."""
    with failures("train", "maskrcnn data shapes"):
        from maskrcnn.data.synthetic.shapes import write_shapes  # noqa: PLC0415

        console.written(write_shapes(folder, count, seed, overwrite=force))
