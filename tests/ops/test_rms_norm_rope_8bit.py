"""What is special to rms_norm_rope_8bit."""

import re

import pytest
import torch
from torch import Tensor

import wan_kernels as wk
from wan_kernels import dispatch, native
from wan_kernels.common.case import Inputs, wan_rotations

HEAD = 16
FREQS = wan_rotations(Inputs(torch.float32), HEAD, num_positions=32)
WEIGHT = torch.linspace(0.5, 1.5, 2 * HEAD)
GRID = (2, 3, 4)
NAME = "rms_norm_rope_8bit"
BACKENDS = [name for name in dispatch.names(NAME) if dispatch.get(NAME, name).unavailable is None]


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def tokens(num_tokens: int = 30) -> Tensor:
    """Two heads with an offset of each channel's own."""
    return normal(2, num_tokens, 2 * HEAD) + 3 * normal(2 * HEAD)


def quantise(x: Tensor, backend: str, grid: tuple[int, int, int] = GRID, **options) -> tuple[Tensor, Tensor, Tensor]:
    with dispatch.use_backend(**{NAME: backend}):
        return wk.rms_norm_rope_8bit(x, WEIGHT, *FREQS, num_heads=2, grid=grid, **options)


def rotated(x: Tensor) -> Tensor:
    """[B, N, L, H] in float."""
    return wk.rms_norm_rope(x, WEIGHT, *FREQS, num_heads=2, grid=GRID).transpose(1, 2)


def by_token(scales: Tensor, tokens_per_scale: int, length: int) -> Tensor:
    return scales.repeat_interleave(tokens_per_scale, dim=2)[:, :, :length, None]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_smooth", [False, True])
@pytest.mark.parametrize("tokens_per_scale", [1, 7, 16, 64])
def test_codes_and_mean_give_the_rotated_row(tokens_per_scale: int, is_smooth: bool, backend: str) -> None:
    x = tokens()
    codes, scales, mean = quantise(x, backend, tokens_per_scale=tokens_per_scale, is_smooth=is_smooth)
    step = by_token(scales, tokens_per_scale, 30)
    error = codes * step + mean.unsqueeze(2) - rotated(x)
    assert (error.abs() <= 0.501 * step).all()
    assert (mean.count_nonzero() > 0) == is_smooth


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("grid", [(0, 0, 0), (2, 0, 4), (0, 3, 1)])
@pytest.mark.parametrize("options", [{}, {"tokens_per_scale": 16, "is_smooth": True}])
def test_an_empty_grid_leaves_the_norm(options: dict[str, int], grid: tuple[int, int, int], backend: str) -> None:
    """Cross-attention: what quantising the norm gives, and no table is read."""
    x = tokens()
    tables = [torch.full_like(table, float("nan")) for table in FREQS]
    with dispatch.use_backend(**{NAME: backend}):
        found = wk.rms_norm_rope_8bit(x, WEIGHT, *tables, num_heads=2, grid=grid, **options)
    normalised = wk.rms_norm(x, WEIGHT).unflatten(2, (2, HEAD))
    codes, scales, mean = wk.quantize_heads(normalised, **options)
    assert (found[0].int() - codes.int()).abs().max() <= 1
    assert (found[0] != codes).sum() <= 3
    torch.testing.assert_close(found[1:], (scales, mean), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_block_has_the_largest_of_its_tokens_scales(backend: str) -> None:
    x = tokens()
    fine, coarse = (quantise(x, backend, tokens_per_scale=each)[1] for each in (1, 8))
    wanted = torch.stack([part.amax(2) for part in fine.split(8, dim=2)], dim=2)
    torch.testing.assert_close(coarse, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_the_mean_the_softmax_stays_and_its_sum_shrinks_by_the_mean(backend: str) -> None:
    q, k = (wk.rms_norm_rope(tokens() * sign, WEIGHT, *FREQS, num_heads=2, grid=GRID) for sign in (1, -1))
    mean = quantise(-tokens(), backend, is_smooth=True)[2]
    v = normal(2, 30, 2, HEAD)
    out, lse = wk.attention(q, k, v, return_lse=True)
    same, smaller = wk.attention(q, k - mean.unsqueeze(1), v, return_lse=True)
    torch.testing.assert_close(same, out, rtol=1e-4, atol=1e-5)
    shift = HEAD**-0.5 * torch.einsum("blnh,bnh->bnl", q, mean)
    torch.testing.assert_close(smaller + shift, lse, rtol=1e-5, atol=1e-5)


def what_is_nan(scales: Tensor) -> list[list[int]]:
    return scales.isnan().nonzero().tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_nan_ruins_its_block_in_every_head(backend: str) -> None:
    x = tokens()
    x[1, 9, 3] = float("nan")
    codes, scales, _ = quantise(x, backend, tokens_per_scale=4)
    assert what_is_nan(scales) == [[1, 0, 2], [1, 1, 2]]
    assert codes[1, :, 8:12].count_nonzero() == 0
    whole = quantise(tokens(), backend, tokens_per_scale=4)[0]
    assert torch.equal(codes[1, :, :8], whole[1, :, :8]) and torch.equal(codes[0], whole[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_infinity_ruins_its_own_head(backend: str) -> None:
    x = tokens()
    x[1, 9, HEAD + 3] = float("inf")
    codes, scales, mean = quantise(x, backend, tokens_per_scale=4, is_smooth=True)
    assert what_is_nan(scales) == [[1, 1, block] for block in range(8)]
    assert codes[1, 1].count_nonzero() == 0
    assert scales[0].isfinite().all() and scales[1, 0].isfinite().all() and mean[1, 0].isfinite().all()


def test_threads_change_nothing() -> None:
    x = normal(2, 3000, 2 * HEAD) + 3
    found = []
    for num_threads in (1, 3):
        native.library().set_num_threads(num_threads)
        found.append(quantise(x, "cpu", grid=(5, 30, 20), tokens_per_scale=16, is_smooth=True))
    native.library().set_num_threads(0)
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


X = torch.ones(1, 24, 2 * HEAD)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tokens_per_scale": 0}, ValueError, "tokens_per_scale must be at least 1, got 0"),
        ({"grid": (5, 3, 4)}, ValueError, "grid must hold at most L = 24 tokens, got (5, 3, 4) = 60"),
        ({"num_heads": 3}, ValueError, "x's width must be num_heads * an even H, got 32 with 3 heads"),
        ({"weight": torch.ones(3)}, ValueError, "weight must have shape (32), got (3,)"),
        ({"x": X.to(torch.int8)}, TypeError, "x must be one of float32, bfloat16, float16, float64, got int8"),
    ],
)
def test_refuses(change, error, message) -> None:
    call = {"x": X, "weight": torch.ones(32), "num_heads": 2, "grid": GRID}
    call |= dict(zip(("freqs_t", "freqs_y", "freqs_x"), FREQS, strict=True)) | change
    with pytest.raises(error, match=re.escape(f"[{NAME}] {message}")):
        wk.rms_norm_rope_8bit(**call)
