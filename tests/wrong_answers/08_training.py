"Answers that look right, and the sentence each is refused with."

WRONG = {
    "clipped": [
        ("def clipped(gradients, limit):\n    return [g.clamp(-limit, limit) for g in gradients]", "limited by itself"),
        (
            "def clipped(gradients, limit):\n    return [g * min(1, limit / g.norm()) for g in gradients]",
            "divided by its own length",
        ),
        (
            "def clipped(gradients, limit):\n"
            "    length = torch.cat([g.flatten() for g in gradients]).norm()\n"
            "    return [g * limit / length for g in gradients]",
            "are they scaled up",
        ),
        (
            "def clipped(gradients, limit):\n"
            "    length = torch.cat([g.flatten() for g in gradients]).norm()\n"
            "    return [g / length * min(limit, length) for g in gradients]",
            "0 / 0",
        ),
    ],
    "loss_per_character": [
        ("def loss_per_character(losses, tokens):\n    return losses.mean()", "the mean over tokens"),
        (
            "def loss_per_character(losses, tokens):\n"
            "    return sum(loss / len(token) for loss, token in zip(losses, tokens)) / len(tokens)",
            "a mean of quotients",
        ),
        (
            "def loss_per_character(losses, tokens):\n    return losses.sum() / sum(len(token.strip()) for token in tokens)",
            "is it stripped",
        ),
        (
            "def loss_per_character(losses, tokens):\n"
            "    return losses.sum() / math.log(2) / sum(len(token) for token in tokens)",
            "that is in bits",
        ),
    ],
    "trapezoid": [
        (
            "def trapezoid(step, steps, warmup, highest):\n"
            "    return highest * min(1, step / warmup, (steps - step) / (steps // 5))",
            "the first step has rate 0",
        ),
        (
            "def trapezoid(step, steps, warmup, highest):\n"
            "    return highest * min(1, (step + 1) / warmup, (steps - step) / (steps - warmup))",
            "start with the last fifth",
        ),
        (
            "def trapezoid(step, steps, warmup, highest):\n"
            "    return highest * min(1, (step + 1) / warmup, (steps - 1 - step) / (steps // 5))",
            "the last step has rate 0",
        ),
    ],
}
