"""What is special to gate_residual_layer_norm_modulate_8bit."""

import re

import pytest
import torch

import wan_kernels as wk
from wan_kernels import dispatch


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_is_bit_for_bit_the_two_rooms(backend: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y, gate, scale, shift = (torch.randn(2, n, 96, generator=generator) for n in (7, 7, 1, 1, 1))
    with dispatch.use_backend(backend):
        stream, codes, scales = wk.gate_residual_layer_norm_modulate_8bit(
            x, y.bfloat16(), gate, scale, shift, dtype=dtype
        )
        wanted = wk.gate_residual(x, y.bfloat16(), gate)
        wanted_codes, wanted_scales = wk.layer_norm_modulate_8bit(wanted, scale, shift, dtype=dtype)
    assert torch.equal(stream, wanted)
    assert torch.equal(scales, wanted_scales)
    assert torch.equal(codes.view(torch.int8), wanted_codes.view(torch.int8))


def test_refuses() -> None:
    x = torch.ones(1, 2, 8)
    name = "[gate_residual_layer_norm_modulate_8bit]"
    with pytest.raises(TypeError, match=re.escape(f"{name} dtype must be one of int8, float8")):
        wk.gate_residual_layer_norm_modulate_8bit(x, x, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=re.escape(f"{name} y must have shape (1, 2, 8), got (1, 1, 8)")):
        wk.gate_residual_layer_norm_modulate_8bit(x, x[:, :1])
    with pytest.raises(RuntimeError, match=re.escape(f"{name} must run without gradients")):
        wk.gate_residual_layer_norm_modulate_8bit(x.requires_grad_(), x)[0].sum().backward()
