"""Entry point of `maskrcnn`."""

import os
import signal
import sys
from typing import Any

from maskrcnn.commands.program import run


def main() -> None:
    """Run the command line."""
    run("maskrcnn", _command_line)


def _command_line() -> Any:
    if sys.argv[1:2] == ["serve"]:
        # Until the server is open. The first process of a container gets no signal that it does not handle.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from maskrcnn.cli import app  # noqa: PLC0415  (typer is part of an extra)

    return app


if __name__ == "__main__":
    main()
