"Checkpoints: whole at every moment, believed only as far as they go, and a run goes on as if it had never stopped."

import json
import math
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import TEXT, TORTURE, one_line, randomize, same_weights, short_run, small_config, small_encoder_decoder, small_language_model, text_and_model, torture, weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import transformer_nb.runs.checkpoints as checkpoints
from transformer_nb.config.model import PARTS
from transformer_nb.convert.bert import BertConfig
from transformer_nb.layer_norm import LayerNorm
from transformer_nb.__main__ import main
from transformer_nb.runs.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint
from transformer_nb.runs.directory import RunDirectory, read_metrics
from transformer_nb.seq2seq.pairs import PairBatches, PairTokenizer
from transformer_nb.tokenization import BPETokenizer, CharTokenizer
from transformer_nb.training import TrainingConfig, make_trainer, train
from transformer_nb.transformer import Encoder, EncoderDecoder, LanguageModel

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the copies do nothing but files
OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link")  # that Python tells its audit hooks of
MOST_OPERATIONS = 300  # of one saving, which takes about fifty


@pytest.mark.parametrize("make", [small_language_model, small_encoder_decoder])
@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_gives_the_same_model_back(tmp_path, make, tied):
    model = randomize(make(tie_embeddings=tied))
    save_checkpoint(tmp_path / "m", model)
    loaded, tokenizer, state = load_checkpoint(tmp_path / "m")
    assert type(loaded) is type(model) and loaded.config == model.config and not loaded.training
    assert same_weights(weights(loaded), weights(model)) and tokenizer is state is None
    assert (loaded.head.weight is loaded.embedding.tokens.weight) == tied


@pytest.mark.parametrize("kind", [CharTokenizer, BPETokenizer])
def test_the_tokenizer_comes_back_with_the_model(tmp_path, kind):
    tokenizer = kind.from_text(TEXT)
    save_checkpoint(tmp_path / "m", small_language_model(), tokenizer)
    loaded = load_checkpoint(tmp_path / "m").tokenizer
    assert type(loaded) is kind and loaded.encode(TEXT).equal(tokenizer.encode(TEXT))


def test_saving_again_replaces_the_checkpoint_and_leaves_nothing_beside_it(tmp_path):
    save_checkpoint(tmp_path / "m", small_language_model(), CharTokenizer.from_text("ab"))
    second = small_language_model()
    save_checkpoint(tmp_path / "m", second)
    assert same_weights(weights(load_checkpoint(tmp_path / "m").model), weights(second))
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert load_checkpoint(tmp_path / "m").tokenizer is None  # nothing of the first is left in it


@pytest.mark.parametrize("name", ["save_file", "os.fsync"])
def test_a_full_disk_loses_nothing_that_was_whole(tmp_path, monkeypatch, name):
    first = small_language_model()
    save_checkpoint(tmp_path / "m", first)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformer_nb.runs.checkpoint_files.save_file", full) if name == "save_file" else monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device.*what was there before is unchanged") as error:
        save_checkpoint(tmp_path / "m", randomize(small_language_model()))
    assert one_line(error) and [p.name for p in tmp_path.iterdir()] == ["m"]
    assert same_weights(weights(load_checkpoint(tmp_path / "m").model), weights(first))


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    model = small_language_model()
    save_checkpoint(tmp_path / "m", model)
    with torch.no_grad():
        model.stack.layers[1].attention.out_proj.weight[0, 0] = math.inf
    with pytest.raises(FloatingPointError, match=r"stack.layers.1.attention.out_proj.weight is not finite"):
        save_checkpoint(tmp_path / "m", model)
    load_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("prepare, message", [
    (lambda p: (p / "m").write_text("a file"), "cannot write a checkpoint to"),
    (lambda p: (p / "m").mkdir() or (p / "m" / "novel.txt").write_text("..."), r"holds files that do not belong to a checkpoint \(novel.txt\)"),
])
def test_what_is_no_checkpoint_is_not_overwritten(tmp_path, prepare, message):
    prepare(tmp_path)
    with pytest.raises(OSError, match=message) as error:
        save_checkpoint(tmp_path / "m", small_language_model())
    assert one_line(error)


def test_a_directory_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OSError, match="choose another directory"):
        save_checkpoint(tmp_path / "file" / "m", small_language_model())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="Permission denied.*choose another directory"):
        save_checkpoint(tmp_path / "m", small_language_model())


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint in .*nothing: train one"):
        load_checkpoint(tmp_path / "nothing")


def damage(path, content):
    path.write_bytes(content(path.read_bytes()))


@pytest.mark.parametrize("file, content", [
    ("model.safetensors", lambda b: b[:100]),
    ("model.safetensors", lambda b: b[:-4]),
    ("model.safetensors", lambda b: b""),
    ("model.safetensors", lambda b: b"\xff" * 8 + b[8:]),
    ("config.json", lambda b: b[:20]),
    ("config.json", lambda b: b"[]"),
    ("config.json", lambda b: b"{}"),
    ("config.json", lambda b: b.replace(b"LanguageModel", b"os.system")),
    ("config.json", lambda b: b.replace(b'"d_model": 8', b'"d_model": 16')),
    ("config.json", lambda b: b.replace(b'"d_model": 8', b'"d_model": "8"')),
    ("config.json", lambda b: b.replace(b'"n_layers": 2', b'"n_layers": 3')),
    ("config.json", lambda b: b.replace(b'"d_ff"', b'"d_fff"')),
    ("tokenizer.json", lambda b: b[:5]),
    ("training.safetensors", lambda b: b[:50]),
    ("training.safetensors", lambda b: b"no tensors"),
    ("training.safetensors", lambda b: b.replace(b"steps", b'ste"s')),
])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path, file, content, shapes_unchecked):
    ids, tokenizer, model = text_and_model()
    trainer = make_trainer(model, ids, short_run())
    save_checkpoint(tmp_path / "m", model, tokenizer, trainer.state_dict())
    damage(tmp_path / "m" / file, content)
    with pytest.raises(ValueError, match="the checkpoint in .* is damaged, or was written by another program: ") as error:
        load_checkpoint(tmp_path / "m")
    assert one_line(error)


def test_nothing_in_a_checkpoint_can_execute_anything(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    save_checkpoint(tmp_path / "m", small_language_model(), None, {"tensors": {"x": torch.ones(1)}})
    for name in ("model.safetensors", "training.safetensors", "config.json"):
        whole = (tmp_path / "m" / name).read_bytes()
        torch.save(Bomb(), tmp_path / "m" / name)
        with pytest.raises(ValueError, match="damaged, or was written by another program"):
            load_checkpoint(tmp_path / "m")
        (tmp_path / "m" / name).write_bytes(whole)
    assert load_checkpoint(tmp_path / "m").training["tensors"]["x"] == 1 and not (tmp_path / "exploded").exists()


# Killed, and out of room.


def in_a_copy(moment, happen, action):
    "Run an action in a copy of this process in which something happens at the file operation of that number; its exit status."
    child = os.fork()
    if child == 0:
        status = 1
        try:
            left = [moment]

            def watch(event, _):
                if event in OPERATIONS:
                    left[0] -= 1
                    if left[0] == 0:
                        happen()

            sys.addaudithook(watch)
            action()
            status = 0 if left[0] > 0 else 2  # 2: it happened, and the action went on
        except OSError as error:
            known = ("what was there before is unchanged", "choose another directory", "the new checkpoint is whole")
            status = 3 if any(says in str(error) for says in known) else 4
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def no_room():
    raise OSError(28, "No space left on device")


def marked(value):
    model = small_language_model()
    with torch.no_grad():
        model.stack.norm.bias.fill_(value)
    return model


def mark(directory):
    loaded = load_checkpoint(directory)
    assert loaded.training["tensors"]["x"] == loaded.model.stack.norm.bias[0]  # the files of one checkpoint, not of two
    return loaded.model.stack.norm.bias[0].item()


def save_alone(path, value):
    save_checkpoint(path, marked(value), CharTokenizer.from_text(TEXT), {"tensors": {"x": torch.tensor(value)}})


def save_in_a_run(path, value):
    step = int(value)
    RunDirectory(path, step=step - 1).save(step, marked(value), CharTokenizer.from_text(TEXT), {"tensors": {"x": torch.tensor(value)}})


def save_anew(path, value):
    "A new run, which has fewer steps behind it than the one whose place it takes."
    RunDirectory(path).save(10 - int(value), marked(value), CharTokenizer.from_text(TEXT), {"tensors": {"x": torch.tensor(value)}})


@pytest.mark.parametrize("save", [save_alone, save_in_a_run, save_anew])
@pytest.mark.parametrize("happen", [die, no_room])
def test_whenever_it_ends_the_old_checkpoint_is_there_or_the_new_one(tmp_path, save, happen):
    found, path = [], tmp_path / "m"
    for number in range(1, MOST_OPERATIONS):
        for left in tmp_path.iterdir():
            shutil.rmtree(left)
        save(path, 1.0)
        status = in_a_copy(number, happen, lambda: save(path, 2.0))
        if status == 0:
            break
        assert status in ((-signal.SIGKILL,) if happen is die else (2, 3)), f"operation {number}: {status}"
        found.append(mark(path))
        assert path.is_dir() or happen is die
        save(path, 3.0)  # and whatever was left lying about is in nobody's way
        assert mark(path) == 3 and not [p.name for p in tmp_path.rglob("*.new") if p.is_dir()]
    assert status == 0, f"more than {MOST_OPERATIONS} operations"
    assert set(found) == {1.0, 2.0} and len(found) > 10 and (happen is no_room or found == sorted(found))


def old_or_new(path):
    "Which of two runs a directory holds: model, metrics and best model all of one."
    value = mark(path)
    best = load_checkpoint(path / "best").model.stack.norm.bias[0].item() if newest_checkpoint(path / "best") else None
    return value, [row["loss"] for row in read_metrics(path)], best


def run_over(path, value):
    "A run that logs, saves its best model if it is the first of two, and saves."
    run = RunDirectory(path)
    run.log(1, loss=value)
    if value != 2:
        run.save_best(marked(value), None)
    run.save(10 - int(value), marked(value), None, {"tensors": {"x": torch.tensor(value)}})
    run.log(10, loss=value)
    run.close()


@pytest.mark.parametrize("first", [1.0, 3.0])
def test_a_new_run_replaces_an_old_one_as_a_whole_whenever_it_is_killed(tmp_path, first):
    found, path = [], tmp_path / "m"
    for number in range(1, MOST_OPERATIONS, 1 if TORTURE else 5):
        shutil.rmtree(path, ignore_errors=True)
        run_over(path, first)
        whole = old_or_new(path)
        status = in_a_copy(number, die, lambda: run_over(path, 2.0))
        if status == 0:
            break
        seen = mark(path), [row["loss"] for row in read_metrics(path)]
        assert seen == whole[:2] or seen[0] == 2 and set(seen[1]) == {2.0}, number
        RunDirectory(path, step=10).close()  # it goes on: what was left in the middle is finished or removed
        assert old_or_new(path) == (whole if seen[0] == first else (2.0, seen[1], None)), number
        found.append(seen[0])
    assert status == 0 and found == sorted(found, reverse=first > 2) and set(found) == {first, 2.0} and len(found) > 8


@pytest.mark.parametrize("most", [1, 10, 100, 300, 1000, 2000, 4000])
def test_a_file_that_cannot_grow_costs_nothing_that_was_whole(tmp_path, most):
    save_alone(tmp_path / "m", 1.0)

    def save_with_little_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        save_alone(tmp_path / "m", 2.0)

    assert in_a_copy(0, die, save_with_little_room) == 3
    assert mark(tmp_path / "m") == 1 and [p.name for p in tmp_path.iterdir()] == ["m"]


def test_all_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    events, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: events.append(os.readlink(f"/proc/self/fd/{handle}")) or fsync(handle))
    monkeypatch.setattr("pathlib.Path.rename", lambda a, b: events.append((str(a), str(b))) or os.rename(a, b))
    save_alone(tmp_path / "m", 1.0)
    new, whole = tmp_path / "m" / "checkpoint.new", tmp_path / "m" / "checkpoint"
    assert {str(new / name) for name in checkpoints.CHECKPOINT_FILES} == set(events[:4])
    assert events[4:7] == [str(new), (str(new), str(whole)), str(tmp_path / "m")]


RUN = ("--save-every 3 --batch-size 4 --n-layers 1 --n-heads 2 --d-model 16 --block-size 16 --dropout 0.1"
       " --device cpu --seed 5").split()  # fmt: skip
KILLS = [  # of one run, one after the other: at the event of that number among those whose name contains these words
    (1, "tokens"),  # the text is being read
    (2, "gradient"),  # in the middle of a step, and nothing is saved yet
    (1, "half of model.safetensors"),  # in the middle of a file
    (1, "fsync run"),  # the checkpoint has its name, the directory is not on the disk
    (2, "os.mkdir step"),  # between the metrics and the checkpoint that belongs to them
    (1, "os.rename metrics.jsonl.new"),  # while it forgets the lines of steps that are to come again
    (2, "os.rename step"),  # the checkpoint is complete and has no name
    (2, "os.link"),  # half of the files are published
    (2, "os.rmdir step"),  # while an old checkpoint is removed
    (4, "optimizer"),  # in the middle of a step, after saving
    (3, "open metrics.jsonl"),  # between a checkpoint and the next metrics
]


class Runs:
    "Trainings in processes of their own, which can be killed at any event; see killing.py."

    def __init__(self, folder, *options):
        self.folder = folder
        run = [] if options[:1] in (("pairs",), ("encoder",)) else RUN
        command = [sys.executable, Path(__file__).with_name("killing.py"), self.new("warm"), *run, *options]
        environment = {**os.environ, "PYTHONPATH": str(Path(checkpoints.__file__).parents[2])}
        self.log = open(folder / "log", "w")
        self.process = subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, stderr=self.log, text=True)
        assert self.run("whole")[0] == 0, self.said()

    def new(self, name):
        (self.folder / name).mkdir()
        (self.folder / name / "text.txt").write_text(TEXT)
        return self.folder / name

    def run(self, name, number=0, word=""):
        "Begin the run of that name, or go on with it: exit status, the event at which it was killed, how many events there were."
        if not (self.folder / name).exists():
            self.new(name)
        self.process.stdin.write(json.dumps([str(self.folder / name), number, word]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline() or "[null, null, 0]")

    def kill(self, name, number, word=""):
        "Begin the run or go on with it, and see that it dies exactly there."
        status, event, count = self.run(name, number, word)
        assert (status, count) == (-signal.SIGKILL, number) and word in event, f"{number} {word!r}: {status} {self.said()}"

    def ends_as_if_never_killed(self, name):
        assert self.run(name)[0] == 0, self.said()
        models = [load_checkpoint(self.folder / n / "run") for n in ("whole", name)]
        assert same_weights(weights(models[0].model), weights(models[1].model))
        a, b = (model.training["tensors"] for model in models)
        assert a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)  # the optimizer and the random numbers too
        rows = [[(row["step"], row.get("loss"), row.get("validation_loss")) for row in read_metrics(self.folder / n / "run")] for n in ("whole", name)]
        assert rows[0] == rows[1]  # nor can it be seen in what was logged
        assert names_in(self.folder / name / "run") == names_in(self.folder / "whole" / "run")  # and nothing is left lying about

    def said(self):
        return (self.folder / "log").read_text()[-3000:]

    def close(self):
        self.process.communicate()
        self.log.close()


def names_in(directory):
    return sorted(path.relative_to(directory) for path in directory.rglob("*") if "tensorboard" not in path.parts)


@pytest.fixture
def runs(tmp_path, request):
    started = Runs(tmp_path, *request.param.split())
    yield started
    started.close()


@pytest.mark.parametrize("runs", ["--steps 30 --eval-every 5"], indirect=True)
def test_a_run_killed_again_and_again_ends_in_the_weights_of_one_that_was_not(runs):
    for number, word in KILLS:
        runs.kill("killed", number, word)
    runs.ends_as_if_never_killed("killed")


@pytest.mark.parametrize("runs", ["--steps 12 --eval-every 6"], indirect=True)
def test_a_step_that_is_measured_and_saved_is_logged_once(runs):
    runs.kill("killed", 2, "step-000009.new")  # at step 6 there is a checkpoint, then a look at the validation text
    runs.ends_as_if_never_killed("killed")


@pytest.mark.parametrize("runs", ["pairs --steps 12 --save-every 4 --eval-every 4", "encoder --steps 12 --save-every 4 --eval-every 4"], indirect=True)
def test_a_translator_or_an_encoder_that_is_killed_ends_in_the_same_weights(runs):
    for number, word in [(2, "gradient"), (1, "half of model.safetensors"), (2, "os.rename step"), (1, "os.link"), (3, "optimizer")]:
        runs.kill("killed", number, word)
    runs.ends_as_if_never_killed("killed")


@torture
@pytest.mark.parametrize("runs", ["pairs --steps 10 --save-every 4 --eval-every 5"], indirect=True)
def test_a_translator_killed_at_any_event_ends_in_the_same_weights(runs):
    status, _, events = runs.run("counted")
    assert status == 0 and events > 100
    for number in range(1, events + 1):
        runs.kill(str(number), number)
        runs.ends_as_if_never_killed(str(number))


@torture
@pytest.mark.parametrize("runs", ["--steps 1500 --eval-every 6"], indirect=True)
@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_a_hundred_times_ends_in_the_weights_of_one_that_was_not(runs, seed):
    draw = random.Random(seed)
    for _ in range(100):
        runs.kill("killed", draw.randint(1, 200))
    runs.ends_as_if_never_killed("killed")


@torture
@pytest.mark.parametrize("runs", ["--steps 10 --eval-every 5"], indirect=True)
def test_a_run_killed_at_any_event_ends_in_the_weights_of_one_that_was_not(runs):
    status, _, events = runs.run("counted")
    assert status == 0 and events > 100
    for number in range(1, events + 1):
        runs.kill(str(number), number)
        runs.ends_as_if_never_killed(str(number))


# Runs.


def test_the_newest_checkpoints_stay(tmp_path):
    ids, tokenizer, model = text_and_model()
    train(model, ids, short_run(save_every=2, keep_checkpoints=3), directory=tmp_path / "run", tokenizer=tokenizer)
    steps = sorted(checkpoints.saved_steps(tmp_path / "run"))
    assert steps == [8, 10, 12] and newest_checkpoint(tmp_path / "run").name == "step-000012"
    assert len(load_checkpoint(tmp_path / "run" / "step-000008").training["tensors"]["loss"]) == 8
    assert same_weights(weights(model), weights(load_checkpoint(tmp_path / "run").model))
    for name in checkpoints.CHECKPOINT_FILES:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "run" / "step-000012" / name).read_bytes()


def contents(directory):
    "All files, but not the lock."
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("best", [True, False])
def test_a_new_run_takes_the_place_of_an_old_one_once_it_has_saved(tmp_path, best):
    ids, tokenizer, model = text_and_model()
    train(model, ids, short_run(), directory=tmp_path / "run", tokenizer=tokenizer)
    save_checkpoint(tmp_path / "run" / "best", model)
    before, run = contents(tmp_path / "run"), RunDirectory(tmp_path / "run")
    run.log(1, loss=1.0)
    if best:
        run.save_best(marked(7.0), None)
    found = contents(tmp_path / "run")
    assert before.items() <= found.items() and newest_checkpoint(tmp_path / "run").name == "step-000012"
    assert [row["step"] for row in read_metrics(tmp_path / "run")][-1] == 12
    run.save(3, marked(5.0), tokenizer, {"tensors": {"x": torch.tensor(5.0)}})
    assert mark(tmp_path / "run") == 5 and sorted(checkpoints.saved_steps(tmp_path / "run")) == [3]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1] and (tmp_path / "run" / "best").exists() == best
    run.log(4, loss=0.5)
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 4]


def test_a_new_run_that_never_saved_leaves_the_old_one_as_it_was(tmp_path):
    ids, tokenizer, model = text_and_model()
    train(model, ids, short_run(), directory=tmp_path / "run", tokenizer=tokenizer)
    before, run = contents(tmp_path / "run"), RunDirectory(tmp_path / "run")
    run.log(1, loss=1.0)
    run.save_best(marked(7.0), None)
    run.close()
    assert contents(tmp_path / "run") == before


def test_the_metrics_say_how_it_went(tmp_path):
    ids, tokenizer, model = text_and_model()
    history = train(model, ids, short_run(grad_clip=0.0), ids[:50], directory=tmp_path / "run", tokenizer=tokenizer)
    rows = list(read_metrics(tmp_path / "run"))
    looks = {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}
    assert looks == dict(zip(history.evaluated, history.validation_loss))
    learned = [row for row in rows if "loss" in row]
    assert [row["step"] for row in learned] == [5, 10, 12]
    assert learned[1]["loss"] == pytest.approx(sum(history.loss[5:10]) / 5)
    assert all(row["tokens_per_second"] > 0 and row["gradient_norm"] > 0 and row["rate"] > 0 for row in learned)


def test_a_run_that_goes_on_forgets_what_it_said_of_the_steps_to_come(tmp_path):
    run = RunDirectory(tmp_path / "run")
    for step in (1, 2, 3):
        run.log(step, loss=float(step))
    run.close()
    assert [row["step"] for row in read_metrics(RunDirectory(tmp_path / "run", step=2).directory)] == [1, 2]


def test_a_line_that_was_being_written_does_not_count(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.log(1, loss=2.0)
    with open(run.metrics, "a") as file:
        file.write('[1]\n{"step": "x"}\n{"step": 2, "lo')
    assert list(read_metrics(tmp_path / "run")) == [{"step": 1, "loss": 2.0}]


def test_a_run_without_progress_ends_and_keeps_its_best(tmp_path):
    ids, tokenizer, model = text_and_model()
    config = short_run(steps=400, eval_every=2, patience=3, learning_rate=0.3, warmup_steps=0, schedule="constant")
    history = train(model, ids, config, ids[-60:], directory=tmp_path / "run", tokenizer=tokenizer)
    losses = history.validation_loss
    assert history.steps_done < 400 and not history.interrupted
    assert len(losses) - 1 - losses.index(min(losses)) == 3
    from transformer_nb.training import evaluate

    assert evaluate(load_checkpoint(tmp_path / "run" / "best").model, ids[-60:]) == min(losses)


# Lies.


@pytest.mark.parametrize("field, value", [
    ("vocab_size", 10**12), ("d_model", 2**40), ("n_layers", 10**9), ("d_ff", 10**12), ("block_size", 10**12), ("n_segments", 10**12),
    ("d_model", 10**400), ("block_size", 10**400), ("n_heads", 2**62),
])  # fmt: skip
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_a_configuration_that_asks_for_a_terabyte_is_refused_before_it_is_given(tmp_path, field, value, positions):
    save_checkpoint(tmp_path / "m", small_language_model(positions=positions))
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(ValueError, match="damaged, or was written by another program") as error:
        load_checkpoint(tmp_path / "m")
    assert one_line(error)


@pytest.mark.parametrize("options, message", [
    (dict(vocab_size=10**7), r"asks for \d+ weights, and the file has"),
    (dict(positions="sinusoidal", block_size=10**12), r"block_size must be below 2147483648, got 1000000000000"),
])
def test_what_is_asked_for_is_counted_first(tmp_path, options, message):
    save_checkpoint(tmp_path / "m", small_language_model(positions="sinusoidal"))
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **options}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "m")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_a_long_window_costs_no_memory_until_it_is_used(tmp_path, positions):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = small_language_model(positions=positions, block_size=10**9)
    save_checkpoint(tmp_path / "m", model)
    loaded = load_checkpoint(tmp_path / "m").model
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000  # kilobytes; all rows would take 64 GB
    ids = torch.randint(model.config.vocab_size, (1, 6))
    assert loaded(ids).equal(model.eval()(ids))


def strange_json():
    leaves = st.none() | st.booleans() | st.integers(-5, 70) | st.sampled_from([2**31, 2**63, 10**30, -1]) | st.floats() | st.text(max_size=5)
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5)


def spoil(draw, content):
    "A file that differs from the one that was written: bits, length, or a value inside of its JSON."
    how = draw(st.sampled_from(["flip", "cut", "insert", "number", "value"]))
    place = draw(st.integers(0, max(len(content) - 1, 0)))
    if how == "flip":
        return content[:place] + bytes([content[place] ^ draw(st.integers(1, 255))]) + content[place + 1 :]
    if how == "cut":
        return content[:place]
    if how == "insert":
        return content[:place] + draw(st.binary(min_size=1, max_size=9)) + content[place:]
    start = 0 if content[:1] == b"{" else 8  # safetensors: the length of the JSON comes first
    length = len(content) if not start else struct.unpack("<Q", content[:8])[0]
    if how == "number" and start:
        return struct.pack("<Q", draw(st.integers(0, 2**64 - 1) | st.integers(0, 2 * length))) + content[8:]
    inside = json.loads(content[start : start + length])
    key = draw(st.sampled_from(sorted(inside)))
    if isinstance(inside[key], dict) and inside[key] and draw(st.booleans()):
        inner = draw(st.sampled_from(sorted(inside[key])))
        inside[key] = {**inside[key], inner: draw(strange_json())}
    else:
        inside[key] = draw(strange_json())
    new = json.dumps(inside).encode()
    return (struct.pack("<Q", len(new)) if start else b"") + new + content[start + length :]


def saved_model(kind, directory):
    "Saves a model of a kind with a tokenizer and the state of a run, and returns a trainer for such models."
    ids, _, model = text_and_model()
    if kind == "language model":
        make, tokenizer = (lambda model: make_trainer(model, ids, short_run())), BPETokenizer.from_text(TEXT, 260)
    elif kind == "translator":
        tokenizer = PairTokenizer("abcdef")
        rows = tokenizer.encode(["abc", "fed", "ba", "ccc"])
        deeper = small_config(vocab_size=tokenizer.vocab_size, n_layers=3)
        model = EncoderDecoder(small_config(vocab_size=tokenizer.vocab_size, positions="sinusoidal"), deeper)
        make = lambda model: make_trainer(model, PairBatches([(rows, rows.flip(0))]), short_run())
    else:
        config = BertConfig(vocab_size=15, block_size=8, n_layers=2, n_heads=2, d_model=8)
        model, tokenizer = Encoder(config, PARTS["embedding"]["bert"](config)).bfloat16(), CharTokenizer.from_text(TEXT)
        model.embedding.requires_grad_(False)
        save_checkpoint(directory, model, tokenizer, {"tensors": {"x": torch.ones(3)}})
        return None
    trainer = make(model)
    trainer.run_steps(1)
    save_checkpoint(directory, model, tokenizer, trainer.state_dict())
    return make


@pytest.fixture(scope="module", params=["language model", "translator", "encoder"])
def spoiled(tmp_path_factory, request):
    "A directory with a checkpoint, its files as they should be, and what makes a trainer of its model."
    directory = tmp_path_factory.mktemp("fuzz") / "m"
    make = saved_model(request.param, directory)
    return directory, {path.name: path.read_bytes() for path in directory.iterdir()}, make


@settings(max_examples=500 if TORTURE else 100, suppress_health_check=[HealthCheck.differing_executors])
@given(st.data())
def test_whatever_is_in_the_files_is_loaded_or_refused_in_one_line(spoiled, data):
    directory, files, make = spoiled
    name = data.draw(st.sampled_from(sorted(files)))
    for path, content in files.items():
        (directory / path).write_bytes(content)
    (directory / name).write_bytes(spoil(data.draw, files[name]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        model, _, training = load_checkpoint(directory)
        if training is not None and make is not None:
            make(model).load_state_dict(training)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


class Doubled(LayerNorm):
    "Another norm, with the parameters of the usual one."

    def forward(self, x):
        return 2 * super().forward(x)


def test_a_model_with_a_part_that_its_configuration_does_not_make_is_not_saved(tmp_path):
    model = small_language_model()
    model.stack.norm = Doubled(8)
    with pytest.raises(ValueError, match="stack.norm of this LanguageModel is not what its configuration makes"):
        save_checkpoint(tmp_path / "m", model)
    assert not list(tmp_path.iterdir())


def test_a_part_that_has_a_name_and_a_buffer_comes_back(tmp_path, monkeypatch):
    class Named(Doubled):
        def __init__(self, d_model, eps, bias):
            super().__init__(d_model, eps, bias)
            self.register_buffer("seen", torch.zeros(3))

    monkeypatch.setitem(PARTS["norm"], "doubled", Named)
    model, ids = small_language_model(norm="doubled"), torch.randint(13, (1, 5))
    save_checkpoint(tmp_path / "m", model)
    assert load_checkpoint(tmp_path / "m").model(ids).equal(model(ids))


def test_saving_and_loading_do_not_wait_for_the_compiler(tmp_path):
    program = (
        "import sys; from transformer_nb import LanguageModel, TransformerConfig, load_checkpoint, save_checkpoint;"
        "model = LanguageModel(TransformerConfig(vocab_size=3, n_layers=1, n_heads=2, d_model=8));"
        f"save_checkpoint({str(tmp_path)!r}, model); load_checkpoint({str(tmp_path)!r});"
        "sys.exit('torch._dynamo' in sys.modules)"  # seconds to import
    )
    subprocess.run([sys.executable, "-c", program], check=True)
