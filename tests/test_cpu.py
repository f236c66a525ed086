"""Fast decoding gives the logits of the model for every model that it accepts, steps aside for all others, and changes no setting."""

import copy
import subprocess
import sys
import threading
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.modules import module as nn_module

from transformer_nb.cpu import hooks
from transformer_nb.cpu.decoding import fast_decoder, linear_for_few_rows, supports_fast_decode
from transformer_nb.generation import NextTokenLogits, generate
from transformer_nb.inference.cache import KVCache
from transformer_nb.inference.calls import evaluation_mode
from transformer_nb.inference.prompts import pad_left
from transformer_nb.layer_norm import LayerNorm
from transformer_nb.multi_head_attention import MultiHeadAttention
from transformer_nb.positional_encoding import RotaryPositionalEncoding
from transformer_nb.transformer import InputEmbedding, EncoderLayer, LanguageModel, Residual, TransformerConfig

VARIANTS = {
    "gpt2": {},
    "paper": dict(norm_first=False, activation="relu", positions="sinusoidal", scale_embeddings=True),
    "modern": dict(TransformerConfig.preset("modern").__dict__, vocab_size=13),
    "llama": dict(norm="rms", positions="rotary", feed_forward="gated", activation="silu", bias=False, tie_embeddings=False),
    "grouped": dict(attention="grouped_query", n_heads=6, n_kv_heads=2, head_dim=4, qk_norm=True, norm="zero_centered_rms", positions="rotary", qkv_bias=False),
    "windows": dict(attention="grouped_query", n_heads=2, n_kv_heads=1, sliding_window=[3, None], norm_first=False),
    "bigram, post-norm": dict(embedding="bigram", norm_first=False, positions="none"),
}
variants = pytest.mark.parametrize("name", VARIANTS)


def indices(*shape):
    return torch.randint(0, 13, shape)


def variant(name, dtype=torch.float64, **sizes):
    "A model of each kind with random weights everywhere, so that no part is without effect."
    options = {"tie_embeddings": name == "gpt2", **dict(n_heads=2), **VARIANTS[name], **dict(vocab_size=13, block_size=16, n_layers=2, d_model=8, d_ff=12, dropout=0.1), **sizes}
    torch.manual_seed(0)
    model = LanguageModel(TransformerConfig(**options))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.to(dtype).eval()


def before(model, tokens):
    "The token before, for models that look at it."
    return {"before": tokens} if model.embedding.reads_previous_token else {}


def logits_of(model, use_cache, ids):
    "The logits after each token from the third on, as `generate` asks for them."
    read = NextTokenLogits(model, torch.zeros(len(ids), dtype=torch.long), use_cache)
    with torch.no_grad():
        return torch.stack([read(ids[:, :end]) for end in range(3, ids.shape[1] + 1)])


def assert_cache_changes_nothing(model, bound=1e-6):  # tables of rotations are float32
    ids = indices(2, 9)
    torch.testing.assert_close(logits_of(model, True, ids), logits_of(model, False, ids), rtol=bound, atol=bound)


# The same logits for all that it accepts.


@pytest.mark.parametrize("prompt", [1, 2, 7])
@variants
def test_the_logits_are_those_of_the_model(name, prompt):
    model, ids, cache = variant(name), indices(3, 12), [KVCache(12), KVCache(12)]
    with torch.no_grad():
        found, expected = [model(ids[:, :prompt], cache=cache)[:, -1:]], model(ids)[:, prompt - 1 :]
        decode_step = fast_decoder(model, cache)
        found += [decode_step(ids[:, t : t + 1], offset=t, **before(model, ids[:, t - 1])) for t in range(prompt, 12)]
    torch.testing.assert_close(torch.cat(found, 1), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("hooked", [True, False])
@variants
def test_sequences_of_different_length_have_the_logits_that_each_has_alone(name, hooked):
    model = variant(name)
    text, padding = pad_left([indices(n) for n in (1, 3, 6)], torch.device("cpu"))
    if hooked:
        model.stack.layers[0].register_forward_hook(lambda *_: None)
    assert supports_fast_decode(model) != hooked
    read = NextTokenLogits(model, padding, use_cache=True)
    for _ in range(14):  # beyond the window too
        with torch.no_grad():
            logits = read(text)
            for row, pad in enumerate(padding):
                alone = model(text[row : row + 1, max(pad, text.shape[1] - 16) :])[0, -1]
                torch.testing.assert_close(logits[row], alone, rtol=1e-6, atol=1e-6)
        text = torch.cat((text, indices(3, 1)), dim=1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("out, features", [(6, 4), (65, 384), (1024, 256), (1031, 256)])
def test_a_product_of_few_rows(rows, out, features, bias):
    x, weight, bias = torch.randn(rows, features), torch.randn(out, features), torch.randn(out) if bias else None
    expected = nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(linear_for_few_rows(weight, bias)(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-4), (torch.bfloat16, 0.2), (torch.float16, 0.02)], ids=str)
def test_a_larger_model_in_each_precision(dtype, bound):
    model = variant("gpt2", torch.float32, d_model=256, d_ff=1024)  # large enough to be read in pieces
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    model.to(dtype)
    assert supports_fast_decode(model)
    assert_cache_changes_nothing(model, bound)


# All others go through the modules: replaced parts.


class Scaled(nn.Module):
    "A module whose output is larger than that of the one in whose place it stands."

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **options):
        return 1.5 * self.inner(*args, **options)


def leaves(model):
    return [name for name, module in model.named_modules() if not list(module.children()) and not isinstance(module, nn.ModuleList)]


EACH_LEAF = [(name, leaf) for name in VARIANTS if name != "windows" for leaf in leaves(variant(name))]


@pytest.mark.parametrize("name, leaf", EACH_LEAF)
def test_any_leaf_may_be_replaced(name, leaf):
    model = variant(name)
    parent, _, own = leaf.rpartition(".")
    setattr(model.get_submodule(parent), own, Scaled(model.get_submodule(leaf)))
    assert_cache_changes_nothing(model)


def test_a_part_may_be_replaced_by_another_of_ours():
    "Each is of a type that is known, in a place where another is expected."
    for part in (nn.Linear(8, 8), LayerNorm(8), nn.Dropout(0.5)):
        for place in ("embedding.dropout", "stack.layers.0.residual1.dropout", "stack.layers.1.residual2.norm", "stack.layers.0.feed_forward", "stack.norm"):
            model = variant("gpt2")
            parent, _, own = place.rpartition(".")
            setattr(model.get_submodule(parent), own, copy.deepcopy(part).double().eval())
            assert supports_fast_decode(model)
            assert_cache_changes_nothing(model)


def test_layers_may_be_added_dropped_and_shared():
    model = variant("gpt2", n_layers=3)
    first, second, third = model.stack.layers
    for layers in ([first], [third, first], [first, first, second, third]):
        model.stack.layers = nn.ModuleList(layers)
        assert supports_fast_decode(model)
        assert_cache_changes_nothing(model)


def test_heads_need_not_be_as_many_in_each_layer():
    model = variant("gpt2")
    model.stack.layers[1].attention = MultiHeadAttention(8, 4).double().eval()
    assert supports_fast_decode(model)
    assert_cache_changes_nothing(model)


class Multiplied(nn.Module):
    "A position scheme that does not add."

    def forward(self, x, offset=0):
        offset = torch.as_tensor(offset).reshape(-1, 1, 1)
        return x * (1 + 0.1 * (offset + torch.arange(x.shape[-2])[:, None]))


def test_an_activation_may_need_all_three_axes():
    model = variant("gpt2")
    model.stack.layers[0].feed_forward.activation = lambda x: x.transpose(1, 2).relu().transpose(1, 2)
    assert_cache_changes_nothing(model)


def test_positions_need_not_be_added():
    model = variant("gpt2")
    model.embedding.positions = Multiplied()
    assert_cache_changes_nothing(model)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.stack.layers[0].attention, "apply_rotary", lambda x, offset: 2 * x),
        lambda model: setattr(model.stack.layers[0].attention, "merge_heads", lambda heads: 0 * heads.transpose(1, 2).flatten(2)),
        lambda model: setattr(model.stack.layers[1], "forward", lambda x, *_: 2 * x),
        lambda model: setattr(model.stack.layers[1].feed_forward, "forward", torch.sin),
        lambda model: setattr(model.stack.layers[1].feed_forward, "activation", torch.sin),
        lambda model: setattr(model.stack.layers[0].feed_forward.linear1, "forward", lambda x: torch.ones(*x.shape[:-1], 12).double()),
        lambda model: setattr(model.stack, "forward", lambda x, *_: 2 * x),
        lambda model: setattr(model.embedding, "forward", lambda ids, offset=0, *_, **__: torch.sin(ids[..., None] + torch.arange(8.0)).double()),
    ],
)  # fmt: skip
def test_methods_may_be_replaced(change):
    model = variant("gpt2")
    before = logits_of(model, False, ids := indices(2, 9))
    change(model)
    assert not logits_of(model, False, ids).allclose(before)
    assert_cache_changes_nothing(model)


@pytest.mark.parametrize("kind, method", [(MultiHeadAttention, "attend"), (Residual, "forward"), (EncoderLayer, "forward"), (InputEmbedding, "forward"), (nn.Linear, "forward")])
def test_methods_of_a_class_may_be_replaced(kind, method, monkeypatch):
    model, real = variant("gpt2"), getattr(kind, method)

    def scaled(*args, **options):
        found = real(*args, **options)
        return (1.5 * found[0], *found[1:]) if isinstance(found, tuple) else 1.5 * found

    before = logits_of(model, False, ids := indices(2, 9))
    monkeypatch.setattr(kind, method, scaled)
    assert not logits_of(model, False, ids).allclose(before)
    assert_cache_changes_nothing(model)


def test_subclasses_parametrizations_and_mixed_precisions_go_through_the_modules():
    class Larger(LayerNorm):
        def forward(self, x):
            return 2 * super().forward(x)

    for change in (
        lambda m: setattr(m.stack.layers[0].residual1, "norm", Larger(8).double()),
        lambda m: nn.utils.parametrizations.weight_norm(m.stack.layers[0].attention.out_proj),
        lambda m: m.stack.layers[0].attention.register_parameter("in_proj_weight", type("Own", (nn.Parameter,), {})(m.stack.layers[0].attention.in_proj_weight.data)),
    ):
        model = variant("gpt2")
        change(model)
        assert not supports_fast_decode(model.eval())
        assert_cache_changes_nothing(model)


def test_a_part_may_be_a_function_or_stand_where_no_module_is_looked_for():
    for part in (lambda linear: lambda x: 1.5 * linear(x), partial(copy.copy), copy.deepcopy):
        model = variant("gpt2")
        feed_forward = model.stack.layers[0].feed_forward
        linear = feed_forward.linear1
        del feed_forward.linear1
        feed_forward.__dict__["linear1"] = part(linear)
        if isinstance(feed_forward.linear1, nn.Module):
            feed_forward.linear1.register_forward_hook(lambda module, inputs, output: 1.5 * output)
        assert not supports_fast_decode(model)
        assert_cache_changes_nothing(model)


class Loud(torch.Tensor):
    "A weight that changes what is done with it."

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        output = super().__torch_function__(function, types, args, kwargs or {})
        return 1.5 * output if function is nn.functional.linear else output


@pytest.mark.parametrize("where, name", [("feed_forward.linear1", "weight"), ("attention.out_proj", "weight"), ("attention", "in_proj_weight")])
def test_a_weight_may_be_a_tensor_of_another_type(where, name):
    model = variant("gpt2")
    module = model.stack.layers[0].get_submodule(where)
    weight = getattr(module, name).detach()
    delattr(module, name)
    setattr(module, name, weight.as_subclass(Loud))
    assert not supports_fast_decode(model)
    assert_cache_changes_nothing(model)


def test_an_embedding_is_called_as_the_model_calls_it():
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, ids, offset, **inputs):
            return 1.5 * self.inner(ids, offset, **inputs)

    model = variant("modern")
    model.embedding.register_forward_pre_hook(lambda module, inputs: (inputs[0], inputs[1]))
    assert_cache_changes_nothing(model)
    model.embedding = Wrapped(model.embedding)
    assert_cache_changes_nothing(model)


def test_a_method_replaced_before_the_import_is_seen():
    program = """
import torch
from torch import nn
real = nn.Linear.forward
nn.Linear.forward = lambda self, x: 1.5 * real(self, x)
from transformer_nb import LanguageModel, TransformerConfig
from transformer_nb.cpu.decoding import supports_fast_decode
print(supports_fast_decode(LanguageModel(TransformerConfig(5, n_layers=1, n_heads=1, d_model=4)).eval()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_a_causal_mask_nothing_is_kept():
    model = variant("gpt2")
    model.is_causal = False
    assert_cache_changes_nothing(model)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_that_keeps_nothing_ends_the_use_of_the_cache(layer):
    class Mean(nn.Module):
        "Stands in place of attention, looks at all positions so far, and knows no cache."

        def forward(self, x, mask=None, is_causal=False, cache=None):
            return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]

    model = variant("gpt2")
    model.stack.layers[layer].attention = Mean()
    assert_cache_changes_nothing(model)
    model = variant("gpt2")
    model.stack.layers[layer].forward = lambda x, *_, **__: 2 * x
    assert_cache_changes_nothing(model)


def test_under_autocast_the_modules_are_called():
    model = variant("gpt2", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert not supports_fast_decode(model)
        assert_cache_changes_nothing(model, 0.1)
    assert supports_fast_decode(model)


def test_in_training_mode_the_modules_are_called():
    model = variant("gpt2")
    model.stack.layers[0].residual1.dropout.train()
    assert not supports_fast_decode(model)


# Hooks.

HOOKS = {
    "forward": lambda module, *_: module.register_forward_hook(lambda module, inputs, output: 1.5 * output),
    "forward_pre": lambda module, *_: module.register_forward_pre_hook(lambda module, inputs: (1.5 * inputs[0] if inputs[0].is_floating_point() else 12 - inputs[0], *inputs[1:])),
}


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("name", ["gpt2", "modern", "llama"])
def test_a_hook_on_any_module_is_called(name, kind):
    for where in [where for where, module in variant(name).named_modules() if not isinstance(module, nn.ModuleList)]:
        if name == "modern" and kind == "forward_pre" and where in ("", "embedding"):
            continue  # it would change the tokens, and not the token before them, which is handed over beside them
        model = variant(name)
        HOOKS[kind](model.get_submodule(where))
        assert_cache_changes_nothing(model)


@pytest.mark.parametrize("of", [LanguageModel, InputEmbedding, EncoderLayer, Residual, MultiHeadAttention, RotaryPositionalEncoding, LayerNorm, nn.Linear, nn.Dropout])
@pytest.mark.parametrize("name", ["gpt2", "modern"])
def test_a_hook_for_all_modules_is_called(name, of):
    def scale(module, inputs, output):
        return 1.5 * output if type(module) is of else None

    def turn_round(module, inputs):
        return (-inputs[0], *inputs[1:]) if type(module) is of and inputs[0].is_floating_point() else None

    for register, hook in ((nn_module.register_module_forward_hook, scale), (nn_module.register_module_forward_pre_hook, turn_round)):
        model, handle = variant(name), register(hook)
        try:
            assert_cache_changes_nothing(model)
        finally:
            handle.remove()


def test_a_hook_is_called_once_for_each_token():
    model, calls = variant("gpt2"), []
    model.stack.layers[0].feed_forward.register_forward_hook(lambda *_: calls.append(1))
    generate(model, indices(3), 6, temperature=0)
    assert len(calls) == 6


@pytest.mark.parametrize("missing", [*hooks.OF_A_MODULE, *hooks.OF_ALL_MODULES])
def test_where_hooks_cannot_be_seen_the_modules_are_called(missing, monkeypatch):
    "A version of PyTorch that keeps them elsewhere."
    model = variant("gpt2")
    expected = generate(model, prompt := indices(3), 8, temperature=0)
    monkeypatch.setattr(hooks, "OF_A_MODULE", tuple(name + "_moved" * (name == missing) for name in hooks.OF_A_MODULE))
    monkeypatch.setattr(hooks, "OF_ALL_MODULES", tuple(name + "_moved" * (name == missing) for name in hooks.OF_ALL_MODULES))
    hooks.hooks_are_visible.cache_clear()
    try:
        assert not supports_fast_decode(model)
        assert generate(model, prompt, 8, temperature=0).equal(expected)
    finally:
        hooks.hooks_are_visible.cache_clear()


# Nothing of the process is changed, and several threads may generate at once.


def settings():
    return torch.backends.mkldnn.enabled, torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_rng_state().tolist()


def together(*functions):
    "What these functions give, each called in a thread of its own."
    results = [None] * len(functions)

    def call(i):
        results[i] = functions[i]()

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("training", [False, True])
def test_eight_threads_write_what_one_writes_and_change_no_setting(training):
    model = variant("gpt2", torch.float32, d_model=32, d_ff=64, block_size=32).train(training)
    model.stack.layers[0].eval()  # a frozen part stays in its own mode
    before, modes = settings(), [module.training for module in model.modules()]
    prompts = [indices(3), indices(2, 4), [indices(2), indices(5)], indices(1)]
    tasks = [partial(generate, model, prompt, n, temperature=0) for prompt in prompts for n in (5, 24)]
    tasks[1] = partial(generate, model, prompts[0], 24, generator=torch.Generator().manual_seed(3))
    alone = [task() for task in tasks]
    tasks[1] = partial(generate, model, prompts[0], 24, generator=torch.Generator().manual_seed(3))
    for _ in range(3):
        tasks[1].keywords["generator"].manual_seed(3)
        for text, expected in zip(together(*tasks), alone, strict=True):
            assert all(a.equal(b) for a, b in zip(text, expected, strict=True))
    before = before[:4] + settings()[4:]  # indices() has drawn
    assert settings() == before and [module.training for module in model.modules()] == modes


def test_generation_works_where_global_flags_cannot_be_changed(monkeypatch):
    "After `torch.backends.disable_global_flags()`, which cannot be taken back."
    monkeypatch.setattr(torch.backends, "__allow_nonbracketed_mutation_flag", False)
    assert len(generate(variant("gpt2", torch.float32), indices(3), 3)) == 6


class Adapted(nn.Linear):
    "Merges an adapter into its weights for evaluation, as some implementations of LoRA do."

    merged, change = False, 0.5

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += self.change if not mode else -self.change
            self.merged = not mode
        return self


def test_a_module_hears_that_its_mode_is_put_back():
    model = variant("gpt2").train()
    model.stack.layers[0].feed_forward.linear1 = adapted = Adapted(8, 12).double()
    before = adapted.weight.clone()
    generate(model, indices(3), 3)
    assert adapted.training and not adapted.merged and adapted.weight.allclose(before)


def test_an_error_on_the_way_into_evaluation_mode_is_forgotten():
    model = variant("gpt2").train()
    model.head.train = lambda mode=True: 1 / 0
    with pytest.raises(ZeroDivisionError):
        generate(model, indices(3), 3)
    del model.head.train
    model.train()
    generate(model, indices(3), 3)
    assert all(module.training for module in model.modules())


def test_the_last_thread_to_leave_puts_the_modes_back():
    model = variant("gpt2").train()
    model.head.eval()
    with evaluation_mode(model):
        with pytest.raises(KeyError), evaluation_mode(model):
            raise KeyError
        assert not model.training
    assert model.training and not model.head.training and model.stack.layers[1].training
