"""`maskrcnn data`: check, split, convert, shapes."""

from pathlib import Path
from typing import Annotated, get_args

from typer import Argument, BadParameter, Exit, Option

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
    Group,
    Images,
    MaskKinds,
    NewFolder,
    SkipBad,
    is_number,
)
from maskrcnn.data.readers.options import ReadOptions, WrittenFormat
from maskrcnn.errors import ArgumentError, DatasetError

app = App(help="Check, split or convert a dataset, or make a synthetic one.")


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
def split(  # noqa: PLR0913  (one argument per option)
    dataset: DatasetPath,
    *,
    output: NewFolder,
    val: Annotated[
        float, Option(metavar="SHARE", help="Share of the images for validation.", min=0, max=1, callback=is_number)
    ] = 0.2,
    test: Annotated[
        float, Option(metavar="SHARE", help="Share of the images for a test.", min=0, max=1, callback=is_number)
    ] = 0.0,
    group: Group = None,
    seed: Annotated[int, Option(min=0, metavar="N", help="Another seed gives another split.")] = 0,
    images: Images = None,
    force: Force = False,
    format_: Format = None,
    class_attribute: ClassAttribute = None,
    skip_bad: SkipBad = False,
    by_name: ByName = False,
    boxes_as_masks: BoxesAsMasks = False,
    mask_values: MaskKinds = None,
    encoding: Encoding = None,
) -> None:
    """Split a dataset into COCO JSON files for training, validation and test; images are linked, not copied."""
    with failures("data split"):
        from maskrcnn.data.readers.open import open_dataset  # noqa: PLC0415
        from maskrcnn.data.split import SplitOptions, split_datasets  # noqa: PLC0415
        from maskrcnn.data.writers.coco import write_coco  # noqa: PLC0415
        from maskrcnn.data.writers.images import check_source  # noqa: PLC0415
        from runtime.atomic import check_output  # noqa: PLC0415

        try:
            chosen = SplitOptions(val, test, seed, group)
        except DatasetError as error:
            raise ArgumentError(str(error)) from error
        check_output(output, overwrite=force, directory=True, marker="train.json")
        check_source(dataset, output)
        options = ReadOptions(by_name, boxes_as_masks, mask_values, encoding)
        found = open_dataset(
            dataset, images, format_, None, class_attribute, skip_bad=skip_bad, options=options,
            report=console.dataset_report,
        )  # fmt: skip
        parts = split_datasets([found], chosen)
        paths = write_coco({name: part for name, (part,) in parts.parts.items()}, output, overwrite=force)
        console.show(parts.notes, images={name: len(part) for name, (part,) in parts.parts.items()}, seed=seed)
        for line in parts.warnings:
            console.warning(line)
        console.written(*paths)
        console.useful_next(console.command("maskrcnn", "train", output, config="small"))


@app.command()
def convert(  # noqa: PLR0913  (one argument per option)
    dataset: DatasetPath,
    *,
    output: NewFolder,
    to: Annotated[
        WrittenFormat, Option(metavar="|".join(get_args(WrittenFormat)), help="Format to write.", show_default=False)
    ],
    images: Images = None,
    force: Force = False,
    format_: Format = None,
    class_attribute: ClassAttribute = None,
    skip_bad: SkipBad = False,
    by_name: ByName = False,
    boxes_as_masks: BoxesAsMasks = False,
    mask_values: MaskKinds = None,
    encoding: Encoding = None,
) -> None:
    """Write a dataset in the format of another tool; images are linked, not copied."""
    with failures("data convert"):
        from maskrcnn.data.readers.open import open_dataset  # noqa: PLC0415
        from maskrcnn.data.writers.convert import CLASS_ATTRIBUTE, check_folder, convert_dataset  # noqa: PLC0415
        from maskrcnn.data.writers.images import check_source  # noqa: PLC0415

        check_folder(output, to, overwrite=force)
        check_source(dataset, output)
        options = ReadOptions(by_name, boxes_as_masks, mask_values, encoding)
        found = open_dataset(
            dataset, images, format_, None, class_attribute, skip_bad=skip_bad, options=options,
            report=console.dataset_report,
        )  # fmt: skip
        for line in convert_dataset(found, output, to, overwrite=force):
            console.warning(line)
        console.show((), images=len(found), format=to)
        console.written(output)
        attribute = CLASS_ATTRIBUTE if to == "via" else None
        console.useful_next(console.command("maskrcnn", "data", "check", output, class_attribute=attribute))


def _are_shares(value: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
    from maskrcnn.data.synthetic.shapes import check_shares  # noqa: PLC0415

    try:
        check_shares(value)
    except DatasetError as error:
        raise BadParameter(str(error)) from error
    return value


@app.command()
def shapes(
    folder: Annotated[Path, Argument(metavar="FOLDER", help="Folder for the dataset.")],
    count: Annotated[int, Option(min=1, metavar="N", help="Number of images.")] = 1000,
    seed: Annotated[int, Option(min=0, metavar="N", help="Seed of the random numbers.")] = 0,
    shares: Annotated[
        tuple[float, float, float] | None,
        Option(
            callback=_are_shares,
            metavar="SQUARES CIRCLES TRIANGLES",
            help="Shares of the three classes, such as 49 50 1 for one that is rare.",
            show_default="equal",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Write a synthetic dataset of squares, circles and triangles as COCO JSON."""
    with failures("data shapes"):
        from maskrcnn.data.synthetic.shapes import write_shapes  # noqa: PLC0415

        path = write_shapes(folder, count, seed, overwrite=force, shares=shares)
        console.show((), images=count, seed=seed)
        console.written(path)
