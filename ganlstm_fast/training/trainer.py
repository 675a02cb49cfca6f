"""The loop of a run: steps, checkpoints, signals, warnings, early stopping."""

from __future__ import annotations

import copy
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from tqdm import tqdm

from ganlstm_fast.training.curves import curve_writer
from ganlstm_fast.training.errors import Line, TrainingError
from ganlstm_fast.training.progress import Bar
from ganlstm_fast.training.state import Run, on_first
from ganlstm_fast.training.undefined import Undefined, defined

# A sign of trouble is reported if it is there at this many checkpoints in a row.
TROUBLE = 3
# Before this step nothing counts as a sign: at first every generator is easy to tell from real
# data.
EARLY = 300
# Several processes ask each other about signals only once in this many steps.
ASK_EVERY = 10


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


def own_random(device: torch.device) -> AbstractContextManager[None]:
    """Leave torch's own generators as they were, of the CPU and of a GPU that is used."""
    # Not of all GPUs, as is the default: one that is not used may not even work.
    return torch.random.fork_rng(devices=[device.index] if device.type == "cuda" else [])


def fit(
    run: Run,
    stop: Stop,
    progress: Callable[..., tqdm] = Bar,
    warn: Callable[[str], object] = lambda line: None,
) -> None:
    """Train until the last step or until ``stop.signal`` is set; the checkpoint is then up to date.

    Args:
        warn: called with a line, once for each kind of trouble.

    Raises:
        TrainingError: a loss or a gradient is not finite. The checkpoint stays the last good one.
    """
    state = run.state
    every, names = state.config.checkpoint_every, state.recipe.columns
    saved = state.step
    with (
        progress(total=state.config.steps, initial=state.step, unit="step") as bar,
        curve_writer(run) as write_curves,
    ):
        while not is_trained(run):
            if _stopped(run, stop):
                break
            state.history[state.step] = state.recipe.step(state)
            state.step += 1
            bar.update()
            # Numbers are read, which waits for the device, only where they are needed.
            due = state.step % every == 0
            if due or state.step % 20 == 0:
                values = dict(zip(names, state.history[state.step - 1].tolist(), strict=True))
                bar.set_postfix({k: f"{v:.3f}" for k, v in list(values.items())[:3]}, refresh=False)
            if due:
                _check_finite(run, saved)
                _watch(run, warn)
                write_curves(saved, state.step)
                run.save()
                saved = state.step
                if state.fabric.is_global_zero:
                    state.recipe.show(run.folder)
        write_curves(saved, state.step)
    if state.step > saved:
        _check_finite(run, saved)
        run.save()


def _stopped(run: Run, stop: Stop) -> bool:
    """Whether to end here because of a signal; the same in all processes."""
    state = run.state
    if state.share.count == 1:
        return stop.signal is not None
    if state.step % ASK_EVERY:
        return False
    number = torch.tensor(float(stop.signal or 0), device=state.device)
    highest = int(state.fabric.all_reduce(number, reduce_op="max").item())
    stop.signal = highest or None
    return highest > 0


def is_trained(run: Run) -> bool:
    """Whether no step is left: all are done, or early stopping has had enough."""
    state, patience = run.state, run.state.config.patience
    return state.step >= state.config.steps or 0 < patience <= state.best.get("since", 0)


def _watch(run: Run, warn: Callable[[str], object]) -> None:
    """Look at what early stopping watches, and for trouble."""
    state, recipe = run.state, run.state.recipe
    if state.config.patience:
        # Judged by the first process, since the last bit may differ.
        value = on_first(state.fabric, lambda: defined(recipe.watched))
        if isinstance(value, Undefined):
            # Nothing to compare: this checkpoint counts neither as better nor as worse.
            if "watched" not in state.signs:
                warn(Line(f"step {state.step}: `patience` has nothing to go by: {value.reason}"))
                state.signs["watched"] = TROUBLE  # counts as reported
        elif not state.best or value < state.best["value"]:
            weights = copy.deepcopy(recipe.best_part().state_dict())
            state.best = {"value": value, "step": state.step, "since": 0, "weights": weights}
        else:
            state.best["since"] += 1
    if state.step < EARLY:
        return
    found: dict[str, str] = on_first(state.fabric, lambda: recipe.troubles(state))
    state.signs = {name: state.signs.get(name, 0) + (name in found) for name in _names(run, found)}
    for name, line in found.items():
        if state.signs[name] == TROUBLE:
            warn(Line(f"step {state.step}: {line}"))


def _names(run: Run, found: dict[str, str]) -> list[str]:
    """The signs to count: those that are there, and those already reported."""
    told = [name for name, count in run.state.signs.items() if count >= TROUBLE]
    return list(dict.fromkeys((*told, *found)))


def _check_finite(run: Run, saved: int) -> None:
    """Raise unless all numbers since step ``saved`` are finite.

    The gradients' norms are among them, so that weights that have just been spoilt are not saved.
    """
    state = run.state
    bad = (~state.history[saved : state.step].isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        rates = " and ".join(f"`{n}`" for n in ("lr_g", "lr_d", "lr") if hasattr(state.config, n))
        raise TrainingError(
            f"{state.recipe.columns[column]} is not finite at step {saved + row + 1}; the last "
            f"good checkpoint is {run.checkpoint} (step {saved}); try smaller {rates}, or `clip`"
        )
