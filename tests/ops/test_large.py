"""Tensors of more than 2^31 elements: offsets must not wrap. The last tokens, beside the same tokens alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import wan_kernels as wk
from wan_kernels import dispatch
from wan_kernels.common import triton

WIDTH = 1536
NUM_TOKENS = 2**31 // WIDTH + 2
NUM_LAST = 2


def tokens(dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """[1, L, D] of zeros, whose pages exist once only, but for the last tokens."""
    x = torch.zeros(1, NUM_TOKENS, WIDTH, dtype=dtype)
    x[:, -NUM_LAST:] = torch.randn(NUM_LAST, WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)
    return x


def row() -> Tensor:
    return torch.linspace(-1, 1, WIDTH).view(1, 1, WIDTH)


def rope(x: Tensor) -> Tensor:
    table = torch.tensor([[[0.6, 0.8]]])
    axes = (table.expand(1, 22, 2).contiguous(), table.expand(1, 21, 2).contiguous())
    return wk.rms_norm_rope(x, torch.ones(WIDTH), axes[0], axes[1], axes[1], num_heads=12, grid=(1, 1, 1))


CALLS: dict[str, Callable[[Tensor], Tensor | tuple[Tensor, ...]]] = {
    "rms_norm": lambda x: wk.rms_norm(x, torch.ones(WIDTH)),
    "layer_norm_modulate": lambda x: wk.layer_norm_modulate(x, row(), row()),
    "layer_norm_modulate_8bit": lambda x: wk.layer_norm_modulate_8bit(x, row(), row()),
    "gate_residual": lambda x: wk.gate_residual(x, x, row()),
    "quantize_rows": lambda x: wk.quantize_rows(x),
    "rms_norm_rope": rope,
}


@pytest.mark.slow
@pytest.mark.parametrize("op", CALLS)
def test_offsets_do_not_wrap(op: str) -> None:
    x = tokens()
    # With a first token of its own: the grid of the rotation holds that one only.
    few = torch.cat((torch.zeros_like(x[:, :1]), x[:, -NUM_LAST:]), dim=1)
    with torch.no_grad(), dispatch.use_backend(**{op: "cpu"}):
        found, wanted = CALLS[op](x), CALLS[op](few)
    pairs = zip(found, wanted, strict=True) if isinstance(found, tuple) else [(found, wanted)]
    for large, small in pairs:
        assert large[:, -NUM_LAST:].isfinite().all() and large[:, -NUM_LAST:].any()
        assert torch.equal(large[:, -NUM_LAST:], small[:, -NUM_LAST:])


@pytest.mark.slow
def test_offsets_of_a_product_do_not_wrap() -> None:
    num_rows, num_columns, width = 2**27 + 1, 16, 4
    weight, weight_scale = wk.quantize_rows(torch.randn(num_columns, width, generator=torch.Generator().manual_seed(1)))
    x = torch.zeros(num_rows, width, dtype=torch.int8)
    x[-NUM_LAST:] = torch.tensor([[3, -5, 7, 127], [1, 2, 3, 4]], dtype=torch.int8)
    scale = torch.ones(num_rows)
    with torch.no_grad(), dispatch.use_backend(linear_8bit="cpu"):
        found = wk.linear_8bit(x, scale, weight, weight_scale, out_dtype=torch.bfloat16)
        wanted = wk.linear_8bit(x[-NUM_LAST:], scale[:NUM_LAST], weight, weight_scale, out_dtype=torch.bfloat16)
    assert wanted.any() and torch.equal(found[-NUM_LAST:], wanted)


@pytest.mark.slow
def test_offsets_of_attention_8bit_do_not_wrap() -> None:
    num_queries, width = 2**27 + 3, 16
    generator = torch.Generator().manual_seed(0)
    k = torch.randint(-127, 128, (1, 1, 5, width), generator=generator, dtype=torch.int8)
    v = torch.randint(-127, 128, (1, 1, width, 128), generator=generator, dtype=torch.int8)
    q = torch.zeros(1, 1, num_queries, width, dtype=torch.int8)
    q[:, :, -NUM_LAST:] = torch.randint(-127, 128, (NUM_LAST, width), generator=generator, dtype=torch.int8)
    mean, scale = torch.zeros(1, 1, width), torch.full((1, 1, num_queries), 0.01)
    keys, values = (k, scale[..., :5], mean), (v, torch.ones(1, 1, 1, width), mean)

    def attend(last: slice) -> Tensor:
        return wk.attention_8bit((q[:, :, last].contiguous(), scale[..., last].contiguous(), mean), keys, values)

    with torch.no_grad(), dispatch.use_backend(attention_8bit="cpu"):
        wanted = attend(slice(-NUM_LAST, None))
        assert wanted.any() and torch.equal(attend(slice(None))[:, -NUM_LAST:], wanted)


@pytest.mark.slow
@pytest.mark.skipif(not triton.is_interpreting(), reason="a GPU is here, and this runs on the CPU")
def test_strides_of_attention_do_not_wrap() -> None:
    """Rows so far apart that the last lie beyond 2^31 elements; most pages between them are never touched."""
    strides = (2**31, 2**30, 16, 1)
    far = torch.zeros(2**31 + 2**30 + 16, dtype=torch.float16).as_strided((2, 2, 1, 16), strides)
    far.copy_(torch.randn(far.shape, generator=torch.Generator().manual_seed(0)))
    near = far.contiguous()
    for x in (far, near):
        x.requires_grad_()
    with dispatch.use_backend(attention="triton"):
        found, wanted = (wk.attention(x, x, x) for x in (far, near))
        grads = [torch.autograd.grad(out.float().sum(), x)[0] for out, x in ((found, far), (wanted, near))]
    assert torch.equal(found, wanted) and torch.equal(*grads)
