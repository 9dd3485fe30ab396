"""metrics.jsonl holds exactly what was logged; TensorBoard shows it, and never stands in the way of a run."""

import io
import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest
from hparams_page import hparams_tab
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as PluginEventAccumulator
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c, masked_crc32c
from tensorboard.util.tensor_util import make_ndarray

from rlx.config.keys import config_hash
from rlx.rundir.metrics import MetricsLog, read_metrics, strip_time
from rlx.rundir.tensorboard import Dashboard, _Crc32c


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def events(path):
    everything = {"scalars": 0, "tensors": 0, "images": 0}
    return EventAccumulator(str(path), size_guidance=everything).Reload()


def series(path, tag):
    """(step, value), the same for EventAccumulator and the web page's reader, which purges differently."""
    seen = [(event.step, event.value) for event in events(path).Scalars(tag)]
    web = PluginEventAccumulator(str(path), size_guidance={"tensors": 0}).Reload().Tensors(tag)
    np.testing.assert_equal([(event.step, make_ndarray(event.tensor_proto).item()) for event in web], seen)
    return seen


# metrics.jsonl


def test_a_line_is_step_then_the_metrics_in_the_order_given(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    log.write(7, {"z": 1, "a": 0.5, "text": "für", "flag": True, "none": None})
    expected = '{"step": 7, "z": 1, "a": 0.5, "text": "f\\u00fcr", "flag": true, "none": null}\n'
    assert (tmp_path / "m.jsonl").read_text() == expected


def test_every_line_is_in_the_file_before_close(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    for step in range(3):
        log.write(step, {"x": step})
        assert len(read_metrics(tmp_path / "m.jsonl")) == step + 1


def test_floats_read_back_bit_for_bit(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2**64, 2000, dtype=np.uint64)
    values = [x for x in bits.view(np.float64).tolist() if math.isfinite(x)] + [0.1, -0.0, 5e-324]
    log = MetricsLog(tmp_path / "m.jsonl")
    for step, value in enumerate(values):
        log.write(step, {"x": value})
    read = np.array([row["x"] for row in read_metrics(tmp_path / "m.jsonl")])
    assert read.tobytes() == np.array(values).tobytes()


def test_nan_and_infinity_are_strict_json(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    log.write(0, {"nan": math.nan, "up": math.inf, "down": np.float32(-math.inf), "x": np.float32(0.5)})
    row = {"step": 0, "nan": None, "up": "Infinity", "down": "-Infinity", "x": 0.5}
    assert strict((tmp_path / "m.jsonl").read_text()) == row
    assert read_metrics(tmp_path / "m.jsonl") == [{**row, "up": math.inf, "down": -math.inf}]


def test_numpy_and_torch_scalars_are_written_as_their_items(tmp_path):
    torch = pytest.importorskip("torch")
    scalars = {
        "f64": np.float64(0.1),
        "f32": np.float32(0.1),
        "i64": np.int64(-3),
        "bool": np.bool_(True),
        "array": np.array(2.5),
        "tensor": torch.tensor(0.1),
        "bf16": torch.tensor(1.5, dtype=torch.bfloat16, requires_grad=True),
    }
    MetricsLog(tmp_path / "m.jsonl").write(np.int64(5), scalars)
    (row,) = read_metrics(tmp_path / "m.jsonl")
    assert row == {"step": 5} | {name: value.item() for name, value in scalars.items()}
    assert type(row["bool"]) is bool and type(row["i64"]) is int


def test_a_metric_cannot_be_called_step_nor_be_an_object(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    with pytest.raises(ValueError, match="'step'"):
        log.write(1, {"step": 2})
    with pytest.raises(TypeError, match="not a number"):
        log.write(1, {"x": object()})
    assert log.sync() == 0


def test_resuming_at_the_offset_of_sync_equals_never_having_stopped(tmp_path):
    straight = MetricsLog(tmp_path / "straight.jsonl")
    stopped = MetricsLog(tmp_path / "stopped.jsonl")
    for step in range(5):
        straight.write(step, {"x": step / 3})
        stopped.write(step, {"x": step / 3})
    offset = stopped.sync()
    for step in range(5, 9):
        stopped.write(step, {"x": math.nan})
    stopped.close()
    resumed = MetricsLog(tmp_path / "stopped.jsonl", offset)
    for step in range(5, 12):
        straight.write(step, {"x": step / 3})
        resumed.write(step, {"x": step / 3})
    assert (tmp_path / "stopped.jsonl").read_bytes() == (tmp_path / "straight.jsonl").read_bytes()
    assert resumed.sync() == straight.sync() == (tmp_path / "straight.jsonl").stat().st_size


def test_resuming_at_offset_zero_starts_an_empty_log_even_where_none_exists(tmp_path):
    path = tmp_path / "m.jsonl"
    assert MetricsLog(path, 0).sync() == 0
    path.write_text('{"step": 0}\n')
    assert MetricsLog(path, 0).sync() == 0 and path.read_bytes() == b""


@pytest.mark.parametrize(
    "content, offset, message",
    [(b'{"step": 0}\n', 13, "12 bytes"), (b'{"step": 0}\n', 5, "byte 5"), (None, 12, "0 bytes")],
    ids=["file too short", "offset within a line", "no file"],
)
def test_a_log_that_is_not_the_checkpoints_is_one_line_and_stays_as_it_is(tmp_path, content, offset, message):
    path = tmp_path / "m.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        MetricsLog(path, offset)
    assert "\n" not in str(error.value)
    assert (path.read_bytes() if path.exists() else None) == content


@pytest.mark.parametrize("torn", [b'{"step": 2, "x', b"{", b"\0\0\0\0", "{'ü".encode()[:-1], b'{"step": 2}x\n'])
def test_a_torn_last_line_is_left_out(tmp_path, torn):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 0}\n{"step": 1}\n' + torn)
    assert read_metrics(path) == [{"step": 0}, {"step": 1}]


def test_a_torn_line_anywhere_else_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 0}\n{"st\n{"step": 2}\n')
    with pytest.raises(ValueError, match="m.jsonl:2: "):
        read_metrics(path)


@pytest.mark.parametrize("length", [5, 65535, 65536, 65537, 200_000])
def test_appending_to_a_log_cuts_its_torn_last_line_first(tmp_path, length):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 0}\n' + b"x" * length)
    MetricsLog(path).write(1, {})
    assert path.read_bytes() == b'{"step": 0}\n{"step": 1}\n'
    path.write_bytes(b"x" * length)
    MetricsLog(path).write(1, {})
    assert path.read_bytes() == b'{"step": 1}\n'


def test_what_two_equal_runs_share_is_all_but_the_wall_clock():
    row = {"step": 1, "x": 0.1, "nan": math.nan, "time/fps": 100.0}
    assert strip_time(row).keys() == {"step", "x", "nan"}


def test_the_module_imports_neither_torch_nor_numpy_nor_tensorboard():
    heavy = "{'torch', 'numpy', 'tensorboard', 'google.protobuf'} & set(sys.modules)"
    subprocess.run(
        [sys.executable, "-c", f"import sys, rlx.rundir.metrics, rlx.rundir.tensorboard; assert not {heavy}, {heavy}"],
        check=True,
    )


def test_the_dashboard_imports_neither_torch_nor_tensorflow(tmp_path):
    code = f"""import sys, rlx.rundir.tensorboard as logger
board = logger.Dashboard({str(tmp_path)!r})
board.hparams_start({{"a": 1}}, "g"); board.text("t", "x"); board.hparams_end("success"); board.close()
heavy = {{"torch", "tensorflow", "tensorboard.compat.tensorflow_stub", "grpc"}} & set(sys.modules)
assert not heavy, heavy"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""


# config_hash


def test_the_hash_ignores_seed_machine_and_key_order_and_nothing_else():
    config = {"seed": 0, "device": "cpu", "env": "cartpole", "algo": {"lr": 1e-3, "layers": [64, 64]}}
    same = {"algo": {"layers": (64, 64), "lr": 0.001}, "env": "cartpole", "seed": 9, "device": "cuda", "threads": 4}
    assert config_hash(config) == config_hash(same)
    changes = [{"env": "pong"}, {"algo": {"lr": 2e-3, "layers": [64, 64]}}, {"algo": {"lr": 1e-3}}, {"x": None}]
    assert len({config_hash(config | change) for change in [{}, *changes]}) == 5
    assert config_hash(config, without=()) != config_hash(config | {"seed": 1}, without=())
    assert config_hash(config, without=("seed", "algo.lr")) == config_hash(
        config | {"algo": {"lr": 5, "layers": [64, 64]}}, without=("seed", "algo.lr")
    )


def test_the_hash_is_the_same_in_every_process():
    assert config_hash({"seed": 3, "algo": {"lr": 1e-3}}) == config_hash({"algo": {"lr": 1e-3}})
    assert config_hash({"algo": {"lr": 1e-3}, "env": "cartpole"}) == "cdd441771a"  # printed once, kept since


# TensorBoard


def test_the_crc_is_tensorboards():
    ours, rng = _Crc32c(), np.random.default_rng(0)
    assert ours(b"123456789") == 0xE3069283  # the check value of CRC-32C, RFC 3720 B.4
    for length in [*range(4, 40), 511, 512, 513, 515, 516, 517, 1023, 1024, 1027, 1028, 1029, 5000]:
        data = rng.bytes(length)
        assert ours(data) == crc32c(data) and ours.masked(data) == masked_crc32c(data)


def test_scalars_read_back_as_written_in_one_event_a_step(tmp_path):
    board = Dashboard(tmp_path)
    for step in range(3):
        metrics = {"train/loss": 0.1 * step, "n": step, "np": np.float32(2.5), "ok": True, "none": None, "s": "3"}
        board.scalars(step, metrics)
    board.scalars(3, {"only": "text"})
    board.close()
    assert sorted(events(tmp_path).Tags()["scalars"]) == ["n", "np", "ok", "train/loss"]
    assert series(tmp_path, "train/loss") == [(step, float(np.float32(0.1 * step))) for step in range(3)]
    assert series(tmp_path, "np") == [(0, 2.5), (1, 2.5), (2, 2.5)]
    assert series(tmp_path, "ok") == [(0, 1), (1, 1), (2, 1)]
    walls = [{event.wall_time for event in events(tmp_path).Scalars(tag)} for tag in ("n", "np", "ok")]
    assert walls[0] == walls[1] == walls[2] and len(walls[0]) == 3  # one time stamp a step: one event
    assert max(walls[0]) <= time.time() < max(walls[0]) + 60


def test_events_are_in_the_file_before_close(tmp_path):
    board = Dashboard(tmp_path)
    for step in range(3):
        board.scalars(step, {"x": step})
        assert len(series(tmp_path, "x")) == step + 1


def test_nan_infinite_huge_and_foreign_values_do_not_hurt(tmp_path, capsys):
    board = Dashboard(tmp_path)
    odd = {"nan": math.nan, "inf": math.inf, "big": 1e300, "huge": 10**400, "list": [1], "object": object()}
    board.scalars(0, odd | {"x": 1.0})
    assert capsys.readouterr().err == ""
    assert math.isnan(series(tmp_path, "nan")[0][1]) and series(tmp_path, "inf") == [(0, math.inf)]
    assert series(tmp_path, "x") == [(0, 1.0)]
    assert not {"huge", "list", "object"} & set(events(tmp_path).Tags()["scalars"])


def test_text_reads_back(tmp_path):
    Dashboard(tmp_path).text("config", "```yaml\nalgo: ppo\nname: für\n```")
    (event,) = events(tmp_path).Tensors("config")
    assert event.tensor_proto.string_val[0].decode() == "```yaml\nalgo: ppo\nname: für\n```"
    assert events(tmp_path).SummaryMetadata("config").plugin_data.plugin_name == "text"


def test_a_gif_reads_back_as_the_gif_it_was(tmp_path):
    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "green", "blue")]
    gif = io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:], duration=50)
    Dashboard(tmp_path).image_gif("video", gif.getvalue(), width=40, height=30, step=9)
    (event,) = events(tmp_path).Images("video")
    assert (event.step, event.width, event.height) == (9, 40, 30)
    image = Image.open(io.BytesIO(event.encoded_image_string))
    assert (image.format, image.size, image.n_frames) == ("GIF", (40, 30), 3)


def resumed(path, purge_step):
    """Steps 0..9 logged, then resumed from the checkpoint of step 5 and run on to 11."""
    board = Dashboard(path)
    for step in range(10):
        board.scalars(step, {"x": step})
    if purge_step is None:
        board.close()  # otherwise: killed, nothing closed
    again = Dashboard(path, purge_step)
    for step in range(6, 12):
        again.scalars(step, {"x": -step})
    return series(path, "x")


def test_purge_at_the_step_behind_the_checkpoint_leaves_one_value_a_step(tmp_path):
    clean = [(step, step if step < 6 else -step) for step in range(12)]
    assert resumed(tmp_path / "purged", purge_step=5 + 1) == clean
    assert resumed(tmp_path / "not", purge_step=None) != clean


def test_purge_does_not_need_the_clock(tmp_path, monkeypatch):
    board = Dashboard(tmp_path)
    board.scalars(3, {"x": 3})
    board.scalars(4, {"x": 4})
    monkeypatch.setattr("rlx.rundir.tensorboard.time.time", lambda: 1e9)  # resumed on a host that is 20 years late
    Dashboard(tmp_path, purge_step=4).scalars(4, {"x": -4})
    Dashboard(tmp_path, purge_step=5).scalars(5, {"x": -5})
    assert series(tmp_path, "x") == [(3, 3), (4, -4), (5, -5)]


def test_a_torn_event_costs_only_itself(tmp_path):
    board = Dashboard(tmp_path)
    board.scalars(0, {"x": 0})
    board.scalars(1, {"x": 1})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    Dashboard(tmp_path, purge_step=1).scalars(1, {"x": -1})
    assert series(tmp_path, "x") == [(0, 0), (1, -1)]


def full_disk(tmp_path, code):
    """Run `code` where no file may grow beyond 1000 bytes: the last write is a part, as on a full disk.

    -B: without it some Pythons would leave a .pyc cut at 1000 bytes.
    """
    code = f"""import resource
from rlx.rundir.tensorboard import Dashboard
from rlx.rundir.metrics import *
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
D = {str(tmp_path)!r}
{code}"""
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_on_a_full_disk_the_log_raises_and_keeps_whole_lines(tmp_path):
    code = """
log, lines = MetricsLog(D + "/m.jsonl"), 0
try:
    while True:
        log.write(lines, {"x": "y" * 85}); lines += 1
except OSError:
    print(lines)
log.write(lines, {})
log.close()
"""
    lines = int(full_disk(tmp_path, code).stdout)
    content = (tmp_path / "m.jsonl").read_text().splitlines()
    assert lines == 9 and [strict(line)["step"] for line in content] == list(range(lines + 1))


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_on_a_full_disk_the_dashboard_warns_once_and_training_goes_on(tmp_path):
    code = """
board = Dashboard(D)
for step in range(100):
    board.scalars(step, {"x": step, "y": 0})
board.text("a", "b"); board.hparams_start({}, "g"); board.hparams_end("success"); board.flush(); board.close()
print("trained")
"""
    done = full_disk(tmp_path, code)
    assert done.stdout == "trained\n"
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("warning: no more TensorBoard events (")
    written = series(tmp_path, "x")
    assert 5 < len(written) < 100 and written == [(step, step) for step in range(len(written))]
    (path,) = tmp_path.iterdir()
    assert path.read_bytes().endswith(b"\0\0\0\0") is False and path.stat().st_size < 1000  # no torn record


def test_a_dashboard_without_a_directory_warns_once(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    board = Dashboard(tmp_path / "file" / "run")
    board.scalars(0, {"x": 1})
    board.text("a", "b")
    board.image_gif("v", b"", 1, 1, 0)
    board.hparams_start({"a": 1}, "g")
    board.hparams_end("failure")
    board.flush()
    board.close()
    assert capsys.readouterr().err.count("\n") == 1


def test_after_close_nothing_is_written_and_nothing_said(tmp_path, capsys):
    board = Dashboard(tmp_path)
    board.scalars(0, {"x": 1})
    board.close()
    board.close()
    board.scalars(1, {"x": 2})
    assert series(tmp_path, "x") == [(0, 1)] and capsys.readouterr().err == ""


# HPARAMS: what TensorBoard's own plugin answers


def run(path, config, reward, status="success"):
    board = Dashboard(path)
    board.hparams_start(config, config_hash(config))
    for step in (10, 20):
        board.scalars(step, {"reward": reward + step - 20, "train/loss": 0.5})
    if status:
        board.hparams_end(status)
        board.close()


def test_the_hparams_tab_has_a_row_per_config_with_the_mean_over_its_seeds(tmp_path):
    first = {"env": "cartpole", "algo": {"lr": 0.5, "norm": True, "layers": [64, 64], "target_kl": None}}
    second = {"env": "cartpole", "algo": {"lr": 0.25, "norm": True, "layers": [64, 64], "epochs": 4}}
    for seed in (0, 1, 2):
        run(tmp_path / f"a{seed}", first | {"seed": seed, "device": "cpu"}, reward=100 + 10 * seed)
    run(tmp_path / "b0", second | {"seed": 0}, reward=7, status="failure")
    run(tmp_path / "b1", second | {"seed": 1}, reward=9, status=None)  # killed
    tab = hparams_tab(tmp_path)
    assert tab[config_hash(first)]["hparams"]["algo.norm"] is True  # a box to tick, not 1.0
    assert tab == {
        config_hash(first): {
            "hparams": {"env": "cartpole", "algo.lr": 0.5, "algo.norm": True, "algo.layers": "[64, 64]"},
            "metrics": {"reward": 110, "train/loss": 0.5},
            "status": ["success"] * 3,
        },
        config_hash(second): {
            "hparams": {
                "env": "cartpole",
                "algo.lr": 0.25,
                "algo.norm": True,
                "algo.layers": "[64, 64]",
                "algo.epochs": 4,
            },
            "metrics": {"reward": 8, "train/loss": 0.5},
            "status": ["failure", "unknown"],
        },
    }


@pytest.mark.parametrize("before", ["failure", "success", None])
@pytest.mark.parametrize("after", ["failure", "success", None])
def test_a_resumed_run_has_the_status_of_its_last_life(tmp_path, before, after):
    config = {"seed": 0, "lr": 0.5}
    run(tmp_path / "r", config, reward=1, status=before)
    board = Dashboard(tmp_path / "r", purge_step=20 + 1)
    board.hparams_start(config, config_hash(config))
    board.scalars(30, {"reward": 2})
    if after:
        board.hparams_end(after)
    (row,) = hparams_tab(tmp_path).values()
    assert row["status"] == [after or "unknown"] and row["metrics"]["reward"] == 2
    assert series(tmp_path / "r", "reward") == [(10, -9), (20, 1), (30, 2)]
