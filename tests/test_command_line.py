"The two commands, as a user types them."

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from transformer_nb.__main__ import main
from transformer_nb.training import TrainingConfig, load_checkpoint
from transformer_nb.transformer import TransformerConfig

TINY = "--steps 12 --eval-every 5 --batch-size 4 --n-layers 1 --n-heads 2 --d-model 16 --block-size 16 --device cpu".split()
TEXT = "to be or not to be, that is the question. " * 30


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "An empty directory to stand in, with one text."
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    "A trained run, for the tests that ask what can be done with one."
    directory = tmp_path_factory.mktemp("trained")
    (directory / "text.txt").write_text(TEXT, encoding="utf-8")
    assert main(["train", "--data", str(directory / "text.txt"), "--out", str(directory / "run"), *TINY]) == 0
    return directory / "run"


@pytest.fixture
def trained(folder, trained_once):
    "The directory to stand in, with the text and a trained run."
    shutil.copytree(trained_once, folder / "run")
    return folder


def run(capsys, *arguments):
    "Exit status, output and errors of a command."
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_trained_model_writes(folder, capsys):
    status, out, err = run(capsys, "train", "--data", "text.txt", "--out", "run", *TINY)
    assert status == 0 and "parameters" in out and "step 12 of 12" in out and "validation loss" in out
    status, out, err = run(capsys, "generate", "run", "--prompt", "to be", "--max-new-tokens", 20)
    assert status == 0 and err == "" and out.startswith("to be") and len(out) == len("to be") + 20 + 1


def test_the_same_seed_writes_the_same_text(trained, capsys):
    texts = [run(capsys, "generate", "run", "--prompt", "to", "--seed", seed)[1] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_without_data_it_reads_the_prose_of_the_series(folder, capsys):
    status, out, _ = run(capsys, "train", "--out", "run", *TINY)
    assert status == 0 and "run" in out and load_checkpoint("run").tokenizer.vocab_size > 50


def test_the_default_trains_with_muon_on_any_torch(folder, capsys, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    assert run(capsys, "train", "--data", "text.txt", "--out", "run", *TINY)[0] == 0
    assert load_checkpoint("run").training["config"]["optimizer"] == "muon"


def test_main_leaves_the_random_numbers_of_its_caller(folder, capsys, monkeypatch):
    monkeypatch.setattr("transformer_nb.__main__.generate_text", lambda *args, **options: "")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert run(capsys, "train", "--data", "text.txt", "--out", "run", *TINY, "--dropout", "0.1", "--seed", "3")[0] == 0
    assert torch.get_rng_state().equal(before)


def test_every_option_reaches_its_configuration(folder, capsys):
    options = "--preset paper --n-layers 1 --n-heads 2 --d-model 16 --block-size 8 --no-bias --norm-first --steps 2 --batch-size 2"
    run(capsys, "train", "--data", "text.txt", "--out", "run", *options.split(), "--schedule", "noam", "--device", "cpu")
    model, _, state = load_checkpoint("run")
    assert (model.config.activation, model.config.positions) == ("relu", "sinusoidal")  # of the preset
    assert (model.config.norm_first, model.config.bias, model.config.block_size) == (True, False, 8)  # of the user
    assert (state["config"]["steps"], state["config"]["schedule"]) == (2, "noam")


@pytest.mark.parametrize("command", [["train"], ["generate"]])
def test_the_help_explains_every_option(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([*command, "--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    if command == ["train"]:
        for config in (TrainingConfig, TransformerConfig):
            for name in config.__dataclass_fields__:
                assert name == "vocab_size" or "--" + name.replace("_", "-") in text
    assert "Example:" in text


def test_byte_pairs_are_an_option(folder, capsys):
    run(capsys, "train", "--data", "text.txt", "--out", "run", "--tokenizer", "bpe", "--bpe-vocab-size", 260, *TINY)
    assert load_checkpoint("run").tokenizer.vocab_size == 260


def test_a_checkpoint_is_not_overwritten_unasked(trained, capsys):
    before = (trained / "run" / "model.safetensors").read_bytes()
    status, _, err = run(capsys, "train", "--data", "text.txt", "--out", "run", *TINY, "--seed", 7)
    assert status == 2 and "--resume" in err and "--overwrite" in err
    assert (trained / "run" / "model.safetensors").read_bytes() == before
    assert run(capsys, "train", "--data", "text.txt", "--out", "run", *TINY, "--seed", 7, "--overwrite")[0] == 0
    assert (trained / "run" / "model.safetensors").read_bytes() != before


def test_a_resumed_run_goes_on_with_its_own_options(trained, capsys):
    status, out, _ = run(capsys, "train", "--data", "text.txt", "--out", "run", "--resume", "--steps", 20)
    state = load_checkpoint("run").training
    assert status == 0 and len(state["tensors"]["loss"]) == 20 and state["config"]["batch_size"] == 4
    status, _, err = run(capsys, "train", "--data", "text.txt", "--out", "run", "--resume", "--n-layers", 7)
    assert status == 2 and "n_layers=1, which cannot become 7" in err


def test_a_run_does_not_go_on_with_another_text(trained, capsys):
    (trained / "text.txt").write_text(TEXT.replace("not", "ton"))
    status, _, err = run(capsys, "train", "--data", "text.txt", "--out", "run", "--resume", "--steps", 20)
    assert status == 2 and "the text is not the one that this run began with" in err


def test_the_tokens_of_a_text_stay_beside_it_as_small_as_they_are(folder, capsys):
    run(capsys, "train", "--data", "text.txt", "--out", "run", *TINY)
    tokens = list(folder.glob("text.txt.char.*.tokens"))
    assert len(tokens) == 1 and tokens[0].stat().st_size < len(TEXT) + 1000
    before = tokens[0].stat().st_mtime_ns
    assert run(capsys, "train", "--data", "text.txt", "--out", "again", *TINY)[0] == 0
    assert tokens[0].stat().st_mtime_ns == before and list(folder.glob("*.tokens")) == tokens


def test_a_run_that_never_saved_begins_anew(folder, capsys):
    status, out, _ = run(capsys, "train", "--data", "text.txt", "--out", "run", "--resume", *TINY)
    assert status == 0 and "nothing to go on with in run yet: a new run begins" in out and load_checkpoint("run").training is not None


@pytest.mark.parametrize("arguments, message", [
    ("train --data missing.txt", "cannot read missing.txt"),
    ("train --data empty.txt", "there is no text in it"),
    ("train --data short.txt", "give a longer text or a smaller block_size"),
    ("train --data binary.txt", "is not utf-8: byte 0"),
    ("train --data text.txt --d-model 10 --n-heads 3", "d_model must be divisible by n_heads, got d_model=10 and n_heads=3"),
    ("train --data text.txt --positions compass", "positions must be one of"),
    ("train --data text.txt --device abacus", "device 'abacus' is not there"),
    ("train --data text.txt --out text.txt", "choose another directory"),
    ("train --data text.txt --out text.txt/run", "choose another directory"),
    ("generate nothing --prompt a", "no checkpoint in nothing: train one"),
    ("generate run --prompt é", "character 'é' at position 0 is not among"),
    ("generate run --prompt ''", "the prompt is empty"),
    ("generate run --prompt to --temperature -1", "temperature must be at least 0, got -1.0"),
    ("generate run --prompt to --top-k 0", "top_k must be at least 1, got 0"),
])
def test_what_goes_wrong_is_said_in_one_line(folder, capsys, request, arguments, message):
    if arguments.startswith("generate run"):
        request.getfixturevalue("trained")
    (folder / "empty.txt").write_text("")
    (folder / "short.txt").write_text("to be")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\xfa")
    status, _, err = run(capsys, *[a.replace("''", "") for a in arguments.split()])
    assert status == 2 and re.search(re.escape(message), err) and len(err.splitlines()) == 1
    assert err.startswith("transformer-nb: ")


@pytest.mark.parametrize("command", [[sys.executable, "-m", "transformer_nb"], ["transformer-nb"]])
def test_both_names_start_the_same_program(command):
    if command == ["transformer-nb"]:
        command = [os.path.join(os.path.dirname(sys.executable), "transformer-nb")]
    done = subprocess.run([*command, "generate", "nothing", "--prompt", "a"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("transformer-nb: no checkpoint in nothing")


def test_ctrl_c_leaves_a_checkpoint_and_says_so(folder):
    program = """
import os, signal, sys
from transformer_nb.__main__ import main
from transformer_nb.runs.trainer import Trainer

step = Trainer.step

def step_and_interrupt(self, number, **options):
    if number == 7:
        os.kill(os.getpid(), signal.SIGINT)
    return step(self, number, **options)

Trainer.step = step_and_interrupt
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", program, "train", "--data", "text.txt", "--out", "run", *TINY]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "stopped after step 8; the checkpoint in run is complete: go on with --resume" in done.stdout
    assert len(load_checkpoint(folder / "run").training["tensors"]["loss"]) == 8
