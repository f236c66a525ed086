"Traces and their comparison: values and gradients of one run, and how much two runs differ."

import pytest
import torch
from helpers import assert_same, small_encoder_decoder, small_language_model
from torch import nn

from transformer_nb.attention import padding_mask
from transformer_nb.interpret.tracing import TensorDifference, compare_tensors, trace


def indices(*shape):
    return torch.randint(13, shape)


def run_of(kind):
    "A model, and a run of it."
    if kind == "language model":
        model, ids = small_language_model(), indices(2, 6)
        return model, lambda: model(ids)
    model, source, target = small_encoder_decoder(), indices(2, 5), indices(2, 6)
    mask = padding_mask([5, 3], 5)
    return model, lambda: model(source, target, mask)


def factors_of(logits):
    "What each logit is multiplied by in the loss of a trace."
    generator = torch.Generator().manual_seed(0)
    return torch.randn(logits.shape, generator=generator, dtype=torch.float64).to(logits)


@pytest.mark.parametrize("kind", ["language model", "encoder-decoder"])
def test_a_trace_holds_values_and_gradients_of_the_same_run(kind, dtype):
    model, call = run_of(kind)
    model.to(dtype)
    taken = trace(model, call)
    assert_same(taken.values["logits"], call().detach())
    factors = factors_of(taken.values["logits"])
    model.zero_grad()
    (call() * factors).sum().backward()
    for name, parameter in model.named_parameters():
        assert_same(taken.parameter_gradients[name.removeprefix("stack.")], parameter.grad)
    assert_same(taken.gradients["logits"], factors)


def test_a_trace_leaves_the_model_as_it_was():
    model, call = run_of("language model")
    with torch.no_grad():
        taken = trace(model, call)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert taken.gradients and not any(value.requires_grad for value in taken.values.values())


def test_what_has_no_gradient_is_left_out():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model.unused = nn.Parameter(torch.ones(1))
    model[0].requires_grad_(False)
    taken = trace(model, lambda: model(torch.ones(1, 3)))
    assert list(taken.values) == ["0", "1", "output"] and list(taken.gradients) == ["1", "output"]
    assert list(taken.parameter_gradients) == ["1.weight", "1.bias"]


def test_a_call_may_return_more_values_by_name():
    model = nn.Linear(3, 2)

    def call():
        hidden = model(torch.ones(1, 3))
        doubled = 2 * hidden
        return doubled, {"doubled": doubled}

    taken = trace(model, call)
    assert list(taken.values) == ["output", "doubled"] == list(taken.gradients)
    assert_same(taken.gradients["output"], 2 * taken.gradients["doubled"])


def test_a_comparison_tells_how_much_differs_and_what_is_missing():
    theirs = {"a": torch.tensor([1.0, -4.0]), "b": torch.zeros(2)}
    ours = {"a": torch.tensor([1.5, -4.0]), "b": torch.zeros(2), "c": torch.ones(1)}
    expected = [TensorDifference("a", 0.5, 0.125), TensorDifference("b", 0.0, 0.0)]
    assert compare_tensors(ours, theirs) == expected
    with pytest.raises(ValueError, match=r"a: no tensor to compare with shape \(2,\)"):
        compare_tensors({}, theirs)
    with pytest.raises(ValueError, match=r"a: shape \(1,\) to compare with shape \(2,\)"):
        compare_tensors({"a": torch.ones(1)}, theirs)
