"""rlx plot: which runs become which lines, the mean and the band, the notes, the errors, the picture."""

from __future__ import annotations

import json
import math
import socket
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_line import Forks, imported

from rlx.analysis.curves import bands, build, curves, draw
from rlx.base.errors import UserError
from rlx.config import keys
from rlx.rundir import metrics, query

METRIC = "rollout/ep_rew_mean"


def make_run(
    root: Path,
    name: str,
    points: Sequence[tuple[int, float]],
    /,
    seed: int = 1,
    env: str = "cartpole",
    status: str = "finished",
    torn: bool = False,
    metric: str = METRIC,
    **algo: Any,
) -> Path:
    """A run directory as rlx train leaves one; every step took a tenth of a second."""
    path = root / name
    path.mkdir(parents=True)
    config = {
        "seed": seed, "total_steps": 100, "runs_dir": str(root), "threads": 1, "video": seed == 1,
        "expect": {"score": seed}, "env": {"name": env, "id": f"{env}-v1"}, "algo": {"name": "vpg", "lr": 1e-3, **algo},
    }  # fmt: skip
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "run.json").write_text(json.dumps({"algo": "vpg", "env": env, "seed": seed}))
    (path / "status.json").write_text(json.dumps({"status": status, "host": socket.gethostname(), "pid": 0}))
    lines = [json.dumps({"step": x, metric: y, "time/time_elapsed": x / 10}) for x, y in points]
    (path / "metrics.jsonl").write_text("\n".join([*lines, f'{{"step": 9, "{metric}": 1' if torn else ""]))
    return path


def lines_of(root: Path, **options: Any) -> list[build.Line]:
    [lines] = build.build(query.find([str(root)]), options.pop("metric", METRIC), **options).panels.values()
    return lines


def ramp(slope: float, start: int = 0, end: int = 100) -> list[tuple[int, float]]:
    return [(x, slope * x) for x in range(start, end + 1, 10)]


# -- lines ---------------------------------------------------------------------------------------------------------


def test_seeds_are_one_line_and_what_differs_is_in_the_legend(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        for weight in ("gae", "baseline"):
            make_run(tmp_path, f"{weight}{seed}", ramp(seed), seed, weight=weight)
    lines = lines_of(tmp_path)
    assert {line.label for line in lines} == {"weight=gae (3 seeds)", "weight=baseline (3 seeds)"}
    assert {line.keys["algo.weight"] for line in lines} == {"gae", "baseline"}


def test_lines_come_in_the_order_in_which_their_runs_began(tmp_path: Path) -> None:
    for job in (0, 1, 2, 10, 11):
        make_run(tmp_path, f"{job}_x", ramp(1), lr=job)
    assert [line.keys["algo.lr"] for line in lines_of(tmp_path)] == [0, 1, 2, 10, 11]


def test_one_configuration_is_named_by_its_algorithm(tmp_path: Path) -> None:
    make_run(tmp_path, "a", ramp(1))
    assert [line.label for line in lines_of(tmp_path)] == ["vpg (1 seed)"]


def test_two_algorithms_are_told_apart_by_name_whatever_else_differs(tmp_path: Path) -> None:
    make_run(tmp_path, "a", ramp(1), gamma=0.9)
    make_run(tmp_path, "b", ramp(1), name="dqn", lr=1e-4, tau=1)
    assert [line.label for line in lines_of(tmp_path)] == ["dqn (1 seed)", "vpg (1 seed)"]


def test_of_many_keys_that_differ_those_that_tell_lines_apart_are_shown_and_the_rest_noted(tmp_path: Path) -> None:
    make_run(tmp_path, "a", ramp(1), b=1, c=1, d=1, e=1)
    make_run(tmp_path, "b", ramp(1), b=2, c=2, d=2, e=2)
    found = build.build(query.find([str(tmp_path)]), METRIC)
    assert [line.label for line in found.panels["cartpole"]] == ["b=1 (1 seed)", "b=2 (1 seed)"]
    assert found.notes == ["the lines of cartpole differ in algo.c, algo.d, algo.e too"]


def test_what_is_kept_apart_is_at_least_what_the_config_hash_leaves_out() -> None:
    left_out = {"seed", *(key for key, meaning in keys.TABLE.items() if meaning.row == keys.MACHINE)}
    assert left_out and not any(keys.TABLE[key].curve for key in left_out)


def test_a_repeated_run_is_no_further_seed_and_the_longest_one_counts(tmp_path: Path) -> None:
    make_run(tmp_path, "1", ramp(1))
    make_run(tmp_path, "2", ramp(2))
    make_run(tmp_path, "3", ramp(3, end=50))
    found = build.build(query.find([str(tmp_path)]), METRIC)
    assert [curve.path.name for curve in found.panels["cartpole"][0].curves] == ["2"]
    assert found.notes == ["2 earlier runs of the same configuration and seed left out"]


def test_by_pools_what_is_not_named_and_says_so(tmp_path: Path) -> None:
    for i, (lr, weight) in enumerate([(1, "gae"), (2, "gae"), (1, "baseline")]):
        make_run(tmp_path, f"r{i}", ramp(i), lr=lr, weight=weight)
    found = build.build(query.find([str(tmp_path)]), METRIC, by=["weight"])
    assert sorted(line.label for line in found.panels["cartpole"]) == [
        "weight=baseline (1 seed)",
        "weight=gae (2 runs)",
    ]
    assert found.notes == ["weight=gae (2 runs): one line for runs that differ in algo.lr"]
    assert len(lines_of(tmp_path, by=["seed"])) == 1 and len(lines_of(tmp_path, by=["lr", "algo.weight"])) == 3


def test_group_by_is_by_and_o_is_out_and_seconds_are_time(tmp_path: Path, forks: Forks) -> None:
    for i, (lr, weight) in enumerate([(1, "gae"), (2, "gae"), (1, "baseline")]):
        make_run(tmp_path / "runs", f"r{i}", ramp(i + 1), lr=lr, weight=weight)
    one, other = (
        forks("plot", "runs", "--json", *words, cwd=tmp_path)
        for words in (("--by", "weight", "--x", "time"), ("--group-by", "weight", "--x", "seconds"))
    )
    assert one.code == 0 and one.out == other.out and "time/time_elapsed" in one.out
    assert forks("plot", "runs/r*", "-o", "a.png", cwd=tmp_path).code == 0 and (tmp_path / "a.png").exists()


def test_each_environment_is_a_panel(tmp_path: Path) -> None:
    make_run(tmp_path, "a", ramp(1), env="cartpole")
    make_run(tmp_path, "b", ramp(1), env="acrobot", gamma=0.9)
    found = build.build(query.find([str(tmp_path)]), METRIC)
    assert {env: [line.label for line in lines] for env, lines in found.panels.items()} == {
        "acrobot": ["vpg (1 seed)"],
        "cartpole": ["vpg (1 seed)"],
    }


# -- mean and band -------------------------------------------------------------------------------------------------


def test_the_mean_of_straight_lines_is_straight_on_any_grid(tmp_path: Path) -> None:
    make_run(tmp_path, "a", [(0, 0.0), (30, 30.0), (100, 100.0)], 1)
    make_run(tmp_path, "b", [(0, 0.0), (70, 210.0), (100, 300.0)], 2)
    [line] = lines_of(tmp_path)
    assert np.allclose(line.mean, 2 * np.array(line.x))
    assert np.allclose(line.low, line.x) and np.allclose(line.high, 3 * np.array(line.x)) and line.band == "min-max"


def test_a_run_counts_only_within_its_own_range(tmp_path: Path) -> None:
    make_run(tmp_path, "a", [(0, 1.0), (100, 1.0)], 1)
    make_run(tmp_path, "b", [(0, 3.0), (40, 3.0)], 2)
    make_run(tmp_path, "c", [(0, 5.0), (100, 5.0)], 3)
    [line] = lines_of(tmp_path)
    assert line.mean[0] == 3.0 and line.mean[-1] == 3.0 and max(line.x) == 100
    assert line.low[-1] == 1.0 and line.high[-1] == 5.0
    short = make_run(tmp_path, "d", [(0, 7.0), (40, 7.0)], 4)
    make_run(tmp_path, "e", [(0, 9.0), (40, 9.0)], 5)
    [line] = lines_of(tmp_path)
    assert max(line.x) <= 40 < 100 and short.exists()  # two of five are fewer than half


def test_the_bootstrap_interval_has_the_width_that_theory_gives() -> None:
    """Of the mean of n = 50 normal numbers: t(49) = 2.01 standard deviations of the sample over the root of n."""
    y = np.random.default_rng(0).normal(size=(50, 3))
    low, high = bands.interval(y, ["one"] * 50)
    error = y.std(0, ddof=1) / math.sqrt(50)
    assert np.allclose((high - low) / 2, 2.0096 * error, rtol=0.08)  # 1,000 resamples
    assert np.allclose((high + low) / 2, y.mean(0), atol=0.2 * error.min())


def test_between_two_evaluations_a_band_is_not_narrower_than_at_them(tmp_path: Path) -> None:
    """Values that are interpolated vary less than those measured: so a line has points where something was measured."""
    noise = np.random.default_rng(0).normal(size=(6, 11))
    for seed, row in enumerate(noise):
        make_run(tmp_path, f"s{seed}", [(10 * i, float(y)) for i, y in enumerate(row)], seed)
    [line] = lines_of(tmp_path)
    assert line.x == [10.0 * i for i in range(11)]
    assert np.allclose(line.mean, noise.mean(0))


def test_runs_that_are_measured_at_other_steps_have_points_at_the_steps_of_each() -> None:
    assert bands.measured([[0, 1, 2], [0.5, 1.5, 2.5]]).tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert bands.measured([[0, 1, 2], [0, 1, 2], [0, 1, 2.5]]).tolist() == [0, 1, 2]
    many = bands.measured([list(range(1001))])
    assert len(many) == bands.POINTS and many[0] == 0 and many[-1] == 1000 and set(many) <= set(range(1001))


def test_a_band_stays_inside_what_was_ever_measured(tmp_path: Path) -> None:
    for seed, score in enumerate((500, 500, 500, 500, 100)):
        make_run(tmp_path, f"s{seed}", [(0, 20.0), (100, float(score))], seed)
    [line] = lines_of(tmp_path)
    low, high = bands.interval(np.array([[500.0]] * 4 + [[100.0]]), ["one"] * 5)
    assert high[0] > 500 and line.high[-1] == 500 and line.low[-1] == pytest.approx(low[0])


def test_a_pdf_has_type_42_fonts_and_an_svg_has_its_text_as_text(tmp_path: Path) -> None:
    make_run(tmp_path, "a", ramp(1))
    make_run(tmp_path, "b", ramp(2), lr=2)
    plot = build.build(query.find([str(tmp_path)]), METRIC)
    look = draw.Look("paper", (3.4, 2.4), "A title", "", draw.labels_of(["lr=2=twice"], plot), caption=False)
    for name in ("a.pdf", "a.svg"):
        draw.draw(plot, tmp_path / name, look)
    pdf, svg = (tmp_path / "a.pdf").read_bytes(), (tmp_path / "a.svg").read_text("utf-8")
    assert b"/Type3" not in pdf and b"/TrueType" in pdf or b"/CIDFontType2" in pdf
    for text in ("A title", "mean return (training)", "twice", "lr=0.001", "environment steps"):
        assert f">{text}<" in svg
    assert "one seed a line" not in svg and 'width="244.8pt"' in svg  # 3.4 inches


def test_what_the_picture_is_told_is_checked(tmp_path: Path) -> None:
    make_run(tmp_path, "a", ramp(1))
    plot = build.build(query.find([str(tmp_path)]), METRIC)
    with pytest.raises(UserError, match=r"^--size=3.4: must be WIDTHxHEIGHT in inches from 1 to 50"):
        draw.size_of("3.4")
    with pytest.raises(UserError, match=r"^--label=dqn=DQN: must be OLD=NEW, and OLD one of: vpg$"):
        draw.labels_of(["dqn=DQN"], plot)


def test_a_stratified_interval_leaves_out_what_the_strata_differ_by() -> None:
    y = np.array([[0.0]] * 5 + [[100.0]] * 5)
    assert [float(x[0]) for x in bands.interval(y, ["a"] * 5 + ["b"] * 5)] == [50.0, 50.0]
    low, high = bands.interval(y, ["a"] * 10)
    assert low[0] < 30 and high[0] > 70


def test_the_band_is_an_interval_from_five_seeds_on(tmp_path: Path) -> None:
    for seed in range(1, 6):
        make_run(tmp_path, f"s{seed}", ramp(seed), seed)
        [line] = lines_of(tmp_path)
        assert line.band == {1: None, 5: "bootstrap95"}.get(seed, "min-max")
    slopes = range(1, 6)
    assert line.mean[-1] == pytest.approx(100 * statistics.mean(slopes))
    assert 100 < line.low[-1] < line.mean[-1] < line.high[-1] < 500


def test_the_iqm_leaves_out_a_seed_that_fails(tmp_path: Path) -> None:
    for seed, slope in enumerate((1, 2, 3, 4, 1000)):
        make_run(tmp_path, f"s{seed}", ramp(slope), seed)
    [line] = lines_of(tmp_path, stat="iqm")
    assert np.allclose(line.mean, 3 * np.array(line.x)) and line.band == "bootstrap95"
    assert draw.caption(build.build(query.find([str(tmp_path)]), METRIC, stat="iqm")).startswith(
        "line: interquartile mean over seeds; band: 95 % interval"
    )


def test_one_run_of_each_of_several_configurations_says_nothing_of_seeds(tmp_path: Path) -> None:
    for lr in range(6):
        make_run(tmp_path, f"r{lr}", ramp(lr), lr=lr)
    [line] = lines_of(tmp_path, by=["algo.name"])
    assert line.band == "min-max" and line.high[-1] == 500


def test_smoothing_is_the_mean_of_the_last_values() -> None:
    values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0]
    expected = [statistics.mean(values[max(0, i - 2) : i + 1]) for i in range(6)]
    assert curves.smoothed(values, 3) == pytest.approx(expected) and curves.smoothed(values, 1) == values


def test_x_can_be_wall_time(tmp_path: Path) -> None:
    make_run(tmp_path, "a", ramp(1))
    assert lines_of(tmp_path, x="time")[0].x == [x / 10 for x, _ in ramp(1)]


# -- damaged and unfinished runs -----------------------------------------------------------------------------------


def test_a_torn_line_is_left_out_and_unfinished_runs_are_named(tmp_path: Path) -> None:
    make_run(tmp_path, "a_torn", ramp(1), 1, torn=True)
    make_run(tmp_path, "b_failed", ramp(1, end=50), 2, status="failed")
    make_run(tmp_path, "c_dead", ramp(1, end=50), 3, status="running")  # whose process is gone
    make_run(tmp_path, "d_other", ramp(1), 4, metric="train/loss")
    make_run(tmp_path, "e_broken", ramp(1), 5)
    (tmp_path / "e_broken" / "config.yaml").write_text("a: [")
    make_run(tmp_path, "f_empty", [], 6)
    (tmp_path / "f_empty" / "metrics.jsonl").unlink()
    found = build.build(query.find([str(tmp_path)]), METRIC)
    assert [curve.seed for curve in found.panels["cartpole"][0].curves] == [1, 2, 3]
    said = [note.replace(f"{tmp_path}/", "") for note in found.notes]
    assert said == [
        "b_failed was failed at 50", "c_dead was killed at 50", f"d_other has no {METRIC}",
        "e_broken: config.yaml is unreadable", f"f_empty has no {METRIC}",
    ]  # fmt: skip


def test_what_is_no_number_is_no_point(tmp_path: Path) -> None:
    path = make_run(tmp_path, "a", [(0, 1.0)])
    rows = [{"step": 5, METRIC: value} for value in (None, "Infinity", float("nan"), True, "x", [1])]
    (path / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in [*rows, {"step": 9, METRIC: 2}]))
    assert lines_of(tmp_path)[0].x == [9.0]


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, said",
    [
        (["nix"], "nix: no such directory"),
        (["afile"], "afile: not a directory"),
        (["empty"], "no runs under empty yet"),
        (["--metric", "rollout/ep_rew"], f"did you mean '{METRIC}'? (there are: "),
        (["--metric", "zzz"], "train/approx_kl"),
        (["--by", "gama"], "did you mean 'gamma'?"),
        (["--by", "name"], "which of algo.name, env.name?"),
        (["--out", "a.jpg"], "must end in .png, .svg or .pdf"),
        (["--out", "nix/a.png"], "the directory nix does not exist"),
        (["--out", "folder.png"], "is a directory"),
        (["--x", "tim"], "did you mean 'time'?"),
        (["--stat", "median"], "did you mean 'mean'? (there are: iqm, mean)"),
        (["nix*"], "nix*: no run matches"),
        (["--profile", "--metric", "zzz"], "no run has it (there are: eval, "),
        (["--smooth", "0"], "must be >= 1"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(words: list[str], said: str, place: Path, forks: Forks) -> None:
    for name in ("empty", "folder.png"):
        (place / name).mkdir()
    done = forks("plot", *words, cwd=place)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and said in done.err, done
    assert not (place / "plot.png").exists()


def test_before_the_first_run_plot_says_how_to_start_one(tmp_path: Path, forks: Forks) -> None:
    done = forks("plot", cwd=tmp_path)
    assert done.code == 2 and "rlx train" in done.err


def test_a_picture_that_cannot_be_written_is_one_line(place: Path, forks: Forks) -> None:
    (place / "full.png").symlink_to("/dev/full")
    done = forks("plot", "--out", "full.png", cwd=place)
    assert done.code == 2 and "--out=full.png: cannot be written: No space left" in done.err, done


@pytest.mark.parametrize("suffix, first", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_suffix_decides_the_format(suffix: str, first: bytes, place: Path, forks: Forks) -> None:
    done = forks("plot", "runs/done", "latest", "--out", f"a.{suffix}", "--smooth", "2", cwd=place)
    assert done.code == 0 and done.err == "", done
    assert done.out.splitlines()[-1] == f"a.{suffix}: {METRIC}" and "ppo (1 seed)" in done.out
    assert (place / f"a.{suffix}").read_bytes().startswith(first)


def test_json_is_the_series_and_no_picture(place: Path) -> None:
    modules, out = imported("plot", "--json", "--metric", "train/approx_kl", cwd=place)
    found = json.loads(out)
    assert modules == set() and not (place / "plot.png").exists()
    [panel] = found["panels"]
    [line] = panel["lines"]
    assert panel["env"] == "cartpole" and line["seeds"] == [1] and len(line["x"]) == len(line["mean"]) > 1
    logged = [row for row in metrics.read_metrics(place / "runs/done/metrics.jsonl") if "train/approx_kl" in row]
    assert line["mean"] == [row["train/approx_kl"] for row in logged] and found["notes"] == []


def test_a_picture_needs_no_torch(place: Path) -> None:
    assert imported("plot", cwd=place)[0] == {"matplotlib"} and (place / "plot.png").stat().st_size > 5000


def test_colours_are_the_same_in_every_panel_and_the_caption_says_what_the_band_is(tmp_path: Path) -> None:
    for env in ("acrobot", "cartpole", "pendulum", "taxi"):
        for i in range(9 if env == "cartpole" else 1):
            make_run(tmp_path, f"{env}{i}", ramp(i), env=env, lr=i)
    for seed in range(2, 7):
        make_run(tmp_path, f"more{seed}", ramp(1), seed, lr=1)
    make_run(tmp_path, "two", ramp(1), 2, lr=2)
    found = build.build(query.find([str(tmp_path)]), METRIC, by=["lr"], smooth=4)
    assert draw.caption(found) == (
        "line: mean over seeds; band: 95 % interval (t, bootstrapped standard error) from 5 seeds on, "
        "else smallest to largest seed; "
        "mean of the last 4 log lines"
    )
    draw.draw(found, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text.count(f"stroke: {draw.COLOURS[0].lower()}; stroke-width: 1.8") >= 4  # lr=0 in four panels


def test_a_panel_with_one_of_several_configurations_says_which(tmp_path: Path) -> None:
    make_run(tmp_path, "a", ramp(1), env="acrobot", lr=1)
    for lr in (1, 2):
        make_run(tmp_path, f"b{lr}", ramp(lr), env="cartpole", lr=lr)
    plot = build.build(query.find([str(tmp_path)]), METRIC, by=["lr"])
    draw.draw(plot, tmp_path / "a.svg", draw.Look(style="paper"))
    assert [(tmp_path / "a.svg").read_text().count(f">lr={lr}</text>") for lr in (1, 2)] == [2, 1]


@pytest.mark.parametrize("size", [None, (3.4, 2.4), (7.0, 3.0)])
def test_the_steps_below_narrow_panels_do_not_touch(size: tuple[float, float] | None, tmp_path: Path) -> None:
    for env in ("acrobot", "cartpole"):
        make_run(tmp_path, env, [(0, 0.0), (4096, 1.0)], env=env)
    plot = build.build(query.find([str(tmp_path)]), METRIC)
    figure = draw._figure(plot, draw.Look(style="paper", size=size))
    figure.draw_without_rendering()
    for axis in figure.axes:
        boxes = [label.get_window_extent() for label in axis.get_xticklabels() if label.get_text()]
        inside = [box for box in boxes if box.x0 < axis.get_window_extent().x1]
        assert len(inside) > 2 and all(a.x1 + 3 < b.x0 for a, b in zip(inside, inside[1:]))
