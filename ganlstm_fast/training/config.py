"""Settings of training runs: what they have in common, each stated once.

A setting is a field made by :func:`option`. Its default, its range and its help also make the
option of the command line and the class's documentation, so that they cannot differ.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import os
import reprlib
import textwrap
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ganlstm_fast.training.errors import InputError, Line, did_you_mean
from ganlstm_fast.training.tables.given import WORDS, TableLike, is_table, shown, stands_in

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**options: Any) -> Callable[[Any], Any]:
        return lambda decorator: decorator


ConfigT = TypeVar("ConfigT", bound="Settings")
T = TypeVar("T")

# The names of ganlstm_fast.losses.LOSSES, and of those with a label of real samples: written here
# again, and compared by a test, because the command's help would load torch to look them up.
LOSS_NAMES = (
    "wgan-gp",
    "hinge",
    "lsgan",
    "minimax",
    "non-saturating",
    "relativistic",
    "relativistic-average",
    "relativistic-average-hinge",
    "relativistic-average-lsgan",
)
LABELLED_LOSSES = ("lsgan", "minimax", "non-saturating")


# What a setting of a type takes from Python, and how to say it.
KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "True or False"),
    int: ((numbers.Integral,), "a whole number"),
    float: ((numbers.Real,), "a number"),
    str: ((str, os.PathLike), "text"),
    tuple: ((tuple, list), "a tuple"),
}


@dataclass(frozen=True)
class Rule:
    """A range of a setting: ``holds`` for a value, and how to say it."""

    holds: Callable[[Any], bool]
    words: str


COUNT = Rule(lambda v: v >= 1, "1 or more")
TWO = Rule(lambda v: v >= 2, "2 or more")
NATURAL = Rule(lambda v: v >= 0, "0 or more")
RATE = Rule(lambda v: v > 0 and math.isfinite(v), "more than 0")
WEIGHT = Rule(lambda v: v >= 0 and math.isfinite(v), "0 or more")
SHARE = Rule(lambda v: 0 < v <= 1, "more than 0, at most 1")
DECAY = Rule(lambda v: 0 <= v < 1, "at least 0 and below 1")
SEED = Rule(lambda v: 0 <= v < 2**63, "0 or more and below 2^63")


def option(
    default: Any,
    help: str,
    rule: Rule | None = None,
    *,
    group: str = "recipe",
    choices: tuple[str, ...] | None = None,
    metavar: str | None = None,
    resumable: bool = False,
    table: bool = False,
) -> Any:
    """A field of :class:`Settings`.

    Args:
        help: for the command line; the default is added to it unless it ends with a bracket. Other
            settings stand in it as in a :class:`~ganlstm_fast.training.errors.Line`.
        rule: that a value other than None has to meet.
        group: of the command's help.
        resumable: may differ when a run is resumed: it does not change the numbers of a step.
        table: may be a table in memory, and not only the path of a file.
    """
    names = ("help", "rule", "group", "choices", "metavar", "resumable", "table")
    values = (Line(help), rule, group, choices, metavar, resumable, table)
    metadata = dict(zip(names, values, strict=True))
    return dataclasses.field(default=default, metadata=metadata)


run_option = functools.partial(option, group="run", resumable=True)
model_option = functools.partial(option, group="model")
data_option = functools.partial(option, group="data")
path_option = functools.partial(data_option, None, resumable=True)
table_option = functools.partial(path_option, metavar="FILE.csv", table=True)


@dataclass_transform(
    kw_only_default=True,
    frozen_default=True,
    field_specifiers=(option, run_option, model_option, data_option, path_option, table_option),
)
def settings(cls: type[T]) -> type[T]:
    """Make a class of settings: a frozen dataclass, with its settings in its documentation.

    A setting that it does not have is a TypeError that names the one that is like it.
    """
    # A repr that dataclass makes shows all settings; that of Settings only those that differ.
    made = dataclass(frozen=True, kw_only=True, repr=False)(cls)
    names, init = [field.name for field in dataclasses.fields(made)], made.__init__

    @functools.wraps(init)
    def checked(self: Any, **values: Any) -> None:
        for name in values:
            if name not in names:
                near = did_you_mean(name, names)
                raise TypeError(f"{cls.__name__} has no setting {name}{near}")
        init(self, **values)

    made.__init__ = checked
    made.__doc__ = "\n\n".join((made.__doc__ or "", *_documented(made)))
    return made


def _documented(cls: type[Any]) -> list[str]:
    """The settings of ``cls`` in words, a paragraph for each group."""
    groups: dict[str, list[str]] = {}
    for field in dataclasses.fields(cls):
        told = field.metadata
        kind = f"{WORDS}, or None" if told["table"] else str(field.type)
        facts = [kind, f"default {field.default!r}"]
        if told["rule"] is not None:
            facts.append(told["rule"].words)
        if told["choices"] is not None:
            facts.append(f"one of {', '.join(told['choices'])}")
        text = f"{field.name} ({'; '.join(facts)}): {told['help']}"
        line = textwrap.fill(text, 92, initial_indent=" " * 4, subsequent_indent=" " * 8)
        groups.setdefault(told["group"], []).append(line)
    order = [group for group in ("data", "model", "recipe", "run") if group in groups]
    return ["\n".join((f"{group.capitalize()}:", *groups[group])) for group in order]


@settings
class Settings:
    """Settings of any run."""

    data: TableLike | None = path_option("what to train on", metavar="PATH")
    batch_size: int = option(32, "samples a step, over all processes together", COUNT)
    clip: float = option(10.0, "largest gradient norm of a network, 0: any", WEIGHT)
    patience: int = option(
        0,
        "stop after this many checkpoints without a better value of what is watched (held-out "
        "loss; for a GAN: distance of its samples from the data), and keep the best; 0: never",
        NATURAL,
    )
    steps: int = run_option(2000, "steps to train for", COUNT)
    epochs: int | None = run_option(None, "passes over the data, instead of steps", COUNT)
    seed: int = run_option(0, "of weights, noise and data order", SEED, resumable=False)
    device: str = run_option(
        "auto", "cpu, cuda, cuda:1, ..., or auto: a GPU if there is one", metavar="NAME"
    )
    devices: int = run_option(1, "how many of them, a process each", COUNT)
    nodes: int = run_option(1, "machines, with as many devices each", COUNT)
    strategy: str = run_option(
        "auto",
        "how processes share the work: auto is ddp for more than one",
        choices=("auto", "ddp", "ddp_find_unused_parameters_true"),
    )
    precision: str = run_option(
        "32-true",
        "of the networks' forward and backward",
        choices=("32-true", "bf16-mixed", "16-mixed"),
        resumable=False,
    )
    threads: int = run_option(
        1,
        # For small models one thread is about as fast as several, does not suffer when cores are
        # shared, and sums in the same order on every machine.
        "of the CPU, for each process",
        COUNT,
    )
    checkpoint_every: int = run_option(500, "steps between checkpoints", COUNT)
    metrics: str = run_option(
        "full",
        "scores at the end: all, those that take seconds, or none",
        choices=("full", "quick", "none"),
    )
    log: str = run_option(
        "none", "write the curves for TensorBoard too", choices=("none", "tensorboard")
    )

    def __post_init__(self) -> None:
        """Raises InputError where a setting has a value it cannot have."""
        types = self.types()
        for field in dataclasses.fields(self):
            value, rule = getattr(self, field.name), field.metadata["rule"]
            choices = field.metadata["choices"]
            if value is None:
                continue
            kind, words = KINDS[types[field.name]]
            if field.metadata["table"] and is_table(value):
                continue
            if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
                if field.name == "data":
                    words = (
                        WORDS if field.metadata["table"] else f"a path ({field.metadata['help']})"
                    )
                got = shown(value) if is_table(value) else reprlib.repr(value)
                raise InputError(f"`{field.name}`: expected {words}, got {got}")
            object.__setattr__(self, field.name, _plain(value))
            if rule is not None:
                self._require(field.name, rule.holds(value), rule.words)
            if choices is not None and value not in choices:
                near = did_you_mean(value, choices)
                words = f"one of {', '.join(choices)}, got {value}{near}"
                raise InputError(f"`{field.name}`: expected {words}")
        self.check()

    def check(self) -> None:
        """What holds between settings; raises InputError."""

    def _require(self, name: str, ok: bool, expected: str) -> None:
        if not ok:
            raise InputError(f"`{name}`: expected {expected}, got {getattr(self, name)}")

    def located(self: ConfigT) -> ConfigT:
        """With the whole path of the data, so that a run can be resumed from another folder."""
        if self.data is None or is_table(self.data) or stands_in(self.data):
            return self
        return dataclasses.replace(self, data=str(Path(self.data).absolute()))

    def __repr__(self) -> str:
        """The settings that differ from the defaults."""
        values = ((f, getattr(self, f.name)) for f in dataclasses.fields(self))
        told = [
            f"{field.name}={shown(value) if is_table(value) else repr(value)}"
            for field, value in values
            if is_table(value) or value != field.default
        ]
        return f"{type(self).__name__}({', '.join(told)})"

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint: numbers, strings, lists and None only; of a table its description."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["data"] = self.data if self.data is None else shown(self.data)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls: type[ConfigT], values: dict[str, Any]) -> ConfigT:
        """The inverse of :meth:`to_dict`; raises InputError for unknown names.

        Settings that are newer than the checkpoint have their defaults.
        """
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        except TypeError as error:
            raise InputError(f"the checkpoint's settings are not understood: {error}") from None

    @classmethod
    def types(cls) -> dict[str, type]:
        """The type of each setting by name, ``tuple`` for several values; None is left out."""
        found = {}
        fields = {field.name for field in dataclasses.fields(cls)}
        for name, hint in typing.get_type_hints(cls).items():
            if name not in fields:
                continue
            kinds = [k for k in typing.get_args(hint) if k is not type(None)] or [hint]
            kind = hint if typing.get_origin(hint) is tuple else kinds[0]
            found[name] = typing.get_origin(kind) or kind
        return found


def _plain(value: Any) -> Any:
    """``value`` with a tuple for a list, and a number of Python for one of NumPy."""
    if isinstance(value, tuple | list):
        return tuple(_plain(part) for part in value)
    return value.item() if isinstance(value, numbers.Number) and hasattr(value, "item") else value


@settings
class GANSettings(Settings):
    """Settings of a run that trains a generator against a critic."""

    augmentations: ClassVar[tuple[str, ...]] = ("jitter", "scale", "shift")

    loss: str = option("wgan-gp", "of critic and generator", choices=LOSS_NAMES)
    label_smoothing: float = option(
        0.0,
        f"how far the critic's label of real samples is below 1; for {', '.join(LABELLED_LOSSES)}",
        DECAY,
    )
    penalty: float | None = option(
        # Gulrajani et al., 2017; R1: Mescheder et al., 2018.
        None,
        "weight of the gradient penalty, 0 for none (10 for wgan-gp, 1 of R1 for the others)",
        WEIGHT,
    )
    penalty_every: int = option(
        # Lazy regularisation: Karras et al., Analyzing and Improving the Image Quality of StyleGAN,
        # 2020, section 3.1.
        1,
        "steps of the critic from one penalty to the next; each then weighs that many times as "
        "much",
        COUNT,
    )
    penalty_fraction: float = option(1.0, "part of a batch that the penalty is computed on", SHARE)
    lr_g: float = option(2e-4, "generator's learning rate", RATE)
    lr_d: float = option(1e-4, "critic's learning rate", RATE)
    beta1: float = option(0.5, "of Adam", DECAY)
    beta2: float = option(0.9, "of Adam", DECAY)
    n_critic: int = option(3, "steps of the critic for one of the generator", COUNT)
    ema: float = option(0.999, "decay of the averaged weights that samples are drawn from", DECAY)
    augment: tuple[str, ...] | None = option(
        # Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training, 2020.
        None,
        "change what the critic sees, real and generated, at random: jitter, scale, shift, and of "
        "images flip (none)",
        metavar="A,B",
    )
    warmup_d: int = option(0, "first steps in which only the critic is trained", NATURAL)
    warmup_g: int = option(
        0, "steps after those in which only the generator is, against a fixed critic", NATURAL
    )
    steps: int = run_option(6000, "steps of the generator", COUNT)

    def check(self) -> None:
        ok = self.label_smoothing == 0 or self.loss in LABELLED_LOSSES
        self._require("label_smoothing", ok, f"0 with `loss={self.loss}`")
        ok = set(self.augment or ()) <= set(self.augmentations)
        self._require("augment", ok, f"some of {', '.join(self.augmentations) or 'nothing'}")


@settings
class SupervisedSettings(Settings):
    """Settings of a run that trains one network to give known answers."""

    lr: float = option(2e-3, "learning rate", RATE)
    weight_decay: float = option(0.0, "of AdamW", WEIGHT)
    dropout: float = model_option(0.0, "share of the LSTM's outputs left out in training", DECAY)
