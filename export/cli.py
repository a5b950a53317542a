"""`maskrcnn-export`: parses, calls one function, prints. Decides nothing, and imports no engine before it must.

Exit codes: 0 done; 1 the artifact is not proven equal, or finds too little in lower precision; 2 wrong usage; 3 a
package or device is missing, or the doctor found a problem; 4 a checkpoint, configuration or artifact cannot be used; 5
a picture cannot be used; 6 the output cannot be written.
"""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from export import console
from export.arguments import annotated, errors, load
from export.errors import ParityError
from maskrcnn.commands.console import progress, written

app = typer.Typer(
    help="Export a Mask R-CNN to ONNX or SavedModel, with proof that it computes what was trained.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)

_CHECKPOINT_OR_DEMO = "CHECKPOINT|demo"
Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar=_CHECKPOINT_OR_DEMO,
        help="A matterport .h5, one of our .weights.h5, or demo for the packaged demo model.",
        show_default=False,
    ),
]
ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="What a checkpoint is that does not say it: a JSON file with our or matterport's field names, "
        "or a sample (coco, balloon, nucleus, shapes).",
    ),
]
ExcludeHeads = Annotated[
    bool, typer.Option("--exclude-heads", help="Leave out layers made for another number of classes.")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where to write.")]
VerifyImages = Annotated[
    Path | None,
    typer.Option(
        "--verify-images",
        help="Folder of pictures with objects, to compare on (the first 8 by name); default: bundled ones.",
    ),
]


class Precision(StrEnum):
    """Of weights and activations."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Engine(StrEnum):
    """What shall run the graph fast."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


Force = Annotated[bool, typer.Option("--force", help="Replace what stands at the output path.")]


@app.command()
def onnx(  # noqa: PLR0913  (one argument per option)
    checkpoint: Checkpoint,
    output: Output,
    *,
    config: ConfigFile = None,
    opset: Annotated[int, typer.Option(help="17 or 18.")] = 17,
    target: Annotated[
        Engine | None,
        typer.Option(help="The engine that shall run it fast; every one can.", show_default="cuda for fp16, else cpu"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="tensorrt: pictures at once.")] = 1,
    precision: Annotated[
        Precision,
        typer.Option(help="Of convolutions: fp16 is for GPUs, int8 for CPUs. Both need --calibrate."),
    ] = Precision.FP32,
    calibrate: Annotated[
        Path | None, typer.Option(help="fp16, int8: folder of pictures with objects, like those of use.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="fp16, int8: annotated pictures to judge by; left out, what float32 finds.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="fp16, int8: largest drop of AP; left out, 0.005 and 0.01, or without --truth 0.02 and 0.05.",
        ),
    ] = None,
    exclude_heads: ExcludeHeads = False,
    verify_images: VerifyImages = None,
    force: Force = False,
) -> None:
    """Export to one .onnx file, verified against the checkpoint."""
    if (precision is Precision.FP32) != (calibrate is None):
        raise typer.BadParameter("--precision fp16 or int8 and --calibrate DIR belong together")
    if calibrate is None and (truth is not None or max_drop is not None):
        raise typer.BadParameter("--truth and --max-drop go with --precision fp16 or int8")
    engine = target or (Engine.CUDA if precision is Precision.FP16 else Engine.CPU)
    with errors():
        model, facts = load(checkpoint, config, exclude_heads)
        from export import LowerPrecision, Target, export_lower_precision, export_onnx  # noqa: PLC0415

        made_for = Target(engine.value, batch, opset)
        options: dict[str, Any] = {"target": made_for, "verify_images": verify_images, "overwrite": force}
        options |= {"checkpoint": facts, "progress": progress}
        if precision is Precision.FP32 or calibrate is None:
            verdict = export_onnx(model, output, **options)
        else:
            truths = annotated(truth, model.config.model.class_names)
            kind: Any = precision.value
            lower = LowerPrecision(kind, calibrate, truths, max_drop)
            verdict = export_lower_precision(model, output, lower, **options)
        console.verdict_table(verdict)
        written(output)


@app.command()
def savedmodel(
    checkpoint: Checkpoint,
    output: Output,
    config: ConfigFile = None,
    exclude_heads: ExcludeHeads = False,
    verify_images: VerifyImages = None,
    force: Force = False,
) -> None:
    """Export to a SavedModel folder, verified against the checkpoint."""
    with errors():
        model, facts = load(checkpoint, config, exclude_heads)
        from export import export_savedmodel  # noqa: PLC0415

        options: dict[str, Any] = {"verify_images": verify_images, "overwrite": force}
        verdict = export_savedmodel(model, output, checkpoint=facts, progress=progress, **options)
        console.verdict_table(verdict)
        written(output)


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(help="An .onnx file or SavedModel folder.")],
    against: Annotated[
        Path | None,
        typer.Option(
            "--against", metavar=_CHECKPOINT_OR_DEMO, help="The checkpoint to compare with, or demo. Required."
        ),
    ] = None,
    config: ConfigFile = None,
    device: Annotated[str, typer.Option(help="Where the artifact runs: cpu, cuda, cuda:N, auto.")] = "cpu",
    verify_images: VerifyImages = None,
) -> None:
    """Compare an artifact with a checkpoint again, on this machine and its engine versions."""
    if against is None:
        raise typer.BadParameter("name a checkpoint, or demo for the packaged demo model", param_hint="--against")
    with errors():
        model, _ = load(against, config, False)
        from export import verify_artifact  # noqa: PLC0415

        verdict = verify_artifact(artifact, model, device=device, verify_images=verify_images, progress=progress)
        if not verdict.passed:
            raise ParityError(verdict)
        console.verdict_table(verdict)


@app.command()
def inspect(artifact: Annotated[Path, typer.Argument(help="An .onnx file or SavedModel folder.")]) -> None:
    """Show what is in an artifact, how it was made, and its verdict."""
    with errors():
        from runtime.artifact_files.read import read_metadata  # noqa: PLC0415

        console.metadata(artifact, read_metadata(artifact))


@app.command()
def benchmark(
    artifact: Annotated[Path, typer.Argument(help="An .onnx file or SavedModel folder.")],
    image: Annotated[Path | None, typer.Argument(help="The picture; left out, the demo's.", show_default=False)] = None,
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A JSON file for the figures.")] = None,
    chart: Annotated[Path | None, typer.Option(help="A PNG or SVG file for the time by operator type.")] = None,
    device: Annotated[str, typer.Option(help="Where it runs: cpu, cuda, cuda:N, auto.")] = "auto",
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Pictures at once; may be repeated.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each case.")] = 20,
    force: Force = False,
) -> None:
    """Time an artifact: each step, batch size, number of detections, and operator type."""
    with errors():
        from export.benchmark import benchmark as measure  # noqa: PLC0415
        from maskrcnn.demo import demo_picture  # noqa: PLC0415
        from runtime.atomic import atomic_write, check_output  # noqa: PLC0415

        for path in (output, chart):
            if path is not None:
                check_output(path, overwrite=force)
        source = demo_picture() if image is None else image
        found = measure(artifact, source, device=device, batches=batch or [1], runs=runs, progress=progress)
        console.benchmark(found)
        if output is not None:
            with atomic_write(output, overwrite=force) as path:
                path.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
            written(output)
        if chart is not None:
            from maskrcnn.inspection.charts import bar_chart  # noqa: PLC0415

            figure = bar_chart(found.operators, f"{artifact.name}: time by operator type", "milliseconds")
            with atomic_write(chart, overwrite=force) as path:
                figure.savefig(path, format=chart.suffix.lstrip(".") or "png", dpi=144)
            written(chart)


@app.command()
def doctor(
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(help="Artifacts that shall run here, each an .onnx file or SavedModel folder."),
    ] = None,
) -> None:
    """Tell which engines and devices work here, why others do not, and the command that mends it."""
    with errors():
        from export.doctor.examine import examine  # noqa: PLC0415

        code = console.findings(examine(artifacts or (), progress))
    raise typer.Exit(code)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("demo-output"),
) -> None:
    """Export the demo model to both formats, predict a picture through both, and draw the results."""
    with errors():
        from export.demo import run_demo  # noqa: PLC0415

        for path in run_demo(output, progress, console.verdict_table):
            written(path)
