"""Composing configurations: the search path, and Hydra's compose as plain data."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import hydra
import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from rlx.base.errors import ConfigError
from rlx.base.files import guarded
from rlx.config import kind, promise, registry
from rlx.config.schema import find_target
from rlx.launch.arguments import Words, for_hydra
from rlx.launch.hydra_errors import one_line
from rlx.rundir import home

OLD = hydra.__version__.startswith("1.3")  # 1.4 has other names for the same, and warns of these
BASE: dict[str, Any] = {"version_base": "1.3"} if OLD else {}
GLOBAL = ("experiment", "preset")  # groups whose files set keys of the whole configuration


class RlxSearchPath(SearchPathPlugin):
    """The order of registry.conf_dirs around rlx's own files, which are Hydra's primary path."""

    active: ClassVar[bool] = False  # in programs that use Hydra for themselves it changes nothing
    extra: ClassVar[Path | None] = None  # --config-dir

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if not self.active:
            return
        own, user = registry.conf_dir().resolve(), registry.user_conf()
        before = True
        for path in registry.conf_dirs(self.extra):
            provider = "user" if path == user else "plug-in"
            if path == own:
                before = False
            elif before:
                search_path.prepend(provider, f"file://{path}")
            else:
                search_path.append(provider, f"file://{path}")
        search_path.append("rlx", f"{InheritedPresets.scheme()}://{self.extra or ''}")


class InheritedPresets(ConfigSource):
    """The presets that variants inherit, which are no files (registry.inherited)."""

    @staticmethod
    def scheme() -> str:
        return "rlx-inherited"

    def _values(self, config_path: str) -> dict[str, Any] | None:
        group, _, name = config_path.partition("/")
        extra = Path(self.path) if self.path else None
        return registry.inherited(name.removesuffix(".yaml"), extra) if group == "preset" else None

    def load_config(self, config_path: str) -> ConfigResult:
        config = OmegaConf.create(_numbers(self._values(config_path)))
        return ConfigResult(self.provider, self.full_path(), config, {"package": "_global_"})

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return False

    def is_config(self, config_path: str) -> bool:
        return self._values(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return []


def _slug(text: str) -> str:
    """A Gymnasium id as a name: module:ALE/Pong-v5 is ALE-Pong-v5."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(text).rpartition(":")[2]).strip("-.")[:100] or "env"


getattr(OmegaConf, "register_new_resolver" if OLD else "register_resolver")("rlx.slug", _slug, replace=True)
Plugins.instance().register(RlxSearchPath)
Plugins.instance().register(InheritedPresets)


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Meanwhile a program's own Hydra, which may be in progress, is put aside."""
    used, told = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().hydra = HydraConfig.instance().cfg = None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = used, told


@contextlib.contextmanager
def opened(config_dir: Path | None = None) -> Iterator[Any]:
    """Hydra's object over rlx's own files, the user's ./conf, plug-ins' and `config_dir`: what hydra.main works with,
    without its rewriting of sys.argv, its banners and its exits."""
    GlobalHydra.instance().clear()
    RlxSearchPath.active, RlxSearchPath.extra = True, config_dir
    try:
        entry = hydra.initialize_config_dir(str(registry.conf_dir().resolve()), job_name="rlx", **BASE)
    finally:
        RlxSearchPath.active, RlxSearchPath.extra = False, None
    with entry:
        yield GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()


def first(given: Words) -> str:
    """The file that the configuration begins with: one of rlx's, with the user's own laid over it (`registry.
    begins_with`), or what the user gave as a file."""
    if given.file is not None:
        return _stored("file", _whole(given.file))
    name = given.flags.get("--config-name") or kind.primary(given.overrides, given.config_dir)
    user, place = registry.user_conf(), home.configured()  # of both worlds
    own = user is not None and (user / f"{name}.yaml").exists()
    if name not in registry.PRIMARY.values() or not (own or place != home.DEFAULT):
        return name
    content, notice = registry.begins_with(name)
    content["runs_dir"] = place
    if notice and notice not in _said:
        print(f"rlx: note: {notice}", file=sys.stderr)
        _said.add(notice)
    sections = {key: content.pop(key) for key in registry.groups() if key in content}
    if sections:  # over the files that are chosen, under presets
        listed = content["defaults"]
        at = next((i for i, item in enumerate(listed) if "preset" in str(item)), len(listed))
        listed.insert(at, _stored(f"{name}_sections", sections, package="_global_"))
    return _stored(name, content)


_said: set[str] = set()  # notices


def _stored(name: str, content: Mapping[str, Any], package: str | None = None) -> str:
    """The name under which Hydra finds a configuration that is no file."""
    ConfigStore.instance().store(f"own_{name}", _numbers(content), package=package)
    return f"own_{name}"


def _numbers(tree: Any) -> Any:
    """With numbers such as 1e-3, which YAML takes for words, as Hydra reads them."""
    return OmegaConf.to_container(OmegaConf.create(yaml.safe_dump(tree, sort_keys=False)))


def _whole(path: Path) -> dict[str, Any]:
    """A file that `rlx train --cfg job` printed, or config.yaml of a run. Raises ConfigError."""
    if not path.is_file():
        what = (
            "a directory (of a run: its config.yaml; to go on with it: rlx resume)" if path.is_dir() else "no such file"
        )
        raise ConfigError(f"{path}: {what}")
    content = guarded.yaml_value(path)
    if not isinstance(content, dict) or not isinstance(content.get("algo"), dict):
        raise ConfigError(f"{path}: not a whole configuration (rlx train ... --cfg job > {path.name} writes one)")
    language = registry.WORLDS["language"] in content
    shipped = registry.load(registry.conf_dir() / f"{registry.PRIMARY['language' if language else 'control']}.yaml")
    hydras = [
        item for item in shipped["defaults"] if isinstance(item, dict) and next(iter(item)).startswith("override ")
    ]
    return {"defaults": ["_self_", *hydras], **content, "hydra": shipped["hydra"]}


@contextlib.contextmanager
def compose_all(given: Words | None = None) -> Iterator[Callable[[list[str]], DictConfig]]:
    """compose(overrides), Hydra's own section included, as `rlx train` with these words would: those overrides decide
    in which world."""
    given = given or Words()
    with opened(given.config_dir):

        def compose(overrides: list[str]) -> DictConfig:
            name = first(replace(given, overrides=overrides))
            composed = hydra.compose(name, for_hydra(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(composed)  # for ${hydra:...} in it
            return composed

        yield compose


def compose(overrides: list[str]) -> dict[str, Any]:
    """The configuration these words compose to, unresolved (missing values are ???). Raises ConfigError."""
    with one_line(overrides), compose_all() as composing:
        raw = OmegaConf.to_container(composing(overrides), resolve=False)
    assert isinstance(raw, dict)
    return {str(key): value for key, value in raw.items() if key != "hydra"}


def compose_in(directory: Path, overrides: list[str]) -> dict[str, Any]:
    """config.yaml of a run directory with these overrides, as data; no other file is consulted."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(directory.absolute()), job_name="rlx", **BASE):
        return plain(hydra.compose("config", overrides=for_hydra(overrides)))


PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.")


def check_hydra(settings: DictConfig) -> None:
    """Hydra's own section runs no code but that of installed plug-ins. Raises ConfigError."""
    tree = OmegaConf.to_container(settings)
    assert isinstance(tree, dict)
    for key in ("launcher", "sweeper"):
        target = str((tree[key] or {}).get("_target_"))
        if not target.startswith(PLUGINS):
            raise ConfigError(f"hydra.{key}._target_={target}: not an installed Hydra plug-in")
    rest = {str(key): value for key, value in tree.items() if key not in ("launcher", "sweeper")}
    if name := find_target(rest, "hydra"):
        raise ConfigError(f"{name}: '_target_' is refused: configurations are data and run no code")


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A composed configuration as data, resolved, without what only chooses files."""
    for group in GLOBAL:
        if inside := cfg.get(group):
            names = ", ".join(f"{group}.{key}" for key in inside)
            raise ConfigError(f"{names}: a file in {group}/ needs the first line '# @package _global_'")
    keys = [str(key) for key in cfg if key not in (*GLOBAL, "hydra")]
    raw = OmegaConf.to_container(OmegaConf.masked_copy(cfg, keys), resolve=True, throw_on_missing=True)
    assert isinstance(raw, dict)
    if isinstance(raw.get("algo"), dict):
        raw["algo"].pop("preset_of", None)  # it has chosen the preset
    if isinstance(expect := raw.get("expect"), dict) and not promise.speaks_of(raw):  # type: ignore[arg-type]
        raw["expect"] = dict.fromkeys(expect)
    return raw  # type: ignore[return-value]


def set_threads(count: Any) -> None:
    """BLAS reads these once, when numpy and torch are first imported. A wrong value is left for validation."""
    if isinstance(count, int) and 1 <= count <= 1024:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(count)
