"""The compiled library: loads wan_kernels._native, or says why it cannot."""

from functools import cache
from types import ModuleType

import torch

ABI_VERSION = 3


@cache
def load() -> tuple[ModuleType | None, str | None]:
    """The extension and None, or None and the reason it is missing. Tried once per process."""
    try:
        import wan_kernels._native as _native
    except ImportError as error:
        return None, f"the native extension is not built or does not load: {error}"
    if (found := _native.abi_version()) != ABI_VERSION:
        return None, f"the native extension must have ABI version {ABI_VERSION}, got {found}: build it again"
    try:
        _native.attach(torch.Tensor)
    except (AttributeError, RuntimeError) as error:
        return None, f"torch {torch.__version__} does not offer its tensors to C: {error}"
    return _native, None


def library() -> ModuleType:
    """The extension. Raises RuntimeError with the reason when it is missing."""
    module, reason = load()
    if module is None:
        raise RuntimeError(f"[native] the compiled library must be present: {reason}")
    return module


@cache
def cpu_unavailable() -> str | None:
    """Why CPU kernels cannot run here, or None: `available` of every cpu backend."""
    module, reason = load()
    if module is None:
        return reason
    try:
        module.cpu_isa()
    except (RuntimeError, ValueError) as error:
        return str(error)
    return None


def cuda_unavailable() -> str | None:
    """Why the library's CUDA kernels cannot run here, or None: `available` of every cuda backend."""
    module, reason = load()
    if module is None:
        return reason
    if "cuda: off" in module.build_info():
        return "the library was built without CUDA"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if (capability := torch.cuda.get_device_capability()) != (9, 0):
        return f"kernels are compiled for compute capability 9.0, this device has {capability[0]}.{capability[1]}"
    return None
