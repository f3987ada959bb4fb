"""What is special to rms_norm_rope."""

import re

import pytest
import torch
from torch import Tensor

import wan_kernels as wk
from wan_kernels.common.case import Inputs, wan_rotations

HEAD = 16
FREQS = wan_rotations(Inputs(torch.float32), HEAD, num_positions=32)


def rotate(x: Tensor, grid: tuple[int, int, int], freqs=FREQS, **options) -> Tensor:
    num_heads = x.shape[2] // HEAD
    return wk.rms_norm_rope(x, torch.ones(x.shape[2]), *freqs, num_heads=num_heads, grid=grid, **options)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_first_token_is_not_turned_and_lengths_stay() -> None:
    x = normal(2, 24, 3 * HEAD)
    y = rotate(x, (2, 3, 4))
    plain = wk.rms_norm(x, torch.ones(3 * HEAD)).unflatten(-1, (3, HEAD))
    torch.testing.assert_close(y[:, 0], plain[:, 0])
    torch.testing.assert_close(y.norm(dim=-1), plain.norm(dim=-1))


def test_products_depend_on_relative_position_only() -> None:
    """The same q and k on every token: their product at (p, p + d) is the same for every p."""
    grid = (3, 4, 5)
    q, k = (normal(1, 1, HEAD, seed=seed).expand(1, 60, HEAD) for seed in (1, 2))
    products = torch.einsum("lh,sh->ls", rotate(q, grid)[0, :, 0], rotate(k, grid)[0, :, 0]).view(*grid, *grid)
    for t, y, x in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 2, 3)):
        shifted = [
            products[t0, y0, x0, t0 + t, y0 + y, x0 + x]
            for t0 in range(3 - t)
            for y0 in range(4 - y)
            for x0 in range(5 - x)
        ]
        torch.testing.assert_close(torch.stack(shifted), shifted[0].expand(len(shifted)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grid", [(0, 0, 0), (2, 0, 4)])
def test_an_empty_grid_leaves_the_norm(grid: tuple[int, int, int]) -> None:
    x = normal(2, 7, 3 * HEAD)
    nowhere = [torch.empty(4 * bool(side), table.shape[1], 2) for side, table in zip(grid, FREQS, strict=True)]
    plain = wk.rms_norm(x, torch.ones(3 * HEAD)).unflatten(-1, (3, HEAD))
    torch.testing.assert_close(rotate(x, grid, nowhere), plain)


def test_each_axis_turns_its_own_pairs() -> None:
    x = torch.ones(1, 24, HEAD)
    y = rotate(x, (2, 3, 4)).view(2, 3, 4, HEAD // 2, 2)
    num_t, num_y = FREQS[0].shape[1], FREQS[1].shape[1]
    pairs = {"t": slice(0, num_t), "y": slice(num_t, num_t + num_y), "x": slice(num_t + num_y, None)}
    for axis, (name, mine) in enumerate(pairs.items()):
        moved = (y.select(axis, 1) - y.select(axis, 0)).abs().amax((0, 1, 3))
        assert (moved[mine] > 0).any(), name
        others = torch.ones(HEAD // 2, dtype=torch.bool)
        others[mine] = False
        assert (moved[others] < 1e-6).all(), name


def test_padding_is_normalised_but_not_turned() -> None:
    x = normal(1, 30, HEAD)
    plain = wk.rms_norm(x, torch.ones(HEAD)).unflatten(-1, (1, HEAD))
    torch.testing.assert_close(rotate(x, (2, 3, 4))[:, 24:], plain[:, 24:])


def test_as_complex_numbers_in_float64() -> None:
    """The official form: complex rotation in double precision."""
    x = normal(1, 24, 2 * HEAD)
    t, y, x_ = torch.meshgrid(*(torch.arange(side) for side in (2, 3, 4)), indexing="ij")
    tables = (torch.view_as_complex(table.double()) for table in FREQS)
    turns = torch.cat([table[where.flatten()] for table, where in zip(tables, (t, y, x_), strict=True)], dim=-1)
    plain = wk.rms_norm(x, torch.ones(2 * HEAD)).double().view(1, 24, 2, HEAD // 2, 2)
    wanted = torch.view_as_real(torch.view_as_complex(plain) * turns[None, :, None]).flatten(3)
    torch.testing.assert_close(rotate(x, (2, 3, 4)).double(), wanted, rtol=1e-5, atol=1e-5)


def test_a_nan_stays_in_its_token() -> None:
    x = normal(1, 24, HEAD)
    x[0, 5, 3] = float("nan")
    assert rotate(x, (2, 3, 4)).isnan().flatten(2).any(-1).nonzero().tolist() == [[0, 5]]


X = torch.ones(1, 24, 2 * HEAD)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grid": (5, 3, 4)}, ValueError, "grid must hold at most L = 24 tokens, got (5, 3, 4) = 60"),
        ({"grid": (2, -3, 4)}, ValueError, "grid must be (T, Y, X), none negative, got (2, -3, 4)"),
        ({"num_heads": 3}, ValueError, "x's width must be num_heads * an even H, got 32 with 3 heads"),
        ({"num_heads": 0}, ValueError, "x's width must be num_heads * an even H, got 32 with 0 heads"),
        ({"num_heads": 1}, ValueError, "the tables' pairs must add up to H/2 = 16, got 8"),
        ({"weight": torch.ones(3)}, ValueError, "weight must have shape (32), got (3,)"),
        ({"freqs_y": FREQS[1][:2]}, ValueError, "freqs_y must reach position 2, got 2 rows"),
        ({"freqs_x": FREQS[2].bfloat16()}, TypeError, "freqs_x must be one of float32, float64, got bfloat16"),
        ({"x": X[0]}, ValueError, "x must be [B, L, N*H], got shape (24, 32)"),
    ],
)
def test_refuses(change, error, message) -> None:
    call = {"x": X, "weight": torch.ones(32), "num_heads": 2, "grid": (2, 3, 4)}
    call |= dict(zip(("freqs_t", "freqs_y", "freqs_x"), FREQS, strict=True)) | change
    with pytest.raises(error, match=re.escape(f"[rms_norm_rope] {message}")):
        wk.rms_norm_rope(**call)
