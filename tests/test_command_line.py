"The commands, as a user types them."

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

import transformer_nb
from transformer_nb.__main__ import main
from transformer_nb.cli.options import make_parser
from transformer_nb.cli.output import Output, safe_output
from transformer_nb.config.model import PRESETS
from transformer_nb.inference.text_loss import summed_loss, text_loss
from transformer_nb.runs.checkpoints import save_checkpoint
from transformer_nb.tokenization import BPETokenizer, CharTokenizer
from transformer_nb.training import TrainingConfig, load_checkpoint
from transformer_nb.transformer import LanguageModel, TransformerConfig

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
    monkeypatch.setattr("transformer_nb.cli.train.generate_text", lambda *args, **options: "")
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


@pytest.mark.parametrize("command", [["train"], ["generate"], ["evaluate"], ["plot"]])
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
    assert run(capsys, "train", "--data", "text.txt", "--out", "run", *TINY, "--steps", 2, "--overwrite")[0] == 0
    assert {path.name for path in (trained / "run").iterdir()} == {"step-000002", "metrics.jsonl", "model.safetensors", "config.json", "tokenizer.json", "training.safetensors"}


def test_a_resumed_run_goes_on_with_its_own_options(trained, capsys):
    status, out, _ = run(capsys, "train", "--data", "text.txt", "--out", "run", "--resume", "--steps", 20)
    state = load_checkpoint("run").training
    assert status == 0 and len(state["tensors"]["loss"]) == 20 and state["config"]["batch_size"] == 4
    status, _, err = run(capsys, "train", "--data", "text.txt", "--out", "run", "--resume", "--n-layers", 7)
    assert status == 2 and "n_layers=1, which cannot become 7" in err


@pytest.mark.parametrize("options, message", [
    ("--tokenizer bpe", "the run in run has tokenizer=char, which cannot become bpe: leave out --tokenizer"),
    ("--bpe-vocab-size 300", "bpe_vocab_size=None, which cannot become 300"),
    ("--preset gpt2", "preset=modern, which cannot become gpt2"),
    ("--seed 5", "seed=0, which cannot become 5"),
    ("--positions learned", "positions=rotary, which cannot become learned"),
    ("--encoding latin-1", "the text is not the one that this run began with, which was /"),
    ("--data other.txt", "text.txt (utf-8)"),
    ("--overwrite", "--resume continues a run and --overwrite replaces it"),
])
def test_an_option_that_would_make_another_run_is_refused(trained, capsys, options, message):
    (trained / "other.txt").write_text("to be, or not")
    status, _, err = run(capsys, "train", "--out", "run", "--resume", "--steps", 20, *options.split())
    assert status == 2 and message in err and len(err.splitlines()) == 1
    assert len(load_checkpoint("run").training["tensors"]["loss"]) == 12


def test_options_that_say_what_a_run_is_are_no_hindrance(trained, capsys):
    same = "--tokenizer char --preset modern --seed 0 --block-size 16 --encoding UTF8 --data ./text.txt"
    status, out, err = run(capsys, "train", "--out", "run/", "--resume", "--steps", 14, *same.split())
    assert status == 0 and "after step 12; it began with " in out and "text.txt" in out and "step 14 of 14" in out


def test_a_run_of_byte_pairs_goes_on_with_the_size_that_was_asked_for(folder, capsys):
    options = ["--tokenizer", "bpe", "--bpe-vocab-size", 5000]  # the text has fewer pairs
    assert run(capsys, "train", "--data", "text.txt", "--out", "run", *TINY, *options)[0] == 0
    assert run(capsys, "train", "--out", "run", "--resume", "--steps", 13, *options)[0] == 0
    status, _, err = run(capsys, "train", "--out", "run", "--resume", "--steps", 14, "--bpe-vocab-size", 300)
    assert status == 2 and "bpe_vocab_size=5000, which cannot become 300" in err


@pytest.mark.parametrize("steps, says", [((), "has taken all of its 12 steps: give more with --steps 24"), (("--steps", 5), "all of its 12 steps")])
def test_a_finished_run_says_so_and_stays_as_it_is(trained, capsys, steps, says):
    before = {path: path.stat().st_mtime_ns for path in (trained / "run").rglob("*")}
    status, out, err = run(capsys, "train", "--out", "run", "--resume", *steps)
    assert status == 0 and err == "" and says in out
    assert {path: path.stat().st_mtime_ns for path in (trained / "run").rglob("*")} == before


def test_a_run_that_ended_early_says_so(folder, capsys):
    early = ["--patience", 1, "--eval-every", 1, "--learning-rate", 30, "--optimizer", "adamw", "--warmup-steps", 0, "--steps", 40]
    status, out, err = run(capsys, "train", "--data", "text.txt", "--out", "run", *TINY, *early)
    if status == 2:  # so high a rate may also explode
        pytest.skip(err)
    status, out, _ = run(capsys, "train", "--out", "run", "--resume")
    assert status == 0 and "has ended early, after step" in out and "give more with --patience" in out


def test_a_run_of_functions_goes_on_with_its_text(trained, capsys):
    "Training state of `train`, which knows only a digest of the text."
    for path in (trained / "run").rglob("training.safetensors"):
        from safetensors import safe_open
        from safetensors.torch import load_file, save_file

        with safe_open(path, "pt") as file:
            plain = dict(file.metadata())
        plain["data_digest"] = json.dumps(json.loads(json.loads(plain["data_digest"]))["digest"])
        tensors = {key: value.clone() for key, value in load_file(path).items()}
        path.unlink()
        save_file(tensors, str(path), plain)
    assert run(capsys, "train", "--data", "text.txt", "--out", "run", "--resume", "--steps", 13)[0] == 0
    status, _, err = run(capsys, "train", "--data", "text.txt", "--out", "run", "--resume", "--steps", 14, "--preset", "paper")
    assert status == 2 and "which cannot become paper" in err


def test_a_vocabulary_size_needs_the_tokenizer_that_has_one(folder, capsys):
    status, _, err = run(capsys, "train", "--data", "text.txt", "--out", "run", "--bpe-vocab-size", 300, *TINY)
    assert status == 2 and "--bpe-vocab-size is an option of --tokenizer bpe" in err and not (folder / "run").exists()


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
    assert status == 0 and "no run to resume in run yet: a new run begins" in out and load_checkpoint("run").training is not None


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
    assert done.returncode == 0 and "stopped after step 8; the checkpoint in run is complete: continue with --resume" in done.stdout
    assert len(load_checkpoint(folder / "run").training["tensors"]["loss"]) == 8


# Help.

LOADED = """
import sys
from transformer_nb.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("loaded:", *(name for name in ("torch", "numpy", "tokenizers", "matplotlib", "jaxtyping", "tqdm") if name in sys.modules))
"""


@pytest.mark.parametrize("line", ["--help", "--version", "train --help", "generate --help", "evaluate --help", "plot --help", "train --batchsize 3", "trian", ""])
def test_help_loads_no_library(line):
    done = subprocess.run([sys.executable, "-c", LOADED, *line.split()], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["loaded:"] and len(done.stdout + done.stderr) > 20


def shown_defaults(preset):
    "What the help of an option ends with in brackets, by the name of the field."
    text = make_parser(preset).commands["train"].format_help().partition("\ntraining:")[2]
    found = re.findall(r"^  --([\w-]+)(.*?)(?=^  --|\Z|^\w)", text, re.MULTILINE | re.DOTALL)
    return {name.replace("-", "_"): re.findall(r"\[([^]]*)\]", " ".join(words.split())) for name, words in found}


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_help_shows_what_a_run_gets(preset, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    shown = shown_defaults(preset)
    values = {**vars(TrainingConfig.preset(preset)), **vars(TransformerConfig.preset(preset))}
    derived = {"d_ff", "final_norm"}  # which depend on other options
    for name, value in values.items():
        if name != "vocab_size" and name not in derived and value is not None:
            expected = "yes" if value is True else "no" if value is False else str(value)
            assert expected in shown[name], name
        elif name in shown and value is None:
            assert not shown[name], name


def test_the_help_lists_the_names_that_an_option_may_have(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--preset", "paper", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "the defaults of --preset paper" in out and "[0.002]" in out
    for name in ("sinusoidal", "rotary", "rms", "grouped_query", "squared_relu", "bigram", "noam", "muon", "bf16"):
        assert name in out


@pytest.mark.parametrize("line, message", [
    ("train --batchsize 8", "there is no option --batchsize: did you mean --batch-size?"),
    ("train --learning_rate=0.1", "there is no option --learning_rate: did you mean --learning-rate?"),
    ("generate run --promt x", "did you mean --prompt?"),
    ("generate run --prompt x --topk 3", "did you mean --top-k?"),
    ("train --zzz", "there is no option --zzz; see transformer-nb train --help"),
    ("trian", "the command must be one of train, generate, evaluate, plot, got 'trian': did you mean train?"),
    ("train --preset modrn", "--preset must be one of gpt2, modern, paper, got 'modrn': did you mean modern?"),
    ("train --tokenizer bep", "--tokenizer must be one of char, bpe, got 'bep': did you mean bpe?"),
    ("train --data text.txt --positions rotry", "positions must be one of sinusoidal, learned, rotary, none"),
    ("train --data text.txt --positions rotry", "did you mean rotary?"),
    ("train --steps many", "argument --steps: invalid int value: 'many'"),
    ("train text.txt", "'text.txt' belongs to no option"),
    ("", "name a command, one of train, generate, evaluate, plot"),
    ("train --sliding-window 'x", "argument --sliding-window: invalid read_json_value value"),
])
def test_a_slip_of_the_finger_is_one_line_with_the_nearest_name(folder, capsys, line, message):
    status, out, err = run(capsys, *line.split())
    assert status == 2 and message in err and len(err.splitlines()) == 1 and out == ""


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0 and capsys.readouterr().out == f"transformer-nb {transformer_nb.__version__}\n"


# Paths.


def test_a_run_is_found_from_inside_and_by_any_other_name_of_it(trained, capsys, monkeypatch):
    (trained / "link").symlink_to(trained / "run")
    monkeypatch.setenv("HOME", str(trained))
    (trained / "run" / "inner").mkdir()
    expected = run(capsys, "generate", "run", "--prompt", "to", "--max-new-tokens", 9)[1]
    assert len(expected) == 12
    for place, name in ((".", "run/"), (".", "./run/../run"), (".", "link"), (".", "~/run"), ("run", "."), ("run", "./"), ("run/inner", ".."), (".", trained / "run")):
        monkeypatch.chdir(trained / place)
        assert run(capsys, "generate", name, "--prompt", "to", "--max-new-tokens", 9) == (0, expected, ""), (place, name)


@pytest.mark.parametrize("name", ["ü 你\n-x", "run.old", "deep/er"])
def test_a_run_may_have_any_name(folder, capsys, name):
    assert run(capsys, "train", "--data", "text.txt", f"--out={name}", *TINY)[0] == 0
    assert run(capsys, "train", f"--out={name}", "--resume", "--steps", 13)[0] == 0
    status, _, err = run(capsys, "train", "--data", "text.txt", f"--out={name}", *TINY)
    assert status == 2 and len(err.splitlines()) == 1


@pytest.mark.parametrize("line, message", [
    ("generate text.txt --prompt a", "no checkpoint in text.txt"),
    ("evaluate text.txt --data text.txt", "no checkpoint in text.txt"),
    ("evaluate run --data run", "run has no .txt, .md, .py or .ipynb files"),
    ("evaluate run --data missing.txt", "cannot read missing.txt"),
    ("evaluate run --data strange.txt", "character 'Ω' at position 3"),
    ("evaluate run --data one.txt", "needs at least 2 tokens to be predicted, got 1"),
    ("evaluate run --data text.txt --stride 17", "stride must be at most the window of 16 tokens, got 17"),
    ("evaluate run --data text.txt --stride 0", "stride must be at least 1, got 0"),
    ("evaluate run --data text.txt --encoding klingon", "unknown encoding: klingon"),
    ("plot text.txt", "no metrics.jsonl in text.txt"),
    ("evaluate run --data=", "an empty path"),
    ("train --data text.txt --out=", "an empty path"),
    ("plot run --out missing/losses.png", "cannot write missing/losses.png"),
    ("generate run --prompt to --min-p 2", "min_p must be"),
    ("generate run --prompt to --repetition-penalty 0", "repetition_penalty must be above 0"),
])
def test_what_is_no_run_or_no_text_is_said_in_one_line(trained, capsys, line, message):
    (trained / "strange.txt").write_text("to Ω", encoding="utf-8")
    (trained / "one.txt").write_text("t")
    status, out, err = run(capsys, *line.split())
    assert status == 2 and message in err and len(err.splitlines()) == 1 and out == ""


# Prompts and output.


def test_a_prompt_has_the_newlines_of_texts(folder, capsys, monkeypatch):
    (folder / "text.txt").write_bytes(b"to be\r\nor not\rto be\n" * 50)
    assert run(capsys, "train", "--data", "text.txt", "--out", "run", *TINY)[0] == 0
    written = [run(capsys, "generate", "run", "--prompt", f"be{end}or", "--max-new-tokens", 9)[1] for end in ("\n", "\r\n", "\r")]
    assert written[0] == written[1] == written[2] and written[0].startswith("be\nor")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfbe\r\nor\r\n")))
    assert run(capsys, "generate", "run", "--prompt", "-", "--max-new-tokens", 9)[1] == written[0]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"be\xff")))
    assert "standard input is not utf-8: byte 2" in run(capsys, "generate", "run", "--prompt", "-")[2]


def test_a_stop_string_ends_the_text(trained, capsys):
    whole = run(capsys, "generate", "run", "--prompt", "to", "--max-new-tokens", 60)[1].removesuffix("\n")
    stop = whole[20:22]
    out = run(capsys, "generate", "run", "--prompt", "to", "--max-new-tokens", 60, "--stop", "#", "--stop", stop)[1]
    assert out == "to" + whole[2:].partition(stop)[0] + "\n"


def test_streaming_writes_the_same_text_piece_by_piece(trained, capsys, monkeypatch):
    pieces, write = [], Output.write
    monkeypatch.setattr(Output, "write", lambda self, text: (pieces.append(text), write(self, text))[1])
    whole = run(capsys, "generate", "run", "--prompt", "to", "--max-new-tokens", 30, "--no-stream")[1]
    assert "".join(pieces) == whole and len(pieces) < 4
    pieces.clear()
    assert run(capsys, "generate", "run", "--prompt", "to", "--max-new-tokens", 30, "--stream")[1] == whole
    assert "".join(pieces) == whole and len([piece for piece in pieces if piece]) == 32
    pieces.clear()
    monkeypatch.setattr(Output, "isatty", lambda self: True)
    run(capsys, "generate", "run", "--prompt", "to", "--max-new-tokens", 30)
    assert len([piece for piece in pieces if piece]) == 32


def test_ctrl_c_while_streaming_leaves_the_text_so_far(trained, capsys, monkeypatch):
    def interrupted(*_, **__):
        yield " be"
        raise KeyboardInterrupt

    monkeypatch.setattr("transformer_nb.cli.generate.stream_text", interrupted)
    status, out, err = run(capsys, "generate", "run", "--prompt", "to", "--stream")
    assert (status, out, err) == (130, "to be\n", "transformer-nb: interrupted\n")


CHINESE = "你好世界 café " * 60


@pytest.fixture(scope="module")
def chinese(tmp_path_factory):
    "A directory with a run on Chinese text, of byte pairs, so that characters are cut."
    directory = tmp_path_factory.mktemp("chinese")
    (directory / "text.txt").write_text(CHINESE, encoding="utf-8")
    assert main(["train", "--data", str(directory / "text.txt"), "--out", str(directory / "run"), "--tokenizer", "bpe", "--bpe-vocab-size", "260", *TINY]) == 0
    return directory


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("option", ["--stream", "--no-stream"])
def test_what_the_terminal_cannot_show_is_replaced(chinese, monkeypatch, encoding, option):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stdout)
    assert main(["generate", str(chinese / "run"), "--prompt", "你好 café", "--max-new-tokens", "20", option]) == 0
    start = {"cp1252": "?? café", "ascii": "?? caf?", "utf-8": "你好 café"}[encoding]
    assert stdout.buffer.getvalue().decode(encoding).startswith(start)


def test_training_prints_what_the_terminal_cannot_show(chinese, tmp_path):
    command = [sys.executable, "-m", "transformer_nb", "train", "--data", str(chinese / "text.txt"), "--out", str(tmp_path / "你"), *TINY]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "cp1252"}, capture_output=True)
    assert done.returncode == 0 and b"the model is in " in done.stdout and done.stdout.decode("cp1252")


@pytest.mark.parametrize("command, how", [
    ("train --data {text} --out {new} --steps 12", "closed pipe"), ("train --data {text} --out {new} --steps 12", "no stderr"),
    ("generate {run} --prompt 你好 --stream", "closed pipe"), ("generate {run} --prompt 你好", "no stdout"), ("train --help", "closed pipe"),
])
def test_a_reader_who_has_gone_ends_nothing(chinese, tmp_path, command, how):
    line = command.format(text=chinese / "text.txt", run=chinese / "run", new=tmp_path / "new")
    ends = {"closed pipe": "| true", "no stdout": ">&-", "no stderr": "2>&- >/dev/null"}
    tiny = " ".join(TINY) if line.startswith("train --data") else ""
    shell = f"set -o pipefail; {sys.executable} -m transformer_nb {line} {tiny} {ends[how]}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Exception" not in done.stderr
    if "{new}" in command:
        assert len(load_checkpoint(tmp_path / "new").training["tensors"]["loss"]) == 12


def test_a_full_disk_is_an_error():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        Output(Full()).write("x")


def test_output_is_put_back(monkeypatch):
    before = sys.stdout, sys.stderr
    with safe_output():
        assert isinstance(sys.stdout, Output)
    assert (sys.stdout, sys.stderr) == before


# Evaluation.


class Uniform(nn.Module):
    "Knows nothing: all tokens are equally probable."

    def __init__(self, vocab_size, block_size=8):
        super().__init__()
        self.size, self.config = vocab_size, TransformerConfig(vocab_size, block_size)

    def forward(self, ids):
        return torch.zeros(*ids.shape, self.size)


@pytest.mark.parametrize("text", ["to be or not to be " * 20, "你好，世界🙂 café " * 20, "ab"])
def test_the_bits_per_byte_of_a_uniform_model_are_a_formula(text):
    for tokenizer in (CharTokenizer.from_text(text), BPETokenizer.from_text(text, 290)):
        found, ids = text_loss(Uniform(tokenizer.vocab_size), tokenizer, text), tokenizer.encode(text)
        first = len(text[0].encode()) if isinstance(tokenizer, CharTokenizer) else len(tokenizer.decode_bytes(ids[:1]))
        assert (found.tokens, found.bytes) == (len(ids) - 1, len(text.encode()) - first)
        assert found.loss == pytest.approx(math.log(tokenizer.vocab_size)) and found.perplexity == pytest.approx(tokenizer.vocab_size)
        assert found.bits_per_byte == pytest.approx((len(ids) - 1) * math.log2(tokenizer.vocab_size) / found.bytes)


@pytest.mark.parametrize("length", [2, 8, 9, 10, 16, 17, 30, 31])
@pytest.mark.parametrize("stride", [None, 1, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_each_token_is_predicted_once_from_what_stands_before_it(length, stride, batch_size):
    "Against a loop over tokens, each with the context that its window gives."
    torch.manual_seed(length)
    model = LanguageModel(TransformerConfig(11, block_size=8, n_layers=1, n_heads=2, d_model=8)).eval()
    ids, total, step, start = torch.randint(0, 11, (length,)), 0.0, stride or 4, 0
    with torch.no_grad():
        for target in range(1, length):
            while target > start + 8:  # the first window that reaches it
                start = min(start + step, max(length - 9, 0))
            log_p = model(ids[None, start:target])[0, -1].log_softmax(-1)
            total -= log_p[ids[target]].item()
    assert summed_loss(model, ids, stride=stride, batch_size=batch_size) == pytest.approx(total, rel=1e-5)


def test_the_command_prints_what_the_function_measures(trained, capsys):
    (trained / "new.txt").write_bytes("\ufeffto be, that is\r\nthe question".replace("\r\n", " ").encode())
    for directory in ("run", "run/step-000012"):
        status, out, err = run(capsys, "evaluate", directory, "--data", "new.txt", "--device", "cpu")
        found = text_loss(*load_checkpoint("run")[:2], "to be, that is the question")
        assert status == 0 and err == "" and f"{found.loss:.4f} nats per token" in out and f"{found.bits_per_byte:.4f}" in out
        assert "26 tokens, 26 bytes" in out
    assert not list(trained.glob("new.txt*tokens"))


def test_what_is_no_causal_model_is_not_evaluated(trained, capsys):
    model = LanguageModel(TransformerConfig(9, n_layers=1))
    model.is_causal = False
    with pytest.raises(ValueError, match="sees both sides"):
        summed_loss(model, torch.arange(9))
    save_checkpoint("bare", load_checkpoint("run").model)
    for line in ("evaluate bare --data text.txt", "generate bare --prompt to"):
        status, _, err = run(capsys, *line.split())
        assert status == 2 and "the checkpoint in bare has no tokenizer" in err
