"""The classic mistakes, made in the package itself: `python -m tests.mutation` makes each one in a copy and sees the tests go red.

With words after it, only the mistakes whose line contains one of them are made. With `--sample N`, only N of them, drawn by the
commit; that the tests are green without any mistake is then left to pytest.
"""

import argparse
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.sample import drawn

ROOT = Path(__file__).parents[1]
MUTATIONS = """
tokenization
    np.flatnonzero(seen) -> np.flatnonzero(seen)[::-1]  # the vocabulary begins with the last character
    ids[1:].unfold(0 -> ids[:-1].unfold(0  # no shift
    ids[:-1].unfold(0, block_size, 1) -> ids[:-1].unfold(0, block_size, block_size)  # windows that do not overlap
    x[::8].contiguous() -> x[:5].contiguous()  # another batch
    if len(ids) and ids.min() < 0: -> if False:  # a character outside the vocabulary becomes another
    np.full(self.code_points[-1] + 2, -1) -> np.full(self.code_points[-1] + 1, -1)  # one above the vocabulary becomes its last
    , add_special_tokens=False) -> )  # tokens that nobody wrote
    [self.decode(row) for row in ids] -> "".join(self.decode(row) for row in ids)  # a batch is one text
    check_indices(ids, self.vocab_size) -> torch.as_tensor(ids)  # indices outside are not refused
    else split_at_word_ends(text, longest=2**15) -> else text  # merges are learned across the pieces of a text
data.text_files
    return sorted(path -> return list(path  # in the order of the disk
    if not name.startswith(".")] -> ]  # what is hidden too
    1].lower() in TEXT_SUFFIXES -> 1] in TEXT_SUFFIXES  # BOOK.TXT is not found
    piece.lstrip(BYTE_ORDER_MARK) if at_start -> piece if at_start  # a mark is a character
    followlinks=True -> followlinks=False  # directories behind links are left out
    - len(error.object) + error.start -> + error.start  # the position of a wrong byte is counted from elsewhere
    "\\n" if i else "" -> ""  # files without a newline between
    if is_empty: -> if False:  # an empty text
    ("markdown", "code") -> ("markdown", "code", "raw")  # other cells of a notebook
    encoding = "utf-8" if is_notebook(file) else encoding -> pass  # notebooks in another encoding
    yield text[:cut] -> yield text  # what is held back comes twice
    cut = end.end() if end else length if longest -> cut = length if end else length if longest  # words are cut
    .*\\S(?=[ \\n]) -> .*[ \\n]  # spaces are parted from their words
data.token_files
    "U8" if vocab_size <= 2**8 -> "U8" if vocab_size <= 2**8 + 1  # no room for the last token
    encode_piece(tokenizer, piece, start) -> encode_piece(tokenizer, piece)  # positions inside a piece
    islice(starts_and_pieces, ahead) -> starts_and_pieces  # all pieces are under way
    temporary.unlink() -> pass  # half a file is left
    if metadata["checksum"] != checksum.hexdigest(): -> if False:  # damage is not seen
    if metadata["digest"] != digest or metadata.get("version") != VERSION: -> if False:  # the tokens of another text
    given.to_json() != metadata["tokenizer"] -> False  # the tokens of another tokenizer
    offset = 8 + int -> offset = int  # numbers begin in the header
    self.memory_map.madvise(mmap.MADV_DONTNEED) -> pass  # nothing is given back
    hashlib.sha256(codecs.lookup(encoding).name.encode()) -> hashlib.sha256()  # the same bytes in another encoding
    if self.sizes_and_times() != self.before: -> if False:  # a text that grows
    other.unlink() -> pass  # old tokens are kept
    glob.escape(prefix) -> prefix  # brackets in a name
    pieces_for(tokenizer, reader.pieces("tokens")) -> reader.pieces("tokens")  # words are cut
data.token_pieces
    left + right == whole -> True  # tokens are cut
    special_tokens=False -> special_tokens=True  # each piece begins with [CLS]
    if splits_as_gpt2(tokenizer.tokenizer): -> if True:  # the words of GPT-2 are those of all
data.pretrained_tokenizer
    self.tokenizer.no_truncation() -> pass  # the end of a text is lost
    lowercase=options.get("do_lower_case", not has_capitals) -> lowercase=True  # capitals are lost
data.token_ids
    (numbers < 0) | (numbers >= vocab_size) -> numbers >= vocab_size + 1  # indices outside are not refused
    numbers.is_floating_point() or ->  # fractions are cut off
data.tokenizer_files
    add_prefix_space=False -> add_prefix_space=True  # a space that nobody wrote
    if i in special or not -> if not  # special tokens are taken for the characters of bytes
    range(161, 173) -> range(161, 174)  # another character for a byte
    if not line.startswith("#version") -> if not line.startswith("#")  # merges of hash signs are lost
    made = {left + right for left, right in merges} -> made = {left for left, right in merges}  # tokens that merges make are special
    enumerate(lines if any(lines) -> enumerate(lines[::-1] if any(lines)  # merged in the wrong order
    if sorted(vocabulary.values()) != list(range(size)): -> if False:  # indices with gaps
    if token not in vocabulary: -> if False:  # merges of another vocabulary
    tokenizer.no_truncation() -> pass  # long texts are cut
    min_frequency=2 -> min_frequency=1  # pairs that occur once are merged
    Path(directory, "vocab.json").write_text -> (lambda *a, **k: None)  # special tokens added later are not written
embeddings
    vectors * self.scale -> vectors * self.scale**2  # scaled twice
    vectors if self.scale == 1.0 else vectors * self.scale -> vectors  # not scaled
    torch.randn(vocab_size, d_model) * 0.02 -> torch.randn(vocab_size, d_model)  # a start too large
positional_encoding
    base ** (-pair / d_model) -> base ** (-pair / (2 * d_model))  # another exponent
    torch.arange(length, dtype=torch.float64) -> torch.arange(1, length + 1, dtype=torch.float64)  # off by one
    (angle.sin(), angle.cos()) -> (angle.cos(), angle.sin())  # cosine and sine exchanged
    x + self.table(end, x)[rows] -> x + 2 * self.table(end, x)[rows]  # added twice
    slice(offset, offset + length), offset + length -> slice(0, length), offset + length  # the cache forgets where it is
    offset[:, None] + torch.arange -> torch.arange  # each text of a batch begins at 0, padded or not
    waves[:, 0::2], waves[:, 1::2] -> waves[:, 1::2], waves[:, 0::2]  # cosines before sines
    self.table(end, x)[offset:end] -> self.table(end, x)[: end - offset]  # and for rotary
    exact = x.to(turn.dtype) -> exact, turn = x, turn.to(x.dtype)  # rotated in half precision
    a * cos - b * sin -> a * cos + b * sin  # no rotation
    x[..., 0::2], x[..., 1::2] -> x.chunk(2, dim=-1)  # other pairs
attention
    .tril(kv_length - length) -> .triu(kv_length - length)  # the mask over the past
    .tril(kv_length - length) -> .tril(kv_length - length + 1)  # off by one
    .tril(kv_length - length) -> .tril(kv_length - length - 1)  # without the diagonal
    .tril(kv_length - length) -> .tril()  # counted from the other corner
    < lengths[:, None])[:, None] -> >= lengths[:, None])[:, None]  # padding inverted
    < lengths[:, None])[:, None] -> <= lengths[:, None])[:, None]  # one pad attended
    / math.sqrt(q.shape[-1]) ->   # no scale
    / math.sqrt(q.shape[-1]) -> / q.shape[-1]  # no root
    / math.sqrt(q.shape[-1]) -> / math.sqrt(v.shape[-1])  # the width of the values
    scores.softmax(dim=-1) -> scores.softmax(dim=-2)  # the wrong axis
    scores.masked_fill(masked, -math.inf) -> scores.masked_fill(~masked, -math.inf)  # inverted
    scores.masked_fill(masked, -math.inf) -> scores.masked_fill(masked, -1e4)  # a finite value
    ~mask & mask.any(dim=-1, keepdim=True) -> ~mask  # nan on the way back from an empty row
    .softmax(dim=-1).masked_fill(~mask, 0.0) -> .softmax(dim=-1)  # weights in an empty row
    scores.masked_fill(masked, -math.inf).softmax(dim=-1) -> scores.softmax(dim=-1)  # the mask after the softmax
    dependency.triu(1) -> dependency.tril(-1)  # the leak test looks at the past
    1e-6 * dependency.max() -> 1e-1 * dependency.max()  # the leak test is deaf
layer_norm
    F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps) -> (x - x.mean(-1, True)) / (x.var(-1, True) + self.eps).sqrt() * self.weight + (0 if self.bias is None else self.bias)  # unbiased
    F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps) -> (x - x.mean(-1, True)) / (x.std(-1, False, True) + self.eps) * self.weight + (0 if self.bias is None else self.bias)  # epsilon outside the root
    self.weight, self.bias, self.eps) -> self.weight, None, self.eps)  # no bias
    self.weight, self.bias, self.eps) -> self.weight, self.bias)  # another epsilon
multi_head_attention
    .view(*x.shape[:-1], self.n_heads, d_k).transpose(1, 2) -> .reshape(x.shape[0], self.n_heads, x.shape[1], -1)  # split without transpose
    heads.transpose(1, 2).flatten(2) -> heads.reshape(heads.shape[0], heads.shape[2], -1)  # merged without transpose
    self.out_proj(self.merge_heads(heads)) -> self.merge_heads(heads)  # no W_o
    F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal) -> F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal, scale=x.shape[-1] ** -0.5)  # scale by d_model
    F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal) -> F.scaled_dot_product_attention(q, k, v, None, dropout, is_causal)  # the mask is dropped
    self.dropout if self.training else 0.0 -> self.dropout  # dropout left on
    self.dropout if self.training else 0.0 -> 0.0  # dropout never on
    return causal if mask is None else mask & causal, False -> return causal if mask is None else mask, False  # causal or padded, not both
    linear(context, self.in_proj_weight[d_model:], bias) -> linear(context, self.in_proj_weight[d_model:], None)  # no bias of the context
    self.project_queries(x), cache.entries() -> self.project_queries(x + x), cache.entries()  # other queries once the source is in the cache
    k, v = F.linear(context -> v, k = F.linear(context  # keys and values exchanged
    self.apply_rotary(k, offset) -> self.apply_rotary(k, 0)  # keys that forget their place
    if not is_causal or length == 1: -> if not is_causal or length <= 2:  # the last of two positions is shown to the first
interpret.activations
    if is_causal: -> if False:  # observing lifts the causal mask
    masked_fill(~mask, 0.0) -> masked_fill(~mask, torch.nan)  # empty rows are nan while observed
    F.dropout(weights, dropout, self.attention.training) -> weights  # observing switches dropout off
    return (self.record(name, output[0]), *output[1:]) -> return self.record(name, output[0])  # the rest of what a module returns is lost
    return (self.record(name, output[0]), *output[1:]) -> self.record(name, output[0])  # an output in a tuple cannot be replaced
    if any(map(means, self.patterns)): -> if True:  # more is recorded than was asked for
    if missed := self.replacements.keys() - self.used: -> if missed := ():  # a replacement that was never used is passed over
    del attention.attend -> pass  # the fused kernel does not come back
    in self.observers: -> in self.observers[:1]:  # one observer at a time
    fnmatchcase(name, pattern) or fnmatchcase(call, pattern) -> fnmatchcase(name, pattern)  # one call of several cannot be chosen
    with ExitStack() as stack: -> for stack in [ExitStack()]:  # hooks stay behind
interpret.inspection
    sublayers = ("attention", "cross_attention", "feed_forward") -> sublayers = ("attention", "cross_attention")  # the feed-forward network of a layer stays on
    value.masked_fill(off[:, None, None], 0.0) -> value.masked_fill(~off[:, None, None], 0.0)  # the other heads are switched off
    if max(numbers) >= value.shape[1]: -> if False:  # a head that is not there
    return lambda x: head(norm(x)) -> return lambda x: head(x)  # a lens without the final norm
    embeddings[-1:] -> embeddings[:1]  # the lens of an encoder-decoder begins with the source
    if not n.startswith("encoder.") -> if True  # the encoder's layers have logits
    with evaluation_mode(model), torch.no_grad(): -> with torch.no_grad():  # dropout while one looks
interpret.tracing
    with torch.enable_grad(), activations(model) as seen: -> with activations(model) as seen:  # no gradients inside no_grad
    gradients[len(inner) :] -> gradients  # the gradients of activations taken for those of parameters
    seen.update(more) -> pass  # what a call returns beside its logits is lost
    logits * factors.to(logits) -> logits  # errors that cancel in the sum are not seen
    value.detach() -> value  # the graph is kept
    or ours[name].shape != expected.shape: -> or False:  # shapes that broadcast are compared
    absolute / largest -> absolute  # not relative
transformer
    x[:, -1:] if last_only -> x[:, :1] if last_only  # the first position
    return x + self.dropout(sublayer(self.norm(x))) -> x = self.norm(x); return x + self.dropout(sublayer(x))  # the residual after the norm
    return x + self.dropout(sublayer(self.norm(x))) -> return self.dropout(sublayer(self.norm(x)))  # no residual
    return self.norm(x + self.dropout(sublayer(x))) -> return x + self.norm(self.dropout(sublayer(x)))  # the norm of the sublayer only
    x + self.dropout(sublayer(self.norm(x))) -> self.dropout(x + sublayer(self.norm(x)))  # dropout of the stream
    self.linear2(self.activation(self.linear1(x))) -> self.activation(self.linear2(self.linear1(x)))  # the activation after both
    nn.ModuleList(EncoderLayer(**options) for options in config.layer_options()) -> nn.ModuleList([EncoderLayer(**config.layer_options()[0])] * config.n_layers)  # one layer, N times
    self.cross_attention(x, memory, mask=memory_mask, cache=source) -> self.cross_attention(x, memory, cache=source)  # padding of the source attended
    self.attention(x, mask=mask, is_causal=is_causal, cache=own)) -> self.attention(x, mask=mask, cache=own))  # a decoder that sees ahead
    is_causal = self.is_causal if is_causal is None else is_causal -> is_causal = bool(is_causal)  # no mask unless asked for
    head.weight = embedding.tokens.weight -> head.weight = nn.Parameter(embedding.tokens.weight.detach().clone())  # copied, not tied
    config.d_model**0.5 if config.scale_embeddings -> config.d_model if config.scale_embeddings  # scaled by d_model
    mask, self.is_causal, cache) -> mask, False, cache)  # a language model without its mask
    if self.embedding is not None: -> if False:  # an encoder that is handed indices and does not embed them
    offset = 0 if cache is None else len(cache[0]) -> offset = 0  # the cache forgets where it is
    memory, target_mask, source_mask, is_causal, cache)) -> memory, target_mask, None, is_causal, cache))  # the source mask is lost on the way
    embed(target, len(cache[0][0])) -> embed(target, 0)  # a decoder whose cache forgets where it is
    self.encoder(self.embedding(source), source_mask) -> self.encoder(self.embedding(source))  # padding in the encoder
    torch.full_like(target[:, :1], start), target[:, :-1] -> torch.full_like(target[:, :1], start), target[:, 1:]  # shifted the wrong way
    torch.cat((torch.full_like(target[:, :1], start), target[:, :-1]), dim=1) -> torch.cat((torch.full((len(target), 2), start), target[:, :-2]), dim=1)  # shifted twice
    to_autocast_dtype(self.dropout(x)) -> to_autocast_dtype(x)  # no dropout of embeddings
    parameter.numel() for parameter in model.parameters() -> v.numel() for v in model.state_dict().values()  # tied matrices counted twice
config.checks
    if mask.dtype != torch.bool: -> if False:  # numbers are added to the scores
    x.dim() != 3 or  ->   # a sequence without its batch
    if rows != columns: -> if False:  # a verdict on positions that do not match
    == mask.shape[0] > 1: -> > 10**9:  # a mask with two meanings
    if mask is not None and mask.dim() == 2 and mask.shape[0] > 1: -> if False:  # padding as positions
config.docstrings
    if not meanings or -> if not meanings and  # a section for each use
    text[:start].rstrip(), -> text,  # the example twice
    if line in comments: -> if line - 1 in comments:  # the comment of its neighbor
    (default or one).end_lineno -> one.end_lineno  # no comment after a default of two lines
    reversed(arguments.defaults) -> arguments.defaults  # the default of another
config.position_table
    torch.promote_types(torch.get_default_dtype(), torch.float32) -> torch.get_default_dtype()  # a table in half precision
    len(rows) < length or rows.device -> rows.device  # it does not grow
    or rows.device != x.device: -> :  # it stays on the meta device
    with torch.inference_mode(False): -> if True:  # a table that training cannot use
config.precision
    and x.dtype != torch.float64: -> :  # autocast rounds float64
config.parts
    "gelu": F.gelu -> "gelu": F.silu  # another activation
config.registry
    import_module(f"{PACKAGE}.{self.modules[name]}") -> pass  # nothing is imported
    return name in self.data -> return True  # each name is known
config.model
    self.head_dim is None and self.d_model % self.n_heads: -> False:  # heads that do not fit
    name not in known and value is not None -> False  # options that nobody reads
    self.head_dim or self.d_model // self.n_heads -> self.d_model // self.n_heads  # the size of a head is not heard
    self.sliding_window[layer] -> self.sliding_window[0]  # the window of the first layer in all
    self.make_norm(self.d_model) if self.final_norm else nn.Identity() -> nn.Identity()  # no last norm
    self.make_norm(self.d_model) if self.final_norm else nn.Identity() -> self.make_norm(self.d_model)  # one norm too many
    ROTATIONS[self.positions](self) if self.positions in ROTATIONS else None -> None  # no rotation
config.fields
    not isinstance(value, Integral) or value < smallest -> not isinstance(value, int)  # sizes below the smallest
    0 <= value < below -> 0 <= value <= below  # a probability of one
    or value not in names: -> if False:  # names that nobody knows
config.initialization
    0.02 / math.sqrt(2 * config.n_layers) -> 0.02  # a stream that grows with the depth
cli.options
    RECIPES.get(preset, {}) -> {}  # the help shows defaults that no run has
cli.parser
    near = did_you_mean(options[0], self._option_string_actions) -> near = ""  # nothing is suggested
cli.output
    text.encode(encoding, "replace").decode(encoding) -> ""  # what cannot be shown is lost, and all around it
    if error.errno not in (errno.EPIPE, errno.EINVAL): -> if True:  # a closed pipe is an error
cli.train
    if run.origin.digest not in ("", digest): -> if False:  # another text goes on
    if value != has[name]: -> if False:  # options are ignored
    if arguments.resume and arguments.overwrite: -> if False:  # one of two options is ignored
    if history.steps_done >= config.steps: -> if False:  # a finished run says nothing
cli.generate
    prompt.replace("\\r\\n", "\\n").replace("\\r", "\\n") -> prompt  # a prompt from Windows
cli.evaluate
    size - bytes_of_first(tokenizer, ids) -> size  # the bytes of a token that is not predicted
inference.text_loss
    self.nats / math.log(2) / self.bytes -> self.nats / self.bytes  # nats for bits
    starts[:-1] + length)) -> starts[1:]))  # tokens are counted twice
inference.cache
    return self.k.narrow(2, 0, self.length), self.v.narrow(2, 0, self.length) -> return self.k, self.v  # the empty part of the cache is attended
    self.k.narrow(2, self.length, k.shape[2]) -> self.k.narrow(2, 0, k.shape[2])  # the cache overwrites its beginning
inference.calls
    modules[0].eval() -> pass  # written in training mode
    suppress(NotImplementedError) -> suppress()  # an exported program is refused
    module.training = True -> pass  # left in evaluation mode
    if not SWITCHED[id(module)][1]} -> }  # the first thread to end puts the modes back under the others
    if part.training != mode: -> if False:  # frozen parts of a module that hears of its mode are switched too
    has_stopped.cumsum(1) - has_stopped == 0 -> has_stopped.cumsum(1) == 0  # without the stop token
    isinstance(value, (bool, np.bool_)) -> False  # True is one
    and above < number < math.inf -> and above < number  # an infinite temperature
inference.prompts
    prompt.is_floating_point() or -> False or  # 0.9 is token 0
    isinstance(table, Tensor) -> False  # an embedding that was made larger
    return prompt.long() -> return prompt  # uint8 stays
    if least < 0 or most >= vocab_size: -> if False:  # a token outside the vocabulary
    torch.cat((prompt[:1].expand(pad), prompt)) -> torch.cat((prompt, prompt[:1].expand(pad)))  # padded on the right
inference.any_model
    else unwrap(inner) -> else inner  # one wrapper of two
    getattr(model, "is_causal", True) is False -> False  # a model that sees what it predicts
    row[None, max(pad, start) :] -> row[None, start:]  # padding is read
    start = max(0, ids.shape[1] - (self.block_size or ids.shape[1])) -> start = 0  # more than the model sees
    return logits[:, -1] -> return logits[:, 0]  # the wrong position
inference.sampling
    torch.promote_types(logits.dtype, torch.float32) -> logits.dtype  # half precision
    max(temperature, limits.tiny) -> temperature  # too small for float32
    (logits - logits.amax(dim=-1, keepdim=True)) -> logits  # overflow
    if not largest.isfinite().all(): -> if False:  # NaN is sampled
    probability < p * probability.amax(dim=-1, keepdim=True) -> probability < p  # not relative
    torch.where(old < 0, old * penalty, old / penalty) -> old / penalty  # negative ones become more probable
    at_least_float32(logits).log_softmax(dim=-1) -> at_least_float32(logits)  # not normalized
inference.streaming
    if piece.endswith("\\ufffd") else -> if False else  # half characters
    held[: min(ends)[1]] -> held[: max(ends)[1]]  # a later stop string
    if held.endswith(stop[:n]) -> if False  # a stop string in two pieces
    if token in stop: -> if False:  # the stop token is shown
inference.conversation
    if weights != self.weights: -> if False:  # the keys of other weights
    same = int( -> same = known or int(  # the keys of another text
    known = min(len(layer) for layer in self.read.cache) -> known = len(self.read.cache[0])  # half of the layers hold a token
    if turn != self.turn: -> if False:  # two answers in one place
    self.next_logits.read.decode = None -> pass  # a hook is not called
modern.attention
    kv_length - length - window + 1 -> kv_length - length - window  # one position too many
    .triu(kv_length - length - window + 1) -> .triu(1 - window)  # the window is counted from the first position in the cache
    x.repeat_interleave(n_heads // x.shape[1], dim=1) -> x.repeat(1, n_heads // x.shape[1], 1, 1)  # other groups
    return self.q_norm(q), self.k_norm(k), v -> return q, self.k_norm(k), v  # only keys are normalized
    mask = near if mask is None else mask & near -> mask = near  # padding inside the window is attended
    if window is not None and (is_exporting() or kv_length > window): -> if False:  # no window
    self.in_proj_bias[:rows] -> None  # queries without their bias
modern.rotary
    ((turns - low) / (high - low)) -> ((turns - high) / (low - high))  # the fast ones are slowed down
    (1 - kept) * stretched + kept * frequency -> stretched  # all are stretched
modern.parts
    (1 + self.weight).to(x.dtype) -> self.weight.to(x.dtype)  # gains that count from zero
    torch.arange(ids.shape[1], device=ids.device) > 0 -> torch.arange(ids.shape[1], device=ids.device) >= 0  # a token before the first
    torch.cat((first, ids[:, :-1]), dim=1) -> ids  # the token itself, not the one before
    self.activation(self.gate(x)) * self.linear1(x) -> self.gate(x) * self.activation(self.linear1(x))  # the other half activated
    F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps) -> F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype))  # another epsilon
generation
    k, logits.shape[-1]), dim=-1).values[..., -1:] -> k, logits.shape[-1]), dim=-1).values[..., :1]  # only the best
    before >= p -> before + probability >= p  # one token too few
    divide_by_temperature(logits, temperature) -> divide_by_temperature(logits, 1 / temperature)  # hot is cold
    if temperature == 0: -> if temperature < 0:  # greedy divides by zero
    top_p_filter(logits, top_p) -> top_p_filter(logits, 1 - top_p)  # the rest
    self.use_cache = use_cache and model.is_causal -> self.use_cache = use_cache  # a cache where every token changes all others
    self.use_cache = all(len(layer) == ids.shape[1] for layer in self.cache) -> pass  # a cache that a layer does not fill
    if not self.use_cache or ids.shape[1] > self.block_size: -> if not self.use_cache:  # the cache is kept when the window slides
    self.model(window, last_only=True, **self.mask_padding(ids, seen=0))[:, -1] -> self.model(window, **self.mask_padding(ids, seen=0))[:, 0]  # the wrong position
    {"before": ids[:, seen - 1]} -> {"before": ids[:, 0]}  # the first token of the text before each
    seen - before.clamp(min=0)} -> torch.full_like(before, seen)}  # padding counts as places
    token.where(running, ids[:, -1:]) -> token  # a text goes on behind its end
    penalize_repetition(logits, ids, call.repetition_penalty) -> logits  # no penalty
    .where(running, 0.0) ->   # the log-probability of what was filled
    top_p < 1: -> True:  # a filter of 1 filters
cpu.decoding
    len(weight) % PIECES: -> False:  # pieces of unequal size
    parts = weight.unflatten(0, (PIECES, -1)) -> parts = weight.unflatten(0, (-1, PIECES)).transpose(0, 1)  # pieces mixed
    q, k = rotary(q, len(cache)), rotary(k, len(cache)) -> q = rotary(q, len(cache))  # only queries are rotated
    mask = None if mask is None else mask[:, None] -> mask = None  # padding is attended
    k[:, :, -window:], v[:, :, -window:], None if mask is None else mask[..., -window:] -> k, v, mask  # no window
    q.reshape(len(x), n_kv_heads, -1, d_k) -> q.reshape(len(x), -1, n_kv_heads, d_k).transpose(1, 2)  # other groups
    lambda x, sublayer: norm(x + dropout(sublayer(x))) -> lambda x, sublayer: x + dropout(sublayer(norm(x)))  # every norm first
    x + dropout(sublayer(norm(x))) -> x + sublayer(norm(x))  # what stands in place of a dropout is ignored
    down(activation(up(x))) -> down(up(activation(x)))  # the activation before the product
    activation(gate(x)) * up(x) -> gate(x) * activation(up(x))  # the other half activated
    or module.training or has_hooks(module): -> or module.training:  # who listens hears nothing
    or module.training or has_hooks(module): -> or has_hooks(module):  # dropout is skipped in training
    if any(methods_of(kind) != defined for kind, defined in ORIGINAL_METHODS.items()): -> if False:  # a method replaced on a class is ignored
    return methods.isdisjoint(vars(module)) -> return True  # a method replaced on a module is ignored
    known = getattr(module, "activation", F.relu) in PARTS["activation"].values() -> known = True  # any activation is taken for a known one
    and all(map(is_position_wise, parts)) ->   # a part of a part is ignored
    and not any(torch.is_autocast_enabled(device) for _, device in kinds) ->   # autocast is not heard
    not in (nn.Parameter, Tensor, type(None)) for name in WEIGHT_NAMES): -> is None for name in WEIGHT_NAMES):  # a weight of another type is read as if it were none
    if not all(kind.forward.__module__ == kind.__module__ for -> if not all(True for  # a method replaced before the import is ignored
cpu.hooks
    or any(getattr(nn_module, name) for name in OF_ALL_MODULES) ->   # a hook for all modules is not seen
    if not hooks_are_visible(): -> if False:  # asked where hooks cannot be seen
runs.process
    module.set_rng_state(before, *which) -> pass  # the caller's random numbers are lost
    generator.set_state(module.get_rng_state(*which)) -> pass  # the same dropout in each step
runs.batches
    masked_fill(~batch.mask, NOT_COUNTED) -> masked_fill(batch.mask, NOT_COUNTED)  # what does not count is learned
    return "sum", count_targets(batch) / processes -> return "mean", parts  # each part weighs the same
    count_targets(batch) / processes -> count_targets(batch)  # the gradients of several processes are averaged once more
    if batch.mask is None and len -> if len  # a mask is overlooked where the rows are even
    x.tensor_split(parts) for x in batch.inputs -> x.roll(1, 0).tensor_split(parts) for x in batch.inputs  # inputs of other targets
    logits, targets.flatten(), reduction=reduction, label_smoothing=label_smoothing -> logits, targets.flatten(), reduction=reduction  # no smoothing
    torch.promote_types(logits.dtype, torch.float32) -> torch.float32  # float64 is rounded
    if not count_targets(batch): -> if False:  # nothing counts, and the loss is nan
    if negative.any(): -> if False:  # targets that are left out in silence
    or logits.shape[:2] != batch.targets.shape ->   # logits of another length
    (rows < parts or any( -> (any(  # a part without rows
    if counted.numel() and counted.max() -> if False and counted.max()  # a GPU is asked for a logit that is not there
    (count_targets(batch) / divisor) -> 1 / divisor  # each part of a batch weighs the same in a loss of one's own
runs.sources
    with random_state_of(self.generator): -> if True:  # the order of the batches is drawn from the caller's random numbers
    while self.taken < taken: -> while False:  # a resumed run begins with the first batch
    if taken < self.taken: -> if False:  # a run that goes back goes on
    "generator" in state: -> False:  # a run on ids goes on with batches
    not state["first_batch"].equal(self.first): -> False:  # other batches after a resume, in silence
runs.evaluation
    total / count -> total / number  # each batch weighs the same
    with evaluation_mode(model): -> if True:  # measured with dropout
    + [len(self.ids) - 1] * (whole < len(self.ids) - 1) ->   # the end of a text is not predicted
    .transpose(1, 2).float() -> .mT.reshape(len(ids), -1, length).float()  # reshaped, not transposed
    READING, random_state_of(generator): -> READING:  # the caller's random numbers are drawn from
runs.arguments
    if config.batch_size % (world_size() * parts): -> if False:  # shares that are not equal
    if low < 0 or high >= vocab_size: -> if False:  # tokens of another vocabulary
    if len(needed) > 1: -> if False:  # an encoder-decoder is called with one text
    isinstance(model, wrappers) -> False  # the configuration of a wrapped model is not found
runs.optimizers
    group["initial_lr"] * factor -> self.config.learning_rate * factor  # muon at adamw's rate
    if not needs_loss(scheduler): -> if True:  # a plateau without a loss
    if step in losses: -> if False:  # the plateau of a resumed run is forgotten
    if any(id(parameter) not in own for parameter in held): -> if False:  # the parameters of another model learn
    if field.name in names and value != field.default: -> if False:  # options that are ignored
    set_rate(group, group["initial_lr"]) -> pass  # an optimizer comes back with another rate
runs.distributed
    tensor.tensor_split(self.size)[self.rank] -> tensor  # each process learns from the whole batch
    isinstance(error, dist.DistError) -> False  # an error of the network is one's own
    return modules[-1:] == [__name__] -> return True  # an error of the model is blamed on another
    return modules[-1:] == [__name__] -> return False  # a backward pass without the others is one's own error
    (dist.DistError, *OWN_ERRORS) -> dist.DistError  # no memory, blamed on another
    warnings.filterwarnings -> (lambda *_: None)  # warnings that nobody can heed
    nullcontext() if last or self.shard else self.wrapped.no_sync() -> nullcontext()  # a message for each part of a batch
    self.wrapped.set_requires_gradient_sync(last) -> pass  # the same of a sharded model
    tensor.tensor_split(self.size)[self.rank] -> tensor.tensor_split(self.size)[0]  # all learn from the same rows
    return values / self.size -> return values  # the sum of the losses for their mean
    {self.seed} {self.rank} {step} -> {self.seed} {self.rank}  # the same dropout in each step
    return bool(largest.sum() == 0) -> return True  # other batches in another process
runs.state
    optimizer.load_state_dict( -> dict(  # the optimizer starts anew
    if (len(found), count) != (kind["parameters"], kind["tensors"]): -> if False:  # a run goes on with half of its optimizer
    while name in taken: -> while False:  # two optimizers of one class share a state
runs.trainer
    with random_state_of(self.dropout): -> if True:  # dropout draws from the caller's random numbers
    self.dropout.set_state(tensors.pop("dropout")) -> tensors.pop("dropout")  # other dropout after a resume
    self.dropout.manual_seed(seed) -> pass  # all processes drop the same
    enabled=is_bf16 -> enabled=False  # bf16 is not heard
    if self.config.grad_clip or measure: -> if measure:  # no clipping
    optimizer.zero_grad() -> pass  # gradients add up
    if not math.isfinite(loss): -> if False:  # nan goes on
    / divisor ->    # the parts of a batch count as much as the whole
    if self.may_inspect and not loss.isfinite(): -> if False:  # a step is taken with what is no number
    error_if_nonfinite=self.may_inspect -> error_if_nonfinite=False  # nor is the gradient looked at
    self.history.loss[0] + DIVERGENCE_FACTOR: -> self.history.loss[0] + 1e9:  # it explodes unseen
    last=i == parts -> last=True  # a message for each part of a batch
    if digest and state.get("data_digest", digest) != digest: -> if False:  # a run goes on with another text
    self.batches.load_state_dict(tensors, len(loss)) -> pass  # another order of the data after a resume
    self.targets_seen += count_targets(batch) -> self.targets_seen += len(batch.targets)  # rows for tokens
runs.loop
    0 < self.config.patience < len( -> 0 > len(  # never stops early
    self.history.best == len(self.history.validation_loss) - 1: -> False:  # the best is not kept
    and self.process.is_main: -> :  # every process writes
    if self.history.evaluated[-1:] == [self.history.steps_done]: -> if False:  # measured twice
runs.checkpoints
    new.rename(locked.path / STAGE) -> shutil.copytree(new, locked.path / STAGE)  # complete before it is
    items(), reverse=True) -> items())  # the oldest, not the newest
    [*replacing, *steps, directory / STAGE, directory] -> [*replacing, *steps, directory]  # half of the new files, half of the old ones
    if not are_current(files, found, directory): -> if False:  # a half of one checkpoint and a half of the next
runs.checkpoint_files
    raise FloatingPointError( -> print(  # nan saved over what was whole
    if asked != held: -> if False:  # memory for whatever is asked
    isinstance(layers, int) and layers > tensors -> False  # a billion layers are tried
    (*directory.iterdir(), directory) -> directory.iterdir()  # the names are not on the disk
    storage.data_ptr() in taken or storage.nbytes() != tensor.nbytes -> False  # views of one storage are not saved
runs.saved_models
    return (config,) if target == config else (config, target) -> return (config,)  # the configuration of the decoder is lost
    for name in names: -> for name in names[:1]:  # a tied matrix is two after loading
    requires_grad=frozen.isdisjoint(names) -> requires_grad=True  # what was frozen is trained on
    described["has_embedding"] = True -> pass  # an encoder without its embedding
runs.saving_checks
    if found is not None: -> if False:  # weights that no configuration makes are saved, and cannot be loaded
    if names != made[name]: -> if False:  # a tie that is broken is tied again
    if not same_value(*values): -> if False:  # an activation that was replaced is forgotten
    if not same_outputs(model, fresh): -> if False:  # a hook that changes outputs is lost
    if start < end: -> if False:  # weights that share memory are apart after loading
    if tensor.is_meta: -> if False:  # weights without values
    same = type(loaded).__name__ == kind -> same = True  # another class of tokenizer comes back
runs.tensor_files
    end - begin == math.prod(shape) * dtype.itemsize -> True  # sizes that lie
    ends[-1] != size - self.start -> False  # a file that is cut short
runs.process
    {tensor.dtype} {tuple(tensor.shape)} ->   # a shape is not seen
runs.files
    if key in LOCKED: -> if False:  # two threads write to one directory
    fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB) -> pass  # two processes do
    os.O_RDONLY if is_directory else os.O_RDWR -> os.O_RDONLY  # Windows waits only for what it may write
    .expanduser().resolve() -> .absolute()  # a link is not followed
runs.directory
    if 0 < step >= row["step"] -> if step  # lines of steps that are to come again
    publish_files(path, self.directory) -> pass  # nothing under the names of a checkpoint
    (name + ".new" * self.replaces) -> name  # the old run loses its metrics before the new one has anything
    if number > start: -> if False:  # steps of an old run stay beside those of the new one
    (new / "best").mkdir() -> pass  # the best model of the old run stays
config.training
    "label_smoothing", below=1) -> )  # any number smooths labels
training
    ids[:cut], ids[cut:] -> ids[:cut], ids[cut // 2 :]  # validation on the text that was trained on
    windows[:, :-1], windows[:, 1:] -> windows[:, :-1], windows[:, :-1]  # not shifted
    torch.arange(block_size + 1) -> torch.arange(block_size + 2)  # windows of another length
    left = 0.5 * (1 - math.cos(math.pi * left)) -> left = left**2  # another curve
    if step < warmup: -> if False:  # no warm-up
    math.sqrt(warmup / (step + 1)) -> warmup / (step + 1)  # another decay
    if parameter.dim() >= 2 else vectors -> if True else vectors  # gains and biases decayed too
    eps=config.eps -> eps=1e-8  # the paper's epsilon is not heard
    check_can_be_saved(check_model(model), tokenizer) -> pass  # what was learned cannot be kept
    check_repeatable(validation_ids) -> pass  # validation batches that are there only once
seq2seq.pairs
    torch.where(positions == lengths, self.stop, self.pad) -> torch.where(positions >= lengths, self.stop, self.pad)  # filled with stop
    going = (ids == self.stop).cumsum(dim=1) == 0 -> going = ids != self.stop  # reads on behind the stop
    shift_right(target, start), (source != pad) -> target, (source != pad)  # no shift
    (source != pad)[:, None] -> (source == source)[:, None]  # the padding is attended to
    target, target != pad -> target, target == target  # the padding is counted
    sum(s[name].double() for s in states).div(len(states)) -> states[-1][name]  # the last, not the mean
seq2seq.training
    label_smoothing=epsilon) -> label_smoothing=0.0)  # no smoothing
    ignored = -100 if padding is None else padding -> ignored = -100  # padding counts
    min(step**-0.5, step * warmup**-1.5) -> min(step**-0.5, step * warmup**-0.5)  # another warm-up
seq2seq.decoding
    text[:, len(self.cache[0][0]) :] -> text  # everything anew, into the cache
    memory.repeat_interleave(copies, dim=0) -> memory.repeat(copies, 1, 1)  # the source of another row
    own.reorder(rows) -> pass  # the cache of another beam
    with evaluation_mode(model): -> if True:  # written in training mode
    source_mask = padding_mask(lengths, source.shape[1]) -> pass  # padding is read
    check_logits(logits) -> pass  # NaN is written
    total[:, 0] = 0.0 -> total[:] = 0.0  # all beams the same
    min(2 * n_beams, -> min(n_beams,  # too few to go on
    <= score[:, -1:] -> <= score[:, :1]  # stops too early
convert.weights
    reduce(torch.promote_types, {weight.dtype for weight in weights.values()}) -> next(iter(weights.values())).dtype  # whichever precision comes first
    model.eval() -> model.train()  # left in training mode
    not weights[n].equal(weights[tied_to[n]]) -> False  # a head that differs from what it is tied to is dropped
convert.options
    grid.clone() -> grid  # an activation that overwrites the grid is taken for another
    "gelu_new": "gelu_tanh" -> "gelu_new": "gelu"  # the exact function for its approximation
convert.torch_modules
    "norm2": "residual2.norm", -> "norm2": "residual1.norm",  # one norm for another
    ours.norm = LayerNorm( -> LayerNorm(  # the final norm of a stack is forgotten
    Decoder(torch_config(theirs), is_causal=False) -> Decoder(torch_config(theirs))  # causal unasked
    check_layer_parts(layer) -> pass  # a replaced part is taken for the usual one
convert.family
    family.aliases.get(name, name) -> name  # options under other names are not read
    ("query", "key", "value") -> ("key", "query", "value")  # joined in another order
    if unknown: -> if False:  # weights that belong nowhere are dropped
    check_known_options(family.title, config, known) -> pass  # an option that nobody knows is ignored
    if ours in renamed and not weight.equal(renamed[ours]): -> if False:  # one of two different weights is dropped
convert.gpt2
    layer_norm_epsilon=1e-5 -> layer_norm_epsilon=1e-6  # another default
    weight = weight.T -> pass  # matrices not turned
    weight.T if name.endswith(GPT2_TRANSPOSED) else weight -> weight  # written as it is stored here
    scale /= int(name.split(".")[1]) + 1 -> scale /= int(name.split(".")[1]) + 2  # layers counted from another end
    dropout="resid_pdrop" -> dropout="attn_pdrop"  # one dropout for another
convert.bert
    self.finish(self.norm(x)) -> self.finish(x)  # a BERT without the norm of its embedding
    is_causal = False -> is_causal = True  # one side only
    torch.zeros_like(ids) if segments is None else segments -> torch.zeros_like(ids)  # all in the first segment
    self.norm(self.activation(self.linear(x))) -> self.norm(self.linear(x))  # a head without its activation
    self.projection.weight = embedding.tokens.weight -> pass  # a head that is not tied
    MODELS["MaskedLanguageModel"] = (MaskedLanguageModel, BertConfig) -> pass  # a BERT that no checkpoint can hold
convert.roberta
    counted = ids != pad_token_id -> counted = ids == ids  # padding is counted
    + offset) * counted + pad_token_id -> + offset) * counted  # counting begins with the first row
    self.activation = F.gelu -> pass  # the head uses the activation of the layers
    options["max_position_embeddings"] += model.config.pad_token_id + 1 -> pass  # too few rows are written
convert.distilbert
    norm_eps=1e-12 -> norm_eps=1e-5  # another constant in the norms
    "transformer.layer.*.sa_layer_norm": "layers.*.residual1.norm" -> "transformer.layer.*.sa_layer_norm": "layers.*.residual2.norm"  # one norm for another
convert.marian
    interleaved=False) -> interleaved=True)  # sines and cosines interleaved
    head="linear_with_bias" -> head="linear"  # a head without its bias
    scale_embeddings="scale_embedding" -> scale_embeddings="tie_word_embeddings"  # scaled unasked
    f"{stack}_{theirs}" -> f"encoder_{theirs}"  # the sizes of the encoder in the decoder
    restored["shared.weight"] = restored["encoder.embed_tokens.weight"] -> pass  # a shared embedding is not written
    if not all(embedding.equal(found[0]) for embedding in found): -> if False:  # one of two different embeddings is dropped
convert.llama
    config["rope_scaling"] or config["rope_parameters"] -> config["rope_parameters"]  # stretched as old files say it
    return halves.transpose(1, 2).flatten(0, 2) -> return rows  # the wrong pairs are turned
    found.setdefault("original_max_position_embeddings", config["max_position_embeddings"]) -> found.setdefault("original_max_position_embeddings", 8192)  # a context of another size
    ".q_norm.", ".k_norm." ->   # gains in the order of the halves
    rows.unflatten(0, (-1, d_k // 2, 2)) -> rows.unflatten(0, (-1, 2, d_k // 2))  # written in another order
    config.rotary_scaling and dict(config.rotary_scaling) -> None  # written without its stretching
convert.mistral
    sliding_window=config["sliding_window"] -> sliding_window=None  # no window
convert.qwen
    i >= first -> i < first  # the windows of the other layers
    if config["use_sliding_window"] else None -> if True else None  # a window that is switched off
    qkv_bias=True -> qkv_bias=False  # biases that are dropped
convert.gemma
    scale_embeddings=True -> scale_embeddings=False  # embeddings too small
convert.files
    if (directory / whole).exists() or not (directory / index).exists(): -> if not (directory / index).exists():  # an index that was left there counts more than the file
    if not isinstance(content, dict): -> if False:  # any JSON will do
    if not plain or not file.endswith(".safetensors"): -> if False:  # an index may name any file
    if twice := found.keys() & weights.keys(): -> if False:  # the second of two weights with one name wins
    c if c.isprintable() else " " -> c  # names in a file reach the terminal
convert.huggingface
    check_sizes(family, ours, weights) -> pass  # memory for whatever is stored
    check_options(family, config) -> pass  # options without a counterpart are ignored
    check_counts(family, config, weights) -> pass  # a billion layers are built
convert.export
    if not found: -> if True:  # what a family does not have is written
    if type(parts.get(name)) is not type(made.get(name)): -> if False:  # a module of one's own is written as the usual one
    weight.clone() if shared or part else weight -> weight  # a file holds no part of a tensor
    or any(directory.iterdir()) -> or False  # written over what was there
convert.comparison
    if ours not in NOT_COMPARABLE -> if True  # outputs that are not the same
modern.muon
    if p.dim() == 2 and "layers." in name -> if p.dim() == 2  # muon for the embeddings too
    .clamp(min=1e-7) ->   # zeros become nan
    X.norm(dim=(-2, -1), keepdim=True) -> X.norm()  # one length for all matrices
    not group[name] >= 0 -> group[name] < 0  # nan is a rate
    self.param_groups.pop() -> pass  # a refused group stays
    alike[p.shape, p.dtype, p.device] -> alike[p]  # one by one
    if p.grad is not None: -> if p.grad is not None or p.zero_() is None:  # what has no gradient is moved
    .lerp_(p.grad, 1 - group["momentum"]) -> .lerp_(p.grad, group["momentum"])  # the other part
    if group["nesterov"] else mean) -> if True else mean)  # always Nesterov
    1 - group["lr"] * group["weight_decay"] -> 1 - group["weight_decay"]  # decay without the rate
    rows / columns -> columns / rows  # the wide ones go further
    torch.bfloat16 if parameter.device.type == "cuda" else torch.float32 -> torch.bfloat16  # slow where nothing computes in it
    return torch.float64 -> return torch.float32  # sixteen digits become seven
notebook.map
    if chapter == lit else -> if chapter != lit else  # the other chapters are highlighted
    in reversed(re.findall(box, self.source)): -> in re.findall(box, self.source):  # a small box is covered by the large one around it
    if label == "add & norm": -> if label == "feed-\\nforward":  # residual connections around other boxes
    if lit is not None and lit not in CHAPTERS: -> if False:  # an unknown chapter highlights nothing
notebook.plotting
    vmin=-high if kind == "signed" else 0 -> vmin=-high  # zero is not white
    token.strip() == "" else token -> True else token  # spaces inside a token become signs
    plt.close(figure) -> pass  # figures pile up
    p.largest * (p.kind == kind) -> p.largest  # weights are colored by the scale of scores
    (1 + share) / 2 if kind == "signed" else share -> share  # zero is not white in a flow
notebook.loss_plot
    width * (i + 0.5) -> width * i  # means are drawn at the first of their steps
    range(0, len(loss) - width + 1, width) -> range(0, len(loss), width)  # the last mean is of fewer steps
notebook.questions
    if letter == answer: -> if letter != answer:  # wrong is right
    guess is None or guess is ... -> guess is ...  # nothing typed is a wrong guess
    .lower() if ->  if  # capital letters are no choice
    if isfinite(number) else None -> if True else None  # nan is a number
    except Exception:  # whatever -> except ValueError:  # a list stops the page
    abs(number - target) <= within * abs(target) -> abs(number - target) <= within  # near means something else
    except AssertionError as error: -> except KeyError as error:  # an open exercise says another thing
    assert result is not None, -> assert True,  # an empty stub passes to the check
notebook.cheat_sheet
    if text.startswith("## "): -> if False:  # no summary has an end
    summary or "*This page has no Summary yet.*" -> summary  # a missing one is an empty line
    {escape(title)} -> {title}  # an ampersand is HTML
diagnosis.report
    return not self.findings -> return True  # nothing is ever wrong
diagnosis.probes
    tolerance * scale) -> 100 * tolerance * scale)  # deaf
    module.training = mode -> pass  # modes are not put back
diagnosis.sequences
    (*size[:2], output.shape[-1]) if self.is_language_model else size -> size  # a vocabulary of one token
diagnosis.dependencies
    if probe.causal and leaks: -> if False:  # leaks are not looked for
    elif in_training: -> elif False:  # batch norm passes
diagnosis.structure
    if 2 <= most <= len(features) // 2: -> if False:  # W_o is not missed
    elif 1.8 < factor < 2.2 and -> elif False and  # the input may be added twice
diagnosis.gradients
    if silent and not takes_other_weights(probe): -> if False:  # a part may be detached
diagnosis.learning
    if loss < 0.75 * uniform: -> if False:  # a model may see its targets
diagnosis.attention
    masks = {name: mask & probe.own_mask for -> masks = {name: mask for  # an attention that is always causal is accused
diagnosis.attention_weights
    elif abs(factor / meant - 1) > 0.01: -> elif False:  # any scale will do
    if leaked_weight(probe, size=1e3) > 1e-6: -> if False:  # a finite mask passes
diagnosis.norms_and_positions
    orders = (waves, torch.cat -> orders = (waves,) or (torch.cat  # sines before cosines are accused
diagnosis.losses
    torch.arange(11) - 1 + ahead) % 9 -> torch.arange(11) + ahead) % 9  # the right objective is accused
diagnosis.checks
    | dict(order=check_token_order) -> | dict()  # a bag of words passes
diagnosis.copies
    p.add_(noise, alpha=0.5 -> p.add_(noise, alpha=0.0  # what begins at zero stays silent
diagnosis.passes
    if f.check not in SILENCE or f.check in still] -> if True]  # what begins at zero is accused
diagnosis.scores
    if turns(q) != turns(k): -> if False:  # queries may be rotated alone
diagnosis.variations
    scores = scores if bias is None else scores + bias -> pass  # a bias by distance is accused
diagnosis.decoding
    if not probe.agree(got, expected[:, -got.shape[1] :], 1e-4): -> if False:  # any cache will do
diagnosis.padding
    if not all(probe.agree(other, first, 1e-5) for other in others): -> if False:  # padding is seen
diagnosis.references
    if not probe.agree(got, expected, 1e-4): -> if False:  # anything is like the reference
diagnosis.model_losses
    yield from faults -> pass  # any loss will do
diagnosis.calling
    if kind not in get_args(Kind): -> if False:  # an unknown kind is not named
"""


def mutations() -> list[tuple[str, str, str, str]]:
    "Module, code, what is put in its place, and what the mistake is."
    found, module = [], None
    for line in MUTATIONS.strip("\n").splitlines():
        if not line.startswith(" "):
            module = line
            continue
        change, _, mistake = line.strip().rpartition("  # ")
        before, after = change.split(" -> ") if " -> " in change else (change.removesuffix(" ->"), "")
        found.append((module, before, after, mistake))
    return found


def outdated() -> list[str]:
    "What the list wants to replace and the package does not have any more."
    return [f"{module} has no {before!r}" for module, before, _, _ in mutations() if before not in source(ROOT, module).read_text(encoding="utf-8")]


def source(root: Path, module: str) -> Path:
    "The file of a module."
    return root / "transformer_nb" / f"{module.replace('.', '/')}.py"


def start(module: str, before: str, after: str, copy: Path, everywhere: bool) -> int:
    "The process that runs the tests of a copy of the package, in which the mistake is made in every place of the module."
    shutil.copytree(ROOT / "transformer_nb", copy / "transformer_nb", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "nbs"):
        (copy / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "pyproject.toml", copy)
    file = source(copy, module)
    code = file.read_text(encoding="utf-8")
    file.write_text(code.replace(before, after), encoding="utf-8")
    tests = [own_tests(module)], other_tests(module) if everywhere else []
    child = os.fork()  # by the only thread: a lock that another thread holds would never be released in the child
    if child == 0:
        os._exit(run_tests(tests, copy))
    return child


def run_all(chosen: list[tuple[str, str, str, str]], folder: Path, everywhere: bool) -> list[bool]:
    "Whether the tests stay green with each of these mistakes; as many at a time as there are processors."
    running, green = {}, {}

    def wait() -> None:
        child, status = os.waitpid(-1, 0)
        green[running.pop(child)] = os.waitstatus_to_exitcode(status) == 0

    for number, (module, before, after, _) in enumerate(chosen):
        if len(running) == os.cpu_count():
            wait()
        copy = folder / str(number)
        copy.mkdir()
        running[start(module, before, after, copy, everywhere or bool(before))] = number
    while running:
        wait()
    return [green[number] for number in range(len(chosen))]


def own_tests(module: str) -> str:
    "The test file of a module; one of a sub-package may share the file of the whole sub-package."
    shared = {"runs.trainer": "training", "runs.state": "training", "runs.loop": "training", "runs.process": "training", "runs.directory": "checkpoints", "config.training": "training", "config.position_table": "positional_encoding", "config.docstrings": "examples", "__main__": "command_line", "notebook.explorer_data": "explorer"}
    shared |= {f"runs.{name}": "saving" for name in ("files", "saved_models", "saving_checks")} | {f"runs.{name}": "checkpoints" for name in ("checkpoint_files", "tensor_files")}
    shared |= {f"config.{name}": "transformer" for name in ("checks", "fields", "initialization", "model", "parts", "precision", "registry")}
    shared |= {"runs.arguments": "training", "runs.machine": "training", "runs.optimizers": "training", "runs.evaluation": "training", "runs.sources": "batches"}
    shared |= {f"convert.{name}": "families" for name in ("gemma", "llama", "mistral", "qwen")} | {"modern.rotary": "families"}
    shared |= {f"cli.{name}": "command_line" for name in ("evaluate", "generate", "options", "output", "parser", "plot", "train")}
    shared |= {"data.token_ids": "tokenizer_files", "data.token_pieces": "token_files", "inference.text_loss": "command_line"}
    shared |= {"modern.parts": "transformer", "inference.cache": "generation", "inference.calls": "generation"}
    shared |= {f"inference.{name}": "generation" for name in ("any_model", "prompts", "sampling")} | {"inference.conversation": "streaming"}
    names = [shared.get(module, module.replace(".", "_")), module.split(".")[0], module.split(".")[-1]]
    return next(f"test_{name}" for name in names if (ROOT / "tests" / f"test_{name}.py").exists())


def other_tests(module: str) -> list[str]:
    "All other tests of the package, those that name the module first."
    about_form = ("test_names", "test_repository", "test_exercises", "test_outputs", "test_explorer_browser", "test_site")
    others = [path for path in sorted((ROOT / "tests").glob("test_*.py")) if path.stem not in (*about_form, own_tests(module))]
    return [path.stem for path in sorted(others, key=lambda path: f"transformer_nb.{module} " not in path.read_text(encoding="utf-8"))]


def run_tests(tests: tuple[list[str], list[str]], copy: Path) -> int:
    "The exit status of pytest in a copy: the module's own tests, then all that use it."
    import pytest

    os.chdir(copy)
    sys.path.insert(0, str(copy))
    log = os.open("log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    own, others = ([f"tests/{name}.py" for name in names] for names in tests)
    try:
        options = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:unraisableexception"]
        return int(pytest.main([*options, *own])) or (bool(others) and int(pytest.main([*options, *others])))
    except BaseException as error:  # the child must never return to the code of its parent
        print(repr(error))
        return 1
    finally:
        sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the classic mistakes in the package, and see the tests go red.")
    parser.add_argument("words", nargs="*", help="only the mistakes whose line contains one of these")
    parser.add_argument("--sample", type=int, help="only so many of them, drawn by the commit")
    options = parser.parse_args()
    if outdated():
        print("the list of mistakes is out of date:", *outdated(), sep="\n")
        return 1

    import beartype, hypothesis, jaxtyping, pytest, tokenizers, tqdm  # noqa: E401, F401  loaded once, for all that are forked off
    import safetensors.torch  # noqa: F401
    import torch
    from transformers import BertForMaskedLM, GPT2LMHeadModel, GPT2TokenizerFast, LlamaForCausalLM, MarianMTModel  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()  # what is loaded here need not be looked through at the end of each of them
    chosen = [m for m in mutations() if not options.words or any(word in " ".join(m) for word in options.words)]
    if options.sample is not None:
        chosen = drawn(chosen, options.sample)
    chosen.insert(0, ("notebook.plotting", "", "", "none, so that the tests must stay green"))
    with tempfile.TemporaryDirectory() as folder:
        green, *outcomes = run_all(chosen, Path(folder), everywhere=options.sample is None)
        if not green:
            print((Path(folder) / "0" / "log").read_text(encoding="utf-8")[-3000:])
            print("the tests are red without any mistake, so that the rest means nothing")
            return 1
    for (module, before, after, mistake), alive in zip(chosen[1:], outcomes):
        if alive:
            print(f"SURVIVED {module}: {mistake} ({before} -> {after})")
    print(f"{len(outcomes) - sum(outcomes)} of {len(outcomes)} mistakes turn the tests red")
    return int(any(outcomes))


if __name__ == "__main__":
    sys.exit(main())
