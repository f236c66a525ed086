"""What is wrong with an attention, a layer, a model, a norm or a loss.

    report                 what `diagnose` returns
    probes                 calling a function, and leaving it as it was
    copies                 copies of functions and their modules, with other weights
    sequences              layers and models: shapes, finite numbers, the same output twice
    dependencies           which outputs depend on which inputs
    gradients              gradients, registered and tied parameters
    learning               first logits, one batch overfitted
    structure              heads, residual connections
    scores                 queries and keys inside a model
    attention              attention functions: their inputs, shape and gradient
    attention_weights      attention functions: weights, scale and mask
    variations             attention that is unusual on purpose
    norms_and_positions    layer norms and positional encodings
    losses                 losses and training objectives
    decoding               decoding with a cache against the whole sequence
    padding                lengths and padding masks
    references             against a reference with the same weights
    model_losses           the loss that a language model is trained with
    checks                 the checks of each kind
    passes                 the checks run twice, the second time with other weights
    calling                `diagnose`
"""

from .checks import CHECKS
from .calling import diagnose
from .report import Diagnosis, Finding

__all__ = ["CHECKS", "Diagnosis", "Finding", "diagnose"]
