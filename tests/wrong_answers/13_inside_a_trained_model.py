"Answers that look right, and the sentence each is refused with."

SAME = "def duplicate_score(weights, ids):\n    same = ids[:, :, None] == ids[:, None, :]\n"
REPLACE = "def mean_ablated(heads, head):\n    result = heads.clone()\n    result[:, head] = "

WRONG = {
    "duplicate_score": [
        (
            SAME + "    has = same.tril(-1).any(-1)\n    return (weights * same.tril()[:, None]).sum(-1).transpose(0, 1)[:, has].mean(-1)",
            "the query's own position counts as well",
        ),
        (
            SAME
            + "    after = torch.zeros_like(same)\n    after[:, :, 1:] = same[:, :, :-1]\n    after = after.tril()\n"
            + "    return (weights * after[:, None]).sum(-1).transpose(0, 1)[:, after.any(-1)].mean(-1)",
            "that is the induction score",
        ),
        (SAME + "    return (weights * same.tril(-1)[:, None]).sum(-1).mean((0, 2))", "the mean is over all queries"),
        (SAME + "    return weights.transpose(0, 1)[:, same.tril(-1)].mean(-1)", "the mean is over pairs"),
        (SAME + "    return (weights * same.tril(-1)[:, None]).sum(-1).mean(-1)", "one number for each head"),
    ],
    "mean_ablated": [
        ("def mean_ablated(heads, head):\n    heads[:, head] = heads[:, head].mean((0, 1))\n    return heads", "changed in place"),
        (REPLACE + "0.0\n    return result", "these are zeros"),
        (REPLACE + "heads[:, head].mean(0)\n    return result", "each position has a mean of its own"),
        (REPLACE + "heads[:, head].mean(1, keepdim=True)\n    return result", "each sequence has a mean of its own"),
        (REPLACE + "heads[:, head].mean()\n    return result", "each of the d_k features has its own mean"),
        (REPLACE + "heads.mean((0, 1, 2))\n    return result", "head 1 should be its mean"),
        ("def mean_ablated(heads, head):\n    return heads.mean((0, 2), keepdim=True).expand_as(heads)", "another head has changed"),
    ],
}
