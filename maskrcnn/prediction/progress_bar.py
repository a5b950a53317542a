"""Progress on stderr: bars on a terminal, an occasional line elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from maskrcnn.callbacks import Counted, Say

_BETWEEN_LINES = 10.0  # seconds


class _Speed:
    """Formats the number per second in this run; what an earlier run did does not count."""

    def __init__(self, done: int) -> None:
        self._done = done
        self._begin = time.monotonic()

    def __call__(self, done: int) -> str:
        seconds = time.monotonic() - self._begin
        return f"{(done - self._done) / seconds:.1f} per second" if done > self._done and seconds > 0 else ""


@contextmanager
def progress_bar(say: Say) -> Iterator[Counted]:
    """Show the progress of a run for the time of a block; `say` prints a line if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield _lines(say)
        return
    from rich.console import Console  # noqa: PLC0415  (comes with the command line)
    from rich.markup import escape  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress as Bars,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, tuple[int, _Speed]] = {}

        def show(label: str, done: int, total: int | None) -> None:
            if label not in tasks:
                task = bars.add_task(escape(label), completed=done, total=total, speed="")
                tasks[label] = (int(task), _Speed(done))
            number, speed = tasks[label]
            bars.update(bars.task_ids[number], completed=done, total=total, speed=speed(done))

        yield show


def _lines(say: Say) -> Counted:
    speeds: dict[str, _Speed] = {}
    last = time.monotonic()

    def show(label: str, done: int, total: int | None) -> None:
        nonlocal last
        speed = speeds.setdefault(label, _Speed(done))
        if done == total or time.monotonic() - last >= _BETWEEN_LINES:
            last = time.monotonic()
            rate = speed(done)
            say(f"{label}: {done}{'' if total is None else f' of {total}'}{rate and ', ' + rate}")

    return show
