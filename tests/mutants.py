"""Break each equation on purpose and see its test fail: `make mutants` (python tests/mutants.py [WORD ...]).

A mutant is one change of one line in a copy of the package; the tests named beside it must fail on it. Each trap that
reviewers look for in these algorithms is here once, with the tests that would catch it. Exit code 1 if one survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Mutant = tuple[str, str, str, str, str]  # what is broken, file under rlx/, before, after, tests

RETURNS = "tests/functional/test_returns.py"
VALUE = "tests/functional/test_value.py"
CONTINUOUS = "tests/functional/test_continuous.py"
BOX, ACTORS = "tests/algos/test_continuous_control.py", "tests/control/test_actors.py"
POLICY = "tests/functional/test_policy.py"
PREFERENCE = "tests/functional/test_preference.py"
REGION = "tests/functional/test_trust_region.py"
ROLLOUT = "tests/control/test_rollout.py"
ENGINE = "tests/engine/test_engine.py"
KERNELS = "tests/engine/test_kernels.py"
STEPPED = "tests/control/test_rollout.py -k compiled_environments"
DPO, RLHF = "tests/algos/test_dpo.py", "tests/algos/test_rlhf_ppo.py"

MUTANTS: list[Mutant] = [
    # Returns and advantages
    ("reward-to-go runs over the end of an episode", "functional/returns.py",
     "return linear_recurrence(reward, gamma * (1 - done.to(reward.dtype)))",
     "return linear_recurrence(reward, gamma * torch.ones_like(reward))", RETURNS),
    ("the whole return is the reward to go", "functional/returns.py",
     "return to_go.gather(0, torch.where(begins, rows, 0).cummax(0).values)", "return to_go",
     "tests/algos/test_vpg.py -k definitions"),
    ("gamma^k dropped in the n-step return", "functional/returns.py",
     "longer = reward[:-1] + gamma * target[1:]", "longer = reward[:-1] + target[1:]", RETURNS),
    ("an n-step window runs over the end of an episode", "functional/returns.py",
     "torch.where(done[:-1].bool(), shortest[:-1], longer)", "longer", RETURNS),
    ("the TD target bootstraps from a termination", "functional/value.py",
     "next_value.masked_fill(terminated.bool(), 0.0)", "next_value", VALUE),
    ("GAE: truncation does not stop the sum", "functional/returns.py",
     "return linear_recurrence(delta, gamma * gae_lambda * (1 - done.to(delta.dtype)))",
     "return linear_recurrence(delta, gamma * gae_lambda * (1 - terminated.to(delta.dtype)))", RETURNS),
    ("GAE: truncation is not bootstrapped", "functional/returns.py",
     "delta = td_error(reward, value, next_value, terminated, gamma)",
     "delta = td_error(reward, value, next_value, done, gamma)", RETURNS),
    ("GAE without lambda", "functional/returns.py", "gamma * gae_lambda * (1 - done", "gamma * (1 - done", RETURNS),
    ("double Q-learning lets the target network choose", "functional/value.py",
     "online_q.argmax(-1", "target_q.argmax(-1", VALUE),
    ("one advantage is normalised to NaN", "functional/returns.py",
     "correction=min(ddof, advantage.numel() - 1)", "correction=ddof",
     "tests/functional tests/algos/test_ppo.py -k one_row or one_element or normalize"),
    # Continuous control
    ("the soft target forgets the entropy", "functional/continuous.py",
     "next_q - alpha * next_logprob", "next_q", CONTINUOUS),
    ("the soft target pays for certainty", "functional/continuous.py",
     "next_q - alpha * next_logprob", "next_q + alpha * next_logprob", CONTINUOUS),
    ("the soft target pays for the entropy behind a termination", "functional/continuous.py",
     "return td_target(reward, next_q - alpha * next_logprob, terminated, gamma)",
     "return td_target(reward - gamma * alpha * next_logprob, next_q, terminated, gamma)", CONTINUOUS),
    ("the critics' largest value", "functional/continuous.py",
     "least = torch.minimum(least, other)", "least = torch.maximum(least, other)", CONTINUOUS),
    ("the policy of SAC descends the value", "functional/continuous.py",
     "alpha * logprob - q", "alpha * logprob + q", CONTINUOUS),
    ("alpha is moved away from its target", "functional/continuous.py",
     "Tensor = -log_alpha * (", "Tensor = log_alpha * (", CONTINUOUS),
    ("the temperature's loss reaches the policy", "functional/continuous.py",
     "logprob.detach() + target_entropy", "logprob + target_entropy", CONTINUOUS),
    ("the target of the entropy has the other sign", "functional/continuous.py",
     "logprob.detach() + target_entropy", "logprob.detach() - target_entropy", CONTINUOUS),
    ("the smoothing noise is not clipped", "functional/continuous.py",
     "(action + noise.clamp(-clip, clip))", "(action + noise)", CONTINUOUS),
    ("a smoothed action leaves the bounds", "functional/continuous.py", ".clamp(low, high)", "", CONTINUOUS),
    ("the gradient of squashing loses its digits", "functional/continuous.py",
     "return 1 - 2 / ((2 * before.clamp(-20, 20)).exp() + 1)", "return before.tanh()", CONTINUOUS),
    ("squashing overflows", "functional/continuous.py", "before.clamp(-20, 20)", "before", CONTINUOUS),
    ("the squashing is forgotten", "functional/continuous.py", "return gaussian - squashing", "return gaussian",
     CONTINUOUS),
    ("the squashing is infinite at the bounds", "functional/continuous.py",
     "2 * (math.log(2) - before - F.softplus(-2 * before))", "torch.log(1 - before.tanh().square())", CONTINUOUS),
    ("SAC's critics chase themselves", "algos/sac.py",
     "target.follow(critic_learner, algo.tau)", "target.follow(critic_learner, 0.0)", f"{BOX} -k follow_by_tau"),
    ("SAC's policy forgets its entropy", "algos/sac.py",
     "continuous.sac_policy(logprob, q, temperature.alpha())",
     "continuous.sac_policy(logprob.detach(), q, temperature.alpha())", f"{BOX} -k endless_reward_and"),
    ("SAC's first step is paid for its entropy twice", "algos/sac.py",
     'batch["reward"], next_q,', 'batch["reward"] - temperature.alpha() * logprob, next_q,',
     f"{BOX} -k endless_reward_and"),
    ("alpha has no limits", "algos/sac.py", "self.log_alpha.clamp_(", "self.log_alpha.clamp(", f"{BOX} -k limits"),
    ("the temperature reads another minibatch's probabilities", "algos/sac.py",
     "tensors(actor_learner.rows, run.device)", '{"logprob": torch.zeros(algo.batch_size)}', f"{BOX} -k comes_to_its"),
    ("TD3's targets move at every step", "algos/td3.py",
     "if critic_learner.num_steps % algo.policy_delay == 0:", "if True:", f"{BOX} -k counted"),
    ("TD3's target policy is the policy", "algos/td3.py",
     "targets = target_actor.network, target_critics.network", "targets = actor, critics", f"{BOX} -k stand_still"),
    ("TD3's policy descends the value", "algos/td3.py", "loss = -critics.first", "loss = critics.first",
     f"{BOX} -k half and td3"),
    ("the noise of exploration is not saved", "control/acting/box.py",
     'self.noise.load_state_dict(state["noise"])', "pass", f"{BOX} -k killed and remembers"),
    ("an episode begins with the noise of the last one", "control/acting/box.py",
     "self.noise.ended(i for i, _ in final)", "pass", f"{BOX} -k begins_without"),
    ("the buffer keeps the action of the environment", "control/acting/box.py",
     "self.replay.add(action,", "self.replay.add(self.bounds.scaled(action),", f"{BOX} -k unequal"),
    ("actions are scaled as if their bounds were equal", "control/actors.py",
     "return self.low + (action + 1) * self.half", "return action * self.half", ACTORS),
    ("infinite bounds are taken", "control/actors.py", "if not np.isfinite(self.half).all():", "if False:", ACTORS),
    ("all critics are the first", "control/actors.py", "x.expand(len(self.weight), -1, -1), self.weight)",
     "x.expand(len(self.weight), -1, -1), self.weight[:1].expand_as(self.weight))", ACTORS),
    ("held noise is not held", "control/acting/noise.py",
     "if fresh or (self.every and self.age >= self.every):", "if True:", ACTORS),
    ("the variance of state-dependent noise is another one's", "control/actors.py",
     "(2 * self.log_std).exp()", "self.log_std.exp()", ACTORS),
    ("a truncated step has no future", "replay/buffer.py",
     '"terminated": (flags & TERMINATED).astype(bool)', '"terminated": (flags > 0)', f"{BOX} -k truncation"),
    ("an export acts on what is not squashed", "export/plain.py",
     "({x}.tanh() + 1)", "({x} + 1)", "tests/export -k act_as_rlx_does"),
    ("a Box action is rounded in the buffer", "replay/buffer.py",
     "np.float32 if actions.log_dtype == np.float32 else np.int64", "np.int64", "tests/replay -k comes_back_whole"),
    ("a final state is read as the next one", "replay/buffer.py",
     "next_obs[j] = self._unpacked(store.aside(self._key(int(last[j]), FINAL)))", "pass",
     "tests/replay -k transition_is_the_one"),
    # Policy gradient family
    ("the reward model prefers the rejected answer", "functional/preference.py",
     "return -logsigmoid(chosen - rejected)", "return -logsigmoid(rejected - chosen)", PREFERENCE),
    ("the policy gradient descends", "functional/policy.py",
     "return -(logprob * weight.detach())", "return logprob * weight.detach()", POLICY),
    ("the policy loss reaches the critic through the weight", "functional/policy.py",
     "return -(logprob * weight.detach())", "return -(logprob * weight)", POLICY),
    ("the clip takes the better of the two", "functional/policy.py",
     "return -torch.minimum(ratio * advantage,", "return -torch.maximum(ratio * advantage,", POLICY),
    ("the clip is not around 1", "functional/policy.py",
     "ratio.clamp(1 - clip_low, 1 + clip_high)", "ratio.clamp(1 - clip_high, 1 + clip_low)", POLICY),
    ("the KL penalty is a reward", "functional/policy.py",
     "- kl_coef * kl)", "+ kl_coef * kl)", POLICY),
    ("beta follows KL the wrong way", "functional/kl.py",
     "1.5 * target", "target / 1.5", "tests/functional/test_kl.py tests/algos/test_ppo.py -k beta or adaptive"),
    ("the value loss is not halved", "functional/value.py",
     "return 0.5 * (value - return_.detach()).square()", "return (value - return_.detach()).square()", VALUE),
    ("value clipping takes the smaller square", "functional/value.py",
     "return 0.5 * torch.maximum((value - return_)", "return 0.5 * torch.minimum((value - return_)", VALUE),
    ("the Q critic's target takes the action that was taken", "algos/actor_critic.py",
     'of_action(next_q, next_action)', 'of_action(next_q, x["action"])', "tests/algos/test_actor_critic.py -k sarsas"),
    ("the critic moves along -delta", "algos/actor_critic.py",
     'loss = vf.value_loss(value, batch["target"]).mean()', 'loss = -vf.value_loss(value, batch["target"]).mean()',
     "tests/algos/test_actor_critic.py -k delta"),
    ("the critic's target carries gradient", "functional/value.py",
     "return 0.5 * (value - return_.detach()).square()", "return 0.5 * (value - return_).square()", VALUE),
    ("DQN's target carries gradient", "functional/value.py",
     "return target_q.detach().amax(-1)", "return target_q.amax(-1)", VALUE),
    ("conjugate gradient steps along the residual", "functional/trust_region.py",
     "torch.where(stopped, p, r + (square / last) * p)", "torch.where(stopped, p, r)", REGION),
    ("the trust region's step is sqrt 2 too short", "functional/trust_region.py",
     "(2 * max_kl / curvature)", "(max_kl / curvature)", REGION),
    ("TRPO without damping", "functional/trust_region.py", "params) + damping * v", "params)", REGION),
    ("TRPO accepts any KL", "algos/trpo.py",
     "(new_loss < loss) & (new_kl <= cfg.target_kl)", "new_loss < loss", "tests/algos/test_trpo.py"),
    ("TRPO keeps the step that was not accepted", "algos/trpo.py",
     "theta.copy_(before)", "pass", "tests/algos/test_trpo.py"),
    # What reviewers find wrong
    ("a truncated episode's value is the next episode's", "control/rollout.py",
     'torch.where(batch["done"] & ~batch["terminated"], batch["final_value"], value[1:])', "value[1:]", ROLLOUT),
    ("a dummy row reaches the learner", "control/rollout.py",
     "return flat if valid.numpy().all() else flat[valid.flatten().to(flat.device)]", "return flat",
     f"{ROLLOUT} -k no_row"),
    ("(B,) meets (B, 1)", "functional/shapes.py", "raise ValueError", "return ValueError",
     "tests/functional/test_properties.py"),
    ("the log-probability is the mean over action dimensions", "control/distributions.py",
     "(-0.5 * z.square() - log_std).sum(-1)", "(-0.5 * z.square() - log_std).mean(-1)",
     "tests/control/test_distributions.py"),
    ("the log-probability is that of the clipped action", "control/rollout.py",
     "action[t] = act(obs[t], noise[t % block])", "action[t] = np.clip(act(obs[t], noise[t % block]), -0.1, 0.1)",
     f"{ROLLOUT} -k unclipped"),
    ("normalisation moves while a rollout is collected", "control/rollout.py",
     "obs[t] = self.normalizer.obs.normalize(self._raw[t])",
     "self.normalizer.obs.update(self._raw[t]); obs[t] = self.normalizer.obs.normalize(self._raw[t])", ROLLOUT),
    ("evaluation updates the normaliser", "control/policy.py",
     "self.obs_norm.normalize(obs) if self.obs_norm else obs",
     "(self.obs_norm.update(obs), self.obs_norm.normalize(obs))[1] if self.obs_norm else obs",
     f"{ROLLOUT} -k keeps_the_statistics"),
    ("the statistics are not saved", "control/on_policy.py",
     ", normalizer=self.rollout.normalizer", "", "tests/training/test_resume.py -k normalized"),
    ("the logged return is clipped", "envs/batch.py",
     "self._return += self._raw_reward", "self._return += np.sign(self._raw_reward)", "tests/control -k clip"),
    ("every environment plays the same episodes", "envs/episodes.py",
     "[seed, domain, lane, episode]", "[seed, domain, 0, episode]", "tests/control -k seed or lane or share"),
    ("run seeds share episodes", "envs/episodes.py",
     "[seed, domain, lane, episode]", "[seed + lane, domain, 0, episode]", "tests/control -k seed or lane or share"),
    ("evaluation draws from the training's stream", "control/family.py",
     "    policy = load_policy(cfg, module, run)\n    kept",
     '    run.rng("actions").random()\n    policy = load_policy(cfg, module, run)\n    kept',
     "tests/algos/test_every_algorithm.py -k a_seed_gives and ppo"),
    ("the schedule starts again at a resume", "algos/ppo.py",
     "linear(run.step // size / num_updates)",
     "linear(next(vars(beta).setdefault('t', iter(range(9999)))) / num_updates)",
     "tests/training/test_resume.py -k annealed"),
    ("a generator is not restored", "run.py",
     "self._rngs[name].bit_generator.state = self._saved_rngs.pop(name)", "self._saved_rngs.pop(name)",
     "tests/algos/test_every_algorithm.py -k killed and ppo"),
    # The engine
    ("the tape freezes the scalars of others", "engine/tape.py",
     "for tensor in _arguments(args, kwargs)} - made", "for tensor in _arguments(args, kwargs) if tensor.dim()} - made",
     f"{ENGINE} -k temperature"),
    ("the tape freezes what others derive from theirs", "engine/tape.py",
     "if any(s in changing for s in touched) or", "if any(s in changing for s in touched[:1]) or", ENGINE),
    ("tapes are compared twice and never again", "engine/trust.py",
     "EARLY, EVERY = (1, 2, 10, 100), 1000", "EARLY, EVERY = (1, 2), 10**9", f"{ENGINE} -k found"),
    ("calls before the last comparison are in doubt", "engine/trust.py",
     "return self.made - max(compared)", "return self.made", f"{ENGINE} -k found"),
    ("the number of calls is not saved", "engine/trust.py",
     "self.calls(tape).reset(counts.get(tape, 0))", "self.calls(tape).reset(0)", f"{ENGINE} -k killed"),
    ("the verdict on a tape is not saved", "engine/trust.py",
     'if self.taping and not state.get("taping", True):', "if False:", f"{ENGINE} -k killed"),
    ("a recording sees a tensor's shape of later", "engine/tape.py",
     "return tree if isinstance(tree, kept) else tree.detach()", "return tree",
     "tests/engine/test_any_torch.py -k in_place or unsqueeze or GRU"),
    ("what cannot be recorded ends the run", "engine/tape.py", "except Exception as error:  # if it is",
     "except Untapeable as error:  # if it is", "tests/engine/test_any_torch.py -k sparse"),
    ("a recording writes what torch writes again", "engine/tape.py",
     "if any(storage(tensor) not in self.made for tensor in _written(func, args, kwargs)):", "if False:",
     f"{ENGINE} -k writes"),
    ("rounding at an edge ends the tape", "engine/trust.py", "errors[name] -= 2 *", "errors[name] -= 0 *",
     f"{ENGINE} -k rounding"),
    ("a check leaves torch's gradient", "engine/learner.py",
     "self.flat.grad.copy_(got[GRADIENTS])", "pass", f"{ENGINE} -k no_bit"),
    ("a second learner takes a parameter away", "engine/optim.py", "self._in_use.add(self)", "pass",
     f"{ENGINE} -k trunk"),
    ("acting forgets its verdict", "control/rollout.py",
     'self._act.load_state_dict(state.get("act", {}))', "pass", f"{ENGINE} -k rollout"),
    ("the engine does not reach acting", "control/rollout.py",
     "torch.device(device), engine=engine)", "torch.device(device))", f"{ENGINE} -k nothing_is_taped"),
    # The kernels
    ("tanh's derivative lacks its square", "engine/kernels.c", "x * (1.0f - y * y)", "x * (1.0f - y)", KERNELS),
    ("a product leaves out what meets an infinity", "engine/kernels.c", "    return !wild;", "    return 1 + 0 * wild;",
     f"{KERNELS} -k sleeps"),
    ("a gradient keeps its last value where a unit sleeps", "engine/kernels.c",
     "else memset(c + i * crow, 0, N * sizeof(float));", "", f"{KERNELS} -k sleeps"),
    ("only the first row says what sleeps", "engine/kernels.c",
     "r < rows; r++) {\n        for (i64 j = 0; j < n; j++) any",
     "r < 1; r++) {\n        for (i64 j = 0; j < n; j++) any", f"{KERNELS} -k sleeps"),
    ("the kernels clip nothing", "engine/kernels.c", "int clipped = s->max_grad_norm > 0 &&", "int clipped = 0 &&",
     f"{KERNELS} -k optimisers"),
    ("a norm that is not finite takes a step", "engine/kernels.c", "if (!(norm < INFINITY)) return norm;", "",
     f"{KERNELS} -k finite"),
    ("a product begins with another row's bias", "engine/kernels.c", "memcpy(first, bias + j,", "memcpy(first, bias,",
     f"{KERNELS} -k random"),
    ("the last columns of a product are lost", "engine/kernels.c",
     "for (i64 i = w; i < ld; i++)", "for (i64 i = w - 1; i < ld; i++)", f"{KERNELS} -k products"),
    ("a product that is read elsewhere goes into a gradient only", "engine/native_ops.py",
     "maker is None or maker > index or used[storage(source)] != 1 or", "maker is None or", f"{KERNELS} -k elsewhere"),
    ("a run goes on with another engine", "engine/trust.py",
     'if before in (NUMPY, "torch"):', "if before == '':", f"{KERNELS} -k began"),
    ("the pole is pushed the other way", "envs/quick/classic_control.c", "(i64 *)action > 0 ? force : -force",
     "(i64 *)action > 0 ? -force : force", STEPPED),
    ("the car does not stop at the wall", "envs/quick/classic_control.c",
     "if (x == low && v < 0.0) v = 0.0;", "", STEPPED),
    ("the first push of the engine is a float's", "envs/quick/classic_control.c",
     "else { CLIMB(double) }", "else { CLIMB(float) }", STEPPED),
    ("the pendulum's square is x * x", "envs/quick/classic_control.c", "return pow(x, two);", "return x * x;",
     "tests/control/test_rollout.py -k squares"),
    ("the acrobot's angles are not wrapped", "envs/quick/classic_control.c",
     "while (s[i] < -M_PI) s[i] = s[i] + 2.0 * M_PI;", "", STEPPED),
    ("the kernels forget rewards but the last", "engine/kernels.c", "e->returns[i] += e->reward[i], ", "",
     "tests/control/test_rollout.py -k gymnasium_give"),
    ("the kernels do not clip what they normalise", "engine/kernels.c", "* r->scale[i % size], -r->clip, r->clip)",
     "* r->scale[i % size], -1e9, 1e9)", "tests/control/test_rollout.py -k gymnasium_give"),
    ("a random action is as likely as it is good", "control/acting/q_values.py",
     "noise[explore, random[explore]] = np.inf", "noise[explore, random[explore]] = 0.1",
     "tests/control/test_rollout.py -k explore"),
    ("what the kernels saw is stored a step late", "control/acting/q_values.py", "self._raw[first + 1 : t + 1]",
     "self._raw[first:t]", "tests/control/test_rollout.py -k explore"),
    ("a gradient that the critic cancels is an alarm", "engine/learner.py", "[self.flat.data, *tape.others]",
     "[self.flat.data]", "tests/engine/test_learner.py -k cancels"),
    ("a discounted sum reads behind an end", "engine/kernels.c", "c[i] == 0.0f ? 0.0f : y[i + reach]", "y[i + reach]",
     "tests/engine/test_recurrence.py"),
    ("a recording does not see the discounted sums", "engine/recurrence.py",
     "torch._C._len_torch_dispatch_stack()", "0", "tests/engine/test_recurrence.py"),
    ("others may write the compiled file", "engine/kernels.py", "or about.st_mode & 0o022", "", f"{KERNELS} -k cache"),
    # Language models
    ("DPO takes means over tokens", "algos/dpo.py",
     ".masked_fill(~groups.mask, 0.0).sum(-1)", ".masked_fill(~groups.mask, 0.0).mean(-1)", DPO),
    ("DPO counts the padding", "algos/dpo.py", ".masked_fill(~groups.mask, 0.0)", "", DPO),
    ("DPO's reference learns too", "algos/dpo.py", "reference = policy.frozen()", "reference = policy.model", DPO),
    ("RLHF: the KL is paid to the policy", "algos/rlhf_ppo.py",
     "-beta * divergence + last", "beta * divergence + last", RLHF),
    ("RLHF: GAE runs over the last token", "algos/rlhf_ppo.py",
     "next_value, over, over, gamma", "next_value, torch.zeros_like(over), over, gamma", RLHF),
    ("RLHF: whitened with ddof 1", "algos/rlhf_ppo.py",
     'some["advantage"], mask, ddof=0', 'some["advantage"], mask, ddof=1', RLHF),
    ("RLHF: a missing end adds to the score", "algos/rlhf_ppo.py",
     "torch.where(ended, score, algo.missing_end_value)",
     "torch.where(ended, score, score + algo.missing_end_value)", RLHF),
    ("RLHF: KL a token instead of a completion", "algos/rlhf_ppo.py",
     "float(divergence.sum(-1).mean())", "float(divergence.mean())", "tests/algos/test_rlhf_ppo_step.py"),
    ("RLHF: the learner forgets the temperature", "algos/rlhf_ppo.py",
     "logits[:, 0], tokens, algo.temperature", "logits[:, 0], tokens, 1.0",
     "tests/algos/test_rlhf_ppo_step.py"),
    ("the reward model is taught ties", "algos/reward_model.py",
     "reward[..., i] > reward[..., j]", "reward[..., i] >= reward[..., j]", "tests/algos/test_reward_model.py"),
    ("the reward model reads before the last token", "language/reward_head.py",
     "groups.lengths[..., None, None]", "(groups.lengths - 1)[..., None, None]", "tests/language/test_reward_head.py"),
    ("SFT learns no end token", "algos/sft.py",
     "policy.completions(answers)", "policy.completions(answers, [False] * len(answers))", "tests/algos/test_sft.py"),
    ("model=hf: sampling has logits of its own", "language/model/huggingface.py",
     "return output.logits[:, -1:], [keys", "return 3 * output.logits[:, -1:], [keys",
     "tests/language/test_families.py -k gemma2"),
    ("model=hf: the cache is not tried", "language/model/huggingface.py",
     "self._caches = self._try_cache(prompt.device)", "self._caches = True",
     "tests/language/test_families.py -k roberta"),
    ("model=hf: characters are tokens", "language/policy.py",
     "return make_task(cfg.task, tokenizer.sizes), tokenizer", "return make_task(cfg.task), tokenizer",
     "tests/language/test_model_tokens.py -k room"),
    ("ids of another alphabet", "language/policy.py",
     "Tokenizer(alphabet or task.alphabet)", "Tokenizer(task.alphabet)", "tests/language/test_vocabulary.py"),
    ("only the first answer is taught", "language/tasks/jsonl.py",
     '(row["prompt"], row["answer"]) for _, row in', '(row["prompt"], self.answer(row["prompt"])) for _, row in',
     "tests/language/test_jsonl.py"),
    ("a token loss is divided per micro-batch", "algos/pretrain.py",
     "num_tokens=num_tokens)\n", "num_tokens=int(mask[rows].sum()))\n",
     "tests/algos/test_every_language_algorithm.py -k in_parts_is_the_batch and pretrain"),
    ("GRPO: sampled and learnt at different temperatures", "algos/grpo.py",
     "temperature, learn = algo.temperature,", "temperature, learn = 1.0,", "tests/language/test_grpo_train.py"),
    ("GRPO: a micro-batch is divided by its own counts", "algos/grpo.py",
     "algo.reduction, max_new, **counts)", "algo.reduction, max_new)",
     "tests/language/test_grpo.py tests/language/test_grpo_train.py"),
    ("sampling: tokens behind the end count", "language/model/sample.py",
     "alive = alive & (token != one)", "alive = alive & (token >= 0)", "tests/language/test_sample.py"),
    ("the cache forgets the prompt's padding", "language/model/gpt.py",
     "wide = None if bias is None else F.pad(bias, (0, length))", "wide = None", "tests/language/test_gpt.py"),
    ("a completion sees the others of its group", "language/model/gpt.py",
     "_scores(q, k, own)", "_scores(q, k.mean(2, keepdim=True).expand_as(k), own)", "tests/language/test_gpt.py"),
    # What people bring
    ("a forbidden action keeps its logit", "control/distributions.py",
     "return values * mask + (1 - mask) * FORBIDDEN", "return values", "tests/test_masks.py -k log_prob or forbids"),
    ("a network forbids what is allowed", "control/networks.py",
     "return forbid(values, split_mask(obs, self.masked, self.pixels)[1])",
     "return forbid(values, 1 - split_mask(obs, self.masked, self.pixels)[1])", "tests/test_masks.py -k forbids"),
    ("a network acts as it learns", "control/acting/mode.py", "        network.eval()\n", "",
     "tests/control/test_acting_mode.py"),
    ("the side engine pushes the other way", "envs/quick/lunar_lander.py", "1.0, int(action) - 2",
     "1.0, 2 - int(action)", "tests/envs/test_lunar_lander.py"),
    ("exploration takes any action", "control/acting/q_values.py",
     "return ((1 + uniforms) * split_mask(", "return (uniforms + 0 * split_mask(",
     "tests/test_masks.py -k trains_is_judged"),
    ("a table bootstraps from what is forbidden", "tabular/parts.py",
     "return row if self.allowed is None else", "return row if True else", "tests/test_masks.py -k table_chooses"),
    ("a mask is normalised", "control/normalize.py",
     "if self.masked:", "if False:", "tests/test_masks.py -k normalised"),
    ("seeded once means seeded always", "envs/batch.py",
     "if self._unseeded[i]:", "if False:", "tests/test_masks.py -k seeded_once"),
    ("a stranger's run is trusted", "training/code_record.py",
     "if own and not trust and not", "if own and not trust and False and not",
     "tests/test_own_code.py -k not_recorded"),
    ("the signature forgets what it is of", "config/own_code.py",
     "json.dumps([place, sorted(references)])", "json.dumps([place])", "tests/test_own_code.py -k signature"),
    ("the folder comes first on the path", "config/own_code.py",
     "sys.path.append(place)", "sys.path.insert(0, place)", "tests/test_own_code.py -k asked_last"),
    ("changed code is the same code", "rundir/query.py",
     'values["code"] = code', "pass", "tests/test_own_code.py -k another_line"),
    ("a resumed run tells its loggers again", "loggers/loggers.py",
     "or step <= self.told", "", "tests/loggers -k killed"),
    ("the step of a checkpoint is not told", "training/loop.py",
     "        self.loggers.flush()\n", "", "tests/loggers -k right_behind"),
]  # fmt: skip


def run(tests: str, file: str = "", before: str = "", after: str = "") -> tuple[int, str]:
    """pytest's exit code and its last words, in a copy of the tree with that one change."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for folder in ("rlx", "conf", "tests"):
            shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
        (place / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
        if file:
            path = place / "rlx" / file
            path.write_text(path.read_text().replace(before, after, 1))
        paths, _, words = tests.partition(" -k ")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *paths.split()]
        command += ["-k", words] if words else []
        env = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout[-300:]


def problem(mutant: Mutant) -> str | None:
    """None if the tests fail on it, as they should; else what is wrong."""
    _, file, before, after, tests = mutant
    if before not in (ROOT / "rlx" / file).read_text():
        return f"rlx/{file} has no line: {before}"
    code, words = run(tests, file, before, after)
    return {0: "survived", 1: None}.get(code, f"pytest exits with {code}: {words}")


def main(words: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not words or any(word in " ".join(mutant) for word in words)]
    with ThreadPoolExecutor(2) as pool:
        selections = sorted({mutant[-1] for mutant in chosen})
        for tests, (code, last) in zip(selections, pool.map(run, selections)):
            if code:  # then nothing would be shown by their failing
                print(f"these fail without any change: {tests}\n{last}")
                return 1
        wrong = 0
        for mutant, found in zip(chosen, pool.map(problem, chosen)):
            wrong += found is not None
            print(f"{'caught' if found is None else 'WRONG '}  {mutant[0]}{f': {found}' if found else ''}", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} caught")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
