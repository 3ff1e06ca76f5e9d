"""Values for every field of a configuration."""

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from subfour.models.zoo import Architecture
from subfour.profit.config import (
    AverageConfig,
    DistillConfig,
    LoadingConfig,
    OscillationConfig,
    ParallelConfig,
    ProfitConfig,
    RunConfig,
    ScheduleConfig,
)
from subfour.quantizers import QUANTIZER_PAIRS
from tests.profit.field_values import (
    WIDTHS,
    Values,
    choice,
    in_unit_interval,
    not_negative,
    number,
    one_of_widths,
    or_none,
    positive,
    share,
    shares,
    sizes,
    strides,
    switch,
    text,
    three,
    whole,
    widths,
)

SECTIONS: dict[str, type[Any]] = {
    "architecture": Architecture,
    "loading": LoadingConfig,
    "schedule": ScheduleConfig,
    "profit": ProfitConfig,
    "oscillation": OscillationConfig,
    "distill": DistillConfig,
    "average": AverageConfig,
    "parallel": ParallelConfig,
}

FIELDS: dict[str, Values] = {
    "recipe": text,
    "model": text,
    "weights": text,
    "start": choice("none", "dfq"),
    "data": text,
    "weight_bits": widths,
    "activation_bits": widths,
    "quantizer": choice(*QUANTIZER_PAIRS),
    "weight_granularity": choice("layer", "channel"),
    "batchnorm": choice("unfused", "fused"),
    "skip_bits": one_of_widths(32, 8, 7, 6, 5, 4),
    "method": choice("profit", "none", "dampening", "iterative-freezing", "random-order", "reversed-order", "data-free"),
    "padding": choice("negative", "zero"),
    "snap": switch,
    "refit_below_bits": whole(0),
    "activation_start": choice("least-squares", "percentile"),
    "teacher": text,
    "teacher_weights": text,
    "keep_phases": switch,
    "from_run": or_none(text),
    "starting_weight_bits": one_of_widths(*WIDTHS),
    "engine": choice("auto", "plain", "folded", "compiled"),
    "seed": whole(None),
    "device": text,
    "calibration_batches": whole(1),
    "architecture.width": number(0, 16),
    "architecture.strides": strides,
    "architecture.dropout": or_none(number(0, 1, low_itself=True)),
    "loading.image_size": or_none(whole(1)),
    "loading.augment": choice("crop-flip", "crop", "resized-crop", "none"),
    "loading.cutout": whole(0),
    "loading.workers": or_none(whole(0)),
    "loading.unreadable": choice("error", "skip"),
    "loading.resize_size": or_none(whole(1)),
    "loading.interpolation": or_none(choice("bilinear", "bicubic")),
    "loading.mean": or_none(three(in_unit_interval)),
    "loading.std": or_none(three(positive)),
    "schedule.batch_size": whole(1),
    **{f"schedule.{kind}_epochs": whole(0) for kind in ("float", "finetune", "stabilize", "sample", "snap")},
    "schedule.float_lr": or_none(positive),
    "schedule.float_sizes": sizes,
    "schedule.lr": positive,
    "schedule.snap_lr": positive,
    "schedule.range_lr_scale": not_negative,
    "schedule.momentum": share,
    "schedule.weight_decay": not_negative,
    "schedule.warmup_epochs": not_negative,
    "schedule.final_lr_scale": positive,
    "schedule.update": choice("epoch", "step"),
    "schedule.max_steps": or_none(whole(1)),
    "schedule.evaluations": whole(1),
    "profit.fractions": shares,
    "profit.at_bits": or_none(one_of_widths(8, 5, 4)),
    "profit.covers": choice("weights", "weights+ranges", "weights+ranges+batchnorm"),
    "profit.decay": share,
    "profit.corrected": switch,
    "profit.sample_stride": whole(1),
    "oscillation.dampening": not_negative,
    "oscillation.threshold_start": share,
    "oscillation.threshold_end": share,
    "oscillation.momentum": share,
    "distill.weight": not_negative,
    "distill.temperature": positive,
    "distill.teacher_mode": choice("eval", "train"),
    "average.decay": or_none(share),
    "average.restart": switch,
    "average.reestimate_batches": whole(0),
    "parallel.precision": choice("fp32", "bf16", "fp16"),
    "parallel.accumulate": whole(1),
    "parallel.sync_batchnorm": switch,
}
"""Each field by its dotted name; `skip_bits` and `at_bits` beside the widths that a configuration has by default."""


def dotted(values: dict[str, Any], section: str = "") -> Iterator[str]:
    """Yield the dotted name of each field of a configuration in JSON."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{name}.")
        else:
            yield section + name


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    """Draw a configuration with a value of its own in every field, and these in accord."""
    drawn = {name: draw(values.allowed) for name, values in FIELDS.items()}
    able = {32, *QUANTIZER_PAIRS[drawn["quantizer"]].weight_bits}
    drawn["weight_bits"] = tuple(bits for bits in drawn["weight_bits"] if bits in able) or (4,)
    drawn["skip_bits"] = max(drawn["skip_bits"], drawn["activation_bits"][-1])
    if drawn["keep_phases"]:
        for name in ("weight_bits", "activation_bits"):
            drawn[name] = tuple(bits for bits in drawn[name] for _ in range(draw(st.integers(1, 3)) if bits == 32 else 1))
    quantized = [bits for bits in drawn["weight_bits"] if bits != 32]
    drawn["profit.at_bits"] = draw(st.sampled_from([None, *quantized]))
    drawn["snap"] = drawn["snap"] and QUANTIZER_PAIRS[drawn["quantizer"]].integers
    drawn["schedule.snap_epochs"] += drawn["snap"] and not drawn["schedule.snap_epochs"]
    if drawn["teacher"] in ("self", "none"):
        drawn["teacher_weights"] = "pretrained"
    if drawn["method"] == "data-free":
        drawn["skip_bits"] = 32
    if not QUANTIZER_PAIRS[drawn["quantizer"]].per_channel:
        drawn["weight_granularity"] = "layer"
    if QUANTIZER_PAIRS[drawn["quantizer"]].follows_inputs:
        drawn["profit.covers"] = "weights"
    if drawn["batchnorm"] == "fused" and drawn["method"] in ("dampening", "iterative-freezing"):
        drawn["method"] = "profit"
    if drawn["quantizer"] != "duq" or drawn["batchnorm"] == "fused" or drawn["skip_bits"] != 32:
        drawn["engine"] = draw(st.sampled_from(["auto", "plain"]))
    parts = {
        section: kind(**{name.partition(".")[2]: value for name, value in drawn.items() if name.startswith(f"{section}.")})
        for section, kind in SECTIONS.items()
    }
    return RunConfig(**{name: value for name, value in drawn.items() if "." not in name}, **parts)
