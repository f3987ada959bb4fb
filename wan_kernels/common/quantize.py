"""Row-wise 8-bit quantisation: the one formula that every room with a quantised output states and every kernel keeps.

    scale = max(amax, limit * 2^-126) / limit        amax = max |y| over the row, limit = 127 or 448
    q = round(clamp(y * (1 / scale), -limit, limit))

The floor keeps 1 / scale finite, so that a row of zeros needs no branch: its codes are 0. A row that holds a NaN or an
infinity has a scale that is not finite and codes 0, so that what is made of it is NaN.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LIMITS = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
SMALLEST_NORMAL = 2.0**-126

# Values of attention come by channel, [.., tokens], as 8-bit tensor cores want their second operand: in whole tiles.
VALUES_TILE = 128
# Which token of each 16 stands where, when they are permuted. Of 16 columns of scores a thread of Hopper's tensor cores
# holds 2c, 2c+1, 8+2c and 8+2c+1, of 16 columns of an 8-bit operand 4c to 4c+3: in this order the registers of the one
# are those of the other. Source: SageAttention2, arXiv 2411.10958.
VALUES_ORDER = (0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15)


def quantize(y: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Codes of y's shape in `dtype`, contiguous, and the scale of each row, y.shape[:-1], in y's (float) dtype.

    Rounding is to nearest, ties to even: on integers for int8, on the format's grid for float8_e4m3fn.
    """
    limit = LIMITS[dtype]
    amax = y.abs().amax(-1) if y.shape[-1] else y.new_zeros(y.shape[:-1])
    scale = amax.clamp_min(limit * SMALLEST_NORMAL) / limit
    values = (y * (1 / scale).unsqueeze(-1)).clamp(-limit, limit).nan_to_num(nan=0.0)
    codes = values.round() if dtype is torch.int8 else values
    return codes.to(dtype).contiguous(), scale


def dequantize(codes: Tensor, scale: Tensor) -> Tensor:
    """The values that codes [..., D] with scales [...] stand for, in the scales' type."""
    return codes.to(scale.dtype) * scale.unsqueeze(-1)


def quantize_heads(y_BNLH: Tensor, tokens_per_scale: int, is_smooth: bool) -> tuple[Tensor, Tensor, Tensor]:
    """int8 codes of y - mean [B, N, L, H], a scale for each block of tokens, the mean over tokens or 0 [B, N, H]."""
    num_tokens = y_BNLH.shape[2]
    total_BNH = y_BNLH.sum(2) if is_smooth else y_BNLH.new_zeros((*y_BNLH.shape[:2], y_BNLH.shape[3]))
    mean_BNH = total_BNH / max(num_tokens, 1)
    codes, scales = quantize_blocks(y_BNLH - mean_BNH.unsqueeze(2), tokens_per_scale)
    return codes, scales, mean_BNH.contiguous()


def quantize_blocks(y_BNLH: Tensor, tokens_per_scale: int) -> tuple[Tensor, Tensor]:
    """int8 codes [B, N, L, H], and a scale for each block of tokens, [B, N, ceil(L / tokens_per_scale)]."""
    length, width = y_BNLH.shape[2:]
    num_blocks = -(-length // tokens_per_scale)
    whole = F.pad(y_BNLH, (0, 0, 0, num_blocks * tokens_per_scale - length)).contiguous()
    blocks = whole.unflatten(2, (num_blocks, tokens_per_scale)).flatten(3)
    codes, scales = quantize(blocks, torch.int8)
    return codes.unflatten(3, (tokens_per_scale, width)).flatten(2, 3)[:, :, :length].contiguous(), scales


def dequantize_heads(codes: Tensor, scales: Tensor, mean_BNH: Tensor, tokens_per_scale: int) -> Tensor:
    """The values that `quantize_heads` made codes of, mean included: [B, N, L, H]."""
    scale_of_token = scales.repeat_interleave(tokens_per_scale, dim=2)[:, :, : codes.shape[2]]
    return dequantize(codes, scale_of_token) + mean_BNH.unsqueeze(2)
