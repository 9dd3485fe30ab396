"""From one loss per token to one number: what GRPO, DAPO and Dr. GRPO differ in."""

from torch import Tensor

from rlx.functional.shapes import Scalar, check_shapes

REDUCTIONS = ("grpo", "dapo", "dr_grpo", "sequence")


def masked_mean(x: Tensor, mask: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Mean over the positions whose mask is 1.

        sum(m x) / sum(m)

    Same shape, bool or 0/1 mask -> `dim` (all axes if None) gone; 0 where the mask is empty.  What x holds
    outside the mask, NaN included, is not read.

    >>> x, mask = tensor([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0]]), tensor([[1, 1, 0], [1, 0, 0]])
    >>> masked_mean(x, mask), masked_mean(x, mask, dim=-1)
    (tensor(2.), tensor([1.5000, 3.0000]))
    """
    check_shapes(x=x, mask=mask)
    kept, axes = mask.bool(), tuple(range(x.ndim)) if dim is None else dim
    return x.masked_fill(~kept, 0.0).sum(axes) / kept.sum(axes).clamp(min=1)


def reduce_tokens(
    x: Tensor,
    mask: Tensor,
    how: str,
    max_length: Scalar = None,
    *,
    num_sequences: Scalar = None,
    num_tokens: Scalar = None,
) -> Tensor:
    """Token losses of B completions -> the loss of the batch.

        grpo      mean over sequences of the mean over tokens     a short completion's tokens weigh more
        dapo      sum / number of tokens of the batch             every token weighs the same
        dr_grpo   sum / (B max_length)                            the same, at a scale no length moves
        sequence  mean over sequences of the sum over tokens      every completion's log-prob as one action

    x, mask [..., B, L] -> [...]; the mask goes by position, end token inside.  For a part of a batch
    (micro-batch, rank) give the WHOLE batch's counts, num_sequences and for dapo num_tokens: then the parts
    add up to the batch, which with each part's own counts they do not.  ValueError: unknown `how`, dr_grpo
    without max_length.  Shao et al. 2024, arXiv:2402.03300, eq. 3; Yu et al. 2025, arXiv:2503.14476; Liu et
    al. 2025, arXiv:2503.20783.

    >>> x, mask = tensor([[-1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), tensor([[1, 0, 0], [1, 1, 1]])  # 2 completions
    >>> {how: reduce_tokens(x, mask, how, max_length=4).item() for how in REDUCTIONS}
    {'grpo': 0.0, 'dapo': 0.5, 'dr_grpo': 0.25, 'sequence': 1.0}
    """
    if how not in REDUCTIONS:
        raise ValueError(f"how={how!r}: no such reduction; choose one of {', '.join(REDUCTIONS)}")
    if how == "dr_grpo" and max_length is None:
        raise ValueError("how='dr_grpo' divides by max_length: give it (or choose grpo, dapo, sequence)")
    check_shapes(x=x, mask=mask)
    kept = mask.bool()
    total, length = x.masked_fill(~kept, 0.0).sum(-1), kept.sum(-1)
    if how == "dapo":
        return total.sum(-1) / (length.sum(-1).clamp(min=1) if num_tokens is None else num_tokens)
    if how == "grpo":
        total = total / length.clamp(min=1)
    elif how == "dr_grpo":
        total = total / max_length
    return total.sum(-1) / (x.shape[-2] if num_sequences is None else num_sequences)
