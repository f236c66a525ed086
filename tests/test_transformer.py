"Layers, stacks and models: equal to torch's, causal where they should be, of exactly the size that the paper says."

import copy
import math
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from helpers import (
    assert_module_parity,
    assert_same,
    copied,
    randomize,
    small_config,
    small_encoder_decoder,
    small_language_model,
)
from torch import nn

from transformer_nb.attention import causal_mask, dependency_matrix, leak_test, padding_mask
from transformer_nb.config.model import PARTS
from transformer_nb.inference.cache import KVCache
from transformer_nb.layer_norm import LayerNorm
from transformer_nb.modern.parts import BigramEmbedding, GatedFeedForward, RMSNorm
from transformer_nb.positional_encoding import RotaryPositionalEncoding, sinusoidal_encoding
from transformer_nb.transformer import (
    Decoder,
    DecoderLayer,
    InputEmbedding,
    Encoder,
    EncoderDecoder,
    EncoderLayer,
    FeedForward,
    LanguageModel,
    Residual,
    TransformerConfig,
    count_parameters,
    shift_right,
)

norm_first = pytest.mark.parametrize("norm_first", [True, False], ids=["pre-norm", "post-norm"])
activation = pytest.mark.parametrize("activation", ["relu", "gelu"])
positions = pytest.mark.parametrize("positions", PARTS["positions"])
bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])

CASES = {
    "plain": (None, False),
    "causal": (None, True),
    "padded": ([5, 2], False),
    "causal and padded": ([3, 5], True),
}
masks = pytest.mark.parametrize("lengths, is_causal", CASES.values(), ids=CASES)


def indices(*shape, vocab_size=13):
    return torch.randint(0, vocab_size, shape)


# Parity with torch.


@bias
@activation
def test_feed_forward_equals_two_linear_layers(activation, bias, dtype):
    ours = FeedForward(8, 16, PARTS["activation"][activation], bias)
    theirs = nn.Sequential()
    theirs.add_module("linear1", nn.Linear(8, 16, bias=bias))
    theirs.add_module("activation", {"relu": nn.ReLU, "gelu": nn.GELU}[activation]())
    theirs.add_module("linear2", nn.Linear(16, 8, bias=bias))
    copied(ours, theirs, dtype, rename=str)
    x = torch.randn(2, 5, 8, dtype=dtype)
    assert_module_parity(ours, theirs, ours, theirs, x, rename=str)


def torch_options(norm_first, activation, bias=True):
    "What torch's layers are made with."
    return dict(
        d_model=8, nhead=2, dim_feedforward=16, dropout=0.0, activation=activation,
        batch_first=True, norm_first=norm_first, bias=bias,
    )  # fmt: skip


def our_options(norm_first, activation, bias=True):
    "What our layers are made with."
    return dict(
        d_model=8, n_heads=2, d_ff=16, norm_first=norm_first, activation=PARTS["activation"][activation], bias=bias,
        norm=small_config(bias=bias).make_norm,
    )  # fmt: skip


def our_stack_config(norm_first, activation, bias=True):
    return small_config(n_layers=3, norm_first=norm_first, activation=activation, bias=bias)


def final_norm(norm_first, bias=True):
    "Torch's stacks are handed the norm that ends them; the paper's has none."
    return nn.LayerNorm(8, bias=bias) if norm_first else None


def padding_of(lengths, length):
    "Our padding mask and torch's."
    mask = None if lengths is None else padding_mask(lengths, length)
    return mask, None if mask is None else ~mask[:, 0]


@masks
@bias
@activation
@norm_first
def test_encoder_layer_equals_torch(norm_first, activation, bias, lengths, is_causal, dtype):
    ours = EncoderLayer(**our_options(norm_first, activation, bias))
    theirs = nn.TransformerEncoderLayer(**torch_options(norm_first, activation, bias))
    copied(ours, theirs, dtype)
    mask, padding = padding_of(lengths, 5)
    forbidden = ~causal_mask(5) if is_causal else None
    assert_module_parity(
        ours, theirs,
        lambda x: ours(x, mask=mask, is_causal=is_causal),
        lambda x: theirs(x, src_mask=forbidden, src_key_padding_mask=padding),
        torch.randn(2, 5, 8, dtype=dtype),
    )  # fmt: skip


@masks
@activation
@norm_first
def test_encoder_equals_torch(norm_first, activation, lengths, is_causal, dtype):
    ours = Encoder(our_stack_config(norm_first, activation))
    layer = nn.TransformerEncoderLayer(**torch_options(norm_first, activation))
    theirs = nn.TransformerEncoder(layer, 3, final_norm(norm_first), enable_nested_tensor=False)
    copied(ours, theirs, dtype)
    mask, padding = padding_of(lengths, 5)
    forbidden = ~causal_mask(5) if is_causal else None
    assert_module_parity(
        ours, theirs,
        lambda x: ours(x, mask=mask, is_causal=is_causal),
        lambda x: theirs(x, mask=forbidden, src_key_padding_mask=padding),
        torch.randn(2, 5, 8, dtype=dtype),
    )  # fmt: skip


SOURCES = {"plain source": None, "padded source": [7, 2]}
sources = pytest.mark.parametrize("source_lengths", SOURCES.values(), ids=SOURCES)


def assert_decoders_agree(ours, theirs, lengths, is_causal, source_lengths, dtype):
    mask, padding = padding_of(lengths, 5)
    memory_mask, memory_padding = padding_of(source_lengths, 7)
    forbidden = ~causal_mask(5) if is_causal else None
    assert_module_parity(
        ours, theirs,
        lambda x, memory: ours(x, memory, mask, memory_mask, is_causal),
        lambda x, memory: theirs(
            x, memory,
            tgt_mask=forbidden, tgt_key_padding_mask=padding, memory_key_padding_mask=memory_padding,
        ),
        torch.randn(2, 5, 8, dtype=dtype), torch.randn(2, 7, 8, dtype=dtype),
    )  # fmt: skip


@sources
@masks
@bias
@activation
@norm_first
def test_decoder_layer_equals_torch(norm_first, activation, bias, lengths, is_causal, source_lengths, dtype):
    ours = DecoderLayer(**our_options(norm_first, activation, bias))
    theirs = nn.TransformerDecoderLayer(**torch_options(norm_first, activation, bias))
    copied(ours, theirs, dtype)
    assert_decoders_agree(ours, theirs, lengths, is_causal, source_lengths, dtype)


@sources
@masks
@activation
@norm_first
def test_decoder_equals_torch(norm_first, activation, lengths, is_causal, source_lengths, dtype):
    ours = Decoder(our_stack_config(norm_first, activation))
    layer = nn.TransformerDecoderLayer(**torch_options(norm_first, activation))
    theirs = nn.TransformerDecoder(layer, 3, final_norm(norm_first))
    copied(ours, theirs, dtype)
    assert_decoders_agree(ours, theirs, lengths, is_causal, source_lengths, dtype)


def test_a_decoder_is_causal_unless_told_otherwise():
    decoder, x, memory = randomize(Decoder(small_config())), torch.randn(1, 5, 8), torch.randn(1, 3, 8)
    assert_same(decoder(x, memory), decoder(x, memory, is_causal=True))


@norm_first
def test_an_encoder_decoder_is_its_parts_one_after_the_other(norm_first):
    model = small_encoder_decoder(norm_first=norm_first, activation="relu", positions="sinusoidal")
    source, target = indices(2, 6), indices(2, 5)
    memory = model.encoder(model.embedding(source))
    vectors = model.decoder(model.embedding(target), memory)
    assert_same(model(source, target), vectors @ model.embedding.tokens.weight.T)


# What a residual does.


def test_the_papers_residual_normalizes_the_sum():
    norm, sublayer = nn.LayerNorm(8), nn.Linear(8, 8)
    x = torch.randn(2, 5, 8)
    assert_same(Residual(norm, 0.0, norm_first=False)(x, sublayer), norm(x + sublayer(x)))


def test_with_the_norm_first_nothing_stands_on_the_stream():
    norm, sublayer = nn.LayerNorm(8), nn.Linear(8, 8)
    x = torch.randn(2, 5, 8)
    assert_same(Residual(norm, 0.0, norm_first=True)(x, sublayer), x + sublayer(norm(x)))


def test_dropout_falls_on_the_sublayer_and_spares_the_stream():
    x, ones = torch.randn(1, 50, 8), torch.ones(1, 50, 8)
    added = Residual(nn.Identity(), 0.5, norm_first=True)(x, lambda x: ones) - x
    assert set(added.round(decimals=4).unique().tolist()) == {0.0, 2.0}


# Who depends on whom.


def exactly_causal(dependency):
    "Every position depends on itself and all before, and not at all on what comes after."
    return torch.equal(dependency > 0, causal_mask(len(dependency)))


@positions
@norm_first
def test_each_position_of_a_language_model_depends_on_its_past_only_by_gradient(norm_first, positions):
    model = small_language_model(norm_first=norm_first, positions=positions)
    dependency = dependency_matrix(
        lambda x: model.head(model.stack(x, is_causal=True)), torch.randn(2, 8, 8)
    )
    assert exactly_causal(dependency)


def embedded(model, ids):
    "The embedded vectors that a run of the model computes, with their gradient kept, and its logits."
    kept = []
    hook = model.embedding.register_forward_hook(lambda module, args, output: kept.append(output))
    logits = model(ids)
    hook.remove()
    return kept[0], logits


@positions
@norm_first
def test_no_logit_of_the_whole_model_has_a_gradient_by_a_later_vector(norm_first, positions):
    model = small_language_model(norm_first=norm_first, positions=positions)
    vectors, logits = embedded(model, indices(2, 8))
    for i in range(8):
        (gradient,) = torch.autograd.grad(logits[:, i].square().sum(), vectors, retain_graph=True)
        assert (gradient.abs().sum((0, 2)) > 0).tolist() == [j <= i for j in range(8)]


@positions
@norm_first
def test_a_language_model_passes_the_leak_test(norm_first, positions):
    model = small_language_model(norm_first=norm_first, positions=positions)
    assert not leak_test(model, indices(2, 8))


@positions
@norm_first
def test_a_language_model_in_training_passes_the_leak_test(norm_first, positions):
    options = dict(norm_first=norm_first, positions=positions, dropout=0.3, attention_dropout=0.3)
    assert not leak_test(small_language_model(**options).train(), indices(2, 8))


@norm_first
def test_a_language_model_with_padding_passes_the_leak_test(norm_first):
    model, mask = small_language_model(norm_first=norm_first), padding_mask([5, 8], 8)
    assert not leak_test(lambda ids: model(ids, mask), indices(2, 8))


@norm_first
def test_a_language_model_without_its_mask_fails_the_leak_test(norm_first):
    model = small_language_model(norm_first=norm_first)
    assert leak_test(lambda ids: model.head(model.stack(model.embedding(ids))), indices(2, 8))


@norm_first
def test_each_position_of_a_decoder_depends_on_its_past_only_by_gradient(norm_first):
    decoder, memory = randomize(Decoder(small_config(norm_first=norm_first))), torch.randn(2, 3, 8)
    assert exactly_causal(dependency_matrix(lambda x: decoder(x, memory), torch.randn(2, 6, 8)))


@norm_first
def test_a_decoder_passes_the_leak_test_with_padding_too(norm_first):
    decoder, memory = randomize(Decoder(small_config(norm_first=norm_first))), torch.randn(2, 3, 8)
    mask = padding_mask([4, 6], 6)
    assert not leak_test(lambda x: decoder(x, memory, mask), torch.randn(2, 6, 8))


@positions
@norm_first
def test_the_targets_future_does_not_leak_in_an_encoder_decoder(norm_first, positions):
    model, source = small_encoder_decoder(norm_first=norm_first, positions=positions), indices(2, 4)
    assert not leak_test(lambda target: model(source, target), indices(2, 6))


@norm_first
def test_each_position_of_a_decoder_depends_on_the_whole_source(norm_first):
    decoder = randomize(Decoder(small_config(norm_first=norm_first)))
    x, memory = torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    assert (dependency_matrix(lambda memory: decoder(x, memory), memory) > 0).all()


@norm_first
def test_each_position_of_an_encoder_depends_on_all(norm_first):
    encoder = randomize(Encoder(small_config(norm_first=norm_first)))
    assert (dependency_matrix(encoder, torch.randn(1, 6, 8)) > 0).all()


@norm_first
def test_an_encoder_fails_the_leak_test_unless_it_is_causal(norm_first):
    encoder, x = randomize(Encoder(small_config(norm_first=norm_first))), torch.randn(1, 6, 8)
    assert leak_test(encoder, x)
    assert not leak_test(lambda x: encoder(x, is_causal=True), x)


@pytest.mark.parametrize("positions, tells", [(p, p != "none") for p in PARTS["positions"]])
def test_an_encoder_tells_places_apart_only_by_its_positions(positions, tells):
    config = small_config(positions=positions)
    embedding, encoder = randomize(InputEmbedding(config)), randomize(Encoder(config))
    ids, order = torch.arange(6)[None], torch.tensor([3, 1, 5, 4, 0, 2])
    before, after = encoder(embedding(ids)), encoder(embedding(ids[:, order]))
    assert torch.allclose(before[:, order], after, atol=1e-5) is not tells


# Padding.


@positions
@norm_first
def test_padding_changes_no_logit_of_an_encoder_decoder(norm_first, positions):
    model = small_encoder_decoder(norm_first=norm_first, positions=positions)
    source, target = indices(1, 4), indices(1, 3)
    padded = model(
        F.pad(source, (0, 2), value=7), F.pad(target, (0, 4), value=9),
        padding_mask([4], 6), padding_mask([3], 7),
    )  # fmt: skip
    assert_same(padded[:, :3], model(source, target))


def test_texts_of_unequal_length_give_in_a_batch_what_they_give_alone():
    model = small_encoder_decoder()
    lengths = [(6, 5), (2, 3)]
    source, target = indices(2, 6), indices(2, 5)
    batch = model(source, target, padding_mask([6, 2], 6), padding_mask([5, 3], 5))
    for i, (s, t) in enumerate(lengths):
        assert_same(batch[i : i + 1, :t], model(source[i : i + 1, :s], target[i : i + 1, :t]))


def test_what_stands_in_the_padding_does_not_matter():
    model, mask = small_encoder_decoder(), padding_mask([4], 6)
    source, target = indices(1, 6), indices(1, 5)
    other = torch.cat((source[:, :4], (source[:, 4:] + 1) % 13), dim=1)
    assert_same(model(other, target, mask), model(source, target, mask))


@norm_first
def test_padding_changes_no_logit_of_a_language_model(norm_first):
    model, ids = small_language_model(norm_first=norm_first), indices(1, 8)
    assert_same(model(ids, padding_mask([5], 8))[:, :5], model(ids[:, :5]))


def test_a_source_of_padding_only_gives_finite_logits_and_gradients():
    model = small_encoder_decoder()
    model(indices(1, 4), indices(1, 3), padding_mask([0], 4)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# Sizes.


def norm_size(d, bias):
    return d + bias * d


def attention_size(d, bias):
    return 4 * d * d + bias * 4 * d


def feed_forward_size(d, f, bias):
    return 2 * d * f + bias * (f + d)


def embedding_size(config):
    "Both tables and the output projection, which has no bias."
    tables = 1 if config.tie_embeddings else 2
    learned = config.block_size if config.positions == "learned" else 0
    return (tables * config.vocab_size + learned) * config.d_model


def language_model_size(config):
    d, f, b = config.d_model, config.d_ff, config.bias
    layer = attention_size(d, b) + feed_forward_size(d, f, b) + 2 * norm_size(d, b)
    final = norm_size(d, b) if config.norm_first else 0
    return embedding_size(config) + config.n_layers * layer + final


def encoder_decoder_size(config):
    d, f, b = config.d_model, config.d_ff, config.bias
    encoder_layer = attention_size(d, b) + feed_forward_size(d, f, b) + 2 * norm_size(d, b)
    decoder_layer = 2 * attention_size(d, b) + feed_forward_size(d, f, b) + 3 * norm_size(d, b)
    final = 2 * norm_size(d, b) if config.norm_first else 0
    return embedding_size(config) + config.n_layers * (encoder_layer + decoder_layer) + final


@pytest.mark.parametrize("size", [dict(), dict(d_model=12, n_heads=3, d_ff=None, n_layers=1, block_size=5)])
@pytest.mark.parametrize("tie_embeddings", [True, False])
@positions
@norm_first
@bias
def test_the_number_of_parameters_is_the_formulas(bias, norm_first, positions, tie_embeddings, size):
    config = small_config(
        bias=bias, norm_first=norm_first, positions=positions, tie_embeddings=tie_embeddings, **size
    )
    assert count_parameters(LanguageModel(config)) == language_model_size(config)
    assert count_parameters(EncoderDecoder(config)) == encoder_decoder_size(config)


def test_heads_cost_nothing():
    sizes = {count_parameters(LanguageModel(small_config(n_heads=h))) for h in (1, 2, 4, 8)}
    assert len(sizes) == 1


# Table 3 of the paper: millions of parameters of each row that gives them.

PRINTED = {
    "base": (65, dict()),
    "N = 2": (36, dict(n_layers=2)),
    "N = 4": (50, dict(n_layers=4)),
    "N = 8": (80, dict(n_layers=8)),
    "d_k = 16": (58, dict(d_k=16)),
    "d_k = 32": (60, dict(d_k=32)),
    "d_model = 256": (28, dict(d_model=256, d_k=32, d_v=32)),
    "d_model = 1024": (168, dict(d_model=1024, d_k=128, d_v=128)),
    "d_ff = 1024": (53, dict(d_ff=1024)),
    "d_ff = 4096": (90, dict(d_ff=4096)),
    "big": (213, dict(d_model=1024, d_ff=4096, n_heads=16)),
}
BASE = {row: entry for row, entry in PRINTED.items() if row != "big"}
BUILDABLE = {row: entry for row, entry in PRINTED.items() if not row.startswith("d_k")}


def paper_size(vocab_size, n_layers=6, d_model=512, d_ff=2048, n_heads=8, d_k=64, d_v=64):
    "The paper's model with tied embeddings and sinusoids, the size of queries and keys chosen freely."
    d, keys, values = d_model, n_heads * d_k, n_heads * d_v
    attention = 2 * (d * keys + keys) + (d * values + values) + (values * d + d)
    layers = 3 * attention + 2 * feed_forward_size(d, d_ff, True) + 5 * norm_size(d, True)
    return vocab_size * d + n_layers * layers


def vocabularies(millions, options):
    "Every vocabulary with which a row rounds to what the paper prints."
    rest, d_model = paper_size(0, **options), options.get("d_model", 512)
    first = math.ceil((millions * 10**6 - 500_000 - rest) / d_model)
    last = math.ceil((millions * 10**6 + 500_000 - rest) / d_model)
    return range(first, last)


def shared(ranges):
    return range(max(r.start for r in ranges), min(r.stop for r in ranges))


def test_every_base_row_comes_out_with_a_vocabulary_near_41_000():
    assert shared([vocabularies(*entry) for entry in BASE.values()]) == range(40_932, 41_161)


def test_the_big_row_comes_out_with_a_vocabulary_near_36_000():
    assert vocabularies(*PRINTED["big"]) == range(35_296, 36_273)


def test_no_vocabulary_serves_both_the_base_rows_and_the_big_one():
    assert not shared([vocabularies(*entry) for entry in PRINTED.values()])


def test_the_37_000_of_the_text_serve_no_row_at_all():
    assert not [row for row, entry in PRINTED.items() if 37_000 in vocabularies(*entry)]


@pytest.mark.parametrize("row", BUILDABLE)
def test_the_papers_model_has_the_printed_size(row):
    millions, options = PRINTED[row]
    options = {name: value for name, value in options.items() if name not in ("d_k", "d_v")}
    vocab_size = 36_000 if row == "big" else 41_000
    config = TransformerConfig.preset(
        "paper", **{**dict(vocab_size=vocab_size, n_layers=6, n_heads=8, d_model=512, d_ff=2048), **options}
    )
    with torch.device("meta"):
        size = count_parameters(EncoderDecoder(config))
    assert size == paper_size(vocab_size, **options, d_k=config.d_k, d_v=config.d_k)
    assert round(size / 1e6) == millions


# Models.


@positions
@norm_first
def test_every_parameter_of_a_model_is_used(norm_first, positions):
    options = dict(norm_first=norm_first, positions=positions, tie_embeddings=False)
    language_model, encoder_decoder = small_language_model(**options), small_encoder_decoder(**options)
    language_model(indices(4, 8)).square().sum().backward()
    encoder_decoder(indices(4, 8), indices(4, 8)).square().sum().backward()
    for model in (language_model, encoder_decoder):
        assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("kind", [LanguageModel, EncoderDecoder])
def test_tied_embeddings_are_one_matrix(kind):
    model = kind(small_config())
    assert model.head.weight is model.embedding.tokens.weight
    assert model.head.weight.data_ptr() == model.embedding.tokens.weight.data_ptr()


@pytest.mark.parametrize("kind", [LanguageModel, EncoderDecoder])
def test_untied_embeddings_are_two_matrices(kind):
    model = kind(small_config(tie_embeddings=False))
    assert model.head.weight.data_ptr() != model.embedding.tokens.weight.data_ptr()


def test_the_gradient_of_a_tied_matrix_is_the_sum_over_both_uses():
    tied, untied = LanguageModel(small_config()), LanguageModel(small_config(tie_embeddings=False))
    untied.load_state_dict({**tied.state_dict(), "head.weight": tied.head.weight})
    ids = indices(2, 8)
    for model in (tied, untied):
        model(ids).square().mean().backward()
    by_input, by_output = untied.embedding.tokens.weight.grad, untied.head.weight.grad
    assert by_input.any() and by_output.any()
    assert_same(tied.head.weight.grad, by_input + by_output)


def test_tied_embeddings_stay_tied_when_loaded_and_moved():
    model = LanguageModel(small_config())
    model.load_state_dict(small_language_model().state_dict())
    model.double()
    assert model.head.weight is model.embedding.tokens.weight


def test_scaled_embeddings_are_sqrt_d_model_times_the_table():
    plain, scaled = (InputEmbedding(small_config(scale_embeddings=s, positions="none")) for s in (False, True))
    scaled.load_state_dict(plain.state_dict())
    ids = indices(2, 8)
    assert_same(scaled(ids), math.sqrt(8) * plain(ids))


def test_an_untrained_model_starts_near_the_uniform_guess():
    model, ids = LanguageModel(TransformerConfig()), indices(4, 65, vocab_size=256)
    loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    assert abs(loss - math.log(256)) < 0.1


def test_an_untrained_encoder_decoder_starts_near_the_uniform_guess():
    model, ids = EncoderDecoder(TransformerConfig()), indices(4, 64, vocab_size=256)
    loss = F.cross_entropy(model(ids, shift_right(ids, 0)).flatten(0, 1), ids.flatten())
    assert abs(loss - math.log(256)) < 0.1


def test_gains_start_at_one_and_biases_at_zero():
    for name, parameter in EncoderDecoder(small_config()).named_parameters():
        if parameter.dim() == 1:
            assert (parameter == (0.0 if name.endswith("bias") else 1.0)).all(), name


def test_a_preset_is_a_starting_point():
    config = TransformerConfig.preset("paper", n_layers=2, dropout=0.3)
    assert (config.norm_first, config.n_layers, config.dropout) == (False, 2, 0.3)


def test_a_config_survives_a_dictionary():
    config = small_config(positions="rotary", bias=False)
    assert TransformerConfig(**asdict(config)) == config


def test_d_ff_is_four_times_d_model_by_default():
    assert TransformerConfig(d_model=24).d_ff == 96


def test_the_norms_of_a_model_have_the_configs_epsilon():
    model = EncoderDecoder(small_config(norm_eps=0.25))
    assert {module.eps for module in model.modules() if hasattr(module, "eps")} == {0.25}


def test_nothing_has_a_bias_where_none_is_wanted():
    model = EncoderDecoder(small_config(bias=False))
    assert not [name for name, _ in model.named_parameters() if "bias" in name]


def test_all_layers_share_one_rotation():
    model = LanguageModel(small_config(positions="rotary"))
    assert len({id(layer.attention.rotary) for layer in model.stack.layers}) == 1


def test_cross_attention_is_not_rotated():
    model = EncoderDecoder(small_config(positions="rotary"))
    assert all(layer.cross_attention.rotary is None for layer in model.decoder.layers)


def test_a_layer_takes_any_norm_activation_and_rotation():
    layer = EncoderLayer(8, 2, 16, norm=nn.RMSNorm, activation=F.silu, rotary=RotaryPositionalEncoding(5, 4))
    assert layer(torch.randn(2, 5, 8)).shape == (2, 5, 8)


@pytest.mark.parametrize("where", ["dropout", "attention_dropout"])
def test_dropout_acts_in_training_only(where):
    model, ids = small_language_model(**{where: 0.5}), indices(2, 8)
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


@pytest.mark.parametrize("where", ["dropout", "attention_dropout"])
def test_dropout_in_evaluation_is_no_dropout(where):
    model = small_language_model(**{where: 0.5})
    plain = LanguageModel(small_config()).eval()
    plain.load_state_dict(model.state_dict())
    ids = indices(2, 8)
    assert torch.equal(model(ids), plain(ids))


def test_shift_right_puts_the_start_before_the_text_and_drops_its_last_token():
    target = torch.tensor([[5, 6, 7], [8, 9, 10]])
    assert shift_right(target, 1).tolist() == [[1, 5, 6], [1, 8, 9]]


def test_shift_right_leaves_the_target_as_it_was():
    target = torch.tensor([[5, 6, 7]])
    shift_right(target, 1)
    assert target.tolist() == [[5, 6, 7]]


def test_behind_shift_right_a_prediction_does_not_see_its_own_answer():
    model, source, target = small_encoder_decoder(), indices(1, 4), indices(1, 6)
    other = target.clone()
    other[:, 3] = (other[:, 3] + 1) % 13
    same = (model(source, shift_right(target, 1)) == model(source, shift_right(other, 1))).all(-1)[0]
    assert same.tolist() == [True] * 4 + [False] * 2


@pytest.mark.parametrize("kind", [LanguageModel, EncoderDecoder])
def test_a_model_learns_one_batch_by_heart(kind):
    model, ids = kind(small_config(d_model=32)), indices(2, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    arguments = (ids[:, :-1],) if kind is LanguageModel else (ids, shift_right(ids, 0)[:, 1:])
    for _ in range(60):
        loss = F.cross_entropy(model(*arguments).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


# What is refused.


@pytest.mark.parametrize(
    "field, value",
    [
        (field, value)
        for field in ("vocab_size", "block_size", "n_layers", "n_heads", "d_model", "d_ff")
        for value in (0, -1, 2.5, "8", None)
        if (field, value) != ("d_ff", None)
    ],
)
def test_a_size_must_be_a_whole_number_of_at_least_one(field, value, shapes_unchecked):
    with pytest.raises(ValueError, match=f"{field} must be a whole number of at least 1, got {value!r}"):
        small_config(**{field: value})


@pytest.mark.parametrize("field", ["dropout", "attention_dropout"])
@pytest.mark.parametrize("value", [-0.1, 1.0, 1, 7, math.nan, math.inf])
def test_a_dropout_must_be_a_probability_below_one(field, value):
    with pytest.raises(ValueError, match=f"{field} must be a number of at least 0 and below 1, got {value!r}"):
        small_config(**{field: value})


@pytest.mark.parametrize("field", ["dropout", "attention_dropout"])
@pytest.mark.parametrize("value", ["0.1", None])
def test_a_dropout_must_be_a_number(field, value, shapes_unchecked):
    with pytest.raises(ValueError, match=f"{field} must be a number of at least 0 and below 1, got {value!r}"):
        small_config(**{field: value})


@pytest.mark.parametrize("value", [-1e-5, math.nan])
def test_the_epsilon_of_the_norms_must_not_be_negative(value):
    with pytest.raises(ValueError, match=f"norm_eps must be .*, got {value!r}"):
        small_config(norm_eps=value)


@pytest.mark.parametrize("d_model, n_heads", [(8, 3), (7, 2), (4, 8)])
def test_d_model_must_be_divisible_by_n_heads(d_model, n_heads):
    with pytest.raises(ValueError, match=f"got d_model={d_model} and n_heads={n_heads}"):
        small_config(d_model=d_model, n_heads=n_heads)


def test_unknown_positions_are_named_beside_the_known():
    with pytest.raises(ValueError, match="sinusoidal, learned, rotary, none.*, got 'absolute'"):
        small_config(positions="absolute")


def test_an_unknown_activation_is_named_beside_the_known():
    with pytest.raises(ValueError, match="relu, gelu, .*, got 'softsign'"):
        small_config(activation="softsign")


def test_an_unknown_preset_is_named_beside_the_known():
    with pytest.raises(ValueError, match="gpt2, modern, paper, got 'bert'"):
        TransformerConfig.preset("bert")


def test_rotary_positions_need_pairs_of_features():
    with pytest.raises(ValueError, match="even d_model / n_heads, got 3"):
        small_config(d_model=6, n_heads=2, positions="rotary")


def test_replacing_a_field_is_checked_too():
    with pytest.raises(ValueError, match="got d_model=8 and n_heads=3"):
        replace(small_config(), n_heads=3)


@pytest.mark.parametrize("ids, received", [([[3, 13]], "3 to 13"), ([[-1, 5]], "-1 to 5")])
def test_an_index_outside_the_vocabulary_is_named(ids, received):
    with pytest.raises(IndexError, match=f"indices must be 0 to 12, got {received}"):
        small_language_model()(torch.tensor(ids))


def test_a_text_longer_than_a_learned_table_says_what_to_do():
    with pytest.raises(ValueError, match="table of 8 positions has no row for position 8: shorten the sequence"):
        small_language_model(positions="learned")(indices(1, 9))


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "none"])
def test_without_a_learned_table_a_text_may_be_longer_than_a_block(positions):
    model = small_language_model(positions=positions)
    long = small_language_model(positions=positions, block_size=20)
    long.load_state_dict(model.state_dict())
    ids = indices(1, 20)
    assert_same(model(ids), long(ids))


def test_dropout_of_the_embeddings():
    embedding = LanguageModel(small_config(dropout=0.5)).embedding
    ids = torch.randint(13, (4, 8))
    assert 0.3 < embedding(ids).eq(0).float().mean() < 0.7
    assert not embedding.eval()(ids).eq(0).any()


@norm_first
def test_rms_norm_equals_torch(norm_first, dtype):
    ours, theirs = copied(RMSNorm(8, 1e-3), nn.RMSNorm(8, 1e-3), dtype, rename=str)
    x = torch.randn(2, 3, 8, dtype=dtype) * (1e-3 if norm_first else 1)  # small inputs too, where epsilon counts
    assert_module_parity(ours, theirs, ours, theirs, x, rename=str)


def test_a_gated_network_is_the_product_of_two(dtype):
    network = randomize(GatedFeedForward(6, 10)).to(dtype)
    x = torch.randn(2, 3, 6, dtype=dtype)
    gate, up = (x @ layer.weight.T + layer.bias for layer in (network.gate, network.linear1))
    expected = (gate * torch.sigmoid(gate) * up) @ network.linear2.weight.T + network.linear2.bias
    assert_same(network(x), expected)


@pytest.mark.parametrize(
    "name, formula",
    [
        ("gelu_tanh", lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        ("silu", lambda x: x / (1 + torch.exp(-x))),
        ("quick_gelu", lambda x: x / (1 + torch.exp(-1.702 * x))),
        ("squared_relu", lambda x: torch.where(x > 0, x**2, 0)),
        ("tanh", lambda x: 2 / (1 + torch.exp(-2 * x)) - 1),
        ("sigmoid", lambda x: 1 / (1 + torch.exp(-x))),
        ("mish", lambda x: x * torch.tanh(torch.log1p(torch.exp(x)))),
    ],
)
def test_an_activation_is_its_formula(name, formula):
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    assert_same(PARTS["activation"][name](x), formula(x))


@norm_first
@pytest.mark.parametrize("final", [False, True])
def test_the_final_norm_can_be_chosen(norm_first, final):
    config = small_config(norm_first=norm_first, final_norm=final)
    assert all(isinstance(stack.norm, LayerNorm) == final for stack in (Encoder(config), Decoder(config)))


def test_an_encoder_with_an_embedding_reads_indices():
    config = small_config(embedding="bigram")
    embedding = BigramEmbedding(config)
    encoder = randomize(Encoder(config, embedding))
    ids, before = torch.randint(13, (2, 5)), torch.randint(13, (2,))
    bare = Encoder(config)
    bare.load_state_dict({name: w for name, w in encoder.state_dict().items() if not name.startswith("embedding.")})
    assert_same(encoder(ids, before=before), bare(embedding(ids, before=before)))


def test_the_decoder_may_have_a_shape_and_tokens_of_its_own():
    source, target = small_config(share_embeddings=False), small_config(vocab_size=7, n_layers=3, n_heads=4, d_ff=5)
    model = randomize(EncoderDecoder(source, target)).eval()
    assert len(model.encoder.layers) == 2 and len(model.decoder.layers) == 3
    assert model.head.weight is model.target_embedding.tokens.weight and model.head.weight.shape == (7, 8)
    assert model(torch.randint(13, (2, 5)), torch.randint(7, (2, 4))).shape == (2, 4, 7)
    with pytest.raises(ValueError, match="d_model must be the same, got 8 and 16"):
        EncoderDecoder(source, small_config(d_model=16))
    with pytest.raises(ValueError, match="needs one vocabulary, got sizes 13 and 7"):
        EncoderDecoder(small_config(), target)


def test_an_encoder_without_an_embedding_refuses_what_only_an_embedding_takes():
    with pytest.raises(TypeError, match="takes no is_casual"):
        Encoder(small_config())(torch.randn(1, 3, 8), is_casual=torch.ones(1))


@positions
def test_decoding_piece_by_piece_with_a_cache_gives_the_same_logits(positions, dtype):
    model = small_encoder_decoder(positions=positions, tie_embeddings=False).to(dtype)
    source, target = torch.randint(13, (2, 5)), torch.randint(13, (2, 7))
    mask = padding_mask([5, 3], 5)
    memory = model.encode(source, mask)
    cache = [(KVCache(8), KVCache(5)) for _ in range(2)]
    pieces = [model.decode(piece, memory, mask, cache=cache) for piece in target.split([3, 1, 2, 1], dim=1)]
    assert_same(torch.cat(pieces, dim=1), model(source, target, mask))


def test_without_causality_the_decoder_sees_the_whole_target():
    model = small_encoder_decoder()
    source, target = torch.randint(13, (1, 5)), torch.randint(13, (1, 6))
    assert not leak_test(lambda t: model(source, t), target)
    assert leak_test(lambda t: model(source, t, is_causal=False), target)


@positions
def test_a_language_model_that_reads_piece_by_piece_gives_the_same_logits(positions, dtype):
    model, ids = small_language_model(positions=positions).to(dtype), torch.randint(13, (2, 8))
    cache = [KVCache(8) for _ in range(2)]
    pieces = [model(piece, cache=cache) for piece in ids.split([3, 1, 2, 2], dim=1)]
    assert_same(torch.cat(pieces, dim=1), model(ids))


def test_under_autocast_the_residual_stream_has_its_precision_and_float64_stays():
    model, ids = small_language_model(), torch.randint(13, (2, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.embedding(ids).dtype == torch.bfloat16
        assert model.double().embedding(ids).dtype == torch.float64
    assert model.to("meta").embedding(ids.to("meta")).device.type == "meta"  # which autocast does not know


# Masks with two meanings.


def test_a_padding_mask_of_two_axes_is_refused_whatever_the_sizes():
    config = TransformerConfig(vocab_size=30, block_size=16, n_layers=1, n_heads=2, d_model=16)
    model, ids = EncoderDecoder(config).eval(), torch.randint(30, (5, 5))
    keep = torch.arange(5) < torch.tensor([5, 4, 3, 2, 5])[:, None]
    for call in (lambda: model(ids, ids, source_mask=keep), lambda: model.encode(ids, keep), lambda: model.decode(ids, model.encode(ids), keep)):
        with pytest.raises(ValueError, match=r"source_mask must be \(B, 1, S\), .*, got \(5, 5\): give mask\[:, None\]"):
            call()
    with pytest.raises(ValueError, match="two meanings: give mask"):
        model(ids, ids, target_mask=keep)
    alone = torch.cat([model(ids[i : i + 1, :n], ids[i : i + 1])[:, :, :] for i, n in enumerate((5, 4, 3, 2, 5))])
    assert_same(model(ids, ids, source_mask=keep[:, None]), alone)


@pytest.mark.parametrize("make", [LanguageModel, lambda config: Encoder(config, InputEmbedding(config))])
def test_a_stack_refuses_a_mask_with_two_meanings_only(make):
    model = make(TransformerConfig(vocab_size=30, block_size=16, n_layers=1, n_heads=2, d_model=16)).eval()
    ids, mask = torch.randint(30, (5, 5)), causal_mask(5)
    with pytest.raises(ValueError, match=r"with 5 sequences of 5 positions, a mask of shape \(5, 5\) has two meanings"):
        model(ids, mask=mask)
    assert_same(model(ids, mask=mask[None])[:4], model(ids[:4], mask=mask))  # with four sequences it has one


# Precisions and sizes.

KINDS = {"multi-head": {}, "grouped-query": dict(attention="grouped_query", n_kv_heads=1, sliding_window=5)}


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype, error", [(torch.bfloat16, 2**-6), (torch.float16, 2**-9)])
def test_parameters_in_half_precision_give_the_logits_within_it(dtype, error, kind, positions):
    config = TransformerConfig(vocab_size=30, block_size=400, n_layers=2, n_heads=2, d_model=32, positions=positions, **KINDS[kind])
    model, ids = LanguageModel(config).eval(), torch.randint(30, (2, 400))
    converted, parameters_only = copy.deepcopy(model).to(dtype), copy.deepcopy(model)
    for parameter in parameters_only.parameters():  # as mixed precision of FSDP does
        parameter.data = parameter.data.to(dtype)
    logits, expected = converted(ids), model(ids)
    assert logits.dtype == dtype and parameters_only(ids).equal(logits)
    assert (logits.float() - expected).abs().max() < error * expected.abs().max()
    exact = LanguageModel(config).eval()
    exact.load_state_dict(converted.state_dict())
    assert converted.float()(ids).equal(exact(ids))  # only the weights were rounded


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0)])
def test_no_sequences_and_no_positions_give_no_logits(shape, kind):
    config = TransformerConfig(vocab_size=30, block_size=8, n_layers=1, n_heads=2, d_model=16, positions="rotary", **KINDS[kind])
    assert LanguageModel(config)(torch.zeros(shape, dtype=torch.long)).shape == (*shape, 30)


def test_an_encoder_decoder_built_without_memory_is_whole_once_it_has_weights():
    config = TransformerConfig.preset("paper", vocab_size=30, block_size=8, n_layers=1, n_heads=2, d_model=16)
    model, ids = EncoderDecoder(config).eval(), torch.randint(30, (2, 12))
    with torch.device("meta"):
        empty, other = EncoderDecoder(config).eval(), EncoderDecoder(config).eval()
    empty.load_state_dict(model.state_dict(), assign=True)
    other.to_empty(device="cpu").load_state_dict(model.state_dict())
    assert empty(ids, ids).equal(model(ids, ids)) and other(ids, ids).equal(model(ids, ids))
