"""What a run must remember to go on as if it had never stopped: weights, their average, the optimiser, the place."""

import os
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn


@dataclass
class TrainState:
    """`elapsed_s` counts seconds spent training over all sittings; `stage` and `step` say what comes next."""

    model: nn.Module
    ema: nn.Module
    optimizers: tuple[torch.optim.Optimizer, ...]
    stage: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    log: list[dict[str, float | str]] = field(default_factory=list)

    @classmethod
    def start(cls, model: nn.Module, optimizers: tuple[torch.optim.Optimizer, ...]) -> "TrainState":
        return cls(model, deepcopy(model).requires_grad_(False), optimizers)

    def begin_stage(self) -> None:
        """Goes on from the averaged weights with a fresh optimiser.

        Old moments mislead: weights that inflation just woke have second moments of zero, and would leap.
        """
        self.model.load_state_dict(self.ema.state_dict())
        for optimizer in self.optimizers:
            optimizer.state.clear()

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        for average, weight in zip(self.ema.parameters(), self.model.parameters(), strict=True):
            average.lerp_(weight, 1 - decay)

    def save(self, path: Path) -> None:
        """Writes beside the old file, then takes its place: a run killed while saving keeps what it had."""
        payload = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "place": {"stage": self.stage, "step": self.step, "elapsed_s": self.elapsed_s},
            "log": self.log,
        }
        temporary = path.with_suffix(".tmp")
        torch.save(payload, temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        payload = torch.load(path, weights_only=True)
        self.model.load_state_dict(payload["model"])
        self.ema.load_state_dict(payload["ema"])
        for optimizer, saved in zip(self.optimizers, payload["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.log = payload["log"]
        for name, value in payload["place"].items():
            setattr(self, name, value)
