"""rlx report: what stands on the page, that it needs nothing else, and what is refused."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from command_line import Forks, entries, imported
from fake_runs import make_run, ramp, study_of
from PIL import Image

from rlx.analysis.compare import build as compare
from rlx.analysis.report import build, charts, page as report_page
from rlx.rundir import films

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = "<script>alert(1)</script>\"'&"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Parses a page; fails where its elements do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words += f"{data} "
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def cells(self, first: str) -> list[str]:
        """The row that has this text in one of its cells."""
        return next(row for row in self.rows if first in row)


def page_of(*words: Path | str, **options: Any) -> tuple[Page, str]:
    text = report_page.html(build.build([str(word) for word in words], **options))
    return Page(text), text


def gif(colour: int = 0) -> bytes:
    made = io.BytesIO()
    frames = [Image.new("L", (4, 4), colour + i) for i in range(2)]
    frames[0].save(made, "GIF", save_all=True, append_images=frames[1:])
    return made.getvalue()


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Three configurations: one of three seeds, one of which a run failed, one that was killed."""
    here = tmp_path / "sweep"
    for seed, score in ((1, 10.0), (2, 20.0), (3, 60.0)):
        make_run(here, f"a{seed}", ramp(seed), seed=seed, lr=0.5, score=score, events=True, gif=gif(50 + seed))
    make_run(here, "b1", ramp(1), seed=1, lr=0.25, score=5.0)
    make_run(here, "b2", ramp(1, 50), seed=2, lr=0.25, status="failed", error="ValueError: at step\n50 <it> broke")
    make_run(here, "c1", ramp(2, 50), seed=1, lr=0.125, status="running")
    return here


# -- what stands there -----------------------------------------------------------------------------------------------


def test_a_row_for_each_configuration_with_its_score_and_what_became_of_its_runs(grid: Path) -> None:
    page, _ = page_of(grid)
    first, second, third = (page.cells(name) for name in ("lr=0.5", "lr=0.25", "lr=0.125"))
    assert first[2:4] == ["3", "30"] and [first[5], first[6]] == ["60 (s3)", "10 (s1)"] and first[-1] == "3 finished"
    assert second[2:5] == ["2", "5", ""] and second[-1] == "1 finished, 1 failed"
    assert third[3] == "" and third[-1] == "1 killed" and third[5] == "100.0 (s1)"  # its last return
    low, high = map(float, first[4].split(" to "))
    assert low < 30 < high
    assert page.cells("b2")[2:] == ["failed", "50", "ValueError: at step 50 <it> broke"]
    assert page.cells("c1")[2] == "killed" and "6 runs of 3 configurations on cartpole" in page.words


def test_the_curves_are_those_of_rlx_plot(grid: Path) -> None:
    found = build.build([str(grid)])
    _, text = page_of(grid)
    [line] = [line for line in found.plots[0].panels["cartpole"] if line.label.startswith("lr=0.5 ")]
    [drawn] = re.findall(r'<polyline class="c0" data-name="lr=0.5" points="([^"]*)"', text)[:1]
    [frame] = re.findall(r'<svg class="chart curves"[^>]*data-y="([^"]*)"', text)[:1]
    y0, y1, b0, b1 = map(float, frame.split(","))
    heights = [y0 + (float(point.split(",")[1]) - b0) / (b1 - b0) * (y1 - y0) for point in drawn.split()]
    assert len(heights) == len(line.mean) and heights == pytest.approx(line.mean, abs=(y1 - y0) / 1000)
    assert text.count("<polygon") == 2 and "lr=0.125" in text  # a band where there are several seeds


def test_a_seed_that_ran_again_is_no_further_seed(tmp_path: Path) -> None:
    for name, seed, score in (("1_first", 1, 0.0), ("2_again", 1, 40.0), ("3_other", 2, 60.0)):
        make_run(tmp_path, name, ramp(1), seed=seed, score=score)
    [row] = build.build([str(tmp_path)]).rows
    assert row.estimate and row.estimate.value == 50.0 and len(row.runs) == 3


def test_only_what_differs_is_listed(grid: Path) -> None:
    page, _ = page_of(grid)
    assert page.cells("algo.lr") == ["algo.lr", "0.5", "0.25", "0.125"]
    assert "gamma" not in page.words and not any("total_steps" in cell for row in page.rows for cell in row)


def test_the_last_film_of_the_best_run_is_there(grid: Path) -> None:
    import base64

    _, text = page_of(grid)
    [film] = re.findall(r'src="data:image/gif;base64,([^"]*)"', text)
    assert base64.b64decode(film) == gif(53)
    assert films.last(grid / "a1") == (100, gif(51)) and films.last(grid / "b1") is None


def test_the_strip_of_a_run_is_there_and_says_which_steps_it_shows(tmp_path: Path) -> None:
    path = make_run(tmp_path, "one", ramp(1), score=1.0)
    for step in (0, 50, 100):
        films.write(path, step, gif(step))
    page, text = page_of(path)
    assert text.count("data:image/gif;base64,") == 3
    assert "step 0, untrained" in page.words and "step 50" in page.words and "step 100" in page.words


def test_torn_and_strange_events_are_no_film(grid: Path) -> None:
    [events] = [path for path in (grid / "a1").glob("*tfevents*") if not path.name.endswith(".end")]
    data = events.read_bytes()
    for cut in range(0, len(data), 37):
        events.write_bytes(data[:cut])
        assert films.last(grid / "a1") in (None, (50, gif(51)[:-1]), (100, gif(51)))
    events.write_bytes(b"\xff" * 500)
    assert films.last(grid / "a1") is None


def test_a_language_run_shows_its_last_samples(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", ramp(1), task="add2", score=0.5)
    (run / "samples").mkdir()
    for step, text in ((5, "old"), (50, f"  1.000  1+2=3 {EVIL}")):
        (run / "samples" / f"{step:012d}.txt").write_text(text)
    page, text = page_of(tmp_path)
    assert EVIL in page.words and "old" not in page.words and "samples at step 50" in page.words
    assert page.tags["script"] == 1


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_search_shows_its_trials_what_they_depend_on_and_what_mattered(suffix: str, tmp_path: Path) -> None:
    page, text = page_of(study_of(tmp_path / "study", suffix))
    assert "Search mine" in page.words and "Best: trial 3, 9" in page.words
    assert "5 trials: 2 complete, 1 failed, 1 pruned, 1 waiting" in re.sub(r"\s+", " ", page.words.replace(" ,", ","))
    assert page.cells("boom") == ["1", "failed", "", "0.1", "tanh", "1", "boom"]
    bars = re.findall(r'>([\w.]+)</text><rect class="c0" x="180" y="\d+" width="([\d.]+)"', text)
    assert [name for name, _ in bars] == ["algo.lr", "algo.activation"]
    assert float(bars[0][1]) == pytest.approx(3 * float(bars[1][1]), abs=0.2)  # rounded to tenths of a pixel
    kinds = Counter(re.findall(r'<(?:circle|path) class="(done|pruned|failed|running)"', text))
    assert kinds == {"done": 6, "pruned": 3, "failed": 3, "running": 1}  # history and two parameters
    assert "algo.lr (log)" in page.words and "trial 2, pruned, 2.5" in page.words


def test_a_damaged_study_is_a_report_without_one(tmp_path: Path) -> None:
    root = study_of(tmp_path / "study")
    for name in ("trials.jsonl", "study.json", "importance.json"):
        (root / name).write_text("[]")
    page, _ = page_of(root)
    assert "Search" not in page.words and "4 runs" in page.words


def test_the_versions_the_machine_and_the_commands_are_there(grid: Path) -> None:
    page, _ = page_of(grid)
    for word in ("2.13.0", "Linux-6.1", "0123456789ab", "rlx train algo.lr=0.5 seed=3"):
        assert word in page.words


# -- what the page is ------------------------------------------------------------------------------------------------


def test_whatever_a_run_is_called_it_runs_nothing(tmp_path: Path) -> None:
    make_run(tmp_path, EVIL.replace("/", "_"), ramp(1), env=EVIL, weight=EVIL, score=1.0)
    make_run(tmp_path, "b", ramp(1), env=EVIL, weight="x", status="failed", error=EVIL)
    make_run(tmp_path, "c", ramp(1), env="two", name=EVIL)
    make_run(tmp_path, "d", [(5, 1.0)], env="two", name=f"{EVIL}2")
    root = study_of(tmp_path / "study")
    (root / "study.json").write_text(json.dumps({"name": EVIL, "sampler": EVIL}))
    (root / "importance.json").write_text(json.dumps({EVIL: 1.0}))
    rows = [{"number": 0, "state": EVIL, "score": 1.0, "params": {EVIL: EVIL}, "error": EVIL, "values": {EVIL: 1}}]
    (root / "trials.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    page, text = page_of(tmp_path, title=EVIL)
    assert page.tags["script"] == 1 and not any(name.startswith("on") for name, _ in page.attributes)
    assert "<script>alert" not in text and EVIL in page.words


def test_a_page_refers_to_nothing_outside_itself(grid: Path) -> None:
    page, text = page_of(grid, study_of(grid.parent / "study"))
    places = [value for name, value in page.attributes if name in ("src", "href", "action", "xlink:href")]
    assert places and all(place.startswith("data:image/gif;base64,") for place in places)
    assert "url(" not in text and "@import" not in text and "fetch(" not in text and "http://" not in text
    assert page.tags["link"] == page.tags["iframe"] == 0 and "default-src 'none'" in text


@pytest.mark.parametrize("count", [1, 200])
def test_one_run_and_two_hundred_are_a_page(count: int, tmp_path: Path) -> None:
    for i in range(count):
        make_run(tmp_path, f"r{i}", ramp(i), seed=i % 2, lr=i // 2, score=float(i))
    page, text = page_of(tmp_path)
    configurations = math.ceil(count / 2)
    coloured = set(re.findall(r'<polyline class="(c\d)"', text))
    assert len(coloured) == min(configurations, charts.COLOURS)
    assert len(re.findall('<polyline class="grey"', text)) == max(0, configurations - charts.COLOURS)
    assert len(text) < 30_000 + 8_000 * configurations


def test_a_run_without_a_metric_and_one_that_cannot_be_read_leave_a_page(tmp_path: Path) -> None:
    make_run(tmp_path, "a", [], status="failed", error="no")
    (make_run(tmp_path, "b", ramp(1)) / "config.yaml").write_text("a: [")
    page, _ = page_of(tmp_path / "a")
    assert "1 failed" in page.words and "Learning curves" not in page.words
    assert "config.yaml is unreadable" in page_of(tmp_path)[0].words


@pytest.mark.parametrize(
    "low, high, log, expected",
    [
        (0, 10, False, ["0", "2", "4", "6", "8", "10"]),
        (1e-4, 1e-2, True, ["0.0001", "0.001", "0.01"]),
        (5, 5, False, None),
    ],
)
def test_ticks_are_round_numbers_within_the_axis(
    low: float, high: float, log: bool, expected: list[str] | None
) -> None:
    axis = charts.Axis(low, high, 0, 100, log)
    ticks = axis.ticks()
    assert all(axis.low * 0.99 <= value <= axis.high * 1.01 and 0 <= axis.at(value) <= 100 for value, _ in ticks)
    if expected:
        assert [name for _, name in ticks if name in expected] == expected


def test_ticks_of_a_narrow_range_far_from_0_can_be_told_apart() -> None:
    names = [name for _, name in charts.Axis(2.5502, 2.5511, 0, 100).ticks()]
    assert len(set(names)) == len(names) >= 4 and all(2.55 < float(name) < 2.552 for name in names)
    assert [name for _, name in charts.Axis(1e6, 1.00004e6, 0, 100).ticks()][0] == "1,000,000"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_it_without_a_complaint_and_sorts_its_tables(grid: Path, tmp_path: Path) -> None:
    text = report_page.html(build.build([str(grid)]))
    click = """<script>
      document.querySelectorAll('th')[5].click();
      const svg = document.querySelector('svg.curves'), box = svg.getBoundingClientRect();
      svg.dispatchEvent(new MouseEvent('mousemove', {clientX: box.left + box.width / 2, clientY: box.top + 9}));
    </script></body>"""
    (tmp_path / "a.html").write_text(text.replace("</body>", click))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path / 'a.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "CONSOLE" not in done.stderr, done.stderr
    page = Page(done.stdout)
    assert [row[1] for row in page.rows[1:4]] == ["lr=0.25", "lr=0.5", "lr=0.125"]  # by the best seed: 5, 60, 100
    [(step, value)] = re.findall(r'class="tip"[^>]*><div>(\d+)</div><div[^>]*>([\d.]+)  lr=0.5', done.stdout)
    assert 40 < int(step) < 60 and float(value) == pytest.approx(2 * int(step), abs=2)  # the mean of slopes 1, 2, 3


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, said",
    [
        (["nix"], "nix: no such directory"),
        (["ni*x"], "ni*x: no run matches"),
        (["runs", "-o", "nix/a.html"], "--out=nix/a.html: the directory nix does not exist"),
        (["runs", "-o", "a.pdf"], "must end in .html"),
        (["runs", "-o", "afile/a.html"], "the directory afile does not exist"),
        (["runs", "--metric", "rollout/ep_rew"], "did you mean 'rollout/ep_rew_mean'?"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(words: list[str], said: str, place: Path, forks: Forks) -> None:
    before = entries(place)
    done = forks("report", *words, cwd=place)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and said in done.err, done
    assert entries(place) == before


def test_a_report_needs_no_torch_and_nothing_that_draws(place: Path) -> None:
    modules, out = imported("report", "runs/done", "-o", "a.html", cwd=place)
    assert modules == {"jinja2"} and out.startswith("a.html: 1 run, ")
    assert "ppo" in Page((place / "a.html").read_text()).words


def test_json_is_the_table_of_the_page(tmp_path: Path, forks: Forks, finished: Path) -> None:
    out = tmp_path / "page.html"
    done = forks("report", str(finished), "-o", str(out), "--json", cwd=tmp_path)
    found = json.loads(done.out)
    (row,) = found["rows"]
    assert found["out"] == str(out) and out.stat().st_size > 1000
    assert row["env"] == "cartpole" and row["statuses"] == {"finished": 1} and row["runs"] == [str(finished)]


# -- what a run learned, and which is better ---------------------------------------------------------------------------


def of_one(tmp_path: Path, **files: str) -> Page:
    """The page of a single run with these files in it."""
    path = make_run(tmp_path, "one", ramp(1))
    for name, text in files.items():
        target = path / name.replace("__", "/").replace("_svg", ".svg").replace("_html", ".html")
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, "utf-8")
    report = build.build([str(path)], tell=lambda place: [f"run: {place}", f"it did {EVIL}", "    rlx train"])
    return Page(report_page.html(report))


def test_a_run_s_page_has_its_words_its_map_and_its_heat_maps_over_the_run(tmp_path: Path) -> None:
    found = of_one(
        tmp_path, map_svg="<svg>map</svg>", samples__step_000000010_html="<p>ten", samples__step_000000020_html=EVIL
    )
    assert f"it did {EVIL}" in found.words and "rlx train" in found.words
    assert ("src", "data:image/svg+xml;base64,PHN2Zz5tYXA8L3N2Zz4=") in found.attributes
    assert [value for name, value in found.attributes if name == "srcdoc"] == ["<p>ten", EVIL]
    assert [value for name, value in found.attributes if name == "sandbox"] == ["", ""]
    assert ("max", "1") in found.attributes


def test_what_is_promised_is_drawn_as_a_level(tmp_path: Path) -> None:
    path = make_run(tmp_path, "one", ramp(1))
    with open(path / "config.yaml", "a", encoding="utf-8") as file:
        file.write("\nexpect: {score: 475}\n")
    report = build.build([str(path)])
    levels = [chart.levels for panel in report_page._panels(report, {1: "c0"}) for chart in panel.charts]
    assert [(475.0, "promised by the preset: 475.0")] in levels
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps({**row, 'exact/optimum': 476})}\n" for row in rows))
    _, text = page_of(path)
    anchors = re.findall(r'<text class="level" x="[0-9]+"( text-anchor="end")? y="[^"]*">([a-z]+)', text)
    assert anchors == [("", "promised"), (' text-anchor="end"', "exact")]  # they would be one upon the other


def test_ranks_are_within_an_environment_and_keys_those_that_both_have(tmp_path: Path) -> None:
    make_run(tmp_path, "a", ramp(1), env="acrobot", score=1.0, lr=1, only_here=1)
    make_run(tmp_path, "b", ramp(2), env="cartpole", score=2.0, lr=2)
    make_run(tmp_path, "c", ramp(3), env="cartpole", score=3.0, lr=3, name="dqn")
    report = build.build([str(tmp_path)])
    assert {(row.place, row.rank) for row in report.rows} == {("acrobot", 1), ("cartpole", 1), ("cartpole", 2)}
    assert "algo.lr" in report.keys and "algo.only_here" not in report.keys
    assert report.comparison is not None


def test_a_comparison_says_what_rlx_compare_says(tmp_path: Path) -> None:
    for seed in range(1, 6):
        make_run(tmp_path, f"a{seed}", ramp(seed), seed=seed, score=float(seed), lr=1)
        make_run(tmp_path, f"b{seed}", ramp(seed), seed=seed, score=seed + 1.5, lr=2)
    compared = compare.build([str(tmp_path)])
    [result] = compared.pairs[0].results
    page, _ = page_of(tmp_path)
    row = page.cells(result.verdict)
    assert row[1] == "cartpole" and row[2].startswith(f"{result.difference.value:.4g} [")
    assert row[3] == compare.interval(result.improvement, 5) and "[" in row[3]
    assert "P(improvement)" in page.words


def test_a_key_that_one_of_three_configurations_lacks_is_listed_where_the_others_differ(tmp_path: Path) -> None:
    make_run(tmp_path, "a", ramp(1), lr=1, clip=0.1)
    make_run(tmp_path, "b", ramp(2), lr=1, clip=0.2)
    make_run(tmp_path, "c", ramp(3), lr=1, name="dqn", own=1)
    keys = build.build([str(tmp_path)]).keys
    assert "algo.clip" in keys and "algo.own" not in keys and "algo.lr" not in keys
