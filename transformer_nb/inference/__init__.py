"""What generation needs besides its loop.

    cache      the keys and values of earlier positions
    prompts    one prompt or several, as one batch
    any_model  which models can continue a text; logits of any module
    sampling   small temperatures, half precision, min-p, repetition penalty
    calls      evaluation mode, and the checked arguments of `generate`
    streaming  tokens and text as they are generated
    text_loss  loss, perplexity and bits per byte on text
    conversation  a dialog that grows in turns, each token computed once
"""
