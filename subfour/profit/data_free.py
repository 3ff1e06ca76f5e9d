"""A run without training and without data: the float network quantized as it is, the floor under every trained row.

With `--start dfq` it is DFQ (Nagel et al., ICCV 2019, arXiv:1906.04721) as published: equalized weights, absorbed and corrected
biases, activation ranges from the batch norms. Images only measure what came out.
"""

from dataclasses import asdict
from typing import Any

import torch

from subfour.convert.calibrate import calibrate_weights, set_bits
from subfour.convert.data_free import correct_biases, set_ranges
from subfour.ops import FLOAT_BITS
from subfour.profit.phases import build_phases
from subfour.profit.result import result_row
from subfour.profit.session import Session
from subfour.profit.state import RunState
from subfour.train.evaluation import evaluate


def quantize_without_data(session: Session) -> RunState:
    """Quantize the network of a session in place, at its last widths, and return the state of a finished run.

    Raises:
        ValueError: nothing is known of what feeds a layer without data.
    """
    (phase,) = build_phases(session.config)
    rows = [_row(session, FLOAT_BITS, FLOAT_BITS)]
    set_bits(session.model, phase.weight_bits, phase.activation_bits)
    calibrate_weights(session.model)
    set_ranges(session.model)
    correct_biases(session.model)
    rows.append(_row(session, phase.weight_bits, phase.activation_bits))
    return RunState(phase=1, rows=rows, threads=torch.get_num_threads())


def _row(session: Session, weight_bits: int, activation_bits: int) -> dict[str, Any]:
    """Return the accuracy at two widths, as a trained run has it; raw and averaged weights are the same."""
    set_bits(session.model, weight_bits, activation_bits)
    accuracy = asdict(evaluate(session.model, session.validation, session.device))
    return result_row(weight_bits, activation_bits, accuracy, accuracy)
