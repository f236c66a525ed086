"TokenEmbedding is a row of a table, and refuses an index that has none."

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same

from transformer_nb.embeddings import TokenEmbedding


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5), (0,)])
def test_each_index_becomes_its_row(shape):
    embedding = TokenEmbedding(7, 4)
    ids = torch.randint(0, 7, shape)
    assert torch.equal(embedding(ids), embedding.weight[ids])


def test_it_equals_a_one_hot_product():
    embedding, ids = TokenEmbedding(7, 4), torch.arange(7)
    assert_same(embedding(ids), F.one_hot(ids, 7).float() @ embedding.weight)


def test_the_gradient_of_a_row_counts_its_uses():
    embedding = TokenEmbedding(4, 3)
    embedding(torch.tensor([0, 2, 2, 2])).sum().backward()
    assert torch.equal(embedding.weight.grad, torch.tensor([1.0, 0.0, 3.0, 0.0])[:, None].expand(4, 3))


def test_scale_multiplies_each_row_but_not_the_table():
    embedding = TokenEmbedding(7, 4, scale=3.0)
    before = embedding.weight.clone()
    assert_same(embedding(torch.arange(7)), 3 * before)
    assert torch.equal(embedding.weight, before)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_indices_of_both_integer_sizes_are_taken(dtype):
    assert TokenEmbedding(7, 4)(torch.tensor([1, 2], dtype=dtype)).shape == (2, 4)


@pytest.mark.parametrize(
    "ids, received",
    [([0, 7], "got 0 to 7"), ([3, 100, 4], "got 3 to 100"), ([-1, 2], "got -1 to 2")],
)
def test_an_index_outside_the_table_is_named(ids, received):
    with pytest.raises(IndexError, match=f"indices must be 0 to 6, {received}"):
        TokenEmbedding(7, 4)(torch.tensor(ids))


@pytest.mark.parametrize("vocab_size, d_model", [(0, 4), (4, 0), (-3, 4)])
def test_a_table_needs_a_row_and_a_feature(vocab_size, d_model):
    with pytest.raises(ValueError, match=f"got {vocab_size} x {d_model}"):
        TokenEmbedding(vocab_size, d_model)


def test_rows_start_small():
    assert abs(TokenEmbedding(500, 64).weight.std().item() - 0.02) < 0.001
