"The readable attention equals the fused one under every mask, and leak_test is a fair judge."

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_parity, assert_same, outputs_and_gradients
from jaxtyping import TypeCheckError
from torch import nn

from transformer_nb.attention import (
    causal_mask,
    dependency_matrix,
    leak_test,
    padding_mask,
    scaled_dot_product_attention,
)


def test_the_import_hook_checks_shapes():
    with pytest.raises(TypeCheckError, match="parameter 'k'"):
        scaled_dot_product_attention(torch.ones(2, 3, 4), torch.ones(2, 3, 5), torch.ones(2, 3, 4))


def test_the_import_hook_checks_types():
    with pytest.raises(TypeCheckError, match="parameter 'mask'"):
        scaled_dot_product_attention(*torch.ones(3, 2, 3, 4), mask=torch.ones(3, 3))


@pytest.mark.parametrize("shape", [(2, 1, 4, 3), (3, 1, 5, 3), (5, 1), (3,)], ids=str)
def test_the_import_hook_refuses_a_mask_that_does_not_fit(shape):
    q, k, v = (torch.randn(2, 4, *size) for size in ((5, 8), (3, 8), (3, 6)))
    with pytest.raises(TypeCheckError, match="parameter 'mask'"):
        scaled_dot_product_attention(q, k, v, torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(5, 3), (1, 3), (4, 5, 3), (2, 1, 1, 3), (1, 4, 5, 3)], ids=str)
def test_a_mask_broadcasts_over_what_it_does_not_name(shape):
    q, k, v = (torch.randn(2, 4, *size) for size in ((5, 8), (3, 8), (3, 6)))
    mask = torch.rand(shape) < 0.5
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    assert_same(scaled_dot_product_attention(q, k, v, mask)[0], expected)


def nothing_for_row_2(length, source):
    "A mask whose third row may attend to nothing."
    mask = torch.ones(length, source, dtype=torch.bool)
    mask[2] = False
    return mask


MASKS = {
    "no mask": lambda: None,
    "causal": lambda: causal_mask(5),
    "padding": lambda: padding_mask([5, 2], 5),
    "causal and padding": lambda: causal_mask(5) & padding_mask([3, 5], 5),
    "random": lambda: torch.rand(2, 5, 5) < 0.6,
    "a row of nothing": lambda: nothing_for_row_2(5, 5),
    "nothing at all": lambda: torch.zeros(5, 5, dtype=torch.bool),
    "a text of padding only": lambda: padding_mask([0, 5], 5),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_equals_the_fused_kernel_forward_and_in_every_gradient(mask, dtype):
    mask = mask()
    assert_parity(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, mask)[0],
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask),
        *torch.randn(3, 2, 5, 6, dtype=dtype),
    )


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_equals_the_fused_kernel_with_several_heads(mask, dtype):
    mask = mask()
    mask = mask if mask is None or mask.dim() == 2 else mask[:, None]
    assert_parity(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, mask)[0],
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask),
        *torch.randn(3, 2, 3, 5, 6, dtype=dtype),
    )


@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_fused_kernel_across_two_texts_with_other_value_size(masked, dtype):
    mask = torch.rand(3, 7) < 0.5 if masked else None
    q, k, v = (torch.randn(2, *size, dtype=dtype) for size in ((3, 4), (7, 4), (7, 5)))
    assert_parity(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, mask)[0],
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask),
        q, k, v,
    )


@pytest.mark.parametrize("scale", [1e-4, 30.0])
def test_equals_the_fused_kernel_for_small_and_large_scores(scale, dtype):
    q, k, v = torch.randn(3, 2, 5, 6, dtype=dtype)
    expected = F.scaled_dot_product_attention(scale * q, k, v)
    assert_same(scaled_dot_product_attention(scale * q, k, v)[0], expected)


def by_hand(q, k, v, mask):
    "Equation 1 with plain Python numbers, for one text."
    rows = []
    for i, query in enumerate(q.tolist()):
        weights = [
            math.exp(sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(len(query)))
            if mask[i][j] else 0.0
            for j, key in enumerate(k.tolist())
        ]
        total = sum(weights)
        rows.append([w / total for w in weights])
    weights = torch.tensor(rows, dtype=q.dtype)
    return weights @ v, weights


def test_equals_the_formula_in_plain_python():
    q, k, v = torch.randn(3, 4, 3, dtype=torch.float64)
    output, weights = scaled_dot_product_attention(q, k, v, causal_mask(4))
    expected, expected_weights = by_hand(q, k, v, causal_mask(4).tolist())
    assert_same(output, expected)
    assert_same(weights, expected_weights)


def test_each_row_of_weights_sums_to_one():
    _, weights = scaled_dot_product_attention(*torch.randn(3, 2, 5, 6), mask=causal_mask(5))
    assert_same(weights.sum(-1), torch.ones(2, 5))


def test_what_may_not_be_attended_weighs_nothing_at_all():
    mask = torch.rand(2, 5, 5) < 0.5
    _, weights = scaled_dot_product_attention(*torch.randn(3, 2, 5, 6), mask=mask)
    assert not weights[~mask].any()


def test_a_row_that_may_attend_to_nothing_gets_zeros_and_finite_gradients():
    output, gradients = outputs_and_gradients(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, nothing_for_row_2(4, 4))[0],
        torch.randn(3, 1, 4, 4),
    )
    assert not output[0, 2].any() and not gradients[0][0, 2].any()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_equal_scores_give_the_mean():
    v = torch.randn(1, 4, 3)
    output, _ = scaled_dot_product_attention(torch.zeros(1, 4, 3), torch.randn(1, 4, 3), v)
    assert_same(output, v.mean(1, keepdim=True).expand(1, 4, 3))


def test_the_order_of_the_source_does_not_matter():
    q, k, v = torch.randn(3, 2, 5, 6)
    order = torch.randperm(5)
    output = scaled_dot_product_attention(q, k[:, order], v[:, order])[0]
    assert_same(output, scaled_dot_product_attention(q, k, v)[0])


@pytest.mark.parametrize("length", [0, 1, 4])
def test_the_causal_mask_is_a_lower_triangle_with_its_diagonal(length):
    expected = [[j <= i for j in range(length)] for i in range(length)]
    assert causal_mask(length).tolist() == expected


def test_the_last_positions_of_a_longer_source_ask():
    assert torch.equal(causal_mask(2, 5), causal_mask(5)[-2:])


def test_the_padding_mask_is_true_up_to_each_length():
    assert padding_mask([0, 2, 3], 3).int().tolist() == [[[0, 0, 0]], [[1, 1, 0]], [[1, 1, 1]]]


def test_lengths_may_be_a_tensor():
    assert torch.equal(padding_mask(torch.tensor([1, 4]), 4), padding_mask([1, 4], 4))


@pytest.mark.parametrize("lengths, received", [([2, 5], "2 to 5"), ([-1, 3], "-1 to 3")])
def test_lengths_outside_the_padded_one_are_refused(lengths, received):
    with pytest.raises(ValueError, match=f"lengths must be 0 to 4, got {received}"):
        padding_mask(lengths, 4)


# Functions that let the future leak, and functions that do not.


def attend(mask=None, fill=None, axis=-1):
    "Self-attention of x, with what a mistake would change."

    def fn(x):
        scores = x @ x.transpose(-2, -1)
        scores = scores if mask is None else scores.masked_fill(~mask, -math.inf if fill is None else fill)
        return scores.softmax(axis) @ x

    return fn


def over_positions(module):
    "A module that takes (B, d, T), for vectors (B, T, d)."
    return lambda x: module(x.transpose(1, 2)).transpose(1, 2)


LEAKS = {
    "attention without a mask": attend(),
    "a mask that is off by one": attend(torch.ones(6, 6, dtype=torch.bool).tril(1)),
    "a mask the wrong way round": attend(torch.ones(6, 6, dtype=torch.bool).triu()),
    "a mask of minus ten": attend(causal_mask(6), fill=-10.0),
    "a softmax over the wrong axis": attend(causal_mask(6), axis=-2),
    "batch norm over positions": over_positions(nn.BatchNorm1d(4)),
    "the mean over positions": lambda x: x - x.mean(1, keepdim=True),
    "a shift to the left": lambda x: F.pad(x[:, 1:], (0, 0, 0, 1)),
    "one later feature, faintly": lambda x: x + 1e-4 * F.pad(x[:, 1:, :1], (0, 3, 0, 1)),
    "the last position told to the first": lambda x: torch.cat((x[:, :1] + x[:, -1:], x[:, 1:]), 1),
    "a convolution centred on its output": over_positions(nn.Conv1d(4, 4, 3, padding=1)),
}

FAIR = {
    "attention with a causal mask": attend(causal_mask(6)),
    "our attention": lambda x: scaled_dot_product_attention(x, x, x, causal_mask(6))[0],
    "torch's attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "a linear map": nn.Linear(4, 3),
    "layer norm": nn.LayerNorm(4),
    "dropout": nn.Dropout(0.5),
    "the identity": lambda x: x,
    "a shift to the right": lambda x: F.pad(x[:, :-1], (0, 0, 1, 0)),
    "a running sum": lambda x: x.cumsum(1),
    "a recurrent network": lambda x: nn.GRU(4, 5, batch_first=True)(x)[0],
    "a constant": lambda x: 0 * x,
    "several axes of features": lambda x: x.unflatten(-1, (2, 2)),
}


@pytest.mark.parametrize("fn", LEAKS.values(), ids=LEAKS)
def test_a_leak_is_found(fn):
    assert leak_test(fn, torch.randn(2, 6, 4))


@pytest.mark.parametrize("fn", FAIR.values(), ids=FAIR)
def test_a_fair_function_is_not_accused(fn):
    assert not leak_test(fn, torch.randn(2, 6, 4))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_verdict_does_not_depend_on_the_scale_of_the_output(scale):
    x = torch.randn(2, 6, 4)
    assert leak_test(lambda x: scale * attend()(x), x)
    assert not leak_test(lambda x: scale * attend(causal_mask(6))(x), x)


def of_indices(fn):
    "A model of indices: look up vectors, then fn."
    vectors = torch.randn(9, 4)
    return lambda ids: fn(vectors[ids])


@pytest.mark.parametrize("fn", LEAKS.values(), ids=LEAKS)
def test_a_leak_is_found_through_indices(fn):
    assert leak_test(of_indices(fn), torch.randint(0, 4, (2, 6)))


@pytest.mark.parametrize("fn", FAIR.values(), ids=FAIR)
def test_a_fair_function_of_indices_is_not_accused(fn):
    assert not leak_test(of_indices(fn), torch.randint(0, 3, (2, 6)))


def test_leak_test_refuses_to_judge_what_is_not_a_number():
    def fn(x):
        return torch.cat((x[:, :1] * math.nan, x[:, 1:].flip(1)), 1)

    with pytest.raises(ValueError, match="nan"):
        leak_test(fn, torch.randn(1, 6, 4))


def test_leak_test_leaves_no_gradient_and_the_random_numbers_as_they_were():
    layer, before = nn.Linear(4, 4), torch.get_rng_state()
    leak_test(layer, torch.randn(1, 3, 4, generator=torch.Generator()))
    leak_test(lambda ids: layer.weight[ids], torch.zeros(1, 3, dtype=torch.long))
    assert layer.weight.grad is None and torch.equal(torch.get_rng_state(), before)


def test_leak_test_works_where_gradients_are_off():
    with torch.no_grad():
        assert leak_test(attend(), torch.randn(1, 6, 4))


def test_row_i_of_the_dependency_matrix_is_about_output_i():
    dependency = dependency_matrix(lambda x: x.cumsum(1), torch.randn(1, 4, 3))
    assert torch.equal(dependency > 0, causal_mask(4))


def test_the_dependency_matrix_is_the_norm_of_the_jacobian():
    def fn(x):
        return torch.tanh(x @ x.transpose(1, 2)) @ x

    x = torch.randn(1, 4, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(fn, x)  # (1, T, d, 1, T, d)
    assert_same(dependency_matrix(fn, x), jacobian.square().sum((0, 2, 3, 5)).sqrt())


def test_the_dependency_matrix_of_several_texts_adds_up_their_squares():
    x = torch.randn(3, 4, 2, dtype=torch.float64)
    each = torch.stack([dependency_matrix(attend(), text[None]) for text in x])
    assert_same(dependency_matrix(attend(), x), each.square().sum(0).sqrt())


def test_the_dependency_matrix_of_indices_is_the_size_of_the_change():
    vectors = torch.eye(5)
    dependency = dependency_matrix(lambda ids: 3 * vectors[ids], torch.tensor([[0, 1, 4]]))
    assert_same(dependency, 3 * math.sqrt(2) * torch.eye(3))


def test_no_score_is_large_enough_to_get_past_the_mask():
    q, k, v = torch.full((1, 4), 1e4), torch.full((3, 4), 1e4), torch.eye(3)
    k[:2] *= -1  # allowed and far below, forbidden and far above
    mask = torch.tensor([[True, True, False]])
    output, weights = scaled_dot_product_attention(q, k, v, mask)
    assert weights.tolist() == [[0.5, 0.5, 0.0]]
    assert_same(output, F.scaled_dot_product_attention(q, k, v, mask))


def test_outputs_that_do_not_match_the_inputs_get_no_verdict(shapes_unchecked):
    last, ids = lambda x: x.cumsum(1)[:, -1:], torch.randint(5, (2, 8))
    for x in (torch.randn(2, 8, 3), ids):
        function = last if x.dim() == 3 else lambda ids: last(torch.nn.functional.one_hot(ids, 5).float())
        for check in (leak_test, dependency_matrix):
            with pytest.raises(ValueError, match="returns 1 positions for 8, so outputs cannot be matched with inputs"):
                check(function, x)
