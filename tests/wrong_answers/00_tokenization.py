"Answers that look right, and the sentence each is refused with."

WRONG = {
    "disjoint_windows": [
        (
            "def disjoint_windows(ids, block_size):\n"
            "    return ids[:-1].unfold(0, block_size, 1), ids[1:].unfold(0, block_size, 1)",
            "these windows overlap",
        ),
        (
            "def disjoint_windows(ids, block_size):\n"
            "    x = ids[: len(ids) // block_size * block_size].reshape(-1, block_size)\n"
            "    return x, x.roll(-1, 1)",
            "rolled within its row",
        ),
        (
            "def disjoint_windows(ids, block_size):\n"
            "    n = len(ids) // block_size\n"
            "    x, y = ids[: n * block_size], ids[1 : n * block_size + 1]\n"
            "    return x.reshape(n, block_size), y.reshape(n, block_size)",
            "the ninth token is a target",
        ),
    ],
    "bpe_encode": [
        (
            "def bpe_encode(text, merges):\n"
            "    vocabulary = sorted({a + b for a, b in merges} | set(text), key=len, reverse=True)\n"
            "    tokens = []\n"
            "    while text:\n"
            "        tokens.append(next(token for token in vocabulary if text.startswith(token)))\n"
            "        text = text[len(tokens[-1]) :]\n"
            "    return tokens",
            "the merge that was learned first comes first",
        ),
        (
            "def bpe_encode(text, merges):\n"
            "    tokens = list(text)\n"
            "    for pair in merges:\n"
            "        for i in range(len(tokens) - 1):\n"
            "            if (tokens[i], tokens[i + 1]) == pair:\n"
            "                tokens[i : i + 2] = [''.join(pair)]\n"
            "                break\n"
            "    return tokens",
            "wherever its pair occurs",
        ),
        (
            "def bpe_encode(text, merges):\n"
            "    tokens = list(text)\n"
            "    for pair in merges:\n"
            "        merged = []\n"
            "        for a, b in zip(tokens, tokens[1:] + ['']):\n"
            "            merged.append(a + b if (a, b) == pair else a)\n"
            "        tokens = merged\n"
            "    return tokens",
            "no longer give the text",
        ),
    ],
    "translate": [
        (
            "def translate(ids, old, new):\n    return torch.tensor([old.index(c) for c in new])[ids]",
            "the table from `new` to `old`",
        ),
        (
            "def translate(ids, old, new):\n    return torch.tensor([new.index(old[i]) for i in ids.flatten().tolist()])",
            "came back as (18,)",
        ),
        (
            "def translate(ids, old, new):\n    return ids",
            "the ids have not changed",
        ),
    ],
}
