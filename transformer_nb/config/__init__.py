"""What a model and its training are made of, by name.

    checks            errors for masks and shapes that would be misread
    docstrings        the meaning of arguments, for `help`
    fields            fields that explain themselves, and their checks
    registry          tables of names that import a module when a name is used
    model             `TransformerConfig` and the table of parts
    parts             what the chapters add to that table
    training          `TrainingConfig`
    initialization    the weights that a model starts with
    position_table    sinusoids and rotations, in float32 or better
    precision         the dtype of the residual stream under autocast
"""
