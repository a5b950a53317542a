"""Progress on stderr: one line that fits the terminal and says when it will be done; elsewhere an occasional line."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from maskrcnn.callbacks import Say
from runtime.one_line import one_line

_BETWEEN_LINES = 10.0  # seconds, if stderr is no terminal; in long runs a twentieth of their time
_ALL_ITEMS = 100  # so many items have a line each where stderr is no terminal, then every hundredth
_BARS = range(8, 31)  # characters of a bar
_LEAST_LABEL = 8


class State(NamedTuple):
    """How far something is: `rate` is per second, `left` the seconds to the end; None if unknown."""

    label: str
    done: int
    total: int | None
    facts: Sequence[str] = ()
    rate: float | None = None
    left: float | None = None


class Progress(ABC):
    """Shows what is counted."""

    def __init__(self) -> None:
        self._label, self._first, self._begun = "", 0, 0.0

    def __call__(
        self,
        label: str,
        done: int,
        total: int | None,
        facts: Sequence[str] = (),
        whole: tuple[int, int] | None = None,
    ) -> None:
        """Show how far something is; the first call with a label gives what an earlier run did.

        Args:
            label: What is counted.
            done: Number so far; also the one that an earlier run did.
            total: None if unknown.
            facts: Further figures, the most important first.
            whole: Done and total of everything, if that takes longer than what is counted. The time left is for it.
        """
        position, end = (done, total) if whole is None else whole
        if (label if whole is None else "") != self._label or not self._begun:
            self._label, self._first, self._begun = label if whole is None else "", position, time.monotonic()
        seconds, made = time.monotonic() - self._begun, position - self._first
        rate = made / seconds if made > 0 and seconds > 0 else None
        left = None if rate is None or end is None else (end - position) / rate
        self._show(State(label, done, total, facts, rate, left))

    @abstractmethod
    def _show(self, state: State) -> None: ...

    @abstractmethod
    def item(self, name: str, facts: Sequence[str]) -> None:
        """Show a line for one item that is done, with what is known of it, the most important first."""


def progress_line(width: int, state: State) -> str:
    """Return a line of at most `width` characters: label, count and time left, then as much of the rest as fits."""
    label, done, total, facts, rate, left = state
    count = f"{done}" if total is None else f"{done}/{total}"
    parts = [count] + ([] if left is None else [f"ETA {clock(left)}"])
    room = width - sum(len(part) + 2 for part in parts)
    if room < _LEAST_LABEL and len(parts) > 1:
        room += len(parts.pop()) + 2
    parts.insert(0, shortened(one_line(label), max(room, 1)))
    more = ""
    for fact in facts or ([] if rate is None else [f"{rate:.1f}/s"]):
        if len("  ".join([*parts, f"{more} {fact}".strip()])) > width:
            break
        more = f"{more} {fact}".strip()
    parts += [more] if more else []
    length = min(width - len("  ".join(parts)) - 4, _BARS[-1])
    if total and length in _BARS:
        full = min(length, length * done // total)
        parts.insert(1, f"[{'=' * full}{' ' * (length - full)}]")
    return "  ".join(parts)[:width]


def item_line(width: int, name: str, facts: Sequence[str]) -> str:
    """Return a line of at most `width` characters: the name, then as many facts as fit."""
    name, parts = one_line(name), list(facts)
    while len(parts) > 1 and sum(len(part) + 2 for part in parts) + min(len(name), _LEAST_LABEL) > width:
        parts.pop()
    rest = "  ".join(parts)
    name = shortened(name, max(width - len(rest) - 2, _LEAST_LABEL))
    return f"{name}  {shortened(rest, max(width - len(name) - 2, 1))}"[:width]


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def shortened(text: str, width: int) -> str:
    """Return a text of at most `width` characters; of a longer one, its beginning and its end."""
    if len(text) <= width:
        return text
    if width < _LEAST_LABEL:
        return text[:width]
    end = (width - 2) // 2
    return f"{text[: width - 2 - end]}..{text[-end:]}"


@contextmanager
def progress_bar(say: Say, *, quiet: bool = False) -> Iterator[Progress]:
    """Show the progress of a run for the time of a block; `say` prints a line if stderr is not a terminal."""
    console = None if quiet else _terminal()
    if console is None:
        yield _Nothing() if quiet else _Lines(say)
        return
    line = _Line(console)
    with _live(line, console):
        yield line


@contextmanager
def stage_line(say: Say, *, quiet: bool = False) -> Iterator[Say]:
    """Yield what prints each step of some work; on a terminal, the last line is the current one with its time."""
    console = None if quiet else _terminal()
    if console is None:
        yield say
        return
    stage = _Stage(console)
    with _live(stage, console):
        try:
            yield stage
        finally:
            stage.end()


def _terminal() -> Any:
    """Return the console of stderr, if that is a terminal whose cursor can move, else None."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console  # noqa: PLC0415  (comes with the command line)

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    return console if console.is_interactive else None


def _live(line: "_Line | _Stage", console: Any) -> AbstractContextManager[Any]:
    """Keep a line the last one of a terminal. What is printed meanwhile is above it."""
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    def render() -> Any:
        return Text(line.text(console.width), no_wrap=True, overflow="crop")

    return Live(console=console, get_renderable=render, transient=True, redirect_stdout=False)


class _Nothing(Progress):
    """Shows nothing."""

    def _show(self, *_: Any) -> None: ...

    def item(self, name: str, facts: Sequence[str]) -> None: ...


class _Line(Progress):
    """What is counted, in the last line of a terminal."""

    def __init__(self, console: Any) -> None:
        super().__init__()
        self._console = console
        self._state: State | None = None
        self._at = 0.0

    def _show(self, state: State) -> None:
        self._state, self._at = state, time.monotonic()

    def item(self, name: str, facts: Sequence[str]) -> None:
        self._console.print(item_line(self._console.width, name, facts), soft_wrap=True)

    def text(self, width: int) -> str:
        """Return the line of this moment."""
        state = self._state
        if state is None:
            return ""
        left = None if state.left is None else max(state.left - (time.monotonic() - self._at), 0.0)
        return progress_line(width, state._replace(left=left))


class _Stage:
    """The current step of some work, in the last line of a terminal; those before are above it."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._message, self._begun = "", 0.0

    def __call__(self, message: str) -> None:
        self.end()
        self._message, self._begun = one_line(message), time.monotonic()

    def end(self) -> None:
        """Print the step with the time that it took."""
        if self._message:
            self._console.print(f"... {self._message} ({self._time()})", soft_wrap=True)
            self._message = ""

    def text(self, width: int) -> str:
        """Return the line of this moment."""
        room = width - len(self._time()) - 6
        return f"... {shortened(self._message, max(room, 1))}  {self._time()}"[:width] if self._message else ""

    def _time(self) -> str:
        return clock(time.monotonic() - self._begun)


class _Lines(Progress):
    """A line now and then."""

    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say, self._items = say, 0
        self._start = self._last = time.monotonic()

    def _show(self, state: State) -> None:
        now = time.monotonic()
        if state.done != state.total and now - self._last < max(_BETWEEN_LINES, (now - self._start) / 20):
            return
        self._last = now
        parts = [f"{state.done}" if state.total is None else f"{state.done} of {state.total}"]
        parts += state.facts or ([] if state.rate is None else [f"{state.rate:.1f} per second"])
        parts += [f"{clock(state.left)} left"] if state.left else []
        self._say(f"{state.label}: {', '.join(parts)}")

    def item(self, name: str, facts: Sequence[str]) -> None:
        self._items += 1
        if self._items <= _ALL_ITEMS or self._items % _ALL_ITEMS == 0:
            self._say(f"{name}: {', '.join(facts)}")
