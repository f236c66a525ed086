"Answers that look right, and the sentence each is refused with."

WRONG = {
    "pre_norm_layer": [
        (
            "def pre_norm_layer(x, attention, feed_forward, norm1, norm2):\n    x = norm1(x + attention(x))\n    return norm2(x + feed_forward(x))",
            "that is post-norm",
        ),
        (
            "def pre_norm_layer(x, attention, feed_forward, norm1, norm2):\n    a = x + attention(norm1(x))\n    return x + feed_forward(norm2(a))",
            "the second sum starts from x",
        ),
        (
            "def pre_norm_layer(x, attention, feed_forward, norm1, norm2):\n    x = norm1(x)\n    x = x + attention(x)\n    x = norm2(x)\n    return x + feed_forward(x)",
            "the output is added to the normalized copy",
        ),
        (
            "def pre_norm_layer(x, attention, feed_forward, norm1, norm2):\n    return feed_forward(norm2(attention(norm1(x))))",
            "each sublayer replaces the stream",
        ),
    ],
    "gpt2_parameters": [
        (
            "def gpt2_parameters(vocab_size, n_layers, d_model, block_size):\n    d = d_model\n"
            "    return (2 * vocab_size + block_size) * d + n_layers * (12 * d * d + 13 * d) + 2 * d",
            "which counts once",
        ),
        (
            "def gpt2_parameters(vocab_size, n_layers, d_model, block_size):\n    d = d_model\n"
            "    return vocab_size * d + n_layers * (12 * d * d + 13 * d) + 2 * d",
            "the learned positions are missing",
        ),
        (
            "def gpt2_parameters(vocab_size, n_layers, d_model, block_size):\n    d = d_model\n"
            "    return (vocab_size + block_size) * d + n_layers * (12 * d * d + 13 * d)",
            "the last norm is missing",
        ),
        (
            "def gpt2_parameters(vocab_size, n_layers, d_model, block_size):\n    d = d_model\n"
            "    return (vocab_size + block_size) * d + n_layers * (12 * d * d + 4 * d) + 2 * d",
            "the biases of the linear maps are missing",
        ),
    ],
    "shift_of": [
        (
            "def shift_of(inputs, targets):\n    for k in range(inputs.shape[1]):\n        if inputs[0, k] == targets[0, 0]:\n            return k\n"
            "    raise ValueError",
            "does one equal token decide",
        ),
        (
            "def shift_of(inputs, targets):\n    T = inputs.shape[1]\n    for k in range(T):\n        if inputs[:, : T - k].equal(targets[:, k:]):\n            return k\n"
            "    raise ValueError",
            "is the target at i compared with the input at i + k",
        ),
        (
            "def shift_of(inputs, targets):\n    T = inputs.shape[1]\n    for k in range(T):\n        if inputs[0, k:].equal(targets[0, : T - k]):\n            return k\n"
            "    raise ValueError",
            "must all sequences agree",
        ),
        (
            "def shift_of(inputs, targets):\n    T = inputs.shape[1]\n    for k in range(T):\n        if inputs[:, k:].equal(targets[:, : T - k]):\n            return k\n"
            "    return -1",
            "raise a ValueError",
        ),
    ],
}
