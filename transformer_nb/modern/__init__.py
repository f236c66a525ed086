"""Parts and optimizers that came after the paper.

    parts        RMS norm, gated feed-forward networks, activations, an embedding of the previous token
    attention    query heads that share keys and values; windows, heads of any size, norms of queries and keys
    rotary       rotary positions, stretched for longer sequences
    muon         an optimizer for matrices
"""
