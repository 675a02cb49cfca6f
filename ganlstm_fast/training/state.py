"""What a run consists of: its state, and its folder on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ganlstm_fast.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from ganlstm_fast.training.config import Settings
from ganlstm_fast.training.configs import model_of
from ganlstm_fast.training.errors import InputError, did_you_mean
from ganlstm_fast.training.fabric import OneProcess, Share, make_fabric, scaler_of
from ganlstm_fast.training.recipes.base import Recipe
from ganlstm_fast.training.tables.given import is_table, shown

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class State:
    """All that changes while a run trains; saved, so that a resumed run goes on exactly.

    Args:
        recipe: what is trained, not set up yet.
        fabric: launched.

    Attributes:
        config: the recipe's settings, with the number of steps that ``epochs`` makes.
        generator: of all random numbers; the same in all processes.
        share: the samples of a batch that this process takes.
        history: [steps, len(recipe.columns)], the numbers of each step.
        best: for early stopping: the best ``value`` watched, its ``step``, the ``weights`` at that
            step, and the number of checkpoints ``since``.
        signs: for each sign of trouble, at how many checkpoints in a row it was seen.
    """

    def __init__(self, recipe: Recipe, fabric: Fabric | OneProcess) -> None:
        config = recipe.config
        if config.epochs is not None:
            per_epoch = math.ceil(recipe.size / config.batch_size)
            config = dataclasses.replace(config, steps=config.epochs * per_epoch)
        self.recipe, self.fabric, self.config = recipe, fabric, config
        self.device = fabric.device
        self.share = Share(fabric.global_rank, fabric.world_size)
        recipe.setup(fabric)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.step = 0
        self.history = torch.full((config.steps, len(recipe.columns)), math.nan, device=self.device)
        self.best: dict[str, Any] = {}
        self.signs: dict[str, int] = {}

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        scaler = scaler_of(self.fabric)
        return {
            "config": self.config.to_dict(),
            "data": self.recipe.data,
            "step": self.step,
            "history": self.history[: self.step].clone(),
            "random": self.generator.get_state(),
            "precision": {} if scaler is None else scaler.state_dict(),
            "best": self.best,
            "signs": self.signs,
            **{name: part.state_dict() for name, part in self.recipe.parts().items()},
        }

    def restore(self, content: dict[str, Any]) -> bool:
        """Continue from the state in ``content`` of :func:`load_checkpoint`.

        Returns:
            Whether the run goes on exactly. It does not after steps on another kind of device,
            which has other random numbers: they then start anew from the seed and the step.
        """
        self.step = content["step"]
        self.history[: self.step] = content["history"].to(self.device)
        same = len(content["random"]) == len(self.generator.get_state())
        if same:
            self.generator.set_state(content["random"])
        else:
            self.generator.manual_seed((self.config.seed + (self.step << 32)) % 2**63)
        scaler = scaler_of(self.fabric)
        if scaler is not None:
            scaler.load_state_dict(content.get("precision", {}))
        self.best = content.get("best", {})
        self.signs = content.get("signs", {})
        for name, part in self.recipe.parts().items():
            part.load_state_dict(content[name])
        return same or self.step == 0

    def own_generator(self) -> torch.Generator:
        """The random generator of this process alone, seeded from the run's present state."""
        if self.share.count == 1:
            return self.generator
        seed = torch.randint(2**62, (), generator=self.generator, device=self.device).item()
        return torch.Generator(self.device).manual_seed(int(seed) + self.share.rank)

    def last(self, column: str) -> Tensor:
        """The value of the step before; NaN in the first one."""
        return self.history[max(0, self.step - 1), self.recipe.columns.index(column)]


@dataclass(frozen=True)
class Run:
    """A run on disk: its folder and its state, new or resumed."""

    folder: Path
    state: State

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    def save(self) -> None:
        """Write the checkpoint; only the first process does."""
        on_first(self.state.fabric, lambda: save(self.checkpoint, self.state))


def save(path: Path, state: State) -> None:
    save_checkpoint(path, model_of(state.config).kind, state.content())


def on_first(fabric: Fabric | OneProcess, action: Any) -> Any:
    """What ``action()`` returns in the first process, in all of them.

    Raises:
        InputError: it raised one there.
    """
    if fabric.world_size == 1:
        return action()
    result: tuple[Any, str | None] = (None, None)
    if fabric.is_global_zero:
        try:
            result = action(), None
        except InputError as error:
            result = None, error.args[0]
    value, error = fabric.broadcast(result)
    if error is not None:
        raise InputError(error)
    return value


def _silent(line: str) -> None:
    pass


def start_run(
    config: Settings, out: Path | None = None, warn: Callable[[str], object] = _silent
) -> Run:
    """Check everything, then make the folder of a new run with its first checkpoint.

    Args:
        out: the folder; None is the first free one of ``runs/NAME``, ``runs/NAME-2``, ...
        warn: called with a line that the user has to know.

    Raises:
        InputError: data or settings that cannot be used, or a folder that cannot be written or
            holds a run already. Then nothing is left behind.
    """
    config = config.located()
    if out is not None and (out / CHECKPOINT).exists():
        raise InputError(
            f"{out} holds a run already; go on with it with `resume={out}`, or choose another `out`"
        )
    fabric = make_fabric(config, warn)
    recipe = model_of(config).load()(config)
    _launch(fabric, recipe)
    state = State(recipe, fabric)
    return Run(on_first(fabric, lambda: _make_folder(out, state)), state)


def _launch(fabric: Fabric | OneProcess, recipe: Recipe) -> None:
    """Start the other processes of the run. Each process reads the data itself.

    Raises:
        InputError: the data of one differs, as where a script draws its table at random.
    """
    fabric.launch()
    if fabric.world_size > 1:
        digest = hashlib.sha256(recipe.data["fingerprint"].encode()).digest()[:7]
        mine = torch.tensor(int.from_bytes(digest, "big"), device=fabric.device)
        highest = fabric.all_reduce(mine.clone(), reduce_op="max")
        lowest = -fabric.all_reduce(-mine, reduce_op="max")
        # All processes know both numbers and raise together, so that none waits for another.
        if highest != lowest:
            raise InputError("`data`: the processes of the run have different data")


def _make_folder(out: Path | None, state: State) -> Path:
    if out is None:
        out = Path("runs") / state.recipe.name
        number = 1
        while out.exists():
            number += 1
            out = out.with_name(f"{state.recipe.name}-{number}")
    # Those that do not exist yet, the innermost first.
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        save(out / CHECKPOINT, state)
    except (OSError, InputError) as error:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"cannot make the folder {out}: {error.strerror}; choose another `out`"
        ) from None
    return out


def resume_run(
    folder: Path,
    changes: dict[str, Any] | None = None,
    warn: Callable[[str], object] = _silent,
) -> Run:
    """A run from its checkpoint.

    It has the settings that it had, ``device`` too: one of ``auto`` looks for a GPU again, and one
    of ``cpu`` stays there.

    Args:
        changes: settings to change; only those that are ``resumable`` may.
        warn: called with a line that the user has to know.

    Raises:
        InputError: no checkpoint that can be read, data that is not what the run was trained on, or
            a change that would alter what has been trained.
    """
    content = load_checkpoint(folder)
    model = model_of(content["kind"])
    config = changed(model.config.from_dict(content["config"]), changes or {}).located()
    fabric = make_fabric(config, warn)
    recipe = model.load()(config)
    check_data(recipe, content["data"])
    _launch(fabric, recipe)
    state = State(recipe, fabric)
    if state.config.steps < content["step"]:
        raise InputError(
            f"`steps`: the run has done {content['step']} already; expected as many or more"
        )
    try:
        exact = state.restore(content)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder}: the checkpoint does not fit its settings: {reason}") from None
    if not exact and fabric.is_global_zero:
        warn(
            "the last steps of the run were on another kind of device: its random numbers begin "
            "anew, and its numbers differ from those it would have had there"
        )
    return Run(folder if folder.is_dir() else folder.parent, state)


def check_data(recipe: Recipe, data: dict[str, Any]) -> None:
    """Raise InputError where a recipe has other data than the ``data`` of a checkpoint."""
    if recipe.data["fingerprint"] != data["fingerprint"]:
        given = recipe.config.data
        words = "the bundled data" if given is None else shown(given)
        raise InputError(
            f"{words} is not what this run was trained on; give that as `data`, or start a new run"
        )
    if recipe.data.get("learnt") != data.get("learnt"):
        raise InputError(
            "this run is of a version that learnt constant columns too; use it as it is, or start "
            "a new run"
        )


def changed(config: Settings, changes: dict[str, Any]) -> Settings:
    """``config`` with ``changes``; raises InputError for one that a resumed run cannot have."""
    fields = {field.name: field for field in dataclasses.fields(config)}
    for name, value in list(changes.items()):
        if name not in fields:
            raise InputError(
                f"`{name}` is not a setting of the run's model{did_you_mean(name, fields)}"
            )
        if is_table(value):
            continue  # A table has no simple equality; its fingerprint says whether it is the same.
        if value == getattr(config, name):
            del changes[name]
        elif not fields[name].metadata["resumable"]:
            raise InputError(
                f"`{name}` cannot change when a run is resumed (it has "
                f"{getattr(config, name)}); leave it out, or start a new run"
            )
    if "steps" in changes:
        changes.setdefault("epochs", None)
    return dataclasses.replace(config, **changes)
