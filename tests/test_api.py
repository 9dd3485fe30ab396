"""rlx for notebooks and scripts: the commands' own results, in a process that is left as it was."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import TINY, Forks, environment
from language_runs import train as train_language

import rlx
from rlx import RunView

WORDS = ["algo=ppo", "env=cartpole", *TINY, "log_every=1", "checkpoint_every=100"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def weights(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the command line's run."""
    place = tmp_path_factory.mktemp("command")
    done = forks("train", *WORDS, "seed=3", cwd=place)
    return str(json.loads(forks("show", done.run, "--json", cwd=place).out)["weights_sha256"])


def sha(view: RunView) -> str:
    return str(view.to_json()["weights_sha256"])


def test_importing_rlx_imports_nothing_and_looking_at_runs_no_torch(finished: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); import rlx; print(*sorted(set(sys.modules) - before)); "
        f"view = rlx.load({str(finished)!r}); view.metrics(), view.config, view.status, rlx.runs({str(finished)!r}); "
        "print('torch' in sys.modules, 'hydra' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["rlx", "False False"]


# -- a guest -----------------------------------------------------------------------------------------------------


def settings() -> list[Any]:
    """What is the process's own."""
    state: Any = np.random.get_state()  # noqa: NPY002
    return [
        torch.get_num_threads(), torch.get_default_dtype(), torch.get_rng_state().tolist(), torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
        (torch.tensor(1e-310, dtype=torch.float64) * 1.0).item(), random.getstate(), state[1].tolist(), np.geterr(),
        dict(os.environ), list(sys.path), list(warnings.filters), signal.getsignal(signal.SIGINT), os._exit,
    ]  # fmt: skip


def test_a_run_is_the_command_lines_whatever_the_caller_has_set_and_changes_nothing(here: Path, weights: str) -> None:
    before = settings()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    torch.set_flush_denormal(False)
    torch.manual_seed(5), random.seed(6), np.random.seed(7)  # noqa: NPY002
    try:
        with torch.no_grad(), np.errstate(all="raise"), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            own = settings()
            view = rlx.train(WORDS, seed=3, quiet=True)
            view.policy([0.0, 0.0, 0.0, 0.0])
            assert settings() == own
    finally:
        torch.set_num_threads(before[0])
        torch.set_default_dtype(before[1])
        torch.use_deterministic_algorithms(before[4])
    assert sha(view) == weights and view.status == "finished"


def test_a_thread_gives_the_same(here: Path, weights: str) -> None:
    views: list[RunView] = []
    threads = [threading.Thread(target=lambda: views.append(rlx.train(WORDS, seed=3, quiet=True))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sha(view) for view in views] == [weights] * 2


def test_a_program_of_hydras_gives_the_same_and_keeps_its_own(here: Path, weights: str) -> None:
    (here / "program.py").write_text(f"""
import hydra, rlx
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base="1.3", config_path=None)
def main(cfg):
    view = rlx.train({WORDS!r}, seed=cfg.seed, quiet=True)
    assert HydraConfig.get().job.name == "program" and hydra.core.global_hydra.GlobalHydra.instance().is_initialized()
    print(view.to_json()["weights_sha256"])

main()
""")
    words = [sys.executable, "program.py", "+seed=3"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True)
    assert done.stdout.split() == [weights], done.stderr


def test_ctrl_c_is_keyboard_interrupt_and_loses_nothing(here: Path, weights: str) -> None:
    def stop(step: int, _metrics: Any) -> None:
        if step >= 256:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"go on with: rlx.load\("):
        rlx.train(WORDS, seed=3, quiet=True, progress=stop)
    view = rlx.load("latest")
    assert view.status == "interrupted" and 256 <= view.step < 512
    assert sha(view.resume(quiet=True)) == weights and view.status == "finished"


# -- what is asked and answered ----------------------------------------------------------------------------------


def test_words_are_those_of_the_command_line(here: Path) -> None:
    with pytest.raises(rlx.UserError, match="algo=pppo: no such"):
        rlx.train("algo=pppo")
    with pytest.raises(rlx.UserError, match="-m: a flag of the command line"):
        rlx.train("-m seed=1,2")
    assert not (here / "runs").exists()
    view = rlx.train(TINY, algo={"lr": 1e-3}, env="cartpole", seed=np.int64(4), model={"hidden": (8, 8)}, quiet=True)
    config = view.config
    assert (config["algo"]["lr"], config["seed"], config["model"]["hidden"]) == (1e-3, 4, [8, 8])


@pytest.mark.parametrize(
    "keys, line",
    [
        ({"env": Path}, "env: type is no value of a configuration"),
        ({"algo": {"lr": object()}}, "algo.lr: object is no value"),
        ({"preset": None}, "preset=null: needs a name (rlx list presets; none: without one)"),
    ],
)
def test_what_is_no_value_is_one_line_that_says_what_to_do(keys: dict[str, Any], line: str, here: Path) -> None:
    with pytest.raises(rlx.UserError) as error:
        rlx.train(**{"algo": "ppo", "env": "cartpole", **keys})
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
    assert not (here / "runs").exists()


def test_metrics_are_columns_and_a_frame_where_pandas_is(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = rlx.load(finished).metrics()
    assert metrics["step"].dtype == np.int64 and metrics["train/value_loss"].dtype == np.float64
    assert {len(column) for column in metrics.values()} == {len(metrics["step"])}
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(rlx.UserError, match="pandas is not installed"):
        metrics.to_frame()
    frame = types.SimpleNamespace(set_index=lambda name: name)
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=lambda columns: frame))
    assert metrics.to_frame() == "step"


def test_a_policy_acts_for_one_observation_and_for_a_batch(forks: Forks, finished: Path, tmp_path: Path) -> None:
    view = rlx.load(finished)
    batch = np.random.default_rng(0).normal(size=(5, 4))
    assert [view.policy(obs) for obs in batch] == view.policy(batch).tolist() == view.policy(batch.tolist()).tolist()
    assert set(view.policy(np.zeros((64, 4)), rng=np.random.default_rng(1)).tolist()) == {0, 1}
    with pytest.raises(rlx.UserError, match=r"an observation is \[4\] \(a batch \[N, \.\.\.\]\), this is \[3\]"):
        view.policy([0.0, 0.0, 0.0])
    evaluation = forks("eval", str(finished), "--episodes", "2", "--seed", "7", "--json", cwd=tmp_path)
    assert view.eval(2, seed=7) == json.loads(evaluation.out)
    gif = tmp_path / "a.gif"
    assert view.play(gif=gif).length > 0 and gif.stat().st_size > 1000


@pytest.mark.parametrize(
    ("kind", "obs"),
    [
        ("vector", np.array([1.0, 0.5])),
        ("discrete", 1),
        ("dict", {"a": 1, "b": np.array([0.5])}),
        ("image", np.full((36, 36, 1), 255, np.uint8)),
    ],
)
def test_what_an_environment_observes_is_what_a_policy_takes(here: Path, kind: str, obs: Any) -> None:
    """Masked environments, in whose second state only the actions 0 and 3 are allowed."""
    words = [*TINY, "env=gym", "env.id=masked_envs:Choices-v0", f"+env.kwargs.kind={kind}", "algo.num_steps=16"]
    view = rlx.train(["algo=ppo", "preset=none", *words, "total_steps=64"], quiet=True)
    assert view.policy(obs, mask=[0, 0, 0, 1]) == 3 and view.policy(obs) in range(4)
    assert view.policy([obs, obs], mask=[[0, 1, 0, 0], [0, 0, 1, 0]]).tolist() == [1, 2]


def test_a_language_policy_completes_prompts(here: Path) -> None:
    view = rlx.load(train_language(here, "sft"))
    one = view.policy("010101")
    assert view.policy(["010101"]) == [one] and isinstance(one, str)
    assert view.eval(4)["prompts"] == 4
    with pytest.raises(rlx.UserError, match="is a language-model run"):
        view.play()


def test_runs_and_compare_answer_as_ls_and_compare_do(here: Path, finished: Path) -> None:
    assert rlx.runs() == []
    for seed in (1, 2):
        rlx.train(WORDS, seed=seed, eval_every=512, eval_episodes=1, quiet=True)
    rlx.train(WORDS, seed=1, algo={"lr": 0.1}, eval_every=512, eval_episodes=1, quiet=True)
    assert [view.config["seed"] for view in rlx.runs("runs/**", where="lr<0.1")] == [1, 2]
    slow, fast = rlx.runs(where="algo.lr<0.1"), rlx.runs(where={"algo.lr": 0.1})
    comparison = rlx.compare(slow, fast)
    assert [len(side.curves) for side in comparison.sides] == [2, 1] and "A against B" in str(comparison)
    assert repr(fast[0]).startswith(f"<rlx run {fast[0]}: finished, step 512, score ")
