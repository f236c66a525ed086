"The explorer without a browser: what it sends is what the model computed. How it is used is tested in test_explorer_browser.py."

import json
import sys
from html.parser import HTMLParser

import nbformat
import numpy as np
import pytest
import torch
from outputs import WIDGET, drop_widgets
from torch import nn
from views import HOSTILE, OFF, VIEWS, losses_without, names, random_ids, text_view, view

from transformer_nb.interpret.activations import activations
from transformer_nb.interpret.inspection import logit_lens
from transformer_nb.notebook.explorer import explore

WITH_LOGITS = [name for name in VIEWS if "encoder" not in name]


def array(sent: dict, *shape: int) -> torch.Tensor:
    "What the script makes of the bytes that it gets."
    kinds = {"f4": np.float32, "i4": np.int32, "u1": np.uint8}
    return torch.from_numpy(np.frombuffer(sent["data"], kinds[sent["type"]]).reshape(shape).copy())


def inputs(exploration) -> list[torch.Tensor]:
    return [torch.tensor([sequence["ids"]]) for sequence in exploration.data()["sequences"]]


def weights_by_the_script(sent: dict) -> torch.Tensor:
    "The weights (h, T, S) that the script computes from what it gets: the formula of `Attention` in explorer.js."
    h, T, S, d_k = (sent[size] for size in ("heads", "T", "S", "d_k"))
    q, k = array(sent["q"], h, T, d_k), array(sent["k"], h, S, d_k)
    allowed = torch.ones(h, T, S, dtype=torch.bool)
    if sent["causal"]:
        allowed = allowed.tril()
    elif sent["mask"] is not None:
        allowed = array(sent["mask"], sent["mask_heads"], T, S).bool().expand(h, T, S)
    scores = (q @ k.mT / d_k**0.5).masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1).masked_fill(~allowed, 0.0)


@pytest.mark.parametrize("name", VIEWS)
def test_what_is_sent_gives_the_weights_and_outputs_of_the_model(name):
    exploration = view(name)
    sent = {attention["name"]: attention for attention in exploration.data()["attentions"]}
    wanted = [f"{name}.{part}" for name in sent for part in ("weights", "heads")]
    with activations(exploration.model, *wanted) as seen, torch.no_grad():
        exploration.model(*inputs(exploration))
    for name, attention in sent.items():
        weights = weights_by_the_script(attention)
        values = array(attention["v"], attention["heads"], attention["S"], attention["d_k"])
        torch.testing.assert_close(weights, seen[f"{name}.weights"][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(weights @ values, seen[f"{name}.heads"][0], atol=1e-4, rtol=1e-4)


def test_what_underflows_is_not_shown_as_masked():
    "A weight is also 0 where exp of a low score is too small for a float."
    for attention in view("sharp").data()["attentions"]:
        assert attention["causal"] and attention["mask"] is None


def test_a_mask_is_sent_where_there_is_one():
    masks = {name: [(a["causal"], a["mask"] is not None) for a in view(name).data()["attentions"]] for name in VIEWS}
    assert set(masks["padded encoder"]) == set(masks["window"]) == {(False, True)}
    assert set(masks["text"]) == {(True, False)} and set(masks["encoder"]) == {(False, False)}
    assert masks["pair"] == 2 * [(False, False)] + 2 * [(True, False), (False, False)]


@pytest.mark.parametrize("name", WITH_LOGITS)
def test_the_lens_and_the_logits_are_those_of_the_model(name):
    exploration = view(name)
    data, ids = exploration.data(), inputs(exploration)
    lens = {stage: logits[0].softmax(-1) for stage, logits in logit_lens(exploration.model, *ids).items()}
    length, kept, stages = ids[-1].shape[1], data["lens"]["kept"], data["lens"]["stages"]
    best, p = (array(data["lens"][part], len(stages), length, kept) for part in ("ids", "p"))
    following = array(data["lens"]["next"], len(stages), length)
    assert stages == list(lens)
    for stage, expected in enumerate(lens.values()):
        torch.testing.assert_close(p[stage], expected.topk(kept).values)
        torch.testing.assert_close(expected.gather(-1, best[stage].long()), p[stage])
        if name == "masked language model":  # each position is about its own token
            torch.testing.assert_close(following[stage], expected.gather(-1, ids[-1][0, :, None])[:, 0])
        else:
            torch.testing.assert_close(following[stage, :-1], expected[:-1].gather(-1, ids[-1][0, 1:, None])[:, 0])
    with torch.no_grad():
        logits = exploration.model(*ids)[0]
    positions = data["logits"]["positions"]
    assert positions == (list(range(length)) if name != "long" else [length - 1])
    torch.testing.assert_close(array(data["logits"]["values"], len(positions), -1), logits[positions])
    if name == "masked language model":
        assert data["loss"] is None and exploration.loss != exploration.loss and "token at" in str(exploration)
        return
    losses = nn.functional.cross_entropy(logits[:-1], ids[-1][0, 1:], reduction="none")
    torch.testing.assert_close(array(data["loss"], length - 1), losses)
    assert "next token after" in str(exploration)


@pytest.mark.parametrize("name", WITH_LOGITS)
def test_every_token_that_can_be_listed_has_its_name(name):
    "Twelve next tokens are listed after each position, at any temperature, and five by the lens."
    exploration, data = view(name), view(name).data()
    logits = array(data["logits"]["values"], -1, data["vocabulary"])
    listed = {*array(data["lens"]["ids"], -1).tolist(), *logits.topk(min(12, data["vocabulary"])).indices.flatten().tolist()}
    known = {int(i): label for i, label in data["labels"].items()}
    assert listed <= known.keys()
    if isinstance(exploration.tokenizer, list):
        assert all(label == exploration.tokenizer[i] for i, label in known.items())


def test_parts_that_are_switched_off_change_the_loss_as_replaced_activations_do():
    exploration = text_view()
    [ids] = inputs(exploration)
    whole = array(exploration.data()["loss"], 15)
    for off, replace in [*(([name], replace) for name, replace in OFF.items()), (list(OFF)[:2], {**OFF[list(OFF)[0]], **OFF[list(OFF)[1]]})]:
        exploration.off = off
        data, expected = exploration.data(), losses_without(exploration.model, ids, replace)
        torch.testing.assert_close(array(data["loss"], 15), expected)
        torch.testing.assert_close(array(data["before"]["loss"], 15), whole)
        assert data["off"] == off and (expected - whole).abs().max() > 0.01
        assert exploration.loss == pytest.approx(expected.mean().item())
    exploration.off = []
    torch.testing.assert_close(array(exploration.data()["loss"], 15), whole)
    assert exploration.data()["before"] is None


def test_a_long_text_slides_and_a_mistake_changes_nothing():
    exploration = explore(view("text").model, HOSTILE, [1, 2, 3])
    exploration.ids = [*range(16), 5, 6]
    assert exploration.ids == [*range(2, 16), 5, 6]
    before = exploration.data()["loss"]
    for attribute, wrong, error in [("off", ["layers.7"], ValueError), ("ids", [99], IndexError), ("ids", [], ValueError)]:
        with pytest.raises(error):
            setattr(exploration, attribute, wrong)
        assert exploration.ids == [*range(2, 16), 5, 6] and exploration.off == [] and exploration.data()["loss"] == before


def test_a_view_changes_neither_the_mode_nor_the_gradients_of_the_model():
    model = view("text").model
    model.train()
    explore(model, HOSTILE, [1, 2, 3], off=["layers.0"])
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    model.eval()


class Elements(HTMLParser):
    "The elements of a page, and the texts of its scripts."

    def __init__(self, text: str):
        super().__init__()
        self.found, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append(tag)
        if tag == "script":
            self.scripts.append("")
        assert not {name for name, _ in attributes} & {"src", "onload", "onerror"}

    def handle_data(self, text):
        if self.found and self.found[-1] == "script":
            self.scripts[-1] += text


def test_hostile_tokens_do_not_become_markup(tmp_path):
    page = Elements(view("text").save(tmp_path / "view.html").read_text(encoding="utf-8"))
    assert page.found == ["html", "head", "meta", "meta", "meta", "link", "title", "style", "body", "main", "h1", "noscript", "script", "script"]
    assert json.loads(page.scripts[0])["sequences"][0]["tokens"] == HOSTILE


@pytest.mark.parametrize("name", VIEWS)
def test_a_picture_and_a_text_stand_in_for_the_view(name):
    exploration = view(name)
    index, head, query = exploration.selected
    weights = list(exploration.inspection.attention.values())[index].weights[head][-1 if query is None else query]
    figure, text = exploration.picture(), str(exploration)
    assert len(figure.axes) >= sum(len(heads.weights) for heads in exploration.inspection.attention.values()) + 1
    assert f"{weights.max():.2f}" in text and ("\n" in text) == (name in WITH_LOGITS)
    assert repr(exploration).startswith(f"Exploration of {type(exploration.model).__name__}")


@pytest.mark.parametrize("name", ["text", "pair", "encoder"])
def test_a_notebook_gets_the_picture_with_a_text_and_then_the_live_view(name, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, metadata=None, raw=False: shown.append((data, metadata)))
    view(name)._ipython_display_()
    (picture, described), (live, _) = shown
    assert picture["image/png"] and described["image/png"]["alt"].endswith(str(view(name)))
    assert live[WIDGET]["model_id"]


def test_the_picture_stays_where_the_live_view_is_taken_out_of_a_page(tmp_path):
    picture = nbformat.v4.new_output("display_data", {"image/png": "", "text/plain": "Exploration"})
    live = nbformat.v4.new_output("display_data", {WIDGET: {"model_id": "1"}, "text/plain": ""})
    cell = nbformat.v4.new_code_cell("view", outputs=[picture, live])
    path = tmp_path / "page.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": "large"}}), path)
    drop_widgets(path)
    page = nbformat.read(path, 4)
    assert page.cells[0].outputs == [picture] and "widgets" not in page.metadata


@pytest.mark.parametrize("wrong", [dict(text=[]), dict(text="text"), dict(head=2), dict(query=3), dict(attention="layers.9"), dict(off=["head 1"])])
def test_a_view_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError):
        explore(**{**dict(model=view("text").model, tokenizer=names(16), text=random_ids(3, 16)), **wrong})


def test_without_anywidget_a_picture_stands_there_and_a_line_says_what_to_install(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append((data, options)))
    monkeypatch.setitem(sys.modules, "anywidget", None)  # importing it raises ImportError
    text_view()._ipython_display_()
    (picture, options), (line, _) = shown
    assert "image/png" in picture and "attends to" in options["metadata"]["image/png"]["alt"]
    assert line["text/plain"].endswith("pip install anywidget") and WIDGET not in line
