from dataclasses import replace

import pytest

from subfour.profit.config import ProfitConfig
from subfour.profit.phases import build_phases
from subfour.profit.step_method import share_done
from subfour.recipes import load_recipe


@pytest.mark.parametrize("at_bits", [5, 4])
def test_progress_rises_from_0_towards_1_over_the_phases_at_profits_width(at_bits: int):
    """And is nowhere else."""
    config = replace(load_recipe("digits"), snap=False, profit=ProfitConfig(at_bits=at_bits))
    phases = build_phases(config)
    shares = [
        (phase.weight_bits, share_done(config, phases, phase=index, position=epoch + 0.5))
        for index, phase in enumerate(phases)
        for epoch in range(phase.epochs)
    ]
    acting = [share for bits, share in shares if bits == at_bits]
    assert acting == pytest.approx([(2 * step + 1) / (2 * len(acting)) for step in range(len(acting))])
    assert {share for bits, share in shares if bits != at_bits} == {None}


def test_a_float_control_has_none():
    config = replace(load_recipe("digits"), weight_bits=(32,), activation_bits=(32,), keep_phases=True)
    phases = build_phases(config)
    assert {share_done(config, phases, phase=index, position=0) for index in range(len(phases))} == {None}
