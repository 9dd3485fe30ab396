"""TRL's GRPOTrainer, and Hugging Face's generate, on the model and batch of experiment=bench_grpo_trl.

Run by the Python of an environment with trl (`make bench-lm` makes one). Prints a line of JSON: CPU seconds a step and
sampled tokens a CPU second. What is ours to choose is chosen in TRL's favour: micro-batches of 64 are its fastest;
no logging but to memory, no saving.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time

import torch

CHARACTERS = "0123456789abcdefghijklmnopqrst="
LAYERS, WIDTH, HEADS, PROMPTS, GROUP, LENGTH, NEW = 4, 128, 4, 64, 8, 6, 16


def tokenizer(path: str):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*CHARACTERS, "</s>", "<s>"]
    own = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<s>"))
    own.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    own.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<s>", eos_token="</s>", pad_token="<s>")
    made.padding_side = "left"
    made.save_pretrained(path)
    return made


def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    width = 8 * WIDTH // 3  # of its gated layer: as many weights as the 4 x of an ungated one
    config = LlamaConfig(
        vocab_size=len(CHARACTERS) + 2, hidden_size=WIDTH, intermediate_size=width, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=64,
        bos_token_id=len(CHARACTERS) + 1, eos_token_id=len(CHARACTERS), pad_token_id=len(CHARACTERS) + 1,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def reward(completions: list[str], answer: list[str], **_) -> list[float]:
    return [sum(a == b for a, b in zip(text, right)) / 7 for text, right in zip(completions, answer)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warm", type=int, default=2, help="steps before the clock starts")
    parser.add_argument("--micro", type=int, default=64, help="completions of one backward pass")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    class Clock(TrainerCallback):
        marks: list[float] = []

        def on_step_end(self, *_args, **_kwargs):
            self.marks.append(time.process_time())

    with tempfile.TemporaryDirectory() as scratch:
        words = tokenizer(scratch)
        rng = torch.Generator().manual_seed(args.seed)
        rows = torch.randint(30, (PROMPTS * (args.steps + 1), LENGTH), generator=rng).tolist()
        texts = ["".join(CHARACTERS[i] for i in row) for row in rows]
        data = Dataset.from_dict({"prompt": ["<s>" + text + "=" for text in texts], "answer": texts})
        config = GRPOConfig(
            output_dir=scratch, use_cpu=True, bf16=False, fp16=False, seed=args.seed, report_to="none",
            per_device_train_batch_size=args.micro, gradient_accumulation_steps=PROMPTS * GROUP // args.micro,
            num_generations=GROUP, max_completion_length=NEW, temperature=1.0, beta=0.0, learning_rate=1e-6,
            max_steps=args.steps, save_strategy="no", logging_steps=1, disable_tqdm=True, gradient_checkpointing=False,
            lr_scheduler_type="constant", dataloader_pin_memory=False, loss_type="grpo", num_iterations=1,
        )  # fmt: skip
        clock = Clock()
        trainer = GRPOTrainer(
            model=model(), reward_funcs=reward, args=config, train_dataset=data, processing_class=words,
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
        steps = clock.marks[args.warm :]
        history, name = trainer.state.log_history, "completions/mean_length"
        lengths = [row[name] for row in history if name in row]
        found = {"cpu_step": (steps[-1] - steps[0]) / (len(steps) - 1), "mean_length": sum(lengths) / len(lengths)}
        found["weights"] = sum(p.numel() for p in trainer.model.parameters())
    prompt = torch.randint(30, (PROMPTS * GROUP, LENGTH + 2))
    free = model().eval()
    with torch.no_grad():
        for _ in range(2):
            began = time.process_time()
            out = free.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=True, top_k=0, max_new_tokens=NEW,
                min_new_tokens=NEW, pad_token_id=len(CHARACTERS) + 1,
            )  # fmt: skip
    tokens = out[:, LENGTH + 2 :].numel()
    print(json.dumps({**found, "tokens_per_cpu_second": tokens / (time.process_time() - began)}))


if __name__ == "__main__":
    main()
