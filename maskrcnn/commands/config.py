"""`maskrcnn config from`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer, echo

from maskrcnn.commands import console
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import Force, find_model

app = Typer(help="Make a configuration for a checkpoint.", no_args_is_help=True)


@app.callback()
def config() -> None:
    """Make a configuration for a checkpoint."""


@app.command("from")
def from_(
    checkpoint: Annotated[
        Path, Argument(metavar="CHECKPOINT|demo", help="A matterport .h5 or one of our .weights.h5.")
    ],
    output: Annotated[
        Path | None, Option("--output", "-o", metavar="FILE", help="JSON file to write.", show_default="printed")
    ] = None,
    force: Force = False,
) -> None:
    """Read backbone, classes and layer sizes from a checkpoint, and write a configuration to complete."""
    with failures("train", "maskrcnn config"):
        from maskrcnn.checkpoints.architecture import config_to_complete  # noqa: PLC0415
        from runtime.atomic import atomic_write  # noqa: PLC0415

        found, missing = config_to_complete(find_model(checkpoint))
        if output is None:
            echo(found.to_json(), nl=False)
        else:
            with atomic_write(output, overwrite=force) as path:
                path.write_text(found.to_json(), encoding="utf-8")
        for line in missing:
            console.progress(f"fill in {line}")
        if output is not None:
            console.written(output)
