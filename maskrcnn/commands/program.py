"""How both programs run: a missing extra is named, streams may be closed or full, and Ctrl-C may come at any time.

Imports little, so that Ctrl-C is in hand before anything slow is imported.
"""

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from runtime.errors import OutputError, ToolkitError
from runtime.one_line import one_line

_INTERRUPTED = 130


class _InterruptedExit(SystemExit):
    """Ends the program on Ctrl-C; nothing that translates errors on the way takes it for one."""


class _Results(io.FileIO):
    """Standard output. What cannot be written is an error, once: the rest is discarded."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except BrokenPipeError:  # the reader has enough, as in `| head`
            raise
        except OSError as error:
            _discard(self.fileno())
            raise OutputError(f"cannot write to standard output: {error.strerror}") from error


class _Progress(io.FileIO):
    """Standard error. What cannot be written is lost, and the work goes on."""

    def write(self, content: Any, /) -> int:
        try:
            written = super().write(content)
        except OSError:
            written = None
        return memoryview(content).nbytes if written is None else written


def run(program: str, load: Callable[[], Callable[..., object]]) -> None:
    """Run a program to its end, which is a `SystemExit`.

    A closed stream takes everything and gives nothing, as /dev/null does. Characters that a stream's encoding lacks are
    escaped.

    Args:
        program: Its name.
        load: Imports the command line and returns its `Typer`.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as for jobs of scripts
        signal.signal(signal.SIGINT, _interrupt)
    _open_streams()
    try:
        try:
            _load(program, load)(prog_name=program)
        finally:
            sys.stdout.flush()
    except _InterruptedExit:
        sys.stderr.write("interrupted\n")
        raise
    except ToolkitError as error:  # of a stream, while help or a usage error was printed
        from maskrcnn.commands.exit_codes import exit_code  # noqa: PLC0415

        sys.stderr.write(f"error: {one_line(error)}\n")
        raise SystemExit(exit_code(error)) from None


def _load(program: str, load: Callable[[], Callable[..., object]]) -> Callable[..., object]:
    """Import a command line, whose packages are part of an extra."""
    try:
        return load()
    except ModuleNotFoundError as error:
        from maskrcnn.distribution import command_extra, missing_package  # noqa: PLC0415

        missing = missing_package(error, command_extra(program, sys.argv[1:]), program)
        if missing is None:
            raise
        sys.stderr.write(f"error: {missing}\n")
        if "--json" in sys.argv:
            said = {"type": type(missing).__name__, "message": one_line(missing)}
            document = {"command": program, "exit_code": 3, "error": said, "written": [], "warnings": [], "next": []}
            sys.stdout.write(json.dumps(document) + "\n")
        raise SystemExit(3) from None


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends the program at once
    raise _InterruptedExit(_INTERRUPTED)


def _open_streams() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _discard(number)  # else the next file that is opened would get the number, and the output
    if sys.stdin is sys.__stdin__ is None:
        sys.stdin = open(0, encoding=sys.getfilesystemencoding(), closefd=False)  # noqa: SIM115
    # A program that calls this one may have put streams of its own in their place.
    if sys.stdout is sys.__stdout__:
        results: Any = io.BufferedWriter(_Results(1, "wb", closefd=False))
        sys.stdout = io.TextIOWrapper(results, _encoding(sys.stdout), "backslashreplace", line_buffering=True)
    if sys.stderr is sys.__stderr__:
        progress: Any = _Progress(2, "wb", closefd=False)  # without a buffer, which would keep what cannot be written
        sys.stderr = io.TextIOWrapper(progress, _encoding(sys.stderr), "backslashreplace", write_through=True)


def _encoding(stream: Any) -> str:
    """Return the encoding of a stream; Python has none in place of one that was closed when it started."""
    return sys.getfilesystemencoding() if stream is None else str(stream.encoding)


def _discard(number: int) -> None:
    """Let a descriptor lead to /dev/null."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
