"""Hydra's, OmegaConf's and YAML's errors as one line: the key, the value, the choices."""

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from rlx.base import extras
from rlx.base.errors import ConfigError, choices_hint, closest, did_you_mean, shown
from rlx.config import registry
from rlx.config.nested import flatten
from rlx.launch import foreign
from rlx.launch.config_files import near, not_keys, not_utf8, not_yaml, source

NOUNS = {"algo": "algorithm", "env": "environment", "task": "task", "as": "library"}


@contextlib.contextmanager
def one_line(overrides: list[str], config_dir: Path | None = None) -> Iterator[None]:
    """Whatever composing raises about the user's words and files, as a ConfigError."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="provider=hydra.searchpath")
            yield
    except UserWarning as error:
        path = str(error).partition("path=")[2].removesuffix(" is not available.")
        raise ConfigError(f"hydra.searchpath: {path}: no such place (file:///DIRECTORY or pkg://PACKAGE)") from None
    except ConfigError as error:
        raise ConfigError(f"{error}{source(str(error), overrides, config_dir)}") from None
    except (HydraException, OmegaConfBaseException) as error:
        text = _within_a_list(error, overrides) or explain(error, overrides)
        raise ConfigError(f"{text}{source(text, overrides, config_dir)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(not_yaml(error)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(not_utf8(error, config_dir)) from None
    except (ValueError, TypeError, OSError) as error:
        if slip := _within_a_list(error, overrides):  # OmegaConf's own
            raise ConfigError(slip) from None
        text = _first_line(error)
        if "Invalid loaded object type" in text:  # OmegaConf's, for a file with a single value
            raise ConfigError(not_keys(config_dir)) from None
        if type(error) is ValueError and ("override" in text or "defaults list" in text):  # Hydra's
            raise ConfigError(text) from None
        raise
    except RecursionError:
        raise ConfigError("the files chosen lead back to themselves (see their 'defaults' lists)") from None


def explain(error: BaseException, overrides: list[str]) -> str:
    """One line: the key, the value, the choices."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        if isinstance(link, MissingConfigException) and link.missing_cfg_file:
            return _missing_file(link)
        if missing := re.search(r"Missing mandatory value: (\S+)", str(link)):
            key = _whole_key(missing[1], link)
            return f"{key}: needs a value, e.g. {key}={'CartPole-v1' if key == 'env.id' else 'VALUE'}"
        if isinstance(link, InterpolationResolutionError) and link.full_key:
            return _interpolation(link)
    for link in chain:
        if isinstance(link, OmegaConfBaseException) and link.key is not None and link.parent_node is not None:
            return _unknown_key(link)
    return _hydra_text(_first_line(error), overrides)


def _within_a_list(error: BaseException, overrides: list[str]) -> str | None:
    """For a word whose key goes on below a list, which OmegaConf answers in many ways: found where it was raised."""
    lists: dict[str, ListConfig] = {}
    trace = error.__traceback__
    while trace is not None:
        for value in list(trace.tb_frame.f_locals.values()):
            if isinstance(value, ListConfig) and (key := value._get_full_key(None)):
                lists[key] = value
        trace = trace.tb_next
    for word in overrides:
        typed = word.lstrip("+~").partition("=")[0]
        for key, value in lists.items():
            if typed.startswith(f"{key}."):
                items = ",".join(
                    shown(OmegaConf.to_container(item) if OmegaConf.is_config(item) else item) for item in value
                )
                return f"{word}: {key} is a list of {len(value)}, which is set as a whole: {key}=[{items}]"
    return None


def _whole_key(key: str, error: BaseException) -> str:
    """With its section, which OmegaConf leaves out where it goes through a section key by key."""
    full = getattr(error, "full_key", None)
    if full and str(full).endswith(key):
        return str(full)
    node = getattr(error, "parent_node", None)
    section = node._get_full_key(None) if isinstance(node, DictConfig) else ""
    return f"{section}.{key}" if section and "." not in key else key


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


# -- names of files --------------------------------------------------------------------------------------------


def _missing_file(error: MissingConfigException) -> str:
    file = str(error.missing_cfg_file)
    group, _, name = file.rpartition("/") if file.startswith("hydra/") else file.partition("/")
    if not name:
        return f"--config-name={file}: no such file ({file}.yaml in ./conf or --config-dir)"
    choices = [str(option) for option in (error.options or [])] or list(registry.options(group))
    noun = NOUNS.get(group, group.rpartition("/")[2])
    more = {"env": "any Gymnasium id: env=gym env.id=ID"}.get(group, "")
    if group in ("hydra/launcher", "hydra/sweeper") and (extra := extras.of_hydra(name)):
        more = extras.install(extra)
    if group in ("algo", "task") and name.endswith(".py"):
        return f"{group}={name}: names a YAML file; for a file of code: {group}=NAME {group}.implementation={name}"
    if group == "env" and re.search(r"-v\d+$|:", name):
        return f"env={name}: no such environment of rlx; for a Gymnasium id: env=gym env.id={name}"
    if misnamed := [near(path) for folder in registry.conf_dirs() if (path := folder / f"{file}.yml").exists()]:
        more = f"rename {misnamed[0]} to .yaml"
    where = f"rlx list {group}s" if group in NOUNS and group != "as" else ""
    wanted = re.search(r"In '(?!config'|language'|own_|hydra/)([^']+)'", str(error))
    return f"{group}={name}: no such {noun}{choices_hint(name, choices, more=more, where=where)}" + (
        f", wanted by {wanted.group(1)}.yaml" if wanted else ""
    )


# -- keys and values -------------------------------------------------------------------------------------------


def _unknown_key(error: OmegaConfBaseException) -> str:
    full, parent, key = str(error.full_key), error.parent_node, str(error.key)
    keys = [str(name) for name in parent if name != "hydra"] if isinstance(parent, Mapping | DictConfig) else []
    if isinstance(parent, DictConfig) and key in keys:
        if isinstance(section := parent._get_node(key), DictConfig):
            return f"{full}: is a section, with the keys {', '.join(map(str, section))}"
        return f"{full}: {_first_line(error)}"
    within = full.rpartition(".")[0]
    if within and not keys:
        return f"{full}: no such key ({within} has no keys)"
    if isinstance(parent, DictConfig):
        root = OmegaConf.to_container(parent._get_root())  # type: ignore[arg-type]
        known = flatten({name: part for name, part in root.items() if name != "hydra"}, empty=True)  # type: ignore[union-attr]
        if (meant := foreign.meant(full, known)) and meant.rpartition(".")[2] != key:
            why = f" ({foreign.WORTH[meant]})" if meant in foreign.WORTH else ""
            return f"{full}: no such key; in rlx it is '{meant}'{why}"
    if not within and isinstance(parent, DictConfig):
        inner = {
            str(name): f"{group}.{name}"
            for group in ("model", "env", "task", "algo")
            if isinstance(parent.get(group), DictConfig)
            for name in parent[group]
        }
        if not closest(key, keys) and (close := closest(key, inner, cutoff=0.75)):
            return f"{full}: no such key; did you mean '{inner[close]}'?"
    return f"{full}: no such key{choices_hint(key, keys, f'{within}.' if within else '')}"


def _interpolation(error: OmegaConfBaseException) -> str:
    value: Any = None
    with contextlib.suppress(Exception):
        node = error.parent_node._get_node(error.key)  # type: ignore[union-attr]
        value = node._value()  # type: ignore[union-attr]
    where = f"{error.full_key}={shown(value)}" if value is not None else str(error.full_key)
    text = _first_line(error)
    if "Recursive interpolation" in text:
        return f"{where}: refers to itself"
    if match := re.search(r"raised while resolving interpolation: \"?(.*?)\"?$", text):
        return f"{where}: {match.group(1)}"
    if match := re.search(r"Interpolation key '([^']+)' not found", text):
        return f"{where}: there is no key '{match.group(1)}' to take the value from"
    if match := re.search(r"Unsupported interpolation type (\S+)", text):
        return f"{where}: there is no resolver '{match.group(1)}'"
    return f"{where}: {text}"


def _hydra_text(text: str, overrides: list[str]) -> str:
    """Hydra's own line, where it says what was typed; else a better one."""
    if match := re.match(r"Could not override '([^']+)'", text):
        return _unknown_group(match.group(1).split("@")[0])
    if match := re.match(r"Could not (?:append to config|delete from config).*'([^']+)'", text):
        key = match.group(1)
        word = next((item for item in overrides if item.lstrip("+~").split("=")[0] == key), key)
        if "append" in text:
            return f"{word}: '{key}' exists already; to change it: {word.lstrip('+')}"
        return f"{word}: there is no such key to delete"
    if "Multiple values for" in text or "append" in text and "defaults list" in text:
        key = (re.search(r"['\"]?([a-z_/]+)['\"]?\.", text) or re.search(r"for ([a-z_/]+)", text) or [None, "it"])[1]
        return f"{key}: chosen twice; without the '+': {key}=NAME"
    return text


def _unknown_group(key: str) -> str:
    head, dot, _ = key.partition(".")
    groups = registry.groups()
    return f"{key}: no such key" if dot else f"{head}: no such key or group{did_you_mean(head, groups)}"
