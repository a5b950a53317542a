"""Break one place at a time in what must not break, and see whether the tests notice: `make mutants`.

cosmic-ray makes the mutants, runs the tests on each in a process of its own, and keeps the results, so that a run that
was cut off goes on. Here is what it leaves open: which files and tests belong together (`subjects.toml`), the copy of
the project that is broken instead of the project, a sample that is the same in every run, and the table.
"""

import argparse
import hashlib
import os
import shutil
import sys
import time
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from itertools import islice, zip_longest
from pathlib import Path

from cosmic_ray import plugins
from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome
from statements import Annotations, LeaveOutStatement

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COPIED = ("maskrcnn", "export", "runtime", "tests")
ENOUGH = 0.9  # of the mutants of a subject
# The profile has no deadlines, which a busy machine would miss, and the same examples in every run.
PYTEST = "-m pytest -q -x -p no:cacheprovider --timeout=0 --hypothesis-profile=ci"
# Ten times what the sound code needs, and never less than this many seconds: a busy machine is not a finding.
LEAST_TIMEOUT = 120.0


@dataclass
class Target:
    """Files to be broken, and the tests that should notice."""

    modules: list[str]
    tests: str
    session: Path = field(init=False)

    @property
    def command(self):
        return f"{sys.executable} {PYTEST} {self.tests}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subjects", nargs="*", help="names, or beginnings of them; by default all")
    parser.add_argument("--most", type=int, default=60, help="mutants of a subject (default 60)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".mutation", help="copy of the project, and results")
    arguments = parser.parse_args()
    tree = _fresh_copy(arguments.folder.absolute())
    os.chdir(tree)  # the project that the tests import
    plugins.OPERATOR_PROVIDERS["statement"] = {LeaveOutStatement.__name__: LeaveOutStatement}
    rows, unnoticed = [], []
    for subject in tomllib.loads((HERE / "subjects.toml").read_text())["subject"]:
        if arguments.subjects and not subject["name"].startswith(tuple(arguments.subjects)):
            continue
        targets = [Target(**target) for target in subject["targets"]]
        possible = _open_sessions(targets, tree.parent, subject["name"])
        chosen = _sample(possible, arguments.most)
        for target in targets:
            _run(target, subject["name"], chosen)
        results = [result for target in targets for result in _results(target, chosen)]
        rows.append((subject["name"], len(possible), Counter(_outcome(result) for result in results)))
        unnoticed += [(subject["name"], r) for r in results if _outcome(r) != "killed"]
    return _report(rows, unnoticed)


def _fresh_copy(folder):
    """The project's code and tests; anew each time, because a run that was cut off may have left a mutant."""
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


def _open_sessions(targets, folder, name):
    """Give each target its session, which goes on as long as neither its code nor its tests changed.

    Returns:
        All mutants, by id.
    """
    found = {}
    for number, target in enumerate(targets):
        tests = [word for word in target.tests.split() if word.endswith(".py")]
        content = b"\0".join([target.command.encode(), *(Path(file).read_bytes() for file in target.modules + tests)])
        stem = f"{name.replace(' ', '-')}-{number}"
        target.session = folder / f"{stem}-{hashlib.sha256(content).hexdigest()[:12]}.sqlite"
        for old in folder.glob(f"{stem}-*.sqlite"):
            if old != target.session:
                old.unlink()
        with use_db(target.session) as session:
            if not session.num_work_items:
                init([Path(module) for module in target.modules], session, {})
            found |= {item.job_id: item.mutations[0] for item in session.work_items}
    return {job: m for job, m in found.items() if m.start_pos not in _annotations(m.module_path)}


@cache
def _annotations(path):
    return Annotations(path.read_text())


def _sample(mutations, most):
    """Ids of at most so many mutants, taken from the files in turn; one of each place, whatever can go wrong there."""
    places = {}
    for job, mutation in mutations.items():
        line = mutation.module_path.read_text().splitlines()[mutation.start_pos[0] - 1]
        text = f"{mutation.module_path} {mutation.definition_name} {line} {mutation.start_pos[1]}"
        order = hashlib.sha256(f"{text} {mutation.operator_name} {mutation.occurrence}".encode()).hexdigest()
        file = places.setdefault(mutation.module_path, {})
        file.setdefault((mutation.start_pos, mutation.end_pos), []).append((order, job))
    files = [sorted(min(candidates) for candidates in file.values()) for file in places.values()]
    turns = (job for turn in zip_longest(*files) for _order, job in filter(None, turn))
    return set(islice(turns, most))


def _run(target, name, chosen):
    """Run what is left of the chosen mutants of a session.

    Raises:
        SystemExit: The tests fail as it is, so that a failure says nothing.
    """
    with use_db(target.session, WorkDB.Mode.open) as session:
        pending = [item for item in session.pending_work_items if item.job_id in chosen]
        if not pending:
            return
        begin = time.monotonic()
        outcome, output = run_tests(target.command, 10 * LEAST_TIMEOUT)
        if outcome != TestOutcome.SURVIVED:
            sys.exit(f"{output}\nthe tests fail before anything is broken: {target.command}")
        timeout = max(LEAST_TIMEOUT, 10 * (time.monotonic() - begin))
        for left, item in zip(range(len(pending), 0, -1), pending, strict=True):
            result = mutate_and_test(item.mutations, target.command, timeout)
            session.set_result(item.job_id, result)
            _say(f"{name}: {', '.join(target.modules)}: {left - 1} left, {_outcome(result)}")


def _results(target, chosen):
    with use_db(target.session, WorkDB.Mode.open) as session:
        return [result for job, result in session.results if job in chosen]


def _outcome(result):
    if result.worker_outcome != WorkerOutcome.NORMAL:
        return "not run"
    if result.output == "timeout":
        return "timeout"
    return "survived" if result.test_outcome == TestOutcome.SURVIVED else "killed"


def _report(rows, unnoticed):
    """Print what was not noticed, and the table. Exit code 1 if a subject has less than is enough."""
    for name, result in unnoticed:
        _say(f"\n{_outcome(result)}: {name}\n{result.diff or result.output}")
    _say(f"\n{'subject':20}{'possible':>10}{'run':>6}{'killed':>8}{'survived':>10}{'timeout':>9}{'not run':>9}")
    poor = False
    for name, possible, counts in rows:
        total = counts.total()
        columns = (counts["killed"], counts["survived"], counts["timeout"], counts["not run"])
        share = counts["killed"] / total if total else 0.0
        poor |= share < ENOUGH
        _say(f"{name:20}{possible:10}{total:6}{columns[0]:8}{columns[1]:10}{columns[2]:9}{columns[3]:9}  {share:.0%}")
    return int(poor)


def _say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
