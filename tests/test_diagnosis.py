"diagnose sees mistakes that it was not made for, accuses nothing that is right, and leaves all as it was."

import copy
import functools
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import small_config
from torch import nn
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from transformer_nb.attention import causal_mask, padding_mask, scaled_dot_product_attention
from transformer_nb.diagnosis import CHECKS, Diagnosis, diagnose
from transformer_nb.diagnosis.decoding import check_cached_decoding
from transformer_nb.diagnosis.model_losses import check_model_loss
from transformer_nb.diagnosis.report import Remark
from transformer_nb.diagnosis.sequences import SequenceProbe
from transformer_nb.inference.cache import KVCache
from transformer_nb.layer_norm import LayerNorm
from transformer_nb.multi_head_attention import MultiHeadAttention
from transformer_nb.positional_encoding import (
    LearnedPositionalEncoding,
    RotaryPositionalEncoding,
    SinusoidalPositionalEncoding,
    sinusoidal_encoding,
)
from transformer_nb.transformer import (
    DecoderLayer,
    Encoder,
    EncoderDecoder,
    EncoderLayer,
    LanguageModel,
    TransformerConfig,
)

upper = nn.Transformer.generate_square_subsequent_mask


def hide(scores, mask, value=-math.inf):
    return scores if mask is None else scores.masked_fill(~mask, value)


def scores(q, k):
    return q @ k.mT / math.sqrt(q.shape[-1])


# ---- the classics, by their names


def softmax_twice(q, k, v, mask=None):
    return hide(scores(q, k), mask).softmax(-1).softmax(-1) @ v


class Plain(nn.Module):
    "A self-attention in lines that can be replaced."

    def __init__(self, d_model=16, n_heads=4):
        super().__init__()
        self.n_heads, self.qkv, self.out = n_heads, nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return self.out(self.attend(q, k, v, self.mask(x.shape[1])).transpose(1, 2).flatten(2))

    def mask(self, length):
        return causal_mask(length)

    def attend(self, q, k, v, mask):
        return hide(scores(q, k), mask).softmax(-1) @ v


class Recurrent(nn.Module):
    def __init__(self, batch_first=True):
        super().__init__()
        self.tokens, self.head = nn.Embedding(32, 16), nn.Linear(16, 32)
        self.recurrence = nn.LSTM(16, 16, batch_first=batch_first)

    def forward(self, ids):
        return self.head(self.recurrence(self.tokens(ids))[0])


class WithoutOutput(Plain):
    def __init__(self):
        super().__init__()
        self.out = nn.Identity()


class NoMask(Plain):
    def mask(self, length):
        return None


class MergedByReshape(Plain):
    def forward(self, x):
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return self.out(self.attend(q, k, v, self.mask(x.shape[1])).reshape(x.shape))


class BatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attention = nn.BatchNorm1d(16), Plain()

    def forward(self, x):
        return x + self.attention(self.norm(x.flatten(0, 1)).view_as(x))


def unscaled(q, k, v, mask=None):
    return hide(q @ k.mT, mask).softmax(-1) @ v


def finite_mask(q, k, v, mask=None):
    return hide(scores(q, k), mask, -1e4).softmax(-1) @ v


@pytest.mark.parametrize("obj, kind, check, says", [
    (unscaled, "attention", "scale", "not divided at all"),
    (finite_mask, "attention", "extremes", "minus infinity"),
    (softmax_twice, "attention", "scale", "not proportional"),
    (lambda q, k, v, mask=None: hide(scores(q, k), mask).softmax(-2).nan_to_num() @ v, "attention", "rows", "wrong axis"),
    (lambda q, k, v, mask=None: hide(scores(q, k), None if mask is None else ~mask).softmax(-1) @ v, "attention", "mask", "forbidden"),
    (NoMask(), "self_attention", "causality", "all later inputs"),
    (MergedByReshape(), "self_attention", "heads", "transpose"),
    (WithoutOutput(), "self_attention", "mixing", "W_o"),
    (BatchNorm(), "layer", "batch", "batch norm"),
    (Recurrent(False), "language_model", "batch", "batch_first"),
    (lambda x: x + 2 * sinusoidal_encoding(*x.shape[1:]), "positions", "paper", "twice"),
    (lambda x: (x - x.mean(-1, True)) / x.std(-1, keepdim=True), "layer_norm", "size", "unbiased"),
])
def test_a_classic_mistake_is_called_by_its_name(obj, kind, check, says):
    found = {finding.check: finding.text for finding in diagnose(obj, kind).findings}
    assert says in found[check]


# ---- what is right


def least_finite(q, k, v, mask=None):
    weights = hide(scores(q, k), mask, torch.finfo(q.dtype).min).softmax(-1)
    return weights @ v, weights


def added_mask(q, k, v, mask=None):
    bias = 0 if mask is None else (1 - mask.float()) * torch.finfo(q.dtype).min
    return (scores(q, k) + bias).softmax(-1) @ v


def einsum(q, k, v, mask=None):
    s = torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(q.size(-1))
    s = s if mask is None else s.masked_fill(mask == 0, float("-inf"))
    return torch.einsum("bhqk,bhkd->bhqd", s.softmax(-1), v)


def always_causal(q, k, v, mask=None):
    past = causal_mask(q.shape[-2], k.shape[-2])
    return F.scaled_dot_product_attention(q, k, v, past if mask is None else past & mask)


def of_three_axes(q, k, v, mask=None):
    assert q.dim() == 3
    return scaled_dot_product_attention(q, k, v, mask)


RIGHT_ATTENTION = [
    scaled_dot_product_attention, F.scaled_dot_product_attention, least_finite, added_mask, einsum, always_causal, of_three_axes,
]


@pytest.mark.parametrize("fn", RIGHT_ATTENTION, ids=lambda fn: fn.__name__)
def test_no_right_attention_is_accused(fn):
    diagnosis = diagnose(fn, "attention")
    assert diagnosis and diagnosis.findings == [], diagnosis


class LinearBias(Plain):
    def attend(self, q, k, v, mask):
        place = torch.arange(q.shape[2])
        return hide(scores(q, k) - 0.5 * (place[:, None] - place).abs(), mask).softmax(-1) @ v


class SlidingWindow(Plain):
    def mask(self, length):
        return causal_mask(length) & ~causal_mask(length).tril(-3)


class GroupedQuery(Plain):
    def attend(self, q, k, v, mask):
        return super().attend(q, k[:, :2].repeat_interleave(2, 1), v[:, :2].repeat_interleave(2, 1), mask)


class QueryKeyNorm(Plain):
    def attend(self, q, k, v, mask):
        return super().attend(3 * F.normalize(q, dim=-1), 3 * F.normalize(k, dim=-1), v, mask)


class PlacesInside(Plain):
    def forward(self, x):
        return super().forward(x + sinusoidal_encoding(x.shape[1], x.shape[2]))


class Unmasked(PlacesInside):
    def mask(self, length):
        return None


class CausalConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(16, 16, 3)

    def forward(self, x):
        return self.conv(F.pad(x.mT, (2, 0))).mT


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [Plain, LinearBias, SlidingWindow, GroupedQuery, QueryKeyNorm, PlacesInside, CausalConvolution])
def test_no_right_self_attention_is_accused(kind, seed):
    torch.manual_seed(seed)
    assert diagnose(kind(), "self_attention"), diagnose(kind(), "self_attention")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rotary", [False, True])
def test_our_attention_is_not_accused(seed, rotary):
    torch.manual_seed(seed)
    attention = MultiHeadAttention(24, 3, rotary=RotaryPositionalEncoding(64, 8) if rotary else None)
    memory = torch.randn(1, 5, 24)
    assert diagnose(functools.partial(attention, is_causal=True), "self_attention")
    assert diagnose(attention, "self_attention", causal=False)
    assert diagnose(lambda x: attention(x, mask=padding_mask([6, 4, 2, 5], 6), is_causal=True), "self_attention")
    assert diagnose(lambda x: attention(x, mask=padding_mask([8, 5], 8)), "self_attention", causal=False)
    if not rotary:
        assert diagnose(lambda x: attention(x, memory.expand(len(x), -1, -1)), "self_attention", causal=False)


def test_torch_attention_is_not_accused():
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    assert diagnose(lambda x: theirs(x, x, x)[0], "self_attention", causal=False)
    assert diagnose(lambda x: theirs(x, x, x, attn_mask=upper(x.shape[1]))[0], "self_attention")
    assert diagnose(Unmasked(), "self_attention", causal=False)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("norm_first", [True, False])
def test_no_right_layer_is_accused(norm_first, dropout):
    options = dict(norm_first=norm_first, dropout=dropout)
    ours, theirs = EncoderLayer(16, 4, 32, **options), nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **options)
    assert diagnose(functools.partial(ours, is_causal=True), "layer") and diagnose(ours, "layer", causal=False)
    assert diagnose(theirs, "layer", causal=False) and diagnose(lambda x: theirs(x, src_mask=upper(x.shape[1])), "layer")
    memory = torch.randn(2, 5, 16)
    ours, theirs = DecoderLayer(16, 4, 32, **options), nn.TransformerDecoderLayer(16, 4, 32, batch_first=True, **options)
    assert diagnose(lambda x: ours(x, memory), "layer")
    assert diagnose(lambda x: theirs(x, memory, tgt_mask=upper(x.shape[1])), "layer")
    assert diagnose(Encoder(small_config(**options)), "layer", causal=False)


@pytest.mark.parametrize("preset, positions, tie_embeddings", [
    ("gpt2", "learned", True), ("gpt2", "sinusoidal", False), ("gpt2", "rotary", False),
    ("paper", "learned", False), ("paper", "sinusoidal", True), ("paper", "rotary", True),
])
def test_no_right_language_model_is_accused(preset, positions, tie_embeddings):
    size = dict(vocab_size=40, block_size=16, n_layers=2, n_heads=2, d_model=32)
    model = LanguageModel(TransformerConfig.preset(preset, positions=positions, tie_embeddings=tie_embeddings, **size))
    assert diagnose(model, "language_model"), diagnose(model, "language_model")


@pytest.mark.parametrize("vocab_size", [2, 3, 13])
def test_small_vocabularies_and_double_precision_are_not_accused(vocab_size):
    options = dict(vocab_size=vocab_size, block_size=8, n_layers=1, n_heads=2, d_model=64)
    for model in (LanguageModel(TransformerConfig.preset("paper", **options)), LanguageModel(TransformerConfig(**options)).double()):
        assert diagnose(model, "language_model"), diagnose(model, "language_model")
    assert diagnose(MultiHeadAttention(20, 2).double(), "self_attention", causal=False)


def test_a_decoder_with_its_source_is_not_accused():
    model, source = EncoderDecoder(small_config()), torch.randint(13, (1, 5))
    assert diagnose(lambda ids: model(source.expand(len(ids), -1), ids), "language_model")


def test_models_of_others_are_not_accused():
    size = dict(vocab_size=40, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    layers = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    assert diagnose(GPT2LMHeadModel(GPT2Config(n_positions=32, n_embd=32, n_layer=2, n_head=2, **size)), "language_model")
    assert diagnose(LlamaForCausalLM(LlamaConfig(**layers, **size)), "language_model")
    assert diagnose(BertForMaskedLM(BertConfig(**layers, vocab_size=40)), "language_model", causal=False)
    assert diagnose(Recurrent(), "language_model")


@pytest.mark.parametrize("d_model", [4, 8, 64])
@pytest.mark.parametrize("eps", [1e-3, 1e-5, 1e-6, 1e-12])
def test_no_right_norm_is_accused(d_model, eps):
    assert diagnose(LayerNorm(d_model, eps), "layer_norm") and diagnose(nn.LayerNorm(d_model, eps), "layer_norm")


def halves(x):
    waves = sinusoidal_encoding(*x.shape[1:])
    return x + torch.cat((waves[:, ::2], waves[:, 1::2]), dim=1)


@pytest.mark.parametrize("fn", [SinusoidalPositionalEncoding(32, 16), LearnedPositionalEncoding(32, 16), halves], ids=["sinusoidal", "learned", "halves"])
def test_no_right_places_are_accused(fn):
    assert diagnose(fn, "positions"), diagnose(fn, "positions")


def test_no_right_loss_is_accused():
    ignored = lambda logits, targets, mask: F.cross_entropy(logits.mT, targets.masked_fill(~mask, -100))  # noqa: E731
    assert diagnose(ignored, "loss")
    assert diagnose(lambda model, ids: F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()), "objective")


# ---- what is wrong, and was not on the table when the checks were made


def cosine(q, k, v, mask=None):
    return hide(F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT, mask).softmax(-1) @ v


def rectified(q, k, v, mask=None):
    return hide(scores(q, k), mask, 0).relu() @ v


def hard(q, k, v, mask=None):
    return F.one_hot(hide(scores(q, k), mask).argmax(-1), k.shape[-2]).float() @ v


def sigmoid(q, k, v, mask=None):
    return hide(scores(q, k), mask).sigmoid() @ v


def lower_scores(q, k, v, mask=None):
    return scores(q, k).tril().softmax(-1) @ v


def scaled_twice(q, k, v, mask=None):
    return hide(scores(q, k) / math.sqrt(q.shape[-1]), mask).softmax(-1) @ v


def values_normalized(q, k, v, mask=None):
    return hide(scores(q, k), mask).softmax(-1) @ F.normalize(v, dim=-1)


def mask_added_as_a_number(q, k, v, mask=None):
    return (scores(q, k) + (0 if mask is None else mask.float())).softmax(-1) @ v


def first_key_forgotten(q, k, v, mask=None):
    return hide(scores(q, k), mask)[..., 1:].softmax(-1).nan_to_num() @ v[..., 1:, :]


def one_percent_too_much(q, k, v, mask=None):
    return 1.01 * F.scaled_dot_product_attention(q, k, v, mask)


def keys_for_values(q, k, v, mask=None):
    return hide(scores(q, k), mask).softmax(-1) @ k


def log_shares(q, k, v, mask=None):
    return hide(scores(q, k), mask, -1e30).log_softmax(-1) @ v


STRANGE_ATTENTION = [
    cosine, rectified, hard, sigmoid, lower_scores, scaled_twice, softmax_twice, values_normalized,
    mask_added_as_a_number, first_key_forgotten, one_percent_too_much, keys_for_values, log_shares,
]


@pytest.mark.parametrize("fn", STRANGE_ATTENTION, ids=lambda fn: fn.__name__)
def test_a_strange_attention_is_seen(fn):
    assert not diagnose(fn, "attention")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.places, self.head = nn.Embedding(32, 16), nn.Embedding(16, 16), nn.Linear(16, 32)
        self.norm, self.attention = LayerNorm(16), Plain()

    def embed(self, ids):
        return self.tokens(ids) + self.places(torch.arange(ids.shape[1]))

    def forward(self, ids):
        x = self.embed(ids)
        return self.head(x + self.attention(self.norm(x)))


class NormOverTheText(Model):
    def embed(self, ids):
        return F.layer_norm(super().embed(ids), (ids.shape[1], 16))


class Clamped(Model):
    def embed(self, ids):
        return super().embed(ids.clamp(max=15))


class LogitsRolled(Model):
    def forward(self, ids):
        return super().forward(ids).roll(-1, 1)


class NextTokenPeeked(Model):
    def embed(self, ids):
        return super().embed(ids) + 1e-3 * self.tokens(ids.roll(-1, 1))


class Bigram(nn.Embedding):
    def __init__(self):
        super().__init__(32, 32)


STRANGE_MODELS = [NormOverTheText, Clamped, LogitsRolled, NextTokenPeeked, Bigram, functools.partial(Recurrent, False)]


@pytest.mark.parametrize("build", STRANGE_MODELS, ids=lambda b: getattr(b, "__name__", "batch axis first"))
def test_a_strange_model_is_seen(build):
    assert not diagnose(build(), "language_model")


class TwoSided(CausalConvolution):
    def forward(self, x):
        return self.conv(F.pad(x.mT, (1, 1))).mT


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(8, 8)

    def forward(self, x):
        return self.mix(x.mT).mT


class Remembering(Plain):
    state = 0.0

    def forward(self, x):
        y = super().forward(x) + self.state
        self.state = y.detach().mean()
        return y


STRANGE_FUNCTIONS = [
    TwoSided(), Mixer(), Remembering(), lambda x: x.flip(1).cumsum(1).flip(1), lambda x: x / x.std(), lambda x: x[:, :1] + 0 * x,
    lambda x: x * math.nan, lambda x: x @ x.mT, lambda x: 1 / 0,
]


@pytest.mark.parametrize("fn", STRANGE_FUNCTIONS, ids=range(len(STRANGE_FUNCTIONS)))
def test_a_strange_function_is_seen(fn):
    assert not diagnose(fn, "self_attention")


# ---- a sample of what fresh eyes wrote: wrong


class Block(nn.Module):
    "A layer in lines that can be replaced."

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2, self.attention = LayerNorm(16), LayerNorm(16), Plain()
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class LosesTheInput(Block):
    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return self.mlp(self.norm2(x))


class AddsTwice(Block):
    def forward(self, x):
        return x + super().forward(x)


class InPlace(Block):
    def forward(self, x):
        x += self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DropoutByHand(Block):
    def forward(self, x):
        y = super().forward(x)
        return y * (torch.rand_like(y) > 0.1) if self.training else y


class DropoutOfScores(Plain):
    def attend(self, q, k, v, mask):
        return F.dropout(hide(scores(q, k), mask), 0.5, self.training).softmax(-1) @ v


class OneHeadForAll(Plain):
    def attend(self, q, k, v, mask):
        return super().attend(q[:, :1].expand_as(q), k, v, mask)


class TwoZeros(Block):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Linear(16, 2, bias=False), nn.Linear(2, 16, bias=False)
        nn.init.zeros_(self.down.weight), nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return super().forward(x) + self.up(self.down(x))


class LeaksBehindAClosedGate(Block):
    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return super().forward(x) + self.gate * x.mean(1, keepdim=True)


class PositionsClamped(Model):
    def embed(self, ids):
        return self.tokens(ids) + self.places(torch.arange(ids.shape[1]).clamp(max=4))


class Squeezed(Model):
    def forward(self, ids):
        return super().forward(ids).squeeze()


class TableOfTheFirstCall(Model):
    table = None

    def embed(self, ids):
        self.table = sinusoidal_encoding(ids.shape[1], 16) if self.table is None else self.table
        return self.tokens(ids) + self.table[: ids.shape[1]]


class FrozenTokens(Model):
    def __init__(self):
        super().__init__()
        self.tokens.weight.requires_grad_(False)
        self.wide = nn.Linear(16, 64)

    def forward(self, ids):
        return super().forward(ids) + self.wide(self.embed(ids)).mean(-1, keepdim=True)


def divided_by_the_number_of_keys(q, k, v, mask=None):
    return hide(q @ k.mT / math.sqrt(k.shape[-2]), mask).softmax(-1) @ v


def last_keys_left_out(q, k, v, mask=None):
    kept = k.shape[-2] // 64 * 64 or k.shape[-2]  # whole blocks
    return hide(scores(q, k[..., :kept, :]), None if mask is None else mask[..., :kept]).softmax(-1) @ v[..., :kept, :]


def queries_scaled_in_place(q, k, v, mask=None):
    q /= math.sqrt(q.shape[-1])
    return hide(q @ k.mT, mask).softmax(-1) @ v


def cross_entropies(logits, targets, mask):
    return F.cross_entropy(logits.mT, targets, reduction="none") * mask


def mean_of_means(*args):
    return (cross_entropies(*args).sum(1) / args[2].sum(1)).mean()


def overflowing(logits, targets, mask):
    return F.nll_loss(logits[mask].softmax(-1).log(), targets[mask])


def summed(model, ids):
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")


def divided_by_the_variance(x):
    return (x - x.mean(-1, True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5)


def counted_from_the_end(x):
    return x + sinusoidal_encoding(*x.shape[1:]).flip(0)


MORE_MISTAKES = [
    (LosesTheInput, "layer", "missing"), (AddsTwice, "layer", "added twice"), (InPlace, "layer", "in place"),
    (DropoutByHand, "layer", "divide by 1 - p"), (DropoutOfScores, "self_attention", "after the softmax"),
    (OneHeadForAll, "self_attention", "never used"), (TwoZeros, "layer", "only one of the two"),
    (LeaksBehindAClosedGate, "layer", "a later one"), (PositionsClamped, "language_model", "share a row"),
    (Squeezed, "language_model", "squeeze"), (TableOfTheFirstCall, "language_model", "first call"),
    (FrozenTokens, "language_model", "frozen"), (divided_by_the_number_of_keys, "attention", "number of keys"),
    (last_keys_left_out, "attention", "left out"), (queries_scaled_in_place, "attention", "in place"),
    (mean_of_means, "loss", "mean of the means"), (overflowing, "loss", "log_softmax"),
    (lambda *args: cross_entropies(*args).mean().item(), "loss", "return the tensor"), (summed, "objective", "take the mean"),
    (divided_by_the_variance, "layer_norm", "root is missing"), (counted_from_the_end, "positions", "from the end"),
]


@pytest.mark.parametrize("obj, kind, says", MORE_MISTAKES)
def test_a_mistake_that_changes_no_shape_is_told_with_its_cure(obj, kind, says):
    diagnosis = diagnose(obj() if isinstance(obj, type) else obj, kind)
    assert not diagnosis and says in repr(diagnosis)


# ---- right, and unusual


class SilentHead(Model):
    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.head.weight), nn.init.zeros_(self.head.bias)


class ReZero(Block):
    def __init__(self):
        super().__init__()
        del self.norm1, self.norm2
        self.gates = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        x = x + self.gates[0] * self.attention(x)
        return x + self.gates[1] * self.mlp(x)


class Switch(Block):
    "Each position goes to one of four experts."

    def __init__(self):
        super().__init__()
        self.router, self.experts = nn.Linear(16, 4), nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

    def forward(self, x):
        x = super().forward(x)
        shares, chosen = self.router(x).softmax(-1).max(-1)
        y = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            y[chosen == i] = expert(x[chosen == i])
        return x + shares[..., None] * y


class LastOnly(Model):
    def forward(self, ids):
        return super().forward(ids)[:, -1:]


class ClassesFirst(Model):
    def forward(self, ids):
        return super().forward(ids).mT


class Noisy(Block):
    "Stochastic depth and dropout."

    def forward(self, x):
        kept = torch.bernoulli(torch.full((len(x), 1, 1), 0.8)) / 0.8 if self.training else 1
        return x + kept * F.dropout(super().forward(x) - x, 0.2, self.training)


def with_a_null_key(q, k, v, mask=None):
    return F.pad(hide(scores(q, k), mask), (1, 0)).softmax(-1)[..., 1:] @ v


def by_distance(q, k, v, mask=None):
    bias = -0.3 * (torch.arange(q.shape[-2])[:, None] - torch.arange(k.shape[-2])).abs()
    return hide(scores(q, k) + bias, mask).softmax(-1) @ v


def capped(q, k, v, mask=None):
    return hide(5 * (scores(q, k) / 5).tanh(), mask).softmax(-1) @ v


def windowed(q, k, v, mask=None):
    window = causal_mask(q.shape[-2], k.shape[-2]) & ~causal_mask(q.shape[-2], k.shape[-2]).tril(k.shape[-2] - q.shape[-2] - 3)
    return hide(scores(q, k), window if mask is None else window & mask).softmax(-1) @ v


def fewer_queries_alone(q, k, v, mask=None):
    assert q.shape[-2] < k.shape[-2]
    return always_causal(q, k, v, mask)


def large_negative_number(q, k, v, mask=None):
    return hide(scores(q, k), mask, -1e9).softmax(-1) @ v


def causal_from_the_first(q, k, v, mask=None):
    past = causal_mask(k.shape[-2])[: q.shape[-2]]
    return hide(scores(q, k), past if mask is None else past & mask).softmax(-1) @ v


def with_z_loss(logits, targets, mask):
    return F.cross_entropy(logits[mask], targets[mask]) + 1e-2 * logits[mask].logsumexp(-1).square().mean()


def smoothed(model, ids):
    return F.cross_entropy(model(ids)[:, :-1].mT, ids[:, 1:], label_smoothing=0.1)


def trained_norm():
    norm = nn.LayerNorm(16)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    return norm


UNUSUAL = [  # with the remark, if there is one
    (SilentHead, "language_model", "at initialization, but not after"), (ReZero, "layer", "at initialization, but not after"), (Switch, "layer", ""),
    (LastOnly, "language_model", ""), (ClassesFirst, "language_model", ""), (Noisy, "layer", ""),
    (with_a_null_key, "attention", "an extra key"), (by_distance, "attention", "bias by distance"), (capped, "attention", "capped at 5"),
    (windowed, "attention", "of its own"), (fewer_queries_alone, "attention", "of its own"), (large_negative_number, "attention", "minus infinity"),
    (causal_from_the_first, "attention", "the last"), (with_z_loss, "loss", "does not depend on the targets"),
    (smoothed, "objective", "label smoothing of 0.1"), (trained_norm, "layer_norm", ""), (functools.partial(nn.RMSNorm, 16), "layer_norm", "RMS norm"),
    (lambda: LearnedPositionalEncoding(32, 16), "positions", ""),
]


@pytest.mark.parametrize("build, kind, remark", UNUSUAL)
def test_what_is_unusual_and_right_is_at_most_remarked_on(build, kind, remark):
    builds = isinstance(build, (type, functools.partial)) or build in (trained_norm, UNUSUAL[-1][0])
    diagnosis = diagnose(build() if builds else build, kind)
    assert diagnosis, diagnosis
    assert remark in repr(diagnosis) and bool(diagnosis.remarks) >= bool(remark)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_not_accused(dtype):
    model = LanguageModel(small_config()).to(dtype)
    assert diagnose(model, "language_model"), diagnose(model, "language_model")
    assert next(model.parameters()).dtype == dtype
    assert diagnose(MultiHeadAttention(16, 2).to(dtype), "self_attention", causal=False)


class LargeNumber(Model):
    def __init__(self):
        super().__init__()
        self.attention.attend = lambda q, k, v, mask: hide(scores(q, k), mask, -1e9).softmax(-1) @ v


def test_a_number_that_half_precision_cannot_hold_is_seen_there_alone():
    assert diagnose(LargeNumber(), "language_model") and diagnose(LargeNumber().bfloat16(), "language_model")
    assert "overflow" in repr(diagnose(LargeNumber().half(), "language_model"))


# ---- what is handed over beside the object


def caches_of(model):
    return [KVCache(64) for _ in model.stack.layers]


def decoding_functions(model):
    "A right decoding function in each form, and wrong ones."
    kept = caches_of(model)

    def with_cache(ids, caches=None):
        caches = caches or caches_of(model)
        return torch.cat([model(ids[:, t : t + 1], cache=caches) for t in range(ids.shape[1])], dim=1)

    def step(ids, caches):
        caches = caches or caches_of(model)
        return model(ids, cache=caches), caches

    def greedy(ids, n):
        for _ in range(n):
            ids = torch.cat((ids, with_cache(ids)[:, -1:].argmax(-1)), dim=1)
        return ids

    right = [with_cache, lambda model, ids: with_cache(ids), step, greedy, lambda ids: with_cache(ids)[:, -1]]
    return right, {
        "not used": lambda ids: torch.cat([model(ids[:, t : t + 1]) for t in range(ids.shape[1])], dim=1),
        "fails": lambda ids: with_cache(ids, kept),
        "previous position": lambda ids: with_cache(ids).roll(1, 1),
        "last token is left out": lambda ids: with_cache(ids)[:, -2],
        "the first step is wrong": lambda ids: with_cache(torch.zeros_like(ids)),
        "not the most likely": lambda ids, n: torch.cat((ids, ids[:, -1:].expand(-1, n)), dim=1),
    }


def test_decoding_is_compared_with_the_whole():
    model = LanguageModel(small_config()).eval()
    right, wrong = decoding_functions(model)
    for decode in right:
        assert diagnose(model, "language_model", decode=decode), diagnose(model, "language_model", decode=decode)
    probe = SequenceProbe(model, "language_model", causal=True)
    for says, decode in wrong.items():
        found = list(check_cached_decoding(probe, decode))
        assert found and says in found[0], (says, found)


def loss_of_logits(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@pytest.mark.parametrize("loss, says", [
    (loss_of_logits, ""),
    (lambda model, ids: loss_of_logits(model(ids)[:, :-1], ids[:, 1:]), ""),
    (lambda model, ids, targets: loss_of_logits(model(ids), targets), ""),
    (lambda logits, targets: F.cross_entropy(logits.mT, targets, ignore_index=0), ""),
    (lambda logits, targets: loss_of_logits(logits[:, :-1], targets[:, 1:]), "shift once"),
    (lambda logits, targets: loss_of_logits(logits.softmax(-1), targets), "applied twice"),
    (lambda logits, targets: loss_of_logits(logits, targets.clamp(min=0)), "padding"),
    (lambda model, ids: loss_of_logits(model(ids), ids), "not shifted"),
    (lambda model, ids, targets: loss_of_logits(model(ids)[:, :-1], targets[:, 1:]), "cross-entropy"),
])
def test_the_loss_of_a_model_is_compared_with_the_cross_entropy(loss, says):
    probe = SequenceProbe(Model(), "language_model", causal=True)
    faults = [text for text in check_model_loss(probe, loss) if not isinstance(text, Remark)]
    assert says in " ".join(faults) and bool(faults) == bool(says), faults


def test_padding_changes_nothing():
    attention = MultiHeadAttention(16, 4)
    diagnose_padding = functools.partial(diagnose, attention, "self_attention", False)
    assert diagnose_padding(lengths=lambda x, n: attention(x, mask=padding_mask(n, x.shape[1])))
    assert diagnose_padding(lengths=lambda model, x, mask: model(x, mask=mask[:, None]))
    assert "overwriting the padding" in repr(diagnose_padding(lengths=lambda x, n: attention(x)))
    assert "fails" in repr(diagnose_padding(lengths=lambda x, n: attention(x, mask=n)))
    model = LanguageModel(small_config())  # whose positions count the padding on the left
    assert diagnose(model, "language_model", lengths=lambda ids, n: model(ids))
    assert "on the left" in repr(diagnose(model, "language_model", lengths=lambda ids, mask: model(ids)))


def grouped(attention, interleave):
    "Two heads of keys and values for four of queries."

    def forward(x):
        q, k, v = attention.qkv(x).split((16, 8, 8), -1)
        q, k, v = (y.unflatten(-1, (-1, 4)).transpose(1, 2) for y in (q, k, v))
        k, v = (y.repeat_interleave(2, 1) if interleave else y.repeat(1, 2, 1, 1) for y in (k, v))
        return attention.out(always_causal(q, k, v).transpose(1, 2).flatten(2))

    return forward


def test_a_layer_is_compared_with_a_reference():
    ours, theirs = MultiHeadAttention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    for name, value in theirs.named_parameters():
        nn.init.normal_(value, std=0.3)
    state = {**theirs.state_dict()}
    ours.load_state_dict(state)
    causally = functools.partial(ours, is_causal=True)
    assert diagnose(causally, "self_attention", like=theirs) and diagnose(ours, "self_attention", False, like=theirs)
    assert diagnose(causally, "self_attention", like=ours)
    ours.out_proj.bias.data.zero_()
    assert "bias is missing" in repr(diagnose(causally, "self_attention", like=theirs))
    attention = Plain()
    attention.qkv = nn.Linear(16, 32)
    right, wrong = grouped(attention, True), grouped(attention, False)
    assert diagnose(right, "self_attention", like=grouped(attention, True))
    assert "differs from the reference" in repr(diagnose(wrong, "self_attention", like=right))
    assert diagnose(einsum, "attention", like=F.scaled_dot_product_attention)
    assert "differs" in repr(diagnose(unscaled, "attention", like=einsum))


def test_arguments_that_do_not_fit_are_refused_in_one_line(shapes_unchecked):
    with pytest.raises(ValueError, match="got 'languagemodel'; did you mean 'language_model'"):
        diagnose(Model(), "languagemodel")
    with pytest.raises(ValueError, match="decode= is for the kinds language_model, got kind 'layer'"):
        diagnose(Block(), "layer", decode=lambda ids: ids)
    with pytest.raises(TypeError, match="lengths= takes a function, .* got list"):
        diagnose(Block(), "layer", lengths=[3, 2])
    with pytest.raises(ValueError, match="meta device"):
        diagnose(Model().to("meta"), "language_model")


def test_the_model_behind_a_function_is_left_as_it_was():
    model = LanguageModel(small_config(dropout=0.1)).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    diagnose(lambda ids: model(ids), "language_model", decode=lambda ids: model(ids), loss=lambda model, ids: model(ids).mean())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert model.training and torch.get_rng_state().equal(state)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


# ---- manners


def test_the_object_is_left_as_it_was():
    model = LanguageModel(small_config(dropout=0.1)).train()
    model.stack.layers[1].eval()
    modes = [module.training for module in model.modules()]
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    diagnose(model, "language_model")
    diagnose(lambda ids: model(ids), "language_model")
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert torch.get_rng_state().equal(state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_finding_is_a_sentence_and_the_name_of_a_check():
    diagnosis = diagnose(softmax_twice, "attention")
    assert isinstance(diagnosis, Diagnosis) and not diagnosis
    for finding in diagnosis.findings:
        assert finding.check in diagnosis.checks and finding.text in repr(diagnosis) and "\n" not in finding.text
    assert "nothing wrong in 11 checks" in repr(diagnose(einsum, "attention"))


@pytest.mark.parametrize("kind", CHECKS)
def test_what_cannot_be_called_is_a_finding(kind):
    def refuses(*args, **kwargs):
        raise RuntimeError("not today")

    assert "not today" in repr(diagnose(refuses, kind))


def test_bad_arguments_are_named(shapes_unchecked):
    with pytest.raises(ValueError, match="kind must be one of attention, .*got 'attn'"):
        diagnose(einsum, "attn")
    with pytest.raises(TypeError, match="diagnose takes a function or a module, got int"):
        diagnose(3, "attention")
