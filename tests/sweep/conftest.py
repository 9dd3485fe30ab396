"""The helpers of this directory are importable in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna")
sys.path.insert(0, str(Path(__file__).parent))
