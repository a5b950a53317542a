"""Coverage-guided fuzzing of one target (Linux, `pip install --group fuzz`).

    python tests/fuzz/fuzz.py picture --minutes 30    goes on from what earlier runs found
    python tests/fuzz/fuzz.py picture --merge         the least of all that reaches as much, to tests/fuzz_corpus

What a run finds is kept in `.fuzz/TARGET/corpus`; an input that is a finding in `.fuzz/TARGET-crash-...` (or -timeout-,
-oom-), and the run ends with the traceback. `--replay FILE` tries one again.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests/fuzz_corpus"
WORK = ROOT / ".fuzz"

_MEMORY_DISK = Path("/dev/shm")  # a hundred times the speed, where each input is written to a file

_JSON = ("coco", "via", "labelme", "metadata", "manifest", "config")
_MESSAGES = ("onnx", "savedmodel")
_LARGEST = {"yolo": 400, "picture": 2048, "rle": 64, "weights": 8192, "savedmodel": 6000}  # bytes of an input
_TIMEOUT = 20  # seconds for one input, by the clock: `--timeout` gives more on a busy machine
_MEMORY = {"rle": 8_000}  # MB, else 2048; atheris itself loses a kilobyte with each comparison of arrays


def _load(name):
    """A target, with our code instrumented; and Pillow's readers, which picture files are judged by."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    packages = ["runtime", "maskrcnn", *(["PIL"] if name == "picture" else [])]
    if name == "savedmodel":
        _import_without_tensorflow()
    with atheris.instrument_imports(include=packages):
        from fuzz_targets import TARGETS
    return TARGETS[name]


def _import_without_tensorflow():
    """Let `tensorflow.core...`, descriptions of messages, be imported without the library, which takes seconds."""
    import importlib.util
    import types

    stand_in = types.ModuleType("tensorflow")
    stand_in.__path__ = list(importlib.util.find_spec("tensorflow").submodule_search_locations)
    sys.modules["tensorflow"] = stand_in


def _plain(data, limit):
    """libFuzzer's own change of some bytes; it is another function once fuzzing has begun."""
    return atheris.Mutate(data, limit)


def _mutator(name):
    """After the target: what is imported before it is not instrumented."""
    from fuzz_mutators import json_mutator, wire_mutator

    if name in _JSON:
        return {"custom_mutator": json_mutator(_plain)}
    return {"custom_mutator": wire_mutator(_plain)} if name in _MESSAGES else {}


def _arguments(name, minutes=0, merge_into=None, replayed=None, timeout=_TIMEOUT):
    """For libFuzzer: options, then folders, the first of which is written to."""
    options = [
        f"-rss_limit_mb={_MEMORY.get(name, 2048)}",
        f"-timeout={timeout}",
        f"-max_len={_LARGEST.get(name, 3000)}",
    ]
    folders = [WORK / name / "corpus", CORPUS / name]
    if replayed:
        return [*options, str(replayed)]
    if merge_into:
        # What is reached counts, not how often: a fifth of the files.
        return [*options, "-merge=1", "-use_counters=0", *map(str, (merge_into, *folders))]
    options += [f"-artifact_prefix={WORK}/{name}-", f"-max_total_time={60 * minutes}", "-reload=0", "-len_control=0"]
    return [*options, *map(str, folders)]


def _fuzz(name, arguments):
    """Does not return: libFuzzer ends the process."""
    # What libFuzzer calls this program by when it merges, which it does in processes of their own.
    program = shlex.join([sys.executable, str(Path(__file__).resolve()), name, "--libfuzzer"])
    temporary = (_MEMORY_DISK if _MEMORY_DISK.is_dir() else WORK) / f"fuzz-{name}-files"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tempfile.tempdir = str(temporary)
    warnings.simplefilter("ignore")  # Pillow's, of nearly every damaged picture
    target = _load(name)
    atheris.Setup([program, *arguments], target, **_mutator(name))
    atheris.Fuzz()


def _merge(name):
    """Replace the committed corpus by the smallest inputs that reach as much as it and the last runs together.

    Former findings stay: now that they are mended, they may reach nothing that others do not.
    """
    merged = WORK / name / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        _fuzz(name, _arguments(name, merge_into=merged))
    if os.waitpid(pid, 0)[1] or not any(merged.iterdir()):
        sys.exit(f"merging {name} failed; {CORPUS / name} is as it was")
    for old in CORPUS.glob(f"{name}/*"):
        if not old.name.startswith("finding-"):
            old.unlink()
    shutil.copytree(merged, CORPUS / name, dirs_exist_ok=True)
    sizes = [path.stat().st_size for path in (CORPUS / name).iterdir()]
    print(json.dumps({"target": name, "files": len(sizes), "bytes": sum(sizes), "largest": max(sizes)}))  # noqa: T201


def main():
    """Parse the command line, and run."""
    if "--libfuzzer" in sys.argv:
        _fuzz(sys.argv[1], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--timeout", type=int, default=_TIMEOUT)
    parser.add_argument("--merge", action="store_true")
    parser.add_argument("--replay", type=Path)
    asked = parser.parse_args()
    for place in (WORK / asked.target / "corpus", CORPUS / asked.target):
        place.mkdir(parents=True, exist_ok=True)
    if asked.merge:
        _merge(asked.target)
    else:
        _fuzz(asked.target, _arguments(asked.target, asked.minutes, replayed=asked.replay, timeout=asked.timeout))


if __name__ == "__main__":
    main()
