"""attention in Triton on Hopper's tensor cores, forward and backward. Experimental until a hardware record shows that
it passes: it runs only when forced.

The backward takes a gradient through the log-sum-exp at no cost: it is one more term of what is subtracted in each row.
It is deterministic: q's gradient is summed in a kernel of its own, for which seven products are made in place of five.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.triton import (
    ALIGNMENT_BYTES,
    Expectation,
    Gradients,
    Launch,
    Outputs,
    gradient_like,
    is_aligned,
    next_power_of_2,
    reject_tensors,
    running,
    unavailable,
)
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.attention.reference import scale_of

Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None, float | None]
NAME = "attention"
MODULE = "wan_kernels.ops.attention.kernels_triton"
HALVES = (torch.bfloat16, torch.float16)
# The least that tensor cores sum along, and the most whose sums for 64 rows fit into a warpgroup's registers.
MIN_WIDTH, MAX_WIDTH = 16, 128
# Rows come in tiles of the largest number of queries that any kernel takes at once.
PADDING = 128
# 12 warps share 65,536 registers, which the kernel hands from the copying warps to the others as it starts. A compiler
# that stops specialising needs more: 187 in the forward, 216 and 235 in the backward (Triton 3.6, 8 warps).
EXPECTS = Expectation(max_registers=168, mnemonics=("HGMMA", "UTMALDG"), forbidden=("LDGSTS",))
# Reads two rows and keeps one number of them: eight programs of 4 warps on a multiprocessor.
ROWS_EXPECTS = Expectation(max_registers=64, min_ctas_per_sm=8, mnemonics=("SHFL",))


@dataclass(frozen=True)
class Tile:
    """Logits of one step of a program."""

    queries: int
    keys: int


FORWARD = Tile(queries=128, keys=128)
BACKWARD_Q = Tile(queries=128, keys=128)
# With 128 queries a consumer would hold 64 x 128 of two sums and of two products: more than its 232 registers.
BACKWARD_KV = Tile(queries=64, keys=128)
ROWS = 64


def prepare(
    q: Tensor, k: Tensor, v: Tensor, k_lengths: Tensor | None, scale: float | None
) -> tuple[Outputs, list[Launch]]:
    """The output and its log-sum-exp, and what fills them."""
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32, device=q.device)
    if q.numel() == 0:
        return (out, lse), []
    args = common_args(k_lengths, scale, q=q, k=k, v=v)
    num_tiles = num_tiles_of(q, FORWARD.queries)
    launch = matrix_launch("attention_fwd_kernel", FORWARD, num_tiles, args | {"out": out, "lse": lse})
    return (out, lse), [launch]


def prepare_backward(
    grads: Gradients, inputs: Inputs, outputs: Outputs, needed: tuple[bool, ...]
) -> tuple[Gradients, list[Launch]]:
    """The gradients of q, k and v, and what fills them."""
    q, k, v, k_lengths, scale = inputs
    grad_out, grad_lse = grads
    if q.numel() == 0:
        return (None,) * 4, []
    if grad_out is None:
        # Nothing of v reaches the gradient then, and nothing must: 0 times NaN would be NaN.
        grad_out, v, needed = torch.zeros_like(outputs[0]), torch.zeros_like(v), (*needed[:2], False, False)
        outputs = (grad_out, outputs[1])
    num_padded = -(-q.shape[1] // PADDING) * PADDING
    size = (q.shape[0], q.shape[2], num_padded)
    shift, mean_grad = (torch.empty(size, dtype=torch.float32, device=q.device) for _ in range(2))
    rows = {"shift": shift, "mean_grad": mean_grad, "num_padded": num_padded}
    grad_q, grad_k, grad_v = (gradient_like(x, is_needed) for x, is_needed in zip((q, k, v), needed, strict=False))
    args = common_args(k_lengths, scale, q=q, k=k, v=v, grad_out=grad_out) | rows
    launches = [rows_launch(outputs, grad_out, grad_lse, rows)]
    if grad_q is not None:
        num_tiles = num_tiles_of(q, BACKWARD_Q.queries)
        launches.append(matrix_launch("attention_bwd_q_kernel", BACKWARD_Q, num_tiles, args | {"grad_q": grad_q}))
    if grad_k is not None or grad_v is not None:
        num_tiles = num_tiles_of(k, BACKWARD_KV.keys)
        args = args | {"grad_k": grad_k, "grad_v": grad_v}
        launches.append(matrix_launch("attention_bwd_kv_kernel", BACKWARD_KV, num_tiles, args))
    return (grad_q, grad_k, grad_v, None), launches


def matrix_launch(kernel: str, tile: Tile, num_tiles: int, args: dict[str, Any]) -> Launch:
    """A specialised kernel on num_tiles tiles of all heads."""
    width = max(MIN_WIDTH, next_power_of_2(args["head_width"]))
    return Launch(
        module=MODULE,
        kernel=kernel,
        grid=(num_tiles,),
        args=args,
        constants={"QUERIES": tile.queries, "KEYS": tile.keys, "WIDTH": width},
        expects=EXPECTS,
        num_warps=4,
        num_stages=2,
        makes_descriptors=True,
    )


def rows_launch(outputs: Outputs, grad_out: Tensor, grad_lse: Tensor | None, rows: dict[str, Any]) -> Launch:
    out, lse = outputs
    _, num_queries, num_heads, head_width = out.shape
    args = {
        "out": out,
        "lse": lse,
        "grad_lse": None if grad_lse is None else grad_lse.contiguous(),
        "num_queries": num_queries,
        "num_heads": num_heads,
        "head_width": head_width,
    }
    return Launch(
        module=MODULE,
        kernel="attention_bwd_rows_kernel",
        grid=(rows["shift"].numel() // ROWS,),
        args=args | rows | head_args("grad_out", grad_out),
        constants={"QUERIES": ROWS, "WIDTH": next_power_of_2(head_width)},
        expects=ROWS_EXPECTS,
    )


def common_args(k_lengths: Tensor | None, scale: float | None, **tensors: Tensor) -> dict[str, Any]:
    """Arguments of every specialised kernel: what it reads and how that lies in memory."""
    q, k = tensors["q"], tensors["k"]
    args = {
        "k_lengths": None if k_lengths is None else k_lengths.contiguous(),
        "scale": float(scale_of(q, scale)),
        "num_queries": q.shape[1],
        "num_keys": k.shape[1],
        "num_heads": q.shape[2],
        "head_width": q.shape[3],
    }
    for name, x in tensors.items():
        args |= head_args(name, x)
    return args


def head_args(name: str, x: Tensor) -> dict[str, Any]:
    """x [B, L, N, H] as the copy engine can read it, and the strides at which its heads lie."""
    x = for_copy_engine(x)
    strides = zip(("sample", "token", "head"), x.stride(), strict=False)
    return {name: x} | {f"{name}_stride_{dim}": stride for dim, stride in strides}


def for_copy_engine(x: Tensor) -> Tensor:
    """x [B, L, N, H] with rows that are contiguous and start on 16 bytes: itself where it can be, else a copy."""
    are_rows_aligned = all(stride * x.element_size() % ALIGNMENT_BYTES == 0 for stride in x.stride()[:3])
    is_fit = are_rows_aligned and x.stride(3) == 1 and is_aligned(x)
    return x if is_fit else x.clone(memory_format=torch.contiguous_format)


def num_tiles_of(x: Tensor, num_rows: int) -> int:
    """Tiles of so many rows in all heads of x [B, L, N, H]."""
    return -(-x.shape[1] // num_rows) * x.shape[0] * x.shape[2]


def reject(q: Tensor, k: Tensor, v: Tensor, k_lengths: Tensor | None, scale: float | None) -> str | None:
    if (reason := reject_tensors(q, k, v)) is not None:
        return reason
    if q.dtype not in HALVES:
        return f"multiplies 16-bit floats, not {str(q.dtype).removeprefix('torch.')}"
    width = q.shape[3]
    if width > MAX_WIDTH:
        return f"keeps a head's sums in registers: head width must be at most {MAX_WIDTH}, got {width}"
    if width * q.element_size() % ALIGNMENT_BYTES:
        return f"wants rows of a multiple of {ALIGNMENT_BYTES} bytes, got {width * q.element_size()}"
    if scale is not None and not scale > 0:
        return f"takes the largest product before it is scaled: scale must be positive, got {scale}"
    return None


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    backward=running(prepare_backward),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
