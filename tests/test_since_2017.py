"Training for a given time: the schedule is stretched over it, and the clock is the caller's."

import itertools
import math

import pytest
import torch
from helpers import small_language_model

from transformer_nb.since_2017 import train_for
from transformer_nb.tokenization import series_corpus
from transformer_nb.training import Trainer, TrainingConfig, evaluate, ngram_probabilities

IDS = torch.arange(600) % 13


def counting():
    "A clock on which each step takes one second."
    ticks = itertools.count()
    return lambda: next(ticks)


def test_on_a_clock_that_counts_steps_it_is_the_run_of_so_many_steps():
    config, timed, plain = TrainingConfig(steps=12, warmup_steps=3, schedule="linear"), small_language_model(), small_language_model()
    plain.load_state_dict(timed.state_dict())
    run = train_for(timed, IDS, config, 12, IDS[:100], looks=4, clock=counting())
    Trainer(plain, IDS, config).advance(12)
    assert run.steps == 12 and run.seconds == [3, 6, 9, 12]
    assert all(a.equal(b) for a, b in zip(timed.parameters(), plain.parameters()))
    assert run.validation_loss[-1] == evaluate(timed, IDS[:100])


def test_half_of_the_time_is_half_of_the_schedule(monkeypatch):
    numbers, step = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, number: numbers.append(number) or step(self, number))
    train_for(small_language_model(), IDS, TrainingConfig(steps=1000), 8, IDS[:100], clock=counting())
    assert numbers == [0, 125, 250, 375, 500, 625, 750, 875]


def test_looks_are_not_counted_as_training():
    now = [0.0]

    def clock():
        now[0] += 1.0
        return now[0]

    def slow_look(model, ids):
        now[0] += 100.0
        return 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformer_nb.since_2017.evaluate", slow_look)
        run = train_for(small_language_model(), IDS, TrainingConfig(steps=10), 6, IDS[:100], looks=3, clock=clock)
    assert run.steps == 6 and run.seconds == [2, 4, 6] and run.validation_loss == [1.0] * 3


def test_dropout_is_on_again_after_a_look():
    model = small_language_model(dropout=0.5)
    train_for(model, IDS, TrainingConfig(steps=4), 4, IDS[:100], looks=2, clock=counting())
    assert model.training


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_time_that_is_none_is_refused(seconds):
    with pytest.raises(ValueError, match=f"seconds must be more than 0, got {seconds}"):
        train_for(small_language_model(), IDS, TrainingConfig(), seconds, IDS[:100])


def test_a_loss_that_is_no_number_ends_the_run():
    model = small_language_model()
    torch.nn.init.constant_(model.embedding.tokens.weight, math.nan)
    with pytest.raises(FloatingPointError, match="the loss became nan .*lower learning_rate"):
        train_for(model, IDS, TrainingConfig(steps=4), 4, IDS[:100], clock=counting())


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
