"What a model computed for one text, against products written out; parts switched off, against models without them."

import pytest
import torch
from torch import nn

from transformer_nb.attention import causal_mask
from transformer_nb.interpret.activations import activations
from transformer_nb.interpret.inspection import attention_names, inspect_model, layer_names, logit_lens, switch_off
from transformer_nb.transformer import Encoder, EncoderDecoder, InputEmbedding, LanguageModel, TransformerConfig

OPTIONS = {
    "pre-norm": {},
    "post-norm": dict(norm_first=False, positions="sinusoidal"),
    "rotary": dict(positions="rotary", bias=False, tie_embeddings=False),
    "dropout": dict(dropout=0.3, attention_dropout=0.3),
}


def config(**options):
    return TransformerConfig(vocab_size=13, block_size=16, n_layers=2, n_heads=3, d_model=12, **options)


def spread(model):
    "The same model with weights large enough that every head has a pattern of its own."
    torch.manual_seed(0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.4)
    return model


@pytest.fixture(params=OPTIONS, ids=str)
def model(request):
    return spread(LanguageModel(config(**OPTIONS[request.param])))


@pytest.fixture
def ids():
    return torch.randint(13, (1, 9), generator=torch.Generator().manual_seed(1))


def test_heads_are_those_of_the_formula(model, ids):
    seen = inspect_model(model, ids)
    for name, (q, k, v, weights) in seen.attention.items():
        scores = torch.einsum("hid,hjd->hij", q.double(), k.double()) / 4**0.5
        expected = scores.masked_fill(~causal_mask(9), -torch.inf).softmax(-1)
        assert weights.double().allclose(expected, atol=1e-6)
        attention = model.get_submodule("stack." + name)
        layer = model.get_submodule("stack." + name.removesuffix(".attention"))
        stream = list(seen.residual.values())[int(name.split(".")[1])]
        x = layer.residual1.norm(stream) if model.config.norm_first else stream
        bias = 0 if attention.in_proj_bias is None else attention.in_proj_bias[24:]
        assert v.allclose((x @ attention.in_proj_weight[24:].T + bias).view(9, 3, 4).transpose(0, 1), atol=1e-5)


def test_residual_stream_and_lens_end_in_the_logits(model, ids):
    seen, logits = inspect_model(model, ids), model.eval()(ids)
    assert list(seen.residual) == list(seen.lens) == ["embedding", "layers.0", "layers.1"]
    assert seen.lens["layers.1"].allclose(logits[0], atol=1e-5)
    x = seen.residual["layers.0"]
    assert seen.lens["layers.0"].allclose(model.head(model.stack.norm(x)), atol=1e-5)
    assert model.stack.layers[1](x[None], is_causal=True)[0].allclose(seen.residual["layers.1"], atol=1e-5)


def test_the_lens_takes_batches_and_gives_what_inspection_gives(model, ids):
    batch = torch.cat((ids, ids.flip(1)))
    lens = logit_lens(model, batch)
    for row in range(2):
        for name, logits in inspect_model(model, batch[row : row + 1]).lens.items():
            assert logits.allclose(lens[name][row], atol=1e-5)


def test_a_head_that_is_off_adds_nothing(model, ids):
    "As if the columns of the output projection that read it were zero."
    seen = inspect_model(model, ids, off=["layers.1.attention.heads.2", "layers.1.attention.heads.0"])
    with torch.no_grad():
        weight = model.stack.layers[1].attention.out_proj.weight
        weight[:, :4] = weight[:, 8:] = 0
    assert seen.lens["layers.1"].allclose(model.eval()(ids)[0], atol=1e-5)


@pytest.mark.parametrize("part", ["layers.0.feed_forward", "layers.0.attention", "layers.0"])
def test_a_part_that_is_off_adds_nothing(part, ids):
    model = spread(LanguageModel(config()))
    seen = inspect_model(model, ids, off=[part])
    layer, x = model.stack.layers[0], seen.residual["embedding"][None]
    if part == "layers.0.feed_forward":
        x = x + layer.attention(layer.residual1.norm(x), is_causal=True)
    if part == "layers.0.attention":
        x = x + layer.feed_forward(layer.residual2.norm(x))
    assert seen.residual["layers.0"].allclose(x[0], atol=1e-5)


def test_several_parts_are_off_together(model, ids):
    names = ["layers.0", "layers.1.attention.heads.0", "layers.1.feed_forward"]
    together = inspect_model(model, ids, off=names)
    one_by_one = [inspect_model(model, ids, off=[name]) for name in names]
    assert all(not together.lens["layers.1"].allclose(one.lens["layers.1"]) for one in one_by_one)
    with activations(model, replace=switch_off(model, names)):
        assert together.lens["layers.1"].allclose(model.eval()(ids)[0], atol=1e-5)


def test_nothing_is_left_behind(model, ids):
    model.train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    state = torch.get_rng_state()
    inspect_model(model, ids, off=["layers.0.attention.heads.1"])
    with pytest.raises(ValueError, match="heads are 0 to 2"):
        inspect_model(model, ids, off=["layers.0.attention.heads.3"])
    assert all(module.training and not module._forward_hooks and "attend" not in vars(module) for module in model.modules())
    assert all(p.equal(before[name]) for name, p in model.state_dict().items()) and torch.get_rng_state().equal(state)
    assert inspect_model(model, ids).lens["layers.1"].grad_fn is None


def test_an_encoder_decoder_has_both_sides_and_the_attention_between(ids):
    for options in ({}, dict(share_embeddings=False, norm_first=False)):
        model, source = spread(EncoderDecoder(config(**options))), ids[:, :5]
        seen = inspect_model(model, source, ids)
        assert len(seen.attention) == 6 and layer_names(model)[2] == "decoder.layers.0"
        assert seen.attention["decoder.layers.1.cross_attention"].weights.shape == (3, 9, 5)
        memory = model.encode(source)[0]
        assert seen.residual["encoder.layers.1"].allclose(memory, atol=1e-5) or model.encoder.norm(seen.residual["encoder.layers.1"]).allclose(memory, atol=1e-5)
        start = (model.target_embedding or model.embedding)(ids)
        first = next(iter(seen.lens.values()))
        assert first.allclose(model.head(model.decoder.norm(start))[0], atol=1e-5) and len(seen.lens) == 3
        assert list(seen.lens.values())[-1].allclose(model(source, ids)[0], atol=1e-5)


def test_an_encoder_has_no_logits(ids):
    model = Encoder(config(), InputEmbedding(config()))
    seen = inspect_model(model, ids)
    assert seen.lens == {} and list(seen.residual) == ["embedding", "layers.0", "layers.1"]
    with pytest.raises(ValueError, match="no head"):
        logit_lens(model, ids)


def test_a_model_of_somebody_else_with_this_attention(ids):
    from transformer_nb.multi_head_attention import MultiHeadAttention

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.attention, self.head = nn.Embedding(13, 12), MultiHeadAttention(12, 3), nn.Linear(12, 13)

        def forward(self, ids):
            x = self.embedding(ids)
            return self.head(x + self.attention(x, is_causal=True))

    seen = inspect_model(Mine(), ids)
    assert list(seen.attention) == ["attention"] and list(seen.residual) == ["embedding"]


def test_what_cannot_be_inspected_is_named(ids):
    with pytest.raises(ValueError, match="Linear contains no MultiHeadAttention"):
        attention_names(nn.Linear(2, 2))
    model = LanguageModel(config())
    with pytest.raises(ValueError, match=r"got \(2, 9\)"):
        inspect_model(model, torch.cat((ids, ids)))
    with pytest.raises(ValueError, match="layers.2"):
        switch_off(model, ["layers.2"])
