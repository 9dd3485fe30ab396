"""The page of every algorithm and of every equation: from the equation to the key, the code and the command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import ROOT, Forks, imported

from rlx.config import registry
from rlx.explain import algorithms, functions, keys, metrics, source
from rlx.explain.answer import answer

ALGORITHMS = sorted(registry.options("algo"))
BASES = sorted(registry.implementations())
TITLES = ("what: ", "kind: ", "where it learns: ", "equations (", "what to watch:", "what goes wrong:", "try it:")
KINDS = ("on-policy", "off-policy", "supervised")


def place_is_real(place: str, word: str) -> bool:
    """Does a line of a file, `rlx/algos/ppo.py:12`, hold that word?"""
    file, _, line = place.partition(":")
    return word in (ROOT / file).read_text().splitlines()[int(line) - 1]


def test_every_algorithm_has_a_page() -> None:
    assert set(ALGORITHMS) <= {*algorithms.names()} and len(ALGORITHMS) >= 30


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_page_says_what_it_is_where_it_learns_and_what_to_do(name: str) -> None:
    page = answer([name])
    text = "\n".join(page)
    assert answer([f"algo={name}"]) == algorithms.explain(name) == page[: len(algorithms.explain(name))]
    assert page[0].startswith(f"{name}: ") and re.search(r"arXiv|(19|20)\d\d", text)
    for title in (
        "what: ",
        "kind: ",
        "where it learns: ",
        "equations (",
        "what to watch:",
        "what goes wrong:",
        "try it:",
    ):
        assert f"\n{title}" in text, title
    kind = next(line for line in page if line.startswith("kind: "))
    assert any(one in kind for one in KINDS) and ("model-" in kind or "supervised" in kind)
    base = keys.base_of("algo", name)
    what = next(line for line in page if line.startswith("what: " if base == name else f"{base}: "))
    assert len(re.findall(r"[.)] |\.$", what)) >= 3 and "untold" not in what
    if base != name:  # a variant says what it changes, and why
        assert any(
            line.startswith(f"what: {base} with algo.") and line.endswith(algorithms.head(name)[-1]) for line in page
        )


@pytest.mark.parametrize("name", BASES)
def test_symbols_equations_and_loop_are_tied_to_key_file_and_line(name: str) -> None:
    path = algorithms.file_of(name)
    assert path is not None
    for symbol, key in algorithms.symbols(name).items():
        assert re.search(rf"(?<!\w){re.escape(symbol)}(?!\w)", source.docstring(path)) and key.text
    assert algorithms.symbols(name) or name in ("dpo", "sft", "pretrain", "reward_model")
    for call in functions.calls(path):
        assert place_is_real(call.function.place, f"def {call.function.name}(")
        assert place_is_real(call.place, call.function.name)
    assert functions.calls(path)
    train = source.functions(path)["train"]
    assert place_is_real(train.place, "def train(")


def test_the_symbols_of_ppo_are_those_of_its_equations() -> None:
    found = {symbol: key.name for symbol, key in algorithms.symbols("ppo").items()}
    assert found == {
        "N": "algo.num_envs", "T": "algo.num_steps", "K": "algo.num_epochs", "eps": "algo.clip_coef",
        "c_v": "algo.vf_coef", "c_e": "algo.ent_coef", "beta": "algo.kl_coef",
    }  # fmt: skip
    assert {key.name for symbol, key in algorithms.symbols("trpo").items() if symbol == "lambda"} == {"algo.cg_damping"}
    assert not {"v", "clip", "group"} & {*algorithms.symbols("actor_critic"), *algorithms.symbols("grpo")}  # choices
    called = {call.function.name for call in functions.calls(ROOT / "rlx" / "algos" / "ppo.py")}
    assert {"gae", "ppo_clip", "ppo_penalty", "value_loss", "approx_kl", "explained_variance"} <= called


@pytest.mark.parametrize("name", BASES)
def test_what_a_lesson_names_exists(name: str) -> None:
    lesson = algorithms.lesson(name)
    assert set(lesson) == {"what", "kind", "watch", "wrong", "try"} and len(lesson["wrong"]) >= 2
    for metric in lesson["watch"]:
        assert metrics.of(metric, name), metric
    known = keys.every()
    mentioned = re.findall(r"(?:algo|env|task|model)\.\w+", " ".join([*lesson["wrong"], *lesson["try"]]))
    assert [key for key in mentioned if key not in known] == []
    own = re.findall(r"algo\.(\w+)", " ".join(lesson["wrong"]))
    assert [key for key in own if key not in keys.of("algo", name)] == []


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_command_to_try_is_one_that_rlx_takes(name: str) -> None:
    lines = [line.strip() for line in answer([name]) if line.startswith("    rlx ")]
    assert any(re.search(rf"algo=(\w+,)*{name}(,\w+)*( |$)", line) for line in lines) and len(lines) >= 2
    for line in lines:
        verb, *words = shlex.split(line)[1:]
        assert verb in ("train", "show", "sample", "eval")
        for key, _, values in (word.partition("=") for word in words if verb == "train" and not word.startswith("-")):
            for value in values.split(","):
                known = registry.options(key) if key in registry.groups() else keys.every()
                assert (value if key in registry.groups() else key) in known or key == "init", f"{line}: {key}"


# -- equations -----------------------------------------------------------------------------------------------------


def test_every_equation_has_a_page_with_its_file_and_line() -> None:
    public = {
        name
        for path in (ROOT / "rlx" / "functional").glob("*.py")
        for name in re.findall(r"^def ([a-z]\w*)\(", path.read_text(), re.MULTILINE)
    }
    assert public == {*functions.equations()} and len(public) > 40
    for name in public:
        for function in functions.equations()[name]:
            assert place_is_real(function.place, f"def {name}(") and len(functions.first_sentence(function.doc)) > 10
        assert answer([f"functional.{name}"]) == functions.explain(name)


def test_gae_is_shown_with_its_equation_and_who_calls_it() -> None:
    page = answer(["gae"])
    assert "        A_t     = delta_t + gamma lambda (1 - done_t) A_{t+1}" in page
    callers = next(line for line in page if line.startswith("who calls it: "))
    assert all(f"{name} (rlx/algos/{name}.py:" in callers for name in ("a2c", "ppo", "rlhf_ppo", "trpo", "vpg"))


# -- a stranger's ----------------------------------------------------------------------------------------------------

MINE = '''"""Mine: the smallest.

    x += eps
"""
from rlx.functional import returns as r
from rlx.functional.kl import k3 as third
class Config:
    implementation: str
    step: float  # eps: how far
def train(cfg, run):
    r.gae(third(1))
'''


def test_a_strangers_file_has_a_page_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "algos").mkdir()
    (tmp_path / "algos" / "mine.py").write_text(f"{MINE}raise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    page = answer(["mine"])
    text = "\n".join(page)
    assert "what: Mine: the smallest." in page and f"kind: {algorithms.UNTOLD}" in page
    assert "called at ./algos/mine.py:11" in text and "rlx/functional/kl.py:" in text
    assert "  train: ./algos/mine.py:10" in page and "    rlx train algo=mine env=cartpole" in page
    (tmp_path / "conf" / "algo").mkdir(parents=True)
    (tmp_path / "conf" / "algo" / "mine.yaml").write_text("# Mine, 2026.\nname: mine\nimplementation: mine\nstep: 1\n")
    keys._options.cache_clear()
    assert "  eps: algo.step=1, how far" in answer(["mine"]) and answer(["mine"])[0] == "mine: Mine, 2026."


@pytest.mark.parametrize("word", ["ppo", "gae", "double_dqn"])
def test_a_page_imports_nothing_slow(word: str, tmp_path: Path) -> None:
    assert imported("explain", word, cwd=tmp_path)[0] == set()


def test_a_copy_made_by_rlx_new_is_explained_as_ones_own(tmp_path: Path, forks: Forks) -> None:
    assert forks("new", "algo", "my_ppo", "--from", "ppo", cwd=tmp_path).code == 0
    page = forks("explain", "my_ppo", cwd=tmp_path).out
    assert "kind: on-policy, model-free" in page and "eps: algo.clip_coef=0.2" in page
    assert "train: ./algos/my_ppo.py:" in page and "\n    rlx train algo=my_ppo env=cartpole\n" in page
    key = forks("explain", "algo.clip_coef", cwd=tmp_path).out
    assert "my_ppo" in key.partition("what: ")[0]
