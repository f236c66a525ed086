"""Inside a model.

    activations    reading and replacing any activation by its name
    tracing        every activation and gradient of a run, compared with another run
"""
