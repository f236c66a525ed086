"What several test modules use: parity with torch, copied weights, small models."

import os

import pytest
import torch

from transformer_nb.tokenization import CharTokenizer
from transformer_nb.training import TrainingConfig
from transformer_nb.transformer import (
    EncoderDecoder,
    LanguageModel,
    TransformerConfig,
)

TEXT = "to be or not to be, that is the question. " * 8
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}

TORTURE = "TORTURE" in os.environ  # set by `make torture`, which runs whole what CI runs as a sample
torture = pytest.mark.skipif(not TORTURE, reason="takes minutes: make torture")

RENAMED = {  # torch's names of the parts of a layer, and ours
    "self_attn": "attention",
    "multihead_attn": "cross_attention",
    "linear": "feed_forward.linear",
    "norm1": "residual1.norm",
    "norm2": "residual2.norm",
    "norm3": "residual3.norm",
}


def our_name(name):
    "Our name of a parameter of one of torch's layers or stacks."
    for theirs, ours in RENAMED.items():
        name = name.replace(theirs, ours)
    return name


def randomize(module):
    "Random numbers in every parameter, gains and biases too, so that a swapped one is seen."
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5).add_(0.1)
    return module


def copied(ours, theirs, dtype, rename=our_name):
    "Both modules in a precision, with the same random parameters."
    randomize(theirs).to(dtype)
    ours.to(dtype).load_state_dict(
        {rename(name): value for name, value in theirs.state_dict().items()}
    )
    return ours, theirs


def assert_same(actual, expected, message=None):
    "Equal to 1e-5 in float32, to 1e-10 in float64."
    tolerance = TOLERANCE[expected.dtype]
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, msg=message)


def outputs_and_gradients(fn, inputs, seed=1):
    "What fn makes of the inputs, and the gradient of a random combination of it by each input."
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    output = fn(*inputs)
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed))
    output.backward(direction.to(output.dtype))
    return output.detach(), [x.grad for x in inputs]


def assert_parity(ours, theirs, *inputs):
    "Two functions agree in their outputs and in the gradients by their inputs."
    (output, gradients), (expected, expected_gradients) = (
        outputs_and_gradients(fn, inputs) for fn in (ours, theirs)
    )
    assert_same(output, expected)
    for i, (gradient, by_torch) in enumerate(zip(gradients, expected_gradients, strict=True)):
        assert_same(gradient, by_torch, lambda text, i=i: f"gradient of input {i}: {text}")


def assert_module_parity(ours, theirs, call_ours, call_theirs, *inputs, rename=our_name):
    "Two modules agree in their outputs and in the gradients by inputs and parameters."
    ours.zero_grad()
    theirs.zero_grad()
    assert_parity(call_ours, call_theirs, *inputs)
    ours = {name: parameter.grad for name, parameter in ours.named_parameters()}
    theirs = {rename(name): parameter.grad for name, parameter in theirs.named_parameters()}
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert_same(ours[name], gradient, lambda text, name=name: f"gradient of {name}: {text}")


def small_config(**options):
    "A model small enough to be computed in no time."
    small = dict(vocab_size=13, block_size=8, n_layers=2, n_heads=2, d_model=8, d_ff=16)
    return TransformerConfig(**{**small, **options})


def small_language_model(**options):
    "A language model whose parameters are random and large, so that nothing it does is small."
    return randomize(LanguageModel(small_config(**options))).eval()


def small_encoder_decoder(**options):
    "The paper's model, with random and large parameters."
    return randomize(EncoderDecoder(small_config(**options))).eval()


def text_and_model(**options):
    "A small text as indices, its tokenizer, and a model for it."
    tokenizer = CharTokenizer.from_text(TEXT)
    model = LanguageModel(small_config(vocab_size=tokenizer.vocab_size, **options))
    return tokenizer.encode(TEXT), tokenizer, model


def short_run(**options):
    "A training that takes a moment."
    return TrainingConfig(**{**dict(steps=12, batch_size=4, eval_every=5, device="cpu"), **options})


def weights(model):
    "A copy of what a model has learned."
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_weights(a, b):
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def one_line(error):
    return len(str(error.value).splitlines()) == 1
