"""What is special to quantize_heads."""

import re

import pytest
import torch
from torch import Tensor

import wan_kernels as wk
from wan_kernels import dispatch, native

NAME = "quantize_heads"
BACKENDS = [name for name in dispatch.names(NAME) if dispatch.get(NAME, name).unavailable is None]


def heads(num_tokens: int = 30) -> Tensor:
    """Two heads with an offset of each channel's own."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, num_tokens, 2, 16, generator=generator) + 3 * torch.randn(2, 16, generator=generator)


def quantise(x: Tensor, backend: str, **options) -> tuple[Tensor, Tensor, Tensor]:
    with dispatch.use_backend(**{NAME: backend}):
        return wk.quantize_heads(x, **options)


def by_token(scales: Tensor, tokens_per_scale: int, length: int) -> Tensor:
    return scales.repeat_interleave(tokens_per_scale, dim=2)[:, :, :length, None]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_smooth", [False, True])
@pytest.mark.parametrize("tokens_per_scale", [1, 7, 16, 64])
def test_codes_and_mean_give_the_heads(tokens_per_scale: int, is_smooth: bool, backend: str) -> None:
    x = heads()
    codes, scales, mean = quantise(x, backend, tokens_per_scale=tokens_per_scale, is_smooth=is_smooth)
    step = by_token(scales, tokens_per_scale, 30)
    error = codes * step + mean.unsqueeze(2) - x.transpose(1, 2)
    assert (error.abs() <= 0.501 * step).all()
    torch.testing.assert_close(mean, x.mean(1) if is_smooth else torch.zeros(2, 2, 16), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_block_has_the_largest_of_its_tokens_scales(backend: str) -> None:
    fine, coarse = (quantise(heads(), backend, tokens_per_scale=each)[1] for each in (1, 8))
    wanted = torch.stack([part.amax(2) for part in fine.split(8, dim=2)], dim=2)
    torch.testing.assert_close(coarse, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_smooth", [False, True])
@pytest.mark.parametrize("stray", [float("nan"), float("inf"), float("-inf")])
def test_a_stray_value_ruins_its_block_or_with_the_mean_its_head(stray: float, is_smooth: bool, backend: str) -> None:
    x = heads()
    whole = quantise(x, backend, tokens_per_scale=4)[0]
    x[1, 9, 1, 5] = stray
    codes, scales, _ = quantise(x, backend, tokens_per_scale=4, is_smooth=is_smooth)
    ruined = range(8) if is_smooth else [2]
    assert (~scales.isfinite()).nonzero().tolist() == [[1, 1, block] for block in ruined]
    assert all(codes[1, 1, 4 * block : 4 * block + 4].count_nonzero() == 0 for block in ruined)
    if not is_smooth:
        whole[1, 1, 8:12] = 0
        assert torch.equal(codes, whole)


@pytest.mark.parametrize("backend", BACKENDS)
def test_slices_of_a_fused_projection_are_read_as_they_lie(backend: str) -> None:
    fused = torch.randn(2, 30, 3, 2, 16, generator=torch.Generator().manual_seed(1))
    options = {"tokens_per_scale": 4, "is_smooth": True}
    for view in (fused[:, :, 1], fused.permute(0, 1, 3, 2, 4).flatten(3)[..., 16:32], fused[:, :, 1].transpose(0, 1)):
        for found, wanted in zip(
            quantise(view, backend, **options), quantise(view.clone(), backend, **options), strict=True
        ):
            assert torch.equal(found, wanted)


def test_whole_lines_are_where_others_are() -> None:
    """Heads whose codes fill cache lines leave past the caches: the same codes as from a view that does not."""
    x = torch.randn(1, 300, 2, 64, generator=torch.Generator().manual_seed(1))
    for options in ({}, {"tokens_per_scale": 16}, {"tokens_per_scale": 200}):
        codes, scales, _ = quantise(x, "cpu", **options)
        wanted = quantise(x, dispatch.REFERENCE, **options)
        torch.testing.assert_close(scales, wanted[1], rtol=1e-6, atol=0)
        assert (codes != wanted[0]).sum() <= 5


def test_threads_change_nothing() -> None:
    x = heads(3000)
    found = []
    for num_threads in (1, 3):
        native.library().set_num_threads(num_threads)
        found.append(quantise(x, "cpu", tokens_per_scale=16, is_smooth=True))
    native.library().set_num_threads(0)
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


def test_refuses() -> None:
    x = torch.ones(1, 2, 3, 4)
    with pytest.raises(ValueError, match=re.escape(f"[{NAME}] tokens_per_scale must be at least 1, got 0")):
        wk.quantize_heads(x, tokens_per_scale=0)
    with pytest.raises(ValueError, match=re.escape(f"[{NAME}] x must be [B, L, N, H], got shape (2, 3, 4)")):
        wk.quantize_heads(x[0])
    with pytest.raises(TypeError, match=re.escape(f"[{NAME}] x must be one of float32")):
        wk.quantize_heads(x.to(torch.int8))
