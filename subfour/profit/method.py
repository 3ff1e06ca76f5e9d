"""PROFIT from the first phase to the last: reads like the algorithm box, resumes anywhere.

Source: PROFIT, arXiv:2008.04693. For each phase of the plan: set the widths, calibrate what begins to quantize,
freeze the most unstable layers, train with teacher and weight average; in the sampling phase measure AIWQ and keep the
order. Everything that decides what comes next is in `Progress`, from which a run goes on.
"""

import json
import math
from dataclasses import asdict
from typing import Any

import torch

from subfour import collective
from subfour.convert.calibrate import (
    calibrate,
    calibrate_weights,
    forget_weight_ranges,
    missing_ranges,
    needs_calibration,
    set_bits,
)
from subfour.integer.network import measure_snapping, pixels_of
from subfour.profit.collapse import ChanceGuard, CollapseError, check_parameters, check_ranges, explained
from subfour.profit.continuation import TEACHER_FILE, config_of
from subfour.profit.dampening import Dampening
from subfour.profit.examination import Examiner
from subfour.profit.freezing import base_rate, freeze_order, set_trainable
from subfour.profit.instability_meter import InstabilityMeter
from subfour.profit.iterative_freezing import IterativeFreezing
from subfour.profit.networks import evaluated_network
from subfour.profit.observer import Observer
from subfour.profit.phase_training import PhaseTraining
from subfour.profit.phases import Phase, build_phases, ends_widths
from subfour.profit.progress import Progress
from subfour.profit.ranges import layer_ranges
from subfour.profit.result import SENSITIVITY_FILE, keep_model, result_row, sensitivity_table, what_is_kept
from subfour.profit.self_teacher import float_network, self_teacher
from subfour.profit.session import Session
from subfour.profit.state import EpochUnderway, RunState
from subfour.profit.state_dict import load_model
from subfour.profit.step_method import StepMethod
from subfour.rundir import JSON, RunDirectory
from subfour.train.average import WeightAverage
from subfour.train.distill import Teacher
from subfour.train.interruption import Interruption, Terminated

FAILURE_FILE = "failure.json"
"""Why training stopped: not finite, a range at zero, accuracy at chance; gone when the run goes on."""


class ProfitRun:
    """A run in progress."""

    def __init__(
        self,
        session: Session,
        run: RunDirectory,
        observer: Observer | None = None,
        *,
        interruption: Interruption | None = None,
        collapse_guard: bool = True,
    ) -> None:
        """Begin a run, or take it up at its newest checkpoint.

        Args:
            session: model and data.
            run: where checkpoints and metrics go.
            observer: told of every phase, step and epoch; None: nobody is.
            interruption: when to write checkpoints between two steps, and when to stop; None: never.
            collapse_guard: whether a network at chance, or a range at zero, stops the run.

        Raises:
            ValueError: the checkpoint is of another model, config or version, or every checkpoint is damaged; or method is
                data-free, which trains nothing (`quantize_without_data`).
        """
        if session.config.method == "data-free":
            raise ValueError("method: data-free trains nothing; use subfour.profit.run.train, or quantize_without_data")
        self.session, self.run, self.observer = session, run, observer or Observer()
        self.config, self.model = session.config, session.model
        self.phases = build_phases(self.config)
        # The authors' 0.9997 remembers 0.67 epochs of 5,004 steps; without a decay, do the same at any number of steps.
        decay = self.config.average.decay
        self.decay = max(1 - 1.5 / session.training.steps_per_epoch, 0.0) if decay is None else decay
        self.average = WeightAverage(self.model, self.decay)
        self.teacher: Teacher | None = session.outside_teacher
        self.interruption = interruption or Interruption()
        self.examiner = Examiner(session, self.average, self.interruption)
        self.progress = Progress(
            session,
            run,
            self.phases,
            average=self.average,
            step_method=self._step_method(),
            interruption=self.interruption,
            beginning=self._beginning,
        )
        self.state = self.progress.state
        self.collapse_guard = collapse_guard
        self.chance = ChanceGuard(
            session.validation.split.labels,
            len(session.data.classes),
            trained=min(session.training.steps_per_epoch * session.training.batch_size, len(session.training.split)),
            start=self.state.start_top1,
        )
        for record in run.metrics():
            self.chance.remember(record)

    def train(self) -> RunState:
        """Train through every phase that is not yet done; the model ends with its averaged weights, at its last widths.

        Raises:
            CollapseError: it can lead nowhere any more; the epochs before are kept.
            Terminated: the process was told to end; everything is kept.
        """
        (self.run.path / FAILURE_FILE).unlink(missing_ok=True)
        while self.state.phase < len(self.phases):
            phase = self.phases[self.state.phase]
            try:
                with self.interruption.deferred():
                    self._train_phase(phase)
            except FloatingPointError as error:
                failure: dict[str, JSON] = {"phase": self.state.phase, "epoch": self.state.next_epoch, "error": str(error)}
                self.run.write_json(FAILURE_FILE, failure)
                self.progress.store.drop_steps()
                where = f"phase {self.state.phase + 1} of {len(self.phases)} ({phase.kind} {phase.widths})"
                raise CollapseError(f"{where}: {error}; {what_is_kept(self.run)}") from None
        set_bits(self.model, self.phases[-1].weight_bits, self.phases[-1].activation_bits)
        load_model(self.model, self.average.state)
        return self.state

    def _train_phase(self, phase: Phase) -> None:
        state = self.state
        if state.next_epoch == 0 and not state.underway.steps:
            self._enter(phase)
        set_bits(self.model, phase.weight_bits, phase.activation_bits)
        # Nothing can compute batch-norm statistics for an average of snapped constants: what snapping trains is deployed.
        self.average.decay = 0.0 if phase.kind == "snap" else self.decay
        frozen = set_trainable(self.model, phase, state.freeze_order, self.config.profit)
        training = PhaseTraining(self.progress, teacher=self._teacher_of(phase), examiner=self.examiner, observer=self.observer)
        _, rate = base_rate(phase, self.config.schedule)
        self.observer.phase_begins(state.phase, phase, frozen, state.next_epoch)
        for epoch in range(state.next_epoch, phase.epochs):
            record: dict[str, Any] = {"phase": state.phase, **phase.to_json(), "frozen_layers": len(frozen), "epoch": epoch}
            try:
                record |= training.epoch(epoch)
                record |= self._evaluated(phase, epoch, rate)
                if self.collapse_guard:
                    self.chance.check(record, rate=rate)
            except Terminated:
                training.save()
                raise
            except FloatingPointError as error:
                collapse = error if isinstance(error, CollapseError) else explained(error, self.model, rate=rate)
                self.run.append_metrics(record | {"collapse": str(collapse)})
                raise collapse from None
            if self._reestimates(phase):  # in place, so what goes before it is kept
                training.save()
            self._finish_epoch(phase, record, training)

    def _enter(self, phase: Phase) -> None:
        """Prepare the model for a phase that begins: ranges of what begins to quantize, and the average."""
        before = self.phases[self.state.phase - 1] if self.state.phase else None
        first = before is None or before.kind == "float"
        if first and phase.kind != "float" and self.config.teacher == "self" and not (self.run.path / TEACHER_FILE).exists():
            self.run.write_bytes(TEACHER_FILE, float_network(self.config, self.average, self.session.data.preprocessing))
        collective.wait_for_all()
        set_bits(self.model, phase.weight_bits, phase.activation_bits)
        narrower = phase.weight_bits != (before.weight_bits if before else self.config.starting_weight_bits)
        if narrower and phase.weight_bits < self.config.refit_below_bits:
            forget_weight_ranges(self.model)
        self.average.forget(missing_ranges(self.model))
        calibrate_weights(self.model)
        if needs_calibration(self.model):
            calibrate(self.model, self.examiner.training_batches("calibrate", self.config.calibration_batches))
        if self.config.average.restart and (before is None or before.widths != phase.widths):
            self.average.restart()
        if phase.kind == "snap":
            self._begin_snapping()
        self.average.fill()
        collective.take_from_main([*self.model.state_dict().values(), *self.average.state.values()])

    def _begin_snapping(self) -> None:
        """Go on from the averaged weights, and measure what snapping must know of them."""
        load_model(self.model, self.average.state)
        self.average.restart()
        collective.take_from_main([*self.model.state_dict().values()])
        preprocessing = self.session.data.preprocessing
        batches = self.examiner.training_batches("snap", self.config.calibration_batches)
        pixels = (pixels_of(images.to(self.session.device), preprocessing) for images, _ in batches)
        measured = measure_snapping(self.model.eval(), preprocessing, pixels).to_json()
        self.state.snapping = json.loads(collective.from_main(json.dumps(measured)))

    def _evaluated(self, phase: Phase, epoch: int, rate: str) -> dict[str, Any]:
        """Return the accuracy of both sets of weights after an epoch.

        Args:
            phase: the present one.
            epoch: its number in the phase.
            rate: the option that sets the learning rate, for messages.

        Raises:
            FloatingPointError: a parameter, a range or the loss is beyond use.
        """
        check_parameters(self.model, epoch)
        if self.collapse_guard:
            check_ranges(self.model, rate=rate)
        raw, averaged = self.examiner.raw_and_averaged(evaluated_network(self.session, phase, self.state))
        if math.isnan(raw.loss):
            raise FloatingPointError(f"validation gives nan after epoch {epoch + 1}")
        return {"raw": asdict(raw), "averaged": asdict(averaged)}

    def _reestimates(self, phase: Phase) -> bool:
        """Return whether the present epoch is the last one in which batch norm normalises, and its statistics come anew."""
        state = self.state
        last = state.phase + 1 == len(self.phases) or self.phases[state.phase + 1].kind == "snap"
        ends = state.next_epoch + 1 == phase.epochs
        wanted = self.config.average.reestimate_batches > 0 and self.config.batchnorm == "unfused"
        return last and ends and phase.kind != "snap" and wanted

    def _finish_epoch(self, phase: Phase, record: dict[str, Any], training: PhaseTraining) -> None:
        """Log, and write the one checkpoint that makes the epoch final."""
        state = self.state
        phase_ends = state.next_epoch + 1 == phase.epochs
        self.progress.count_seconds()
        record |= {"seconds": state.seconds, "ranges": layer_ranges(self.model)}
        if state.underway.raw_losses:
            record["raw_losses"] = state.underway.raw_losses
        self.run.append_metrics(record)
        self.chance.remember(record)
        if phase_ends:
            if training.meter is not None:
                self._keep_order(training.meter)
            self._keep_result(phase, record)
            state.phase, state.next_epoch = state.phase + 1, 0
        else:
            state.next_epoch += 1
        state.underway = EpochUnderway()
        if phase_ends:
            self.progress.save()
        else:
            self.progress.save(training.optimizer, training.meter)
        self.observer.epoch_done(record)

    def _keep_order(self, meter: InstabilityMeter) -> None:
        """Make the freeze order of AIWQ: the sampling phase ends."""
        state, ranking, values = self.state, meter.ranking(), meter.values()
        state.freeze_order = freeze_order(ranking, self.config.method, self.config.seed)
        state.instability, state.dropped = {name: values[name] for name in ranking}, meter.dropped_shares()
        self.run.write_json(SENSITIVITY_FILE, sensitivity_table(self.session, state))

    def _keep_result(self, phase: Phase, record: dict[str, Any]) -> None:
        """Keep the accuracy that a phase ends with, if it is the last one at its widths or the last before snapping."""
        state, raw, averaged = self.state, record["raw"], record["averaged"]
        if phase.kind == "float" and state.padding_top1:
            state.padding_top1["after_float"] = averaged["top1"]
        if not ends_widths(self.phases, state.phase):
            return
        before = {}
        if self._reestimates(phase):
            before = {"before_reestimation": {"raw": raw, "averaged": averaged}}
            raw, averaged = map(asdict, self.examiner.reestimated(evaluated_network(self.session, phase, state)))
        row = result_row(phase.weight_bits, phase.activation_bits, raw, averaged, snapped=phase.kind == "snap")
        state.rows.append(row | before)
        if state.phase + 1 < len(self.phases):  # else write_result does
            keep_model(self.session, self.run, self.average, phase)

    def _beginning(self) -> RunState:
        """Return the state of a run that begins, the starting weights evaluated."""
        state = RunState(config=self.config.digest, threads=torch.get_num_threads(), workers=collective.count())
        state.padding_top1 = self.examiner.padding_top1()
        if self.phases[0].kind != "float":  # which would give a row
            if self.config.from_run is not None:
                earlier = config_of(self.config.from_run)
                set_bits(self.model, earlier.weight_bits[-1], earlier.activation_bits[-1])
            start = self.examiner.starting_row()
            state.start_top1 = start["raw"]["top1"]
            if self.config.from_run is None:
                state.rows.append(start)
        return state

    def _teacher_of(self, phase: Phase) -> Teacher | None:
        """Return the teacher; the network cannot teach itself before it has learned."""
        if self.teacher is None and self.config.teacher == "self" and self.config.teaches and phase.kind != "float":
            self.teacher = self_teacher(self.model, self.config, self.run.path / TEACHER_FILE)
        return self.teacher

    def _step_method(self) -> StepMethod:
        if self.config.method == "dampening":
            return Dampening(self.model, self.config.oscillation.dampening)
        if self.config.method == "iterative-freezing":
            return IterativeFreezing(self.model, self.config.oscillation)
        return StepMethod()
