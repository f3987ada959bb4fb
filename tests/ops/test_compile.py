"""torch.compile over all rooms at once, as a model uses them."""

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import wan_kernels as wk
from wan_kernels.common.case import Inputs, wan_rotations

FREQS = wan_rotations(Inputs(torch.float32), 16, num_positions=16)


def block(x: Tensor, modulation: Tensor, weight: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """A transformer block without its linears: the ops through their public functions."""
    shift, scale, gate = modulation.unbind(2)
    h = wk.layer_norm_modulate(x, scale, shift, out_dtype=torch.bfloat16)
    q, k = (wk.rms_norm_rope(h, weight, *FREQS, num_heads=2, grid=grid) for _ in range(2))
    attended, lse = wk.attention(q, k, wk.rms_norm(h, weight).unflatten(-1, (2, 16)), return_lse=True)
    x, h = wk.gate_residual_layer_norm_modulate(x, attended.flatten(2), gate, scale, shift, out_dtype=torch.bfloat16)
    return wk.gate_residual(x, h, gate) + lse.mean()


def decoder(x: Tensor, kernel: Tensor) -> Tensor:
    """A residual block of the VAE, on two chunks."""
    h = wk.channel_rms_norm_silu(x, torch.ones(x.shape[1]))
    first, cache = wk.causal_conv3d(h[:, :, :1], kernel, padding=(1, 1, 1, 1), return_cache=True)
    rest = wk.causal_conv3d(h[:, :, 1:], kernel, cache=cache, padding=(1, 1, 1, 1))
    return x + torch.cat((first, rest), dim=2)


def block_inputs(num_frames: int) -> tuple[Tensor, Tensor, Tensor, tuple[int, int, int]]:
    torch.manual_seed(0)
    x, modulation = torch.randn(2, num_frames * 6, 32), torch.randn(2, 1, 3, 32)
    return x.requires_grad_(), modulation.requires_grad_(), torch.ones(32, requires_grad=True), (num_frames, 2, 3)


def gradients(function, *inputs) -> tuple[Tensor, ...]:
    out = function(*inputs)
    sources = [each for each in inputs if isinstance(each, Tensor) and each.requires_grad]
    return out, *torch.autograd.grad(out.square().sum(), sources)


def test_block_is_compiled_once_for_every_length() -> None:
    torch.compiler.reset()
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(block, fullgraph=True, backend=graphs, dynamic=True)
    counts = []
    for num_frames in (2, 3, 5):
        inputs = block_inputs(num_frames)
        for found, wanted in zip(gradients(compiled, *inputs), gradients(block, *inputs), strict=True):
            torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)
        counts.append(graphs.frame_count)
    assert counts[0] == counts[-1]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_decoder_through_inductor(layout: torch.memory_format) -> None:
    """Generated code trusts the strides the fakes promise."""
    torch.compiler.reset()
    torch.manual_seed(0)
    x = torch.randn(1, 8, 5, 4, 4).contiguous(memory_format=layout).requires_grad_()
    kernel = torch.randn(8, 8, 3, 3, 3, requires_grad=True)
    compiled = torch.compile(decoder, fullgraph=True)
    for found, wanted in zip(gradients(compiled, x, kernel), gradients(decoder, x, kernel), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
