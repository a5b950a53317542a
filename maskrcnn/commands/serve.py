"""`maskrcnn serve`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from maskrcnn.commands import console, shared
from maskrcnn.commands.failures import failures
from maskrcnn.commands.shared import advanced
from maskrcnn.tensorflow_import import import_tensorflow


def serve(  # noqa: PLR0913  (one argument per option)
    model: Annotated[
        Path,
        Argument(
            metavar="MODEL|demo",
            autocompletion=shared.ARTIFACTS,
            help="An .onnx file or a SavedModel folder, or demo.",
        ),
    ],
    *,
    port: Annotated[int, Option(min=0, max=65535, metavar="N", help="Port; 0 for any free one.")] = 8000,
    host: Annotated[
        str, Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all of this machine.")
    ] = "127.0.0.1",
    device: shared.Device = "auto",
    batch_size: Annotated[
        int | None,
        Option(
            min=1,
            max=64,
            metavar="N",
            help="Images of one input size to run together.",
            show_default="1 on processors, else 4",
        ),
    ] = None,
    partial: Annotated[
        bool, Option("--partial", help="Answer what can be used of a request, with an error per image.")
    ] = False,
    threads: Annotated[
        int | None,
        advanced(min=1, max=4096, metavar="N", help="Threads of the engine.", show_default="one per core"),
    ] = None,
    max_delay: Annotated[
        float | None,
        advanced(
            min=0,
            max=60_000,
            metavar="MS",
            help="Milliseconds that an image waits for others of its input size.",
            show_default="0 on processors, else 5",
        ),
    ] = None,
    max_waiting: Annotated[
        int, advanced(min=1, max=100_000, metavar="N", help="Images in hand; further ones are refused with status 503.")
    ] = 64,
    max_body: Annotated[
        int, advanced(min=1, max=2**40, metavar="BYTES", help="Largest body of a request.")
    ] = 20_000_000,
    max_pixels: Annotated[
        int, advanced(min=1, max=2**31, metavar="N", help="Refuse larger images before decoding them.")
    ] = 25_000_000,
    timeout: Annotated[
        float,
        advanced(min=0.001, max=86_400, metavar="S", help="Seconds after which a request is answered with status 504."),
    ] = 30.0,
) -> None:
    """Serve an artifact over HTTP: the Open Inference Protocol V2, and POST /predict for curl."""
    with failures("serve"), console.plain_warnings():
        from maskrcnn.serving import server  # noqa: PLC0415
        from maskrcnn.serving.app import ServeOptions, build_app  # noqa: PLC0415

        artifact = shared.find_artifact(model)
        if artifact.is_dir():
            import_tensorflow()  # the engine of a SavedModel
        options = ServeOptions(
            device=device,
            threads=threads,
            max_body=max_body,
            max_pixels=max_pixels,
            max_waiting=max_waiting,
            timeout=timeout,
            batch_size=batch_size,
            max_delay=max_delay,
            partial=partial,
        )
        with server.bind(host, port) as bound:
            app = build_app(artifact, options)
            name, device = app.state.service.name, app.state.service.predictor.device

            def ready(url: str) -> None:
                console.show([f"serving {name} on {url} ({device})"], model=name, url=url, device=device)
                console.session().end(None)

            server.serve(app, bound, ready, host)
