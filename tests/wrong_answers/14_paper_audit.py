"Answers that look right, and the sentence each is refused with."

MATRIX = "def shift_matrix(k, d_model):\n    matrix = torch.zeros(d_model, d_model)\n    for i in range(d_model // 2):\n"
BLOCK = "        matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = torch.tensor("
ANGLE = "        angle = torch.tensor(k / 10_000 ** (2 * i / d_model))\n        sin, cos = angle.sin(), angle.cos()\n"
SIZES = "def vocabulary_sizes(printed, d_model, rest):\n"
LIMITS = SIZES + "    low, high = printed * 1_000_000 - 500_000 - rest, printed * 1_000_000 + 500_000 - rest\n"

WRONG = {
    "shift_matrix": [
        (MATRIX + ANGLE + BLOCK + "[[cos, -sin], [sin, cos]])\n    return matrix", "it moves back by k"),
        (
            MATRIX
            + ANGLE
            + "        j = i + d_model // 2\n        matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = cos, sin, -sin, cos\n    return matrix",
            "this is for all sines before all cosines",
        ),
        (
            MATRIX + "        angle = torch.tensor(float(k))\n        sin, cos = angle.sin(), angle.cos()\n" + BLOCK + "[[cos, sin], [-sin, cos]])\n    return matrix",
            "right for pair 0 only",
        ),
        (MATRIX + ANGLE + BLOCK + "[[cos, sin], [sin, cos]])\n    return matrix", "are the signs of the four entries"),
        ("def shift_matrix(k, d_model):\n    return torch.eye(2)", "the shape is (2, 2)"),
        (
            MATRIX + ANGLE.replace("d_model))", "12))") + BLOCK + "[[cos, sin], [-sin, cos]])\n    return matrix",
            "wrong for k = 3, d_model = 6",
        ),
    ],
    "vocabulary_sizes": [
        (SIZES + "    size = (printed * 1_000_000 - rest) // d_model\n    return size, size", "only one size"),
        (LIMITS + "    return low / d_model, high / d_model", "a vocabulary has a whole number of tokens"),
        (
            SIZES + "    low, high = (printed - 1) * 1_000_000 - rest, (printed + 1) * 1_000_000 - rest\n    return low // d_model, high // d_model",
            "this range is two millions wide",
        ),
        (LIMITS + "    return (low + rest) // d_model, (high + rest) // d_model", "is `rest` subtracted"),
        (LIMITS + "    return low // d_model, high // d_model", "round the smallest size up"),
        (LIMITS + "    return low // d_model + 2, high // d_model", "is not the smallest"),
        (LIMITS + "    return -(-low // d_model), -(-high // d_model)", "round the largest size down"),
        (LIMITS + "    return -(-low // d_model), high // d_model - 1", "is not the largest"),
        (LIMITS + "    return -(-low // d_model), high // d_model", "is exactly half a million rounded up"),
    ],
}
