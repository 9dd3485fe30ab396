"""The pure parts of the benchmarks: what is read from logs, what is computed from samples, what is written; and the
learning tables, with cells that fail, that are missing and that are old."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from benchmarks import language, lm_speed, measure, ratios, results, settings, speed
from benchmarks.peers import sb3

CONF = Path(__file__).resolve().parent.parent / "conf"


def test_steps_to_475_is_the_first_rollout_whose_mean_reaches_it():
    rows = [
        {"step": 256},  # no episode has ended yet
        {"step": 512, "rollout/ep_rew_mean": 474.9},
        {"step": 512, "eval/mean_reward": 500.0},
        {"step": 768, "rollout/ep_rew_mean": 475.0},
        {"step": 1024, "rollout/ep_rew_mean": 480.0},
    ]
    steps, curve = measure.rlx_curve(json.dumps(row) for row in rows)
    assert steps == 1024
    assert measure.steps_to(curve) == 768
    assert measure.steps_to(curve[:1]) is None


def test_means_start_with_the_first_full_window():
    episodes = [(10 * i, float(i)) for i in range(1, 6)]
    assert measure.means(episodes, window=3) == [(30, 2.0), (40, 3.0), (50, 4.0)]
    assert measure.means(episodes) == []  # fewer than 100


def test_events_reads_back_scalars_by_tag(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "PPO_1")) as writer:
        writer.add_scalar("rollout/ep_rew_mean", 20.5, 256)
        writer.add_scalar("rollout/ep_rew_mean", 21.5, 512)
        writer.add_text("hyperparameters", "none")
    assert measure.events(tmp_path) == {"rollout/ep_rew_mean": [(256, 20.5), (512, 21.5)]}


def sample(side, seed, kind, steps, cpu, reached=None, memory=100.0, last=None):
    return {
        **({"last_return": last} if last else {}),
        "side": side,
        "seed": seed,
        "kind": kind,
        "steps": steps,
        "cpu": cpu,
        "wall": cpu,
        "memory_mb": memory,
        "steps_to_475": reached,
    }


def test_the_training_rate_leaves_out_what_both_runs_pay():
    found = ratios.figures(sample("a", 1, "full", 10_000, 6.0, 5_500), sample("a", 1, "short", 1_000, 3.0))
    assert found["train_rate"] == pytest.approx(3_000)  # 9,000 more steps in 3 s
    assert found["whole_rate"] == pytest.approx(10_000 / 6)
    assert found["cpu_to_475"] == pytest.approx(3.0 + 4_500 / 3_000)


SAMPLES = [
    *(sample("ours", seed, "full", 1_000, 2.0, reached, 200.0) for seed, reached in ((1, 400), (2, 500), (3, None))),
    *(sample("ours", seed, "short", 100, 1.0) for seed in (1, 2, 3)),
    *(sample("theirs", seed, "full", 1_000, cpu, 600, 300.0) for seed, cpu in ((1, 4.0), (2, 5.0), (3, 7.0))),
    *(sample("theirs", seed, "short", 100, 1.0) for seed in (1, 2, 3)),
]


def test_ratios_are_taken_pair_by_pair_and_above_1_is_good():
    found = ratios.compare(SAMPLES, "ours", "theirs")
    assert found["rounds"] == 3
    assert found["train_rate"]["ratio"] == {"median": 4.0, "min": 3.0, "max": 6.0, "pairs": [3.0, 4.0, 6.0]}
    assert found["whole_rate"]["ratio"]["median"] == 2.5
    assert found["memory_mb"]["ratio"]["median"] == 1.5
    assert found["steps_to_475"]["ratio"] == {"median": 1.2}  # 600 over 500, of the medians
    assert found["steps_to_475"]["reached"] == [2, 3]


def test_what_was_learnt_is_compared_too_where_the_samples_say_it(tmp_path):
    samples = [
        sample(side, 1, kind, steps, 1.0 + (kind == "full"), None, 100.0, last)
        for side, last in (("ours", 300.0), ("theirs", 200.0))
        for kind, steps in (("full", 1_000), ("short", 100))
    ]
    found = ratios.compare(samples, "ours", "theirs")
    assert found["last_return"]["ratio"] == {"median": 1.5}  # more is better
    assert found["steps_to_475"]["ratio"] is None and found["steps_to_475"]["reached"] == [0, 0]
    row = "return of the last 100 episodes at the end"
    named = {"title": "x", "same_hyperparameters": True}
    assert f"| {row} " in speed.table({"comparisons": {"zoo": {**named, **found}}})
    without = {**named, **ratios.compare(SAMPLES, "ours", "theirs")}
    assert row not in speed.table({"comparisons": {"zoo": without}})
    del without["last_return"]  # measured before there was such a row
    assert "**4.00**" in speed.table({"comparisons": {"zoo": without}})


def test_a_run_that_never_gets_there_is_later_than_all_others():
    assert ratios.spread([3.0, None, 1.0]) == {"median": 3.0, "min": 1.0, "max": None}
    assert ratios.spread([None, None, 1.0]) == {"median": None, "min": 1.0, "max": None}
    assert ratios.spread([None]) is None


@pytest.mark.parametrize(
    "ours, theirs, passes", [(115, 100, True), (116, 100, False), (None, 100, False), (100, None, True)]
)
def test_the_gate_allows_15_percent_more_steps(ours, theirs, passes):
    samples = [
        sample(side, 1, kind, steps, cpu, reached)
        for side, reached in (("ours", ours), ("theirs", theirs))
        for kind, steps, cpu in (("full", 1_000, 2.0), ("short", 100, 1.0))
    ]
    assert ratios.passes_gate(ratios.compare(samples, "ours", "theirs")) is passes


def test_the_table_is_put_between_the_markers_and_only_there(tmp_path):
    result = {
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
        "machine": {"cpu": "a CPU", "cores": 2, "load": [0.5, 0.4, 0.3]},
        "versions": {"python": "3.11", "torch": "2"},
        "comparisons": {
            "zoo": {"title": "x", "same_hyperparameters": True, **ratios.compare(SAMPLES, "ours", "theirs")}
        },
    }
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    page.write_text(f"before\n{speed.BEGIN}\nold\n{speed.END}\nafter\n")
    other.write_text("no markers\n")
    assert speed.rewrite([page, other, tmp_path / "absent.md"], {"ppo": result, "dqn": result}) == [page]
    text = page.read_text()
    assert text.startswith(f"before\n{speed.BEGIN}\n**PPO.** Measured 2026-01-02 at commit abc")
    assert text.endswith(f"{speed.END}\nafter\n") and "old" not in text
    assert text.count("**4.00** (3.00 to 6.00)") == 2 and "\n\n**DQN.** Measured" in text
    assert speed.rewrite([page], {"ppo": result, "dqn": result}) == []


# -- both sides have the same hyper-parameters -----------------------------------------------------------------


def ours(algo, name, section="algo"):
    """A section of the configuration of experiment=bench_ALGO_NAME, numbers as Hydra reads them."""
    base = {"algo": f"algo/{algo}", "model": "model/mlp"}[section]
    default = yaml.safe_load((CONF / f"{base}.yaml").read_text())
    found = {
        **default,
        **yaml.safe_load((CONF / "experiment" / f"bench_{algo}_{name}.yaml").read_text()).get(section, {}),
    }
    return {key: _number(value) for key, value in found.items()}


def _number(value):
    """YAML 1.1 takes 1e-3 for a string."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def test_every_peer_has_an_experiment_and_a_number_of_environments():
    assert set(sb3.NUM_ENVS) == set(sb3.HYPERPARAMETERS) >= set(sb3.FALLING)
    for word, bench in speed.BENCHES.items():
        algo = word.partition("_")[0]
        for plan in bench.plans:
            for side in plan.sides:
                kind, name, members, workers = speed.parts(side)
                assert speed.title(algo, side)
                if kind == "sb3":
                    assert (algo, name) in sb3.HYPERPARAMETERS
                elif kind == "rlx" and name != "own":
                    assert (CONF / "experiment" / f"bench_{algo}_{name}.yaml").exists()
                assert not workers or (bench.cores > 1 and name in speed.WORKERS)
        sides = {side for plan in bench.plans for side in plan.sides}
        assert {side for it in bench.comparisons for side in (it.ours, it.theirs)} == sides


@pytest.mark.parametrize("name", sorted(name for algo, name in sb3.HYPERPARAMETERS if algo == "ppo"))
def test_ppo_and_its_peer_have_the_same_hyper_parameters(name):
    mine, theirs = ours("ppo", name), sb3.HYPERPARAMETERS["ppo", name]
    assert mine["num_envs"] == sb3.NUM_ENVS["ppo", name]
    assert mine["num_steps"] == theirs["n_steps"]
    assert mine["num_envs"] * mine["num_steps"] / mine["num_minibatches"] == theirs["batch_size"]
    assert mine["num_epochs"] == theirs["n_epochs"]
    assert math.isclose(mine["vf_coef"] / 2, theirs["vf_coef"])  # theirs is of (V - R)^2, ours of half of it
    assert mine["clip_vloss"] == (theirs["clip_range_vf"] or 0)
    assert mine["anneal_lr"] == ("learning_rate" in sb3.FALLING.get(("ppo", name), ()))
    assert mine["anneal_clip"] == ("clip_range" in sb3.FALLING.get(("ppo", name), ()))
    assert mine["objective"] == "clip" and mine["adam_eps"] == 1e-5 and not mine["target_kl"]
    same = ["gamma", "gae_lambda", "ent_coef", "max_grad_norm", "normalize_advantage"]
    assert {key: mine[key] for key in same} == {key: theirs[key] for key in same}
    assert (mine["lr"], mine["clip_coef"]) == (theirs["learning_rate"], theirs["clip_range"])


def test_a2c_and_its_peer_have_the_same_hyper_parameters():
    mine, theirs = ours("a2c", "zoo"), sb3.HYPERPARAMETERS["a2c", "zoo"]
    assert (mine["num_envs"], mine["num_steps"]) == (sb3.NUM_ENVS["a2c", "zoo"], theirs["n_steps"])
    assert math.isclose(mine["vf_coef"] / 2, theirs["vf_coef"])
    assert mine["optimizer"] == "rmsprop" and theirs["use_rms_prop"]  # epsilon outside the root, as torch has it
    assert (mine["lr"], mine["optimizer_eps"]) == (theirs["learning_rate"], theirs["rms_prop_eps"])
    assert not mine["anneal_lr"] and ("a2c", "zoo") not in sb3.FALLING
    same = ["gamma", "gae_lambda", "ent_coef", "max_grad_norm", "normalize_advantage"]
    assert {key: mine[key] for key in same} == {key: theirs[key] for key in same}
    model = ours("a2c", "zoo", "model")  # Stable-Baselines3's MlpPolicy
    assert (model["hidden"], model["activation"], model["orthogonal_init"]) == ([64, 64], "tanh", True)


def check_dqn(mine, model, hidden):
    """What both comparisons of DQN share; nothing beyond the algorithm of 2015 is on."""
    assert mine["num_envs"] == 1 and mine["n_step"] == 1 and mine["adam_eps"] == 1e-8
    assert not (mine["double"] or mine["dueling"] or mine["prioritized"])
    assert (model["hidden"], model["activation"], model["orthogonal_init"]) == (hidden, "relu", False)


@pytest.mark.parametrize("name", ["zoo", "huber"])
def test_dqn_and_stable_baselines3_have_the_same_hyper_parameters(name):
    mine, theirs = ours("dqn", name), sb3.HYPERPARAMETERS["dqn", name]
    check_dqn(mine, ours("dqn", name, "model"), theirs["policy_kwargs"]["net_arch"])
    names = {
        "lr": "learning_rate", "epsilon": "exploration_initial_eps", "final_epsilon": "exploration_final_eps",
        "target_update_every": "target_update_interval",
    }  # fmt: skip
    same = [
        "batch_size", "buffer_size", "learning_starts", "gamma", "train_freq", "gradient_steps", "exploration_fraction",
        "max_grad_norm", "tau",
    ]  # fmt: skip
    for key, their_name in {**names, **dict(zip(same, same))}.items():
        assert mine[key] == theirs[their_name], key
    assert mine["loss"] == "huber" and sb3.NUM_ENVS["dqn", name] == 1


def test_dqn_and_cleanrl_have_the_same_hyper_parameters():
    """Against the defaults of CleanRL's dqn.py, which is run as it is."""
    mine = ours("dqn", "cleanrl")
    check_dqn(mine, ours("dqn", "cleanrl", "model"), [120, 84])
    theirs = {
        "lr": 2.5e-4, "buffer_size": 10_000, "gamma": 0.99, "tau": 1.0, "target_update_every": 500, "batch_size": 128,
        "epsilon": 1.0, "final_epsilon": 0.05, "exploration_fraction": 0.5, "learning_starts": 10_000, "train_freq": 10,
        "gradient_steps": 1, "max_grad_norm": 0,
    }  # fmt: skip
    assert {key: mine[key] for key in theirs} == theirs


SAME = {
    "learning_rate": "lr", "target_policy_noise": "target_noise",
    **{name: name for name in ("buffer_size", "learning_starts", "batch_size", "tau", "gamma", "train_freq")},
    **{name: name for name in ("gradient_steps", "policy_delay", "target_noise_clip")},
}  # fmt: skip


@pytest.mark.parametrize("algo", ["sac", "td3"])
def test_continuous_control_is_compared_on_the_same_values(algo):
    mine, theirs = ours(algo, "defaults"), sb3.HYPERPARAMETERS[algo, "defaults"]
    numbers = {key: value for key, value in theirs.items() if key in SAME}
    assert {key: mine[SAME[key]] for key in numbers} == numbers
    assert set(theirs) - set(numbers) <= {"policy_kwargs", "ent_coef", "target_entropy"}
    model = ours(algo, "defaults", "model")
    assert model["hidden"] == theirs["policy_kwargs"]["net_arch"] and model["activation"] == "relu"
    assert not model["orthogonal_init"] and mine["num_critics"] == 2 and mine["max_grad_norm"] == 0
    if algo == "sac":  # both "auto"
        assert mine["tune_alpha"] and mine["target_entropy"] is None and mine["alpha"] == 1
    else:
        assert mine["noise_std"] == 0


def test_the_peer_stands_on_the_defaults_of_stable_baselines3():
    """What the scripts leave out is Stable-Baselines3's default, and what they call so is."""
    pytest.importorskip("stable_baselines3")
    import inspect

    from stable_baselines3 import A2C, DQN, PPO, SAC, TD3

    for (algo, name), values in sb3.HYPERPARAMETERS.items():
        kind = {"ppo": PPO, "a2c": A2C, "dqn": DQN, "sac": SAC, "td3": TD3}[algo]
        known = inspect.signature(kind.__init__).parameters
        assert set(values) <= set(known)
        if algo in ("a2c", "sac", "td3") or name == "halfcheetah":
            values = {key: value for key, value in values.items() if key != "policy_kwargs"}
            assert all(known[key].default == value for key, value in values.items())
        if algo == "dqn":
            for key in ("max_grad_norm", "tau", "exploration_initial_eps", "gamma"):
                assert known[key].default == values[key]
        if name == "lunarlander":
            for key in ("max_grad_norm", "learning_rate", "clip_range"):
                assert known[key].default == values[key]


@pytest.mark.parametrize("name", ["lunarlander", "halfcheetah"])
def test_other_environments_are_compared_on_the_same_one(name):
    mine = yaml.safe_load((CONF / "experiment" / f"bench_ppo_{name}.yaml").read_text())
    place = next(default["override /env"] for default in mine["defaults"] if "override /env" in default)
    assert yaml.safe_load((CONF / "env" / f"{place}.yaml").read_text())["id"] == sb3.ENVIRONMENTS["ppo", name]
    normalized = [mine.get("env", {}).get(f"normalize_{what}", False) for what in ("obs", "reward")]
    assert normalized == 2 * [("ppo", name) in sb3.NORMALIZED]
    assert ours("ppo", name, "model")["hidden"] == [64, 64]  # MlpPolicy
    for side in speed.WORKERS:  # the same rollout from more environments
        words = dict(word.split("=") for word in speed.WORKERS[side][0].split())
        assert set(words) <= {"algo.num_envs", "algo.num_steps"}
        if words:
            theirs = int(speed.WORKERS[side][1][1])
            count, steps = int(words["algo.num_envs"]), int(words["algo.num_steps"])
            here = ours("ppo", side)
            assert theirs == count and count * steps == here["num_envs"] * here["num_steps"]


def test_the_commands_of_both_sides_name_steps_seed_and_place(tmp_path):
    peers = speed.Peers("dqn", "rlx", "python", tmp_path / "cleanrl" / "dqn.py", "theirs")
    line = {
        side: " ".join(peers.command(side, 5, 7, tmp_path)) for side in ("rlx_zoo", "rlx_own", "sb3_zoo", "cleanrl")
    }
    assert line["rlx_zoo"] == f"rlx train experiment=bench_dqn_zoo total_steps=5 seed=7 runs_dir={tmp_path}"
    many, apart = (peers.command(f"rlx_{name}", 5, 7, tmp_path) for name in ("zoo_x16", "lunarlander_workers"))
    assert many[1:5] == ["train", "-m", "experiment=bench_dqn_zoo", "total_steps=5"] and "seed=range(7,23)" in many
    assert "env.backend=async" in apart
    assert peers.command("sb3_halfcheetah_workers", 5, 7, tmp_path)[-3:] == ["--workers", "--environments", "4"]
    assert peers.command("purejaxrl_zoo_x16", 5, 7, tmp_path)[-2:] == ["--members", "16"]
    assert line["rlx_own"].startswith("rlx train algo=dqn env=cartpole total_steps=5 seed=7")
    assert line["sb3_zoo"] == f"python {speed.SB3} dqn zoo --total-steps 5 --log-dir {tmp_path} --seed 7"
    assert line["cleanrl"].startswith("theirs ") and "cleanrl/dqn.py --total-timesteps 5" in line["cleanrl"]


def test_what_has_no_peer_is_not_run():
    plans = {algo: bench.plans for algo, bench in speed.BENCHES.items()}
    absent = ["cleanrl", "purejaxrl"]
    assert speed.sides_of(plans["dqn"][1], absent) == [] and "cleanrl" in speed.sides_of(plans["dqn"][1], [])
    assert speed.sides_of(plans["ppo"][1], absent) == ["rlx_cleanrl", "sb3_cleanrl"]
    assert speed.sides_of(plans["ppo"][0], ["cleanrl"])[-1] == "purejaxrl_zoo"


def test_cleanrls_script_is_looked_for_by_algorithm(tmp_path):
    (tmp_path / "cleanrl").mkdir()
    (tmp_path / "cleanrl" / "dqn.py").write_text("")
    assert speed.find_cleanrl(tmp_path, "dqn") == (tmp_path / "cleanrl" / "dqn.py").resolve()
    assert speed.find_cleanrl(tmp_path, "a2c") is None and speed.find_cleanrl(None, "ppo") is None
    with pytest.raises(measure.BenchmarkFailed, match="no cleanrl/ppo.py"):
        speed.find_cleanrl(tmp_path, "ppo")


def test_the_tables_are_made_again_from_the_files_there_are(tmp_path, capsys):
    assert speed.main(["--tables", "--output", str(tmp_path)]) == 2
    kept = speed.RESULTS / "speed_ppo.json"
    (tmp_path / kept.name).write_text(kept.read_text())
    assert speed.main(["--tables", "--output", str(tmp_path)]) == 0
    assert "PPO. Measured" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        speed.main(["--only", "ppo,grpo"])


# -- the learning tables ---------------------------------------------------------------------------------------

POINT = results.Target("ppo", "cartpole", 475.0)
EXACT = results.Target("q_learning", "grid", None, exact=True)


def cell(mean, **more):
    return {"mean": mean, "steps": 1000, "seconds": 2.0, **more}


def test_the_targets_are_distinct_and_their_algorithms_and_environments_exist():
    pairs = [target.pair for target in results.TARGETS]
    assert len(set(pairs)) == len(pairs)
    for target in results.TARGETS:
        assert (CONF / "algo" / f"{target.algo}.yaml").exists() and (CONF / "env" / f"{target.env}.yaml").exists(), (
            target
        )


def test_the_rule_is_eight_of_ten_seeds():
    for reached, holds in ((8, True), (7, False)):
        row = results.summary(POINT, [cell(475.0)] * reached + [cell(474.9)] * (10 - reached))
        assert (row["passed"], row["holds"]) == (reached, holds)
    few = results.summary(POINT, [cell(500.0)] * 9)
    assert few["holds"] is None and few["interval"] is None and "fewer than 10 seeds" in results.table([few])


def test_the_interval_holds_the_interquartile_mean_which_is_that_of_the_middle_half():
    means = np.random.default_rng(0).normal(480, 10, 10)
    row = results.summary(POINT, [cell(float(mean)) for mean in means])
    assert row["iqm"] == pytest.approx(np.sort(means)[2:8].mean()) and row["worst"] == means.min()
    low, high = row["interval"]
    assert low < row["iqm"] < high and high - low < 4 * stats.sem(means) * 2


def test_a_failed_run_is_a_seed_that_missed():
    row = results.summary(POINT, [cell(500.0)] * 9 + [{"failed": "exit 1: x"}])
    assert (row["seeds"], row["passed"], row["failed"], row["interval"], row["worst"]) == (10, 9, 1, None, None)
    text = results.table([row])
    assert "9 of 10 (1 failed)" in text and "| failed |" in text
    nothing = results.summary(POINT, [{"failed": "exit 1: x"}] * 10)
    assert nothing["holds"] is False and "0 of 10 (10 failed, missed)" in results.table([nothing])
    assert results.summary(POINT, []) is None


def test_three_seeds_are_a_median_and_a_range_and_an_indication():
    row = results.summary(results.Target("td3", "hopper", 2200.0, seeds=3), [cell(m) for m in (2500.0, 900.0, 2300.0)])
    assert row["holds"] is None and row["interval"] is None and row["range"] == [900.0, 2300.0, 2500.0]
    assert "2 of 3 (an indication) | median 2300.0, 900.0 to 2500.0 |" in results.table([row])


def test_what_was_not_run_is_listed_with_its_budget():
    lines = results.table([results.summary(POINT, [cell(500.0)])]).splitlines()
    assert "| td3 | hopper | 300,000 | 2200 | not run | - | - | - |" in lines
    assert len(lines) == 2 + len(results.TARGETS) and "not run" not in lines[2]


def test_an_exact_target_is_reached_by_equality_up_to_rounding():
    cells = [cell(0.7 - 1e-12, optimum=0.7)] * 9 + [cell(0.6999, optimum=0.7)]
    row = results.summary(EXACT, cells)
    assert (row["threshold"], row["passed"], row["judged"]) == (0.7, 9, "exact")
    assert "| 0.7, exact | 9 of 10 |" in results.table([row])


@pytest.mark.parametrize(
    "only, pairs",
    [
        ("dqn_acrobot", {"dqn_acrobot"}),
        ("dqn,acrobot", {"dqn_acrobot"}),
        ("ppo_hopper,taxi", {"ppo_hopper", "q_learning_taxi", "sarsa_taxi", "dyna_q_taxi"}),
        ("hopper", {"ppo_hopper", "td3_hopper", "sac_hopper"}),
        ("reinforce", {"reinforce_grid"}),
        (
            "ppo",
            {
                f"ppo_{env}"
                for env in ("cartpole", "acrobot", "pendulum", "mountaincar_continuous", "lunarlander", "grid")
            },
        ),
    ],
)
def test_only_takes_algorithms_environments_and_pairs(only, pairs):
    assert {target.pair for target in results.chosen(only, False)} == pairs


def test_slow_targets_run_when_asked_for():
    slow = {target.pair for target in results.TARGETS if target.slow}
    assert slow == {"ppo_hopper", *(f"{algo}_{env}" for algo, env, _, _ in results.LONG)}
    assert not slow & {target.pair for target in results.chosen("", False)}
    assert slow <= {target.pair for target in results.chosen("", True)}
    assert {"ppo_hopper", "ppo_halfcheetah"} <= {target.pair for target in results.chosen("ppo", True)}
    with pytest.raises(SystemExit, match="--only=ppoo"):
        results.chosen("ppoo", False)


def test_a_curve_is_thinned_to_few_points_that_keep_its_ends():
    curve = [(i, i / 3) for i in range(1, 1001)]
    thin = results.thinned(curve)
    assert len(thin) == results.POINTS and thin[0] == [1, 0.3333] and thin[-1] == [1000, 333.3]
    assert results.thinned(curve[:3]) == [[1, 0.3333], [2, 0.6667], [3, 1.0]] and results.thinned([]) == []


def test_cells_that_fail_are_kept_and_tried_again_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    runs = []

    def run_cell(target, seed):
        runs.append(seed)
        return {"failed": "exit 1: x"} if seed == 2 and runs.count(2) == 1 else cell(seed, curve=[[1, 2.0]])

    monkeypatch.setattr(results, "run_cell", run_cell)
    cells = [(POINT, seed) for seed in (1, 2, 3)]
    assert results.fill(cells, 1) == 1 and runs == [1, 2, 3]
    assert results.read_cell(results.cell_path(POINT, 2)) == {"failed": "exit 1: x"}
    assert results.fill(cells, 1) == 0 and runs == [1, 2, 3, 2]
    assert results.read_cell(results.cell_path(POINT, 3)) == cell(3, curve=[[1, 2.0]])


def test_an_interrupted_run_is_no_failure_and_one_that_ends_says_its_cpu_seconds():
    with pytest.raises(KeyboardInterrupt):
        results._run([sys.executable, "-c", "import sys; sys.exit(130)"])
    text, cpu = results._run([sys.executable, "-c", "sum(range(10**7)); print('done')"])
    assert text == "done\n" and cpu > 0.02
    with pytest.raises(results.CellFailed, match="exit 2: no such"):
        results._run(
            [sys.executable, "-c", "import sys; print('a\\nrlx: error: no such', file=sys.stderr); sys.exit(2)"]
        )


def test_the_cells_there_are_make_page_and_picture_old_ones_without_curves_too(tmp_path, monkeypatch):
    old = results.RESULTS / "ppo"
    assert len(list(old.glob("*/seed_*.json"))) >= 40  # published: they must stay
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    for file in old.glob("cartpole/seed_*.json"):
        (tmp_path / "ppo" / "cartpole").mkdir(parents=True, exist_ok=True)
        (tmp_path / "ppo" / "cartpole" / file.name).write_text(file.read_text())
    for target in (results.Target("trpo", "cartpole", 475.0), EXACT):
        for seed in (1, 2):
            path = results.cell_path(target, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            curve = [[100, 10.0 * seed], [1000, 400.0]]
            path.write_text(results.dumped(cell(0.7, optimum=0.7, curve=curve)))
    path = results.cell_path(results.Target("dqn", "cartpole", 475.0), 1)
    path.parent.mkdir(parents=True)
    path.write_text(results.dumped({"failed": "exit 1: x"}))
    assert results.main(["--table"]) == 0
    page = (tmp_path / "README.md").read_text()
    assert "| ppo | cartpole | 100,096 | 475 | 10 of 10 | 500.0 [500.0, 500.0] |" in page
    assert "| dqn | cartpole | - | 475 | 0 of 1 (1 failed, fewer than 10 seeds) |" in page
    assert {row["algo"] for row in json.loads((tmp_path / "summary.json").read_text())} == {
        "ppo", "trpo", "dqn", "q_learning",
    }  # fmt: skip
    assert (tmp_path / "learning.png").stat().st_size > 10_000


def test_cells_were_made_with_what_their_presets_say_today():
    words = {results.cell_path(target, 1).parent: target.words for target in results.TARGETS}
    words |= {
        language.cell_path(task, stage, 1).parent: stage.words(task)
        for task, stages in language.TASKS.items()
        for stage in stages
    }
    folders = {path.parent for path in results.RESULTS.rglob("seed_*.json")}
    assert folders <= {*words} and all((folder / settings.NAME).exists() for folder in folders)
    for folder in folders:
        assert settings.strayed(folder, settings.now(words[folder])) == [], folder


def test_cells_of_other_values_are_not_added_to(tmp_path):
    words = ["algo=ppo", "env=cartpole"]
    settings.settle(tmp_path, words)
    settings.settle(tmp_path, words)
    then = json.loads((tmp_path / settings.NAME).read_text())
    assert then["algo.clip_coef"] == 0.2 and "seed" not in then and "algo.engine" not in then
    with pytest.raises(SystemExit, match=r"cells of other values: algo.clip_coef=0.2 \(now 0.1\); remove it"):
        settings.settle(tmp_path, [*words, "algo.clip_coef=0.1"])
    del then["algo.clip_coef"]  # a key that came later
    (tmp_path / settings.NAME).write_text(json.dumps(then))
    settings.settle(tmp_path, [*words, "algo.clip_coef=0.1"])


def test_what_presets_promise_is_what_their_cells_say():
    written = results.promises()
    assert {path.stem for path in results.PRESETS.glob("*.yaml")} - {"none"} <= {path.stem for path in written}
    for path, text in written.items():
        assert path.read_text() == text, f"{path.name}: python -m benchmarks.results --promises"
    rows = [row for target, cells in results.measured() if (row := results.summary(target, cells))]
    assert json.loads((results.RESULTS / "summary.json").read_text()) == json.loads(json.dumps(rows))


def test_a_promise_typed_by_hand_goes_and_the_measured_one_takes_its_place():
    typed = "# x\ntotal_steps: 5\nexpect:\n  score: 999\n  source: me\nalgo:\n  lr: 1e-3\n"
    assert results._promising(typed, None) == "# x\ntotal_steps: 5\nalgo:\n  lr: 1e-3\n"
    new = results._promising(typed, {"score": 1.5, "interval": [1.0, 2.0], "seeds": 10, "steps": 100_096})
    block = "expect:\n  score: 1.5\n  interval: [1.0, 2.0]\n  seeds: 10\n  steps: 100_096\n"
    assert new == f"# x\ntotal_steps: 5\n{block}algo:\n  lr: 1e-3\n"


def test_every_figure_of_speed_is_read_from_the_measurements(tmp_path):
    found = {algo: path for algo in speed.BENCHES if (path := results.RESULTS / f"speed_{algo}.json").exists()}
    everything = {algo: json.loads(path.read_text()) for algo, path in found.items()}
    pages = [tmp_path / page.name for page in speed.PAGES]
    for page, copy in zip(speed.PAGES, pages):
        copy.write_text(page.read_text())
    assert speed.rewrite(pages, everything) == []  # python -m benchmarks.speed --tables
    head, _, rest = (results.ROOT / "README.md").read_text().partition(speed.SHORT_BEGIN)
    others = head + rest.partition(speed.SHORT_END)[2]
    assert rest and not re.findall(r"\d[\d.,]* ?(?:x|times|%)(?= |[.,;:)]|$)", others)
    waited = everything["ppo"]["comparisons"]["own"]["cpu_to_475"]["rlx"]["median"]
    assert {float(seconds) for seconds in re.findall(r"([\d.]+) CPU seconds", others)} == {round(waited)}


def test_the_table_of_language_models_is_that_of_its_measurements():
    page = lm_speed.PAGE.read_text().partition(lm_speed.BEGIN)[2].partition(lm_speed.END)[0]
    assert page.strip() == lm_speed.table(json.loads(lm_speed.OUT.read_text()))


def test_no_two_algorithms_of_a_panel_have_one_colour():
    algos = sorted({target.algo for target in results.TARGETS})
    found = [(results.Target(algo, "grid", 0.69), [cell(0.7, curve=[[1, 0.1], [2, 0.2]])]) for algo in algos]
    panels = results._panels(found)
    assert [target.algo for _, here in panels for target, _ in here] == algos and panels[0][0].startswith("grid (1 of ")
    for _, here in panels:
        assert len({*results._colours([target.algo for target, _ in here])}) == len(here)
    assert results._colours(["ppo", "q_learning"])[0] == results.COLOURS["ppo"]
