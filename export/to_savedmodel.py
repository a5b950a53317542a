"""Model to a verified SavedModel artifact."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import tensorflow as tf

from export.convert.trace import trace
from export.describe import describe
from export.errors import ParityError
from export.publish import publish
from export.verify.pictures import verification_pictures
from export.verify.reference import Reference
from export.verify.verdict import Verdict
from export.verify.verify import verify
from maskrcnn.model import MaskRCNN
from runtime.artifact import SIGNATURE
from runtime.artifact_files.savedmodel_folder import MANIFEST, seal_folder
from runtime.atomic import check_output
from runtime.engines.choose import open_backend
from runtime.engines.saved_model import FunctionStages


def export_savedmodel(
    model: MaskRCNN,
    output: str | Path,
    *,
    checkpoint: Mapping[str, str],
    verify_images: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _message: None,
) -> Verdict:
    """Save, verify against the model, and put in place; or write nothing.

    Args:
        model: The model.
        output: The folder; the verdict goes to `<output>.verdict.json` besides.
        checkpoint: Where the weights came from, see `describe.checkpoint_facts`.
        verify_images: Folder of pictures to compare on; None takes bundled ones.
        overwrite: Whether an existing artifact may be replaced.
        progress: Called with a sentence before each part.

    Returns:
        The verdict, which passed.

    Raises:
        ParityError: The artifact is not equal to the model.
        OutputError: The output exists, or cannot be written.
        ImageError: A verification picture cannot be used.
    """
    output = Path(output)
    check_output(output, overwrite=overwrite, directory=True, marker=MANIFEST)
    config = model.config
    pictures = verification_pictures(verify_images, config.model.image_channels, config.resize)
    draft = describe(model, "savedmodel", checkpoint)
    module = tf.Module()
    module.detect = trace(model)
    module.model_variables = [variable.value for variable in model.variables]  # saved with the function

    def write(path: Path, verdict: Verdict | None) -> None:
        if verdict is None:
            progress("saving the SavedModel")
            tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.detect})
        values = {} if verdict is None else verdict.to_dict()
        seal_folder(path, replace(draft, verdict=values).to_json())

    def judge(path: Path) -> Verdict:
        backend = open_backend(path, draft, "cpu")
        stages = FunctionStages.of_savedmodel(path)
        engine = f"tensorflow {tf.__version__}, cpu"
        verdict = verify(Reference(model), backend, stages, pictures, engine, progress)
        if not verdict.passed:
            raise ParityError(verdict)
        return verdict

    return publish(output, write, judge, overwrite=overwrite, directory=True)
