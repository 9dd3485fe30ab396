"""Every equation shows an example that can be followed by hand, and the example holds."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

from rlx import functional

MODULES = [
    importlib.import_module(f"rlx.functional.{name}") for _, name, _ in pkgutil.iter_modules(functional.__path__)
]
FUNCTIONS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": function
    for module in MODULES
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_")
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_equation_shows_an_example_and_it_holds(name):
    function = FUNCTIONS[name]
    torch.set_default_dtype(torch.float32)  # as where a reader types it; the fixture puts float64 back
    names = {**vars(inspect.getmodule(function)), "tensor": torch.tensor}
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(function), names, name, None, None)
    assert example.examples, f"{name} shows no example"
    report: list[str] = []
    assert doctest.DocTestRunner().run(example, out=report.append).failed == 0, "".join(report)


def test_every_equation_is_checked():
    assert len(MODULES) >= 9 and len(FUNCTIONS) >= 50 and "returns.gae" in FUNCTIONS
