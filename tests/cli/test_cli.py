"""The command line: what verbs print and import, exit codes, grids, signals, working directories."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from command_line import CRASH, TINY, Forks, command, entries, environment, imported
from waiting import PATIENCE, until

CONTRACT = {"run", "algo", "env", "seed", "step", "status", "weights_sha256", "eval", "metrics"}  # shared/design.md


# -- what is said, and how fast ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "", "--help", "--version", "eval --help", "ls", "ls --json", "show runs/done",
        "ls --where algo=ppo --sort eval", "diff runs/done latest", "rm runs/done --dry-run", "list algos", "list envs",
        "completion bash", "complete -- train algo=p", "complete -- train algo.l", "complete -- show ",
    ],
)  # fmt: skip
def test_a_verb_that_only_looks_imports_nothing_slow(words: str, place: Path) -> None:
    assert imported(*words.split(" ") if words else (), cwd=place)[0] == set()


@pytest.mark.parametrize("words", ["train --help", "train --cfg job", "train --info"])
def test_showing_a_configuration_imports_hydra_and_nothing_slower(words: str, tmp_path: Path) -> None:
    assert imported(*words.split(), cwd=tmp_path)[0] == {"hydra", "omegaconf"}
    assert entries(tmp_path) == set()


def test_the_tour_fits_on_eight_lines_and_names_the_first_commands(forks: Forks, tmp_path: Path) -> None:
    done = forks(cwd=tmp_path)
    assert done.code == 0 and len(done.out.splitlines()) <= 8
    for command_ in (
        "rlx train algo=ppo env=cartpole",
        "rlx play latest",
        "rlx ls",
        "rlx plot",
        "rlx dash",
        "rlx list",
    ):
        assert command_ in done.out


@pytest.mark.parametrize(
    "words, said",
    [
        (["--help"], ["train", "resume", "eval", "completion"]),
        (["eval", "--help"], ["--episodes", "--checkpoint"]),
        (["--version"], ["rlx 0."]),
        (["train", "--help"], ["algo: ", "ppo, ppo_penalty", "rlx list presets", "seed: 1", "Examples:"]),
        (["train", "--version"], ["rlx 0.", "Hydra 1."]),
        (["train", "--hydra-help"], ["--config-dir"]),
        (["train", "--info"], ["Config search path"]),
        (["train", "--info", "searchpath"], ["hydra.conf", "conf"]),
        (["train", "--info=defaults", "algo=ppo"], ["algo/ppo"]),
        (["list", "presets"], ["ppo_cartpole", "RL-Baselines3-Zoo"]),
        (["list", "experiments"], ["bench_ppo_zoo"]),
    ],
)
def test_help_and_information_are_printed(words: list[str], said: list[str], forks: Forks, tmp_path: Path) -> None:
    done = forks(*words, cwd=tmp_path)
    assert (done.code, done.err) == (0, "") and all(word in done.out for word in said), done
    assert entries(tmp_path) == set()


def test_no_verb_is_cut_short_in_the_list_of_verbs(forks: Forks, tmp_path: Path) -> None:
    assert "..." not in forks("--help", cwd=tmp_path).out.partition("Commands:")[2]


@pytest.mark.parametrize("words", [["--cfg", "job"], ["--cfg=job"], ["-c", "job"]])
def test_cfg_job_is_the_composed_configuration_as_yaml(words: list[str], forks: Forks, tmp_path: Path) -> None:
    done = forks("train", "seed=7", *words, "env=pendulum", cwd=tmp_path)
    shown = yaml.safe_load(done.out)
    assert done.code == 0 and shown["seed"] == 7 and shown["env"]["id"] == "Pendulum-v1"


def test_cfg_can_show_one_section(forks: Forks, tmp_path: Path) -> None:
    done = forks("train", "algo.lr=0.5", "--cfg", "job", "--package", "algo", cwd=tmp_path)
    assert yaml.safe_load(done.out.partition("\n")[2])["lr"] == 0.5


def test_before_the_first_run_ls_says_how_to_start_one(forks: Forks, tmp_path: Path) -> None:
    done = forks("ls", cwd=tmp_path)
    assert done.code == 0 and "rlx train" in done.out
    assert json.loads(forks("ls", "--json", cwd=tmp_path).out) == []


@pytest.mark.parametrize("words", [["--help"], ["list", "envs"], ["ls"], ["train", "--cfg", "job"]])
def test_a_reader_that_leaves_early_is_no_error(words: list[str], place: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command(*words), cwd=place, env=environment(), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_run_nobody_listens_to_any_more_trains_to_its_end(tmp_path: Path, forks: Forks) -> None:
    assert forks("train", *TINY, cwd=tmp_path, unheard=True).code == 0
    assert [json.loads(path.read_text())["status"] for path in tmp_path.rglob("status.json")] == ["finished"]


def test_odd_places_to_stand_and_to_print_to_are_no_traceback(tmp_path: Path) -> None:
    lines = [
        ("rlx list algos >&-", 0, ""),
        ("mkdir gone; cd gone; rmdir ../gone; rlx train seed=-1", 2, "working directory"),
        ("rlx list algos > /dev/full", 1, "No space left"),
    ]
    for line, code, said in lines:
        script = f'rlx() {{ {shlex.join(command())} "$@"; }}; {line}'
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert done.returncode == code and said in done.stderr and done.stderr.count("\n") == bool(said), done


# -- the contract: show, ls, eval ----------------------------------------------------------------------------------


def test_show_json_has_the_keys_of_the_contract_and_ls_json_is_a_list_of_the_same(place: Path, forks: Forks) -> None:
    shown = json.loads(forks("show", "runs/done", "--json", cwd=place).out)
    assert shown.keys() >= CONTRACT
    assert (shown["algo"], shown["env"], shown["seed"], shown["step"]) == ("ppo", "cartpole", 1, 512)
    assert shown["status"] == "finished" and len(shown["weights_sha256"]) == 64
    assert json.loads(forks("ls", "--json", cwd=place).out) == [shown]


def test_eval_json_is_mean_std_n_and_every_return(place: Path, forks: Forks) -> None:
    first, again, other = (
        json.loads(forks("eval", "latest", "--episodes", "5", "--seed", seed, "--json", cwd=place).out)
        for seed in ("3", "3", "4")
    )
    assert first.keys() == {"mean", "std", "n", "returns"} and first == again != other
    assert first["n"] == len(first["returns"]) == 5
    assert first["mean"] == pytest.approx(sum(first["returns"]) / 5)


def test_ls_survives_damaged_runs(place: Path, forks: Forks) -> None:
    run = place / "runs" / "done"
    for text in ("{", "null", '{"status": 3, "step": "x", "evaluation": 5}'):
        (run / "status.json").write_text(text)
        for sort in ("time", "return", "status"):
            assert forks("ls", "--sort", sort, cwd=place).code == 0
    (run / "run.json").write_text("[]")
    assert forks("ls", cwd=place).code == forks("show", "runs/done", cwd=place).code == 0


def test_the_last_line_of_train_and_resume_is_the_run(tmp_path: Path, forks: Forks) -> None:
    trained = forks("train", *TINY, cwd=tmp_path)
    resumed = forks("resume", trained.run, "total_steps=2304", cwd=tmp_path)
    assert trained.code == resumed.code == 0 and resumed.run == trained.run
    assert (tmp_path / trained.run / "config.yaml").is_file()
    assert json.loads(forks("show", trained.run, "--json", cwd=tmp_path).out)["step"] == 2304


# -- where runs go, and which files count --------------------------------------------------------------------------


def test_runs_started_at_once_with_one_seed_get_directories_of_their_own(tmp_path: Path, forks: Forks) -> None:
    done = forks.together(3, "train", *TINY, cwd=tmp_path)
    assert [one.code for one in done] == [0, 0, 0]
    assert len({one.run for one in done}) == 3


def test_a_directory_with_a_space_and_an_umlaut_is_a_directory(tmp_path: Path, forks: Forks) -> None:
    here = tmp_path / "größe & 'raum"
    (here / "conf" / "env").mkdir(parents=True)
    (here / "conf" / "env" / "mine.yaml").write_text("name: mine\nid: CartPole-v1\n")
    done = forks("train", "env=mine", "runs_dir=läufe", *TINY, cwd=here)
    assert done.code == 0 and done.run.startswith("läufe/mine/ppo/")
    sweep = forks("train", "-m", "env=mine", "seed=1,2", "runs_dir=a sweep", *TINY, cwd=here)
    assert "2 of 2 jobs finished" in sweep.out, sweep
    assert forks("resume", done.run, cwd=here).run == done.run
    assert len(json.loads(forks("ls", ".", "--json", cwd=here).out)) == 3
    assert forks("eval", str(here / done.run), "--episodes", "1", cwd=tmp_path).code == 0


def test_the_users_conf_adds_environments_and_presets(tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "conf" / "env").mkdir(parents=True)
    (tmp_path / "conf" / "preset").mkdir()
    (tmp_path / "conf" / "env" / "mine.yaml").write_text("# My own\ndefaults: [cartpole, _self_]\nname: mine\n")
    (tmp_path / "conf" / "preset" / "ppo_mine.yaml").write_text("# @package _global_\nseed: 77\nalgo: {lr: 0.125}\n")
    shown = yaml.safe_load(forks("train", "env=mine", "--cfg", "job", cwd=tmp_path).out)
    assert (shown["seed"], shown["algo"]["lr"], shown["env"]["id"]) == (77, 0.125, "CartPole-v1")
    assert "My own" in forks("list", "envs", cwd=tmp_path).out
    assert "ppo_mine" in forks("train", "preset=ppo_mie", cwd=tmp_path).err
    assert forks("train", "env=mine", *TINY, cwd=tmp_path).run.endswith("_s77")


def test_a_config_yaml_of_another_program_is_named_once_and_left_alone(tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "conf" / "env").mkdir(parents=True)
    (tmp_path / "conf" / "env" / "cartpole.yaml").write_text("name: mine\nid: CartPole-v1\nmax_episode_steps: 33\n")
    for text, says in (
        ("database: x\n", "rlx has no key 'database'"), ("model: resnet\n", "model must be a section"),
        ("a: [\n", "unreadable"), ("- 1\n", "no keys"),
    ):  # fmt: skip
        (tmp_path / "conf" / "config.yaml").write_text(text)
        done = forks("train", "--cfg", "job", cwd=tmp_path)
        shown = yaml.safe_load(done.out)
        assert shown["algo"]["name"] == "ppo" and shown["env"]["max_episode_steps"] == 33  # ./conf comes first
        assert done.err.count("\n") == 1 and "./conf/config.yaml is not used: " in done.err and says in done.err
    assert forks("ls", cwd=tmp_path).err == "" and "mine" in forks("train", *TINY, cwd=tmp_path).run


def test_ones_own_config_yaml_lies_over_the_shipped_one_and_under_all_the_rest(tmp_path: Path, forks: Forks) -> None:
    def shown(*words: str) -> dict:
        done = forks("train", *words, "--cfg", "job", cwd=tmp_path)
        assert done.code == 0 and not done.err, done.err
        return yaml.safe_load(done.out)

    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text(
        "defaults:\n  - override algo: a2c\n  - env: acrobot\nseed: 7\ntotal_steps: 3_000\nmodel: {hidden: [7]}\n"
        "algo: {lr: 1e-3, gamma: .5}\nexpect: {score: 1}\n"
    )
    plain = shown("preset=none")
    assert (plain["algo"]["name"], plain["env"]["name"], plain["seed"], plain["total_steps"]) == (
        "a2c",
        "acrobot",
        7,
        3000,
    )
    assert (plain["model"]["hidden"], plain["algo"]["lr"], plain["algo"]["gamma"]) == ([7], 1e-3, 0.5)
    assert plain["eval_episodes"] == 10 and plain["model"]["activation"] == "tanh"
    tuned = shown("env=cartpole")
    assert tuned["total_steps"] == 500_000 and tuned["seed"] == 7  # a preset lies over it
    typed = shown("algo=ppo", "env=cartpole", "preset=none", "seed=1", "algo.gamma=.9")
    assert (typed["algo"]["name"], typed["seed"], typed["algo"]["gamma"]) == ("ppo", 1, 0.9)
    grid = forks("train", "-m", "env=cartpole", "preset=none", "seed=1,2", *TINY, cwd=tmp_path)
    assert grid.code == 0 and len(list((tmp_path / "runs").rglob("a2c*"))) == 0
    assert {yaml.safe_load(file.read_text())["algo"]["name"] for file in tmp_path.rglob("runs/**/config.yaml")} == {
        "a2c"
    }
    (tmp_path / "conf" / "config.yaml").write_text("total_steps: many\n")
    done = forks("train", "preset=none", cwd=tmp_path)
    assert done.code == 2 and "total_steps=many: must be a whole number >= 1 [conf/config.yaml]" in done.err
    (tmp_path / "conf" / "language.yaml").write_text("defaults: [{task: sort}]\neval_prompts: 9\n")
    spoken = shown("algo=sft", "preset=none")
    assert (spoken["task"]["name"], spoken["eval_prompts"]) == ("sort", 9)


@pytest.mark.parametrize(
    "words", [["algo=ppo", "env=cartpole"], ["algo=sft", "task=sort"]], ids=["control", "language"]
)
def test_a_printed_configuration_is_a_file_that_trains_the_same(words: list[str], tmp_path: Path, forks: Forks) -> None:
    short = ["total_steps=3" if "sft" in words[0] else "total_steps=512", "eval_every=0", "tensorboard=false"]
    (tmp_path / "my.yaml").write_text(forks("train", *words, *short, "--cfg", "job", cwd=tmp_path).out)

    def trained(*words: str) -> dict:
        done = forks("train", *words, cwd=tmp_path)
        assert done.code == 0, done.err
        return json.loads(forks("show", done.run, "--json", cwd=tmp_path).out)

    direct, by_file = trained(*words, *short), trained("my.yaml")
    assert direct["weights_sha256"] == by_file["weights_sha256"] and by_file["run"].startswith("runs/")
    assert trained(f"{direct['run']}/config.yaml")["weights_sha256"] == direct["weights_sha256"]
    other, same = trained("my.yaml", "seed=2"), trained(*words, *short, "seed=2")
    assert other["weights_sha256"] == same["weights_sha256"] != direct["weights_sha256"]
    grid = forks("train", "-m", "my.yaml", "seed=1,2", cwd=tmp_path)
    assert grid.code == 0, grid.err
    jobs = json.loads(forks("ls", grid.run, "--json", cwd=tmp_path).out)
    assert [job["weights_sha256"] for job in jobs] == [direct["weights_sha256"], other["weights_sha256"]]


@pytest.mark.parametrize(
    "words, named",
    [
        ("nope.yaml", "nope.yaml: no such file"),
        ("my.yaml env=acrobot", "my.yaml holds the whole configuration"),
        ("my.yaml preset=none", "my.yaml holds the whole configuration"),
        ("my.yaml my.yaml", "my.yaml already"),
        ("my.yaml algo.lrr=1", "did you mean 'algo.lr'"),
        ("list.yaml", "not a whole configuration"),
        ("broken.yaml", "broken.yaml"),
    ],
)
def test_a_file_that_is_none_is_one_line(words: str, named: str, tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "my.yaml").write_text(forks("train", "--cfg", "job", cwd=tmp_path).out)
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    done = forks("train", *words.split(), cwd=tmp_path)
    assert done.code == 2 and named in done.err and done.err.count("\n") == 1, done.err
    assert not (tmp_path / "runs").exists()


def test_config_dir_adds_files_for_a_run_and_for_a_grid(tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "more" / "env").mkdir(parents=True)
    (tmp_path / "more" / "env" / "mine.yaml").write_text("name: mine\nid: CartPole-v1\n")
    assert "/mine/" in forks("train", "env=mine", "--config-dir", "more", *TINY, cwd=tmp_path).run
    sweep = forks("train", "-m", "--config-dir=more", "env=mine,cartpole", *TINY, cwd=tmp_path)
    assert "2 of 2 jobs finished" in sweep.out, sweep


def test_hydra_run_dir_is_the_runs_directory(tmp_path: Path, forks: Forks) -> None:
    done = forks("train", "hydra.run.dir=here/${algo.name}_${seed}", "seed=5", *TINY, cwd=tmp_path)
    assert done.run == "here/ppo_5" and (tmp_path / "here" / "ppo_5" / "config.yaml").is_file()
    assert not (tmp_path / "runs").exists()
    before = entries(tmp_path)
    again = forks("train", "hydra.run.dir=here/${algo.name}_${seed}", "seed=5", *TINY, cwd=tmp_path)
    assert again.code == 2 and "here/ppo_5" in again.err and again.err.count("\n") == 1
    assert entries(tmp_path) == before


def test_the_command_that_was_typed_is_recorded(tmp_path: Path, forks: Forks) -> None:
    words = ["train", "seed=3", "algo.lr=1e-3", *TINY]
    run = forks(*words, cwd=tmp_path).run
    assert json.loads(forks("show", run, "--json", cwd=tmp_path).out)["command"] == ["rlx", *words]


# -- grids --------------------------------------------------------------------------------------------------------


def test_flags_may_stand_after_overrides(tmp_path: Path, forks: Forks) -> None:
    done = forks("train", "seed=1", *TINY, "-m", "algo.lr=1e-3,1e-4", cwd=tmp_path)
    assert done.code == 0 and "2 of 2 jobs finished" in done.out, done
    assert "algo.lr=0.001" in done.out and "total_steps" not in done.out.partition("\njob")[2]  # what differs is shown


def test_a_failing_job_leaves_the_others_running_and_is_reported(tmp_path: Path, forks: Forks) -> None:
    done = forks("train", "-m", *CRASH, "+env.kwargs.after=9000,100,9001", *TINY, cwd=tmp_path)
    assert done.code == 1 and done.out.splitlines()[-2] == "2 of 3 jobs finished", done
    assert "Traceback" not in done.out + done.err
    row = next(line for line in done.out.splitlines() if line.startswith("1_Crash-v0_ppo_s1"))
    assert "failed" in row and "+env.kwargs.after=100" in row and "ZeroDivisionError" in row
    jobs = json.loads(forks("ls", done.run, "--json", cwd=tmp_path).out)
    assert sorted(job["status"] for job in jobs) == ["failed", "finished", "finished"]
    assert "failed" in forks("ls", cwd=tmp_path).out
    crashed = next(job for job in jobs if job["status"] == "failed")
    assert (
        "ZeroDivisionError" in crashed["error"] and "collapsed" in (tmp_path / crashed["run"] / "rlx.log").read_text()
    )


def test_a_failing_run_says_where_its_traceback_is_and_exits_1(tmp_path: Path, forks: Forks) -> None:
    done = forks("train", *CRASH, "+env.kwargs.after=100", *TINY, cwd=tmp_path)
    assert done.code == 1 and "Traceback" not in done.err
    error = done.err.splitlines()[-1]
    assert "ZeroDivisionError" in error and f"{done.run}/rlx.log" in error
    assert "Traceback" in (tmp_path / done.run / "rlx.log").read_text()


def test_jobs_in_processes_of_joblib_are_counted_and_reported_too(tmp_path: Path, forks: Forks) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = [*CRASH, "+env.kwargs.after=9000,100", *TINY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = forks("train", "-m", *words, cwd=tmp_path)
    assert done.code == 1 and done.out.splitlines()[-2] == "1 of 2 jobs finished", done
    assert "Traceback" not in done.out + done.err
    statuses = [json.loads(path.read_text())["status"] for path in (tmp_path / done.run).glob("*/status.json")]
    assert sorted(statuses) == ["failed", "finished"]


def test_a_grid_of_an_experiment_file_runs_its_own_grid(tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    grid = "# @package _global_\nhydra: {sweeper: {params: {seed: '1,2', algo.lr: '1e-3,1e-4'}}}\n"
    (tmp_path / "conf" / "experiment" / "grid.yaml").write_text(grid)
    done = forks("train", "-m", "experiment=grid", "algo.lr=1e-2", *TINY, cwd=tmp_path)
    assert done.code == 0 and "2 of 2 jobs finished" in done.out, done


# -- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_is_checkpointed_and_goes_on(number: int, code: int, tmp_path: Path, forks: Forks) -> None:
    words = ["train", "total_steps=3_000_000", "eval_every=0", "video=false", "tensorboard=false"]
    process = forks.begin(*words, cwd=tmp_path)
    try:
        until(lambda: "%" in process.err)  # it is training
        process.send_signal(number)
        out, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == code, err
    run = out.splitlines()[-1].removeprefix("run: ")
    assert "Traceback" not in err and f"rlx resume {run}" in err.splitlines()[-1]
    shown = json.loads(forks("show", run, "--json", cwd=tmp_path).out)
    assert shown["status"] == "interrupted" and shown["step"] > 0 and any((tmp_path / run / "checkpoints").iterdir())
    resumed = forks("resume", run, f"total_steps={shown['step'] + 512}", cwd=tmp_path)
    assert resumed.code == 0 and resumed.run == run
    assert json.loads(forks("show", run, "--json", cwd=tmp_path).out)["status"] == "finished"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux to see what is being imported")
def test_ctrl_c_while_torch_is_being_imported_is_one_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("train", *TINY), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
    )  # fmt: skip
    while "libtorch_cpu" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, b"rlx: error: interrupted\n") and entries(tmp_path) == set()


def test_the_verdict_comes_first_and_losses_only_where_they_are_asked_for(place: Path, forks: Forks) -> None:
    judged = [*(word for word in TINY if not word.startswith("eval_every=")), "eval_episodes=1"]
    short, long = (forks("train", *judged, *more, cwd=place) for more in ((), ("--verbose",)))
    for done in (short, long):
        told = done.out.split("\n\n")[1].splitlines()
        assert done.code == 0 and told[0].startswith("not solved: ") and done.out.splitlines()[-1].startswith("run: ")
    assert "train/" not in short.out and "rollout/ep_rew_mean" in short.out
    assert "  train/approx_kl" in long.out
    again = forks("resume", short.run, "total_steps=1024", "--verbose", cwd=place)
    assert "  train/approx_kl" in again.out, again.err


def test_presets_are_listed_by_algorithm_environment_or_task(forks: Forks, tmp_path: Path) -> None:
    def names(*words: str) -> set[str]:
        return {row["name"] for row in json.loads(forks("list", *words, "--json", cwd=tmp_path).out)}

    of_ppo = names("presets", "algo=ppo")
    assert {"ppo_cartpole", "ppo_acrobot"} <= of_ppo and not {name for name in of_ppo if name.startswith("ppo_penalty")}
    assert names("presets", "algo=ppo", "env=cartpole") == {"ppo_cartpole"} and "ppo" in names("algos")
    done = forks("list", "algos", "env=cartpole", cwd=tmp_path)
    assert done.code == 2 and "only presets are listed by a key" in done.err
