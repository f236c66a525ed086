"""A process with one contender in it, which does what it is told and is asleep otherwise."""

import ctypes
import gc
import multiprocessing
import statistics
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from transformer_nb import count_parameters

from .contenders import CONTENDERS, SIZES, Size, flops, scatter_weights

STATUS = Path("/proc/self/status")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
ATTENTION = Size(n_layers=1, n_heads=4, d_model=128, block_size=4096, batch_size=1)


def seconds_each(
    action: Callable[[], object],
    budget: float,  # seconds to go on for
    least: int = 3,  # times, whatever that takes
) -> float:
    "The median time of an action."
    times = []
    while len(times) < least or sum(times) < budget:
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def memory(
    field: str,  # VmRSS for now, VmHWM for the most so far
) -> int:
    "Bytes of this process in memory."
    return next(1024 * int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(field))


def more_memory(
    action: Callable[[], object],
) -> int:
    "The most bytes that an action occupies at a time, beyond what is occupied before it; what it frees goes back at once."
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # left alone, glibc keeps more or less of that, as it happens
        libc.mallopt(M_MMAP_THRESHOLD, 2**16), libc.mallopt(M_TRIM_THRESHOLD, 2**16), libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = memory("VmRSS")
    action()
    return memory("VmHWM") - before


def attend(
    layer: torch.nn.Module,
    length: int,  # T
) -> None:
    "Attention over one window and its gradient."
    x = torch.randn(1, length, ATTENTION.d_model, requires_grad=True)
    layer(x, is_causal=True).sum().backward()


class Player:
    "What a worker can be told to do with its contender; all answers are seconds or bytes, so that less is better."

    def __init__(self, name: str):
        self.make = CONTENDERS[name]
        self.load("one layer")
        self.contender.train_step()  # now all that is imported and compiled on the way is there

    def load(self, size: str, precision: str = "float32", scattered: bool = False) -> int:
        "Make the contender anew; how many parameters it has."
        self.contender = None
        gc.collect()
        self.contender = self.make(SIZES[size], precision)
        if scattered:
            scatter_weights(self.contender.model)
            self.contender.model.eval()
        return count_parameters(self.contender.model)

    def write(self, use_cache: bool, n: int | None = None) -> torch.Tensor:
        "A text that fills the window, or n tokens."
        size, text = self.contender.size, self.contender.text
        return self.contender.generate(text[: size.prompt], n or size.block_size - size.prompt, use_cache)

    def train(self, budget: float) -> float:
        "Seconds for a training step."
        self.contender.train_step()
        return seconds_each(self.contender.train_step, budget)

    def generate(self, use_cache: bool, budget: float) -> float:
        "Seconds for a token."
        self.write(use_cache, 2)
        size = self.contender.size
        return seconds_each(lambda: self.write(use_cache), budget, 1) / (size.block_size - size.prompt)

    def same_tokens(self) -> bool:
        "Whether the text is the same with cache as without."
        return torch.equal(self.write(True), self.write(False))

    def training_memory(self, size: str, precision: str) -> int:
        "Bytes that a model, its optimizer and three steps need at most."

        def train() -> None:
            self.load(size, precision)
            for _ in range(3):
                self.contender.train_step()

        self.contender = None
        return more_memory(train)

    def attention(self, length: int, budget: float) -> float:
        "Seconds for attention over a window, with its gradient."
        layer = self.make.attention(ATTENTION)
        attend(layer, length)
        return seconds_each(lambda: attend(layer, length), budget)

    def attention_memory(self, length: int) -> int:
        "Bytes for the same."
        layer = self.make.attention(ATTENTION)
        attend(layer, 16)
        return more_memory(lambda: attend(layer, length))


class Machine:
    "The bare machine: the same questions, answered for the matrix products alone at the best speed that it has now."

    def __init__(self, name: str):
        pass

    def load(self, size: str, precision: str = "float32", scattered: bool = False) -> int:
        "What the products are of; how many weights they have."
        self.size, self.dtype = SIZES[size], torch.bfloat16 if precision == "bf16" else torch.float32
        d_model = self.size.d_model
        shapes = [(3 * d_model, d_model), (d_model, d_model), (4 * d_model, d_model), (d_model, 4 * d_model)] * self.size.n_layers
        self.weights = [torch.randn(shape) for shape in shapes]
        return sum(weight.numel() for weight in self.weights)

    def speed(self) -> float:
        "Operations a second, of the best of three products of large square matrices."
        found = []
        for n in (1024, 1536, 2048):
            a, b = (torch.randn(n, n).to(self.dtype) for _ in range(2))
            torch.mm(a, b)
            found.append(2 * n**3 / seconds_each(lambda: torch.mm(a, b), 0.1))  # noqa: B023
        return max(found)

    def train(self, budget: float) -> float:
        "Seconds for the products of a training step."
        return flops(self.size, self.size.batch_size, self.size.block_size) / self.speed()

    def generate(self, use_cache: bool, budget: float) -> float:
        "Seconds for a token: each weight read once, or the products over the text so far."
        if not use_cache:
            lengths = range(self.size.prompt, self.size.block_size)
            return sum(flops(self.size, 1, length, backward=False) for length in lengths) / len(lengths) / self.speed()
        return seconds_each(lambda: [weight.sum() for weight in self.weights], budget)


def serve(
    connection: Connection,  # brings (what to do, with what), takes (whether it went well, the answer)
    name: str,  # a key of `CONTENDERS`, or machine
) -> None:
    "Do what is asked until nobody asks any more."
    player = None
    while True:
        try:
            task, arguments = connection.recv()
        except EOFError:
            return
        try:
            player = player or (Machine if name == "machine" else Player)(name)
            connection.send((True, getattr(player, task)(*arguments)))
        except Exception:
            connection.send((False, traceback.format_exc()))


class Worker:
    "The other end: starts the process, asks, and waits for the answer. A RuntimeError where something went wrong there."

    def __init__(self, name: str):
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, task: str, *arguments) -> float:
        self.connection.send((task, arguments))
        try:
            well, answer = self.connection.recv()
        except EOFError:
            raise RuntimeError(f"{self.name}: the process ended") from None
        if not well:
            raise RuntimeError(f"{self.name}: {answer}")
        return answer

    def close(self) -> None:
        self.connection.close()
        self.process.join()
