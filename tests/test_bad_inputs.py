"""Every mistake is one line on stderr that names what was wrong and what would be right, exit code 2, and nothing
is written. The tables read: the words after `rlx`, and what the line must name."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest
from command_line import ROOT, TINY, Done, Forks, entries, rlx

WORDS = [
    # a typo in a group, a choice, a key
    ("train alggo=ppo", "alggo", "'algo'"),
    (
        "train algo=dqn env=cartpole algo.learning_starts=900 total_steps=500",
        "algo.learning_starts=900",
        "total_steps=500",
    ),
    ("train algo=dqn env=cartpole algo.batch_size=64 algo.buffer_size=10", "algo.batch_size=64", "buffer_size=10"),
    ("train algo=dqn env=pendulum", "Pendulum-v1", "Box actions", "Discrete", "ppo"),
    ("train algo=q_learning env=cartpole", "CartPole-v1", "Box observations", "Discrete", "dqn"),
    ("train algo=q_learning env=frozenlake env.normalize_obs=true", "env.normalize_obs=true", "false"),
    ("train algo=trpo env=cartpole model.shared=true", "model.shared=true", "false"),
    ("train algo=actor_critic_q env=pendulum", "Pendulum-v1", "algo.critic=v"),
    ("train algo=vpg algo.weight=advantage", "algo.weight=advantage", "whole_return, reward_to_go, baseline or gae"),
    ("train algo=pppo", "algo=pppo", "'ppo'", "rlx list algos"),
    ("train env=cartpoll", "env=cartpoll", "'cartpole'", "rlx list envs"),
    ("train env=qqq", "env=qqq", "acrobot", "walker2d", "env=gym"),
    ("train env=CartPole-v1", "env=CartPole-v1", "env=gym env.id=CartPole-v1"),
    ("train env=ALE/Pong-v5", "env=gym env.id=ALE/Pong-v5"),
    ("train env=gym", "env.id", "env.id=CartPole-v1"),
    ("train model=mlpp", "model=mlpp", "'mlp'", "cnn"),
    ("train preset=ppo_cartpoll", "preset=ppo_cartpoll", "'ppo_cartpole'"),
    ("train experiment=bench_ppo", "experiment=bench_ppo", "'bench_ppo_zoo'"),
    ("train algo.lrr=1", "algo.lrr", "'algo.lr'"),
    ("train lr=1e-3", "lr", "'algo.lr'"),
    ("train env.nam=x", "env.nam", "'env.name'"),
    ("train +foo=3", "foo", "total_steps"),
    ("train ++algo.foo=3", "algo.foo", "num_envs"),
    ("train +seed=3", "+seed=3", "seed=3"),
    ("train seed.x=1", "seed.x", "no such key"),
    ("train hydra/launcher=jobli", "hydra/launcher=jobli", "'joblib'"),
    ("train -m seed=1,2 hydra/launcher=submitit_slurmm", "submitit_slurmm", "basic"),
    ("train hydra.foo=1", "hydra.foo", "sweep"),
    # a value of the wrong type or out of range
    ("train seed=abc", "seed=abc", "whole number", "4294967295"),
    ("train seed=1.5", "seed=1.5", "whole number"),
    ("train seed=-1", "seed=-1", "from 0"),
    ("train seed=2**70", "seed=2**70", "whole number"),
    ("train seed=1180591620717411303424", "seed=1180591620717411303424", "4294967295"),
    ("train seed=1e999", "seed=inf", "whole number"),
    ("train seed=true", "seed=true", "whole number"),
    ("train seed=null", "seed=null", "whole number"),
    ("train seed=", "seed=''", "whole number"),
    ("train algo.lr=nan", "algo.lr=nan", "finite number > 0"),
    ("train algo.lr=inf", "algo.lr=inf", "finite number > 0"),
    ("train algo.lr=-1", "algo.lr=-1", "number > 0"),
    ("train algo.lr=[1,2]", "algo.lr=[1, 2]", "number > 0"),
    ("train algo.gamma=1.01", "algo.gamma=1.01", "from 0 to 1"),
    ("train algo.num_envs=0", "algo.num_envs=0", "from 1"),
    ("train algo.objective=clop", "algo.objective=clop", "'clip'", "penalty"),
    ("train total_steps=0", "total_steps=0", ">= 1"),
    ("train total_steps=99999999999999999999", "total_steps=99999999999999999999", "whole number"),
    ("train eval_every=-1", "eval_every=-1", ">= 0"),
    ("train threads=0", "threads=0", "1 to 1024"),
    ("train video=maybe", "video=maybe", "true or false"),
    ("train model.hidden=64", "model.hidden=64", "a list", "model.hidden=[64]"),
    ("train model.hidden=[64,-1]", "model.hidden[1]=-1", "> 0"),
    ("train model.hidden.x=1", "model.hidden.x=1: model.hidden is a list of 2", "as a whole: model.hidden=[64,64]"),
    ("train env.wrappers.zz=1", "env.wrappers.zz=1: env.wrappers is a list of 0", "env.wrappers=[]"),
    ("train ~model.hidden.0", "~model.hidden.0: model.hidden is a list of 2", "model.hidden=[64,64]"),
    ("train +model.hidden.x=1", "+model.hidden.x=1: model.hidden is a list"),
    ("train model.hidden.5=3", "model.hidden.5=3: model.hidden is a list of 2"),
    ("train model.hidden[0]=32", "the key has brackets, 'model.hidden.0=32'"),
    ("train model.hidden.-1=3", "cannot read 'model.hidden.-1=3': that is no key=value"),
    ("train seed=1,2,", "a ',' is too many, 'seed=1,2'"),
    ("train algo=ppo,", "a ',' is too many, 'algo=ppo'"),
    ("train preset=dqn_cartpole algo=ppo", "algo.buffer_size: no such key", "[set by preset=dqn_cartpole]"),
    ("train model.activation=tan", "model.activation=tan", "'tanh'", "relu"),
    ("train env.max_episode_steps=x", "env.max_episode_steps=x", "null"),
    # devices
    ("train device=gpu", "device=gpu", "auto, cpu, cuda"),
    ("train device=cuda", "device=cuda", "device=cpu"),
    ("train device=cuda:99", "device=cuda:99", "device=cpu"),
    *([("train device=mps", "device=mps", "device=cpu")] if sys.platform == "linux" else []),
    # environments
    ("train env.id=CartPol-v1", "env.id=CartPol-v1", "CartPole"),
    ("train env.id=CartPole-v99", "env.id=CartPole-v99", "v1"),
    ("train env.id=LunarLander-v2", "env.id=LunarLander-v2", "LunarLander-v3"),
    ("train env.id=no.such.module:Env-v0", "env.id=no.such.module:Env-v0", "no module no "),
    ("train +env.kwargs.foo=1", "env.kwargs.foo", "CartPole-v1"),
    ("train algo=q_learning env=grid +env.kwargs.rowz=3", "env.kwargs.rowz", "'rows'", "columns"),
    ("train algo=q_learning env=grid env.kwargs.slip=3", "env.kwargs.slip=3", "from 0 to 1"),
    ("train algo.num_envs=1_000_000 algo.num_steps=1_000_000", "algo.num_steps=1000000", "GB"),
    ("train env.kwargs.foo=1", "env.kwargs.foo", "there are: sutton_barto_reward"),
    ("train env.wrappers=[atary]", "env.wrappers=atary", "atari"),
    ("train env.wrappers=flatten", "env.wrappers=flatten", "env.wrappers=[flatten]"),
    ("train env.wrappers=[atari]", "env.wrappers=atari", "CartPole-v1"),
    ("train env.backend=asynk", "env.backend=asynk", "'async'"),
    ("train env=gym env.id=rlx_random.envs:Words-v0", "Words-v0", "observation is a Text", "Box"),
    ("train env=gym env.id=rlx_random.envs:Levers-v0", "Levers-v0", "action is a Sequence", "Discrete"),
    ("train env=minigrid_empty env.wrappers=[]", "MiniGrid", "env.wrappers", "minigrid_flat"),
    # two worlds: an algorithm learns in an environment or on a task
    ("train algo=ppo task=add2", "task=add2", "ppo", "in an environment", "sft"),
    ("train algo=grpo env=cartpole", "env=cartpole", "grpo", "on a task", "dqn"),
    ("train env=cartpole task=add2", "env=cartpole task=add2", "not both"),
    ("train -m algo=ppo,grpo", "algo=ppo,grpo", "ppo", "environment", "grpo", "task"),
    ("train algo=ppo algo.implementation=grpo", "algo.implementation=grpo", "algo=ppo"),
    ("train algo=sft model=mlp", "model=mlp", "sft", "task"),
    ("train experiment=bench_ppo_zoo task=add2", "task=add2", "experiment=bench_ppo_zoo", "environment"),
    ("train algo=ppo init=latest:nope", "init=latest:nope", "nope"),
    ("train algo=ppo as=trl", "as=trl", "ppo", "environment"),
    ("train algo=grpo as=trll", "as=trll", "'trl'", "verl"),
    ("train algo=rlhf_ppo task=names", "init=null", "latest:pretrain"),
    ("train task=ad2", "task=ad2", "'add2'"),
    ("train algo=grop", "algo=grop", "'grpo'"),
    ("train task.implementation=ad task=add2", "task.implementation=ad", "add"),
    ("train algo=sft task=names", "task=names", "demonstrations (answer)", "add2"),
    ("train task=add2 model.context=5", "model.context=5", "needs 11"),
    ("train task=add2 task.max_new=2", "task.max_new=2", "task=add2"),
    ("train task=add2 eval_promts=3", "eval_promts", "'eval_prompts'"),
    ("train task=add2 eval_episodes=3", "eval_episodes", "eval_prompts"),
    ("train task=add2 task.digit=3", "task.digit", "'task.digits'"),
    ("train task=add2 model.d_model=10", "model.d_model=10", "num_heads"),
    ("train -m algo=sft,grpo seed=1,-1", "seed=-1"),
    ("train -m algo=sft task=add2,names", "task=names", "demonstrations"),
    ("train algo=sft init=runs/done", "init=runs/done", "ppo", "task"),
    ("train -m algo=sft init=null,nowhere", "init=nowhere", "no such run directory"),
    # places
    ("train runs_dir=afile", "runs_dir=afile", "Not a directory"),
    ("train runs_dir=afile/below", "runs_dir=afile/below", "Not a directory"),
    ("train runs_dir=/proc/nowhere", "runs_dir=/proc/nowhere", "cannot create"),
    ("train runs_dir=", "runs_dir=''", "not empty"),
    ("train hydra.run.dir=runs/done", "hydra.run.dir=runs/done", "exists already"),
    ("train hydra.run.dir=new seed=-1", "seed=-1"),
    ("train hydra.run.dir=/proc/nowhere", "/proc/nowhere", "cannot create"),
    ("train hydra.output_subdir=x", "hydra.output_subdir=x"),
    ("train env.name=../../x", "env.name=../../x", "letters, digits"),
    ("train algo.name=a/b", "algo.name=a/b", "letters, digits"),
    ("train algo=../env/cartpole", "algo=../env/cartpole", "a name, not a path"),
    # words that are none
    ("train seed", "seed", "key=value"),
    ("train cartpole", "cartpole", "env=cartpole"),
    ("train ''", "''", "key=value"),
    ("train =3", "'=3'", "key=value"),
    ("train @x=1", "'@x=1'", "key=value"),
    ("train 'seed =3'", "'seed =3'", "spaces"),
    ("train аlgo=ppo", "CYRILLIC SMALL LETTER A"),
    ("train algo.lr=[1", "'algo.lr=[1'", "']' is missing"),
    ("train 'algo.lr=\"1'", "algo.lr", 'closing "'),
    ("train 'runs_dir=a(b)'", "runs_dir=a(b)", "'runs_dir=\"a(b)\"'"),
    ("train algo=null", "algo=null", "rlx list algos"),
    ("train env=", "env=", "cartpole"),
    ("train env=[cartpole,pendulum]", "env=[cartpole,pendulum]", "-m env=cartpole,pendulum"),
    ("train env@foo=cartpole", "env@foo=cartpole", "env=cartpole"),
    ("train ~algo", "~algo"),
    ("train ~seed", "seed", "missing"),
    ("train seed=1,2", "seed=1,2", "-m seed=1,2"),
    # interpolation, code in a configuration
    ("train 'seed=${seed}'", "seed=${seed}", "itself"),
    ("train 'seed=${nothing}'", "seed=${nothing}", "'nothing'"),
    ("train 'seed=${oc.env:RLX_NOWHERE}'", "seed=${oc.env:RLX_NOWHERE}", "not found"),
    ("train 'seed=${nope:1}'", "seed=${nope:1}", "'nope'"),
    ("train seed=???", "seed", "needs a value"),
    ("train +algo._target_=os.system", "algo._target_", "run no code"),
    ("train ++env.kwargs._target_=os.system", "env.kwargs._target_", "run no code"),
    ("train +hydra.callbacks.x._target_=os.system", "hydra.callbacks.x._target_", "run no code"),
    ("train hydra.launcher._target_=os.system -m", "os.system", "plug-in"),
    ("train algo.implementation=os", "algo.implementation=os", "ppo"),
    ("train hydra.searchpath=[nowhere]", "hydra.searchpath", "nowhere"),
    # sweeps: one bad combination stops all of them before the first
    ("train -m algo=ppo,pppo", "algo=pppo", "'ppo'"),
    ("train -m seed=1,-1", "seed=-1"),
    ("train -m algo.lr=1e-3,abc", "algo.lr=abc"),
    ("train -m algo.lr=1e-3,1e-4 seed=1,2,abc", "seed=abc"),
    ("train -m seed=1,2 device=cpu,cuda", "device=cuda"),
    ("train -m env.id=CartPole-v1,CartPol-v1", "env.id=CartPol-v1"),
    ("train -m preset=none,nonne", "preset=nonne", "'none'"),
    ("train -m seed=range(3,1)", "seed=range(3,1)", "no value"),
    ("train -m algo=glob(x*)", "algo=glob(x*)", "no value"),
    ("train -m 'algo.lr=interval(0,1)'", "algo.lr=interval(0,1)", "a,b,c"),
    ("train -m seed=1,2 hydra.sweep.dir=afile", "afile", "cannot create"),
    ("train -m seed=1,2 runs_dir=afile", "afile", "cannot create"),
    # flags and verbs
    ("train --mutlirun", "--mutlirun", "--multirun"),
    ("train -x", "-x", "no such flag"),
    ("train --multirun=3", "--multirun", "no value"),
    ("train --cfg", "--cfg", "job, hydra, all"),
    ("train --cfg jobb", "--cfg=jobb", "'job'"),
    ("train --cfg job -m seed=1,2", "--cfg", "--multirun"),
    ("train --cfg job --package foo", "--package=foo", "algo"),
    ("train --resolve", "--resolve", "--cfg"),
    ("train --info foo", "--info=foo", "searchpath"),
    ("train --config-dir nowhere", "--config-dir=nowhere", "no such directory"),
    ("train --config-dir", "--config-dir", "needs a value"),
    ("train --config-name foo", "--config-name=foo", "foo.yaml"),
    ("train --config-path x", "--config-path", "--config-dir"),
    ("train --experimental-rerun x", "--experimental-rerun", "rlx resume"),
    ("trian", "trian", "'train'", "rlx --help"),
    ("''", "''", "train"),
    ("--vresion", "--vresion", "--version"),
    ("list", "list", "envs"),
    ("list algo", "algo", "'algos'", "envs"),
    ("completion csh", "csh", "bash"),
    ("completion", "SHELL", "fish"),
    ("doctor x", "x"),
    # runs
    ("resume", "RUN", "latest"),
    ("resume nothing", "nothing", "rlx ls"),
    ("resume afile", "afile", "not a run"),
    ("eval .", ".", "not a run"),
    ("show ''", "RUN=''", "latest"),
    ("play runs", "runs", "not a run"),
    ("ls nowhere", "nowhere", "no such directory"),
    ("ls afile", "afile", "not a directory"),
    ("ls --sort size", "--sort=size", "time", "return"),
    ("ls --jason", "--jason", "--json"),
    ("ls a b", "b"),
    ("dash afile", "afile", "not a directory"),
    ("dash runs --port 99999", "--port=99999", "65535"),
    ("dash runs --port abc", "--port=abc", "whole number"),
    ("eval runs/done --episodes 0", "--episodes=0", ">= 1"),
    ("eval runs/done --episodes -1", "--episodes=-1", ">= 1"),
    ("eval runs/done --episodes abc", "--episodes=abc", "whole number"),
    ("eval runs/done --episodes", "--episodes", "needs a value"),
    ("eval runs/done --seed 4294967296", "--seed=4294967296", "4294967295"),
    ("eval runs/done --checkpoint foo", "foo", "final"),
    ("eval runs/done --checkpoint 77", "77", "final"),
    ("eval runs/done --device cuda", "device=cuda"),
    ("eval runs/done --json=3", "--json", "no value"),
    ("play runs/done --gif x.png", "--gif=x.png", ".gif"),
    ("play runs/done --gif nowhere/x.gif", "nowhere", "does not exist"),
    ("play runs/done --fps 0", "--fps=0", ">= 1"),
    ("resume runs/done seed=3", "seed", "cannot change"),
    ("resume runs/done env.id=Acrobot-v1", "env.id", "cannot change"),
    ("resume runs/done algo.num_envs=4", "algo.num_envs", "cannot change"),
    ("resume runs/done algo=ppo", "algo=ppo", "cannot change"),
    ("resume runs/done preset=none", "preset=none", "cannot change"),
    ("resume runs/done total_step=9", "total_step", "'total_steps'"),
    ("resume runs/done algo.lr=abc", "algo.lr=abc", "number > 0"),
    ("resume runs/done total_steps=1", "total_steps=1", "512"),
    ("resume runs/done hydra.run.dir=x", "hydra.run.dir=x"),
    ("resume runs/done -m", "-m", "key=value"),
]

ENV = "name: mine\nid: CartPole-v1\n"
GLOBAL = "# @package _global_\n"
FILES: list[tuple[str, str, str | bytes, tuple[str, ...]]] = [  # words, file, content, what the line must name
    ("train env=x", "conf/env/x.yaml", ENV + "normalise_obs: true\n", ("env.normalise_obs", "normalize_obs", "x.yaml")),
    ("train env=x", "conf/env/x.yaml", ENV + "workers: many\n", ("env.workers=many", "whole number", "x.yaml")),
    ("train env=x", "conf/env/x.yaml", "name: mine\n", ("env.id", "missing")),
    ("train env=x", "conf/env/x.yaml", "name: ../../mine\nid: CartPole-v1\n", ("env.name=../../mine", "x.yaml")),
    ("train env=x", "conf/env/x.yaml", ENV + "kwargs: [1\n", ("conf/env/x.yaml, line 4", "not YAML")),
    ("train env=x", "conf/env/x.yaml", ENV + "name: other\n", ("conf/env/x.yaml, line 3", "duplicate key name")),
    ("train env=x", "conf/env/x.yaml", "name: !!python/object/apply:os.mkdir [x]\n", ("x.yaml, line 1", "os.mkdir")),
    ("train env=x", "conf/env/x.yaml", "name: größe\n".encode("latin-1"), ("conf/env/x.yaml", "UTF-8")),
    ("train env=x", "conf/env/x.yaml", b"name: a\0b\n", ("conf/env/x.yaml", "#x0000")),
    ("train env=x", "conf/env/x.yaml", "3\n", ("conf/env/x.yaml", "keys with values")),
    ("train env=x", "conf/env/x.yaml", "- 1\n", ("env=[1]", "keys")),
    ("train env=x", "conf/env/x.yaml", "defaults: [nothing]\n", ("env=nothing", "env/x.yaml")),
    ("train env=x", "conf/env/x.yaml", "defaults: [x]\n", ("defaults",)),
    ("train env=x", "conf/env/x.yaml", "defaults: 3\n", ("env/x", "must be a list")),
    ("train env=x", "conf/env/x.yaml", ENV + "_target_: os.mkdir\n", ("env._target_", "run no code")),
    ("train env=x", "conf/env/x.yaml", ENV + "kwargs: ${env.kwargs}\n", ("env.kwargs", "itself")),
    ("train env=x", "conf/env/x.yml", ENV, (".yml", ".yaml")),
    (
        "train env=x",
        "conf/env/x.yaml",
        "a: &a [1,2,3,4,5,6,7,8,9]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdef", "bcdefg")),
        ("conf/env/x.yaml", "aliases"),
    ),
    ("train", "conf/env/x.yaml", "# " + 2_000_000 * "x", ("conf/env/x.yaml", "bytes")),
    ("train", "conf/preset/ppo_cartpole.yaml", GLOBAL + "total_step: 9\n", ("total_step", "'total_steps'", "ppo_cart")),
    ("train", "conf/preset/ppo_cartpole.yaml", "total_steps: 9\n", ("preset.total_steps", "# @package _global_")),
    ("train experiment=x", "conf/experiment/x.yaml", "seed: 9\n", ("experiment.seed", "# @package _global_")),
    ("train experiment=x", "conf/experiment/x.yaml", GLOBAL + "hydra: {run: {dri: x}}", ("hydra.run.dri", "dir")),
    ("train algo=x", "conf/algo/x.yaml", "name: x\n", ("algo.implementation", "missing")),
    (
        "train algo=x",
        "conf/algo/x.yaml",
        "name: x\nimplementation: a2\n",
        ("algo.implementation=a2", "'a2c'", "rlx list algos"),
    ),
    ("train --config-dir more env=yy", "more/env/yyy.yaml", ENV, ("env=yy", "'yyy'")),
    ("train -m hydra/launcher=x", "conf/hydra/launcher/x.yaml", "_target_: os.mkdir\n", ("os.mkdir", "plug-in")),
]

EXTRAS = [
    ("train env=lunarlander", "Box2D", "box2d"),
    ("train env=hopper", "mujoco", "mujoco"),
    ("train env=pong", "ale_py", "atari"),
    ("train env=minigrid_empty", "minigrid", "minigrid"),
    ("train env.backend=envpool", "envpool", "envpool"),
]


def one_good_line(done: Done, *named: str) -> None:
    assert (done.code, done.out) == (2, ""), done
    assert done.err.startswith("rlx: error: ") and done.err.endswith("\n") and done.err.count("\n") == 1, done.err
    assert "Traceback" not in done.err and "RLX_DEBUG" not in done.err and len(done.err) < 500, done.err
    for name in named:
        assert name in done.err, f"{name!r} is not named in: {done.err}"


@pytest.mark.parametrize("line", WORDS, ids=[line[0] for line in WORDS])
def test_a_wrong_word_is_one_line_and_leaves_nothing_behind(line: tuple[str, ...], place: Path, forks: Forks) -> None:
    before = entries(place)
    one_good_line(forks(*shlex.split(line[0]), cwd=place), *line[1:])
    assert entries(place) == before


@pytest.mark.parametrize("words, name, content, named", FILES, ids=[f"{row[1]}: {row[2][:20]!r}" for row in FILES])
def test_a_wrong_file_of_the_user_is_one_line_that_names_it(
    words: str, name: str, content: str | bytes, named: tuple[str, ...], tmp_path: Path, forks: Forks
) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = entries(tmp_path)
    one_good_line(forks(*shlex.split(words), cwd=tmp_path), *named)
    assert entries(tmp_path) == before


@pytest.mark.parametrize("words, module, extra", EXTRAS)
def test_a_missing_package_is_named_by_the_extra_that_brings_it(
    words: str, module: str, extra: str, tmp_path: Path, forks: Forks
) -> None:
    one_good_line(forks(*words.split(), cwd=tmp_path, without=[module]), f'pip install -e "{ROOT}[{extra}]"')
    assert entries(tmp_path) == set()


def _remove_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


DAMAGE = [
    ("eval", _remove_checkpoints, "no checkpoint"),
    ("play", _remove_checkpoints, "no checkpoint"),
    ("resume", lambda run: (run / "config.yaml").write_text("a: ["), "config.yaml"),
    ("eval", lambda run: (run / "config.yaml").write_text("[1]"), "config.yaml"),
    ("resume", lambda run: (run / "config.yaml").write_bytes(b"a: \xff"), "config.yaml"),
    ("show", lambda run: (run / "run.json").unlink(), "not a run"),
    ("show", lambda run: (run / "config.yaml").unlink(), "not a run"),
]


@pytest.mark.parametrize("verb, damage, named", DAMAGE)
def test_a_damaged_run_is_one_line_that_names_what_is_wrong(verb, damage, named, place: Path, forks: Forks) -> None:
    damage(place / "runs" / "done")
    before = entries(place)
    one_good_line(forks(verb, "runs/done", cwd=place), named)
    assert entries(place) == before


@pytest.mark.parametrize(
    "line",
    [
        ("train threads=abc", "threads=abc", "1 to 1024"),  # a BLAS that read it would complain on its own
        ("train env=cartpoll", "'cartpole'"),
        ("trian", "'train'"),
        ("eval nothing --episodes 0", "--episodes=0"),
    ],
)
def test_a_process_of_its_own_says_the_same_one_line(line: tuple[str, ...], tmp_path: Path) -> None:
    one_good_line(rlx(*line[0].split(), cwd=tmp_path), *line[1:])
    assert entries(tmp_path) == set()


def test_there_are_more_bad_inputs_than_the_forty_promised() -> None:
    assert len({line[0] for line in WORDS}) == len(WORDS) > 100


@pytest.mark.parametrize("verb", ["ls", "list envs", "show nope"])
def test_variables_of_torchrun_silence_no_other_verb(verb: str, tmp_path: Path, forks: Forks) -> None:
    for env in ({"RANK": "x"}, {"RANK": "1", "WORLD_SIZE": "2"}, {"RANK": "1", "WORLD_SIZE": "x"}):
        [done] = forks.together(1, *verb.split(), cwd=tmp_path, env=[env])
        assert done.out + done.err and "Traceback" not in done.err, (env, done)
    [done] = forks.together(1, "train", *TINY, cwd=tmp_path, env=[{"RANK": "0", "WORLD_SIZE": "x"}])
    assert done.code == 2 and "WORLD_SIZE=x: must be a whole number" in done.err and not (tmp_path / "runs").exists()
