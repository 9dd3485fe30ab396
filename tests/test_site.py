"""The documentation site: it builds strictly and offline, nothing lacks a page, and what its lessons say is so."""

from __future__ import annotations

import html
import os
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from command_line import ROOT, Forks
from mutants import MUTANTS
from test_readme import commands, words

from rlx.cli.completion import FLAGS
from rlx.explain import algorithms, functions, glossary, metrics

sys.path.insert(0, str(ROOT / "docs" / "_site"))
formulas = pytest.importorskip("formulas", exc_type=ImportError)

HOUR = (ROOT / "docs" / "first-hour.md").read_text()
CONCEPTS = (ROOT / "docs" / "concepts.md").read_text()
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
FOREIGN = re.compile(r"""(?:\bsrc=|<link[^>]*\bhref=|url\(|@import )["']?(?:https?:)?//""")
EXERCISE = re.compile(r"[Ii]n\s`(rlx/[\w/]+\.py)`[^`]*(?:`\w+`)?[^`]*replace\s+`([^`]+)` by\s`([^`]+)`")
ANSWER = re.compile(r"`python -m pytest -q (\S+)` fails")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(place)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return place


def test_every_algorithm_metric_and_term_has_its_place(site: Path) -> None:
    for name in algorithms.names():
        page = (site / "algorithms" / f"{name}.html").read_text()
        assert "Equations and pseudocode" in page and f"rlx train algo={name}"[:10] in re.sub("<[^>]+>", "", page)
    listed = (site / "reference" / "metrics.html").read_text()
    assert all(f'id="{re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")}"' in listed for name in metrics.meanings())
    terms = re.sub("<[^>]+>", "", (site / "reference" / "glossary.html").read_text())
    assert all(name in terms for name in glossary.terms())


def test_nothing_is_loaded_from_elsewhere_and_no_formula_is_left_to_a_script(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not FOREIGN.search(text), page
        assert "$$" not in re.sub(r"<(pre|code)\b.*?</\1>", "", text, flags=re.DOTALL), page
    hour = (site / "first-hour.html").read_text()
    assert hour.count("<math") >= 10 and hour.count('display="block"') == HOUR.count("$$") / 2


def test_a_line_of_code_that_a_page_names_is_that_line(site: Path) -> None:
    page = (site / "algorithms" / "ppo.html").read_text()
    places = re.findall(r'href="\.\./source/(rlx/[\w/]+\.py)\.html#L-(\d+)"', page)
    for file, line in places:
        shown = re.search(rf'<a id="L-{line}".*', (site / "source" / f"{file}.html").read_text())
        assert shown and (ROOT / file).read_text().splitlines()[int(line) - 1] in html.unescape(
            re.sub("<[^>]+>", "", shown[0])
        )
    assert len(places) > 8 and page.count("<math") > 8 and "What was left out" in page


def read(line: str) -> str:
    """A formula as characters."""
    return "".join(ElementTree.fromstring(formulas.mathml(line) or "<p/>").itertext()).replace("\u2061", "")


def test_an_equation_reads_as_it_is_written() -> None:
    assert read("u_t = r_t + gamma (1 - done_t) u_{t+1}") == "ut=rt+γ(1−donet)ut+1"
    assert read("r = pi(a|s) / pi_old(a|s)").count("|") == 2
    assert "\\frac" not in formulas.latex("alpha = r'r / p'Fp")  # r' (r / p') F p would be another number
    assert formulas.latex("x = 1 - 2 / (exp(2 u) + 1)").count("\\frac") == 1
    assert formulas.mathml("A_t = sum of r~ of the steps that end at or after t") is None


def test_no_letter_of_an_equation_is_lost() -> None:
    greek = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "eps", "λ": "lambda", "μ": "mu", "π": "pi"}
    greek |= {"σ": "sigma", "τ": "tau", "θ": "theta", "∑": "sum"}
    shown = 0
    for listed in functions.equations().values():
        for line in (line for one in listed for line in re.findall(r"^    (?! )(.*)$", one.doc, re.MULTILINE)):
            if formulas.latex(line):
                text = "".join(greek.get(letter, letter) for letter in read(line))
                kept = [sorted(re.sub(r"[^A-Za-z0-9]", "", each.replace("sqrt", ""))) for each in (line, text)]
                assert kept[0] == kept[1], line
                shown += 1
    assert shown > 40


def test_each_exercise_breaks_a_line_that_is_there_and_a_test_is_known_to_fail() -> None:
    exercises, answers = EXERCISE.findall(HOUR), ANSWER.findall(HOUR)
    assert len(exercises) == len(answers) >= 5
    for (file, before, after), tests in zip(exercises, answers):
        assert before in (ROOT / file).read_text(), file
        assert any(
            f"rlx/{name}" == file
            and tests == checked
            and (old.replace(before, after) == new or (old, new) == (before, after))
            for _, name, old, new, checked in MUTANTS
        ), (file, before)


def test_every_command_and_option_of_the_how_to_exists() -> None:
    lines = [line for block in BLOCK.findall((ROOT / "docs" / "how-to.md").read_text()) for line in commands(block)]
    for line in (line for line in lines if line.startswith("rlx ")):
        verb, *rest = shlex.split(line)[1:]
        short = {"-m": "--multirun", "-o": "--out"}
        assert {short.get(word, word) for word in rest if word.startswith("-")} <= {*FLAGS[verb]}, line
    assert len(lines) >= 15


@pytest.mark.parametrize("page", [HOUR, CONCEPTS], ids=["first hour", "concepts"])
def test_the_commands_of_a_lesson_run_in_their_order(page: str, tmp_path: Path, forks: Forks) -> None:
    for command in [line for block in BLOCK.findall(page) for line in commands(block)]:
        if command.startswith("rlx train"):  # its words are what is tested here; what they learn is tested elsewhere
            few = "1_200" if "=dqn" in command else "600"  # it refuses a run that ends in its first thousand
            steps = "4 eval_every=0" if "task=" in command else f"{few} eval_episodes=1 video=false"
            command = f"{re.sub(r' total_steps=[0-9_]+', '', command)} total_steps={steps}"
        done = forks(*words(command, tmp_path), cwd=tmp_path)
        assert done.code == 0, f"{command}\n{done.out}\n{done.err}"
