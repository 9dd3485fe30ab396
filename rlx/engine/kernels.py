"""C files (kernels.c above all): built once a machine by its C compiler, into the user's cache.

`load()` gives the kernels, or None with `problem()` saying why: no compiler, a build that fails, a folder that cannot
execute; `library(source)` gives another C file. The name of what is built holds a hash of source, flags, compiler and
CPU, so what is loaded was built from this source for this machine; nothing that a run directory holds is compiled or
loaded. The folder is the user's own, mode 0700.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ["-ffp-contract=off", "-fno-math-errno", "-fPIC", "-shared", "-fvisibility=hidden"]
FASTER = ["-ftree-vectorize", "-fvect-cost-model=dynamic", "-fno-trapping-math"]  # of gcc; none changes a bit
SECONDS = 120  # of a build


class Kernels:
    """The functions of kernels.c, the codes of operations, and `identity`: two with the same one round alike."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        pointer, whole, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
        self.run, self.update, self.step = loaded.rlx_run, loaded.rlx_update, loaded.rlx_step
        self.run.argtypes, self.run.restype = [pointer, whole], None
        self.update.argtypes, self.update.restype = [pointer, real, real], real
        self.step.argtypes, self.step.restype = [pointer, pointer, whole, real, real], real
        self.rollout = loaded.rlx_rollout
        self.rollout.argtypes, self.rollout.restype = [pointer, whole, whole], whole
        self.recurrence = loaded.rlx_recurrence
        self.recurrence.argtypes, self.recurrence.restype = [pointer, pointer, whole, whole], None
        self.codes = numbered(loaded.rlx_operations)
        digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
        fused = "" if loaded.rlx_fused() else " without FMA"
        self.identity = f"native {digest}, {loaded.rlx_lanes()} lanes{fused}"


def numbered(names: Any) -> dict[str, int]:
    """From a C function that returns names: each with its place."""
    names.restype = ctypes.c_char_p
    return {name: code for code, name in enumerate(names().decode().split())}


class _Unusable(Exception):
    """The file cannot be built or loaded, and why."""


@lru_cache
def _loaded(source: Path) -> tuple[ctypes.CDLL | None, str]:
    try:
        return ctypes.CDLL(str(_built(source))), ""
    except _Unusable as error:
        return None, str(error)
    except OSError as error:
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def library(source: Path) -> ctypes.CDLL | None:
    """A C file, compiled; None where that fails."""
    return _loaded(source)[0]


@lru_cache
def load() -> Kernels | None:
    loaded = library(SOURCE)
    return Kernels(loaded) if loaded else None


def problem() -> str:
    """Why there are no kernels here; empty where there are."""
    return _loaded(SOURCE)[1]


def _built(source: Path) -> Path:
    """The library in the cache, compiled if it is not there."""
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise _Unusable("no C compiler")
    folder = _folder()
    path = folder / f"{source.stem}-{_key(compiler, source)}.so"
    if not _mine(path):
        _compile(compiler, source, path)
    return path


def _folder() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "rlx" / "kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        raise _Unusable(f"{folder} is not a folder of this user")
    folder.chmod(0o700)
    return folder


def _mine(path: Path) -> bool:
    """A regular file that this user alone could have written. Raises _Unusable if something else is there."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise _Unusable(f"{path} is not a file that only this user can write")
    return True


def _key(compiler: str, source: Path) -> str:
    about = Path(compiler).resolve().stat()
    parts = [
        source.read_bytes(),
        *map(str.encode, [*FLAGS, *FASTER, compiler, f"{about.st_size} {about.st_mtime_ns}", _cpu()]),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _cpu() -> str:
    """The kind of CPU and what it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))


def _compile(compiler: str, source: Path, path: Path) -> None:
    """Under a temporary name, then renamed: many processes may start at once, and one may be killed."""
    handle, temporary = tempfile.mkstemp(suffix=".tmp", dir=path.parent)
    os.close(handle)
    wide = ["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []
    native = ["-mcpu=native"] if platform.machine() in ("arm64", "aarch64") else ["-march=native"]
    attempts = [["-O2", *FASTER, *native, *wide], ["-O3", *native], ["-O3"]]  # not every compiler knows all of them
    try:
        for extra in attempts:
            command = [compiler, *FLAGS, *extra, "-o", temporary, str(source), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
            if done.returncode == 0:
                os.chmod(temporary, 0o700)
                os.replace(temporary, path)
                return
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise _Unusable(f"{Path(compiler).name} failed: {lines[0][:200]}")
    except subprocess.TimeoutExpired:
        raise _Unusable(f"{Path(compiler).name} took more than {SECONDS} seconds") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


if __name__ == "__main__":  # python -m rlx.engine.kernels: build them and say what they are
    kernels = load()
    print(kernels.identity if kernels else problem())
    sys.exit(0 if kernels else 1)
