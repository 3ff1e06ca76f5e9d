"""The training of one phase: what its epochs share, and what happens in each of their steps."""

from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from subfour import collective
from subfour.profit.examination import Examiner
from subfour.profit.freezing import build_optimizer, weight_rate
from subfour.profit.instability_meter import InstabilityMeter
from subfour.profit.networks import evaluated_network, training_network
from subfour.profit.observer import Observer
from subfour.profit.progress import Progress
from subfour.profit.step_method import share_done
from subfour.seeding import derive_seed
from subfour.train.distill import Teacher, distillation_loss
from subfour.train.loop import Trainer, train_epoch
from subfour.train.parallel import average_statistics, distributed
from subfour.train.precision import Precision
from subfour.train.schedule import CosineSchedule, RateSchedule, constant


class PhaseTraining:
    """Trains the present phase of a run, epoch by epoch."""

    def __init__(
        self,
        progress: Progress,
        *,
        teacher: Teacher | None,
        examiner: Examiner,
        observer: Observer,
    ) -> None:
        """Prepare optimizer, network and meter; a phase that was interrupted has those it had.

        Args:
            progress: of the run. Its model has the phase's widths, and what trains is chosen.
            teacher: of the phase.
            examiner: evaluates inside an epoch.
            observer: told of every step.
        """
        session, state = progress.session, progress.state
        self._phase = progress.phases[state.phase]
        self._progress, self._examiner, self._observer = progress, examiner, observer
        self._config, self._steps = session.config, session.training.steps_per_epoch
        self._looks = self._steps_with_a_look()
        self.optimizer = build_optimizer(session.model, self._phase, self._config.schedule)
        self._network = training_network(session, self._phase, state)
        self.meter = self._sampling_meter() if self._phase.kind == "sample" else None
        """Samples AIWQ; None but in the sampling phase."""
        progress.restore(self.optimizer, self.meter)
        self._trainer = Trainer(
            model=distributed(self._network, synchronized=self._config.parallel.sync_batchnorm),
            optimizer=self.optimizer,
            loss=self._loss,
            teacher=teacher,
            average=progress.average,
            rate=self._rate(),
            rate_per_step=self._config.schedule.update == "step",
            device=session.device,
            after_update=self._after_update,
            # The accumulators of snapped constants are exact in float32.
            precision=Precision("fp32", session.device) if self._phase.kind == "snap" else session.precision,
            micro_batches=self._config.parallel.accumulate,
        )

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train an epoch, or what is left of it, and return its rate, loss and accuracy as metrics.jsonl has them.

        Args:
            epoch: epochs of the phase that are done.

        Raises:
            FloatingPointError: the loss is not finite.
            Terminated: the process was told to end; `save` keeps the steps that are done.
        """
        session, state = self._progress.session, self._progress.state
        self._network.train()
        share = (collective.rank(), collective.count())
        batches = session.training.epoch(
            *(state.phase, epoch),
            first_step=state.underway.steps,
            share=share,
            parts=self._config.parallel.accumulate,
            size=self._image_size(epoch),
        )
        with self.meter or nullcontext():
            trained = train_epoch(
                self._trainer,
                self._progress.interruption.heed(batches),
                epoch=epoch,
                steps=self._steps,
                seed_step=partial(self._begin_step, epoch),
                on_step=self._step_done,
                totals=state.underway,
            )
        return {"lr": weight_rate(self.optimizer), "train_loss": trained.loss, "train_top1": trained.top1}

    def save(self) -> None:
        """Write a checkpoint in the middle of an epoch; before its first step there is one already."""
        if self._progress.state.underway.steps:
            self._progress.save(self.optimizer, self.meter)

    def _begin_step(self, epoch: int, step: int) -> None:
        progress, state, config = self._progress, self._progress.state, self._config
        if step in self._looks:
            state.underway.raw_losses.append(self._validation_loss())
        torch.manual_seed(derive_seed(config.seed, "step", state.phase, epoch, step))
        position = epoch + step / self._steps
        progress.step_method.share_done = share_done(config, progress.phases, phase=state.phase, position=position)

    def _step_done(self, step: int, loss: float, top1: float) -> None:
        self._observer.step_done(step, loss, top1)
        if self._progress.interruption.checkpoint_due():
            self.save()

    def _image_size(self, epoch: int) -> int | None:
        """Return the side of the images of an epoch, pixels; None: of the image size. With few epochs the first sizes go."""
        sizes = self._config.schedule.float_sizes
        if self._phase.kind != "float" or not sizes:
            return None
        left = self._phase.epochs - 1 - epoch
        share = sizes[-1 - left * len(sizes) // self._phase.epochs]
        return max(1, round(share * self._progress.session.data.preprocessing.image_size))

    def _loss(self, logits: Tensor, labels: Tensor, teacher_logits: Tensor | None) -> Tensor:
        distill = self._config.distill
        loss = distillation_loss(logits, labels, teacher_logits, weight=distill.weight, temperature=distill.temperature)
        return loss + self._progress.step_method.penalty()

    def _after_update(self) -> None:
        self._progress.step_method.after_update()
        if not self._config.parallel.sync_batchnorm:
            average_statistics(self._progress.session.model)

    def _rate(self) -> RateSchedule:
        if self._phase.kind == "sample":
            return constant
        schedule = self._config.schedule
        warmup = 0.0 if self._phase.kind in ("stabilize", "snap") else schedule.warmup_epochs
        per_epoch = schedule.update == "epoch"
        epochs, final_scale = self._phase.epochs, schedule.final_lr_scale
        return CosineSchedule(epochs=epochs, warmup_epochs=warmup, final_scale=final_scale, per_epoch=per_epoch).scale

    def _sampling_meter(self) -> InstabilityMeter:
        profit = self._config.profit
        return InstabilityMeter(
            self._network,
            decay=profit.decay,
            corrected=profit.corrected,
            stride=profit.sample_stride,
            micro_batches=self._config.parallel.accumulate,
        )

    def _steps_with_a_look(self) -> set[int]:
        """Return the steps before which the validation loss is taken, in the phases after sampling."""
        earlier = self._progress.phases[: self._progress.state.phase]
        count = self._config.schedule.evaluations if any(phase.kind == "sample" for phase in earlier) else 1
        return {self._steps * index // count for index in range(1, count)} - {0}

    def _validation_loss(self) -> float:
        """Return the loss of the raw weights as they are now."""
        network = evaluated_network(self._progress.session, self._phase, self._progress.state)
        return self._examiner.accuracy(network).loss
