"""Differentiable augmentation, applied alike to real and generated samples before the critic.

Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training, NeurIPS 2020: the critic
then never sees an unchanged sample, so it cannot memorise a small data set. The generator's
gradient passes through the change, so the generator does not learn to make changed samples.

Jitter and scaling of series: Um et al., Data Augmentation of Wearable Sensor Data, ICMI 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ganlstm_fast.ops.validation import check_lengths, check_tensor
from ganlstm_fast.training.errors import InputError

# The random numbers for one batch, by the transform's name; for a shift, the steps along each
# dimension.
Parameters = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random changes of a batch of series [batch, steps, channels] or of images [batch, channels,
    height, width], applied in the order of their names.

    ========= ================= ==================================================================
    name      of                what it does
    ========= ================= ==================================================================
    ``jitter`` series, images   adds normal noise of standard deviation ``jitter`` to each value
    ``scale`` series, images    multiplies each channel of a sample by a normal number of mean 1
                                and standard deviation ``scale``
    ``shift`` series            moves a sample along time by a whole number of steps, evenly up to
                                the share ``shift`` of its steps either way
    ``shift`` images            the same along height and width, each
    ``flip``  images            mirrors a sample, left to right, half of the time
    ========= ================= ==================================================================

    Differentiable with respect to the batch, to any order: each change is linear in it, and has no
    other parameter that learns.

    Attributes:
        names: the changes.
        jitter, scale: standard deviations, 0 or more.
        shift: a share of the length, from 0 to 1.
        padding: what fills the gap that a shift leaves: ``"edge"``, the value at that end, or
            ``"wrap"``, the values that the shift moved out at the other end.

    Raises:
        InputError: an unknown name, or a setting out of range.
    """

    names: tuple[str, ...]
    jitter: float = 0.03
    scale: float = 0.1
    shift: float = 0.125
    padding: str = "edge"

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in _TRANSFORMS or self.names.count(name) > 1:
                raise InputError(
                    f"augment: expected some of {', '.join(_TRANSFORMS)}, each once, "
                    f"got {','.join(self.names)}"
                )
        for name, most in (("jitter", float("inf")), ("scale", float("inf")), ("shift", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise InputError(
                    f"{name}: expected a number from 0 to {most}, got {getattr(self, name)}"
                )
        if self.padding not in ("edge", "wrap"):
            raise InputError(f"padding: expected edge or wrap, got {self.padding}")

    @classmethod
    def parse(cls, text: str, **settings: float | str) -> Augment:
        """From names with commas between them, such as ``"jitter,scale,shift"``; "" is none."""
        names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
        return cls(names=names, **settings)

    def draw(self, batch: Tensor, generator: torch.Generator | None = None) -> Parameters:
        """Random parameters for a batch of this shape, dtype and device.

        Args:
            generator: on the batch's device; None is torch's own. The same state gives the same
                parameters.

        Raises:
            TypeError: not a floating-point tensor.
            ValueError: neither series nor images, or ``flip`` for series.
        """
        check_tensor("batch", batch)
        if batch.ndim not in (3, 4):
            raise ValueError(
                "batch: expected [batch, steps, channels] or [batch, channels, height, width], "
                f"got {tuple(batch.shape)}"
            )
        return {name: _TRANSFORMS[name][0](self, batch, generator) for name in self.names}

    def __call__(
        self,
        batch: Tensor,
        *,
        generator: torch.Generator | None = None,
        parameters: Parameters | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """The changed batch, of the same shape; ``batch`` stays as it is.

        Args:
            generator: as for :meth:`draw`.
            parameters: of :meth:`draw` for a batch of this shape; None draws anew. Real and
                generated samples may have the same, or each their own.
            lengths: [batch] integers from 1 to ``steps``, how many steps of each series count.
                Steps after them are neither shifted into the series nor changed.

        Raises:
            TypeError, ValueError: as :meth:`draw`; lengths of another shape, for images, or out of
                range (which is not checked on a GPU).
        """
        if parameters is None:
            parameters = self.draw(batch, generator)
        if lengths is not None:
            if batch.ndim != 3:
                raise ValueError(f"lengths: are for series, got a batch {tuple(batch.shape)}")
            lengths = check_lengths(lengths, *batch.shape[:2]).to(batch.device)
        for name in self.names:
            batch = _TRANSFORMS[name][1](self, batch, parameters[name], lengths)
        return batch


def _within(batch: Tensor, lengths: Tensor) -> Tensor:
    """[batch, steps, 1] bool: which steps count."""
    return (torch.arange(batch.shape[1], device=batch.device) < lengths[:, None])[..., None]


def _like(batch: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=batch.dtype, device=batch.device)


def _draw_jitter(settings: Augment, batch: Tensor, generator: torch.Generator | None) -> Tensor:
    return settings.jitter * _like(batch, tuple(batch.shape), generator)


def _apply_jitter(
    settings: Augment, batch: Tensor, noise: Tensor, lengths: Tensor | None
) -> Tensor:
    return batch + (noise if lengths is None else noise * _within(batch, lengths))


def _draw_scale(settings: Augment, batch: Tensor, generator: torch.Generator | None) -> Tensor:
    count, *middle, last = batch.shape
    shape = (count, 1, last) if len(middle) == 1 else (count, middle[0], 1, 1)
    return 1 + settings.scale * _like(batch, shape, generator)


def _apply_scale(
    settings: Augment, batch: Tensor, factor: Tensor, lengths: Tensor | None
) -> Tensor:
    scaled = batch * factor
    return scaled if lengths is None else torch.where(_within(batch, lengths), scaled, batch)


def _moved_dims(batch: Tensor) -> tuple[int, ...]:
    return (1,) if batch.ndim == 3 else (2, 3)


def _draw_shift(settings: Augment, batch: Tensor, generator: torch.Generator | None) -> Tensor:
    """[batch, dimensions] in [-1, 1): the share of the largest shift."""
    shape = (len(batch), len(_moved_dims(batch)))
    return 2 * torch.rand(shape, generator=generator, device=batch.device) - 1


def _apply_shift(settings: Augment, batch: Tensor, share: Tensor, lengths: Tensor | None) -> Tensor:
    for column, dim in enumerate(_moved_dims(batch)):
        size = batch.shape[dim]
        length = (
            torch.full((len(batch),), size, device=batch.device) if lengths is None else lengths
        )
        most = (settings.shift * length).floor()
        # Each of 2 most + 1 steps is as likely.
        offset = ((share[:, column] + 1) / 2 * (2 * most + 1)).floor().clamp(max=2 * most) - most
        place = torch.arange(size, device=batch.device)
        source = place - offset.long()[:, None]
        if settings.padding == "wrap":
            source = source % length[:, None]
        else:
            source = torch.minimum(source.clamp(min=0), length[:, None] - 1)
        source = torch.where(place < length[:, None], source, place)
        shape = [len(batch)] + [1] * (batch.ndim - 1)
        shape[dim] = size
        batch = torch.take_along_dim(batch, source.view(shape), dim)
    return batch


def _draw_flip(settings: Augment, batch: Tensor, generator: torch.Generator | None) -> Tensor:
    if batch.ndim != 4:
        raise ValueError(f"augment: flip is for images, got a batch {tuple(batch.shape)}")
    return torch.rand((len(batch), 1, 1, 1), generator=generator, device=batch.device) < 0.5


def _apply_flip(
    settings: Augment, batch: Tensor, flipped: Tensor, lengths: Tensor | None
) -> Tensor:
    return torch.where(flipped, batch.flip(3), batch)


_TRANSFORMS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "jitter": (_draw_jitter, _apply_jitter),
    "scale": (_draw_scale, _apply_scale),
    "shift": (_draw_shift, _apply_shift),
    "flip": (_draw_flip, _apply_flip),
}
