"""Configurations of GRPO: what is refused, what the variants are, what as=trl, verl and paper set."""

from types import SimpleNamespace

import pytest
from some_tasks import task as make_task
from tiny_lm import algo

from rlx.algos import grpo
from rlx.base.errors import ConfigError

K1 = {"kl_coef": 0.1, "kl_in": "reward", "kl_estimator": "k1"}
PLAIN = {"baseline": "none", "scale": "none"}


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({"num_minibatches": 5, "num_prompts": 4}, "num_minibatches=5: must be at most num_prompts=4"),
        ({"group_size": 1}, "group_size=1: there is no other completion"),
        ({"group_size": 1, "scale": "loo"}, "group_size=1: there is no other completion"),
        ({**PLAIN, "group_size": 1, "dynamic_sampling": 2}, "dynamic_sampling=2: "),
        ({"baseline": "none"}, "scale=group: baseline=none takes the reward as it is"),
        ({"supervision": "process", "scale": "loo"}, "supervision=process: the rewards of a group's steps"),
        ({"supervision": "process", **K1}, "supervision=process: a KL"),
        ({"supervision": "process", "overlong": "soft"}, "overlong=soft: penalises whole completions"),
        ({"supervision": "process", "ratio": "sequence"}, "ratio=sequence: needs one advantage a completion"),
        ({**PLAIN, **K1, "ratio": "sequence"}, "ratio=sequence: needs one advantage a completion"),
        ({"objective": "cispo", "ratio": "sequence"}, "ratio=sequence: objective=cispo weighs single tokens"),
        ({"objective": "cispo", "dual_clip": 3}, "dual_clip=3.0: bounds objective=clip"),
        ({"dual_clip": 0.5}, "dual_clip=0.5: must be above 1"),
        ({"ref_sync_every": 10}, "ref_sync_every=10: there is no reference with kl_coef=0"),
        ({"kl_coef": 0.1, "kl_estimator": "k1"}, "kl_estimator=k1: its gradient is 0 in the loss"),
        ({"kl_coef": 0.1, "kl_in": "reward"}, "kl_estimator=k3: in the reward it can point away"),
        ({"kl_coef": 0.1, "kl_in": "reward", "kl_estimator": "k2"}, "kl_estimator=k2: in the reward it can point away"),
        ({"std_eps": 0}, "std_eps=0: must be a number > 0"),
    ],
)
def test_what_would_do_nothing_or_harm_is_refused_in_one_line(changes, fault):
    with pytest.raises(ConfigError) as error:
        algo(**changes)
    message = str(error.value)
    assert message.startswith(f"algo.{fault}") and "\n" not in message and len(message) < 200


def test_step_rewards_are_asked_of_the_task_and_room_for_its_answers_of_the_penalty():
    def check(task, cfg, **changes):
        made = make_task(task, **changes)
        grpo.check(SimpleNamespace(algo=cfg, task=made.cfg), made)

    check("parity", algo("algo=grpo_process"))
    with pytest.raises(ConfigError, match="^task=add2 has no step rewards; algo.supervision=process needs them"):
        check("add2", algo("algo=grpo_process"))
    soft = algo("algo=dapo", overlong="soft", overlong_cache=2)
    check("add2", soft, max_new=6)
    with pytest.raises(ConfigError, match="^algo.overlong=soft: .* task.max_new=5: .* to 4 tokens, .* starts at 3$"):
        check("add2", soft, max_new=5)
    with pytest.raises(ConfigError, match="up to 4 tokens, but the penalty starts at 2$"):
        check("add2", soft)


VARIANTS = ["grpo", "dr_grpo", "rloo", "dapo", "gspo", "cispo", "grpo_process", "reinforce_pp"]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_grpo_with_a_name_of_its_own_and_other_values(name):
    cfg, base = algo(f"algo={name}"), algo("algo=grpo")
    assert (cfg.name, cfg.implementation) == (name, "grpo")
    different = {key for key in vars(base) if getattr(cfg, key) != getattr(base, key)}
    assert (different > {"name"}) == (name != "grpo")
    assert not different & {"lr", "num_prompts", "group_size", "temperature"}


@pytest.mark.parametrize("like", ["trl", "verl", "paper"])
def test_as_over_a_relative_would_undo_what_it_is_named_for_and_is_refused(like):
    for name in ("dr_grpo", "gspo", "reinforce_pp"):
        with pytest.raises(ConfigError, match=rf"as={like}: is for algo=grpo; {name} has no values"):
            algo(f"algo={name}", f"as={like}")
