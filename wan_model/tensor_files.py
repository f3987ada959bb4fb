"""Files of named tensors: list what they hold without reading it, stream it out, write it whole or not at all.

Three forms are read: one `.safetensors`, several with an index, and a `.pth` state dict (never executed: weights only).
All become the same thing, a `StoredTensor`: where the bytes of one tensor lie. Reads go through a small buffer and not
through a memory map, so memory in use never holds both the file and the model.
"""

import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

INDEX_SUFFIX = ".safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000
READ_BUFFER_BYTES = 4 * 2**20
MAX_SHARD_BYTES = 10 * 10**9

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "BOOL": torch.bool, "U8": torch.uint8,
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """One tensor, contiguous at `offset` bytes into the file at `path`."""

    path: Path
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.numel * self.dtype.itemsize

    def read(
        self,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        buffer: Tensor | None = None,
    ) -> Tensor:
        """The tensor itself. Where it must be cast or moved, that happens piece by piece; only floats are cast.

        buffer: from `make_read_buffer`, to read many tensors with one; by default each read makes its own.
        Raises: ValueError where the file ends too early.
        """
        is_cast = dtype is not None and self.dtype.is_floating_point
        result = torch.empty(self.shape, dtype=dtype if is_cast else self.dtype, device=device)
        flat = result.view(-1)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            if flat.dtype == self.dtype and flat.device.type == "cpu":
                _fill(flat, file)
                return result
            staging = (make_read_buffer() if buffer is None else buffer).view(self.dtype)
            for piece in flat.split(len(staging)):
                _fill(staging[: len(piece)], file)
                piece.copy_(staging[: len(piece)])
        return result


def make_read_buffer() -> Tensor:
    """Bytes to read through. One for a whole model keeps the heap from being cut up between its tensors."""
    return torch.empty(READ_BUFFER_BYTES, dtype=torch.uint8)


def _fill(flat: Tensor, file: BinaryIO) -> None:
    # As bytes, because NumPy knows no bfloat16.
    target: Any = flat.view(torch.uint8).numpy()
    if file.readinto(target) != target.nbytes:  # type: ignore[attr-defined]
        raise ValueError(f"[checkpoint] {file.name} must not end at byte {file.tell()}: it is cut short")


def list_tensors(directory: Path, stem: str) -> dict[str, StoredTensor]:
    """Every tensor of `stem` in `directory`: sharded or single safetensors, or `.pth`.

    Raises: FileNotFoundError where none of them, or a shard, is missing; ValueError where one is broken; each names
        the file.
    """
    if (directory / f"{stem}{INDEX_SUFFIX}").is_file():
        return _list_sharded(directory / f"{stem}{INDEX_SUFFIX}")
    for suffix, list_one in ((".safetensors", list_safetensors), (".pth", list_pth)):
        if (directory / f"{stem}{suffix}").is_file():
            return list_one(directory / f"{stem}{suffix}")
    raise FileNotFoundError(
        f"[checkpoint] {directory} must hold {stem}.safetensors, {stem}{INDEX_SUFFIX} or {stem}.pth, got none of them"
    )


def has_tensors(directory: Path, stem: str) -> bool:
    """Whether `list_tensors` would find a file to read."""
    return any((directory / f"{stem}{suffix}").is_file() for suffix in (INDEX_SUFFIX, ".safetensors", ".pth"))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises: FileNotFoundError, ValueError; both name the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"[checkpoint] {path} must exist, got no such file") from None
    except ValueError as error:
        raise ValueError(f"[checkpoint] {path} must be JSON, got: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"[checkpoint] {path} must hold a JSON object, got {type(content).__name__}")
    return content


def _list_sharded(index_path: Path) -> dict[str, StoredTensor]:
    shard_of = read_json(index_path).get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        raise ValueError(f"[checkpoint] {index_path} must map tensor names to files in weight_map, it does not")
    held: dict[str, StoredTensor] = {}
    for shard in sorted(set(shard_of.values())):
        if Path(shard).name != shard:
            raise ValueError(f"[checkpoint] {index_path} must name files beside itself, got {shard!r}")
        if not (index_path.parent / shard).is_file():
            raise FileNotFoundError(
                f"[checkpoint] shard {index_path.parent / shard} must exist, {index_path.name} names it; download it"
            )
        held |= list_safetensors(index_path.parent / shard)
    misplaced = [name for name, shard in shard_of.items() if name not in held or held[name].path.name != shard]
    unlisted = [name for name in held if name not in shard_of]
    if misplaced or unlisted:
        raise ValueError(
            f"[checkpoint] {index_path} must agree with its shards, got {len(misplaced)} tensors not in the shard "
            f"named and {len(unlisted)} not in the index: {', '.join((misplaced + unlisted)[:8])}"
        )
    return held


def list_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Tensors of one safetensors file, from its header alone.

    Raises: ValueError where the header cannot be read, or the file is not as long as the header says.
    """
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if file_bytes < 8 or not 2 <= header_bytes <= min(MAX_HEADER_BYTES, file_bytes - 8):
            raise ValueError(
                f"[checkpoint] {path} must begin with a safetensors header, got one of {header_bytes} bytes in a file "
                f"of {file_bytes}: it is corrupt, cut short or not a safetensors file"
            )
        raw = file.read(header_bytes)
    try:
        header: dict[str, Any] = json.loads(raw)
        header.pop("__metadata__", None)
        stored = {name: _stored(path, 8 + header_bytes, entry) for name, entry in header.items()}
        end = 8 + header_bytes + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"[checkpoint] {path} must have a valid safetensors header, got: {error!r}") from None
    if end != file_bytes:
        raise ValueError(
            f"[checkpoint] {path} must be {end} bytes long as its header says, got {file_bytes}; download it again"
        )
    return stored


def _stored(path: Path, base: int, entry: dict[str, Any]) -> StoredTensor:
    begin, end = entry["data_offsets"]
    stored = StoredTensor(path, base + begin, _DTYPES[entry["dtype"]], tuple(entry["shape"]))
    if begin < 0 or end - begin != stored.num_bytes:
        raise ValueError(f"{entry} does not fill its bytes")
    return stored


def list_pth(path: Path) -> dict[str, StoredTensor]:
    """Tensors of a `torch.save`d state dict, none of them read and no code of the file run.

    Raises: ValueError where the file is cut short, or holds anything but a flat dictionary of tensors.
    """
    # Fake tensors know where their bytes lie in the file, which is all we need.
    from torch._subclasses.fake_tensor import FakeTensorMode

    if not zipfile.is_zipfile(path):
        raise ValueError(f"[checkpoint] {path} must be a whole zip file written by torch.save, it is not")
    try:
        with FakeTensorMode():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises whatever the file provokes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"[checkpoint] {path} must be a state dict of tensors alone, got: {reason}") from None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"[checkpoint] {path} must be a flat state dict, got {_describe(content)}")
    return {name: _stored_pth(path, name, tensor) for name, tensor in content.items()}


def _describe(content: object) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    odd = next((name for name, value in content.items() if not isinstance(value, Tensor)), "")
    return f"{type(content[odd]).__name__} under {odd!r}"


def _stored_pth(path: Path, name: str, tensor: Tensor) -> StoredTensor:
    if not tensor.is_contiguous():
        raise ValueError(f"[checkpoint] {path} must hold contiguous tensors, {name} is a strided view")
    start = tensor.untyped_storage()._checkpoint_offset or 0
    offset = start + int(tensor.storage_offset()) * tensor.itemsize
    return StoredTensor(path, offset, tensor.dtype, tuple(tensor.shape))


# A tensor to write, or the place to read it from when its turn comes.
Source = Tensor | StoredTensor


def write_safetensors(
    directory: Path,
    stem: str,
    tensors: Mapping[str, Source],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    advance: Callable[[int], object] = lambda num_bytes: None,
) -> list[Path]:
    """`stem.safetensors`, or shards of at most `max_shard_bytes` and their index. Returns the paths, index last.

    One shard at a time is in memory. Every file is written under a temporary name and renamed when all are complete.
    advance: told the bytes of each tensor as it is fetched.
    """
    from safetensors.torch import save_file

    shards = _split(tensors, max_shard_bytes)
    names = [f"{stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    if len(shards) == 1:
        names = [f"{stem}.safetensors"]

    def write_shard(keys: list[str]) -> Callable[[Path], None]:
        return lambda path: save_file(
            {key: _on_cpu(tensors[key], advance) for key in keys}, path, metadata={"format": "pt"}
        )

    writers = {name: write_shard(keys) for name, keys in zip(names, shards, strict=True)}
    if len(shards) > 1:
        total = sum(num_bytes(tensor) for tensor in tensors.values())
        shard_of = {key: name for name, keys in zip(names, shards, strict=True) for key in keys}
        index = json.dumps({"metadata": {"total_size": total}, "weight_map": shard_of}, indent=2, sort_keys=True)
        writers[f"{stem}{INDEX_SUFFIX}"] = _write_text(index + "\n")
    written = write_all(directory, writers)
    _remove_stale(directory, stem, keep=written)
    return written


def write_pth(
    directory: Path,
    stem: str,
    tensors: Mapping[str, Source],
    *,
    advance: Callable[[int], object] = lambda num_bytes: None,
) -> list[Path]:
    """`stem.pth`, a state dict that any PyTorch reads, weights only. All of it is in memory while it is written."""
    content = {name: _on_cpu(tensor, advance) for name, tensor in tensors.items()}
    written = write_all(directory, {f"{stem}.pth": lambda path: torch.save(content, path)})
    _remove_stale(directory, stem, keep=written)
    return written


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write one JSON file, whole or not at all."""
    text = json.dumps(content, indent=2) + "\n"
    return write_all(path.parent, {path.name: _write_text(text)})[0]


def _write_text(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


def write_all(directory: Path, writers: Mapping[str, Callable[[Path], None]]) -> list[Path]:
    """Run each writer on a temporary path, then rename all to their names; on any error none of them is left."""
    directory.mkdir(parents=True, exist_ok=True)
    temporary = {directory / name: directory / f".{name}.{os.getpid()}.part" for name in writers}
    try:
        for path, write in zip(temporary.values(), writers.values(), strict=True):
            write(path)
            # safetensors makes its files readable to their owner alone.
            path.chmod(0o666 & ~_umask())
        for final, path in temporary.items():
            path.replace(final)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    return list(temporary)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _split(tensors: Mapping[str, Source], max_shard_bytes: int) -> list[list[str]]:
    """Names in order, cut where the next tensor would pass the limit; a larger tensor has a shard of its own."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + num_bytes(tensor) > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += num_bytes(tensor)
    return shards


def num_bytes(tensor: Source) -> int:
    """Bytes of a tensor's values, in memory or on disk."""
    return tensor.num_bytes if isinstance(tensor, StoredTensor) else tensor.numel() * tensor.itemsize


def _on_cpu(tensor: Source, advance: Callable[[int], object]) -> Tensor:
    advance(num_bytes(tensor))
    # A clone, because safetensors refuses tensors that share memory.
    if isinstance(tensor, StoredTensor):
        return tensor.read()
    return tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)


def _remove_stale(directory: Path, stem: str, *, keep: Iterable[Path]) -> None:
    """Remove files of an earlier save under the same stem, which a reader might prefer to the new ones."""
    old = [directory / f"{stem}{suffix}" for suffix in (INDEX_SUFFIX, ".safetensors", ".pth")]
    for path in {*old, *directory.glob(f"{stem}-[0-9]*-of-[0-9]*.safetensors")} - set(keep):
        path.unlink(missing_ok=True)
