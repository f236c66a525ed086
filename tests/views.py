"Views of small models with random weights, for the tests of the explorer."

from functools import cache

import torch
from torch import nn
from helpers import randomize, small_config, small_encoder_decoder, small_language_model

from transformer_nb.interpret.activations import activations
from transformer_nb.convert.bert import BertConfig, MaskedLanguageModel
from transformer_nb.multi_head_attention import MultiHeadAttention
from transformer_nb.notebook.explorer import Exploration, explore
from transformer_nb.seq2seq.pairs import PairTokenizer
from transformer_nb.transformer import Encoder, InputEmbedding, LanguageModel

# Tokens that a page could take for markup, for code or for nothing at all.
HOSTILE = [
    "<script>alert(1)</script>", "</script>", "<!--", '"', "'", "\n", "\t", " ", "", "🙂", "&amp;", "\\u003c", "א", "`${1}`", "$a_$", "12",
]  # fmt: skip


class PaddedEncoder(Encoder):
    "An encoder in which nobody attends to token 0."

    def forward(self, ids):
        return super().forward(ids, (ids != 0)[:, None])


class WindowModel(LanguageModel):
    "A language model whose positions attend to the last three positions only."

    def forward(self, ids):
        length = ids.shape[1]
        return super().forward(ids, torch.ones(length, length, dtype=torch.bool).triu(-2)[None])


def random_ids(count: int, vocab_size: int) -> torch.Tensor:
    return torch.randint(vocab_size, (count,), generator=torch.Generator().manual_seed(0))


def names(vocab_size: int) -> list[str]:
    "A tokenizer of the simplest kind: the name of each id."
    return [f"w{i}" for i in range(vocab_size)]


def text_view(**options) -> Exploration:
    "Of a language model and hostile tokens, each of them once."
    model = small_language_model(vocab_size=len(HOSTILE), block_size=16, **{"d_model": 16, **options})
    return explore(model, HOSTILE, torch.arange(len(HOSTILE)), query=6)


def pair_view() -> Exploration:
    tokenizer = PairTokenizer("abcdefgh")
    model = small_encoder_decoder(vocab_size=tokenizer.vocab_size, block_size=12)
    return explore(model, tokenizer, "abcdefgh", "fedcb", attention="decoder.layers.1.cross_attention")


def encoder_view(kind=PaddedEncoder) -> Exploration:
    "Of an encoder without a head; two of its tokens are padding."
    config = small_config()
    return explore(randomize(kind(config, InputEmbedding(config))).eval(), names(13), [3, 4, 5, 6, 7, 0, 0])


def window_view() -> Exploration:
    return explore(randomize(WindowModel(small_config())).eval(), names(13), random_ids(8, 13))


def bert_view() -> Exploration:
    config = BertConfig(vocab_size=13, block_size=8, n_layers=2, n_heads=2, d_model=8)
    return explore(randomize(MaskedLanguageModel(config)).eval(), names(13), random_ids(7, 13))


def sharp(exploration: Exploration) -> Exploration:
    "Of the same model with weights of 0 or 1, because exp of the other scores underflows."
    model, ids = exploration.model, exploration.ids
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, MultiHeadAttention):
                module.in_proj_weight.mul_(30)
    return explore(model, exploration.tokenizer, ids)


def long_view(d_model: int = 96) -> Exploration:
    "256 tokens, 6 layers of 6 heads, and so many tokens in the vocabulary that not all logits are sent."
    model = small_language_model(vocab_size=5003, block_size=256, n_layers=6, n_heads=6, d_model=d_model)
    return explore(model, names(5003), random_ids(256, 5003))


VIEWS = {
    "text": text_view,
    "rotary": lambda: text_view(positions="rotary", feed_forward="gated", norm="rms"),
    "post-norm": lambda: text_view(norm_first=False, positions="sinusoidal", n_heads=4),
    "bigram": lambda: text_view(embedding="bigram", tie_embeddings=False),
    "one token": lambda: explore(small_language_model(), names(13), [7]),
    "pair": pair_view,
    "padded encoder": encoder_view,
    "encoder": lambda: encoder_view(Encoder),
    "masked language model": bert_view,
    "window": window_view,
    "sharp": lambda: sharp(text_view()),
    "sharp encoder": lambda: sharp(encoder_view()),
    "large vocabulary": lambda: explore(small_language_model(vocab_size=6000), names(6000), random_ids(8, 6000)),
    "long": long_view,
}


@cache
def view(name: str) -> Exploration:
    "One of the views above; made once, so it must not be changed."
    torch.manual_seed(0)
    return VIEWS[name]()


# The same as a view with parts switched off, computed without it.


def losses_without(model, ids, replace) -> torch.Tensor:
    "The loss of each token while activations are replaced, computed without the explorer."
    with activations(model, replace=replace), torch.no_grad():
        logits = model(ids)
    return nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")


def without_head(head: int):
    return lambda heads: heads.index_fill(1, torch.tensor([head]), 0.0)


OFF = {
    "layers.0.attention.heads.1": {"layers.0.attention.heads": without_head(1)},
    "layers.1.feed_forward": {"layers.1.feed_forward": 0.0},
    "layers.0": {"layers.0.attention": 0.0, "layers.0.feed_forward": 0.0},
}
