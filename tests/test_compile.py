"Each model is one graph for `torch.compile`, and a compiled one learns what it learns without."

import shutil

import pytest
import torch
from helpers import short_run, small_encoder_decoder, small_language_model, text_and_model, weights

from transformer_nb.attention import padding_mask
from transformer_nb.config.model import PARTS
from transformer_nb.training import train

positions = pytest.mark.parametrize("positions", PARTS["positions"])
MODELS = {
    "plain": {},
    "modern": dict(embedding="bigram", feed_forward="gated", norm="rms", tie_embeddings=False),
    "windows": dict(attention="grouped_query", n_kv_heads=1, sliding_window=3),
}


def compiled(model, *inputs, **options):
    "What a model gives when it is compiled, and the number of graphs; an error where it is more than one."
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    output = torch.compile(model, fullgraph=True, backend=backend)(*inputs, **options)
    return output, len(graphs)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("parts, positions", [*(("plain", name) for name in PARTS["positions"]), ("modern", "rotary"), ("modern", "learned"), ("windows", "rotary")])
def test_a_language_model_is_one_graph(parts, positions):
    model, ids = small_language_model(positions=positions, **MODELS[parts]), torch.randint(13, (3, 8))
    for options in ({}, {"mask": padding_mask([8, 5, 3], 8)}, {"last_only": True}):
        output, graphs = compiled(model, ids, **options)
        assert graphs == 1
        torch.testing.assert_close(output, model(ids, **options))


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("parts, positions, strict", [("plain", "rotary", False), ("modern", "learned", False), ("windows", "rotary", True), ("windows", "sinusoidal", False)])
def test_an_exported_language_model_takes_batches_and_sequences_of_any_size(parts, positions, strict):
    model, longest = small_language_model(positions=positions, **MODELS[parts]).eval(), 8
    sizes = {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("seq", min=3, max=longest)}
    program = torch.export.export(model, (torch.randint(13, (3, 5)),), dynamic_shapes=(sizes,), strict=strict).module()
    for size in ((1, 3), (7, longest), (2, 4)):
        ids = torch.randint(13, size)
        torch.testing.assert_close(program(ids), model(ids))


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("parts", MODELS)
def test_a_traced_model_can_be_saved_and_gives_the_same(parts, tmp_path):
    model, ids = small_language_model(**MODELS[parts]).eval(), torch.randint(13, (3, 8))
    torch.jit.save(torch.jit.trace(model, (ids,), check_trace=False), tmp_path / "traced.pt")
    torch.testing.assert_close(torch.jit.load(tmp_path / "traced.pt")(ids), model(ids))


@pytest.mark.usefixtures("shapes_unchecked")
@positions
def test_an_encoder_decoder_is_one_graph(positions):
    model, source, target = small_encoder_decoder(positions=positions), torch.randint(13, (3, 7)), torch.randint(13, (3, 8))
    output, graphs = compiled(model, source, target)
    assert graphs == 1
    torch.testing.assert_close(output, model(source, target))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch about itself
@pytest.mark.skipif(not shutil.which("g++"), reason="PyTorch's compiler needs a C++ compiler")
@pytest.mark.usefixtures("shapes_unchecked")
def test_a_compiled_model_learns_what_it_learns_without(tmp_path, monkeypatch):
    "By the real compiler, forward and backward, with the parts of the default recipe; nothing comes from an earlier run."
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    losses, learned = [], []
    for compile in (False, True):
        torch.manual_seed(0)
        torch.compiler.reset()
        ids, _, model = text_and_model(n_layers=1, positions="rotary", embedding="bigram", tie_embeddings=False)
        losses.append(train(model, ids, short_run(steps=6, warmup_steps=0, learning_rate=1e-2, compile=compile)).loss)
        learned.append(weights(model))
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(*learned, rtol=1e-3, atol=1e-4)
