"""New virtual environments for the checks that need one, and the artifact that they predict with."""

import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

from tools.installed import PYPROJECT

ROOT = PYPROJECT.parent


def new_environment(folder: Path, *arguments: str) -> Path:
    """Create an environment and install into it with this environment's pip.

    Args:
        folder: Must not exist.
        arguments: Arguments of `pip install`.

    Returns:
        The interpreter of the new environment.
    """
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *arguments], ROOT)
    return python


def export_demo(path: Path, *options: str) -> Path:
    """Export the demo model to an `.onnx` file with options of the command; returns its path."""
    run([sys.executable, "-m", "export", "onnx", "demo", "-o", str(path), *options], ROOT)
    return path


def run(command: list[str], folder: Path, variables: Mapping[str, str] | None = None) -> str:
    """Run a program without this process's PYTHONPATH; returns its standard output.

    Raises:
        SystemExit: It fails; all its output has been printed.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(  # noqa: S603
        command, cwd=folder, env=kept | dict(variables or {}), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        sys.exit(f"error: exit code {done.returncode} of {' '.join(command)}")
    return done.stdout
