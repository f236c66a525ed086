"What saving accepts, loading gives back to the last bit; anything else is refused in one line, before training, and leaves nothing."

import copy
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import TEXT, one_line, randomize, same_weights, short_run, small_config, small_encoder_decoder, small_language_model, text_and_model, weights
from torch import nn
from torch.nn.utils import parametrizations, prune

from transformer_nb import EncoderDecoder, LanguageModel, PairTokenizer, from_torch, load_checkpoint, save_checkpoint, train
from transformer_nb.config.model import PARTS
from transformer_nb.convert.bert import BertConfig, EmbeddingEncoder, MaskedLanguageModel
from transformer_nb.layer_norm import LayerNorm
from transformer_nb.runs.checkpoints import newest_checkpoint
from transformer_nb.runs.directory import RunDirectory, read_metrics
from transformer_nb.runs.files import LockedDirectory
from transformer_nb.runs.saved_models import saved_tensors
from transformer_nb.tokenization import BPETokenizer, CharTokenizer
from transformer_nb.training import TrainingConfig
from transformer_nb.transformer import Encoder, InputEmbedding

IDS = torch.arange(10).reshape(2, 5)
VECTORS = torch.linspace(-1, 1, 80).reshape(2, 5, 8)


def outputs(model, ids=IDS):
    "What a model computes from a short input."
    inputs = {EncoderDecoder: (ids, ids.flip(1))}.get(type(model), (ids,))
    if isinstance(model, Encoder) and model.embedding is None:
        inputs = (VECTORS.to(model.norm.weight.dtype),)
    with torch.no_grad():
        return model.eval()(*inputs)


def unwrapped(model):
    return getattr(model, "_orig_mod", getattr(model, "module", model))


def views_of_one_storage():
    model, storage = small_language_model(), torch.randn(64)
    model.stack.layers[0].residual1.norm.weight = nn.Parameter(storage[:8])
    model.stack.layers[0].residual1.norm.bias = nn.Parameter(storage[8:16])
    return model


def transposed():
    model = small_language_model()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data = parameter.data.t().contiguous().t()
    return model


def changed(model, change):
    change(model)
    return model


def watched():
    model, seen = small_language_model(), []
    model.stack.layers[1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    return model


ACCEPTED = {
    "plain": small_language_model,
    "untied": lambda: small_language_model(tie_embeddings=False),
    "parts": lambda: small_language_model(norm="rms", feed_forward="gated", positions="rotary", embedding="bigram", dropout=0.1),
    "groups": lambda: small_language_model(attention="grouped_query", n_kv_heads=1, positions="rotary", qk_norm=True, sliding_window=[3, None]),
    "bfloat16": lambda: small_language_model(positions="sinusoidal").bfloat16(),
    "float16": lambda: small_language_model(positions="rotary").half(),
    "float64": lambda: small_language_model(positions="rotary").double(),
    "mixed": lambda: changed(small_language_model(tie_embeddings=False), lambda m: m.stack.layers[1].double() and m.stack.norm.double() and m.head.double() and None),
    "frozen": lambda: changed(small_language_model(), lambda m: m.stack.layers[0].requires_grad_(False)),
    "compiled": lambda: torch.compile(small_language_model(), backend="eager"),
    "parallel": lambda: nn.DataParallel(small_language_model()),
    "transposed": transposed,
    "views": views_of_one_storage,
    "expanded": lambda: changed(small_language_model(), lambda m: setattr(m.stack.norm, "weight", nn.Parameter(torch.ones(1).expand(8)))),
    "watched": watched,
    "a longer table": lambda: changed(small_language_model(positions="sinusoidal"), lambda m: outputs(m, torch.zeros(1, 70, dtype=torch.long))),
    "a name": lambda: changed(small_language_model(), lambda m: setattr(m, "note", "mine")),
    "encoder-decoder": lambda: small_encoder_decoder(share_embeddings=False, tie_embeddings=False),
    "two configurations": lambda: randomize(EncoderDecoder(small_config(), replace(small_config(), n_layers=1, n_heads=4, activation="relu"))),
    "encoder of vectors": lambda: randomize(Encoder(small_config())),
    "encoder of ids": lambda: randomize(Encoder(small_config(), InputEmbedding(small_config()))),
    "BERT": lambda: randomize(EmbeddingEncoder(BertConfig(vocab_size=13, block_size=8, n_layers=1, n_heads=2, d_model=8))),
    "BERT in an encoder": lambda: randomize(Encoder(c := BertConfig(vocab_size=13, block_size=8, n_layers=1, n_heads=2, d_model=8), PARTS["embedding"]["bert"](c))),
    "masked": lambda: randomize(MaskedLanguageModel(BertConfig(vocab_size=13, block_size=8, n_layers=1, n_heads=2, d_model=8))),
}


@pytest.mark.filterwarnings("ignore:.*compile.*")
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_saved_comes_back_to_the_last_bit(tmp_path, name):
    given = ACCEPTED[name]()
    model, state = unwrapped(given), torch.get_rng_state()
    save_checkpoint(tmp_path / "m", given)
    loaded = load_checkpoint(tmp_path / "m").model
    assert type(loaded) is type(model) and torch.get_rng_state().equal(state)
    assert same_weights(weights(loaded), weights(model)) and not loaded.training
    assert {n: x.dtype for n, x in loaded.state_dict().items()} == {n: x.dtype for n, x in model.state_dict().items()}
    assert [names for _, names in saved_tensors(loaded)] == [names for _, names in saved_tensors(model)]
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]
    if name != "mixed":  # which cannot be called
        assert outputs(loaded).equal(outputs(model))
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"model.safetensors", "config.json"}


class Mine(LanguageModel):
    "A class that nobody has named."


class LowRank(nn.Module):
    "A layer with a small one beside it."

    def __init__(self, base):
        super().__init__()
        self.base, self.down = base, nn.Linear(base.in_features, 2, bias=False)

    def forward(self, x):
        return self.base(x)


class WithState(LayerNorm):
    def get_extra_state(self):
        return {"seen": 3}


class Tagged(torch.Tensor):
    "A kind of tensor of one's own."


def layer(model):
    return model.stack.layers[1]


def set_on(path, name, value):
    return lambda m: setattr(m.get_submodule(path), name, value)


def same_memory(model):
    model.stack.layers[1].feed_forward.linear1.weight.data = model.stack.layers[0].feed_forward.linear1.weight.data


FF, RES = "stack.layers.1.feed_forward", "stack.layers.1.residual1"
REFUSED = {
    "pruned": (lambda m: prune.l1_unstructured(layer(m).feed_forward.linear1, "weight", 0.5), r"linear1.weight.* of this LanguageModel .*prune"),
    "parametrized": (lambda m: parametrizations.weight_norm(layer(m).feed_forward.linear1), r"linear1 .*Parametrized.*remove_parametrizations"),
    "another activation": (set_on(FF, "activation", torch.tanh), r"feed_forward.activation .*'tanh' instead of 'gelu'"),
    "another eps": (set_on("stack.norm", "eps", 1e-3), r"stack.norm.eps .*0.001 instead of 1e-05"),
    "another dropout": (set_on(f"{RES}.dropout", "p", 0.5), r"residual1.dropout.p .*0.5 instead of 0.1"),
    "attention dropout": (set_on("stack.layers.1.attention", "dropout", 0.5), r"attention.dropout .*0.5 instead of 0.0"),
    "post-norm": (set_on(RES, "norm_first", False), r"residual1.norm_first .*False instead of True"),
    "another scale": (set_on("embedding.tokens", "scale", 2.0), r"embedding.tokens.scale .*2.0 instead of 1.0"),
    "not causal": (set_on("", "is_causal", False), r"is_causal of this .*False instead of True"),
    "another forward": (lambda m: setattr(m.stack.norm, "forward", lambda x: x), r"stack.norm.forward"),
    "low rank": (lambda m: setattr(layer(m).feed_forward, "linear1", LowRank(layer(m).feed_forward.linear1)), r"linear1 .*LowRank instead of Linear"),
    "one module more": (lambda m: m.add_module("extra", nn.Linear(2, 2)), r"extra of this .*Linear instead of nothing"),
    "one parameter more": (lambda m: m.stack.norm.register_parameter("extra", nn.Parameter(torch.ones(2))), r"stack.norm.extra"),
    "one layer less": (lambda m: m.stack.layers.pop(1), r"stack.layers.1 .*nothing instead of EncoderLayer"),
    "a buffer that is not saved": (lambda m: m.stack.norm.register_buffer("extra", torch.ones(2), persistent=False), r"stack.norm.extra .*buffer"),
    "a tie that is broken": (lambda m: setattr(m.head, "weight", nn.Parameter(m.head.weight.detach().clone())), r"not tied to head.weight.*tie_embeddings"),
    "a new tie": (lambda m: setattr(layer(m).feed_forward.linear1, "weight", m.stack.layers[0].feed_forward.linear1.weight), r"tied to stack.layers.1"),
    "one layer twice": (lambda m: m.stack.layers.__setitem__(1, m.stack.layers[0]), r"tied to"),
    "memory of another": (same_memory, r"share memory and are not one parameter"),
    "a hook that changes": (lambda m: m.stack.register_forward_hook(lambda module, inputs, output: 2 * output), r"a hook changes what this LanguageModel computes"),
    "a hook before": (lambda m: m.stack.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0], *inputs[1:])), r"a hook changes"),
    "meta": (lambda m: m.to("meta"), r"is on the meta device and has no values"),
    "sparse": (lambda m: setattr(m.stack.norm, "weight", nn.Parameter(m.stack.norm.weight.detach().to_sparse())), r"stack.norm.weight is stored as torch.sparse_coo"),
    "a kind of tensor": (lambda m: setattr(m.stack.norm, "weight", nn.Parameter(m.stack.norm.weight.detach().as_subclass(Tagged))), r"stack.norm.weight is a Tagged"),
    "state of its own": (lambda m: setattr(m.stack, "norm", WithState(8)), r"stack.norm._extra_state is a dict .get_extra_state."),
    "a configuration that was changed": (lambda m: setattr(m.config, "dropout", 0.7), r"dropout.p .*0.1 instead of 0.7"),
    "a configuration of nonsense": (lambda m: setattr(m.config, "n_heads", 3), r"cannot be built from its configuration \(d_model must be divisible"),
    "no configuration": (lambda m: setattr(m, "config", {"d_model": 8}), r"needs the configuration of this LanguageModel, got none"),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_come_back_is_refused_and_leaves_nothing(tmp_path, name):
    change, message = REFUSED[name]
    model = changed(LanguageModel(small_config(dropout=0.1, vocab_size=15)), change)
    with pytest.raises(ValueError, match=message) as error:
        save_checkpoint(tmp_path / "m", model)
    assert one_line(error) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["another eps", "pruned", "a tie that is broken"])
def test_it_is_refused_before_anything_is_learned(tmp_path, name):
    change, message = REFUSED[name]
    model = changed(LanguageModel(small_config(dropout=0.1, vocab_size=15)), change)
    with pytest.raises(ValueError, match=message):
        train(model, torch.arange(60) % 15, short_run(), directory=tmp_path / "m", on_step=lambda history: pytest.fail("it was trained"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make, message", [
    (lambda: Mine(small_config()), "a checkpoint can hold one of LanguageModel, EncoderDecoder, Encoder, MaskedLanguageModel, .*got Mine: add its class to MODELS"),
    (lambda: nn.Linear(2, 2), "got Linear"),
    (lambda: from_torch(nn.Transformer(8, 2, 1, 1, 16, batch_first=True)), "embedding of this EncoderDecoder is not what its configuration makes"),
    (lambda: changed(EncoderDecoder(small_config()), lambda m: setattr(m.decoder.layers[0], "is_causal", False)), "decoder.layers.0.is_causal .*False instead of True"),
])  # fmt: skip
def test_other_models_are_refused_in_one_line(tmp_path, make, message):
    with pytest.raises(ValueError, match=message) as error:
        save_checkpoint(tmp_path / "m", make())
    assert one_line(error) and not list(tmp_path.iterdir())


class Tables(nn.Module):
    "Positions with a table that is computed and not saved."

    def __init__(self, config):
        super().__init__()
        self.register_buffer("table", torch.linspace(0, 1, config.block_size)[:, None], persistent=False)

    def forward(self, x, offset=0):
        return x + self.table[offset : offset + x.shape[1]]


def test_a_table_of_ones_own_is_computed_again_and_not_changed_in_silence(tmp_path, monkeypatch):
    monkeypatch.setitem(PARTS["positions"], "tables", Tables)
    model = small_language_model(positions="tables")
    save_checkpoint(tmp_path / "m", model)
    assert outputs(load_checkpoint(tmp_path / "m").model).equal(outputs(model))
    model.embedding.positions.table[2] += 1
    with pytest.raises(ValueError, match="embedding.positions.table of this .*not saved and was changed"):
        save_checkpoint(tmp_path / "m", model)


# Tokenizers.


class Shouting(CharTokenizer):
    "A class that nobody has named."


class Saves(Shouting):
    def save(self, path):
        raise RuntimeError("no\nroom")


@pytest.mark.parametrize("make, message", [
    (lambda: Shouting("ab"), "cannot hold this Shouting .a CharTokenizer comes back.: .*TOKENIZERS"),
    (lambda: Saves("ab"), "cannot hold this Saves .no room."),
    (lambda: object(), "cannot hold this object .*no attribute 'save'"),
    (lambda: BPETokenizer.from_text(TEXT, 260).tokenizer, "cannot hold this Tokenizer"),
])  # fmt: skip
def test_a_tokenizer_that_cannot_come_back_is_refused_before_training(tmp_path, make, message, shapes_unchecked):
    ids, _, model = text_and_model()
    for attempt in (lambda t: save_checkpoint(tmp_path / "m", model, t), lambda t: train(model, ids, short_run(), directory=tmp_path / "m", tokenizer=t)):
        with pytest.raises(ValueError, match=message) as error:
            attempt(make())
        assert one_line(error) and not list(tmp_path.iterdir())


def test_the_tokenizer_of_a_translator_comes_back(tmp_path):
    save_checkpoint(tmp_path / "m", small_encoder_decoder(), tokenizer := PairTokenizer("abc"))
    loaded = load_checkpoint(tmp_path / "m").tokenizer
    assert type(loaded) is PairTokenizer and loaded.encode(["abc", "b"]).equal(tokenizer.encode(["abc", "b"]))


@pytest.mark.parametrize("training", [{"tensors": {"x": 3}}, {"no": 1}, {"tensors": {}, "config": {1, 2}}, 7])
def test_a_training_state_that_is_none_is_refused_and_leaves_nothing(tmp_path, training, shapes_unchecked):
    with pytest.raises(ValueError, match="this is no training state") as error:
        save_checkpoint(tmp_path / "m", small_language_model(), None, training)
    assert one_line(error) and not list(tmp_path.iterdir())


# Paths.


def test_any_path_to_a_directory_will_do(tmp_path, monkeypatch):
    model = small_language_model()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "real")
    for path in (".", "../link", f"{tmp_path}/real/", "~/real", Path("../real/../real")):
        save_checkpoint(path, randomize(model))
        assert same_weights(weights(load_checkpoint(path).model), weights(model))
        assert Path.cwd() == tmp_path / "real" and os.readlink(tmp_path / "link") == "real"
    assert {p.name for p in tmp_path.iterdir()} == {"real", "link"} and len(list((tmp_path / "real").iterdir())) == 2


def test_a_run_stays_in_its_directory_when_the_working_directory_changes(tmp_path, monkeypatch):
    ids, tokenizer, model = text_and_model()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    train(model, ids, short_run(save_every=4), ids[:50], lambda history: os.chdir(tmp_path / "elsewhere"), "run", tokenizer)
    assert same_weights(weights(load_checkpoint(tmp_path / "run").model), weights(model))
    assert not list((tmp_path / "elsewhere").iterdir()) and len(list(read_metrics(tmp_path / "run"))) > 3


@pytest.mark.parametrize("path", [3, b"run", None])
def test_what_is_no_path_is_refused(path, shapes_unchecked):
    for attempt in (lambda: save_checkpoint(path, small_language_model()), lambda: load_checkpoint(path)):
        with pytest.raises(TypeError, match="a directory must be a string or a Path, got (int|bytes|NoneType)") as error:
            attempt()
        assert one_line(error)


def test_what_lies_beside_a_checkpoint_is_left_alone(tmp_path):
    for name in ("m.new", "m.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "novel.txt").write_text("mine")
    for _ in range(2):
        save_checkpoint(tmp_path / "m", small_language_model())
    assert {p.name for p in tmp_path.iterdir()} == {"m", "m.new", "m.old"} and (tmp_path / "m.old" / "novel.txt").exists()


def test_what_else_is_in_a_directory_is_kept_or_the_directory_is_refused(tmp_path):
    ids, tokenizer, model = text_and_model()
    train(model, ids, short_run(steps=3), directory=tmp_path / "run", tokenizer=tokenizer)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    train(model, ids, short_run(steps=3), directory=tmp_path / "run", tokenizer=tokenizer)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / ".DS_Store").touch()
    save_checkpoint(tmp_path / "m", model)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(FileExistsError, match=r"holds files that do not belong to a checkpoint \(config.json\): choose another directory"):
        save_checkpoint(tmp_path / "theirs", model)
    assert [p.name for p in (tmp_path / "theirs").iterdir()] == ["config.json"]


def test_where_files_must_be_open_for_writing_to_be_synced(tmp_path, monkeypatch):
    fsync = os.fsync

    def as_on_windows(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", as_on_windows)
    save_checkpoint(tmp_path / "m", small_language_model())
    ids, tokenizer, model = text_and_model()
    train(model, ids, short_run(steps=3), directory=tmp_path / "run", tokenizer=tokenizer)
    load_checkpoint(tmp_path / "m"), load_checkpoint(tmp_path / "run")


def test_a_file_system_without_links_holds_checkpoints_too(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "Operation not permitted")))
    model = small_language_model()
    for _ in range(2):
        save_checkpoint(tmp_path / "m", randomize(model))
    assert same_weights(weights(load_checkpoint(tmp_path / "m").model), weights(model))


# Several at once.

OTHER = "import sys; from transformer_nb.runs.files import LockedDirectory; held = LockedDirectory(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path):
    ids, tokenizer, model = text_and_model()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    other = subprocess.Popen([sys.executable, "-c", OTHER, str(tmp_path / "run")], env=environment, stdin=-1, stdout=-1, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        for attempt in (lambda: train(model, ids, short_run(), directory=tmp_path / "run"), lambda: save_checkpoint(tmp_path / "run", model)):
            with pytest.raises(BlockingIOError, match=f"another run writes to {tmp_path}/run: wait until it ends, or choose another") as error:
                attempt()
            assert one_line(error)
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    assert train(model, ids, short_run(steps=3), directory=tmp_path / "run").steps_done == 3


def test_a_second_thread_is_refused_and_the_first_run_is_whole(tmp_path):
    ids, tokenizer, model = text_and_model()
    refused = []

    def second(history):
        try:
            train(copy.deepcopy(model), ids, short_run(), directory=tmp_path / "x" / ".." / "run")
        except BlockingIOError as error:
            refused.append(str(error))

    def on_evaluate(history):
        thread = threading.Thread(target=second, args=[history])
        thread.start()
        thread.join()

    history = train(model, ids, short_run(), ids[:50], on_evaluate, tmp_path / "run", tokenizer)
    assert len(refused) == len(history.evaluated) and all(str(tmp_path / "run") in line for line in refused)
    steps = [row["step"] for row in read_metrics(tmp_path / "run") if "loss" in row]
    assert steps == sorted(set(steps)) and same_weights(weights(load_checkpoint(tmp_path / "run").model), weights(model))
    train(model, ids, short_run(), directory=tmp_path / "run", tokenizer=tokenizer)  # the lock is free again


def test_a_run_that_failed_gives_its_directory_free(tmp_path):
    ids, tokenizer, model = text_and_model()
    with pytest.raises(ZeroDivisionError) as kept:
        train(model, ids, short_run(), ids[:50], lambda history: 1 / 0, tmp_path / "run", tokenizer)
    assert kept and train(model, ids, short_run(steps=3), directory=tmp_path / "run").steps_done == 3


def test_where_nothing_can_be_locked_a_warning_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "lockf", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks available")))
    with pytest.warns(UserWarning, match="cannot lock files .No locks available.: make sure that only one run"):
        LockedDirectory(tmp_path / "m").close()


@pytest.mark.parametrize("kind", ["alone", "run"])
def test_whoever_reads_meanwhile_sees_a_whole_checkpoint(tmp_path, kind):
    def save(value):
        model = small_language_model(tie_embeddings=bool(value % 2))
        with torch.no_grad():
            model.stack.norm.bias.fill_(value)
        tokenizer = None if value % 3 else CharTokenizer.from_text(TEXT)
        state = {"tensors": {"x": torch.tensor(float(value))}}
        run.save(value, model, tokenizer, state) if run else save_checkpoint(tmp_path / "m", model, tokenizer, state)

    run = RunDirectory(tmp_path / "m") if kind == "run" else None
    save(1)
    writer = threading.Thread(target=lambda: [save(value) for value in range(2, 40)])
    writer.start()
    seen = []
    while writer.is_alive() or not seen:
        model, tokenizer, state = load_checkpoint(tmp_path / "m")
        value = int(model.stack.norm.bias[0])
        assert state["tensors"]["x"] == value and model.config.tie_embeddings == bool(value % 2) and (tokenizer is None) == bool(value % 3)
        seen.append(value)
    writer.join()
    assert seen == sorted(seen) and load_checkpoint(tmp_path / "m").model.stack.norm.bias[0] == 39


PEAK = """
import resource, sys, torch
from transformer_nb import load_checkpoint
load_checkpoint(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_checkpoint(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_loading_takes_the_memory_of_the_weights_once(tmp_path):
    model = LanguageModel(small_config(vocab_size=60_000, d_model=512, positions="rotary", tie_embeddings=False))
    save_checkpoint(tmp_path / "large", model)
    save_checkpoint(tmp_path / "small", small_language_model())
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", PEAK, tmp_path / "small", tmp_path / "large"], env=environment, capture_output=True, text=True, check=True)
    size = sum(p.numel() * 4 for p in model.parameters()) / 1024  # kilobytes, as the system counts
    assert size > 200_000 and int(done.stdout) < 1.2 * size


# Runs that go on.


def frozen(model):
    model.embedding.requires_grad_(False)
    return model


@pytest.mark.parametrize("change", [frozen, lambda m: m.double(), lambda m: changed(m, lambda m: m.stack.layers[0].requires_grad_(False))])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_goes_on_bit_for_bit_whatever_is_frozen(tmp_path, change, optimizer):
    ids, tokenizer, model = text_and_model(dropout=0.1)
    change(model)
    start, config = copy.deepcopy(model), short_run(optimizer=optimizer, schedule="constant")
    whole = train(model, ids, config)
    train(start, ids, replace(config, steps=5), directory=tmp_path / "run", tokenizer=tokenizer)
    resumed, _, state = load_checkpoint(tmp_path / "run")
    assert train(resumed, ids, config, resume=state).loss == whole.loss and same_weights(weights(resumed), weights(model))


def test_a_run_goes_on_where_more_is_trained_than_before(tmp_path):
    ids, tokenizer, model = text_and_model()
    train(frozen(model), ids, short_run(steps=5), directory=tmp_path / "run", tokenizer=tokenizer)
    resumed, _, state = load_checkpoint(tmp_path / "run")
    before = resumed.embedding.tokens.weight.detach().clone()
    assert train(resumed.requires_grad_(True), ids, short_run(), resume=state).steps_done == 12
    assert not resumed.embedding.tokens.weight.equal(before)


@pytest.mark.parametrize("other", [lambda m: LanguageModel(m.config), lambda m: m.bfloat16(), lambda m: changed(m, lambda m: m.stack.norm.bias.data.add_(1e-3))])
def test_a_state_is_refused_by_other_weights(tmp_path, other):
    ids, tokenizer, model = text_and_model()
    train(model, ids, short_run(steps=5), directory=tmp_path / "run", tokenizer=tokenizer)
    loaded, _, state = load_checkpoint(tmp_path / "run")
    with pytest.raises(ValueError, match="the weights of this model are not those that the training state was saved with: load both") as error:
        train(other(loaded), ids, short_run(), resume=state)
    assert one_line(error)


def test_a_state_keeps_its_precision(tmp_path):
    ids, tokenizer, model = text_and_model()
    model.bfloat16()
    ids, make = ids, lambda m: Momentum(m.parameters())
    whole = copy.deepcopy(model)
    config = TrainingConfig(steps=6, batch_size=4, device="cpu")
    history = train(whole, ids, config, optimizer=make)
    train(model, ids, replace(config, steps=3), directory=tmp_path / "run", optimizer=make)
    loaded, _, state = load_checkpoint(tmp_path / "run")
    assert train(loaded, ids, config, resume=state, optimizer=make).loss == history.loss and same_weights(weights(loaded), weights(whole))


class Momentum(torch.optim.Optimizer):
    "Remembers in float32, whatever the weights are in."

    def __init__(self, params):
        super().__init__(params, dict(lr=0.05))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p, dtype=torch.float32))
                mean.mul_(0.9).add_(p.grad.float())
                p.sub_(group["lr"] * mean)


def test_a_state_of_a_later_version_is_refused_in_one_line(tmp_path, capsys):
    from transformer_nb.__main__ import main

    (tmp_path / "text.txt").write_text(TEXT)
    run = ["train", "--data", f"{tmp_path}/text.txt", "--out", f"{tmp_path}/run", *"--steps 2 --n-layers 1 --d-model 8 --n-heads 1 --block-size 8".split()]
    assert main(run) == 0
    model, tokenizer, state = load_checkpoint(tmp_path / "run")
    state["config"]["warp"] = 9
    for path in (tmp_path / "run").iterdir():
        path.unlink() if path.is_file() else [p.unlink() for p in path.iterdir()]
    save_checkpoint(tmp_path / "later", model, tokenizer, state)
    capsys.readouterr()
    assert main([*run[:3], "--out", f"{tmp_path}/later", "--resume", "--steps", "4"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "saved with warp=9, which this version does not know" in line
    assert newest_checkpoint(tmp_path / "later") and json.loads((tmp_path / "later" / "config.json").read_text())["model"] == "LanguageModel"


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    def save(value):
        save_checkpoint(tmp_path / "m", small_language_model(), CharTokenizer.from_text("ab"[:value]), {"tensors": {"x": torch.tensor(value), "y": ROWS, "z": ROWS[1]}})

    def replaced_meanwhile(path, waiting=[2]):
        if waiting:
            save(waiting.pop())
        return CharTokenizer.load(path)

    save(1)
    monkeypatch.setattr("transformer_nb.runs.checkpoints.load_tokenizer", replaced_meanwhile)
    _, tokenizer, state = load_checkpoint(tmp_path / "m")
    assert tokenizer.vocab_size == state["tensors"]["x"] == 2 and state["tensors"]["z"].equal(ROWS[1])


ROWS = torch.arange(6.0).reshape(2, 3)
