"The encoder-decoder at work: its loss, its rate, its loop, and a search that is Hugging Face's token by token and exhaustive where it can be."

import copy
import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, randomize, small_config, small_encoder_decoder, small_language_model
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from transformer_nb.config.model import PARTS
from transformer_nb.config.training import TrainingConfig
from transformer_nb.seq2seq.decoding import (
    IncrementalDecoder,
    beam_search,
    gnmt_length_penalty,
    greedy_decode,
    keep_best_hypotheses,
)
from transformer_nb.seq2seq.pairs import PairBatches, PairTokenizer, average_checkpoints, pair_batch
from transformer_nb.seq2seq.training import label_smoothed_cross_entropy, noam_lr
from transformer_nb.training import evaluate, load_checkpoint, save_checkpoint, train
from transformer_nb.transformer import EncoderDecoder, shift_right

PAD, START, STOP = 0, 1, 2
WAYS = dict(start=START, stop=STOP)
positions = pytest.mark.parametrize("positions", [name for name in PARTS["positions"] if name != "sinusoidal_halves"])
PENALTIES = {"none": lambda n: 1.0, "paper": gnmt_length_penalty, "length": lambda n: float(n)}
penalties = pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES.keys())


def writer(seed=0, stop_bias=2.0, dtype=torch.float64, **options):
    "A model with random weights that listens to its source, and so writes texts of many lengths."
    torch.manual_seed(seed)
    model = EncoderDecoder(small_config(**{**dict(d_model=16, tie_embeddings=False), **options}))
    model.head.bias = nn.Parameter(torch.zeros(model.config.vocab_size))
    with torch.no_grad():
        for name, parameter in model.to(dtype).named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.3 if "feed_forward" in name else 0.7 if "cross" in name else 1.0)
        model.head.bias[STOP] += stop_bias
    return model.eval()


def sources(lengths, seed=0, vocab_size=13):
    "Sources of these lengths, filled up, and their mask."
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(lengths)
    source = torch.randint(3, vocab_size, (len(lengths), int(lengths.max())), generator=generator)
    mask = torch.arange(source.shape[1]) < lengths[:, None]
    return source.masked_fill(~mask, PAD), mask[:, None]


def stripped(rows):
    "Each row up to its first stop, that one included."
    rows = rows.tolist()
    return [row[: row.index(STOP) + 1] if STOP in row else row for row in rows]


# Pairs of texts.


@given(st.lists(st.text("abcé\n ", max_size=6), min_size=1, max_size=5))
def test_texts_come_back_and_rows_are_as_long_as_the_longest(texts):
    tokens = PairTokenizer("abcé\n ")
    ids = tokens.encode(texts)
    assert ids.shape == (len(texts), max(map(len, texts)) + 1) and tokens.vocab_size == 9
    assert tokens.decode(ids) == texts
    for row, text in zip(ids.tolist(), texts):
        assert row[len(text)] == tokens.stop and set(row[len(text) + 1 :]) <= {tokens.pad}
        assert min(row[: len(text)], default=3) >= 3


def test_what_stands_behind_the_first_stop_is_not_read():
    tokens = PairTokenizer("ab")
    assert tokens.decode(torch.tensor([[1, 3, 4, 2, 3, 2], [4, 4, 0, 0, 0, 0]])) == ["ab", "bb"]
    assert tokens.decode(torch.full((2, 3), 2)) == ["", ""]


def test_an_unknown_character_is_named_with_its_place_in_its_own_text():
    tokens = PairTokenizer("ab")
    with pytest.raises(ValueError, match="'c' at position 1"):
        tokens.encode(["aaaa", "bc"])
    with pytest.raises(ValueError, match="no text to encode"):
        tokens.encode([])


# Loss and rate.


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("padding", [None, 0])
def test_label_smoothing_is_cross_entropy_with_the_wish(epsilon, padding, dtype):
    logits, target = torch.randn(3, 5, 7, dtype=dtype, requires_grad=True), torch.randint(0, 7, (3, 5))
    counts = target != -1 if padding is None else target != padding
    wish = (1 - epsilon) * F.one_hot(target, 7).to(dtype) + epsilon / 7
    loss = label_smoothed_cross_entropy(logits, target, epsilon, padding)
    assert_same(loss, -(wish * logits.log_softmax(-1)).sum(-1)[counts].mean())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert_same(gradient, (logits.softmax(-1) - wish).detach().to(dtype) * counts[..., None] / counts.sum())


def test_label_smoothing_has_a_floor_where_the_model_is_the_wish():
    wish = torch.full((1, 5), 0.02, dtype=torch.float64)
    wish[0, 3] = 0.92
    loss = label_smoothed_cross_entropy(wish.log(), torch.tensor([3]), 0.1)
    assert_same(loss, -(wish * wish.log()).sum())
    for change in torch.randn(20, 1, 5, dtype=torch.float64):
        assert label_smoothed_cross_entropy(wish.log() + change, torch.tensor([3]), 0.1) > loss


@pytest.mark.parametrize("epsilon", [-0.1, 1.0])
def test_an_epsilon_that_makes_no_sense_is_refused(epsilon):
    with pytest.raises(ValueError, match=f"epsilon must be at least 0 and below 1, got {epsilon}"):
        label_smoothed_cross_entropy(torch.randn(2, 5), torch.tensor([1, 2]), epsilon)


def test_the_paper_rate_is_equation_3():
    for step, rate in {1: 1.747e-7, 100: 1.747e-5, 4000: 6.988e-4, 8000: 4.941e-4, 20_000: 3.125e-4}.items():
        assert noam_lr(512, step, 4000) == pytest.approx(rate, rel=5e-4)
    rates = [noam_lr(64, step, 30) for step in range(1, 200)]
    assert max(rates) == rates[29] == pytest.approx(64**-0.5 * 30**-0.5)
    assert rates[9] == pytest.approx(10 * rates[0])  # a straight line from 0


@pytest.mark.parametrize("step, warmup", [(0, 10), (-1, 10), (5, 0)])
def test_a_step_that_is_none_is_refused(step, warmup):
    with pytest.raises(ValueError, match=f"got step={step} and warmup={warmup}"):
        noam_lr(512, step, warmup)


# Training.


def pair_batches(number, seed=0, padding=0):
    "Sources and targets that are the same, of different lengths, with more padding on request."
    pairs = []
    for i in range(number):
        source, _ = sources([5, 3, 1, 4], seed=100 * seed + i)
        ended = F.pad(source, (0, 1))
        ended[torch.arange(4), (source != PAD).sum(1)] = STOP
        pairs.append((F.pad(ended, (0, padding)),) * 2)
    return PairBatches(pairs, PAD, START)


def recipe(steps, warmup=10, factor=1.0, **options):
    "The paper's training (section 5) of a model of width 8."
    rate = factor * noam_lr(8, warmup, warmup)
    paper = dict(warmup_steps=warmup, schedule="noam", beta2=0.98, eps=1e-9, weight_decay=0.0, grad_clip=0.0, label_smoothing=0.1, device="cpu")
    return TrainingConfig(steps=steps, learning_rate=rate, **{**paper, **options})


def test_a_batch_of_pairs_is_source_shifted_target_and_masks():
    target = torch.tensor([[5, 6, STOP], [7, STOP, PAD]])
    (source, shifted, source_mask), targets, mask = pair_batch(torch.tensor([[3, 4], [3, PAD]]), target)
    assert shifted.tolist() == [[START, 5, 6], [START, 7, STOP]] and targets is target
    assert source_mask.tolist() == [[[True, True]], [[True, False]]] and mask.tolist() == [[True] * 3, [True, True, False]]


@pytest.mark.parametrize("grad_clip, parts", [(0.0, 1), (0.5, 1), (0.0, 2), (0.0, 4)])
def test_training_is_the_papers_loop(grad_clip, parts):
    ours, theirs = (EncoderDecoder(small_config()).double() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    config = recipe(30, factor=0.2, grad_clip=grad_clip, grad_accumulation_steps=parts)
    losses = train(ours, pair_batches(30), config).loss
    optimizer = torch.optim.Adam(theirs.parameters(), betas=(0.9, 0.98), eps=1e-9)
    expected = []
    for step, ((source, shifted, mask), target, _) in enumerate(pair_batches(30), 1):
        optimizer.param_groups[0]["lr"] = 0.2 * 8**-0.5 * min(step**-0.5, step * 10**-1.5)
        assert shifted.equal(torch.cat((torch.full((4, 1), START), target[:, :-1]), 1))
        logits = theirs(source, shifted, (source != PAD)[:, None])
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        if grad_clip:
            nn.utils.clip_grad_norm_(theirs.parameters(), grad_clip)
        optimizer.step()
        expected.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-9) and losses[-1] < losses[0] - 0.05
    for ours, theirs in zip(ours.parameters(), theirs.parameters()):
        assert torch.allclose(ours, theirs, atol=1e-8)


def trained(steps=5, seed=3, padding=0, dropout=0.0, **options):
    torch.manual_seed(seed)
    model = EncoderDecoder(small_config(dropout=dropout)).double()
    return model, train(model, pair_batches(steps, padding=padding), recipe(steps, **options)).loss


def test_padding_changes_nothing():
    (model, losses), (padded, same) = trained(), trained(padding=2)
    assert losses == pytest.approx(same)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(model.parameters(), padded.parameters()))


def test_the_same_seed_gives_the_same_run():
    (_, losses), (_, again), (_, other) = trained(dropout=0.3), trained(dropout=0.3), trained(dropout=0.3, seed=4)
    assert losses == again != other


def test_gradients_are_clipped_on_request_only():
    torch.manual_seed(3)
    start = EncoderDecoder(small_config()).double()
    norms = {}
    for clip in (0.0, 1e-9):
        model = trained(steps=1, grad_clip=clip, warmup=1)[0]
        norms[clip] = sum((a - b).abs().sum().item() for a, b in zip(model.parameters(), start.parameters()))
    assert norms[1e-9] < 0.9 * norms[0.0]  # so small that Adam's epsilon counts


def test_a_loss_that_is_no_number_says_at_which_step():
    model = EncoderDecoder(small_config())
    with torch.no_grad():
        model.embedding.tokens.weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="became nan at step 0; .* is not finite: lower learning_rate"):
        train(model, pair_batches(2), recipe(2))


def test_it_overfits_one_batch():
    torch.manual_seed(0)
    model = EncoderDecoder(small_config(d_model=32, d_ff=64, n_layers=1, norm_first=False, scale_embeddings=True))
    for parameter in model.parameters():
        if parameter.dim() == 2:
            nn.init.xavier_uniform_(parameter)
    batches = pair_batches(1)
    train(model, batches, recipe(150, warmup=40, factor=0.25))  # the rate of width 32 is half that of width 8
    ((source, target),) = batches.pairs
    found = greedy_decode(model.eval(), source, 8, **WAYS, source_mask=(source != PAD)[:, None])
    assert stripped(found) == stripped(target)
    assert evaluate(model, batches) < 0.5


@pytest.mark.parametrize("deeper", [False, True])
def test_a_run_that_goes_on_from_a_checkpoint_ends_in_the_same_weights_and_translates_the_same(tmp_path, deeper):
    torch.manual_seed(3)
    config = small_config(dropout=0.2)
    model = EncoderDecoder(config, small_config(dropout=0.2, n_layers=3) if deeper else None)
    start, batches = copy.deepcopy(model.state_dict()), pair_batches(7)
    options = dict(eval_every=4, save_every=5, grad_accumulation_steps=2)
    whole = train(model, batches, recipe(20, **options), batches, directory=tmp_path / "whole")
    half = EncoderDecoder(config, model.target_config if deeper else None)
    half.load_state_dict(start)
    train(half, batches, recipe(10, **options), batches, directory=tmp_path / "run")
    torch.manual_seed(99)
    resumed, _, state = load_checkpoint(tmp_path / "run")
    assert resumed.target_config == model.target_config and len(resumed.decoder.layers) == (3 if deeper else 2)
    history = train(resumed, batches, recipe(20, **options), batches, directory=tmp_path / "run", resume=state)
    assert history.loss == whole.loss and history.validation_loss[-1] == whole.validation_loss[-1]
    source, mask = sources([5, 3, 1, 4])
    written = [greedy_decode(load_checkpoint(tmp_path / name).model, source, 7, **WAYS, source_mask=mask) for name in ("whole", "run")]
    assert written[0].equal(written[1]) and written[0].equal(greedy_decode(model.eval(), source, 7, **WAYS, source_mask=mask))
    assert all(a.equal(b) for a, b in zip(model.parameters(), resumed.parameters()))


# Greedy decoding.


def one_by_one(model, source, mask, length):
    "Greedy decoding as it is written in a book: a row at a time, all of it anew for each token."
    rows = []
    for row, seen in zip(source, mask):
        text = [START]
        while len(text) <= length and text[-1] != STOP:
            logits = model(row[seen[0]][None], torch.tensor([text]))
            text.append(logits[0, -1].argmax().item())
        rows.append(text[1:])
    return rows


@positions
@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_decoding_is_the_best_token_again_and_again(positions, use_cache):
    lengths = set()
    for seed in range(5):
        model, (source, mask) = writer(seed, positions=positions), sources([5, 3, 1, 4, 2, 5, 5, 3], seed)
        found = greedy_decode(model, source, 7, **WAYS, source_mask=mask, use_cache=use_cache)
        expected = one_by_one(model, source, mask, 7)
        assert stripped(found) == expected and found.shape[1] == max(map(len, expected))
        for row, text in zip(found.tolist(), expected):
            assert set(row[len(text) :]) <= {STOP}
        lengths |= {len(text) for text in expected}
    assert len(lengths) > 2


def test_a_reader_with_another_number_of_layers_has_as_many_caches():
    model = randomize(EncoderDecoder(small_config(), small_config(n_layers=3))).eval()
    assert len(IncrementalDecoder(model, sources([3])[0], None, 5, use_cache=True).cache) == 3
    assert IncrementalDecoder(model, sources([3])[0], None, 5, use_cache=False).cache is None


@pytest.mark.parametrize("search", [greedy_decode, beam_search])
def test_what_makes_no_sense_is_refused_in_one_line(search):
    model, (source, mask) = small_encoder_decoder(), sources([4, 2])
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, got 0"):
        search(model, source, 0, **WAYS)
    with pytest.raises(ValueError, match=r"\(B, 1, S\), got shape \(2, 4\)"):
        search(model, source, 4, **WAYS, source_mask=mask[:, 0])
    with pytest.raises(ValueError, match=r"at least one, got shape \(2, 0\)"):
        search(model, source[:, :0], 4, **WAYS)
    with pytest.raises(ValueError, match="stop must be a token of the target, 0 to 12, got 13"):
        search(model, source, 4, start=1, stop=13)
    with pytest.raises(ValueError, match="got LanguageModel: a language model writes with generate"):
        search(small_language_model(), source, 4, **WAYS)
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        search(model, [3, 4, 5], 4, **WAYS)
    model.head.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="the logits of the next token are NaN"):
        search(model, source, 4, **WAYS)
    if search is beam_search:
        with pytest.raises(ValueError, match="n_beams must be at least 1, got 0"):
            search(model, source, 4, **WAYS, n_beams=0)


@pytest.mark.parametrize("search", [greedy_decode, lambda *a, **k: beam_search(*a, **k)[0]], ids=["greedy", "beam"])
def test_sources_and_models_as_users_have_them(search, shapes_unchecked):
    model = small_encoder_decoder(dropout=0.5, attention_dropout=0.5)
    source, mask = sources([4, 2, 3])
    expected = search(model, source, 7, **WAYS, source_mask=mask)
    rows = [row[seen[0]].tolist() for row, seen in zip(source, mask)]
    model.train().encoder.layers[0].eval()
    modes = [module.training for module in model.modules()]
    for given, its_mask in ((source.to(torch.uint8), mask), (source.numpy(), mask), (rows, None), ([np.array(row) for row in rows], None)):
        assert search(model, given, np.int64(7), **WAYS, source_mask=its_mask).equal(expected)
    assert search(nn.DataParallel(model), source, 7, **WAYS, source_mask=mask).equal(expected)
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(TypeError, match="whole numbers, got torch.float32"):
        search(model, source.float(), 7, **WAYS)


# Beam search.


@penalties
@pytest.mark.parametrize("early_stopping", [True, False])
def test_one_beam_is_greedy(penalty, early_stopping):
    for seed in range(5):
        model, (source, mask) = writer(seed), sources([5, 3, 1, 4], seed)
        options = dict(n_beams=1, length_penalty=penalty, early_stopping=early_stopping)
        found, _ = beam_search(model, source, 7, **WAYS, **options, source_mask=mask)
        assert found.equal(greedy_decode(model, source, 7, **WAYS, source_mask=mask))


def scores_of_all(model, source, length, penalty):
    "Every text of up to so many tokens, and its score."
    vocab_size, scores = model.config.vocab_size, {}
    going = [t for t in range(vocab_size) if t != STOP]
    for n in range(length + 1):
        texts = [(*body, STOP)[:length] if n < length else body for body in product(going, repeat=n)]
        if not texts:
            continue
        target = torch.tensor(texts)
        with torch.no_grad():
            log_p = model(source.expand(len(texts), -1), shift_right(target, START)).log_softmax(-1)
        totals = log_p.gather(-1, target[..., None]).sum((1, 2))
        scores.update({text: total.item() / penalty(len(text)) for text, total in zip(texts, totals)})
    return scores


@penalties
@pytest.mark.parametrize("vocab_size, length", [(4, 4), (3, 5), (5, 3)])
def test_with_enough_beams_nothing_better_exists(penalty, vocab_size, length):
    for seed in range(4):
        model = writer(seed, vocab_size=vocab_size, stop_bias=seed - 1.0)
        source, _ = sources([3, 3], seed, vocab_size=4)
        source = source.clamp(max=vocab_size - 1)
        n_beams = (vocab_size - 1) ** length
        found, score = beam_search(model, source, length, **WAYS, n_beams=n_beams, length_penalty=penalty)
        for row, text, value in zip(source, stripped(found), score.tolist()):
            scores = scores_of_all(model, row[None], length, penalty)
            best = max(scores, key=scores.get)
            assert tuple(text) == best and value == pytest.approx(scores[best])
            assert sum(math.exp(s * penalty(len(t))) for t, s in scores.items()) == pytest.approx(1)


@positions
def test_cache_and_company_change_nothing(positions):
    texts, options = set(), dict(**WAYS, n_beams=3, length_penalty=lambda n: float(n) ** 2)  # an early end does not win
    for seed in range(4):
        model, (source, mask) = writer(seed, positions=positions), sources([5, 2, 4, 1, 3], seed)
        found, score = beam_search(model, source, 7, **options, source_mask=mask)
        plain, same = beam_search(model, source, 7, **options, source_mask=mask, use_cache=False)
        assert found.equal(plain)
        assert_same(score, same)
        for i, (row, seen) in enumerate(zip(source, mask)):
            alone, value = beam_search(model, row[seen[0]][None], 7, **options)
            assert stripped(alone)[0] == stripped(found)[i]
            assert_same(value[0], score[i])
        texts |= set(map(tuple, stripped(found)))
    assert len(texts) > 8


@penalties
def test_the_score_is_what_the_model_gives_the_text(penalty):
    model, (source, mask) = writer(2), sources([5, 3, 1, 4])
    found, score = beam_search(model, source, 6, **WAYS, length_penalty=penalty, source_mask=mask)
    for row, seen, text, value in zip(source, mask, stripped(found), score):
        target = torch.tensor([text])
        log_p = model(row[None], shift_right(target, START), seen[None]).log_softmax(-1)
        assert_same(value, log_p.gather(-1, target[..., None]).sum().detach() / penalty(len(text)))


def test_the_papers_penalty_is_that_of_wu_et_al():
    for n in (1, 2, 7, 50):
        assert gnmt_length_penalty(n) == pytest.approx((5 + n) ** 0.6 / (5 + 1) ** 0.6)


def test_longer_texts_win_where_more_is_divided_by():
    lengths = []
    for penalty in (lambda n: 1.0, gnmt_length_penalty, lambda n: float(n), lambda n: float(n) ** 3):
        found = [
            stripped(beam_search(writer(seed, stop_bias=1.0), *sources([4] * 6, seed)[:1], 8, **WAYS, length_penalty=penalty)[0])
            for seed in range(4)
        ]
        lengths.append(sum(len(text) for texts in found for text in texts))
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]


def test_the_best_are_kept_in_order_and_what_does_not_count_never_enters():
    finished, score = torch.full((1, 2, 4), STOP), torch.full((1, 2), -math.inf)
    new = torch.tensor([[[5, 2], [6, 2]]])
    finished, score = keep_best_hypotheses(finished, score, new, torch.tensor([[-3.0, -math.inf]]), STOP)
    assert finished[0, 0].tolist() == [5, 2, 2, 2] and score.tolist() == [[-3.0, -math.inf]]
    finished, score = keep_best_hypotheses(finished, score, new + 1, torch.tensor([[-4.0, -1.0]]), STOP)
    assert finished[0, :, 0].tolist() == [7, 5] and score.tolist() == [[-1.0, -3.0]]


# Against Hugging Face, on models with random weights.


@pytest.fixture(scope="module")
def marian():
    "A function that makes one of their models, and ours with its weights."
    from transformers import MarianConfig, MarianMTModel

    from transformer_nb.convert.huggingface import from_huggingface

    def make(seed, stop_bias, **sizes):
        torch.manual_seed(seed)
        config = dict(vocab_size=23, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2)
        config |= {**dict(decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, dropout=0.0), **sizes}
        special = dict(pad_token_id=PAD, eos_token_id=STOP, decoder_start_token_id=START)
        more = dict(bos_token_id=None, forced_eos_token_id=None, max_position_embeddings=32, scale_embedding=True)
        theirs = MarianMTModel(MarianConfig(**config, **special, **more)).eval()
        with torch.no_grad():
            for name, parameter in theirs.named_parameters():
                if parameter.dim() == 2 and "embed_positions" not in name:
                    parameter.normal_(std=0.3 if "shared" in name else 1.0)
                elif "embed_positions" not in name:
                    parameter.add_(torch.randn_like(parameter), alpha=0.3)
            theirs.final_logits_bias.normal_(std=0.3)
            theirs.final_logits_bias[0, STOP] += stop_bias
        for name, value in {**special, **more, "bad_words_ids": None, "max_length": None}.items():
            if hasattr(theirs.generation_config, name):
                setattr(theirs.generation_config, name, value)
        return theirs, from_huggingface(theirs).eval()

    return make


MODELS = [
    (0, 2.0, {}),
    (1, 3.5, dict(encoder_layers=1)),
    (2, 6.0, dict(decoder_layers=1, d_model=24)),
    (3, 3.0, dict(decoder_layers=3, decoder_attention_heads=4)),
    (4, 5.5, dict(encoder_ffn_dim=8, decoder_ffn_dim=48)),
]


@pytest.mark.parametrize("seed, stop_bias, sizes", MODELS, ids=range(len(MODELS)))
def test_beam_search_is_hugging_faces_token_by_token(marian, seed, stop_bias, sizes):
    theirs, ours = marian(seed, stop_bias, **sizes)
    source, mask = sources([7, 5, 3, 6, 2, 7], seed, vocab_size=23)
    lengths = set()
    for n_beams, power, early_stopping, limit in product(range(1, 6), (0.6, 1.0, 2.0), (True, False), (3, 10)):
        options = dict(num_beams=n_beams, max_new_tokens=limit, do_sample=False, return_dict_in_generate=True, output_scores=True)
        if n_beams > 1:
            options |= dict(length_penalty=power, early_stopping=early_stopping)
        expected = theirs.generate(source, attention_mask=mask[:, 0].long(), **options)
        ways = dict(**WAYS, n_beams=n_beams, source_mask=mask, early_stopping=early_stopping)
        found, score = beam_search(ours, source, limit, **ways, length_penalty=lambda n: n**power)
        case = (n_beams, power, early_stopping, limit)
        assert stripped(found) == stripped(expected.sequences[:, 1:]), case
        if n_beams > 1:
            torch.testing.assert_close(score, expected.sequences_scores, rtol=1e-4, atol=1e-4, msg=str(case))
        lengths |= set(map(len, stripped(found)))
    assert len(lengths) > 2


# The mean of checkpoints.


def test_the_mean_of_weights_is_the_mean_of_each(dtype):
    models = [small_encoder_decoder().to(dtype) for _ in range(3)]
    mean = average_checkpoints([model.state_dict() for model in models])
    for name, value in mean.items():
        assert value.dtype == dtype
        assert_same(value, torch.stack([model.state_dict()[name] for model in models]).mean(0))
    models[0].load_state_dict(mean)
    assert models[0].head.weight is models[0].embedding.tokens.weight


def test_checkpoints_can_be_given_by_their_directories(tmp_path):
    models = [small_encoder_decoder() for _ in range(2)]
    for i, model in enumerate(models):
        save_checkpoint(tmp_path / str(i), model)
    expected = average_checkpoints([model.state_dict() for model in models])
    mean = average_checkpoints([tmp_path / "0", str(tmp_path / "1")])
    assert mean.keys() == expected.keys()
    assert all(value.equal(expected[name]) for name, value in mean.items())


def test_states_of_different_models_are_refused():
    first, deeper = (EncoderDecoder(small_config(n_layers=n)).state_dict() for n in (1, 2))
    with pytest.raises(ValueError, match=r"states 0 and 1 are not of one model: decoder.layers.1.\S+ is None and \("):
        average_checkpoints([first, deeper])
    with pytest.raises(ValueError, match=r"w is \(2,\) and \(3,\)"):
        average_checkpoints([{"w": torch.zeros(2)}, {"w": torch.zeros(3)}])
    with pytest.raises(ValueError, match="no weights to average"):
        average_checkpoints([])
