"""How well generated series can stand in for real ones: the scores of TimeGAN.

Protocol: Yoon, Jarrett and van der Schaar, Time-series Generative Adversarial Networks, NeurIPS
2019, and the authors' ``discriminative_metrics.py`` and ``predictive_metrics.py``. Both scores
train a small network after the fact: one GRU layer of half as many units as there are channels (at
least 1), batches of 128, Adam at 1e-3.

- Discriminative, 0 (best) to 0.5: 2,000 iterations of telling real windows from generated ones by
  the GRU's last state; ``|accuracy - 0.5|`` on the 20% held out.
- Predictive, lower is better: 5,000 iterations, on generated windows, of predicting the last
  channel's next value from the other channels up to now (with one channel: from itself); the mean
  absolute error on real windows, in the scale in which the data's range is [0, 1].

Where this differs from the authors' code, which splits overlapping windows at random: what is held
out shares no row with what was trained on (:func:`~ganlstm_fast.training.splits.time_folds`), and
accuracy and error are means over five folds, so that every piece of the data is held out once (the
score of a single fold of a few hundred windows is partly chance, and never below 0; its mean is
given too). For noise and the untrained generator, which only bound the scale, one fold is run.
Independent series, which share no row, are split at random.

Several seeds repeat all of it: networks, batches, noise, the halves of the real windows and the
split of independent series are drawn anew. The spread is that of the measurement, for one trained
generator.

Each score stands beside that of an untrained generator, of uniform noise and of real windows.
*Real* in the discriminative score means one random half of the windows against the other, split by
time like the rest: the halves are drawn anew in what is trained on and in what is held out, so that
the expected accuracy is exactly a half. A test that cannot tell noise from data, or that sees a
difference between real and real, proves nothing: then the result is the reason instead of a score.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.training.errors import InputError, UndefinedScore
from ganlstm_fast.training.splits import series_folds, time_folds
from ganlstm_fast.training.undefined import check_finite
from ganlstm_fast.training.windows import Stretches, windows

SCORES = ("discriminative_score", "predictive_score")
NOISE_AT_LEAST = 0.45
REAL_AT_MOST = 0.05


@dataclass(frozen=True)
class Protocol:
    """Iterations of the two scores, and how often all is run; the rest is fixed."""

    discriminative_iterations: int = 2000
    predictive_iterations: int = 5000
    batch_size: int = 128
    learning_rate: float = 1e-3
    folds: int = 5
    seeds: int = 1

    @property
    def iterations(self) -> int:
        """Iterations of both scores over all seeds."""
        return self.seeds * (self.discriminative_iterations + self.predictive_iterations)


# With larger steps the quick judge sees in seconds what the protocol's sees: weather series shifted
# by 0.03 score 0.29 (in full 0.25), those of a trained generator 0.02 (0.01).
PROTOCOLS = {"full": Protocol(), "quick": Protocol(200, 300, learning_rate=1e-2)}


class ParallelGRU(nn.Module):
    """Independent one-layer GRUs with one output each, run and trained as one ``torch.nn.GRU``.

    Their weights lie on the diagonal of its matrices. The other entries are zero and get no
    gradient, so that under Adam, which works entry by entry, each network trains as it would
    alone, at the price of one.

    Args:
        count: networks.
        channels, hidden: inputs and units of each.
    """

    def __init__(self, count: int, channels: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.count, self.hidden = count, hidden
        self.gru = nn.GRU(count * channels, count * hidden, batch_first=True)
        self.head = nn.Parameter(torch.empty(count, hidden))
        self.bias = nn.Parameter(torch.empty(count))
        owner = torch.arange(count)
        rows = owner.repeat_interleave(hidden).repeat(3)[:, None]
        masks = {
            "weight_ih_l0": rows == owner.repeat_interleave(channels),
            "weight_hh_l0": rows == owner.repeat_interleave(hidden),
        }
        with torch.no_grad():
            for parameter in self.parameters():
                # torch's initialisation for a GRU and a linear layer of this size.
                parameter.uniform_(-(hidden**-0.5), hidden**-0.5, generator=generator)
            for name, mask in masks.items():
                parameter = getattr(self.gru, name)
                parameter.mul_(mask)
                parameter.register_hook(mask.to(parameter.dtype).mul)

    def forward(self, inputs: Tensor) -> Tensor:
        """[count, batch, steps, channels] -> the output after each step [count, batch, steps]."""
        count, batch, steps, channels = inputs.shape
        joined = inputs.permute(1, 2, 0, 3).reshape(batch, steps, count * channels)
        out = self.gru(joined)[0].unflatten(2, (self.count, self.hidden))
        return ((out * self.head).sum(-1) + self.bias).permute(2, 0, 1)


class _Pools:
    """One set of windows for each network, of different sizes; all networks draw at once."""

    def __init__(self, sets: Sequence[Tensor], generator: torch.Generator) -> None:
        sizes = torch.tensor([len(s) for s in sets])
        self.sizes = sizes[:, None]
        self.starts = (sizes.cumsum(0) - sizes)[:, None]
        self.windows = torch.cat(tuple(sets))
        self.generator = generator

    def draw(self, batch: int) -> Tensor:
        """[networks, batch, steps, channels]."""
        chance = torch.rand(len(self.sizes), batch, generator=self.generator, dtype=torch.float64)
        return self.windows[self.starts + (chance * self.sizes).long()]


def _fit(
    network: ParallelGRU,
    loss: Callable[[], Tensor],
    iterations: int,
    learning_rate: float,
    tick: Callable[[], object],
) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    for _ in range(iterations):
        optimiser.zero_grad(set_to_none=True)
        # A sum, not a mean, over the networks: each sees the gradient of its own loss.
        loss().sum().backward()
        optimiser.step()
        tick()


def _no_tick() -> None:
    return None


def discriminative_accuracies(
    pairs: Sequence[Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]],
    protocol: Protocol = PROTOCOLS["full"],
    seed: int = 0,
    tick: Callable[[], object] = _no_tick,
) -> list[list[float]]:
    """Held-out accuracy of telling two kinds of windows apart, for several pairs of kinds.

    Args:
        pairs: for each pair of kinds and each fold ``(a_train, a_held, b_train, b_held)``,
            each [n, steps, channels].
        tick: called after each iteration.

    Returns:
        The accuracy of each pair and fold. Both kinds count the same, whatever their numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    cases = [case for folds in pairs for case in folds]
    channels = cases[0][0].shape[-1]
    network = ParallelGRU(len(cases), channels, max(1, channels // 2), generator)
    a, b = (_Pools([case[i] for case in cases], generator) for i in (0, 2))
    size = protocol.batch_size
    target = torch.cat((torch.ones(len(cases), size), torch.zeros(len(cases), size)), 1)

    def loss() -> Tensor:
        logits = network(torch.cat((a.draw(size), b.draw(size)), 1))[..., -1]
        # TimeGAN adds the losses of the two kinds: twice their mean.
        return 2 * F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)

    _fit(network, loss, protocol.discriminative_iterations, protocol.learning_rate, tick)
    accuracies = iter(
        (_share_positive(network, k, case[1]) + 1 - _share_positive(network, k, case[3])) / 2
        for k, case in enumerate(cases)
    )
    return [[next(accuracies) for _ in folds] for folds in pairs]


@torch.no_grad()
def _outputs(network: ParallelGRU, k: int, inputs: Tensor) -> Tensor:
    """Network ``k``'s outputs [batch, steps] for ``inputs`` [batch, steps, channels]."""
    return network(inputs.expand(network.count, *inputs.shape))[k]


def _share_positive(network: ParallelGRU, k: int, held: Tensor) -> float:
    return (_outputs(network, k, held)[:, -1] > 0).double().mean().item()


def predictive_errors(
    cases: Sequence[Sequence[tuple[Tensor, Tensor]]],
    protocol: Protocol = PROTOCOLS["full"],
    seed: int = 0,
    tick: Callable[[], object] = _no_tick,
) -> list[list[float]]:
    """Mean absolute error on real windows of a predictor trained on other ones.

    Args:
        cases: for each kind and each fold ``(train, real_held)``, each [n, steps, channels].

    Returns:
        The error of each kind and fold.
    """
    generator = torch.Generator().manual_seed(seed)
    flat = [case for folds in cases for case in folds]
    channels = flat[0][0].shape[-1]
    seen = slice(0, max(1, channels - 1))
    network = ParallelGRU(len(flat), max(1, channels - 1), max(1, channels // 2), generator)
    pools = _Pools([train for train, _ in flat], generator)

    def loss() -> Tensor:
        batch = pools.draw(protocol.batch_size)
        guess = torch.sigmoid(network(batch[..., :-1, seen]))
        return (guess - batch[..., 1:, -1]).abs().mean((1, 2))

    _fit(network, loss, protocol.predictive_iterations, protocol.learning_rate, tick)

    def error(k: int, held: Tensor) -> float:
        guess = torch.sigmoid(_outputs(network, k, held[:, :-1, seen]))
        return (guess - held[:, 1:, -1]).abs().mean().item()

    errors = iter(error(k, held) for k, (_, held) in enumerate(flat))
    return [[next(errors) for _ in folds] for folds in cases]


def evaluate(
    real: Tensor,
    generated: Tensor,
    untrained: Tensor,
    *,
    protocol: Protocol = PROTOCOLS["full"],
    seed: int = 0,
    tick: Callable[[], object] = _no_tick,
    stretches: Stretches | None = None,
) -> dict[str, object]:
    """Both scores of generated series, beside those of the data that bounds them.

    Args:
        real: one long series [rows, channels], cut into all windows of the length of ``generated``,
            or independent series [n, seq_len, channels]; scaled to [0, 1], on the CPU.
        generated: [n, seq_len, channels] of the trained generator, in the same scale; as many as
            there are real windows is best.
        untrained: the same of a generator that has not been trained.
        seed: of the first of the ``protocol.seeds`` runs; the others follow it.
        tick: called after each of the ``protocol.iterations``.
        stretches: of the rows of one long series, in which its windows lie; None: all follow each
            other.

    Returns:
        A dictionary for JSON. ``reported`` tells whether the protocol's checks held; if not,
        ``reason`` says which did not, and the scores of ``generated`` are None. A ``score`` is the
        mean of ``score_of_seeds``, and ``spread`` their standard deviation, None for one seed.

    Raises:
        ValueError: series of other shapes.
        UndefinedScore: too few rows or series to hold some out, or values that are not finite.
    """
    kinds = {"generated": generated, "untrained": untrained}
    for name, series in kinds.items():
        expected = ("n", *(generated.shape[1:2] if real.ndim == 2 else real.shape[1:2]))
        expected += (real.shape[-1],)
        if series.ndim != 3 or tuple(series.shape[1:]) != expected[1:]:
            raise ValueError(f"{name}: expected shape {expected}, got {tuple(series.shape)}")
        check_finite(name, series)
        if len(series) < 2 * protocol.folds:
            raise UndefinedScore(
                f"{name}: {len(series)} series are too few to hold some out; at least "
                f"{2 * protocol.folds}"
            )
    check_finite("real", real)
    runs = [_run(real, kinds, protocol, seed + k, tick, stretches) for k in range(protocol.seeds)]
    names = (*kinds, "noise", "real")
    accuracies, errors = ([[run[i][k] for run in runs] for k in range(len(names))] for i in (0, 1))

    discriminative: dict[str, object] = {
        name: {
            **_over_seeds([abs(statistics.fmean(folds) - 0.5) for folds in seeds]),
            "mean_score_of_folds": statistics.fmean(abs(a - 0.5) for f in seeds for a in f),
            "accuracy_of_folds": _of_folds(seeds),
        }
        for name, seeds in zip(names, accuracies, strict=True)
    }
    predictive: dict[str, object] = {
        name: {
            **_over_seeds([statistics.fmean(folds) for folds in seeds]),
            "error_of_folds": _of_folds(seeds),
        }
        for name, seeds in zip(names, errors, strict=True)
    }
    reason = why_not_valid(discriminative["noise"]["score"], discriminative["real"]["score"])
    if reason is not None:
        discriminative["generated"] = predictive["generated"] = None
    return {
        "reported": reason is None,
        "reason": reason,
        "discriminative_score": discriminative,
        "predictive_score": predictive,
    }


def _over_seeds(scores: list[float]) -> dict[str, object]:
    spread = statistics.stdev(scores) if len(scores) > 1 else None
    return {"score": statistics.fmean(scores), "spread": spread, "score_of_seeds": scores}


def _of_folds(seeds: list[list[float]]) -> list[float]:
    """The mean over the seeds of each fold."""
    return [statistics.fmean(values) for values in zip(*seeds, strict=True)]


def _run(
    real: Tensor,
    kinds: dict[str, Tensor],
    protocol: Protocol,
    seed: int,
    tick: Callable[[], object],
    stretches: Stretches | None,
) -> tuple[list[list[float]], list[list[float]]]:
    """Accuracies and errors of each kind, of noise and of real series, and of each fold."""
    generator = torch.Generator().manual_seed(seed)
    try:
        if real.ndim == 2:
            seq_len = kinds["generated"].shape[1]
            split = time_folds(stretches or len(real), seq_len, protocol.folds)
            real = windows(real, seq_len, stretches)
        else:
            split = series_folds(len(real), protocol.folds, generator)
    except InputError as error:
        raise UndefinedScore(str(error)) from None
    kinds = {**kinds, "noise": torch.rand(real.shape, generator=generator)}

    def pair(other: Tensor, fold: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        train, test = split[fold]
        held = torch.arange(len(other)) % protocol.folds == fold
        return real[train], real[test], other[~held], other[held]

    def halves(fold: int) -> tuple[Tensor, ...]:
        mixed = [part[torch.randperm(len(part), generator=generator)] for part in split[fold]]
        return tuple(real[part[side::2]] for side in (0, 1) for part in mixed)

    every, first = range(protocol.folds), range(1)
    folds_of = {name: every if name == "generated" else first for name in kinds}
    pairs = [[pair(kinds[name], f) for f in folds] for name, folds in folds_of.items()]
    pairs.append([halves(f) for f in every])
    cases = [[(kinds[name], real[split[f][1]]) for f in folds] for name, folds in folds_of.items()]
    cases.append([(real[train], real[test]) for train, test in split])
    stopped = threading.Event()

    def unless_stopped() -> None:
        if stopped.is_set():
            raise CancelledError
        tick()

    # Both run many tiny products, which release the interpreter's lock: one core each.
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            told = pool.submit(discriminative_accuracies, pairs, protocol, seed, unless_stopped)
            missed = pool.submit(predictive_errors, cases, protocol, seed, unless_stopped)
            try:
                return told.result(), missed.result()
            except BaseException:
                # Such as KeyboardInterrupt: the pool would wait for both to end.
                stopped.set()
                raise
    finally:
        # Some settings of the number of threads hold for the whole process, not for one thread.
        torch.set_num_threads(threads)


def why_not_valid(noise: float, real: float, what: str = "windows") -> str | None:
    """Why a discriminative score proves nothing, by the scores of noise and of real against real.

    Args:
        what: the judge tells apart, in the plural.
    """
    if not noise >= NOISE_AT_LEAST:
        return (
            f"noise scores {noise:.3f} against the data, less than {NOISE_AT_LEAST}: the test is "
            "too weak to tell anything from this data"
        )
    if not real <= REAL_AT_MOST:
        return (
            f"real {what} score {real:.3f} against real ones, more than {REAL_AT_MOST}: the test "
            "sees differences that are not there; more data is needed"
        )
    return None
