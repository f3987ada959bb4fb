"""Published weights in and out: official release directories and Diffusers directories, strict both ways.

A network is built without memory, its tensors are checked against what the files hold, and only then are they read, one
at a time, straight into their final dtype and device. Anything missing, unexpected or misshapen is named in one error.

    dit = load_dit("Wan2.1-T2V-1.3B", dtype=torch.bfloat16)
    convert("Wan2.1-T2V-1.3B", "Wan2.1-T2V-1.3B-Diffusers", to="diffusers")
"""

import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wan_model.config import DiTConfig, ModelConfig, TextEncoderConfig, VAEConfig
from wan_model.conversion import model_index, scheduler_config
from wan_model.dit import DiT
from wan_model.layouts import (
    TOKENIZER_FOLDER,
    Config,
    Layout,
    Slot,
    detect_layout,
    dit_slots,
    find_preset,
    find_vae_slot,
    text_slot,
    vae_slot,
)
from wan_model.tensor_files import (
    MAX_SHARD_BYTES,
    Source,
    StoredTensor,
    list_tensors,
    make_read_buffer,
    num_bytes,
    write_json,
    write_pth,
    write_safetensors,
)
from wan_model.text_encoder import TextEncoder
from wan_model.vae import WanVAE

PROGRESS_FROM_BYTES = 10**9

# The official default, for models that no preset describes.
DEFAULT_SHIFT = 5.0

# Lists longer than this are folded: blocks.{0-29}.norm3.weight.
MAX_NAMES = 60

# Transformers ties these two, and its files hold either or both.
_ALIASES = {"encoder.embed_tokens.weight": "shared.weight"}


def load_dit(
    directory: str | Path,
    config: DiTConfig | None = None,
    *,
    expert: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> DiT:
    """The DiT of a model directory; with two experts, 0 is the high-noise one and 1 the low-noise one.

    config: what the directory must hold; None takes what it says.
    dtype: of the floating weights; None keeps that of the files.
    Numerics: a change of dtype rounds each value once. Peak host memory is the model plus a 4 MB buffer.
    Raises: FileNotFoundError, ValueError; one line that names the file and all that is wrong with its tensors.
    """
    slots = dit_slots(Path(directory), detect_layout(directory))
    if not 0 <= expert < len(slots):
        raise ValueError(f"[checkpoint] expert must be below {len(slots)} for {directory}, got {expert}")
    model = _load(slots[expert], config, dtype, device)
    assert isinstance(model, DiT)
    return model


def load_vae(
    directory: str | Path,
    config: VAEConfig | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> WanVAE:
    """The VAE of a model directory; arguments and errors as for `load_dit`."""
    model = _load(find_vae_slot(Path(directory), detect_layout(directory), config), config, dtype, device)
    assert isinstance(model, WanVAE)
    return model


def load_text_encoder(
    directory: str | Path,
    config: TextEncoderConfig | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> TextEncoder:
    """The text encoder of a model directory; arguments and errors as for `load_dit`."""
    model = _load(text_slot(Path(directory), detect_layout(directory)), config, dtype, device)
    assert isinstance(model, TextEncoder)
    return model


def _load(
    slot: Slot[Config], config: Config | None, dtype: torch.dtype | None, device: torch.device | str
) -> nn.Module:
    config = _agree(slot, config)
    model, stored = _match(slot, config)
    buffer = make_read_buffer()
    with _progress(f"loading {slot.network}", sum(tensor.num_bytes for tensor in stored.values())) as advance:
        # In the order of the files, so that a disk reads forward.
        for name, tensor in sorted(stored.items(), key=lambda item: (item[1].path, item[1].offset)):
            parent, _, leaf = name.rpartition(".")
            value = tensor.read(dtype=dtype, device=device, buffer=buffer)
            model.get_submodule(parent).load_state_dict({leaf: value}, strict=False, assign=True)
            advance(tensor.num_bytes)
    return model.eval()


def _agree(slot: Slot[Config], config: Config | None) -> Config:
    """The config to build: what the file says, which must be what was asked for where something was."""
    if config is not None and not slot.describes_itself():
        return config
    found = slot.read_config()
    if config is None or config == found:
        return found
    names = [field.name for field in fields(config) if getattr(config, field.name) != getattr(found, field.name)]
    wanted, got = (", ".join(f"{name} {getattr(c, name)}" for name in names) for c in (config, found))
    raise ValueError(
        f"[checkpoint] {slot.folder / slot.config_name} must describe the {slot.network} asked for, with {wanted}, "
        f"got {got}; choose the model that this directory holds"
    )


def _match(slot: Slot[Config], config: Config) -> tuple[nn.Module, dict[str, StoredTensor]]:
    """The network without memory, and where each of its tensors is stored.

    Raises: ValueError naming all that differs.
    """
    stored = {_ALIASES.get(name, name): tensor for name, tensor in list_tensors(slot.folder, slot.stem).items()}
    with torch.device("meta"):
        model = slot.build(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: slot.rename(name, config) for name in shapes}
    missing = [their for their in theirs.values() if their not in stored]
    unexpected = sorted(stored.keys() - set(theirs.values()))
    misshapen = [
        f"{their} {list(stored[their].shape)} instead of {list(shapes[name])}"
        for name, their in theirs.items()
        if their in stored and stored[their].shape != shapes[name]
    ]
    complaints = [
        f"{len(names)} {what} ({', '.join(_fold(names))})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if names
    ]
    if complaints:
        raise ValueError(
            f"[checkpoint] {slot.folder / slot.stem}.* must hold exactly the tensors of the {slot.network}, "
            f"got {'; '.join(complaints)}"
        )
    return model, {name: stored[their] for name, their in theirs.items()}


def _fold(names: Sequence[str]) -> list[str]:
    """Long lists, folded over their first number: every name is still said, once per kind of tensor."""
    if len(names) <= MAX_NAMES:
        return list(names)
    numbers: dict[str, list[int]] = {}
    for name in names:
        pattern = re.sub(r"\d+", "{}", name, count=1)
        numbers.setdefault(pattern, []).extend(int(n) for n in re.findall(r"\d+", name)[:1])
    return [pattern.replace("{}", _ranges(found), 1) for pattern, found in numbers.items()]


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> {0-2,5}; a single number stays as it is."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    return texts[0] if texts and len(set(numbers)) == 1 else f"{{{','.join(texts)}}}"


def save_official(
    directory: str | Path,
    *,
    dits: Sequence[DiT] = (),
    vae: WanVAE | None = None,
    text_encoder: TextEncoder | None = None,
    tokenizer: str | Path | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> list[Path]:
    """Write networks as an official release does; what is not given is left alone. Returns the files written.

    Each file is written under a temporary name and renamed when it is complete. dits: one, or high noise then low.
    """
    return _save(Path(directory), "official", dits, vae, text_encoder, tokenizer, max_shard_bytes)


def save_diffusers(
    directory: str | Path,
    *,
    dits: Sequence[DiT] = (),
    vae: WanVAE | None = None,
    text_encoder: TextEncoder | None = None,
    tokenizer: str | Path | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> list[Path]:
    """Write networks as Diffusers does, each with its config in its own folder; otherwise as `save_official`."""
    return _save(Path(directory), "diffusers", dits, vae, text_encoder, tokenizer, max_shard_bytes)


def _save(
    directory: Path,
    layout: Layout,
    dits: Sequence[DiT],
    vae: WanVAE | None,
    text_encoder: TextEncoder | None,
    tokenizer: str | Path | None,
    max_shard_bytes: int,
) -> list[Path]:
    written: list[Path] = []
    if dits:
        for slot, dit in zip(dit_slots(directory, layout, num_experts=len(dits)), dits, strict=True):
            written += _write(slot, dit.config, dit.state_dict(), max_shard_bytes)
    if vae is not None:
        written += _write(vae_slot(directory, layout, vae.config), vae.config, vae.state_dict(), max_shard_bytes)
    if text_encoder is not None:
        written += _write(text_slot(directory, layout), text_encoder.config, text_encoder.state_dict(), max_shard_bytes)
    return written + _finish(directory, layout, tokenizer)


def _write(slot: Slot[Config], config: Config, tensors: Mapping[str, Source], max_shard_bytes: int) -> list[Path]:
    """One network: its weights, then its config, where the layout or the network needs one."""
    renamed = {slot.rename(name, config): tensor for name, tensor in tensors.items()}
    total = sum(num_bytes(tensor) for tensor in tensors.values())
    with _progress(f"writing {slot.network}", total) as advance:
        write = write_pth if slot.is_pth else partial(write_safetensors, max_shard_bytes=max_shard_bytes)
        written: list[Path] = write(slot.folder, slot.stem, renamed, advance=advance)
    config_path = slot.folder / slot.config_name
    if config == slot.published:
        config_path.unlink(missing_ok=True)
        return written
    return [*written, write_json(config_path, slot.write_fields(config))]


def _finish(
    directory: Path, layout: Layout, tokenizer: str | Path | None, preset: ModelConfig | None = None
) -> list[Path]:
    """The tokenizer's files; in a Diffusers directory also the solver, and the index of what the directory holds."""
    written: list[Path] = []
    if tokenizer is not None:
        target = directory / TOKENIZER_FOLDER[layout]
        if Path(tokenizer).resolve() != target.resolve():
            shutil.copytree(tokenizer, target, dirs_exist_ok=True)
        written += sorted(path for path in target.iterdir() if path.is_file())
    if layout == "diffusers":
        shift, boundary = (preset.sampling.shift, preset.expert_boundary) if preset else (DEFAULT_SHIFT, 0.0)
        written.append(write_json(directory / "scheduler" / "scheduler_config.json", scheduler_config(shift)))
        index = model_index([path.name for path in directory.iterdir() if path.is_dir()], boundary)
        written.append(write_json(directory / "model_index.json", index))
    return written


def convert(
    source: str | Path, target: str | Path, *, to: Layout, max_shard_bytes: int = MAX_SHARD_BYTES
) -> list[Path]:
    """Write the model at `source` in the other layout (or re-shard it in the same one). Returns the files written.

    Values and dtypes do not change; weights that no network built here takes are left out, with a warning. Host memory
    holds one shard, or one `.pth` file, at a time.
    Raises: FileNotFoundError, ValueError; one line that names the file.
    """
    source, target = Path(source), Path(target)
    layout = detect_layout(source)
    if to not in TOKENIZER_FOLDER:
        raise ValueError(f"[convert] layout must be one of {', '.join(TOKENIZER_FOLDER)}, got {to!r}")
    if source.resolve() == target.resolve():
        raise ValueError(f"[convert] target must not be the source itself, got {target}")
    sources = dit_slots(source, layout)
    targets = dit_slots(target, to, num_experts=len(sources))
    pairs: list[tuple[Slot[Any], Slot[Any]]] = list(zip(sources, targets, strict=True))
    preset = find_preset(source) if sources[0].exists() else None
    vae = find_vae_slot(source, layout, preset.vae if preset else None)
    if vae.exists():
        pairs.append((vae, vae_slot(target, to, vae.read_config())))
    pairs.append((text_slot(source, layout), text_slot(target, to)))
    # All of them are checked before anything is written.
    checked: list[tuple[Slot[Any], Any, dict[str, StoredTensor]]]
    checked = [(place, *_open(found)) for found, place in pairs if found.exists()]
    if not checked:
        raise FileNotFoundError(f"[convert] {source} must hold a DiT, a VAE or a text encoder, got none of them")
    if left_out := _left_out(source, [found for found, _ in pairs]):
        reason = "because no network that was converted takes them"
        warnings.warn(f"[convert] left out, {reason}: {', '.join(left_out)}", stacklevel=2)
    written: list[Path] = []
    for place, config, tensors in checked:
        written += _write(place, config, tensors, max_shard_bytes)
    tokenizer = source / TOKENIZER_FOLDER[layout]
    return written + _finish(target, to, tokenizer if tokenizer.is_dir() else None, preset)


def _open(slot: Slot[Any]) -> tuple[Any, dict[str, StoredTensor]]:
    """A network's config and where its tensors are stored, under their official names."""
    config = slot.read_config()
    return config, _match(slot, config)[1]


def _left_out(source: Path, slots: Sequence[Slot[Any]]) -> list[str]:
    """Weight files in a model directory that belong to none of its networks."""
    paths = [path for pattern in ("*.pth", "*.safetensors", "*/*.safetensors") for path in source.glob(pattern)]
    return sorted(
        path.relative_to(source).as_posix()
        for path in paths
        if not any(path.parent == slot.folder and path.name.startswith(slot.stem) for slot in slots)
    )


@contextmanager
def _progress(title: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for work that takes long enough to wonder; yields what to call with bytes done."""
    if total_bytes < PROGRESS_FROM_BYTES:
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total_bytes)
        yield partial(bar.advance, task)
