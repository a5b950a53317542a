"""Run tests/predictor at the lowest allowed versions: `python -m tools.check_lowest`, or `make lowest`.

A new environment gets the lowest versions that pyproject.toml allows for an installation with `[onnx]`, and no
TensorFlow. The tests use an artifact that this environment exports; those of SavedModels are skipped.

Exit codes: 0 all tests pass or are skipped, and most of them ran; pytest's own if one fails; 1 if too few ran.
"""

import ast
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement

from tools.environments import ROOT, export_demo, new_environment
from tools.installed import floor, requirements

_SHARE = 0.8  # of the tests must run; a seventh needs TensorFlow


def main() -> int:
    """Install, run the tests, count; returns the exit code."""
    lowest = lowest_versions()
    with tempfile.TemporaryDirectory(prefix="lowest-") as name:
        folder = Path(name).resolve()
        arguments = ["--only-binary=:all:", "--group", "predictor-tests", *lowest]
        with ThreadPoolExecutor() as pool:  # each keeps one core busy
            exported = pool.submit(export_demo, folder / "demo.onnx")
            python = new_environment(folder / "environment", *arguments)
        artifact = exported.result()
        report = folder / "report.xml"
        command = [str(python), "-m", "pytest", "tests/predictor", "-m", "not slow", f"--junitxml={report}"]
        command += ["--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile"]
        command += [f"--basetemp={folder / 'tests'}", "-p", "no:cacheprovider"]
        environment = os.environ | {"MASKRCNN_DEMO_ONNX": str(artifact)}
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode  # noqa: S603
        if code:
            return code
        ran, skipped = counts(report)
    total = ran + skipped.total()
    reasons = "".join(f"\n{count:6} {reason}" for reason, count in skipped.most_common())
    sys.stdout.write(f"{', '.join(lowest)}: {ran} of {total} tests ran; skipped are{reasons or ' none'}\n")
    if ran < _SHARE * total:
        sys.stderr.write(f"error: too few tests ran: {ran} of {total}, expected {_SHARE:.0%}\n")
        return 1
    return 0


def lowest_versions() -> list[str]:
    """Return each requirement of an installation with `[onnx]`, pinned to the lowest version it allows."""
    wanted = [Requirement(text) for text in requirements("onnx")]
    return [f"{requirement.name}=={floor(requirement)}" for requirement in wanted]


def run_all(python: Path | str, tests: str, folder: Path, variables: Mapping[str, str], *options: str) -> int:
    """Run a folder of tests, of which none may be skipped.

    Args:
        python: Interpreter with pytest.
        tests: The folder, relative to the root of the project.
        folder: For the report and temporary files.
        variables: Added to the environment.
        options: Further options of pytest.

    Returns:
        0, pytest's own exit code if a test fails, or 1 if one was skipped or none ran.
    """
    report = folder / "report.xml"
    command = [str(python), "-m", "pytest", tests, *options, f"--junitxml={report}", f"--basetemp={folder / 'tests'}"]
    code = subprocess.run(command, cwd=ROOT, env=os.environ | dict(variables), check=False).returncode  # noqa: S603
    if code:
        return code
    ran, skipped = counts(report)
    if not ran or skipped:
        sys.stderr.write(f"error: {ran} tests of {tests} ran, and {skipped.total()} were skipped: expected all\n")
        return 1
    return 0


def counts(report: Path) -> tuple[int, Counter[str]]:
    """Return how many tests of a JUnit report ran, and how many were skipped for each reason."""
    cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314  (pytest has just written it)
    reasons = [_reason(skipped) for case in cases for skipped in case.iter("skipped")]
    return len(cases) - len(reasons), Counter(reasons)


def _reason(skipped: ElementTree.Element) -> str:
    message = skipped.get("message", "")
    if message == "collection skipped":  # of a module; the reason is at the end of a tuple's representation
        return str(ast.literal_eval(skipped.text or "")[-1]).removeprefix("Skipped: ")
    return message


if __name__ == "__main__":
    sys.exit(main())
