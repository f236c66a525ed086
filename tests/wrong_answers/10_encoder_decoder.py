"Answers that look right, and the sentence each is refused with."

FLOOR = "def smoothing_floor(vocab_size, epsilon):\n    other = epsilon / vocab_size\n    answer = 1 - epsilon + other\n    return "

WRONG = {
    "smoothing_floor": [
        (FLOOR + "-answer * math.log(answer)", "the other tokens have a probability in q, too"),
        (FLOOR + "-answer * math.log(answer) - other * math.log(other)", "how many are there"),
        (FLOOR + "-answer * math.log2(answer) - (vocab_size - 1) * other * math.log2(other)", "that is in bits"),
        (
            "def smoothing_floor(vocab_size, epsilon):\n    other = epsilon / (vocab_size - 1)\n"
            "    return -(1 - epsilon) * math.log(1 - epsilon) - epsilon * math.log(other)",
            "the floor if epsilon is divided among the other tokens only",
        ),
        ("def smoothing_floor(vocab_size, epsilon):\n    return -0.92 * math.log(0.92) - 0.08 * math.log(0.02)", "does the answer depend on vocab_size and epsilon"),
    ],
    "shuffle_units": [
        ("def shuffle_units(w1, b1, w2, order):\n    return w1, b1, w2", "the rows of w1 have not moved"),
        ("def shuffle_units(w1, b1, w2, order):\n    return w1[order], b1, w2[:, order]", "each unit takes its bias with it"),
        ("def shuffle_units(w1, b1, w2, order):\n    return w1[order], b1[order], w2", "units in their old order"),
        ("def shuffle_units(w1, b1, w2, order):\n    return w1[order], b1[order], w2[order]", "the units are its columns"),
        (
            "def shuffle_units(w1, b1, w2, order):\n    back = order.argsort()\n    return w1[back], b1[back], w2[:, back]",
            "row i of the new w1 is row order[i]",
        ),
    ],
    "coverage_penalty": [
        (
            "def coverage_penalty(weights, mask):\n    return weights.sum(-1).clamp(max=1).log().sum(-1)",
            "each row of weights sums to 1 anyway",
        ),
        (
            "def coverage_penalty(weights, mask):\n    return weights.sum(1).masked_fill(~mask, 1.0).log().sum(-1)",
            "a total weight above 1 counts as 1",
        ),
        ("def coverage_penalty(weights, mask):\n    return weights.sum(1).clamp(max=1).log().sum(-1)", "its logarithm is minus infinity"),
        ("def coverage_penalty(weights, mask):\n    return (weights.sum(1).clamp(max=1).log() * mask).sum(-1)", "there is a NaN"),
        (
            "def coverage_penalty(weights, mask):\n    seen = weights.sum(1).clamp(max=1).masked_fill(~mask, 1.0)\n"
            "    return seen.log().sum(-1) / mask.sum(-1)",
            "not a mean",
        ),
        ("def coverage_penalty(weights, mask):\n    return weights.sum(1).clamp(max=1).masked_fill(~mask, 1.0).log().sum()", "one number for each target"),
    ],
}
