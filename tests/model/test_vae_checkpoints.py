"""Files of both kinds of VAE: the official layout names them apart, that of Diffusers by its config."""

from dataclasses import replace

import pytest
import torch
from tiny_networks import DIT, SAVERS, VAE, VAE_2_2, assert_same_weights, error_of, make_networks

from wan_model import config
from wan_model.checkpoints import convert, load_vae, save_diffusers, save_official
from wan_model.config import VAEConfig
from wan_model.layouts import detect_model
from wan_model.tensor_files import read_json
from wan_model.vae import WanVAE

KINDS = {"2.1": VAE, "2.2": VAE_2_2}


def make_vae(vae: VAEConfig) -> WanVAE:
    torch.manual_seed(0)
    return WanVAE(vae)


@pytest.mark.parametrize("layout", SAVERS)
@pytest.mark.parametrize("vae", KINDS.values(), ids=KINDS)
def test_round_trip_and_conversion_are_bitwise(vae, layout, tmp_path):
    network, other = make_vae(vae), {"official": "diffusers", "diffusers": "official"}[layout]
    SAVERS[layout](tmp_path / "one", vae=network)
    convert(tmp_path / "one", tmp_path / "two", to=other)
    convert(tmp_path / "two", tmp_path / "three", to=layout)
    for step in ("one", "two", "three"):
        loaded = load_vae(tmp_path / step)
        assert loaded.config == vae
        assert_same_weights(loaded, network)
    assert_same_weights(load_vae(tmp_path / "one", vae), network)


@pytest.mark.parametrize(("release", "vae"), KINDS.items(), ids=KINDS)
def test_official_file_is_that_of_the_release(release, vae, tmp_path):
    network = make_vae(vae)
    save_official(tmp_path, vae=network)
    assert {path.name for path in tmp_path.iterdir()} == {f"Wan{release}_VAE.pth", f"Wan{release}_VAE.config.json"}
    state = torch.load(tmp_path / f"Wan{release}_VAE.pth", weights_only=True)
    assert state.keys() == network.state_dict().keys()
    (tmp_path / f"Wan{release}_VAE.config.json").unlink()
    assert_same_weights(load_vae(tmp_path, vae), network)
    # Without a config of its own a file is taken for the published network.
    assert "misshapen" in error_of(load_vae, tmp_path)


def test_diffusers_reads_what_we_write_and_we_what_it_writes(tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="reads and writes the Diffusers layout")
    network = make_vae(VAE_2_2)
    save_diffusers(tmp_path / "ours", vae=network)
    theirs = diffusers.AutoencoderKLWan.from_pretrained(tmp_path / "ours" / "vae")
    assert torch.equal(
        theirs.decoder.up_blocks[1].upsampler.resample[1].weight,
        network.decoder.upsamples[1].upsamples[2].resample[1].weight,
    )
    theirs.save_pretrained(tmp_path / "theirs" / "vae")
    loaded = load_vae(tmp_path / "theirs")
    assert loaded.config == VAE_2_2
    assert_same_weights(loaded, network)


@pytest.mark.parametrize("layout", SAVERS)
def test_all_that_differs_is_named(layout, tmp_path):
    network = make_vae(VAE_2_2)
    SAVERS[layout](tmp_path, vae=network)
    message = error_of(load_vae, tmp_path, replace(VAE_2_2, decoder_dim=12, patch_size=1))
    assert "decoder_dim 12, patch_size 1, got decoder_dim 6, patch_size 2" in message
    message = error_of(load_vae, tmp_path, VAE)
    assert "has_level_shortcuts False" in message


@pytest.mark.parametrize(("release", "other"), [("2.1", "2.2"), ("2.2", "2.1")])
def test_of_two_vaes_the_model_takes_its_own(release, other, tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    networks = {name: make_vae(vae) for name, vae in KINDS.items()}
    for network in networks.values():
        save_official(one, vae=network)
    assert "must hold one VAE, got Wan2.1_VAE and Wan2.2_VAE" in error_of(load_vae, one)
    assert_same_weights(load_vae(one, KINDS[release]), networks[release])
    save_official(one, dits=[make_networks()["dits"]])
    preset = replace(config.get_preset("tiny"), name="toy", dit=DIT, vae=KINDS[release])
    monkeypatch.setitem(config.PRESETS, "toy", preset)
    assert detect_model(one).vae == KINDS[release]
    reason = "because no network that was converted takes them"
    with pytest.warns(UserWarning, match=rf"left out, {reason}: Wan{other}_VAE.pth$"):
        convert(one, two, to="diffusers")
    assert_same_weights(load_vae(two), networks[release])


def test_written_config_says_what_differs(tmp_path):
    save_diffusers(tmp_path, vae=make_vae(VAE_2_2))
    fields = read_json(tmp_path / "vae" / "config.json")
    expected = {
        "base_dim": 4, "decoder_base_dim": 6, "in_channels": 12, "out_channels": 12, "is_residual": True,
        "patch_size": 2, "scale_factor_spatial": 8, "scale_factor_temporal": 2,
    }  # fmt: skip
    assert {name: fields[name] for name in expected} == expected
