"Two processes on this machine train as one does; they save, stop and fall together."

import json
import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from helpers import needs_muon, small_config

from transformer_nb.checkpoints import load_checkpoint, read_metrics
from transformer_nb.distributed import Team
from transformer_nb.training import Trainer, TrainingConfig
from transformer_nb.transformer import LanguageModel

pytestmark = needs_muon  # half of the runs have it, and the command line has it where nothing else is said
RUNS = {
    "plain": {},
    "parts": dict(accumulate=2),
    "muon": dict(optimizer="muon", accumulate=2),
    "sharded": dict(shard=True),
    "sharded parts": dict(shard=True, accumulate=2, save_every=5),
    "sharded muon": dict(shard=True, optimizer="muon"),
    "dropout": {},
    "first half": dict(steps=6, save_every=3),
    "sharded half": dict(steps=6, shard=True, optimizer="muon"),
    "dropout half": dict(steps=6, schedule="constant"),
    "dropout whole": dict(schedule="constant"),
}
PROGRAM = """
import dataclasses, json, os, sys, torch
from pathlib import Path
from transformer_nb import CharTokenizer, LanguageModel, TrainingConfig, TransformerConfig, load_checkpoint, train

folder, runs, found = Path(sys.argv[1]), json.loads(sys.argv[2]), {}
text = "to be or not to be, that is the question. " * 8
tokenizer = CharTokenizer.from_text(text)
for name, options in runs.items():
    torch.manual_seed(0)
    config = TransformerConfig(tokenizer.vocab_size, block_size=8, n_layers=2, n_heads=2, d_model=8, dropout=0.3 * ("dropout" in name))
    model, state = LanguageModel(config), None
    if "from" in options:
        model, _, state = load_checkpoint(folder / options.pop("from"))
    common = dict(steps=12, batch_size=8, warmup_steps=3, schedule="constant", eval_every=4, patience=50, grad_clip=0.5, device="cpu")
    ids, looks = tokenizer.encode(text), []
    try:
        training = TrainingConfig(**{**common, **options})
        history = train(model, ids, training, ids[:90], looks.append, folder / name, tokenizer, state)
        found[name] = {"loss": history.loss, "validation": history.validation_loss, "looks": len(looks)}
    except FloatingPointError as error:
        found[name] = {"error": str(error)}
(folder / ("rank" + os.environ.get("RANK", "0"))).write_text(json.dumps(found))
"""
TRAIN = "train --n-layers 1 --d-model 16 --n-heads 2 --block-size 16 --batch-size 4 --save-every 10 --eval-every 100000 --device cpu".split()


def start(size, *arguments):
    "So many processes of one run, as `torchrun` would start them."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return [subprocess.Popen([sys.executable, *arguments], env={**common, "RANK": str(rank)}, **pipes) for rank in range(size)]


def ended(processes):
    "The exit status, the output and the complaints of each."
    try:
        spoken = [process.communicate(timeout=100) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *said) for process, said in zip(processes, spoken)]


def learn(folder, size, runs):
    "What each of so many processes found in these runs."
    for status, _, complaints in ended(start(size, "-c", PROGRAM, str(folder), json.dumps(runs))):
        assert status == 0, complaints
    return [json.loads((folder / f"rank{rank}").read_text()) for rank in range(size)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {size: tmp_path_factory.mktemp(f"by{size}") for size in (1, 2)}


@pytest.fixture(scope="module")
def found(folders):
    "The same runs by one process and by two, and what the two said each."
    bad = {"bad": dict(learning_rate=1e30, warmup_steps=0)}
    return learn(folders[1], 1, RUNS)[0], *learn(folders[2], 2, {**RUNS, **bad})


def furthest(a, b):
    assert len(a) == len(b)
    return max(abs(x - y) for x, y in zip(a, b))


@pytest.mark.parametrize("name", [name for name in RUNS if "dropout" not in name])
def test_two_processes_learn_as_one_with_the_whole_batch(found, folders, name):
    alone, first, second = (runs[name] for runs in found)
    near = 1e-2 if "muon" in RUNS[name].values() else 1e-3  # Muon multiplies in bfloat16
    close = 1e-4 if near > 1e-3 and RUNS[name].get("shard") else 1e-5
    assert furthest(alone["loss"], first["loss"]) < close and alone["loss"][-1] < alone["loss"][0]
    assert furthest(alone["validation"], first["validation"]) < close
    assert first["loss"] == second["loss"] and first["validation"] == second["validation"]
    norms = [[row["gradient_norm"] for row in read_metrics(folders[size] / name) if "gradient_norm" in row] for size in (1, 2)]
    assert furthest(*norms) < near
    models = [load_checkpoint(folders[size] / name).model for size in (1, 2)]
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, atol=near, rtol=0)


def test_only_the_first_process_writes_and_reports(found, folders):
    _, first, second = found
    assert first["plain"]["looks"] == 4 and second["plain"]["looks"] == 0
    steps = [row["step"] for row in read_metrics(folders[2] / "plain") if "loss" in row]
    assert steps == sorted(set(steps)) and (folders[2] / "plain" / "best").is_dir()


def test_all_see_a_loss_that_is_no_number(found):
    _, first, second = found
    assert "lower learning_rate" in first["bad"]["error"] and first["bad"] == second["bad"]


def test_a_run_goes_on_with_another_number_of_processes(found, folders):
    alone, first, _ = found
    fewer = {"first half": {"from": "first half"}, "sharded half": {"from": "sharded half", "optimizer": "muon"}}
    by_one = learn(folders[2], 1, {f"{name} by one": options for name, options in fewer.items()})[0]
    assert furthest(by_one["first half by one"]["loss"], alone["plain"]["loss"]) < 1e-5
    assert furthest(by_one["sharded half by one"]["loss"], first["sharded muon"]["loss"]) < 1e-4
    more = {
        "more": {"from": "sharded half by one", "optimizer": "muon", "shard": True, "steps": 14},
        "dropout on": {"from": "dropout half", "schedule": "constant"},
    }
    by_two = learn(folders[2], 2, more)[0]
    assert furthest(by_two["more"]["loss"][:12], first["sharded muon"]["loss"]) < 1e-4 and len(by_two["more"]["loss"]) == 14
    assert by_two["dropout on"]["loss"] == first["dropout whole"]["loss"] == first["dropout"]["loss"]
    assert furthest(first["dropout"]["loss"], alone["dropout"]["loss"]) > 1e-3  # each process draws its own


def saved(folder, processes):
    "Wait until a run has saved something."
    for _ in range(600):
        if (folder / "config.json").exists():
            return
        assert all(process.poll() is None for process in processes), ended(processes)
        time.sleep(0.1)


@pytest.mark.parametrize("victim", [0, 1])
def test_who_is_left_alone_says_so_in_one_line(tmp_path, victim):
    processes = start(2, "-m", "transformer_nb", *TRAIN, "--steps", "100000", "--out", str(tmp_path / "run"))
    saved(tmp_path / "run", processes)
    processes[victim].kill()
    status, output, complaints = ended(processes)[1 - victim]
    (line,) = [line for line in complaints.splitlines() if line.startswith("transformer-nb")]
    assert line.endswith(f": another process of this run has ended; the last checkpoint is in {tmp_path / 'run'}: go on with --resume")
    assert status == 2 and "Traceback" not in complaints and bool(output) == (victim == 1), complaints
    assert load_checkpoint(tmp_path / "run").training["tensors"]["loss"].shape[0] >= 10


def test_ctrl_c_at_one_of_them_stops_all_after_the_same_step(tmp_path):
    processes = start(2, "-m", "transformer_nb", *TRAIN, "--steps", "100000", "--out", str(tmp_path / "run"))
    saved(tmp_path / "run", processes)
    processes[1].send_signal(signal.SIGINT)
    (first, output, complaints), (second, silence, _) = ended(processes)
    assert first == second == 0 and silence == "", complaints
    assert "the checkpoint in" in output and "Traceback" not in complaints
    load_checkpoint(tmp_path / "run")


def test_one_process_loads_nothing_of_this():
    program = (
        "import sys, torch, transformer_nb as t; ids = torch.arange(40) % 5;"
        "t.train(t.LanguageModel(t.TransformerConfig(5, block_size=4, n_layers=1, n_heads=1, d_model=4)), ids, t.TrainingConfig(steps=2, batch_size=2));"
        "print('transformer_nb.distributed' in sys.modules, torch.distributed.is_initialized())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("batch_size, accumulate", [(3, 1), (6, 2)])
def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch, batch_size, accumulate):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    config = TrainingConfig(batch_size=batch_size, accumulate=accumulate, device="cpu")
    with pytest.raises(ValueError, match=f"divisible by 2 processes.*, got {batch_size}"):
        Trainer(LanguageModel(small_config()), torch.arange(30) % 13, config)


def test_each_process_has_rows_and_random_numbers_of_its_own():
    batch, rows, draws = torch.arange(12).reshape(4, 3), {}, {}
    for rank, step in ((0, 0), (1, 0), (0, 1), (1, 1)):
        team = Team.__new__(Team)  # without the others
        team.rank, team.size, team.seed = rank, 2, 0
        (rows[rank, step],), draws[rank, step] = team.rows(step, batch), torch.rand(1).item()
    assert torch.cat([rows[0, 1], rows[1, 1]]).equal(batch) and len(rows[0, 0]) == 2
    assert len(set(draws.values())) == 4


def test_only_the_last_part_of_a_batch_is_sent():
    trainer = Trainer(LanguageModel(small_config()), torch.arange(30) % 13, TrainingConfig(batch_size=6, accumulate=3, device="cpu"))
    sent = []
    trainer.team = SimpleNamespace(exchange=sent.append)
    x = torch.arange(48).reshape(6, 8) % 13
    trainer.gradient(x, x)
    assert sent == [False, False, True]


def test_an_error_of_ones_own_is_not_blamed_on_another():
    with pytest.raises(RuntimeError, match="out of memory"), Team.watched():
        raise RuntimeError("out of memory")
