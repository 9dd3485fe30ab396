"""model=hf: a tiny Llama with random weights and a tokenizer of characters, made here, behind the interfaces of GPT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composed import composed
from language_runs import train as start_run
from torch.testing import assert_close

transformers = pytest.importorskip("transformers")

from rlx.base.errors import ConfigError, UserError  # noqa: E402
from rlx.export import formats  # noqa: E402
from rlx.language.model.huggingface import HFModel, HFTokenizer  # noqa: E402
from rlx.language.model.sample import generate, noise  # noqa: E402
from rlx.training import runner  # noqa: E402

CHARACTERS = "01="
P, S, G, L = 3, 4, 2, 5


def make(path: Path, tied: bool = False, begin: bool = True) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    words = {word: i for i, word in enumerate([*CHARACTERS, "</s>", "<s>", "<unk>"])}
    own = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    own.pre_tokenizer, own.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    if begin:
        own.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", words["<s>"])])
    special = {"eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=own, **special).save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=words["<s>"], eos_token_id=words["</s>"],
        tie_word_embeddings=tied, initializer_range=0.5,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(3, (P, S), generator=generator)
    mask = torch.ones(P, S, dtype=torch.bool)
    mask[1, :2] = False
    return prompt, mask, torch.randint(3, (P, G, L), generator=generator)


def test_log_probs_are_those_that_transformers_computes_of_each_sequence_alone(tmp_path, batch):
    path = make(tmp_path)
    model, (prompt, mask, completion) = HFModel(str(path)), batch
    plain = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    with torch.no_grad():
        ours = model(prompt, mask, completion)
        for p in range(P):
            for g in range(G):
                tokens = torch.cat([prompt[p][mask[p]], completion[p, g]])[None]
                theirs = plain(input_ids=tokens).logits[0, -L - 1 : -1]
                assert_close(ours[p, g], theirs, rtol=1e-4, atol=1e-5)


def test_sampling_with_its_cache_and_the_parallel_forward_agree(tmp_path, batch):
    model, (prompt, mask, _) = HFModel(str(make(tmp_path))), batch
    uniform = noise(np.random.default_rng(0), P * G, L)
    found = generate(model, prompt, mask, size=G, max_new=L, end=3, uniform=uniform)
    tokens = found.tokens.view(P, G, -1)
    with torch.no_grad():
        every = model(prompt, mask, tokens).log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).flatten(0, 1).squeeze(-1)
    assert found.mask.any() and not found.ended.all()
    assert_close(every.masked_fill(~found.mask, 0.0), found.logprob, rtol=1e-4, atol=1e-5)


def test_the_tokenizer_goes_there_and_back(tmp_path):
    words = HFTokenizer(str(make(tmp_path)))
    ids, mask = words.completions(["01=", "1"], 9)
    assert mask.sum(-1).tolist() == [4, 2] and ids[0, 3] == ids[1, 1] == words.end
    assert words.decode(ids, mask.sum(-1) - 1) == ["01=", "1"]
    ids, mask = words.prompts(["", "01"])
    assert mask.tolist() == [[False, False, True], [True, True, True]] and set(ids[:, -3:][mask].tolist()) >= {4}
    with pytest.raises(UserError, match="does not know"):
        words.prompts(["0x"])


def test_what_the_vocabulary_cannot_write_is_refused_before_the_run(tmp_path):
    path, file = make(tmp_path / "model"), tmp_path / "a.jsonl"
    file.write_text('{"prompt": "0", "answer": "12"}')
    with pytest.raises(UserError, match="^12: has a character that the model's tokenizer does not know$"):
        words = ["algo=sft", "task=jsonl", f"task.file={file}", "model=hf", f"model.path={path}"]
        runner.start(composed(*words, f"runs_dir={tmp_path / 'runs'}"), ["rlx", "train"], lambda *_: None)
    assert not (tmp_path / "runs").exists()


def test_a_prompt_begins_only_with_what_the_tokenizer_adds(tmp_path):
    ids, mask = HFTokenizer(str(make(tmp_path / "a"))).prompts(["0"])
    assert ids.tolist() == [[4, 0]] and mask.all()
    ids, mask = HFTokenizer(str(make(tmp_path / "b", begin=False))).prompts(["0"])
    assert ids.tolist() == [[0]] and mask.all()
    ids, _ = HFTokenizer(str(tmp_path / "b")).prompts([""])
    assert ids.tolist() == [[4]]  # with nothing there is nothing to go on from


def spoil(path: Path, key: str, value: Any) -> None:
    """Another tokenizer in a model's directory."""
    whole = json.loads((path / "tokenizer.json").read_text())
    whole[key] = value(whole[key])
    (path / "tokenizer.json").write_text(json.dumps(whole))


def test_a_tokenizer_that_has_changed_is_named(tmp_path, monkeypatch):
    path, lines = make(tmp_path / "model"), []
    run = train(tmp_path, "sft", path)
    monkeypatch.setattr(runner, "say", lines.append)
    runner.open_policy(run)
    assert not lines
    spoil(path, "normalizer", lambda _: {"type": "Lowercase"})
    runner.open_policy(run)
    assert [line.partition(": ")[0] for line in lines] == ["warning"] and "its tokenizer has changed since" in lines[0]

    def swap(model):
        words = {word: i for i, word in enumerate(model["vocab"])}
        return {**model, "vocab": {**words, "0": words["1"], "1": words["0"]}}

    spoil(path, "model", swap)
    again = runner.read_config(run)
    for act in (
        lambda: runner.open_policy(run),
        lambda: runner.resume(run, {**again, "total_steps": 6}, ["rlx"], lambda *_: None),
        lambda: train(tmp_path, "grpo", path, f"init={run}"),
    ):
        with pytest.raises(
            UserError, match=f"^model.path={path}: its tokenizer has changed .*: ids have other meanings"
        ):
            act()


TINY = [
    "task=parity", "task.length=6", "task.reward=dense", "preset=none", "total_steps=4", "eval_prompts=8", "samples=2",
    "tensorboard=false", "model=hf",
]  # fmt: skip
SMALL = {
    "sft": ["algo.batch_size=8"],
    "grpo": ["algo.num_prompts=4", "algo.group_size=4", "algo.kl_coef=0.1"],
    "dpo": ["algo.data=task", "algo.num_pairs=8", "algo.batch_size=4"],
    "rlhf_ppo": ["algo.num_prompts=4", "algo.group_size=2", "algo.kl_coef=0"],
}


def train(place: Path, algo: str, path: Path, *more: str) -> Path:
    words = [f"algo={algo}", *TINY, *SMALL[algo], *more, f"model.path={path}", f"runs_dir={place / 'runs'}"]
    return runner.start(composed(*words), ["rlx", "train"], lambda *_: None)[0]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("algo", list(SMALL))
def test_the_same_algorithms_run_and_learn_from_it(algo, tied, tmp_path):
    path = make(tmp_path / "model", tied)
    run = train(tmp_path, algo, path)
    cfg, policy = runner.open_policy(run)
    start = HFModel(str(path)).state_dict()
    changed = [name for name, x in policy.model.state_dict().items() if not torch.equal(x, start[name])]
    assert any("embed" in name for name in changed) and any("layers.1" in name for name in changed)
    assert runner.evaluate_policy(policy, cfg, 8, 0)["prompts"] == 8


def test_an_export_for_transformers_has_the_log_probs_of_the_run(tmp_path):
    run = train(tmp_path, "sft", make(tmp_path / "model"))
    out = formats.export(run, "hf", tmp_path / "out")
    (tmp_path / "model").rename(tmp_path / "gone")  # it needs nothing of that
    lm, missing = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(missing.values())
    (tmp_path / "gone").rename(tmp_path / "model")
    policy = runner.open_policy(run)[1]
    (prompt,) = policy.task.prompts(np.random.default_rng(0), 1)
    ids = transformers.AutoTokenizer.from_pretrained(out)(prompt, return_tensors="pt")["input_ids"]
    assert ids.tolist() == policy.prompts([prompt])[0].tolist()
    tokens = torch.tensor([[[0, 1, 1, 0, 3]]])
    with torch.no_grad():
        theirs = lm.eval()(input_ids=torch.cat([ids, tokens[0]], 1)).logits[0, -6:-1]
        assert_close(policy.model(ids, None, tokens)[0, 0], theirs, rtol=1e-4, atol=1e-5)
    assert json.loads((out / "rlx.json").read_text())["task"] == "parity"
    with pytest.raises(UserError, match="already exists"):
        formats.export(run, "hf", out)


def test_a_run_of_rlxs_own_network_has_no_export_for_transformers(tmp_path):
    run = start_run(tmp_path, "sft")
    with pytest.raises(UserError, match="--to=hf: needs a run with model=hf; this one's network is rlx's"):
        formats.export(run, "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_model_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="not the directory of a Hugging Face model") as error:
            train(tmp_path, "sft", path)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()
