"""Which fields of a configuration have no part to play in its run, and why."""

from collections.abc import Iterator
from dataclasses import fields

from subfour.ops import FLOAT_BITS
from subfour.profit.config import RunConfig
from subfour.quantizers import quantizer_pair


def refused_fields(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield the fields that nobody can mean beside the others, each with the reason."""
    if not config.freezes_layers:
        yield "profit.covers", f"with --method {config.method}, which freezes no layers"
    if config.from_run is not None:
        for name in ("resize_size", "interpolation", "mean", "std"):
            yield f"loading.{name}", f"with --from {config.from_run}, which has its own"
    if config.method != "dampening":
        yield "oscillation.dampening", f"with --method {config.method}"
    if config.method != "iterative-freezing":
        for name in ("threshold_start", "threshold_end", "momentum"):
            yield f"oscillation.{name}", f"with --method {config.method}"
    if config.teacher == "none":
        for field in fields(config.distill):
            yield f"distill.{field.name}", "with --teacher none"
    elif not config.distill.weight:
        for name in ("teacher", "teacher_weights", "distill.temperature", "distill.teacher_mode"):
            yield name, "with --distill.weight 0"


def ignored_fields(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """Return, by the reason, the fields of phases that a run has not: no mistake where several runs get the same options."""
    if config.method == "data-free":
        return {"with --method data-free, which trains nothing": tuple(_of_training(config))}
    ignored = {why: tuple(f"schedule.{name}" for name in names) for why, names in config.missing_phases.items()}
    if config.from_run is None and not config.schedule.float_epochs:
        ignored["without a float phase"] = ("schedule.float_lr", "schedule.float_sizes")
    if not quantizer_pair(config.quantizer).takes_start:
        ignored[f"with --quantizer {config.quantizer}"] = ("activation_start",)
    if config.profit_bits == FLOAT_BITS:
        ignored["with float weights"] = ("profit.covers",) if config.keep_phases else ("profit.fractions", "profit.covers")
    return ignored


def _of_training(config: RunConfig) -> Iterator[str]:
    """Yield the fields that only training reads."""
    yield from ("teacher", "teacher_weights", "keep_phases", "refit_below_bits", "activation_start", "calibration_batches")
    for section in ("schedule", "profit", "distill", "average"):
        for field in fields(getattr(config, section)):
            if (section, field.name) != ("schedule", "batch_size"):  # of evaluations, too
                yield f"{section}.{field.name}"
