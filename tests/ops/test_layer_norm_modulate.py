"""What is special to layer_norm_modulate."""

import re

import pytest
import torch

import wan_kernels as wk


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_rows_by_index_equal_one_row_each() -> None:
    x, scale, shift = normal(2, 6, 16), normal(2, 3, 16, seed=1), normal(2, 3, 16, seed=2)
    index = torch.tensor([[0, 0, 1, 1, 2, 2], [2, 1, 0, 2, 1, 0]], dtype=torch.int32)
    y = wk.layer_norm_modulate(x, scale, shift, index=index)
    for sample in range(2):
        for token in range(6):
            row = slice(index[sample, token], index[sample, token] + 1)
            one = (slice(sample, sample + 1), row)
            wanted = wk.layer_norm_modulate(x[sample, token].view(1, 1, 16), scale[one], shift[one])
            torch.testing.assert_close(y[sample, token], wanted.view(16))


def test_zero_scale_and_shift_change_nothing() -> None:
    x, zeros = normal(2, 6, 16), torch.zeros(2, 1, 16)
    torch.testing.assert_close(wk.layer_norm_modulate(x, zeros, zeros), wk.layer_norm_modulate(x), rtol=0, atol=0)


def test_rounds_once_to_the_type_asked_for() -> None:
    x, scale, shift = normal(2, 6, 16), normal(2, 1, 16, seed=1), normal(2, 1, 16, seed=2)
    wide = wk.layer_norm_modulate(x, scale, shift)
    narrow = wk.layer_norm_modulate(x, scale, shift, out_dtype=torch.bfloat16)
    assert torch.equal(narrow, wide.bfloat16())


def test_a_nan_stays_in_its_token() -> None:
    x = normal(1, 3, 16)
    x[0, 1, 5] = float("nan")
    y = wk.layer_norm_modulate(x)
    assert y[0, 1].isnan().all()
    assert y[0, [0, 2]].isfinite().all()


X, ROW, ROWS, WIDE = torch.ones(2, 3, 8), torch.ones(2, 1, 8), torch.ones(2, 2, 8), torch.ones(8)
INDEX = torch.zeros(2, 3, dtype=torch.int32)


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((X[0],), {}, ValueError, "x must be [B, L, D], got shape (3, 8)"),
        ((X, ROW), {}, ValueError, "scale and shift must come together, got only scale"),
        ((X,), {"bias": WIDE}, ValueError, "weight and bias must come together, got only bias"),
        ((X, ROWS, ROWS), {}, ValueError, "scale must have one row where index is None, got 2"),
        ((X, ROW, ROWS), {"index": INDEX}, ValueError, "shift must have shape (2, 1, 8), got (2, 2, 8)"),
        ((X, ROW[:1], ROW[:1]), {}, ValueError, "scale must have shape (2, *, 8), got (1, 1, 8)"),
        ((X, ROWS, ROWS), {"index": INDEX[:1]}, ValueError, "index must have shape (2, 3), got (1, 3)"),
        ((X, ROWS, ROWS), {"index": INDEX.float()}, TypeError, "index must be one of int32, int64, got float32"),
        ((X,), {"index": INDEX}, ValueError, "index must come with scale and shift, got it alone"),
        ((X,), {"weight": WIDE[:4], "bias": WIDE}, ValueError, "weight must have shape (8), got (4,)"),
        ((X,), {"out_dtype": torch.int8}, TypeError, "out_dtype must be one of float32"),
        ((X.int(),), {}, TypeError, "x must be one of float32"),
    ],
)
def test_refuses(args, options, error, message) -> None:
    with pytest.raises(error, match=re.escape(f"[layer_norm_modulate] {message}")):
        wk.layer_norm_modulate(*args, **options)
