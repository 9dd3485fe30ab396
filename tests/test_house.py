"""The house: what a reader counts on when looking for something (docs/architecture.md)."""

import ast
from collections import defaultdict
from pathlib import Path

import mutants

RLX = Path(__file__).resolve().parent.parent / "rlx"
LISTS = {"algos", "language/tasks"}  # whose files are a list of one kind
INTERFACES = {"Config", "Task", "Logger"}  # what each algorithm, task or logger calls its own


def test_a_room_holds_at_most_twelve_files():
    rooms: dict[str, list[str]] = defaultdict(list)
    for path in RLX.rglob("*"):
        if path.suffix in (".py", ".c") and path.name != "__init__.py":
            rooms[path.parent.relative_to(RLX).as_posix()].append(path.name)
    assert {name: len(files) for name, files in rooms.items() if len(files) > 12 and name not in LISTS} == {}


def test_no_class_name_stands_twice():
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted(RLX.rglob("*.py")):
        if path.parent.name != "templates":
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and node.name not in INTERFACES:
                    places[node.name].append(path.relative_to(RLX).as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_beside_the_rooms_there_are_only_the_entrances():
    assert {path.name for path in RLX.glob("*.py")} == {"__init__.py", "__main__.py", "api.py", "run.py"}


def test_the_architecture_names_every_room():
    page = (RLX.parent / "docs" / "architecture.md").read_text()
    rooms = {path.name for path in RLX.iterdir() if (path / "__init__.py").is_file()}
    assert {name for name in rooms if f"{name}/" not in page} == set()


def test_algorithms_and_both_worlds_say_what_a_configuration_is():
    untyped = [
        f"{path.relative_to(RLX)}:{number}"
        for room in ("algos", "control", "language")
        for path in sorted((RLX / room).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "cfg: Any" in line
    ]
    assert untyped == []


def test_every_mutant_breaks_a_line_that_is_there():
    lost = [name for name, path, before, *_ in mutants.MUTANTS if before not in (RLX / path).read_text()]
    assert lost == []
