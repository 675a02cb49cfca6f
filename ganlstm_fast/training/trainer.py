"""Training of an LSTM-GAN: the state of a run, its step, its loop."""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from ganlstm_fast.gradient_penalty import gradient_penalty
from ganlstm_fast.losses import gan_loss
from ganlstm_fast.models import LSTMGAN
from ganlstm_fast.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from ganlstm_fast.training.config import RESUMABLE, TrainConfig
from ganlstm_fast.training.data import MinMaxScaler, Series, load_series, windows
from ganlstm_fast.training.errors import InputError, TrainingError

KIND = "LSTMGAN"
# The columns of State.history, one row a step.
HISTORY = ("loss_d", "loss_g", "gap", "penalty", "grad_norm_d", "grad_norm_g")


def build_model(config: TrainConfig, channels: int) -> LSTMGAN:
    """The untrained model of a run; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return LSTMGAN(channels, config.noise, config.hidden, config.layers)


class State:
    """All that changes while a run trains, so that a run that is resumed goes on exactly.

    Args:
        config: the settings.
        series: the data.

    Raises:
        InputError: fewer rows than a window, or a device that is not there.
    """

    def __init__(self, config: TrainConfig, series: Series) -> None:
        self.series = series
        self.device = find_device(config.device)
        self.scaler = MinMaxScaler.fit(series.values)
        self.rows = self.scaler.scale(series.values)
        self.windows = windows(self.rows, config.seq_len).to(self.device)
        if config.epochs is not None:
            per_epoch = math.ceil(len(self.windows) / config.batch_size)
            config = dataclasses.replace(config, steps=config.epochs * per_epoch)
        self.config = config
        self.model = build_model(config, len(series.columns)).to(self.device)
        self.average = AveragedModel(
            self.model.generator, multi_avg_fn=get_ema_multi_avg_fn(config.ema)
        )
        betas = (config.beta1, config.beta2)
        self.optimiser_g = torch.optim.Adam(
            self.model.generator.parameters(), config.lr_g, betas, fused=True
        )
        self.optimiser_d = torch.optim.Adam(
            self.model.critic.parameters(), config.lr_d, betas, fused=True
        )
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.step = 0
        self.history = torch.full((config.steps, len(HISTORY)), math.nan, device=self.device)

    def save(self, path: Path) -> None:
        """Write the checkpoint."""
        save_checkpoint(
            path,
            KIND,
            {
                "config": self.config.to_dict(),
                "data": {
                    "name": self.series.name,
                    "columns": list(self.series.columns),
                    "fingerprint": self.series.fingerprint,
                    "minimum": self.scaler.minimum,
                    "maximum": self.scaler.maximum,
                },
                "step": self.step,
                "history": self.history[: self.step].clone(),
                "random": self.generator.get_state(),
                **{name: part.state_dict() for name, part in self._parts().items()},
            },
        )

    def restore(self, content: dict[str, Any]) -> None:
        """Take up where ``content`` of :func:`load_checkpoint` was saved."""
        self.step = content["step"]
        self.history[: self.step] = content["history"].to(self.device)
        self.generator.set_state(content["random"])
        for name, part in self._parts().items():
            part.load_state_dict(content[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "average": self.average,
            "optimiser_g": self.optimiser_g,
            "optimiser_d": self.optimiser_d,
        }


def find_device(name: str) -> torch.device:
    """The device called ``name``; raises InputError if it cannot compute here."""
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}); try cpu") from None
    return device


def train_step(state: State) -> Tensor:
    """One step of the generator after ``n_critic`` of the critic.

    Returns:
        [len(HISTORY)], without a graph and on the run's device: nothing waits for it.
    """
    config, model = state.config, state.model
    loss = gan_loss(config.loss, label_smoothing=config.label_smoothing)
    weight = config.penalty
    if weight is None:
        weight = 10.0 if loss.penalty else 1.0
    batch = config.batch_size

    # Of the last time that there was one.
    penalty = state.history[max(0, state.step - 1), HISTORY.index("penalty")]
    for critic_step in range(state.step * config.n_critic, (state.step + 1) * config.n_critic):
        pick = torch.randint(
            len(state.windows), (batch,), generator=state.generator, device=state.device
        )
        real = state.windows[pick].contiguous()
        with torch.no_grad():
            fake = model(model.generator.noise(batch, config.seq_len, state.generator))
        real_scores, fake_scores = model.critic(torch.cat((real, fake))).split(batch)
        loss_d = loss.critic(real_scores, fake_scores)
        total = loss_d
        if weight == 0:
            penalty = loss_d.new_zeros(())
        elif critic_step % config.penalty_every == 0:
            penalty = gradient_penalty(
                model.critic,
                real,
                fake,
                kind=loss.penalty or "r1",
                lambda_=weight,
                generator=state.generator,
                batch_fraction=config.penalty_fraction,
            )
            total = loss_d + config.penalty_every * penalty
        norm_d = _update(model.critic, total, state.optimiser_d, config.clip)
    gap = real_scores.mean() - fake_scores.mean()

    # The generator's step needs the critic's gradient with respect to its input only; the scores of
    # real windows then have no graph.
    model.critic.requires_grad_(False)
    fake = model(model.generator.noise(batch, config.seq_len, state.generator))
    real_scores = model.critic(real) if loss.generator_needs_real else None
    loss_g = loss.generator(model.critic(fake), real_scores)
    norm_g = _update(model.generator, loss_g, state.optimiser_g, config.clip)
    model.critic.requires_grad_(True)
    state.average.update_parameters(model.generator)
    return torch.stack((loss_d, loss_g, gap, penalty, norm_d, norm_g)).detach().float()


def _update(
    network: nn.Module, loss: Tensor, optimiser: torch.optim.Optimizer, clip: float
) -> Tensor:
    """Step ``network`` down ``loss``; returns the norm of the gradient before clipping."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = clip_grad_norm_(network.parameters(), clip if clip > 0 else math.inf, foreach=True)
    optimiser.step()
    return norm


class Stop:
    """Whether SIGINT or SIGTERM has come: ``signal`` is its number, or None.

    While ``deferred`` a signal only sets ``signal``, for the loop to end after its step; a second
    one, and any one later, raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.deferred = True

    def __call__(self, number: int, frame: object) -> None:
        again = self.signal is not None
        self.signal = number
        if again or not self.deferred:
            raise KeyboardInterrupt


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Catch SIGINT and SIGTERM in the block, where Python allows it: in the main thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch's operators use ``count`` threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Run:
    """A run on disk: its folder and its state, new or resumed."""

    folder: Path
    state: State

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT


def start_run(config: TrainConfig, out: Path | None = None) -> Run:
    """Check everything, then make the folder of a new run with its first checkpoint.

    Args:
        out: the folder; None is the first free one of ``runs/DATA``, ``runs/DATA-2``, ...

    Raises:
        InputError: data or settings that cannot be used, or a folder that cannot be written or
            holds a run already. Then nothing is left behind.
    """
    if config.data is not None:
        # So that the run can be resumed from another folder.
        config = dataclasses.replace(config, data=str(Path(config.data).absolute()))
    state = State(config, load_series(config.data, config.columns))
    if out is None:
        out = Path("runs") / state.series.name
        number = 1
        while out.exists():
            number += 1
            out = out.with_name(f"{state.series.name}-{number}")
    elif (out / CHECKPOINT).exists():
        raise InputError(
            f"{out} holds a run already; go on with it with --resume {out}, or choose another --out"
        )
    made = _missing_folders(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        state.save(out / CHECKPOINT)
    except (OSError, InputError) as error:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"cannot make the folder {out}: {error.strerror}; choose another --out"
        ) from None
    return Run(out, state)


def _missing_folders(path: Path) -> list[Path]:
    """``path`` and those above it that do not exist, the innermost first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def resume_run(folder: Path, changes: dict[str, Any] | None = None) -> Run:
    """A run from its checkpoint.

    Args:
        changes: settings to change; only those in ``RESUMABLE`` may.

    Raises:
        InputError: no checkpoint that can be read, data that is not what the run was trained on, or
            a change that would alter what has been trained.
    """
    content = load_checkpoint(folder, KIND)
    config = TrainConfig.from_dict(content["config"])
    changes = {k: v for k, v in (changes or {}).items() if v != getattr(config, k)}
    for name in changes:
        if name not in RESUMABLE:
            raise InputError(
                f"--{name.replace('_', '-')} cannot change when a run is resumed (it has "
                f"{getattr(config, name)}); leave it out, or start a new run"
            )
    if "steps" in changes:
        changes.setdefault("epochs", None)
    config = dataclasses.replace(config, **changes)
    series = load_series(config.data, config.columns)
    if series.fingerprint != content["data"]["fingerprint"]:
        raise InputError(
            f"{config.data or 'the bundled data'} is not what this run was trained on; give that "
            "file with --data, or start a new run"
        )
    state = State(config, series)
    if state.config.steps < content["step"]:
        raise InputError(
            f"--steps: the run has done {content['step']} already; expected as many or more"
        )
    try:
        state.restore(content)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder}: the checkpoint does not fit its settings: {reason}") from None
    return Run(folder if folder.is_dir() else folder.parent, state)


def fit(run: Run, stop: Stop, progress: Callable[..., tqdm] = tqdm) -> None:
    """Train until the last step or until ``stop.signal`` is set; the checkpoint is then up to date.

    Raises:
        TrainingError: a loss or a gradient is not finite. The checkpoint stays the last good one.
    """
    state, every = run.state, run.state.config.checkpoint_every
    saved = state.step
    with progress(total=state.config.steps, initial=state.step, unit="step") as bar:
        while state.step < state.config.steps and stop.signal is None:
            state.history[state.step] = train_step(state)
            state.step += 1
            bar.update()
            # Numbers are read, which waits for the device, only where they are needed.
            due = state.step % every == 0
            if due or state.step % 20 == 0:
                values = dict(zip(HISTORY, state.history[state.step - 1].tolist(), strict=True))
                shown = {k: f"{values[k]:.3f}" for k in ("loss_d", "loss_g", "gap")}
                bar.set_postfix(shown, refresh=False)
            if due:
                _save_if_finite(run, saved)
                saved = state.step
    if state.step > saved:
        _save_if_finite(run, saved)


def _save_if_finite(run: Run, saved: int) -> None:
    """Save, unless a number since step ``saved`` is not finite.

    The gradients' norms are among them, so that weights that have just been spoilt are not saved.
    """
    state = run.state
    bad = (~state.history[saved : state.step].isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise TrainingError(
            f"{HISTORY[column]} is not finite at step {saved + row + 1}; the last good checkpoint "
            f"is {run.checkpoint} (step {saved}); try smaller --lr-g and --lr-d, or --clip"
        )
    state.save(run.checkpoint)
