"""Published models and PyTorch's own modules, in the classes of this package, and back.

    weights          weights under other names, checked and copied
    options          options by other names, and an error for those without a counterpart
    torch_modules    `from_torch`
    files            a directory of a published model, checked
    family           everything that must be known about a family of models
    gpt2             GPT-2
    bert             BERT
    roberta          RoBERTa and XLM-RoBERTa
    distilbert       DistilBERT
    marian           Marian's translators
    llama            Llama, and what its relatives share with it
    mistral          Mistral
    qwen             Qwen 2, 2.5 and 3
    gemma            Gemma
    huggingface      `from_huggingface`
    export           `to_huggingface`
    comparison       a converted model against its original, activation by activation
"""

from .export import to_huggingface
from .huggingface import FAMILIES, from_huggingface
from .torch_modules import from_torch

__all__ = ["FAMILIES", "from_huggingface", "from_torch", "to_huggingface"]
