"""Fast paths for a CPU: the same numbers in fewer calls.

    hooks       whether a module has hooks
    decoding    one new token in few calls, for models made of our layers alone
"""
