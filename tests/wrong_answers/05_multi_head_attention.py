"Answers that look right, and the sentence each is refused with."

QUERIES = "    q = (x @ w_q).unflatten(-1, (n_heads, -1)).transpose(1, 2)\n"
SHARED = "    k, v = ((x @ w).unsqueeze(1).expand_as(q) for w in (w_k, w_v))\n"
ATTEND = "    heads, _ = scaled_dot_product_attention(q, k, v, mask)\n"
BY_HAND = (
    "    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5\n"
    "    if mask is not None:\n"
    "        scores = scores.masked_fill(~mask, -torch.inf)\n"
    "    heads = scores.softmax(-1) @ v\n"
)
MERGE = "    return heads.transpose(1, 2).flatten(2) @ w_o"
MULTI_QUERY = "def multi_query(x, w_q, w_k, w_v, w_o, n_heads, mask=None):\n"

REORDER = (
    "def reorder_heads(w_q, w_k, w_v, w_o, order):\n"
    "    columns = lambda w: w.unflatten(1, (len(order), -1))[:, order].flatten(1)\n"
    "    rows = lambda w: w.unflatten(0, (len(order), -1))[order].flatten(0, 1)\n"
)

WRONG = {
    "head_parts": [
        (
            "def head_parts(heads, w_o):\n    return heads.transpose(1, 2).flatten(2) @ w_o",
            "does each head keep its own axis",
        ),
        (
            "def head_parts(heads, w_o):\n"
            "    return heads @ w_o.unflatten(1, (heads.shape[1], -1)).permute(1, 2, 0)",
            "these are columns of W_o",
        ),
        (
            "def head_parts(heads, w_o):\n"
            "    return heads @ w_o.unflatten(0, (-1, heads.shape[1])).transpose(0, 1)",
            "its rows are next to each other",
        ),
        (
            "def head_parts(heads, w_o):\n"
            "    return heads @ w_o.unflatten(0, (heads.shape[1], -1)).flip(0)",
            "do not add up",
        ),
        (
            "def head_parts(heads, w_o):\n"
            "    whole = heads.transpose(1, 2).flatten(2) @ w_o\n"
            "    return (whole / heads.shape[1])[:, None].expand(-1, heads.shape[1], -1, -1)",
            "the sum is right, the parts are not",
        ),
    ],
    "reorder_heads": [
        (
            "def reorder_heads(w_q, w_k, w_v, w_o, order):\n    return w_q, w_k, w_v, w_o",
            "nothing has changed",
        ),
        (
            REORDER + "    return rows(w_q), rows(w_k), rows(w_v), rows(w_o)",
            "a head reads all rows",
        ),
        (
            REORDER + "    return columns(w_q), columns(w_k), columns(w_v), w_o",
            "W_o still expects them in the old order",
        ),
        (
            REORDER + "    return columns(w_q), columns(w_k), columns(w_v), columns(w_o)",
            "do the rows of W_o move in blocks",
        ),
        (
            REORDER + "    return columns(w_q), columns(w_k), w_v, rows(w_o)",
            "in W_q, W_k and W_v alike",
        ),
        (
            "def reorder_heads(w_q, w_k, w_v, w_o, order):\n"
            "    order = sorted(range(len(order)), key=order.__getitem__)\n"
            "    columns = lambda w: w.unflatten(1, (len(order), -1))[:, order].flatten(1)\n"
            "    rows = lambda w: w.unflatten(0, (len(order), -1))[order].flatten(0, 1)\n"
            "    return columns(w_q), columns(w_k), columns(w_v), rows(w_o)",
            "the order is reversed",
        ),
    ],
    "multi_query": [
        (
            MULTI_QUERY + QUERIES + "    k, v = x @ w_k, x @ w_v\n" + BY_HAND + MERGE,
            "the keys need an axis for the heads",
        ),
        (
            MULTI_QUERY + QUERIES + SHARED + ATTEND.replace("mask", "None") + MERGE,
            "is it passed on",
        ),
        (
            MULTI_QUERY + QUERIES + SHARED + ATTEND + MERGE.replace(" @ w_o", ""),
            "W_o is missing",
        ),
        (
            MULTI_QUERY + QUERIES + SHARED + ATTEND + "    return heads.reshape(x.shape) @ w_o",
            "is the transpose missing",
        ),
        (
            MULTI_QUERY
            + QUERIES
            + SHARED
            + "    q = q * (q.shape[-1] / x.shape[-1]) ** 0.5\n"
            + ATTEND
            + MERGE,
            "divided by the square root of d_model",
        ),
        (
            MULTI_QUERY
            + "    q = (x @ w_q).unflatten(-1, (-1, n_heads)).movedim(-1, 1)\n"
            + SHARED
            + ATTEND
            + MERGE,
            "are the queries split as (heads, d_k)",
        ),
    ],
}
