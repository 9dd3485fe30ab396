"""docs/workshop.md as a researcher would follow it, in an empty folder: copy, change, check, compare, tell apart."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from pathlib import Path

import pytest
from command_line import ROOT, Done, Forks
from waiting import until

PAGE = (ROOT / "docs" / "workshop.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
SHORT = ["eval_episodes=1", "video=false", "tensorboard=false"]


def ok(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def typed(forks: Forks, block: str, here: Path) -> list[Done]:
    """The commands of a block of the page, one after the other, each as short as it may be."""
    lines = [line for line in block.splitlines() if line.startswith("rlx ")]
    words = [shlex.split(line, comments=True)[1:] for line in lines]
    return [ok(forks(*map(shorter, each), *SHORT * (each[0] == "train"), cwd=here)) for each in words]


def shorter(word: str) -> str:
    return word.replace("8_000", "2_048").replace("seed=1,2,3", "seed=1,2")


def weights(run: Path) -> str:
    return json.loads((run / "status.json").read_text())["weights_sha256"]


def test_the_page_from_the_copy_to_the_comparison(forks: Forks, tmp_path: Path) -> None:
    written, trained, checked = typed(forks, BLOCKS[0], tmp_path)
    assert "wrote algos/my_ppo.py" in written.out and not re.search("^FAIL", checked.out, re.M)
    file, values = tmp_path / "algos" / "my_ppo.py", tmp_path / "conf" / "algo" / "my_ppo.yaml"
    text = file.read_text()
    assert "    kl_target: Positive" in text and "cfg.ent_coef * entropy\n" in text
    text = text.replace("    kl_target: Positive", "    bonus: NonNegative  # of mine\n    kl_target: Positive")
    file.write_text(text.replace("cfg.ent_coef * entropy\n", "(cfg.ent_coef + cfg.bonus) * entropy\n"))
    values.write_text(values.read_text() + "bonus: 0.01               # of mine\n")
    _, compared = typed(forks, BLOCKS[1], tmp_path)
    assert "cartpole" in compared.out and "acrobot" in compared.out and "A" in compared.out
    typo = forks("train", "algo=my_ppo", "algo.bonos=1", cwd=tmp_path)
    assert typo.code == 2 and "did you mean 'algo.bonus'" in typo.err

    first = trained.run
    again = BLOCKS[2].splitlines()[0]
    one = typed(forks, again, tmp_path)[0].run
    file.write_text(
        file.read_text().replace("1.5 * algo.target_kl", "1.6 * algo.target_kl").replace("cfg.bonus)", "2 * cfg.bonus)")
    )
    two = typed(forks, again, tmp_path)[0].run
    said = ok(forks("diff", one, two, cwd=tmp_path)).out
    promised = next(line for line in BLOCKS[2].splitlines() if line.startswith("# "))[2:]
    assert promised in said and first != one


def test_a_masked_environment_with_a_dict_trains_with_ppo_and_dqn_and_is_resumed_from_anywhere(
    forks: Forks, tmp_path: Path
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    shutil.copy(Path(__file__).parent / "helpers" / "masked_envs.py", here / "masked.py")
    place = ["env=gym", "env.id=./masked.py:Choices", "env.kwargs.kind=dict", "preset=none", "tensorboard=false"]
    short = ["eval_episodes=3", "algo.num_envs=2", "video=false"]
    grid = ok(forks("train", "-m", "algo=ppo,dqn", *place, *short, "total_steps=1024", "eval_every=1024", cwd=here))
    runs = sorted((here / grid.run).glob("*_s1"))
    assert len(runs) == 2 and all(weights(run) for run in runs)
    for algo, run in zip(("ppo", "dqn"), runs):
        more = ["algo.num_steps=32", "algo.num_minibatches=2"] if algo == "ppo" else ["algo.learning_starts=500"]
        words = [
            "train",
            f"algo={algo}",
            *place,
            *short,
            *more,
            "total_steps=4096",
            "eval_every=0",
            "checkpoint_every=256",
        ]
        whole = here / ok(forks(*words, cwd=here)).run
        child = forks.begin(*words, cwd=here)
        cut: list[Path] = []

        def begun(algo=algo, whole=whole, cut=cut) -> bool:
            places = (here / "runs" / "Choices").glob(f"{algo}/*/checkpoints/step_*")
            cut[:] = [path.parents[1] for path in places if path.parents[1] != whole]
            return bool(cut)

        until(begun)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        ok(forks("resume", str(cut[0]), cwd=elsewhere))
        assert weights(cut[0]) == weights(whole)
        assert "over 3 episodes" in ok(forks("eval", str(run), "--episodes", "3", cwd=elsewhere)).out


@pytest.mark.parametrize("name", re.findall(r"`(rlx \w+ [^`]*)`", PAGE))
def test_the_commands_in_the_text_exist(name: str, forks: Forks, tmp_path: Path) -> None:
    verb = name.split()[1]
    assert forks(verb, "--help", cwd=tmp_path).code == 0
