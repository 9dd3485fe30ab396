"""What every equation has in common, asked of every public function."""

import ast
import importlib
import inspect
import pathlib

import pytest
import torch
from torch.testing import assert_close

import rlx.functional
from rlx.functional import continuous, kl, policy, preference, reduce, returns, trust_region, value
from rlx.functional.shapes import check_shapes

FOLDER = pathlib.Path(rlx.functional.__file__).parent
MASKS = {"terminated", "done", "mask", "step_end"}
T, N, G, L, A = 6, 3, 4, 5, 2


def shaped(names, *shape):
    """Random tensors by name; masks 0/1 floats, everything else normal."""
    return {n: (torch.rand(shape) < 0.5).double() if n in MASKS else torch.randn(shape) for n in names.split()}


# function: (tensor names, their shape, hyper-parameters, what is neither)
CALLS = {
    returns.linear_recurrence: ("x decay", (T, N), {}, {}),
    returns.reward_to_go: ("reward done", (T, N), {"gamma": 0.9}, {}),
    returns.discounted_return: ("reward", (T, N), {"gamma": 0.9}, {}),
    returns.whole_return: ("reward done", (T, N), {"gamma": 0.9}, {}),
    returns.n_step_return: ("reward next_value terminated done", (T, N), {"gamma": 0.9}, {"n": 3}),
    returns.gae: ("reward value next_value terminated done", (T, N), {"gamma": 0.9, "gae_lambda": 0.8}, {}),
    returns.normalize: ("advantage", (T, N), {"eps": 1e-3}, {}),
    returns.whiten: ("advantage mask", (T, N), {"eps": 1e-3}, {}),
    returns.group_advantage: ("reward", (N, G), {"eps": 1e-3}, {"scale": "group"}),
    returns.process_advantage: ("reward step_end", (N, G, L), {"eps": 1e-3}, {}),
    policy.policy_gradient: ("logprob weight", (T, N), {}, {}),
    policy.all_actions: ("logprob value", (T, A), {}, {}),
    policy.ppo_clip: ("logprob old_logprob advantage", (T, N), {"clip_low": 0.2, "clip_high": 0.28}, {}),
    policy.dual_clip: ("loss advantage", (T, N), {"clip": 3.0}, {}),
    policy.cispo: ("logprob old_logprob advantage", (T, N), {"clip_low": 1.0, "clip_high": 4.0}, {}),
    policy.clipped_low: ("logprob old_logprob advantage", (T, N), {"clip_low": 0.2}, {}),
    policy.clipped_high: ("logprob old_logprob advantage", (T, N), {"clip_high": 0.28}, {}),
    policy.ppo_penalty: ("logprob old_logprob advantage kl", (T, N), {"kl_coef": 0.1}, {}),
    policy.approx_kl: ("logprob old_logprob", (T, N), {}, {}),
    policy.clip_fraction: ("logprob old_logprob", (T, N), {"clip_low": 0.2, "clip_high": 0.28}, {}),
    value.td_target: ("reward next_value terminated", (T, N), {"gamma": 0.9}, {}),
    value.td_error: ("reward value next_value terminated", (T, N), {"gamma": 0.9}, {}),
    value.value_loss: ("value return_", (T, N), {}, {}),
    value.value_loss_clipped: ("value old_value return_", (T, N), {"clip": 0.2}, {}),
    value.huber: ("value target", (T, N), {"delta": 1.0}, {}),
    value.max_value: ("target_q", (T, N), {}, {}),
    value.expected_value: ("q probability", (T, A), {}, {}),
    value.double_value: ("online_q target_q", (T, N), {}, {}),
    value.explained_variance: ("value return_", (T, N), {}, {}),
    continuous.least_value: ("q", (A, T), {}, {}),
    continuous.soft_target: ("reward next_q next_logprob terminated", (T, N), {"gamma": 0.9, "alpha": 0.2}, {}),
    continuous.sac_policy: ("logprob q", (T, N), {"alpha": 0.2}, {}),
    continuous.temperature: ("logprob", (T, N), {"log_alpha": 0.5, "target_entropy": -1.0}, {}),
    continuous.smoothed_action: ("action noise", (T, N), {"clip": 0.5, "low": -1.0, "high": 2.0}, {}),
    continuous.squash: ("before", (T, N), {}, {}),
    continuous.squashed_logprob: ("before noise log_std", (T, N), {}, {}),
    kl.k1: ("logprob ref_logprob", (T, N), {}, {}),
    kl.k2: ("logprob ref_logprob", (T, N), {}, {}),
    kl.k3: ("logprob ref_logprob", (T, N), {}, {}),
    kl.categorical_kl: ("logits ref_logits", (T, N, A), {}, {}),
    kl.gaussian_kl: ("mean log_std ref_mean ref_log_std", (T, N, A), {}, {}),
    kl.adaptive_kl_coef: ("", (), {"kl_coef": 0.1, "kl": 0.02, "target": 0.01}, {}),
    kl.adaptive_kl_controller: (
        "",
        (),
        {"kl_coef": 0.1, "kl": 5.0, "target": 6.0, "num_samples": 64.0, "horizon": 1e4},
        {},
    ),
    preference.bradley_terry: ("chosen rejected", (T,), {}, {}),
    preference.ranked: ("score", (T, G), {}, {}),
    preference.plackett_luce: ("score", (T, G), {}, {}),
    preference.best_of: ("score", (T, G), {}, {}),
    preference.dpo: ("chosen rejected ref_chosen ref_rejected", (T,), {"beta": 0.1}, {}),
    trust_region.surrogate: ("logprob old_logprob advantage", (T, N), {}, {}),
    trust_region.conjugate_gradient: (
        "b",
        (T,),
        {"tolerance": 1e-9},
        {"product": lambda v: 3 * v + v.flip(0), "steps": 4},
    ),
    trust_region.step_length: ("direction fisher_direction", (T,), {"max_kl": 0.01}, {}),
    reduce.masked_mean: ("x mask", (G, L), {}, {}),
    reduce.reduce_tokens: ("x mask", (G, L), {"max_length": 5.0, "num_sequences": 8.0}, {"how": "dr_grpo"}),
}
every = pytest.mark.parametrize("function", CALLS, ids=lambda f: f.__name__)
LOSSES = [
    policy.policy_gradient,
    policy.ppo_clip,
    policy.ppo_penalty,
    trust_region.surrogate,
    value.value_loss,
    value.value_loss_clipped,
    value.huber,
    continuous.sac_policy,
    continuous.temperature,
    kl.k1,
    kl.k2,
    kl.k3,
    preference.bradley_terry,
    preference.dpo,
]


def call(function):
    names, shape, hyper, other = CALLS[function]
    return shaped(names, *shape), hyper, other


def scalars(hyper, **where):
    return {name: torch.tensor(x, **where) for name, x in hyper.items()}


TAKE_GRAPHS = {"flat_gradient", "fisher_vector_product"}  # no tensors without one: asked in test_trust_region
OF_LENGTHS = {"soft_overlong"}  # no log-probs, no gradient: asked in test_group_advantages
OF_ARMS = {"preference_gradient", "upper_confidence"}  # whole numbers: asked in tests/algos/test_teaching_set.py


def test_every_public_function_is_asked():
    listed = {f.__name__ for f in CALLS} | TAKE_GRAPHS | OF_LENGTHS | OF_ARMS
    for path in FOLDER.glob("*.py"):
        if path.stem in ("__init__", "shapes", "schedules"):
            continue
        module = importlib.import_module(f"rlx.functional.{path.stem}")
        own = {
            name
            for name, f in inspect.getmembers(module, inspect.isfunction)
            if f.__module__ == module.__name__ and not name.startswith("_")
        }
        assert own <= listed


@every
def test_a_hyper_parameter_may_be_a_float_or_a_0_dim_tensor(function):
    tensors, hyper, other = call(function)
    expected = function(**tensors, **hyper, **other)
    result = function(**tensors, **scalars(hyper), **other)
    assert_close(torch.as_tensor(result), torch.as_tensor(expected))


@every
def test_nothing_reads_or_branches_on_data(function):
    """Meta tensors have no data: `.item()`, `float()`, `if tensor` and `min(tensor, ...)` raise on them."""
    tensors, hyper, other = call(function)
    expected = torch.as_tensor(function(**tensors, **hyper, **other))
    meta = {name: x.to("meta") for name, x in tensors.items()}
    result = function(**meta, **scalars(hyper, device="meta"), **other)
    assert result.is_meta and result.shape == expected.shape and result.dtype == expected.dtype
    if tensors:
        assert function(**meta, **hyper, **other).shape == expected.shape


def test_meta_tensors_do_catch_a_branch_on_data():
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.zeros((), device="meta").item()
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(torch.zeros((), device="meta") > 0)


@every
def test_no_shape_is_broadcast(function):
    tensors, hyper, other = call(function)
    if len(tensors) < 2:
        return
    for name in tensors:
        wrong = dict(tensors)
        wrong[name] = tensors[name].unsqueeze(-1)  # (B,) against (B, 1)
        with pytest.raises(ValueError, match=rf"shapes differ: .*{name} \("):
            function(**wrong, **hyper, **other)
        wrong[name] = tensors[name][:1]
        with pytest.raises(ValueError, match="shapes differ"):
            function(**wrong, **hyper, **other)


def test_the_message_about_shapes_is_one_line_that_names_both():
    with pytest.raises(ValueError) as error:
        policy.ppo_clip(torch.zeros(4), torch.zeros(4), torch.zeros(4, 1), 0.2, 0.2)
    assert str(error.value) == (
        "shapes differ: logprob (4,), advantage (4, 1); they must be equal (nothing is broadcast here)"
    )


def test_numbers_have_no_shape_to_differ():
    check_shapes(a=torch.zeros(3), b=0.5, c=torch.tensor(0.5), d=None, e=torch.zeros(3))
    advantage = torch.tensor(2.0)  # one for all
    assert_close(policy.policy_gradient(torch.ones(3), advantage), torch.full((3,), -2.0))


@every
def test_a_mask_may_be_bool_or_float(function):
    tensors, hyper, other = call(function)
    as_bool = {name: x.bool() if name in MASKS else x for name, x in tensors.items()}
    result, expected = (function(**x, **hyper, **other) for x in (as_bool, tensors))
    assert_close(torch.as_tensor(result), torch.as_tensor(expected), rtol=0, atol=0)


@every
def test_the_arguments_are_left_as_they_were(function):
    tensors, hyper, other = call(function)
    before = {name: x.clone() for name, x in tensors.items()}
    function(**tensors, **hyper, **other)
    assert all(torch.equal(tensors[name], before[name]) for name in tensors)


@every
def test_float32_stays_float32(function):
    tensors, hyper, other = call(function)
    tensors = {name: x.float() for name, x in tensors.items()}
    result = function(**tensors, **hyper, **other)
    if tensors:
        assert result.dtype == torch.float32


@every
def test_many_members_at_once_are_each_alone(function):
    """vmap over tensors and hyper-parameters: a population in one call, each member with its own values."""
    members = [call(function) for _ in range(3)]
    other = members[0][2]
    hyper = [{name: x * (1 + 0.1 * i) for name, x in h.items()} for i, (_, h, _) in enumerate(members)]
    each = [torch.as_tensor(function(**t, **h, **other)) for (t, _, _), h in zip(members, hyper)]
    stacked = {name: torch.stack([t[name] for t, _, _ in members]) for name in members[0][0]}
    stacked |= {name: torch.tensor([h[name] for h in hyper]) for name in hyper[0]}
    assert_close(torch.vmap(lambda x: function(**x, **other))(stacked), torch.stack(each))


@pytest.mark.parametrize("function", LOSSES, ids=lambda f: f.__name__)
def test_a_loss_is_elementwise(function):
    """Same shape out; element i depends on element i alone."""
    tensors, hyper, other = call(function)
    result = function(**tensors, **hyper, **other)
    assert result.shape == next(iter(tensors.values())).shape
    one = function(**{name: x[2:3] for name, x in tensors.items()}, **hyper, **other)
    assert_close(result[2:3], one, rtol=0, atol=0)


@pytest.mark.parametrize("function", LOSSES, ids=lambda f: f.__name__)
def test_a_loss_can_be_traced(function):
    """torch.fx can turn it into a graph once and for all, for an engine that lowers it."""
    tensors, hyper, other = call(function)
    traced = torch.fx.symbolic_trace(function)
    assert_close(traced(**tensors, **hyper), function(**tensors, **hyper))


def test_functional_imports_torch_math_typing_and_itself():
    allowed = {"torch", "math", "typing", "collections"}  # collections.abc: types
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name}: relative import"
                names = [node.module]
            else:
                continue
            for name in names:
                assert name.split(".")[0] in allowed or name.startswith("rlx.functional"), f"{path.name}: {name}"


def test_functional_takes_no_tensor_apart():
    for path in FOLDER.glob("*.py"):
        called = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not called & {"item", "tolist", "numpy", "cpu", "nonzero"}, path.name
