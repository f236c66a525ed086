"Answers that look right, and the sentence each is refused with."

WRONG = {
    "rms_norm": [
        (
            "def rms_norm(x, eps):\n    return F.layer_norm(x, x.shape[-1:], eps=eps)",
            "this is layer norm",
        ),
        (
            "def rms_norm(x, eps):\n    return x / (x.var(-1, keepdim=True) + eps).sqrt()",
            "divides by the standard deviation",
        ),
        (
            "def rms_norm(x, eps):\n    return x / (x.square().sum(-1, keepdim=True) + eps).sqrt()",
            "is it the sum of the squares",
        ),
        (
            "def rms_norm(x, eps):\n    return x / (x.square().mean() + eps).sqrt()",
            "of its own squares, along the last axis",
        ),
        (
            "def rms_norm(x, eps):\n    return x / (x.square().mean(-1, keepdim=True).sqrt() + eps)",
            "is epsilon inside the root",
        ),
    ],
    "layer_norm_gradient": [
        (
            "def layer_norm_gradient(x, upstream):\n"
            "    return upstream / x.std(-1, correction=0, keepdim=True)",
            "is the mean of `upstream` subtracted",
        ),
        (
            "def layer_norm_gradient(x, upstream):\n"
            "    sigma = x.std(-1, correction=0, keepdim=True)\n"
            "    return (upstream - upstream.mean(-1, keepdim=True)) / sigma",
            "a component along the normalized vector is left",
        ),
        (
            "def layer_norm_gradient(x, upstream):\n"
            "    y = F.layer_norm(x, x.shape[-1:], eps=0.0)\n"
            "    along = (upstream * y).mean(-1, keepdim=True) * y\n"
            "    return upstream - upstream.mean(-1, keepdim=True) - along",
            "the length is not",
        ),
    ],
    "fold_norm": [
        (
            "def fold_norm(norm, linear):\n"
            "    return linear.weight * norm.weight[:, None], linear.weight @ norm.bias + linear.bias",
            "the columns of the weight",
        ),
        (
            "def fold_norm(norm, linear):\n    return linear.weight * norm.weight, linear.bias",
            "the bias of the norm is lost",
        ),
        (
            "def fold_norm(norm, linear):\n    return linear.weight * norm.weight, linear.bias + norm.bias",
            "added as it is",
        ),
        (
            "def fold_norm(norm, linear):\n"
            "    weight = linear.weight * norm.weight\n"
            "    return weight, weight @ norm.bias + linear.bias",
            "the original weight, not by the folded one",
        ),
    ],
}
