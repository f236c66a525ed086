"""Fast paths for small models, where calls take longer than arithmetic: the same numbers with fewer calls.

    hooks       whether a module has hooks, and other private attributes of PyTorch
    decoding    one new token in few calls, for models made only of this package's layers
"""
