"""What a run directory says about its run, and what others read from it."""

import json
import os
import pickletools
import re
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tiny_runs import Child, config, die_at, read_metrics, record, result, resume, status, train

from rlx import __version__
from rlx.base import process
from rlx.rundir import provenance, reader
from rlx.rundir.provenance import scrub
from rlx.training import runner


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, killed and resumed on its way, with everything in it."""
    root = tmp_path_factory.mktemp("run")
    looks = {"tensorboard": True, "video": True, "env.max_episode_steps": 20}
    assert Child(lambda: train(root, name="run", progress=die_at(208), **looks)).wait() == -signal.SIGKILL
    resume(root / "run")
    return root / "run"


# -- run.json


def test_the_record_says_where_the_run_came_from(run):
    found = record(run)
    assert found["command"] == ["rlx", "train"] and found["seed"] == 1 and found["threads"] == 1
    assert (found["algo"], found["env"], found["env_id"]) == ("ppo", "cartpole", "CartPole-v1")
    assert found["versions"]["rlx"] == __version__ and {"python", "torch", "numpy", "gymnasium"} <= set(
        found["versions"]
    )
    assert found["host"] == socket.gethostname() and found["device"] == "cpu" and found["machine"]["cpu_capability"]
    (entry,) = found["resumes"]
    assert entry["step"] == 192 and entry["changes"] == {} and entry["command"] == ["rlx", "resume", str(run)]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", found["started"])


def test_the_repository_of_the_working_directory_is_recorded(tmp_path, monkeypatch):
    """Where the experiment lives: not that of rlx."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert record(train(tmp_path / "a"))["git"] == {"commit": None, "diff_stat": None}
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "mine.py").write_text("x = 1\n")
    for words in (["init", "-q"], ["add", "mine.py"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    clean = record(train(tmp_path / "b"))["git"]
    assert re.fullmatch(r"[0-9a-f]{40}", clean["commit"]) and clean["diff_stat"] == ""
    (tmp_path / "mine.py").write_text("x = 2\n")
    assert "mine.py | 2 +-" in record(train(tmp_path / "c"))["git"]["diff_stat"]


@pytest.mark.parametrize(
    "text, shown",
    [
        ("url=https://me:pass@host/x", "url=https://***@host/x"),
        ("env.kwargs.api_key=abc", "env.kwargs.api_key=***"),
        ("wandb_secret: abc", "wandb_secret: ***"),
        ("password=a", "password=***"),
        ("token=abc hf_token=abc", "token=*** hf_token=***"),
        ("api-key: abc, pwd=abc", "api-key: ***, pwd=***"),
        ('{"password": "abc", "n": 1}', '{"password": "***", "n": 1}'),
        ("+AWS_SECRET_ACCESS_KEY = 'abc'", "+AWS_SECRET_ACCESS_KEY = '***'"),
        ("https://host/x?token=abc&n=1", "https://host/x?token=***&n=1"),
        ("key = sk-abcdefghijklmnop1234", "key = ***"),
        ("ghp_abcdefghijklmnopqrst1234 AKIAABCDEFGHIJKLMNOP", "*** ***"),
        ("a\n-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nb", "a\n***\nb"),
        ("ran curl --password abc -v --hf-token abc", "ran curl --password *** -v --hf-token ***"),
        ("Authorization: Bearer abc", "Authorization: Bearer ***"),
        ("max-tokens 5 --dry-run token here", "max-tokens 5 --dry-run token here"),
        ("algo.reduction=tokens max_tokens=5 tokenizer: x", "algo.reduction=tokens max_tokens=5 tokenizer: x"),
        ("algo.max_new_tokens=64", "algo.max_new_tokens=64"),
        ("key=value", "key=value"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_secrets_are_not_recorded(text, shown):
    assert scrub(text) == shown


def test_a_record_has_a_bounded_size(tmp_path):
    path, _ = runner.start(
        config(tmp_path), ["rlx", "x" * 10**6, *["secret" * 500] * 10, *["y"] * 10_000], lambda *_: None
    )
    assert (path / "run.json").stat().st_size < 50_000


def test_notices_are_recorded_and_survive_a_resume(tmp_path, capsys):
    changes = {"env": "gym", "env.name": "any", "env.id": "Random-v0", "eval_every": 0}
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(160), **changes)).wait() < 0
    (notice,) = record(tmp_path / "run")["notices"]
    assert notice.startswith("Random-v0 does not replay")
    resume(tmp_path / "run")
    assert record(tmp_path / "run")["notices"] == [notice]
    assert capsys.readouterr().err.count(f"rlx: note: {notice}\n") == 1


def test_a_fall_back_of_the_engine_is_recorded(tmp_path, monkeypatch):
    from rlx.engine.learner import Learner

    monkeypatch.setattr(Learner, "_disagreement", lambda *_: "they differ")
    assert record(train(tmp_path))["notices"] == ["ordinary torch instead of the tape: they differ"]


# -- status.json, and what ls and show make of it


def test_the_status_of_a_finished_run(run):
    found = status(run)
    assert (found["status"], found["step"], found["total_steps"], found["checkpoint"]) == ("finished", 320, 320, 320)
    assert found["evaluation"]["step"] == 320 and len(found["weights_sha256"]) == 64


def test_a_running_run_is_running_and_a_killed_one_killed(tmp_path):
    path = tmp_path / "run"
    child = Child(lambda: train(tmp_path, name="run", progress=lambda step, _: time.sleep(99) if step == 160 else None))
    while not (path / "metrics.jsonl").exists() or len(read_metrics(path / "metrics.jsonl")) < 6:
        time.sleep(0.005)
    shown = reader.show(path)
    assert (shown["status"], shown["checkpoint"]) == ("running", 128) and shown["step"] >= 128
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.001)
    assert reader.show(path)["status"] == "killed"  # nobody has waited for it yet
    child.wait()
    assert reader.show(path)["status"] == "killed"
    resume(path)
    assert reader.show(path)["status"] == "finished"


def test_a_pid_used_again_is_another_process():
    """Also after a reboot, and on another host only a fresh heartbeat counts."""
    me = {**process.me(), "heartbeat": process.now()}
    assert process.lives(me)
    assert not process.lives({**me, "process_started": me["process_started"] - 1})
    assert not process.lives({**me, "boot": "another"})
    assert (
        not process.lives({**me, "pid": 2**22 + 1}) and not process.lives({**me, "pid": None}) and not process.lives({})
    )
    elsewhere = {**me, "host": "elsewhere", "pid": 1}
    assert process.lives(elsewhere)
    assert not process.lives({**elsewhere, "heartbeat": "2020-01-01T00:00:00+00:00"})


def test_show_has_what_others_build_on(run):
    shown = reader.show(run)
    assert {"run", "algo", "env", "seed", "step", "status", "weights_sha256", "eval", "metrics"} <= set(shown)
    assert shown["weights_sha256"] == result(run)[0] and shown["eval"] == status(run)["evaluation"]
    assert shown["metrics"]["train/n_updates"] == 40 and not any(key.startswith("time/") for key in shown["metrics"])


def test_show_of_a_killed_run_has_the_hash_of_its_newest_checkpoint(tmp_path):
    from rlx.rundir.checkpoint import Checkpoints, weights_sha256

    assert Child(lambda: train(tmp_path, name="run", progress=die_at(160))).wait() < 0
    policy = Checkpoints(tmp_path / "run" / "checkpoints").load().state["run"]["tracked"]["policy"]
    shown = reader.show(tmp_path / "run")
    assert shown["weights_sha256"] == weights_sha256({f"policy.{key}": value for key, value in policy.items()})
    assert (shown["status"], shown["checkpoint"], shown["eval"]["step"]) == ("killed", 128, 96)


def test_looking_at_runs_imports_no_torch(run):
    code = "import sys; from rlx.rundir import reader; reader.show(reader.resolve(sys.argv[1])); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(run)], check=True, capture_output=True, text=True)
    assert "rlx.rundir.reader" in done.stdout.split() and "torch" not in done.stdout.split()


# -- metrics and TensorBoard after kill -9 and resume


def events(path):
    return EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0, "images": 0}).Reload()


def test_metrics_have_each_step_once_and_in_order(run):
    rows = read_metrics(run / "metrics.jsonl")
    trained = [row["step"] for row in rows if "train/loss" in row]
    evaluated = [row["step"] for row in rows if "eval/mean_reward" in row]
    assert trained == list(range(32, 321, 32)) and evaluated == [96, 192, 288, 320]


def test_tensorboard_has_each_step_once_with_the_values_of_metrics(run):
    shown, rows = events(run), read_metrics(run / "metrics.jsonl")
    tags = {key for row in rows for key in row} - {"step"}
    assert set(shown.Tags()["scalars"]) == tags
    for tag in tags:
        logged = [(row["step"], pytest.approx(row[tag])) for row in rows if tag in row]
        assert [(event.step, event.value) for event in shown.Scalars(tag)] == logged


def test_tensorboard_has_the_texts_the_videos_and_the_hyper_parameters(run):
    shown = events(run)
    assert {"config/text_summary", "command/text_summary", "versions/text_summary"} <= {
        tag if tag.endswith("text_summary") else f"{tag}/text_summary" for tag in shown.Tags()["tensors"]
    }
    videos = shown.Images("eval/video")
    assert [video.step for video in videos] == [0, 96, 192, 288, 320]
    assert all(video.encoded_image_string.startswith(b"GIF89a") for video in videos)
    content = shown.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["algo.lr"].number_value == 3e-4 and start.hparams["env.id"].string_value == "CartPole-v1"
    content = shown.summary_metadata["_hparams_/session_end_info"].plugin_data.content
    assert plugin_data_pb2.HParamsPluginData.FromString(content).session_end_info.status == 1  # success


@pytest.mark.parametrize("ends, expected", [("killed", None), ("interrupted", None), ("failed", 2)])
def test_a_run_that_does_not_end_well_has_no_success_in_the_hparams(ends, expected, tmp_path):
    def progress(step, _metrics):
        if step == 160:
            if ends == "failed":
                raise RuntimeError("boom")
            os.kill(os.getpid(), signal.SIGKILL if ends == "killed" else signal.SIGTERM)

    Child(lambda: train(tmp_path, name="run", progress=progress, tensorboard=True)).wait()
    metadata = events(tmp_path / "run").summary_metadata.get("_hparams_/session_end_info")
    found = (
        metadata and plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content).session_end_info.status
    )
    assert found == expected


# -- no pickle


def test_no_file_of_a_run_is_or_holds_a_pickle(run):
    """Neither a whole file nor a zip member; and no pickle protocol header begins anywhere in a checkpoint."""
    files = [file for file in run.rglob("*") if file.is_file()]
    assert len(files) >= 9 and {file.suffix for file in files} >= {".safetensors", ".json", ".jsonl", ".yaml"}
    for file in files:
        data = file.read_bytes()
        assert b"PK\x03\x04" not in data
        with pytest.raises(Exception):  # noqa: B017
            list(pickletools.genops(data))
    for file in (run / "checkpoints").iterdir():
        data = file.read_bytes()
        for found in re.finditer(rb"\x80[\x02-\x05]", data):
            with pytest.raises(Exception):  # noqa: B017
                list(pickletools.genops(data[found.start() :]))


def test_strict_json_readers_can_read_everything(run):
    def refuse(constant):
        raise AssertionError(constant)

    for name in ("run.json", "status.json"):
        json.loads((run / name).read_text(), parse_constant=refuse)


def test_the_word_behind_an_option_that_names_a_secret_is_not_kept() -> None:
    words = ["rlx", "train", "--password", "abc", "--hf-token", "abc", "--token=abc", "seed=1"]
    assert provenance.command_line(words) == [
        "rlx", "train", "--password", "***", "--hf-token", "***", "--token=***", "seed=1",
    ]  # fmt: skip
