"""Where the networks of a model lie in its directory, and which model that is.

Two layouts are published: the official release (weights side by side, `.pth` for the VAE and the text encoder), and
that of Diffusers (a folder with a config for each network). A `Slot` is one network's place in one layout.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from torch import nn

from wan_model import conversion
from wan_model.config import (
    PRESETS,
    UMT5_XXL,
    WAN21_VAE,
    WAN22_VAE,
    DiTConfig,
    ModelConfig,
    TextEncoderConfig,
    VAEConfig,
)
from wan_model.dit import DiT
from wan_model.tensor_files import has_tensors, read_json
from wan_model.text_encoder import TextEncoder
from wan_model.vae import WanVAE

Layout = Literal["official", "diffusers"]
Config = TypeVar("Config", DiTConfig, VAEConfig, TextEncoderConfig)

# One folder where there is one transformer; two, the high-noise expert first, where there are two.
_DIT_FOLDER = {"official": ".", "diffusers": "transformer"}
_EXPERT_FOLDERS = {"official": ("high_noise_model", "low_noise_model"), "diffusers": ("transformer", "transformer_2")}
TOKENIZER_FOLDER = {"official": "google/umt5-xxl", "diffusers": "tokenizer"}


@dataclass(frozen=True)
class Slot(Generic[Config]):
    """Where one network lies in a model directory, and how its layout writes it.

    published: the config of a release that has no config file for this network.
    """

    network: str
    build: Callable[[Config], nn.Module]
    folder: Path
    stem: str
    config_name: str
    read_fields: Callable[[dict[str, Any]], Config]
    write_fields: Callable[[Config], dict[str, Any]]
    rename: Callable[[str, Config], str]
    published: Config | None = None
    is_pth: bool = False

    def exists(self) -> bool:
        return has_tensors(self.folder, self.stem)

    def read_config(self) -> Config:
        """What the config file says. Raises: FileNotFoundError, ValueError; both name the file."""
        path = self.folder / self.config_name
        if self.published is not None and not path.exists():
            return self.published
        content = read_json(path)
        try:
            return self.read_fields(content)
        except (ValueError, TypeError, KeyError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(
                f"[checkpoint] {path} must describe a {self.network} that we build, got: {reason}"
            ) from None

    def describes_itself(self) -> bool:
        return self.published is None or (self.folder / self.config_name).exists()


def _same_name(name: str, config: object) -> str:
    return name


def dit_slots(directory: Path, layout: Layout, *, num_experts: int | None = None) -> list[Slot[DiTConfig]]:
    """The DiT of a directory, or its high-noise and low-noise experts; counted on disk unless `num_experts` says."""
    if num_experts is None:
        num_experts = 2 if (directory / _EXPERT_FOLDERS[layout][1]).is_dir() else 1
    names = (_DIT_FOLDER[layout],) if num_experts == 1 else _EXPERT_FOLDERS[layout]
    if layout == "diffusers":
        read_fields, write_fields = conversion.read_diffusers_dit, conversion.write_diffusers_dit
    else:
        read_fields = conversion.read_official_dit if num_experts == 1 else conversion.read_official_expert
        write_fields = conversion.write_official_dit
    return [
        Slot(
            network="DiT",
            build=DiT,
            folder=directory / name,
            stem="diffusion_pytorch_model",
            config_name="config.json",
            read_fields=read_fields,
            write_fields=write_fields,
            rename=_same_name if layout == "official" else lambda name, config: conversion.diffusers_dit_name(name),
        )
        for name in names
    ]


def vae_slot(directory: Path, layout: Layout, config: VAEConfig) -> Slot[VAEConfig]:
    """The place of a VAE like `config`: the official layout names that of Wan 2.2, or one of its kind, apart."""
    if layout == "official":
        published = WAN22_VAE if config.has_level_shortcuts else WAN21_VAE
        stem = "Wan2.2_VAE" if config.has_level_shortcuts else "Wan2.1_VAE"
        return Slot(
            network="VAE",
            build=WanVAE,
            folder=directory,
            stem=stem,
            config_name=f"{stem}.config.json",
            read_fields=conversion.read_own_vae,
            write_fields=asdict,
            rename=_same_name,
            published=published,
            is_pth=True,
        )
    return Slot(
        network="VAE",
        build=WanVAE,
        folder=directory / "vae",
        stem="diffusion_pytorch_model",
        config_name="config.json",
        read_fields=conversion.read_diffusers_vae,
        write_fields=conversion.write_diffusers_vae,
        rename=lambda name, config: conversion.diffusers_vae_name(name, num_res_blocks=config.num_res_blocks),
    )


def find_vae_slot(directory: Path, layout: Layout, expected: VAEConfig | None = None) -> Slot[VAEConfig]:
    """The place of the VAE that lies in a directory; where both kinds do, or none, of the one `expected`.

    Raises: ValueError where both lie there and nothing is expected.
    """
    slots = [vae_slot(directory, layout, published) for published in (WAN21_VAE, WAN22_VAE)]
    present = {slot.stem: slot for slot in slots if slot.exists()}
    if len(present) == 1:
        return next(iter(present.values()))
    if expected is not None:
        return vae_slot(directory, layout, expected)
    if present:
        raise ValueError(f"[checkpoint] {directory} must hold one VAE, got {' and '.join(present)}; say which config")
    return slots[0]


def text_slot(directory: Path, layout: Layout) -> Slot[TextEncoderConfig]:
    if layout == "official":
        return Slot(
            network="text encoder",
            build=TextEncoder,
            folder=directory,
            stem="models_t5_umt5-xxl-enc-bf16",
            config_name="models_t5_umt5-xxl-enc-bf16.config.json",
            read_fields=conversion.read_own_text,
            write_fields=asdict,
            rename=_same_name,
            published=UMT5_XXL,
            is_pth=True,
        )
    return Slot(
        network="text encoder",
        build=TextEncoder,
        folder=directory / "text_encoder",
        stem="model",
        config_name="config.json",
        read_fields=conversion.read_diffusers_text,
        write_fields=conversion.write_diffusers_text,
        rename=lambda name, config: conversion.diffusers_text_name(name),
    )


def detect_layout(directory: str | Path) -> Layout:
    """Which of the two layouts a directory has. Raises: FileNotFoundError where it has neither."""
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"[checkpoint] model directory must exist, got {directory}")
    if any((directory / name).exists() for name in ("model_index.json", "transformer", "vae", "text_encoder")):
        return "diffusers"
    official: list[Slot[Any]] = [*dit_slots(directory, "official")]
    official += [vae_slot(directory, "official", published) for published in (WAN21_VAE, WAN22_VAE)]
    official.append(text_slot(directory, "official"))
    if any(slot.exists() for slot in official) or (directory / "config.json").is_file():
        return "official"
    raise FileNotFoundError(
        f"[checkpoint] model directory must hold config.json (official release) or model_index.json (Diffusers), "
        f"got {directory} with neither"
    )


def find_preset(directory: str | Path) -> ModelConfig | None:
    """The preset whose DiT a directory holds, if one does; where several share it, the directory's name decides."""
    directory = Path(directory)
    slots = dit_slots(directory, detect_layout(directory))
    shape = (slots[0].read_config(), len(slots))
    matches = [model for model in PRESETS.values() if (model.dit, model.num_experts) == shape]
    folder = directory.resolve().name.lower()
    named = sorted((match for match in matches if match.name.lower() in folder), key=lambda match: len(match.name))
    return next(iter(named[::-1] + matches), None)


def detect_model(directory: str | Path) -> ModelConfig:
    """The preset whose DiT a directory holds, with the VAE and text encoder that the directory describes.

    Raises: FileNotFoundError, ValueError; one line that names the file.
    """
    directory = Path(directory)
    layout, model = detect_layout(directory), find_preset(directory)
    if model is None:
        slots = dit_slots(directory, layout)
        path, dit = slots[0].folder / slots[0].config_name, slots[0].read_config()
        raise ValueError(
            f"[checkpoint] {path} must describe one of {', '.join(PRESETS)}, got {len(slots)} DiT of dim {dit.dim}, "
            f"{dit.num_layers} layers, {dit.in_dim} -> {dit.out_dim} channels"
        )
    vae, text = find_vae_slot(directory, layout, model.vae), text_slot(directory, layout)
    if vae.exists() and vae.describes_itself():
        model = replace(model, vae=vae.read_config())
    if text.exists() and text.describes_itself():
        model = replace(model, text=text.read_config())
    return model


def find_tokenizer(directory: str | Path) -> Path:
    """The folder of the tokenizer's files in a model directory. Raises: FileNotFoundError."""
    directory = Path(directory)
    path = directory / TOKENIZER_FOLDER[detect_layout(directory)]
    if not path.is_dir():
        raise FileNotFoundError(f"[checkpoint] tokenizer must lie in {path}, got no such folder")
    return path
