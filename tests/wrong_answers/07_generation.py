"Answers that look right, and the sentence each is refused with."

WRONG = {
    "keep_min_p": [
        ("def keep_min_p(logits, p):\n    return logits.masked_fill(logits.softmax(-1) < p, -math.inf)", "is p compared with the probability itself"),
        ("def keep_min_p(logits, p):\n    q = logits.softmax(-1)\n    return logits.masked_fill(q < p * q.max(), 0.0)", "needs a logit of minus infinity"),
        ("def keep_min_p(logits, p):\n    q = logits.softmax(-1)\n    return q.masked_fill(q < p * q.max(), -math.inf)", "were probabilities returned"),
        (
            "def keep_min_p(logits, p):\n    q = logits.softmax(-1)\n    return logits.masked_fill(q < p * q.max(), -math.inf)",
            "each row has its own best token",
        ),
    ],
    "penalize": [
        ("def penalize(logits, ids, penalty):\n    return logits.scatter(1, ids, logits.gather(1, ids) / penalty)", "the token became more probable"),
        (
            "def penalize(logits, ids, penalty):\n    out = logits.clone()\n    for row, text in zip(out, ids):\n        for i in text:\n"
            "            row[i] = row[i] / penalty if row[i] > 0 else row[i] * penalty\n    return out",
            "penalized twice",
        ),
        (
            "def penalize(logits, ids, penalty):\n    out = logits.clone()\n    seen = ids.unique()\n"
            "    out[:, seen] = torch.where(out[:, seen] > 0, out[:, seen] / penalty, out[:, seen] * penalty)\n    return out",
            "does each sequence use its own tokens",
        ),
        (
            "def penalize(logits, ids, penalty):\n    old = logits.gather(1, ids)\n"
            "    return logits.scatter_(1, ids, torch.where(old > 0, old / penalty, old * penalty))",
            "work on a copy",
        ),
    ],
    "cache_bytes": [
        ("def cache_bytes(config, length, bytes_per_number=4):\n    return config.n_layers * length * config.d_model * bytes_per_number", "keys and values are both kept"),
        ("def cache_bytes(config, length, bytes_per_number=4):\n    return 2 * length * config.d_model * bytes_per_number", "that is one layer"),
        (
            "def cache_bytes(config, length, bytes_per_number=4):\n    return 2 * config.n_layers * config.n_heads * length * config.d_model * bytes_per_number",
            "the heads share d_model between them",
        ),
    ],
}
