"Any model learns from any batches: the loss is the mean over what counts, however it is cut, and a run goes on where it was."

import copy
import json
import math
import os
import platform
import random
import re
import signal
import threading
import warnings
from collections import namedtuple
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import one_line, same_weights, short_run, small_encoder_decoder, small_language_model, text_and_model, weights
from test_checkpoints import die, in_a_copy
from safetensors.torch import save_file
from test_training import random_numbers_untouched
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, LinearLR, MultiStepLR, OneCycleLR, ReduceLROnPlateau, SequentialLR, StepLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, TensorDataset

from transformer_nb.config.training import OPTIMIZERS, TrainingConfig
from transformer_nb.convert.bert import BertConfig, MaskedLanguageModel
from transformer_nb.runs.arguments import check_model
from transformer_nb.runs.batches import TrainingBatch, as_batch, batch_cross_entropy, batch_tensors, split_batch
from transformer_nb.runs.checkpoint_files import read_training
from transformer_nb.runs.checkpoints import Checkpoint
from transformer_nb.runs.loop import TrainingLoop
from transformer_nb.runs.process import random_state_of, tensor_digest
from transformer_nb.runs.sources import batch_source
from transformer_nb.runs.trainer import Trainer
from transformer_nb.training import evaluate, learning_rate, load_checkpoint, make_trainer, sample_batch, train
from transformer_nb.transformer import LanguageModel

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
V = 13


class Words(nn.Module):
    "A model without a configuration: two inputs, dropout, and a parameter that no loss depends on."

    def __init__(self):
        super().__init__()
        self.first, self.second, self.unused = nn.Embedding(V, 8), nn.Embedding(V, 8), nn.Parameter(torch.ones(3))
        self.head = nn.Linear(8, V)

    def forward(self, x, y):
        return self.head(F.dropout(self.first(x) + self.second(y), 0.2, self.training))


def masked_batches(number=5, rows=6, dtype=torch.bool):
    "Batches of which unequal parts count; in the last two rows of each, nothing does."
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(number):
        ids = torch.randint(V, (rows, 9), generator=generator)
        mask = torch.rand(rows, 8, generator=generator) < torch.linspace(0.9, 0.1, rows)[:, None]
        mask[-2:] = False
        found.append((ids[:, :-1], ids[:, 1:], mask))
    return found


def by_formula(logits, targets, mask, epsilon=0.0):
    "The loss that is promised, term by term."
    log_p = logits.log_softmax(-1)
    each = -(1 - epsilon) * log_p.gather(-1, targets[..., None])[..., 0] - epsilon * log_p.mean(-1)
    return each[mask].sum() / mask.sum()


# The loss.


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("masked", [True, False])
def test_the_loss_of_a_batch_is_the_mean_over_all_that_counts(parts, epsilon, masked):
    model = small_language_model().double()
    inputs, targets, mask = masked_batches(1)[0]
    batch = (inputs, targets, mask) if masked else (inputs, targets)
    trainer = make_trainer(model, [batch], short_run(grad_accumulation_steps=parts, label_smoothing=epsilon))
    loss = trainer.backward(trainer.next_batch(0))
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    expected = by_formula(model(inputs), targets, mask if masked else torch.ones_like(mask), epsilon)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-12)
    for ours, p in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(ours, p.grad, rtol=1e-10, atol=1e-12)


def test_the_loss_of_ids_is_computed_as_it_always_was():
    ids, _, model = text_and_model()
    trainer = make_trainer(model, ids, short_run(batch_size=6, grad_accumulation_steps=3))
    x, y = sample_batch(ids, 8, 6, torch.Generator().manual_seed(0))
    losses = [F.cross_entropy(model(a).flatten(0, 1), b.flatten()) / 3 for a, b in zip(x.chunk(3), y.chunk(3))]
    torch.stack(losses).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    assert trainer.backward(trainer.next_batch(0)).equal(torch.stack(losses).detach().sum())
    assert all(torch.allclose(a, p.grad, atol=1e-7) for a, p in zip(gradients, model.parameters()))


def test_ids_and_their_windows_as_batches_are_one_run():
    ids, _, model = text_and_model(dropout=0.1)
    start, generator = weights(model), torch.Generator().manual_seed(0)
    by_ids = train(model, ids, short_run(), ids[:49])
    first = weights(model)
    model.load_state_dict(start)
    windows = [sample_batch(ids, 8, 4, generator) for _ in range(12)]
    validation = [(ids[:48].view(6, 8), ids[1:49].view(6, 8))]
    by_batches = train(model, windows, short_run(), validation)
    assert by_ids.loss == by_batches.loss and same_weights(first, weights(model))
    assert by_batches.validation_loss == pytest.approx(by_ids.validation_loss, rel=1e-6)


def test_evaluation_weighs_each_target_the_same():
    model, batches = small_language_model().double(), masked_batches()
    terms = [(by_formula(model(x), y, m) * m.sum(), m.sum()) for x, y, m in batches]
    expected = sum(loss for loss, _ in terms) / sum(count for _, count in terms)
    assert evaluate(model.train(), batches) == pytest.approx(expected.item(), rel=1e-12) and model.training


# Where they come from.


class Rows(Dataset):
    "The rows of all batches, one at a time."

    def __init__(self):
        self.columns = [torch.cat(column) for column in zip(*masked_batches())]

    def __len__(self):
        return len(self.columns[0])

    def __getitem__(self, i):
        inputs, targets, mask = (column[i] for column in self.columns)
        return (inputs, inputs.flip(0)), targets, mask


class OwnBatches:
    "Something that can be read again and again."

    def __iter__(self):
        return (((x, x.flip(1)), y, m) for x, y, m in masked_batches())


SOURCES = {
    "list": lambda: list(OwnBatches()),
    "own class": OwnBatches,
    "iterator": lambda: iter(list(OwnBatches()) * 6),
    "loader": lambda: DataLoader(Rows(), batch_size=6),
    "rest": lambda: DataLoader(Rows(), batch_size=8),
    "seeded": lambda: DataLoader(Rows(), batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(7)),
    "shuffled": lambda: DataLoader(Rows(), batch_size=6, shuffle=True),
    "workers": lambda: DataLoader(Rows(), batch_size=6, shuffle=True, num_workers=1),
}
CONFIG = dict(steps=23, eval_every=5, save_every=4, label_smoothing=0.1)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("stop", [1, 5, 9])  # in the first epoch of five batches, at its end, in the second
def test_a_run_on_batches_that_was_stopped_and_resumed_is_the_run_that_never_stopped(name, stop):
    runs = []
    for stops in ((23,), (stop, 23 - stop)):
        torch.manual_seed(3)
        model, state = Words(), None
        for steps in stops:
            trainer = make_trainer(model, SOURCES[name](), short_run(**CONFIG))
            if state is not None:
                trainer.load_state_dict(state)
            trainer.run_steps(steps)
            state = trainer.state_dict()
            torch.rand(steps)  # whatever else the process draws
        runs.append((trainer.history.loss, weights(model), state["tensors"]))
    assert runs[0][0] == runs[1][0] and same_weights(runs[0][1], runs[1][1])
    assert same_weights(runs[0][2], runs[1][2])


def saved(folder, model_of, batches, steps, resume=False):
    "One run, or the rest of it, in a directory: its history and the model."
    torch.manual_seed(3)
    model, state = model_of(), None
    if resume:
        model, _, state = load_checkpoint(folder)
    config = short_run(**{**CONFIG, "steps": steps, "grad_accumulation_steps": 2})
    return train(model, batches(), config, list(batches())[:2], directory=folder, resume=state), model


def language_batches():
    return DataLoader(TensorDataset(*(torch.cat(column) for column in zip(*masked_batches()))), batch_size=6, shuffle=True)


def translation_batches():
    return [((x, y, m[:, None]), y, m) for x, y, m in masked_batches()]


MODELS = {
    "language model": (lambda: small_language_model(dropout=0.1), language_batches),
    "encoder-decoder": (lambda: small_encoder_decoder(dropout=0.1), translation_batches),
}
models = pytest.mark.parametrize("model_of, batches", MODELS.values(), ids=MODELS)


@models
def test_ctrl_c_ends_a_run_on_batches_after_its_step_and_it_goes_on(tmp_path, monkeypatch, model_of, batches):
    whole, model = saved(tmp_path / "whole", model_of, batches, 23)
    step = Trainer.step
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", lambda self, n, **options: (n == 6 and os.kill(os.getpid(), signal.SIGINT)) or step(self, n, **options))
        history, _ = saved(tmp_path / "run", model_of, batches, 23)
    assert history.interrupted and history.steps_done == 7
    history, resumed = saved(tmp_path / "run", model_of, batches, 23, resume=True)
    assert history.loss == whole.loss and same_weights(weights(model), weights(resumed))


@models
def test_a_killed_run_on_batches_goes_on_and_ends_in_the_same_weights(tmp_path, model_of, batches):
    whole, model = saved(tmp_path / "whole", model_of, batches, 23)
    statuses = [in_a_copy(60, die, lambda: saved(tmp_path / "run", model_of, batches, 23, resumable(tmp_path / "run"))) for _ in range(4)]
    assert statuses[:2] == [-signal.SIGKILL] * 2 and resumable(tmp_path / "run"), statuses  # at the 60th file operation, again and again
    history, resumed = saved(tmp_path / "run", model_of, batches, 23, resume=True)
    assert history.loss == whole.loss and history.validation_loss == whole.validation_loss
    assert same_weights(weights(model), weights(resumed))
    assert same_weights(load_checkpoint(tmp_path / "run").training["tensors"], load_checkpoint(tmp_path / "whole").training["tensors"])


def resumable(folder):
    try:
        return load_checkpoint(folder).training is not None
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("name", ["shuffled", "seeded", "workers"])
def test_batches_and_dropout_leave_the_random_numbers_of_the_caller(name):
    batches, model = SOURCES[name](), Words()
    with random_numbers_untouched():
        train(model, batches, short_run(**CONFIG), DataLoader(Rows(), batch_size=5, shuffle=True))


def test_what_a_model_draws_does_not_change_the_order_of_the_batches():
    seen = []
    for p in (0.0, 0.5):
        model = Words()
        model.register_forward_pre_hook(lambda module, inputs, p=p: [F.dropout(torch.ones(100), p)] and None)
        seen.append([])
        model.first.register_forward_hook(lambda module, inputs, output: seen[-1].append(inputs[0].tolist()))
        make_trainer(model, SOURCES["shuffled"](), short_run(**CONFIG)).run_steps(12)
    assert seen[0] == seen[1] and seen[0][:5] != seen[0][5:10]


def test_a_trainer_that_goes_back_takes_the_same_batches_again():
    trainer = make_trainer(Words(), SOURCES["shuffled"](), short_run(**CONFIG))
    trainer.run_steps(3)
    start, state = weights(trainer.model), copy.deepcopy(trainer.state_dict())
    trainer.run_steps(6)
    first = trainer.history.loss
    trainer.model.load_state_dict(start)
    trainer.load_state_dict(state)
    trainer.run_steps(6)
    assert trainer.history.loss == first


def test_tokens_per_second_are_targets_that_count(tmp_path):
    trainer = make_trainer(small_language_model(), masked_batches(), short_run())
    trainer.run_steps(2)
    assert trainer.targets_seen == sum(int(mask.sum()) for _, _, mask in masked_batches()[:2])


# What else there may be in a model.


def test_a_parameter_that_no_loss_depends_on_and_a_frozen_one_do_not_end_a_run():
    torch.manual_seed(3)
    model = Words()
    model.second.requires_grad_(False)
    trainer = make_trainer(model, OwnBatches(), short_run(**CONFIG))
    trainer.run_steps(3)
    again = make_trainer(model, OwnBatches(), short_run(**CONFIG))
    again.load_state_dict(trainer.state_dict())
    assert again.history.loss == trainer.history.loss and model.unused.equal(torch.ones(3))


def test_an_optimizer_of_ones_own_is_a_line_in_the_table(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "sgd", lambda model, config: [torch.optim.SGD(model.parameters(), lr=config.learning_rate, momentum=0.9)])
    config = short_run(**CONFIG, optimizer="sgd", learning_rate=0.5, warmup_steps=4)
    whole = make_trainer(small_language_model(), masked_batches(), config)
    whole.run_steps(9)
    assert whole.optimizers[0].param_groups[0]["lr"] == learning_rate(8, config) < 0.5
    first, second = (make_trainer(small_language_model(), masked_batches(), config) for _ in range(2))
    first.run_steps(4)
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.run_steps(5)
    first.run_steps(5)
    assert first.history.loss == second.history.loss


# What goes wrong.

IDS = torch.arange(24).view(3, 8) % V
GOOD = (IDS, IDS)
BAD = {
    "no tuple": (IDS, "batch 1 must be (inputs, targets) or (inputs, targets, mask), inputs a tensor or a tuple of tensors, got int64 (3, 8)"),
    "a dictionary": ({"input_ids": IDS}, "batch 1 must be .* got dict with 'input_ids'"),
    "four things": ((IDS, IDS, IDS > 0, IDS), "batch 1 must be .* got (int64 (3, 8), int64 (3, 8), bool (3, 8), int64 (3, 8))"),
    "a list of lists": ((IDS.tolist(), IDS), "batch 1 must be .* got (.*, int64 (3, 8))"),
    "no inputs": (((), IDS), "batch 1 must be .* got ((), int64 (3, 8))"),
    "targets of another kind": ((IDS, IDS.float()), "the targets of batch 1 must be token ids (B, T), got float32 (3, 8)"),
    "targets of one text": ((IDS, IDS[0]), "the targets of batch 1 must be token ids (B, T), got int64 (8,); a DataLoader makes batches of single examples"),
    "a mask of numbers": ((IDS, IDS, IDS), "the mask of batch 1 must be boolean and of the shape of its targets (3, 8), got int64 (3, 8)"),
    "a mask of another shape": ((IDS, IDS, IDS[:, :1] > 0), "the mask of batch 1 must be boolean and of the shape of its targets (3, 8), got bool (3, 1)"),
    "nothing counts": ((IDS, IDS, IDS < 0), "batch 1 has no target that counts in its mask: at least one target has to count"),
    "empty": ((IDS[:0], IDS[:0]), "batch 1 is empty: at least one target has to count"),
    "negative": ((IDS, IDS - 5), "batch 1 has a target of -5: mark positions that do not count by -100, or by a mask, (inputs, targets, mask)"),
    "targets that do not fit": ((IDS, IDS[:, 1:]), "for targets of shape (3, 7) the model must return logits (B, T, V) with the same B and T, got float32 (3, 8, 13)"),
}


def the_error(*arguments, **options):
    model = small_language_model()
    before = weights(model)
    with pytest.raises(ValueError) as error:
        train(model, *arguments, **options)
    assert one_line(error) and same_weights(before, weights(model))
    return str(error.value)


def matches(said, message):
    "Whether a line is the message, in which `.*` stands for anything."
    begin, star, end = message.partition(".*")
    return said == message if not star else said.startswith(begin) and said.endswith(end.lstrip(".*"))


@pytest.mark.parametrize("batch, message", BAD.values(), ids=BAD)
def test_a_batch_that_is_none_is_refused_in_one_line(batch, message, shapes_unchecked):
    said = the_error([batch], short_run())
    assert matches(said, message) or message.count(".*") > 1 and said.startswith(message.split(".*")[0]) and said.endswith(message.split(".*")[-1]), said


@pytest.mark.parametrize("batches, steps, message", [
    ([], 3, "there is no batch in the iterable: give a list, a DataLoader, or another iterable with batches"),
    (7, 3, "give token ids as a tensor, or an iterable of batches, got int"),
])  # fmt: skip
def test_batches_that_end_are_refused_in_one_line(batches, steps, message, shapes_unchecked):
    model = small_language_model()
    with pytest.raises(ValueError) as error:
        train(model, batches, short_run(steps=steps))
    assert one_line(error) and str(error.value).startswith(message)


def test_an_iterator_with_enough_batches_is_enough():
    assert train(small_language_model(), iter([GOOD] * 3), short_run(steps=3)).steps_done == 3


@pytest.mark.parametrize("batch, parts", [
    ((IDS, IDS), 4),  # too few rows
    (((IDS, torch.ones(1, 8)), IDS), 2),  # another first axis
    (((IDS, torch.tensor(0.5)), IDS), 2),  # none at all
])  # fmt: skip
def test_a_batch_that_cannot_be_cut_is_refused(batch, parts):
    said = the_error([batch], short_run(grad_accumulation_steps=parts))
    assert said.startswith(f"batch 1 cannot be cut into {parts} parts (processes times grad_accumulation_steps): it has 3 rows")


def test_what_is_not_cut_may_have_any_shape():
    model = nn.ModuleDict({"words": nn.Embedding(V, V)})
    model.forward = lambda ids, scale: model["words"](ids) * scale
    assert train(model, [((IDS, torch.tensor(0.5)), IDS)], short_run(steps=2)).steps_done == 2


def test_validation_batches_must_be_readable_again():
    assert the_error([GOOD], short_run(), iter([GOOD])).startswith("validation batches are read at each evaluation, and a list_iterator")
    with pytest.raises(ValueError, match="there is no batch to evaluate on"):
        evaluate(small_language_model(), [])


def test_a_model_that_cannot_be_saved_is_refused_before_the_first_step(tmp_path):
    model, steps = Words(), []
    model.register_forward_hook(lambda *_: steps.append(1))
    with pytest.raises(ValueError, match="a checkpoint can hold one of LanguageModel, .* got Words: add its class to MODELS") as error:
        train(model, OwnBatches(), short_run(), directory=tmp_path / "run")
    assert one_line(error) and not steps and not (tmp_path / "run").exists()
    changed = small_language_model()
    changed.stack.layers[1].feed_forward = nn.Linear(8, 8)
    with pytest.raises(ValueError, match="stack.layers.1.feed_forward.* is not what its configuration makes"):
        train(changed, [GOOD], short_run(), directory=tmp_path / "run")
    assert train(Words(), OwnBatches(), short_run()).steps_done == 12  # and without a directory it learns


def test_a_run_on_ids_does_not_go_on_with_batches_nor_the_other_way_round():
    ids, _, model = text_and_model()
    by_ids, by_batches = make_trainer(model, ids, short_run()), make_trainer(model, [GOOD], short_run())
    for trainer in (by_ids, by_batches):
        trainer.run_steps(1)
    with pytest.raises(ValueError, match="this run began on token ids: give them"):
        by_batches.load_state_dict(by_ids.state_dict())
    with pytest.raises(ValueError, match="this run began on batches: give them"):
        by_ids.load_state_dict(by_batches.state_dict())


def test_a_model_that_sees_both_sides_learns_from_batches_and_can_be_saved(tmp_path):
    torch.manual_seed(0)
    model = MaskedLanguageModel(BertConfig(V + 1, block_size=8, n_layers=1, n_heads=2, d_model=16, dropout=0.0))
    hidden = [(x.masked_fill(mask, V), x, mask) for x, _, mask in masked_batches()]  # guess what stood there
    history = train(model, hidden, short_run(steps=60, warmup_steps=5, learning_rate=1e-2), hidden, directory=tmp_path / "run")
    assert history.validation_loss[-1] < history.validation_loss[0] - 0.2
    assert evaluate(load_checkpoint(tmp_path / "run").model, hidden) == history.validation_loss[-1]


# Parts and digests.


def test_parts_put_together_are_the_batch():
    batch = as_batch(masked_batches(1)[0], 1)
    for parts in range(1, 7):
        found = split_batch(batch, parts)
        assert len(found) == parts and torch.cat([part.targets for part in found]).equal(batch.targets)
        assert torch.cat([part.inputs[0] for part in found]).equal(batch.inputs[0]) and torch.cat([part.mask for part in found]).equal(batch.mask)
        assert max(len(p.targets) for p in found) - min(len(p.targets) for p in found) <= 1


def test_a_digest_sees_every_bit_shape_and_type():
    x = torch.zeros(2, 4)
    batches = [TrainingBatch((x,), IDS), TrainingBatch((x.view(4, 2),), IDS), TrainingBatch((x.to(torch.int32),), IDS), TrainingBatch((x, x), IDS), TrainingBatch((x,), IDS, IDS > 0)]
    batches += [TrainingBatch((x + 1e-45,), IDS), TrainingBatch((x,), IDS.flip(0)), TrainingBatch((x,), IDS, IDS > 1), TrainingBatch((x.bfloat16(),), IDS), TrainingBatch((torch.tensor(0.0),), IDS)]
    digests = [tensor_digest(batch_tensors(batch)) for batch in batches]
    assert len(set(digests)) == len(digests) and all(0 <= digest < 2**63 for digest in digests)
    assert tensor_digest(batch_tensors(TrainingBatch((x.T.contiguous().T,), IDS.clone()))) == digests[0]


def test_logits_in_half_precision_are_summed_in_float32_and_float64_stays():
    batch, logits = TrainingBatch((IDS,), IDS), torch.randn(3, 8, V)
    assert batch_cross_entropy(logits.bfloat16(), batch).dtype == torch.float32 and batch_cross_entropy(logits.double(), batch).dtype == torch.float64
    assert math.isclose(batch_cross_entropy(logits, batch), batch_cross_entropy(logits, batch, "sum") / 24, rel_tol=1e-6)


def test_the_second_epoch_is_read_from_the_beginning():
    source = batch_source([GOOD, (IDS + 1, IDS)], seed=0)
    assert [source.next_batch().inputs[0][0, 0].item() for _ in range(5)] == [0, 1, 0, 1, 0]


def test_a_language_model_with_padded_texts_learns_from_what_counts():
    torch.manual_seed(0)
    model = small_language_model()
    train(model, masked_batches(1), short_run(steps=60, learning_rate=1e-2))
    (x, y, mask), = masked_batches(1)
    right = model.eval()(x).argmax(-1) == y
    assert isinstance(model, LanguageModel) and right[mask].float().mean() > right[~mask].float().mean() + 0.3


# Any module, any form of token ids, and PyTorch's own optimizers, schedulers and callbacks.


class OwnModel(nn.Module):
    "A module without a configuration that returns logits, or what a function makes of them."

    def __init__(self, wrap=lambda logits: logits, vocab_size=V):
        super().__init__()
        self.tokens, self.dropout, self.head, self.wrap = nn.Embedding(vocab_size, 8), nn.Dropout(0.2), nn.Linear(8, vocab_size), wrap

    def forward(self, ids, scale=1.0):
        return self.wrap(self.head(self.dropout(self.tokens(ids))) * scale)


TEXT_IDS = torch.randint(V, (203,), generator=torch.Generator().manual_seed(4))
OUTPUTS = {
    "tuple": lambda logits: (logits, None),
    "list": lambda logits: [logits],
    "dictionary": lambda logits: {"logits": logits, "loss": None},
    "attribute": lambda logits: SimpleNamespace(logits=logits, loss=None),
    "named tuple": namedtuple("Output", "loss logits"),
}
OUTPUTS["named tuple"] = partial(OUTPUTS["named tuple"], None)


def own_run(model, ids=TEXT_IDS, validation=TEXT_IDS[:60], **options):
    "Loss and validation loss of a short run of a model that started with the same weights."
    torch.manual_seed(3)
    config = TrainingConfig(steps=6, batch_size=4, eval_every=3, warmup_steps=2, device="cpu")
    history = train(model(), ids, config, validation, block_size=8, **options)
    return history.loss, history.validation_loss


@pytest.mark.parametrize("wrap", OUTPUTS.values(), ids=OUTPUTS)
def test_logits_are_found_in_what_a_model_returns(wrap):
    assert own_run(lambda: OwnModel(wrap)) == own_run(OwnModel)


WRAPPERS = {
    "averaged": AveragedModel,
    "data parallel": nn.DataParallel,
    "compiled": partial(torch.compile, backend="eager"),
    "both": lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_model_learns_is_saved_and_goes_on_as_the_model_inside(tmp_path, wrap, shapes_unchecked):
    ids, _, model = text_and_model(dropout=0.1, n_layers=1)
    start = weights(model)
    whole = train(model, ids, short_run(), ids[:50])
    expected = weights(model)
    model.load_state_dict(start)
    wrapped = wrap(model)
    train(wrapped, ids, short_run(steps=5), ids[:50], directory=tmp_path / "run")
    inside, _, state = load_checkpoint(tmp_path / "run")
    wrapped = wrap(inside)
    assert train(wrapped, ids, short_run(), ids[:50], resume=state).loss == whole.loss
    inside = check_model(wrapped)
    assert same_weights(weights(inside), expected) and evaluate(wrapped, ids) == evaluate(inside, ids)


FORMS = {
    "list": lambda ids: ids.tolist(),
    "tuple": lambda ids: tuple(ids.tolist()),
    "uint8": lambda ids: ids.to(torch.uint8),
    "int32": lambda ids: ids.int(),
    "array": lambda ids: ids.numpy(),
    "uint16 array": lambda ids: ids.numpy().astype(np.uint16),
    "read-only array": lambda ids: np.frombuffer(ids.numpy().tobytes(), np.int64),
    "strided": lambda ids: ids.repeat_interleave(2)[::2],
    "reversed array": lambda ids: ids.flip(0).numpy()[::-1],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_token_ids_of_any_form_give_the_same_run(form):
    ids = form(TEXT_IDS)
    assert own_run(OwnModel, ids, ids[:60]) == own_run(OwnModel)
    assert evaluate(OwnModel(), ids[:1] + ids[:1] if isinstance(ids, (list, tuple)) else ids[:2], block_size=8) > 0


REFUSED = {  # what is handed over -> the line
    "no block_size": (lambda: train(OwnModel(), TEXT_IDS, short_run()), "OwnModel has no config.block_size: give block_size, the number of tokens"),
    "no block_size to evaluate": (lambda: evaluate(OwnModel(), TEXT_IDS), "OwnModel has no config.block_size: give block_size"),
    "a block_size of 0": (lambda: evaluate(OwnModel(), TEXT_IDS, block_size=0), "block_size must be a whole number of at least 1, got 0"),
    "text": (lambda: train(small_language_model(), "to be", short_run()), "train and evaluate take token ids, got str: encode the text"),
    "a matrix": (lambda: evaluate(small_language_model(), TEXT_IDS.view(7, 29)), "token ids must be one sequence (T,) of integers, got int64 (7, 29)"),
    "decimals": (lambda: evaluate(small_language_model(), [1.5, 2.5]), "token ids must be one sequence (T,) of integers, got an array of float64 (2,)"),
    "one number": (lambda: evaluate(small_language_model(), torch.tensor(3)), "token ids must be one sequence (T,) of integers, got int64 ()"),
    "another vocabulary": (lambda: train(small_language_model(), TEXT_IDS + 1, short_run()), "the token ids are 1 to 13, and the model has 13 tokens, 0 to 12: was"),
    "negative": (lambda: evaluate(small_language_model(), TEXT_IDS - 1), "the token ids are -1 to 11, and the model has 13 tokens"),
    "validation of another vocabulary": (lambda: train(small_language_model(), TEXT_IDS, short_run(), TEXT_IDS + 1), "the token ids are 1 to 13"),
    "no validation text": (lambda: train(small_language_model(), TEXT_IDS, short_run(), TEXT_IDS[:1]), "a text needs at least 2 tokens to be predicted, got 1"),
    "no windows at a time": (lambda: evaluate(small_language_model(), TEXT_IDS, 0), "batch_size must be at least 1, got 0"),
    "a class": (lambda: train(OwnModel, TEXT_IDS, short_run()), "the model must be an nn.Module, got the class OwnModel: give an instance"),
    "a function": (lambda: evaluate(lambda ids: ids, TEXT_IDS), "the model must be an nn.Module, got function"),
    "meta": (lambda: train(OwnModel().to("meta"), TEXT_IDS, short_run(), block_size=8), "the model is on the meta device and has no weights"),
    "frozen": (lambda: train(OwnModel().requires_grad_(False), TEXT_IDS, short_run(), block_size=8), "there is nothing to train, every parameter of the model is frozen"),
    "no parameters": (lambda: train(nn.ReLU(), [GOOD], short_run()), "there is nothing to train, no parameters"),
    "no gradients": (lambda: torch.no_grad()(train)(OwnModel(), [GOOD], short_run()), "gradients are switched off: call train outside of torch.no_grad()"),
    "inference": (lambda: train(torch.inference_mode()(lambda: OwnModel())(), [GOOD], short_run()), "the model was made in torch.inference_mode()"),
    "two texts": (lambda: train(small_encoder_decoder(), TEXT_IDS, short_run()), "EncoderDecoder is called with source, target: give batches ((source, target), targets)"),
    "another config": (lambda: train(OwnModel(), [GOOD], small_language_model().config), "config must be a TrainingConfig, got TransformerConfig"),
    "too few logits": (lambda: train(OwnModel(vocab_size=V - 1), [(IDS.clamp(max=V - 2), IDS)], short_run()), "a target is 12, and the model returns logits for 12 tokens"),
    "no function": (lambda: train(OwnModel(), [GOOD], short_run(), on_step=3), "on_step must be a function of the history, got int"),
    "an answer": (lambda: train(OwnModel(), [GOOD], short_run(), on_evaluate=lambda history: 3), "on_evaluate must return None, or True to end the run, got int"),
    "a checkpoint": (lambda: train(OwnModel(), [GOOD], short_run(), resume=Checkpoint(None, None, None)), "resume must be a checkpoint with a training state, or that state, got a checkpoint without one"),
    "a directory": (lambda: train(OwnModel(), [GOOD], short_run(), resume="runs"), "resume must be a checkpoint with a training state, or that state, got str"),
    "vectors": (lambda: train(small_encoder_decoder().encoder, TEXT_IDS, short_run(), block_size=8), "Encoder turns vectors into vectors: give a model with an embedding and a head"),
    "an optimizer class": (lambda: train(OwnModel(), [GOOD], short_run(), optimizer=torch.optim.SGD), "optimizer must be a torch.optim.Optimizer, a list of them, or a function"),
    "another model's optimizer": (lambda: train(OwnModel(), [GOOD], short_run(), optimizer=torch.optim.SGD(OwnModel().parameters())), "the optimizer holds parameters that are not of this model"),
    "a closure": (lambda: train(OwnModel(), [GOOD], short_run(), optimizer=lambda model: torch.optim.LBFGS(model.parameters())), "LBFGS computes the loss several times in a step"),
    "an option without effect": (lambda: train(OwnModel(), [GOOD], short_run(beta2=0.9), optimizer=sgd), "beta2=0.9 has no effect where optimizer is given"),
    "a warm-up without effect": (lambda: train(OwnModel(), [GOOD], short_run(warmup_steps=5), scheduler=lambda o: StepLR(o, 3)), "warmup_steps=5 has no effect where scheduler is given"),
    "smoothing without effect": (lambda: train(OwnModel(), [GOOD], short_run(label_smoothing=0.1), loss=lambda z, y: z.mean()), "label_smoothing=0.1 has no effect where loss is given"),
    "another optimizer's scheduler": (lambda: train(OwnModel(), [GOOD], short_run(), scheduler=StepLR(sgd(OwnModel()), 3)), "the scheduler belongs to another optimizer"),
    "a scheduler class": (lambda: train(OwnModel(), [GOOD], short_run(), scheduler=StepLR), "scheduler must be one of torch.optim.lr_scheduler, or a function"),
    "too few steps": (lambda: train(OwnModel(), [GOOD], short_run(), scheduler=lambda o: OneCycleLR(o, 0.1, total_steps=5)), "OneCycleLR ends after total_steps=5, and the run has 12 steps"),
    "a plateau of nothing": (lambda: train(OwnModel(), [GOOD], short_run(), scheduler=lambda o: ReduceLROnPlateau(o)), "ReduceLROnPlateau needs a validation loss"),
    "no number": (lambda: train(OwnModel(), [GOOD], short_run(), loss=lambda z, y: z), "loss must return the mean over the targets, a tensor with one number, got float32 (3, 8, 13)"),
}  # fmt: skip


@pytest.mark.parametrize("call, line", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_trained_or_measured_is_refused_in_one_line(call, line, shapes_unchecked):
    with pytest.raises((TypeError, ValueError), match=re.escape(line)) as error:
        call()
    assert one_line(error)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)


def by_hand(model, batches, optimizer, scheduler, steps):
    "The loop that every tutorial of PyTorch has; its losses."
    losses, dropout = [], torch.Generator().manual_seed(0)
    model.train()
    for step in range(steps):
        x, y = batches[step % len(batches)]
        with random_state_of(dropout):
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


PAIRS = [(TEXT_IDS[i : i + 32].view(4, 8), TEXT_IDS[i + 1 : i + 33].view(4, 8)) for i in (0, 40, 80)]
OPTIMIZERS_OF_TORCH = {
    "SGD": sgd,
    "plain SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "Adafactor": lambda model: torch.optim.Adafactor(model.parameters(), lr=0.1),
    "Adagrad": lambda model: torch.optim.Adagrad(model.parameters(), lr=0.1),
    "NAdam": lambda model: torch.optim.NAdam(model.parameters(), lr=0.01),
    "two of a class": lambda model: [torch.optim.AdamW(model.head.parameters(), lr=0.01), torch.optim.AdamW(model.tokens.parameters(), lr=0.1)],
    "tensor rate": lambda model: torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1), foreach=False),
}
SCHEDULERS_OF_TORCH = {
    "none": None,
    "StepLR": lambda o: StepLR(o, 2, gamma=0.5),
    "MultiStepLR": lambda o: MultiStepLR(o, [2, 5, 7], gamma=0.3),
    "OneCycleLR": lambda o: OneCycleLR(o, 0.3, total_steps=12),
    "cosine": lambda o: CosineAnnealingLR(o, 12),
    "lambda": lambda o: LambdaLR(o, lambda step: 1 / (1 + step)),
    "sequence": lambda o: SequentialLR(o, [LinearLR(o, 0.1, total_iters=3), ExponentialLR(o, 0.8)], [3]),
    "plateau": lambda o: ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=0.5),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("optimizer, scheduler", [
    *((name, "StepLR") for name in OPTIMIZERS_OF_TORCH), *(("SGD", name) for name in SCHEDULERS_OF_TORCH if name != "StepLR"), ("tensor rate", "none"),
])  # fmt: skip
def test_a_run_with_optimizer_and_scheduler_goes_on_bit_for_bit(tmp_path, optimizer, scheduler):
    runs = []
    for stops in ((12,), (5, 12)):
        model, state, history = text_and_model()[2], None, None
        torch.manual_seed(3)
        model = OwnModel()
        for steps in stops:
            made = OPTIMIZERS_OF_TORCH[optimizer](model)
            trainer = make_trainer(model, PAIRS, short_run(steps=12, eval_every=2), "", None, made, SCHEDULERS_OF_TORCH[scheduler])
            if state is not None:
                trainer.load_state_dict(state)
            loop = TrainingLoop(trainer, lambda: evaluate(model, PAIRS), on_step=lambda history, steps=steps: history.steps_done == steps)
            history = loop.run()
            state = saved_and_read(trainer.state_dict(), tmp_path)
        runs.append((history.loss, weights(model), trainer.rate))
    assert runs[0][0] == runs[1][0] and same_weights(runs[0][1], runs[1][1]) and runs[0][2] == runs[1][2]
    assert runs[0][0][-1] != runs[0][0][5]


def saved_and_read(state, folder):
    "A training state as it comes back from the disk."
    plain = {key: json.dumps(value) for key, value in state.items() if key != "tensors"}
    save_file(state["tensors"], folder / "state", plain)
    with open(folder / "state", "rb") as file:
        return read_training(file)


@pytest.mark.parametrize("given", ["instances", "functions"])
def test_optimizer_and_scheduler_do_what_the_loop_of_a_tutorial_does(given):
    torch.manual_seed(3)
    models = [OwnModel(), OwnModel()]
    models[1].load_state_dict(models[0].state_dict())
    cosine = lambda optimizer: CosineAnnealingLR(optimizer, 9)
    expected = by_hand(models[0], PAIRS, optimizer := sgd(models[0]), cosine(optimizer), 9)
    ours = sgd(models[1])
    handed = (ours, cosine(ours)) if given == "instances" else (sgd, cosine)
    history = train(models[1], PAIRS, short_run(steps=9), optimizer=handed[0], scheduler=handed[1])
    assert history.loss == expected and same_weights(weights(models[0]), weights(models[1]))


def test_the_schedule_of_the_configuration_scales_the_rate_of_an_optimizer_and_gives_it_back():
    model, rates = OwnModel(), []
    optimizer = torch.optim.SGD([{"params": model.tokens.parameters(), "lr": 0.25}, {"params": model.head.parameters()}], lr=0.5)
    note = lambda history: rates.append([group["lr"] for group in optimizer.param_groups])
    config = short_run(steps=8, warmup_steps=4, schedule="linear", final_lr_factor=0.5)
    train(model, PAIRS, config, optimizer=optimizer, on_step=note)
    factors = [learning_rate(step, TrainingConfig(**{**vars(config), "learning_rate": 1.0})) for step in range(8)]
    assert rates == [[0.25 * factor, 0.5 * factor] for factor in factors] and factors[0] == 0.25
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5]


@pytest.mark.parametrize("change, line", [
    (dict(scheduler=None), "this run began with scheduler=['StepLR'], and would continue with scheduler=None"),
    (dict(scheduler=lambda o: ExponentialLR(o, 0.5)), "this run began with scheduler=['StepLR'], and would continue with scheduler=['ExponentialLR']"),
    (dict(optimizer=None), "this run was saved with another optimizer or model (AdamW)"),
    (dict(loss=None), "this run began with loss=True, and would continue with loss=None"),
])
def test_a_run_does_not_go_on_with_another_optimizer_scheduler_or_loss(change, line):
    given = dict(optimizer=sgd, scheduler=lambda o: StepLR(o, 3), loss=lambda z, y: F.cross_entropy(z.mT, y))
    trainer = make_trainer(OwnModel(), PAIRS, short_run(), **given)
    trainer.run_steps(2)
    with pytest.raises(ValueError, match=re.escape(line)):
        train(OwnModel(), PAIRS, short_run(), resume=trainer.state_dict(), **{**given, **change})


def test_a_scheduler_that_was_stepped_is_not_stepped_again():
    trainer = make_trainer(OwnModel(), PAIRS, short_run(), optimizer=sgd, scheduler=lambda o: StepLR(o, 3))
    trainer.run_steps(2)
    with pytest.raises(ValueError, match="to resume, StepLR must be new"):
        trainer.load_state_dict(trainer.state_dict())


# A loss of one's own.


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_loss_of_ones_own_is_the_loss_of_the_package_however_a_batch_is_cut(parts):
    def mean(output, targets, mask):
        return F.cross_entropy(output[mask], targets[mask])

    runs = []
    for options in ({}, {"loss": mean}):
        torch.manual_seed(3)
        model, config = OwnModel().double(), short_run(grad_accumulation_steps=parts)
        history = train(model, masked_batches(), config, masked_batches(2), **options)
        runs.append((history.loss, history.validation_loss, [p.detach() for p in model.parameters()]))
    assert runs[1][0] == pytest.approx(runs[0][0], rel=1e-9) and runs[1][1] == pytest.approx(runs[0][1], rel=1e-9)
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(runs[0][2], runs[1][2]))


def test_any_module_learns_any_targets_with_a_loss_of_its_own():
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    batches = DataLoader(TensorDataset(x, x @ torch.tensor([[1.0], [-2.0], [0.5]])), batch_size=16, shuffle=True)
    model = nn.Linear(3, 1)
    history = train(model, batches, short_run(steps=150, warmup_steps=0, schedule="constant"), batches, loss=F.mse_loss, optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.2))
    assert history.validation_loss[-1] < 1e-3 < history.validation_loss[0]
    assert evaluate(model, batches, loss=F.mse_loss) == history.validation_loss[-1]


# Callbacks, and other ends of a run.


@pytest.mark.parametrize("name, stop", [("on_step", 7), ("on_evaluate", 10)])
@pytest.mark.parametrize("true", [True, np.True_, torch.tensor(True)], ids=["bool", "NumPy", "tensor"])
def test_a_callback_that_returns_true_ends_a_run_that_can_go_on(tmp_path, name, stop, true):
    ids, _, model = text_and_model(dropout=0.1)
    start = weights(model)
    whole = train(model, ids, short_run(steps=15), ids[:50])
    expected = weights(model)
    model.load_state_dict(start)
    seen = []
    callback = lambda history: seen.append((history.steps_done, len(history.loss))) or (true if history.steps_done == stop else None)
    history = train(model, ids, short_run(steps=15), ids[:50], directory=tmp_path / "run", **{name: callback})
    assert history.steps_done == stop and not history.interrupted and history.evaluated[-1] == stop
    assert seen == [(step, step) for step in (range(1, 8) if name == "on_step" else (0, 5, 10))]
    model, _, state = load_checkpoint(tmp_path / "run")
    assert train(model, ids, short_run(steps=15), ids[:50], resume=state, on_step=lambda history: False).loss == whole.loss
    assert same_weights(weights(model), expected)


def test_a_run_that_its_first_evaluation_ends_takes_no_step():
    ids, _, model = text_and_model()
    before = weights(model)
    assert train(model, ids, short_run(), on_evaluate=lambda history: True).steps_done == 0 and same_weights(before, weights(model))


def test_an_iterator_that_ends_ends_the_run_which_is_kept_and_goes_on(tmp_path):
    model = lambda: small_language_model(dropout=0.1)
    whole = train(model(), iter([GOOD, (IDS + 1) % V] and [GOOD] * 9), short_run(steps=9), [GOOD])
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="the batches ended, and so does the run, after 5 of 9 steps: for more, give a list"):
        torch.manual_seed(0)
        first = model()
        history = train(first, iter([GOOD] * 5), short_run(steps=9), [GOOD], directory=tmp_path / "run")
    assert history.steps_done == 5 == history.evaluated[-1] and not history.interrupted
    state = load_checkpoint(tmp_path / "run")
    resumed = state.model
    with pytest.raises(ValueError, match="the batches ended after 3, and more steps are to be taken"):
        train(resumed, iter([GOOD] * 3), short_run(steps=9), resume=state)
    assert train(resumed, iter([GOOD] * 9), short_run(steps=9), [GOOD], resume=state).steps_done == 9
    assert whole.steps_done == 9


def test_an_evaluation_in_between_does_not_change_the_order_of_a_seeded_loader():
    runs = []
    for validated in (False, True):
        loader, model = SOURCES["seeded"](), Words()
        torch.manual_seed(3)
        seen = []
        model.first.register_forward_hook(lambda module, inputs, output, model=model: seen.append(inputs[0].tolist()) if model.training else None)
        train(model, loader, short_run(steps=12, eval_every=2), loader if validated else None)
        runs.append(seen)
    assert runs[0] == runs[1]


def test_other_batches_after_a_resume_are_noticed():
    trainer = make_trainer(OwnModel(), PAIRS, short_run())
    trainer.run_steps(2)
    with pytest.warns(UserWarning, match="the first batch is not the one that this run began with"):
        train(trainer.model, PAIRS[::-1], short_run(steps=3), resume=trainer.state_dict())


def test_batches_of_small_integers_and_of_arrays_are_the_same_batches():
    runs = []
    for form in (torch.Tensor.long, torch.Tensor.int, lambda x: x.to(torch.uint8), lambda x: x.to(torch.int16), torch.Tensor.numpy):
        torch.manual_seed(3)
        runs.append(train(OwnModel(), [tuple(map(form, pair)) for pair in PAIRS], short_run(), [tuple(map(form, pair)) for pair in PAIRS]))
    assert all(run.loss == runs[0].loss and run.validation_loss == runs[0].validation_loss for run in runs)


def test_a_target_of_minus_100_does_not_count():
    inputs, targets, mask = masked_batches(1)[0]
    losses = []
    for batch in ((inputs, targets, mask), (inputs, targets.masked_fill(~mask, -100)), (inputs, targets.masked_fill(~mask, -100), torch.ones_like(mask))):
        torch.manual_seed(3)
        losses.append(train(OwnModel(), [batch], short_run(steps=3), [batch]).validation_loss)
    assert losses[0] == losses[1] == losses[2]


# What is left as it was.


def test_each_module_keeps_its_mode(tmp_path):
    ids, _, model = text_and_model(dropout=0.1)
    for modes in ((True, True), (False, False), (True, False)):
        model.train(modes[0]).stack.layers[1].train(modes[1])
        train(model, ids, short_run(steps=2), ids[:50])
        assert (model.training, model.stack.layers[1].training) == modes
    with pytest.raises(ZeroDivisionError):
        train(model.eval(), ids, short_run(steps=2), on_step=lambda history: 1 / 0)
    assert not model.training


def test_no_setting_of_the_process_changes(tmp_path, shapes_unchecked):
    def settings():
        others = sum(type(thread).__name__ != "TMonitor" for thread in threading.enumerate())  # that of progress bars stays
        threads = torch.get_num_threads(), torch.get_num_interop_threads(), others
        flags = torch.is_grad_enabled(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(), torch.is_autocast_enabled("cpu")
        return threads, flags, list(warnings.filters), signal.getsignal(signal.SIGINT), random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), dict(os.environ)

    ids, tokenizer, model = text_and_model(dropout=0.1)
    train(model, ids, short_run(steps=1, precision="bf16"))  # what libraries set when they are first imported
    before = settings()
    train(model, ids, short_run(precision="bf16"), ids[:50], directory=tmp_path / "run", tokenizer=tokenizer, optimizer=sgd, scheduler=lambda o: StepLR(o, 2), on_step=lambda history: None)
    evaluate(model, DataLoader(TensorDataset(ids[:48].view(6, 8), ids[1:49].view(6, 8)), shuffle=True))
    assert settings() == before


def test_eight_threads_measure_what_one_does_and_leave_the_random_numbers():
    ids, _, model = text_and_model(dropout=0.5)
    model.train()
    loader = DataLoader(TensorDataset(ids[:48].view(6, 8), ids[1:49].view(6, 8)), batch_size=2, shuffle=True)
    alone = evaluate(model, ids), evaluate(model, loader)
    before, found = torch.get_rng_state(), []
    threads = [threading.Thread(target=lambda: found.extend((evaluate(model, ids), evaluate(model, loader)) for _ in range(3))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 24 and model.training and torch.get_rng_state().equal(before)


def test_the_end_of_a_text_is_predicted_too_and_tokens_weigh_the_same():
    model = small_language_model().double()
    for length in (2, 8, 9, 10, 45, 50):
        logits = [model(window[None])[0] for window in TEXT_IDS[: length - 1].split(8)]
        expected = F.cross_entropy(torch.cat(logits), TEXT_IDS[1:length])
        for size in (1, 3, 64):
            assert evaluate(model, TEXT_IDS[:length], size) == pytest.approx(expected.item(), rel=1e-12)
            assert torch.inference_mode()(evaluate)(model, TEXT_IDS[:length], size) == pytest.approx(expected.item(), rel=1e-12)


# What a machine lacks.


def test_bfloat16_that_is_emulated_is_named_once(monkeypatch):
    ids, _, model = text_and_model()
    for capability, emulated in (("AVX2", True), ("AVX512", False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(model, ids, short_run(steps=2, precision="bf16"))
            train(model, ids, short_run(steps=2))
        assert [str(w.message).startswith("this processor has no instructions for bfloat16") for w in caught] == [True] * emulated


def test_without_a_compiler_a_run_goes_on_uncompiled(monkeypatch):
    ids, _, model = text_and_model(dropout=0.1)
    start, calls = weights(model), []
    expected = train(model, ids, short_run()).loss

    def no_compiler(model):
        def compiled(*inputs):
            calls.append(torch.rand(3))  # what a failing compiler draws does not count
            raise RuntimeError("No working C++ compiler found\nin config.cpp.cxx")

        return compiled

    monkeypatch.setattr(torch, "compile", no_compiler)
    model.load_state_dict(start)
    with pytest.warns(UserWarning, match=r"cannot be compiled here \(No working C\+\+ compiler found in config.cpp.cxx\): the run continues without") as caught:
        assert train(model, ids, short_run(compile=True)).loss == expected
    assert len(caught) == len(calls) == 1


def test_an_error_of_the_model_is_not_blamed_on_the_compiler(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: model)
    with pytest.raises(IndexError):
        train(OwnModel(), [(IDS + V, IDS)], short_run(compile=True))
