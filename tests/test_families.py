"Llama and its relatives: equal to transformers' models at every activation, in gradients, generated tokens and parameter counts, and back."

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from helpers import one_line, small_config
from safetensors.torch import load_file
from test_convert import left_padded, says_something

from transformer_nb import (
    LanguageModel,
    count_parameters,
    from_huggingface,
    generate,
    load_checkpoint,
    padding_mask,
    save_checkpoint,
    to_huggingface,
)
from transformer_nb.config.model import ROTARY_SCALINGS, TransformerConfig
from transformer_nb.convert import FAMILIES
from transformer_nb.convert.comparison import parity
from transformer_nb.inference.cache import KVCache
from transformer_nb.modern.rotary import rotary_frequencies
from transformer_nb.positional_encoding import RotaryPositionalEncoding

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SIZES = dict(
    vocab_size=37, hidden_size=30, num_attention_heads=3, num_key_value_heads=1, num_hidden_layers=3, intermediate_size=41,
    max_position_embeddings=19, attn_implementation="eager", pad_token_id=0, eos_token_id=1, bos_token_id=None,
)  # fmt: skip
LLAMA3 = dict(rope_type="llama3", rope_theta=700.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=3.0, original_max_position_embeddings=12)
BY_LAYER = dict(use_sliding_window=True, sliding_window=3, layer_types=["sliding_attention", "full_attention", "sliding_attention"])
VARIANTS = {  # the family, and options; sizes are odd and all different, so that nothing fits by accident
    "llama": ("Llama", dict()),
    "llama of six heads for two": ("Llama", dict(num_attention_heads=6, num_key_value_heads=2, head_dim=8, attention_bias=True)),
    "llama of five heads": ("Llama", dict(num_attention_heads=5, num_key_value_heads=5, mlp_bias=True, tie_word_embeddings=True)),
    "llama 3": ("Llama", dict(rope_parameters=LLAMA3, head_dim=14, hidden_size=33)),
    "llama stretched": ("Llama", dict(rope_parameters=dict(rope_type="linear", factor=3.0, rope_theta=500.0), rms_norm_eps=1e-2)),
    "mistral": ("Mistral", dict(sliding_window=4)),
    "mistral of two positions": ("Mistral", dict(sliding_window=2, num_attention_heads=15, num_key_value_heads=5, head_dim=6)),
    "mistral without a window": ("Mistral", dict(sliding_window=None, hidden_act="gelu", tie_word_embeddings=True)),
    "qwen 2": ("Qwen2", dict(num_attention_heads=15, num_key_value_heads=5)),
    "qwen 2 of windows": ("Qwen2", dict(**BY_LAYER, tie_word_embeddings=True)),
    "qwen 2 of late windows": ("Qwen2", dict(use_sliding_window=True, sliding_window=2, max_window_layers=2)),
    "qwen 3": ("Qwen3", dict(head_dim=6)),
    "qwen 3 of windows": ("Qwen3", dict(**BY_LAYER, head_dim=4, num_attention_heads=7, num_key_value_heads=7, attention_bias=True)),
    "gemma": ("Gemma", dict(head_dim=12, rms_norm_eps=1e-3)),
    "gemma of its own head": ("Gemma", dict(head_dim=6, num_key_value_heads=3, tie_word_embeddings=False, attention_bias=True, hidden_act="relu")),
}
variants = pytest.mark.parametrize("family, options", VARIANTS.values(), ids=VARIANTS)
one_of_each = pytest.mark.parametrize("family, options", [VARIANTS[name] for name in ("llama 3", "mistral", "qwen 2 of windows", "qwen 3", "gemma")])


def published(family, options):
    "A model of transformers with random numbers in every parameter, gains and biases too."
    kind = getattr(transformers, f"{family}ForCausalLM")
    model = kind(kind.config_class(**{**SIZES, **options}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3).add_(0.1)
    return model.eval()


def talkative(family, options):
    "A published model that writes what depends on what it read: large embeddings, and a head of its own."
    model = published(family, {**options, "tie_word_embeddings": False})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.normal_(std=0.1).add_(float(name.endswith("weight") and family != "Gemma"))
            else:
                parameter.normal_(std=2.0 if "embed" in name and family != "Gemma" else 0.7 if "lm_head" in name else 0.4)
    return model


def indices(*shape):
    return torch.randint(2, 37, shape)


@variants
def test_every_activation_and_gradient_is_the_same(family, options):
    theirs = published(family, options).double()
    ours, ids = from_huggingface(theirs), indices(2, 11)
    call = lambda: theirs(ids, output_hidden_states=True, output_attentions=True)  # noqa: E731
    entries = {entry.name: entry.relative for entry in parity(theirs, ours, call, lambda: ours(ids))}
    assert not {name: relative for name, relative in entries.items() if not relative < 1e-5}  # theirs has norms and angles in float32
    for i in range(3):
        assert {f"layers.{i}", f"layers.{i}.attention", f"layers.{i}.attention.weights", f"layers.{i}.feed_forward"} <= entries.keys()
    learned = {f"gradient of {name.removeprefix('stack.')}" for name, _ in ours.named_parameters()}
    assert learned <= entries.keys()
    assert count_parameters(ours) == theirs.num_parameters()
    theirs.float(), ours.float()
    torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


@variants
def test_padding_on_the_left_and_a_cache_give_the_logits_of_each_text_alone(family, options):
    theirs, texts = published(family, options).double(), [indices(n) for n in (11, 4, 7)]
    ours, tolerance = from_huggingface(theirs), dict(rtol=1e-5, atol=1e-5)
    expected = torch.stack([theirs(text[None]).logits[0, -1] for text in texts])
    padded, keep = left_padded(texts)
    offset, mask = keep.sum(1) - 11, keep[:, None].bool()
    torch.testing.assert_close(ours(padded, mask, offset=offset)[:, -1], expected, **tolerance)
    cache = [KVCache(11) for _ in range(3)]
    ours(padded[:, :6], mask[..., :6], cache, offset)
    ours(padded[:, 6:10], mask[..., :10], cache, offset + 6)
    torch.testing.assert_close(ours(padded[:, 10:], mask, cache, offset + 10)[:, -1], expected, **tolerance)
    assert cache[0].entries()[0].shape[1] == theirs.config.num_key_value_heads


@variants
def test_the_same_tokens_are_generated(family, options):
    theirs, prompts = talkative(family, options), [indices(n) for n in (3, 6, 1)]
    ours = from_huggingface(theirs)
    padded, attended = left_padded(prompts)
    more = dict(attention_mask=attended, max_new_tokens=11, do_sample=False, eos_token_id=None, pad_token_id=0)
    expected = theirs.generate(padded, **more)[:, 6:].tolist()
    assert says_something(expected)
    for use_cache in (True, False):
        given = generate(ours, prompts, 11, temperature=0, use_cache=use_cache)
        assert [text[len(prompt) :].tolist() for text, prompt in zip(given, prompts)] == expected


@variants
def test_a_model_goes_out_as_it_came_in(family, options, tmp_path):
    theirs, ids = published(family, options), indices(2, 11)
    ours = from_huggingface(theirs)
    kind = f"{family}ForCausalLM"
    to_huggingface(ours, tmp_path / "written", kind=kind)
    theirs.save_pretrained(tmp_path / "saved")
    saved, written = (load_file(tmp_path / name / "model.safetensors") for name in ("saved", "written"))
    assert saved.keys() == written.keys() and all(saved[name].equal(written[name]) for name in saved)
    opened = type(theirs).from_pretrained(tmp_path / "written", attn_implementation="eager").eval()
    assert type(opened) is type(theirs)
    torch.testing.assert_close(opened(ids).logits, theirs(ids).logits, rtol=1e-5, atol=1e-5)
    for directory in ("saved", "written"):
        assert from_huggingface(tmp_path / directory)(ids).equal(ours(ids))
    free = to_huggingface(ours)  # whichever family comes first
    torch.testing.assert_close(free(ids).logits, theirs(ids).logits, rtol=1e-5, atol=1e-5)
    save_checkpoint(tmp_path / "checkpoint", ours)
    assert load_checkpoint(tmp_path / "checkpoint").model(ids).equal(ours(ids))


@one_of_each
def test_bfloat16_is_kept_and_angles_are_not_rounded(family, options, tmp_path):
    theirs, ids = published(family, options).bfloat16(), indices(2, 11)
    theirs.save_pretrained(tmp_path / "half")
    ours = from_huggingface(tmp_path / "half")
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.bfloat16}
    exact = from_huggingface(theirs.float())(ids)
    assert ours.float()(ids).equal(exact)
    theirs.bfloat16(), ours.bfloat16()
    errors = [(logits.float() - exact).square().mean().sqrt() for logits in (ours(ids), theirs(ids).logits)]
    assert errors[0] < 2 * errors[1] + 1e-3


def test_a_fine_tuned_model_differs_where_theirs_would():
    theirs = published(*VARIANTS["llama of six heads for two"])
    ours, ids = from_huggingface(theirs), indices(4, 9)
    for model, logits in ((ours, lambda: ours(ids)), (theirs, lambda: theirs(ids).logits)):
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for _ in range(3):
            F.cross_entropy(logits()[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
            optimizer.step(), optimizer.zero_grad()
    trained = to_huggingface(ours).state_dict()
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(trained[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [dict(rope_type="linear", factor=3.0), {k: v for k, v in LLAMA3.items() if k != "rope_theta"}])
@pytest.mark.parametrize("d_k, base", [(6, 100.0), (64, 10_000.0), (128, 500_000.0)])
def test_frequencies_are_theirs(options, d_k, base):
    config = transformers.LlamaConfig(head_dim=d_k, rope_parameters={**options, "rope_theta": base})
    expected, factor = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[options["rope_type"]](config, "cpu")
    torch.testing.assert_close(rotary_frequencies(d_k, base, options).float(), expected, rtol=1e-6, atol=1e-12)
    assert factor == 1.0 and options["rope_type"] in ROTARY_SCALINGS


def reconfigured(directory, **options):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **options}))
    return directory


OLD = dict(rope_parameters=None, rope_theta=700.0, rope_scaling={name: LLAMA3[name] for name in LLAMA3 if name != "rope_theta"})


@pytest.mark.parametrize(
    "old",
    [OLD, {**OLD, "rope_scaling": {"type" if name == "rope_type" else name: value for name, value in OLD["rope_scaling"].items()}}, {"head_dim": None}],
    ids=["rope_theta beside", "type for rope_type", "no head_dim"],
)  # fmt: skip
def test_old_files_say_the_same_in_other_words(old, tmp_path):
    theirs, ids = published("Llama", dict(rope_parameters=LLAMA3)), indices(2, 11)
    theirs.save_pretrained(tmp_path)
    torch.testing.assert_close(from_huggingface(reconfigured(tmp_path, **old))(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_remarks_that_change_nothing_are_passed_over(tmp_path):
    theirs, ids = published("Qwen2", {}), indices(2, 11)
    theirs.save_pretrained(tmp_path)
    remarks = {"use_mrope": False, "is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}, "unsloth_version": "1"}
    torch.testing.assert_close(from_huggingface(reconfigured(tmp_path, **remarks))(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="Qwen2: rope_interleaved=True cannot be converted"):
        from_huggingface(reconfigured(tmp_path, rope_interleaved=True))


@pytest.mark.parametrize(
    "family, options, says",
    [
        ("Llama", dict(rope_parameters=dict(rope_type="dynamic", factor=2.0, rope_theta=1e4)), "Llama: rope_type='dynamic' cannot be converted"),
        ("Qwen3", dict(rope_parameters=dict(rope_type="yarn", factor=2.0, rope_theta=1e4)), "Qwen3: rope_type='yarn' cannot be converted"),
        ("Mistral", dict(rope_parameters=dict(rope_type="longrope", rope_theta=1e4, factor=1.0, short_factor=[1.0] * 5, long_factor=[1.0] * 5)), "longrope"),
        ("Llama", dict(rope_scaling={"rope_type": "linear", "factor": -2.0}), "factor of rotary_scaling must be a number above 0, got -2.0"),
        ("Llama", dict(rope_scaling={"rope_type": "llama3", "factor": 2.0}), "rotary_scaling 'llama3' needs factor, low_freq_factor"),
        ("Llama", dict(rope_scaling={"rope_type": "linear", "factor": 2.0, "attention_factor": 1.3}), "attention_factor=1.3 is no option of rope_type='linear'"),
        ("Llama", dict(rope_scaling={"rope_type": "default", "factor": 2.0}), "factor=2.0 is no option of rope_type='default'"),
        ("Llama", dict(rope_scaling={"partial_rotary_factor": 0.5}), "a rotation of a part of the features cannot be converted"),
        ("Llama", dict(num_key_value_heads=2), "n_heads must be divisible by n_kv_heads, got n_heads=3 and n_kv_heads=2"),
        ("Llama", dict(head_dim=5), "rotary positions need an even head_dim, got 5"),
        ("Mistral", dict(sliding_window=0), "sliding_window must be a whole number of at least 1"),
        ("Qwen2", dict(layer_types=["chunked_attention"] * 3), "Qwen2: layer_types=.* cannot be converted, only full_attention or sliding_attention"),
        ("Qwen2", dict(layer_types=["sliding_attention"] * 3), "Qwen2: layer_types has sliding_attention, and use_sliding_window=False"),
        ("Qwen2", dict(layer_types=["full_attention"]), "for each of 3 layers"),
        ("Gemma", dict(hidden_activation="gelu"), "Gemma: hidden_activation='gelu' differs from hidden_act='gelu_pytorch_tanh'"),
        ("Gemma", dict(attn_logit_softcapping=50.0), "attn_logit_softcapping=50.0"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(family, options, says, tmp_path, shapes_unchecked):
    published(family, dict(head_dim=10)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=says) as error:
        from_huggingface(reconfigured(tmp_path, **options))
    assert one_line(error)


OURS = dict(norm="rms", feed_forward="gated", positions="rotary", activation="silu", attention="grouped_query", n_heads=4, n_kv_heads=2, d_ff=16)


@pytest.mark.parametrize(
    "options, says",
    [
        (dict(bias=False, qkv_bias=False, out_bias=True), "out_bias"),
        (dict(bias=False, qk_norm=True, sliding_window=[3, 4]), r"sliding_window=\[3, 4\]"),
        (dict(bias=True, sliding_window=3), "sliding_window=3|out_bias=True"),
        (dict(bias=False, positions="none"), "positions"),
        (dict(bias=False, norm="layer"), "norm"),
        (dict(bias=False, scale_embeddings=True), "scale_embeddings"),
    ],
)
def test_what_no_family_has_is_not_written(options, says, tmp_path, shapes_unchecked):
    with pytest.raises(ValueError, match=says) as error:
        to_huggingface(LanguageModel(small_config(**{**OURS, **options})), tmp_path / "out")
    assert one_line(error) and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda model: setattr(model.stack.layers[1].attention, "sliding_window", 3), "layers.1.attention.sliding_window=3 was set later .* only None"),
        (lambda model: setattr(model.stack.layers[0].residual1.norm, "eps", 0.5), "layers.0.residual1.norm.eps=0.5 was set later .* only 1e-05"),
        (lambda model: setattr(model.stack.layers[0].feed_forward, "activation", torch.sin), "feed_forward.activation=its own was set later"),
        (lambda model: setattr(model.stack.layers[0].attention, "forward", torch.sin), "attention.forward=its own was set later"),
        (lambda model: setattr(model.stack.layers[0].attention, "rotary", RotaryPositionalEncoding(8, 2, 77.0)), "attention.rotary"),
    ],
)
def test_what_was_set_in_a_layer_is_not_lost_on_the_way_out(change, says, tmp_path, shapes_unchecked):
    model = LanguageModel(small_config(**OURS, bias=False))
    change(model)
    with pytest.raises(ValueError, match=says) as error:
        to_huggingface(model, tmp_path / "out")
    assert one_line(error) and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options, says",
    [
        (dict(positions="learned"), "rotary_scaling is for positions='rotary', got positions='learned'"),
        (dict(rotary_scaling=8), "must be a dictionary whose rope_type is one of linear, llama3, got 8"),
        (dict(rotary_scaling={"rope_type": "yarn", "factor": 2}), "one of linear, llama3"),
        (dict(rotary_scaling={"rope_type": "linear", "factor": 2, "factors": 3}), "rotary_scaling 'linear' needs factor, got factor, factors"),
        (dict(rotary_scaling={"rope_type": "linear", "factor": True}), "must be a number above 0, got True"),
    ],
)
def test_a_rotation_that_cannot_be_stretched_is_refused(options, says, shapes_unchecked):
    with pytest.raises(ValueError, match=says) as error:
        TransformerConfig(**{"positions": "rotary", "rotary_scaling": {"rope_type": "linear", "factor": 2.0}, **options})
    assert one_line(error)


def test_padding_of_a_text_in_training_is_not_attended():
    theirs = published(*VARIANTS["mistral"]).double()
    ours, ids, mask = from_huggingface(theirs), indices(2, 11), padding_mask([11, 6], 11)
    expected = theirs(ids[1:, :6]).logits  # theirs is nan in a batch where a row of a window is all padding
    torch.testing.assert_close(ours(ids, mask)[1:, :6], expected, rtol=1e-5, atol=1e-5)


def test_the_table_of_families_has_a_row_for_each():
    page = json.loads((Path(__file__).parents[1] / "nbs/workshop/convert_huggingface.ipynb").read_text(encoding="utf-8"))
    (table,) = ["".join(cell["source"]) for cell in page["cells"] if "| family | classes of" in "".join(cell["source"])]
    assert set(re.findall(r"`(\w+(?:Model|LM|PreTraining))`", table)) - {"LanguageModel", "MaskedLanguageModel"} == set(FAMILIES)


@pytest.mark.parametrize("use, window, expected", [(True, 2, [None, None, 2]), (False, 2, None), (True, None, None)])
def test_files_without_kinds_of_layers_say_how_many_have_no_window(use, window, expected, tmp_path):
    options = dict(use_sliding_window=use, sliding_window=window, max_window_layers=2)
    theirs, ids = published("Qwen2", options), indices(2, 11)
    theirs.save_pretrained(tmp_path)
    ours = from_huggingface(reconfigured(tmp_path, layer_types=None, **options))
    assert ours.config.sliding_window == expected
    torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)
