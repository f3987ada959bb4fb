"""What is special to causal_conv3d: chunks equal one pass, the past alone is seen, the cache is an own copy."""

import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import wan_kernels as wk
from wan_kernels import dispatch

AROUND = (1, 1, 1, 1)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_chunks(x: Tensor, lengths: list[int], weight: Tensor, **options) -> Tensor:
    cache, parts = None, []
    for chunk in x.split(lengths, dim=2):
        y, cache = wk.causal_conv3d(chunk, weight, None, cache, return_cache=True, **options)
        parts.append(y)
    return torch.cat(parts, dim=2)


@pytest.mark.parametrize("lengths", [[9], [1] * 9, [1, 4, 4], [2, 3, 4], [4, 5], [8, 1]])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_chunks_equal_one_pass(lengths: list[int], layout: torch.memory_format) -> None:
    x, weight = normal(2, 3, 9, 5, 6).contiguous(memory_format=layout), normal(4, 3, 3, 3, 3, seed=1)
    torch.testing.assert_close(
        in_chunks(x, lengths, weight, padding=AROUND), wk.causal_conv3d(x, weight, padding=AROUND)
    )


@pytest.mark.parametrize("lengths", [[8], [2] * 4, [4, 4], [2, 6]])
@pytest.mark.parametrize("kernel_t", [2, 3, 4])
def test_chunks_equal_one_pass_with_stride_2(lengths: list[int], kernel_t: int) -> None:
    x, weight = normal(1, 3, 8, 7, 6), normal(4, 3, kernel_t, 3, 3, seed=1)
    options = {"stride": (2, 2, 2), "padding": (0, 1, 0, 1)}
    whole = wk.causal_conv3d(x, weight, **options)
    assert whole.shape[2] == 4
    torch.testing.assert_close(in_chunks(x, lengths, weight, **options), whole)


def test_gradients_flow_through_the_cache() -> None:
    x, weight = normal(1, 3, 6, 4, 4).requires_grad_(), normal(4, 3, 3, 3, 3, seed=1).requires_grad_()
    grad = normal(1, 4, 6, 4, 4, seed=2)
    chunked = torch.autograd.grad(in_chunks(x, [1, 1, 4], weight, padding=AROUND), (x, weight), grad)
    whole = torch.autograd.grad(wk.causal_conv3d(x, weight, padding=AROUND), (x, weight), grad)
    for found, wanted in zip(chunked, whole, strict=True):
        torch.testing.assert_close(found, wanted)


def test_as_torch_conv3d_on_padded_input() -> None:
    x, weight, bias = normal(2, 3, 4, 5, 6), normal(4, 3, 3, 3, 3, seed=1), normal(4, seed=2)
    wanted = F.conv3d(F.pad(x, (2, 0, 1, 3, 2, 0)), weight, bias)
    torch.testing.assert_close(wk.causal_conv3d(x, weight, bias, padding=(1, 3, 2, 0)), wanted)


def test_the_future_is_not_seen() -> None:
    x, weight = normal(1, 3, 6, 4, 4), normal(4, 3, 3, 3, 3, seed=1)
    changed = x.clone()
    changed[:, :, 4:] += 1
    before, after = (wk.causal_conv3d(each, weight, padding=AROUND) for each in (x, changed))
    assert torch.equal(before[:, :, :4], after[:, :, :4])
    assert not torch.equal(before[:, :, 4], after[:, :, 4])


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_new_cache_is_a_copy_of_the_last_frames(num_frames: int) -> None:
    x, cache, weight = normal(1, 3, num_frames, 4, 4), normal(1, 3, 2, 4, 4, seed=1), normal(4, 3, 3, 1, 1, seed=2)
    _, new_cache = wk.causal_conv3d(x, weight, None, cache, return_cache=True)
    wanted = torch.cat((cache, x), dim=2)[:, :, -2:]
    assert torch.equal(new_cache, wanted)
    x.zero_()
    cache.zero_()
    assert torch.equal(new_cache, wanted), "the cache must not alias the frames it was taken from"


def test_no_cache_means_zeros_before() -> None:
    x, weight = normal(1, 3, 2, 4, 4), normal(4, 3, 3, 3, 3, seed=1)
    zeros = torch.zeros(1, 3, 2, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(
        wk.causal_conv3d(x, weight, padding=AROUND), wk.causal_conv3d(x, weight, None, zeros, padding=AROUND)
    )


@pytest.mark.parametrize("num_frames", [1, 3])
def test_channels_last_in_channels_last_out(num_frames: int) -> None:
    x = normal(2, 8, num_frames, 5, 6).float().contiguous(memory_format=torch.channels_last_3d)
    y, cache = wk.causal_conv3d(x, normal(4, 8, 3, 3, 3).float(), padding=AROUND, return_cache=True)
    for each in (y, cache):
        assert each.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("lengths", [[9], [1] * 9, [1, 4, 4], [4, 5]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [6, 65])
def test_chunks_equal_one_pass_bit_for_bit(side: int, dtype: torch.dtype, lengths: list[int]) -> None:
    x = normal(1, 4, 9, side, 64).to(dtype).contiguous(memory_format=torch.channels_last_3d)
    weight = normal(5, 4, 3, 3, 3, seed=1).to(dtype)
    with dispatch.use_backend(causal_conv3d="cpu"):
        assert torch.equal(in_chunks(x, lengths, weight, padding=AROUND), wk.causal_conv3d(x, weight, padding=AROUND))


@pytest.mark.parametrize(("dtype", "reach"), [(torch.float32, 1), (torch.bfloat16, 4)])
def test_a_nan_stays_near_on_cpu(dtype: torch.dtype, reach: int) -> None:
    x = torch.ones(1, 2, 3, 64, 66, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)
    x[0, 1, 1, 33, 30] = float("nan")
    with dispatch.use_backend(causal_conv3d="cpu"):
        y = wk.causal_conv3d(x, torch.ones(3, 2, 3, 3, 3, dtype=dtype), padding=AROUND)
    _, _, frames, rows, columns = y.isnan().nonzero(as_tuple=True)
    assert set(frames.tolist()) == {1, 2}
    assert y[:, :, 1:, 32:35, 29:32].isnan().all()
    assert (rows - 33).abs().max() <= reach and (columns - 30).abs().max() <= reach


def test_a_nan_reaches_its_windows_only() -> None:
    x, weight = normal(1, 1, 4, 5, 5), normal(1, 1, 3, 3, 3, seed=1)
    x[0, 0, 1, 2, 2] = float("nan")
    y = wk.causal_conv3d(x, weight, padding=AROUND)
    assert y.isnan().sum() == 27
    assert y[:, :, 1:, 1:4, 1:4].isnan().all()


X, W = torch.ones(1, 2, 3, 4, 4), torch.ones(5, 2, 3, 3, 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": X[0]}, ValueError, "x must be [B, C, T, Y, X], got shape (2, 3, 4, 4)"),
        ({"weight": W[:, :1]}, ValueError, "weight must have shape (*, 2, *, *, *), got (5, 1, 3, 3, 3)"),
        ({"weight": W.bfloat16()}, TypeError, "weight must be float32 as x is, got bfloat16"),
        ({"bias": torch.ones(4)}, ValueError, "bias must have shape (5), got (4,)"),
        ({"cache": X}, ValueError, "cache must have shape (1, 2, 2, 4, 4), got (1, 2, 3, 4, 4)"),
        ({"cache": X[:, :, :2].double()}, TypeError, "cache must be float32 as x is, got float64"),
        ({"stride": (4, 1, 1)}, ValueError, "stride must be (t, y, x), each at least 1 and t at most kt = 3"),
        ({"stride": (1, 0, 1)}, ValueError, "stride must be (t, y, x), each at least 1"),
        ({"padding": (1, 1, -1, 1)}, ValueError, "padding must be (top, bottom, left, right), none negative"),
        ({"x": X[..., :2]}, ValueError, "padded frames must be at least the kernel's (3, 3), got (4, 2)"),
        ({"x": X[:, :, :0]}, ValueError, "x must have at least 1 frames, got 0"),
        ({"stride": (2, 1, 1), "return_cache": True}, ValueError, "a continued chunk must have a multiple of 2 frames"),
        ({"weight": W.to("meta")}, ValueError, "weight must be on x's device cpu, got meta"),
    ],
)
def test_refuses(change, error, message) -> None:
    with pytest.raises(error, match=re.escape(f"[causal_conv3d] {message}")):
        wk.causal_conv3d(**({"x": X, "weight": W} | change))
