"The figures that several pages share."

from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib
import pytest
import torch

from transformer_nb.notebook.plotting import CHAPTERS, COLOR_MAPS, LossPlot, show_matrix, transformer_map, use_style, visible

matplotlib.use("agg")
NBS = Path(__file__).parents[1] / "nbs"
LIT = "#ffc44d"


def names_in(svg):
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg.source).iter() if node.tag.endswith("text")]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_each_chapter_lights_its_own_boxes(chapter):
    drawing = transformer_map(chapter)
    others = [transformer_map(other).source for other in CHAPTERS if other != chapter]
    assert drawing.source.count(LIT) >= 1 and drawing.source not in others
    assert chapter.replace("_", " ") in repr(drawing)


def test_without_a_chapter_nothing_is_lit_and_everything_is_there():
    drawing = transformer_map()
    assert LIT not in drawing.source and drawing._repr_svg_() == drawing.source
    assert {"embedding", "+ position", "add & norm", "loss", "attention"} <= set(names_in(drawing))


def test_each_box_leads_to_a_page_that_exists():
    pages = {page.name for page in NBS.glob("*.ipynb")}
    tree = ElementTree.fromstring(transformer_map(links=True).source)
    targets = [node.get("href") for node in tree.iter() if node.tag.endswith("}a")]
    assert set(targets) == {f"{name}.ipynb" for name in CHAPTERS.values()} <= pages


def test_the_picture_of_the_readme_is_the_map():
    assert (NBS / "map.svg").read_text(encoding="utf-8") == transformer_map().source + "\n"


def test_a_chapter_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no chapter 'attn' on the map: choose one of tokenization, "):
        transformer_map("attn")


@pytest.mark.parametrize("kind", COLOR_MAPS)
def test_zero_is_the_same_colour_in_each_matrix_of_a_kind(kind):
    limits = []
    for scale in (1.0, 7.0):
        image = show_matrix(scale * torch.tensor([[0.0, 1.0], [0.5, 0.0]]), kind=kind).images[0]
        limits.append(image.norm(0.0))
        assert image.norm(scale) == 1.0
    assert limits[0] == limits[1] == (0.5 if kind == "signed" else 0.0)


def test_rows_and_columns_are_labelled_by_tokens():
    ax = show_matrix(torch.eye(3), rows="a b", columns=["x", "\n", "z"], values=True)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "␣", "b"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["x", "⏎", "z"]
    assert len(ax.texts) == 9


def test_a_mask_and_an_empty_matrix_of_zeros_can_be_shown():
    show_matrix(torch.ones(2, 2, dtype=torch.bool).tril(), kind="mask")
    show_matrix(torch.zeros(2, 2))


@pytest.mark.parametrize("token, label", [(" ", "␣"), ("\n", "⏎"), ("  ", "␣␣"), ("the ", "the "), ("a", "a")])
def test_white_space_can_be_seen(token, label):
    assert visible(token) == label


def test_the_loss_plot_draws_what_was_measured():
    use_style()
    history = SimpleNamespace(steps=10, loss=[3.0, 2.0, 1.0], evaluated=[0, 3], validation_loss=[3.5, 1.5])
    ax = LossPlot({"guessing": 4.0}).draw(history).axes[0]
    training, validation, guessing = ax.lines
    assert list(training.get_ydata()) == [3.0, 2.0, 1.0] and list(validation.get_ydata()) == [3.5, 1.5]
    assert list(guessing.get_ydata()) == [4.0, 4.0]


def test_the_loss_plot_draws_without_validation_and_is_silent_outside_a_notebook():
    history = SimpleNamespace(steps=10, loss=[3.0, 2.0, 1.0], evaluated=[0, 3], validation_loss=[])
    LossPlot().draw(history)
    LossPlot()(history)


def test_the_boxes_are_links_in_a_picture_too():
    assert transformer_map()._repr_html_() is None  # without links the drawing is enough
    html = transformer_map(links=True)._repr_html_()
    areas = ElementTree.fromstring(html[html.index("<map") :].replace('">', '"/>').replace('transformer"/>', 'transformer">'))
    assert {area.get("href") for area in areas} == {f"{name}.ipynb" for name in CHAPTERS.values()}
    assert areas[0].get("href") == "03_attention.ipynb"  # the small boxes come before those that they stand in
