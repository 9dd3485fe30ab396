"""The backend "async": the same lanes, spread over worker processes, bit for bit what "sync" gives.

Each worker owns a range of lanes and runs SyncEnvs on them. Observations, rewards and ends travel through
shared memory, a few bytes per step through a pipe. A worker that dies, hangs or raises becomes an EnvFault
that names it.

Workers start by "spawn", so they know the environments that entry points ("gymnasium.envs") or a
"module:Id-v0" id register, not those a script registered by itself. They ignore the signals that stop a run
(the parent decides when to stop, and wants their state for its last checkpoint) and leave when the parent is
gone.
"""

import atexit
import contextlib
import ctypes
import functools
import multiprocessing as mp
import os
import signal
import threading
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np

from rlx.base import global_rngs
from rlx.base.signals import STOPPING
from rlx.config import own_code
from rlx.envs.batch import Envs, Final
from rlx.envs.episodes import episode_seed
from rlx.envs.single import EnvConfig, make_env
from rlx.envs.spaces import EnvError, EnvFault
from rlx.envs.sync import make_lanes

START_SECONDS = 60.0  # a worker imports Gymnasium and makes its environments


class AsyncEnvs(Envs):
    """See `Envs`."""

    def __init__(self, cfg: EnvConfig, num_envs: int, seed: int, domain: int):
        env = make_env(cfg)  # the user's mistakes show here, before a process starts
        super().__init__(cfg.id, num_envs, env.observation_space, env.action_space, seed=seed, domain=domain)
        env.close()
        workers = min(num_envs, cfg.workers or os.cpu_count() or 1)
        bounds = [num_envs * k // workers for k in range(workers + 1)]
        self.ranges = [range(a, b) for a, b in zip(bounds, bounds[1:])]
        self.timeout = cfg.step_timeout
        self._steps_done = 0

        context = mp.get_context("spawn")
        layout = {
            "obs": (self.obs.shape, self.obs.dtype),
            "final": (self.obs.shape, self.obs.dtype),
            "action": (self._action_shape, self._actions.dtype),
            "reward": ((num_envs,), np.dtype(np.float32)),
            "terminated": ((num_envs,), np.dtype(bool)),
            "truncated": ((num_envs,), np.dtype(bool)),
        }
        memory: dict[str, Any] = {
            name: (context.RawArray(ctypes.c_uint8, int(np.prod(shape)) * dtype.itemsize), shape, dtype)
            for name, (shape, dtype) in layout.items()
        }
        self._shared = _arrays(memory)
        self.obs, self._reward = self._shared["obs"], self._shared["reward"]
        self._terminated, self._truncated = self._shared["terminated"], self._shared["truncated"]

        self._pipes: list[Connection] = []
        self._workers: list[Any] = []
        self._at_exit = functools.partial(_kill, self._workers)
        atexit.register(self._at_exit)  # runs before multiprocessing's own, which would wait for them
        try:
            for lanes in self.ranges:
                pipe, worker_pipe = context.Pipe()
                worker = context.Process(
                    target=_work,
                    args=(worker_pipe, cfg, lanes, seed, domain, memory, own_code.folder()),
                    daemon=True,
                    name="rlx env worker",
                )
                worker.start()
                worker_pipe.close()  # so that a dead worker is an end of file here
                self._pipes.append(pipe)
                self._workers.append(worker)
            self._answers(range(workers), max(START_SECONDS, self.timeout), "while starting")
            self.replayable = cfg.replay is not False
            if cfg.replay is None:  # the first worker finds out for all
                [(self.replayable, self.notice)] = self._ask("probe", {0: None})
                self._ask_all("replayable", self.replayable)
        except BaseException:
            self.close()
            raise

    def reset(self) -> np.ndarray:
        self._ask_all("reset")
        return self.obs

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, Final]:
        self._shared["action"][:] = self._accept(action)
        final: Final = []
        for episodes, ended in self._ask_all("step"):
            self.episodes += episodes
            final += [(i, self._shared["final"][i].copy()) for i in ended]
        self._steps_done += 1
        return self._reward, self._terminated, self._truncated, final

    def state_dict(self) -> dict[str, Any]:
        parts = self._ask_all("state")
        return self._save([lane for part in parts for lane in part["lanes"]])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._load_common(state)
        parts = [{**state, "lanes": state["lanes"][r.start : r.stop], "episodes": []} for r in self.ranges]
        self._ask("load", dict(enumerate(parts)))

    def close(self) -> None:
        """Ask every worker to close its environments; end those that do not within a second."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(("close", None))
        deadline = time.monotonic() + 1.0
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        _kill(self._workers)
        for pipe in self._pipes:
            pipe.close()
        self._pipes.clear()
        self._workers.clear()
        atexit.unregister(self._at_exit)

    # Questions and answers
    def _ask_all(self, what: str, payload: Any = None) -> list[Any]:
        return self._ask(what, dict.fromkeys(range(len(self.ranges)), payload))

    def _ask(self, what: str, payloads: dict[int, Any]) -> list[Any]:
        """Send each worker k its payload, collect the answers in the same order."""
        if not self._pipes:
            raise EnvFault(f"the env workers of {self.id} are closed")
        for k, payload in payloads.items():
            try:
                self._pipes[k].send((what, payload))
            except OSError:
                self._give_up(self._died(k))
        # A load replays whole episodes: the step timeout does not bound it.
        limit = max(START_SECONDS, self.timeout) * 60 if what == "load" else self.timeout
        return self._answers(payloads, limit, f"at step {self._steps_done}" if what == "step" else f"to {what!r}")

    def _answers(self, who: Iterable[int], seconds: float, when: str) -> list[Any]:
        deadline = time.monotonic() + seconds
        answers: list[Any] = []
        for k in who:
            pipe = self._pipes[k]
            try:
                if not pipe.poll(max(0.0, deadline - time.monotonic())):
                    self._give_up(EnvFault(f"{self._name(k)} gave no answer for {seconds:g} s {when}"))
                kind, answer = pipe.recv()
            except (EOFError, OSError):
                self._give_up(self._died(k))
            if kind is not None:
                self._give_up(kind(answer))
            answers.append(answer)
        return answers

    def _name(self, k: int) -> str:
        lanes = self.ranges[k]
        which = f"env {lanes[0]}" if len(lanes) == 1 else f"envs {lanes[0]}-{lanes[-1]}"
        return f"env worker {k} ({which})"

    def _died(self, k: int) -> EnvFault:
        self._workers[k].join(2.0)
        return EnvFault(f"{self._name(k)} died (exit {self._workers[k].exitcode}) at step {self._steps_done}")

    def _give_up(self, error: Exception) -> NoReturn:
        self.close()
        raise error


def _kill(workers: list[Any]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.kill()
    for worker in workers:
        worker.join(5.0)


def _arrays(memory: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.frombuffer(raw, dtype).reshape(shape) for name, (raw, shape, dtype) in memory.items()}


def leave_with_parent() -> None:
    """Block in a thread until the parent is gone, then leave, even from the middle of a hung step."""
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(
    pipe: Connection, cfg: EnvConfig, lanes: range, seed: int, domain: int, memory: dict[str, Any], folder: Path
) -> None:
    """A worker: makes its lanes, then answers until it is told to close or the parent is gone."""
    own_code.stand_in(folder)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=leave_with_parent, daemon=True).start()
    gym.logger.min_level = gym.logger.ERROR  # the parent has shown the warnings
    shared = _arrays(memory)
    arrays = {name: array[lanes.start : lanes.stop] for name, array in shared.items()}
    envs: Any = None
    try:
        cfg.replay = cfg.replay is not False  # None: the parent asks one worker and tells the others
        global_rngs.seed(episode_seed(seed, domain, lanes.start, 0))
        envs = make_lanes(cfg, lanes, seed, domain, arrays)
        pipe.send((None, "ready"))
        while True:
            what, payload = pipe.recv()
            if what == "close":
                break
            pipe.send((None, _answer(envs, arrays, what, payload)))
    except (EnvFault, EnvError) as error:
        _last_words(pipe, type(error), str(error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
    except Exception as error:
        text = f"envs {lanes.start}-{lanes.stop - 1} ({cfg.id}): {type(error).__name__}: {error}"
        _last_words(pipe, EnvFault, text)
    finally:
        if envs is not None:
            envs.close()


def _last_words(pipe: Connection, kind: type[Exception], text: str) -> None:
    with contextlib.suppress(OSError):
        pipe.send((kind, text))


def _answer(envs: Any, arrays: dict[str, np.ndarray], what: str, payload: Any) -> Any:
    if what == "step":
        *_, final = envs.step(arrays["action"])
        ended = []
        for i, obs in final:
            arrays["final"][i] = obs
            ended.append(envs.first_lane + i)
        return envs.pop_episodes() if envs.episodes else [], ended
    if what == "reset":
        return envs.reset() is None
    if what == "state":
        return envs.state_dict()
    if what == "load":
        return envs.load_state_dict(payload)
    if what == "probe":
        envs.probe()
        return envs.replayable, envs.notice
    if what == "replayable":
        return envs.set_replayable(payload)
    raise ValueError(what)
