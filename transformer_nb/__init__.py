"""The Transformer of "Attention Is All You Need" (Vaswani et al., 2017), layer by layer.

What it does (`help(transformer_nb.train)` says more and shows an example, as for every name):

    LanguageModel(TransformerConfig(...))         a model: token ids (B, T) -> logits (B, T, vocab)
    CharTokenizer.from_text(text)                 text <-> token ids; or `BPETokenizer`
    train(model, ids, TrainingConfig(...))        trains any module that maps ids to logits
    evaluate(model, ids)                          the mean loss, in nats; `text_loss` gives bits per byte
    generate(model, ids, max_new_tokens)          continues prompts; `stream` yields each token at once
    save_checkpoint(directory, model, tokenizer)  completely or not at all; `load_checkpoint` reads it
    from_huggingface(model)                       a published model; `to_huggingface` writes one
    from_torch(module)                            PyTorch's attention, layers or Transformer
    diagnose(obj, kind)                           what is wrong with an attention, a layer, a model
    explore(model, tokenizer, text)               everything that a model computes for an input
    activations(model, *patterns)                 records or replaces values inside a model

Every module is exported from a notebook in `nbs`. The walk is one module per chapter;
each imports from earlier ones:

    tokenization           text <-> indices; windows
    embeddings             indices -> vectors
    positional_encoding    vectors that know their position
    attention              one head, masks, `leak_test`
    layer_norm             each vector to mean 0 and variance 1
    multi_head_attention   several heads, and the matrix that mixes them
    transformer            layers, stacks and models
    generation             sampling, and `generate`
    training               data, learning rate, evaluation, and `train`

Sub-packages contain what a reader of the walk does not need; the docstring of each lists its modules:

    cli         the commands of `transformer-nb`
    config      the configurations of a model and its training, and the table of parts
    data        text files, tokenizer files, token files
    inference   key-value cache; streaming, conversation and the arguments of `generate`
    cpu         one new token in few calls, for models made only of these layers
    runs        the training loop, batches, checkpoints, metrics, several processes
    seq2seq     pairs of strings, label smoothing, greedy decoding and beam search
    modern      norms, gates, attention and an optimizer that came after the paper
    interpret   reading, replacing and comparing what a model computes inside
    diagnosis   what is wrong with an attention, a layer, a model, a norm or a loss
    convert     published models and PyTorch's own, converted to these classes and back
    notebook    figures, questions and exercises of the pages; the explorer of a trained model

Axes in the shapes of signatures, as in `Float[Tensor, "batch seq d_model"]`:

    batch          B, sequences in a batch
    seq            T, positions in a sequence
    kv             S, positions that can be attended to: the keys and values of attention
    source         S, positions in the source of an encoder-decoder
    head           h, attention heads
    kv_head        heads of keys and values, each shared by a group of query heads
    d_model        features of the vector of each position
    d_k, d_v       features of a query or key, and of a value, in one head
    d_ff           features inside a feed-forward network
    vocab          V, tokens in the vocabulary
    window, block  windows cut from token ids, and positions in a window
    pair           pairs of features that are rotated by one angle
    train, validation  the two parts of the data
    row, column    of a matrix to look at
    feature        whatever follows batch and position
    output         features that leave a linear layer
    beam           sequences that a search keeps for each source
    out_seq        seq, or the last position alone
    new_seq        seq, after something was appended
    mask, source_mask, target_mask, memory_mask  leading axes of a mask, which broadcast

Masks are boolean, and True means "may be attended".
"""

__version__ = "0.2.0"

import ast as _ast
from importlib import import_module as _import_module
from pathlib import Path as _Path

# The module of each public name, from `__init__.pyi`, where editors find it too. A module is imported when one of
# its names is first used, so that `transformer-nb --help` need not wait for PyTorch.
_MODULES = {
    name.name: node.module
    for node in _ast.parse(_Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(node, _ast.ImportFrom)
    for name in node.names
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    "A public name, or a module of the package."
    if name in _MODULES:
        value = getattr(_import_module(f"{__name__}.{_MODULES[name]}"), name)
        _import_module(f"{__name__}.config.docstrings").document_arguments(value)
        globals()[name] = value
        return value
    try:
        return _import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
