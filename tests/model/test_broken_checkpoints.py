"""What is wrong with a checkpoint's files is said in one line that names the file; nothing half written is left."""

import json
import struct
from pathlib import Path

import pytest
import torch
from tiny_networks import error_of, make_networks, save

from wan_model.checkpoints import convert, load_dit, load_vae, save_official
from wan_model.layouts import detect_layout


@pytest.fixture
def networks():
    return make_networks()


@pytest.fixture
def release(tmp_path, networks) -> Path:
    save("official", tmp_path / "release", networks, max_shard_bytes=8000)
    return tmp_path / "release"


def first_shard(directory: Path) -> Path:
    return sorted(directory.glob("*-of-*.safetensors"))[0]


def test_missing_shard(release):
    shard = first_shard(release)
    shard.unlink()
    with pytest.raises(FileNotFoundError):
        load_dit(release)
    assert str(shard) in error_of(load_dit, release)


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_truncated_shard(release, kept):
    shard = first_shard(release)
    shard.write_bytes(shard.read_bytes()[:kept])
    assert str(shard) in error_of(load_dit, release)


@pytest.mark.parametrize(
    "header",
    [
        b"version https://git-lfs.github.com/spec/v1\n",
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 9) + b"{not json",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 12) + b'{"a": {"b":1}}'[:12],
        struct.pack("<Q", 61) + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}       ' + b"\0" * 4,
        struct.pack("<Q", 61) + b'{"a":{"dtype":"X99","shape":[1],"data_offsets":[0,4]}}       ' + b"\0" * 4,
    ],
)
def test_corrupt_safetensors_header(release, header):
    shard = first_shard(release)
    shard.write_bytes(header)
    message = error_of(load_dit, release)
    assert str(shard) in message
    assert "header" in message


def edit_index(directory: Path, edit) -> Path:
    path = next(directory.glob("*.index.json"))
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


def test_index_that_names_a_missing_file(release):
    edit_index(release, lambda index: index["weight_map"].update({"head.head.bias": "nowhere.safetensors"}))
    assert "nowhere.safetensors must exist" in error_of(load_dit, release)


def test_index_that_disagrees_with_its_shards(release):
    path = edit_index(release, lambda index: index["weight_map"].pop("head.head.bias"))
    message = error_of(load_dit, release)
    assert str(path) in message
    assert "head.head.bias" in message


def test_index_that_leads_elsewhere(release):
    edit_index(release, lambda index: index["weight_map"].update({"head.head.bias": "../secret.safetensors"}))
    assert "must name files beside itself" in error_of(load_dit, release)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}'])
def test_broken_index(release, content):
    path = next(release.glob("*.index.json"))
    path.write_text(content)
    assert str(path) in error_of(load_dit, release)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "got a list"),
        ({"model": {"weight": torch.zeros(2)}}, "got dict under 'model'"),
        (torch.nn.Linear(2, 2), "Weights only load failed"),
        ({"a": torch.zeros(4, 4).t()}, "a is a strided view"),
    ],
)
def test_pth_of_something_else(release, content, reason):
    torch.save(content, release / "Wan2.1_VAE.pth")
    message = error_of(load_vae, release)
    assert str(release / "Wan2.1_VAE.pth") in message
    assert reason in message


def test_truncated_pth(release):
    path = release / "Wan2.1_VAE.pth"
    path.write_bytes(path.read_bytes()[:-2000])
    assert str(path) in error_of(load_vae, release)


def test_a_pth_never_runs_code(release, tmp_path):
    class Mine:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"a": Mine()}, release / "Wan2.1_VAE.pth")
    error_of(load_vae, release)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", ["", "{}", '{"dim": 24}', '{"dim": "wide"}', "[1]"])
def test_broken_config(release, content):
    (release / "config.json").write_text(content)
    assert str(release / "config.json") in error_of(load_dit, release)


def test_directories_that_hold_no_model(tmp_path):
    assert "must exist" in error_of(detect_layout, tmp_path / "none")
    assert "with neither" in error_of(detect_layout, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "got none of them" in error_of(convert, tmp_path, tmp_path / "out", to="diffusers")


def test_other_variants_of_the_networks_are_refused(tmp_path, networks):
    save("diffusers", tmp_path, networks)
    path = tmp_path / "vae" / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"attn_scales": [1.0]}))
    assert "attn_scales must be [], got [1.0]" in error_of(load_vae, tmp_path)
    path.write_text(json.dumps(fields | {"patch_size": 2}))
    assert "in_channels must be 12, got 3" in error_of(load_vae, tmp_path)
    path.write_text(json.dumps(fields | {"is_residual": True}))
    message = error_of(load_vae, tmp_path)
    assert "encoder.down_blocks.0.resnets.0.conv1.weight" in message
    assert "unexpected" in message


def test_convert_checks_everything_before_it_writes(release, tmp_path):
    (release / "Wan2.1_VAE.pth").write_bytes(b"PK")
    assert "Wan2.1_VAE.pth" in error_of(convert, release, tmp_path / "out", to="diffusers")
    assert not (tmp_path / "out").exists()
    assert "must not be the source" in error_of(convert, release, release, to="official")
    assert "layout must be one of" in error_of(convert, release, tmp_path / "out", to="onnx")


def test_failed_write_leaves_nothing_and_spares_what_was_there(tmp_path, networks, monkeypatch):
    save("official", tmp_path, networks)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*arguments, **options):
        Path(arguments[1]).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    monkeypatch.setattr("torch.save", fail)
    with pytest.raises(OSError, match="disk full"):
        save("official", tmp_path, networks)
    with pytest.raises(OSError, match="disk full"):
        save_official(tmp_path, vae=networks["vae"])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
