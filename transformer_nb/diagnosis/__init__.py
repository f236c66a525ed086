"""What is wrong with somebody's attention, layer, model, norm or loss.

    report                 what `diagnose` returns
    probes                 calling other people's code, and leaving it as it was
    sequences              layers and models: shapes, finite numbers, padding and order
    dependencies           which outputs depend on which inputs
    learning               gradients, registered parameters, one batch overfitted
    attention              attention functions: their inputs, shape and gradient
    attention_weights      attention functions: weights, scale and mask
    norms_and_positions    layer norms and positional encodings
    losses                 losses and training objectives
    battery                the checks of each kind, and `diagnose`
"""

from .battery import CHECKS, diagnose
from .report import Diagnosis, Finding

__all__ = ["CHECKS", "Diagnosis", "Finding", "diagnose"]
