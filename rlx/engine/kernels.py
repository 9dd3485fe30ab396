"""The compiled kernels (kernels.c): built once a machine by its C compiler, into the user's cache.

`load()` gives them, or None with `problem()` saying why: no compiler, a build that fails, a folder that cannot execute.
The file's name holds a hash of source, flags, compiler and CPU, so what is loaded was built from this source for this
machine; nothing that a run directory holds is compiled or loaded. The folder is the user's own, mode 0700.
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
    """The loaded library: the functions of kernels.c, the codes of operations and `environments` by name, and
    `identity`: two with the same one round alike."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        pointer, whole, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
        self.run, self.update, self.step = library.rlx_run, library.rlx_update, library.rlx_step
        self.run.argtypes, self.run.restype = [pointer, whole], None
        self.update.argtypes, self.update.restype = [pointer, real, real], real
        self.step.argtypes, self.step.restype = [pointer, pointer, whole, real, real], real
        self.rollout = library.rlx_rollout
        self.rollout.argtypes, self.rollout.restype = [pointer, whole, whole], whole
        self.env = library.rlx_env
        self.env.argtypes, self.env.restype = [pointer, pointer], whole
        self.codes, self.environments = map(_numbered, (library.rlx_operations, library.rlx_environments))
        lanes, fused = library.rlx_lanes(), library.rlx_fused()
        digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
        self.identity = f"native {digest}, {lanes} lanes{'' if fused else ' without FMA'}"


def _numbered(names: Any) -> dict[str, int]:
    names.restype = ctypes.c_char_p
    return {name: code for code, name in enumerate(names().decode().split())}


class _Unusable(Exception):
    """There are no kernels, and why."""


@lru_cache
def _loaded() -> tuple[Kernels | None, str]:
    try:
        return Kernels(_built()), ""
    except _Unusable as error:
        return None, str(error)
    except OSError as error:
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def load() -> Kernels | None:
    return _loaded()[0]


def problem() -> str:
    """Why there are no kernels here; empty where there are."""
    return _loaded()[1]


def _built() -> Path:
    """The library in the cache, compiled if it is not there."""
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise _Unusable("no C compiler")
    folder = _folder()
    path = folder / f"kernels-{_key(compiler)}.so"
    if not _mine(path):
        _compile(compiler, path)
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


def _key(compiler: str) -> str:
    about = Path(compiler).resolve().stat()
    parts = [
        SOURCE.read_bytes(),
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


def _compile(compiler: str, path: Path) -> None:
    """Under a temporary name, then renamed: many processes may start at once, and one may be killed."""
    handle, temporary = tempfile.mkstemp(suffix=".tmp", dir=path.parent)
    os.close(handle)
    wide = ["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []
    native = ["-mcpu=native"] if platform.machine() in ("arm64", "aarch64") else ["-march=native"]
    attempts = [["-O2", *FASTER, *native, *wide], ["-O3", *native], ["-O3"]]  # not every compiler knows all of them
    try:
        for extra in attempts:
            command = [compiler, *FLAGS, *extra, "-o", temporary, str(SOURCE), "-lm"]
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
