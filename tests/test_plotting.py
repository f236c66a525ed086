"The figures that several pages share."

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from transformer_nb.notebook.plotting import COLOR_MAPS, show_figure, show_matrix, token_label

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
