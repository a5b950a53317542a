"""`maskrcnn config from`."""

from pathlib import Path
from typing import Annotated

from typer import Option

from maskrcnn.checkpoints.pretrained import find_pretrained
from maskrcnn.commands import console, shared
from maskrcnn.commands.app import App
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import Force

app = App(help="Make a configuration for a checkpoint.")


@app.callback()
def config() -> None:
    """Make a configuration for a checkpoint."""


@app.command("from")
def from_(
    checkpoint: shared.Checkpoint,
    output: Annotated[
        Path | None, Option("--output", "-o", metavar="FILE", help="JSON file to write.", show_default="printed")
    ] = None,
    force: Force = False,
    config: shared.ModelConfig = None,
    family: shared.PyTorchFamily = None,
    class_names: shared.ClassNames = None,
    settings: shared.Settings = None,
) -> None:
    """Read backbone, classes and layer sizes from a checkpoint, and write a configuration to complete."""
    with failures("config from"):
        from maskrcnn.checkpoints.open_weights import config_to_print  # noqa: PLC0415
        from runtime.atomic import atomic_write  # noqa: PLC0415

        choices = shared.choose(config, family, class_names, settings)
        path = shared.find_model(checkpoint)
        named = find_pretrained(checkpoint) is not None
        found, report, missing = config_to_print(checkpoint if named else path, choices)
        for line in report:
            console.progress(line)
        if output is None:
            console.show(found.to_json().splitlines(), config=found)
        else:
            with atomic_write(output, overwrite=force) as path:
                path.write_text(found.to_json(), encoding="utf-8")
        console.show((), missing=missing)
        for line in missing:
            console.warning(f"fill in {line}")
        if output is not None:
            console.written(output)
