"""The tiny language models of tests/language are importable here too, and so is their fixture."""

import sys
from pathlib import Path

from language.conftest import float64  # noqa: F401

sys.path.append(str(Path(__file__).parent.parent / "language"))
