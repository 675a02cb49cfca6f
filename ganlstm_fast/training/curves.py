"""The numbers of the steps for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.state import Run


@contextmanager
def curve_writer(run: Run) -> Iterator[Callable[[int, int], None]]:
    """Yield what writes the numbers of the steps from one to another, to ``RUN/tensorboard``.

    It does nothing unless the run's ``log`` asks for it, and only in the first process.

    Raises:
        InputError: TensorBoard is not installed.
    """
    state = run.state
    if state.config.log != "tensorboard" or not state.fabric.is_global_zero:
        yield lambda start, stop: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        raise InputError(
            "`log=tensorboard`: TensorBoard is not installed: "
            'pip install "ganlstm_fast[tensorboard]"'
        ) from None
    with SummaryWriter(str(run.folder / "tensorboard"), purge_step=state.step + 1) as writer:

        def write(start: int, stop: int) -> None:
            rows = state.history[start:stop].tolist()
            for step, row in enumerate(rows, start + 1):
                for name, value in zip(state.recipe.columns, row, strict=True):
                    writer.add_scalar(name, value, step)

        yield write
