"Two processes on this machine train as one does; they save, stop and fall together."

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import warnings
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from helpers import one_line, small_config

from transformer_nb.runs.batches import TrainingBatch
from transformer_nb.runs.checkpoints import load_checkpoint
from transformer_nb.runs.directory import read_metrics
from transformer_nb.runs.distributed import DistributedRun
from transformer_nb.training import TrainingConfig, make_trainer, sample_batch
from transformer_nb.transformer import LanguageModel

SHARDS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 9)  # the oldest that is known to shard on CPUs
shards = pytest.mark.skipif(not SHARDS, reason="sharding on CPUs is tested from PyTorch 2.9 on")
RUNS = {
    "plain": {},
    "parts": dict(grad_accumulation_steps=2),
    "muon": dict(optimizer="muon", grad_accumulation_steps=2),
    "sharded": dict(shard=True),
    "sharded parts": dict(shard=True, grad_accumulation_steps=2, save_every=5),
    "sharded muon": dict(shard=True, optimizer="muon"),
    "dropout": {},
    "first half": dict(steps=6, save_every=3),
    "sharded half": dict(steps=6, shard=True, optimizer="muon"),
    "dropout half": dict(steps=6, schedule="constant"),
    "dropout whole": dict(schedule="constant"),
    "masked": dict(batches="masked"),
    "masked parts": dict(batches="masked", grad_accumulation_steps=3),
    "unmasked": dict(batches="uneven", grad_accumulation_steps=2),
    "pairs": dict(batches="pairs", label_smoothing=0.1),
    "pairs parts": dict(batches="pairs", label_smoothing=0.1, grad_accumulation_steps=2),
    "sharded pairs": dict(batches="pairs", label_smoothing=0.1, shard=True, grad_accumulation_steps=3),
    "sharded pairs half": dict(batches="pairs", label_smoothing=0.1, shard=True, steps=6),
}
RUNS = {name: options for name, options in RUNS.items() if SHARDS or not options.get("shard")}
PROGRAM = """
import dataclasses, json, os, sys, torch
from pathlib import Path
from transformer_nb import CharTokenizer, EncoderDecoder, LanguageModel, TrainingConfig, TransformerConfig, load_checkpoint, train

folder, runs, found = Path(sys.argv[1]), json.loads(sys.argv[2]), {}
text = "to be or not to be, that is the question. " * 8
tokenizer = CharTokenizer.from_text(text)

def batches_of(kind):  # seven rows of windows, of which ever fewer positions count, and none in the last two
    generator, found = torch.Generator().manual_seed(int(os.environ["RANK"]) if kind == "other" else 0), []
    for _ in range(3):
        windows = tokenizer.encode(text)[torch.randint(300, (7, 1), generator=generator) + torch.arange(9)]
        mask = torch.rand(7, 8, generator=generator) < torch.linspace(1.2, 0.0, 7)[:, None]
        mask[-2:] = False
        x, y = windows[:, :-1], windows[:, 1:]
        found.append({"pairs": ((y, x, mask[:, None] | (x[:, None] > 3)), y, mask), "uneven": (x, y)}.get(kind, (x, y, mask)))
    return found

for name, options in runs.items():
    torch.manual_seed(0)
    config = TransformerConfig(tokenizer.vocab_size, block_size=8, n_layers=2, n_heads=2, d_model=8, dropout=0.3 * ("dropout" in name))
    kind, state = options.pop("batches", None), None
    deeper = TransformerConfig(tokenizer.vocab_size, block_size=8, n_layers=3, n_heads=2, d_model=8)
    model = EncoderDecoder(config, deeper) if kind == "pairs" else LanguageModel(config)
    if "from" in options:
        model, _, state = load_checkpoint(folder / options.pop("from"))
    common = dict(steps=12, batch_size=8, warmup_steps=3, schedule="constant", eval_every=4, patience=50, grad_clip=0.5, device="cpu")
    ids, looks = tokenizer.encode(text), []
    data, validation = (ids, ids[:90]) if kind is None else (batches_of(kind), batches_of(kind)[:2])
    try:
        training = TrainingConfig(**{**common, **options})
        history = train(model, data, training, validation, looks.append, folder / name, tokenizer, state)
        found[name] = {"loss": history.loss, "validation": history.validation_loss, "looks": len(looks)}
    except (FloatingPointError, ValueError) as error:
        found[name] = {"error": str(error)}
(folder / ("rank" + os.environ.get("RANK", "0"))).write_text(json.dumps(found))
"""
VICTIM = """
import os, signal, sys
import transformer_nb.__main__ as program
from transformer_nb.runs.directory import RunDirectory
from transformer_nb.runs.trainer import Trainer

what, at, signal_number, *arguments = sys.argv[1:]
owner = {"step": Trainer, "save": RunDirectory}[what]
original, calls = getattr(owner, what), []

def counted(*args, **options):
    calls.append(None)
    if len(calls) == int(at):
        os.kill(os.getpid(), int(signal_number))
    return original(*args, **options)

setattr(owner, what, counted)
sys.exit(program.main(arguments))
"""
TRAIN = "train --n-layers 1 --d-model 16 --n-heads 2 --block-size 16 --batch-size 4 --save-every 10 --eval-every 100000 --device cpu".split()


def start(size, *arguments, other=None):
    "So many processes of one run, as `torchrun` would start them; `other` has arguments of its own for one rank or several."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    of = [(other or {}).get(rank, arguments) for rank in range(size)]
    return [subprocess.Popen([sys.executable, *of[rank]], env={**common, "RANK": str(rank)}, **pipes) for rank in range(size)]


def ended(processes):
    "The exit status, the output and the complaints of each."
    try:
        spoken = [process.communicate(timeout=600) for process in processes]  # a guard: nobody waits for a time
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *said) for process, said in zip(processes, spoken)]


ABORTED_AT_EXIT = "terminate called without an active exception"  # PyTorch's threads, now and then, in a process that is done


def learn(folder, size, runs):
    "What each of so many processes found in these runs."
    again = not any(folder.iterdir())  # once, if PyTorch's threads have ended one of the processes before it was done
    results = ended(start(size, "-c", PROGRAM, str(folder), json.dumps(runs)))
    if again and any(status and ABORTED_AT_EXIT in said for status, _, said in results) and not (folder / "rank0").exists():
        shutil.rmtree(folder)
        folder.mkdir()
        results = ended(start(size, "-c", PROGRAM, str(folder), json.dumps(runs)))
    for status, _, complaints in results:
        assert status == 0 or complaints.strip() == ABORTED_AT_EXIT, complaints  # what it found is read below
    return [json.loads((folder / f"rank{rank}").read_text()) for rank in range(size)]


# One process that knows what it would do.


@pytest.mark.parametrize("environment, message", [
    ({"WORLD_SIZE": "2"}, "RANK in the environment must be a whole number of at least 0, got None: start the processes with torchrun"),
    ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 is not one of 2 processes, 0 to 1"),
    ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK in the environment must be .* got '-1'"),
    ({"WORLD_SIZE": "2", "RANK": "first"}, "RANK in the environment must be .* got 'first'"),
    ({"WORLD_SIZE": "two"}, "WORLD_SIZE in the environment must be a whole number of at least 1, got 'two'"),
    ({"WORLD_SIZE": "0"}, "WORLD_SIZE in the environment must be .* got '0'"),
    ({"WORLD_SIZE": ""}, "WORLD_SIZE in the environment must be .* got ''"),
    ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR in the environment .*: start the processes with torchrun"),
    ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "x"}, "MASTER_PORT in the environment must be .* got 'x'"),
])  # fmt: skip
def test_an_environment_that_torchrun_would_not_make_is_refused_in_one_line(monkeypatch, environment, message):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message) as error:
        make_trainer(LanguageModel(small_config()), torch.arange(30) % 13, TrainingConfig(batch_size=6, device="cpu"))
    assert one_line(error)


@pytest.mark.parametrize("batch_size, parts", [(3, 1), (6, 2)])
def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch, batch_size, parts):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    config = TrainingConfig(batch_size=batch_size, grad_accumulation_steps=parts, device="cpu")
    with pytest.raises(ValueError, match=f"divisible by 2 processes.*, got {batch_size}"):
        make_trainer(LanguageModel(small_config()), torch.arange(30) % 13, config)


def lone_process(rank=0, **fields):
    "One process of two, without the other."
    process = DistributedRun.__new__(DistributedRun)
    vars(process).update(rank=rank, size=2, seed=0, shard=False, device=torch.device("cpu"), **fields)
    return process


def test_each_process_has_rows_and_random_numbers_of_its_own():
    batch, rows, seeds = torch.arange(12).reshape(4, 3), {}, {}
    for rank, step in ((0, 0), (1, 0), (0, 1), (1, 1)):
        rows[rank, step], seeds[rank, step] = lone_process(rank).local_rows(batch), lone_process(rank).step_seed(step)
    assert torch.cat([rows[0, 1], rows[1, 1]]).equal(batch) and len(rows[0, 0]) == 2
    assert len(set(seeds.values())) == 4


def test_the_random_numbers_of_a_step_are_the_callers_again_after_it():
    model = LanguageModel(small_config(dropout=0.5))
    trainer, drawn = make_trainer(model, torch.arange(30) % 13, TrainingConfig(batch_size=6, device="cpu")), []
    model.embedding.dropout.register_forward_hook(lambda module, inputs, output: drawn.append(output == 0))
    trainer.process, trainer.compared = lone_process(rank=1, backward=lambda compute_loss, last: compute_loss()), True
    torch.manual_seed(3)
    before = torch.get_rng_state()
    trainer.gradient_norm = None
    for number in (0, 1, 0):
        trainer.step(number)
    assert torch.get_rng_state().equal(before)
    assert drawn[0].equal(drawn[2]) and not drawn[0].equal(drawn[1])  # by the number of the step
    assert len(drawn[0]) == 3


def test_only_the_last_part_of_a_batch_is_sent():
    trainer = make_trainer(LanguageModel(small_config()), torch.arange(30) % 13, TrainingConfig(batch_size=6, grad_accumulation_steps=3, device="cpu"))
    sent = []
    backward = lambda compute_loss, last: sent.append(last) or compute_loss()
    trainer.process = SimpleNamespace(backward=backward, size=1, local_rows=lambda tensor: tensor)
    x = torch.arange(48).reshape(6, 8) % 13
    trainer.backward(TrainingBatch((x,), x))
    assert sent == [False, False, True]


@pytest.fixture
def alone():
    "A process group of one, in this process: what talks to others talks to itself."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(params=[False, pytest.param(True, marks=shards)], ids=["whole", "sharded"])
def process_of_one(alone, request):
    "A run that is one process, its model, and what it is called with."
    process = lone_process()
    process.size, process.shard = 1, request.param
    model = LanguageModel(small_config())
    return process, model, process.wrap_model(model), torch.arange(16).reshape(2, 8) % 13


def test_parts_of_a_batch_are_added_up_before_they_are_sent(process_of_one):
    process, model, shared, x = process_of_one
    plain, sent = LanguageModel(small_config()), []
    plain.load_state_dict({name: process.gather_tensor(value) for name, value in model.state_dict().items()})

    def hook(_, bucket):
        sent.append(True)
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    if not process.shard:
        shared.register_comm_hook(None, hook)
    for row, last in ((0, False), (1, True)):
        process.backward(lambda: shared(x[row : row + 1]).logsumexp(-1).sum(), last=last)
        if process.shard:  # what was sent is with the parameters
            sent += [True for p in model.parameters() if p.grad is not None][:1]
        assert bool(sent) == last
    plain(x).logsumexp(-1).sum().backward()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(process.gather_tensor(p.grad), q.grad, atol=1e-5, rtol=1e-5)


def error_of(process, shared, x):
    with pytest.raises((RuntimeError, ConnectionError)) as error:
        process.backward(lambda: shared(x).float().logsumexp(-1).mean(), last=True)
    return error.value


@pytest.mark.parametrize("kind", [RuntimeError, torch.OutOfMemoryError, NotImplementedError])
def test_an_error_in_the_forward_pass_is_not_blamed_on_another(process_of_one, kind):
    process, model, shared, x = process_of_one
    model.stack.layers[1].attention.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(kind("connection closed by gloo")))
    error = error_of(process, shared, x)
    assert type(error) is kind and str(error) == "connection closed by gloo"


def test_an_error_of_torch_in_the_forward_pass_is_not_blamed_on_another(process_of_one):
    process, model, shared, x = process_of_one
    model.stack.layers[1].feed_forward.register_forward_hook(lambda module, inputs, output: output @ output[:, :3])
    assert type(error_of(process, shared, x)) is RuntimeError


def test_an_error_of_a_hook_in_the_backward_pass_is_not_blamed_on_another(process_of_one):
    process, model, shared, x = process_of_one

    def fail(gradient):
        raise RuntimeError("my own")

    model.stack.layers[1].feed_forward.register_forward_hook(lambda module, inputs, output: output.register_hook(fail) and None)
    error = error_of(process, shared, x)
    assert type(error) is RuntimeError and str(error) == "my own"


def test_an_error_in_sampling_is_not_blamed_on_another(alone):
    process = lone_process()
    process.size = 1
    trainer = make_trainer(LanguageModel(small_config()), torch.arange(30) % 13, TrainingConfig(batch_size=6, device="cpu"))
    trainer.process, trainer.forward, trainer.compared = process, process.wrap_model(trainer.model), True
    trainer.step(0)
    trainer.batches.sample = partial(sample_batch, torch.arange(3), 8, 6)  # a text shorter than a window
    with pytest.raises(RuntimeError) as error:
        trainer.step(1)
    assert not isinstance(error.value, ConnectionError)


def test_whatever_collectives_raise_is_lost_contact_and_the_error_is_named(alone):
    process, wrong = lone_process(), torch.ones(3).to(torch.float8_e5m2)  # which gloo cannot add up
    with pytest.raises(ConnectionError, match="lost contact with another process of this run .*type.*; nothing is saved yet") as error:
        process.all_reduce_mean(wrong)
    assert one_line(error) and isinstance(error.value.__cause__, RuntimeError)
    assert str(error.value.__cause__).splitlines()[0] in str(error.value)


def test_an_error_of_the_network_is_lost_contact_wherever_it_is_raised():
    with pytest.raises(ConnectionError, match=r"this run \(no route\); nothing is saved yet: start all of them again") as error, lone_process().report_lost_processes():
        raise dist.DistNetworkError("no route\nand a page more")
    assert one_line(error) and isinstance(error.value.__cause__, dist.DistNetworkError)


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, NotImplementedError])
def test_what_no_other_process_can_cause_is_not_blamed_on_one(monkeypatch, kind):
    inside = {"__name__": "torch.distributed.collectives", "kind": kind}
    exec("def all_reduce(values):\n    raise kind('in the middle of a collective')", inside)
    monkeypatch.setattr(dist, "all_reduce", inside["all_reduce"])
    with pytest.raises(kind, match="in the middle"):
        lone_process().all_reduce_mean(torch.ones(2))


def test_no_filter_of_warnings_stays(process_of_one):
    process, model, shared, x = process_of_one
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        fresh = LanguageModel(small_config())
        fresh.stack.layers[0].register_forward_hook(lambda module, inputs, output: output.view_as(output))  # of which FSDP2 warns
        shared = process.wrap_model(fresh)
        process.backward(lambda: shared(x).float().mean(), last=True)
        assert warnings.filters == before
        warnings.warn("FSDP2-wrapped module of the caller", UserWarning)
    assert [str(w.message) for w in seen] == ["FSDP2-wrapped module of the caller"]


@shards
def test_a_model_put_together_again_draws_no_random_numbers(alone):
    process = lone_process()
    process.size, process.shard = 1, True
    model = LanguageModel(small_config())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    process.wrap_model(model)
    state = torch.get_rng_state()
    whole = process.gather_model(model)
    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[name]) for name, value in whole.state_dict().items())


# Two processes.


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {size: tmp_path_factory.mktemp(f"by{size}") for size in (1, 2)}


@pytest.fixture(scope="module")
def found(folders):
    "The same runs by one process and by two, and what the two said each."
    bad = {"bad": dict(learning_rate=1e30, warmup_steps=0), "other": dict(batches="other"), "few": dict(batches="masked", grad_accumulation_steps=4)}
    return learn(folders[1], 1, RUNS)[0], *learn(folders[2], 2, {**RUNS, **bad})


def furthest(a, b):
    assert len(a) == len(b)
    return max(abs(x - y) for x, y in zip(a, b))


@pytest.mark.parametrize("name", [name for name in RUNS if "dropout" not in name])
def test_two_processes_learn_as_one_with_the_whole_batch(found, folders, name):
    alone, first, second = (runs[name] for runs in found)
    assert furthest(alone["loss"], first["loss"]) < 1e-5 and alone["loss"][-1] < alone["loss"][0]
    assert furthest(alone["validation"], first["validation"]) < 1e-5
    assert first["loss"] == second["loss"] and first["validation"] == second["validation"]
    norms = [[row["gradient_norm"] for row in read_metrics(folders[size] / name) if "gradient_norm" in row] for size in (1, 2)]
    assert furthest(*norms) < 1e-3
    models = [load_checkpoint(folders[size] / name).model for size in (1, 2)]
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=0)


def test_only_the_first_process_writes_and_reports(found, folders):
    _, first, second = found
    assert first["plain"]["looks"] == 4 and second["plain"]["looks"] == 0
    steps = [row["step"] for row in read_metrics(folders[2] / "plain") if "loss" in row]
    assert steps == sorted(set(steps)) and (folders[2] / "plain" / "best").is_dir()


def test_all_see_a_loss_that_is_no_number(found):
    _, first, second = found
    assert "lower learning_rate" in first["bad"]["error"] and first["bad"] == second["bad"]


def test_all_see_that_they_have_different_batches_or_too_few_rows(found):
    _, first, second = found
    assert first["other"] == second["other"] and first["few"] == second["few"]
    assert first["other"]["error"].startswith("the processes see different batches: give each of them the same data in the same order")
    assert first["few"]["error"].startswith("batch 1 cannot be cut into 8 parts (processes times grad_accumulation_steps): it has 7 rows")


def test_a_run_goes_on_with_another_number_of_processes(found, folders):
    alone, first, _ = found
    fewer = {"first half": {"from": "first half"}, "sharded half": {"from": "sharded half", "optimizer": "muon"}}
    fewer["sharded pairs half"] = {"from": "sharded pairs half", "batches": "pairs", "label_smoothing": 0.1}
    by_one = learn(folders[2], 1, {f"{name} by one": options for name, options in fewer.items() if name in RUNS})[0]
    assert furthest(by_one["first half by one"]["loss"], alone["plain"]["loss"]) < 1e-5
    more = {
        "dropout on": {"from": "dropout half", "schedule": "constant"},
        "more": {"from": "sharded half by one", "optimizer": "muon", "shard": True, "steps": 14},
    }
    by_two = learn(folders[2], 2, {name: options for name, options in more.items() if SHARDS or "shard" not in options})[0]
    assert by_two["dropout on"]["loss"] == first["dropout whole"]["loss"] == first["dropout"]["loss"]
    assert furthest(first["dropout"]["loss"], alone["dropout"]["loss"]) > 1e-3  # each process draws its own
    if SHARDS:
        assert furthest(by_one["sharded pairs half by one"]["loss"], alone["pairs"]["loss"]) < 1e-5
        assert furthest(by_one["sharded half by one"]["loss"], first["sharded muon"]["loss"]) < 1e-5
        assert furthest(by_two["more"]["loss"][:12], first["sharded muon"]["loss"]) < 1e-5 and len(by_two["more"]["loss"]) == 14


@pytest.mark.parametrize("victim, event, options", [
    (0, ("save", 2), []),
    (1, ("step", 25), []),
    pytest.param(0, ("step", 24), ["--shard", "--grad-accumulation-steps", "2", "--grad-clip", "1"], marks=shards),
])
def test_who_is_left_alone_says_so_in_one_line(tmp_path, victim, event, options):
    run = [*TRAIN, *options, "--steps", "60", "--out", str(tmp_path / "run")]
    dies = ["-c", VICTIM, event[0], str(event[1]), str(int(signal.SIGKILL)), *run]
    both = ended(start(2, "-m", "transformer_nb", *run, other={victim: dies}))
    assert both[victim][0] == -signal.SIGKILL
    status, output, complaints = both[1 - victim]
    (line,) = [line for line in complaints.splitlines() if line.startswith("transformer-nb")]
    assert re.fullmatch(
        r"transformer-nb: lost contact with another process of this run \(.*\S.*\);"
        rf" the last checkpoint is in {tmp_path / 'run'}: continue with --resume", line,
    )
    assert status == 2 and "Traceback" not in complaints and bool(output) == (victim == 1), complaints
    saved = 20 if event[0] == "step" else 10
    assert load_checkpoint(tmp_path / "run").training["tensors"]["loss"].shape[0] == saved


def test_ctrl_c_at_one_of_them_stops_all_after_the_same_step(tmp_path):
    run = [*TRAIN, "--steps", "60", "--out", str(tmp_path / "run")]
    interrupted = ["-c", VICTIM, "step", "15", str(int(signal.SIGINT)), *run]
    (first, output, complaints), (second, silence, _) = ended(start(2, "-m", "transformer_nb", *run, other={1: interrupted}))
    assert first == second == 0 and silence == "", complaints
    assert "the checkpoint in" in output and "Traceback" not in complaints
    assert load_checkpoint(tmp_path / "run").training["tensors"]["loss"].shape[0] == 20  # the next time that they agree


def test_one_process_loads_nothing_of_this():
    program = (
        "import sys, torch, transformer_nb as t; ids = torch.arange(40) % 5;"
        "t.train(t.LanguageModel(t.TransformerConfig(5, block_size=4, n_layers=1, n_heads=1, d_model=4)), ids, t.TrainingConfig(steps=2, batch_size=2));"
        "print('transformer_nb.runs.distributed' in sys.modules, torch.distributed.is_initialized())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "False"]
