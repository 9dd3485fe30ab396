import pytest

from rlx.functional.schedules import constant, linear


@pytest.mark.parametrize("num_updates", [1, 3, 7, 976])
def test_the_learning_rate_anneals_as_in_cleanrl(num_updates):
    lr = 2.5e-4
    schedule = [linear(done / num_updates, lr) for done in range(num_updates)]
    assert schedule[0] == lr
    assert schedule[-1] == pytest.approx(lr / num_updates)
    assert schedule == [(1.0 - (update - 1.0) / num_updates) * lr for update in range(1, num_updates + 1)]


def test_epsilon_is_exact_at_the_start_the_half_and_the_end():
    assert [linear(p, 1.0, 0.05) for p in (0.0, 0.5, 1.0)] == [1.0, 0.525, 0.05]


def test_a_schedule_holds_its_ends():
    assert linear(1.7, 1.0, 0.05) == 0.05
    assert linear(-0.2, 1.0, 0.05) == 1.0


def test_linear_alone_is_what_is_left():
    assert [linear(p) for p in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]


def test_constant_is_constant():
    assert {constant(p, 3e-4) for p in (0.0, 0.3, 1.0)} == {3e-4}
    assert constant(0.5) == 1.0
