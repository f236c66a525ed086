"The live loss curve: it shows what was measured."

import matplotlib
import pytest

from transformer_nb.notebook.loss_plot import LossPlot, smoothed
from transformer_nb.notebook.plotting import use_style
from transformer_nb.training import History

matplotlib.use("agg")


def test_the_loss_plot_draws_what_was_measured():
    use_style()
    history = History(steps=10, loss=[3.0, 2.0, 1.0], evaluated=[0, 3], validation_loss=[3.5, 1.5])
    ax = LossPlot({"guessing": 4.0}).draw(history).axes[0]
    training, validation, guessing = ax.lines
    assert list(training.get_ydata()) == [3.0, 2.0, 1.0] and list(validation.get_ydata()) == [3.5, 1.5]
    assert list(guessing.get_ydata()) == [4.0, 4.0]


def test_the_loss_plot_draws_without_validation_and_is_silent_outside_a_notebook():
    history = History(steps=10, loss=[3.0, 2.0, 1.0], evaluated=[0, 3], validation_loss=[])
    LossPlot().draw(history)
    LossPlot()(history)


@pytest.mark.parametrize("length, points", [(0, 0), (1, 1), (99, 99), (100, 100), (251, 125), (1000, 100)])
def test_a_long_loss_curve_is_drawn_by_its_means(length, points):
    steps, loss = smoothed([float(i) for i in range(length)])
    assert len(steps) == len(loss) == points
    assert all(abs(step - 0.5 - value) < 1e-9 for step, value in zip(steps, loss))  # of the line y = x
