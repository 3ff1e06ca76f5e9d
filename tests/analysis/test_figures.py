import math
import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest

from subfour.analysis.curves import Curve
from subfour.analysis.figures.epochs import freeze_figure, loss_figure, range_figure
from subfour.analysis.figures.layers import Histogram, Panel, histogram_figure, layer_figure
from subfour.analysis.figures.study import Dots, study_figure
from subfour.analysis.figures.style import COLOURS, Span, inline
from subfour.analysis.figures.tradeoff import Point, tradeoff_figure

CURVES = [
    Curve(label=label, training=[(1, 3), (2, math.nan), (3, 1)], validation=[(1, 3), (2, 2), (2.5, 1.5), (3, 1)])
    for label in ("a", "b")
]
SPANS = [Span("float", 0, 1), Span("A4W4", 1, 3)]
FIGURES: dict[str, Callable[[str], str]] = {
    "loss": lambda name: loss_figure(CURVES, SPANS, [1], name),
    "histogram": lambda name: histogram_figure(
        [
            Histogram(title="levels", values=[0.0, 0.5, 0.9], levels=[0.0, 1.0], ends=(0.0, 1.0)),
            Histogram(title="extent", values=[], levels=[], ends=(0.0, 0.0)),
        ],
        name,
    ),
    "tradeoff": lambda name: tradeoff_figure({"cost": ([Point("us", 1, 50, "(4, 4)")], [Point("net", 2, 60)])}, name),
    "layers": lambda name: layer_figure(
        ["one", "two"], ["depthwise", "se"], [Panel("p", [0.1, 0.0], log=True), Panel("q", [1, 2])], name, {"band": [0, 1]}
    ),
    "ranges": lambda name: range_figure({"panel": {"one": [math.nan, 1, 1.1]}}, {"one": "depthwise"}, name),
    "study": lambda name: study_figure(
        {
            "net, A4W4": [Dots("one", [0.5, 0.7]), Dots("two", [0.9]), Dots("far", [70.0]), Dots("none", [], "seed 0 diverged")],
            "net, A2W2": [Dots("none", [], "seed 0 diverged")],
        },
        "points lost",
        name,
    ),
    "freezing": lambda name: freeze_figure(["one", "two"], [[Span("one", 1, 3)], []], SPANS, name),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_an_svg_file_with_text_and_the_same_every_time(draw: Callable[[str], str]):
    svg = draw("name")
    texts = [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert any(texts)
    assert svg == draw("name")


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_in_a_page_every_colour_is_a_variable(draw: Callable[[str], str]):
    """So that the page's dark colours reach all of it; black is what SVG draws where nothing is said."""
    page = inline(draw("name"))
    left = set(re.findall(r"#[0-9a-f]{6}\b", re.sub(r"var\(--[\w-]+, #[0-9a-f]{6}\)", "", page)))
    assert left <= {f"#{identity}" for identity in re.findall(r'id="(\w{6})', page)}
    assert set(re.findall(r"var\(--([\w-]+)", page)) <= set(COLOURS)


def test_figures_in_one_page_share_no_id():
    pages = [inline(draw(name)) for name, draw in FIGURES.items()]
    ids = [identity for page in pages for identity in set(re.findall(r' id="([^"]+)"', page))]
    assert len(ids) == len(set(ids))
    assert all(reference in page for page in pages for reference in re.findall(r'href="#([^"]+)"', page))


def test_a_label_cannot_break_out_of_a_figure():
    svg = layer_figure(["<script>x</script>"], ["se"], [Panel("<b>", [1])], "name")
    assert "<script>" not in inline(svg)
    assert "&lt;script&gt;" in inline(svg)


def test_a_row_far_outside_is_a_number_and_one_without_runs_says_why():
    rows = [Dots("one", [0.5]), Dots("two", [1.0]), Dots("far", [70.0]), Dots("none", [], "seed 0 diverged")]
    drawn = ET.fromstring(study_figure({"net": rows}, "lost", "name"))
    texts = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"far", "70.00", "beyond", "seed 0 diverged"} <= texts
    assert not {"60", "70", "80"} & texts
