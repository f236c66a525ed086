"Streaming: the tokens and texts of generate, piece by piece; a stream that is closed or forgotten leaves the model as it was."

import gc
import threading
from functools import partial

import pytest
import torch
from helpers import small_language_model
from hypothesis import given
from hypothesis import strategies as st

from transformer_nb.generation import generate
from transformer_nb.inference.calls import SWITCHED, evaluation_mode
from transformer_nb.inference.streaming import PieceDecoder, stream, stream_text, text_before_stop
from transformer_nb.tokenization import BPETokenizer, CharTokenizer

OPTIONS = [{}, dict(temperature=0), dict(top_k=3), dict(top_p=0.7), dict(min_p=0.1), dict(repetition_penalty=1.3), dict(use_cache=False), dict(stop=[4, 7])]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def indices(*shape):
    return torch.randint(0, 13, shape)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_stream_yields_what_generate_appends(options):
    model = small_language_model(dropout=0.3).train()
    for prompt in (indices(3), [4], indices(2, 5), [indices(2), indices(5)]):
        made = list(stream(model, prompt, 12, generator=seeded(), **options))
        whole = generate(model, prompt, 12, generator=seeded(), **options)
        if isinstance(prompt, list) and len(prompt) == 2:
            for row, text, column in zip(prompt, whole, torch.stack(made, 1), strict=True):
                assert text[len(row) :].equal(column[: len(text) - len(row)])
        elif isinstance(made[0], int):
            assert made == whole[len(prompt) :].tolist()
        else:
            assert torch.stack(made, 1).equal(whole[:, 5:])


def test_log_probabilities_come_with_the_tokens():
    model = small_language_model()
    text, log_p = generate(model, indices(3), 6, generator=seeded(), return_log_probs=True)
    pairs = list(stream(model, text[:3], 6, generator=seeded(), return_log_probs=True))
    assert [token for token, _ in pairs] == text[3:].tolist() and [p for _, p in pairs] == log_p.tolist()


def test_errors_come_when_stream_is_called():
    with pytest.raises(ValueError, match="max_new_tokens must be at least 0"):
        stream(small_language_model(), indices(3), -1)
    with pytest.raises(ValueError, match="at least one character, got ''"):
        stream_text(small_language_model(), CharTokenizer("abc"), "a", 3, stop=["b", ""])


# Between two tokens, and when nobody asks for more, all is as before.


def state(model):
    return [module.training for module in model.modules()], torch.is_inference_mode_enabled(), torch.is_grad_enabled(), len(SWITCHED)


@pytest.mark.parametrize("end", ["closed", "forgotten", "in another thread", "exhausted"])
def test_a_stream_leaves_everything_as_it_was(end):
    model = small_language_model(dropout=0.5).train()
    model.stack.layers[0].eval()
    before = state(model)
    tokens = stream(model, indices(3), 10)
    for _ in range(3):
        next(tokens)
        assert state(model) == before
    model(indices(2, 4)).sum().backward()  # somebody trains in between
    if end == "closed":
        tokens.close()
    elif end == "exhausted":
        list(tokens)
    elif end == "forgotten":
        del tokens
        gc.collect()
    else:
        thread = threading.Thread(target=tokens.close)
        thread.start()
        thread.join()
    assert state(model) == before


def test_an_exception_inside_a_step_leaves_everything_as_it_was():
    model = small_language_model(dropout=0.5).train()
    before, calls = state(model), []

    def fail(*_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    handle = model.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        list(stream(model, indices(3), 10))
    assert state(model) == before
    handle.remove()
    assert len(list(stream(model, indices(3), 10))) == 10


def test_a_suspended_stream_does_not_hear_what_happens_to_the_mode():
    model = small_language_model(dropout=0.5).train()
    expected = generate(model, [1, 2, 3], 9, temperature=0)[3:].tolist()
    tokens, made = stream(model, [1, 2, 3], 9, temperature=0), []
    for i, token in enumerate(tokens):
        made.append(token)
        model.train(i % 2 == 0)
        if i == 4:
            assert generate(model, [1, 2, 3], 9, temperature=0)[3:].tolist() == expected  # another text in between
    assert made == expected


# Evaluation mode for parts, replaced modules, and users that the garbage collector ends.


def test_a_part_that_is_still_used_stays_in_evaluation_mode():
    model = small_language_model(dropout=0.5).train()
    part, whole = evaluation_mode(model.stack), evaluation_mode(model)
    part.__enter__()
    whole.__enter__()
    part.__exit__(None, None, None)
    assert not any(module.training for module in model.modules())
    whole.__exit__(None, None, None)
    assert all(module.training for module in model.modules()) and not SWITCHED
    whole, part = evaluation_mode(model), evaluation_mode(model.stack)
    whole.__enter__()
    part.__enter__()
    whole.__exit__(None, None, None)
    assert model.training and not any(module.training for module in model.stack.modules())
    part.__exit__(None, None, None)
    assert all(module.training for module in model.modules()) and not SWITCHED


def test_a_module_that_was_replaced_meanwhile_is_put_back_too():
    model = small_language_model(dropout=0.5).train()
    old, new = model.head, torch.nn.Linear(8, 13).eval()
    with evaluation_mode(model):
        model.head = new
    assert old.training and not new.training and model.training


def test_who_switches_to_training_meanwhile_is_not_overruled():
    model = small_language_model().eval()
    with evaluation_mode(model):
        model.train()
    assert model.training


def test_a_generator_may_be_collected_while_another_call_switches_modes(monkeypatch):
    model, other = small_language_model(dropout=0.5).train(), small_language_model(dropout=0.5).train()

    def holds_the_mode():
        with evaluation_mode(other):
            yield

    suspended = [holds_the_mode()]
    next(suspended[0])
    real = model.train

    def collected_here(mode=True):  # called inside the lock
        suspended.clear()
        return real(mode)

    monkeypatch.setattr(model, "train", collected_here)
    done = threading.Thread(target=generate, args=(model, [1, 2], 3), daemon=True)
    done.start()
    done.join(60)
    assert not done.is_alive() and other.training and model.training and not SWITCHED


# Text.

SOURCE = "naïve café, 語彙 and 🙂🙃; "


def text_model(tokenizer, **options):
    return small_language_model(vocab_size=tokenizer.vocab_size, block_size=16, **options)


@pytest.mark.parametrize("tokenizer", [CharTokenizer.from_text(SOURCE), BPETokenizer.from_text(SOURCE, 256), BPETokenizer.from_text(SOURCE * 3, 300)], ids=["characters", "bytes", "bpe"])
def test_the_pieces_are_the_text_of_the_tokens(tokenizer):
    model = text_model(tokenizer)
    for seed in range(5):
        pieces = list(stream_text(model, tokenizer, SOURCE[:9], 40, generator=seeded(seed), temperature=5.0))
        ids = generate(model, tokenizer.encode(SOURCE[:9]), 40, generator=seeded(seed), temperature=5.0)
        assert "".join(pieces) == tokenizer.decode(ids[len(tokenizer.encode(SOURCE[:9])) :]) and all(pieces)


@given(st.text(max_size=12), st.integers(256, 300))
def test_every_character_is_whole(text, vocab_size):
    tokenizer = BPETokenizer.from_text(SOURCE * 3, vocab_size)
    decoder = PieceDecoder(tokenizer.decode, tokenizer.encode(SOURCE).tolist())
    pieces = [decoder.push(token) for token in tokenizer.encode(text).tolist()]
    assert "".join(pieces) + decoder.finish() == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@given(st.lists(st.integers(0, 255), max_size=12))
def test_bytes_that_are_no_characters_give_what_decode_gives(ids):
    tokenizer = BPETokenizer.from_text(SOURCE, 256)
    decoder = PieceDecoder(tokenizer.decode)
    assert "".join(map(decoder.push, ids)) + decoder.finish() == tokenizer.decode(ids)


def test_words_are_joined_as_the_tokenizer_joins_them(shapes_unchecked):
    def decode(ids):  # as WordPiece and SentencePiece do
        return "".join(word[2:] if word.startswith("##") else " " + word for word in ids).strip()

    decoder = PieceDecoder(decode, ["the"])
    assert [decoder.push(word) for word in ("to", "##ken", "is", "##n", "one")] == [" to", "ken", " is", "n", " one"]


@given(st.text("ab🙂", max_size=12), st.lists(st.text("ab🙂", min_size=1, max_size=3), max_size=3), st.lists(st.integers(1, 12), max_size=4))
def test_a_text_ends_before_the_stop_string_that_is_complete_first(text, stops, cuts):
    ends = [(end, -len(stop)) for end in range(1, len(text) + 1) for stop in stops if text[:end].endswith(stop)]
    expected = text[: sum(min(ends))] if ends else text
    borders = sorted({0, *(min(cut, len(text)) for cut in cuts), len(text)})
    pieces = [text[a:b] for a, b in zip(borders, borders[1:])]
    assert "".join(text_before_stop(iter(pieces), stops)) == expected


def test_a_stop_string_ends_the_loop():
    tokenizer = CharTokenizer.from_text("abcdefghijklm")
    model, calls = small_language_model(), []
    text = "".join(stream_text(model, tokenizer, "abc", 20, generator=seeded()))
    model.register_forward_hook(lambda *_: calls.append(1))
    stop = text[6:9]
    short = "".join(stream_text(model, tokenizer, "abc", 20, generator=seeded(), stop=stop))
    assert short == text[: text.index(stop)] and len(calls) == text.index(stop) + 3


def test_stop_tokens_and_strings_together(shapes_unchecked):
    tokenizer, model = CharTokenizer.from_text("abcdefghijklm"), small_language_model()
    text = "".join(stream_text(model, tokenizer, "abc", 20, generator=seeded()))
    token = tokenizer.encode(text[5]).item()
    for stop in (token, [token], ["xyz", token], torch.tensor([token])):
        assert "".join(stream_text(model, tokenizer, "abc", 20, generator=seeded(), stop=stop)) == text[: text.index(text[5])]


def test_a_tokenizer_of_another_library(shapes_unchecked):
    ours = BPETokenizer.from_text(SOURCE * 3, 300)
    model = text_model(ours)
    texts = ["".join(stream_text(model, t, SOURCE, 9, temperature=0)) for t in (ours, ours.tokenizer)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("prompt, error, message", [("", ValueError, "the prompt is empty"), ([1, 2], TypeError, "must be a text, got list"), ("z", ValueError, "'z' at position 0")])
def test_a_prompt_that_is_no_text_is_refused(prompt, error, message, shapes_unchecked):
    with pytest.raises(error, match=message):
        stream_text(small_language_model(), CharTokenizer.from_text("abc"), prompt, 3)


# Eight threads.


def test_eight_threads_that_stream_generate_close_and_fail_write_what_one_writes():
    model = small_language_model(dropout=0.5, block_size=16).train()
    model.stack.layers[0].eval()
    before, prompts = state(model), [indices(n) for n in (1, 3, 5, 2)]
    expected = [generate(model, prompt, 20, temperature=0)[len(prompt) :].tolist() for prompt in prompts]
    wrong = []

    def work(number):
        for turn in range(6):
            which = (number + turn) % 4
            kind, prompt, right = (number + turn // 2) % 4, prompts[which], expected[which]
            call = partial(generate if kind == 0 else stream, model, prompt, 20, temperature=0)
            if kind == 0:
                made = call()[len(prompt) :].tolist()
            elif kind == 1:
                made = list(call())
            elif kind == 2:
                made = [token for token, _ in zip(call(), range(5))]
            else:
                made = []
                try:
                    for token in call():
                        made.append(token)
                        if len(made) == 7:
                            raise KeyError
                except KeyError:
                    pass
            if made != right[: len(made)] or not made:
                wrong.append((kind, made, right))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong and state(model) == before
