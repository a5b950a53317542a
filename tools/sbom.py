"""Write a software bill of materials of what the extras installed: `python -m tools.sbom FILE`, or `make sbom`.

cyclonedx-py describes the running environment as CycloneDX JSON, which is narrowed to what the extras need: names,
versions, licenses, the dependency graph, and the SHA-256 of each wheel that the package index has for this platform.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from runtime.atomic import atomic_write
from tools.installed import PYPROJECT, closure, requirements

_SECONDS = 600


def main(path: Path) -> int:
    """Write the bill; return the exit code, which is 1 if the bill would be incomplete or invalid."""
    packages, missing = closure(requirements())
    bill = narrowed(_of_environment(), packages)
    listed = {canonicalize_name(each["name"]) for each in bill["components"]}
    lost = sorted(set(packages) - listed)
    hashes = _hashes(packages)
    for component in bill["components"]:
        digest = hashes.get(canonicalize_name(component["name"]))
        if digest:
            component["hashes"] = [{"alg": "SHA-256", "content": digest}]
    text = json.dumps(bill, indent=1, ensure_ascii=False) + "\n"
    wrong = f"it lacks {', '.join(lost)}" if lost else JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong:
        _say(f"error: the bill is not written: {wrong}")
        return 1
    with atomic_write(path, overwrite=True) as draft:
        draft.write_text(text, encoding="utf-8")
    unlicensed = [each["name"] for each in bill["components"] if not each.get("licenses")]
    for what, names in (
        ("not installed, so not listed", missing),
        ("no license in its metadata", unlicensed),
        ("no hash found", sorted(set(packages) - set(hashes))),
    ):
        if names:
            _say(f"{what}: {', '.join(names)}")
    sys.stdout.write(f"wrote {path}: {len(bill['components'])} packages\n")
    return 0


def narrowed(bill: dict[str, Any], packages: Mapping[str, str]) -> dict[str, Any]:
    """Return a bill with only some packages, and the dependencies between them and the root."""
    kept = [each for each in bill.get("components", []) if canonicalize_name(each["name"]) in packages]
    refs = {each["bom-ref"] for each in kept} | {bill["metadata"]["component"]["bom-ref"]}
    graph = []
    for each in bill.get("dependencies", []):
        if each["ref"] in refs:
            below = [ref for ref in each.get("dependsOn", []) if ref in refs]
            graph.append({"ref": each["ref"]} | ({"dependsOn": below} if below else {}))
    return bill | {"components": kept, "dependencies": graph}


def _of_environment() -> dict[str, Any]:
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", str(PYPROJECT)]
    command += [
        "--spec-version",
        "1.6",
        "--output-format",
        "JSON",
        "--output-reproducible",
        "--no-validate",
        sys.executable,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"error: cyclonedx-py fails: {(done.stderr.strip().splitlines() or ['it printed nothing'])[-1]}")
    return dict(json.loads(done.stdout))


def _hashes(packages: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 of each file that pip would download now, by package name; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        pins, report = Path(folder) / "pins.txt", Path(folder) / "report.json"
        pins.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        command += ["--report", str(report), "--requirement", str(pins)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return {}
        if done.returncode:
            return {}
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    digests = {
        canonicalize_name(each["metadata"]["name"]): each["download_info"].get("archive_info", {}).get("hashes", {})
        for each in installed
    }
    return {name: known["sha256"] for name, known in digests.items() if "sha256" in known}


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tools.sbom FILE")
    sys.exit(main(Path(sys.argv[1])))
