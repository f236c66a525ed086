"Answers that look right, and the sentence each is refused with."

WRONG = {
    "weights_of": [
        ("def weights_of(attention, q, k):\n    return attention(q, k, torch.eye(k.shape[1]).repeat(2, 1)[: len(k)])", "as many unit vectors"),
        ("def weights_of(attention, q, k):\n    return (q @ k.T / math.sqrt(q.shape[1])).softmax(-1)", "was another one computed"),
        ("def weights_of(attention, q, k):\n    return attention(q, k, torch.ones(len(k), 5))", "do they come from the attention"),
    ],
    "depends_on": [
        ("def depends_on(fn, x, i, j):\n    before = fn(x)\n    x[:, j] += 1\n    return not fn(x)[:, i].equal(before[:, i])", "x was changed"),
        ("def depends_on(fn, x, i, j):\n    y = x.clone()\n    y[:, j] += 1\n    return not fn(y).equal(fn(x))", "is the whole output compared"),
        ("def depends_on(fn, x, i, j):\n    y = x.clone()\n    y[:, i] += 1\n    return not fn(y)[:, j].equal(fn(x)[:, j])", "i and j are swapped"),
        ("def depends_on(fn, x, i, j):\n    y = x.clone()\n    y[:, j] *= 2\n    return not fn(y)[:, i].equal(fn(x)[:, i])", "an input of zeros"),
    ],
    "steps_ahead": [
        (
            "def steps_ahead(objective):\n    ids = torch.arange(20)[None] % 11\n"
            "    losses = [objective(lambda ids: 50.0 * F.one_hot((ids + a) % 11, 11), ids) for a in range(5)]\n"
            "    return max(range(5), key=lambda a: losses[a])",
            "do you look for the smallest loss",
        ),
        (
            "def steps_ahead(objective):\n    ids = torch.arange(20)[None] % 11\n"
            "    losses = [objective(lambda ids: 50.0 * F.one_hot((ids + a) % 11, 11), ids) for a in range(5)]\n"
            "    return losses.index(min(losses)) + 1",
            "each is one too many",
        ),
        (
            "def steps_ahead(objective):\n    ids = torch.arange(20)[None] % 11\n"
            "    losses = [objective(lambda ids: 50.0 * F.one_hot((2 * ids + a) % 11, 11), ids) for a in range(5)]\n"
            "    return losses.index(min(losses))",
            "3 ahead gave",
        ),
    ],
}
