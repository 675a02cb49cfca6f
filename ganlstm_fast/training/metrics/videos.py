"""Scores of generated videos: motion, variety, and whether a network can tell them from real ones.

Motion is measured at the centre of mass of each frame's ink, its bright pixels. Between two frames
it moves by a *step*, whose length is the speed in pixels a frame; from one step to the next it
*turns*, by 0 degrees where it goes straight on. What moves evenly and bounces now and then turns
by nearly 0 at most steps, so that the median tells how constant the direction is between bounces,
and the distribution how often it bounces and how sharply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.metrics.series import diversity
from ganlstm_fast.training.metrics.timegan import why_not_valid
from ganlstm_fast.training.undefined import defined_for

SCORES = (
    "speed",
    "speed_distance",
    "turn",
    "turn_distance",
    "straight_on",
    "variety",
    "discriminative_score",
)
# Pixels brighter than this share of the range are ink: a generator's ground is not quite black.
GROUND = 0.15
# A step goes straight on if it turns by fewer degrees.
STRAIGHT = 30.0
# Iterations of the network that tells videos apart, for each pair of kinds. After 100 of them it
# does not yet see that the frames of moving digits are shuffled, after 400 it does in 98 of 100.
# With fewer it says nothing, so the quick metrics leave this score out.
ITERATIONS = {"full": 400, "quick": 0}
BATCH = 32
LEARNING_RATE = 1e-3
LEAST = 4
# Larger frames are averaged down to this many pixels for that network.
SIDE = 32


def centres(videos: Tensor) -> Tensor:
    """Where the ink of each frame is: its centre of mass in pixels, x and y.

    Args:
        videos: [n, frames, channels, height, width] uint8; colours count as their mean.

    Returns:
        [n, frames, 2] float64; the middle of a frame without ink.
    """
    ink = (videos.float().mean(2).double() / 255 - GROUND).clamp_min(0)
    # Too little to move a centre, but it puts that of an empty frame in the middle.
    ink = ink + 1e-9
    height, width = ink.shape[2:]
    mass = ink.sum((2, 3))
    x = (ink.sum(2) * (torch.arange(width) + 0.5)).sum(2) / mass
    y = (ink.sum(3) * (torch.arange(height) + 0.5)).sum(2) / mass
    return torch.stack((x, y), 2)


def speeds(videos: Tensor) -> np.ndarray:
    """The length of each step in pixels, [n * (frames - 1)] float64.

    Raises:
        UndefinedScore: no videos.
    """
    _check_some(videos, 2)
    return centres(videos).diff(dim=1).norm(dim=2).flatten().numpy()


def turns(videos: Tensor) -> np.ndarray:
    """The angle between each step and the next, 0 to 180 degrees: [n * (frames - 2)] float64.

    A step of length 0 has no direction, and turns by 90.

    Raises:
        UndefinedScore: no videos, or fewer than 3 frames in each.
    """
    _check_some(videos, 3)
    steps = F.normalize(centres(videos).diff(dim=1), dim=2, eps=1e-9)
    cosines = (steps[:, :-1] * steps[:, 1:]).sum(2).clamp(-1, 1)
    return torch.rad2deg(torch.acos(cosines)).flatten().numpy()


def _check_some(videos: Tensor, frames: int) -> None:
    if not len(videos):
        raise UndefinedScore("videos: expected 1 or more, got none")
    if videos.shape[1] < frames:
        raise UndefinedScore(
            f"videos of {videos.shape[1]} frames have no such motion: {frames} are needed"
        )


def centred(videos: Tensor) -> Tensor:
    """The middle frame of each video, moved by whole pixels so that its ink is in the middle.

    What leaves at an edge comes in at the other. uint8 [n, channels, height, width].
    """
    number = videos.shape[1] // 2
    frames = videos[:, number]
    middle = torch.tensor([frames.shape[3], frames.shape[2]]) / 2
    shift = (centres(videos[:, number : number + 1])[:, 0] - middle).round().long()
    x, y = (
        (torch.arange(frames.shape[side]) + shift[:, k : k + 1]) % frames.shape[side]
        for k, side in enumerate((3, 2))
    )
    frames = torch.take_along_dim(frames, y[:, None, :, None], 2)
    return torch.take_along_dim(frames, x[:, None, None, :], 3)


def compare_looks(train: Tensor, kinds: dict[str, Tensor]) -> dict[str, Any]:
    """The :func:`~ganlstm_fast.training.metrics.series.diversity` of the content of each kind.

    Of the :func:`centred` frames, so that the same thing at two places is one; as many of each kind
    and of ``train``, 1000 at most.
    """
    count = min(1000, len(train), *map(len, kinds.values()))
    apart = torch.linspace(0, len(train) - 1, count).long()
    looks = centred(train[apart]).float()
    return defined_for(kinds, lambda kind: diversity(looks, centred(kind[:count]).float()))


def compare_motion(train: Tensor, kinds: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """The motion in each of ``kinds``, and how far it is from that in ``train``; all uint8 videos.

    Returns:
        ``speed`` and ``turn``, the medians; ``speed_distance`` in pixels and ``turn_distance`` in
        degrees, the Wasserstein-1 distances of their distributions from those of ``train``;
        ``straight_on``, the share of steps that turn by less than 30 degrees.
    """

    def distance(measure: Callable[[Tensor], np.ndarray]) -> Callable[[Tensor], float]:
        return lambda kind: float(wasserstein_distance(measure(train), measure(kind)))

    measures: dict[str, Callable[[Tensor], float]] = {
        "speed": lambda kind: float(np.median(speeds(kind))),
        "speed_distance": distance(speeds),
        "turn": lambda kind: float(np.median(turns(kind))),
        "turn_distance": distance(turns),
        "straight_on": lambda kind: float((turns(kind) < STRAIGHT).mean()),
    }
    return {name: defined_for(kinds, measure) for name, measure in measures.items()}


class VideoJudge(nn.Module):
    """A small network that scores videos [n, frames, channels, height, width] float32: [n].

    Two convolutions and a linear layer make 64 numbers of each frame, and a ``torch.nn.LSTM`` reads
    them. It shares nothing with the critic that a generator is trained against.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.frames = nn.Sequential(
            nn.Conv2d(channels, 16, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(32 * (side // 4) ** 2, 64),
            nn.LeakyReLU(0.2),
        )
        self.lstm = nn.LSTM(64, 64, batch_first=True)
        self.head = nn.Linear(64, 1)

    def forward(self, videos: Tensor) -> Tensor:
        seen = self.frames(videos.flatten(0, 1)).unflatten(0, videos.shape[:2])
        return self.head(self.lstm(seen)[0][:, -1]).squeeze(1)


def _seen(videos: Tensor) -> Tensor:
    """uint8 videos as the judge takes them."""
    frames = videos.flatten(0, 1).float() / 127.5 - 1
    if frames.shape[-1] > SIDE:
        frames = F.adaptive_avg_pool2d(frames, SIDE)
    return frames.unflatten(0, videos.shape[:2])


def told_apart(
    pair: tuple[Tensor, Tensor, Tensor, Tensor],
    iterations: int = ITERATIONS["full"],
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> float:
    """How well a :class:`VideoJudge` tells two kinds of videos apart: ``|accuracy - 0.5|``.

    Trained by Adam on as many of each kind a batch; 0 is the best score of a generator; at 0.5 the
    judge is right about every held-out video. The score of TimeGAN (Yoon, Jarrett and van der
    Schaar, 2019), with a network for videos.

    Args:
        pair: ``(a_train, a_held, b_train, b_held)``, uint8 videos.
        tick: called after each iteration.
    """
    a, a_held, b, b_held = pair
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = VideoJudge(a.shape[2], min(SIDE, a.shape[-1]))
    random = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(judge.parameters(), lr=LEARNING_RATE)
    target = torch.arange(2.0).repeat_interleave(BATCH)
    for _ in range(iterations):
        picked = [kind[torch.randint(len(kind), (BATCH,), generator=random)] for kind in (b, a)]
        loss = F.binary_cross_entropy_with_logits(judge(_seen(torch.cat(picked))), target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        tick()
    with torch.no_grad():
        shares = [
            torch.cat([judge(_seen(part)) > 0 for part in held.split(256)]).double().mean().item()
            for held in (a_held, b_held)
        ]
    return abs((shares[0] + 1 - shares[1]) / 2 - 0.5)


def shuffled(videos: Tensor, random: torch.Generator) -> Tensor:
    """The frames of each video in random order."""
    order = torch.rand(videos.shape[:2], generator=random).argsort(1)
    return torch.take_along_dim(videos, order[:, :, None, None, None], 1)


def evaluate_videos(
    train: Tensor,
    test: Tensor,
    generated: Tensor,
    iterations: int = ITERATIONS["full"],
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """The scores above of generated videos, beside those of held-out real ones and of others.

    *Shuffled* are held-out real videos with their frames in an order of chance, and *noise* are
    uniform bytes. In the discriminative score *real* means a random half of the real videos against
    the other half, in what the judge is trained on and in what is held out.

    Args:
        train, test: real videos, uint8 [n, frames, channels, size, size].
        generated: others of that shape.
        iterations, tick: of the judge, for each of four pairs of kinds; 0: no judge is trained.

    Returns:
        ``count`` of held-out videos, and of each of ``SCORES`` the number for ``generated``,
        ``real``, ``shuffled`` and ``noise``, or why there is none. With a judge, ``reported`` tells
        whether it is fit to judge, as with TimeGAN's score; if not, ``reason`` says what is
        missing, and the discriminative score of ``generated`` is None.

    Raises:
        UndefinedScore: fewer than 4 videos to train on, held out or generated.
        ValueError: videos of different shapes.
    """
    if not train.shape[1:] == test.shape[1:] == generated.shape[1:]:
        raise ValueError(
            f"generated: expected videos of shape {tuple(train.shape[1:])}, "
            f"got {tuple(generated.shape[1:])}"
        )
    if min(len(train), len(test), len(generated)) < LEAST:
        raise UndefinedScore(
            f"{len(train)} videos to train on, {len(test)} held out and {len(generated)} generated "
            f"are too few to compare: {LEAST} of each are needed"
        )
    random = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randint(256, like.shape, generator=random, dtype=torch.uint8)

    others = {"shuffled": lambda like: shuffled(like, random), "noise": noise}
    kinds = {"generated": generated, "real": test}
    kinds |= {name: make(test) for name, make in others.items()}
    scores = {"count": len(test), **compare_motion(train, kinds)}
    scores["variety"] = compare_looks(train, kinds)
    if iterations == 0:
        return scores
    held = max(LEAST // 2, len(generated) // 5)
    pairs = {"generated": (train, test, generated[held:], generated[:held])}
    mixed = [part[torch.randperm(len(part), generator=random)] for part in (train, test)]
    pairs["real"] = tuple(part[side::2] for side in (0, 1) for part in mixed)
    some = train[torch.randperm(len(train), generator=random)[: len(generated)]]
    pairs |= {name: (train, test, make(some), kinds[name]) for name, make in others.items()}
    score = defined_for(pairs, lambda pair: told_apart(pair, iterations, seed, tick))
    reason = why_not_valid(score["noise"], score["real"], "videos")
    if reason is not None:
        score["generated"] = None
    judged = {"reported": reason is None, "reason": reason}
    return {**judged, **scores, "discriminative_score": score}
