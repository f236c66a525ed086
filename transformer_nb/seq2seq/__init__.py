"""What an encoder-decoder needs to be trained and to translate.

    pairs       a tokenizer for pairs of strings, their batches, averaged checkpoints
    training    label smoothing and the paper's learning rate
    decoding    greedy decoding and beam search
"""
