"""model=hf: log-probs are those of the model's own forward pass, whatever its architecture does to positions, caches or
logits. Tiny models with random weights of many architectures, as transformers describes them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

transformers = pytest.importorskip("transformers")

from rlx.base.errors import ConfigError  # noqa: E402
from rlx.language.model.huggingface import HFModel  # noqa: E402
from rlx.language.model.sample import generate, noise  # noqa: E402
from rlx.language.rollout import logprobs  # noqa: E402

V, P, S, G, L, END = 24, 3, 5, 2, 7, 2
TEMPERATURE = 0.7
CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # float32, sums in another order

SMALL = {
    "vocab_size": V, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": END, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
CAPPED = {"head_dim": 8, "sliding_window": 4, "final_logit_softcapping": 3.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {"is_decoder": True},  # a transformation before its output embedding
    "bloom": {"n_layer": 2, "n_head": 4},  # no positions but distances
    "cohere2": {"head_dim": 8, "sliding_window": 4, "logit_scale": 0.3},
    "electra": {"is_decoder": True, "embedding_size": 16},
    "falcon": {"alibi": False, "new_decoder_architecture": False},
    "gemma": {"head_dim": 8},
    "gemma2": {**CAPPED, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 8},
    "gemma3_text": CAPPED,
    "gpt2": GPT2,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4, "window_size": 4},
    "gpt_neox": {},
    "gpt_oss": {**EXPERTS, "head_dim": 8, "sliding_window": 4},
    "gptj": {**GPT2, "rotary_dim": 4},
    "granite": {"logits_scaling": 3.0, "embedding_multiplier": 2.0},
    "llama": {},
    "mistral": {"sliding_window": 4},
    "mixtral": EXPERTS,
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "expansion_ratio": 2},
    "nemotron": {},
    "olmo2": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 16},
    "phi": {},
    "phi3": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "stablelm": {},
    "starcoder2": {},
}
UNCACHED: dict[str, dict[str, Any]] = {  # which read padding, have no positions, or keep no keys
    "mamba": {"state_size": 4},
    "openai-gpt": GPT2,
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 4, "num_hidden_layers": 3, "logits_soft_cap": 3.0},
    "roberta": {"is_decoder": True},
}


def make(path: Path, family: str, changes: dict[str, Any]) -> Path:
    """A model whose every weight matters."""
    config = transformers.AutoConfig.for_model(family, **{**SMALL, **changes})
    model, generator = transformers.AutoModelForCausalLM.from_config(config), torch.Generator().manual_seed(3)
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data.normal_(0, 0.3, generator=generator)
        elif weight.numel() > 1:
            weight.data.add_(torch.empty_like(weight).normal_(0, 0.1, generator=generator))
    model.save_pretrained(path)
    return path


def alone(path: Path, prompt: torch.Tensor, mask: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probs [P, G, L] by transformers itself, each sequence alone and without a cache."""
    plain = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    found = torch.empty(tokens.shape)
    for p, g in np.ndindex(*tokens.shape[:2]):
        row = torch.cat([prompt[p][mask[p]], tokens[p, g]])[None]
        found[p, g] = logprobs(plain(input_ids=row).logits[0, -tokens.shape[-1] - 1 : -1], tokens[p, g], TEMPERATURE)
    return found


@pytest.mark.parametrize("family", [*FAMILIES, *UNCACHED])
@torch.no_grad()
def test_sampling_learning_and_reference_have_the_log_probs_of_transformers(family: str, tmp_path: Path) -> None:
    path = make(tmp_path, family, {**FAMILIES, **UNCACHED}[family])
    model = HFModel(str(path))
    prompt = torch.randint(3, V, (P, S), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(S) >= torch.tensor([[0], [2], [1]])
    uniform = noise(np.random.default_rng(0), P * G, L)
    drawn = generate(model, prompt, mask, size=G, max_new=L, end=END, uniform=uniform, temperature=TEMPERATURE)
    tokens, inside = drawn.tokens.view(P, G, -1), drawn.mask.view(P, G, -1)
    expected = alone(path, prompt, mask, tokens).masked_fill(~inside, 0.0)
    assert expected.std() > 0.3 and inside.sum() > P * G * L / 2
    assert_close(drawn.logprob.view_as(expected), expected, **CLOSE)
    for one in (model, copy.deepcopy(model).requires_grad_(False)):  # learning, and the reference
        assert_close(
            logprobs(one(prompt, mask, tokens), tokens, TEMPERATURE).masked_fill(~inside, 0.0), expected, **CLOSE
        )
    assert model._caches == (family in FAMILIES)


def test_a_model_that_reads_both_ways_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its tokens see those behind them"):
        HFModel(str(make(tmp_path, "bert", {})))


@pytest.mark.parametrize("family", ["electra", "gemma2", "opt"])
def test_a_score_is_read_from_the_models_body(family: str, tmp_path: Path) -> None:
    model = HFModel(str(make(tmp_path, family, FAMILIES[family])), outputs=1)
    torch.nn.init.ones_(model.unembed)
    prompt, completion = torch.full((1, 3), 5), torch.arange(4, 8).view(1, 1, 4)
    mask = torch.tensor([[False, True, True]])
    score = model.logits(model.features(prompt, mask, completion, last=True))
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval().base_model
    hidden = plain(input_ids=torch.tensor([[5, 5, 4, 5, 6, 7]])).last_hidden_state
    assert_close(score[0, 0, :, 0], hidden[0, 1:].sum(-1), **CLOSE)
    score.sum().backward()
    assert all(weight.grad is not None for weight in model.lm.base_model.parameters() if weight.requires_grad)
