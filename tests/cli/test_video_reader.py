"""Videos are read one frame at a time, upright and in 8 bits, and what is broken says so in one line."""

from fractions import Fraction

import numpy as np
import pytest
from clips import drawn, write_clip, write_sound

from wan_model.video_io import frames_of, read_video, to_frames, write_video
from wan_model.video_reader import probe, read_arrays, read_frames


def error_of(path, expected) -> float:
    """Mean difference in levels: 4.4 for what H.264 does to these colours, 40 and more for a picture turned wrongly."""
    found = read_video(path)
    assert found.shape == expected.shape
    return np.abs(found.astype(int) - expected).mean()


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le", "yuv444p10le"])
def test_pixels_of_8_and_10_bits(tmp_path, pixels):
    path = write_clip(tmp_path / "a.mp4", 5, pixels=pixels)
    assert error_of(path, np.stack(list(drawn(5)))) < 6
    assert probe(path).num_frames == 5 and (probe(path).width, probe(path).height) == (96, 64)


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (180, 2), (270, 3), (0, 0)])
def test_a_turned_video_is_read_upright(tmp_path, degrees, quarters):
    path = write_clip(tmp_path / "a.mp4", 2, degrees=degrees)
    expected = np.rot90(np.stack(list(drawn(2))), quarters, axes=(1, 2))
    assert error_of(path, expected) < 6
    assert (probe(path).height, probe(path).width) == expected.shape[1:3]


@pytest.mark.parametrize(("entries", "mirror"), [((-1, 0, 0, 1), "x"), ((1, 0, 0, -1), "y"), ((0, 1, 1, 0), "both")])
def test_a_mirrored_video_is_read_as_it_is_shown(tmp_path, entries, mirror):
    """x' = a x + c y, y' = b x + d y: written into the track's header, where cameras put it."""
    path = write_clip(tmp_path / "a.mp4", 2)
    data = bytearray(path.read_bytes())
    a, b, c, d = (65536 * entry for entry in entries)
    start = data.index(b"tkhd") + 44
    data[start : start + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 2**30], ">i4").tobytes()
    path.write_bytes(data)
    frames = np.stack(list(drawn(2)))
    expected = {"x": frames[:, :, ::-1], "y": frames[:, ::-1], "both": frames.transpose(0, 2, 1, 3)}[mirror]
    assert error_of(path, expected) < 6


def test_frames_of_uneven_times_all_come_at_their_average_rate(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 9, has_uneven_times=True)
    assert error_of(path, np.stack(list(drawn(9)))) < 6
    # The last of 9 frames begins at 64/24 s and is shown for 1/24 s.
    assert probe(path).fps == Fraction(9 * 24, 65)


def test_the_rate_is_kept_exactly(tmp_path):
    rate = Fraction(30000, 1001)
    path, _ = write_video(tmp_path / "b.mp4", read_arrays(write_clip(tmp_path / "a.mp4", 9, rate=rate)), rate)
    assert probe(path).fps == rate


def test_frames_are_what_the_vae_takes(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 3)
    frames = list(read_frames(path))
    assert [frame.shape for frame in frames] == [(1, 3, 1, 64, 96)] * 3
    assert min(frame.min() for frame in frames) >= -1 and max(frame.max() for frame in frames) <= 1
    assert np.array_equal(np.stack(list(frames_of(frames))), read_video(path))
    assert np.array_equal(to_frames(frames[1][0])[0], read_video(path)[1])


def test_gif_and_png(tmp_path):
    path, _ = write_video(tmp_path / "a.gif", drawn(5), 10)
    assert probe(path).fps == 10 and probe(path).num_frames == 5
    path, _ = write_video(tmp_path / "a.png", drawn(1), 1)
    assert error_of(path, np.stack(list(drawn(1)))) == 0


def test_frames_are_written_and_read_as_they_come(tmp_path):
    """The encoder and the decoder keep a few dozen frames, however many there are."""
    num_drawn = 0

    def counted():
        nonlocal num_drawn
        for frame in drawn(200):
            num_drawn += 1
            yield frame

    seen = []

    def watched():
        for index, frame in enumerate(counted()):
            seen.append(num_drawn - index)
            yield frame

    path, _ = write_video(tmp_path / "a.mp4", watched(), 24)
    assert set(seen) == {1}
    frames = read_arrays(path)
    next(frames)
    frames.close()


def test_writers_refuse_what_is_no_video(tmp_path):
    with pytest.raises(ValueError, match=r"\[video\] must have at least 1 frame, got none"):
        write_video(tmp_path / "a.mp4", iter(()), 8)
    mixed = [np.zeros((16, 16, 3), np.uint8), np.zeros((16, 32, 3), np.uint8)]
    for name in ("a.mp4", "a.gif"):
        with pytest.raises(ValueError, match=r"\[video\] frames must all be \(16, 16, 3\), got \(16, 32, 3\)"):
            write_video(tmp_path / name, iter(mixed), 8)
    with pytest.raises(ValueError, match=r"\[video\] .png holds 1 frame, got more"):
        write_video(tmp_path / "a.png", drawn(2), 8)
    assert list(tmp_path.iterdir()) == []


def damage(kind, path):
    """Writes a broken file to `path`."""
    if kind == "sound alone":
        write_sound(path)
    elif kind == "empty":
        path.touch()
    elif kind == "odd angle":
        write_clip(path, 3, degrees=45)
    else:
        data = bytearray(write_clip(path, 40).read_bytes())
        middle = data.index(b"mdat") + 1500
        if kind == "cut short":
            del data[middle:]
        else:
            data[middle : middle + 2000] = bytes(2000)
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sound alone", "must hold a video, got .* with audio in it"),
        ("empty", "must be a video that decodes"),
        ("cut short", "must be a video that decodes"),
        ("zeros inside", "must be whole, got number [0-9]+ of .* damaged|must be a video that decodes, got .* after"),
        ("odd angle", "must be turned by quarters if at all"),
    ],
)
def test_what_is_broken_is_named(tmp_path, kind, message):
    damage(kind, tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=rf"\[video\] .*({message})"):
        read_video(tmp_path / "a.mp4")
