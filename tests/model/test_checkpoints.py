"""Both published layouts in and out, bitwise and within the memory of the model; strict about every tensor."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_networks import DIT, LOADERS, SAVERS, TEXT, VAE, assert_same_weights, error_of, make_networks, save

from wan_model import checkpoints, config
from wan_model.checkpoints import convert, load_dit, load_text_encoder, load_vae, save_diffusers, save_official
from wan_model.config import DiTConfig, ModelConfig, TextEncoderConfig
from wan_model.dit import DiT
from wan_model.layouts import detect_layout, detect_model, find_tokenizer
from wan_model.tensor_files import read_json
from wan_model.text_encoder import TextEncoder
from wan_model.tokenizer import Tokenizer, build_word_tokenizer


@pytest.fixture
def networks():
    return make_networks()


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    return build_word_tokenizer(["a", "red", "circle"], tmp_path / "words").parent


# Round trips


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", SAVERS)
def test_round_trip_is_bitwise(layout, dtype, tmp_path, networks, tokenizer):
    for network in networks.values():
        network.to(dtype)
    save(layout, tmp_path / "model", networks, tokenizer=tokenizer)
    assert detect_layout(tmp_path / "model") == layout
    for part, network in networks.items():
        loaded = LOADERS[part](tmp_path / "model")
        assert loaded.config == network.config
        assert_same_weights(loaded, network)
    assert Tokenizer(find_tokenizer(tmp_path / "model"), text_len=4)(["red"])[0].tolist() == [[4, 1, 0, 0]]


@pytest.mark.parametrize("layout", SAVERS)
def test_shards_round_trip_and_replace_what_was_there(layout, tmp_path, networks):
    save(layout, tmp_path, networks)
    written = save(layout, tmp_path, networks, max_shard_bytes=8000)
    shards = [path for path in written if "-of-" in path.name and path.parent.name in (tmp_path.name, "transformer")]
    assert len(shards) > 2
    assert all(path.exists() for path in written)
    # safetensors would make them private to their owner.
    plain = tmp_path / "plain"
    plain.touch()
    assert {path.stat().st_mode for path in written} == {plain.stat().st_mode}
    # A whole file left beside the shards would be a second truth.
    assert not (shards[0].parent / "diffusion_pytorch_model.safetensors").exists()
    assert_same_weights(load_dit(tmp_path), networks["dits"])
    save(layout, tmp_path, networks)
    assert not list(shards[0].parent.glob("*-of-*"))
    assert not list(shards[0].parent.glob("*.index.json"))
    assert_same_weights(load_dit(tmp_path), networks["dits"])


@pytest.mark.parametrize("layout", SAVERS)
def test_two_experts_round_trip(layout, tmp_path):
    high, low = DiT(DIT), DiT(DIT)
    SAVERS[layout](tmp_path, dits=[high, low])
    assert_same_weights(load_dit(tmp_path, expert=0), high)
    assert_same_weights(load_dit(tmp_path, expert=1), low)
    assert "expert must be below 2" in error_of(load_dit, tmp_path, expert=2)


@pytest.mark.parametrize("layout", SAVERS)
def test_parts_may_be_saved_apart(layout, tmp_path, networks):
    SAVERS[layout](tmp_path, vae=networks["vae"])
    SAVERS[layout](tmp_path, dits=[networks["dits"]])
    assert_same_weights(load_vae(tmp_path), networks["vae"])
    assert_same_weights(load_dit(tmp_path), networks["dits"])
    assert "must hold" in error_of(load_text_encoder, tmp_path, TEXT) or layout == "diffusers"


@pytest.mark.parametrize(("source", "target"), [("official", "diffusers"), ("diffusers", "official")])
def test_convert_there_and_back_is_bitwise(source, target, tmp_path, networks, tokenizer):
    save(source, tmp_path / "one", networks, tokenizer=tokenizer, max_shard_bytes=9000)
    convert(tmp_path / "one", tmp_path / "two", to=target, max_shard_bytes=20000)
    convert(tmp_path / "two", tmp_path / "three", to=source)
    for step, layout in (("two", target), ("three", source)):
        assert detect_layout(tmp_path / step) == layout
        for part, network in networks.items():
            loaded = LOADERS[part](tmp_path / step)
            assert loaded.config == network.config
            assert_same_weights(loaded, network)
        assert find_tokenizer(tmp_path / step).is_dir()


def test_channels_last_and_shared_weights_are_written(tmp_path, networks):
    vae = networks["vae"]
    vae.decoder.conv1.weight.data = vae.decoder.conv1.weight.data.to(memory_format=torch.channels_last_3d)
    vae.conv1.bias = vae.encoder.head[2].bias
    save_diffusers(tmp_path, vae=vae)
    assert_same_weights(load_vae(tmp_path), vae)


def test_dtype_is_cast_once(tmp_path, networks):
    save("official", tmp_path, networks)
    loaded = load_dit(tmp_path, dtype=torch.bfloat16)
    assert_same_weights(loaded, networks["dits"].to(torch.bfloat16))


def test_loaded_networks_can_be_trained(tmp_path, networks):
    save("diffusers", tmp_path, networks)
    encoder = load_text_encoder(tmp_path)
    encoder(torch.ones(1, 3, dtype=torch.int64), torch.ones(1, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


# The other side of each layout


def diffusers_transformer(directory: Path) -> torch.nn.Module:
    """What from_pretrained does; it needs accelerate for this one class."""
    import diffusers
    from safetensors.torch import load_file

    kind = diffusers.WanTransformer3DModel
    model = kind.from_config(kind.load_config(directory))
    state = {name: tensor for path in directory.glob("*.safetensors") for name, tensor in load_file(path).items()}
    model.load_state_dict(state)
    return model


def test_diffusers_and_transformers_read_what_we_write(tmp_path, networks):
    diffusers = pytest.importorskip("diffusers", reason="reads the Diffusers layout")
    transformers = pytest.importorskip("transformers", reason="reads the text encoder")
    save("diffusers", tmp_path, networks, max_shard_bytes=30000)
    theirs = diffusers_transformer(tmp_path / "transformer")
    assert torch.equal(theirs.blocks[1].norm2.weight, networks["dits"].blocks[1].norm3.weight)
    assert torch.equal(theirs.proj_out.weight, networks["dits"].head.head.weight)
    vae = diffusers.AutoencoderKLWan.from_pretrained(tmp_path, subfolder="vae")
    assert vae.config.latents_mean == list(VAE.latents_mean)
    assert torch.equal(
        vae.decoder.up_blocks[1].resnets[0].conv1.weight, networks["vae"].decoder.upsamples[3].residual[2].weight
    )
    text = transformers.UMT5EncoderModel.from_pretrained(tmp_path, subfolder="text_encoder")
    assert torch.equal(text.encoder.embed_tokens.weight, networks["text_encoder"].token_embedding.weight)
    ids = torch.tensor([[3, 4, 1]])
    with torch.no_grad():
        expected = text(ids).last_hidden_state
        assert (networks["text_encoder"](ids, ids > 0) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_we_read_what_diffusers_and_transformers_write(tmp_path, networks):
    diffusers = pytest.importorskip("diffusers", reason="writes the Diffusers layout")
    transformers = pytest.importorskip("transformers", reason="writes the text encoder")
    save("diffusers", tmp_path / "ours", networks)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    diffusers_transformer(ours / "transformer").save_pretrained(theirs / "transformer", max_shard_size="20KB")
    diffusers.AutoencoderKLWan.from_pretrained(ours / "vae").save_pretrained(theirs / "vae")
    transformers.UMT5EncoderModel.from_pretrained(ours / "text_encoder").save_pretrained(theirs / "text_encoder")
    assert len(list((theirs / "transformer").glob("*.safetensors"))) > 1
    assert detect_layout(tmp_path / "theirs") == "diffusers"
    dit = load_dit(tmp_path / "theirs")
    assert dit.config == DIT
    assert_same_weights(dit, networks["dits"])
    assert_same_weights(load_vae(tmp_path / "theirs", VAE), networks["vae"])
    assert_same_weights(load_text_encoder(tmp_path / "theirs", TEXT), networks["text_encoder"])


def test_official_files_are_what_a_release_holds(tmp_path, networks, tokenizer):
    save("official", tmp_path / "model", networks, tokenizer=tokenizer)
    names = {path.relative_to(tmp_path / "model").as_posix() for path in (tmp_path / "model").rglob("*.*")}
    assert {
        "config.json", "diffusion_pytorch_model.safetensors", "Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth",
        "google/umt5-xxl/tokenizer.json",
    } <= names  # fmt: skip
    described = read_json(tmp_path / "model" / "config.json")
    assert described["model_type"] == "t2v"
    assert described["dim"] == DIT.dim
    state = torch.load(tmp_path / "model" / "Wan2.1_VAE.pth", weights_only=True)
    assert torch.equal(state["conv2.bias"], networks["vae"].conv2.bias)


def test_a_release_without_extra_files_takes_the_published_configs(tmp_path, networks):
    save("official", tmp_path, networks)
    for extra in tmp_path.glob("*.config.json"):
        extra.unlink()
    assert_same_weights(load_vae(tmp_path, VAE), networks["vae"])
    assert_same_weights(load_text_encoder(tmp_path, TEXT), networks["text_encoder"])
    assert "misshapen" in error_of(load_vae, tmp_path)


def test_conversion_writes_the_solver_and_the_index(tmp_path, networks, tokenizer, preset, monkeypatch):
    experts = replace(preset, num_experts=2, expert_boundary=0.875, sampling=replace(preset.sampling, shift=12.0))
    monkeypatch.setitem(config.PRESETS, "toy", experts)
    high, low = DiT(DIT), DiT(DIT)
    save_official(tmp_path / "one", dits=[high, low], vae=networks["vae"], tokenizer=tokenizer)
    convert(tmp_path / "one", tmp_path / "two", to="diffusers")
    assert_same_weights(load_dit(tmp_path / "two", expert=1), low)
    index = read_json(tmp_path / "two" / "model_index.json")
    assert index["boundary_ratio"] == 0.875
    assert {name for name in index if (tmp_path / "two" / name).is_dir()} == {
        path.name for path in (tmp_path / "two").iterdir() if path.is_dir()
    }
    assert {"transformer", "transformer_2", "vae", "tokenizer", "scheduler"} <= index.keys()
    diffusers = pytest.importorskip("diffusers", reason="reads the scheduler")
    scheduler = diffusers.UniPCMultistepScheduler.from_pretrained(tmp_path / "two", subfolder="scheduler")
    assert scheduler.config.flow_shift == 12.0
    assert scheduler.config.use_flow_sigmas


def test_conversion_says_what_it_leaves_out(tmp_path, networks):
    save("official", tmp_path / "one", networks, max_shard_bytes=8000)
    torch.save({}, tmp_path / "one" / "clip.pth")
    reason = "because no network that was converted takes them"
    with pytest.warns(UserWarning, match=rf"^\[convert\] left out, {reason}: clip.pth$"):
        convert(tmp_path / "one", tmp_path / "two", to="diffusers")


# Which model it is


@pytest.fixture
def preset(monkeypatch) -> ModelConfig:
    preset = replace(config.get_preset("tiny"), name="toy", dit=DIT)
    monkeypatch.setitem(config.PRESETS, "toy", preset)
    return preset


@pytest.mark.parametrize("layout", SAVERS)
def test_preset_is_detected_with_the_networks_of_the_directory(layout, tmp_path, networks, preset):
    save(layout, tmp_path, networks)
    assert detect_model(tmp_path) == replace(preset, vae=VAE, text=TEXT)


@pytest.mark.parametrize("layout", SAVERS)
def test_unknown_shape_is_refused(layout, tmp_path, networks):
    save(layout, tmp_path, networks)
    message = error_of(detect_model, tmp_path)
    assert "must describe one of tiny" in message
    assert "dim 24, 2 layers" in message


def test_directory_name_decides_between_presets_of_one_shape(tmp_path, networks, preset, monkeypatch):
    monkeypatch.setitem(config.PRESETS, "toy-720p", replace(preset, name="toy-720P"))
    for name in ("toy-480p", "toy-720p"):
        save("official", tmp_path / name, networks)
    assert detect_model(tmp_path / "toy-480p").name == "toy"
    assert detect_model(tmp_path / "toy-720p").name == "toy-720P"


@pytest.mark.parametrize("layout", SAVERS)
def test_wrong_checkpoint_for_the_preset_is_one_clear_line(layout, tmp_path, networks):
    save(layout, tmp_path, networks)
    message = error_of(load_dit, tmp_path, replace(DIT, dim=48, num_layers=5))
    assert "with dim 48, num_layers 5, got dim 24, num_layers 2" in message
    assert "config.json" in message


# Strict about tensors


@pytest.mark.parametrize("layout", SAVERS)
def test_all_that_differs_is_named_in_one_error(layout, tmp_path, networks):
    from safetensors.torch import load_file, save_file

    path = next(p for p in save(layout, tmp_path, networks) if p.name == "diffusion_pytorch_model.safetensors")
    state = load_file(path)
    gone, bent = sorted(state)[3], sorted(state)[5]
    del state[gone]
    state[bent] = torch.zeros(7, 3)
    state["stranger.weight"] = torch.zeros(2)
    save_file(state, path)
    message = error_of(load_dit, tmp_path)
    assert f"1 missing ({gone})" in message
    assert "1 unexpected (stranger.weight)" in message
    assert f"1 misshapen ({bent} [7, 3] instead of" in message
    assert str(path.parent) in message


def test_long_lists_are_folded_but_complete():
    names = [f"blocks.{i}.{part}" for i in range(30) for part in ("q", "k", "v")] + ["head"]
    del names[3 * 7 + 1]  # blocks.7.k
    assert checkpoints._fold(names) == ["blocks.{0-29}.q", "blocks.{0-6,8-29}.k", "blocks.{0-29}.v", "head"]
    assert checkpoints._fold(names[:5]) == names[:5]


# Memory and progress

PEAK_SCRIPT = """
import re, sys
import torch
from pathlib import Path
from wan_model.checkpoints import load_dit, load_text_encoder

def status(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

load, warm, directory, dtype = globals()[sys.argv[1]], sys.argv[2], sys.argv[3], getattr(torch, sys.argv[4])
load(warm)  # imports and caches are not the model's
before = status("VmRSS")
model = load(directory, dtype=dtype)
size = sum(p.numel() * p.itemsize for p in model.parameters())
assert size > 120e6, size
print((status("VmHWM") - before) / size)
"""


@pytest.mark.parametrize(
    ("loader", "dtype"), [("load_dit", "float32"), ("load_dit", "bfloat16"), ("load_text_encoder", "float32")]
)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_loading_peaks_below_1_2_times_the_model(loader, dtype, tmp_path, networks):
    save("official", tmp_path / "small", networks)
    with torch.device("meta"):
        dit = DiT(DiTConfig(dim=1280, ffn_dim=5120, num_heads=10, num_layers=2, text_dim=1024))
        text = TextEncoder(TextEncoderConfig(vocab_size=60000, dim=768, ffn_dim=2048, num_heads=12, num_layers=2))
    if loader == "load_dit":
        save_official(tmp_path / "large", dits=[dit.to_empty(device="cpu")])
    else:
        save_official(tmp_path / "large", text_encoder=text.to_empty(device="cpu"))
    command = [sys.executable, "-c", PEAK_SCRIPT, loader, str(tmp_path / "small"), str(tmp_path / "large"), dtype]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    shutil.rmtree(tmp_path / "large")
    assert float(output) < 1.2


def test_progress_goes_to_stderr(tmp_path, networks, monkeypatch, capsys):
    save("official", tmp_path, networks)
    load_dit(tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(checkpoints, "PROGRESS_FROM_BYTES", 0)
    load_dit(tmp_path)
    captured = capsys.readouterr()
    assert "loading DiT" in captured.err
    assert captured.out == ""
