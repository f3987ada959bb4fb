"""attention_8bit in Triton, int8 and float8 on the tensor cores. Experimental until a hardware record shows that it
passes: it runs only when forced.

q k^T is exact in int32. Probabilities are rounded to float8 over its whole range, 448 for the largest of the row so
far; their product with a tile of v is summed with the 13 bits of the tensor cores, tiles in float32, and so is what
divides the result, the sum of the unrounded probabilities. `model.py` does the same step by step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wan_kernels import records
from wan_kernels.common.triton import (
    DTYPES,
    Expectation,
    Launch,
    Outputs,
    is_aligned,
    reject_device,
    reject_tensors,
    running,
    strides,
    unavailable,
    with_dense_rows,
)
from wan_kernels.dispatch import register_backend
from wan_kernels.ops.attention_8bit.reference import scale_of

NAME = "attention_8bit"


@dataclass(frozen=True)
class Tile:
    """Queries of a program, keys of a step, how the kernel works on them, and how many programs are to overlap."""

    rows: int
    keys: int
    num_warps: int
    num_stages: int
    max_registers: int
    min_ctas_per_sm: int


# By head width. The compiler waits for each product before it goes on, so only another program can use the tensor cores
# meanwhile: tiles are those of one warpgroup, for several programs to a multiprocessor. Instructions of the loop, one a
# clock and warp, for 64 x 128 logits of a width of 128, which the tensor cores do in 512 clocks, and what fits together
# (Triton 3.6, ptxas 12.8; 3 stages):
#     rows x keys, warps        instructions  registers  programs
#     64 x 128, 4                        522        239         2
#     64 x 128, 4, 2 stages, maxnreg     529        168         3
#     128 x 128, 8                       531        239         1
#     64 x 64, 4                         718        166         3
#     64 x 256, 4, 2 stages              437        255         1   a wait within the first product (ptxas C7517)
# Against the first speak that the second has a third program, though loads of its next keys begin only when these are
# done, and that the third reads k and v half as often: 64 rows want 64 bytes a clock and multiprocessor from the L2
# cache at full speed. Only a GPU can tell these three apart.
TILES = {
    64: Tile(64, 128, num_warps=4, num_stages=3, max_registers=168, min_ctas_per_sm=3),
    128: Tile(64, 128, num_warps=4, num_stages=3, max_registers=248, min_ctas_per_sm=2),
}


def prepare(
    q: Tensor,
    q_scale: Tensor,
    k: Tensor,
    k_scale: Tensor,
    k_mean: Tensor,
    v: Tensor,
    v_scale: Tensor,
    v_mean: Tensor,
    out_dtype: torch.dtype,
    k_lengths: Tensor | None,
    prior_out: Tensor | None,
    prior_lse: Tensor | None,
    q_tokens_per_scale: int,
    k_tokens_per_scale: int,
    v_tokens_per_scale: int,
    is_permuted: bool,
    scale: float | None,
) -> tuple[Outputs, list[Launch]]:
    """The outputs, and what fills them."""
    num_samples, num_heads, num_queries, width = q.shape
    tile = TILES[width]
    out = torch.empty((num_samples, num_queries, num_heads, width), dtype=out_dtype, device=q.device)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    if out.numel() == 0:
        return (out, lse), []
    prior_out = with_dense_rows(prior_out)
    prior_strides = strides(prior_out, 3)
    args = {
        "q": q,
        "k": tiles_of(k.view(-1, width), (tile.keys, width)),
        "v": tiles_of(v.view(-1, v.shape[3]), (width, tile.keys)),
        "q_scale": q_scale.contiguous(),
        "k_scale": k_scale.contiguous(),
        "k_mean": k_mean.contiguous(),
        "v_scale": v_scale.contiguous(),
        "v_mean": v_mean.contiguous(),
        "out": out,
        "lse": lse,
        "k_lengths": None if k_lengths is None else k_lengths.contiguous(),
        "prior_out": prior_out,
        "prior_lse": None if prior_lse is None else prior_lse.contiguous(),
        "prior_stride_sample": prior_strides[0],
        "prior_stride_token": prior_strides[1],
        "prior_stride_head": prior_strides[2],
        "num_queries": num_queries,
        "num_keys": k.shape[2],
        "q_tokens_per_scale": q_tokens_per_scale,
        "scale": scale_of(q, scale),
    }
    launch = Launch(
        module="wan_kernels.ops.attention_8bit.kernels_triton",
        kernel="attention_8bit_fwd_kernel",
        grid=(-(-num_queries // tile.rows), num_heads, num_samples),
        args=args,
        constants={
            "ROWS": tile.rows,
            "KEYS": tile.keys,
            "WIDTH": width,
            "K_TILES_PER_SCALE": k_tokens_per_scale // tile.keys,
        },
        expects=expectation(tile, has_prior=prior_out is not None),
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return (out, lse), [launch]


def expectation(tile: Tile, *, has_prior: bool) -> Expectation:
    """Both products from shared memory and registers, and nothing in the loop that moves data between threads but the
    two reductions of each row: eight shuffles a tile, which is there twice, the rest at the ends.
    """
    return Expectation(
        max_registers=tile.max_registers,
        min_ctas_per_sm=tile.min_ctas_per_sm,
        mnemonics=("IGMMA", "QGMMA", "UTMALDG"),
        forbidden=("LDGSTS",),
        limits=(("SHFL", 28), ("PRMT", 80 if has_prior else 48)),
    )


def tiles_of(codes: Tensor, block: tuple[int, int]) -> object:
    """The copy engine's view of codes [rows, columns], which must start on 16 bytes: zeros beyond the sides."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor.from_tensor(codes if is_aligned(codes) else codes.clone(), list(block))


def reject(
    q: Tensor,
    q_scale: Tensor,
    k: Tensor,
    k_scale: Tensor,
    k_mean: Tensor,
    v: Tensor,
    v_scale: Tensor,
    v_mean: Tensor,
    out_dtype: torch.dtype,
    k_lengths: Tensor | None,
    prior_out: Tensor | None,
    prior_lse: Tensor | None,
    q_tokens_per_scale: int,
    k_tokens_per_scale: int,
    v_tokens_per_scale: int,
    is_permuted: bool,
    scale: float | None,
) -> str | None:
    if (reason := reject_device(q)) is not None:
        return reason
    width = q.shape[3]
    if width not in TILES:
        return f"has kernels for heads of {' and '.join(map(str, TILES))}, got {width}"
    if v.dtype is not torch.float8_e4m3fn:
        return f"multiplies float8 values only, got {str(v.dtype).removeprefix('torch.')}"
    if not is_permuted:
        return "needs v permuted, as quantize_values(is_permuted=True) leaves it"
    if v_tokens_per_scale:
        return f"needs one scale for each channel of v, got one for each {v_tokens_per_scale} tokens"
    if k_tokens_per_scale % TILES[width].keys:
        return (
            f"needs a scale of k for whole tiles of {TILES[width].keys} tokens, got one for each {k_tokens_per_scale}"
        )
    if scale is not None and scale < 0:
        return f"takes the largest dot of a row for its largest logit: needs a scale of 0 or more, got {scale}"
    if out_dtype not in DTYPES:
        return f"has no {str(out_dtype).removeprefix('torch.')} output"
    return reject_tensors(prior_out)


register_backend(
    NAME,
    "triton",
    forward=running(prepare),
    available=unavailable,
    reject=reject,
    unproven=lambda: records.unproven(NAME, "triton"),
)
