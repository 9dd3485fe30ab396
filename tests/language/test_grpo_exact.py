"""GRPO and its relatives in expectation: every completion, and every group of them, of a language small enough to list.

Two letters and at most three tokens: 15 completions, 225 groups of two. What is tested is the module's own
`advantages` and `loss`; the truth is the derivative of a sum over all completions.
"""

import itertools
from functools import lru_cache

import pytest
import torch
from tiny_lm import Everything, algo, make, policy
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

from rlx.algos import grpo
from rlx.functional.kl import categorical_kl

pytestmark = pytest.mark.usefixtures("float64")
ON_POLICY = {"kl_coef": 0, "num_minibatches": 1, "whiten": False}
REINFORCE = {"baseline": "none", "scale": "none", "reduction": "sequence"}
LOO = {"scale": "loo", "reduction": "sequence"}


class World:
    """A policy, a reference, rewards, and the gradients of exact expectations; `max_new` tokens at most."""

    def __init__(self, max_new=3):
        self.policy = policy(letters=2, max_new=max_new)
        self.all = Everything(self.policy)
        self.parameters = list(self.policy.model.parameters())
        self.logprob = self.all.logprob()  # [N, L]
        self.p = self.logprob.sum(-1).exp()
        self.reward = torch.randn(len(self.p), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            like = self.policy.model
            self.reference = make(like.num_tokens, context=like.context, seed=5, num_layers=1)
            self.reference.unembed.mul_(0.3)
            self.ref_logprob = self.all.logprob(self.reference)
            self.ref_logits = self.all.logits(self.reference)

    def gradient(self, x):
        found = torch.autograd.grad(x, self.parameters, retain_graph=True, allow_unused=True)
        return torch.cat(
            [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(self.parameters, found)]
        )

    def of_reward(self):
        return self.gradient((self.p * self.reward).sum())

    def of_kl(self, forward=False):
        """Of KL(pi || ref), or KL(ref || pi), between the distributions over whole completions."""
        log, ref = self.logprob.sum(-1), self.ref_logprob.sum(-1)
        return self.gradient((ref.exp() * (ref - log)).sum() if forward else (log.exp() * (log - ref)).sum())

    def at_visited_places(self, value):
        """Of the sum over a completion's places of value [N, L], places visited as the policy visits them."""
        return self.gradient((self.p.detach() * value.masked_fill(~self.all.mask, 0.0).sum(-1)).sum())

    def estimate(self, cfg, reward=None, size=2):
        """E of the gradient of the loss of one group of `size`, over all groups."""
        index = torch.tensor(list(itertools.product(range(len(self.p)), repeat=size)))
        old = self.logprob.detach()
        groups = self.all.groups(index, self.reward if reward is None else reward, old)
        advantage, mask = grpo.advantages(cfg, self.policy.task, groups, self.ref_logprob[index])
        chance = old.sum(-1)[index].sum(-1).exp()
        assert_close(chance.sum(), torch.tensor(1.0))
        entropy = self.entropy()
        total = 0.0
        for i, rows in enumerate(index):
            batch = {"logprob": old[rows], "ref_logprob": self.ref_logprob[rows], "advantage": advantage[i]}
            batch["mask"] = mask[i]
            counts = {"num_sequences": size, "num_tokens": int(mask[i].sum())}
            loss, _ = grpo.loss(cfg, self.all.L, self.logprob[rows], entropy[rows], batch, counts)
            total = total + chance[i] * loss
        return self.gradient(total)

    def entropy(self):
        logprob = self.all.logits().log_softmax(-1)
        return -(logprob.exp() * logprob).sum(-1)


@lru_cache
def world(max_new=3):
    return World(max_new)


def cosine(a, b):
    return cosine_similarity(a, b, 0).item()


def test_the_probabilities_of_all_completions_sum_to_1():
    here = world()
    assert len(here.p) == 15
    assert_close(here.p.sum(), torch.tensor(1.0))
    assert_close(here.ref_logprob.sum(-1).exp().sum(), torch.tensor(1.0))
    assert len(set(here.all.mask.sum(-1).tolist())) == 3


# The policy gradient


@pytest.mark.parametrize("changes", [LOO, REINFORCE], ids=["rloo", "no baseline"])
def test_without_bias_the_mean_gradient_is_the_policy_gradient(changes):
    here = world()
    assert_close(-here.estimate(algo(**{**ON_POLICY, **changes})), here.of_reward())


def test_the_variants_dr_grpo_and_rloo_are_along_the_policy_gradient():
    here = world()
    rloo, dr_grpo = (-here.estimate(algo(f"algo={name}", num_minibatches=1)) for name in ("rloo", "dr_grpo"))
    assert_close(rloo, here.of_reward())
    assert_close(dr_grpo, here.of_reward() * (1 / 2) / 3)  # (G - 1) / G, and 1 / max_new


@pytest.mark.parametrize("size", [2, 3])
def test_the_mean_as_baseline_shrinks_the_gradient_by_one_in_g(size):
    here = world(2)  # 7 completions: 343 groups of three
    found = here.estimate(algo(scale="none", reduction="sequence", group_size=size), size=size)
    assert_close(-found, here.of_reward() * (size - 1) / size)


def test_the_mean_over_a_completions_tokens_tilts_the_gradient():
    """GRPO's 1/|o|: the expectation is that of R / |o|, less a baseline of the same kind."""
    here = world()
    found = -here.estimate(algo(scale="loo", reduction="grpo"))
    length = here.all.mask.sum(-1)
    centred = here.reward - (here.p * here.reward).sum().detach()
    assert_close(found, here.gradient((here.p * centred / length).sum()))
    assert cosine(found, here.of_reward()) < 0.999
    one = world(1)  # completions of one token: nothing to tilt
    assert_close(-one.estimate(algo(scale="loo", reduction="grpo")), one.of_reward())


def test_dividing_by_the_std_tilts_the_gradient_but_not_where_rewards_are_0_or_1():
    here = world()
    cfg = algo(scale="group", reduction="sequence", std_eps=1e-12)
    found = -here.estimate(cfg)
    assert 0.5 < cosine(found, here.of_reward()) < 0.999
    binary = (here.reward > 0).double()
    true = here.gradient((here.p * binary).sum())
    found = -here.estimate(cfg, binary)
    assert_close(found, true * (found.norm() / true.norm()))  # two completions: one std, that of (0, 1)
    assert_close(found, true / 2**0.5)  # A = +-1 / sqrt 2 where they differ; RLOO's is +-1


def test_equal_rewards_are_no_gradient_at_all():
    here = world()
    for scale in ("none", "loo", "group", "batch"):
        found = here.estimate(algo(scale=scale), torch.full_like(here.reward, 0.1))
        assert (found == 0).all()


# The KL, by where it enters


def kl_only(here, **changes):
    """The mean gradient of the KL's term alone: no completion is better than another."""
    return here.estimate(algo(reduction="sequence", kl_coef=0.7, **changes), torch.zeros_like(here.reward)) / 0.7


@pytest.mark.parametrize("estimator", ["k2", "ratio_k3"])
def test_of_one_token_k2_and_ratio_k3_in_the_loss_have_the_gradient_of_the_kl(estimator):
    here = world(1)
    assert_close(kl_only(here, kl_estimator=estimator), here.of_kl())


def test_of_one_token_k3_in_the_loss_has_the_gradient_of_the_other_kl():
    here = world(1)
    found = kl_only(here, kl_estimator="k3")
    assert_close(found, here.of_kl(forward=True))
    assert cosine(found, here.of_kl()) < 0.999


@pytest.mark.parametrize("changes", [LOO, REINFORCE], ids=["loo", "reward to go"])
def test_k1_in_the_reward_has_the_gradient_of_the_kl_of_whole_completions(changes):
    here = world()
    settings = {**changes, "kl_coef": 0.7, "kl_estimator": "k1", "kl_in": "reward"}
    assert_close(here.estimate(algo(**settings)), -here.of_reward() + 0.7 * here.of_kl())


@pytest.mark.parametrize("estimator, forward", [("k2", False), ("ratio_k3", False), ("k3", True)])
def test_in_the_loss_the_kl_is_that_of_each_place_and_where_the_policy_goes_is_left_out(estimator, forward):
    """Of several tokens: the sum over visited places of the KL between the next tokens' distributions."""
    here = world()
    pair = here.all.logits(), here.ref_logits
    expected = here.at_visited_places(categorical_kl(*reversed(pair)) if forward else categorical_kl(*pair))
    found = kl_only(here, kl_estimator=estimator)
    assert_close(found, expected)
    assert cosine(found, here.of_kl(forward)) < 0.99


def test_the_entropy_bonus_raises_the_entropy_of_visited_places():
    here = world()
    found = here.estimate(algo(reduction="sequence", ent_coef=0.3), torch.zeros_like(here.reward))
    assert_close(found, -0.3 * here.at_visited_places(here.entropy()))
