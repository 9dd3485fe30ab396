"""rlx dash: TensorBoard over runs, on localhost."""

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Annotated

from rlx.base.errors import UserError
from rlx.cli.app import Directory, app, check_directory, optional
from rlx.rundir import home
from rlx.rundir.tensorboard_grid import BANDS

FIRST, MANY = 6006, 100  # ports that are tried where none is asked for
PATIENCE = 60.0  # seconds for its first answer
HOST = "localhost"


@app.command()
def dash(
    directory: Directory = None,
    port: Annotated[
        int | None, optional(min=1, max=65535, help=f"Port of the web page ({FIRST}, or the next free one).")
    ] = None,
) -> None:
    """Start TensorBoard over the runs, on localhost, until Ctrl-C."""
    directory = directory or home.runs_dir()
    check_directory(directory)
    if port is not None and not _free(port):
        raise UserError(f"--port={port}: is in use by another program (without --port a free one is used)")
    chosen = port or next((number for number in range(FIRST, FIRST + MANY) if _free(number)), None)
    if chosen is None:
        raise UserError(f"no free port from {FIRST} to {FIRST + MANY - 1} (--port=N takes another one)")
    if (grids := _grids(directory)) and directory not in grids:
        print(f"rlx: note: HPARAMS has the columns of one grid; of the newest: rlx dash {grids[-1]}", file=sys.stderr)
    _serve(directory, chosen)


def _free(port: int) -> bool:
    """Whether a server can listen there, on every address that localhost has."""
    for family, kind, _, _, address in socket.getaddrinfo(HOST, port, type=socket.SOCK_STREAM):
        with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address[:2])
            except OSError:
                return False
    return True


def _grids(directory: Path) -> list[Path]:
    """The grids and searches here that name columns of their own (see rlx.rundir.tensorboard_grid)."""
    under = ("", "*/", "sweeps/*/")
    places = [file.parents[1] for part in under for file in directory.glob(f"{part}{BANDS}/*tfevents*.columns")]
    return sorted(set(places), key=lambda path: path.stat().st_mtime)


def _serve(directory: Path, port: int) -> None:
    """Run TensorBoard until it ends or is ended with Ctrl-C; its output is shown only where it fails."""
    words = ["--logdir", str(directory), "--host", HOST, "--port", str(port)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen([sys.executable, "-m", "tensorboard.main", *words], stdout=output, stderr=output)
        try:
            if _answers(child, port):
                print(f"http://{HOST}:{port}  TensorBoard over {directory}; Ctrl-C ends it", flush=True)
            code = child.wait()
        except KeyboardInterrupt:
            return
        finally:
            child.terminate()
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
        if code and code != -signal.SIGINT:
            raise RuntimeError(f"TensorBoard ended with {code}: {_last_line(output)}")


def _answers(child: subprocess.Popen, port: int) -> bool:
    """Whether it does, once it has had time to start. Raises RuntimeError where it is silent for too long."""
    end = time.monotonic() + PATIENCE
    while child.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return True
        if time.monotonic() > end:
            raise RuntimeError(f"TensorBoard has not answered on port {port} within {PATIENCE:g} seconds")
        time.sleep(0.05)
    return False


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    return (output.read().decode(errors="replace").strip().splitlines() or ["(no output)"])[-1]
