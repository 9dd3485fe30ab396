import pytest
import torch


@pytest.fixture(autouse=True)
def float64_on_one_thread():
    """Theorems are checked in float64: what float32 would hide is then visible."""
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)
    torch.set_num_threads(threads)
