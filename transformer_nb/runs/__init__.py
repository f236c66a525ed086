"""What a training run is made of.

    batches        what a model learns from in one step
    process        device, random numbers, and what one process does alone
    distributed    several processes that train one model
    state          measurements, and the state of optimizers
    trainer        one training step
    checkpoints    a model on the disk, whole at every moment
    directory      the checkpoints and metrics of a run
    loop           steps, and what is due between them
"""
