"""PROFIT from the first phase to the last: reads like the algorithm box, resumes anywhere.

Source: PROFIT, arXiv:2008.04693. For each phase of the plan: set the widths, calibrate what begins to quantize,
freeze the most unstable layers, train with teacher and weight average; in the sampling phase measure AIWQ and keep the
order. Everything that decides what comes next is in `RunState`, and each epoch ends with one atomic checkpoint; there are
more between two steps, when `train/interruption.py` says so.
"""

import logging
import math
import time
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from subfour import collective
from subfour.convert.calibrate import calibrate, calibrate_weights, missing_ranges, needs_calibration, set_bits
from subfour.engine.compiled import compiled_operations
from subfour.engine.folded import TORCH, folded_network
from subfour.integer.measure import Snapping
from subfour.integer.network import SnappedNetwork, measure_snapping, pixels_of
from subfour.ops import FLOAT_BITS
from subfour.profit.collapse import ChanceGuard, CollapseError, check_parameters, check_ranges
from subfour.profit.dampening import Dampening
from subfour.profit.examination import Examiner
from subfour.profit.freezing import build_optimizer, freeze_order, set_trainable, weight_rate
from subfour.profit.instability import InstabilityMeter
from subfour.profit.iterative_freezing import IterativeFreezing
from subfour.profit.observer import Observer
from subfour.profit.phases import Phase, build_phases
from subfour.profit.ranges import layer_ranges
from subfour.profit.result import SENSITIVITY_FILE, sensitivity_table
from subfour.profit.self_teacher import float_network, self_teacher
from subfour.profit.session import TEACHER_FILE, Session
from subfour.profit.state import RunState, collect_tensors, load_model, part, restore_momentum
from subfour.profit.step_method import StepMethod, progress
from subfour.rundir import JSON, RunDirectory
from subfour.seeding import derive_seed
from subfour.train.average import WeightAverage
from subfour.train.checkpoint import CheckpointStore
from subfour.train.distill import Teacher, distillation_loss
from subfour.train.interruption import Interruption, Terminated
from subfour.train.loop import EpochTotals, Trainer, train_epoch
from subfour.train.parallel import average_statistics, distributed
from subfour.train.schedule import CosineSchedule, RateSchedule, constant

logger = logging.getLogger(__name__)

FEWEST_SAMPLES = 50
"""Of AIWQ in a sampling phase, where it has as many steps: short phases sample more often than they are told."""

FAILURE_FILE = "failure.json"
"""Why training stopped, when a loss or a weight was not finite; gone when the run goes on."""


class ProfitRun:
    """A run in progress: its session, its state, and what both need between two epochs."""

    def __init__(
        self,
        session: Session,
        run: RunDirectory,
        observer: Observer,
        *,
        interruption: Interruption | None = None,
        collapse_guard: bool = True,
    ) -> None:
        """Begin a run, or take it up at its newest checkpoint.

        Args:
            session: model and data.
            run: where checkpoints and metrics go.
            observer: told of every phase, step and epoch.
            interruption: when to write checkpoints between two steps, and when to stop; None: never.
            collapse_guard: whether a network at chance, or a range at zero, stops the run.

        Raises:
            ValueError: the checkpoint is of another model, config or version, or every checkpoint is damaged.
        """
        assert session.config.method != "data-free", "nothing trains: see quantize_without_data"
        self.session, self.run, self.observer = session, run, observer
        self.config, self.model = session.config, session.model
        self.phases = build_phases(self.config)
        self.steps = session.training.steps_per_epoch
        # The authors' 0.9997 remembers 0.67 epochs of 5,004 steps; without a decay, do the same at any number of steps.
        decay = self.config.average.decay
        self.average = WeightAverage(self.model, max(1 - 1.5 / self.steps, 0.0) if decay is None else decay)
        self.teacher: Teacher | None = session.outside_teacher
        self.store = CheckpointStore(run.path / "checkpoints")
        self.step_method = self._step_method()
        self.interruption = interruption or Interruption()
        self.examiner = Examiner(session, self.average, self.interruption)
        self.collapse_guard = collapse_guard
        self.chance = ChanceGuard(session.validation.split.labels, len(session.data.classes))
        self.momentum: dict[str, Tensor] = {}
        self.previous_weights: dict[str, Tensor] = {}
        self.totals = EpochTotals()
        self.raw_losses: list[float] = []
        checkpoint = self.store.load_newest()
        if checkpoint is None:
            self.state = RunState(
                config=self.config.digest,
                threads=torch.get_num_threads(),
                workers=collective.count(),
                padding_top1=self.examiner.padding_top1(),
                rows=[self.examiner.starting_row()] if self._starts_quantized() else [],
            )
        else:
            self.state = RunState.from_json(checkpoint.state)
            load_model(self.model, part(checkpoint.tensors, "model"))
            self.average.load(part(checkpoint.tensors, "average"))
            self.momentum = part(checkpoint.tensors, "momentum")
            self.previous_weights = part(checkpoint.tensors, "previous")
            self.step_method.load_state(part(checkpoint.tensors, "method"))
            if self.state.config != self.config.digest:
                raise ValueError(f"config: {run.path / 'config.json'} is not what it was when the run began; bring it back")
            self._resume_workers()
            session.precision.load_state(self.state.loss_scale)
            self.raw_losses = self.state.underway.pop("raw_losses", [])
            self.totals = EpochTotals(**self.state.underway)
        run.truncate_metrics(self.state.metrics_size)
        collective.wait_for_all()
        for record in run.metrics():
            self.chance.remember(record)
        self.last_time = time.monotonic()

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
                self.store.drop_steps()
                where = f"phase {self.state.phase + 1} of {len(self.phases)} ({phase.kind} {phase.widths})"
                raise CollapseError(f"{where}: {error}; the epochs before it are kept") from None
        set_bits(self.model, self.phases[-1].weight_bits, self.phases[-1].activation_bits)
        load_model(self.model, self.average.state)
        return self.state

    def _train_phase(self, phase: Phase) -> None:
        state, schedule = self.state, self.config.schedule
        if state.next_epoch == 0 and not self.totals.steps:
            self._enter(phase)
        set_bits(self.model, phase.weight_bits, phase.activation_bits)
        frozen = set_trainable(self.model, phase, state.freeze_order, self.config.profit)
        optimizer = build_optimizer(self.model, phase, schedule)
        restore_momentum(self.model, optimizer, self.momentum)
        network = self._training_network(phase)
        meter = self._meter(phase, network) if phase.kind == "sample" else None
        looks = self._steps_with_a_look()
        trainer = Trainer(
            model=distributed(network, synchronized=self.config.parallel.sync_batchnorm),
            optimizer=optimizer,
            loss=self._loss,
            teacher=self._teacher_of(phase),
            average=self.average,
            rate=self._rate(phase),
            rate_per_step=schedule.update == "step",
            device=self.session.device,
            after_update=self._after_update,
            precision=None if phase.kind == "snap" else self.session.precision,  # its accumulators are exact in float32
            micro_batches=self.config.parallel.accumulate,
        )
        self.observer.phase_begins(state.phase, phase, frozen, state.next_epoch)
        for epoch in range(state.next_epoch, phase.epochs):
            network.train()
            share = (collective.rank(), collective.count())
            batches = self.session.training.epoch(state.phase, epoch, first_step=self.totals.steps, share=share)
            record: dict[str, Any] = {"phase": state.phase, **phase.to_json(), "frozen_layers": len(frozen), "epoch": epoch}
            try:
                with meter or nullcontext():
                    trained = train_epoch(
                        trainer,
                        self.interruption.heed(batches),
                        epoch=epoch,
                        steps=self.steps,
                        seed_step=partial(self._begin_step, phase, meter, looks, epoch),
                        on_step=partial(self._step_done, optimizer, meter),
                        totals=self.totals,
                    )
                record |= {"lr": weight_rate(optimizer), "train_loss": trained.loss, "train_top1": trained.top1}
                record |= self._evaluated(phase, epoch)
                if self.collapse_guard:
                    self.chance.check(record)
            except Terminated:
                self._save_step(optimizer, meter)
                raise
            except FloatingPointError as error:
                self.run.append_metrics(record | {"collapse": str(error)})
                raise
            if self._reestimates(phase):  # in place, so what goes before it is kept
                self._save_step(optimizer, meter)
            self._finish_epoch(phase, record, optimizer, meter)
        self.momentum, self.previous_weights = {}, {}

    def _step_done(self, optimizer: SGD, meter: InstabilityMeter | None, step: int, loss: float, top1: float) -> None:
        self.observer.step_done(step, loss, top1)
        if self.interruption.checkpoint_due():
            self._save_step(optimizer, meter)

    def _enter(self, phase: Phase) -> None:
        """Prepare the model for a phase that begins: ranges of what begins to quantize, and the average."""
        before = self.phases[self.state.phase - 1] if self.state.phase else None
        if phase.kind != "float" and self.config.teacher == "self" and not (self.run.path / TEACHER_FILE).exists():
            self.run.write_bytes(TEACHER_FILE, float_network(self.config, self.average))
        collective.wait_for_all()
        set_bits(self.model, phase.weight_bits, phase.activation_bits)
        self.average.forget(missing_ranges(self.model))
        narrower = phase.weight_bits != (before.weight_bits if before else self.config.starting_weight_bits)
        calibrate_weights(self.model, anew=narrower and phase.weight_bits < self.config.refit_below_bits)
        if needs_calibration(self.model):
            calibrate(
                self.model, self.examiner.training_batches("calibrate", self.config.calibration_batches), self.session.device
            )
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
        preprocessing = self.session.data.preprocessing
        batches = self.examiner.training_batches("snap", self.config.calibration_batches)
        pixels = (pixels_of(images.to(self.session.device), preprocessing) for images, _ in batches)
        self.state.snapping = measure_snapping(self.model.eval(), preprocessing, pixels).to_json()

    def _network(self, phase: Phase) -> nn.Module:
        """Return what is evaluated: the network, or its snapped program around the same parameters."""
        if phase.kind != "snap":
            return self.model
        assert self.state.snapping is not None
        return SnappedNetwork(self.model, self.session.data.preprocessing, Snapping.from_json(self.state.snapping))

    def _training_network(self, phase: Phase) -> nn.Module:
        """Return what trains: the same, or the network's folded twin, also around the same parameters."""
        engine = self.config.engine
        if engine == "auto":  # folding was measured on CPUs only
            engine = "folded" if self.config.foldable and self.session.device.type == "cpu" else "plain"
        if engine == "plain" or phase.kind == "snap" or phase.activation_bits == FLOAT_BITS:
            return self._network(phase)
        return folded_network(self.model, compiled_operations() if engine == "compiled" else TORCH)

    def _evaluated(self, phase: Phase, epoch: int) -> dict[str, Any]:
        """Return the accuracy of both sets of weights after an epoch.

        Raises:
            CollapseError: a parameter, a range or the loss is beyond use.
        """
        check_parameters(self.model, epoch)
        if self.collapse_guard:
            check_ranges(self.model)
        raw, averaged = self.examiner.raw_and_averaged(self._network(phase))
        if math.isnan(raw.loss):
            raise CollapseError(f"validation gives nan after epoch {epoch + 1}; try a lower schedule.lr")
        return {"raw": asdict(raw), "averaged": asdict(averaged)}

    def _reestimates(self, phase: Phase) -> bool:
        """Return whether the present epoch is the last one in which batch norm normalises, and its statistics come anew."""
        state = self.state
        last = state.phase + 1 == len(self.phases) or self.phases[state.phase + 1].kind == "snap"
        ends = state.next_epoch + 1 == phase.epochs
        wanted = self.config.average.reestimate_batches > 0 and self.config.batchnorm == "unfused"
        return last and ends and phase.kind != "snap" and wanted

    def _finish_epoch(self, phase: Phase, record: dict[str, Any], optimizer: SGD, meter: InstabilityMeter | None) -> None:
        """Log, and write the one checkpoint that makes the epoch final."""
        state = self.state
        raw, averaged = record["raw"], record["averaged"]
        phase_ends = state.next_epoch + 1 == phase.epochs
        if meter is not None:
            self.previous_weights, state.running = meter.state()
            if phase_ends:
                ranking, values = meter.ranking(), meter.values()
                state.freeze_order = freeze_order(ranking, self.config.method, self.config.seed)
                state.instability, state.dropped = {name: values[name] for name in ranking}, meter.dropped_shares()
                state.running, self.previous_weights = {}, {}
        following = self.phases[state.phase + 1] if state.phase + 1 < len(self.phases) else None
        state.unreadable = collective.union([*state.unreadable, *self.session.unreadable_images()])
        self._count_seconds()
        record |= {"seconds": state.seconds, "ranges": layer_ranges(self.model)}
        if self.raw_losses:
            record["raw_losses"] = self.raw_losses
        self.run.append_metrics(record)
        self.chance.remember(record)
        state.metrics_size = self.run.metrics_size
        if phase.kind == "float" and phase_ends and state.padding_top1:
            state.padding_top1["after_float"] = averaged["top1"]
        ends_training = following is None or following.kind == "snap"
        if phase_ends and (following is None or ends_training or following.widths != phase.widths):
            row: dict[str, Any] = {
                "widths": phase.widths,
                "weight_bits": phase.weight_bits,
                "activation_bits": phase.activation_bits,
                "snapped": phase.kind == "snap",
            }
            if self._reestimates(phase):
                row |= {"before_reestimation": {"raw": raw, "averaged": averaged}}
                raw, averaged = map(asdict, self.examiner.reestimated(self._network(phase)))
            state.rows.append(row | {"raw": raw, "averaged": averaged})
        if phase_ends:
            state.phase, state.next_epoch = state.phase + 1, 0
        else:
            state.next_epoch += 1
        if meter is not None and phase_ends:
            self.run.write_json(SENSITIVITY_FILE, sensitivity_table(self.session, state))
        self.totals, self.raw_losses, state.underway = EpochTotals(), [], {}
        self._save(None if phase_ends else optimizer)
        self.observer.epoch_done(record)

    def _save_step(self, optimizer: SGD, meter: InstabilityMeter | None) -> None:
        """Write a checkpoint in the middle of an epoch; before its first step there is one already."""
        if not self.totals.steps:
            return
        if meter is not None:
            self.previous_weights, self.state.running = meter.state()
        self.state.underway = asdict(self.totals) | {"raw_losses": self.raw_losses}
        self._count_seconds()
        self._save(optimizer)

    def _save(self, optimizer: SGD | None) -> None:
        state = self.state
        state.unreadable = sorted({*state.unreadable, *self.session.unreadable_images()})
        state.loss_scale = self.session.precision.state()
        tensors = collect_tensors(self.model, self.average, optimizer, self.previous_weights, self.step_method.state())
        epochs = sum(earlier.epochs for earlier in self.phases[: state.phase]) + state.next_epoch
        self.store.save(epochs, tensors, state.to_json(), step=self.totals.steps)
        self.interruption.checkpoint_written()

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.state.seconds, self.last_time = self.state.seconds + now - self.last_time, now

    def _resume_workers(self) -> None:
        """Compute on with as many threads as before, if there are as many workers; else say what that means."""
        state, workers = self.state, collective.count()
        if state.workers == workers:
            torch.set_num_threads(state.threads)
        elif collective.is_main():
            what = "the run ends equal in distribution, no longer bit for bit"
            logger.warning("it had %d workers until now, and has %d from here on: %s", state.workers, workers, what)
        state.workers, state.threads = workers, torch.get_num_threads()

    def _starts_quantized(self) -> bool:
        """Return whether no phase will give the row of the float network: its weights need no float phase."""
        return self.phases[0].kind != "float" and self.config.from_run is None

    def _meter(self, phase: Phase, network: nn.Module) -> InstabilityMeter:
        profit = self.config.profit
        meter = InstabilityMeter(
            network,
            decay=profit.decay,
            corrected=profit.corrected,
            every=min(profit.sample_every, max(phase.epochs * self.steps // FEWEST_SAMPLES, 1)),
            micro_batches=self.config.parallel.accumulate,
        )
        if self.state.running:
            meter.load_state(self.previous_weights, self.state.running)
        return meter

    def _teacher_of(self, phase: Phase) -> Teacher | None:
        """Return the teacher; the network cannot teach itself before it has learned."""
        if self.teacher is None and self.config.teacher == "self" and phase.kind != "float":
            self.teacher = self_teacher(self.model, self.config, self.run.path / TEACHER_FILE)
        return self.teacher

    def _rate(self, phase: Phase) -> RateSchedule:
        if phase.kind == "sample":
            return constant
        schedule = self.config.schedule
        warmup = 0.0 if phase.kind in ("stabilize", "snap") else schedule.warmup_epochs
        return CosineSchedule(epochs=phase.epochs, warmup_epochs=warmup, final_scale=schedule.final_lr_scale).scale

    def _steps_with_a_look(self) -> set[int]:
        """Return the steps before which the validation loss is taken, in the phases after sampling."""
        sampled = any(phase.kind == "sample" for phase in self.phases[: self.state.phase])
        count = self.config.schedule.evaluations if sampled else 1
        return {self.steps * index // count for index in range(1, count)} - {0}

    def _begin_step(self, phase: Phase, meter: InstabilityMeter | None, looks: set[int], epoch: int, step: int) -> None:
        if step in looks:
            self.raw_losses.append(self.examiner.accuracy(self._network(phase)).loss)
        torch.manual_seed(derive_seed(self.config.seed, "step", self.state.phase, epoch, step))
        if meter is not None:
            meter.begin_step(epoch * self.steps + step)
        self.step_method.progress = progress(self.config, self.phases, phase=self.state.phase, position=epoch + step / self.steps)

    def _after_update(self) -> None:
        self.step_method.after_update()
        if not self.config.parallel.sync_batchnorm:
            average_statistics(self.model)

    def _step_method(self) -> StepMethod:
        if self.config.method == "dampening":
            return Dampening(self.model, self.config.oscillation.dampening)
        if self.config.method == "iterative-freezing":
            return IterativeFreezing(self.model, self.config.oscillation)
        return StepMethod()

    def _loss(self, logits: Tensor, labels: Tensor, teacher_logits: Tensor | None) -> Tensor:
        distill = self.config.distill
        loss = distillation_loss(logits, labels, teacher_logits, weight=distill.weight, temperature=distill.temperature)
        return loss + self.step_method.penalty()
