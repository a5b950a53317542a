"""Names of commands: what somebody meant who typed one that does not exist."""

from difflib import get_close_matches
from typing import Any

from typer.core import TyperGroup

from maskrcnn.distribution import COMMANDS

_WORDS = [word for command in COMMANDS for word in command.split()]


class Commands(TyperGroup):
    """Commands of a program, or of one of its words; says where a command is that is not among them."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the table, in which the help shows them."""
        return sorted(self.commands, key=_WORDS.index)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, or end with the names of those that may be meant."""
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            meant = self._meant(name)
            if meant:
                ctx.fail(f"No such command {name!r}. Did you mean {', '.join(map(repr, meant))}?")
        return super().resolve_command(ctx, args)

    def _meant(self, name: str) -> list[str]:
        """Return the commands that have a name like this one, those with the very same name alone."""
        found = {own: own for own, command in self.commands.items() if not command.hidden}
        for command in COMMANDS:
            group, _, last = command.rpartition(" ")
            for word in filter(None, (group, last)):
                found.setdefault(word, f"maskrcnn {group} {last}" if word == last and group else f"maskrcnn {word}")
        close = [name] if name in found else get_close_matches(name, found)
        return [found[word] for word in close]
