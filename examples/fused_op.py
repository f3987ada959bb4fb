"""One fused op on its own: forward, backward, a choice of backend, and inside torch.compile.

python examples/fused_op.py
"""

import torch

import wan_kernels
from wan_kernels.dispatch import explain, names, use_backend

x = torch.randn(2, 128, 1536, requires_grad=True)
weight = torch.ones(1536, requires_grad=True)

print("backends, in order of preference:", ", ".join(names("rms_norm")))
print("this call runs on:", explain("rms_norm", x, weight, 1e-6).backend)

y = wan_kernels.rms_norm(x, weight)
y.square().sum().backward()
print("gradient of the weight:", weight.grad.norm().item())

with use_backend("reference"):
    truth = wan_kernels.rms_norm(x, weight)
print("largest difference from the reference:", (y - truth).abs().max().item())


@torch.compile(fullgraph=True)
def block(x: torch.Tensor) -> torch.Tensor:
    return wan_kernels.rms_norm(x, weight).relu() + 1


print("compiled, in one graph:", block(x).shape)
