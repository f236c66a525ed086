"The map: every chapter has boxes of its own, and every box leads to its chapter."

from pathlib import Path
from xml.etree import ElementTree

import pytest

from transformer_nb.notebook.map import CHAPTERS, MAP_ROWS, transformer_map

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


def test_the_boxes_are_links_in_a_picture_too():
    assert transformer_map()._repr_html_() is None  # without links the drawing is enough
    html = transformer_map(links=True)._repr_html_()
    areas = ElementTree.fromstring(html[html.index("<map") :].replace('">', '"/>').replace('transformer"/>', 'transformer">'))
    assert {area.get("href") for area in areas} == {f"{name}.ipynb" for name in CHAPTERS.values()}
    assert areas[0].get("href") == "03_attention.ipynb"  # the small boxes come before those that they stand in


def test_a_residual_connection_passes_over_every_sublayer():
    lines = [node for node in ElementTree.fromstring(transformer_map().source).iter() if node.tag.endswith("polyline")]
    over = [line.get("points") for line in lines if len(line.get("points").split()) == 4]
    assert len(over) == sum(label == "add & norm" for row in MAP_ROWS.values() for _, label, _ in row) == 5
