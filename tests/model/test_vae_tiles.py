"""Tiles: their weights sum to 1, one tile is no tiling, and seams are as small as they are said to be."""

import errno
import gc
import io
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from clips import drawn

from wan_model.checkpoints import load_vae
from wan_model.config import WAN22_VAE, VAEConfig
from wan_model.metrics import psnr
from wan_model.pipeline import find_model
from wan_model.quantize import sqnr_db
from wan_model.vae import WanVAE
from wan_model.vae_tiles import DEFAULT_OVERLAP, Spool, Tiling, at_most, decode_tiles, encode_tiles, evenly, whole

CONFIG = VAEConfig(
    dim=4, dim_mult=(1, 1, 2, 2), num_res_blocks=1, latents_mean=(0.1,) * 16, latents_std=(1.5,) * 16
)  # fmt: skip
FRAME, TILE = (4, 5), (3, 3)
LENGTHS = (1, 5, 17)


@pytest.fixture(scope="module", params=["2.1", "2.2"])
def vae(request) -> WanVAE:
    torch.manual_seed(0)
    if request.param == "2.1":
        return WanVAE(CONFIG).eval()
    return WanVAE(VAEConfig(**{**vars(WAN22_VAE), "dim": 4, "decoder_dim": 4, "num_res_blocks": 1})).eval()


def video_of(vae: WanVAE, num_frames: int, frame: tuple[int, int] = FRAME) -> torch.Tensor:
    height, width = (side * vae.config.spatial_stride for side in frame)
    return torch.rand(1, 3, num_frames, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def latents_of(vae: WanVAE, num_latents: int, frame: tuple[int, int] = FRAME) -> torch.Tensor:
    return torch.randn(1, vae.config.z_dim, num_latents, *frame, generator=torch.Generator().manual_seed(2))


def joined(parts) -> torch.Tensor:
    return torch.cat(list(parts), dim=2)


@pytest.mark.parametrize("scale", [1, 8])
@pytest.mark.parametrize(("frame", "tile", "overlap"), [
    ((6, 9), (4, 4), 1), ((6, 9), (6, 4), 2), ((45, 80), (16, 24), 8), ((17, 16), (16, 16), 8), ((5, 5), (5, 5), 2),
    ((33, 47), (16, 17), 8),
])  # fmt: skip
def test_weights_sum_to_one_everywhere_and_are_never_negative(frame, tile, overlap, scale):
    tiling = Tiling(frame, tile, overlap)
    total = torch.zeros(frame[0] * scale, frame[1] * scale)
    for (rows, columns), weight in zip(tiling.windows(scale), tiling.weights(scale), strict=True):
        assert weight.min() >= 0
        total[rows, columns] += weight
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)


def test_an_edge_inside_the_frame_weighs_nothing_and_that_of_the_frame_all():
    left, right = Tiling((8, 24), (8, 16), 8).weights(8)
    assert left[:, : 8 * 8].eq(1).all() and left[:, -16:].eq(0).all()
    assert right[:, -8 * 8 :].eq(1).all() and right[:, :16].eq(0).all()


def test_neighbours_overlap_as_asked_and_tiles_are_no_larger_than_needed():
    tiling = at_most((48, 64), (90, 160), 8)
    rows, columns = tiling.starts
    assert (len(rows), len(columns)) == (3, 3) and tiling.tile == (36, 59)
    for starts, side, length in ((rows, 36, 90), (columns, 59, 160)):
        assert starts[0] == 0 and starts[-1] + side == length
        assert all(first + side - second >= 8 for first, second in pairwise(starts))
    assert at_most((500, 500), (90, 160), 8) == evenly((90, 160), (1, 1), 8)


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("num_frames", LENGTHS)
def test_one_tile_is_no_tiling_bit_for_bit(vae, num_frames, chunk):
    video, latents = video_of(vae, num_frames), latents_of(vae, (num_frames + 3) // 4)
    assert torch.equal(joined(encode_tiles(vae, lambda: [video], whole(*FRAME), chunk)), vae.encode(video, chunk))
    assert torch.equal(joined(decode_tiles(vae, lambda: [latents], whole(*FRAME), chunk)), vae.decode(latents, chunk))


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("num_frames", LENGTHS)
def test_tiles_are_the_blend_of_their_windows(vae, num_frames, chunk):
    """Bit for bit each window on its own, rounded, weighted and added, however the pieces are cut."""
    tiling = Tiling(FRAME, TILE, 1)
    space = vae.config.spatial_stride
    video, latents = video_of(vae, num_frames), latents_of(vae, (num_frames + 3) // 4)
    expected_z, expected = torch.zeros_like(latents), torch.zeros_like(video)
    small, large = (list(zip(tiling.windows(s), tiling.weights(s), strict=True)) for s in (1, space))
    for ((y, x), weight), ((rows, columns), pixel_weight) in zip(small, large, strict=True):
        expected_z[..., y, x] += weight * vae.encode(video[..., rows, columns], chunk)
        expected[..., rows, columns] += pixel_weight * vae.decode(latents[..., y, x], chunk).half().float()
    coded = list(encode_tiles(vae, lambda: video.split(3, dim=2), tiling, chunk))
    shown = list(decode_tiles(vae, lambda: latents.split(2, dim=2), tiling, chunk))
    assert [part.shape[2] for part in shown] == [part.shape[2] for part in vae.decode_stream([latents], chunk)]
    assert [part.shape[2] for part in coded] == [part.shape[2] for part in vae.encode_stream([video], chunk)]
    assert torch.equal(joined(coded), expected_z) and torch.equal(joined(shown), expected)


def test_bf16_stays_bf16(vae):
    half = WanVAE(vae.config).eval().bfloat16()
    tiling = Tiling(FRAME, TILE, 1)
    assert joined(encode_tiles(half, lambda: [video_of(vae, 1)], tiling)).dtype == torch.bfloat16
    assert joined(decode_tiles(half, lambda: [latents_of(vae, 1)], tiling)).dtype == torch.bfloat16


def test_a_stream_that_ends_in_the_middle_or_is_of_another_frame_is_named(vae):
    tiling = Tiling(FRAME, TILE, 1)
    with pytest.raises(ValueError, match=r"\[vae\] number of frames must be 4n \+ 1, got 6; 5 or 9 would do"):
        list(encode_tiles(vae, lambda: video_of(vae, 6).split(1, dim=2), tiling, chunk=2))
    with pytest.raises(ValueError, match=r"\[vae\] pieces must have 4x5 rows and columns, as the tiling has, got 4x4"):
        list(decode_tiles(vae, lambda: [latents_of(vae, 1, (4, 4))], tiling))
    with pytest.raises(ValueError, match=r"\[vae\] stream must hold at least 1 frame, got none"):
        list(decode_tiles(vae, list, tiling))
    with pytest.raises(ValueError, match=r"\[vae\] pieces must have shape \[B, "):
        list(decode_tiles(vae, lambda: [latents_of(vae, 1)[:, :8]], tiling))


def test_seams_are_as_small_as_the_table_says():
    """The packaged VAE, text and shapes that move all over 192x192: 2 x 2 tiles of 128x128 against hard cuts."""
    directory, config = find_model("tiny")
    vae = load_vae(directory, config.vae, dtype=torch.float32)
    frames = [torch.from_numpy(np.tile(frame, (3, 2, 1))) for frame in drawn(5)]
    video = torch.stack(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    latents = vae.encode(video)
    truth = vae.decode(latents)

    def worst_psnr(tiling: Tiling) -> float:
        return psnr(joined(decode_tiles(vae, lambda: [latents], tiling)), truth).min().item()

    def signal_to_noise(tiling: Tiling) -> float:
        return sqnr_db(joined(encode_tiles(vae, lambda: [video], tiling)), latents)

    blended, cut = evenly((24, 24), (2, 2), DEFAULT_OVERLAP), Tiling((24, 24), (12, 12), 0)
    # Where it was measured 47.7 and 28.8, 47.5 and 13.6 dB.
    assert worst_psnr(blended) > 45 and worst_psnr(cut) < 35
    assert signal_to_noise(blended) > 44 and signal_to_noise(cut) < 20


def test_the_spool_gives_back_what_it_took_as_often_as_asked(tmp_path):
    pieces = [torch.randn(1, 2, n, 3, 5).to(dtype) for n, dtype in ((1, torch.float32), (4, torch.bfloat16))]
    with Spool(tmp_path) as spool:
        for piece in pieces:
            spool.append(piece)
        for _ in range(2):
            assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(spool, pieces, strict=True))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_even_by_a_kill(tmp_path):
    code = (
        "import os, sys, torch; from pathlib import Path; from wan_model.vae_tiles import Spool\n"
        "spool = Spool(Path(sys.argv[1])); spool.append(torch.zeros(10**6)); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (-9, "", [])


def test_a_stream_left_half_read_closes_its_file(vae, monkeypatch):
    opened = []
    monkeypatch.setattr(Spool, "__exit__", lambda spool, *args: opened.append(spool) or spool.file.close())
    stream = decode_tiles(vae, lambda: [latents_of(vae, 2)], Tiling(FRAME, TILE, 1))
    next(stream)
    assert opened == []
    del stream
    gc.collect()
    assert len(opened) == 1 and opened[0].file.closed


def test_a_full_disk_is_an_os_error(vae, monkeypatch):
    class Full(io.BytesIO):
        def write(self, _) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **options: Full())
    with pytest.raises(OSError, match="No space left on device"):
        list(decode_tiles(vae, lambda: [latents_of(vae, 1)], Tiling(FRAME, TILE, 1)))
