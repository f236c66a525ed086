"Generation: the cache changes nothing, filters keep exactly what they should, and the model comes back as it was."

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers
from helpers import assert_same, one_line, small_config, small_encoder_decoder, small_language_model
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import transformer_nb.generation
from transformer_nb.config.model import PARTS
from transformer_nb.convert import from_huggingface
from transformer_nb.embeddings import TokenEmbedding
from transformer_nb.generation import NextTokenLogits, generate, sample_next_token, top_k_filter, top_p_filter
from transformer_nb.inference.cache import KVCache
from transformer_nb.inference.prompts import pad_left
from transformer_nb.transformer import Encoder, EncoderDecoder, LanguageModel, TransformerConfig

norm_first = pytest.mark.parametrize("norm_first", [True, False], ids=["pre-norm", "post-norm"])
positions = pytest.mark.parametrize("positions", PARTS["positions"])
prompts = pytest.mark.parametrize(
    "shape", [(1,), (5,), (8,), (12,), (1, 3), (3, 5), (2, 12)], ids=str
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def indices(*shape):
    return torch.randint(0, 13, shape)


# The cache.


@positions
@norm_first
@prompts
@pytest.mark.parametrize("temperature", [0, 1.0], ids=["greedy", "sampled"])
def test_with_a_cache_the_tokens_are_the_same(norm_first, positions, shape, temperature):
    model, prompt = small_language_model(norm_first=norm_first, positions=positions), indices(*shape)
    plain, cached = (
        generate(model, prompt, 12, temperature, use_cache=use_cache, generator=seeded())
        for use_cache in (False, True)
    )
    assert torch.equal(plain, cached)


@positions
@norm_first
@pytest.mark.parametrize("steps", [[1] * 8, [3, 1, 4], [8]], ids=str)
def test_with_a_cache_the_logits_are_the_same(norm_first, positions, steps):
    model, ids = small_language_model(norm_first=norm_first, positions=positions), indices(2, 8)
    cache = [KVCache(8) for _ in range(model.config.n_layers)]
    pieces = [model(piece, cache=cache) for piece in ids.split(steps, dim=1)]
    assert_same(torch.cat(pieces, dim=1), model(ids))


def test_a_mask_reaches_back_through_the_cache():
    model, ids, mask = small_language_model(), indices(2, 8), torch.rand(2, 1, 8) < 0.6
    cache = [KVCache(8) for _ in range(model.config.n_layers)]
    pieces = [
        model(ids[:, start:end], mask[..., :end], cache) for start, end in pairwise([0, 3, 4, 8])
    ]
    assert_same(torch.cat(pieces, dim=1), model(ids, mask))


def count_positions(model):
    "How many positions each call of the model computes."
    counts = []
    model.register_forward_pre_hook(lambda module, args: counts.append(args[0].shape[1]))
    return counts


def test_with_a_cache_each_position_is_computed_once():
    model = small_language_model()
    counts = count_positions(model)
    generate(model, indices(3), 5)
    assert counts == [3, 1, 1, 1, 1]


def test_beyond_a_block_the_model_sees_the_last_block():
    model = small_language_model()
    counts = count_positions(model)
    generate(model, indices(6), 5)
    assert counts == [6, 1, 1, 8, 8]


def test_a_cache_gives_back_what_it_was_given():
    cache, k, v = KVCache(6), torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    for start, end in pairwise([0, 2, 3, 5]):
        keys, values = cache.update(k[:, :, start:end], v[:, :, start:end])
        assert len(cache) == end
        assert torch.equal(keys, k[:, :, :end]) and torch.equal(values, v[:, :, :end])


def test_a_full_cache_says_what_it_holds():
    cache = KVCache(4)
    cache.update(*torch.zeros(2, 1, 1, 3, 2))
    with pytest.raises(ValueError, match="a cache of 4 positions cannot hold 5"):
        cache.update(*torch.zeros(2, 1, 1, 2, 2))


# What generate returns.


@prompts
@pytest.mark.parametrize("max_new_tokens", [0, 1, 20])
def test_the_prompt_comes_back_with_new_tokens_behind_it(shape, max_new_tokens):
    prompt = indices(*shape)
    text = generate(small_language_model(), prompt, max_new_tokens)
    assert text.shape == (*shape[:-1], shape[-1] + max_new_tokens)
    assert torch.equal(text[..., : shape[-1]], prompt)
    assert text.dtype == torch.int64 and 0 <= text.min() and text.max() < 13


def test_greedy_takes_the_most_probable_token_of_the_last_block_each_time():
    model, text = small_language_model(), indices(1, 3)
    expected = text
    for _ in range(12):
        best = model(expected[:, -8:])[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat((expected, best), dim=1)
    assert torch.equal(generate(model, text, 12, temperature=0), expected)


def test_greedy_draws_no_random_number():
    before = torch.get_rng_state()
    generate(small_language_model(), torch.zeros(1, dtype=torch.long), 5, temperature=0)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_texts_of_a_batch_do_not_influence_each_other():
    model, prompts = small_language_model(), indices(3, 5)
    batch = generate(model, prompts, 12, temperature=0)
    alone = [generate(model, prompt, 12, temperature=0) for prompt in prompts]
    assert torch.equal(batch, torch.stack(alone))


def test_top_k_of_one_is_greedy():
    model, prompt = small_language_model(), indices(5)
    assert torch.equal(generate(model, prompt, 12, top_k=1), generate(model, prompt, 12, temperature=0))


def test_a_tiny_top_p_is_greedy():
    model, prompt = small_language_model(), indices(5)
    assert torch.equal(generate(model, prompt, 12, top_p=1e-6), generate(model, prompt, 12, temperature=0))


def test_the_same_seed_gives_the_same_text_and_another_seed_another():
    model, prompt = small_language_model(), indices(5)
    first, again, other = (generate(model, prompt, 30, 3.0, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_without_a_generator_torchs_own_is_drawn_from():
    model, prompt = small_language_model(), indices(5)
    texts = []
    for _ in range(2):
        torch.manual_seed(7)
        texts.append(generate(model, prompt, 30, 3.0))
    assert torch.equal(*texts)


def test_a_generated_text_can_be_trained_on():
    model = small_language_model()
    model(generate(model, indices(1, 3), 4)).sum().backward()
    assert model.head.weight.grad.any()


# What generate leaves behind.


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored(training):
    model = small_language_model().train(training)
    generate(model, indices(3), 2)
    assert all(module.training is training for module in model.modules())


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored_after_an_error(training):
    model = small_language_model().train(training)
    with pytest.raises(IndexError):
        generate(model, torch.tensor([99]), 2)
    assert all(module.training is training for module in model.modules())


def test_the_prompt_is_left_as_it_was():
    prompt = indices(2, 5)
    before = prompt.clone()
    generate(small_language_model(), prompt, 4)
    assert torch.equal(prompt, before)


def test_the_parameters_are_left_as_they_were_and_without_gradient():
    model = small_language_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generate(model, indices(2, 5), 12)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_dropout_is_off_while_generating():
    model, prompt = small_language_model(dropout=0.5, attention_dropout=0.5), indices(5)
    texts = [generate(model.train(training), prompt, 12, temperature=0) for training in (True, False)]
    assert torch.equal(*texts)


@positions
def test_a_model_that_has_generated_can_be_trained(positions):
    model = small_language_model(positions=positions)
    generate(model, indices(2, 5), 12)
    model(indices(2, 8)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


# Filters, against plain Python.

logits_lists = st.lists(st.integers(-60, 60), min_size=1, max_size=12, unique=True).map(
    lambda numbers: [number / 10 for number in numbers]
)


def kept(filtered):
    "The indices of what a filter has left possible."
    return set(filtered.isfinite().nonzero()[:, -1].tolist())


def assert_the_rest_is_untouched(filtered, logits):
    assert torch.equal(filtered[filtered.isfinite()], logits[filtered.isfinite()])
    assert (filtered[~filtered.isfinite()] == -math.inf).all()


@given(logits_lists, st.integers(1, 15))
def test_top_k_keeps_exactly_the_k_largest(values, k):
    logits = torch.tensor(values)
    filtered = top_k_filter(logits, k)
    ranking = sorted(range(len(values)), key=lambda i: -values[i])
    assert kept(filtered) == set(ranking[:k])
    assert_the_rest_is_untouched(filtered, logits)


def test_top_k_keeps_all_that_tie_with_the_last():
    assert kept(top_k_filter(torch.tensor([1.0, 3.0, 2.0, 2.0, 0.0]), 2)) == {1, 2, 3}


def nucleus(values, p):
    "The fewest tokens with probability p, and how near to p any sum on the way came."
    ranking = sorted(range(len(values)), key=lambda i: -values[i])
    total, so_far, nearest, chosen = sum(map(math.exp, values)), 0.0, math.inf, set()
    for i in ranking:
        if so_far < p:
            chosen.add(i)
        so_far += math.exp(values[i]) / total
        nearest = min(nearest, abs(so_far - p))
    return chosen, nearest


@given(logits_lists, st.floats(0.001, 0.999))
def test_top_p_keeps_exactly_the_fewest_tokens_that_have_p(values, p):
    chosen, nearest = nucleus(values, p)
    assume(nearest > 1e-5)
    logits = torch.tensor(values)
    filtered = top_p_filter(logits, p)
    assert kept(filtered) == chosen
    assert_the_rest_is_untouched(filtered, logits)


@pytest.mark.parametrize("p, expected", [(0.4, {0}), (0.5, {0}), (0.51, {0, 1}), (0.75, {0, 1}), (0.8, {0, 1, 2})])
def test_top_p_stops_as_soon_as_p_is_reached(p, expected):
    assert kept(top_p_filter(torch.tensor([0.5, 0.25, 0.125, 0.125]).log(), p)) >= expected
    assert kept(top_p_filter(torch.tensor([0.5, 0.25, 0.15, 0.1]).log(), p)) == expected


def test_top_p_of_one_keeps_all():
    assert kept(top_p_filter(torch.randn(10), 1.0)) == set(range(10))


def test_top_p_of_almost_nothing_keeps_the_most_probable():
    assert kept(top_p_filter(torch.tensor([0.1, 0.3, 0.2]), 1e-9)) == {1}


@pytest.mark.parametrize("keep", [lambda x: top_k_filter(x, 3), lambda x: top_p_filter(x, 0.6)], ids=["top-k", "top-p"])
def test_each_text_of_a_batch_is_filtered_by_itself(keep):
    logits = torch.randn(4, 9)
    assert torch.equal(keep(logits), torch.stack([keep(row) for row in logits]))


# Choosing.


def frequencies(n, logits, **options):
    "How often each token is chosen in n draws."
    rows = torch.tensor(logits).expand(n, -1)
    return sample_next_token(rows, **options, generator=seeded()).flatten().bincount(minlength=len(logits))


def chi_square(observed, probabilities):
    "How far the counts are from what is expected, on the tokens that are possible."
    assert not observed[probabilities == 0].any()
    expected = (observed.sum() * probabilities)[probabilities > 0]
    return ((observed[probabilities > 0] - expected) ** 2 / expected).sum()


LOGITS = [0.0, 1.0, -1.0, 2.0, 0.5]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_from_the_softmax_of_logits_over_temperature(temperature):
    probabilities = (torch.tensor(LOGITS) / temperature).softmax(-1)
    observed = frequencies(20_000, LOGITS, temperature=temperature)
    assert chi_square(observed, probabilities) < 30  # with 4 degrees of freedom: once in 200 000 times


def test_behind_top_k_the_kept_tokens_keep_their_proportions():
    probabilities = torch.tensor([-math.inf, 1.0, -math.inf, 2.0, 0.5]).softmax(-1)
    assert chi_square(frequencies(20_000, LOGITS, top_k=3), probabilities) < 30


def test_behind_top_p_the_kept_tokens_keep_their_proportions():
    probabilities = torch.tensor([-math.inf, 1.0, -math.inf, 2.0, -math.inf]).softmax(-1)
    assert chi_square(frequencies(20_000, LOGITS, top_p=0.7), probabilities) < 30


def test_temperature_acts_before_top_p():
    logits = torch.tensor([0.6, 0.3, 0.1]).log().tolist()
    assert set(frequencies(2000, logits, top_p=0.7).nonzero().flatten().tolist()) == {0, 1}
    assert set(frequencies(2000, logits, top_p=0.7, temperature=0.3).nonzero().flatten().tolist()) == {0}


def test_temperature_zero_takes_the_most_probable():
    logits = torch.randn(50, 7)
    assert torch.equal(sample_next_token(logits, temperature=0), logits.argmax(-1, keepdim=True))


@pytest.mark.parametrize("temperature", [1e-4, 1e-30])
def test_a_tiny_temperature_is_greedy(temperature):
    logits = torch.randn(50, 7)
    assert torch.equal(sample_next_token(logits, temperature), logits.argmax(-1, keepdim=True))


def test_choose_leaves_the_logits_as_they_were():
    logits = torch.randn(3, 7)
    before = logits.clone()
    sample_next_token(logits, 0.7, top_k=3, top_p=0.5)
    assert torch.equal(logits, before)


# What is refused.


@pytest.mark.parametrize(
    "option, value, received",
    [
        ("max_new_tokens", -1, "max_new_tokens must be at least 0, got -1"),
        ("temperature", -0.5, "temperature must be at least 0, got -0.5"),
        ("temperature", math.nan, "temperature must be at least 0, got nan"),
        ("top_k", 0, "top_k must be at least 1, got 0"),
        ("top_k", -3, "top_k must be at least 1, got -3"),
        ("top_p", 0.0, "top_p must be above 0 and at most 1, got 0.0"),
        ("top_p", 1.5, "top_p must be above 0 and at most 1, got 1.5"),
        ("top_p", math.nan, "top_p must be above 0 and at most 1, got nan"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(option, value, received):
    options = {"max_new_tokens": 3, option: value}
    with pytest.raises(ValueError, match=received):
        generate(small_language_model(), indices(3), **options)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (1, 2, 3), ()], ids=str)
def test_a_prompt_needs_a_token(shape, shapes_unchecked):
    with pytest.raises(ValueError, match="at least one token, got shape"):
        generate(small_language_model(), torch.zeros(shape, dtype=torch.long), 3)


def test_a_prompt_from_another_vocabulary_is_named():
    with pytest.raises(IndexError, match="indices must be 0 to 12, got 4 to 13"):
        generate(small_language_model(), torch.tensor([4, 13]), 3)


# Several prompts at once, and an end.


@positions
@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
def test_prompts_of_different_length_go_on_as_each_would_alone(positions, use_cache):
    model = small_language_model(positions=positions)
    prompts = [indices(length) for length in (3, 1, 7, 12)]  # the window holds 8
    together = generate(model, prompts, 9, temperature=0, use_cache=use_cache)
    for prompt, text in zip(prompts, together, strict=True):
        assert text.equal(generate(model, prompt, 9, temperature=0))


@positions
def test_prompts_of_different_length_have_the_logits_that_each_has_alone(positions, dtype):
    model = small_language_model(positions=positions).to(dtype)
    tolerance = 1e-10 if dtype == torch.float64 and positions != "rotary" else 1e-5  # the rotation is of float32
    prompts = [indices(length) for length in (3, 1, 6)]
    text, padding = pad_left(prompts, torch.device("cpu"))
    for use_cache in (True, False):
        read = NextTokenLogits(model, padding, use_cache)
        first = read(text)
        longer = torch.cat((text, indices(3, 1)), dim=1)
        for row, (prompt, pad) in enumerate(zip(prompts, padding)):
            assert longer[row, pad:-1].equal(prompt)
            assert first[row].allclose(model(prompt[None])[0, -1], rtol=tolerance, atol=tolerance)
        second = read(longer)
        for row, pad in enumerate(padding):
            assert second[row].allclose(model(longer[row : row + 1, pad:])[0, -1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_text_ends_with_its_stop(temperature):
    model = small_language_model()
    prompts = [indices(3), indices(5)]
    free = generate(model, prompts, 30, temperature, generator=seeded())
    ended = generate(model, prompts, 30, temperature, generator=seeded(), stop=4)
    for prompt, whole, cut in zip(prompts, free, ended, strict=True):
        new = whole[len(prompt) :].tolist()
        expected = new[: new.index(4) + 1] if 4 in new else new
        assert cut.tolist() == prompt.tolist() + expected


def test_the_rows_of_a_tensor_are_filled_with_the_stop():
    model = small_language_model()
    prompt = indices(1, 3)
    free = generate(model, prompt, 6, temperature=0)[0]
    stop = free[4].item()  # the second token that it writes
    both = torch.cat((prompt, indices(1, 3)))
    rows = generate(model, both, 6, temperature=0, stop=stop)
    first = (free[3:] == stop).nonzero()[0].item() + 3
    assert rows[0, : first + 1].equal(free[: first + 1]) and (rows[0, first:] == stop).all()
    assert generate(model, prompt, 6, temperature=0, stop=stop).shape[1] == first + 1  # nobody goes on: it ends


def test_a_stop_on_which_all_agree_ends_the_loop_early():
    model = small_language_model()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    prompt = indices(4)
    token = generate(model, prompt, 1, temperature=0)[-1].item()
    calls.clear()
    assert len(generate(model, prompt, 50, temperature=0, stop=token)) == 5 and len(calls) == 1


def test_no_prompts_and_empty_ones_are_refused():
    model = small_language_model()
    for wrong, message in (([], "there is no prompt"), ([indices(3), indices(0)], r"at least one token, got shape \(0,\)")):
        with pytest.raises(ValueError, match=message):
            generate(model, wrong, 5)


def test_a_cache_can_be_reordered():
    cache = KVCache(4)
    k, v = torch.randn(3, 2, 2, 5), torch.randn(3, 2, 2, 5)
    cache.update(k, v)
    cache.reorder(torch.tensor([2, 0, 2, 2]))
    keys, values = cache.entries()
    assert keys.equal(k[[2, 0, 2, 2]]) and values.equal(v[[2, 0, 2, 2]]) and len(cache) == 2


# The token before, and the last position.


def test_a_token_without_its_predecessor_is_refused():
    model, cache = small_language_model(embedding="bigram"), [KVCache(8), KVCache(8)]
    model(indices(1, 3), cache=cache)
    with pytest.raises(ValueError, match="begin at position 3.*give it as `before`"):
        model(indices(1, 1), cache=cache)


def test_the_logits_at_the_last_position_alone():
    model, ids = small_language_model(embedding="bigram"), indices(2, 7)
    torch.testing.assert_close(model(ids, last_only=True), model(ids)[:, -1:])


# Prompts and numbers as users have them.

PROMPTS = {
    "list": [3, 1, 2],
    "tuple": (3, 1, 2),
    "range": range(3),
    "numpy": np.array([3, 1, 2], dtype=np.int32),
    "numpy uint16": np.array([3, 1, 2], dtype=np.uint16),
    "numpy rows": np.array([[3, 1], [2, 2]]),
    "uint8": torch.tensor([3, 1, 2], dtype=torch.uint8),
    "int32 rows": torch.tensor([[3, 1], [2, 2]], dtype=torch.int32),
    "strided": torch.arange(6)[::2],
    "numbers of NumPy": [np.int64(3), np.uint8(1)],
    "lists": [[3, 1, 2], [4]],
    "mixed": [np.array([3, 1]), torch.tensor([4], dtype=torch.int16), (5, 6, 7)],
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_come_in_any_form_of_whole_numbers(name, shapes_unchecked):
    model, given_ids = small_language_model(), PROMPTS[name]
    result = generate(model, given_ids, 4, temperature=0)
    several = name in ("lists", "mixed")
    texts = result if several else [result] if result.dim() == 1 else list(result)
    rows = given_ids if several or len(texts) > 1 else [given_ids]
    assert isinstance(result, list) == several and len(texts) == len(rows)
    for row, text in zip(rows, texts, strict=True):
        row = [int(i) for i in row]
        assert text.dtype == torch.int64 and text.tolist()[: len(row)] == row
        assert text.equal(generate(model, torch.tensor(row), 4, temperature=0))


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        (torch.tensor([1.0, 2.0]), TypeError, "whole numbers, got torch.float32"),
        (torch.tensor([True]), TypeError, "whole numbers, got torch.bool"),
        (np.array([0.5]), TypeError, "whole numbers, got float64"),
        ([0.5, 1], TypeError, "whole numbers, got float64"),
        ("to be", TypeError, "got the text 'to be': encode it first"),
        (["to be", "or"], TypeError, "got the text 'to be': encode it first"),
        ([None, 1], TypeError, "whole numbers, got object"),
        ([True, False], TypeError, "whole numbers, got bool"),
        (None, TypeError, "a sequence of token ids, got NoneType"),
        (7, TypeError, "a sequence of token ids, got int"),
        ([[1, 2], [[3]]], ValueError, "at least one token, got shape"),
        ([1, [2, 3]], (TypeError, ValueError), "token"),
        ([], ValueError, "there is no prompt"),
        ([[]], ValueError, r"at least one token, got shape \(0,\)"),
        ([-1], IndexError, "indices must be 0 to 12, got -1 to -1"),
        ([[1], [2, 13]], IndexError, "indices must be 0 to 12, got 1 to 13"),
    ],
    ids=str,
)
def test_a_prompt_that_is_none_is_refused_in_one_line(wrong, error, message, shapes_unchecked):
    with pytest.raises(error, match=message) as caught:
        generate(small_language_model(), wrong, 3)
    assert one_line(caught)


def test_numbers_come_from_any_library(shapes_unchecked):
    model = small_language_model()
    expected = generate(model, [3, 1], 5, 0.7, 4, 0.9, generator=seeded(), stop=[4, 7], min_p=0.05)
    numbers = np.int64(5), torch.tensor(0.7), torch.tensor(4), np.float32(0.9)
    for stop in (torch.tensor([4, 7]), np.array([7, 4]), (np.int32(4), torch.tensor(7)), {4, 7}):
        assert generate(model, [3, 1], *numbers, generator=seeded(), stop=stop, min_p=np.float64(0.05)).equal(expected)
    assert generate(model, [3, 1], torch.tensor(0)).tolist() == [3, 1]


@pytest.mark.parametrize(
    "options, error, message",
    [
        (dict(max_new_tokens=2.5), TypeError, "max_new_tokens must be a whole number, got 2.5"),
        (dict(max_new_tokens=None), TypeError, "max_new_tokens must be a whole number, got None"),
        (dict(max_new_tokens=torch.tensor([1, 2])), TypeError, "max_new_tokens must be a whole number"),
        (dict(temperature=math.inf), ValueError, "temperature must be finite, got inf"),
        (dict(temperature="hot"), TypeError, "temperature must be a number, got 'hot'"),
        (dict(top_k=True), TypeError, "top_k must be a whole number, got True"),
        (dict(top_k=2.5), TypeError, "top_k must be a whole number, got 2.5"),
        (dict(min_p=-0.1), ValueError, "min_p must be at least 0 and at most 1, got -0.1"),
        (dict(min_p=math.nan), ValueError, "min_p must be at least 0 and at most 1, got nan"),
        (dict(repetition_penalty=0), ValueError, "repetition_penalty must be above 0, got 0.0"),
        (dict(block_size=0), ValueError, "block_size must be at least 1, got 0"),
        (dict(generator=3), TypeError, "generator must be a torch.Generator, got 3"),
        (dict(stop="."), TypeError, "`stream_text` stops at strings"),
        (dict(stop=[3, None]), TypeError, "a stop token must be a whole number, got None"),
        (dict(stop=-1), ValueError, "a stop token must be at least 0, got -1"),
        (dict(stop=[4, 13]), ValueError, "cannot write stop token 13: its vocabulary is 0 to 12"),
    ],
    ids=str,
)
def test_an_option_of_the_wrong_kind_is_refused_in_one_line(options, error, message, shapes_unchecked):
    with pytest.raises(error, match=message) as caught:
        generate(small_language_model(), [1], **{"max_new_tokens": 3, **options})
    assert one_line(caught)


# Any module that maps ids to logits.


class Own(nn.Module):
    "Somebody's causal model, without a configuration: means of embeddings, and dropout."

    def __init__(self, **attributes):
        super().__init__()
        self.table, self.dropout, self.head = nn.Embedding(13, 8), nn.Dropout(0.5), nn.Linear(8, 13)
        self.longest = 0
        vars(self).update(attributes)

    def forward(self, ids):
        if not torch.compiler.is_compiling():
            self.longest = max(self.longest, ids.shape[1])
        x = self.table(ids).cumsum(1) / torch.arange(1, ids.shape[1] + 1)[:, None]
        return self.head(self.dropout(x))


@pytest.mark.parametrize("sizes", [dict(attributes={}, given={}, sees=12), dict(attributes=dict(block_size=5), given={}, sees=5), dict(attributes={}, given=dict(block_size=4), sees=4)], ids=["no size", "its size", "a given size"])
def test_any_module_may_generate(sizes):
    model = Own(**sizes["attributes"]).train()
    prompts = [indices(n) for n in (4, 1, 3)]
    texts = generate(model, prompts, 8, temperature=0, **sizes["given"])
    assert model.training and model.longest == min(sizes["sees"], 11)
    model.eval()
    for prompt, text in zip(prompts, texts, strict=True):
        for length in range(len(prompt), len(text)):
            assert text[length] == model(text[None, max(0, length - sizes["sees"]) : length])[0, -1].argmax()


def wrapped(name, model):
    if name == "compiled":
        return torch.compile(model, backend="eager")
    return {"DataParallel": nn.DataParallel, "AveragedModel": torch.optim.swa_utils.AveragedModel}[name](model)


@pytest.mark.parametrize("name", ["DataParallel", "AveragedModel", "compiled"])
def test_a_wrapped_model_writes_what_the_model_writes(name):
    model = small_language_model(dropout=0.5).train()
    counts = count_positions(model)
    outer = wrapped(name, wrapped("DataParallel", model)).train()
    expected = generate(model, [[1, 2], [3]], 12, temperature=0)
    assert all(a.equal(b) for a, b in zip(generate(outer, [[1, 2], [3]], 12, temperature=0), expected, strict=True))
    assert name == "AveragedModel" or counts == 2 * counts[: len(counts) // 2] and all(module.training for module in outer.modules())


def test_a_model_with_a_forward_of_its_own_is_called_with_ids_alone():
    class Doubled(LanguageModel):
        def forward(self, ids):
            return 2 * super().forward(ids)

    model = Doubled(small_config())
    assert generate(model, [[1, 2, 3], [4]], 12, temperature=0)[1].equal(generate(model, [4], 12, temperature=0))


def test_a_module_around_a_model_sees_as_much_as_the_model():
    model = small_language_model()
    expected = generate(model, [[1, 2, 3], [4]], 12, temperature=0)
    texts = generate(nn.Sequential(model), [[1, 2, 3], [4]], 12, temperature=0)
    assert all(a.equal(b) for a, b in zip(expected, texts, strict=True))


def test_an_exported_program_generates_and_stays_in_its_mode():
    model = Own().eval()
    length = torch.export.Dim("length", min=2, max=64)
    program = torch.export.export(model, (indices(1, 5),), dynamic_shapes={"ids": {1: length}}).module()
    assert generate(program, [1, 2], 9, temperature=0).equal(generate(model, [1, 2], 9, temperature=0))


def test_an_embedding_that_was_made_larger_counts():
    model = small_language_model()
    model.embedding.tokens, model.head = TokenEmbedding(20, 8), nn.Linear(8, 20)
    assert len(generate(model, [19, 3], 5, stop=17)) > 2
    with pytest.raises(IndexError, match="indices must be 0 to 19, got 3 to 20"):
        generate(model, [20, 3], 5)


def test_a_model_without_parameters_generates_where_the_prompt_is():
    class Successor(nn.Module):
        def forward(self, ids):
            return nn.functional.one_hot((ids + 1) % 13, 13).float()

    assert generate(Successor(), [10], 4, temperature=0).tolist() == [10, 11, 12, 0, 1]


class Returns(nn.Module):
    def __init__(self, result):
        super().__init__()
        self.result = result

    def forward(self, ids):
        return self.result(ids)


def not_causal():
    model = small_language_model()
    model.is_causal = False
    return model


@pytest.mark.parametrize(
    "make, error, message",
    [
        (small_encoder_decoder, ValueError, "use greedy_decode or beam_search"),
        (lambda: nn.DataParallel(small_encoder_decoder()), ValueError, "use greedy_decode or beam_search"),
        (lambda: Encoder(small_config()), ValueError, "returns vectors, not logits"),
        (not_causal, ValueError, "is not causal .*give a causal language model"),
        (lambda: LanguageModel(small_config()).to("meta"), ValueError, "on the meta device"),
        (lambda: len, TypeError, "must be a torch.nn.Module, got builtin_function_or_method"),
        (lambda: Returns(lambda ids: (torch.zeros(1, 2, 13), None)), TypeError, "must return logits .B, T, vocab., got tuple: wrap it"),
        (lambda: Returns(lambda ids: torch.zeros(1, 13)), ValueError, r"got torch.float32 of shape \(1, 13\)"),
        (lambda: Returns(lambda ids: ids[..., None]), ValueError, "got torch.int64 of shape"),
        (lambda: nn.Embedding(2, 2), IndexError, "no row for an index or a position, got 2 tokens, 1 to 2: check its vocabulary, or give block_size"),
        (lambda: GPT2LMHeadModel(GPT2Config(vocab_size=13, n_positions=8, n_layer=1, n_head=1, n_embd=4)), TypeError, "got CausalLMOutput"),
    ],
)
def test_a_model_that_cannot_continue_a_text_is_refused_in_one_line(make, error, message, shapes_unchecked):
    with pytest.raises(error, match=message) as caught:
        generate(make(), [1, 2], 3)
    assert one_line(caught)


# Every precision and temperature.

PRECISIONS = pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)


@PRECISIONS
@pytest.mark.parametrize("temperature", [1e-4, 1e-38, 1e-300, 5e-324])
def test_a_small_temperature_is_greedy_in_every_precision(precision, temperature):
    logits = (100 * torch.randn(50, 7)).to(precision)
    logits[::2, 3] = -math.inf
    assert sample_next_token(logits, temperature).equal(logits.argmax(-1, keepdim=True))
    if precision == torch.float16:
        logits = torch.tensor([[65504.0, 65472.0, -65504.0]], dtype=precision)
        assert sample_next_token(logits, temperature, top_k=2, top_p=0.9, min_p=0.1).item() == 0


@PRECISIONS
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1e300])
def test_tokens_are_drawn_from_the_same_distribution_in_every_precision(precision, temperature):
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, -math.inf], dtype=precision)
    probabilities = (logits.double().masked_fill(logits.isinf(), -1e308) / temperature).softmax(-1)
    probabilities[4] = 0
    probabilities /= probabilities.sum()
    observed = sample_next_token(logits.expand(20_000, -1), temperature, generator=seeded()).flatten().bincount(minlength=5)
    assert chi_square(observed, probabilities) < 30


@PRECISIONS
def test_top_p_of_one_removes_nothing_from_a_large_vocabulary(precision):
    logits = torch.zeros(1, 100_000).to(precision)
    logits[0, 0] = 8.0
    logits = logits.expand(2000, -1)[:1]
    seen = []

    def remember(probability, generator):
        seen.append((probability > 0).sum().item())
        return probability.argmax(-1, keepdim=True)

    original = transformer_nb.generation.draw_token
    transformer_nb.generation.draw_token = remember
    try:
        sample_next_token(logits, top_p=1.0)
    finally:
        transformer_nb.generation.draw_token = original
    assert seen == [100_000]


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("value, says", [(math.nan, "are NaN"), (math.inf, r"are \+inf"), (-math.inf, "are minus infinity for all tokens")])
def test_logits_that_are_not_finite_are_named(value, says, temperature):
    class Overflows(Own):
        def forward(self, ids):
            return torch.full((*ids.shape, 13), value, dtype=torch.float16)

    with pytest.raises(ValueError, match=f"the logits of the next token {says}: check the weights and the precision of the model .torch.float16"):
        generate(Overflows(), [1], 3, temperature)


@PRECISIONS
def test_a_model_in_each_precision_generates(precision):
    model = small_language_model().to(precision)
    for temperature in (0, 1e-4, 1.0):
        text, log_p = generate(model, [[1, 2, 3], [4]], 12, temperature, top_k=20, top_p=0.9, generator=seeded(), return_log_probs=True)
        assert [len(row) for row in text] == [15, 13] and all(row.dtype in (torch.float32, torch.float64) and (row <= 0).all() for row in log_p)


# Log-probabilities.


@pytest.mark.parametrize("options", [{}, dict(temperature=0), dict(temperature=0.5, top_k=4, repetition_penalty=1.5), dict(use_cache=False)], ids=str)
def test_log_probabilities_are_those_of_the_model(options):
    model, prompts = small_language_model(), [indices(3), indices(5)]
    texts, log_p = generate(model, prompts, 12, generator=seeded(), stop=[4, 7], return_log_probs=True, **options)
    for prompt, text, values in zip(prompts, texts, log_p, strict=True):
        expected = [model(text[None, max(0, t - 8) : t])[0, -1].log_softmax(-1)[text[t]] for t in range(len(prompt), len(text))]
        assert_same(values, torch.stack(expected))
    rows, padded = generate(model, torch.stack([indices(3)] * 2), 12, generator=seeded(), stop=[4, 7], return_log_probs=True, **options)
    for row, values in zip(rows[:, 3:], padded, strict=True):
        stopped = torch.isin(row, torch.tensor([4, 7])).cumsum(0).roll(1)
        stopped[0] = 0
        assert (values[stopped > 0] == 0).all() and (values[stopped == 0] < 0).all()


def test_log_probabilities_have_the_form_of_the_prompt():
    model = small_language_model()
    assert [generate(model, prompt, 4, return_log_probs=True)[1].shape for prompt in ([1, 2], indices(3, 2))] == [(4,), (3, 4)]
    assert generate(model, [1, 2], 0, return_log_probs=True)[1].shape == (0,)
    values = generate(model, [1, 2], 4, return_log_probs=True)[1]
    assert not values.is_inference()


# As in the library transformers.


@pytest.fixture(scope="module")
def published():
    "A random GPT-2 of the other library, and the same model here."
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=61, n_positions=32, n_layer=2, n_head=2, n_embd=16, bos_token_id=0, eos_token_id=0, initializer_range=0.5)
    theirs = GPT2LMHeadModel(config).eval()
    return theirs, from_huggingface(theirs)


def their_rows(theirs, prompts, **options):
    "What the other library writes after prompts that are padded on the left."
    longest = max(map(len, prompts))
    ids = torch.stack([torch.cat((torch.full((longest - len(p),), 60), p)) for p in prompts])
    mask = torch.stack([torch.arange(longest) >= longest - len(p) for p in prompts]).long()
    with torch.no_grad():
        return theirs.generate(ids, attention_mask=mask, do_sample=False, pad_token_id=60, **options)[:, longest:]


@pytest.mark.parametrize("options", [{}, dict(repetition_penalty=1.3), dict(repetition_penalty=0.8)], ids=str)
@pytest.mark.parametrize("lengths", [(5,), (7, 1, 4)], ids=str)
def test_greedy_texts_are_those_of_transformers(published, lengths, options):
    theirs, ours = published
    prompts = [torch.randint(60, (length,)) for length in lengths]
    expected = their_rows(theirs, prompts, max_new_tokens=20, eos_token_id=None, **options)
    if "repetition_penalty" in options and len(prompts) > 1:  # which penalizes the padding too
        expected = torch.cat([their_rows(theirs, [prompt], max_new_tokens=20, eos_token_id=None, **options) for prompt in prompts])
    texts = generate(ours, prompts, 20, temperature=0, **options)
    for prompt, text, row in zip(prompts, texts, expected, strict=True):
        assert text[len(prompt) :].equal(row)


def test_texts_end_at_the_stop_tokens_of_transformers(published):
    theirs, ours = published
    prompts = [torch.randint(60, (length,)) for length in (7, 1, 4)]
    free = generate(ours, prompts, 20, temperature=0)
    stop = sorted({row[len(prompt) + 3 + i].item() for i, (row, prompt) in enumerate(zip(free, prompts))})
    expected = their_rows(theirs, prompts, max_new_tokens=20, eos_token_id=stop)
    for prompt, text, row in zip(prompts, generate(ours, prompts, 20, temperature=0, stop=stop), expected, strict=True):
        new = text[len(prompt) :]
        assert new.equal(row[: len(new)]) and (row[len(new) :] == 60).all() and new[-1].item() in stop


@pytest.mark.parametrize("penalty, temperature, top_k, top_p, min_p", [(1.0, 0.7, None, None, 0.1), (1.4, 1.5, 9, 0.8, 0.05), (0.7, 1.0, None, 0.9, 0.3), (2.0, 0.3, 20, None, None)])
def test_the_distribution_is_that_of_the_processors_of_transformers(penalty, temperature, top_k, top_p, min_p, monkeypatch):
    logits, ids = 3 * torch.randn(4, 40), torch.randint(0, 40, (4, 9))
    chain = [transformers.RepetitionPenaltyLogitsProcessor(penalty), transformers.TemperatureLogitsWarper(temperature)]
    chain += [transformers.TopKLogitsWarper(top_k)] if top_k else []
    chain += [transformers.TopPLogitsWarper(top_p)] if top_p else []
    chain += [transformers.MinPLogitsWarper(min_p)] if min_p else []
    expected = transformers.LogitsProcessorList(chain)(ids, logits).softmax(-1)
    seen = []
    monkeypatch.setattr(transformer_nb.generation, "draw_token", lambda p, generator: seen.append(p) or p.argmax(-1, keepdim=True))
    penalized = transformer_nb.generation.penalize_repetition(logits, ids, penalty)
    sample_next_token(penalized, temperature, top_k, top_p, min_p=min_p)
    assert seen[0].gt(0).equal(expected.gt(0))
    assert_same(seen[0], expected)


# What leaves generate may be used in training.


@positions
def test_tables_that_grew_while_generating_are_trained_through(positions):
    model = small_language_model(positions=positions, block_size=40 if positions == "learned" else 8).train()
    generate(model, indices(2, 5), 30, block_size=40)
    model(indices(2, 30)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_an_interrupted_update_leaves_a_cache_as_it_was(shapes_unchecked):
    cache, (k, v) = KVCache(8), torch.randn(2, 1, 2, 3, 4)
    cache.update(k, v)
    with pytest.raises(RuntimeError):
        cache.update(torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 5))  # the values do not fit
    assert len(cache) == 3 and cache.entries()[0].equal(k) and cache.entries()[1].equal(v)
