"""Generated text: the Gumbel-softmax, and generators that learn frequencies and likelihoods."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ganlstm_fast.models import (
    TextGAN,
    TextGenerator,
    gumbel_softmax,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_gumbel_softmax_draws_from_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0])
    generator = torch.Generator().manual_seed(0)
    draws = gumbel_softmax(logits.expand(20000, 4), 0.3, True, generator)
    expected = logits.softmax(0)
    torch.testing.assert_close(draws.mean(0), expected, rtol=0, atol=4 * 0.5 / math.sqrt(20000))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_gumbel_softmax_rows(dtype: torch.dtype) -> None:
    logits = torch.randn(50, 6, 9, dtype=dtype, requires_grad=True)

    def draw(**options: Any) -> Tensor:
        return gumbel_softmax(logits, 0.7, generator=torch.Generator().manual_seed(0), **options)

    soft, hard = draw(), draw(hard=True)
    assert soft.dtype == hard.dtype == dtype
    torch.testing.assert_close(soft.sum(-1), torch.ones_like(soft[..., 0]))
    assert ((hard == 0) | (hard == 1)).all()
    assert torch.equal(hard.sum(-1), torch.ones_like(hard[..., 0]))
    assert torch.equal(hard.argmax(-1), soft.argmax(-1))
    slope = torch.randn_like(soft)
    grads = [torch.autograd.grad((out * slope).sum(), logits)[0] for out in (soft, hard)]
    assert torch.equal(*grads)
    assert grads[0].any()


def test_gumbel_softmax_is_torchs() -> None:
    logits = torch.randn(5, 4, dtype=torch.float64)
    torch.manual_seed(1)
    ours = gumbel_softmax(logits, 0.4)
    torch.manual_seed(1)
    torch.testing.assert_close(ours, F.gumbel_softmax(logits, 0.4))


def test_text_samples() -> None:
    gan = TextGAN(7, noise=4, hidden=5)
    samples = gan.generator.sample(6, 9, torch.Generator().manual_seed(0), batch=4)
    assert ((samples == 0) | (samples == 1)).all()
    assert (samples.sum(2) == 1).all()
    soft = gan(gan.generator.noise(6, 9), temperature=0.5, lengths=[9, 8, 7, 1, 2, 9])
    valid = torch.arange(9) < torch.tensor([9, 8, 7, 1, 2, 9]).unsqueeze(1)
    torch.testing.assert_close(soft.sum(2), valid.float())
    hard = gan(gan.generator.noise(6, 9), temperature=0.5, hard=True)
    gan.critic(hard).sum().backward()
    assert all(p.grad.any() for p in gan.generator.parameters())
    with pytest.raises(ValueError, match="temperature: expected a number above 0, got 0"):
        gan(gan.generator.noise(6, 9), temperature=0)


def test_a_text_generator_learns_frequencies() -> None:
    """The straight-through gradient leads to a symbol that a linear critic prefers."""
    generator = TextGenerator(4, noise=4, hidden=8)
    optimiser = torch.optim.Adam(generator.parameters(), 0.02)
    for _ in range(100):
        optimiser.zero_grad()
        text = generator(generator.noise(16, 6), hard=True)
        (-text[..., 2].mean()).backward()
        optimiser.step()
    assert generator.sample(100, 6)[..., 2].mean() > 0.9


def test_a_text_generator_that_reads_what_it_has_drawn() -> None:
    """The logits of each step are those for the whole drawn text given at once."""
    generator = TextGenerator(7, noise=4, hidden=5, layers=2, feedback=True).double()
    noise = generator.noise(3, 6)
    first = torch.Generator().manual_seed(1)
    soft = generator(noise, temperature=0.7, generator=first)
    logits = generator(noise, given=soft)
    again = gumbel_noise((3, 6, 7), torch.Generator().manual_seed(1))
    torch.testing.assert_close(soft, ((logits + again) / 0.7).softmax(2))
    # What comes later is not read.
    other = torch.cat((soft[:, :4], soft[:, 4:].flip(2)), 1)
    torch.testing.assert_close(generator(noise, given=other)[:, :5], logits[:, :5])
    assert not torch.equal(generator(noise, given=other)[:, 5], logits[:, 5])
    hard = generator(noise, hard=True)
    assert torch.equal(hard.sum(2), torch.ones_like(hard[..., 0]))
    ended = generator(noise, lengths=[6, 2, 1])
    assert torch.equal(ended.sum(2) > 0.5, torch.arange(6) < torch.tensor([[6], [2], [1]]))


def gumbel_noise(shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """The noise that gumbel_softmax draws, step by step."""
    count, steps, symbols = shape
    draws = [
        torch.empty(count, 1, symbols, dtype=torch.float64).exponential_(generator=random)
        for _ in range(steps)
    ]
    return -torch.cat(draws, 1).log()


def test_a_text_generator_learns_by_likelihood() -> None:
    """Symbols that follow each other in a circle: each but the first is certain."""
    generator = TextGenerator(4, noise=2, hidden=16, feedback=True)
    optimiser = torch.optim.Adam(generator.parameters(), 0.02)
    for _ in range(150):
        text = (torch.randint(4, (16, 1)) + torch.arange(6)) % 4
        logits = generator(generator.noise(16, 6), given=F.one_hot(text, 4).float())
        optimiser.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), text.flatten()).backward()
        optimiser.step()
    drawn = generator.sample(200, 6).argmax(2)
    assert ((drawn.diff(dim=1) % 4) == 1).double().mean() > 0.97
    assert torch.bincount(drawn[:, 0], minlength=4).min() > 20
