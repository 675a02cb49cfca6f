"""The step of one network that learns from known answers."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ganlstm_fast.models.base import eval_mode
from ganlstm_fast.training.config import SupervisedSettings
from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.fabric import OneProcess
from ganlstm_fast.training.recipes.adam import adam
from ganlstm_fast.training.recipes.base import Recipe, update
from ganlstm_fast.training.state import State
from ganlstm_fast.training.undefined import check_finite

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class SupervisedRecipe(Recipe):
    """A step down the loss of one network.

    Attributes:
        train, held: tensors by name, each with a row for each sample: what is trained on, and what
            early stopping watches.
    """

    columns: ClassVar = ("loss", "grad_norm")
    config: SupervisedSettings
    train: dict[str, Tensor]
    held: dict[str, Tensor]

    @property
    def size(self) -> int:
        return len(next(iter(self.train.values())))

    @property
    def draws(self) -> bool:
        """Whether the loss has random numbers of torch's own generator in it."""
        return self.config.dropout > 0

    @abstractmethod
    def loss(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """The mean loss over some rows of ``train`` or ``held``."""

    def setup(self, fabric: Fabric | OneProcess) -> None:
        config = self.config
        self.fabric = fabric
        self.train, self.held = (
            {name: value.to(fabric.device) for name, value in part.items()}
            for part in (self.train, self.held)
        )
        self.raw = self.untrained().to(fabric.device)
        decay = {"weight_decay": config.weight_decay, "decoupled_weight_decay": True}
        self.adam = adam(self.raw, config, config.lr, **decay)
        self.network, self.optimiser = fabric.setup(self.raw, self.adam)

    def parts(self) -> dict[str, Any]:
        return {"model": self.raw, "optimiser": self.adam}

    def best_part(self) -> nn.Module:
        return self.raw

    def step(self, state: State) -> Tensor:
        config = self.config
        pick = torch.randint(
            self.size, (config.batch_size,), generator=state.generator, device=state.device
        )
        pick = state.share(pick)
        if self.draws:
            # Its numbers come from torch's own generator, which a resumed run does not have.
            torch.manual_seed(
                config.seed * 2**32 + state.step * state.share.count + state.share.rank
            )
        loss = self.loss(self.network, {name: value[pick] for name, value in self.train.items()})
        norm = update(self.fabric, self.network, loss, self.optimiser, config.clip)
        numbers = torch.stack((loss, norm)).detach().float()
        return self.fabric.all_reduce(numbers, reduce_op="mean")

    @torch.no_grad()
    def watched(self) -> float:
        """The loss of the held-out samples."""
        if not len(next(iter(self.held.values()))):
            raise UndefinedScore("there are too few samples to hold one out")
        with eval_mode(self.raw):
            loss = self.loss(self.raw, self.held)
        check_finite("held-out loss", loss)
        return loss.item()
