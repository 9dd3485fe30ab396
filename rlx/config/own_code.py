"""Code of the folder that one stands in: the directory in which ./conf is looked for, too.

    ./algos/my_ppo.py           a file, loaded under a private name: it hides nothing, and nothing hides it
    my_env                      a module: installed ones first, then my_env.py of the folder

The folder comes to the end of sys.path, and only once something of it is asked for: a ./json.py is no danger to
commands that need none of it. A run is opened in the folder that it was recorded in (`stand_in`). Code of a run that
this machine has not recorded itself runs only where the user says so: see `signature`.
"""

import contextlib
import hashlib
import hmac
import importlib
import importlib.util
import json
import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from rlx.base.errors import ConfigError

INSTALLED = ("site-packages", "dist-packages")
PRIVATE = "_rlx_own_"  # what the names of modules that were loaded by file begin with

_stands: Path | None = None  # in the folder of a run; None: in the working directory
_appended: str | None = None  # to sys.path


class Absent(ConfigError):
    """A module or a file that is not there."""


def folder() -> Path:
    """The folder whose code counts."""
    return _stands or Path.cwd()


def stand_in(place: Path | None) -> None:
    """Let the folder be that of a run; None: the working directory again."""
    global _stands, _appended
    _stands = place
    if _appended is not None and _appended != str(folder()):
        with contextlib.suppress(ValueError):
            sys.path.remove(_appended)
        _appended = None


def reach() -> None:
    """Let what is imported from now on find modules of the folder, behind all others."""
    global _appended
    place = str(folder())
    if place not in sys.path and not ("" in sys.path and _stands is None):
        sys.path.append(place)
        _appended = place
    importlib.invalidate_caches()


# -- names -----------------------------------------------------------------------------------------------------


def is_file(name: str) -> bool:
    """Does a name say which file it is: ./algos/my_ppo.py?"""
    return name.endswith(".py")


def path_of(name: str) -> Path:
    """The file that such a name means."""
    return Path(os.path.normpath(folder() / Path(name).expanduser()))


def below(path: Path) -> bool:
    """Is a file one of the folder's own, and not of what is installed there (a .venv)?"""
    return not set(path.parts) & set(INSTALLED) and path.is_relative_to(folder())


def near(path: Path) -> str:
    """A file as a user writes it: ./algos/my_ppo.py."""
    return f"./{path.relative_to(folder())}" if path.is_relative_to(folder()) else str(path)


def file_of(module: str) -> Path | None:
    """The file of an importable module, without importing it (its packages are); None where there is none. Raises
    whatever its packages do."""
    top = module.partition(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        place = folder().joinpath(*module.split("."))
        return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
    spec = importlib.util.find_spec(module)
    return Path(spec.origin) if spec and spec.origin else None


# -- loading ---------------------------------------------------------------------------------------------------


def load_module(name: str) -> ModuleType:
    """An installed module, or one of the folder. Raises Absent where there is none of that name, and whatever it
    raises itself."""
    top = name.partition(".")[0]
    with contextlib.suppress(ValueError):  # a __main__ without a spec, say
        if top not in sys.modules and importlib.util.find_spec(top) is None:
            reach()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise Absent(f"no module {error.name} (looked for among what is installed and in {folder()})") from None
        raise


def load_file(path: Path) -> ModuleType:
    """The module of a file, loaded once as long as it stays as it is. Raises Absent where there is no such file, and
    whatever it raises itself."""
    try:
        content = path.read_bytes()
    except OSError as error:
        place = f" (in {folder()})" if path.is_relative_to(folder()) else ""
        raise Absent(f"{near(path)}: {(error.strerror or str(error)).lower()}{place}") from None
    name = f"{PRIVATE}{path.stem}_{hashlib.sha256(str(path).encode() + content).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    reach()
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # what lies beside it
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


# -- which runs are this machine's own -------------------------------------------------------------------------


def _key() -> bytes | None:
    """A secret of this user on this machine, made when it is first needed; None where it cannot be kept."""
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "rlx"
    file = home / "key"
    with contextlib.suppress(OSError):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            temporary = home / f".key_{os.getpid()}_{secrets.token_hex(4)}"
            temporary.touch(mode=0o600, exist_ok=False)
            temporary.write_bytes(secrets.token_bytes(32))
            try:
                os.link(temporary, file)  # whole or not at all, and never over another
            finally:
                temporary.unlink()
        key = file.read_bytes()
        return key if len(key) == 32 else None
    return None


def signature(place: str, references: Iterable[str]) -> str | None:
    """Of a folder and the names of its code in a configuration: who can make it has the key of this machine."""
    key = _key()
    text = json.dumps([place, sorted(references)])
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest() if key else None


def is_own(signed: object, place: str, references: Iterable[str]) -> bool:
    """Was it made here?"""
    made = signature(place, references)
    return made is not None and isinstance(signed, str) and hmac.compare_digest(made, signed)
