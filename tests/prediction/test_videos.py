"""Videos: frames in and out, journals that are gone on with, and drawn copies."""

import json
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from maskrcnn.prediction.sources import Source
from maskrcnn.prediction.video_file import read_facts, read_frames, require_video, write_video
from maskrcnn.prediction.videos import VideoRun
from runtime.errors import ImageError, MissingPackageError
from runtime.output.draw import instance_color

RATE = Fraction(30000, 1001)


def frame_of(number, size=(48, 64)):
    """Gray, with a first pixel of 8 x 8 that tells a cat from a dog, and a bar at the left that counts."""
    pixels = np.full((*size, 3), 90, np.uint8)
    pixels[:12, :24] = (60, 60, 60) if number % 2 else (120, 120, 120)
    pixels[20:28, : 4 * number + 4] = 255
    return Image.fromarray(pixels)


def bar_of(pixels):
    """The number that `frame_of` has drawn."""
    return round(np.count_nonzero(pixels[24, :, 0] > 170) / 4) - 1


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, map(frame_of, range(10)), RATE)
    return Source(path, "sub/clip.mp4")


def predicted(job, source):
    return [json.loads(line) for line in job.folder.document(source).read_text(encoding="utf-8").splitlines()]


def run(job, source):
    video = VideoRun(job)
    video.run([source])
    return video


def decoded(path):
    """An independent reader: what a player shows."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.average_rate, [np.asarray(frame.to_image()) for frame in container.decode(stream)]


def test_frames_come_back(clip):
    frames = list(read_frames(clip.path))
    assert [frame.number for frame in frames] == [bar_of(frame.pixels) for frame in frames] == list(range(10))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(10) * 1001 / 30000, atol=1e-5)
    assert {(frame.pixels.shape, frame.pixels.dtype) for frame in frames} == {((48, 64, 3), np.dtype(np.uint8))}
    assert np.abs(frames[3].pixels.astype(int) - np.asarray(frame_of(3))).mean() < 4
    assert read_facts(clip.path) == (RATE, 10)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (47, 63), (33, 64)])
def test_odd_sides_become_even(tmp_path, size):
    image = Image.fromarray(np.full((*size, 3), (200, 40, 90), np.uint8))
    write_video(tmp_path / "odd.partial", [image] * 3, Fraction(10))
    rate, frames = decoded(tmp_path / "odd.partial")
    assert (rate, len(frames)) == (10, 3)
    assert frames[0].shape[:2] == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert np.abs(frames[0].astype(int) - (200, 40, 90)).max() < 12  # none of it is black


def test_without_h264_it_is_mpeg4(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    write_video(tmp_path / "a.mp4", map(frame_of, range(4)), RATE)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert [bar_of(pixels) for pixels in decoded(tmp_path / "a.mp4")[1]] == [0, 1, 2, 3]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_phone_held_upright(tmp_path, turns):
    """The matrix in the header, as phones write it: here turns clockwise, by the formulas of ISO/IEC 14496-12."""
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :32] = 250
    stored = np.ascontiguousarray(np.rot90(upright, turns))  # turned back clockwise it is upright again
    write_video(tmp_path / "a.mp4", [Image.fromarray(stored)] * 3, Fraction(10))
    content = (tmp_path / "a.mp4").read_bytes()
    rows = {0: (1, 0, 0, 1), 1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}

    def matrix(a, b, c, d):
        return b"".join((v * 65536).to_bytes(4, "big", signed=True) for v in (a, b, 0, c, d, 0, 0, 0, 16384))

    start = content.index(b"tkhd")
    place = content.index(matrix(*rows[0]), start)
    turned = content[:place] + matrix(*rows[turns]) + content[place + 36 :]
    (tmp_path / "b.mp4").write_bytes(turned)
    frame = next(read_frames(tmp_path / "b.mp4"))
    assert np.abs(frame.pixels.astype(int) - upright).mean() < 6


def test_a_run_and_a_second_one(clip, job, fake):
    first = run(job(), clip)
    assert (first.done, first.made, first.failures) == ([clip], 10, [])
    head, *frames, end = predicted(job(), clip)
    assert head["source"]["path"] == str(clip.path)
    assert end == {"frames": 10}
    assert [frame["frame"] for frame in frames] == list(range(10))
    assert [frame["detections"][0]["name"] for frame in frames] == ["dog, big", "cat"] * 5
    assert frames[0]["image_size"] == [48, 64]
    calls = len(fake.batches)
    second = run(job(), clip)
    assert (second.done, second.made, len(fake.batches)) == ([clip], 0, calls)


def test_a_killed_run_goes_on_after_the_last_whole_frame(clip, job, fake):
    run(job(), clip)
    path = job().folder.document(clip)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:20])  # four frames, and a part of the fifth
    again = run(job(), clip)
    assert again.made == 6
    assert path.read_bytes() == whole
    path.write_bytes(b"".join(lines[:-1]))  # all but the end
    assert run(job(), clip).made == 0
    assert path.read_bytes() == whole


def test_a_stop_goes_on(clip, job):
    seen = []
    stopping = job(stopped=lambda: len(seen) >= 4, progress=lambda *values: seen.append(values))
    first = run(stopping, clip)
    assert (first.done, first.failures) == ([], [])
    assert 3 <= first.made <= 7  # those that had been through the network when the third was written
    assert seen == [("sub/clip.mp4", n, 10) for n in range(first.made + 1)]
    assert run(job(), clip).made == 10 - first.made


def test_a_stop_is_heard_among_frames_that_are_done(clip, job, monkeypatch):
    from maskrcnn.prediction import videos

    run(job(), clip)
    path = job().folder.document(clip)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:9]))  # eight frames
    decoded_frames = []

    def counted(source):
        for frame in read_frames(source):
            decoded_frames.append(frame.number)
            yield frame

    monkeypatch.setattr(videos, "read_frames", counted)
    assert run(job(stopped=lambda: len(decoded_frames) > 2), clip).made == 0
    assert decoded_frames == [0, 1, 2]


def test_every_third_frame(clip, job):
    video = run(job(every=3, batch_size=2, views=("overlay",)), clip)
    assert video.made == 4
    _, *frames, end = predicted(job(), clip)
    assert [frame["frame"] for frame in frames] == [0, 3, 6, 9]
    assert end == {"frames": 10}
    path = job().folder.document(clip)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    assert run(job(every=3), clip).made == 2
    assert path.read_bytes() == b"".join(lines)
    # All frames are drawn, those between with what was found last: a dog at 0 to 2, a cat at 3 to 5, and so on.
    _, shown = decoded(job().folder.view("overlay", clip))
    nearest = [
        min((1, 2), key=lambda c: np.abs(frame[6, 2].astype(int) - instance_color(c - 1)).sum()) for frame in shown
    ]
    assert nearest == [2, 2, 2, 1, 1, 1, 2, 2, 2, 1]


def test_views(clip, job):
    both = job(views=("overlay", "splash"))
    assert run(both, clip).done == [clip]
    for kind in ("overlay", "splash"):
        path = both.folder.view(kind, clip)
        assert path.name == "clip.mp4"
        rate, frames = decoded(path)
        assert (rate, len(frames), frames[0].shape) == (RATE, 10, (48, 64, 3))
        assert [bar_of(pixels) for pixels in frames[:4]] == [0, 1, 2, 3]
    assert not list(both.folder.path.rglob("*.partial"))


def test_views_are_made_later_without_predicting(clip, job, fake):
    run(job(), clip)
    calls = len(fake.batches)
    later = run(job(views=("splash",)), clip)
    assert (later.done, later.made, len(fake.batches)) == ([clip], 0, calls)
    assert job().folder.view("splash", clip).exists()


def test_a_stop_while_drawing_leaves_no_half_video(clip, job):
    seen = []
    stopping = job(
        views=("overlay",), stopped=lambda: len(seen) > 16, progress=lambda *values: seen.append(values)
    )  # eleven for the frames, the rest while drawing
    assert run(stopping, clip).done == []
    assert not list(job().folder.path.rglob("overlay/*/*"))
    assert not list(job().folder.path.rglob("*.partial"))
    assert run(job(views=("overlay",)), clip).done == [clip]


def test_another_video_begins_anew(clip, job):
    run(job(views=("overlay",)), clip)
    write_video(clip.path, map(frame_of, range(4)), RATE)
    video = run(job(), clip)
    assert video.made == 4
    assert not job().folder.view("overlay", clip).exists()
    assert run(job(run="other settings"), clip).made == 4


def broken(path, content):
    path.write_bytes(content)
    return Source(path, path.name)


def test_broken_videos_are_failures(clip, job, tmp_path):
    whole = clip.path.read_bytes()
    (tmp_path / "folder.mp4").mkdir()
    sources = [
        broken(tmp_path / "empty.mp4", b""),
        broken(tmp_path / "text.mkv", b"no video at all"),
        broken(tmp_path / "cut.mp4", whole[: len(whole) // 3]),
        Source(tmp_path / "gone.mp4", "gone.mp4"),
        Source(tmp_path / "folder.mp4", "folder.mp4"),
        clip,
    ]
    video = VideoRun(job())
    video.run(sources)
    assert video.done == [clip]
    assert [failure.name for failure in video.failures] == [source.name for source in sources[:-1]]
    assert all(failure.error == "ImageError" and failure.message for failure in video.failures)


def test_a_sound_file_has_no_pictures(tmp_path, job):
    import wave

    with wave.open(str(tmp_path / "sound.avi"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0" * 8000)
    video = run(job(), Source(tmp_path / "sound.avi", "sound.avi"))
    assert "no video stream" in video.failures[0].message


def test_a_frame_that_the_network_refuses(clip, job, fake):
    real, fake.run = fake.run, None

    def refuse(images, windows):
        if len(fake.batches) == 4:
            raise ArithmeticError("too much")
        return real(images, windows)

    fake.run = refuse
    video = run(job(), clip)
    assert (video.done, video.made) == ([], 4)
    assert video.failures[0].message == "frame 4: ArithmeticError: too much"
    fake.run = real
    assert run(job(), clip).made == 6


def test_frames_that_change_their_size_are_scaled_to_the_first(tmp_path, monkeypatch):
    images = [Image.new("RGB", size, (70, 80, 90)) for size in ((64, 48), (32, 24), (64, 48))]

    class Changing:
        def __init__(self, image):
            self.image, self.time, self.rotation = image, None, 0

        def to_ndarray(self, **_):
            return np.asarray(self.image)

    write_video(tmp_path / "a.mp4", images[:1] * 3, RATE)
    from maskrcnn.prediction import video_file

    real = video_file._opened

    class Container:
        def decode(self, _stream):
            return map(Changing, images)

    from contextlib import contextmanager

    @contextmanager
    def opened(path):
        with real(path) as (_, stream):
            yield Container(), stream

    monkeypatch.setattr(video_file, "_opened", opened)
    assert [frame.pixels.shape for frame in read_frames(tmp_path / "a.mp4")] == [(48, 64, 3)] * 3


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'maskrcnn-export\[video\]'"):
        require_video()


def test_damage_in_the_middle_keeps_what_came_before(clip, job, monkeypatch):
    from maskrcnn.prediction import videos

    real = read_frames

    def damaged(path):
        for frame in real(path):
            if frame.number == 6:
                raise ImageError("damaged")
            yield frame

    monkeypatch.setattr(videos, "read_frames", damaged)
    video = run(job(), clip)
    assert (video.done, video.made, video.failures[0].message) == ([], 6, "damaged")
    assert run(job(), clip).made == 0
