"Answers that look right, and the sentence each is refused with."

WRONG = {
    "window_mask": [
        (
            "def window_mask(length, width):\n    return torch.ones(length, length).tril().triu(1 - width)",
            "a mask is boolean",
        ),
        (
            "def window_mask(length, width):\n"
            "    return torch.ones(length, length, dtype=torch.bool).tril(-1).triu(-width)",
            "a position cannot attend to itself",
        ),
        (
            "def window_mask(length, width):\n"
            "    return torch.ones(length, length, dtype=torch.bool).triu().tril(width - 1)",
            "the mask for columns as queries",
        ),
        (
            "def window_mask(length, width):\n"
            "    columns = torch.arange(length)\n"
            "    return (columns[:, None] - columns).abs() < width",
            "open on both sides",
        ),
        (
            "def window_mask(length, width):\n"
            "    return torch.ones(length, length, dtype=torch.bool).tril().triu(-width)",
            "is the position itself counted",
        ),
    ],
    "late_mask": [
        (
            "def late_mask(weights, mask):\n    return (weights * mask).softmax(-1)",
            "a second softmax",
        ),
        (
            "def late_mask(weights, mask):\n    return weights * mask",
            "what should each row be divided by",
        ),
        (
            "def late_mask(weights, mask):\n"
            "    kept = weights * mask\n"
            "    return kept / kept.sum(-2, keepdim=True)",
            "is the sum taken along the last axis",
        ),
        (
            "def late_mask(weights, mask):\n"
            "    return weights.masked_fill(~mask, -math.inf).softmax(-1)",
            "only divide",
        ),
        (
            "def late_mask(weights, mask):\n"
            "    kept = weights * mask\n"
            "    return kept / kept.sum(-1, keepdim=True)",
            "zero divided by zero",
        ),
    ],
    "center": [
        (
            "def center(x):\n    return x - x.mean(-1, keepdim=True)",
            "the mean over features",
        ),
        (
            "def center(x):\n    return x - x.mean(1, keepdim=True)",
            "the mean leaks",
        ),
        (
            "def center(x):\n    return x - x.cumsum(1) / x.shape[1]",
            "divided by the length",
        ),
        (
            "def center(x):\n"
            "    counts = torch.arange(1, x.shape[1] + 1)\n"
            "    before = x.cumsum(1) - x\n"
            "    return x - before / counts[:, None]",
            "position 0 is its own mean",
        ),
    ],
}
