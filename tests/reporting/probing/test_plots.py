"""Figures show the numbers of a study and nothing else, whatever its size and the names in it."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import chain
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from hmtl_plugin.probing.results import ProbedEncoder, ProbingResults
from hmtl_plugin.reporting.probing import colours
from hmtl_plugin.reporting.probing.curves import accuracy_curves, selectivity_curves
from hmtl_plugin.reporting.probing.heatmaps import accuracy_map, difference_map, signed
from hmtl_plugin.reporting.probing.hierarchy_strip import hierarchy_strip
from hmtl_plugin.reporting.probing.labels import slugs
from hmtl_plugin.reporting.probing.plots import plots, write_plots
from tests.reporting.probing.studies import Shape, invented

LONG = tuple(f"runs/books/a-long-name-of-a-pre-training-with-many-options-{n}/checkpoint_best.pt" for n in range(5))


def _named(figure: Figure, kind: str) -> dict[tuple[int, int], Artist]:
    """Artists by layer and task."""
    names = {artist.get_gid() or "": artist for artist in figure.findobj()}
    places = {name.removeprefix(f"{kind}-"): artist for name, artist in names.items() if name.startswith(f"{kind}-")}
    return {
        (int(layer), int(task)): artist
        for (layer, task), artist in ((place.split("-"), artist) for place, artist in places.items() if "-" in place)
    }


def _texts(figure: Figure) -> dict[tuple[int, int], str]:
    return {place: text.get_text() for place, text in _named(figure, "cell").items() if isinstance(text, Text)}


def _encoder(study: ProbingResults, name: str) -> ProbedEncoder:
    return next(encoder for encoder in study.encoders if encoder.name == name)


def test_heat_map_shows_the_accuracies_and_frames_the_best_layer() -> None:
    study = invented()
    for encoder in study.encoders:
        figure = accuracy_map(study, encoder, "mean")
        columns = [study.probed[encoder.name, task.name, "mean"] for task in study.tasks]
        assert _texts(figure) == {
            (layer, column): f"{value:.1f}"
            for column, probed in enumerate(columns)
            for layer, value in enumerate(probed.accuracy.tolist())
        }
        assert set(_named(figure, "best")) == {(probed.best, column) for column, probed in enumerate(columns)}


def test_difference_map_is_starred_exactly_where_significant() -> None:
    study = invented()
    figure = difference_map(study, _encoder(study, "runs/books-flat"), "cls")
    expected = {}
    for column, task in enumerate(study.tasks):
        difference = study.differences["runs/books-flat", task.name, "cls"]
        for layer, (delta, p) in enumerate(zip(difference.delta.tolist(), difference.p_holm.tolist())):
            expected[layer, column] = signed(delta) + ("*" if p < 0.05 else "")
    assert _texts(figure) == expected
    assert {text.endswith("*") for text in expected.values()} == {True, False}


def test_difference_map_has_only_layers_that_both_encoders_have() -> None:
    shallow, deep = invented(Shape(layers=4)), invented(Shape(layers=12, names=("deep",), untrained=False))
    study = replace(shallow, encoders=(*shallow.encoders, *deep.encoders), probed={**shallow.probed, **deep.probed})
    flat = {key: value for key, value in shallow.differences.items() if key[0] == "runs/books-flat"}
    study = replace(study, differences={("deep", *key[1:]): difference for key, difference in flat.items()})
    assert {layer for layer, _ in _texts(difference_map(study, _encoder(study, "deep"), "cls"))} == set(range(5))


def test_own_objective_is_hatched_for_the_encoders_named() -> None:
    study = invented()
    column = [task.name for task in study.tasks].index("bigram_shift")
    trained, flat = (accuracy_map(study, _encoder(study, f"runs/books-{n}"), "cls") for n in ("hierarchy", "flat"))
    assert set(_named(trained, "own")) == {(layer, column) for layer in range(5)}
    assert not _named(flat, "own")
    headings = [{text.get_text() for text in figure.findobj(Text)} for figure in (trained, flat)]
    assert "Bigram shift†" in headings[0] and "Bigram shift" in headings[1]


def test_strip_places_objectives_beside_their_layers() -> None:
    study = invented()
    encoder = replace(
        study.encoders[0],
        placements=(("bigram_shift", 2), ("nsp", 4), ("mlm", 4)),
        transfer="bigram_shift>mlm:add,nsp>mlm:concat",
    )
    figure = accuracy_map(study, encoder, "cls")
    names = {artist.get_gid(): artist for artist in figure.findobj() if artist.get_gid()}
    rows = {layer: _named(figure, "cell")[layer, 0] for layer in range(5)}
    for layer, expected in ((2, "bigram_shift"), (4, "nsp + mlm")):
        pill, cell = names[f"objectives-{layer}"], rows[layer]
        assert isinstance(pill, Text) and isinstance(cell, Text)
        assert pill.get_text() == expected and pill.get_position()[1] == pytest.approx(cell.get_position()[1])
    assert "transfer-bigram_shift-mlm" in names
    assert "transfer-nsp-mlm" not in names  # at one layer there is no way to draw


@pytest.mark.parametrize(
    "shape",
    [
        Shape(poolings=("mean",)),
        Shape(layers=24, tasks=12, poolings=("mean",), names=LONG),
        Shape(layers=24, tasks=1, poolings=("mean",), names=LONG[:1], untrained=False),
        Shape(layers=12, tasks=5, poolings=("mean",), names=LONG[:3]),
    ],
    ids=["small", "large", "one-task", "middle"],
)
def test_no_text_is_clipped_or_lies_upon_another(shape: Shape) -> None:
    for plot in {plot.kind: plot for plot in plots(invented(shape))}.values():
        figure = plot.draw()
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        unseen = {text for axes in figure.axes for text in _ticks_out_of_view(axes)}
        texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in unseen]
        boxes = np.array([text.get_window_extent(canvas.get_renderer()).extents for text in texts])  # (T, 4)
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= figure.bbox.extents[2:]).all(), plot.name
        low, high = boxes[:, None, :2], boxes[:, None, 2:]
        overlap = np.minimum(high, high.swapaxes(0, 1)) - np.maximum(low, low.swapaxes(0, 1))  # (T, T, 2)
        clash = np.triu((overlap > 1).all(-1), 1)
        assert not clash.any(), [(texts[i].get_text(), texts[j].get_text()) for i, j in np.argwhere(clash)]


def _ticks_out_of_view(axes: Axes) -> list[Text]:
    found = []
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        found += [tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
    return found


def test_curves_draw_the_accuracies_against_the_share_of_the_depth_where_depths_differ() -> None:
    shallow, deep = invented(Shape(layers=4)), invented(Shape(layers=12, names=("deep",), untrained=False))
    both = replace(shallow, encoders=(*shallow.encoders, *deep.encoders), probed={**shallow.probed, **deep.probed})
    for study, last in ((shallow, 4.0), (both, 100.0)):
        lines = {line.get_gid(): line for axes in accuracy_curves(study, "cls").axes for line in axes.lines}
        for number, task in enumerate(study.tasks):
            for index, encoder in enumerate(study.encoders):
                x, y = lines[f"line-{number}-{index}"].get_data()
                assert np.array_equal(y, study.probed[encoder.name, task.name, "cls"].accuracy)
                assert np.allclose(x, np.linspace(0, last, encoder.layers + 1))


def test_selectivity_is_accuracy_less_control() -> None:
    study = invented()
    lines = {line.get_gid(): line for axes in selectivity_curves(study, "cls").axes for line in axes.lines}
    probed = study.probed["runs/books-flat", study.tasks[3].name, "cls"]
    assert probed.control is not None
    assert np.array_equal(lines["line-3-0"].get_ydata(), probed.accuracy - probed.control)


def test_encoders_are_told_apart_without_colour_and_cells_can_be_read() -> None:
    encoders = [ProbedEncoder(str(n), "untrained" if n % 5 == 4 else "checkpoint", 4) for n in range(15)]
    styles = colours.line_styles(encoders)
    assert len({(style.dashes, style.marker) for style in list(styles.values())[:7]}) == 7
    assert len(set(styles.values())) == len(encoders)
    shades = [*map(colours.share_colour, np.linspace(0, 1, 99)), *(colours.delta_colour(d, 5) for d in range(-5, 6))]
    assert min(colours.contrast(colours.text_colour(shade), shade) for shade in shades) >= 4.5
    assert len({shade.light for shade in colours.THEME.values()}) == len(colours.THEME)


def test_files_are_the_same_each_time_and_leave_no_trace(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    study = invented(Shape(tasks=2, poolings=("cls",)))
    first, second = write_plots(study, tmp_path / "a"), write_plots(study, tmp_path / "b")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert sorted(first) == sorted((tmp_path / "a").iterdir())
    assert {file.name.split("_")[0] for file in first} == {"heatmap", "difference", "curves", "selectivity"}
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in first if file.suffix == ".png")
    assert dict(matplotlib.rcParams) == before


def test_names_do_not_collide_nor_leave_the_folder(tmp_path: Path) -> None:
    names = ("a/b", "a-b", "A b", "a-b-2", "../../a", "", "\udcff\x00", "日本語", "b" * 300)
    found = slugs(names)
    assert len({slug.lower() for slug in found.values()}) == len(names)
    study = invented(Shape(tasks=1, poolings=("c/ls", "c ls"), names=names[:3], control=False))
    written = write_plots(study, tmp_path)
    assert len({str(file).lower() for file in written}) == len(written) == 2 * 2 * (2 * 3 + 1 + 1)
    assert all(file.parent == tmp_path and file.is_file() for file in written)


def test_names_are_text_whatever_is_in_them() -> None:
    name = "<script>alert(1)</script> & $x_1$ \x07\udcff 'DejaVu Sans'"
    study = invented(Shape(tasks=2, poolings=("cls",), names=(name,)))
    for plot in plots(study):
        root = ElementTree.fromstring(plot.svg())
        assert not [element for element in root.iter() if element.tag.endswith("script")]
        assert plot.png()
    heat_map = ElementTree.fromstring(plots(study)[0].svg())
    texts = list(
        chain.from_iterable(element.itertext() for element in heat_map.iter("{http://www.w3.org/2000/svg}text"))
    )
    assert "<script>alert(1)</script> & $x_1$  \ufffd 'DejaVu Sans'" in texts


def test_what_was_not_measured_stays_empty() -> None:
    study = invented(Shape(poolings=("cls",)))
    gone = (study.encoders[0].name, study.tasks[1].name, "cls")
    half = study.probed[study.encoders[0].name, study.tasks[2].name, "cls"]
    accuracy = half.accuracy.copy()
    accuracy[3] = np.nan
    probed = {key: value for key, value in study.probed.items() if key != gone}
    probed[study.encoders[0].name, study.tasks[2].name, "cls"] = replace(half, accuracy=accuracy)
    study = replace(study, probed=probed)
    shown = _texts(accuracy_map(study, study.encoders[0], "cls"))
    assert {(layer, column) for layer in range(5) for column in range(10)} - set(shown) == {
        *((layer, 1) for layer in range(5)),
        (3, 2),
    }
    assert [plot.kind for plot in plots(replace(study, probed={}, differences={}, baseline=None))] == [
        *["heatmap"] * 3,
        "curves",
    ]
    for plot in plots(replace(study, probed={}, differences={}, baseline=None)):
        plot.svg()
    assert not plots(replace(study, tasks=()))


def test_a_mix_is_shown_at_each_layer_that_it_reads() -> None:
    encoder = ProbedEncoder(
        "mixed", "checkpoint", 3, (("mlm", 3), ("nsp", 3)), "nsp>mlm:concat", mixes={"nsp": {1: 0.2, 2: 0.25, 3: 0.55}}
    )
    strip = hierarchy_strip(encoder)
    assert strip.pills == {1: "nsp 0.20", 2: "nsp 0.25", 3: "mlm + nsp 0.55"}
    assert strip.arrows == ()
