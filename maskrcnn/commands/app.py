"""Command lines whose every command takes --json and --quiet."""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache, wraps
from typing import Annotated, Any, TypeVar

from typer import Context, Exit, Option, Typer

from maskrcnn.commands import console
from maskrcnn.commands.names import Commands
from runtime.one_line import one_line

_Function = TypeVar("_Function", bound=Callable[..., Any])
_PANEL = "Output"
_COMPLETION = ("--show-completion", "--install-completion")
_SHELLS = ("bash", "zsh", "fish", "powershell")
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
        names = {"help_option_names": ["--help", "-h"]}
        super().__init__(
            cls=_Group, no_args_is_help=True, pretty_exceptions_show_locals=False, context_settings=names, **options
        )

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

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse options of the program; those for completion take the name of a shell."""
        option, _, shell = " ".join(args).replace("=", " ", 1).partition(" ")
        if ctx.parent is None and option in _COMPLETION and shell:
            if shell not in _SHELLS:
                ctx.fail(f"No completion for {shell!r}: expected {', '.join(_SHELLS[:-1])} or {_SHELLS[-1]}")
            parameter: Any = next(each for each in self.params if option in each.opts)
            parameter.callback(ctx, parameter, shell)
        return super().parse_args(ctx, args)


@contextmanager
def _documented() -> Iterator[None]:
    try:
        yield
    except BaseException as raised:
        error: Any = raised
        console.finish(error)
        if hasattr(error, "format_message") and type(error).__name__ != "NoArgsIsHelpError":
            console.usage_error(_said(error))
            raise Exit(error.exit_code) from None
        raise


def _said(error: Any) -> str:
    """Return what the parser says, in our form; of options with similar names, the most similar one alone."""
    text = re.sub(r"\.? \(Possible options: .*\)$", "", one_line(error.format_message()), flags=re.DOTALL)
    near = get_close_matches(getattr(error, "option_name", ""), getattr(error, "possibilities", None) or (), 1)
    if near:
        text += f" (did you mean {near[0]}?)"
    text = re.sub(r"\.? Did you mean (.*)\?$", lambda it: f" (did you mean {it[1].replace(', ', ' or ')}?)", text)
    text = re.sub(r"argument\(s\) (?=\(\S+\)$)", "argument ", text).replace("argument(s)", "arguments")
    text = text.replace(": Value error, ", ": ").rstrip(".")
    return text[:1].lower() + text[1:]


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
