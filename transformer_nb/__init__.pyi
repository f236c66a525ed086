"""The public names, for editors and for `__init__`, which imports a name's module when it is first used.

A name is public for jedi only as `name as name`, for others also by `__all__`."""

__version__: str

from .attention import (
    causal_mask as causal_mask,
    dependency_matrix as dependency_matrix,
    leak_test as leak_test,
    padding_mask as padding_mask,
    scaled_dot_product_attention as scaled_dot_product_attention,
)
from .runs.checkpoints import (
    Checkpoint as Checkpoint,
    load_checkpoint as load_checkpoint,
    save_checkpoint as save_checkpoint,
)
from .config.model import PARTS as PARTS
from .diagnosis import Diagnosis as Diagnosis, diagnose as diagnose
from .embeddings import TokenEmbedding as TokenEmbedding
from .seq2seq.decoding import (
    beam_search as beam_search,
    gnmt_length_penalty as gnmt_length_penalty,
    greedy_decode as greedy_decode,
)
from .seq2seq.pairs import (
    PairBatches as PairBatches,
    PairTokenizer as PairTokenizer,
    average_checkpoints as average_checkpoints,
    pair_batch as pair_batch,
)
from .seq2seq.training import (
    label_smoothed_cross_entropy as label_smoothed_cross_entropy,
    noam_lr as noam_lr,
)
from .generation import generate as generate
from .inference.cache import KVCache as KVCache
from .inference.conversation import Conversation as Conversation
from .inference.streaming import stream as stream, stream_text as stream_text
from .interpret.activations import activation_names as activation_names, activations as activations
from .layer_norm import LayerNorm as LayerNorm
from .multi_head_attention import MultiHeadAttention as MultiHeadAttention
from .modern.attention import GroupedQueryAttention as GroupedQueryAttention
from .modern.muon import Muon as Muon
from .notebook.explorer import Exploration as Exploration, explore as explore
from .modern.parts import (
    BigramEmbedding as BigramEmbedding,
    GatedFeedForward as GatedFeedForward,
    RMSNorm as RMSNorm,
)
from .positional_encoding import (
    LearnedPositionalEncoding as LearnedPositionalEncoding,
    RotaryPositionalEncoding as RotaryPositionalEncoding,
    SinusoidalPositionalEncoding as SinusoidalPositionalEncoding,
    sinusoidal_encoding as sinusoidal_encoding,
)
from .convert import (
    from_huggingface as from_huggingface,
    from_torch as from_torch,
    to_huggingface as to_huggingface,
)
from .data.pretrained_tokenizer import PretrainedTokenizer as PretrainedTokenizer
from .inference.text_loss import text_loss as text_loss
from .tokenization import (
    BPETokenizer as BPETokenizer,
    CharTokenizer as CharTokenizer,
    load_tokenizer as load_tokenizer,
    next_token_windows as next_token_windows,
    series_corpus as series_corpus,
)
from .training import (
    History as History,
    TrainingConfig as TrainingConfig,
    evaluate as evaluate,
    train as train,
)
from .transformer import (
    Decoder as Decoder,
    DecoderLayer as DecoderLayer,
    Encoder as Encoder,
    EncoderDecoder as EncoderDecoder,
    EncoderLayer as EncoderLayer,
    FeedForward as FeedForward,
    LanguageModel as LanguageModel,
    TransformerConfig as TransformerConfig,
    count_parameters as count_parameters,
    shift_right as shift_right,
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
