"""One environment: what the configuration says about it, and making it. See `wrappers` for their names."""

import contextlib
import inspect
import os
import re
import sys
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import gymnasium as gym
from pydantic import Field

from rlx.base import extras
from rlx.base.errors import ConfigError, choices_hint
from rlx.config import own_code
from rlx.config.plugins import FORM, Item, is_item, kwargs_of, name_of
from rlx.envs.quick import lunar_lander
from rlx.envs.spaces import ActionDecoder, EnvError, is_image, kind_of, observation_encoder, quicken, with_channels
from rlx.envs.wrappers import MaskedObservation, find_wrapper, masks_of, steps_per_step


@dataclass
class EnvConfig:
    """One environment and how it is stepped. Validate with pydantic's TypeAdapter(EnvConfig)."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    name: str  # in run directories and `rlx list envs`
    id: str  # any Gymnasium id, module:Id-v0 included; module:Class or ./my_env.py:Class of one's own
    kwargs: dict[str, Any] = field(default_factory=dict)  # for gymnasium.make
    wrappers: list[Item] = field(default_factory=list)  # NAME or {name:, kwargs:}, the innermost first
    max_episode_steps: Annotated[int, Field(ge=-1)] | None = None  # None: the registered limit; 0 or -1: none
    backend: Literal["auto", "sync", "async", "vector", "envpool"] = "auto"
    workers: Annotated[int, Field(ge=1)] | None = None  # async: processes; None: one per CPU
    step_timeout: Annotated[float, Field(gt=0)] = 60.0  # async: seconds
    normalize_obs: bool = False
    normalize_reward: bool = False
    clip_obs: Annotated[float, Field(gt=0)] = 10.0  # after normalisation
    clip_reward: Annotated[float, Field(gt=0)] = 10.0
    replay: bool | None = None  # restore open episodes by replaying their actions; None: find out at the start
    channels: Literal["first", "last"] | None = None  # of its images; None: what their shape says
    action_mask: bool | None = None  # use its masks of actions; None: where it gives any (but for Gymnasium's Taxi)
    reset_options: dict[str, Any] = field(default_factory=dict)  # for every reset
    seeding: Literal["every_reset", "once"] = "every_reset"  # once: only the first, and the first after a checkpoint

    def __post_init__(self) -> None:
        for item in self.wrappers:
            if not is_item(item):
                raise ValueError(f"wrappers={item}: {FORM}")

    @property
    def wrapper_names(self) -> list[str]:
        return [name_of(item) for item in self.wrappers]


def make_env(cfg: EnvConfig, render_mode: str | None = None) -> gym.Env:
    """One environment without checkers and without a time limit (see `time_limit`), wrapped as cfg says.

    EnvError, one line that begins with the config key, for anything the user can put right.
    """
    target = find(cfg.id)
    kwargs = dict(cfg.kwargs) if render_mode is None else {**cfg.kwargs, "render_mode": render_mode}
    try:
        env = _made(cfg, target, kwargs)
    except Exception as error:
        raise explain(cfg, error) from error
    seen = _mark_images(cfg, env)
    for item in cfg.wrappers:
        env = _wrap(cfg, env, name_of(item), kwargs_of(item))
        seen |= _mark_images(cfg, env)
    if cfg.channels and not seen:
        shape = list(env.observation_space.shape or ())
        raise EnvError(f"env.channels={cfg.channels}: {cfg.id} has no uint8 images of three dimensions but {shape}")
    where = f"env.id={cfg.id}"
    observation_encoder(env.observation_space, where)
    ActionDecoder(env.action_space, where)
    return MaskedObservation(env, where) if _wants_masks(cfg, env) else env


def _made(cfg: EnvConfig, target: str | gym.envs.registration.EnvSpec, kwargs: dict[str, Any]) -> gym.Env:
    """What gymnasium.make makes, with the wrappers of its registration: they see the time limit in its spec, as they do
    where Gymnasium itself counts the steps."""
    spec = gym.registry.get(target) if isinstance(target, str) else target
    registered = spec.additional_wrappers if spec is not None else ()
    if spec is not None and registered:
        target = replace(spec, additional_wrappers=())
    env = gym.make(target, max_episode_steps=-1, disable_env_checker=True, **kwargs)
    while isinstance(env, gym.wrappers.OrderEnforcing | gym.wrappers.PassiveEnvChecker):
        env = env.env
    quicken(env.unwrapped.action_space)
    lunar_lander.quicken(env.unwrapped)
    if registered:
        own = len(env.spec.additional_wrappers) if env.spec is not None else 0  # those that it comes with
        _tell_limit(env, time_limit(cfg, env), steps_per_step(cfg.wrapper_names))
        for wrapper in registered[own:]:
            make: Any = gym.envs.registration.load_env_creator(wrapper.entry_point)
            env = make(env=env, **(wrapper.kwargs or {}))
    return env


def _tell_limit(env: gym.Env, limit: int | None, each: int = 1) -> None:
    """The time limit in the environment's spec, `each` bare steps in one of its steps, for wrappers that ask for it."""
    if env.unwrapped.spec is not None:
        env.unwrapped.spec.max_episode_steps = None if limit is None else limit * each


def _mark_images(cfg: EnvConfig, env: gym.Env) -> bool:
    """Say of images where their channels are, as the configuration has it. Are there any?"""
    space: Any = env.observation_space
    if cfg.channels and is_image(space) and not hasattr(space, "channels"):
        env.observation_space = with_channels(space, cfg.channels)
    return is_image(space)


MASKABLE = gym.spaces.Discrete | gym.spaces.MultiDiscrete
_masks: dict[str, bool] = {}  # whether an environment gives masks: finding out takes a reset


def _wants_masks(cfg: EnvConfig, env: gym.Env) -> bool:
    if cfg.action_mask is False or (cfg.action_mask is None and not isinstance(env.action_space, MASKABLE)):
        return False
    if cfg.action_mask is None and type(env.unwrapped).__module__.partition(".")[0] in KNOWN:
        return False
    key = f"{cfg.id} {cfg.kwargs} {cfg.wrappers}"
    if key not in _masks:
        try:
            _masks[key] = masks_of(env, env.reset(seed=0, **reset_options(cfg))[1]) is not None
        except Exception:  # said where it is reset in earnest
            return False
    if cfg.action_mask and not _masks[key]:
        raise EnvError(f"env.action_mask=true: {cfg.id} gives none (info['action_mask'], or a method action_masks)")
    if cfg.action_mask and not isinstance(env.action_space, MASKABLE):
        kind = kind_of(env.action_space)
        raise EnvError(f"env.action_mask=true: {cfg.id} has {kind} actions; masks are for Discrete and MultiDiscrete")
    return _masks[key]


def draw_plainly(env: gym.Env, width: int) -> None:
    """Before its first picture: MuJoCo's, drawn without a graphics card, take 130 ms with shadows, reflections and
    smooth edges at full size, and 3 ms without. Others draw as they do."""
    renderer: Any = getattr(env.unwrapped, "mujoco_renderer", None)
    if renderer is None:
        return
    renderer.model.vis.quality.shadowsize = renderer.model.vis.quality.offsamples = 0
    renderer.model.mat_reflectance[:] = 0
    if renderer.width and renderer.height and renderer.width > width:
        renderer.width, renderer.height = width, round(renderer.height * width / renderer.width)


def reset_options(cfg: EnvConfig) -> dict[str, Any]:
    """The argument of reset, where there is anything to say."""
    return {"options": dict(cfg.reset_options)} if cfg.reset_options else {}


def time_limit(cfg: EnvConfig, env: gym.Env) -> int | None:
    """Steps (of the wrapped environment) after which an episode is truncated; None: never."""
    if cfg.max_episode_steps is not None:
        return cfg.max_episode_steps if cfg.max_episode_steps > 0 else None
    spec = env.unwrapped.spec
    known = gym.registry.get(spec.id) if spec is not None else None  # not there: a class without an id
    steps = known.max_episode_steps if known is not None else None
    return None if steps is None else -(-steps // steps_per_step(cfg.wrapper_names))


def find(id: str) -> str | gym.envs.registration.EnvSpec:
    """What gymnasium.make takes, once the environment's package is imported. In module:Name and ./file.py:Name a
    registered id wins over a class of that name; nothing but an environment's class is ever called."""
    _prepare_headless()
    place, _, name = id.rpartition(":")
    if own_code.is_file(id):
        place, name = id, ""
    _register(id)
    _quiet_mujoco(id)
    if not place:
        return id
    module = _load(id, place)
    if name in gym.registry:
        return name
    there: Any = getattr(module, name, None)
    if isinstance(there, type) and issubclass(there, gym.Env):
        return gym.envs.registration.EnvSpec(name, entry_point=there)  # type: ignore[arg-type]
    classes = [key for key, value in vars(module).items() if isinstance(value, type) and _is_env(value, module)]
    if not name or (own_code.is_file(place) and not re.search(r"-v\d+$", name)):
        raise EnvError(f"env.id={id}: {place} has no such environment{choices_hint(name, classes, f'{place}:')}")
    return name  # Gymnasium knows what is close


KNOWN = ("gymnasium", "rlx", "ale_py", "minigrid")  # packages that rlx knows by their versions


def package_of(id: str) -> list[str]:
    """The module in which an installed package that registers its environments itself has this one."""
    spec = gym.registry.get(id)
    entry = spec.entry_point if spec is not None and isinstance(spec.entry_point, str) else ""
    return [entry.partition(":")[0]] if entry and entry.partition(".")[0] not in KNOWN else []


def _load(id: str, place: str) -> Any:
    """The module or file in which an environment is, or registers itself."""
    try:
        if own_code.is_file(place):
            return own_code.load_file(own_code.path_of(place))
        return own_code.load_module(place)
    except own_code.Absent as error:
        raise EnvError(f"env.id={id}: {error}") from None
    except Exception as error:  # it may do anything while it is imported
        raise EnvError(f"env.id={id}: {place} cannot be imported: {type(error).__name__}: {one_line(error)}") from error


def _is_env(kind: type, module: Any) -> bool:
    return issubclass(kind, gym.Env) and kind.__module__ == module.__name__


def _prepare_headless() -> None:
    """Without a display, let MuJoCo and pygame render off-screen; both read this once, when imported."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")


def _extra_of(id: str) -> str | None:
    """The extra of rlx that brings this environment's package."""
    id = id.rpartition(":")[2]
    spec = gym.registry.get(id) or next((spec for spec in gym.registry.values() if spec.name == id), None)
    entry_point = spec.entry_point if spec is not None and isinstance(spec.entry_point, str) else ""
    return extras.of_env(id, entry_point) or ("atari" if "NoFrameskip-v" in id else None)


def _register(id: str) -> None:
    """Import the package that registers the id, for those that need to be asked."""
    extra = _extra_of(id)
    try:
        if id.startswith("rlx/"):
            import rlx.envs.gridworld
            import rlx.envs.textbook  # noqa: F401  both register at import
        elif extra == "atari":
            import ale_py

            gym.register_envs(ale_py)
            ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner
        elif extra == "minigrid":
            import minigrid  # noqa: F401  registers at import
    except ImportError as error:
        raise EnvError(f"env.id={id}: {install_hint(str(extra))}") from error


def _quiet_mujoco(id: str) -> None:
    """MuJoCo's own handler writes to stdout, where --json goes, and to a file in the working directory."""
    if _extra_of(id) == "mujoco":
        with contextlib.suppress(ImportError):
            import mujoco
    mujoco = sys.modules.get("mujoco")
    if mujoco is not None and mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_mujoco_warning)


def _mujoco_warning(text: str) -> None:
    if "settotalmass" not in text:  # about Gymnasium's model files, not about anything the user did
        print(f"MuJoCo: {text}", file=sys.stderr)


def install_hint(extra: str) -> str:
    return f"its package is missing: {extras.install(extra)}"


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def explain(cfg: EnvConfig, error: Exception) -> EnvError:
    """One line for whatever gymnasium.make raised."""
    line = one_line(error)
    extra = _extra_of(cfg.id)
    if isinstance(error, ImportError | gym.error.DependencyNotInstalled):
        return EnvError(f"env.id={cfg.id}: {install_hint(extra) if extra else line}")
    if (match := re.search(r"unexpected keyword argument '(\w+)'", line)) and match[1] in cfg.kwargs:
        return EnvError(f"env.kwargs.{match[1]}: {cfg.id} takes no such argument{_arguments(cfg.id, match[1])}")
    if (match := re.match(r"(\w+)=", line)) and match[1] in cfg.kwargs:  # what the environment itself says
        return EnvError(f"env.kwargs.{line}")
    if isinstance(error, TypeError) and cfg.kwargs:
        return EnvError(f"env.kwargs={cfg.kwargs}: {line.partition(' was raised from the')[0]}")
    if isinstance(error, gym.error.Error):
        return EnvError(f"env.id={cfg.id}: {line}")
    key = f"env.kwargs={cfg.kwargs}" if cfg.kwargs else f"env.id={cfg.id}"
    return EnvError(f"{key}: {type(error).__name__}: {line}")


def _arguments(id: str, name: str) -> str:
    """Those that the environment's constructor has, if that can be found out."""
    with contextlib.suppress(Exception):
        target = find(id)
        entry = (gym.spec(target) if isinstance(target, str) else target).entry_point
        creator = gym.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
        taken = inspect.signature(creator or object).parameters
        names = [key for key in taken if key not in ("render_mode", "kwargs", "args")]
        return choices_hint(name, names) if names else ""
    return ""


def _wrap(cfg: EnvConfig, env: gym.Env, name: str, kwargs: dict[str, Any]) -> gym.Env:
    try:
        make = find_wrapper(name)
    except ConfigError as error:
        raise EnvError(str(error)) from error.__cause__
    _tell_limit(env, time_limit(cfg, env))
    try:
        return make(env, **kwargs)
    except ImportError as error:
        extra = "minigrid" if name.startswith("minigrid") else "atari"
        raise EnvError(f"env.wrappers={name}: {install_hint(extra)}") from error
    except Exception as error:
        hint = " (set env.kwargs.frameskip=1)" if name == "atari" and "frame-skip" in str(error) else ""
        raise EnvError(f"env.wrappers={name}: {cfg.id}: {one_line(error)}{hint}") from error
