import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from rlx.functional.returns import discounted_return, gae, linear_recurrence, n_step_return, reward_to_go, whole_return
from rlx.functional.value import td_error, td_target

ROUNDING = {"rtol": 0, "atol": 1e-12}  # float64 sums of up to 100 terms of size 1, in two different orders
LENGTHS = [1, 2, 3, 5, 7, 8, 9, 31, 64, 100]
GAMMA, LAMBDA = 0.9, 0.8


def rollout(T, *batch):
    """Random rows with dones, some terminated, some truncated, some both; values chain inside an episode."""
    reward, value = torch.randn(T, *batch), torch.randn(T, *batch)
    terminated, truncated = torch.rand(T, *batch) < 0.15, torch.rand(T, *batch) < 0.15
    done = terminated | truncated
    next_value = torch.randn(T, *batch)  # where done, and after the last row: the value of another state
    next_value[:-1] = torch.where(done[:-1], next_value[:-1], value[1:])
    return reward, value, next_value, terminated, done


def quadratic_gae(reward, value, next_value, terminated, done, gamma, gae_lambda):
    """The definition: an explicit sum per row, one column at a time, Python floats."""
    T = reward.shape[0]
    columns = [x.reshape(T, -1).T.tolist() for x in (reward, value, next_value, terminated, done)]
    result = torch.zeros(T, max(1, reward[0].numel()))
    for n, (r, v, v_next, term, end) in enumerate(zip(*columns)):
        delta = [r[t] + gamma * (0.0 if term[t] else v_next[t]) - v[t] for t in range(T)]
        for t in range(T):
            for k in range(t, T):
                result[t, n] += (gamma * gae_lambda) ** (k - t) * delta[k]
                if end[k]:
                    break
    return result.reshape(reward.shape)


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_gae_is_the_discounted_sum_of_td_errors_up_to_the_end_of_the_episode(T, batch):
    rows = rollout(T, *batch)
    assert_close(gae(*rows, GAMMA, LAMBDA), quadratic_gae(*rows, GAMMA, LAMBDA), **ROUNDING)


@pytest.mark.parametrize("T", LENGTHS)
def test_the_scan_is_the_loop(T):
    x, decay = torch.randn(T, 4), torch.rand(T, 4)
    y, last = torch.zeros(T, 4), torch.zeros(4)
    for t in reversed(range(T)):
        y[t] = last = x[t] + decay[t] * last
    assert_close(linear_recurrence(x, decay), y, **ROUNDING)


@pytest.mark.parametrize("T, steps", [(1, 0), (2, 1), (3, 2), (128, 7), (129, 8), (4096, 12)])
def test_the_scan_takes_log2_of_T_steps(T, steps):
    class Count(TorchDispatchMode):
        cats = calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            self.cats += func is torch.ops.aten.cat.default
            return func(*args, **(kwargs or {}))

    with Count() as count:
        gae(*[torch.zeros(T, 1)] * 5, GAMMA, LAMBDA)
    assert count.cats == steps and count.calls < 20 + 12 * steps


def test_the_scan_is_differentiable():
    x, decay = torch.randn(7, 2, requires_grad=True), torch.rand(7, 2, requires_grad=True)
    assert torch.autograd.gradcheck(linear_recurrence, (x, decay))


def test_gae_by_hand():
    reward, value = torch.tensor([-0.1, 0.05, 1.0]), torch.tensor([0.2, 0.4, 0.6])
    next_value, end = torch.tensor([0.4, 0.6, 99.0]), torch.tensor([0.0, 0.0, 1.0])
    advantage = gae(reward, value, next_value, end, end, 1.0, 0.95)
    assert_close(advantage, torch.tensor([0.6985, 0.63, 0.4]), **ROUNDING)
    assert_close(advantage + value, torch.tensor([0.8985, 1.03, 1.0]), **ROUNDING)


def test_gae_with_lambda_0_is_the_td_error():
    reward, value, next_value, terminated, done = rollout(50, 3)
    expected = reward + GAMMA * next_value * (1 - terminated.double()) - value
    assert_close(gae(reward, value, next_value, terminated, done, GAMMA, 0.0), expected, **ROUNDING)
    assert_close(td_error(reward, value, next_value, terminated, GAMMA), expected, **ROUNDING)


def test_gae_with_lambda_1_is_return_minus_value():
    reward, value, next_value, terminated, done = rollout(50, 3)
    done[-1] = terminated[-1] = True  # whole episodes, so that the return needs no value...
    terminated |= done  # ...and none is bootstrapped
    advantage = gae(reward, value, next_value, terminated, done, GAMMA, 1.0)
    assert_close(advantage, reward_to_go(reward, done, GAMMA) - value, **ROUNDING)


def test_gae_with_lambda_1_bootstraps_where_the_rows_are_cut():
    rows = rollout(50, 3)
    target = n_step_return(rows[0], *rows[2:], GAMMA, n=50)
    assert_close(gae(*rows, GAMMA, 1.0), target - rows[1], **ROUNDING)


def test_gae_is_the_lambda_weighted_mean_of_all_n_step_returns_minus_value():
    T, rows = 20, rollout(20, 3)
    target = [n_step_return(rows[0], *rows[2:], GAMMA, n=n) for n in range(1, T + 1)]
    weight = [(1 - LAMBDA) * LAMBDA ** (n - 1) for n in range(1, T)] + [LAMBDA ** (T - 1)]
    mean = sum(w * x for w, x in zip(weight, target))
    assert_close(gae(*rows, GAMMA, LAMBDA), mean - rows[1], **ROUNDING)


def test_truncation_is_bootstrapped_so_the_true_value_has_no_advantage():
    """r = 1 for ever, gamma .9: V = 10 everywhere, whatever the time limit of 10 cuts."""
    T = 35
    reward, value = torch.ones(T), torch.full((T,), 10.0)
    truncated = (torch.arange(T) + 1) % 10 == 0
    advantage = gae(reward, value, value, torch.zeros(T), truncated, 0.9, 0.95)
    assert_close(advantage, torch.zeros(T), **ROUNDING)


def test_terminated_and_truncated_in_the_same_step_is_not_bootstrapped():
    reward, value, both = torch.ones(1), torch.full((1,), 10.0), torch.ones(1, dtype=torch.bool)
    assert gae(reward, value, value, both, both, 0.9, 0.95).tolist() == [1.0 - 10.0]
    assert td_target(reward, value, both, 0.9).tolist() == [1.0]
    assert n_step_return(reward, value, both, both, 0.9, n=3).tolist() == [1.0]
    nothing = torch.zeros(1, dtype=torch.bool)
    assert td_target(reward, value, nothing, 0.9).tolist() == [10.0]  # truncated only, or neither


@pytest.mark.parametrize("poison", [1e6, float("inf"), float("nan")])
def test_nothing_after_a_done_reaches_what_is_before_it(poison):
    T, end = 21, 12
    reward, value, next_value, terminated, done = rollout(T, 2)
    terminated[end], done[end] = torch.tensor([True, False]), True  # one terminated, one truncated
    later = [x.clone() for x in (reward, value, next_value)]
    for x in later:
        x[end + 1 :] = poison
    later[2][end, 0] = poison  # behind a termination not even the successor's value is read
    upto = slice(0, end + 1)

    def same(f, g):
        assert torch.equal(f[upto], g[upto]) and f[upto].isfinite().all()

    same(gae(reward, value, next_value, terminated, done, GAMMA, LAMBDA), gae(*later, terminated, done, GAMMA, LAMBDA))
    same(reward_to_go(reward, done, GAMMA), reward_to_go(later[0], done, GAMMA))
    for n in (1, 4, T):
        same(
            n_step_return(reward, next_value, terminated, done, GAMMA, n),
            n_step_return(later[0], later[2], terminated, done, GAMMA, n),
        )


def test_without_a_done_what_comes_later_does_count():
    reward, value, next_value, terminated, done = rollout(21, 2)
    terminated[:], done[:] = False, False
    later = reward.clone()
    later[20] += 1.0
    difference = gae(later, value, next_value, terminated, done, GAMMA, LAMBDA) - gae(
        reward, value, next_value, terminated, done, GAMMA, LAMBDA
    )
    assert_close(difference[0], torch.full((2,), (GAMMA * LAMBDA) ** 20), **ROUNDING)


@pytest.mark.parametrize("T", LENGTHS)
def test_reward_to_go_is_the_discounted_sum_to_the_end_of_the_episode(T):
    reward, _, _, _, done = rollout(T, 2)
    expected = torch.zeros(T, 2)
    for n in range(2):
        for t in range(T):
            for k in range(t, T):
                expected[t, n] += GAMMA ** (k - t) * reward[k, n]
                if done[k, n]:
                    break
    assert_close(reward_to_go(reward, done, GAMMA), expected, **ROUNDING)


@pytest.mark.parametrize("T", LENGTHS)
def test_whole_return_is_the_discounted_return_of_the_episode_at_each_of_its_steps(T):
    reward, _, _, _, done = rollout(T, 2, 2)
    expected = torch.zeros(T, 2, 2)
    for n in [(a, b) for a in range(2) for b in range(2)]:
        first = 0
        for t in range(T):
            if done[t][n] or t == T - 1:
                expected[first : t + 1, n[0], n[1]] = discounted_return(reward[first : t + 1, n[0], n[1]], GAMMA)
                first = t + 1
    assert_close(whole_return(reward, done, GAMMA), expected, **ROUNDING)


def test_discounted_return_is_a_polynomial_in_gamma():
    reward = torch.tensor([[1.0, 5.0], [2.0, 0.0], [4.0, -8.0]])
    assert discounted_return(reward, 0.5).tolist() == [3.0, 3.0]  # 1 + 1 + 1, 5 + 0 - 2
    assert discounted_return(reward, 0.0).tolist() == [1.0, 5.0]
    assert discounted_return(reward, 1.0).tolist() == [7.0, -3.0]
    assert_close(discounted_return(torch.ones(1000), 0.9), torch.tensor(10.0))  # 1 / (1 - gamma)


def test_n_step_return_keeps_gamma_to_the_k():
    reward, next_value = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([16.0, 32.0, 64.0, 128.0])
    no = torch.zeros(4)
    two = n_step_return(reward, next_value, no, no, 0.5, n=2)
    assert two.tolist() == [1 + 1 + 8, 2 + 2 + 16, 4 + 4 + 32, 8 + 64]  # the last has only one row left


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 50])
def test_n_step_return_is_the_sum_over_a_window_cut_at_the_end_of_the_episode(n):
    T = 20
    reward, _, next_value, terminated, done = rollout(T, 2)
    expected = torch.zeros(T, 2)
    for i in range(2):
        for t in range(T):
            last = next((k for k in range(t, min(t + n, T)) if done[k, i]), min(t + n, T) - 1)
            steps = last - t + 1
            expected[t, i] = sum(GAMMA**k * reward[t + k, i] for k in range(steps))
            if not terminated[last, i]:
                expected[t, i] += GAMMA**steps * next_value[last, i]
    assert_close(n_step_return(reward, next_value, terminated, done, GAMMA, n), expected, **ROUNDING)


def test_an_n_step_return_needs_a_step():
    with pytest.raises(ValueError, match="n=0: a return needs at least 1 step"):
        n_step_return(*[torch.zeros(3)] * 4, GAMMA, n=0)
