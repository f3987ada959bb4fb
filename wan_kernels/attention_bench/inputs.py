"""q, k and v to compare attentions on: made up in three families, or captured from a model.

Letters: B batch, L queries, S keys, N heads, H head width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

FAMILIES = ("random", "outlier", "video")
CAPTURED = "captured"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Inputs:
    """One call of attention. name: for rows; family: what its bars go by."""

    name: str
    family: str
    q: Tensor  # [B, L, N, H]
    k: Tensor  # [B, S, N, H]
    v: Tensor  # [B, S, N, H]

    @property
    def flops(self) -> int:
        """Two products of L x S x H per head, a multiply-add counted as 2."""
        return 4 * self.q.numel() * self.k.shape[1]

    @property
    def title(self) -> str:
        num_queries, num_heads, head_width = self.q.shape[1:]
        sides = f"{num_queries}x{self.k.shape[1]}_{num_heads}x{head_width}"
        return f"{self.name}_{sides}"


Load = Callable[[], Inputs]


def loaders(
    names: Sequence[str], *, tokens: Sequence[int], num_heads: int, head_width: int, device: str
) -> Iterator[Load]:
    """What makes each input when its turn comes: each family at each number of tokens, each capture of each file.

    Raises ValueError or FileNotFoundError, in one line, for a name that is neither, or a file that holds no captures.
    """
    for name in names:
        if name in FAMILIES:
            for count in tokens:
                yield partial(made, name, count, num_heads, head_width, device)
        elif name.endswith(SUFFIX):
            for capture in captures_of(Path(name)):
                yield partial(captured, Path(name), capture, device)
        else:
            raise ValueError(f"[bench] input must be one of {', '.join(FAMILIES)} or FILE{SUFFIX}, got {name!r}")


def made(family: str, num_tokens: int, num_heads: int, head_width: int, device: str) -> Inputs:
    """Values in bfloat16, as models on GPUs hand them over; the same for the same arguments.

    random: normal. outlier: one in 1000 ten times as wide. video: each key near its own query, keys with an offset of
    some channels and values with a mean, q and k of a root mean square of 1, as normed heads have.
    """
    generator = torch.Generator(device).manual_seed(0)
    shape = 1, num_tokens, num_heads, head_width

    def normal() -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    q, k, v = normal(), normal(), normal()
    if family == "outlier":
        q, k, v = (_with_outliers(each, generator) for each in (q, k, v))
    if family == "video":
        shared = normal()
        offset = 8 * shared[:, :1] * (torch.arange(head_width, device=device) % 16 == 0)
        q, k = (_normed(each) for each in (0.5 * q + shared, 0.5 * k + shared + offset))
        v = v + 0.5 * shared[:, -1:]
    q, k, v = (each.bfloat16() for each in (q, k, v))
    return Inputs(family, family, q, k, v)


def _with_outliers(x: Tensor, generator: torch.Generator) -> Tensor:
    is_outlier = torch.rand(x.shape, generator=generator, device=x.device) < 1e-3
    return x + 10 * x.roll(1, -1) * is_outlier


def _normed(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True))


def captures_of(path: Path) -> list[str]:
    """Names of what `wan capture` wrote: NAME.q, NAME.k and NAME.v, of shapes that fit. Reads the header alone."""
    from safetensors import safe_open

    if not path.is_file():
        raise FileNotFoundError(f"[bench] input must be a file, got {path}; write one with wan capture")
    with safe_open(path, "pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no dictionary)
    names = sorted(key.removesuffix(".q") for key in shapes if key.endswith(".q"))
    if not names:
        raise ValueError(f"[bench] {path} must hold NAME.q, NAME.k and NAME.v as wan capture writes them, got none")
    for name in names:
        q, k, v = (shapes.get(f"{name}.{part}", ()) for part in "qkv")
        if len(q) != 4 or len(k) != 4 or k != v or (q[0], *q[2:]) != (k[0], *k[2:]) or 0 in (*q, *k):
            raise ValueError(f"[bench] {path} must hold {name} as [B, L, N, H], k and v alike, got {q}, {k} and {v}")
    return names


def captured(path: Path, name: str, device: str) -> Inputs:
    """One capture, in the dtype it was written in."""
    from safetensors import safe_open

    with safe_open(path, "pt", device=device) as file:
        q, k, v = (file.get_tensor(f"{name}.{part}") for part in "qkv")
    return Inputs(f"{path.stem}.{name}", CAPTURED, q, k, v)
