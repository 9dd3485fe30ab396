"""Names: a corpus to pretrain on, and a hidden rule of taste that stands for what people want (RLHF).

The corpus is made up: names of one to three syllables, drawn from the tables below. The prompt is empty, and no
name is the right answer. The rule, which no algorithm may see but through comparisons of samples:

    reward = tent(s) d / n    s  soft consonants (l m n r); tent is 0 at none, 1 at four, 0 again at eight and more
                              n  letters, d different ones among them; 0 unless the name ended and has 3 to 10

The corpus has .28 on average. Fewer than 2 of its names in 100 have more than three soft consonants: where the samples
are, the rule says "more of them". A reward model fitted to comparisons of samples is right about nine pairs in ten,
yet it goes on paying for the sixth soft consonant, so optimising it too far lowers the true reward (Gao et al. 2022,
arXiv:2210.10760). With the top of the tent at three the samples would show the reward model both of its sides.
A name counts as correct from .7: four soft consonants and few letters twice, or three and none twice.
"""

import numpy as np

from rlx.language.tasks import base

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SOFT = frozenset("lmnr")
SHORTEST, LONGEST = 3, 10
GOOD = 0.7

SYLLABLES = (0.1, 0.55, 0.35)  # the share of names with one, two, three; what may stand in each, all equally likely:
ONSETS = [*"bbcddfghjkkllmmnnprrssttvwyz", "br", "dr", "gr", "kr", "tr", "st"]
VOWELS = [*"aaaaeeeiiiooouu", "ai", "ea", "io"]
CODAS = [""] * 12 + [*"lnnrsstkdx"]

Config = base.TaskConfig


class Task(base.Task):
    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg, alphabet=LETTERS, symbols=LETTERS, prompt_length=0, longest=LONGEST, num_prompts=1)

    def draw(self, rng: np.random.Generator, n: int) -> list[str]:
        return [""] * n

    def text(self, rng: np.random.Generator, n: int) -> list[str]:
        names: list[str] = []
        while len(names) < n:
            counts = (1 + rng.choice(3, n, p=SYLLABLES)).tolist()
            places = [rng.integers(len(table), size=(n, 3)).tolist() for table in (ONSETS, VOWELS, CODAS)]
            for count, *rows in zip(counts, *places):
                syllables = [ONSETS[a] + VOWELS[b] + CODAS[c] for a, b, c in list(zip(*rows))[:count]]
                names.append("".join(syllables))
            names = [name for name in names if SHORTEST <= len(name) <= LONGEST]
        return names[:n]

    def pairs(self, rng: np.random.Generator, n: int) -> list[tuple[str, str, str]]:
        """Two names of the corpus, the better one first."""
        pairs: list[tuple[str, str, str]] = []
        while len(pairs) < n:
            names = self.text(rng, 2 * n)
            for a, b in zip(names[:n], names[n:]):
                x, y = self.reward("", a, True), self.reward("", b, True)
                if x != y:
                    pairs.append(("", a, b) if x > y else ("", b, a))
        return pairs[:n]

    def dense(self, prompt: str, completion: str, ended: bool) -> float:
        if not self.well_formed(prompt, completion, ended):
            return 0.0
        soft = sum(letter in SOFT for letter in completion)
        return max(0.0, 1 - abs(soft - 4) / 4) * len(set(completion)) / len(completion)

    def correct(self, prompt: str, completion: str, ended: bool) -> bool:
        return self.dense(prompt, completion, ended) >= GOOD

    def well_formed(self, prompt: str, completion: str, ended: bool) -> bool:
        return super().well_formed(prompt, completion, ended) and SHORTEST <= len(completion) <= LONGEST
