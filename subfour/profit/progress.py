"""How far a run has come: its state and all that moves beside the model, kept in checkpoints and taken up from the newest.

One checkpoint ends each epoch and makes it final; there are more between two steps, when `train/interruption.py` says so.
"""

import logging
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import SGD

from subfour import collective
from subfour.environment import usable_cores
from subfour.profit.instability_meter import InstabilityMeter
from subfour.profit.phases import Phase
from subfour.profit.session import Session
from subfour.profit.state import RunState, collect_tensors, part, restore_momentum
from subfour.profit.state_dict import load_model
from subfour.profit.step_method import StepMethod
from subfour.rundir import RunDirectory
from subfour.train.average import WeightAverage
from subfour.train.checkpoint import Checkpoint, CheckpointStore
from subfour.train.interruption import Interruption

logger = logging.getLogger(__name__)


CHECKPOINTS = "checkpoints"
"""Folder of a run's checkpoints."""


class Progress:
    """The state of a run, with the weight average and the step method that go along, and their checkpoints."""

    def __init__(
        self,
        session: Session,
        run: RunDirectory,
        phases: Sequence[Phase],
        *,
        average: WeightAverage,
        step_method: StepMethod,
        interruption: Interruption,
        beginning: Callable[[], RunState],
    ) -> None:
        """Begin, or go on: model, average, step method and metrics are then what they were at the newest checkpoint.

        Args:
            session: model and data.
            run: where checkpoints and metrics go.
            phases: of the run.
            average: of the session's model.
            step_method: of the run.
            interruption: told of every checkpoint.
            beginning: makes the state of a run without checkpoints.

        Raises:
            ValueError: the checkpoint is of another model, config or version, every checkpoint is damaged, or workers have
                different ones.
        """
        self.session, self.run, self.phases = session, run, phases
        self.average, self.step_method, self.interruption = average, step_method, interruption
        self.store = CheckpointStore(run.path / CHECKPOINTS)
        self._momentum: dict[str, Tensor] = {}
        self._previous_weights: dict[str, Tensor] = {}
        checkpoint = self.store.load_newest()
        self._check_it_is_everyones(checkpoint)
        self.state = beginning() if checkpoint is None else self._taken_up(checkpoint)
        run.truncate_metrics(self.state.metrics_size)
        collective.wait_for_all()
        self._last_time = time.monotonic()

    def _check_it_is_everyones(self, checkpoint: Checkpoint | None) -> None:
        """Raise where a worker has taken up another checkpoint than the main one, because it sees other files."""
        place = "none" if checkpoint is None else f"{checkpoint.number}-{checkpoint.step}"
        if collective.anyone(place != collective.from_main(place)):
            raise ValueError(
                f"{self.store.folder}: not every worker can read the newest checkpoint there, which this one takes for {place}; "
                "see that all have the same files, and resume again"
            )

    def _taken_up(self, checkpoint: Checkpoint) -> RunState:
        """Load a checkpoint and return its state; `restore` has what belongs to a phase."""
        state, session = RunState.from_json(checkpoint.state), self.session
        if state.config != session.config.digest:
            raise ValueError(f"config: {self.run.path / 'config.json'} is not what it was when the run began; bring it back")
        load_model(session.model, part(checkpoint.tensors, "model"))
        self.average.load(part(checkpoint.tensors, "average"))
        self._momentum = part(checkpoint.tensors, "momentum")
        self._previous_weights = part(checkpoint.tensors, "previous")
        self.step_method.load_state(part(checkpoint.tensors, "method"))
        _resume_workers(state)
        session.precision.load_state(state.loss_scale)
        return state

    def restore(self, optimizer: SGD, meter: InstabilityMeter | None) -> None:
        """Put back what the phase that goes on had: momentum, and the samples of its meter. It does nothing a second time."""
        restore_momentum(self.session.model, optimizer, self._momentum)
        if meter is not None and self.state.running:
            meter.load_state(self._previous_weights, self.state.running)
        self._momentum, self._previous_weights = {}, {}

    def save(self, optimizer: SGD | None = None, meter: InstabilityMeter | None = None) -> None:
        """Write a checkpoint, between two epochs or in the middle of one.

        Args:
            optimizer: of the phase that goes on; None: the phase has ended.
            meter: of the sampling phase that goes on.
        """
        state = self.state
        previous_weights, state.running = ({}, {}) if meter is None else meter.state()
        unreadable = [*state.unreadable, *self.session.unreadable_images()]
        # In the middle of an epoch a worker may stand here alone, and cannot ask the others.
        state.unreadable = sorted(set(unreadable)) if state.underway.steps else collective.union(unreadable)
        state.loss_scale = self.session.precision.state()
        state.metrics_size = self.run.metrics_size
        self.count_seconds()
        tensors = collect_tensors(self.session.model, self.average, optimizer, previous_weights, self.step_method.state())
        epochs = sum(earlier.epochs for earlier in self.phases[: state.phase]) + state.next_epoch
        self.store.save(epochs, tensors, state.to_json(), step=state.underway.steps)
        self.interruption.checkpoint_written()

    def count_seconds(self) -> None:
        """Bring the state's wall time up to date."""
        now = time.monotonic()
        self.state.seconds, self._last_time = self.state.seconds + now - self._last_time, now


def _resume_workers(state: RunState) -> None:
    """Compute on with as many threads as before, if there are as many workers and cores; else say what that means."""
    workers = collective.count()
    what = "the run ends equal in distribution, no longer bit for bit"
    if state.workers != workers:
        if collective.is_main():
            logger.warning("it had %d workers until now, and has %d from here on: %s", state.workers, workers, what)
    elif state.threads > max(usable_cores(), torch.get_num_threads()):
        if collective.is_main():
            logger.warning("it had %d threads until now, more than this machine has cores: %s", state.threads, what)
    else:
        torch.set_num_threads(state.threads)
    state.workers, state.threads = workers, torch.get_num_threads()
