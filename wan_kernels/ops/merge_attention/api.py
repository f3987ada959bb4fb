"""The public function and its op."""

import torch
from torch import Tensor

from wan_kernels.common.checks import check_dim, check_same_device, check_shape, check_tensor, short
from wan_kernels.define_op import define_op
from wan_kernels.ops.merge_attention import reference

NAME = "merge_attention"
OP = define_op(
    "merge_attention(Tensor out_a, Tensor lse_a, Tensor out_b, Tensor lse_b) -> (Tensor, Tensor)",
    reference,
)


def merge_attention(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """out_a * exp(lse_a - lse) + out_b * exp(lse_b - lse), lse = log(exp(lse_a) + exp(lse_b)).

    Of two attentions over disjoint sets of keys it makes the one over both; of parts of a sequence, in any order, the
    whole. `attention(..., return_lse=True)` gives the parts.

    Shapes and types: out_a [B, L, N, H], normally the running sum in float32; out_b [B, L, N, H]; each
    float32/bfloat16/float16/float64; lse_a, lse_b [B, N, L] float32, float64 where out_a is. Returns a new contiguous
    [B, L, N, H] in out_a.dtype and [B, N, L] in lse_a.dtype. B or L may be 0.
    Units and ranges: log-sum-exps are natural logarithms, of any size. -inf is a part without keys: the other part
    comes back bit for bit, in out_a.dtype, and what the empty one holds is not looked at, NaN included. Both empty:
    0 and -inf.
    Numerics: everything in float32 (float64 out_a stays float64), the weights from lse_a - lse_b, so that they sum to
    1 at any size; rounded once to out_a.dtype. lse_a = +inf takes all the weight; +inf in both makes the row NaN and
    lse +inf. A NaN stays in its element of out; in a log-sum-exp it makes its row and lse NaN.
    Raises: TypeError for a dtype, ValueError for a shape or device.
    Source: arXiv 2205.14135, section 3.1, the decomposition of softmax.
    """
    for name, value in (("out_a", out_a), ("out_b", out_b)):
        check_tensor(NAME, name, value)
    check_dim(NAME, "out_a", out_a, 4, "[B, L, N, H]")
    check_shape(NAME, "out_b", out_b, out_a.shape)
    wanted = torch.promote_types(out_a.dtype, torch.float32)
    for name, value in (("lse_a", lse_a), ("lse_b", lse_b)):
        check_tensor(NAME, name, value)
        if value.dtype != wanted:
            raise TypeError(f"[{NAME}] {name} must be {short(wanted)} for out_a's type, got {short(value.dtype)}")
        check_shape(NAME, name, value, (out_a.shape[0], out_a.shape[2], out_a.shape[1]))
    check_same_device(NAME, out_a=out_a, lse_a=lse_a, out_b=out_b, lse_b=lse_b)
    return OP(out_a, lse_a, out_b, lse_b)
