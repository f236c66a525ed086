"MultiHeadAttention equals nn.MultiheadAttention with the same weights: itself, across, padded, causal."

import math

import pytest
import torch
from helpers import assert_module_parity, assert_same, copied, randomize
from jaxtyping import TypeCheckError
from torch import nn

from transformer_nb.attention import causal_mask, leak_test, padding_mask
from transformer_nb.generation import KVCache
from transformer_nb.generation import KVCache
from transformer_nb.multi_head_attention import MultiHeadAttention
from transformer_nb.positional_encoding import RotaryPositionalEncoding


def pair(dtype, n_heads=2, bias=True):
    "Ours and torch's, with the same random weights."
    ours = MultiHeadAttention(8, n_heads, bias=bias)
    return copied(ours, nn.MultiheadAttention(8, n_heads, bias=bias, batch_first=True), dtype)


# Each case: lengths for padding, whether causal.
CASES = {
    "plain": (None, False),
    "causal": (None, True),
    "padded": ([5, 2], False),
    "causal and padded": ([3, 5], True),
}


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("lengths, is_causal", CASES.values(), ids=CASES)
@pytest.mark.parametrize("bias", [True, False])
def test_self_attention_equals_torch_in_every_gradient(lengths, is_causal, bias, need_weights, dtype):
    ours, theirs = pair(dtype, bias=bias)
    mask = None if lengths is None else padding_mask(lengths, 5)

    def call_ours(x):
        output = ours(x, mask=mask, is_causal=is_causal, need_weights=need_weights)
        return output[0] if need_weights else output

    def call_theirs(x):
        return theirs(
            x, x, x,
            key_padding_mask=None if mask is None else ~mask[:, 0],
            attn_mask=~causal_mask(5) if is_causal else None,
            need_weights=need_weights,
        )[0]

    assert_module_parity(ours, theirs, call_ours, call_theirs, torch.randn(2, 5, 8, dtype=dtype))


@pytest.mark.parametrize("lengths", [None, [7, 3]])
@pytest.mark.parametrize("bias", [True, False])
def test_cross_attention_equals_torch_in_every_gradient(lengths, bias, dtype):
    ours, theirs = pair(dtype, bias=bias)
    mask = None if lengths is None else padding_mask(lengths, 7)
    padding = None if mask is None else ~mask[:, 0]
    assert_module_parity(
        ours, theirs,
        lambda x, context: ours(x, context, mask=mask),
        lambda x, context: theirs(x, context, context, key_padding_mask=padding)[0],
        torch.randn(2, 5, 8, dtype=dtype), torch.randn(2, 7, 8, dtype=dtype),
    )


@pytest.mark.parametrize("n_heads", [1, 2, 4, 8])
def test_any_number_of_heads_equals_torch(n_heads, dtype):
    ours, theirs = pair(dtype, n_heads)
    assert_module_parity(
        ours, theirs, ours, lambda x: theirs(x, x, x)[0], torch.randn(2, 5, 8, dtype=dtype)
    )


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_weights_of_each_head_equal_torchs(is_causal, dtype):
    ours, theirs = pair(dtype)
    x, mask = torch.randn(2, 5, 8, dtype=dtype), padding_mask([5, 3], 5)
    _, weights = ours(x, mask=mask, is_causal=is_causal, need_weights=True)
    _, expected = theirs(
        x, x, x,
        key_padding_mask=~mask[:, 0],
        attn_mask=~causal_mask(5) if is_causal else None,
        average_attn_weights=False,
    )
    assert_same(weights, expected)


@pytest.mark.parametrize("shape", [(5, 5), (1, 5), (2, 5, 5), (2, 1, 5), (2, 4, 5, 5), (2, 1, 1, 5)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_a_mask_of_any_shape_means_the_same_with_weights_and_without(shape, is_causal):
    attention, x = randomize(MultiHeadAttention(8, 4)), torch.randn(2, 5, 8)
    mask = torch.rand(shape) < 0.7
    output, _ = attention(x, mask=mask, is_causal=is_causal, need_weights=True)
    assert_same(attention(x, mask=mask, is_causal=is_causal), output)


@pytest.mark.parametrize("shape", [(5, 5), (2, 5, 5), (2, 4, 5, 5)])
def test_no_head_attends_where_the_mask_is_false(shape):
    mask = torch.rand(shape) < 0.5
    _, weights = randomize(MultiHeadAttention(8, 4))(torch.randn(2, 5, 8), mask=mask, need_weights=True)
    mask = mask[:, None] if mask.dim() == 3 else mask
    assert not weights[~mask.expand(2, 4, 5, 5)].any()


def test_is_causal_is_the_causal_mask():
    attention, x = randomize(MultiHeadAttention(8, 2)), torch.randn(2, 5, 8)
    assert_same(attention(x, is_causal=True), attention(x, mask=causal_mask(5)))


def test_a_position_that_may_attend_to_nothing_gets_the_bias_of_the_output():
    attention = randomize(MultiHeadAttention(8, 2))
    output = attention(torch.randn(2, 5, 8), mask=padding_mask([5, 0], 5))
    assert_same(output[1], attention.out_proj.bias.expand(5, 8))


def test_the_context_is_x_itself_where_none_is_given():
    attention, x = randomize(MultiHeadAttention(8, 2)), torch.randn(2, 5, 8)
    assert_same(attention(x), attention(x, x))


def head_by_head(attention, x):
    "Concat(head_1, ..., head_h) W_o as the paper writes it, one head and one text at a time."
    d_k = x.shape[-1] // attention.n_heads
    w_q, w_k, w_v = attention.in_proj_weight.chunk(3)
    b_q, b_k, b_v = attention.in_proj_bias.chunk(3)
    heads = []
    for i in range(attention.n_heads):
        own = slice(i * d_k, (i + 1) * d_k)
        q, k, v = (x @ w[own].T + b[own] for w, b in ((w_q, b_q), (w_k, b_k), (w_v, b_v)))
        heads.append((q @ k.T / math.sqrt(d_k)).softmax(-1) @ v)
    return torch.cat(heads, dim=-1) @ attention.out_proj.weight.T + attention.out_proj.bias


def test_equals_the_paper_head_by_head():
    attention = randomize(MultiHeadAttention(8, 4)).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    assert_same(attention(x), torch.stack([head_by_head(attention, text) for text in x]))


@pytest.mark.parametrize("bias, count", [(True, 4 * 8 * 8 + 4 * 8), (False, 4 * 8 * 8)])
def test_it_has_four_matrices_and_on_request_four_biases(bias, count):
    assert sum(p.numel() for p in MultiHeadAttention(8, 2, bias=bias).parameters()) == count


def test_causal_attention_does_not_leak_and_plain_attention_does():
    attention, x = randomize(MultiHeadAttention(8, 2)), torch.randn(1, 5, 8)
    assert leak_test(attention, x)
    assert not leak_test(lambda x: attention(x, is_causal=True), x)


def test_causal_attention_with_padding_dropout_and_rotation_does_not_leak():
    attention = randomize(MultiHeadAttention(8, 2, 0.3, rotary=RotaryPositionalEncoding(5, 4))).train()
    x, mask = torch.randn(2, 5, 8), padding_mask([5, 3], 5)
    assert not leak_test(lambda x: attention(x, mask=mask, is_causal=True), x)


def test_without_rotation_it_cannot_tell_places_apart_and_with_it_can():
    x, order = torch.randn(1, 5, 8), torch.tensor([3, 1, 4, 0, 2])
    for rotary, same in ((None, True), (RotaryPositionalEncoding(5, 4), False)):
        attention = randomize(MultiHeadAttention(8, 2, rotary=rotary))
        assert torch.allclose(attention(x[:, order]), attention(x)[:, order], atol=1e-5) is same


def test_rotary_attention_sees_distances_only():
    attention = randomize(MultiHeadAttention(8, 2, rotary=RotaryPositionalEncoding(20, 4)))
    text = torch.randn(1, 14, 8)
    mask = torch.ones(1, 14, dtype=torch.bool)
    mask[:, :9] = False
    assert_same(attention(text, mask=mask)[:, 9:], attention(text[:, 9:]))


@pytest.mark.parametrize("rotary", [None, RotaryPositionalEncoding(4, 4)], ids=["plain", "rotary"])
@pytest.mark.parametrize("steps", [[1] * 6, [3, 1, 1, 1], [2, 2, 2], [4, 2], [6]])
def test_with_a_cache_pieces_give_what_the_whole_gives(steps, rotary):
    attention, x = randomize(MultiHeadAttention(8, 2, rotary=rotary)), torch.randn(2, 6, 8)
    cache = KVCache(6)
    pieces = [attention(piece, is_causal=True, cache=cache) for piece in x.split(steps, dim=1)]
    assert_same(torch.cat(pieces, dim=1), attention(x, is_causal=True))


def test_with_a_cache_weights_reach_back_to_the_first_position():
    attention, cache = randomize(MultiHeadAttention(8, 2)), KVCache(6)
    attention(torch.randn(1, 4, 8), is_causal=True, cache=cache)
    _, weights = attention(torch.randn(1, 2, 8), is_causal=True, need_weights=True, cache=cache)
    assert weights.shape == (1, 2, 2, 6)
    assert torch.equal(weights[0, 0] > 0, causal_mask(2, 6))


def test_dropout_acts_in_training_only():
    attention, x = randomize(MultiHeadAttention(8, 2, dropout=0.5)), torch.randn(2, 5, 8)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_dropout_keeps_the_expected_output():
    attention, x = randomize(MultiHeadAttention(8, 2, dropout=0.3)), torch.randn(1, 3, 8)
    mean = attention(x.expand(20_000, 3, 8)).mean(0, keepdim=True)
    torch.testing.assert_close(mean, attention.eval()(x), rtol=0, atol=0.05)


@pytest.mark.parametrize("d_model, n_heads", [(8, 3), (7, 2), (8, 16), (8, 0), (8, -2)])
def test_d_model_must_be_divisible_by_n_heads(d_model, n_heads):
    with pytest.raises(ValueError, match=f"got d_model={d_model} and n_heads={n_heads}"):
        MultiHeadAttention(d_model, n_heads)


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 5), (5,)], ids=str)
def test_a_mask_that_does_not_fit_is_refused_where_shapes_are_checked(shape):
    with pytest.raises(TypeCheckError, match="parameter 'mask'"):
        MultiHeadAttention(8, 2)(torch.randn(2, 5, 8), mask=torch.ones(shape, dtype=torch.bool))


def test_a_context_of_another_width_is_refused_where_shapes_are_checked():
    with pytest.raises(TypeCheckError, match="parameter 'context'"):
        MultiHeadAttention(8, 2)(torch.randn(2, 5, 8), torch.randn(2, 5, 6))


def test_a_source_in_the_cache_is_asked_as_if_it_were_there(dtype):
    attention = randomize(MultiHeadAttention(8, 2)).to(dtype)
    context, cache = torch.randn(2, 5, 8, dtype=dtype), KVCache(5)
    for x in torch.randn(3, 2, 4, 8, dtype=dtype):
        assert_same(attention(x, context, cache=cache), attention(x, context))
    assert len(cache) == 5  # once, however often it is asked


# What would be read as something else.

PADDING = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("need_weights", [False, True])
def test_a_mask_of_numbers_is_refused(dtype, need_weights, shapes_unchecked):
    with pytest.raises(TypeError, match="a mask must be boolean, True where attending is allowed, got torch"):
        MultiHeadAttention(16, 2)(torch.randn(2, 5, 16), mask=PADDING[:, None].to(dtype), need_weights=need_weights)


@pytest.mark.parametrize("shape", [(2, 5), (4, 5), (2, 5, 4), (2, 3, 5, 5), (3, 1, 5), (5,) * 5])
def test_a_mask_that_does_not_fit_is_refused(shape, shapes_unchecked):
    with pytest.raises(ValueError, match="does not fit 2 sequences, 2 heads, 5 queries and 5 keys: give"):
        MultiHeadAttention(16, 2)(torch.randn(2, 5, 16), mask=torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(5, 16), (16,), (2, 5, 8), (1, 2, 5, 16)])
def test_a_layer_refuses_what_is_no_batch_of_sequences(shape, shapes_unchecked):
    with pytest.raises(ValueError, match="takes .batch, seq, d_model. with d_model=16, got shape"):
        MultiHeadAttention(16, 1)(torch.randn(shape))


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_row_without_any_key_passes_anomaly_detection_and_gets_no_gradient(need_weights):
    x, mask = torch.randn(2, 5, 16, requires_grad=True), torch.ones(2, 5, 5, dtype=torch.bool)
    mask[0, 2] = False
    layer = MultiHeadAttention(16, 2, bias=False)
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        output = layer(x, mask=mask, need_weights=need_weights)
        output = output[0] if need_weights else output
        output[0, 2].sum().backward()
    assert output[0, 2].eq(0).all() and x.grad.eq(0).all()
