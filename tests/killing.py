"""Training runs that die at a counted event: `python killing.py FOLDER OPTIONS` trains as `transformer-nb train OPTIONS` does.

With `pairs` or `encoder` as the first option, it trains a translator, or a language model that attends to both sides.

Each line of standard input asks for one run: a folder with a text.txt, a number, and a word. The run kills itself at the event
of that number among the events whose name contains the word; at 0 it is never killed. The answer is a line of JSON: the exit
status, the name of the event it died at (or null), and how many of those events there were. Events are counted, never timed,
so a run dies at the same place on a fast machine and on a slow one.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import safetensors.torch
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from transformer_nb import EncoderDecoder, PairBatches, PairTokenizer, TrainingConfig, TransformerConfig, load_checkpoint, train
from transformer_nb.__main__ import main
from transformer_nb.convert.bert import BertConfig, MaskedLanguageModel
from transformer_nb.runs.checkpoints import newest_checkpoint

OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link")  # Python reports these to audit hooks
HUNG = 600  # seconds; a run takes about one, so only one that never ends is stopped by this


class Events:
    "Counts what a run does, and kills the process at the event that was asked for."

    def __init__(self, number, word, report):
        self.number, self.word, self.report, self.seen = number, word, report, 0

    def happen(self, name, before_death=lambda: None):
        if self.word not in name:
            return
        self.seen += 1
        if self.seen == self.number:
            before_death()
            self.tell(name)
            os.kill(os.getpid(), signal.SIGKILL)

    def tell(self, name):
        os.write(self.report, json.dumps([name, self.seen]).encode())

    def watch(self):
        "Make an event of every file operation (before it happens), gradient and optimizer step (after it)."

        def operation(kind, arguments):
            if kind in OPERATIONS and (kind != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                self.happen(f"{kind} {Path(str(arguments[0])).name}")

        def fsync(handle, original=os.fsync):
            self.happen(f"fsync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
            original(handle)

        def serialize_file(tensors, path, *others, original=safetensors.torch.serialize_file, **options):
            original(tensors, path, *others, **options)
            self.happen(f"half of {Path(path).name}", lambda: os.truncate(path, Path(path).stat().st_size // 2))

        def backward(*arguments, original=torch.Tensor.backward, **options):
            original(*arguments, **options)
            self.happen("gradient")

        sys.addaudithook(operation)
        os.fsync, safetensors.torch.serialize_file, torch.Tensor.backward = fsync, serialize_file, backward
        register_optimizer_step_post_hook(lambda *_: self.happen("optimizer"))


def learn_batches(folder, kind, options):
    "Trains a translator or an encoder on a few batches; goes on where there is a checkpoint."
    values = {name.removeprefix("--").replace("-", "_"): int(value) for name, value in zip(options[::2], options[1::2])}
    tokenizer, directory = PairTokenizer("abcdef"), f"{folder}/run"
    rows = [tokenizer.encode(texts) for texts in (["abc", "fed", "ba"], ["ccc", "a", "defa"])]
    sizes = dict(vocab_size=tokenizer.vocab_size, block_size=8, n_layers=1, n_heads=2, d_model=8, dropout=0.1)
    torch.manual_seed(0)
    if kind == "pairs":
        model = EncoderDecoder(TransformerConfig(**sizes, positions="sinusoidal"), TransformerConfig(**{**sizes, "n_layers": 2}, positions="sinusoidal"))
        batches = list(PairBatches([(x, x.flip(0)) for x in rows]))
    else:
        model, batches = MaskedLanguageModel(BertConfig(**sizes)), [(x.masked_fill(x == 3, 2), x) for x in rows]
    state = None
    if newest_checkpoint(directory):
        model, tokenizer, state = load_checkpoint(directory)
    config = TrainingConfig(**values, seed=5, device="cpu")
    train(model, batches, config, batches, directory=directory, tokenizer=tokenizer, resume=state)
    return 0


def learn(folder, options):
    if options[0] in ("pairs", "encoder"):
        return learn_batches(folder, options[0], [option for option in options[1:] if option != "--resume"])
    return main(["train", "--data", f"{folder}/text.txt", "--out", f"{folder}/run", *options])


def attempt(folder, options, number, word):
    "One run, in a copy of this process: its exit status, the event it died at, and the number of events."
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(HUNG)
            events = Events(number, word, writing)
            events.watch()
            status = learn(folder, options)
            events.tell(None)
        except BaseException:  # the copy must never return to the code of its parent
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as report:
        return os.waitstatus_to_exitcode(status), *json.loads(report.read() or "[null, 0]")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warm, *options = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what training prints goes elsewhere
    learn(warm, options)  # a whole run: what training imports late is imported once, before any copy is made
    for line in sys.stdin:
        folder, number, word = json.loads(line)
        print(json.dumps(attempt(folder, [*options, "--resume"], number, word)), file=answers, flush=True)
