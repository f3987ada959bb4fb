"""rms_norm_rope_8bit through the C library."""

import torch
from torch import Tensor

from wan_kernels import native
from wan_kernels.common.cpu import dense_rows, reject_tensors
from wan_kernels.dispatch import register_backend

NAME = "rms_norm_rope_8bit"


def forward(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: list[int],
    eps: float,
    tokens_per_scale: int,
    is_smooth: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    num_samples, length, width = x.shape
    head_width = width // num_heads
    codes = torch.empty((num_samples, num_heads, length, head_width), dtype=torch.int8)
    scales = torch.empty((num_samples, num_heads, -(-length // tokens_per_scale)))
    mean = torch.empty((num_samples, num_heads, head_width))
    inputs = dense_rows(x), weight, freqs_t, freqs_y, freqs_x
    options = num_heads, grid, eps, tokens_per_scale, is_smooth
    native.library().rms_norm_rope_8bit(codes, scales, mean, *inputs, *options)
    return codes, scales, mean


def reject(
    x: Tensor,
    weight: Tensor,
    freqs_t: Tensor,
    freqs_y: Tensor,
    freqs_x: Tensor,
    num_heads: int,
    grid: list[int],
    eps: float,
    tokens_per_scale: int,
    is_smooth: bool,
) -> str | None:
    if not freqs_t.dtype == freqs_y.dtype == freqs_x.dtype == torch.float32:
        return "needs float32 tables"
    return reject_tensors(x, weight, freqs_t, freqs_y, freqs_x)


register_backend(NAME, "cpu", forward=forward, available=native.cpu_unavailable, reject=reject)
