"Grouped-query attention: against a formula, head by head, in every option; cached, padded, compiled, observed, saved; and what is refused."

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, one_line, randomize, short_run, small_config, small_encoder_decoder, small_language_model, text_and_model
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compile import compiled

from transformer_nb import (
    GroupedQueryAttention,
    LanguageModel,
    MultiHeadAttention,
    TransformerConfig,
    activations,
    beam_search,
    count_parameters,
    generate,
    load_checkpoint,
    padding_mask,
    save_checkpoint,
    train,
)
from transformer_nb.config.model import PARTS
from transformer_nb.inference.cache import KVCache
from transformer_nb.interpret.activations import activation_names
from transformer_nb.interpret.inspection import inspect_model, switch_off
from transformer_nb.modern.attention import repeat_heads, sliding_window_mask
from transformer_nb.modern.parts import RMSNorm
from transformer_nb.positional_encoding import RotaryPositionalEncoding

GROUPED = dict(attention="grouped_query", n_heads=3, n_kv_heads=1, head_dim=6, positions="rotary", norm="rms", qk_norm=True)
MODELS = {
    "one head of keys": GROUPED,
    "two of four": dict(attention="grouped_query", n_heads=4, n_kv_heads=2, qkv_bias=True, bias=False, sliding_window=3),
    "windows by layer": {**GROUPED, "n_heads": 6, "n_kv_heads": 3, "sliding_window": [None, 2], "out_bias": False},
}
models = pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)


def by_formula(attention, x, mask):
    "softmax(q k^T / sqrt(d_k)) v for each query head by itself; rotations by complex numbers, norms by their definition."
    h, groups, d = attention.n_heads, attention.n_heads // attention.n_kv_heads, attention.d_k
    joined = x @ attention.in_proj_weight.T
    joined = joined if attention.in_proj_bias is None else joined + attention.in_proj_bias
    parts = joined.split(d, dim=-1)  # h queries, then the keys, then the values

    def prepared(vectors, norm):
        if isinstance(norm, RMSNorm):
            vectors = vectors / (vectors.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight
        if attention.rotary is not None:
            angle = torch.outer(torch.arange(x.shape[1]), 10_000.0 ** (-torch.arange(0, d, 2).double() / d))
            turned = torch.view_as_complex(vectors.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(torch.ones_like(angle), angle)
            vectors = torch.view_as_real(turned).flatten(-2)
        return vectors

    heads = []
    for i in range(h):
        q, k, v = prepared(parts[i], attention.q_norm), prepared(parts[h + i // groups], attention.k_norm), parts[h + attention.n_kv_heads + i // groups]
        scores = (q @ k.mT / math.sqrt(d)).masked_fill(~mask, -math.inf)
        heads.append(scores.softmax(-1) @ v)
    output = torch.cat(heads, -1) @ attention.out_proj.weight.T
    return output if attention.out_proj.bias is None else output + attention.out_proj.bias


@settings(max_examples=40, deadline=None)
@given(
    n_kv_heads=st.integers(1, 3), groups=st.integers(1, 3), head_dim=st.sampled_from([2, 4, 6]), window=st.none() | st.integers(1, 8),
    length=st.integers(1, 7), qkv_bias=st.booleans(), out_bias=st.booleans(), norm=st.booleans(), rotary=st.booleans(), padded=st.booleans(),
)  # fmt: skip
def test_every_option_is_what_the_formula_says_forward_and_back(n_kv_heads, groups, head_dim, window, length, qkv_bias, out_bias, norm, rotary, padded):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rotation = RotaryPositionalEncoding(8, head_dim).double() if rotary else None
        layer = GroupedQueryAttention(
            10, n_kv_heads * groups, 0.0, False, rotation, n_kv_heads, head_dim, window, (lambda d: RMSNorm(d, 1e-6)) if norm else None, qkv_bias, out_bias
        )
        layer = randomize(layer).double()
        x = torch.randn(2, length, 10, dtype=torch.float64, requires_grad=True)
    position = torch.arange(length)
    distance = position[:, None] - position
    mask = (distance >= 0) & (distance < (window or math.inf))
    keep = padding_mask([length, max(length - 2, 1)], length) if padded else None
    expected = by_formula(layer, x, mask if keep is None else mask & (keep | torch.eye(length, dtype=torch.bool)))
    given = layer(x, mask=None if keep is None else keep | torch.eye(length, dtype=torch.bool), is_causal=True)
    tolerance = dict(rtol=1e-6, atol=1e-6) if rotary else dict(rtol=1e-10, atol=1e-10)  # angles may be kept in float32
    torch.testing.assert_close(given, expected, **tolerance)
    direction = torch.randn_like(expected)
    sources = [x, *layer.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad((y * direction).sum(), sources) for y in (given, expected))):
        torch.testing.assert_close(ours, theirs, **tolerance)
    with_weights, weights = layer(x, mask=None if keep is None else keep | torch.eye(length, dtype=torch.bool), is_causal=True, need_weights=True)
    torch.testing.assert_close(with_weights, given)
    assert weights.shape == (2, n_kv_heads * groups, length, length) and not weights[..., ~mask].any()


def test_with_a_head_of_keys_for_each_query_it_is_the_layer_of_chapter_05(dtype):
    plain = randomize(MultiHeadAttention(12, 3)).to(dtype)
    grouped = GroupedQueryAttention(12, 3).to(dtype)
    grouped.load_state_dict(plain.state_dict())
    x, context = torch.randn(2, 5, 12, dtype=dtype), torch.randn(2, 7, 12, dtype=dtype)
    for options in ({}, dict(is_causal=True), dict(context=context)):
        assert grouped(x, **options).equal(plain(x, **options))


def test_a_context_gives_keys_and_values_and_a_filled_cache_gives_them_again(dtype):
    layer = randomize(GroupedQueryAttention(12, 4, n_kv_heads=2, head_dim=5, qk_norm=RMSNorm)).to(dtype)
    x, context, cache = torch.randn(2, 3, 12, dtype=dtype), torch.randn(2, 7, 12, dtype=dtype), KVCache(7)
    joined = layer(torch.cat((context, x), 1), mask=(torch.arange(10) < 7)[None])[:, 7:]
    assert_same(layer(x, context), joined)
    layer(x[:, :1], context, cache=cache)
    assert_same(layer(x, context, cache=cache), joined)
    assert cache.entries()[0].shape == (2, 2, 7, 5)


@models
def test_tokens_one_by_one_are_the_whole_text_with_padding_on_the_left_too(options):
    model = small_language_model(d_model=12, **options).double()
    ids, padding = torch.randint(13, (2, 8)), torch.tensor([0, 3])
    keep = (torch.arange(8) >= padding[:, None])[:, None]
    expected = torch.cat([model(ids[i : i + 1, pad:])[:, -3:] for i, pad in enumerate(padding)])  # each text alone
    cache = [KVCache(8) for _ in model.stack.layers]
    model(ids[:, :5], keep[..., :5], cache, -padding)
    steps = [model(ids[:, i : i + 1], keep[..., : i + 1], cache, i - padding) for i in range(5, 8)]
    torch.testing.assert_close(torch.cat(steps, 1), expected, rtol=1e-6, atol=1e-6)
    chunks = [KVCache(8) for _ in model.stack.layers]
    model(ids[:, :4], keep[..., :4], chunks, -padding)
    torch.testing.assert_close(model(ids[:, 4:], keep, chunks, 4 - padding)[:, -3:], expected, rtol=1e-6, atol=1e-6)  # several at once
    assert cache[0].entries()[0].shape[1] == options["n_kv_heads"]


@models
def test_what_is_generated_is_the_same_with_and_without_a_cache(options):
    model = small_language_model(d_model=12, block_size=16, **options)  # the last tokens no longer see the first
    prompts = [torch.randint(13, (n,)) for n in (6, 1, 3)]
    cached, plain = (generate(model, prompts, 14, temperature=0, use_cache=use_cache) for use_cache in (True, False))
    assert all(a.equal(b) for a, b in zip(cached, plain)) and len({token for text in cached for token in text.tolist()}) > 3
    assert cached[1].equal(generate(model, prompts[1], 14, temperature=0))


@pytest.mark.parametrize("window", [1, 2, 3, 7])
def test_a_window_reaches_as_far_back_as_it_says(window):
    model = small_language_model(d_model=12, **{**GROUPED, "sliding_window": window, "n_layers": 1})
    ids = torch.randint(13, (1, 8))
    changed = [model(ids.index_fill(1, torch.tensor(j), (ids[0, j] + 1) % 13)) for j in range(8)]
    reaches = torch.stack([(logits - model(ids)).abs().amax(-1)[0] > 1e-6 for logits in changed], dim=1)  # (query, key)
    assert reaches.equal(sliding_window_mask(8, window)) and reaches.sum() == sum(min(i + 1, window) for i in range(8))


def test_each_layer_has_its_own_window():
    model = small_language_model(d_model=12, **{**GROUPED, "sliding_window": [None, 3]})
    assert [layer.attention.sliding_window for layer in model.stack.layers] == [None, 3]
    assert small_config(attention="grouped_query", sliding_window=[np.int64(4), 4]).sliding_window == 4


def test_a_translator_of_grouped_queries_searches_with_a_cache_as_without(shapes_unchecked):
    model, source = small_encoder_decoder(d_model=12, **GROUPED), torch.randint(3, 13, (3, 5))
    (cached, scores), (plain, expected) = (beam_search(model, source, 8, 1, 2, 3, use_cache=use_cache) for use_cache in (True, False))
    assert cached.equal(plain) and scores.allclose(expected, atol=1e-5)


@pytest.mark.usefixtures("shapes_unchecked")
@models
def test_a_model_is_one_graph(options):
    model, ids = small_language_model(d_model=12, **options), torch.randint(13, (3, 8))
    for more in ({}, {"mask": padding_mask([8, 5, 3], 8)}):
        output, graphs = compiled(model, ids, **more)
        assert graphs == 1
        torch.testing.assert_close(output, model(ids, **more))


@models
def test_observing_changes_nothing_and_shows_the_heads_that_there_are(options):
    model, ids = small_language_model(d_model=12, **options), torch.randint(13, (1, 7))
    with activations(model) as seen:
        observed = model(ids)
    assert_same(observed, model(ids))
    name, d_k = "layers.1.attention", model.config.d_k
    assert set(activation_names(model)) >= {f"{name}.{part}" for part in ("queries", "keys", "values", "weights", "heads")}
    assert seen[f"{name}.keys"].shape == (1, options["n_kv_heads"], 7, d_k) and seen[f"{name}.heads"].shape == (1, options["n_heads"], 7, d_k)
    heads = inspect_model(model, ids).attention[name]
    assert heads.keys.shape == heads.queries.shape == (options["n_heads"], 7, d_k)
    assert heads.keys.equal(repeat_heads(seen[f"{name}.keys"], options["n_heads"])[0])
    scores = (heads.queries @ heads.keys.mT / d_k**0.5).masked_fill(heads.weights == 0, -torch.inf)
    assert_same(heads.weights, scores.softmax(-1))
    with activations(model, replace=switch_off(model, [f"{name}.heads.1"])):
        assert not model(ids).allclose(observed, atol=1e-4)


@models
def test_a_checkpoint_gives_the_same_model(options, tmp_path):
    model = small_language_model(d_model=12, **options)
    save_checkpoint(tmp_path / "run", model)
    loaded, ids = load_checkpoint(tmp_path / "run").model, torch.randint(13, (2, 8))
    assert loaded.config == model.config and loaded(ids).equal(model(ids))


def test_a_run_with_muon_learns_every_parameter():
    ids, _, model = text_and_model(d_model=12, **MODELS["windows by layer"])
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    history = train(model, ids, short_run(optimizer="muon", grad_accumulation_steps=2))
    assert history.loss[-1] < history.loss[0]
    assert not [name for name, parameter in model.named_parameters() if parameter.equal(before[name])]


def test_parameters_are_those_of_the_heads_that_there_are():
    layer = GroupedQueryAttention(10, 6, n_kv_heads=2, head_dim=4, qk_norm=RMSNorm, qkv_bias=True, out_bias=False)
    assert count_parameters(layer) == 10 * 24 + 2 * 10 * 8 + 24 + 8 + 8 + 24 * 10 + 2 * 4


@pytest.mark.parametrize(
    "options, says",
    [
        (dict(n_kv_heads=2), r"attention 'multi_head' has no n_kv_heads, got n_kv_heads=2: use attention 'grouped_query'"),
        (dict(head_dim=4), "has no head_dim, got head_dim=4"),
        (dict(sliding_window=4), "has no sliding_window, got sliding_window=4"),
        (dict(qk_norm=True), "has no qk_norm, got qk_norm=True"),
        (dict(qkv_bias=True), "has no qkv_bias"),
        (dict(out_bias=True), "has no out_bias"),
        (dict(attention="grouped_query", n_kv_heads=3), "n_heads must be divisible by n_kv_heads, got n_heads=2 and n_kv_heads=3"),
        (dict(attention="grouped_query", n_kv_heads=0), "n_kv_heads must be a whole number of at least 1, got 0"),
        (dict(attention="grouped_query", head_dim=2.5), "head_dim must be a whole number"),
        (dict(attention="grouped_query", head_dim=3, positions="rotary"), "rotary positions need an even head_dim, got 3"),
        (dict(attention="grouped_query", n_heads=3), "d_model must be divisible by n_heads"),
        (dict(attention="grouped_query", sliding_window=0), "sliding_window must be a whole number of at least 1, .* got 0"),
        (dict(attention="grouped_query", sliding_window=True), "sliding_window must be .* got True"),
        (dict(attention="grouped_query", sliding_window=[3]), r"one or None for each of 2 layers, got \[3\]"),
        (dict(attention="grouped_query", sliding_window=[None, 0]), r"got \[None, 0\]"),
    ],
)
def test_options_that_no_attention_has_are_refused(options, says, shapes_unchecked):
    with pytest.raises(ValueError, match=says) as error:
        small_config(**options)
    assert one_line(error)


def test_a_window_without_a_causal_mask_is_refused():
    layer = GroupedQueryAttention(8, 2, sliding_window=3)
    for options in ({}, dict(context=torch.randn(1, 4, 8))):
        with pytest.raises(ValueError, match="a sliding window looks back only: .* leave out sliding_window=3"):
            layer(torch.randn(1, 5, 8), **options)


def test_an_attention_of_ones_own_takes_the_options_that_it_names(monkeypatch):
    class Wide(GroupedQueryAttention):
        def __init__(self, d_model, n_heads, dropout=0.0, bias=True, rotary=None, head_dim=None):
            super().__init__(d_model, n_heads, dropout, bias, rotary, head_dim=head_dim)

    monkeypatch.setitem(PARTS["attention"], "wide", Wide)
    model = LanguageModel(small_config(attention="wide", head_dim=7))
    assert model.stack.layers[0].attention.out_proj.weight.shape == (8, 14)
    with pytest.raises(ValueError, match="attention 'wide' has no qk_norm"):
        small_config(attention="wide", qk_norm=True)
