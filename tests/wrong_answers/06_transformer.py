"Answers that look right, and the sentence each is refused with."

WRONG = {
    "pre_norm_layer": [
        (
            "def pre_norm_layer(x, attention, feed_forward, norm1, norm2):\n    x = norm1(x + attention(x))\n    return norm2(x + feed_forward(x))",
            "that is the paper's order",
        ),
        (
            "def pre_norm_layer(x, attention, feed_forward, norm1, norm2):\n    a = x + attention(norm1(x))\n    return x + feed_forward(norm2(a))",
            "the second sum starts from x",
        ),
        (
            "def pre_norm_layer(x, attention, feed_forward, norm1, norm2):\n    x = norm1(x)\n    x = x + attention(x)\n    x = norm2(x)\n    return x + feed_forward(x)",
            "the normalized copy was added",
        ),
        (
            "def pre_norm_layer(x, attention, feed_forward, norm1, norm2):\n    return feed_forward(norm2(attention(norm1(x))))",
            "each sublayer replaces it",
        ),
    ],
    "gpt2_parameters": [
        (
            "def gpt2_parameters(vocab_size, n_layers, d_model, block_size):\n    d = d_model\n"
            "    return (2 * vocab_size + block_size) * d + n_layers * (12 * d * d + 13 * d) + 2 * d",
            "counts once",
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
            "the biases of the products are missing",
        ),
    ],
    "shift_of": [
        (
            "def shift_of(inputs, answers):\n    for k in range(inputs.shape[1]):\n        if inputs[0, k] == answers[0, 0]:\n            return k\n"
            "    raise ValueError",
            "does one equal token decide",
        ),
        (
            "def shift_of(inputs, answers):\n    T = inputs.shape[1]\n    for k in range(T):\n        if inputs[:, : T - k].equal(answers[:, k:]):\n            return k\n"
            "    raise ValueError",
            "is the answer at i compared with the input at i + k",
        ),
        (
            "def shift_of(inputs, answers):\n    T = inputs.shape[1]\n    for k in range(T):\n        if inputs[0, k:].equal(answers[0, : T - k]):\n            return k\n"
            "    raise ValueError",
            "do all texts have to agree",
        ),
        (
            "def shift_of(inputs, answers):\n    T = inputs.shape[1]\n    for k in range(T):\n        if inputs[:, k:].equal(answers[:, : T - k]):\n            return k\n"
            "    return -1",
            "which is a ValueError",
        ),
    ],
}
