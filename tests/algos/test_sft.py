"""Supervised fine-tuning: a loss on the answers alone, and a run that is done when enough of them are right."""

import signal

import pytest
import torch
from language_runs import train as start_run
from tiny_lm import algo, gpt, one_by_one, policy, run, train
from tiny_runs import Child, checkpoints, die, record, result, resume, status
from torch.testing import assert_close

from rlx.algos import sft
from rlx.language.tasks.base import is_held_out
from rlx.training import loop

EXACT = {"rtol": 1e-9, "atol": 1e-12}  # float64, sums in another order
double = pytest.mark.usefixtures("float64")


@double
@pytest.mark.parametrize("name", ["add2", "count"])  # count: prompts and answers of several lengths
def test_the_loss_is_that_of_the_answers_tokens_their_ends_included_and_the_prompts_not(name):
    """Loss and gradient norm of the first step, from log-probs taken one token at a time."""
    _, history = train(algo("algo=sft", batch_size=6), name)
    start = policy(name, seed=1)
    prompts = start.task.prompts(run().rng("prompts"), 6)
    rows = [one_by_one(start, prompt, start.task.answer(prompt)) for prompt in prompts]
    if name == "count":
        assert len({len(prompt) for prompt in prompts}) > 1 and len({len(row) for row in rows}) > 2
    logprob = torch.cat(rows)  # a mean over all tokens, not over answers
    assert_close(torch.tensor(history[0]["loss"]), -logprob.mean(), **EXACT)
    gradient = torch.autograd.grad(logprob.mean(), list(start.model.parameters()))
    assert_close(torch.tensor(history[0]["grad_norm"]), torch.cat([g.flatten() for g in gradient]).norm(), **EXACT)


@double
def test_it_learns_to_answer_and_to_stop():
    """Counting up to 4: the number is read from the prompt, and the end is put in the right place."""
    shape, small = gpt(d_model=32, num_layers=1), {"largest": 4, "max_new": 6, "sft_stop": 0.0}
    done, history = train(algo("algo=sft", batch_size=32, lr=1e-2), "count", 100, init=None, model=shape, **small)
    assert history[-1]["loss"] < 0.05 < 1 < history[0]["loss"] and history[-1]["mean_token_accuracy"] == 1
    learnt = policy("count", model=shape, **small)
    learnt.model.load_state_dict(done.tracked["policy"].state_dict())
    assert [said.text for said in learnt.complete(["1=", "2=", "3=", "4="])] == ["a", "aa", "aaa", "aaaa"]


# -- where it stops ----------------------------------------------------------------------------------------------


def of(accuracies):
    """Something in place of sampled_accuracy that has these accuracies, one a check; it counts its checks."""
    left = iter(accuracies)
    return lambda *_: next(left)


@double
@pytest.mark.parametrize(
    "goal, accuracies, steps",
    [(0.3, [0.1, 0.29, 0.3, 0.0], 9), (0.3, [0.31], 3), (0.3, [0.29] * 4, 12), (0.0, [0.5, 1.0, 1.0, 1.0], 12)],
)
def test_it_stops_where_the_sampled_accuracy_reaches_the_tasks_goal_and_never_before(
    goal, accuracies, steps, monkeypatch
):
    monkeypatch.setattr(sft, "sampled_accuracy", of(accuracies))
    cfg = algo("algo=sft", batch_size=2, check_every=3)
    done, history = train(cfg, "add2", steps=12, sft_stop=goal)
    assert done.step == len(history) == steps
    seen = {step: row["sampled_accuracy"] for step, row in enumerate(history, 1) if "sampled_accuracy" in row}
    assert seen == dict(zip(range(3, steps + 1, 3), accuracies))


@double
def test_a_check_samples_held_out_prompts_and_counts_the_right_ones(monkeypatch):
    mine, asked = policy("parity", length=6), []
    monkeypatch.setattr(mine.task, "correct", lambda prompt, text, ended: text[:1] == prompt[:1])  # not too hard
    real = mine.task.prompts
    monkeypatch.setattr(mine.task, "prompts", lambda *how, **more: asked.append(real(*how, **more)) or asked[-1])
    warm = [sft.sampled_accuracy(mine, run(seed).rng("check"), 64, 1.0) for seed in (1, 1, 2)]
    assert warm[0] == warm[1] != warm[2] and 0 < warm[0] < 1
    cold = sft.sampled_accuracy(mine, run().rng("check"), 64, 1e-6)
    said = [said.text for said in mine.complete(asked[-1])]  # the likeliest
    assert cold != warm[0]  # of the same prompts
    assert cold == sum(text[:1] == prompt[:1] for prompt, text in zip(asked[-1], said)) / 64
    assert [len(prompts) for prompts in asked] == [64] * 4
    assert all(is_held_out(prompt) for prompts in asked for prompt in prompts)


def test_a_run_that_stopped_by_itself_is_finished_and_resuming_it_changes_nothing(tmp_path, monkeypatch):
    goal = {"task.sft_stop": 0.3, "algo.check_every": 2, "eval_every": 0, "checkpoint_every": 4}
    monkeypatch.setattr(sft, "sampled_accuracy", of([0.2, 0.4]))
    path = start_run(tmp_path, "sft", **goal)
    before = result(path), checkpoints(path), {file: file.read_bytes() for file in path.rglob("*.json")}
    assert status(path)["step"] == 4 and checkpoints(path) == ["final_000000000004.safetensors", *before[1][1:]]
    resume(path)
    resume(path, total_steps=20)  # it has what it wanted
    assert (result(path), checkpoints(path)) == before[:2] and status(path)["step"] == 4
    assert "done at step 4, before total_steps=12" in record(path)["notices"]


@pytest.mark.parametrize(
    "accuracies, why",
    [
        (
            [0.2, 0.4],
            "stopped at step 4: sampled_accuracy=0.4 has reached task.sft_stop=0.3 (a new run with task.sft_sto",
        ),
        ([0.2] * 6, "stopped by total_steps=12: sampled_accuracy=0.2 is below task.sft_stop=0.3 (more go on)"),
    ],
)
def test_a_run_says_why_it_stopped_and_which_key_to_change(accuracies, why, tmp_path, monkeypatch):
    monkeypatch.setattr(sft, "sampled_accuracy", of(accuracies))
    path = start_run(tmp_path, "sft", **{"task.sft_stop": 0.3, "algo.check_every": 2, "eval_every": 0})
    assert [line for line in record(path)["notices"] if line.startswith(why)]


def test_a_run_killed_between_its_last_step_and_its_last_checkpoint_stays_where_it_was_done(tmp_path, monkeypatch):
    goal = {"task.sft_stop": 0.3, "algo.check_every": 2, "checkpoint_every": 4, "eval_every": 3}
    monkeypatch.setattr(sft, "sampled_accuracy", lambda *_: 0.4 if accuracy.pop() else 0.2)
    accuracy = [1, 0]
    whole = start_run(tmp_path, "sft", **goal)

    def killed():
        monkeypatch.setattr(loop.Loop, "_finish", lambda self: die())
        start_run(tmp_path, "sft", name="run", **goal)

    accuracy = [1, 0]
    assert Child(killed).wait() == -signal.SIGKILL
    assert status(tmp_path / "run")["status"] == "running"
    resume(tmp_path / "run")
    assert result(tmp_path / "run") == result(whole)
    assert checkpoints(tmp_path / "run") == checkpoints(whole)
