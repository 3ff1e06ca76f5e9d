"""The rows of a study, by network and widths: points lost, or top-1 where there is no float row."""

from collections.abc import Sequence
from statistics import fmean

from subfour.analysis.figures.study import REACH, Dots, study_figure
from subfour.report.exhibits.exhibit import Exhibit
from subfour.report.study import StudyRow, by_network_and_widths


def rows_exhibit(rows: Sequence[StudyRow]) -> Exhibit:
    """Draw every row; the best one of its network and widths first."""
    key, title = "rows", "Every row, the best first"
    if not any(row.records for row in rows):
        return Exhibit(key=key, title=title, caption="No run is finished yet.")
    lossy = all(row.lost for row in rows if row.records)
    values = {row.name: list((row.lost if lossy else row.top1).values()) for row in rows}
    groups = {
        f"{network}, {widths}": [Dots(row.name, values[row.name], row.state) for row in _ranked(members, values, lossy)]
        for network, widths, members in by_network_and_widths(rows)
    }
    measure = "points of top-1 lost against float" if lossy else "top-1 %"
    return Exhibit(
        key=key,
        title=title,
        caption=f"{measure[0].upper()}{measure[1:]}. Red: the mean, written beside it. Grey: one dot per seed. Blue: one "
        f"standard deviation each way. A panel ends at {REACH:g} times its median row; rows beyond that are numbers only.",
        svg=study_figure(groups, measure, key),
        columns=("network", "widths", "row", "seed", "top1", "lost", "state"),
        rows=[line for row in rows for line in _lines(row)],
    )


def _ranked(rows: Sequence[StudyRow], values: dict[str, list[float]], lossy: bool) -> list[StudyRow]:
    """Return rows with the best first and those without a finished run last."""
    sign = 1 if lossy else -1
    return sorted(rows, key=lambda row: (not values[row.name], sign * fmean(values[row.name] or [0.0])))


def _lines(row: StudyRow) -> list[tuple[object, ...]]:
    about = (row.network, row.widths, row.name)
    return [
        *((*about, seed, top1, row.lost.get(seed, ""), "finished") for seed, top1 in row.top1.items()),
        *((*about, seed, "", "", "diverged") for seed in row.diverged),
        *((*about, seed, "", "", "missing") for seed in row.missing),
    ]
