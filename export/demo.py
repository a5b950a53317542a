"""Export the demo model to both formats, run an image through both, and draw the results."""

from collections.abc import Callable, Iterator
from pathlib import Path

from export.verify.verdict import Verdict
from maskrcnn.callbacks import Say
from maskrcnn.tensorflow_import import import_tensorflow
from runtime.atomic import atomic_write
from runtime.predictor import Predictor


def run_demo(folder: Path, progress: Say, show: Callable[[Verdict], None]) -> Iterator[Path]:
    """Write artifacts, verdicts, the input image and one overlay per artifact to a folder.

    Existing files are replaced. Yields each path that was written; calls `show` with each verdict.
    """
    progress("loading TensorFlow")
    import_tensorflow()
    from PIL import Image  # noqa: PLC0415

    from export import export_onnx, export_savedmodel  # noqa: PLC0415
    from export.describe import checkpoint_facts  # noqa: PLC0415
    from export.publish import VERDICT_SUFFIX  # noqa: PLC0415
    from maskrcnn.demo import demo_model, demo_picture  # noqa: PLC0415

    model, facts = demo_model(), checkpoint_facts(None)
    picture_path = folder / "image.png"
    with atomic_write(picture_path, overwrite=True) as temporary:
        Image.fromarray(demo_picture()).save(temporary, format="PNG")
    yield picture_path
    for export_as, name in ((export_onnx, "demo.onnx"), (export_savedmodel, "demo_savedmodel")):
        path = folder / name
        show(export_as(model, path, checkpoint=facts, overwrite=True, progress=progress))
        yield path
        yield path.with_name(path.name + VERDICT_SUFFIX)
        predictor = Predictor(path)
        progress(f"predicting {picture_path.name} with {name} on {predictor.device}")
        detections = predictor(picture_path)
        overlay = folder / f"overlay_{path.stem}.png"
        with atomic_write(overlay, overwrite=True) as temporary:
            detections.draw(picture_path).save(temporary, format="PNG")
        yield overlay
