"Any model learns from any batches: the loss is the mean over what counts, however it is cut, and a run goes on where it was."

import copy
import math
import os
import signal

import pytest
import torch
import torch.nn.functional as F
from helpers import one_line, same_weights, short_run, small_encoder_decoder, small_language_model, text_and_model, weights
from test_checkpoints import die, in_a_copy
from test_training import random_numbers_untouched
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from transformer_nb.config.training import OPTIMIZERS, TrainingConfig
from transformer_nb.convert.bert import BertConfig, MaskedLanguageModel
from transformer_nb.runs.batches import TrainingBatch, as_batch, batch_cross_entropy, batch_tensors, split_batch
from transformer_nb.runs.distributed import tensor_digest
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
    with pytest.raises(ValueError, match="a checkpoint can hold one of LanguageModel, EncoderDecoder, MaskedLanguageModel, got Words: add its class to MODELS") as error:
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
