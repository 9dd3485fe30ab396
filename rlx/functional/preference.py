"""Losses on preferences: reward models from comparisons and rankings, and DPO."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlx.functional.shapes import Scalar, check_shapes


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Negative log-likelihood that the chosen one wins.

        L = -log sigmoid(r_chosen - r_rejected)

    Scores, any shape -> the same shape; log 2 at equal scores, blind to a constant added to both.
    Bradley & Terry 1952; Christiano et al. 2017, arXiv:1706.03741.

    >>> bradley_terry(tensor([1.0, 0.0]), tensor([-0.5, 0.0]))
    tensor([0.2014, 0.6931])
    """
    check_shapes(chosen=chosen, rejected=rejected)
    return -logsigmoid(chosen - rejected)


def ranked(score: Tensor, compared: Tensor | None = None) -> Tensor:
    """Bradley-Terry over all pairs of one ranking.

        L = mean over the C(K,2) pairs i < j of -log sigmoid(r_i - r_j)

    Scores [..., K], best first -> [...].  `compared` [..., K, K], bool: the pairs i < j that were compared, all if
    None; the mean is over them, 0 where there is none.  ValueError below two.  Ouyang et al. 2022,
    arXiv:2203.02155, eq. 1.

    >>> ranked(tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0]]))  # 2 rankings of 4
    tensor([0.2070, 0.6931])
    """
    if score.shape[-1] < 2:
        raise ValueError(f"a ranking needs at least 2 scores in the last axis, not {score.shape[-1]}")
    i, j = torch.triu_indices(score.shape[-1], score.shape[-1], offset=1, device=score.device)
    loss = bradley_terry(score[..., i], score[..., j])
    if compared is None:
        return loss.mean(-1)
    mask = compared[..., i, j].to(loss.dtype)
    return (loss * mask).sum(-1) / mask.sum(-1).clamp(min=1)


def plackett_luce(score: Tensor) -> Tensor:
    """Negative log-likelihood of the whole ranking: the best is drawn, then the best of the rest, and so on.

        L = sum_k log( sum_{j>=k} exp r_j ) - r_k

    Scores [..., K], best first -> [...]; Bradley-Terry at K = 2, log K! at equal scores.  Plackett 1975; Luce
    1959.

    >>> plackett_luce(tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0]]))  # 2 rankings of 4
    tensor([1.1611, 3.1781])
    """
    return (score.flip(-1).logcumsumexp(-1).flip(-1) - score).sum(-1)


def best_of(score: Tensor) -> Tensor:
    """Cross-entropy of the one pick among K: only the best is known, the others are not ranked.

        L = log( sum_j exp r_j ) - r_0

    Scores [..., K], the picked one first -> [...].  Ziegler et al. 2019, arXiv:1909.08593, eq. 1 (K = 4).

    >>> best_of(tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0]]))  # 2 picks, each the first of 4
    tensor([0.4402, 1.3863])
    """
    return score.logsumexp(-1) - score[..., 0]


def dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: Scalar) -> Tensor:
    """Bradley-Terry with the policy's own log-ratio as the reward.

        L = -log sigmoid( beta [ (l_chosen - ref_chosen) - (l_rejected - ref_rejected) ] )

    Log-probs SUMMED over each completion's tokens (end token included, prompt not), any shape -> the same
    shape; no gradient through the reference; log 2 where the policy is the reference.  Rafailov et al. 2023,
    arXiv:2305.18290, eq. 7.

    >>> ref_chosen, ref_rejected = tensor([-3.0, -3.0]), tensor([-4.0, -4.0])  # log-ratios +2 and -1; 0 and 0
    >>> dpo(tensor([-1.0, -3.0]), tensor([-5.0, -4.0]), ref_chosen, ref_rejected, beta=0.1)
    tensor([0.5544, 0.6931])
    """
    check_shapes(chosen=chosen, rejected=rejected, ref_chosen=ref_chosen, ref_rejected=ref_rejected)
    return -logsigmoid(beta * ((chosen - ref_chosen.detach()) - (rejected - ref_rejected.detach())))
