"""Command lines whose every command takes --json and --quiet."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Annotated, Any, TypeVar

from typer import Context, Option, Typer

from maskrcnn.commands import console
from maskrcnn.commands.names import Commands

_Function = TypeVar("_Function", bound=Callable[..., Any])
_PANEL = "Output"
_OPTIONS = {
    "json_": Annotated[
        bool,
        Option("--json", help="Print one JSON document in place of the result as text.", rich_help_panel=_PANEL),
    ],
    "quiet": Annotated[
        bool, Option("--quiet", "-q", help="Print no messages but warnings and errors.", rich_help_panel=_PANEL)
    ],
}


class App(Typer):
    """A program, or a group of commands in one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=_Group, no_args_is_help=True, pretty_exceptions_show_locals=False, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[_Function], _Function]:
        """Register a function as a command, as `Typer.command` does, with the options of all commands."""
        register = super().command(name, **options)

        def with_options(function: _Function) -> _Function:
            register(_with_options(function))
            return function

        return with_options


class _Group(Commands):
    """Prints the document when the command has ended, whatever ends it."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        if parent is None:
            console.begin(args[: args.index("--")] if "--" in args else args)
        with _documented():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _documented():
            value = super().invoke(ctx)
            console.finish()
            return value


@contextmanager
def _documented() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        console.finish(error)
        raise


@cache
def _with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of all commands to those of a function, which does not get their values."""

    @wraps(function)
    def command(*, context: Context, json_: bool, quiet: bool, **values: Any) -> None:
        with console.session().running(context.command_path, json=json_, quiet=quiet):
            function(**values)

    own = inspect.signature(function)
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, kind, default=False, annotation=each) for name, each in _OPTIONS.items()]
    added.append(inspect.Parameter("context", kind, annotation=Context))
    command.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    command.__annotations__ = {**function.__annotations__, **_OPTIONS, "context": Context}
    return command
