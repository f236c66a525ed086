"LayerNorm equals torch's, at any scale and for any epsilon."

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_module_parity, assert_same, copied
from torch import nn

from transformer_nb.layer_norm import LayerNorm


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("eps", [1e-12, 1e-5, 1e-1])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6), (2, 1, 3, 6)])
def test_equals_torch_forward_and_in_every_gradient(shape, eps, bias, dtype):
    ours, theirs = copied(LayerNorm(6, eps, bias), nn.LayerNorm(6, eps, bias=bias), dtype)
    assert_module_parity(ours, theirs, ours, theirs, torch.randn(shape, dtype=dtype))


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e3, 1e8])
def test_equals_the_functional_form_for_tiny_and_huge_inputs(scale, dtype):
    norm = LayerNorm(16).to(dtype)
    x = torch.randn(3, 16, dtype=dtype) * scale
    assert_same(norm(x), F.layer_norm(x, (16,)))


def by_hand(x, eps):
    "The formula with plain Python numbers, for one vector."
    values = x.tolist()
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return torch.tensor([(value - mean) / (variance + eps) ** 0.5 for value in values], dtype=x.dtype)


@pytest.mark.parametrize("eps", [1e-5, 0.5])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_divides_by_the_population_deviation_with_epsilon_inside_the_root(scale, eps):
    x = torch.randn(5, dtype=torch.float64) * scale
    assert_same(LayerNorm(5, eps).double()(x), by_hand(x, eps))


def test_a_fresh_norm_gives_mean_zero_and_variance_one():
    y = LayerNorm(64)(torch.randn(10, 64) * 7 + 3)
    torch.testing.assert_close(y.mean(-1), torch.zeros(10), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var(-1, unbiased=False), torch.ones(10), rtol=0, atol=1e-4)


def test_each_vector_is_normalized_by_itself():
    x, norm = torch.randn(2, 3, 8), LayerNorm(8)
    assert_same(norm(x)[1, 2], norm(x[1, 2]))


def test_a_constant_vector_becomes_the_bias():
    norm = LayerNorm(4)
    nn.init.normal_(norm.bias)
    assert_same(norm(torch.full((4,), 3.0)), norm.bias)


def test_scale_and_shift_of_the_input_make_no_difference():
    x = torch.randn(3, 8, dtype=torch.float64)
    norm = LayerNorm(8, eps=0.0).double()
    assert_same(norm(5 * x + 2), norm(x))


def test_without_bias_it_learns_the_gain_only():
    assert [name for name, _ in LayerNorm(4, bias=False).named_parameters()] == ["weight"]


def test_the_default_epsilon_is_torchs():
    assert LayerNorm(4).eps == nn.LayerNorm(4).eps


def test_a_vector_of_another_size_is_refused_by_name(shapes_unchecked):
    with pytest.raises(RuntimeError, match=r"\[6\].*\[2, 5\]"):
        LayerNorm(6)(torch.randn(2, 5))
