"""The pure parts of benchmarks.speed: what is read from logs, what is computed from samples, what is written."""

import json
import math
from pathlib import Path

import pytest
import yaml

from benchmarks import measure, ratios, speed
from benchmarks.peers import sb3_ppo

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


def sample(side, seed, kind, steps, cpu, reached=None, memory=100.0):
    return {
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


def test_a_run_that_never_gets_there_is_later_than_all_others():
    assert ratios.spread([3.0, None, 1.0]) == {"median": 3.0, "min": 1.0, "max": None}
    assert ratios.spread([None, None, 1.0]) == {"median": None, "min": 1.0, "max": None}
    assert ratios.spread([None]) is None


@pytest.mark.parametrize(
    "ours, theirs, passes",
    [(115, 100, True), (116, 100, False), (None, 100, False), (100, None, True)],
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
        "comparisons": {"zoo": ratios.compare(SAMPLES, "ours", "theirs")},
    }
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    page.write_text(f"before\n{speed.BEGIN}\nold\n{speed.END}\nafter\n")
    other.write_text("no markers\n")
    assert speed.rewrite([page, other, tmp_path / "absent.md"], result) == [page]
    text = page.read_text()
    assert text.startswith(f"before\n{speed.BEGIN}\nMeasured 2026-01-02 at commit abc")
    assert text.endswith(f"{speed.END}\nafter\n") and "old" not in text
    assert "**4.00** (3.00 to 6.00)" in text
    assert speed.rewrite([page], result) == []


@pytest.mark.parametrize("name", sorted(sb3_ppo.HYPERPARAMETERS))
def test_the_peer_has_the_hyper_parameters_of_the_experiment(name):
    default = yaml.safe_load((CONF / "algo" / "ppo.yaml").read_text())
    ours = {**default, **yaml.safe_load((CONF / "experiment" / f"bench_ppo_{name}.yaml").read_text())["algo"]}
    ours = {key: float(value) if key in ("lr", "adam_eps") else value for key, value in ours.items()}  # YAML 1.1: 1e-3
    theirs = sb3_ppo.HYPERPARAMETERS[name]
    assert ours["num_envs"] == sb3_ppo.NUM_ENVS[name]
    assert ours["num_steps"] == theirs["n_steps"]
    assert ours["num_envs"] * ours["num_steps"] / ours["num_minibatches"] == theirs["batch_size"]
    assert ours["num_epochs"] == theirs["n_epochs"]
    assert math.isclose(ours["vf_coef"] / 2, theirs["vf_coef"])  # theirs is of (V - R)^2, ours of half of it
    assert ours["clip_vloss"] == (theirs["clip_range_vf"] or 0)
    assert ours["anneal_lr"] == ("learning_rate" in sb3_ppo.FALLING[name])
    assert ours["anneal_clip"] == ("clip_range" in sb3_ppo.FALLING[name])
    assert ours["objective"] == "clip" and ours["adam_eps"] == 1e-5 and not ours["target_kl"]
    same = ["gamma", "gae_lambda", "ent_coef", "max_grad_norm", "normalize_advantage"]
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
    assert (ours["lr"], ours["clip_coef"]) == (theirs["learning_rate"], theirs["clip_range"])
