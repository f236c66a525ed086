"Activations: what is recorded is what was computed, what is replaced takes effect, and nothing stays behind."

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, small_encoder_decoder, small_language_model
from torch import nn

from transformer_nb.config.model import PARTS
from transformer_nb.attention import causal_mask, padding_mask
from transformer_nb.generation import generate
from transformer_nb.interpret.activations import INSIDE_ATTENTION, activation_names, activations
from transformer_nb.multi_head_attention import MultiHeadAttention


def indices(*shape):
    return torch.randint(13, shape)


def untouched(model):
    return not any(
        module._forward_hooks or "attend" in module.__dict__ for module in model.modules()
    )


@pytest.fixture(params=["language model", "encoder-decoder"])
def run(request):
    "A model, a run of it, and the same run with another input."
    if request.param == "language model":
        model, ids = small_language_model(), indices(2, 6)
        return model, lambda: model(ids)
    model, source, target = small_encoder_decoder(), indices(2, 5), indices(2, 6)
    mask = padding_mask([5, 3], 5)
    return model, lambda: model(source, target, mask)


def test_every_name_is_recorded_and_recording_changes_nothing(run, dtype):
    model, call = run
    model.to(dtype)
    with activations(model) as seen:
        logits = call()
    assert {name.partition(":")[0] for name in seen} == set(activation_names(model))
    assert_same(logits, call())
    assert seen["logits"] is logits


def test_the_inside_of_attention_is_equation_1(dtype):
    attention = MultiHeadAttention(8, 2).to(dtype)
    x, context = torch.randn(2, 5, 8, dtype=dtype), torch.randn(2, 7, 8, dtype=dtype)
    mask = padding_mask([7, 3], 7)
    with activations(attention) as seen:
        attention(x, context, mask)
    q, k, v, weights, heads = (seen[f"output.{part}"] for part in INSIDE_ATTENTION)
    expected = (q @ k.mT / 2).masked_fill(~mask[:, None], -torch.inf).softmax(-1)
    assert_same(weights, expected)
    assert_same(heads, expected @ v)
    assert_same(seen["output"], attention.out_proj(heads.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("options", [dict(is_causal=True), dict(mask=causal_mask(5)), dict(mask=padding_mask([0, 5], 5), is_causal=True)])
def test_masks_are_kept_and_empty_rows_are_zeros(options):
    attention, x = MultiHeadAttention(8, 2), torch.randn(2, 5, 8)
    with activations(attention, "output.weights") as seen:
        output = attention(x, **options)
    assert_same(output, attention(x, **options))
    assert_same(seen["output.weights"], attention(x, **options, need_weights=True)[1])


def test_weights_that_were_asked_for_are_recorded_too():
    attention, x = MultiHeadAttention(8, 2), torch.randn(3, 5, 8)
    with activations(attention, "output", "output.weights") as seen:
        output, weights = attention(x, need_weights=True)
    assert output is seen["output"] and weights is seen["output.weights"]
    with activations(attention, replace={"output": 2.0}):
        replaced, same = attention(x, need_weights=True)
    assert replaced.eq(2.0).all() and same.equal(weights)


def test_nothing_is_kept_that_was_not_asked_for():
    model = small_language_model()
    with activations(model, "layers.1.attention.weights", "norm", replace={"layers.0": lambda x: x}) as seen:
        model(indices(2, 6))
    assert list(seen) == ["layers.1.attention.weights", "norm"]


def test_dropout_of_the_weights_is_still_there():
    attention, x = MultiHeadAttention(8, 2, dropout=0.5).train(), torch.randn(2, 5, 8)
    with activations(attention, "output.weights", "output.values", "output.heads") as seen:
        attention(x)
    assert_same(seen["output.weights"].sum(-1), torch.ones(2, 2, 5))  # seen before the dropout
    assert not seen["output.heads"].allclose(seen["output.weights"] @ seen["output.values"])


def test_gradients_pass_through_what_is_read(run):
    model, call = run
    name = next(n for n in activation_names(model) if n.endswith("layers.0.attention.weights"))
    with activations(model, name, "logits") as seen:
        loss = call().square().mean()
    gradient = torch.autograd.grad(loss, seen[name])[0]
    assert gradient.shape == seen[name].shape and gradient.any()


def test_a_part_that_is_called_several_times_is_recorded_each_time():
    model, ids = small_language_model(), indices(1, 3)
    with activations(model, "layers.1") as seen:
        generate(model, ids, 3, temperature=0)
    assert list(seen) == ["layers.1", "layers.1:2", "layers.1:3"]
    assert [value.shape[1] for value in seen.values()] == [3, 1, 1]  # the prompt, then token by token


@pytest.mark.parametrize("new", [0.0, torch.zeros(8), torch.zeros_like])
def test_the_rest_of_the_model_uses_the_replacement(new):
    model, ids = small_language_model(norm_first=True), indices(2, 6)
    with activations(model, "layers.0.residual1", "embedding", replace={"layers.0.attention": new}) as seen:
        model(ids)
    assert seen["layers.0.residual1"].equal(seen["embedding"])


def test_the_replacement_is_what_is_recorded():
    model, ids = small_language_model(), indices(2, 6)
    with activations(model, "*", replace={"layers.?.attention.weights": lambda w: w.flip(1)}) as seen:
        model(ids)
    with activations(model, "*", replace={"layers.?.attention.weights": lambda w: w.flip(1).flip(1)}) as same:
        logits = model(ids)
    assert_same(logits, model(ids))
    assert seen["layers.0.attention.weights"].equal(same["layers.0.attention.weights"].flip(1))


def test_one_call_of_several_can_be_replaced():
    model, source, target = small_encoder_decoder(), indices(1, 4), indices(1, 4)
    other = indices(1, 4)
    with activations(model, "embedding") as seen:
        model(source, other)
    with activations(model, replace={"embedding:2": seen["embedding:2"]}):
        assert model(source, target).equal(model(source, other))


def test_the_patch_of_a_layer_carries_the_answer_over():
    model, ids = small_language_model(), indices(2, 6)
    other = (ids + 1) % 13
    with activations(model, "layers.1") as seen:
        logits = model(ids)
    with activations(model, replace={"layers.1": seen["layers.1"]}):
        assert model(other).equal(logits)


def test_blocks_can_be_nested():
    model, ids = small_language_model(), indices(2, 6)
    weights = "layers.0.attention.weights"
    with activations(model, weights) as outer:
        with activations(model, weights, replace={weights: 0.0}) as inner:
            model(ids)
        model(ids)
    assert not inner[weights].any() and outer[f"{weights}:2"].any()
    assert untouched(model)


def test_nothing_stays_behind_not_even_after_an_error():
    model, ids = small_language_model(), indices(2, 6)
    with pytest.raises(RuntimeError, match="an accident"), activations(model):
        model(ids)
        raise RuntimeError("an accident")
    assert untouched(model)


def test_the_fused_kernel_stays_in_use_where_nothing_inside_attention_is_recorded(monkeypatch):
    model, ids, calls = small_language_model(), indices(2, 6), []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a: calls.append(1) or kernel(*a))
    with activations(model, "layers.?", "*feed_forward*", "norm", "logits"):
        model(ids)
    assert len(calls) == 2
    with activations(model, "layers.0.attention.weights"):
        model(ids)
    assert len(calls) == 3  # the other layer's


def test_other_peoples_models_can_be_recorded():
    theirs = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).train()
    with activations(theirs, "linear1", "self_attn") as seen:
        theirs(torch.randn(2, 5, 8))
    assert seen["linear1"].shape == (2, 5, 16) and seen["self_attn"].shape == (2, 5, 8)


@pytest.mark.parametrize("where", ["read", "replaced"])
def test_an_unknown_name_is_answered_with_similar_names(where):
    model = small_language_model()
    arguments = (("layers.9.attention",), {}) if where == "read" else ((), {"replace": {"layers.9.attention": 0.0}})
    with pytest.raises(ValueError, match=r"no activation 'layers.9.attention'; similar names are layers.\d.attention"):
        with activations(model, *arguments[0], **arguments[1]):
            pass
    assert untouched(model)


def test_a_replacement_that_never_happens_is_an_error():
    model = small_language_model()
    for name in ("layers.0:2", "layers.0:x"):
        with pytest.raises(ValueError, match=f"the replacement of '{name}' was never used"):
            with activations(model, replace={name: 0.0}):
                model(indices(2, 6))
    assert untouched(model)


def test_one_call_of_several_can_be_read():
    model = small_encoder_decoder()
    with activations(model, "embedding:2") as seen:
        model(indices(1, 4), indices(1, 3))
    assert list(seen) == ["embedding:2"] and seen["embedding:2"].shape[1] == 3


@pytest.mark.parametrize("new", [0, 0.0, lambda x: 0.0, lambda x: x.numpy(force=True) * 0, lambda x: torch.zeros(8, dtype=torch.float64)])
def test_a_replacement_may_be_any_number(new):
    model, ids = small_language_model(norm_first=True), indices(2, 6)
    with activations(model, "layers.0.residual1", "embedding", replace={"layers.0.attention": new}) as seen:
        model(ids)
    assert seen["layers.0.residual1"].equal(seen["embedding"])


def test_a_replacement_of_another_shape_is_refused():
    model = small_language_model()
    with pytest.raises(ValueError, match=r"the replacement of layers.0 must broadcast to its shape \(2, 6, 8\), got \(5,\)"):
        with activations(model, replace={"layers.0": torch.zeros(5)}):
            model(indices(2, 6))
    assert untouched(model)


def test_attention_with_a_method_of_its_own_is_recorded_from_outside_only(monkeypatch):
    class Halved(MultiHeadAttention):
        def attend(self, q, k, v, mask, is_causal, need_weights):
            heads, weights = super().attend(q, k, v, mask, is_causal, need_weights)
            return heads / 2, weights

    monkeypatch.setitem(PARTS["attention"], "halved", Halved)
    model, ids = small_language_model(attention="halved"), torch.randint(13, (1, 5))
    expected = model(ids)
    with activations(model) as seen:
        assert model(ids).equal(expected)
    assert "layers.0.attention" in seen and "layers.0.attention.weights" not in seen
