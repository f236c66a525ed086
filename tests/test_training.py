"Data, schedule and loop: what comes back is what was there, and what goes wrong is said in one line."

import copy
import math
import os
import re
import signal
import threading
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from helpers import one_line, same_weights, short_run, small_config, small_language_model, text_and_model, weights

import transformer_nb
from transformer_nb.tokenization import series_corpus
from transformer_nb.runs.loop import next_stop
from transformer_nb.runs.process import random_state_of, resolve_device
from transformer_nb.runs.trainer import Trainer
from transformer_nb.training import (
    History,
    TrainingConfig,
    evaluate,
    learning_rate,
    load_checkpoint,
    loss_by_position,
    make_optimizers,
    make_trainer,
    ngram_probabilities,
    sample_batch,
    save_checkpoint,
    split_text,
    train,
)
from transformer_nb.transformer import LanguageModel, TransformerConfig

# Data.


@pytest.mark.parametrize("length, fraction, cut", [(100, 0.1, 90), (101, 0.25, 76), (3, 0.1, 3)])
def test_the_end_of_a_text_is_kept_from_training(length, fraction, cut):
    train_ids, validation_ids = split_text(torch.arange(length), fraction)
    assert train_ids.tolist() == list(range(cut)) and validation_ids.tolist() == list(range(cut, length))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, math.nan])
def test_a_split_that_leaves_nothing_is_refused(fraction):
    with pytest.raises(ValueError, match="fraction must be between 0 and 1"):
        split_text(torch.arange(10), fraction)


def test_batches_are_windows_from_every_place_of_the_text():
    x, y = sample_batch(torch.arange(20), 4, 2000, torch.Generator().manual_seed(0))
    assert y.equal(x + 1) and x.diff(dim=1).eq(1).all()
    assert x[:, 0].unique().tolist() == list(range(16))  # the last window ends at the last token


def test_counting_models_are_distributions_and_know_what_they_saw():
    text = series_corpus()[:2000]
    characters = "".join(sorted(set(text)))
    for order in (0, 2, 4):
        total = sum(ngram_probabilities(text, c, len(characters), 5)[order][0] for c in characters)
        assert total == pytest.approx(1.0)
    unigram = ngram_probabilities(text, text, len(characters), 1)[0]
    space = text.index(" ")
    counted = (text.count(" ") - 0.75) / len(text) + 0.75 * len(characters) / len(text) / len(characters)
    assert unigram[space] == pytest.approx(counted)


# Learning rate and optimizer.


def test_the_paper_schedule_is_equation_3():
    def equation_3(step, d_model=512, warmup=4000):
        return d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)

    config = TrainingConfig(steps=30_000, warmup_steps=4000, schedule="noam", learning_rate=equation_3(4000))
    printed = {1: 1.747e-7, 100: 1.747e-5, 4000: 6.988e-4, 8000: 4.941e-4, 20_000: 3.125e-4}
    for step, rate in printed.items():
        assert learning_rate(step - 1, config) == pytest.approx(equation_3(step)) == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "noam", "constant"])
def test_the_rate_is_highest_after_the_warmup_and_never_zero(schedule):
    config = TrainingConfig(steps=100, warmup_steps=20, schedule=schedule, learning_rate=0.5)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[19] == max(rates) == pytest.approx(0.5) and min(rates) > 0
    assert rates[:20] == sorted(rates[:20]) and rates[20:] == sorted(rates[20:], reverse=True)


def test_the_cosine_ends_at_the_final_rate():
    config = TrainingConfig(steps=1000, warmup_steps=0, final_lr_factor=0.25, learning_rate=2.0)
    assert learning_rate(999, config) == pytest.approx(0.5, rel=1e-3)


def test_only_matrices_decay():
    model = small_language_model()
    decayed, free = make_optimizers(model, TrainingConfig())[0].param_groups
    assert decayed["weight_decay"] > 0 == free["weight_decay"]
    assert {p.dim() for p in free["params"]} == {1} and 1 not in {p.dim() for p in decayed["params"]}
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


# Evaluation.


def test_evaluation_predicts_each_token_once():
    ids, _, model = text_and_model(block_size=8)
    ids = ids[: 8 * 20 + 1]
    by_hand = F.cross_entropy(model.eval()(ids[:-1].view(20, 8)).flatten(0, 1), ids[1:])
    assert evaluate(model, ids) == pytest.approx(by_hand.item(), rel=1e-5)
    assert evaluate(model, ids, batch_size=3) == pytest.approx(by_hand.item(), rel=1e-5)


def test_evaluation_is_without_dropout_and_leaves_the_mode():
    ids, _, model = text_and_model(dropout=0.5)
    model.train()
    assert evaluate(model, ids) == evaluate(model, ids) and model.training
    model.eval()
    evaluate(model, ids)
    assert not model.training


def test_overlapping_windows_see_every_token_at_every_place():
    ids, _, model = text_and_model(block_size=8)
    x, y = ids[:-1].unfold(0, 8, 1), ids[1:].unfold(0, 8, 1)
    expected = F.cross_entropy(model.eval()(x).transpose(1, 2), y, reduction="none").mean(0)
    torch.testing.assert_close(loss_by_position(model, ids, stride=1), expected)


def test_a_text_shorter_than_the_window_is_measured_as_it_is():
    _, _, model = text_and_model(block_size=8)
    assert loss_by_position(model, torch.tensor([1, 2, 3])).shape == (2,)
    with pytest.raises(ValueError, match="at least 2 tokens to be predicted, got 1"):
        evaluate(model, torch.tensor([1]))


# The loop.


def test_training_lowers_the_loss_and_writes_down_what_it_did():
    ids, _, model = text_and_model()
    history = train(model, ids, short_run(steps=120, learning_rate=1e-2), ids[:50])
    assert history.steps_done == 120 and history.evaluated == list(range(0, 121, 5))
    assert len(history.validation_loss) == 25 and history.seconds > 0 and not history.interrupted
    assert history.loss[0] == pytest.approx(math.log(model.config.vocab_size), abs=0.3)
    assert history.validation_loss[-1] < 0.7 * history.validation_loss[0]


def test_the_callback_sees_each_evaluation():
    ids, _, model = text_and_model()
    seen = []
    train(model, ids, short_run(), on_evaluate=lambda history: seen.append(history.steps_done))
    assert seen == [0, 5, 10, 12]


def test_a_run_is_the_same_twice():
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        ids, _, model = text_and_model(dropout=0.1)
        runs.append((train(model, ids, short_run()).loss, weights(model)))
    assert runs[0][0] == runs[1][0] and same_weights(runs[0][1], runs[1][1])


@pytest.mark.parametrize("stop", [1, 5, 7, 10])
def test_a_run_that_was_stopped_and_resumed_ends_in_the_same_weights(tmp_path, stop):
    torch.manual_seed(3)
    ids, tokenizer, model = text_and_model(dropout=0.1)
    start = weights(model)
    whole = train(model, ids, short_run())
    whole_weights = weights(model)

    model.load_state_dict(start)
    trainer = make_trainer(model, ids, short_run())
    trainer.run_steps(stop)
    save_checkpoint(tmp_path / "run", model, tokenizer, trainer.state_dict())
    torch.manual_seed(99)  # another process has other random numbers
    resumed, _, state = load_checkpoint(tmp_path / "run")
    history = train(resumed, ids, short_run(), resume=state)
    assert history.loss == whole.loss and same_weights(weights(resumed), whole_weights)


def test_a_run_can_be_made_longer(tmp_path):
    ids, tokenizer, model = text_and_model()
    train(model, ids, short_run(steps=6), directory=tmp_path / "run", tokenizer=tokenizer)
    model, _, state = load_checkpoint(tmp_path / "run")
    assert train(model, ids, short_run(steps=9), resume=state).steps_done == 9


@pytest.mark.parametrize("step, stop", [(0, 7), (7, 10), (10, 14), (14, 15), (15, 20), (30, 31)])
def test_the_loop_looks_up_when_something_is_due(step, stop):
    assert next_stop(step, TrainingConfig(steps=31, eval_every=7, save_every=15)) == stop


def test_an_interrupt_ends_the_run_after_its_step_and_keeps_it(tmp_path, monkeypatch):
    ids, tokenizer, model = text_and_model()
    before, step = signal.getsignal(signal.SIGINT), Trainer.step

    def step_and_interrupt(self, number, **options):
        if number == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, number, **options)

    monkeypatch.setattr(Trainer, "step", step_and_interrupt)
    history = train(model, ids, short_run(steps=50), directory=tmp_path / "run", tokenizer=tokenizer)
    assert history.interrupted and history.steps_done == 7
    assert load_checkpoint(tmp_path / "run").training["tensors"]["loss"].tolist() == history.loss
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_outside_the_main_thread_works():
    ids, _, model = text_and_model()
    histories = []
    thread = threading.Thread(target=lambda: histories.append(train(model, ids, short_run())))
    thread.start()
    thread.join()
    assert histories[0].steps_done == 12


def test_a_loss_that_is_no_number_stops_the_run_and_spares_the_checkpoint(tmp_path):
    ids, tokenizer, model = text_and_model()
    train(model, ids, short_run(), directory=tmp_path / "run", tokenizer=tokenizer)
    with torch.no_grad():
        model.stack.norm.weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="the loss became nan at step 0; stack.norm.weight is not finite: lower") as error:
        train(model, ids, short_run(), directory=tmp_path / "run")
    assert one_line(error)
    assert all(p.isfinite().all() for p in load_checkpoint(tmp_path / "run").model.parameters())


@pytest.mark.parametrize("where, message", [
    ("out_proj", r"no finite gradient at step 2; the gradient of stack.layers.1.attention.out_proj.weight is not finite"),
    ("loss", r"has exploded: from [\d.]+ at first to [\d.]+ at step 9: lower"),
])
def test_a_run_that_goes_wrong_says_where(where, message):
    ids, tokenizer, model = text_and_model()
    trainer, broken = make_trainer(model, ids, short_run(steps=40)), model.stack.layers[1].attention.out_proj.weight
    trainer.run_steps(2)
    if where == "loss":
        with torch.no_grad():
            model.embedding.tokens.weight.mul_(3e3)
    else:
        broken.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(FloatingPointError, match=message) as error:
        trainer.run_steps(8)
    assert one_line(error) and all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_batch_in_parts_gives_the_same_numbers(parts, precision):
    losses = []
    for parts_of_run in (1, parts):
        torch.manual_seed(1)
        ids, _, model = text_and_model()
        losses.append(train(model, ids, short_run(steps=20, grad_accumulation_steps=parts_of_run, precision=precision)).loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5 if precision == "float32" else 1e-2)
    with pytest.raises(ValueError, match="batch_size must be divisible by grad_accumulation_steps=3, got 4"):
        train(model, ids, short_run(grad_accumulation_steps=3))


def test_a_text_shorter_than_a_window_is_refused():
    _, _, model = text_and_model(block_size=8)
    with pytest.raises(ValueError, match="need 9 tokens, got a text of 8: give a longer text or a smaller block_size"):
        train(model, torch.zeros(8, dtype=torch.long), short_run())


def test_a_model_that_sees_the_answer_is_not_trained_to_predict_it():
    model = small_language_model()
    model.is_causal = False
    with pytest.raises(ValueError, match="sees the next token too, and learns only to copy it: give a causal model, or batches"):
        train(model, torch.zeros(20, dtype=torch.long), short_run())


@pytest.mark.parametrize("field, value", [
    ("steps", 0), ("batch_size", 0), ("warmup_steps", -1), ("eval_every", 0), ("save_every", -1),
    ("learning_rate", -1.0), ("learning_rate", math.nan), ("weight_decay", -0.1), ("grad_clip", math.inf),
    ("beta2", 1.0), ("schedule", "cosin"),
])
def test_an_option_that_makes_no_sense_is_named(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .*, got {re.escape(repr(value))}"):
        TrainingConfig(**{field: value})


def test_a_device_that_is_not_there_is_named():
    assert resolve_device("auto").type in ("cuda", "mps", "cpu")
    with pytest.raises(ValueError, match="device 'abacus' is not there: choose auto or one of"):
        resolve_device("abacus")


def test_a_history_reads_as_a_sentence():
    history = History(10, loss=[2.0, 1.0], evaluated=[2], validation_loss=[1.25])
    assert str(history) == "step 2 of 10, training loss 1.500, validation loss 1.250"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_as_the_cpu_does():
    losses = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(3)
        ids, _, model = text_and_model()
        losses[device] = train(model, ids, short_run(device=device), ids[:50]).loss
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)


@pytest.mark.parametrize("grad_clip, longest", [(0.01, 0.01), (0.0, None)])
def test_long_gradients_are_clipped_before_the_step(grad_clip, longest):
    lengths = []
    trainer = make_trainer(LanguageModel(small_config()), torch.arange(100) % 13, TrainingConfig(steps=1, grad_clip=grad_clip, device="cpu"))

    def measure(*_):
        lengths.append(torch.stack([p.grad.norm() for p in trainer.model.parameters()]).norm().item())

    trainer.optimizers[0].register_step_pre_hook(measure)
    trainer.step(0)
    assert lengths[0] > 0.1 if longest is None else abs(lengths[0] - longest) < 1e-3


# The caller's random numbers.


@contextmanager
def random_numbers_untouched():
    "Whoever draws random numbers before and after sees those that nobody else has drawn from."
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    first = torch.rand(2)
    yield
    assert torch.cat([first, torch.rand(2)]).equal(expected)


def test_a_trainer_leaves_the_random_numbers_when_it_is_made():
    ids, _, model = text_and_model(dropout=0.1)
    with random_numbers_untouched():
        make_trainer(model, ids, short_run())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("options", [{}, {"grad_accumulation_steps": 2}, {"optimizer": "muon"}])
def test_training_leaves_the_random_numbers(tmp_path, dropout, options):
    ids, tokenizer, model = text_and_model(dropout=dropout)
    with random_numbers_untouched():
        train(model, ids, short_run(save_every=4, patience=9, **options), ids[:50], directory=tmp_path / "run", tokenizer=tokenizer)
    trainer = make_trainer(model, ids, short_run(**options))
    with random_numbers_untouched():
        trainer.step(0)
        trainer.run_steps(3)
    with random_numbers_untouched():
        trainer.load_state_dict(trainer.state_dict())


def test_an_error_in_a_step_leaves_the_random_numbers():
    ids, _, model = text_and_model(dropout=0.5)

    def fail(module, inputs):
        torch.rand(7)
        raise RuntimeError("out of luck")

    model.stack.layers[1].register_forward_pre_hook(fail)
    with random_numbers_untouched(), pytest.raises(RuntimeError, match="out of luck"):
        train(model, ids, short_run())


def test_evaluation_leaves_the_random_numbers():
    ids, _, model = text_and_model(dropout=0.5)
    with random_numbers_untouched():
        evaluate(model.train(), ids)
        loss_by_position(model, ids, stride=3)


def test_evaluation_that_fails_leaves_the_mode():
    ids, _, model = text_and_model(dropout=0.5)
    model.train().stack.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(model, ids)
    assert model.training and model.stack.layers[0].training


def test_what_the_caller_draws_does_not_change_a_run():
    losses = []
    for draws in (0, 3):
        torch.manual_seed(3)
        ids, _, model = text_and_model(dropout=0.5)
        trainer = make_trainer(model, ids, short_run())
        for _ in range(4):
            torch.rand(draws)
            trainer.run_steps(2)
        losses.append(trainer.history.loss)
    assert losses[0] == losses[1]


def test_a_seed_gives_the_dropout_that_it_always_gave():
    ids, _, model = text_and_model(dropout=0.5)
    seen = []
    model.embedding.dropout.register_forward_hook(lambda module, inputs, output: seen.append(output == 0))
    trainer = make_trainer(model, ids, short_run(seed=5))
    trainer.run_steps(1)
    torch.manual_seed(5)
    assert seen[0].equal(F.dropout(torch.ones(seen[0].shape), 0.5) == 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_random_numbers_of_a_gpu_are_left_too():
    ids, _, model = text_and_model(dropout=0.5)
    torch.manual_seed(11)
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    train(model, ids, short_run(device="cuda"))
    assert torch.get_rng_state().equal(before[0]) and torch.cuda.get_rng_state().equal(before[1])


def test_a_random_state_of_ones_own_goes_on_where_it_was():
    own = torch.Generator().manual_seed(2)
    drawn = []
    for _ in range(2):
        with random_numbers_untouched(), random_state_of(own):
            drawn.append(torch.rand(3))
    assert torch.cat(drawn).equal(torch.rand(6, generator=torch.Generator().manual_seed(2)))


# What came since the paper: Muon, bfloat16, compilation, recipes.


def modern(**options):
    torch.manual_seed(0)
    return LanguageModel(TransformerConfig.preset("modern", vocab_size=13, block_size=8, n_layers=2, n_heads=2, d_model=8, **options))


def test_linear_decay_and_cosine_end_at_the_final_rate():
    for schedule in ("linear", "cosine"):
        config = TrainingConfig(steps=110, warmup_steps=10, learning_rate=2.0, schedule=schedule, final_lr_factor=0.25)
        rates = [learning_rate(step, config) for step in range(111)]
        assert rates[9] == pytest.approx(2.0) and rates[110] == pytest.approx(0.5)
        assert rates[60] == pytest.approx(1.25) and all(a >= b for a, b in pairwise(rates[9:]))
        expected = 1.625 if schedule == "linear" else 0.5 + 1.5 * 0.5 * (1 + math.cos(math.pi / 4))
        assert rates[35] == pytest.approx(expected)


def test_muon_has_the_matrices_of_the_layers_and_adamw_all_else():
    model, config = modern(), TrainingConfig.preset("modern", steps=5)
    adamw, muon = make_optimizers(model, config)
    held = [{id(p) for group in o.param_groups for p in group["params"]} for o in (adamw, muon)]
    names = {id(p): name for name, p in model.named_parameters()}
    assert held[0] | held[1] == set(names) and not held[0] & held[1]
    assert {names[i].split(".")[-2] for i in held[1]} == {"attention", "out_proj", "linear1", "linear2"}
    assert {names[i] for i in held[0]} >= {"embedding.tokens.weight", "embedding.previous.weight", "head.weight"}


def test_each_optimizer_has_its_own_rate():
    trainer = make_trainer(modern(), torch.randint(13, (200,)), TrainingConfig.preset("modern", steps=40, learning_rate=0.5, muon_learning_rate=0.125, warmup_steps=4))
    trainer.run_steps(2)
    adamw, muon = trainer.optimizers
    assert {g["lr"] for g in adamw.param_groups} == {0.25} and {g["lr"] for g in muon.param_groups} == {0.0625}


def test_a_modern_run_that_goes_on_is_the_run_that_never_stopped():
    ids, config = torch.randint(13, (300,)), TrainingConfig.preset("modern", steps=12)
    whole, first, second = modern(), modern(), modern()
    make_trainer(whole, ids, config).run_steps(12)
    trainer = make_trainer(first, ids, config)
    trainer.run_steps(5)
    second.load_state_dict(first.state_dict())
    goes_on = make_trainer(second, ids, config)
    goes_on.load_state_dict(copy.deepcopy(trainer.state_dict()))
    goes_on.run_steps(7)
    assert all(a.equal(b) for a, b in zip(whole.parameters(), second.parameters()))


def test_in_bf16_activations_are_rounded_and_weights_are_not():
    model, seen = modern(), []
    model.stack.layers[1].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    make_trainer(model, torch.randint(13, (200,)), TrainingConfig.preset("modern", steps=2, precision="bf16")).run_steps(1)
    assert seen == [torch.bfloat16] and {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("preset", ["gpt2", "modern"])
def test_training_in_bf16_learns_as_in_float32(preset):
    ids, losses = torch.arange(400) % 13, []
    for precision in ("float32", "bf16"):
        torch.manual_seed(0)
        model = LanguageModel(TransformerConfig.preset(preset, vocab_size=13, block_size=64, n_layers=1, n_heads=4, d_model=64, dropout=0.0))
        trainer = make_trainer(model, ids, TrainingConfig.preset(preset, steps=30, precision=precision, warmup_steps=5))
        trainer.run_steps(30)
        losses.append(sum(trainer.history.loss[-3:]) / 3)
    assert losses[0] < 1.0 and losses[1] == pytest.approx(losses[0], abs=0.1)


@pytest.mark.parametrize("wrong", [{"optimizer": "sgd"}, {"precision": "fp8"}, {"muon_learning_rate": -1.0}])
def test_options_that_make_no_sense_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} must be .*{wrong[name]}"):
        TrainingConfig(**wrong)


def test_muon_needs_no_muon_in_torch(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    trainer = make_trainer(modern(), torch.randint(13, (200,)), TrainingConfig.preset("modern", steps=2, device="cpu"))
    trainer.run_steps(2)
    assert trainer.optimizers[1].__class__ is transformer_nb.Muon


def test_compiled_is_asked_of_the_compiler(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model: asked.append(model) or model)
    model, ids = modern(), torch.randint(13, (200,))
    make_trainer(model, ids, TrainingConfig(steps=2))
    assert not asked
    make_trainer(model, ids, TrainingConfig(steps=2, compile=True)).run_steps(2)
    assert asked == [model]


def test_a_run_with_other_optimizers_cannot_go_on():
    trainer = make_trainer(modern(), torch.randint(13, (200,)), TrainingConfig.preset("modern", steps=4))
    trainer.run_steps(1)
    state = trainer.state_dict()
    for wrong in ({}, {"history": {}}, {**state, "history": 3}, {**state, "tensors": {**state["tensors"], "generator": torch.zeros(3)}}):
        with pytest.raises(ValueError, match="not a training state, or one of an earlier version"):
            trainer.load_state_dict(wrong)
    first = next(name for name in state["tensors"] if name.endswith("momentum_buffer"))
    for tensors in ({n: x for n, x in state["tensors"].items() if n != first}, {**state["tensors"], first: torch.zeros(5)}):
        with pytest.raises(ValueError, match="another optimizer or model"):
            trainer.load_state_dict({**state, "tensors": tensors})


def test_each_part_of_a_model_is_in_its_own_mode_after_evaluation():
    ids, _, model = text_and_model()
    model.train().stack.layers[0].eval()  # frozen
    evaluate(model, ids)
    assert model.training and model.stack.layers[1].training and not model.stack.layers[0].training
