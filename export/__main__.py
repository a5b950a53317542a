"""Entry point of `maskrcnn-export`: names the missing extra, or hands over to the command line."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from export.cli import app  # noqa: PLC0415  (typer is part of an extra)
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.stderr.write(f"error: the command line needs {error.name!r}: pip install 'maskrcnn-export[export]'\n")
        sys.exit(3)
    app(prog_name="maskrcnn-export")


if __name__ == "__main__":
    main()
