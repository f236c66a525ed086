"""The public names, for editors and for `__init__`, which imports a name's module when it is first used."""

__version__: str

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
from .inference.conversation import Conversation
from .inference.streaming import stream, stream_text
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
from .data.pretrained_tokenizer import PretrainedTokenizer
from .inference.text_loss import text_loss
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
    "BigramEmbedding",
    "CharTokenizer",
    "Checkpoint",
    "Conversation",
    "Decoder",
    "DecoderLayer",
    "Diagnosis",
    "Encoder",
    "EncoderDecoder",
    "EncoderLayer",
    "Exploration",
    "FeedForward",
    "GatedFeedForward",
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
    "PretrainedTokenizer",
    "RMSNorm",
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
    "stream",
    "stream_text",
    "text_loss",
    "to_huggingface",
    "train",
]
