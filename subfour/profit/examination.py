"""How good the network in training is: raw and averaged weights, before and after what is done to them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from torch import Tensor, nn

from subfour.layers import QuantConv2d, quant_layers
from subfour.ops import FLOAT_BITS
from subfour.profit.result import result_row
from subfour.profit.session import Session
from subfour.seeding import derive_seed
from subfour.train.average import WeightAverage
from subfour.train.batchnorm import reestimate_batchnorm
from subfour.train.evaluation import Accuracy, evaluate
from subfour.train.interruption import Interruption


@dataclass(frozen=True, slots=True)
class Examiner:
    """Evaluates one run's network on its validation images."""

    session: Session
    average: WeightAverage
    interruption: Interruption

    def accuracy(self, network: nn.Module) -> Accuracy:
        """Return the accuracy of a network as it is."""
        return evaluate(network, self.interruption.heed(self.session.validation), self.session.device)

    def raw_and_averaged(self, network: nn.Module) -> tuple[Accuracy, Accuracy]:
        """Return the accuracy with the raw weights, and with the averaged ones.

        Args:
            network: the session's model, or what computes with its parameters.
        """
        raw = self.accuracy(network)
        if self.average.decay == 0:  # they are the same
            return raw, raw
        with self.average.lent():
            return raw, self.accuracy(network)

    def reestimated(self, network: nn.Module) -> tuple[Accuracy, Accuracy]:
        """Compute batch-norm statistics anew for both sets of weights, in place, and evaluate both."""
        self._reestimate()
        with self.average.lent():
            self._reestimate()
            self.average.restart()
        return self.raw_and_averaged(network)

    def training_batches(self, purpose: str, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Return some training batches, the same ones for the same purpose."""
        epoch = derive_seed(self.session.config.seed, purpose)
        yield from islice(self.interruption.heed(self.session.training.epoch(epoch)), count)

    def padding_top1(self) -> dict[str, float]:
        """Return top-1 of the starting weights padded with 0, as they were trained, and with -3/8; nothing if none is."""
        model = self.session.model
        layers = [layer for layer in quant_layers(model).values() if isinstance(layer, QuantConv2d) and layer.pad_value]
        if not layers or self.session.config.from_run is not None:
            return {}
        after = self.accuracy(model)
        pad_values = [layer.pad_value for layer in layers]
        for layer in layers:
            layer.pad_value = 0.0
        before = self.accuracy(model)
        for layer, pad_value in zip(layers, pad_values, strict=True):
            layer.pad_value = pad_value
        return {"before": before.top1, "after": after.top1}

    def starting_row(self) -> dict[str, Any]:
        """Return the result of the float network that a run starts from."""
        accuracy = asdict(self.accuracy(self.session.model))
        return result_row(FLOAT_BITS, FLOAT_BITS, accuracy, accuracy)

    def _reestimate(self) -> None:
        batches = self.training_batches("reestimate", self.session.config.average.reestimate_batches)
        reestimate_batchnorm(self.session.model, batches, self.session.device)
