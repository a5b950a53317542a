"""Look for known vulnerabilities in what the extras installed: `python -m tools.audit`, or `make audit`.

pip-audit asks PyPI, and OSV if PyPI does not answer for every package. pip-audit alone would print "No known
vulnerabilities found" and exit with 0 if it asked a mirror without the vulnerability database.

Exit codes: 0 every package was audited, and none has a known vulnerability; 1 some have; 2 no service answered for all.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.installed import closure, requirements

_SERVICES = ("pypi", "osv")
_SECONDS = 600


def main() -> int:
    """Audit this environment; return the exit code."""
    packages, missing = closure(requirements())
    if missing:
        _say(f"not installed, so not audited: {', '.join(missing)}")
    for service in _SERVICES:
        report, failure = ask(service, packages)
        audited = [each for each in report if "skip_reason" not in each]
        if failure or len(audited) < len(packages):
            _say(f"{service}: {failure or f'answers for {len(audited)} of {len(packages)} packages'}")
            continue
        lines = findings(audited)
        for line in lines:
            sys.stdout.write(f"{line}\n")
        sys.stdout.write(f"{len(lines)} known vulnerabilities in {len(audited)} packages, by {service}\n")
        return 1 if lines else 0
    _say("error: no vulnerability service can be reached, or none knows all packages: NOTHING was audited")
    return 2


def ask(service: str, packages: Mapping[str, str]) -> tuple[list[dict[str, Any]], str]:
    """Return what pip-audit reports for each package, and why it failed, empty if it did not."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "pins.txt"
        pins.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--format", "json"]
        command += ["--requirement", str(pins), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return [], f"no answer within {_SECONDS} s"
    try:
        return list(json.loads(done.stdout)["dependencies"]), ""
    except (ValueError, KeyError, TypeError):
        return [], (done.stderr.strip().splitlines() or ["pip-audit printed nothing"])[-1]


def findings(audited: list[dict[str, Any]]) -> list[str]:
    """Return a line for each vulnerability: the package, its ids, and the versions without it."""
    return [
        f"{package['name']} {package['version']}: {', '.join([one['id'], *one.get('aliases', ())])}; "
        f"fixed in {', '.join(one.get('fix_versions', ())) or 'no version'}"
        for package in audited
        for one in package.get("vulns", ())
    ]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
