"""rlx check env NAME: would an agent stumble over this environment?

made         it can be made, with its wrappers
gymnasium    what Gymnasium's own checker says
spaces       observations lie in their space and have its dtype; which algorithms serve its spaces
finite       observations and rewards are numbers
seeds        a seed gives the same episode again, in the same object and in another one
replay       an open episode is restored by its actions, bit for bit: what makes a resume exact
episodes     random play comes to an end
masks        if it forbids actions, it says so in each step
speed        steps a second
"""

import functools
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from rlx.check.findings import Check, Failed, one_line
from rlx.config import registry, schema
from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig, make_env, reset_options, time_limit
from rlx.envs.spaces import kind_of, mask_size, split_mask
from rlx.envs.wrappers import MaskedObservation, random_action

STEPS, LONG, SECONDS = 200, 20_000, 1.0
QUIET = ("is out of date", "render_fps", "No render modes", "not been able to test")  # of Gymnasium's checker


def checks(cfg: EnvConfig) -> Iterator[Check]:
    yield "made", functools.partial(made, cfg)
    for name, check in (("gymnasium", gymnasium), ("spaces", spaces), ("finite", finite), ("seeds", seeds),
                        ("replay", replay), ("episodes", episodes), ("masks", masks), ("speed", speed)):  # fmt: skip
        yield name, functools.partial(check, cfg)


def made(cfg: EnvConfig) -> str:
    env = make_env(cfg)
    env.close()
    return f"{type(env.unwrapped).__name__}, observations {env.observation_space}, actions {env.action_space}"


def gymnasium(cfg: EnvConfig) -> str:
    from gymnasium.utils.env_checker import check_env

    env = make_env(cfg)
    if isinstance(env, MaskedObservation):
        return "note: not asked, as it takes any action, and this environment forbids some"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_env(env.unwrapped, skip_render_check=True)
        except Exception as error:
            raise Failed(one_line(str(error)) or type(error).__name__) from error
    said = [one_line(re.sub(r"\x1b\[\d+m|WARN: ", "", str(each.message))) for each in caught]
    said = [text for text in dict.fromkeys(said) if not any(quiet in text for quiet in QUIET)]
    return f"note: {said[0]}" + (f" (and {len(said) - 1} more)" if len(said) > 1 else "") if said else "no complaint"


def _play(env: gym.Env, seed: int, steps: int, options: Mapping[str, Any]) -> Iterator[tuple[Any, Any, bool, Any]]:
    """(observation, reward, over, action) of random steps from a seed, episode after episode."""
    env.action_space.seed(seed)
    obs, _ = env.reset(seed=seed, **options)
    yield obs, 0.0, False, None
    for _ in range(steps):
        action = random_action(env)
        obs, reward, terminated, truncated, _ = env.step(action)
        yield obs, reward, bool(terminated or truncated), action
        if terminated or truncated:
            obs, _ = env.reset(**options)
            yield obs, 0.0, False, None


def spaces(cfg: EnvConfig) -> str:
    env = make_env(cfg)
    space = env.observation_space
    for i, (obs, _, _, _) in enumerate(_play(env, 1, STEPS, reset_options(cfg))):
        if not space.contains(obs):
            raise Failed(f"observation {i}, {_shown(obs)}, is not in {space}{_why(space, obs)}")
    actions, observations = kind_of(env.action_space), kind_of(env.unwrapped.observation_space)
    serve = set(registry.serving(actions=actions, observations=observations))
    if not serve:
        raise Failed(f"no algorithm of rlx serves {observations} observations and {actions} actions")
    return f"{STEPS} observations lie in their space; served by {', '.join(sorted(serve))}"


def _why(space: gym.Space, obs: Any) -> str:
    if isinstance(space, gym.spaces.Box):
        array = np.asarray(obs)
        if array.shape != space.shape:
            return f": its shape is {array.shape}"
        if array.dtype != space.dtype:
            return f": its dtype is {array.dtype}"
        return ": it is beyond the bounds"
    return ""


def _shown(value: Any) -> str:
    text = one_line(repr(value))
    return text if len(text) < 80 else f"{text[:77]}..."


def finite(cfg: EnvConfig) -> str:
    total = 0.0
    for i, (obs, reward, _, _) in enumerate(_play(make_env(cfg), 2, STEPS, reset_options(cfg))):
        if not np.isfinite(np.asarray(reward, float)).all():
            raise Failed(f"the reward of step {i} is {reward}")
        parts = obs.values() if isinstance(obs, dict) else obs if isinstance(obs, tuple) else [obs]
        if not all(np.isfinite(np.asarray(part, float)).all() for part in parts):
            raise Failed(f"observation {i} is {_shown(obs)}")
        total += float(reward)
    return f"{STEPS} steps; a reward of {total / STEPS:.3g} on average at random"


def _trace(env: gym.Env, seed: int, options: Mapping[str, Any]) -> list[str]:
    return [f"{_bits(obs)} {reward} {over}" for obs, reward, over, _ in _play(env, seed, STEPS, options)]


def _bits(obs: Any) -> str:
    if isinstance(obs, dict):
        return str({key: _bits(value) for key, value in obs.items()})
    if isinstance(obs, tuple):
        return str([_bits(value) for value in obs])
    return np.asarray(obs).tobytes().hex()


def seeds(cfg: EnvConfig) -> str:
    env, options = make_env(cfg), reset_options(cfg)
    one = _trace(env, 3, options)
    for what, again in (
        ("the same object", _trace(env, 3, options)),
        ("a new object", _trace(make_env(cfg), 3, options)),
    ):
        if one != again:
            i = next(i for i, (a, b) in enumerate(zip(one, again)) if a != b)
            raise Failed(
                f"seed 3 and the same actions gave another result in {what}, from step {i} on (all chance must come "
                "from self.np_random, and reset must reset everything)"
            )
    if _trace(make_env(cfg), 4, options) == one:
        return "note: seed 3 gives the same episodes again, and so does seed 4: nothing in it is random"
    return "a seed gives the same episodes again, in the same object and in a new one; another seed others"


def replay(cfg: EnvConfig) -> str:
    envs = make_envs(cfg, 2, seed=5)
    if not envs.replayable:
        return f"note: {envs.notice or 'it cannot be replayed'}: resume restarts open episodes"
    envs.reset()
    rng = np.random.default_rng(0)
    for _ in range(STEPS // 4):
        envs.step(_random(envs, rng))
    state, obs = envs.state_dict(), envs.obs.copy()
    other = make_envs(cfg, 2, seed=5)
    other.load_state_dict(state)  # compares, and raises where something differs
    for _ in range(20):
        action = _random(envs, rng)
        ends = [env.step(action)[:3] for env in (envs, other)]
        if not (np.array_equal(envs.obs, other.obs) and all(np.array_equal(a, b) for a, b in zip(*ends))):
            raise Failed(
                "a restored episode goes on otherwise than the one that was saved (is there state that reset and the "
                "actions do not determine?)"
            )
    return f"open episodes are restored after {STEPS // 4} steps, bit for bit ({obs.nbytes:,} bytes an observation)"


def _random(envs: Any, rng: np.random.Generator) -> np.ndarray:
    import torch

    from rlx.control.distributions import forbid, make_head

    head = make_head(envs.action_space)
    params = torch.zeros(envs.num_envs, head.size + head.free)
    if masked := mask_size(envs.action_space):
        params = forbid(params, torch.from_numpy(split_mask(envs.obs, masked, envs.obs.dtype == np.uint8)[1]))
    return head.sample(params, torch.from_numpy(head.noise(rng, (envs.num_envs,)))).numpy()


def episodes(cfg: EnvConfig) -> str:
    env = make_env(cfg)
    limit, lengths, length, end = time_limit(cfg, env), [], 0, time.monotonic() + 3 * SECONDS
    for _, _, over, action in _play(env, 6, LONG, reset_options(cfg)):
        length += action is not None
        if over or (limit and length >= limit):
            lengths.append(length)
            length = 0
        if len(lengths) == 20 or time.monotonic() > end:
            break
    if lengths:
        cut = f"; cut after {limit:,} steps" if limit else "; no time limit"
        return f"{len(lengths)} random episodes of {min(lengths)} to {max(lengths)} steps{cut}"
    if limit:
        return f"note: no random episode ended within {length:,} steps; it is cut after {limit:,}"
    raise Failed(f"no random episode ended within {length:,} steps, and there is no limit (env.max_episode_steps=N)")


def masks(cfg: EnvConfig) -> str:
    env = make_env(cfg)
    if not isinstance(env, MaskedObservation):
        return "it forbids no action"
    counts = []
    for _ in _play(env, 7, STEPS, reset_options(cfg)):
        counts.append(int(env.mask.sum()))
    return f"in each of {STEPS} steps; {np.mean(counts):.3g} of {env.size} choices are allowed on average"


def speed(cfg: EnvConfig) -> str:
    env, count, start = make_env(cfg), 0, time.perf_counter()
    for _ in _play(env, 8, LONG, reset_options(cfg)):
        count += 1
        if time.perf_counter() - start > SECONDS:
            break
    return f"{count / (time.perf_counter() - start):,.0f} steps a second, one environment, at random"


def config(name: str, values: Mapping[str, Any]) -> EnvConfig:
    """The configuration of a YAML of env=; of an id, ./file.py:Class or module:Id as well."""
    if values:
        return schema.section(EnvConfig, {"name": name, **values}, "env")
    return EnvConfig(name.rpartition(":")[2], name)
