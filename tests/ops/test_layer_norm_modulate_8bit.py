"""What is special to layer_norm_modulate_8bit."""

import re

import pytest
import torch

import wan_kernels as wk


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_is_the_norm_then_the_quantiser(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, scale, shift = (torch.randn(2, n, 96, generator=generator) for n in (7, 1, 1))
    codes, scales = wk.layer_norm_modulate_8bit(x, scale, shift, dtype=dtype)
    wanted, wanted_scales = wk.quantize_rows(wk.layer_norm_modulate(x, scale, shift), dtype)
    torch.testing.assert_close(scales, wanted_scales)
    error = codes.float() * scales.unsqueeze(-1) - wanted.float() * wanted_scales.unsqueeze(-1)
    assert error.count_nonzero() <= 0.02 * error.numel()


def test_refuses() -> None:
    x = torch.ones(1, 2, 8)
    with pytest.raises(TypeError, match=re.escape("[layer_norm_modulate_8bit] dtype must be one of int8, float8")):
        wk.layer_norm_modulate_8bit(x, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=re.escape("[layer_norm_modulate_8bit] scale and shift must come together")):
        wk.layer_norm_modulate_8bit(x, torch.ones(1, 1, 8))
