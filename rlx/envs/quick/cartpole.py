"""CartPole for all lanes at once, equal to Gymnasium's to the last bit (backend "vector").

Gymnasium steps one cart in 5 us, most of it overhead of NumPy on single numbers; 8 of them here take 9. The
same operations in the same order on arrays round alike; the constructor compares with Gymnasium's own step
before it trusts that. Episodes start, are seeded, saved and replayed by Gymnasium's environment, so that
states are exchangeable with the backends "sync" and "async".
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from rlx.envs.batch import Ends
from rlx.envs.spaces import EnvError
from rlx.envs.sync import SyncEnvs


class CartPoleEnvs(SyncEnvs):
    """See `Envs`. One Gymnasium CartPole serves all lanes for resets and replays."""

    def __init__(self, id: str, env: gym.Env, num_envs: int, **kwargs: Any):
        assert isinstance(env, CartPoleEnv)
        self.cart = env
        super().__init__(id, [env] * num_envs, **kwargs)
        self._state = np.zeros((4, num_envs))  # x, x', theta, theta'
        self._rate = np.zeros((4, num_envs))
        self._scratch = np.zeros((5, num_envs))
        self._force = np.array([-env.force_mag, env.force_mag])
        self._limits = np.array([[env.x_threshold], [env.theta_threshold_radians]])
        self._never = np.zeros(num_envs, bool)
        self._infos = [{}] * num_envs
        self._raw_reward[:] = 1.0
        self._compare()

    def _advance(self, action: np.ndarray) -> Ends:
        cart, state, rate, cos, sin, temp, arm, more = self.cart, self._state, self._rate, *self._scratch
        np.cos(state[2], cos)
        np.sin(state[2], sin)
        # temp = (force + polemass_length theta'^2 sin) / total_mass
        np.square(state[3], more)
        np.multiply(more, cart.polemass_length, more)
        np.multiply(more, sin, more)
        np.take(self._force, action, 0, temp, "clip")
        np.add(temp, more, temp)
        np.divide(temp, cart.total_mass, temp)
        # theta'' = (gravity sin - cos temp) / (length (4 / 3 - masspole cos^2 / total_mass))
        np.square(cos, arm)
        np.multiply(arm, cart.masspole, arm)
        np.divide(arm, cart.total_mass, arm)
        np.subtract(4.0 / 3.0, arm, arm)
        np.multiply(arm, cart.length, arm)
        np.multiply(sin, cart.gravity, sin)
        np.multiply(cos, temp, more)
        np.subtract(sin, more, sin)
        accel = np.divide(sin, arm, rate[3])
        # x'' = temp - polemass_length theta'' cos / total_mass
        np.multiply(accel, cart.polemass_length, more)
        np.multiply(more, cos, more)
        np.divide(more, cart.total_mass, more)
        np.subtract(temp, more, rate[1])
        rate[0::2] = state[1::2]
        np.multiply(rate, cart.tau, rate)
        np.add(state, rate, state)
        self.obs[:] = state.T
        terminated = np.logical_or.reduce(np.abs(state[0::2]) > self._limits)
        return terminated, self._never, bool(terminated.any())

    def _reset_lane(self, i: int, seed: int | None) -> None:
        super()._reset_lane(i, seed)
        self._state[:, i] = self.cart.state

    def _replay(self, i: int, actions: np.ndarray) -> str | None:
        problem = super()._replay(i, actions)
        self._state[:, i] = self.cart.state
        return problem

    def _compare(self) -> None:
        """Step 256 random states, large and tiny, here and by Gymnasium: every bit must agree."""
        rng = np.random.default_rng(0)
        for _ in range(-(-256 // self.num_envs)):
            before = _some_states(rng, self.num_envs)
            action = rng.integers(0, 2, self.num_envs)
            self._state[:] = before
            terminated, _, _ = self._advance(action)
            for i in range(self.num_envs):
                self.cart.state, self.cart.steps_beyond_terminated = before[:, i].copy(), None
                obs, reward, ended, _, _ = self.cart.step(int(action[i]))
                same = np.array_equal(self.cart.state, self._state[:, i]) and np.array_equal(obs, self.obs[i])
                if not same or reward != 1.0 or ended != terminated[i]:
                    raise EnvError(
                        f"env.backend=vector: {self.id} rounds differently here than Gymnasium's; use env.backend=sync"
                    )


def _some_states(rng: np.random.Generator, num_envs: int) -> np.ndarray:
    """Large and tiny ones, [4, N]."""
    size = np.array([[3.0], [2.0], [0.5], [2.0]]) * 10.0 ** rng.uniform(-6, 0, (4, num_envs))
    return size * rng.uniform(-1, 1, (4, num_envs))
