"""Inside a model.

    activations    reading and replacing any activation by its name
    heads          what a head attends to, as scores; data to measure them on
    inspection     everything that a model computed for one input; parts switched off; the logit lens
    tracing        every activation and gradient of a run, compared with another run
"""
