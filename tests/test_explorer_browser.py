"The explorer as a person uses it, in Chromium: a saved file, and the live view in JupyterLab."

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import nbformat
import pytest
import torch
from jupyter_client import BlockingKernelClient
from outputs import drop_widgets
from views import HOSTILE, OFF, losses_without, text_view, view

from transformer_nb.generation import sample_next_token
from transformer_nb.interpret.activations import activations
from transformer_nb.interpret.inspection import logit_lens
from transformer_nb.notebook.explorer_data import positions_ahead

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="drives a browser: pip install playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")

ROOT = Path(__file__).parents[1]
HUNG = 120_000  # milliseconds; nothing takes as long on any machine, so only what never happens is stopped by this
THEMES = ["light", "dark"]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@contextmanager
def opened(browser, address: str, width: int = 1200, theme: str = "light", but: str | None = None):
    "A page of the browser. At its end there has been no error, `but` one perhaps, and no request has left the machine."
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    page.set_default_timeout(HUNG)
    faults = []
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("console", lambda message: message.type == "error" and faults.append(f"console: {message.text}"))
    page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    here = ("file:", "data:", "blob:", "http://127.0.0.1:", "ws://127.0.0.1:")
    for kind in ("request", "websocket"):
        page.on(kind, lambda asked: asked.url.startswith(here) or faults.append(f"request: {asked.url}"))
    page.goto(address)
    yield page
    page.close()
    assert [fault for fault in faults if but is None or but not in fault] == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    "Addresses of files with the views of views.py, each written once."
    folder, addresses = tmp_path_factory.mktemp("views"), {}

    def address(name: str, exploration=None) -> str:
        if name not in addresses:
            addresses[name] = (exploration or view(name)).save(folder / f"{len(addresses)}.html").as_uri()
        return addresses[name]

    return address


def wait_until(page, condition) -> None:
    "Wait until a condition holds."
    end = time.monotonic() + HUNG / 1000
    while not condition():
        assert time.monotonic() < end, "it never happened"
        page.wait_for_timeout(50)


# What the page shows, and what it should.


def visible(token: str) -> str:
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"


class Expected:
    "What the view of an exploration should show."

    def __init__(self, exploration):
        data = exploration.data()
        self.model, self.inspection, self.selected = exploration.model, exploration.inspection, exploration.selected
        self.attentions, self.sequences = data["attentions"], data["sequences"]
        self.inputs = [torch.tensor([sequence["ids"]]) for sequence in self.sequences]
        tokenizer = exploration.tokenizer
        self.names = tokenizer if isinstance(tokenizer, list) else [tokenizer.id_to_token(i) for i in range(tokenizer.vocab_size)]

    def label(self, sequence: int, position: int) -> str:
        return f"{position} {visible(self.sequences[sequence]['tokens'][position])}"

    def weights(self, attention: int, head: int) -> torch.Tensor:
        return self.inspection.attention[self.attentions[attention]["name"]].weights[head]


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("∞", "inf"))


def assert_shown(text: str, expected: float) -> None:
    "A number as it is shown is the expected one, to the last digit that is shown."
    digits = len(text.partition(".")[2])
    assert abs(number(text) - expected) <= 0.501 * 10**-digits + 1e-4 * abs(expected), (text, expected)


def table(page, selector: str) -> list[list[str]]:
    "The texts of the cells of a table, row by row."
    return page.locator(selector).evaluate_all("rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent))")


def brightness(canvas) -> torch.Tensor:
    "Of the pixels of a canvas, (height, width)."
    return torch.tensor(canvas.evaluate("""(canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const at = (x) => (data[x] + data[x + 1] + data[x + 2]) / 3;
        return Array.from({ length: canvas.height }, (_, i) => Array.from({ length: canvas.width }, (_, j) => at(4 * (i * canvas.width + j))));
    }"""))


def assert_pictured(canvas, weights: torch.Tensor, theme: str) -> None:
    "The larger the weight, the darker the pixel, or the brighter in the dark theme; of several weights, the largest is seen."
    shown = brightness(canvas)
    side = [min(size, n) for size, n in zip(shown.shape, weights.shape)]
    rows, columns = ((torch.arange(n) * s // n) for s, n in zip(side, weights.shape))
    where = rows[:, None] * side[1] + columns
    expected = torch.zeros(side[0] * side[1]).scatter_reduce(0, where.flatten(), weights.flatten(), "amax")
    assert list(shown.shape) == side
    ordered = shown.flatten()[expected.argsort()] * (-1 if theme == "light" else 1)
    assert (ordered.cummax(0).values - ordered).max() <= 2  # rounding
    if expected.max() - expected.min() > 0.1:
        assert ordered[-1] - ordered[0] > 20


def choose(page, expected: Expected, attention: int, head: int, query: int) -> None:
    "Click a thumbnail and a token."
    sent = expected.attentions[attention]
    page.locator(f"[data-key='{sent['name']}.heads.{head}']").click()
    page.locator(f"[data-key=token-{sent['queries']}-{query}]").click()


def check_query(page, expected: Expected, attention: int, head: int, query: int) -> None:
    "The table of one query has the scores, weights and vectors of the model."
    sent = expected.attentions[attention]
    q, k, v, w = (part[head] for part in expected.inspection.attention[sent["name"]])
    scores = k @ q[query] / q.shape[-1] ** 0.5
    keys = {expected.label(sent["keys"], j): j for j in range(len(k))}
    rows = table(page, ".query tbody tr")
    assert page.locator(".query h3").inner_text() == f"One query: {expected.label(sent['queries'], query)}"
    assert page.locator(".pattern h3").inner_text() == f"{sent['name']}, head {head}"
    assert len(rows) == min(12, len(k)) and len({row[0] for row in rows}) == len(rows)
    assert sum(number(row[3]) for row in rows) == pytest.approx(w[query].topk(len(rows)).values.sum().item(), abs=0.02)
    for key, score, masked, weight, key_vector, value_vector in rows:
        j = keys[key]
        assert_shown(score, scores[j])
        assert_shown(weight, w[query, j])
        underflows = scores[j] < scores[w[query] > 0].max() - 80 and not (sent["causal"] and j > query)
        assert masked == ("open" if w[query, j] > 0 or underflows else "masked")
        for shown, vector in ((key_vector, k[j]), (value_vector, v[j])):
            for text, x in zip(shown.split(), vector, strict=True):
                assert_shown(text, x)
    [[_, _, _, output]] = table(page, ".query tfoot tr")
    for text, x in zip(output.split(), w[query] @ v, strict=True):
        assert_shown(text, x)


def check_lens(page, expected: Expected, position: int) -> None:
    "The table of the logit lens has the most probable tokens after each layer, and the probability of the next one."
    ids = expected.sequences[-1]["ids"]
    there = position + positions_ahead(expected.model)  # a masked language model means the token itself
    following = ids[there] if there < len(ids) else None
    says = f"comes after {expected.label(-1, position)}?" if there > position else f"is at {expected.label(-1, position)}?"
    assert page.locator(".lens h3").inner_text().endswith(says)
    rows = table(page, ".lens tbody tr")
    for (stage, logits), (name, *cells) in zip(logit_lens(expected.model, *expected.inputs).items(), rows, strict=True):
        p = logits[0, position].softmax(-1)
        if following is not None:
            assert_shown(cells.pop(), p[following])
        assert name == stage and len(cells) == min(5, len(p))
        for cell, best in zip(cells, p.topk(len(cells)).values):
            assert_listed(*cell.rsplit(" ", 1), best, p, expected.names)


def assert_listed(token: str, shown: str, best: float, p: torch.Tensor, names: list[str]) -> None:
    "A token is shown with the expected probability, and has it; of several equally probable ones, any."
    assert_shown(shown, best)
    equal = [visible(names[i]) for i in (p - best).abs().lt(1e-5).nonzero()[:, 0].tolist()]
    assert any(token in (name, name[:11] + "…") for name in equal)


def sampled_from(logits: torch.Tensor, temperature: float, top_k: int | None, top_p: float) -> torch.Tensor:
    "The probabilities that the package's own sampler draws from."
    seen = []
    with mock.patch("torch.multinomial", lambda p, **_: seen.append(p[0]) or p.argmax(-1, keepdim=True)):
        chosen = sample_next_token(logits[None], temperature, top_k, top_p if top_p < 1 else None)[0]
    return seen[0] if seen else torch.zeros(len(logits)).index_fill(0, chosen, 1.0)


def check_next(page, expected: Expected, position: int, temperature=1.0, top_k=None, top_p=1.0) -> None:
    "The table of next tokens has the probabilities that the sampler draws from, and counts them."
    p = sampled_from(list(expected.inspection.lens.values())[-1][position], temperature, top_k, top_p)
    rows = table(page, ".next tbody tr")
    assert page.locator(".next .bars .note").inner_text().startswith(f"{(p > 0).sum()} of {len(p)} tokens")
    assert len(rows) == min(12, (p > 0).sum())
    for (token, _, shown, *_), best in zip(rows, p.topk(len(rows)).values):
        assert_listed(token, shown, best, p, expected.names)


def check_heads(view, expected: Expected, theme: str) -> None:
    "Every head has a thumbnail of its pattern."
    painted = "all => all.every((canvas) => canvas.getContext('2d').getImageData(0, 0, 1, 1).data[3])"
    wait_until(view.page, lambda: view.locator("button.head canvas").evaluate_all(painted))
    thumbnails = view.locator("button.head")
    heads = [(name, i, w) for name, inside in expected.inspection.attention.items() for i, w in enumerate(inside.weights)]
    assert thumbnails.count() == len(heads)
    for n, (name, i, weights) in enumerate(heads):
        assert thumbnails.nth(n).get_attribute("aria-label").startswith(f"{name}, head {i}")
        assert_pictured(thumbnails.nth(n).locator("canvas"), weights, theme)


# The tests.

SHOWN = [
    ("text", 1200, "light"),
    ("post-norm", 360, "dark"),
    ("pair", 1200, "dark"),
    ("padded encoder", 360, "light"),
    ("window", 1200, "light"),
    ("sharp encoder", 1200, "dark"),
    ("masked language model", 1200, "light"),
    ("one token", 1200, "light"),
    ("large vocabulary", 360, "dark"),
    ("long", 1200, "light"),
]


@pytest.mark.parametrize("name, width, theme", SHOWN)
def test_a_saved_file_shows_what_the_model_computed(browser, saved, name, width, theme):
    expected = Expected(view(name))
    attentions, first = expected.attentions, expected.selected[0]
    last = len(attentions) - 1
    with opened(browser, saved(name), width, theme) as page:
        assert page.locator(".pattern h3").inner_text() == f"{attentions[first]['name']}, head 0"
        check_heads(page.locator(".tnb-explorer"), expected, theme)
        if attentions[0]["d_k"] > 4:
            page.get_by_label("vectors as numbers").check()
        for attention, head in {(0, 0), (first, 1), (last, attentions[last]["heads"] - 1)}:
            length = attentions[attention]["T"]
            for query in {0, length // 2, length - 1}:
                choose(page, expected, attention, head, query)
                check_query(page, expected, attention, head, query)
            assert_pictured(page.locator("canvas.cells"), expected.weights(attention, head), theme)
        length = expected.inputs[-1].shape[1]
        for position in {0, length // 2, length - 1} if expected.inspection.lens else ():
            page.locator(f"[data-key=token-{len(expected.inputs) - 1}-{position}]").click()
            check_lens(page, expected, position)
            check_next(page, expected, position if name != "long" else length - 1)
        if not expected.inspection.lens:
            assert "no logits" in page.locator(".next").inner_text() and not page.locator("[data-key=append]").count()


def top(weights: torch.Tensor, name) -> str:
    "The list of positions with the largest weights, as the view words it."
    best = [i for i in weights.argsort(descending=True, stable=True).tolist() if weights[i] >= 0.0005][:5]
    return ", ".join(f"{name(i)} ({weights[i]:.3f})" for i in best) or "nothing"


def readout(page) -> str:
    return page.locator(".readout").inner_text()


def said(expected: Expected, attention: int, head: int, sequence: int, position: int) -> str:
    "What the view says of a position: what it attends to, and what attends to it."
    sent, w = expected.attentions[attention], expected.weights(attention, head)
    says = []
    if sequence == sent["queries"]:
        says.append("attends to " + top(w[position], lambda j: expected.label(sent["keys"], j)))
    if sequence == sent["keys"]:
        says.append("is attended to by " + top(w[:, position], lambda i: expected.label(sent["queries"], i)))
    return f"{expected.label(sequence, position)} {'; '.join(says)}"


def colored(page, sequence: int) -> list[int]:
    "The positions whose tokens have a color."
    return page.locator(f".tokens[data-sequence='{sequence}'] .token").evaluate_all(
        "tokens => tokens.flatMap((token, i) => (token.style.background ? [i] : []))"
    )


def cell(page, i: int, j: int, of: tuple[int, int]) -> tuple[float, float]:
    "The middle of a cell of the enlarged pattern, on the screen."
    page.locator(".overlay").scroll_into_view_if_needed()
    box = page.locator(".overlay").bounding_box()
    return box["x"] + (j + 0.5) * box["width"] / of[1], box["y"] + (i + 0.5) * box["height"] / of[0]


@pytest.mark.parametrize("name, attention", [("text", 1), ("pair", 5)])
def test_pointing_and_clicking(browser, saved, name, attention):
    expected = Expected(view(name))
    sent, w = expected.attentions[attention], expected.weights(attention, 1)
    queries, keys, of = sent["queries"], sent["keys"], (sent["T"], sent["S"])
    with opened(browser, saved(name)) as page:
        page.locator(f"[data-key='{sent['name']}.heads.1']").click()
        assert page.locator("button.head[aria-pressed=true]").evaluate_all("all => all.map((b) => b.dataset.key)") == [f"{sent['name']}.heads.1"]
        # A token, of either text: what it attends to is colored.
        for sequence, position in [(queries, 3), (keys, 1), (queries, 0)]:
            page.locator(f"[data-key=token-{sequence}-{position}]").hover()
            assert readout(page) == said(expected, attention, 1, sequence, position)
            if sequence == queries:
                assert colored(page, keys) == (w[position] / w[position].max() > 0.01).nonzero()[:, 0].tolist()
        # A cell of the pattern; away from it, the chosen query is shown again.
        for i, j in [(3, 2), (2, 3), (of[0] - 1, 0)]:
            page.mouse.move(*cell(page, i, j, of))
            where = f"query {expected.label(queries, i)} → key {expected.label(keys, j)}: "
            said_of_it = readout(page)
            assert said_of_it.startswith(where)
            if w[i, j] == 0:
                assert said_of_it == where + "masked"
            else:
                shown = re.fullmatch(r"weight (\S+), score (\S+)", said_of_it.removeprefix(where))
                assert_shown(shown[1], w[i, j])
        page.mouse.move(5, 5)
        chosen = of[0] - 1 if name == "pair" else 6
        assert readout(page) == said(expected, attention, 1, queries, chosen)
        # A click on a cell chooses its query.
        if sent["d_k"] > 4:
            page.get_by_label("vectors as numbers").check()
        page.mouse.click(*cell(page, 4, 1, of))
        check_query(page, expected, attention, 1, 4)
        # A token is found by its text and by its position.
        find = page.get_by_role("searchbox")
        for term, position in [("2", 2), (expected.sequences[queries]["tokens"][3], 3)]:
            find.fill(term)
            find.press("Enter")
            check_query(page, expected, attention, 1, position)
            assert page.evaluate("document.activeElement.dataset.key") == f"token-{queries}-{position}"
        find.fill("nowhere")
        find.press("Enter")
        assert readout(page) == "no token contains “nowhere”"


@pytest.mark.parametrize("width", [1200, 360])
def test_nothing_moves_under_the_pointer(browser, saved, width):
    "What is said of a position may be long or short: the pattern stays where it is."
    with opened(browser, saved("text"), width) as page:
        place = lambda: page.locator(".overlay").evaluate("overlay => overlay.getBoundingClientRect().top + scrollY")
        start = place()
        for position in range(16):
            page.locator(f"[data-key=token-0-{position}]").hover()
            assert place() == start
        page.mouse.move(*cell(page, 3, 2, (16, 16)))
        assert place() == start


def test_the_check_boxes_of_the_view(browser, saved):
    expected = Expected(view("text"))
    w = expected.weights(0, 0)
    with opened(browser, saved("text")) as page:
        keys = lambda: [row[0] for row in table(page, ".query tbody tr")]
        by_weight = [expected.label(0, j) for j in w[6].argsort(descending=True, stable=True).tolist()]
        assert keys() == by_weight[:12]
        page.get_by_label("largest weight first").uncheck()
        assert keys() == sorted(by_weight[:12], key=lambda key: int(key.split()[0]))
        page.get_by_label("all 16 keys").check()
        assert keys() == [expected.label(0, j) for j in range(16)]
        page.get_by_label("largest weight first").check()
        assert keys() == by_weight
        vectors = page.locator(".query tbody code")
        assert vectors.count() == 0 and page.locator(".query tbody canvas").count() == 32
        page.get_by_label("vectors as numbers").check()
        assert vectors.count() == 32 and page.locator(".query tbody canvas").count() == 0
        # Each row of the pattern by its own largest weight.
        page.get_by_label("color each row by its largest weight").check()
        assert_pictured(page.locator("canvas.cells"), w / w.amax(-1, keepdim=True), "light")
        page.get_by_label("color each row by its largest weight").uncheck()
        assert_pictured(page.locator("canvas.cells"), w, "light")
        # All weights of the head, in a table.
        page.get_by_text("All weights of this head").click()
        page.locator(".pattern tbody tr").last.wait_for()
        rows = table(page, ".pattern tbody tr")
        assert [row[0] for row in rows] == [expected.label(0, i) for i in range(16)]
        for row, weights in zip(rows, w):
            for text, weight in zip(row[1:], weights, strict=True):
                assert_shown(text if text != "0" else "0.0000", weight)
        # It stays open where another head is chosen.
        page.locator("[data-key='layers.1.attention.heads.1']").click()
        page.locator(".pattern tbody tr").last.wait_for()
        assert_shown(table(page, ".pattern tbody tr")[15][16], expected.weights(1, 1)[15, 15])


SETTINGS = [(1, None, 1), (0, None, 1), (0.5, None, 1), (2, None, 1), (1, 1, 1), (1, 3, 1), (1, None, 0.5), (1, None, 0.05), (0.7, 5, 0.8), (1.5, 10, 0.9), (0, 3, 0.5)]


@pytest.mark.parametrize("name", ["text", "large vocabulary"])
def test_the_sliders_give_what_the_sampler_draws_from(browser, saved, name):
    expected = Expected(view(name))
    with opened(browser, saved(name)) as page:
        slider = lambda key: page.locator(f"[data-key={key}]")
        stops = [k for ten in (1, 10, 100, 1000) for k in (ten, 2 * ten, 3 * ten, 5 * ten) if k < len(expected.names)]
        for temperature, top_k, top_p in SETTINGS:
            slider("temperature").fill(str(temperature))
            slider("top-k").fill(str(stops.index(top_k) if top_k else len(stops)))
            slider("top-p").fill(str(top_p))
            for position in (2, 5):
                page.locator(f"[data-key=token-0-{position}]").click()
                check_next(page, expected, position, temperature, top_k, top_p)
            shown = page.locator(".sliders output").all_inner_texts()
            assert shown[1:] == [str(top_k or "all"), f"{top_p:.2f}"]
        slider("temperature").fill("0")
        page.locator("[data-key=append]").click()
        last = list(expected.inspection.lens.values())[-1][-1].argmax()
        assert page.locator(".drawn").inner_text() == f"sampled {visible(expected.names[last])}, which had probability 1.00"
        # With many draws, each token comes about as often as its probability says.
        slider("temperature").fill("0.2")
        slider("top-k").fill("2")
        slider("top-p").fill("1")
        p = sampled_from(list(expected.inspection.lens.values())[-1][-1], 0.2, 3, 1)
        assert p.max() > 0.5 or name != "text"
        texts = page.evaluate("""() => Array.from({ length: 400 }, () => {
            document.querySelector("[data-key=append]").click();
            return document.querySelector(".drawn").textContent;
        })""")
        for i in p.nonzero()[:, 0].tolist():
            share = sum(text.startswith(f"sampled {visible(expected.names[i])}, ") for text in texts) / len(texts)
            assert abs(share - p[i]) < 0.1


# The contrast of each text that is seen, by WCAG 2.1: the texts whose contrast is below 4.5.
FAINT = """(root) => {
    const parse = (color) => { const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
    const over = ([r, g, b, a], below) => [r, g, b].map((x, i) => a * x + (1 - a) * below[i]);
    const behind = (node) => node ? over(parse(getComputedStyle(node).backgroundColor), behind(node.parentElement)) : [255, 255, 255];
    const luminance = (color) => color.map((x) => x / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
        .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
    const contrast = (node, style) => {
        const below = behind(node);
        const both = [luminance(over(parse(style.color), below)), luminance(below)].sort((a, b) => b - a);
        return (both[0] + 0.05) / (both[1] + 0.05);
    };
    const found = [];
    for (const node of root.querySelectorAll("*")) {
        const text = [...node.childNodes].filter((child) => child.nodeType === 3).map((child) => child.data).join("").trim();
        const texts = [[text, getComputedStyle(node)], [node.placeholder, getComputedStyle(node, "::placeholder")]];
        for (const [text, style] of texts) {
            if (!text || !node.getClientRects().length) continue;
            const ratio = contrast(node, style);
            if (ratio < 4.5) found.push(`${text} (${node.className || node.tagName}): ${ratio.toFixed(2)}`);
        }
    }
    return found;
}"""


def part_off_view():
    exploration = text_view()
    exploration.off = ["layers.0.attention.heads.1", "layers.1", "layers.0.feed_forward", "layers.0.attention.heads.0"]
    return exploration


def assert_readable(view) -> None:
    "No text is faint, whichever token is pointed at, and the page does not scroll to the side."
    assert view.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for key in ("token-0-0", "token-0-3", "cells"):
        view.locator(f"[data-key={key}]").hover()
        assert view.evaluate(FAINT) == []


CONTROLS = ("button", "checkbox", "slider", "searchbox", "listbox", "option", "application", "region")


def assert_named(page) -> None:
    "Every control and every region has a name of its own; headings do not skip a level."
    lines = page.locator(".tnb-explorer").aria_snapshot().splitlines()
    parts = [found.groups() for line in lines if (found := re.match(r"\s*- (\w+)(?: \"(.*?)\")?(?: \[.*)?:?", line))]
    names = {role: [name for kind, name in parts if kind == role] for role in CONTROLS}
    for role, found in names.items():
        assert all(found) and (len(found) == len(set(found)) or role == "option"), (role, found)
    assert parts[0] == ("group", "Inside a model")
    levels = [int(found[1]) for line in lines if (found := re.search(r"- heading .*\[level=(\d)\]", line))]
    assert levels[0] == 2 and all(b <= a + 1 for a, b in zip(levels, levels[1:]))


@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("theme", THEMES)
def test_everything_can_be_read(browser, saved, theme, width):
    for name, exploration in [("text", None), ("pair", None), ("off", part_off_view())]:
        with opened(browser, saved(name, exploration), width, theme) as page:
            assert_readable(page.locator(".tnb-explorer"))
            assert_named(page)
            page.get_by_text("All weights of this head").click()
            page.get_by_label("vectors as numbers").check()
            page.locator(".pattern tbody tr").last.wait_for()
            assert_readable(page.locator(".tnb-explorer"))


def focused(page) -> str | None:
    "The key of the element that has the focus; None for the page itself."
    return page.evaluate("""() => {
        const { activeElement: node, body } = document;
        return node === body ? null : node.dataset.key ?? `part ${[...body.querySelectorAll("*")].indexOf(node)} to scroll`;
    }""")


STYLE = "(node) => ['outline', 'outlineOffset', 'boxShadow', 'borderColor'].map((name) => getComputedStyle(node)[name]).join()"


def walk(page, limit: int = 100) -> list[str]:
    "Press Tab until the focus leaves the view; where it was, and that it could be seen there."
    seen = []
    while True:
        page.keyboard.press("Tab")
        key = focused(page)
        if key is None or key in seen:
            return seen
        assert len(seen) < limit
        seen.append(key)
        node = page.evaluate_handle("document.activeElement")
        with_focus = node.evaluate(STYLE)
        node.evaluate("node => node.blur()")
        assert node.evaluate(STYLE) != with_focus, f"the focus on {key} cannot be seen"
        node.evaluate("node => node.focus()")


def test_the_keyboard_reaches_everything(browser, saved):
    expected = Expected(view("text"))
    with opened(browser, saved("text")) as page:
        press = page.keyboard.press
        wanted = ["token-0-6", "find", "layers.0.attention.heads.0", "by-row", "cells", "exact", "by-weight", "numbers", "all-keys"]
        assert [key for key in walk(page) if "scroll" not in key] == [*wanted, "temperature", "top-k", "top-p", "append"]
        # Tokens.
        page.locator("[data-key=token-0-6]").focus()
        for key, position in [("ArrowRight", 7), ("ArrowLeft", 6), ("ArrowLeft", 5), ("End", 15), ("ArrowUp", 5), ("ArrowDown", 15), ("ArrowRight", 15), ("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1)]:
            press(key)
            assert focused(page) == f"token-0-{position}" and readout(page) == said(expected, 0, 0, 0, position)
            assert page.locator("[aria-selected=true]").evaluate_all("all => all.map((token) => token.dataset.key)") == [f"token-0-{position}"]
        press("Tab")
        page.keyboard.type("12")
        press("Enter")
        assert focused(page) == "token-0-12"
        # Heads.
        page.locator("[data-key='layers.0.attention.heads.0']").focus()
        for key, head in [("ArrowRight", "0.attention.heads.1"), ("ArrowDown", "1.attention.heads.1"), ("ArrowUp", "0.attention.heads.1"), ("End", "1.attention.heads.1"), ("Home", "0.attention.heads.0"), ("End", "1.attention.heads.1")]:
            press(key)
            assert focused(page) == f"layers.{head}"
        press("Enter")
        assert page.locator(".pattern h3").inner_text() == "layers.1.attention, head 1" and focused(page) == "layers.1.attention.heads.1"
        # Cells.
        page.locator("[data-key='token-0-6']").click()
        page.locator("[data-key=cells]").focus()
        for key, (i, j) in [("ArrowRight", (6, 1)), ("ArrowUp", (5, 1)), ("ArrowDown", (6, 1)), ("ArrowLeft", (6, 0)), ("ArrowLeft", (6, 0)), ("ArrowUp", (5, 0))]:
            press(key)
            assert readout(page).startswith(f"query {expected.label(0, i)} → key {expected.label(0, j)}: weight ")
        press("Enter")
        page.get_by_label("vectors as numbers").check()
        check_query(page, expected, 1, 1, 5)
        # Check boxes, sliders, the button and the table.
        page.locator("[data-key=all-keys]").focus()
        press("Space")
        assert len(table(page, ".query tbody tr")) == 16 and focused(page) == "all-keys"
        page.locator("[data-key=temperature]").focus()
        press("Home")
        check_next(page, expected, 5, temperature=0)
        press("ArrowRight")
        check_next(page, expected, 5, temperature=0.05)
        page.locator("[data-key=top-k]").focus()
        press("ArrowLeft")
        press("ArrowLeft")
        page.locator("[data-key=temperature]").fill("1")
        check_next(page, expected, 5, top_k=5)
        page.locator("[data-key=append]").focus()
        press("Enter")
        assert page.locator(".drawn").inner_text().startswith("sampled ") and focused(page) == "append"
        page.locator("[data-key=exact]").focus()
        press("Enter")
        page.locator(".pattern tbody tr").last.wait_for()


# In JupyterLab.

SETTINGS_OF_LAB = {
    "apputils-extension/themes": {"theme": "JupyterLab Light"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
CELLS = [
    f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport torch\nfrom views import *\ntorch.manual_seed(0)\nview = text_view()",
    "view",
    "growing = explore(view.model, HOSTILE, [1, 2, 3])\ngrowing",
    "other = explore(view.model, HOSTILE, torch.arange(16), query=6)\nother",
    "other",
    "keys = explore(view.model, HOSTILE, torch.arange(16), query=6)\nkeys",
]
CELLS_AS_SHOWN = [code.replace("\n", "") for code in CELLS]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "The address of a JupyterLab, and the folder of its notebooks."
    home = tmp_path_factory.mktemp("lab")
    (home / "notebooks").mkdir()
    for name, settings in SETTINGS_OF_LAB.items():
        path = home / "settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython"}
    environment = {**os.environ, **{name: str(home / folder) for name, folder in folders.items()}, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [Path(sys.executable).with_name("jupyter"), "lab", *options, f"--ServerApp.root_dir={home / 'notebooks'}"]
    with (home / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log, env=environment) as server:
        try:
            for _ in range(HUNG // 100):
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api"):
                    break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", home
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()  # it may wait for ever for a kernel that was starting


class Notebook:
    "A notebook that is open in JupyterLab: run its cells, and ask its kernel."

    def __init__(self, page, connection: Path):
        self.page, self.connection = page, connection

    def run(self, cell: int):
        "Click on a cell, and run it; the view that it shows."
        self.page.locator(".jp-CodeCell .jp-InputArea").nth(cell).click()
        self.page.keyboard.press("Control+Enter")
        return self.page.locator(".jp-CodeCell").nth(cell).locator(".tnb-explorer")

    def python(self, code: str, seconds: float = HUNG / 1000) -> str:
        "What the kernel of the notebook prints. Raises TimeoutError or RuntimeError where it does not answer."
        client = BlockingKernelClient(connection_file=str(self.connection))
        client.load_connection_file()
        client.start_channels()
        printed = []
        try:
            client.wait_for_ready(timeout=seconds)
            reply = client.execute_interactive(code, output_hook=lambda m: printed.append(m["content"].get("text", "")), timeout=seconds)
        finally:
            client.stop_channels()
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(printed)


@contextmanager
def opened_notebook(browser, lab, name: str):
    address, home = lab
    cells = [nbformat.v4.new_code_cell(code) for code in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), home / f"notebooks/{name}.ipynb")
    with opened(browser, f"{address}/doc/tree/{name}.ipynb?reset", 1300) as page:
        page.locator(".jp-CodeCell").nth(len(CELLS) - 1).wait_for()
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        notebook = Notebook(page, home / f"runtime/kernel-{kernel_of(address, name)}.json")
        notebook.run(0)
        yield notebook
    stop_kernel(address, name)


def kernel_of(address: str, name: str) -> str:
    "The id of the kernel of a notebook."
    with urllib.request.urlopen(f"{address}/api/sessions") as answer:
        [kernel] = [session["kernel"]["id"] for session in json.load(answer) if session["path"] == f"{name}.ipynb"]
    return kernel


def stop_kernel(address: str, name: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{address}/api/kernels/{kernel_of(address, name)}", method="DELETE")).close()


@pytest.fixture(scope="module")
def notebook(browser, lab):
    "A notebook for several tests, each of which runs cells of its own."
    with opened_notebook(browser, lab, "views") as opened:
        yield opened


def fixed(x: float) -> str:
    return f"{x:.2f}".replace("-0.00", "0.00").replace("-", "−")


def twin():
    "The view that the notebook makes, in this process."
    torch.manual_seed(0)
    return text_view()


def wait_for_losses(view, whole: torch.Tensor, losses: torch.Tensor) -> None:
    "Wait until the view shows these losses of the tokens, and marks those that have changed."
    change = losses - whole
    text = f"loss on this text {fixed(whole.mean())} → {fixed(losses.mean())} nats ({'+' if change.mean() >= 0 else ''}{fixed(change.mean())})"
    view.locator(".loss").get_by_text(text, exact=True).wait_for()
    marks = view.locator(".token").evaluate_all("tokens => tokens.map((token) => token.querySelector('sup')?.textContent ?? '')")
    assert marks == ["", *("▲" if x > 0.1 else "▼" if x < -0.1 else "" for x in change.tolist())]


def logits_without(model, ids: torch.Tensor, replace: dict) -> torch.Tensor:
    with activations(model, replace=replace), torch.no_grad():
        return model(ids)[0]


def test_switching_parts_off_and_on(notebook):
    model, ids = twin().model, torch.arange(len(HOSTILE))[None]
    whole = losses_without(model, ids, {})
    head, feed_forward, layer = OFF
    steps = [([head], OFF[head]), ([head, feed_forward], {**OFF[head], **OFF[feed_forward]}), ([feed_forward], OFF[feed_forward])]
    page, view = notebook.page, notebook.run(1)
    view.wait_for()
    switch = lambda part: view.locator(f"[data-part='{part}']")
    expected, off = Expected(twin()), []
    check_heads(view, expected, "light")
    for now, replace in steps:
        for part in set(now) ^ set(off):
            switch(part).focus()
            page.keyboard.press("Space")
        off = now
        wait_for_losses(view, whole, losses_without(model, ids, replace))
        assert focused(page) in [f"switch-{part}" for part in steps[0][0] + steps[1][0]]
        last, p = logits_without(model, ids, replace)[6], logits_without(model, ids, {})[6].softmax(-1)  # after the chosen query
        rows = table(view, ".next tbody tr")
        for (name, _, shown, before), best in zip(rows, last.softmax(-1).topk(len(rows)).values):
            assert_listed(name, shown, best, last.softmax(-1), HOSTILE)
            assert_shown(before, p[[visible(token) for token in HOSTILE].index(name)])
        assert json.loads(notebook.python("import json; print(json.dumps(view.off))")) == now
        assert [not switch(part).is_checked() for part in (head, feed_forward)] == [part in now for part in (head, feed_forward)]
    assert_readable(view)
    # The theme of JupyterLab is the theme of the view.
    for theme, name in [("dark", "JupyterLab Dark"), ("light", "JupyterLab Light")]:
        page.get_by_role("menuitem", name="Settings").click()
        page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Theme$")).hover()
        page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{name}$")).click()
        page.locator(f".jp-CodeCell .tnb-explorer[data-theme={theme}]").first.wait_for()
        assert_pictured(view.locator("canvas.cells"), Expected(twin()).weights(0, 0), theme)
        assert_readable(view)
    view.get_by_text("switch all on").click()
    view.get_by_text(f"loss on this text {fixed(whole.mean())} nats", exact=True).wait_for()
    # A layer, by a check box; a head, by the key x; what Python sets.
    switch(layer).click()
    wait_for_losses(view, whole, losses_without(model, ids, OFF[layer]))
    assert view.locator("button.head.off").count() == 2
    inside = view.locator(f"[data-part^='{layer}.']")
    assert inside.count() == 3 and all(box.is_disabled() and not box.is_checked() for box in inside.all())  # they went with their layer
    notebook.python("view.off = []")
    view.get_by_text(f"loss on this text {fixed(whole.mean())} nats", exact=True).wait_for()
    view.locator(f"[data-key='{head}']").focus()
    page.keyboard.press("x")
    wait_for_losses(view, whole, losses_without(model, ids, OFF[head]))
    assert focused(page) == head and view.locator("button.head.off").count() == 1
    notebook.python("view.off = ['layers.1.feed_forward']")
    wait_for_losses(view, whole, losses_without(model, ids, OFF[feed_forward]))
    assert not switch(feed_forward).is_checked() and switch(head).is_checked()
    notebook.python("view.off = []; view.ids = [3, 4, 5]")
    view.get_by_text("3 tokens").wait_for()


def test_appending_tokens_and_several_views(notebook):
    model = twin().model
    growing, other, again = views = [notebook.run(cell) for cell in (2, 3, 4)]
    for view in views:
        view.wait_for()
    assert not any(picture.is_visible() for picture in notebook.page.locator(".jp-RenderedImage").all())
    # A view grows by the most probable tokens, until its oldest one is dropped.
    ids = torch.tensor([[1, 2, 3]])
    growing.locator("[data-key=temperature]").fill("0")
    for _ in range(15):
        ids = torch.cat([ids, logits_without(model, ids, {})[-1:].argmax(-1, keepdim=True)], dim=1)[:, -16:]
        growing.locator("[data-key=append]").click()
        last = f"{ids.shape[1] - 1} {visible(HOSTILE[ids[0, -1]])}"
        losses = losses_without(model, ids, {})
        growing.get_by_text(f"loss on this text {fixed(losses.mean())} nats", exact=True).wait_for()
        assert growing.locator(".next h3").inner_text() == f"Next token after {last}"
        assert growing.locator("[aria-selected=true]").inner_text() == visible(HOSTILE[ids[0, -1]])
        assert growing.locator(".drawn").inner_text() == f"sampled {visible(HOSTILE[ids[0, -1]])}, which had probability 1.00"
    assert json.loads(notebook.python("print(growing.ids)")) == ids[0].tolist()
    assert growing.locator("[data-key=temperature]").input_value() == "0"
    # Both displays of one view show the same; the other view does not.
    first = torch.arange(len(HOSTILE))[None]
    whole, off = losses_without(model, first, {}), next(iter(OFF))
    again.locator(f"[data-part='{off}']").click()
    for one in (other, again):
        wait_for_losses(one, whole, losses_without(model, first, OFF[off]))
        assert not one.locator(f"[data-part='{off}']").is_checked()
    assert growing.locator(f"[data-part='{off}']").is_checked()
    growing.locator("[data-part='layers.0']").click()
    wait_for_losses(growing, losses, losses_without(model, ids, OFF["layers.0"]))
    assert other.locator("[data-part='layers.0']").is_checked()
    # Each keeps its own choices.
    again.locator("[data-key='layers.1.attention.heads.0']").click()
    assert other.locator(".pattern h3").inner_text() == "layers.0.attention, head 0"


def test_jupyterlab_leaves_the_keys_to_the_view(notebook):
    view, page = notebook.run(5), notebook.page
    view.wait_for()

    def cells() -> list:
        "The cells of the notebook, and which of them are selected."
        return page.locator(".jp-Notebook .jp-Cell").evaluate_all(
            "cells => cells.map((cell) => [cell.querySelector('.cm-content').textContent, cell.classList.contains('jp-mod-active')])"
        )

    before = cells()
    view.locator("[data-key=token-0-6]").click()
    for key in ("ArrowUp", "ArrowDown", "ArrowLeft", "Home", "End"):
        page.keyboard.press(key)
        assert cells() == before and focused(page).startswith("token-0-")
    view.locator("[data-key=cells]").focus()
    for key in ("ArrowUp", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
        assert cells() == before and focused(page) == "cells"
    view.locator("[data-key='layers.0.attention.heads.0']").focus()
    for key in ("ArrowDown", "ArrowUp", "Enter"):
        page.keyboard.press(key)
        assert cells() == before and focused(page).startswith("layers.")
    page.keyboard.press("x")
    view.get_by_text("off: layers.0.attention.heads.0").wait_for()
    assert cells() == before
    for key in ("temperature", "top-k", "top-p"):
        view.locator(f"[data-key={key}]").focus()
        for press in ("ArrowUp", "ArrowDown", "Home"):
            page.keyboard.press(press)
    find = view.get_by_role("searchbox")
    find.click()
    page.keyboard.type("ddbbaaxz00")
    assert find.input_value() == "ddbbaaxz00" and cells() == before
    for key in ("by-weight", "append", "exact"):
        view.locator(f"[data-key={key}]").focus()
        page.keyboard.press("Space")
    page.keyboard.press("Control+s")
    assert [code for code, _ in cells()] == CELLS_AS_SHOWN


def restarted(notebook: Notebook) -> bool:
    "Whether the kernel is a new one; what is asked while it starts may get lost, and is asked again."
    with suppress(TimeoutError, RuntimeError):
        return notebook.python("print('view' in globals())", seconds=10) == "False\n"
    return False


def test_errors_and_a_kernel_that_is_gone(browser, lab):
    path = lab[1] / "notebooks/stopped.ipynb"
    with opened_notebook(browser, lab, "stopped") as notebook:
        view, page = notebook.run(1), notebook.page
        view.wait_for()
        part, whole = "layers.0.attention.heads.1", losses_without(twin().model, torch.arange(len(HOSTILE))[None], {})
        notebook.python("forward = view.model.forward\nview.model.forward = lambda ids: 1 / 0")
        for _ in range(2):
            view.locator(f"[data-part='{part}']").click()
            view.get_by_role("alert").get_by_text("ZeroDivisionError: division by zero").wait_for()
            assert view.locator(f"[data-part='{part}']").is_checked()
            view.locator("[data-key=token-0-3]").click()  # the view stays usable
            assert view.locator(".query h3").inner_text() == f"One query: 3 {HOSTILE[3]}"
        notebook.python("view.model.forward = forward")
        view.locator(f"[data-part='{part}']").click()
        wait_for_losses(view, whole, losses_without(twin().model, torch.arange(len(HOSTILE))[None], OFF[part]))
        assert view.locator(".error").text_content() == ""
        # The notebook is saved, and the kernel starts again: the view of before has nobody who answers.
        page.keyboard.press("Control+s")
        wait_until(page, lambda: any(cell.outputs for cell in nbformat.read(path, 4).cells))
        page.get_by_role("menuitem", name="Kernel").click()
        page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Restart Kernel…$")).click()
        page.get_by_role("button", name="Confirm Kernel Restart").click()
        wait_until(page, lambda: restarted(notebook))
        view.locator(f"[data-part='{part}']").click()
        view.get_by_role("alert").get_by_text("The kernel does not answer").wait_for()
        view.locator("[data-key=token-0-5]").click()
        assert view.locator(".query h3").inner_text() == f"One query: 5 {visible(HOSTILE[5])}"
    # Opened again, the notebook shows the picture, with the widget's output and without.
    for stripped in (False, True):
        if stripped:
            drop_widgets(path)
            [output] = [output for cell in nbformat.read(path, 4).cells for output in cell.outputs]
            assert output.metadata["image/png"]["alt"].startswith("The attention patterns of all heads")
        with opened(browser, f"{lab[0]}/doc/tree/stopped.ipynb?reset", but=None if stripped else "widget model not found") as page:
            page.locator(".jp-RenderedImage img").wait_for()
            assert page.locator(".tnb-explorer").count() == 0 and not (stripped and page.get_by_text("Error").count())
            page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # JupyterLab starts a kernel for it all the same
        stop_kernel(lab[0], "stopped")
