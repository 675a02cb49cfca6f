"""Videos: the model, the data, the scores, the files, and the commands on them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import ganlstm_fast as gf
from ganlstm_fast.cli import main
from ganlstm_fast.models import VideoCritic, VideoGAN, VideoGenerator
from ganlstm_fast.training.animations import write_videos
from ganlstm_fast.training.datasets import load_video_folder, moving_digits
from ganlstm_fast.training.errors import InputError, UndefinedScore
from ganlstm_fast.training.metrics.videos import (
    centred,
    centres,
    compare_looks,
    compare_motion,
    evaluate_videos,
    shuffled,
    speeds,
    told_apart,
    turns,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {"size": 16, "noise": 6, "hidden": 5, "width": 3}


def gan(dtype: torch.dtype = torch.float64, **options) -> VideoGAN:
    torch.manual_seed(0)
    return VideoGAN(**SIZES | options).to(dtype)


# The model.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("options", [{}, {"channels": 3, "size": 28, "norm": None, "layers": 2}])
def test_shapes_dtypes_and_gradients_of_all_weights(dtype, options):
    pair = gan(dtype, **options)
    noise = pair.generator.noise(3, 4)
    fake = pair(noise)
    scores = pair.critic(fake)
    size, channels = options.get("size", 16), options.get("channels", 1)
    assert noise.shape == (3, 4, 6)
    assert fake.shape == (3, 4, channels, size, size)
    assert scores.shape == (3,)
    assert fake.dtype == scores.dtype == dtype
    assert fake.abs().max() <= 1
    scores.sum().backward()
    for name, parameter in pair.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_frames_are_one_batch_of_images():
    """The generator of images gets codes alone, not the frame or the video that they belong to."""
    generator = gan().generator.eval()
    noise = generator.noise(2, 4)
    videos = generator(noise)
    kept = noise[..., :3]
    assert torch.equal(kept, kept[:, :1].expand(-1, 4, -1))
    codes = torch.cat((kept, generator.codes.outputs(noise)), 2)
    torch.testing.assert_close(generator.images(codes[1]), videos[1])


def test_the_generator_makes_a_frame_of_the_noise_so_far():
    generator = gan().generator.eval()
    noise = generator.noise(1, 5)
    later = noise.clone()
    later[:, 3:, 3:] += 1
    before, after = generator(noise), generator(later)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().amax((0, 2, 3, 4)).min() > 1e-6


def test_the_critic_sees_the_order_of_frames():
    critic = gan().critic.eval()
    video = 2 * torch.rand(1, 5, 1, 16, 16, dtype=torch.float64) - 1
    assert (critic(video) - critic(video.flip(1))).abs() > 1e-6
    torch.testing.assert_close(critic(video.repeat(3, 1, 1, 1, 1))[:1], critic(video))


def test_numbers_are_those_of_torchs_lstm():
    ours, torchs = gan(), gan(lstm=nn.LSTM)
    torchs.load_state_dict(ours.state_dict())
    ours.eval(), torchs.eval()
    noise = ours.generator.noise(3, 4)
    fake = ours(noise)
    torch.testing.assert_close(fake, torchs(noise))
    torch.testing.assert_close(ours.critic(fake), torchs.critic(fake))


@pytest.mark.parametrize("kind", ["wgan-gp", "r1"])
def test_a_gradient_penalty_is_right_through_convolutions_and_lstm(kind):
    """The value and all gradients, by our kernels and by plain PyTorch, in float64."""
    critic = gan().critic.eval()
    real, fake = (2 * torch.rand(3, 4, 1, 16, 16, dtype=torch.float64) - 1 for _ in range(2))
    weights = dict(critic.named_parameters())
    found = []
    for impl in ("auto", "reference"):
        with gf.use_impl(impl):
            random = torch.Generator().manual_seed(0)
            value = gf.gradient_penalty(
                critic, real, fake, kind=kind, lambda_=10.0, generator=random
            )
            grads = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
            found.append((value, *(g for g in grads if g is not None)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)
    by_name = dict(zip(weights, grads, strict=True))
    for part in ("lstm.weight_ih_l0", "lstm.weight_hh_l0", "images.head"):
        assert any(g is not None and g.any() for n, g in by_name.items() if n.startswith(part))
    assert sum(g is not None and g.any() for n, g in by_name.items() if "body" in n) >= 2


def test_the_penalty_of_a_critic_is_that_of_finite_differences():
    critic = gan(norm=None).critic
    videos = 2 * torch.rand(2, 4, 1, 16, 16, dtype=torch.float64) - 1

    def value() -> Tensor:
        return gf.gradient_penalty(critic, videos, videos, kind="r1", lambda_=1e3)

    for weight in (critic.images.body[0].weight, critic.lstm.weight_hh_l0):
        (grad,) = torch.autograd.grad(value(), weight)
        direction = torch.randn_like(weight)
        with torch.no_grad():
            weight += 1e-5 * direction
            up = value()
            weight -= 2e-5 * direction
            down = value()
            weight += 1e-5 * direction
        torch.testing.assert_close((grad * direction).sum(), (up - down) / 2e-5, rtol=1e-5, atol=0)


def test_samples():
    generator = gan().generator
    generator.train()
    made = generator.sample(5, 4, torch.Generator().manual_seed(1), batch=2)
    assert made.shape == (5, 4, 1, 16, 16)
    assert generator.training
    assert torch.equal(made, generator.sample(5, 4, torch.Generator().manual_seed(1), batch=2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VideoGenerator(20), "size: expected one of 16, 28, 32, 64, 128, got int 20"),
        (lambda: VideoCritic(hidden=0), "hidden: expected 1 or more, got 0"),
        (lambda: gan().generator(torch.rand(2, 4, 3)), r"noise: expected shape"),
        (lambda: gan().critic(torch.rand(2, 1, 16, 16)), r"videos: expected shape"),
    ],
)
def test_errors(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()


# The data.


def test_digits_move_evenly_and_bounce():
    train, test = moving_digits(12, 32, a_digit=1)
    assert train.shape == (1442, 12, 1, 32, 32)
    assert len(test) == 355
    assert train.dtype == torch.uint8
    assert torch.equal(train, moving_digits(12, 32, a_digit=1)[0])
    assert not torch.equal(train, moving_digits(12, 32, a_digit=1, seed=1)[0])
    # Speeds are 4% to 10% of 32 pixels a frame, and less in the step in which a digit bounces.
    assert np.quantile(speeds(train), 0.2) > 0.9 * 0.04 * 32
    assert np.quantile(speeds(train), 0.99) < 1.05 * 0.1 * 32
    turned = turns(train)
    assert np.median(turned) < 3
    assert 0.1 < (turned > 30).mean() < 0.5
    # The whole digit stays in the frame: the same ink in all frames of a video.
    ink = train.double().sum((2, 3, 4))
    assert ((ink - ink[:, :1]).abs() / ink).quantile(0.99) < 0.05
    with pytest.raises(ValueError, match="size: expected 16 or more, got 15"):
        moving_digits(3, 15)


def dots(count: int, frames: int, size: int = 24, step: float = 2.0) -> Tensor:
    """Squares of 3 pixels that go to the right, each in its row: uint8 videos."""
    videos = torch.zeros(count, frames, 1, size, size, dtype=torch.uint8)
    for n in range(count):
        for k in range(frames):
            x, y = round(k * step), 3 + n % (size - 8)
            videos[n, k, 0, y : y + 3, x : x + 3] = 255
    return videos


def as_gif(file, frames, mode="L"):
    images = [Image.fromarray(frame).convert(mode) for frame in frames]
    file.parent.mkdir(parents=True, exist_ok=True)
    images[0].save(file, save_all=True, append_images=images[1:], duration=50, loop=0)


def test_a_folder_of_gifs_and_of_frames(tmp_path):
    video = dots(1, 11)[0, :, 0].numpy()
    as_gif(tmp_path / "a.gif", video)
    wide = np.pad(video, ((0, 0), (0, 0), (12, 12)))
    for number, frame in enumerate(wide):
        file = tmp_path / "deep" / "frames" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(file)
    (tmp_path / "notes.txt").write_text("no matter")
    (tmp_path / "spoilt.gif").write_text("no image")
    found = load_video_folder(tmp_path, 24, frames=5)
    assert found.videos.shape == (4, 5, 1, 24, 24)
    assert found.videos.dtype == torch.uint8
    assert found.source.tolist() == [0, 0, 1, 1]
    assert found.names == ("a.gif", "deep/frames")
    assert len(found.skipped) == 1
    assert "spoilt.gif" in found.skipped[0]
    # 10.png comes after 9.png, and each frame is cropped to its largest square.
    assert torch.equal(found.videos[:2], found.videos[2:])
    expected = torch.from_numpy(video[:10]).view(2, 5, 1, 24, 24)
    assert torch.equal(found.videos[:2], expected)
    assert load_video_folder(tmp_path, 16, channels=3, frames=3).videos.shape == (6, 3, 3, 16, 16)


def test_what_is_no_video_is_named(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        load_video_folder(tmp_path / "no", 16)
    with pytest.raises(InputError, match="has no video, as a GIF file or as a folder of frames"):
        load_video_folder(tmp_path, 16)
    (tmp_path / "spoilt.gif").write_text("no image")
    with pytest.raises(InputError, match=r"of 1 files none can be read: .*spoilt\.gif"):
        load_video_folder(tmp_path, 16)
    as_gif(tmp_path / "long.gif", dots(1, 9)[0, :, 0].numpy())
    as_gif(tmp_path / "still.gif", dots(1, 1)[0, :, 0].numpy())
    with pytest.raises(InputError, match=r"still\.gif has a single frame") as caught:
        load_video_folder(tmp_path, 16, frames=4)
    assert "\n" not in str(caught.value)
    (tmp_path / "still.gif").unlink()
    with pytest.raises(InputError, match=r"long\.gif has 9 frames, fewer than frames=12"):
        load_video_folder(tmp_path, 16)


# The scores.


def test_motion_of_a_dot():
    videos = dots(4, 8)
    expected = torch.tensor([[1.5 + 2 * k, 4.5] for k in range(8)], dtype=torch.float64)
    torch.testing.assert_close(centres(videos)[0], expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(speeds(videos), 2, atol=1e-4)
    np.testing.assert_allclose(turns(videos), 0, atol=0.01)
    back = torch.cat((videos, videos[:, :-1].flip(1)), 1)
    assert np.isclose(turns(back), 180, atol=0.01).sum() == 4
    np.testing.assert_allclose(turns(torch.zeros_like(videos)), 90)
    middle = torch.full_like(centres(videos), 12)
    torch.testing.assert_close(centres(torch.zeros_like(videos)), middle)


def test_motion_is_compared_with_the_data():
    train, test = moving_digits(8, 16, a_digit=1)
    random = torch.Generator().manual_seed(0)
    kinds = {"real": test, "shuffled": shuffled(test, random), "slow": test[:, :1].expand_as(test)}
    scores = compare_motion(train, kinds)
    assert scores["speed_distance"]["real"] < 0.1
    assert scores["turn"]["real"] < 10
    for other in ("shuffled", "slow"):
        assert scores["speed_distance"][other] > 5 * scores["speed_distance"]["real"]
        assert scores["turn_distance"][other] > 5 * scores["turn_distance"]["real"]
    assert scores["straight_on"]["real"] > 0.6 > 0.3 > scores["straight_on"]["shuffled"]
    with pytest.raises(UndefinedScore, match="videos of 2 frames have no such motion: 3"):
        turns(train[:, :2])
    with pytest.raises(UndefinedScore, match="got none"):
        speeds(train[:0])


def test_variety_is_of_what_is_seen_wherever_it_is():
    videos = dots(12, 4, size=25)
    assert torch.equal(centred(videos), centred(videos[:1]).expand(12, -1, -1, -1))
    assert centred(videos)[0, 0, 12, 12] == 255
    train, test = moving_digits(3, 16, a_digit=1)
    one = test[:1].expand(len(test), -1, -1, -1, -1)
    scores = compare_looks(train, {"real": test, "one": one})
    assert scores["real"] > 0.8
    assert scores["one"] == 0


def test_the_judge_tells_shuffled_frames_and_not_real_ones():
    videos = dots(64, 6)
    random = torch.Generator().manual_seed(0)
    mixed = shuffled(videos, random)
    assert torch.equal(mixed.flatten(2).sort(1)[0], videos.flatten(2).sort(1)[0])
    assert told_apart((videos, videos, mixed, mixed), 60) > 0.45
    assert told_apart((videos, videos, videos, videos), 20) == 0


def test_evaluation_says_when_it_proves_nothing():
    train, test = moving_digits(4, 16, a_digit=1)
    scores = evaluate_videos(train, test, train[:400], iterations=2)
    assert scores["count"] == 355
    for name in ("speed", "turn", "straight_on", "variety", "discriminative_score"):
        assert set(scores[name]) == {"generated", "real", "shuffled", "noise"}
    if not scores["reported"]:
        assert scores["discriminative_score"]["generated"] is None
        assert "videos" in scores["reason"] or "noise" in scores["reason"]
    with pytest.raises(UndefinedScore, match="3 held out"):
        evaluate_videos(train, test[:3], train)
    with pytest.raises(ValueError, match="expected videos of shape"):
        evaluate_videos(train, test, train[:, :2])


# Files and commands.


def test_videos_in_files(tmp_path):
    videos = dots(4, 5).float() / 127.5 - 1
    write_videos(tmp_path / "made.gif", videos)
    with Image.open(tmp_path / "made.gif") as file:
        assert file.n_frames == 5
        assert file.info["loop"] == 0
        assert file.size == (4 * 49, 4 * 49)
    write_videos(tmp_path / "made.png", videos)
    with Image.open(tmp_path / "made.png") as file:
        assert file.size == (5 * 25 - 1, 4 * 25 - 1)
    with pytest.raises(InputError, match=r"ends with \.gif or \.png, got .*made\.mp4"):
        write_videos(tmp_path / "made.mp4", videos)


def test_commands_on_a_folder_of_videos(tmp_path, capsys):
    folder, run = tmp_path / "clips", tmp_path / "run"
    for n, video in enumerate(dots(6, 4)):
        as_gif(folder / f"{n}.gif", video[:, 0].numpy())
    options = ["--frames", "4", "--width", "4", "--hidden", "8", "--noise", "4", "--device", "cpu"]
    common = ["--data", str(folder), *options, "--batch-size", "4", "--steps", "2"]
    train = ["train", "video-gan", *common, "--metrics", "quick", "--out", str(run)]
    assert main(train) == 0
    printed = capsys.readouterr().out
    assert "clips: 5 videos of 4 frames of 16 pixels and 1 channel(s); 1 are held out" in printed
    metrics = json.loads((run / "metrics.json").read_text())
    assert "too few to compare" in metrics["undefined"]["discriminative_score"]
    for name, kind in (("made.gif", "GIF"), ("made.png", "PNG")):
        assert main(["generate", str(run), "-n", "4", "-o", str(tmp_path / name)]) == 0
        assert "4 videos of 4 frames of 16 pixels" in capsys.readouterr().out
        with Image.open(tmp_path / name) as file:
            assert file.format == kind
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "data:image/gif;base64" in page
    assert main(["generate", str(run)]) == 2
    assert "videos do not go to a screen" in capsys.readouterr().err
    as_gif(folder / "still.gif", dots(1, 1)[0, :, 0].numpy())
    assert main([*train[:-1], str(tmp_path / "other")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "still.gif has a single frame" in error
    assert not (tmp_path / "other").exists()
