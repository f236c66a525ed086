"""Parts and optimizers that came after the paper.

    parts    RMS norm, gated feed-forward networks, activations, an embedding of the previous token
    muon     an optimizer for matrices
"""
