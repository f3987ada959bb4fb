"""merge_attention in plain PyTorch: the specification.

Rounding points: weights and products in promote_types(out_a.dtype, float32); out rounded once to out_a.dtype. The
weights come from the difference of both log-sum-exps, not from the merged one: near 1e4 that is rounded to 1e-3, and a
weight of exp(lse_a - lse) would be off by as much.
"""

import torch
from torch import Tensor

from wan_kernels.common.cost import Cost, num_bytes

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def has_keys(lse: Tensor) -> Tensor:
    return lse != float("-inf")


def zeroed_unless_both(lse_a: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Both log-sum-exps, 0 where a part has no keys: the gradient of -inf - -inf is NaN, also where it is not used."""
    are_both = has_keys(lse_a) & has_keys(lse_b)
    return lse_a.where(are_both, 0), lse_b.where(are_both, 0)


def weights_of(lse_a: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """How much each part counts: they sum to 1, but for rows where neither has keys, whose weights are 0."""
    safe_a, safe_b = zeroed_unless_both(lse_a, lse_b)
    has_a, has_b = has_keys(lse_a), has_keys(lse_b)
    weight_a, weight_b = (safe_a - safe_b).sigmoid(), (safe_b - safe_a).sigmoid()
    return weight_a.where(has_b, 1).where(has_a, 0), weight_b.where(has_a, 1).where(has_b, 0)


def pick(lse_a: Tensor, lse_b: Tensor, merged: Tensor, of_a: Tensor, of_b: Tensor, neither: float) -> Tensor:
    """`merged` where both parts have keys, what belongs to the one that has, `neither` where none has."""
    has_a, has_b = has_keys(lse_a), has_keys(lse_b)
    return torch.where(has_a & has_b, merged, torch.where(has_a, of_a, torch.where(has_b, of_b, neither)))


def by_row(each_BNL: Tensor) -> Tensor:
    """[B, N, L] -> [B, L, N, 1], to stand beside the rows of out."""
    return each_BNL.transpose(1, 2).unsqueeze(-1)


def widened(out_a: Tensor, out_b: Tensor) -> tuple[Tensor, Tensor]:
    compute = torch.promote_types(out_a.dtype, torch.float32)
    return out_a.to(compute), out_b.to(compute)


def forward(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    sum_of_both = torch.logaddexp(*zeroed_unless_both(lse_a, lse_b))
    lse = pick(lse_a, lse_b, sum_of_both, lse_a, lse_b, float("-inf"))

    wide_a, wide_b = widened(out_a, out_b)
    weight_a, weight_b = weights_of(lse_a, lse_b)
    merged = wide_a * by_row(weight_a) + wide_b * by_row(weight_b)
    out = pick(by_row(lse_a), by_row(lse_b), merged, wide_a, wide_b, 0.0)
    return out.to(out_a.dtype).contiguous(), lse.contiguous()


def backward(
    grads: tuple[Tensor | None, ...], inputs: Inputs, outputs: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """A part without keys gets zeros."""
    out_a, lse_a, out_b, lse_b = inputs
    grad_out, grad_lse = grads
    weight_a, weight_b = weights_of(lse_a, lse_b)
    grad_out_a = grad_out_b = None
    # Of the difference of the log-sum-exps: d weight_a = weight_a * weight_b = -d weight_b.
    shift = torch.zeros_like(weight_a)
    if grad_out is not None:
        wide_a, wide_b = widened(out_a, out_b)
        wide_grad = grad_out.to(wide_a.dtype)
        grad_out_a = (wide_grad * by_row(weight_a)).where(by_row(has_keys(lse_a)), 0).to(out_a.dtype)
        grad_out_b = (wide_grad * by_row(weight_b)).where(by_row(has_keys(lse_b)), 0).to(out_b.dtype)
        by_weight = (wide_grad * (wide_a - wide_b)).sum(-1).transpose(1, 2)
        shift = (weight_a * weight_b * by_weight).where(has_keys(lse_a) & has_keys(lse_b), 0)
    if grad_lse is None:
        return grad_out_a, shift, grad_out_b, -shift
    return grad_out_a, weight_a * grad_lse + shift, grad_out_b, weight_b * grad_lse - shift


def cost(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Cost:
    """Two products and a sum per element; what a row needs once is not counted."""
    return Cost(3 * out_a.numel(), num_bytes(out_a, out_a, out_b, lse_a, lse_a, lse_b))
