"Answers that look right, and the sentence each is refused with."

WRONG = {
    "move": [
        (  # R of k places back
            "def move(vector, k):\n"
            "    turn = k * 10_000 ** (-torch.arange(0, len(vector), 2) / len(vector))\n"
            "    sine, cosine = vector[0::2], vector[1::2]\n"
            "    moved = sine * turn.cos() - cosine * turn.sin(), cosine * turn.cos() + sine * turn.sin()\n"
            "    return torch.stack(moved, dim=-1).flatten()",
            "came to place 2",
        ),
        (  # the encoding of k is added
            "def move(vector, k):\n"
            "    angle = k * 10_000 ** (-torch.arange(0, len(vector), 2) / len(vector))\n"
            "    return vector + torch.stack((angle.sin(), angle.cos()), dim=-1).flatten()",
            "the first pair is wrong",
        ),
        (  # the 2 in the exponent was forgotten
            "def move(vector, k):\n"
            "    turn = k * 10_000 ** (-torch.arange(len(vector) // 2) / len(vector))\n"
            "    sine, cosine = vector[0::2], vector[1::2]\n"
            "    moved = sine * turn.cos() + cosine * turn.sin(), cosine * turn.cos() - sine * turn.sin()\n"
            "    return torch.stack(moved, dim=-1).flatten()",
            "a later one is not",
        ),
        (  # for one width only
            "def move(vector, k):\n"
            "    turn = k * 10_000 ** (-torch.arange(0, len(vector), 2) / 8)\n"
            "    sine, cosine = vector[0::2], vector[1::2]\n"
            "    moved = sine * turn.cos() + cosine * turn.sin(), cosine * turn.cos() - sine * turn.sin()\n"
            "    return torch.stack(moved, dim=-1).flatten()",
            "is a width written into it",
        ),
    ],
    "turn_at": [
        (  # columns are counted
            "def turn_at(x, places):\n"
            "    angle = torch.arange(x.shape[-2])[:, None] * 10_000 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])\n"
            "    a, b = x[..., 0::2], x[..., 1::2]\n"
            "    turned = a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()\n"
            "    return torch.stack(turned, dim=-1).flatten(-2)",
            "are the columns counted",
        ),
        (  # the other convention
            "def turn_at(x, places):\n"
            "    angle = places[..., None] * 10_000 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])\n"
            "    a, b = x.chunk(2, dim=-1)\n"
            "    return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), dim=-1)",
            "half a width apart",
        ),
        (  # clockwise
            "def turn_at(x, places):\n"
            "    angle = places[..., None] * 10_000 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])\n"
            "    a, b = x[..., 0::2], x[..., 1::2]\n"
            "    turned = a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()\n"
            "    return torch.stack(turned, dim=-1).flatten(-2)",
            "it turns the other way",
        ),
        (  # all pairs at the same speed
            "def turn_at(x, places):\n"
            "    angle = places[..., None]\n"
            "    a, b = x[..., 0::2], x[..., 1::2]\n"
            "    turned = a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()\n"
            "    return torch.stack(turned, dim=-1).flatten(-2)",
            "the angles are wrong",
        ),
    ],
    "distance_penalty": [
        (  # far is good
            "def distance_penalty(length, slope):\n"
            "    distance = torch.arange(length)[:, None] - torch.arange(length)\n"
            "    return torch.where(distance >= 0, slope * distance, -math.inf)",
            "gets a bonus",
        ),
        (  # the past is closed
            "def distance_penalty(length, slope):\n"
            "    distance = torch.arange(length) - torch.arange(length)[:, None]\n"
            "    return torch.where(distance >= 0, -slope * distance, -math.inf)",
            "the past is closed",
        ),
        (  # no mask
            "def distance_penalty(length, slope):\n"
            "    distance = torch.arange(length)[:, None] - torch.arange(length)\n"
            "    return -slope * distance.abs()",
            "what is later must be minus infinity",
        ),
        (  # a place does not see itself
            "def distance_penalty(length, slope):\n"
            "    distance = torch.arange(length)[:, None] - torch.arange(length)\n"
            "    return torch.where(distance > 0, -slope * distance, -math.inf)",
            "the diagonal must be 0",
        ),
    ],
}
