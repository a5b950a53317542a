"""Shell commands that fix an environment, ready to copy."""

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Installer:
    """Writes commands for the environment of one interpreter.

    Attributes:
        python: Path of the interpreter.
        uses_uv: Whether the environment has no pip, like those that uv makes.
    """

    python: str
    uses_uv: bool = False

    def install(self, *requirements: str) -> str:
        """Return the command that installs requirements."""
        return self._command("install", *requirements)

    def extras(self, *extras: str) -> str:
        """Return the command that installs extras of this package."""
        return self.install(f"maskrcnn-export[{','.join(extras)}]")

    def again(self, *requirements: str) -> str:
        """Return the command that reinstalls packages without their dependencies."""
        options = ("--reinstall",) if self.uses_uv else ("--force-reinstall",)
        return self._command("install", *options, "--no-deps", *requirements)

    def without(self, packages: list[str], then: str = "") -> str:
        """Return the command that uninstalls packages, followed by another command."""
        options = () if self.uses_uv else ("--yes",)
        gone = self._command("uninstall", *options, *packages) if packages else ""
        return " && ".join(command for command in (gone, then) if command)

    def _command(self, verb: str, *arguments: str) -> str:
        if self.uses_uv:
            return shlex.join(["uv", "pip", verb, "--python", self.python, *arguments])
        return shlex.join([self.python, "-m", "pip", verb, *arguments])
