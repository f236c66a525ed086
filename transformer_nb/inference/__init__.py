"""What generation needs beside its loop.

    cache    the keys and values of earlier positions
    calls    prompts in one batch, evaluation mode, checks of arguments
"""
