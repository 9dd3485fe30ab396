import pytest

pytest.importorskip("optuna")
