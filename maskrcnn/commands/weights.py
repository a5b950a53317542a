"""`maskrcnn weights`: pretrained weights by name, and checkpoints in other formats."""

from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from maskrcnn.checkpoints.pretrained import PRETRAINED
from maskrcnn.commands import console, shared
from maskrcnn.commands.app import App
from maskrcnn.commands.completion import words
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import Force
from maskrcnn.configuration.samples import DEMO
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

        console.pretrained([*pretrained_list(), _demo()])


def _demo() -> dict[str, Any]:
    """Return the row of the packaged demo."""
    path = shared.demo_path()
    size = path.stat().st_size
    return {
        "name": "demo",
        "network": "maskrcnn-export ResNet-18",
        "classes": len(DEMO.model.class_names) - 1,
        "bytes": size,
        "megabytes": round(size / 10**6),
        "license": "MIT",
        "url": None,
        "source": None,
        "path": str(path),
        "cached": True,
    }


@app.command()
def fetch(
    names: Annotated[
        list[str],
        Argument(
            metavar="NAME",
            autocompletion=words(*PRETRAINED, "demo"),
            help="Names that `maskrcnn weights list` shows.",
        ),
    ],
) -> None:
    """Download pretrained weights into the cache, unless they are there, and print their paths."""
    with failures("weights fetch"):
        known = [*PRETRAINED, "demo"]
        for name in names:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"names are {', '.join(known)}"
                raise ArgumentError(f"there are no pretrained weights {name!r}: {hint}")
        paths: dict[str, str] = {}
        for name in names:
            if name == "demo":
                console.progress("demo ships with the package, so nothing is fetched")
            paths[name] = str(shared.demo_path() if name == "demo" else shared.fetch(PRETRAINED[name]))
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
