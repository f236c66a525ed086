"""The Transformer of "Attention Is All You Need" (Vaswani et al., 2017), layer by layer.

Every module is exported from a notebook in `nbs`. The walk is one module per chapter; each imports from earlier ones:

    tokenization           text <-> indices; windows
    embeddings             indices -> vectors
    positional_encoding    vectors that know their position
    attention              one head, masks, `leak_test`
    layer_norm             each vector to mean 0 and variance 1
    multi_head_attention   several heads, and the matrix that mixes them
    transformer            layers, stacks and models
    generation             sampling, and `generate`
    training               data, learning rate, evaluation, and `train`

Sub-packages hold what a reader of the walk does not need; the docstring of each lists its modules:

    config      the configurations of a model and its training, and the table of parts
    data        text files, tokenizer files, token files
    inference   key-value cache; what stands around a call of `generate`
    cpu         one new token in few calls, for models made of these layers alone
    runs        the training loop, batches, checkpoints, metrics, several processes
    seq2seq     pairs of texts, label smoothing, greedy decoding and beam search
    modern      norms, gates, attention and an optimizer that came after the paper
    interpret   reading, replacing and comparing what a model computes inside
    diagnosis   what is wrong with somebody's attention, layer, model, norm or loss
    convert     published models and PyTorch's own, in these classes, and back
    notebook    figures, questions and exercises of the pages; the explorer of a trained model

Axes in the shapes of signatures, as in `Float[Tensor, "batch seq d_model"]`:

    batch          B, sequences side by side
    seq            T, positions in a sequence
    kv             S, positions that can be attended to: the keys and values of attention
    source         S, positions in the source of an encoder-decoder
    head           h, attention heads
    kv_head        heads of keys and values, each shared by a group of query heads
    d_model        features of the vector of each position
    d_k, d_v       features of a query or key, and of a value, in one head
    d_ff           features inside a feed-forward network
    vocab          V, tokens in the vocabulary
    window, block  windows cut from a text, and positions in a window
    pair           pairs of features that are rotated by one angle
    train, validation  the two parts of a text
    row, column    of a matrix to look at
    feature        whatever follows batch and position
    output         features that leave a linear layer
    beam           sequences that a search keeps for each source
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
from .config.model import PARTS
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
from .modern.attention import GroupedQueryAttention
from .modern.muon import Muon
from .notebook.explorer import Exploration, explore
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
    "Exploration",
    "FeedForward",
    "GroupedQueryAttention",
    "History",
    "KVCache",
    "LanguageModel",
    "LayerNorm",
    "LearnedPositionalEncoding",
    "MultiHeadAttention",
    "Muon",
    "PARTS",
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
    "explore",
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
