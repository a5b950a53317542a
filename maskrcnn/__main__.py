"""Entry point of `maskrcnn`: names a missing extra or starts the command line."""

import os
import signal
import sys

from maskrcnn.commands.program import run


def main() -> None:
    """Run the command line."""
    run(_start)


def _start() -> None:
    if sys.argv[1:2] == ["serve"]:
        # Until the server is open. The first process of a container gets no signal that it does not handle.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        from maskrcnn.cli import app  # noqa: PLC0415  (typer is part of an extra)
    except ModuleNotFoundError as error:
        from maskrcnn.distribution import missing_package  # noqa: PLC0415

        extra = {"predict": "predict", "serve": "predict", "inspect": "inspect"}.get("".join(sys.argv[1:2]), "train")
        missing = missing_package(error, extra, "maskrcnn")
        if missing is None:
            raise
        sys.stderr.write(f"error: {missing}\n")
        sys.exit(3)
    app(prog_name="maskrcnn")


if __name__ == "__main__":
    main()
