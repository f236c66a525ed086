"""What an encoder-decoder needs to be trained and to translate.

    pairs       a tokenizer for pairs of texts, their batches, averaged checkpoints
    decoding    label smoothing, the paper's learning rate, greedy decoding and beam search
"""
