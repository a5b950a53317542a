"""Libraries that take the place of CUDA's: ONNX Runtime's CUDA provider runs on them on any Linux machine.

Placement, copies, options, launches and recordings are the provider's own, and each is a line of a log (`Log`). Kernels
do nothing, so values are meaningless, and so are times. See `cuda_libraries/cudart.c` for the machines that it can be.
"""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import numpy as np

SOURCES = Path(__file__).with_name("cuda_libraries")
# In the order in which they are loaded: each needs those before it.
NAMES = ("cudart.so.13", "cuda.so.1", "cublasLt.so.13", "cublas.so.13", "curand.so.10", "cudnn.so.9")
# Functions that start work on the device; others answer 0 and do nothing.
_WORK = re.compile("Forward|Execute|Gemm|gemm|Matmul$|geam|getr|scal_|copy_|Transform$|ReduceTensor$")


def provider():
    """Path of ONNX Runtime's CUDA provider; None where it is not installed."""
    found = util.find_spec("onnxruntime")
    path = found and Path(found.origin).parent / "capi" / "libonnxruntime_providers_cuda.so"
    return path if path and path.exists() else None


def why_not():
    """Why the stand-in cannot be used here; None if it can."""
    if provider() is None:
        return "onnxruntime-gpu is not installed"
    if not (shutil.which("cc") and shutil.which("nm")):
        return "there is no C compiler"
    if util.find_spec("nvidia") is not None:
        return "NVIDIA's own libraries are installed"
    return None


def build(folder):
    """Compile the libraries into a folder below `folder`, unless they are there; return it."""
    content = provider().read_bytes()
    sources = b"".join(path.read_bytes() for path in sorted(SOURCES.glob("*.c"))) + Path(__file__).read_bytes()
    target = folder / hashlib.sha256(sources + content[-4096:] + str(len(content)).encode()).hexdigest()[:16]
    if target.exists():
        return target
    draft = folder / f"{target.name}.{os.getpid()}"
    draft.mkdir(parents=True)
    listed = subprocess.run(["nm", "-D", "--undefined-only", provider()], capture_output=True, text=True, check=True)
    wanted = re.findall(r"U (\w+)(?:@(\S+))?$", listed.stdout, re.MULTILINE)
    for name in NAMES:
        library = f"lib{name}"
        source = SOURCES / ("cudart.c" if name.startswith("cudart") else "libraries.c")
        functions = {function for function, of in wanted if of == library}
        if name.startswith("cudnn"):  # loaded when it is needed, by the names of its functions
            functions |= {found.decode() for found in re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", content)}
        if name.startswith("cuda.so"):
            functions |= {"cuInit", "cuTensorMapEncodeTiled"}
        known = set(re.findall(r"\b(\w+)\([^;{]*\) {", source.read_text(encoding="utf-8")))
        rest = draft / f"{library}.c"
        rest.write_text("void standin_log(const char*, ...); void *calloc(unsigned long, unsigned long);\n", "utf-8")
        with rest.open("a", encoding="utf-8") as file:
            for function in sorted(functions - known):
                make = "*made = calloc(1, 4096); " if "Create" in function else ""
                log = f'standin_log("launch {function}"); ' if _WORK.search(function) else ""
                file.write(f"long {function}(void **made) {{ {make}{log}return 0; }}\n")
        versions = draft / "versions"
        versions.write_text(f"{library} {{ *; }};\n", "utf-8")
        command = ["cc", "-w", "-O1", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", draft / library, source, rest]
        command += [] if name.startswith("cuda.so") else [f"-Wl,--version-script={versions}"]
        command += ["-lpthread"] if name.startswith("cudart") else [draft / f"lib{NAMES[0]}"]
        subprocess.run(command, check=True, capture_output=True)
    with suppress(OSError):  # another process may be faster
        draft.rename(target)
    shutil.rmtree(draft, ignore_errors=True)
    return target


def load(folder, *, without=()):
    """Load the libraries into this process; the provider, which is loaded later, finds them by their names."""
    for name in NAMES:
        if name.split(".")[0] not in without:
            ctypes.CDLL(str(folder / f"lib{name}"), mode=ctypes.RTLD_GLOBAL)


def machine(folder, target, *, without=()):
    """Make a folder for LD_LIBRARY_PATH, with the libraries but some; return it."""
    target.mkdir()
    for name in NAMES:
        if name.split(".")[0] not in without:
            (target / f"lib{name}").symlink_to(folder / f"lib{name}")
    return target


def inputs_of(height, width, batch=1):
    """Arguments of `Predictor.run`."""
    return np.zeros((batch, height, width, 3), np.uint8), np.tile(np.float32([0, 0, height, width]), (batch, 1))


@dataclass(frozen=True)
class Events:
    """What the provider did: lines of the log, as lists of words."""

    lines: tuple[tuple[str, ...], ...]

    def of(self, *words):
        """The details of each event that begins with these words."""
        return [line[1 + len(words) :] for line in self.lines if line[1 : 1 + len(words)] == words]

    def count(self, *words):
        return len(self.of(*words))

    @property
    def launches(self):
        """Number of kernels by name."""
        return Counter(" ".join(words) for words in self.of("launch"))

    def copies(self, direction):
        """Bytes of each copy, "htod", "dtoh" or "dtod", in order."""
        return [int(size) for size, *_ in self.of("copy", direction)]

    def held(self, kind):
        """Bytes of the device, or of pinned memory, that were allocated and not freed."""
        return sum(
            sign * int(size) for sign, what in ((1, "allocate"), (-1, "free")) for (size,) in self.of(what, kind)
        )

    @property
    def waits(self):
        """How often the host waited for the device: a copy to memory that is not pinned waits, too."""
        copies = [words for direction in ("htod", "dtoh") for words in self.of("copy", direction)]
        blocking = [words for words in copies if words[1] == "blocking"]
        return self.count("wait") + len(blocking)

    def threads(self, *words):
        """The threads that had such events."""
        return {line[0] for line in self.lines if line[1 : 1 + len(words)] == words}


class Log:
    """The log of this process and those that it starts."""

    def __init__(self, path):
        self.path = path
        path.touch()

    @property
    def events(self):
        """All events since the last `clear`."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return Events(tuple(tuple(line.split()) for line in lines))

    def clear(self):
        self.path.write_text("", "utf-8")
