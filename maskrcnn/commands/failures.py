"""What ends a command: every error raised on purpose as one line on stderr and an exit code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from maskrcnn.commands.exit_codes import exit_code
from runtime.errors import MissingPackageError
from runtime.one_line import one_line


@contextmanager
def failures(extra: str, purpose: str, code_of: Callable[[Exception], int | None] = exit_code) -> Iterator[None]:
    """End the command where an error is raised on purpose; all others keep their traceback.

    Args:
        extra: What a package that is not there is installed with.
        purpose: What it is needed for, for the message.
        code_of: Exit code of an error; None if nobody raised it on purpose.

    Raises:
        typer.Exit: In place of the error.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).split(".")[0]
        _end(MissingPackageError(package, extra, purpose), 3)
    except Exception as error:
        code = code_of(error)
        if code is None:
            raise
        _end(error, code)


def _end(error: Exception, code: int) -> None:
    typer.echo(f"error: {one_line(error)}", err=True)
    raise typer.Exit(code) from None
