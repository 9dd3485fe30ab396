"""The gallery of the site, `make gallery`: short runs, a film and a map of each.

    docs/gallery/NAME.gif, NAME.png   the film, the map
    docs/gallery/gallery.json         the commands and what came of them
    docs/gallery.md                   the page, made from it

What is there is skipped; --again NAME ... makes it anew, --table writes the page alone.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "docs" / "gallery"
RECORD = PLACE / "gallery.json"
RUNS = {  # words of rlx train, and what there is to see
    "grid": ("algo=q_learning env=grid", "The short way crosses the red cell, at -1; the agent goes around it."),
    "frozenlake": (
        "algo=q_learning env=frozenlake",
        "A slippery lake: only one move in three goes where it was meant to. The best policy stays away from holes, "
        "and walks into walls to do so.",
    ),
    "cliff_q_learning": (
        "algo=q_learning env=cliffwalking",
        "Q-learning walks along the edge of the cliff: it learns what the best action is worth, not what its own "
        "exploration costs.",
    ),
    "cliff_sarsa": (
        "algo=sarsa env=cliffwalking algo.final_epsilon=0.1 algo.lr=0.5 algo.lr_power=0",
        "SARSA, which goes on exploring, keeps away from it: it learns what its own policy is worth.",
    ),
    "pendulum": ("algo=ppo env=pendulum", "PPO swings the pendulum up and holds it there."),
    "mountaincar": (
        "algo=dqn env=mountaincar",
        "The engine is too weak for the hill: DQN learns to gain momentum first.",
    ),
}
Record = dict[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", nargs="*", default=[], choices=list(RUNS), help="make these anew")
    parser.add_argument("--table", action="store_true", help="write the page alone")
    given = parser.parse_args()
    PLACE.mkdir(exist_ok=True)
    record: Record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    for name in () if given.table else RUNS:
        if name in given.again or name not in record:
            record[name] = make(name)
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
    (ROOT / "docs" / "gallery.md").write_text(page(record))


def make(name: str) -> dict[str, Any]:
    """Trains, films, draws."""
    words = RUNS[name][0].split()
    with tempfile.TemporaryDirectory() as here:
        run = rlx("train", *words, "video=false", "tensorboard=false", here=here).splitlines()[-1].removeprefix("run: ")
        shown = json.loads(rlx("show", run, "--json", here=here))
        pictures = [f"{name}.gif", f"{name}.png"]
        rlx("play", run, "--gif", str(PLACE / pictures[0]), here=here)
        rlx("draw", run, "-o", str(PLACE / pictures[1]), here=here)
    steps, score = shown["step"], shown["eval"]["mean_reward"]
    return {"command": f"rlx train {RUNS[name][0]}", "steps": steps, "score": round(score, 2), "pictures": pictures}


def rlx(*words: str, here: str) -> str:
    print("rlx", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "rlx", *words], cwd=here, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"rlx {' '.join(words)}: {done.stderr}")
    return done.stdout


def page(record: Record) -> str:
    """docs/gallery.md."""
    lines = [
        "# Gallery",
        "",
        "An episode of each run's policy, as `rlx play latest --gif film.gif` writes it, and what the agent",
    ]
    lines += ["thinks of the states, as `rlx draw latest` does. Made by `make gallery`.", ""]
    for name in (name for name in RUNS if name in record):
        one = record[name]
        lines += [f"## {name.replace('_', ' ')}", "", "```sh", one["command"], "```", "", RUNS[name][1], ""]
        lines += [f"Mean return {one['score']:g} over its last evaluation, after {one['steps']:,} steps.", ""]
        lines += [" ".join(f"![{name}](gallery/{picture})" for picture in one["pictures"]), ""]
    return "\n".join(
        [
            *lines,
            "## A small language model",
            "",
            "Completions of GRPO, each token coloured by its advantage.",
            "",
            "![Completions](results/completions.png)",
            "",
        ]
    )


if __name__ == "__main__":
    main()
