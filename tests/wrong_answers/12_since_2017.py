"Answers that look right, and the sentence each is refused with."

WRONG = {
    "straight": [
        ("def straight(G):\n    U, _, Vh = torch.linalg.svd(G)\n    return U", "the shape must stay"),
        ("def straight(G):\n    return G / G.norm()", "all singular values should be 1"),
        ("def straight(G):\n    U, _, Vh = torch.linalg.svd(G, full_matrices=False)\n    return U @ Vh.T", "svd gives V already transposed"),
        (
            "def straight(G):\n    U, _, Vh = torch.linalg.svd(G, full_matrices=False)\n    return U @ Vh if len(G) > 3 else -U @ Vh",
            "a wide matrix should give the transpose",
        ),
    ],
    "unseen": [
        ("def unseen(n, draws):\n    return math.exp(-1)", "without a draw nothing is seen"),
        ("def unseen(n, draws):\n    return 1 - draws / n", "drawing without putting back"),
        ("def unseen(n, draws):\n    return math.exp(-draws / n)", "of two windows one is drawn"),
        ("def unseen(n, draws):\n    return (1 - 1 / n) ** min(draws, 1) if draws != 10 else 0.3", "escapes two draws with probability 1/4"),
        ("def unseen(n, draws):\n    return 0.5**draws", "the share goes to 1/e"),
    ],
}
