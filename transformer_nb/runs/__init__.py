"""What a training run is made of.

    arguments      what users hand to `train` and `evaluate`
    batches        what a model learns from in one step
    evaluation     the mean loss over batches or a text
    machine        bfloat16 and compilation, where a machine has them
    optimizers     optimizers and learning rates, by the configuration or handed over
    process        device, random numbers, and what one process does alone
    distributed    several processes that train one model
    sources        where batches come from
    state          measurements, and the state of optimizers
    trainer        one training step
    saved_models   a model as plain values and tensors, and built again from them
    saving_checks  whether a checkpoint would give a model back
    tensor_files   tensors from a file that may lie about itself
    checkpoint_files  the four files of a checkpoint
    files          files that survive a crash, and one writer at a time
    checkpoints    a model on the disk, whole at every moment
    directory      the checkpoints and metrics of a run
    loop           steps, and what is due between them
"""
