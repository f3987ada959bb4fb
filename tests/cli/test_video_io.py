"""Files come whole or not at all, and read back as what was written."""

import builtins
import json
import os

import numpy as np
import pytest
import torch

from wan_model import video_io
from wan_model.video_io import (
    Sheet,
    atomic_path,
    check_output,
    contact_sheet,
    missing_encoder,
    read_video,
    save,
    small,
    to_frames,
    write_image,
    write_video,
)

needs_mp4 = pytest.mark.skipif(missing_encoder() is not None, reason=str(missing_encoder()))


@pytest.fixture
def frames():
    """A white square walks over a blue floor, 8 pixels a frame."""
    frames = np.zeros((5, 32, 48, 3), np.uint8)
    frames[..., 2] = 200
    for i, frame in enumerate(frames):
        frame[8:20, 8 * i : 8 * i + 12] = 255
    return frames


@needs_mp4
def test_mp4_reads_back(frames, tmp_path):
    path, remark = write_video(tmp_path / "a.mp4", frames, fps=8)
    assert path == tmp_path / "a.mp4" and remark == ""
    back = read_video(path)
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 8


@needs_mp4
def test_mp4_holds_what_players_need(frames, tmp_path):
    import av

    path, _ = write_video(tmp_path / "a.mp4", frames, fps=8)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 8 and stream.frames == 5


@needs_mp4
def test_odd_sides_are_padded(frames, tmp_path):
    path, _ = write_video(tmp_path / "a.mp4", frames[:, :31, :47], fps=8)
    assert read_video(path).shape == (5, 32, 48, 3)


def test_gif_reads_back(frames, tmp_path):
    path, _ = write_video(tmp_path / "a.gif", frames, fps=8)
    back = read_video(path)
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 8


def test_png_is_exact(frames, tmp_path):
    path, _ = write_video(tmp_path / "a.png", frames[:1], fps=1)
    assert np.array_equal(read_video(path), frames[:1])


def test_without_pyav_an_mp4_becomes_a_gif_and_says_so(frames, tmp_path, monkeypatch):
    real_import = builtins.__import__

    def no_av(name, *args, **kwargs):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_av)
    path, remark = write_video(tmp_path / "a.mp4", frames, fps=8)
    assert path.name == "a.gif" and path.is_file()
    assert "PyAV" in remark and "GIF" in remark and "pip install av" in remark


def test_pixels_round_to_nearest():
    video = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 5).expand(3, 1, 1, 5)
    assert to_frames(video)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_contact_sheet_holds_every_frame(frames):
    sheet = contact_sheet(frames, num_columns=3, gap=2)
    assert sheet.shape == (2 * 34 + 2, 3 * 50 + 2, 3)
    assert np.array_equal(sheet[36:68, 52:100], frames[4])
    assert (sheet[36:68, 104:] == 255).all()


def test_a_sheet_holds_up_to_36_small_frames_evenly_spread():
    for num_frames, step in ((36, 1), (37, 2), (72, 2), (73, 4), (500, 16)):
        sheet = Sheet()
        frames = (np.full((2, 3, 3), i % 251, np.uint8) for i in range(num_frames))
        assert sum(1 for _ in sheet.watch(frames)) == num_frames
        assert sheet.frames()[:, 0, 0, 0].tolist() == [i % 251 for i in range(0, num_frames, step)]
    large = np.arange(720 * 1280, dtype=np.float32).reshape(720, 1280, 1).repeat(3, axis=2) // 4000
    assert small(large.astype(np.uint8)).shape == (180, 320, 3)
    assert np.abs(small(large.astype(np.uint8)).astype(int) - large[::4, ::4]).max() <= 2
    assert small(large[:64, :96]) is not None and small(large[:64, :96]).shape == (64, 96, 3)


def test_save_leaves_video_sheet_and_settings(frames, tmp_path):
    saved = save(tmp_path / "a.gif", iter(frames), 8, {"prompt": "ein rotes Quadrat 方"})
    assert sorted(os.listdir(tmp_path)) == ["a.gif", "a.json", "a.sheet.png"]
    assert json.loads(saved.record.read_text(encoding="utf-8")) == {"prompt": "ein rotes Quadrat 方", "video": "a.gif"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_save_leaves_nothing(frames, tmp_path, monkeypatch, error):
    def fail(path, data):
        path.write_text("half")
        raise error

    monkeypatch.setattr(video_io, "dump_json", fail)
    with pytest.raises(error):
        save(tmp_path / "a.gif", frames, 8, {})
    assert os.listdir(tmp_path) == []


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_image_is_written(frames, tmp_path):
    assert np.array_equal(read_video(write_image(tmp_path / "a.png", frames[0]))[0], frames[0])


def test_bad_output_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"\[output\] name must end in .mp4, .gif, .png, got 'a.avi'"):
        check_output(tmp_path / "a.avi", 5)
    with pytest.raises(ValueError, match=r"\[output\] .png holds 1 frame, got 5"):
        check_output(tmp_path / "a.png", 5)
    with pytest.raises(FileNotFoundError, match=r"\[output\] directory must exist"):
        check_output(tmp_path / "none" / "a.mp4", 5)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"\[output\] parent must be a directory"):
        check_output(tmp_path / "file" / "a.mp4", 5)
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(IsADirectoryError, match=r"\[output\] must be a file"):
        check_output(tmp_path / "b.mp4", 5)


def test_unreadable_directory_is_named(tmp_path, monkeypatch):
    # Root may write anywhere, so the system's answer is given for it.
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(PermissionError, match=r"\[output\] directory must be writable"):
        check_output(tmp_path / "a.mp4", 5)


@needs_mp4
def test_what_is_no_video_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\[video\] file must exist"):
        read_video(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"nothing like a video" * 50)
    with pytest.raises(ValueError, match=r"\[video\] file must be a video"):
        read_video(tmp_path / "a.mp4")
