"""What the arguments of `maskrcnn-export` stand for, and how its commands end on an error."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from export import console
from export.errors import EditError, LayoutError, ParityError, PrecisionError
from export.publish import check_outputs
from maskrcnn.checkpoints.families.choices import Choices
from maskrcnn.checkpoints.pretrained import find_pretrained
from maskrcnn.commands.console import command, dataset_report, progress, useful_next, warning
from maskrcnn.commands.exit_codes import exit_code
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import build_network, find_artifact, find_model, names_demo, open_checkpoint
from runtime.artifact import ArtifactFormat
from runtime.artifact_files.savedmodel_folder import MANIFEST


def annotated(path: Path | None, class_names: tuple[str, ...], images: Path | None = None) -> Any:
    """Open the dataset of an argument, with the model's class ids; `images` is the folder of its images."""
    if path is None:
        return None
    from maskrcnn.data.readers.open import open_dataset  # noqa: PLC0415
    from maskrcnn.data.records import combine  # noqa: PLC0415

    return combine((open_dataset(path, images, report=dataset_report),), class_names)


def load(checkpoint: Path, choices: Choices, exclude_heads: bool) -> tuple[Any, dict[str, Any]]:
    """Load the model of a checkpoint argument; return it, and what exports take: `checkpoint` and `source`."""
    opened = open_checkpoint(checkpoint, choices)
    for sentence in opened.report:
        progress(sentence)
    model, loaded = build_network(checkpoint, opened, exclude_heads)
    from export.describe import checkpoint_facts  # noqa: PLC0415

    progress(f"{checkpoint.name}: {loaded}")
    facts = checkpoint_facts(None if names_demo(checkpoint) else find_model(checkpoint))
    if opened.family is not None:
        facts["family"] = opened.family.found.family
    if loaded.excluded:
        warning("the excluded layers have random weights: train them before you use the artifact")
        facts["without"] = ", ".join(loaded.excluded)
    return model, {"checkpoint": facts, "source": None if loaded.excluded else opened.family}


def refuse_output(checkpoint: Path, output: Path, artifact_format: ArtifactFormat, overwrite: bool) -> None:
    """Refuse an output before TensorFlow is loaded or weights are fetched, unless there is no checkpoint at all."""
    if find_pretrained(checkpoint) is not None or os.path.exists(find_model(checkpoint)):  # noqa: PTH110
        check_outputs(output, artifact_format, overwrite=overwrite)


def split_paths(paths: list[Path]) -> tuple[list[Path], Path | None]:
    """Divide the arguments of a benchmark into artifacts and, if the last is none, what to predict."""
    last = paths[-1]
    files = (last / name for name in (MANIFEST, "saved_model.pb"))
    is_folder = any(os.path.isfile(file) for file in files)  # noqa: PTH113  (False, not an error, for a name too long)
    is_artifact = len(paths) == 1 or last.suffix == ".onnx" or is_folder or names_demo(last)
    artifacts = paths if is_artifact else paths[:-1]
    return [find_artifact(path) for path in artifacts], None if is_artifact else last


def use(checkpoint: Path, artifact: Path, *folders: Path | None) -> None:
    """Print a command that uses an artifact: on images that the command named; the demo model on its own image."""
    own = Path(str(resources.files("maskrcnn").joinpath("demo.jpg"))) if names_demo(checkpoint) else None
    images = next(filter(None, (*folders, own)), None)
    if images is None:
        useful_next(command("maskrcnn", "show", artifact))
    else:
        useful_next(command("maskrcnn", "predict", artifact, images, overlay=True))


@contextmanager
def errors(command: str, extra: str | None = None) -> Iterator[None]:
    """Do what `failures` does, with the errors of exports. A failed parity check prints its verdict."""
    with failures(command, extra=extra, code_of=_exit_code):
        try:
            yield
        except ParityError as error:
            console.verdict_table(error.verdict)
            raise


def _exit_code(error: Exception) -> int | None:
    if isinstance(error, ParityError | PrecisionError):
        return 1
    if isinstance(error, EditError | LayoutError):
        return 2
    return exit_code(error)
