"""model=hf: lengths are counted in the model's tokens, and what its tokenizer cannot read or write is refused before
the run. Its tokens are bytes and a few merges here: 🙂 has four, 12345678 two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composed import composed
from tiny_lm import groups_of
from tiny_runs import read_metrics

transformers = pytest.importorskip("transformers")

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

from rlx.base.errors import ConfigError, UserError  # noqa: E402
from rlx.language.model.huggingface import HFModel, HFTokenizer  # noqa: E402
from rlx.language.model.sample import generate, noise  # noqa: E402
from rlx.language.rollout import step_rewards  # noqa: E402
from rlx.training import runner  # noqa: E402

MERGES = [("1", "2"), ("3", "4"), ("12", "34"), ("5", "6"), ("7", "8"), ("56", "78"), ("0", "1"), ("1", "0")]


def make(path: Path, spare: int = 0, normalizer: Any = None, ends: list[int] | None = None, **config: Any) -> Path:
    """A Llama of one layer; `spare`: embeddings beyond the tokenizer's ids."""
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, MERGES)]
    own = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, MERGES))
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    own.normalizer = normalizer
    own.add_special_tokens([AddedToken("</s>", special=True)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=own, eos_token="</s>").save_pretrained(path)
    torch.manual_seed(0)
    values = {
        "vocab_size": len(words) + 1 + spare, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 32, "bos_token_id": None,
        "eos_token_id": ends or len(words),
    }  # fmt: skip
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**values, **config})).save_pretrained(path)
    return path


def rows(file: Path, *pairs: tuple[str, str]) -> list[str]:
    file.write_text("\n".join(json.dumps({"prompt": prompt, "answer": answer}) for prompt, answer in pairs))
    return ["task=jsonl", f"task.file={file}"]


def train(place: Path, algo: str, *words: str) -> Path:
    small = {
        "sft": ["algo.batch_size=4", "algo.lr=1e-2", "algo.check_prompts=4"],
        "grpo_process": ["algo.num_prompts=4", "algo.group_size=4"],
        "grpo": ["algo.num_prompts=4", "algo.group_size=4"],
    }
    given = ["preset=none", "tensorboard=false", "model=hf", "eval_prompts=4", "total_steps=2", "task.sft_stop=0"]
    places = [f"model.path={place / 'model'}", f"runs_dir={place / 'runs'}"]
    raw = composed(f"algo={algo}", *given, *small[algo], *places, *words)
    return runner.start(raw, ["rlx", "train"], lambda *_: None)[0]


def refused(place: Path, match: str, *words: str, algo: str = "sft") -> None:
    with pytest.raises(ConfigError, match=match) as error:
        train(place, algo, *words)
    assert "\n" not in str(error.value) and not (place / "runs").exists()


def test_an_answer_of_two_emoji_has_room_and_is_learnt(tmp_path: Path) -> None:
    make(tmp_path / "model")
    path = train(
        tmp_path,
        "sft",
        *rows(tmp_path / "a.jsonl", ("?", "🙂🙂")),
        "total_steps=40",
        "eval_every=40",
        "algo.check_every=40",
    )
    assert runner.open_policy(path)[1].task.max_new == 9
    assert [row["eval/greedy_accuracy"] for row in read_metrics(path / "metrics.jsonl") if "eval/reward" in row] == [1]


def test_room_is_counted_in_the_models_tokens(tmp_path: Path) -> None:
    make(tmp_path / "model")
    words = rows(tmp_path / "a.jsonl", ("?", "12345678"), ("!", "12"))
    refused(tmp_path, r"line 1: answer and its end have 3 tokens; task.max_new=2 is the most", *words, "task.max_new=2")
    path = train(tmp_path, "sft", *words, "task.max_new=3")
    assert runner.open_policy(path)[1].task.max_new == 3


def test_room_for_the_answers_of_a_built_in_task_too(tmp_path: Path) -> None:
    make(tmp_path / "model")
    policy = runner.open_policy(train(tmp_path, "sft", "task=add2"))[1]
    assert policy.task.max_new == 4 and max(policy.task.tokens(policy.task.answers())) == 3


def test_a_prompt_and_a_completion_must_fit_the_models_positions(tmp_path: Path) -> None:
    make(tmp_path / "model", max_position_embeddings=8)
    words = rows(tmp_path / "a.jsonl", ("abcde", "xy"), ("?", "x"))
    train(tmp_path / "..", "sft", *words, f"model.path={tmp_path / 'model'}")  # 5 + 2 and the end
    longer = rows(tmp_path / "a.jsonl", ("abcdef", "xy"), ("?", "x"))
    refused(
        tmp_path, r"reads 8 tokens; task=jsonl needs 9 \(a prompt of 6 and a completion of task.max_new=3\)", *longer
    )


def test_texts_that_the_tokenizer_cannot_write_are_refused(tmp_path: Path) -> None:
    from tokenizers import normalizers

    make(tmp_path / "model", normalizer=normalizers.Lowercase())
    refused(
        tmp_path, "makes 'paris' of the answer 'Paris', which could never be", *rows(tmp_path / "a", ("?", "Paris"))
    )
    refused(tmp_path, "the answer 'a</s>b' has the end token '</s>' inside", *rows(tmp_path / "a", ("?", "a</s>b")))
    train(tmp_path, "sft", *rows(tmp_path / "a", ("PARIS?", "yes")))  # reading it is no fault


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "model", spare=-2, ends=[0])
    refused(tmp_path, "its tokenizer has ids up to 264, its model only 263 embeddings", "task=parity")


def test_every_end_token_of_generation_config_ends(tmp_path: Path) -> None:
    tokenizer = HFTokenizer(str(make(tmp_path, ends=[3, 264])))
    assert set(tokenizer.ends) == {3, 264} and tokenizer.end == 264
    model = HFModel(str(tmp_path))
    model.lm.lm_head.weight.data.zero_()
    uniform = torch.full((4, 2), 3.5 / 265)  # token 3 of equally likely ones
    drawn = generate(model, torch.tensor([[5]]), None, size=2, max_new=4, end=tokenizer.ends, uniform=uniform)
    assert drawn.tokens.tolist() == [[3], [3]] and drawn.ended.all()


def test_ids_that_have_no_text_are_never_sampled_and_count_nothing(tmp_path: Path) -> None:
    tokenizer = HFTokenizer(str(make(tmp_path, spare=50)))
    model, prompt = HFModel(str(tmp_path), known=tokenizer.known), torch.tensor([[5, 6]])
    model.lm.lm_head.weight.data[:] *= 0.01
    uniform = noise(np.random.default_rng(0), 400, 3)
    drawn = generate(model, prompt, None, size=400, max_new=3, end=(), uniform=uniform)
    assert 200 < drawn.tokens.unique().numel() <= 265 and drawn.tokens.max() < 265
    logits = model(prompt, None, drawn.tokens[None])
    logprob = logits.log_softmax(-1).gather(-1, drawn.tokens[None, ..., None])[0, ..., 0]
    torch.testing.assert_close(logprob, drawn.logprob, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits[..., :265].softmax(-1).sum(-1), torch.ones(1, 400, 3))
    entropy = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)
    assert entropy.isfinite().all()
    assert generate(model, prompt, None, size=1, max_new=3, end=()).tokens.max() < 265


def test_a_step_is_paid_at_the_token_that_writes_its_last_character(tmp_path: Path) -> None:
    tokenizer = HFTokenizer(str(make(tmp_path)))
    (ids,) = tokenizer._rows(["12🙂x5678"])
    assert len(ids) == 1 + 4 + 1 + 1
    assert tokenizer.writes(ids, "12🙂x5678") == [0, 0, 4, 5, 6, 6, 6, 6]

    class Steps:
        def step_rewards(self, prompt: str, text: str, ended: bool) -> list[tuple[int, float]]:
            return [(i, float(i % 2)) for i in range(len(text) + ended)]  # 0 1 0 1 ..

    mask = torch.ones(1, 1, len(ids) + 1, dtype=torch.bool)
    tokens = torch.tensor([[[*ids, tokenizer.end]]])
    groups = groups_of([[1.0]], mask=mask, tokens=tokens, texts=["12🙂x5678"], ended=torch.ones(1, 1, dtype=torch.bool))
    reward, end = step_rewards(Steps(), groups, tokenizer)
    assert end[0, 0].tolist() == [1, 0, 0, 0, 1, 1, 1, 1]
    assert reward[0, 0].tolist() == [0.5, 0, 0, 0, 0, 1, 0.5, 0]


def test_process_supervision_runs_where_tokens_are_no_characters(tmp_path: Path) -> None:
    make(tmp_path / "model")
    path = train(tmp_path, "grpo_process", "task=parity", "task.length=6")
    assert read_metrics(path / "metrics.jsonl")[-1]["step"] == 2


def test_a_prompt_that_the_model_cannot_read_whole_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "model")
    cfg, policy = runner.open_policy(train(tmp_path, "sft", *rows(tmp_path / "a", ("?", "yes"))))
    world = runner.world_of(cfg)
    assert world.sample(policy, cfg, ["x" * 28], 1, 0, None, True)
    with pytest.raises(UserError, match="a prompt of 29 tokens; this run's network reads 28 at most"):
        world.sample(policy, cfg, ["x" * 29], 1, 0, None, True)
