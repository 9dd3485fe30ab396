"""Which algorithms stand for the others where a run costs seconds: in resuming, masks, and the kit of rlx check."""

from __future__ import annotations

from rlx.config import registry

# Variants that run their parent's code with another number or another term of the loss: they have the same state, and
# draw the same chance. All others are taken: each implementation, and each variant with a part of its own (a second
# network, priorities, a model, a queue of steps, a penalty that adapts, another critic, ...).
ALIKE = {
    "actor_critic_all_actions": "actor_critic_q: the mean over the actions in place of the one taken",
    "ddpg": "td3: one critic of the two, no delay, no noise at the target",
    "expected_sarsa": "sarsa: the mean over the next action",
    "ppo_surrogate": "ppo: no clip",
    "semi_gradient_q": "dqn: a buffer of one, SGD",
    "cispo": "grpo: another surrogate",
    "dr_grpo": "grpo: other divisors",
    "gspo": "grpo: the ratio of a whole sequence",
    "rloo": "reinforce_pp: the penalty in the reward, another divisor",
}


def distinct(world: str) -> list[str]:
    """The algorithms of a world, one for each code."""
    return [name for name in sorted(registry.algorithms_of(world)) if name not in ALIKE]
