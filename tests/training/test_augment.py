"""Augmentation: what each change does, that it is repeatable, and that gradients pass through."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ganlstm_fast.training.augment import Augment
from ganlstm_fast.training.errors import InputError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SERIES, IMAGES = (16, 24, 3), (16, 3, 16, 24)


@pytest.mark.parametrize("shape", [SERIES, IMAGES])
def test_jitter(shape):
    batch = torch.randn(shape)
    noise = Augment.parse("jitter", jitter=0.5)(batch, generator=generator()) - batch
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 0.5) < 0.05
    # Each value has its own noise.
    assert noise.unique().numel() > 0.99 * noise.numel()
    assert torch.equal(Augment.parse("jitter", jitter=0)(batch), batch)


@pytest.mark.parametrize(("shape", "inner"), [(SERIES, (1,)), (IMAGES, (2, 3))])
def test_scale(shape, inner):
    batch = torch.rand(shape, dtype=torch.float64) + 1
    factor = Augment.parse("scale", scale=0.2)(batch, generator=generator()) / batch
    each = factor.mean(inner, keepdim=True)
    torch.testing.assert_close(factor, each.expand_as(factor))
    assert each.unique().numel() == 48
    assert abs(each.mean() - 1) < 0.1
    assert abs(each.std() - 0.2) < 0.05


@pytest.mark.parametrize("padding", ["edge", "wrap"])
def test_shift_of_series(padding):
    batch = torch.arange(24.0)[None, :, None].expand(500, -1, 2)
    augment = Augment.parse("shift", shift=0.125, padding=padding)
    moved = augment(batch, generator=generator())
    counts = torch.zeros(7)
    for sample in moved:
        by = next(k for k in range(-3, 4) if sample[12, 0] == 12 - k)
        counts[by + 3] += 1
        place = torch.arange(24) - by
        expected = place % 24 if padding == "wrap" else place.clamp(0, 23)
        assert torch.equal(sample, expected[:, None].expand(-1, 2).float())
    # Each of 7 is as likely: 71 of 500, give or take 8.
    assert counts.sum() == 500
    assert ((counts - 500 / 7).abs() < 32).all()


@pytest.mark.parametrize("padding", ["edge", "wrap"])
def test_shift_of_images(padding):
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    batch = torch.stack((y, x)).expand(300, -1, -1, -1)
    moved = Augment.parse("shift", padding=padding)(batch, generator=generator())
    seen = set()
    for sample in moved:
        down, right = 8 - int(sample[0, 8, 12]), 12 - int(sample[1, 8, 12])
        seen.add((down, right))
        for place, size, values in (
            (torch.arange(16) - down, 16, sample[0, :, 5]),
            (torch.arange(24) - right, 24, sample[1, 5]),
        ):
            expected = place % size if padding == "wrap" else place.clamp(0, size - 1)
            assert torch.equal(values, expected.float())
    # Up to 2 of 16 and 3 of 24, the two independent of each other.
    assert seen == {(a, b) for a in range(-2, 3) for b in range(-3, 4)}


def test_flip():
    batch = torch.rand(400, 1, 4, 5)
    flipped = Augment.parse("flip")(batch, generator=generator())
    count = 0
    for before, after in zip(batch, flipped, strict=True):
        mirrored = torch.equal(after, before.flip(2))
        assert mirrored != torch.equal(after, before)
        count += mirrored
    assert 150 < count < 250


def test_padding_is_left_alone():
    batch = torch.randn(64, 10, 2)
    lengths = torch.randint(1, 11, (64,), generator=generator())
    lengths[:2] = torch.tensor([1, 10])
    within = torch.arange(10) < lengths[:, None]
    batch = batch * within[..., None]
    for padding in ("edge", "wrap"):
        augment = Augment.parse("scale,jitter,shift", shift=0.5, padding=padding)
        changed = augment(batch, generator=generator(), lengths=lengths)
        assert not changed[~within].any()
        assert (changed[within] != batch[within]).all()
        shift = Augment.parse("shift", shift=0.5, padding=padding)
        moved = shift(batch, generator=generator(), lengths=lengths)
        assert not moved[~within].any()
        for before, after, length in zip(batch, moved, lengths.tolist(), strict=True):
            # A series shifts by at most half its own length, and no padding comes in.
            fits = []
            for by in range(-(length // 2), length // 2 + 1):
                place = torch.arange(length) - by
                place = place % length if padding == "wrap" else place.clamp(0, length - 1)
                fits.append(torch.equal(after[:length], before[place]))
            assert any(fits)
    # Nothing changes outside the valid part.
    marked = torch.where(within[..., None], batch, torch.full_like(batch, 7))
    changed = Augment.parse("scale,jitter,shift")(marked, generator=generator(), lengths=lengths)
    assert (changed[~within] == 7).all()


@pytest.mark.parametrize(
    ("names", "shape"), [("jitter,scale,shift", (3, 8, 2)), ("flip,shift,scale", (3, 2, 8, 8))]
)
@pytest.mark.parametrize("padding", ["edge", "wrap"])
def test_gradients(names, shape, padding):
    batch = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    augment = Augment.parse(names, shift=0.4, padding=padding)
    parameters = augment.draw(batch, generator())
    lengths = torch.tensor([8, 5, 1]) if len(shape) == 3 else None

    def critic(x):
        # Not linear, so that there is a second order.
        return augment(x, parameters=parameters, lengths=lengths).pow(3).flatten(1).sum(1)

    assert not torch.equal(augment(batch, parameters=parameters), batch)
    assert gradcheck(critic, batch)
    assert gradgradcheck(critic, batch)


def test_gradient_of_a_shift_goes_where_the_values_came_from():
    batch = torch.randn(5, 8, 1, requires_grad=True)
    augment = Augment.parse("shift", shift=0.5)
    weight = torch.randn(5, 8, 1)
    (augment(batch, generator=generator()) * weight).sum().backward()
    place = torch.arange(8.0).expand(5, -1)[..., None]
    source = augment(place, generator=generator()).long()
    expected = torch.zeros(5, 8, 1).scatter_add(1, source, weight)
    torch.testing.assert_close(batch.grad, expected)


def test_the_same_parameters_for_two_batches():
    augment = Augment.parse("jitter,scale,shift")
    real, fake = torch.rand(SERIES), torch.rand(SERIES)
    parameters = augment.draw(real, generator())
    both = [augment(batch, parameters=parameters) for batch in (real, fake)]
    # All is linear: the difference of the two is changed by scale and shift alone.
    parameters["jitter"] = torch.zeros(SERIES)
    torch.testing.assert_close(
        both[0] - both[1], augment(real - fake, parameters=parameters), atol=1e-6, rtol=1e-5
    )


def test_repeatable():
    augment = Augment.parse("jitter,scale,shift")
    batch = torch.rand(SERIES)
    before = batch.clone()
    first = augment(batch, generator=generator())
    assert torch.equal(batch, before)
    torch.rand(1)
    assert torch.equal(first, augment(batch, generator=generator()))
    assert torch.equal(
        first, augment(batch, parameters=augment.draw(batch, generator()), generator=generator(7))
    )
    source = generator()
    augment(batch, generator=source)
    assert not torch.equal(first, augment(batch, generator=source))
    torch.manual_seed(3)
    plain = augment(batch)
    torch.manual_seed(3)
    assert torch.equal(plain, augment(batch))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_is_kept(dtype):
    batch = torch.rand(SERIES, dtype=dtype)
    assert Augment.parse("jitter,scale,shift")(batch).dtype == dtype


def test_order_and_no_names():
    batch = torch.rand(SERIES)
    assert Augment.parse("")(batch) is batch
    assert Augment.parse(" scale , jitter").names == ("scale", "jitter")
    ahead = Augment.parse("jitter,scale")
    parameters = ahead.draw(batch, generator())
    torch.testing.assert_close(
        ahead(batch, parameters=parameters), (batch + parameters["jitter"]) * parameters["scale"]
    )


def test_bad_arguments():
    for text in ("jitter,blur", "shift,shift", ","):
        with pytest.raises(InputError, match="augment: expected some of jitter, scale, shift"):
            Augment.parse(text)
    for settings in ({"jitter": -1.0}, {"scale": float("nan")}, {"shift": 1.5}):
        with pytest.raises(InputError, match=f"{next(iter(settings))}: expected a number from 0"):
            Augment.parse("jitter", **settings)
    with pytest.raises(InputError, match="padding: expected edge or wrap, got zero"):
        Augment.parse("shift", padding="zero")
    augment = Augment.parse("jitter")
    with pytest.raises(ValueError, match="flip is for images"):
        Augment.parse("flip")(torch.rand(SERIES))
    with pytest.raises(ValueError, match=r"batch: expected .* got \(5, 4\)"):
        augment(torch.rand(5, 4))
    with pytest.raises(TypeError, match="batch: expected a floating-point tensor"):
        augment(torch.zeros(SERIES, dtype=torch.int64))
    with pytest.raises(ValueError, match="lengths: are for series"):
        augment(torch.rand(IMAGES), lengths=torch.ones(16, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"lengths: expected values in 1\.\.24, got 25"):
        augment(torch.rand(SERIES), lengths=torch.full((16,), 25))
