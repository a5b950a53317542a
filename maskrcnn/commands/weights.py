"""`maskrcnn weights`: pretrained weights by name, and checkpoints in other formats."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from maskrcnn.checkpoints.pretrained import PRETRAINED
from maskrcnn.commands import console, shared
from maskrcnn.commands.app import App
from maskrcnn.commands.completion import words
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import Force
from maskrcnn.errors import ArgumentError

app = App(help="List and fetch pretrained weights, and convert checkpoints.")


class Goal(StrEnum):
    """Whose checkpoint to write."""

    maskrcnn = "maskrcnn"
    torchvision = "torchvision"


@app.callback()
def weights() -> None:
    """List and fetch pretrained weights, and convert checkpoints."""


@app.command("list")
def list_() -> None:
    """List the names of pretrained weights, with classes, size, license, and where they are kept."""
    with failures("weights list"):
        from maskrcnn.checkpoints.download import pretrained_list  # noqa: PLC0415

        console.pretrained(pretrained_list())


@app.command()
def fetch(
    names: Annotated[
        list[str],
        Argument(
            metavar="NAME",
            autocompletion=words(*PRETRAINED),
            help="Names that `maskrcnn weights list` shows.",
        ),
    ],
) -> None:
    """Download pretrained weights into the cache, unless they are there, and print their paths."""
    with failures("weights fetch"):
        unknown = [name for name in names if name not in PRETRAINED]
        if unknown:
            raise ArgumentError(f"there are no pretrained weights {unknown[0]!r}: names are {', '.join(PRETRAINED)}")
        paths: dict[str, str] = {}
        for name in names:
            paths[name] = str(shared.fetch(PRETRAINED[name]))
            console.show([paths[name]], paths=paths)


@app.command()
def convert(
    checkpoint: shared.Checkpoint,
    *,
    output: Annotated[
        Path, Option("--output", "-o", metavar="FILE", help="The .weights.h5, or .pth for torchvision, to write.")
    ],
    to: Annotated[Goal, Option(help="Our own format, or a state dict of torchvision.")],
    config: shared.ModelConfig = None,
    family: shared.PyTorchFamily = None,
    class_names: shared.ClassNames = None,
    settings: shared.Settings = None,
    force: Force = False,
) -> None:
    """Write a checkpoint in our own format, or as a state dict that torchvision loads."""
    with failures("weights convert"):
        from runtime.atomic import check_output  # noqa: PLC0415

        check_output(output, overwrite=force)
        model, _ = shared.load_network(checkpoint, shared.choose(config, family, class_names, settings))
        if to is Goal.maskrcnn:
            from maskrcnn.checkpoints.checkpoint import save_checkpoint  # noqa: PLC0415

            save_checkpoint(model, output, overwrite=force)
        else:
            from maskrcnn.checkpoints.families.out import to_torchvision  # noqa: PLC0415
            from maskrcnn.checkpoints.pytorch.torch_write import write_state  # noqa: PLC0415

            state, arguments = to_torchvision(model)
            write_state(output, state, overwrite=force)
            console.progress(f"build the model in torchvision with {arguments}")
            console.show((), torchvision=arguments)
        console.written(output)
