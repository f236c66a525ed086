"Answers that look right, and the sentence each is refused with."

WRONG = {
    "move": [
        (  # R of n positions back
            "def move(vector, n):\n"
            "    turn = n * 10_000 ** (-torch.arange(0, len(vector), 2) / len(vector))\n"
            "    sine, cosine = vector[0::2], vector[1::2]\n"
            "    moved = sine * turn.cos() - cosine * turn.sin(), cosine * turn.cos() + sine * turn.sin()\n"
            "    return torch.stack(moved, dim=-1).flatten()",
            "became position 2",
        ),
        (  # the encoding of n is added
            "def move(vector, n):\n"
            "    angle = n * 10_000 ** (-torch.arange(0, len(vector), 2) / len(vector))\n"
            "    return vector + torch.stack((angle.sin(), angle.cos()), dim=-1).flatten()",
            "the first pair is wrong",
        ),
        (  # the 2 in the exponent was forgotten
            "def move(vector, n):\n"
            "    turn = n * 10_000 ** (-torch.arange(len(vector) // 2) / len(vector))\n"
            "    sine, cosine = vector[0::2], vector[1::2]\n"
            "    moved = sine * turn.cos() + cosine * turn.sin(), cosine * turn.cos() - sine * turn.sin()\n"
            "    return torch.stack(moved, dim=-1).flatten()",
            "a later one is wrong",
        ),
        (  # for one width only
            "def move(vector, n):\n"
            "    turn = n * 10_000 ** (-torch.arange(0, len(vector), 2) / 8)\n"
            "    sine, cosine = vector[0::2], vector[1::2]\n"
            "    moved = sine * turn.cos() + cosine * turn.sin(), cosine * turn.cos() - sine * turn.sin()\n"
            "    return torch.stack(moved, dim=-1).flatten()",
            "the width must come from the vector",
        ),
    ],
    "rotate_at": [
        (  # columns are counted
            "def rotate_at(x, positions):\n"
            "    angle = torch.arange(x.shape[-2])[:, None] * 10_000 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])\n"
            "    a, b = x[..., 0::2], x[..., 1::2]\n"
            "    rotated = a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()\n"
            "    return torch.stack(rotated, dim=-1).flatten(-2)",
            "not the column numbers",
        ),
        (  # the other convention
            "def rotate_at(x, positions):\n"
            "    angle = positions[..., None] * 10_000 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])\n"
            "    a, b = x.chunk(2, dim=-1)\n"
            "    return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), dim=-1)",
            "not the two halves",
        ),
        (  # clockwise
            "def rotate_at(x, positions):\n"
            "    angle = positions[..., None] * 10_000 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])\n"
            "    a, b = x[..., 0::2], x[..., 1::2]\n"
            "    rotated = a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()\n"
            "    return torch.stack(rotated, dim=-1).flatten(-2)",
            "it rotates in the other direction",
        ),
        (  # all pairs at the same speed
            "def rotate_at(x, positions):\n"
            "    angle = positions[..., None]\n"
            "    a, b = x[..., 0::2], x[..., 1::2]\n"
            "    rotated = a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()\n"
            "    return torch.stack(rotated, dim=-1).flatten(-2)",
            "the angles are wrong",
        ),
    ],
    "distance_penalty": [
        (  # a bonus on distance
            "def distance_penalty(length, slope):\n"
            "    distance = torch.arange(length)[:, None] - torch.arange(length)\n"
            "    return torch.where(distance >= 0, slope * distance, -math.inf)",
            "gets a bonus",
        ),
        (  # the past is forbidden
            "def distance_penalty(length, slope):\n"
            "    distance = torch.arange(length) - torch.arange(length)[:, None]\n"
            "    return torch.where(distance >= 0, -slope * distance, -math.inf)",
            "the past is forbidden",
        ),
        (  # no mask
            "def distance_penalty(length, slope):\n"
            "    distance = torch.arange(length)[:, None] - torch.arange(length)\n"
            "    return -slope * distance.abs()",
            "later positions must be minus infinity",
        ),
        (  # a position cannot attend to itself
            "def distance_penalty(length, slope):\n"
            "    distance = torch.arange(length)[:, None] - torch.arange(length)\n"
            "    return torch.where(distance > 0, -slope * distance, -math.inf)",
            "the diagonal must be 0",
        ),
    ],
}
