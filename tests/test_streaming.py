"Streaming: the tokens and texts of generate, piece by piece; a stream that is closed or forgotten leaves the model as it was."

import gc
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import assert_same, small_language_model
from hypothesis import given
from hypothesis import strategies as st

from transformer_nb.generation import generate
from transformer_nb.inference import calls
from transformer_nb.inference.calls import SWITCHED, GenerationCall, evaluation_mode
from transformer_nb.inference.conversation import CachedLogits, Conversation
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


def test_frozen_parts_of_a_module_that_hears_of_its_mode_stay_frozen():
    class Hears(torch.nn.Sequential):
        def train(self, mode=True):
            return super().train(mode)

    model = torch.nn.Sequential(Hears(torch.nn.Dropout(), torch.nn.Dropout()))
    model[0][1].eval()
    before = state(model)
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert state(model) == before


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


def interrupted_at(number, work):
    "Whether work was interrupted: by Ctrl-C before the line of this number that it runs in the module of evaluation mode."
    lines = iter(range(number + 1))

    def trace(frame, event, arg):
        if frame.f_code.co_filename != calls.__file__:
            return None
        if event == "line" and frame.f_lineno not in NO_SIGNAL_BEFORE and next(lines, None) == number:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


# Python looks for signals after calls and at the ends of loops, so not before the first call of a `finally` or a `with`.
NO_SIGNAL_BEFORE = {
    number
    for number, line in enumerate(Path(calls.__file__).read_text(encoding="utf-8").splitlines(), 1)
    if line.strip().startswith(("LEAVING.append(", "BUSY.discard(", "with LOCK", "try:"))
}


def test_ctrl_c_at_any_line_is_made_good_by_the_next_call():
    class Hears(torch.nn.Dropout):
        def train(self, mode=True):
            return super().train(mode)

    model = torch.nn.Sequential(torch.nn.Dropout(), Hears(), torch.nn.Sequential(torch.nn.Dropout()))
    model[2].eval()
    before, number = state(model), 0

    def work():
        with evaluation_mode(model):
            assert not any(module.training for module in model.modules())

    while interrupted_at(number, work):
        number += 1
        work()
        assert state(model) == before and not calls.LEAVING and not calls.BUSY
    assert 40 < number < 400
    together = threading.Thread(target=work, daemon=True)
    together.start()
    together.join(60)
    assert not together.is_alive(), "the lock is held"


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


# A conversation.


def count_positions(model):
    "How many positions each call of the model computes."
    counts = []
    model.register_forward_pre_hook(lambda module, args: counts.append(args[0].shape[1]))
    return counts


TURNS = [([1, 2, 3], 4), ([5], 3), ([6, 7], 0), ([8, 9, 10, 11], 5), ([], 2)]


@pytest.mark.parametrize("options", [dict(positions="rotary"), dict(positions="learned"), dict(embedding="bigram"), dict(positions="sinusoidal", norm_first=False)], ids=str)
@pytest.mark.parametrize("block_size", [64, 12])
def test_a_conversation_is_the_text_that_generate_writes_from_the_whole(options, block_size):
    model = small_language_model(block_size=block_size, dropout=0.5, **options).double().train()
    counts, chat, text = count_positions(model), Conversation(model), []
    expected_counts = []
    for said, n in TURNS:
        counts.clear()
        answer = chat.reply(said, n, temperature=0)
        expected_counts += counts
        text = generate(model, text + said, n, temperature=0).tolist() if text + said else []
        assert chat.ids.tolist() == text and answer.tolist() == text[len(text) - n :] and model.training
    if block_size == 64:
        assert expected_counts == [3, 1, 1, 1] + [2, 1, 1] + [7, 1, 1, 1, 1] + [1, 1]
    assert not chat.ids.is_inference()


TODAY = {
    "shared heads": dict(n_kv_heads=1, positions="rotary", norm="rms", feed_forward="gated", activation="silu", bias=False),
    "window": dict(n_kv_heads=2, sliding_window=3, positions="rotary"),
    "normed queries": dict(n_heads=4, n_kv_heads=2, head_dim=6, qk_norm=True, positions="rotary"),
    "window in one layer": dict(sliding_window=[2, None], positions="learned"),
    "bigrams": dict(embedding="bigram", sliding_window=4, positions="rotary", n_kv_heads=1),
}


@pytest.mark.parametrize("name", TODAY)
def test_todays_attention_in_batches_and_conversations(name):
    model = small_language_model(attention="grouped_query", block_size=16, dropout=0.3, **TODAY[name]).double().train()
    prompts, alone = [indices(n) for n in (3, 1, 18)], dict(temperature=0, use_cache=False)
    for prompt, text in zip(prompts, generate(model, prompts, 14, temperature=0), strict=True):
        assert text.equal(generate(model, prompt, 14, **alone))
    chat, text = Conversation(model), []
    for said, n in (([1, 2], 3), ([4, 5, 6], 4), ([7], 6)):
        chat.reply(said, n, temperature=0)
        text = generate(model, text + said, n, **alone).tolist()
        assert chat.ids.tolist() == text


def test_an_answer_that_is_broken_off_is_part_of_the_conversation_as_far_as_it_came():
    model = small_language_model(block_size=64).double()
    chat = Conversation(model)
    made = [token for _, token in zip(range(3), chat.stream([1, 2], 9, temperature=0))]
    assert chat.ids.tolist() == [1, 2, *made]
    chat.reply([4], 5, temperature=0)
    assert generate(model, [1, 2, *made, 4], 5, temperature=0).equal(chat.ids)


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_a_step_that_fails_halfway_leaves_a_conversation_that_goes_on(error):
    model = small_language_model(block_size=64).double()
    chat, calls = Conversation(model), []

    def fail(*_):
        calls.append(1)
        if len(calls) == 5:
            raise error

    handle = model.stack.layers[1].attention.out_proj.register_forward_hook(fail)
    with pytest.raises(error):
        chat.reply([1, 2], 9, temperature=0)
    handle.remove()
    assert len(chat.ids) == 6
    chat.reply([], 5, temperature=0)
    assert generate(model, [1, 2], 9, temperature=0).equal(chat.ids)


def test_weights_that_have_changed_are_used_at_once():
    model = small_language_model(block_size=64).double()
    chat = Conversation(model)
    for change in (lambda p: p.add_(0.1), lambda p: p.copy_(torch.randn_like(p)), lambda p: setattr(p, "data", p.detach() * 1.1)):
        said = chat.reply([1, 2], 5, temperature=0)
        with torch.no_grad():
            change(model.stack.layers[0].attention.in_proj_weight)
        assert len(said) == 5
        before = chat.ids.tolist()
        expected = generate(model, [*before, 3], 5, temperature=9.0, generator=seeded())
        chat.reply([3], 5, temperature=9.0, generator=seeded())
        assert expected.equal(chat.ids)
    hooked = []
    model.stack.layers[0].register_forward_hook(lambda *_: hooked.append(1))
    chat.reply([1], 5, temperature=0)
    assert len(hooked) == 5


@pytest.mark.parametrize("ids", [[1, 2, 3], [1, 2], [], [9, 9, 9, 9], list(range(12)) * 2], ids=str)
def test_turns_can_be_taken_back(ids):
    model = small_language_model(block_size=32).double()
    for parameter in model.parameters():
        parameter.data *= 4  # far from uniform, so that each token depends on those before it
    chat = Conversation(model)
    chat.reply([1, 2, 3], 6, temperature=0)
    chat.ids = torch.tensor(ids, dtype=torch.long)
    chat.reply([4], 7, temperature=4.0, generator=seeded())
    assert generate(model, [*ids, 4], 7, temperature=4.0, generator=seeded()).equal(chat.ids)


def test_cached_logits_are_those_of_the_text_after_another_one_and_after_an_error():
    model = small_language_model(block_size=32).double().eval()
    read = CachedLogits()

    def check(ids):
        ids = torch.tensor([ids])
        call = GenerationCall(model, ids[0], 4, None, temperature=0, top_k=None, top_p=None, min_p=None, generator=None)
        with torch.inference_mode():
            assert_same(read(ids, call), model(ids)[:, -1])

    for ids in ([1, 2, 3, 4], [9, 9, 9, 9, 4], [9, 9, 9, 9, 4, 7], [9, 9], [1, 2, 3, 4, 5]):
        check(ids)
    stop = model.stack.layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        check([1, 2, 3, 4, 5, 6])
    stop.remove()
    check([1, 2, 3, 4, 5, 6])


def test_a_hook_is_called_from_the_next_turn_on_where_the_cache_has_room():
    chat, hooked = Conversation(small_language_model(block_size=32)), []
    chat.reply([1], 12, temperature=0)
    chat.ids = chat.ids[:2]
    chat.model.stack.layers[0].register_forward_hook(lambda *_: hooked.append(1))
    chat.reply([1], 5, temperature=0)
    assert len(hooked) == 5


def test_a_conversation_of_texts():
    tokenizer = BPETokenizer.from_text(SOURCE * 3, 300)
    model = text_model(tokenizer).double()
    chat, prompt = Conversation(model, tokenizer), SOURCE[:9]
    for options in (dict(temperature=0), dict(generator=seeded(), top_k=9)):
        before = tokenizer.decode(chat.ids.tolist())
        whole = torch.cat((chat.ids, tokenizer.encode(prompt)))
        same = {**options, "generator": seeded()} if "generator" in options else options
        answer = chat.reply(prompt, 12, **options)
        assert generate(model, whole, 12, **same).equal(chat.ids)
        assert answer == tokenizer.decode(chat.ids[len(whole) :]) and before + prompt == tokenizer.decode(whole)
    stop = chat.reply("", 12, temperature=0)[2:4]
    chat.ids = chat.ids[:-12]
    short = chat.reply("", 12, temperature=0, stop=stop)
    assert stop not in short and tokenizer.decode(chat.ids.tolist()).endswith(short + stop)


def test_what_a_conversation_refuses_leaves_it_as_it_was(shapes_unchecked):
    chat = Conversation(small_language_model())
    with pytest.raises(ValueError, match="at least one token"):
        chat.reply([], 3)
    chat.reply([1, 2], 3)
    before = chat.ids.clone()
    for said, n, options, error in (([1, 99], 3, {}, IndexError), ([1], -1, {}, ValueError), ([1], 3, dict(top_p=2), ValueError), ([1.5], 3, {}, TypeError), ([1], 3, dict(heat=1), TypeError)):
        with pytest.raises(error):
            chat.reply(said, n, **options)
    with pytest.raises(ValueError, match="is not causal"):
        model = small_language_model()
        model.is_causal = False
        Conversation(model)
    assert chat.ids.equal(before)
    old = chat.stream([1], 5)
    next(old)
    chat.reply([2], 2)
    with pytest.raises(RuntimeError, match="an answer to an earlier turn cannot be continued"):
        next(old)


def test_two_threads_in_one_conversation_are_told():
    model = small_language_model()
    chat, said = Conversation(model), []

    def second(*_):
        try:
            chat.reply([1], 2)
        except RuntimeError as error:
            said.append(str(error))

    def in_a_thread(*_):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    model.register_forward_hook(in_a_thread)
    chat.reply([1, 2], 1)
    assert said and "give each thread a Conversation of its own" in said[0]


def test_any_module_converses():
    class Successor(torch.nn.Module):
        def forward(self, ids):
            return torch.nn.functional.one_hot((ids + 1) % 13, 13).float()

    chat = Conversation(Successor())
    assert chat.reply([3], 2, temperature=0).tolist() == [4, 5] and chat.reply([9], 2, temperature=0).tolist() == [10, 11]


# Eight threads.


@pytest.fixture
def threads_take_turns_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_modes_are_right_while_eight_threads_enter_and_leave(threads_take_turns_often):
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout()))
    model[1][0].eval()
    wrong, before = [], state(model)

    def work(number):
        part = [model, model[1], model[0], model[1][1]][number % 4]
        try:
            for turn in range(200):
                with evaluation_mode(part):
                    if any(module.training for module in part.modules()):
                        wrong.append((number, turn))
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong and state(model) == before


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
