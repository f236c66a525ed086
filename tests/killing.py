"""Training runs that die at a counted event: `python killing.py OPTIONS` trains as `transformer-nb train OPTIONS` does.

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

from transformer_nb.__main__ import main

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


def learn(folder, options):
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
