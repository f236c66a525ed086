"The summaries of the walk, on one sheet: nothing is lost on the way from the pages, and nothing is loaded from elsewhere."

import json
import re
from pathlib import Path

import form
import pytest

from transformer_nb.notebook.cheat_sheet import CheatSheet, read_summary

NBS = Path(__file__).parents[1] / "nbs"
SUMMARY = ["## Summary", "**The idea.** Divide by $\\sqrt{d_k}$, not by `d_k`: a*b*c.", "**Shapes.**\n\n| x | shape |\n|---|---|\n| `w` | (B, T, S) |", "**Last.**\n\n- *Why?* A <b> b."]


@pytest.fixture
def folder(tmp_path):
    "Two pages: one with a Summary, and one without."
    pages = {
        "03_attention": ["# Attention\n> A line.", "Before.", *SUMMARY, "## Summary of another", "After."],
        "04_layer_norm": ["# Layer norm & more", "## What we hold", "Nothing."],
        "index": ["# Index", *SUMMARY],
    }
    for name, texts in pages.items():
        cells = [{"cell_type": "markdown", "source": text.splitlines(keepends=True)} for text in texts]
        cells.insert(-2, {"cell_type": "code", "source": "hidden = 1", "outputs": []})
        (tmp_path / f"{name}.ipynb").write_text(json.dumps({"cells": cells}))
    return tmp_path


def test_a_summary_goes_from_its_heading_to_the_next(folder):
    assert read_summary(folder / "03_attention.ipynb") == ("03 Attention", "\n\n".join(SUMMARY[1:]))


def test_a_page_without_a_summary_gets_one_line(folder):
    sheet = CheatSheet(folder)
    assert list(sheet.summaries) == ["03 Attention", "04 Layer norm & more"]
    assert sheet.summaries["04 Layer norm & more"] == "*This page has no Summary yet.*"
    assert sheet._repr_markdown_().endswith("## 04 Layer norm & more\n\n*This page has no Summary yet.*")


def test_the_file_stands_alone(folder, tmp_path):
    CheatSheet(folder).save(tmp_path / "runs" / "sheet.html")
    page = (tmp_path / "runs" / "sheet.html").read_text(encoding="utf-8")
    assert "<h2>04 Layer norm &amp; more</h2>" in page and "<td>(B, T, S)</td>" in page and "<em>Why?</em>" in page
    assert "$\\sqrt{d_k}$" in page and "<code>d_k</code>" in page and 'charset="utf-8"' in page
    assert not re.search(r"<script|<link|<img|http|url\(|@import", page) and "@page" in page and "columns" in page


def test_every_label_of_every_summary_of_the_walk_is_on_the_sheet():
    sheet = CheatSheet(NBS)
    assert len(sheet.summaries) == 9
    for path, text in zip(sorted(NBS.glob("0*.ipynb")), sheet.summaries.values(), strict=True):
        assert re.findall(r"^\*\*(.*?)\*\*", text, re.MULTILINE) == form.LABELS, path.stem
    page = sheet.to_html()
    assert sheet._repr_markdown_().count("**The idea.**") == page.count("<strong>The idea.</strong>")


def test_a_folder_without_pages_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no page such as 03_attention.ipynb in .*name nbs"):
        CheatSheet(tmp_path)
