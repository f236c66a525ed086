"The figures that several pages share."

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from transformer_nb.notebook.plotting import COLOR_MAPS, cell_text, show_figure, show_flow, show_matrix, token_label

matplotlib.use("agg")


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
    assert token_label(token) == label


def test_a_figure_is_closed_outside_a_notebook():
    show_matrix(torch.eye(2))
    assert plt.get_fignums()
    plt.close("all")
    show_matrix(torch.eye(2))
    show_figure(alt="A white square with a dark diagonal.")
    assert not plt.get_fignums()


X = torch.tensor([[0.0, -2.0], [0.416, 1.0]])
MASKED = torch.tensor([[0.5, -torch.inf], [3.0, -0.25]])
STAGES = [
    [("x", X, ["the", " "], ["water", "money"], "signed")],
    [("q", X, None, None, "signed"), ("k", X[0], None, None, "signed"), ("v", X, None, None, "signed")],
    [("masked scores", MASKED, "ab", "ab", "signed")],
    [("weights", torch.eye(2), "ab", "ab", "weight"), ("ids", torch.tensor([[7]]), None, None, None)],
    [("tokens", [["bank"], ["\n"]], None, None, None)],
]


def texts_of(ax):
    return [t.get_text() for t in ax.texts if t.get_text()]


def test_a_flow_says_every_number_and_every_label_and_has_an_arrow_between_two_stages():
    ax = show_flow(STAGES, title="attention")
    said = texts_of(ax)
    assert len(ax.patches) == sum(4 if len(p) > 1 else 2 for p in (X, X)) + 2 + 4 + 4 + 4 + 1 + 2
    for text in ("attention", "x", "q", "k", "v", "masked scores", "weights", "ids", "tokens", "the", "␣", "water", "money", "bank", "⏎", "7"):
        assert said.count(text) == 1, text
    assert said.count("−2") == 4 and said.count("0.42") == 3 and said.count("−∞") == 1 and said.count("3") == 1 and said.count("−0.25") == 1
    assert len([t for t in ax.texts if hasattr(t, "arrow_patch")]) == len(STAGES) - 1
    assert min(t.get_fontsize() for t in ax.texts) >= 8


def test_cells_of_a_flow_have_one_size_do_not_overlap_and_hold_their_text():
    ax = show_flow(STAGES, title="attention")
    renderer = ax.figure.canvas.get_renderer()
    cells = [patch.get_window_extent(renderer) for patch in ax.patches]
    assert max(c.width for c in cells) - min(c.width for c in cells) < 0.01 and max(c.height for c in cells) - min(c.height for c in cells) < 0.01
    middles = [((c.x0 + c.x1) / 2, (c.y0 + c.y1) / 2) for c in cells]
    for i, (x, y) in enumerate(middles):
        assert all(abs(x - a) > c.width - 1 or abs(y - b) > c.height - 1 for (a, b), c in zip(middles[:i], cells))
    words = [t.get_window_extent(renderer) for t in ax.texts if t.get_text()]
    for i, word in enumerate(words):
        assert word.x0 >= 0 and word.x1 <= ax.figure.bbox.x1 and word.y0 >= 0 and word.y1 <= ax.figure.bbox.y1
        assert not any(word.overlaps(other) for other in words[:i])


def test_a_kind_has_one_scale_in_a_flow_and_what_is_not_finite_is_grey():
    ax = show_flow([[("x", torch.tensor([1.0, 2.0]), None, None, "signed")], [("y", torch.tensor([2.0, 0.0, -torch.inf]), None, None, "signed")], [("w", torch.tensor([0.5]), None, None, "weight")]])
    one, two, again, zero, masked, weight = [patch.get_facecolor() for patch in ax.patches]
    assert weight == matplotlib.colormaps[COLOR_MAPS["weight"]](1.0), "the largest weight has the darkest colour"
    assert two == again != one and masked[:3] == matplotlib.colors.to_rgb("lightgrey") and min(zero[:3]) > 0.95


def test_a_flow_of_three_by_three_matrices_fits_a_page():
    three, two = -torch.rand(3, 3), -torch.rand(3, 2)
    shapes = [[two], [two] * 3, [three], [three], [three], [two]]
    tokens = ["the", "river", "bank"]
    ax = show_flow([[("scores", m, tokens if i in (0, 2) else None, tokens[: m.shape[1]], "signed") for m in stage] for i, stage in enumerate(shapes)])
    assert ax.figure.get_figwidth() < 9.7, "letters would be smaller than 8 points"


@pytest.mark.parametrize("value, says", [
    (2.0, "2"), (0.99999999, "1"), (-3, "−3"), (0.416, "0.42"), (-0.5, "−0.50"), (-torch.inf, "−∞"), (torch.inf, "∞"), (torch.nan, "nan"), (-0.0, "0"), (True, "1"), ("bank", "bank"),
])
def test_a_cell_says_whole_numbers_without_decimals(value, says):
    assert cell_text(value) == says


def test_a_matrix_with_minus_infinity_keeps_its_scale_and_says_so():
    ax = show_matrix(MASKED, kind="signed", values=True)
    assert [t.get_text() for t in ax.texts] == ["0.5", "−∞", "3", "−0.25"] and ax.images[0].norm.vmax == 3
    assert show_matrix(torch.full((2, 2), -torch.inf), values=True).images[0].norm.vmax > 0
