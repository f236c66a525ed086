"""What a training run is made of.

    arguments      what `train` and `evaluate` accept
    batches        what a model learns from in one step
    evaluation     the mean loss over batches or token ids
    machine        bfloat16 and compilation, if the machine supports them
    optimizers     optimizers and learning rates, from the configuration or PyTorch's own
    process        device, random numbers, and one process alone
    distributed    several processes that train one model
    sources        where batches come from
    state          measurements, and the state of optimizers
    trainer        one training step
    saved_models   a model as plain values and tensors, and built again from them
    saving_checks  whether a model could be loaded again as it is
    tensor_files   tensors from a file that may be wrong about itself
    checkpoint_files  the four files of a checkpoint
    files          files that survive a crash, and one writer at a time
    checkpoints    a model on disk, complete at every moment
    directory      the checkpoints and metrics of a run
    loop           steps, and what happens between them
"""
