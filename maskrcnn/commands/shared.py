"""Options that several commands share, and the models of their arguments."""

import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from difflib import get_close_matches
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from typer import Argument, BadParameter, Exit, Option, echo

from maskrcnn.callbacks import Counted
from maskrcnn.checkpoints.families.choices import NO_CHOICES, Choices
from maskrcnn.checkpoints.families.recognize import FAMILIES, Family
from maskrcnn.checkpoints.h5_open import SUFFIXES
from maskrcnn.checkpoints.pretrained import PRETRAINED, Pretrained, find_pretrained, is_taken
from maskrcnn.commands.completion import words, words_or_files
from maskrcnn.commands.console import command, progress, progress_bar, warning
from maskrcnn.configuration.samples import SAMPLES
from maskrcnn.data.readers.options import DatasetFormat, Grouping, MaskValues
from maskrcnn.distribution import NAME, engine_versions, own_version
from maskrcnn.errors import ArgumentError, CheckpointNotFoundError
from maskrcnn.tensorflow_import import import_tensorflow
from runtime.artifact_files.onnx_file import needs_export
from runtime.errors import InputError
from runtime.pictures.pixels import PixelPolicy
from runtime.pictures.read import MAX_PIXELS

if TYPE_CHECKING:
    from maskrcnn.checkpoints.named_weights import LoadReport
    from maskrcnn.checkpoints.open_weights import Weights
    from maskrcnn.configuration.model import Config
    from maskrcnn.model import MaskRCNN

_FOR_CHECKPOINTS = "Checkpoints"
ARTIFACTS, MODELS = words_or_files("demo"), words_or_files("demo", *PRETRAINED)  # what completes an argument
WORDS_OF_INIT = ("none", "imagenet", "demo")
RUN_PREFIX = "run."  # of settings of a training run, which are not the model's
advanced = partial(Option, rich_help_panel="Advanced")  # for options that few people need

CONFIG_KINDS = f"a JSON file with our or matterport's field names, or a sample ({', '.join(SAMPLES)})"
DATASET_KINDS = "COCO JSON, VGG Image Annotator JSON or CSV, or a folder of labelme files, mask images or YOLO labels"
CHECKPOINT_KINDS = (
    "One of our .weights.h5, a matterport .h5, a .pth, .pkl or .safetensors of torchvision, Detectron2 or MMDetection, "
    "or a name: demo for the demo model, coco or another of `maskrcnn weights list` for pretrained weights."
)
MODEL_KINDS = f"An .onnx file, a SavedModel folder, or a checkpoint. {CHECKPOINT_KINDS}"


def is_number(value: float | None) -> float | None:
    """Refuse the value nan, which is not outside of any range."""
    if value is not None and math.isnan(value):
        raise BadParameter("nan is not in the range 0<=x<=1.")
    return value


RANGE: dict[str, Any] = {"min": 0, "max": 1, "callback": is_number}
SCORE = RANGE | {"metavar": "SCORE", "help": "Lowest score of a detection."}
NMS = RANGE | {"metavar": "IOU", "help": "Largest IoU of two detections of one class."}

Model = Annotated[Path, Argument(metavar="MODEL|coco|demo", help=MODEL_KINDS, autocompletion=MODELS)]
Checkpoint = Annotated[Path, Argument(metavar="CHECKPOINT|coco|demo", help=CHECKPOINT_KINDS, autocompletion=MODELS)]
DatasetPath = Annotated[Path, Argument(metavar="DATASET", help=f"{DATASET_KINDS}.")]
ModelConfig = Annotated[
    str | None,
    Option(
        "--config",
        metavar="FILE|SAMPLE",
        autocompletion=words_or_files(*SAMPLES),
        help=f"Model configuration for checkpoints that do not store one: {CONFIG_KINDS}; for PyTorch checkpoints also "
        "a YAML of Detectron2 or a Python file of MMDetection.",
    ),
]
PyTorchFamily = Annotated[
    Family | None,
    Option(
        "--family",
        metavar="|".join(FAMILIES),
        help="Whose model a PyTorch checkpoint is of.",
        show_default="recognized",
        rich_help_panel=_FOR_CHECKPOINTS,
    ),
]
ClassNames = Annotated[
    str | None,
    Option(
        "--classes",
        metavar="coco|FILE|A,B,C",
        autocompletion=words_or_files("coco"),
        help="Class names of a PyTorch checkpoint, without background: COCO's, a file with a name per line, or names.",
        show_default="numbers, unless something names them",
        rich_help_panel=_FOR_CHECKPOINTS,
    ),
]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change a setting of a checkpoint, such as detection.min_score=0.2; may be repeated.",
        rich_help_panel=_FOR_CHECKPOINTS,
    ),
]
Device = Annotated[
    str,
    Option(
        metavar="DEVICE",
        autocompletion=words("auto", "cpu", "cuda", "tensorrt", "openvino"),
        help="Device for an artifact: auto, cpu, cuda, cuda:N, tensorrt or openvino.",
    ),
]
NewFolder = Annotated[Path, Option("--output", "-o", metavar="FOLDER", help="Folder to write.")]
_GROUP: dict[str, Any] = {
    "metavar": "|".join(get_args(Grouping)),
    "help": "In a split, keep together the images of a folder, or the frames of a video, whose names differ by a "
    "number at their end.",
    "show_default": "each image on its own",
}
Group = Annotated[Grouping | None, Option(**_GROUP)]
GroupOfValidation = Annotated[Grouping | None, advanced("--group", **_GROUP)]
Force = Annotated[bool, Option("--force", help="Replace an existing output.")]
Format = Annotated[
    DatasetFormat | None,
    advanced(
        "--format",
        metavar="FORMAT",
        help=f"Format of the annotations: {', '.join(get_args(DatasetFormat))}.",
        show_default="detected",
    ),
]
ClassAttribute = Annotated[
    str | None,
    advanced(
        metavar="NAME",
        help="Region attribute that holds the class in VGG Image Annotator files; @key if the attribute's name is the "
        "class.",
        show_default="one class for all regions",
    ),
]
SkipBad = Annotated[bool, advanced("--skip-bad", help="Skip annotations and images that cannot be used.")]
Images = Annotated[
    Path | None, Option("--images", metavar="FOLDER", help="Folder of the dataset's images.", show_default="found")
]
ByName = Annotated[
    bool,
    advanced(
        "--by-name",
        help="Find images by their file name alone where the folder in the annotations does not exist; rows with one "
        "file become one image.",
    ),
]
BoxesAsMasks = Annotated[
    bool, advanced("--boxes-as-masks", help="Take the box of an object without an outline as its mask.")
]
MaskKinds = Annotated[
    MaskValues | None,
    advanced(
        "--mask-values",
        metavar="|".join(get_args(MaskValues)),
        help="What a value or color of mask images is: an object; an object in each connected region; or a class, with "
        "an object in each connected region.",
        show_default="detected",
    ),
]
AugmentWith = Annotated[
    str | None,
    advanced(
        "--augment-with",
        metavar="FILE.py:NAME",
        help="Function of your own, also MODULE:NAME, that changes training images, their boxes and masks.",
    ),
]
Encoding = Annotated[
    str | None,
    advanced(
        metavar="NAME", help="Encoding of annotation files that are not UTF-8, such as cp1252.", show_default="detected"
    ),
]


def _allowed(policy: Callable[[], PixelPolicy]) -> None:
    """Make values that a policy of sample values refuses a usage error."""
    try:
        policy()
    except InputError as error:
        raise BadParameter(str(error)) from error


def _is_range(value: tuple[float, float] | None) -> tuple[float, float] | None:
    _allowed(lambda: PixelPolicy(value_range=value))
    return value


ValueRange = Annotated[
    tuple[float, float] | None,
    Option(
        callback=_is_range,
        metavar="LOW HIGH",
        help="Sample values that become 0 and 255 in images of more than 8 bits, such as 0 4095 for a 12-bit camera.",
    ),
]
Bands = Annotated[
    str | None,
    Option(metavar="N,N,...", help="Bands of TIFF files that are the channels of the image, counted from 1."),
]


def band_numbers(text: str | None) -> tuple[int, ...] | None:
    """Return the numbers of an option such as 4,3,2; anything else is a usage error."""
    if text is None:
        return None
    try:
        bands = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise BadParameter(f"bands is {text[:60]!r}: expected numbers, such as 4,3,2") from error
    _allowed(lambda: PixelPolicy(bands=bands))
    return bands


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"{NAME} {own_version()}\n{engine_versions()}")
        raise Exit


Version = Annotated[
    bool,
    Option(
        "--version",
        callback=_print_version,
        is_eager=True,
        help="Show the versions of the package and of the engines, and exit.",
    ),
]


def names_demo(model: Path) -> bool:
    """Return whether a model argument is the word `demo`, and no model here has that name."""
    return model == Path("demo") and not is_taken(model)


def demo_path() -> Path:
    """Return the path of the packaged checkpoint."""
    return Path(str(resources.files("maskrcnn").joinpath("demo.weights.h5")))


def find_model(model: Path, count: Counted | None = None) -> Path:
    """Return the path of a model argument; `demo` is the packaged checkpoint, and pretrained weights are fetched."""
    named = find_pretrained(model)
    if named is not None:
        return fetch(named, count)
    if names_demo(model):
        return demo_path()
    if not model.suffix and not os.path.exists(model):  # noqa: PTH110  (False, not an error, for a name too long)
        for name in get_close_matches(str(model), [*PRETRAINED, "demo"], n=1):
            raise CheckpointNotFoundError(f"there is no model at {model}: did you mean {name}?")
    return model


def fetch(weights: Pretrained, count: Counted | None = None) -> Path:
    """Return the file of pretrained weights; `count` shows the progress of a download, in place of a bar of its own."""
    from maskrcnn.checkpoints.download import fetch_pretrained  # noqa: PLC0415

    with progress_bar() if count is None else nullcontext(count) as shown:
        return fetch_pretrained(weights, progress, shown)


def find_artifact(model: Path) -> Path:
    """Return the path of an artifact argument; `demo` is the packaged `.onnx` file, which needs no TensorFlow."""
    refuse_pretrained(model)
    return Path(str(resources.files("maskrcnn").joinpath("demo.onnx"))) if names_demo(model) else model


def refuse_pretrained(model: Path) -> None:
    """Refuse the name of pretrained weights where an artifact is needed."""
    if find_pretrained(model) is not None:
        raise needs_export(model)


def default_output(checkpoint: Path, ending: str) -> Path:
    """Return where the artifact of a checkpoint argument is written: beside it; for a name, in this folder."""
    named = names_demo(checkpoint) or find_pretrained(checkpoint) is not None
    name = checkpoint.name.removesuffix(checkpoint.suffix).removesuffix(".weights")
    return (Path() if named else checkpoint.parent) / f"{name}{ending}"


def export_command(checkpoint: Path, **options: object) -> str:
    """Return the command that exports a checkpoint argument, to another file where that would replace one."""
    number, output = 1, default_output(checkpoint, ".onnx")
    while any(os.path.lexists(f"{output}{ending}") for ending in ("", ".verdict.json")):
        number += 1
        output = default_output(checkpoint, f"-{number}.onnx")
    return command("maskrcnn", "export", "onnx", checkpoint, **options, output=output if number > 1 else None)


def choose(
    config: str | None, family: Family | None = None, classes: str | None = None, settings: list[str] | None = None
) -> Choices:
    """Return what the options of a command say about a checkpoint."""
    return Choices(config, family, classes, tuple(settings or ()))


def load_network(checkpoint: Path, choices: Choices, exclude_heads: bool = False) -> tuple["MaskRCNN", "LoadReport"]:
    """Load the Keras model of a checkpoint argument, and say what a PyTorch checkpoint is."""
    opened = open_checkpoint(checkpoint, choices)
    for sentence in opened.report:
        progress(sentence)
    return build_network(checkpoint, opened, exclude_heads)


def build_network(checkpoint: Path, opened: "Weights", exclude_heads: bool = False) -> tuple["MaskRCNN", "LoadReport"]:
    """Build the Keras model of an opened checkpoint argument."""
    progress("loading TensorFlow and the checkpoint")
    import_tensorflow()
    from maskrcnn.checkpoints.checkpoint import load_weights  # noqa: PLC0415

    model, report = load_weights(opened, exclude_heads)
    if report.leftover:
        warning(f"{checkpoint.name}: not used, no weights of the network: {', '.join(report.leftover)}")
    return model, report


def open_checkpoint(checkpoint: Path, choices: Choices) -> "Weights":
    """Open a checkpoint argument and find its configuration, or refuse it, without TensorFlow."""
    from maskrcnn.checkpoints.open_weights import open_weights  # noqa: PLC0415

    found = find_model(checkpoint)
    return open_weights(found if find_pretrained(checkpoint) is None else checkpoint, choices)


def open_start(init: str | None, choices: Choices) -> "str | Weights | None":
    """Open the PyTorch or pretrained weights that training starts from, without TensorFlow; others are only checked.

    Returns:
        The opened checkpoint, or `init`.
    """
    if init is None or init in WORDS_OF_INIT:
        if choices.family is not None or choices.classes is not None:
            raise ArgumentError("--family and --classes are for a PyTorch checkpoint, and --init names none")
        return init
    opened = open_checkpoint(Path(init), choices)
    for sentence in opened.report:
        progress(sentence)
    return init if opened.family is None and find_pretrained(init) is None else opened


def check_model(model: Path, choices: Choices) -> tuple[str, ...]:
    """Refuse a model argument that cannot be used, without TensorFlow; return its class names."""
    check_choices(model, choices)
    if is_checkpoint(model):
        return open_checkpoint(model, choices).config.model.class_names
    from runtime.artifact_files.read import read_metadata  # noqa: PLC0415

    return read_metadata(find_model(model), verify_digest=False).class_names


def check_choices(model: Path, choices: Choices) -> None:
    """Refuse options of checkpoints for a model argument that is an artifact."""
    chosen = choices.family is not None or choices.classes is not None or choices.settings
    if chosen and not is_checkpoint(model):
        raise ArgumentError(f"{model} is an artifact: --family, --classes and --set are for checkpoints")


def stated_config(predictor: Any, model: Path, choices: Choices) -> str:
    """Return the JSON of the configuration of an opened checkpoint argument, unless its file alone says it."""
    in_file = choices == NO_CHOICES and find_pretrained(model) is None and find_model(model).suffix == ".h5"
    if in_file or not is_checkpoint(model):
        return ""
    config: Config = predictor.model.config
    return config.to_json()


def is_checkpoint(model: Path) -> bool:
    """Return whether a model argument is a weights file, of whatever kind, and not an artifact."""
    if find_pretrained(model) is not None:
        return True
    path = find_model(model)
    return path.suffix in SUFFIXES and path.suffix != ".onnx" and not path.is_dir()


def open_predictor(
    model: Path,
    choices: Choices,
    device: str,
    score_threshold: float | None,
    nms_threshold: float | None = None,
    max_pixels: int = MAX_PIXELS,
    value_range: tuple[float, float] | None = None,
    bands: tuple[int, ...] | None = None,
) -> Any:
    """Open a model argument: the Keras model of a checkpoint, or an artifact in its engine.

    A threshold of None is that of the artifact, or of the configuration of a checkpoint.
    """
    if is_checkpoint(model):
        network, _ = load_network(model, choices)
        from maskrcnn.checkpoint_predictor import CheckpointPredictor  # noqa: PLC0415

        if score_threshold is None:
            score_threshold = network.config.detection.min_score
        return CheckpointPredictor(
            network, score_threshold, nms_threshold, max_pixels, value_range, bands, remember_image=False
        )
    path = find_model(model)
    if path.is_dir():
        import_tensorflow()  # the engine of a SavedModel
    from runtime.predictor import Predictor  # noqa: PLC0415

    return Predictor(
        path,
        device,
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
        max_pixels=max_pixels,
        value_range=value_range,
        bands=bands,
        remember_image=False,
    )
