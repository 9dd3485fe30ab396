"""Notebooks run from their first cell to their last, each in a new folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, environment

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(notebook: Path, tmp_path: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 3 and all(not cell.get("outputs") for cell in cells)
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join(code))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.splitlines()) >= 3, done.stderr


def test_there_are_three_notebooks() -> None:
    assert len(NOTEBOOKS) == 3
