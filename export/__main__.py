"""Entry point of `maskrcnn-export`."""

from typing import Any

from maskrcnn.commands.program import run


def main() -> None:
    """Run the command line."""
    run("maskrcnn-export", _command_line)


def _command_line() -> Any:
    from export.cli import app  # noqa: PLC0415  (typer is part of an extra)

    return app


if __name__ == "__main__":
    main()
