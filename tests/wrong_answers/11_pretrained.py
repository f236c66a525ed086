"Answers that look right, and the sentence each is refused with."

WRONG = {
    "neighbors": [
        (
            "def neighbors(weight, n_heads):\n    return weight.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)",
            "each head has its own halves",
        ),
        (
            "def neighbors(weight, n_heads):\n    return weight.unflatten(0, (n_heads, -1, 2)).transpose(1, 2).flatten(0, 2)",
            "that is the inverse",
        ),
        (
            "def neighbors(weight, n_heads):\n    return weight.unflatten(0, (n_heads, 2, -1)).transpose(1, 2)",
            "the shape must stay",
        ),
        (
            "def neighbors(weight, n_heads):\n    half = weight.shape[0] // n_heads // 2\n    return weight[:half].repeat_interleave(2 * n_heads, 0)",
            "each row must come out once",
        ),
        (
            "def neighbors(weight, n_heads):\n    return weight",
            "rows 0 3 1 4 2 5 were expected",
        ),
    ],
    "first_difference": [
        (
            "def first_difference(ours, theirs, tolerance):\n    for name, b in theirs.items():\n"
            "        if not (ours[name] - b).abs().max() <= tolerance:\n            return name\n    return ''",
            "is the difference measured against the size of the tensor",
        ),
        (
            "def first_difference(ours, theirs, tolerance):\n    for name, b in theirs.items():\n"
            "        if not (ours[name] - b).abs().max() <= min(tolerance, tolerance * b.abs().max()):\n            return name\n    return ''",
            "is the difference divided",
        ),
        (
            "def first_difference(ours, theirs, tolerance):\n    off = {n: (ours[n] - b).abs().max() / b.abs().max() for n, b in theirs.items()}\n"
            "    worst = max(off, key=off.get)\n    return worst if not off[worst] <= tolerance else ''",
            "return the first name, not the worst",
        ),
        (
            "def first_difference(ours, theirs, tolerance):\n    for name, b in theirs.items():\n"
            "        if not (ours[name] - b).abs().max() / b.max().abs() <= tolerance:\n            return name\n    return ''",
            "is the size of theirs taken without its sign",
        ),
        (
            "def first_difference(ours, theirs, tolerance):\n    for name, b in theirs.items():\n"
            "        if (ours[name] - b).abs().max() / b.abs().max() > tolerance:\n            return name\n    return ''",
            "every comparison with nan is False",
        ),
    ],
}
