"""Fast paths for small models, in which calls take longer than arithmetic: the same numbers in fewer calls.

    hooks       whether a module has hooks, and other private attributes of PyTorch
    decoding    one new token in few calls, for models made of our layers alone
"""
