"""The Transformer of "Attention Is All You Need" (Vaswani et al., 2017), layer by layer.

The modules are exported from the notebooks in `nbs`, one chapter each. They read best in this order, which is also the
order of their imports: no module imports from a later one.

    data.text_files        text files and notebooks -> text in pieces
    data.tokenizer_files   tokenizer.json, vocab.json and merges.txt
    tokenization           text <-> indices; windows
    data.token_files       files of any size -> indices on the disk
    embeddings             indices -> vectors
    positional_encoding    vectors that know their place
    attention              one head, masks, `leak_test`
    layer_norm             each vector to mean 0 and variance 1
    multi_head_attention   several heads and what mixes them
    inspection             reading and replacing what happens inside a model
    transformer            layers, stacks, models and their configuration
    cpu.hooks              whether anybody listens to a module
    cpu.decoding           one new token in few calls, for models made of these layers alone
    generation             sampling, key-value cache
    checkpoints            what a run leaves on disk, whole at every moment
    muon                   an optimizer for matrices that came after the paper (chapter 12)
    distributed            several processes that train one model
    training               data and loop
    diagnosis              what is wrong with somebody's attention, layer, model, norm or loss
    encoder_decoder        the paper's whole machine: label smoothing, its schedule, greedy and beam search
    pretrained             published models and PyTorch's own, in these classes, and back
    plotting               the figures that the chapters share (needs matplotlib only when it draws)
    questions              guesses and exercises, for the pages

Axes in the shapes of signatures, as in `Float[Tensor, "batch seq d_model"]`:

    batch          B, texts side by side
    seq            T, positions in a sequence
    kv             S, positions that can be attended to: the keys and values of attention
    source         S, positions in the source of an encoder-decoder
    head           h, attention heads
    d_model        features of the vector of each position
    d_k, d_v       features of a query or key, and of a value, in one head
    d_ff           features inside a feed-forward network
    vocab          V, tokens in the vocabulary
    window, block  windows cut from a text, and places in a window
    pair           pairs of features that are turned by one angle
    train, validation  the two parts of a text
    row, column    of a matrix to look at
    feature        whatever follows batch and position
    output         features that leave a linear layer
    beam           texts that a search keeps side by side for each source
    out_seq        seq, or the last position alone
    new_seq        seq, after something was appended
    mask, source_mask, target_mask, memory_mask  leading axes of a mask, which broadcast

Masks are boolean, and True means "may be attended".
"""

__version__ = "0.1.0"

from .attention import (
    causal_mask,
    dependency_matrix,
    leak_test,
    padding_mask,
    scaled_dot_product_attention,
)
from .runs.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from .diagnosis import Diagnosis, diagnose
from .embeddings import TokenEmbedding
from .seq2seq.decoding import (
    beam_search,
    gnmt_length_penalty,
    greedy_decode,
    label_smoothed_cross_entropy,
    noam_lr,
)
from .seq2seq.pairs import PairBatches, PairTokenizer, average_checkpoints, pair_batch
from .generation import generate
from .inference.cache import KVCache
from .interpret.activations import activation_names, activations
from .layer_norm import LayerNorm
from .multi_head_attention import MultiHeadAttention
from .modern.muon import Muon
from .modern.parts import BigramEmbedding, GatedFeedForward, RMSNorm
from .positional_encoding import (
    LearnedPositionalEncoding,
    RotaryPositionalEncoding,
    SinusoidalPositionalEncoding,
    sinusoidal_encoding,
)
from .convert import from_huggingface, from_torch, to_huggingface
from .tokenization import (
    BPETokenizer,
    CharTokenizer,
    load_tokenizer,
    next_token_windows,
    series_corpus,
)
from .training import (
    History,
    TrainingConfig,
    evaluate,
    train,
)
from .transformer import (
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderDecoder,
    EncoderLayer,
    FeedForward,
    LanguageModel,
    TransformerConfig,
    count_parameters,
    shift_right,
)

__all__ = [
    "BPETokenizer",
    "CharTokenizer",
    "Checkpoint",
    "Decoder",
    "DecoderLayer",
    "Diagnosis",
    "Encoder",
    "EncoderDecoder",
    "EncoderLayer",
    "FeedForward",
    "History",
    "KVCache",
    "LanguageModel",
    "LayerNorm",
    "LearnedPositionalEncoding",
    "MultiHeadAttention",
    "Muon",
    "PairBatches",
    "PairTokenizer",
    "RotaryPositionalEncoding",
    "SinusoidalPositionalEncoding",
    "TokenEmbedding",
    "TrainingConfig",
    "TransformerConfig",
    "activation_names",
    "activations",
    "average_checkpoints",
    "beam_search",
    "causal_mask",
    "count_parameters",
    "dependency_matrix",
    "diagnose",
    "evaluate",
    "from_huggingface",
    "from_torch",
    "generate",
    "gnmt_length_penalty",
    "greedy_decode",
    "label_smoothed_cross_entropy",
    "leak_test",
    "load_checkpoint",
    "load_tokenizer",
    "next_token_windows",
    "noam_lr",
    "padding_mask",
    "pair_batch",
    "save_checkpoint",
    "scaled_dot_product_attention",
    "series_corpus",
    "shift_right",
    "sinusoidal_encoding",
    "to_huggingface",
    "train",
]
