"""Entry point of `maskrcnn`: names a missing extra or starts the command line."""

import sys

from maskrcnn.commands.program import run


def main() -> None:
    """Run the command line."""
    run(_start)


def _start() -> None:
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
