"""Entry point of `maskrcnn`: names the missing extra, or hands over to the command line."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from maskrcnn.cli import app  # noqa: PLC0415  (typer is part of an extra)
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        extras = "'maskrcnn-export[train]', or with [predict] for predictions alone"
        sys.stderr.write(f"error: the command line needs {error.name!r}: pip install {extras}\n")
        sys.exit(3)
    app(prog_name="maskrcnn")


if __name__ == "__main__":
    main()
