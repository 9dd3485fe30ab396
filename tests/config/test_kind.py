"""Two worlds, environments and tasks: which one a command means, a run on a task from end to end, runs that start from
others, and algorithms that are done before total_steps."""

from __future__ import annotations

import json
import os
import shutil
import signal
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml
from command_line import PLUGIN, Forks, entries
from installed import pretend
from tiny_runs import LANGUAGE, Child, checkpoints, die, record, result, resume, speak, spoken, status

from rlx.analysis.curves import build, curves
from rlx.base.errors import ConfigError
from rlx.config import kind as worlds, plugins, registry
from rlx.run import Run
from rlx.rundir import query, reader
from rlx.rundir.checkpoint import load
from rlx.training import loop, runner

SFT = ["algo.batch_size=4", "algo.check_every=2", "algo.check_prompts=8"]
GPT = yaml.safe_load((registry.conf_dir() / "model" / "gpt.yaml").read_text())
GRPO = ["algo=grpo", "algo.num_prompts=2", "algo.group_size=2"]

# -- which world ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, world",
    [
        ("", "control"),
        ("algo=ppo seed=3", "control"),
        ("env.id=CartPole-v1", "control"),
        ("experiment=bench_ppo_zoo", "control"),
        ("algo=nobody_knows_it", "control"),
        ("algo=sft", "language"),
        ("+task=add2", "language"),
        ("task.reward=dense", "language"),
        ("algo.implementation=grpo", "language"),
        ("init=latest", "language"),
        ("model=gpt", "language"),
        ("algo=sft,grpo", "language"),
    ],
)
def test_the_words_say_which_world_is_meant(words: str, world: str) -> None:
    assert worlds.choose(words.split()) == world


def test_a_file_of_the_users_own_belongs_to_the_world_of_its_implementation(tmp_path: Path) -> None:
    for group, name, text in [
        ("algo", "mine", "defaults: [grpo, _self_]\nname: mine\n"),
        ("experiment", "exp", "# @package _global_\ndefaults:\n  - override /task: add2\n"),
        ("experiment", "chained", "stages:\n  - [algo=sft, task=add2]\n"),
    ]:
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / f"{name}.yaml").write_text(text)
        assert worlds.choose([f"{group}={name}"], tmp_path) == "language"
        with pytest.raises(ConfigError, match="env=cartpole: .* learns on a task"):
            worlds.choose([f"{group}={name}", "env=cartpole"], tmp_path)


def test_a_plug_in_says_its_world_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "raise RuntimeError('imported')\nWORLD = 'language'\n"
    points = "[rlx.algos]\nspeaks = speaks_algo\nacts = acts_algo\ngone = no.such\n"
    pretend(tmp_path, "worldly", points, speaks_algo=text, acts_algo="WORLDLY = 'language'\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = [registry.world_name(name) for name in ("speaks", "acts", "gone", "ppo", "dpo")]
    assert found == ["language", "control", "control", "control", "language"]
    assert registry.world("speaks").NAME == "task" and registry.world("ppo").NAME == "env"


def test_a_configuration_with_the_other_worlds_section_is_refused() -> None:
    with pytest.raises(ConfigError, match="algo.implementation=sft: needs the section task, not env"):
        runner.typed({"algo": {"implementation": "sft"}, "env": {}, "task": {}})
    with pytest.raises(ConfigError, match="algo.implementation=ppo: needs the section env, not task"):
        runner.typed({"algo": {"implementation": "ppo"}, "task": {}})


# -- a run on a task, from end to end ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a run of sft on add2. Read it only."""
    place = tmp_path_factory.mktemp("language")
    words = [word for word in LANGUAGE if word != "tensorboard=false"]
    done = forks("train", *words, "task=add2", *SFT, cwd=place)
    assert done.code == 0 and done.run.startswith("runs/add2/sft/"), done.err
    assert "rlx sample runs/add2/sft/" in done.out and "eval/greedy_accuracy" in done.out
    return place


def test_a_run_on_a_task_says_task_where_others_say_env(here: Path, forks: Forks) -> None:
    shown = json.loads(forks("show", "latest", "--json", cwd=here).out)
    assert (shown["algo"], shown["task"], shown["step"], shown["status"]) == ("sft", "add2", 12, "finished")
    assert "env" not in shown and len(shown["weights_sha256"]) == 64
    assert shown["eval"]["score"] == shown["eval"]["greedy_accuracy"] and shown["eval"]["step"] == 12
    assert json.loads(forks("ls", "--json", cwd=here).out) == [shown]
    listed = forks("ls", cwd=here).out.splitlines()
    assert listed[0].split()[:4] == ["status", "algo", "task", "seed"] and " add2 " in listed[1]


def test_its_evaluations_leave_metrics_samples_and_events(here: Path) -> None:
    path = reader.resolve("latest", str(here / "runs"))
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 13))
    judged = [row for row in rows if "eval/greedy_accuracy" in row]
    assert [row["step"] for row in judged] == [4, 8, 12] and "eval/sampled_accuracy" in judged[0]
    assert [file.name for file in sorted((path / "samples").iterdir())] == [f"{n:012d}.txt" for n in (4, 8, 12)]
    assert len((path / "samples" / f"{12:012d}.txt").read_text().splitlines()) == 2
    [events] = path.glob("events*[!d]")
    assert b"samples" in events.read_bytes() and b"eval/greedy_accuracy" in events.read_bytes()


def test_it_is_evaluated_on_prompts(here: Path, forks: Forks) -> None:
    words = ["eval", "latest:sft", "--prompts", "8", "--seed", "1", "--k", "4", "--json"]
    found = json.loads(forks(*words, cwd=here).out)
    assert set(found["pass_at"]) == {"1", "2", "4"} and found["prompts"] == 8
    assert {"greedy_accuracy", "sampled_accuracy", "reward", "maj_at", "mean_length", "format"} <= set(found)
    shown = json.loads(forks("show", "latest", "--json", cwd=here).out)
    assert found["greedy_accuracy"] == shown["eval"]["greedy_accuracy"]  # as many prompts, and the run's seed
    assert "pass@4" in forks(*words[:-1], cwd=here).out


def test_it_completes_prompts(here: Path, forks: Forks) -> None:
    words = ["sample", "latest", "37+58=", "11+11=", "-n", "3", "--json"]
    found = json.loads(forks(*words, cwd=here).out)
    assert [row["prompt"] for row in found] == ["37+58=", "11+11="]
    assert [len(row["completions"]) for row in found] == [3, 3]
    assert set(found[0]["completions"][0]) == {"text", "logprob", "ended"}
    assert found == json.loads(forks(*words, cwd=here).out)
    assert found != json.loads(forks(*words, "--seed", "1", cwd=here).out)
    greedy = json.loads(forks(*words, "--greedy", cwd=here).out)[0]["completions"]
    cold = json.loads(forks(*words, "--temperature", "1e-3", cwd=here).out)[0]["completions"]
    assert len({said["text"] for said in greedy}) == 1 and cold[0]["text"] == greedy[0]["text"]
    assert len(forks("sample", "latest", cwd=here).out.splitlines()) == 4


@pytest.mark.parametrize(
    "words, named",
    [
        ("eval latest --episodes 3", ("--episodes=3", "--prompts")),
        ("eval latest --stochastic", ("--stochastic", "--prompts")),
        ("play latest", ("rlx sample latest",)),
        ("sample latest 37?", ("'?'", "alphabet")),
        ("sample latest 1234567890+1=", ("1234567890+1=", "13 characters", "6 at most")),
        ("sample latest --temperature 0", ("--temperature=0", "> 0", "--greedy")),
        ("eval latest:grpo", ("latest:grpo", "no run of grpo", "sft")),
        ("resume latest task.reward=dense", ("task.reward=dense", "exact")),
        ("resume latest init=x", ("init=x", "null")),
        ("resume latest model.d_model=16", ("model.d_model=16", "8")),
    ],
)
def test_what_the_world_lacks_is_one_line(words: str, named: tuple[str, ...], here: Path, forks: Forks) -> None:
    before = entries(here)
    done = forks(*words.split(), cwd=here)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and all(name in done.err for name in named), done
    assert {name for name in entries(here) - before if not name.endswith(".lock")} == set()


@pytest.mark.parametrize("words", ["eval latest --prompts 3", "eval latest --k 3", "sample latest x"])
def test_what_environments_lack_is_one_line(words: str, place: Path, forks: Forks) -> None:
    done = forks(*words.split(), cwd=place)
    assert (done.code, done.err.count("\n")) == (2, 1) and "environment run" in done.err


def test_curves_of_tasks_are_plotted_by_their_own_metric_and_axis(here: Path, forks: Forks) -> None:
    found = build.build(query.find([str(here / "runs")]), "")
    assert found.metric == "loss" and found.kinds == {"add2": "task"}
    assert found.to_json()["panels"][0]["task"] == "add2"
    done = forks("plot", cwd=here)
    assert done.code == 0 and done.out.startswith("task") and "plot.png: loss" in done.out
    (here / "plot.png").unlink()


def test_help_lists_and_completion_know_tasks(forks: Forks, tmp_path: Path) -> None:
    page = forks("train", "algo=grpo", "--help", cwd=tmp_path).out
    assert "task: " in page and "eval_prompts: 256" in page and "group_size:" in page and "episodes" not in page
    assert "add2" in forks("list", "tasks", cwd=tmp_path).out
    offered = forks("complete", "--", "train", "task=add2", "eval_", cwd=tmp_path).out.split()
    assert offered == ["eval_every=", "eval_required=", "eval_prompts="]
    assert "algo.group_size=" in forks("complete", "--", "train", "algo=grpo", "algo.g", cwd=tmp_path).out.split()
    assert "task=add2" in forks("complete", "--", "train", "task=a", cwd=tmp_path).out.split()
    assert forks("complete", "--", "train", "init=latest:gr", cwd=tmp_path).out.split()[0] == "init=latest:grpo"
    assert "sort" in forks("train", "--info=defaults", "task=sort", cwd=tmp_path).out


def test_a_grid_over_a_task_is_one(forks: Forks, tmp_path: Path) -> None:
    done = forks("train", "-m", *LANGUAGE, *SFT, "seed=1,2", "total_steps=2", cwd=tmp_path)
    assert done.code == 0 and "2 of 2 jobs finished" in done.out, done
    assert sorted(path.name for path in reader.find(tmp_path)) == ["0_add2_sft_s1", "1_add2_sft_s2"]


def test_evaluating_more_often_changes_nothing(tmp_path: Path) -> None:
    one, other = (result(speak(tmp_path, *SFT, f"eval_every={n}")) for n in (0, 3))
    assert one[0] == other[0] and one[1] == [row for row in other[1] if "loss" in row]


# -- runs that start from others -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of runs: sft on add2 with a network of its own, sft on parity, and one that has not finished."""
    place = tmp_path_factory.mktemp("origin")
    speak(place, *SFT, "model.d_model=16", "total_steps=2")
    speak(place, *SFT, "seed=2", "model.d_model=16", "total_steps=2", name="newest")
    speak(place, *SFT, "task=parity", "total_steps=2", name="parity")
    with pytest.raises(runner.RunFailed):
        speak(place, *SFT, name="unfinished", progress=lambda step, _: 1 / (step < 2))
    return place


def weights(path: Path) -> dict[str, object]:
    found = load(max((path / "checkpoints").glob("*.safetensors"), key=lambda file: file.stem[-12:]))
    return {name: tensor.tolist() for name, tensor in found["state"]["run"]["tracked"]["policy"].items()}


def test_a_run_begins_with_the_weights_and_the_network_of_another(origin: Path, monkeypatch) -> None:
    begun: list[dict[str, object]] = []
    real = Run.track

    def track(self: Run, **things: object) -> None:
        real(self, **things)
        if "policy" in things:
            begun.append({name: tensor.tolist() for name, tensor in things["policy"].state_dict().items()})

    monkeypatch.setattr(Run, "track", track)
    words = [word for word in LANGUAGE if not word.startswith(("algo=", "model."))]
    path = speak(origin, *words, *GRPO, "total_steps=1", "init=latest:sft")
    assert begun == [weights(origin / "newest")]
    raw, told = runner.read_config(path), record(path)["init"]
    assert raw["init"] == str(origin / "newest") and raw["model"]["d_model"] == 16
    assert (told["run"], told["algo"], told["step"]) == (str(origin / "newest"), "sft", 2)
    assert told["weights_sha256"] == status(origin / "newest")["weights_sha256"]
    assert reader.show(path)["init"] == told
    shutil.rmtree(path)


def test_latest_is_the_newest_finished_run_on_the_same_task(origin: Path) -> None:
    for name, word in [
        ("newest", "init=latest"),
        ("newest", "init=latest:sft"),
        ("newest", f"init={origin / 'newest'}"),
    ]:
        raw, *_ = runner.ready({**spoken(origin, *GRPO), "init": word[5:]}, [])
        assert raw["init"] == str(origin / name)
    raw, *_ = runner.ready({**spoken(origin, *GRPO, "task=parity"), "init": "latest:sft"}, [])
    assert raw["init"] == str(origin / "parity")


@pytest.mark.parametrize(
    "init, words, said",
    [
        ("nowhere", [], "init=nowhere: no such run directory"),
        ("latest:dpo", [], r"init=latest:dpo: no finished run of dpo on task=add2"),
        ("latest:sff", [], r"init=latest:sff: no finished run of sff on task=add2 .*did you mean 'latest:sft'"),
        ("latest", ["task=sort"], r"init=latest: no finished run on task=sort .*rlx train task=sort"),
        ("{here}/unfinished", [], r"init=.*unfinished: has not finished, it is failed \(rlx resume"),
        ("{here}/newest", ["task=parity"], r"its alphabet 0123456789\+= \(task=add2\) is not that of task=parity, 01="),
        ("{here}/newest", ["task=add3"], r"its network reads 11 tokens; task=add3 needs \d+"),
        ("{here}/newest", ["model.d_model=32"], r"model.d_model=32: init=.* has a network with model.d_model=16"),
        ("{here}/newest", ["model=gpt"], r"model.num_layers=2: init=.* has a network with model.num_layers=1"),
    ],
)
def test_a_run_that_cannot_be_started_from_is_one_line(init: str, words: list[str], said: str, origin: Path) -> None:
    before = entries(origin)
    raw = spoken(origin, *GRPO, *words) if "model=gpt" not in words else {**spoken(origin, *GRPO), "model": GPT}
    with pytest.raises(ConfigError, match=said):
        runner.start({**raw, "init": init.format(here=origin)}, ["rlx", "train", *words], lambda *_: None)
    assert entries(origin) == before


def test_the_same_network_asked_for_again_is_no_other_one(origin: Path) -> None:
    raw = {**spoken(origin, *GRPO, "model.d_model=16"), "init": "latest"}
    for words in (["model.d_model=16"], ["model=gpt"]):
        runner.ready(raw, words)
    with pytest.raises(ConfigError, match="model.d_model=32"):
        runner.ready({**raw, "model": {**raw["model"], "d_model": 32}}, ["model=gpt"])


def test_a_network_with_more_room_than_the_task_needs_keeps_it(tmp_path: Path) -> None:
    speak(tmp_path, *SFT, "task.max_new=6", "total_steps=1", name="roomy")
    raw, *_ = runner.ready({**spoken(tmp_path, *GRPO), "init": str(tmp_path / "roomy")}, [])
    assert raw["model"]["context"] == 13
    runner.start(raw, [], lambda *_: None)


def test_once_it_has_a_checkpoint_a_run_needs_the_other_no_more(origin: Path, tmp_path: Path) -> None:
    shutil.copytree(origin / "newest", tmp_path / "first")
    words = [*GRPO, "model.d_model=16", f"init={tmp_path / 'first'}"]
    whole = speak(tmp_path, *words)
    with pytest.raises(runner.RunFailed):
        speak(tmp_path, *words, name="parts", progress=lambda step, _: 1 / (step < 6))
    shutil.rmtree(tmp_path / "first")
    resume(tmp_path / "parts")
    assert result(tmp_path / "parts") == result(whole)
    resume(tmp_path / "parts", total_steps=13, algo__lr=1e-5)  # what is not the network may change


def test_stopped_before_its_first_checkpoint_it_reads_the_other_again(origin: Path, tmp_path: Path) -> None:
    words = [*GRPO, "model.d_model=16", f"init={origin / 'newest'}"]
    assert Child(lambda: speak(tmp_path, *words, name="parts", progress=lambda *_: die())).wait() == -signal.SIGKILL
    resume(tmp_path / "parts")
    assert result(tmp_path / "parts") == result(speak(tmp_path, *words))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model of names and a reward model of its samples."""
    place = tmp_path_factory.mktemp("judged")
    speak(place, "algo=pretrain", "task=names", "algo.batch_size=4", "total_steps=1", name="names")
    ranked = ["algo.num_rankings=8", "algo.batch_size=4", "algo.normalise_on=8", "total_steps=1"]
    speak(place, "algo=reward_model", "task=names", *ranked, "init=latest:pretrain", name="judge")
    return place


RLHF = ["algo=rlhf_ppo", "task=names", "algo.num_prompts=2", "algo.group_size=2"]


def test_a_reward_model_is_another_run_too(judged: Path) -> None:
    for word in ("latest", "latest:reward_model", str(judged / "judge")):
        raw, *_, origins = runner.ready(spoken(judged, *RLHF, "init=latest:pretrain", f"algo.reward_model={word}"), [])
        assert raw["algo"]["reward_model"] == str(judged / "judge") and raw["init"] == str(judged / "names")
        assert origins["reward_model"]["algo"] == "reward_model" and origins["init"]["algo"] == "pretrain"
    path = speak(judged, *RLHF, "init=latest:pretrain", "algo.reward_model=latest", "total_steps=1", name="ppo")
    assert reader.show(path)["reward_model"]["run"] == str(judged / "judge")
    with pytest.raises(ConfigError, match="algo.reward_model=null: cannot change"):
        resume(path, algo__reward_model=None)
    curve, [] = curves.read([path], "reward", "step", 1)
    assert (curve[0].config["init"], curve[0].config["algo.reward_model"]) == ("pretrain", "reward_model")


@pytest.mark.parametrize(
    "words, said",
    [
        (["init={here}/judge"], "init=.*judge: the network of that run scores completions"),
        (["init={here}/names", "algo.reward_model={here}/names"], "algo.reward_model=.*names: .* a policy of pretrain"),
        (["init=null", "algo.reward_model=latest", "model.d_model=16"], "model.d_model=8, this run one with 16"),
        (["init={here}/names", "algo.reward_model=latest:dpo"], "algo.reward_model=latest:dpo: no finished run of dpo"),
    ],
)
def test_what_writes_does_not_judge_and_what_judges_does_not_write(words: list[str], said: str, judged: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        runner.ready(spoken(judged, *RLHF, *(word.format(here=judged) for word in words)), words)


def test_files_are_found_from_anywhere_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    monkeypatch.chdir(tmp_path)
    raw, cfg, *_ = runner.ready(spoken(tmp_path, *SFT, "task=jsonl", "task.file=mine.jsonl"), [])
    assert raw["task"]["file"] == cfg.task.file == str(tmp_path / "mine.jsonl")


# -- algorithms that are done before total_steps -------------------------------------------------------------------


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/plugin/rlx_random/babble.py is installed."""
    monkeypatch.syspath_prepend(PLUGIN)
    points = {"rlx.algos": {"babble": EntryPoint("babble", "rlx_random.babble", "rlx.algos")}}
    monkeypatch.setattr(plugins, "entry_points", lambda group: points.get(group, {}))


def say_early(root: Path, **more: object) -> Path:
    raw = spoken(root)
    raw |= {"algo": {"name": "babble", "implementation": "babble", "stop": 6}, "log_every": 5}
    place, progress = {"parent": root, "name": more.pop("name", "run")}, more.pop("progress", lambda *_: None)
    return runner.start({**raw, **more}, ["rlx", "train"], progress, **place)[0]


def test_an_algorithm_that_is_done_early_has_finished(early: None, tmp_path: Path, capsys) -> None:
    path = say_early(tmp_path)
    found = status(path)
    assert (found["status"], found["step"], found["total_steps"]) == ("finished", 6, 12)
    assert found["evaluation"]["step"] == 6 and checkpoints(path)[-2].startswith("final_000000000006")
    assert "done at step 6, before total_steps=12" in record(path)["notices"][0]
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], "loss" in row) for row in rows] == [(4, False), (5, True), (6, False)]
    capsys.readouterr()
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    again = resume(path)
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert "finished at step 6 (it stopped by itself before 12)" in capsys.readouterr().err
    assert again["evaluation"] == found["evaluation"] and again["weights_sha256"] == found["weights_sha256"]


@pytest.mark.parametrize("every", [2, 4, 5])  # checkpoints: at its last step, before it
@pytest.mark.parametrize("moment", ["evaluation", "best", "final", "status"])
def test_killed_between_its_last_step_and_its_end_it_ends_the_same(
    moment: str, every: int, early: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"checkpoint_every": every, "seed": 7}  # whose last evaluation is its best
    whole = say_early(tmp_path, **changes, name="whole")
    evaluate, checkpoint, state = loop.Loop._evaluate, loop.Loop._checkpoint, loop.Loop._status

    def ends(self: loop.Loop) -> bool:
        return self.step == 6

    def killed_evaluate(self: loop.Loop, step: int) -> None:
        if moment == "evaluation" and ends(self):
            die()
        evaluate(self, step)

    def killed_checkpoint(self: loop.Loop, kind: str, step: int, owed: bool = False) -> None:
        if moment == kind and ends(self) and not owed:
            if kind == "best":
                checkpoint(self, kind, step)
            die()
        checkpoint(self, kind, step, owed)

    def killed_status(self: loop.Loop, status: str, *args: object, **more: object) -> None:
        if moment == "status" and status == "finished":
            die()
        state(self, status, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "_evaluate", killed_evaluate)
        patch.setattr(loop.Loop, "_checkpoint", killed_checkpoint)
        patch.setattr(loop.Loop, "_status", killed_status)
        code = Child(lambda: say_early(tmp_path, **changes)).wait()
    assert code == -signal.SIGKILL
    resume(tmp_path / "run")
    assert result(tmp_path / "run") == result(whole) and checkpoints(tmp_path / "run") == checkpoints(whole)


def test_interrupted_at_its_last_step_it_ends_the_same(early: None, tmp_path: Path) -> None:
    def interrupt(step: int, _metrics: object) -> None:
        if step >= 5:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = say_early(tmp_path, name="whole")
    assert Child(lambda: say_early(tmp_path, progress=interrupt)).wait() == 143
    resume(tmp_path / "run")
    assert result(tmp_path / "run") == result(whole)


def test_an_algorithms_own_measure_judges_it(early: None, tmp_path: Path) -> None:
    path = say_early(tmp_path)
    cfg, module, run = runner.open_run(path)
    assert runner.report(cfg, module, run, 3, 0) == {"score": status(path)["evaluation"]["score"], "prompts": 3}
