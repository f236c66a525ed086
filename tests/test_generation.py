"Generation: the cache changes nothing, filters keep exactly what they should, and the model comes back as it was."

import math
from itertools import pairwise

import pytest
import torch
from helpers import assert_same, small_language_model
from hypothesis import assume, given
from hypothesis import strategies as st

from transformer_nb.config.model import PARTS
from transformer_nb.generation import NextTokenLogits, generate, sample_next_token, top_k_filter, top_p_filter
from transformer_nb.inference.cache import KVCache
from transformer_nb.inference.prompts import pad_left
from transformer_nb.transformer import LanguageModel, TransformerConfig

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
