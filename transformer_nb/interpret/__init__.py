"""Inside a model.

    activations    reading and replacing any activation by its name
    inspection     everything that a model computed for one text; parts switched off; the logit lens
    tracing        every activation and gradient of a run, compared with another run
"""
