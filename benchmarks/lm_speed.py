"""GRPO and sampling beside TRL and Hugging Face on the same model and batch: `make bench-lm`.

python -m benchmarks.lm_speed --trl-python PYTHON [--rounds 4]. Both sides have 0.79M weights, 64 prompts of 8 tokens, 8
completions each of at most 16, a vocabulary of 32, no KL, one gradient step, one thread on one core; they run in turns.
rlx's figure is that of whole processes of the real command (experiment=bench_grpo_trl), the CPU time of a long run less
that of a short one over the steps between, so its log and its reward are in it; TRL's is the CPU time between two steps
of its trainer, in its fastest setting (micro-batches of 64), logging to memory only. Sampling: 512 sequences of 16
tokens, in one process each, nothing else. Writes docs/results/speed_lm.json and the table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import measure

BEGIN, END = "<!-- speed-lm:begin -->", "<!-- speed-lm:end -->"
OUT = measure.ROOT / "docs" / "results" / "speed_lm.json"
PAGE = measure.ROOT / "docs" / "performance.md"
PEER = measure.ROOT / "benchmarks" / "peers" / "trl_grpo.py"
SHORT, LONG = 4, 20  # steps
COMPLETIONS = 512
SIDES = {  # what rlx is run with
    "float32": ["model.dtype=float32", "model.matmul=highest"],
    "float32, products in bfloat16": ["model.dtype=float32", "model.matmul=medium"],
    "bfloat16": ["model.dtype=bfloat16", "model.matmul=highest"],
}


def steps(words: Sequence[str], seed: int) -> float:
    """CPU seconds a step of rlx."""
    spent = []
    with tempfile.TemporaryDirectory(prefix="rlx-bench-") as scratch:
        for total in (SHORT, LONG):
            command = [sys.executable, "-m", "rlx", "train", "experiment=bench_grpo_trl", f"seed={seed}", *words]
            more = [f"total_steps={total}", f"runs_dir={scratch}"]
            spent.append(measure.run([*command, *more], Path(scratch) / "log", measure.ROOT)["cpu"])
    return (spent[1] - spent[0]) / (LONG - SHORT)


def sampled(dtype: str, matmul: str) -> float:
    """Tokens a CPU second that rlx samples with the same model, in this process."""
    import numpy as np
    import torch

    from rlx.language.model.gpt import GPT, GPTConfig
    from rlx.language.model.sample import generate, noise

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision(matmul)
    cfg = GPTConfig("gpt", 4, 128, 4, None, "learned", "relu", dtype, matmul, None)  # type: ignore[arg-type]
    model = GPT(cfg, 32, 33, 24, torch.Generator().manual_seed(0))
    prompt, rng, best = torch.randint(31, (64, 8)), np.random.default_rng(0), 0.0
    for _ in range(5):
        began = time.process_time()
        found = generate(model, prompt, None, size=8, max_new=16, end=-1, uniform=noise(rng, COMPLETIONS, 16))
        best = max(best, found.tokens.numel() / (time.process_time() - began))
    return best


def run(command: Sequence[str], log: Path) -> dict[str, Any]:
    measure.run(command, log, measure.ROOT)
    return json.loads(log.read_text().splitlines()[-1])


def compare(trl: str, rounds: int, core: int | None) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rlx-bench-") as scratch:
        log = Path(scratch) / "log"
        for seed in range(1, rounds + 1):
            row: dict[str, Any] = {"seed": seed, "trl": run([trl, str(PEER), "--seed", str(seed)], log)}
            for side, words in SIDES.items():
                options = [word.partition("=")[2] for word in words]
                again = [sys.executable, "-m", "benchmarks.lm_speed", "--sample", *options]
                row[side] = {"cpu_step": steps(words, seed), **run(again, log)}
                ours, theirs = row[side]["cpu_step"], row["trl"]["cpu_step"]
                print(f"round {seed}: {side}: {ours:.3f} s a step, TRL {theirs:.3f}", flush=True)
            rows.append(row)
    return {
        "date": str(date.today()),
        "machine": measure.machine(core),
        "versions": measure.versions(["torch", "numpy"]),
        "peer_versions": measure.versions_of(trl, ["torch", "trl", "transformers"]),
        "rounds": rows,
    }


def ratios(rows: Sequence[dict[str, Any]], side: str, key: str) -> list[float]:
    """rlx against its peer, pair by pair; above 1 in rlx's favour."""
    if key == "cpu_step":
        return [row["trl"][key] / row[side][key] for row in rows]
    return [row[side][key] / row["trl"][key] for row in rows]


def table(found: dict[str, Any]) -> str:
    rows, middle = found["rounds"], statistics.median
    theirs = middle(row["trl"]["cpu_step"] for row in rows)
    tokens = middle(row["trl"]["tokens_per_cpu_second"] for row in rows)
    lines = [
        f"**GRPO.** Measured {found['date']} on one core of {found['machine']['cpu']}, {len(rows)} rounds, torch "
        f"{found['versions']['torch']}, trl {found['peer_versions']['trl']}, transformers "
        f"{found['peer_versions']['transformers']}. Medians; ratios above 1 are in rlx's favour.",
        "",
        "| | CPU s a step | completions / CPU s | vs TRL in float32 | sampled tokens / CPU s "
        "| vs Hugging Face generate in float32 |",
        "|---|---|---|---|---|---|",
        f"| TRL GRPOTrainer, Hugging Face generate, float32 | {theirs:.3f} | {COMPLETIONS / theirs:,.0f} | 1 "
        f"| {tokens:,.0f} | 1 |",
    ]
    for side in SIDES:
        step = middle(row[side]["cpu_step"] for row in rows)
        rate = middle(row[side]["tokens_per_cpu_second"] for row in rows)
        both = [ratios(rows, side, key) for key in ("cpu_step", "tokens_per_cpu_second")]
        said = [f"**{middle(values):.2f}** ({min(values):.2f} to {max(values):.2f})" for values in both]
        lines.append(f"| rlx, {side} | {step:.3f} | {COMPLETIONS / step:,.0f} | {said[0]} | {rate:,.0f} | {said[1]} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lm_speed", description=__doc__)
    parser.add_argument("--trl-python", help="of an environment with trl (extra bench-lm)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--sample", nargs=2, metavar=("DTYPE", "MATMUL"), help=argparse.SUPPRESS)
    parser.add_argument("--table", action="store_true", help="only write the table again")
    args = parser.parse_args(argv)
    if args.sample:
        print(json.dumps({"tokens_per_cpu_second": sampled(*args.sample)}))
        return 0
    if not args.table:
        found = compare(args.trl_python or sys.executable, args.rounds, measure.pin())
        OUT.write_text(json.dumps(found, indent=1) + "\n")
    text = table(json.loads(OUT.read_text()))
    print(text)
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
