"""`maskrcnn-export`: parses arguments, calls one function, prints the result. Imports no engine before it is needed.

Exit codes: 0 done; 1 the parity check failed, or lower precision costs too much; 2 wrong usage; 3 a package or device
is missing, or the doctor found a problem; 4 a checkpoint, configuration or artifact cannot be used; 5 an image cannot
be used; 6 the output cannot be written; 130 interrupted by Ctrl-C.
"""

import json
import os
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, BadParameter, Exit, Option

from export import console
from export.arguments import annotated, errors, load, refuse_output, split_paths, use
from export.errors import ConversionError, ParityError
from export.target import LARGEST_BATCH, OPSETS, Target
from maskrcnn.commands import shared
from maskrcnn.commands.app import App
from maskrcnn.commands.console import progress as say, show, stages, written
from maskrcnn.commands.shared import (
    Checkpoint,
    ClassNames,
    Device,
    Force,
    ModelConfig,
    PyTorchFamily,
    Settings,
    Version,
    advanced,
    choose,
    default_output,
    find_artifact,
)
from runtime.artifact import Precision, Target as Engine, Thresholds
from runtime.engines.options import BF16

_lower_precision = partial(Option, rich_help_panel="Lower precision")
_all_engines = partial(Option, rich_help_panel="All engines")
_BESIDE = "beside the checkpoint, with its name"
Artifact = Annotated[
    Path,
    Argument(
        metavar="ARTIFACT|demo",
        autocompletion=shared.ARTIFACTS,
        help="An .onnx file or SavedModel folder, or demo for the packaged .onnx file.",
    ),
]
ExcludeHeads = Annotated[
    bool,
    advanced("--exclude-heads", help="Skip the layers that depend on the number of classes; they get random weights."),
]
ThresholdsKind = Annotated[
    Thresholds,
    advanced("--thresholds", help="Score and NMS threshold: inputs that every run sets, or constants in the graph."),
]
VerifyImages = Annotated[
    Path | None,
    advanced(
        metavar="FOLDER",
        help="Images with objects for the parity check; the first 8 by name are used.",
        show_default="packaged images",
    ),
]
TruthImages = Annotated[
    Path | None, _lower_precision(metavar="FOLDER", help="Folder of the images of --truth.", show_default="found")
]


MaxBatch = Annotated[
    int | None,
    Option(min=1, metavar="N", help="Most images that run together.", show_default="8, or what the artifact is for"),
]


def onnx(  # noqa: PLR0913  (one argument per option)
    checkpoint: Checkpoint,
    *,
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="FILE", help="The .onnx file to write.", show_default=_BESIDE),
    ] = None,
    config: ModelConfig = None,
    family: PyTorchFamily = None,
    classes: ClassNames = None,
    settings: Settings = None,
    force: Force = False,
    precision: Annotated[
        Precision, _lower_precision(help="fp16 for GPUs, int8 for CPUs; both need --calibrate.")
    ] = "fp32",
    calibrate: Annotated[Path | None, _lower_precision(metavar="FOLDER", help="Typical images with objects.")] = None,
    truth: Annotated[
        Path | None,
        _lower_precision(
            metavar="DATASET",
            help="Annotated images to measure the accuracy on.",
            show_default="the float32 detections on a part of the calibration images",
        ),
    ] = None,
    truth_images: TruthImages = None,
    max_drop: Annotated[
        float | None,
        _lower_precision(
            **shared.RANGE,
            metavar="AP",
            help="Largest allowed drop of average precision.",
            show_default="0.005 for fp16; 0.01 for int8, without --truth 0.03",
        ),
    ] = None,
    target: Annotated[
        Engine | None,
        advanced(help="Engine to optimize for; every engine can run it.", show_default="cuda for fp16, else cpu"),
    ] = None,
    batch: Annotated[
        int, advanced(min=1, max=LARGEST_BATCH, metavar="N", help="Fixed batch size of --target tensorrt.")
    ] = 1,
    opset: Annotated[
        int, advanced(min=OPSETS[0], max=OPSETS[-1], metavar="17|18", help="Version of the ONNX operator set.")
    ] = OPSETS[0],
    thresholds: ThresholdsKind = "inputs",
    exclude_heads: ExcludeHeads = False,
    verify_images: VerifyImages = None,
) -> None:
    """Export a checkpoint to one .onnx file, and verify that it gives the same detections."""
    if (precision == "fp32") != (calibrate is None):
        raise BadParameter("--precision fp16 or int8 and --calibrate FOLDER belong together")
    if calibrate is None and (truth is not None or max_drop is not None):
        raise BadParameter("--truth and --max-drop need --precision fp16 or int8")
    engine = target or ("cuda" if precision == "fp16" else "cpu")
    if precision == "int8" and engine != "cpu":
        raise BadParameter("--precision int8 is for --target cpu: choose fp16")
    try:
        goal = Target(engine, batch, opset, thresholds)
    except ConversionError as error:
        raise BadParameter(str(error)) from None
    path = output or default_output(checkpoint, ".onnx" if precision == "fp32" else f".{precision}.onnx")
    with errors("export onnx"):
        refuse_output(checkpoint, path, "onnx", force)
        model, origin = load(checkpoint, choose(config, family, classes, settings), exclude_heads)
        from export import LowerPrecision, export_lower_precision, export_onnx  # noqa: PLC0415

        options: dict[str, Any] = {"target": goal, "verify_images": verify_images}
        options |= origin | {"overwrite": force}
        truths = annotated(truth, model.config.model.class_names, truth_images)
        with stages() as progress:
            if precision == "fp32" or calibrate is None:
                verdict = export_onnx(model, path, progress=progress, **options)
            else:
                lower = LowerPrecision(precision, calibrate, truths, max_drop)
                verdict = export_lower_precision(model, path, lower, progress=progress, **options)
        console.verdict_table(verdict)
        written(path)
        use(checkpoint, path, verify_images, calibrate)


def savedmodel(  # noqa: PLR0913  (one argument per option)
    checkpoint: Checkpoint,
    *,
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="FOLDER", help="The SavedModel folder to write.", show_default=_BESIDE),
    ] = None,
    config: ModelConfig = None,
    family: PyTorchFamily = None,
    classes: ClassNames = None,
    settings: Settings = None,
    force: Force = False,
    target: Annotated[Literal["cpu", "cuda"], advanced(help="Device to optimize for; both can run it.")] = "cpu",
    thresholds: ThresholdsKind = "inputs",
    exclude_heads: ExcludeHeads = False,
    verify_images: VerifyImages = None,
) -> None:
    """Export a checkpoint to a SavedModel folder, and verify that it gives the same detections."""
    path = output or default_output(checkpoint, "_savedmodel")
    with errors("export savedmodel"):
        refuse_output(checkpoint, path, "savedmodel", force)
        model, origin = load(checkpoint, choose(config, family, classes, settings), exclude_heads)
        from export import export_savedmodel  # noqa: PLC0415

        options: dict[str, Any] = {"target": target, "thresholds": thresholds, "overwrite": force}
        options |= {"verify_images": verify_images}
        with stages() as progress:
            verdict = export_savedmodel(model, path, progress=progress, **options, **origin)
        console.verdict_table(verdict)
        written(path)
        use(checkpoint, path, verify_images)


def verify(  # noqa: PLR0913  (one argument per option)
    artifact: Artifact,
    *,
    against: Annotated[
        Path | None,
        Option(
            metavar="CHECKPOINT|coco|demo",
            autocompletion=shared.MODELS,
            help="Checkpoint to compare with, or its name. Required.",
        ),
    ] = None,
    config: ModelConfig = None,
    family: PyTorchFamily = None,
    classes: ClassNames = None,
    settings: Settings = None,
    device: Device = "cpu",
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="PATH", help="Write the artifact with the new verdict, if it passes."),
    ] = None,
    force: Force = False,
    verify_images: VerifyImages = None,
    precision: Annotated[
        Literal["bf16"] | None,
        _lower_precision(
            help="Instead of the parity check, measure what the artifact loses if --device openvino computes it in "
            "bfloat16, and record it beside the artifact if it passes. Needs --truth, or --verify-images."
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        _lower_precision(
            metavar="DATASET",
            help="Annotated images to measure the accuracy on.",
            show_default="the float32 detections on --verify-images",
        ),
    ] = None,
    truth_images: TruthImages = None,
    max_drop: Annotated[
        float | None,
        _lower_precision(
            **shared.RANGE,
            metavar="AP",
            help="Largest allowed drop of average precision.",
            show_default="0.005, without --truth 0.02",
        ),
    ] = None,
) -> None:
    """Repeat the parity check of an artifact on this machine, with its engine versions; or judge a precision."""
    with errors("verify"):
        shared.refuse_pretrained(artifact)
    if precision is not None:
        if against is not None or output is not None:
            raise BadParameter("--precision compares the artifact with itself: leave out --against and --output")
        if shared.names_demo(artifact):
            raise BadParameter("--precision writes beside the artifact: name a file or folder, not demo")
        if (truth is None) == (verify_images is None):
            raise BadParameter("--precision needs images: give --truth, or --verify-images without annotations")
        _judge(artifact, precision, truth, truth_images, verify_images, device, max_drop, force)
        return
    if truth is not None or truth_images is not None or max_drop is not None:
        raise BadParameter("--truth, --truth-images and --max-drop need --precision bf16")
    if against is None:
        raise BadParameter("give a checkpoint, or its name, such as demo", param_hint="--against")
    with errors("verify"):
        from runtime.artifact_files.read import read_metadata  # noqa: PLC0415

        path = find_artifact(artifact)
        metadata = read_metadata(path, verify_digest=False)
        if output is not None:
            refuse_output(against, output, metadata.format, force)
        model, origin = load(against, choose(config, family, classes, settings), False)
        from export import verify_artifact  # noqa: PLC0415

        options: dict[str, Any] = {"device": device, "verify_images": verify_images, "source": origin["source"]}
        with stages() as progress:
            verdict = verify_artifact(path, model, output=output, overwrite=force, progress=progress, **options)
        if not verdict.passed:
            raise ParityError(verdict)
        console.verdict_table(verdict)
        if output is not None:
            written(output)


def _judge(
    artifact: Path,
    precision: str,
    truth: Path | None,
    truth_images: Path | None,
    folder: Path | None,
    device: str,
    max_drop: float | None,
    force: bool,
) -> None:
    """Run `verify --precision`."""
    with errors("verify", extra="train"):
        from export import verify_precision  # noqa: PLC0415
        from runtime.artifact_files.read import judgement_path, read_metadata  # noqa: PLC0415

        dataset = annotated(truth, read_metadata(artifact).class_names, truth_images)
        images = dataset if folder is None else folder
        options: dict[str, Any] = {"device": device, "max_drop": max_drop, "overwrite": force}
        with stages() as progress:
            found = verify_precision(artifact, precision, images, progress=progress, **options)
        console.gate(found)
        written(judgement_path(artifact, precision))


def edit(
    artifact: Annotated[Path, Argument(metavar="ARTIFACT", help="An .onnx file or SavedModel folder.")],
    rename: Annotated[
        list[str] | None, Option("--rename", metavar="OLD=NEW", help="Rename a class; may be repeated.")
    ] = None,
    score_threshold: Annotated[float | None, Option(**shared.RANGE, metavar="SCORE", help="New default.")] = None,
    nms_threshold: Annotated[float | None, Option(**shared.RANGE, metavar="IOU", help="New default.")] = None,
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="PATH", help="Where to write the result.", show_default="the artifact itself"),
    ] = None,
    force: Force = False,
) -> None:
    """Change class names or default thresholds of an artifact, or accept changes by hand, and seal it again."""
    pairs = [pair.partition("=") for pair in rename or ()]
    if not all(old and new for old, _, new in pairs):
        raise BadParameter("expected OLD=NEW, such as square=box", param_hint="--rename")
    with errors("edit"):
        shared.refuse_pretrained(artifact)
        from export.edit import edit_artifact  # noqa: PLC0415

        names = {old: new for old, _, new in pairs}
        thresholds = {"score_threshold": score_threshold, "nms_threshold": nms_threshold}
        changes = edit_artifact(artifact, output, rename=names, **thresholds, overwrite=force)
        show(changes, changes=changes)
        written(output or artifact)


def show_artifact(artifact: Artifact) -> None:
    """Show the metadata of an artifact: classes, inputs, outputs, origin and verdict."""
    with errors("show"):
        from runtime.artifact_files.read import (  # noqa: PLC0415
            graph_digest,
            judgement_flaw,
            judgement_path,
            read_metadata,
        )

        artifact = find_artifact(artifact)
        found = read_metadata(artifact)
        console.metadata(artifact, found, found.verdict_flaw(graph_digest(artifact)))
        beside = judgement_path(artifact, BF16)
        if found.format == "onnx" and os.path.lexists(beside):
            flaw = judgement_flaw(artifact, BF16)
            line = f"  {BF16:<12}{f'not accepted: {flaw}' if flaw else f'accepted: see {beside.name}'}"
            show([line], judgements={BF16: {"path": beside, "accepted": not flaw, "flaw": flaw}})


def benchmark(  # noqa: PLR0913  (one argument per option)
    paths: Annotated[
        list[Path],
        Argument(
            metavar="ARTIFACT... [IMAGE]",
            autocompletion=shared.ARTIFACTS,
            help="An .onnx file or SavedModel folder, or demo; with --all, several of one model. Then the image to "
            "predict, with --all an image or a folder of images; the demo image or those of --truth without it.",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="JSON file for the results; with --all, a folder for benchmark.json and benchmark.svg.",
        ),
    ] = None,
    chart: Annotated[Path | None, Option(metavar="FILE", help="PNG or SVG chart of the time by operator type.")] = None,
    device: Device = "auto",
    batch: Annotated[
        list[int] | None, Option(min=1, metavar="N", help="Batch size; may be repeated.", show_default="1")
    ] = None,
    runs: Annotated[int, Option(min=1, metavar="N", help="Number of timed runs per case.")] = 20,
    force: Force = False,
    everything: Annotated[
        bool, _all_engines("--all", help="Compare all engines, precisions and numbers of threads that work here.")
    ] = False,
    truth: Annotated[
        Path | None,
        _all_engines(
            metavar="DATASET",
            help="Annotated images to measure the accuracy on.",
            show_default="the float32 detections on the images",
        ),
    ] = None,
    truth_images: Annotated[
        Path | None, _all_engines(metavar="FOLDER", help="Folder of the images of --truth.", show_default="found")
    ] = None,
    max_drop: Annotated[
        float | None,
        _all_engines(
            **shared.RANGE,
            metavar="AP",
            help="Largest drop of average precision of what is recommended.",
            show_default="0.005; without --truth 0.02",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        _all_engines(min=1, metavar="N", help="Measure the accuracy on the first N images only.", show_default="200"),
    ] = None,
) -> None:
    """Measure the latency of an artifact by step, batch size, number of detections and operator type.

    With --all, compare every engine, precision and number of threads instead, and recommend one.
    """
    with errors("benchmark"):
        artifacts, image = split_paths(paths)
    if everything:
        if chart is not None or device != "auto" or batch is not None:
            raise BadParameter("--chart, --device and --batch are not for --all")
        _compare(artifacts, image, output, force, truth, truth_images, max_drop=max_drop, runs=runs, limit=limit)
        return
    if len(artifacts) > 1 or truth or truth_images or max_drop is not None or limit is not None:
        raise BadParameter("several artifacts, --truth, --truth-images, --max-drop and --limit need --all")
    if chart is not None and chart.suffix not in (".png", ".svg"):
        raise BadParameter(f"{chart.name} ends in neither .png nor .svg", param_hint="--chart")
    with errors("benchmark"):
        from export.benchmark.artifact import benchmark as measure  # noqa: PLC0415
        from maskrcnn.demo import demo_picture  # noqa: PLC0415
        from runtime.atomic import atomic_write, check_output  # noqa: PLC0415

        (artifact,) = artifacts
        for path in (output, chart):
            if path is not None:
                check_output(path, overwrite=force)
        if chart is not None:
            from maskrcnn.inspection.charts import bar_chart  # noqa: PLC0415
        source = demo_picture() if image is None else image
        with stages() as progress:
            found = measure(artifact, source, device=device, batches=batch or [1], runs=runs, progress=progress)
        console.benchmark(found)
        if output is not None:
            with atomic_write(output, overwrite=force) as path:
                path.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
            written(output)
        if chart is not None:
            figure = bar_chart(found.operators, f"{artifact.name}: time by operator type", "milliseconds")
            with atomic_write(chart, overwrite=force) as path:
                figure.savefig(path, format=chart.suffix.lstrip("."), dpi=144)
            written(chart)


def _compare(
    artifacts: list[Path],
    image: Path | None,
    output: Path | None,
    force: bool,
    truth: Path | None,
    truth_images: Path | None,
    **numbers: Any,
) -> None:
    """Run `benchmark --all`; a number that is None has its default."""
    with errors("benchmark", extra="train"):
        from export.benchmark.comparison import compare, timed_pictures  # noqa: PLC0415
        from runtime.artifact_files.read import read_metadata  # noqa: PLC0415

        if output is not None:
            from export.benchmark.files import check_outputs, write_files  # noqa: PLC0415

            check_outputs(output, overwrite=force)
        dataset = None if truth is None else annotated(truth, read_metadata(artifacts[0]).class_names, truth_images)
        given = {name: value for name, value in numbers.items() if value is not None}
        with stages() as progress:
            found = compare(artifacts, timed_pictures(image, dataset), dataset, **given, progress=progress)
        console.comparison(found)
        if output is not None:
            for path in write_files(found, output, overwrite=force):
                written(path)


def triton(
    artifact: Annotated[
        Path, Argument(metavar="ARTIFACT|demo", help="An .onnx file, or demo.", autocompletion=shared.ARTIFACTS)
    ],
    *,
    output: Annotated[Path, Option("--output", "-o", metavar="FOLDER", help="The model repository to write.")],
    name: Annotated[
        str | None, Option(metavar="NAME", help="Name of the model.", show_default="the artifact's file name")
    ] = None,
    max_batch: MaxBatch = None,
    thresholds: Annotated[
        bool, Option("--thresholds", help="Add a network whose thresholds each request may set.")
    ] = False,
    processor: Annotated[
        Literal["cpu", "gpu"] | None, Option(help="What runs the network.", show_default="by the artifact's target")
    ] = None,
    threads: Annotated[
        int, Option(min=0, metavar="N", help="Threads of one operator with --processor cpu; 0 for all cores.")
    ] = 0,
    force: Force = False,
) -> None:
    """Write a model repository for NVIDIA Triton: the network, and an ensemble from encoded image to JSON."""
    with errors("export triton"):
        from export.serving.triton import TritonOptions, write_triton_repository  # noqa: PLC0415

        options = TritonOptions(name, max_batch, thresholds, processor, threads)
        path = find_artifact(artifact)
        with stages() as progress:
            models = write_triton_repository(path, output, options=options, overwrite=force, progress=progress)
        show([f"models: {', '.join(models)}"], models=models)
        written(output)


def tfserving(
    artifact: Annotated[Path, Argument(metavar="ARTIFACT", help="A SavedModel folder.")],
    *,
    output: Annotated[
        Path, Option("--output", "-o", metavar="FOLDER", help="The folder to write; its name is the model's.")
    ],
    max_batch: MaxBatch = None,
    force: Force = False,
) -> None:
    """Write a model's folder for TensorFlow Serving: the SavedModel, batching, and warm-up."""
    with errors("export tfserving"):
        from export.serving.tfserving import write_tfserving_model  # noqa: PLC0415

        with stages() as progress:
            options: dict[str, Any] = {"max_batch": max_batch, "overwrite": force, "progress": progress}
            paths = list(write_tfserving_model(find_artifact(artifact), output, **options))
        written(*paths)


def doctor(
    artifacts: Annotated[
        list[Path] | None,
        Argument(
            metavar="ARTIFACT|demo",
            autocompletion=shared.ARTIFACTS,
            help="Artifacts to check as well: .onnx files and SavedModel folders, or demo.",
        ),
    ] = None,
) -> None:
    """Show which engines and devices work here, why others do not, and how to fix them."""
    with errors("doctor"):
        from export.doctor.examine import examine  # noqa: PLC0415

        with stages() as progress:
            found = examine([find_artifact(path) for path in artifacts or ()], progress)
        code = console.findings(found)
    raise Exit(code)


def demo(
    output: Annotated[Path, Option("--output", "-o", metavar="FOLDER", help="Folder for artifacts and images.")] = Path(
        "demo-output"
    ),
) -> None:
    """Export the demo model to both formats, predict an image with both, and draw the detections."""
    with errors("demo"):
        from export.demo import run_demo  # noqa: PLC0415
        from export.verify.verdict import Verdict  # noqa: PLC0415

        verdicts: list[Verdict] = []

        def show_verdict(verdict: Verdict) -> None:
            verdicts.append(verdict)
            show(console.verdict_lines(verdict), verdicts=verdicts)

        for path in run_demo(output, say, show_verdict):
            written(path)


# By what they work on; `maskrcnn` has these commands, too.
FORMATS: dict[str, Callable[..., None]] = {
    "onnx": onnx,
    "savedmodel": savedmodel,
    "triton": triton,
    "tfserving": tfserving,
}
TOOLS: dict[str, Callable[..., None]] = {
    "verify": verify,
    "show": show_artifact,
    "edit": edit,
    "benchmark": benchmark,
}
ENVIRONMENT: dict[str, Callable[..., None]] = {"doctor": doctor, "demo": demo}

app = App()


@app.callback()
def main(version: Version = False) -> None:
    """Export a Mask R-CNN to ONNX or SavedModel, proven to give the same detections.

    `maskrcnn` has the same commands, and those that train and predict.
    """


for _name, _command in (FORMATS | TOOLS | ENVIRONMENT).items():
    app.command(_name)(_command)


@app.command("inspect", hidden=True)
@wraps(show_artifact)
def _inspect(artifact: Artifact) -> None:
    say("the command 'inspect' is called 'show' now")
    show_artifact(artifact)
