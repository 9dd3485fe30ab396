"""The documentation site: it builds strictly and offline, nothing lacks a page, and what its lessons say is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, Forks
from mutants import MUTANTS
from test_readme import commands, shorter, words

from rlx.explain import algorithms, glossary, metrics

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
    assert (site / "first-hour.html").read_text().count("<math") >= 10


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


@pytest.mark.parametrize("page", [HOUR, CONCEPTS], ids=["first hour", "concepts"])
def test_the_commands_of_a_lesson_run_in_their_order(page: str, tmp_path: Path, forks: Forks) -> None:
    for command in [line for block in BLOCK.findall(page) for line in commands(block)]:
        if command.startswith("rlx train"):  # its words are what is tested here; what they learn is tested elsewhere
            command = f"{shorter(command)} {'' if 'total_steps' in command else 'total_steps=600'}".strip()
        done = forks(*words(command, tmp_path), cwd=tmp_path)
        assert done.code == 0, f"{command}\n{done.out}\n{done.err}"
