"""Mixed precision: a network's convolutions and products in 16 bits, everything else in float32.

Weights, their average, quantizers, loss and optimizer stay float32, and so does every evaluation. fp16 has few exponents: a loss
scale (torch's GradScaler) keeps gradients above its smallest number, and leaves out a step in which one overflowed.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

PrecisionName = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """How the passes of a training step are computed."""

    def __init__(self, name: PrecisionName, device: torch.device) -> None:
        """Begin with torch's own loss scale, where there is one.

        Args:
            name: fp32 changes nothing.
            device: where the network lies.

        Raises:
            ValueError: the device has no such arithmetic for training.
        """
        if name == "fp16" and device.type == "cpu":
            raise ValueError("precision: fp16 is not possible on a CPU, where it has no loss scale; use bf16, or fp32")
        self.dtype, self.device_type = DTYPES[name], device.type
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def run(self, network: Any, images: Tensor) -> Tensor:
        """Return a network's output in float32, computed in this precision."""
        if self.dtype is None:
            output: Tensor = network(images)
            return output
        with torch.autocast(self.device_type, self.dtype):
            return network(images).float()  # type: ignore[no-any-return]

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, scaled."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: Optimizer) -> None:
        """Take the scale out of the gradients and move the weights, unless a gradient is not finite."""
        self.scaler.step(optimizer)
        self.scaler.update()

    def state(self) -> dict[str, Any]:
        """Return the loss scale and what moves it, as plain numbers; nothing where there is none."""
        return self.scaler.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state)
