"""What is special to quantize_values."""

import re

import pytest
import torch
from torch import Tensor

import wan_kernels as wk
from wan_kernels import dispatch, native
from wan_kernels.common.quantize import VALUES_ORDER

FP8 = torch.float8_e4m3fn
NAME = "quantize_values"
BACKENDS = [name for name in dispatch.names(NAME) if dispatch.get(NAME, name).unavailable is None]


def values(num_tokens: int = 150) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    offset = torch.randn(2, 8, generator=generator)
    return torch.randn(2, num_tokens, 2, 8, generator=generator) + 3 * offset


def quantise(v: Tensor, backend: str, **options) -> tuple[Tensor, Tensor, Tensor]:
    with dispatch.use_backend(**{NAME: backend}):
        return wk.quantize_values(v, **options)


def by_token(scales: Tensor, tokens_per_scale: int, length: int) -> Tensor:
    """[B, N, H, L]"""
    return scales.repeat_interleave(tokens_per_scale, dim=2)[:, :, :length].transpose(2, 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tokens_per_scale", [None, 128])
@pytest.mark.parametrize("is_smooth", [False, True])
@pytest.mark.parametrize("dtype", [torch.int8, FP8])
def test_codes_and_mean_give_the_values(
    dtype: torch.dtype, is_smooth: bool, tokens_per_scale: int | None, backend: str
) -> None:
    v = values()
    codes, scales, mean = quantise(v, backend, dtype=dtype, is_smooth=is_smooth, tokens_per_scale=tokens_per_scale)
    assert codes.shape == (2, 2, 8, 256)
    assert scales.shape == (2, 2, 1 if tokens_per_scale is None else 2, 8)
    assert codes[..., 150:].float().count_nonzero() == 0
    step = by_token(scales, tokens_per_scale or 150, 150)
    found = codes[..., :150].float() * step
    error = (found + mean.unsqueeze(-1) - v.permute(0, 2, 3, 1)).abs()
    size = torch.ones_like(found) if dtype is torch.int8 else (codes[..., :150].float().abs() / 8).clamp_min(2.0**-9)
    assert (error <= 0.501 * size * step).all()
    assert (mean.count_nonzero() > 0) == is_smooth


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_smooth", [False, True])
def test_one_scale_is_the_largest_of_the_blocks_and_the_mean_is_theirs(is_smooth: bool, backend: str) -> None:
    v = values(300)
    (_, whole, mean), (_, fine, same_mean), (_, coarse, _) = (
        quantise(v, backend, dtype=torch.int8, is_smooth=is_smooth, tokens_per_scale=each) for each in (None, 128, 256)
    )
    torch.testing.assert_close(same_mean, mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(fine.amax(2, keepdim=True), whole, rtol=1e-5, atol=0)
    pairs = torch.stack([part.amax(2) for part in fine.split(2, dim=2)], dim=2)
    torch.testing.assert_close(coarse, pairs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.int8, FP8])
def test_permuted_tokens_are_the_same_codes_elsewhere(dtype: torch.dtype, backend: str) -> None:
    v = values()
    plain, permuted = (quantise(v, backend, dtype=dtype, is_permuted=each)[0].view(torch.int8) for each in (0, 1))
    groups = permuted.unflatten(-1, (-1, 16))
    assert torch.equal(groups[..., torch.tensor(VALUES_ORDER).argsort()].flatten(-2), plain)


def test_the_order_makes_scores_operands() -> None:
    """Of 16 scores thread c of 4 holds 2c, 2c+1, 8+2c, 8+2c+1; of 16 columns of an 8-bit operand 4c to 4c+3."""
    scores = [(2 * c, 2 * c + 1, 8 + 2 * c, 8 + 2 * c + 1) for c in range(4)]
    assert [VALUES_ORDER[4 * c : 4 * c + 4] for c in range(4)] == scores


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mean_is_undone_after_attention(backend: str) -> None:
    v = values(40)
    mean = quantise(v, backend, dtype=torch.int8, is_smooth=True)[2]
    torch.testing.assert_close(mean, v.mean(1), rtol=1e-5, atol=1e-6)
    weights = torch.randn(2, 2, 7, 40, generator=torch.Generator().manual_seed(1)).softmax(-1)
    v_BNLH = v.transpose(1, 2)
    found = weights @ (v_BNLH - mean.unsqueeze(2)) + mean.unsqueeze(2)
    torch.testing.assert_close(found, weights @ v_BNLH, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_smooth", [False, True])
@pytest.mark.parametrize("stray", [float("nan"), float("inf"), float("-inf")])
def test_a_stray_value_ruins_its_own_channel_only(stray: float, is_smooth: bool, backend: str) -> None:
    v = values(40)
    v[1, 33, 0, 5] = stray
    codes, scales, _ = quantise(v, backend, dtype=torch.int8, is_smooth=is_smooth)
    assert (~scales.isfinite()).nonzero().tolist() == [[1, 0, 0, 5]]
    assert codes[1, 0, 5].count_nonzero() == 0
    codes[1, 0, 5] = 1
    assert (codes.float().abs().amax(-1) > 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_smooth", [False, True])
@pytest.mark.parametrize("stray", [float("nan"), float("-inf")])
def test_a_stray_value_ruins_its_block_or_with_the_mean_its_channel(
    stray: float, is_smooth: bool, backend: str
) -> None:
    v = values(300)
    whole = quantise(v, backend, dtype=torch.int8, tokens_per_scale=128)[0]
    v[1, 140, 0, 5] = stray
    codes, scales, _ = quantise(v, backend, dtype=torch.int8, is_smooth=is_smooth, tokens_per_scale=128)
    ruined = range(3) if is_smooth else [1]
    assert (~scales.isfinite()).nonzero().tolist() == [[1, 0, block, 5] for block in ruined]
    assert all(codes[1, 0, 5, 128 * block : 128 * (block + 1)].count_nonzero() == 0 for block in ruined)
    if not is_smooth:
        whole[1, 0, 5, 128:256] = 0
        assert torch.equal(codes, whole)


@pytest.mark.parametrize("tokens_per_scale", [None, 128])
def test_threads_change_nothing(tokens_per_scale: int | None) -> None:
    v = values(9000)
    found = []
    for num_threads in (1, 3):
        native.library().set_num_threads(num_threads)
        found.append(quantise(v, "cpu", dtype=torch.int8, is_smooth=True, tokens_per_scale=tokens_per_scale))
    native.library().set_num_threads(0)
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


def test_refuses() -> None:
    v = torch.ones(1, 2, 3, 4)
    with pytest.raises(TypeError, match=re.escape(f"[{NAME}] dtype must be one of int8, float8_e4m3fn, got torch.")):
        wk.quantize_values(v, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=re.escape(f"[{NAME}] v must be [B, L, N, H], got shape (2, 3, 4)")):
        wk.quantize_values(v[0], dtype=torch.int8)
    with pytest.raises(TypeError, match=re.escape(f"[{NAME}] v must be one of float32")):
        wk.quantize_values(v.to(torch.int8), dtype=torch.int8)
    for tokens_per_scale in (0, 64, -128):
        message = f"[{NAME}] tokens_per_scale must be None or a positive multiple of 128, got {tokens_per_scale}"
        with pytest.raises(ValueError, match=re.escape(message)):
            wk.quantize_values(v, dtype=torch.int8, tokens_per_scale=tokens_per_scale)
