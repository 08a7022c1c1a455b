"""Figures: pixels where they should be, and every kind of input drawn without a complaint."""

import io
import math

import PIL.Image
import pytest
import torch

from lowerbound import figures


def pixels(picture) -> torch.Tensor:
    import numpy as np

    return torch.from_numpy(np.asarray(picture).copy())


def opened(picture) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(figures.png(picture)))


def test_unit_interval_maps_each_column_by_its_own_ends():
    x = torch.tensor([[0.0, -5.0], [10.0, 5.0], [20.0, 0.0]])
    shown = figures.unit_interval(x, torch.tensor([0.0, -5.0]), torch.tensor([10.0, 5.0]))
    assert torch.equal(shown, torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.5]]))
    assert figures.unit_interval(torch.ones(2), 1.0, 1.0).isfinite().all()


@pytest.mark.parametrize("scale", [1, 3])
def test_a_grid_holds_every_image_enlarged_to_whole_squares(scale):
    images = torch.rand(5, 3, 4, 6)
    sheet = pixels(figures.grid(images, 2, pad=1, scale=scale, breaks=(2,)))
    h, w = 4 * scale, 6 * scale
    assert sheet.shape == (1 + 3 * (h + 1) + 5, 1 + 2 * (w + 1), 3)
    for i, image in enumerate(images):
        row, column = divmod(i, 2)
        top = 1 + row * (h + 1) + (5 if row == 2 else 0)
        left = 1 + column * (w + 1)
        expected = (image * 255).round().byte().permute(1, 2, 0)
        expected = expected.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        assert torch.equal(sheet[top : top + h, left : left + w], expected)


def test_a_grid_rounds_clamps_and_survives_nan():
    image = torch.tensor([0.5, 1.7, -0.2, math.nan]).reshape(1, 1, 1, 4)
    assert pixels(figures.grid(image, 1, pad=0, scale=1))[0, :, 0].tolist() == [128, 255, 0, 0]


def test_channels_are_grey_colour_opacity_or_side_by_side():
    draw = lambda image: pixels(figures.grid(image, 1, pad=0, scale=1))
    assert draw(torch.ones(1, 1, 2, 2)).shape == (2, 2, 3)
    assert draw(torch.ones(1, 2, 2, 2)).shape == (2, 4, 3)
    assert draw(torch.zeros(1, 4, 1, 1)).tolist() == [[[255, 255, 255]]]
    assert draw(torch.tensor([1.0, 0, 0, 1]).reshape(1, 4, 1, 1)).tolist() == [[[255, 0, 0]]]


def test_a_grid_of_small_images_fills_a_page_and_no_more():
    for size, columns in ((8, 16), (28, 14), (32, 12), (64, 12), (96, 8)):
        width, _ = figures.grid(torch.rand(columns, 1, size, size), columns).size
        assert 480 < width <= 930


def test_a_grid_refuses_what_is_no_sheet():
    with pytest.raises(ValueError, match="give at least one image"):
        figures.grid(torch.zeros(0, 1, 2, 2))
    with pytest.raises(ValueError, match="at least one column"):
        figures.grid(torch.zeros(1, 1, 2, 2), 0)


def entry(step: int, **numbers) -> dict:
    return {"step": step, "loss": 3.0, "bound": -3.0 - 1 / step, "rate": 1.0, "distortion": 2.0, **numbers}


@pytest.mark.parametrize(
    ("log", "panels"),
    [
        ([entry(1)], 3),
        ([entry(step) for step in range(1, 30)], 3),
        ([entry(10), entry(20, valid_bound=-4.0, train_bound=None, valid_rate=math.nan)], 3),
        ([entry(10, bound=None, rate=math.inf, valid_distortion=2.0, train_distortion=1.9)], 1),
        ([], 0),
    ],
)
def test_curves_leave_out_what_has_no_number(log, panels):
    figure = figures.curves(log)
    assert sum(bool(axes.get_title(loc="left")) for axes in figure.axes) == panels
    assert opened(figure).size == (1840, 540)


def test_curves_ignore_the_wild_start_and_label_the_lines():
    log = [entry(step, bound=-1e9 if step < 5 else -100.0 + step) for step in range(1, 101)]
    log[49] |= {"train_bound": -40.0, "valid_bound": -50.0}
    log[99] |= {"train_bound": 0.0, "valid_bound": -0.1}
    axes = figures.curves(log).axes[0]
    low, high = axes.get_ylim()
    assert -110 < low < -50 and 0 < high < 20
    heights = sorted(text.xy[1] for text in axes.texts)
    assert [text.get_text() for text in axes.texts] == ["held out", "training"]
    assert heights[1] - heights[0] >= 0.09 * (high - low)


@pytest.mark.parametrize(
    "labels",
    [
        None,
        torch.arange(50) % 3,
        torch.arange(50) % 20,
        torch.arange(50),
        torch.linspace(0, 1, 50),
        torch.zeros(50, dtype=torch.long),
    ],
)
def test_a_map_takes_any_labels(labels):
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    names = ("$bad", "_hidden", "名前", "a very long name that would not fit\nat all")
    picture = figures.latent_map(points, labels, names=names, title="50 $", axes_titles=("a", "b"), circles=True)
    assert opened(picture).size == (900, 900)


def test_classes_that_lie_apart_are_named_where_they_lie_and_others_beside():
    labels = torch.arange(60) % 2
    noise = 0.1 * torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    apart = figures.latent_map(noise + 5 * labels[:, None], labels, names=("left", "right")).axes[0]
    assert {text.get_text() for text in apart.texts} == {"left", "right"} and apart.get_legend() is None
    together = figures.latent_map(noise, labels, names=("left", "_right")).axes[0]
    assert [text.get_text().strip() for text in together.get_legend().get_texts()] == ["left", "_right"]


def test_bars_are_sorted_and_dead_ones_grey():
    values = torch.tensor([0.1, 3.0, 0.0, 1.0])
    bars = figures.kl_bars(values, values > 0.5).axes[0].patches
    assert [round(bar.get_height(), 4) for bar in bars] == [3.0, 1.0, 0.1, 0.0]
    colours = [bar.get_facecolor() for bar in bars]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    opened(figures.kl_bars(torch.tensor([math.nan, 1.0]), ordered=False))
    opened(figures.kl_bars(torch.rand(300)))


@pytest.mark.parametrize("count", [1, 4, 60])
def test_levels_are_bars_from_the_top_down_and_dead_ones_grey(count):
    rates = torch.linspace(8.0, 0.0, count)
    dead = [count - 1] if count > 1 else []
    said, names = [f"${i} nats" for i in range(count)], [f"level {i}" for i in range(count)]
    figure = figures.level_bars(rates, said, dead, names=names)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(rates.tolist())
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    top, bottom = axes.get_ylim()
    assert top > bottom  # the first is highest on the page, as the axis points down
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert (colours[-1] != colours[0]) == bool(dead)
    width, height = opened(figure).size
    assert 900 <= width <= 1840 and height < 2400


def test_rows_of_images_have_a_name_each_and_whole_pixels():
    images = torch.rand(5, 1, 8, 8)
    figure = figures.rows_of_images([("one", images[:1]), ("all of them", images), ("last", images)])
    assert [text.get_text() for text in figure.texts] == ["one", "all of them", "last"]
    width, height = figures.page_size(figure)
    sheet = figures.grid(images, 5)
    shown = pixels(opened(figure).convert("RGB"))
    # the last row is at the bottom right, each of its pixels as many of the file's as the density says
    expected = pixels(sheet).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert tuple(shown.shape) == (2 * height, 2 * width, 3)
    assert torch.equal(shown[-len(expected) :, -expected.shape[1] :], expected)


@pytest.mark.parametrize(("n", "d", "group"), [(1, 1, 0), (12, 5, 3), (200, 300, 2)])
def test_vectors_of_any_size(n, d, group):
    width, height = opened(figures.vectors(torch.rand(n, d), group=group)).size
    assert 900 <= width <= 1840 and height < 2000


def test_the_same_picture_is_the_same_bytes():
    log = [entry(step) for step in range(1, 9)]
    assert figures.png(figures.curves(log)) == figures.png(figures.curves(log))
    image = torch.rand(2, 1, 4, 4)
    assert figures.png(figures.grid(image)) == figures.png(figures.grid(image))


def test_a_picture_knows_its_size_on_the_page():
    chart, sheet = figures.kl_bars(torch.rand(3)), figures.grid(torch.rand(1, 1, 4, 4), 1, pad=1, scale=2)
    assert figures.is_chart(chart) and not figures.is_chart(sheet)
    assert figures.page_size(chart) == (450, 320) and figures.page_size(sheet) == (10, 10)
