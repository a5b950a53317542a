"""How a command ends on an error: one line on stderr and an exit code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from maskrcnn.commands import console
from maskrcnn.commands.exit_codes import exit_code
from maskrcnn.distribution import COMMANDS, missing_package
from runtime.atomic import REPLACE


@contextmanager
def failures(
    command: str, *, extra: str | None = None, code_of: Callable[[Exception], int | None] = exit_code
) -> Iterator[None]:
    """Turn an expected error into a line and an exit code; an unexpected one keeps its traceback.

    Args:
        command: Words of the command, for the message about a missing package.
        extra: Extra that brings what the command needs with the options given; that of the command if None.
        code_of: Returns the exit code of an error, None if it is unexpected.

    Raises:
        typer.Exit: In place of an expected error.
    """
    try:
        yield
    except Exception as error:
        known = missing_package(error, extra or COMMANDS[command], f"maskrcnn {command}") or error
        code = code_of(known)
        if code is None:
            raise
        message = str(known)  # of a function, whose argument is an option here
        console.error(type(known).__name__, f"{message.removesuffix(REPLACE)}{'--force' * message.endswith(REPLACE)}")
        raise typer.Exit(code) from None
