"""Composing configurations: the search path, and Hydra's compose as plain data."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from rlx import registry
from rlx.errors import ConfigError
from rlx.launch.words import Words

VERSION_BASE = "1.3"
GLOBAL = ("experiment", "preset")  # groups whose files set keys of the whole configuration


class RlxSearchPath(SearchPathPlugin):
    """The order of registry.conf_dirs around rlx's own files, which are Hydra's primary path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        own, mine = registry.conf_dir().resolve(), registry.user_conf()
        before = True
        for path in registry.conf_dirs():
            provider = "user" if path == mine else "plug-in"
            if path == own:
                before = False
            elif before:
                search_path.prepend(provider, f"file://{path}")
            else:
                search_path.append(provider, f"file://{path}")


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(text)).strip("-.")[:100] or "env"


OmegaConf.register_new_resolver("rlx.slug", _slug, replace=True)
Plugins.instance().register(RlxSearchPath)


@contextlib.contextmanager
def compose_all(given: Words | None = None) -> Iterator[Callable[[list[str]], DictConfig]]:
    """compose(overrides), Hydra's own section included, as `rlx train` with these words would."""
    given = given or Words()
    GlobalHydra.instance().clear()
    name = given.flags.get("--config-name") or "config"
    with hydra.initialize_config_dir(str(registry.conf_dir().resolve()), job_name="rlx", version_base=VERSION_BASE):
        if given.config_dir:
            path = GlobalHydra.instance().config_loader().get_search_path()
            path.append("command-line", f"file://{given.config_dir}")

        def compose(overrides: list[str]) -> DictConfig:
            composed = hydra.compose(name, overrides=overrides, return_hydra_config=True)
            HydraConfig.instance().set_config(composed)  # for ${hydra:...} in it
            return composed

        yield compose
    GlobalHydra.instance().clear()


def compose_in(directory: Path, overrides: list[str]) -> dict[str, Any]:
    """config.yaml of a run directory with these overrides, as data; no other file is consulted."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(directory.absolute()), job_name="rlx", version_base=VERSION_BASE):
        return plain(hydra.compose("config", overrides=overrides))


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A composed configuration as data, resolved, without what only chooses files."""
    for group in GLOBAL:
        if inside := cfg.get(group):
            names = ", ".join(f"{group}.{key}" for key in inside)
            raise ConfigError(f"{names}: a file in {group}/ needs the first line '# @package _global_'")
    keys = [str(key) for key in cfg if key not in (*GLOBAL, "hydra")]
    found = OmegaConf.to_container(OmegaConf.masked_copy(cfg, keys), resolve=True, throw_on_missing=True)
    assert isinstance(found, dict)
    return found  # type: ignore[return-value]


def set_threads(count: Any) -> None:
    """BLAS reads these once, when numpy and torch are first imported. A wrong value is left for validation."""
    if isinstance(count, int) and 1 <= count <= 1024:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(count)
