"""Figures of few and of many variants: panels stay apart by the same distance, and nothing leaves the picture."""

from pathlib import Path

import pytest
from matplotlib.lines import Line2D

from hmtl_plugin.reporting.study.collect import read_study
from hmtl_plugin.reporting.study.comparisons import compare
from hmtl_plugin.reporting.study.figures import differences, learning_curves
from tests.reporting.study import made_up


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Twenty variants beside flat BERT."""
    names = [f"nsp-lower-concat-{number}" for number in range(20)]
    monkeypatch.setattr(
        made_up, "HIERARCHIES", made_up.HIERARCHIES | dict.fromkeys(names, made_up.HIERARCHIES["hierarchy"])
    )
    return {"flat": 0.0} | {name: 0.1 * number for number, name in enumerate(names)}


@pytest.mark.parametrize("count", [2, 21])
def test_rows_of_panels_are_as_far_apart_however_high_they_are(
    tmp_path: Path, many: dict[str, float], count: int
) -> None:
    study = read_study(made_up.write_study(tmp_path, dict(list(many.items())[:count])))
    figure = differences(study, compare(study))
    assert figure is not None
    height = figure.get_figheight()
    boxes = sorted({(round(a.get_position().y0, 6), round(a.get_position().y1, 6)) for a in figure.axes})
    assert len(boxes) == 2
    assert (boxes[1][0] - boxes[0][1]) * height == pytest.approx(0.75, abs=1e-3)
    assert (boxes[0][1] - boxes[0][0]) * height == pytest.approx(0.24 * (count - 1), abs=1e-3)


def test_every_variant_has_its_own_line_in_the_legend(tmp_path: Path, many: dict[str, float]) -> None:
    figure = learning_curves(read_study(made_up.write_study(tmp_path, many, seeds=[1, 2])))
    assert figure is not None
    assert {text.get_text() for text in figure.texts} == set(many)
    lines = [artist for artist in figure.artists if isinstance(artist, Line2D)]
    looks = {(str(line.get_color()), str(line.get_linestyle()), str(line.get_marker())) for line in lines}
    assert len(lines) == len(many) == 21
    assert len(looks) >= 18  # six colours with six dashes and markers; the nineteenth may look like the first
    positions = [text.get_position() for text in figure.texts]
    assert all(0 < x < 1 and 0 < y < 1 for x, y in positions) and len(set(positions)) == len(many)


def test_without_values_there_is_no_figure(tmp_path: Path) -> None:
    skip = [("flat", 1, stage) for stage in made_up.STAGES]
    study = read_study(made_up.write_study(tmp_path, {"flat": 0.0}, seeds=[1], skip=skip))
    assert differences(study, compare(study)) is None and learning_curves(study) is None
