"Answers that look right, and the sentence each is refused with."

WRONG = {
    "embedding_gradient": [
        (
            "def embedding_gradient(ids, gradient, vocab_size):\n"
            "    table = torch.zeros(vocab_size, gradient.shape[-1])\n"
            "    table[ids] += gradient\n"
            "    return table",
            "write each row once",
        ),
        (
            "def embedding_gradient(ids, gradient, vocab_size):\n"
            "    one_hot = F.one_hot(ids.flatten(), vocab_size).float()\n"
            "    return (one_hot / one_hot.sum(0).clamp(min=1)).T @ gradient.flatten(0, 1)",
            "added, not averaged",
        ),
        (
            "def embedding_gradient(ids, gradient, vocab_size):\n"
            "    table = torch.zeros(vocab_size, gradient.shape[-1])\n"
            "    return table.index_add_(0, ids[0], gradient[0])",
            "wrong for a batch of three",
        ),
    ],
    "nearest": [
        (
            "def nearest(rows, i, k):\n    return F.cosine_similarity(rows, rows[i], dim=-1).topk(k).indices",
            "leave out the word itself",
        ),
        (
            "def nearest(rows, i, k):\n"
            "    score = rows @ rows[i]\n"
            "    score[i] = -torch.inf\n"
            "    return score.topk(k).indices",
            "dot products reward length",
        ),
        (
            "def nearest(rows, i, k):\n"
            "    distance = (rows - rows[i]).norm(dim=-1)\n"
            "    distance[i] = torch.inf\n"
            "    return distance.topk(k, largest=False).indices",
            "by distance, not by angle",
        ),
        (
            "def nearest(rows, i, k):\n    return F.cosine_similarity(rows, rows[i], dim=-1).argsort()[:k]",
            "the smallest cosines",
        ),
    ],
    "replace_unread": [
        (
            "def replace_unread(rows, output, noise):\n"
            "    read = torch.linalg.svd(output - output.mean(0)).Vh[: len(output) - 1]\n"
            "    return rows + (noise - rows) @ read.T @ read",
            "those of the noise",
        ),
        (
            "def replace_unread(rows, output, noise):\n"
            "    read = torch.linalg.svd(output - output.mean(0)).Vh[:, : len(output) - 1].T\n"
            "    return noise + (rows - noise) @ read.T @ read",
            "the predictions changed",
        ),
        (
            "def replace_unread(rows, output, noise):\n"
            "    read = torch.linalg.svd(output, full_matrices=False).Vh\n"
            "    return noise + (rows - noise) @ read.T @ read",
            "too much was kept",
        ),
    ],
}
