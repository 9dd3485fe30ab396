"""A checkpoint is whole or absent; what is not whole is found out; the last good one is never lost."""

import json
import os
import random
import re
import signal

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from tiny_runs import Child, fail_at

from rlx.base.files.atomic import CannotWrite, remove_temporaries
from rlx.rundir import checkpoint
from rlx.rundir.checkpoint import CheckpointError, Checkpoints, weights_sha256

STATE = {
    "model": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1.5, -0.0, float("nan")])},
    "step": 3,
    "text": "für",
    "list": [1, 2.5, None, True],
}


def equal(a, b):
    """The same tree, every bit of every array."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor | np.ndarray):
        a, b = (
            x.numpy() if x.dtype != torch.bfloat16 else x.view(torch.int16).numpy()
            for x in map(torch.as_tensor, (a, b))
        )
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b and type(a) is type(b)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return Checkpoints(tmp_path / "checkpoints", keep=2)


@pytest.fixture
def file(run):
    run.save("step", 3, STATE)
    return run.directory / "step_000000000003.safetensors"


# -- what is saved comes back


@pytest.mark.parametrize(
    "leaf",
    [
        torch.tensor(2.5),
        torch.zeros(0, 3),
        torch.tensor([1.0, float("nan"), float("inf"), -0.0, 1e-45]),
        torch.randn(3, 4).t(),  # not contiguous
        torch.randn(4, dtype=torch.float64),
        torch.randn(4).bfloat16(),
        torch.tensor([True, False]),
        torch.arange(5),
        np.arange(5, dtype=np.uint16),
        np.arange(12, dtype=np.uint8).reshape(3, 4)[:, ::2],
        np.float64([[1e-320, -0.0]]),
        np.zeros((2, 0), np.int8),
        2**200 + 1,  # what numpy's generators are made of
        0.1 + 0.2,
        float("inf"),
        "a 'text' with \"quotes\", \\, \n, ü and \u2028",
        [],
        {},
        None,
    ],
)
def test_a_leaf_reads_back_bit_for_bit(run, leaf):
    run.save("step", 1, {"leaf": leaf, "again": [leaf]})
    found = run.load().state
    assert equal(found["leaf"], leaf) and equal(found["again"], [leaf])


def test_the_state_of_a_generator_reads_back(run):
    rng = np.random.default_rng(1)
    rng.integers(2, dtype=np.uint32)  # leaves half a word behind
    run.save("step", 1, {"rng": rng.bit_generator.state})
    other = np.random.default_rng(2)
    other.bit_generator.state = run.load().state["rng"]
    assert (
        rng.integers(2**32, size=5, dtype=np.uint32).tolist() == other.integers(2**32, size=5, dtype=np.uint32).tolist()
    )


def test_a_save_does_not_share_memory_with_what_is_saved(run):
    weights = torch.zeros(3)
    run.save("step", 1, {"a": weights, "b": weights[:2]})
    weights += 1
    assert equal(run.load().state, {"a": torch.zeros(3), "b": torch.zeros(2)})


@pytest.mark.parametrize("leaf", [object(), {1: 2}, {"$tensor": "x"}, b"bytes", 1j, {1, 2}])
def test_what_cannot_be_restored_is_refused_when_saving(run, leaf):
    with pytest.raises(TypeError, match=r"^/deep/0"):
        run.save("step", 1, {"deep": [leaf]})
    assert run.load() is None and not list(run.directory.iterdir())


def test_two_tensors_of_one_name_are_refused(run):
    with pytest.raises(TypeError, match="two tensors"):
        run.save("step", 1, {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}})


def test_the_weights_are_a_plain_safetensors_file(file):
    assert equal(safetensors.torch.load_file(file)["model/w"], STATE["model"]["w"])


def test_the_hash_of_weights_sees_names_types_shapes_and_bits():
    base = {"a": torch.zeros(4), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(4), "c": torch.ones(1)},
        {"a": torch.zeros(4, dtype=torch.int32), "b": torch.ones(1)},
        {"a": torch.zeros(2, 2), "b": torch.ones(1)},
        {"a": -torch.zeros(4), "b": torch.ones(1)},
        {"a": torch.zeros(4), "b": torch.nextafter(torch.ones(1), torch.tensor(2.0))},
    ]
    assert weights_sha256(dict(reversed(base.items()))) == weights_sha256(base)
    assert len({weights_sha256(each) for each in [base, *others]}) == 6


# -- damage


def test_every_flipped_bit_is_detected(file):
    data, rng = file.read_bytes(), random.Random(0)
    header = int.from_bytes(data[:8], "little")
    place = re.search(rb'"sha256":"', data).end()
    bits = {*range(64), *range(8 * place, 8 * (place + 64)), *rng.sample(range(8 * header), 300)}
    bits |= {8 * header + bit for bit in rng.sample(range(8 * (len(data) - header)), 300)}
    for bit in sorted(bits):
        file.write_bytes(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :])
        with pytest.raises(CheckpointError, match=r"^step_000000000003\.safetensors: damaged"):
            checkpoint.load(file)
    file.write_bytes(data)
    assert equal(checkpoint.load(file)["state"], STATE)


def test_every_truncation_and_every_appended_byte_is_detected(file):
    data, rng = file.read_bytes(), random.Random(0)
    for length in [0, 1, 7, 8, 9, len(data) - 1, *rng.sample(range(len(data)), 100)]:
        file.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            checkpoint.load(file)
    file.write_bytes(data + b"\0")
    with pytest.raises(CheckpointError):
        checkpoint.load(file)


def test_every_overwritten_block_is_detected(file):
    """What a disk that lost a page gives back: zeros, or another file's bytes."""
    data = file.read_bytes()
    for start in range(0, len(data), 64):
        file.write_bytes(data[:start] + b"\0" * len(data[start : start + 64]) + data[start + 64 :])
        if data[start : start + 64].strip(b"\0"):
            with pytest.raises(CheckpointError):
                checkpoint.load(file)


def test_the_newest_good_checkpoint_is_taken_with_one_line_for_each_bad_one(run):
    run.keep = 5
    for step in (1, 2, 3, 4):
        run.save("step", step, {"step": step})
    for step in (3, 4):
        path = run.directory / f"step_{step:012d}.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    found = run.load()
    assert (found.state, found.kind, found.step) == ({"step": 2}, "step", 2)
    assert [re.match(r"skipped a checkpoint, step_0+([34])\.safetensors: damaged", w)[1] for w in found.warnings] == [
        "4",
        "3",
    ]
    assert all("\n" not in warning for warning in found.warnings)


def test_without_a_good_checkpoint_loading_fails_and_without_any_there_is_none(run, file):
    assert Checkpoints(run.directory / "nowhere").load() is None
    run.save("best", 3, STATE)
    for path in run.directory.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"^no checkpoint can be read: step.* damaged.*; best.* damaged[^\n]*$"):
        run.load()


def test_a_future_format_is_refused_and_named(run, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 7)
    run.save("step", 1, STATE)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 7, this rlx reads format 1"):
        run.load()


def test_another_runs_checkpoint_is_refused_and_the_difference_named(run, tmp_path):
    theirs = Checkpoints(run.directory, identity={"seed": 1, "env.id": "Pendulum-v1"})
    theirs.save("step", 5, STATE)
    ours = Checkpoints(run.directory, identity={"seed": 1, "env.id": "CartPole-v1"})
    with pytest.raises(CheckpointError, match="another run's: env.id=Pendulum-v1 there, CartPole-v1 here"):
        ours.load()
    ours.save("best", 4, {"mine": 1})
    assert ours.load().state == {"mine": 1} and len(ours.load().warnings) == 1


def test_a_renamed_checkpoint_is_refused(run, file):
    file.rename(file.with_name("step_000000000009.safetensors"))
    with pytest.raises(CheckpointError, match="it was renamed"):
        run.load()


def test_what_is_no_checkpoint_of_rlx_is_refused(run):
    safetensors.torch.save_file({"w": torch.ones(1)}, run.directory / "step_000000000001.safetensors")
    torch.save({"w": torch.ones(1)}, run.directory / "step_000000000002.safetensors")
    os.mkfifo(run.directory / "step_000000000003.safetensors")
    (run.directory / "step_000000000004.safetensors").mkdir()
    (run.directory / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError) as found:
        run.load()
    assert str(found.value).count("step_") == 4


def test_a_link_out_of_the_run_directory_is_refused(run, file, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / file.name
    file.rename(outside)
    file.symlink_to(outside)
    with pytest.raises(CheckpointError, match="leads out of the run directory"):
        run.load()
    file.unlink()
    run.directory.rmdir()
    run.directory.symlink_to(outside.parent)
    with pytest.raises(CheckpointError, match="leads out of the run directory"):
        run.load()


# -- which are kept


def kept(run):
    return sorted((kind, step) for kind in checkpoint.KINDS for step in run.steps(kind))


def test_the_last_ones_the_best_and_the_final_one_are_kept(run):
    for step in range(1, 6):
        run.save("step", step, {})
        if step % 2:
            run.save("best", step, {})
    run.save("final", 6, {})
    assert kept(run) == [("best", 5), ("final", 6), ("step", 4), ("step", 5)]
    run.save("final", 9, {})
    assert kept(run) == [("best", 5), ("final", 9), ("step", 4), ("step", 5)]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_pruning_never_removes_the_only_good_checkpoint(run, keep):
    """Bad ones later than the one that was loaded do not count."""
    run.keep = 9
    for step in range(1, 7):
        run.save("step", step, {"step": step})
    for step in range(2, 7):
        (run.directory / f"step_{step:012d}.safetensors").write_bytes(b"bad")
    run.keep = keep
    run.save("step", 2, {"step": 2})
    found = run.load()
    assert found.state == {"step": 2} and not found.warnings
    assert kept(run) == [("step", 1), ("step", 2)][-keep:]


def test_latest_best_final_or_a_step_can_be_asked_for(run):
    for kind, step in [("step", 1), ("best", 2), ("step", 3)]:
        run.save(kind, step, {"is": [kind, step]})
    assert [run.load(which).state["is"] for which in ("latest", "best", "1", "2")] == [
        ["step", 3], ["best", 2], ["step", 1], ["best", 2],
    ]  # fmt: skip
    with pytest.raises(CheckpointError, match=r"no checkpoint 'final' \(there are: step 3, best 2, step 1\)"):
        run.load("final")
    run.save("final", 3, {"is": ["final", 3]})
    assert run.load().state["is"] == ["final", 3]  # of two at one step the final one


def test_steps_are_ordered_as_numbers(run):
    run.keep = 9
    for step in (999_999_999_999, 1_000_000_000_000, 5):
        checkpoint.save(run._path("step", step), {"step": step}, kind="step", step=step, identity={})
    assert run.load().step == 1_000_000_000_000


# -- kill -9 at every file operation


@pytest.mark.parametrize(
    "before, save",
    [
        ([("step", 1)], ("step", 2)),
        ([("step", 1), ("best", 2), ("step", 2)], ("step", 3)),  # with pruning
        ([("best", 1)], ("best", 2)),  # of a kind that is replaced
        ([("final", 1)], ("final", 2)),
        ([], ("step", 1)),
        ([("step", 1)], ("step", 1)),  # written again after a resume
    ],
)
def test_a_save_killed_at_any_file_operation_leaves_the_old_or_the_new_checkpoint(tmp_path, before, save):
    operation, seen = 0, set()
    while True:
        (tmp_path / str(operation)).mkdir()
        run = Checkpoints(tmp_path / str(operation) / "checkpoints", keep=2)
        for kind, step in before:
            run.save(kind, step, {"old": [kind, step]})
        code = Child(lambda run=run, n=operation: (fail_at(n), run.save(*save, {"new": torch.ones(100)}))).wait()
        found = run.load()
        new = found is not None and "new" in found.state
        assert new or (found.state["old"] == [*before[-1]] if before else found is None)
        assert found is None or not found.warnings
        seen.add(new)
        remove_temporaries(run.directory)
        assert all(checkpoint.NAME.fullmatch(path.name) for path in run.directory.glob("*"))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        operation += 1
    assert operation >= 6 and seen == {False, True}


def test_a_write_that_fails_leaves_the_old_checkpoint_and_names_path_and_bytes(run, file, monkeypatch):
    before = file.read_bytes()
    real = os.fsync

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite) as error:
        run.save("step", 3, {"new": torch.ones(100)})
    monkeypatch.setattr(os, "fsync", real)
    size = int(re.search(r"\(([\d,]+) bytes to write", str(error.value))[1].replace(",", ""))
    assert str(file) in str(error.value) and "No space left on device" in str(error.value) and size > 400
    assert file.read_bytes() == before and [path.name for path in run.directory.iterdir()] == [file.name]


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_save_returns(run, monkeypatch):
    """Against a loss of power, which no kill -9 can stand for."""
    calls, real = [], {name: getattr(os, name) for name in ("fsync", "replace", "unlink")}

    def fsync(descriptor):
        calls.append(f"sync {os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}')).split('-')[0]}")
        real["fsync"](descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("replace", "unlink"):
        monkeypatch.setattr(os, name, lambda *paths, name=name: (calls.append(name), real[name](*paths)))
    run.save("best", 1, STATE)
    run.save("best", 2, STATE)
    written = ["sync .tmp", "replace", "sync checkpoints"]
    assert calls == [*written, *written, "unlink"]


def test_no_pickle_opcode_is_in_a_checkpoint(file):
    import pickletools

    data = file.read_bytes()
    for start in range(0, len(data), 97):
        with pytest.raises(Exception):  # noqa: B017
            list(pickletools.genops(data[start:]))
    manifest = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["rlx"])
    assert manifest["format"] == checkpoint.FORMAT
