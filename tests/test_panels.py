"""Figures of several panels: measures by suite and by group, and lines over a number."""

import itertools
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from spillover.report.canvas import limits, plain, wrapped
from spillover.report.figures import FAINT, WIDEST, save_figure, styles
from spillover.report.lines import Series, Strip, draw_over
from spillover.report.panels import Panel, draw_by_suite

GROUPS = {"base": 1, "insecure": 6, "secure": 6, "educational": 6}
NOTE = "12,000 answers, 11,300 kept (coherence \N{GREATER-THAN OR EQUAL TO} 50 and an alignment verdict)."
JUDGE = "Judge local:758cf768b7c1+070d3be7fbbc; rubric alignment 23738cd5b87a and coherence 0d05c5d64302."
LONG = "the_suite_of_questions_about_situational_awareness_and_deception_"
MISALIGNED = Panel("misaligned", "misaligned answers", ("plain", "json"))
Numbers = tuple[dict[str, Any], pl.DataFrame]


def make(
    suites: Sequence[str] = ("plain", "json"),
    groups: Mapping[str, int] = GROUPS,
    measures: Sequence[str] = ("misaligned",),
    highest: float = 0.4,
) -> Numbers:
    """Numbers of suites, and the runs behind them, up to a highest rate."""
    draw = np.random.default_rng(0)
    rows = [
        (suite, group, f"{group}-s{run}", measure, 100, 90, float(draw.uniform(0, highest)))
        for suite in suites
        for group, runs in groups.items()
        for run in range(runs)
        for measure in measures
    ]
    rates = pl.DataFrame(rows, ["suite", "group", "run", "measure", "answers", "kept", "rate"], orient="row")
    told = {
        suite: {
            "questions": "main",
            "variant": suite,
            "x": None,
            "groups": {g: {m: entry(rates.filter(suite=suite, group=g, measure=m)) for m in measures} for g in groups},
        }
        for suite in suites
    }
    return told, rates


def entry(runs: pl.DataFrame) -> dict[str, Any]:
    """What the numbers say of some runs."""
    rates = runs["rate"].to_numpy()
    ends = {"low": 0.8 * float(rates.min()), "high": float(rates.max()) + 0.03}
    return {"value": float(rates.mean()), **ends, "runs": len(rates), "kept": 90, "answers": 100}


NOTHING = {"value": None, "low": None, "high": None, "runs": 6, "kept": 0, "answers": 100}


def entries(suites: Mapping[str, Any], measure: str = "misaligned") -> list[dict[str, Any]]:
    return [group[measure] for suite in suites.values() for group in suite["groups"].values() if measure in group]


def marks(axes: Axes, turned: bool = False) -> list[float]:
    """The values at which there is a large mark."""
    return sorted(float(data[0]) for data in _data(axes, turned) if len(data) == 1)


def bars(axes: Axes, turned: bool = False) -> list[tuple[float, float]]:
    """The lower and upper ends of all intervals."""
    return sorted((float(data[0]), float(data[1])) for data in _data(axes, turned) if len(data) == 2)


def points(axes: Axes) -> list[float]:
    """The values at which there is a small point."""
    return sorted(float(y) for dots in axes.collections for _, y in np.asarray(dots.get_offsets()))


def _data(axes: Axes, turned: bool) -> list[Any]:
    return [np.asarray(line.get_xdata() if turned else line.get_ydata()) for line in data_lines(axes)]


def data_lines(axes: Axes) -> list[Line2D]:
    """All lines but the one at zero."""
    return [line for line in axes.lines if line.get_color() != FAINT]


def drawn(figure: Figure) -> Any:
    """The renderer, after the layout is done."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def words(figure: Figure) -> list[Text]:
    """Every text that a reader sees."""
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        texts += [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            shown = [
                tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high and tick.label1.get_visible()
            ]
            texts += [tick.label1 for tick in shown] if axes.axison else []
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def check_layout(figure: Figure) -> None:
    """No text overlaps another or is cut off, and no panel lies under the words around it."""
    renderer = drawn(figure)
    boxes = {text: text.get_window_extent(renderer) for text in words(figure)}
    page = figure.bbox
    for text, box in boxes.items():
        inside = box.x0 >= page.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1
        assert inside, f"{text.get_text()!r} is cut off"
    for (first, one), (second, two) in itertools.combinations(boxes.items(), 2):
        apart = one.x1 <= two.x0 or two.x1 <= one.x0 or one.y1 <= two.y0 or two.y1 <= one.y0
        assert apart, f"{first.get_text()!r} and {second.get_text()!r} overlap"
    for axes, legend in itertools.product(figure.axes, figure.legends):
        assert not axes.get_window_extent(renderer).overlaps(legend.get_window_extent(renderer))
    assert all(axes.get_window_extent(renderer).height > 0.4 * figure.dpi for axes in figure.axes)
    assert figure.get_size_inches()[0] <= WIDEST + 0.01


def check_limits(axes: Axes) -> None:
    """All marks, bars, points and lines lie within the axes' limits."""
    shown = [np.asarray(line.get_xydata(), float) for line in data_lines(axes)]
    for one in axes.collections:
        shown.append(np.asarray(one.get_offsets() if isinstance(one, PathCollection) else one.get_paths()[0].vertices))
    for points in shown:
        for values, ends in zip(points.T, (axes.get_xlim(), axes.get_ylim()), strict=True):
            assert np.all(np.isnan(values) | ((values >= min(ends)) & (values <= max(ends))))


# ---- by suite and by group


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    def draw(name: str) -> list[Path]:
        return save_figure(draw_by_suite(*make(), [MISALIGNED], "A title", NOTE, JUDGE), tmp_path / name)

    for first, second in zip(draw("one"), draw("two"), strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_every_run_mean_and_interval_stands_at_its_height_in_percent() -> None:
    suites, rates = make()
    axes = draw_by_suite(suites, rates, [MISALIGNED], "", "").axes[0]
    told = entries(suites)
    assert marks(axes) == pytest.approx(sorted(100 * one["value"] for one in told))
    ends = sorted((100 * one["low"], 100 * one["high"]) for one in told)
    assert np.array(bars(axes)) == pytest.approx(np.array(ends))
    trained = rates.filter(pl.col("group") != "base")
    assert points(axes) == pytest.approx(sorted(100 * trained["rate"]))
    assert {label.get_text() for label in axes.get_yticklabels()} >= {"0%", "20%"}


def test_plain_numbers_are_not_drawn_as_percentages() -> None:
    suites, rates = make(measures=["log_odds"], highest=0.9)
    for one in entries(suites, "log_odds"):
        one["low"] = -0.5
    figure = draw_by_suite(suites, rates, [Panel("log_odds", "log odds", ("plain", "json"))], "", "")
    assert marks(figure.axes[0]) == pytest.approx(sorted(one["value"] for one in entries(suites, "log_odds")))
    drawn(figure)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "\N{MINUS SIGN}0.5" in labels and not any("%" in label for label in labels)
    check_limits(figure.axes[0])


def test_what_was_not_asked_or_has_no_value_leaves_a_gap() -> None:
    suites, rates = make(("plain", "json"))
    suites["json"]["groups"]["secure"]["misaligned"] = NOTHING
    del suites["json"]["groups"]["educational"]
    left = (pl.col("suite") == "json") & pl.col("group").is_in(["secure", "educational"])
    panel = Panel("misaligned", "misaligned answers", ("plain", "never_asked", "json"))
    axes = draw_by_suite(suites, rates.filter(~left), [panel], "", "").axes[0]
    assert len(axes.get_xticks()) == 3
    spots = sorted(float(np.asarray(line.get_xdata())[0]) for line in axes.lines)
    assert len(marks(axes)) == 6 and min(marks(axes)) > 0
    assert not [x for x in spots if 0.5 < x < 1.5 or x > 2.0], "json's two last columns and the suite between are empty"


def test_a_group_keeps_its_column_and_a_run_its_offset_in_every_suite() -> None:
    axes = draw_by_suite(*make(("a", "b", "c")), [Panel("misaligned", "", ("a", "b", "c"))], "", "").axes[0]
    for group in range(3):
        dots = axes.collections[3 * group : 3 * group + 3]
        places = [np.asarray(one.get_offsets())[:, 0] - suite for suite, one in enumerate(dots)]
        assert np.array(places[1:]) == pytest.approx(np.array([places[0]] * 2))


def test_the_legend_names_groups_and_their_runs() -> None:
    suites, rates = make()
    suites["json"]["groups"]["secure"]["misaligned"]["runs"] = 4
    figure = draw_by_suite(suites, rates, [MISALIGNED], "", "")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["base, not finetuned", "insecure (6 runs)", "secure (4 to 6 runs)", "educational (6 runs)"]


def test_the_caption_says_what_points_and_bars_are() -> None:
    many = draw_by_suite(*make(), [MISALIGNED], "", NOTE, JUDGE)
    told = {" ".join(text.get_text().split()) for text in many.texts}
    assert f"{NOTE} Small points: single runs. Large marks: the mean over runs, with its 95% interval." in told
    assert JUDGE in told
    one = draw_by_suite(*make(groups={"base": 1, "insecure": 1}), [MISALIGNED], "", "")
    assert "Marks: one run each, with its 95% interval." in {text.get_text() for text in one.texts}
    assert not points(one.axes[0])


def test_a_panel_shows_the_groups_and_suites_that_it_names_in_its_order() -> None:
    panel = Panel("misaligned", "", ("json", "plain"), ("secure", "insecure", "absent"), names=("JSON", "as it is"))
    figure = draw_by_suite(*make(), [panel], "", "")
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["JSON", "as it is"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["secure (6 runs)", "insecure (6 runs)"]


def test_a_group_looks_the_same_in_every_figure_of_an_experiment() -> None:
    suites, rates = make(groups={"first": 2, "second": 2})
    both = draw_by_suite(suites, rates, [MISALIGNED], "", "")
    alone = draw_by_suite(suites, rates, [Panel("misaligned", "", ("plain",), ("second",))], "", "")
    looks = [figure.legends[0].get_lines()[-1].get_marker() for figure in (both, alone)]
    assert looks[0] == looks[1]


def test_twelve_new_groups_have_twelve_looks() -> None:
    looks = styles(tuple(f"group{i}" for i in range(12)))
    assert len(set(looks.values())) == 12


def test_by_group_every_group_is_a_row_that_names_its_runs() -> None:
    suites, rates = make(("plain",), measures=["accuracy", "false"])
    panels = [Panel(name, name, ("plain",), by="group") for name in ("accuracy", "false")]
    figure = draw_by_suite(suites, rates, panels, "", "")
    left, right = figure.axes
    rows = ["base, not finetuned", "insecure (6 runs)", "secure (6 runs)", "educational (6 runs)"]
    assert [text.get_text() for text in left.get_yticklabels()] == rows
    assert not any(text.get_text() for text in right.get_yticklabels()), "one list of names serves both panels"
    assert not figure.legends
    assert marks(left, turned=True) == pytest.approx(sorted(100 * one["value"] for one in entries(suites, "accuracy")))
    check_layout(figure)


def test_by_group_two_suites_are_columns_in_the_legend() -> None:
    panel = Panel("misaligned", "misaligned answers", ("plain", "json"), by="group", names=("asked plainly", "as JSON"))
    figure = draw_by_suite(*make(), [panel], "", "")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["asked plainly", "as JSON"]
    assert len(marks(figure.axes[0], turned=True)) == 8
    check_layout(figure)


CASES: dict[str, tuple[Numbers, list[Panel]]] = {
    "two": (make(("plain",), {"base": 1, "insecure": 1}), [Panel("misaligned", "misaligned", ("plain",))]),
    "long_names": (
        make([LONG + str(i) for i in range(4)]),
        [Panel("misaligned", "a label that is longer than its panel " * 4, tuple(LONG + str(i) for i in range(4)))],
    ),
    "twelve_groups": (
        make(
            groups={f"a_group_with_a_long_name_{i}": 1 + i % 3 for i in range(12)}, measures=("misaligned", "coherent")
        ),
        [Panel(name, name, ("plain", "json")) for name in ("misaligned", "coherent")],
    ),
    "many_suites": (
        make([f"suite_{i}" for i in range(16)], measures=("misaligned", "false")),
        [Panel(name, name, tuple(f"suite_{i}" for i in range(16))) for name in ("misaligned", "false")],
    ),
    "zeros": (make(highest=0), [MISALIGNED, Panel("coherent", "nothing here", ("plain", "json"))]),
    "ones": (make(highest=0.97), [MISALIGNED]),
    "benchmarks": (
        make(("bench",), {"base": 1} | {f"group{i}": 6 for i in range(11)}, [f"measure{i}" for i in range(7)]),
        [Panel(f"measure{i}", f"measure {i}", ("bench",), by="group") for i in range(7)],
    ),
    "unlike_rows": (
        make(measures=("misaligned", "false")),
        [
            Panel("misaligned", "misaligned", ("plain",), ("base", "insecure"), by="group"),
            Panel("false", "false", ("json",), ("secure", "educational", "base"), by="group"),
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_overlaps_or_is_cut_off(case: str) -> None:
    numbers, panels = CASES[case]
    figure = draw_by_suite(*numbers, panels, "A title that is long enough for more than one line " * 3, NOTE * 3, JUDGE)
    check_layout(figure)
    for axes in figure.axes:
        check_limits(axes)


def test_a_panel_without_values_says_so() -> None:
    figure = draw_by_suite(*make(), [Panel("gone", "", ("plain", "json"))], "", "")
    assert [text.get_text() for text in figure.axes[0].texts if text.get_text()] == ["no values"]
    assert not figure.axes[0].lines


def test_a_dollar_sign_is_a_dollar_sign(tmp_path: Path) -> None:
    panel = Panel("misaligned", "from $5 to $6_x", ("plain", "json"), names=("$a^b$", r"$\frac$"))
    figure = draw_by_suite(*make(), [panel], "it costs $5 or $6", "$x")
    assert len(save_figure(figure, tmp_path / "figure")) == 2
    drawn(figure)
    costly = [text for text in words(figure) if "$" in text.get_text()]
    assert len(costly) == 5 and not any(text.get_parse_math() for text in costly)


def test_a_figure_needs_panels_that_are_there() -> None:
    with pytest.raises(ValueError, match="needs a panel"):
        draw_by_suite(*make(), [], "", "")
    for panels in ([], [Strip("one")]):
        with pytest.raises(ValueError, match="needs a panel"):
            draw_over([Series("a", "a", (), panel=1)], "x", panels)


# ---- over a number


def line(group: str, xs: Sequence[float], height: float = 0.2, panel: int = 0, runs: int = 3, **more: Any) -> Series:
    """A line with its interval and single runs, all a little different."""
    told = tuple((x, height * (1 + i / 20), 0.9 * height, 1.2 * height + i / 100) for i, x in enumerate(xs))
    single = tuple(tuple((x, height * (1 + run / 10)) for x in xs) for run in range(runs))
    return Series(group, group, told, panel, single, **more)


STEPS = tuple(range(0, 341, 10))


def test_lines_of_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    def draw(name: str) -> list[Path]:
        series = [line("insecure", STEPS), line("secure", (0, 100))]
        return save_figure(draw_over(series, "steps", [Strip("misaligned")], title="A title"), tmp_path / name)

    for first, second in zip(draw("one"), draw("two"), strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_a_line_of_few_points_has_marks_and_bars_at_its_values() -> None:
    one = line("insecure", (500, 2000, 6000), runs=0)
    axes = draw_over([one], "rows", [Strip("misaligned")], log_x=True).axes[0]
    assert marks(axes) == pytest.approx([100 * value for _, value, _, _ in one.points if value is not None])
    assert np.array(bars(axes)) == pytest.approx(np.array([(100 * low, 100 * high) for _, _, low, high in one.points]))
    assert axes.get_xscale() == "log"
    assert [plain(tick) for tick in axes.get_xticks()] == ["500", "2,000", "6,000"]


def test_a_line_of_many_points_lies_in_a_band_between_its_intervals_ends() -> None:
    one = line("insecure", STEPS, runs=0)
    axes = draw_over([one], "steps", [Strip("gradient norm", share=False)]).axes[0]
    (band,) = axes.collections
    corners = np.asarray(band.get_paths()[0].vertices)
    for x, value, low, high in one.points:
        heights = corners[np.isclose(corners[:, 0], x), 1]
        assert (heights.min(), heights.max()) == pytest.approx((low, high))
        assert value in np.asarray(axes.lines[0].get_ydata())
    assert not marks(axes)


def test_a_line_is_broken_where_there_is_no_value() -> None:
    gap = Series("insecure", "insecure", ((0, 0.1, 0.05, 0.2), (1, None, None, None), (2, 0.3, 0.2, 0.4)))
    axes = draw_over([gap], "examples", [Strip("misaligned")]).axes[0]
    (path,) = [np.asarray(one.get_ydata()) for one in axes.lines if len(np.asarray(one.get_ydata())) == 3]
    assert isnan(path[1]) and marks(axes) == pytest.approx([10, 30]) and len(bars(axes)) == 2


def test_zero_has_a_place_on_an_axis_of_factors() -> None:
    examples = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
    figure = draw_over([line("insecure", examples)], "examples", [Strip("insecure code")], log_x=True)
    axes = figure.axes[0]
    assert list(axes.get_xticks()) == list(examples)
    places = axes.transData.transform([(x, 0) for x in examples])[:, 0]
    steps = np.diff(places)
    assert steps[1:] == pytest.approx(np.full(8, steps[1])) and 0.5 * steps[1] < steps[0] < steps[1]
    with pytest.raises(ValueError, match="axis of factors"):
        draw_over([line("insecure", (-1, 2))], "x", [Strip("")], log_x=True)


def test_lines_at_the_same_numbers_stand_side_by_side() -> None:
    series = [line(group, (0, 0.5, 1), 0.2, runs=0) for group in ("insecure", "secure", "educational")]
    figure = draw_over(series, "temperature", [Strip("misaligned")])
    renderer = drawn(figure)
    single = [one for one in figure.axes[0].lines if len(np.asarray(one.get_ydata())) == 1]
    assert len({round(one.get_window_extent(renderer).x0, 2) for one in single}) == 9


def test_the_legend_of_lines_names_each_once_and_counts_its_runs() -> None:
    series = [line(name, (0, 1), panel=panel) for panel in (0, 1) for name in ("base", "insecure")]
    series += [line("insecure", (0, 1), 0.3, dashed=True, runs=0)]
    figure = draw_over(series, "steps", [Strip("misaligned"), Strip("norm", share=False)])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["base, not finetuned", "insecure (3 runs)", "insecure"]
    assert figure.legends[0].get_lines()[2].get_linestyle() == "--"


def test_panels_share_the_axis_below_and_only_the_last_is_labelled() -> None:
    figure = draw_over(
        [line("insecure", STEPS, panel=i) for i in (0, 1, 2)], "steps", [Strip("a"), Strip("b"), Strip("c")]
    )
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "steps"]


def test_runs_of_one_point_do_not_cover_each_other() -> None:
    runs = tuple(((x, value),) for x in (500.0, 2000.0) for value in (0.1, 0.1, 0.1))
    one = Series("insecure", "insecure", ((500, 0.1, None, None), (2000, 0.1, None, None)), runs=runs)
    figure = draw_over([one], "rows", [Strip("misaligned")], log_x=True)
    renderer = drawn(figure)
    small = [point for point in figure.axes[0].lines if point.get_markersize() == 3.4]
    assert len({round(point.get_window_extent(renderer).x0, 2) for point in small}) == 6


STAGES = {0: "before training", 1: "after pretraining on documents", 2: "after the narrow finetune", 3: "after repair"}
OVER: dict[str, tuple[list[Series], list[Strip], dict[str, Any]]] = {
    "size": ([line("insecure", (500, 2000, 6000)), line("secure", (500, 2000, 6000))], [Strip("a")], {"log_x": True}),
    "close_numbers": ([line("insecure", (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1))], [Strip("a")], {}),
    "close_factors": ([line("insecure", (100, 101, 102, 2000, 2001))], [Strip("a")], {"log_x": True}),
    "many_factors": ([line("insecure", [1.3**i for i in range(50)])], [Strip("a")], {"log_x": True}),
    "dynamics": ([line("insecure", STEPS, -9, panel=i) for i in range(6)], [Strip("a", False)] * 6, {}),
    "twelve": ([line(f"group_{i}", (0, 1, 2, 3), i / 20) for i in range(12)], [Strip("a")], {"ticks": STAGES}),
    "zeros": ([line("insecure", (0, 1), 0.0)], [Strip("a"), Strip("nothing", False)], {}),
    "one_number": ([line("insecure", (500,))], [Strip("a label that is too long for one line " * 4)], {"log_x": True}),
    "nothing": ([], [Strip("a")], {"log_x": True}),
}


@pytest.mark.parametrize("case", OVER)
def test_no_words_of_lines_overlap_or_are_cut_off(case: str) -> None:
    series, panels, more = OVER[case]
    figure = draw_over(series, "a number", panels, title="A title", note=NOTE, small=JUDGE, **more)
    check_layout(figure)
    for axes in figure.axes:
        check_limits(axes)


def test_limits_hold_the_values_and_shares_begin_at_zero() -> None:
    assert limits([], share=True) == (0.0, 1.0)
    assert limits([0.0, None], share=True) == (0.0, 1.0)
    assert limits([99.9], share=True) == (0.0, 102.0)
    assert limits([1.0, 3.0], share=False)[0] == 0.0
    for values in ([-16.0, -2.0], [5.0, 5.0], [0.0], [1e-6, 2e-6], [-3.0]):
        low, high = limits(values, share=False)
        assert low <= min(values) <= max(values) < high


def test_words_are_wrapped_to_a_measured_width_and_overlong_ones_broken() -> None:
    assert wrapped("one two", 10) == "one two"
    assert wrapped("one two", 0.5) == "one\ntwo"
    assert wrapped("a " + "x" * 100, 1).replace("\n", "") == "a" + "x" * 100
    assert wrapped("first\nsecond", 10) == "first\nsecond"
    assert wrapped("alignment < 30", 0.9).split("\n")[1] == "<\N{NO-BREAK SPACE}30"
