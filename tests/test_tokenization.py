"Any text comes back unchanged, any file is either a tokenizer or refused, windows are what a loop would cut."

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from transformer_nb.tokenization import (
    BPETokenizer,
    CharTokenizer,
    load_tokenizer,
    next_token_windows,
    series_corpus,
    walking_batch,
)

any_text = st.text(st.characters(), min_size=1)  # surrogates too
valid_text = st.text(min_size=1)  # what UTF-8 can hold


def as_saved(tokenizer, directory):
    "What comes back when a tokenizer is saved and loaded."
    path = directory / "tokenizer.json"
    tokenizer.save(path)
    return load_tokenizer(path)


# Characters.


@given(any_text)
def test_any_text_comes_back_from_its_characters(text):
    tokenizer = CharTokenizer.from_text(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "text", ["\ud800", "\udfff\ud83d", "\ud83d\ude00", "\0", "\U0010ffff", "a\r\nb\x85\u2028", "e\u0301é"], ids=ascii
)
def test_odd_characters_come_back(text):
    tokenizer = CharTokenizer.from_text(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(any_text)
def test_the_vocabulary_is_the_sorted_set_of_characters(text):
    tokenizer = CharTokenizer.from_text(text)
    assert tokenizer.characters == "".join(sorted(set(text)))
    assert tokenizer.vocab_size == len(set(text))


@given(any_text)
def test_each_index_is_the_place_in_the_vocabulary(text):
    vocabulary = sorted(set(text))
    expected = [vocabulary.index(character) for character in text]
    assert CharTokenizer.from_text(text).encode(text).tolist() == expected


@given(any_text, any_text)
def test_only_the_set_of_characters_matters(text, more):
    one, other = CharTokenizer.from_text(text + more), CharTokenizer.from_text(more + text + more)
    assert one.characters == other.characters


def test_encode_gives_long_indices_for_each_character():
    ids = CharTokenizer.from_text("banana").encode("nab")
    assert ids.dtype == torch.int64 and ids.tolist() == [2, 0, 1]


@pytest.mark.parametrize("ids", [[0, 1, 0], torch.tensor([0, 1, 0]), torch.tensor([0, 1, 0], dtype=torch.int32)])
def test_decode_takes_lists_and_tensors(ids):
    assert CharTokenizer.from_text("ab").decode(ids) == "aba"


@pytest.mark.parametrize("ids", [[], torch.tensor([], dtype=torch.int64)])
def test_an_empty_text_goes_there_and_back(ids):
    tokenizer = CharTokenizer.from_text("ab")
    assert tokenizer.encode("").shape == (0,) and tokenizer.encode("").dtype == torch.int64
    assert tokenizer.decode(ids) == ""


@pytest.mark.parametrize(
    "text, character, position",
    [
        ("abz", "z", 2),
        ("Xab", "X", 0),
        ("ab\nc", "\n", 2),
        ("aéb", "é", 1),
        ("ab😀", "😀", 2),
        ("a\ud800", "\ud800", 1),
    ],
    ids=ascii,
)
def test_an_unknown_character_is_named_with_its_position(text, character, position):
    with pytest.raises(ValueError) as error:
        CharTokenizer.from_text("abc").encode(text)
    assert f"character {character!r} at position {position} is not among the 3" in str(error.value)


@given(any_text, any_text)
def test_the_first_unknown_character_is_the_one_that_is_named(known, text):
    unknown = [position for position, character in enumerate(text) if character not in known]
    tokenizer = CharTokenizer.from_text(known)
    if unknown:
        with pytest.raises(ValueError) as error:
            tokenizer.encode(text)
        assert f"{text[unknown[0]]!r} at position {unknown[0]} " in str(error.value)
    else:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("ids, outside", [([0, 3], 3), ([-1, 0], -1), ([2**40], 2**40)])
def test_an_index_outside_the_vocabulary_is_named(ids, outside):
    with pytest.raises(ValueError, match=f"index {outside} is outside the vocabulary: indices are 0 to 2"):
        CharTokenizer.from_text("abc").decode(ids)


def test_an_empty_text_has_no_vocabulary():
    with pytest.raises(ValueError, match="cannot make a vocabulary from an empty text"):
        CharTokenizer.from_text("")


@pytest.mark.parametrize("characters", ["", "ba", "aab"])
def test_a_vocabulary_out_of_order_is_refused(characters):
    with pytest.raises(ValueError, match=f"sorted, without repetition and not empty, got '{characters}'"):
        CharTokenizer(characters)


# Bytes and merges.


@pytest.fixture(scope="module")
def bpe():
    return BPETokenizer.from_text(series_corpus()[:20_000], 400)


@given(text=valid_text)
def test_any_text_comes_back_from_its_merges_though_learned_on_another(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text


@pytest.mark.parametrize("text", ["", " ", "  a  b ", "\n\n\t", "\0", "é😀", "<unk> [CLS]", " leading"], ids=ascii)
def test_odd_texts_come_back_from_their_merges(bpe, text):
    ids = bpe.encode(text)
    assert ids.dtype == torch.int64 and bpe.decode(ids) == text


@given(text=valid_text)
def test_there_are_at_most_as_many_tokens_as_bytes(bpe, text):
    assert len(bpe.encode(text)) <= len(text.encode())


def test_merges_make_a_text_shorter(bpe):
    text = series_corpus()[:5000]
    assert len(bpe.encode(text)) < 0.7 * len(text.encode())


def test_the_vocabulary_has_the_size_that_was_asked_for(bpe):
    assert bpe.vocab_size == 400


def test_without_merges_each_byte_is_a_token():
    tokenizer = BPETokenizer.from_text("abab", vocab_size=256)
    assert tokenizer.vocab_size == 256 and len(tokenizer.encode("é😀")) == 6


def test_a_text_without_repetition_teaches_no_merge():
    assert BPETokenizer.from_text("abcd", vocab_size=1000).vocab_size == 256


def test_learning_twice_gives_the_same_merges():
    one, other = (BPETokenizer.from_text(series_corpus()[:5000], 300) for _ in range(2))
    assert json.loads(one.tokenizer.to_str()) == json.loads(other.tokenizer.to_str())


@pytest.mark.parametrize("ids, outside", [([0, 400], 400), ([-1, 0], -1), ([2**40], 2**40)])
def test_a_merge_outside_the_vocabulary_is_named(bpe, ids, outside):
    with pytest.raises(ValueError, match=f"index {outside} is outside the vocabulary: indices are 0 to 399"):
        bpe.decode(ids)


def test_an_empty_text_teaches_no_merges():
    with pytest.raises(ValueError, match="cannot learn merges from an empty text"):
        BPETokenizer.from_text("")


@pytest.mark.parametrize("vocab_size", [0, 255, -1])
def test_a_vocabulary_holds_every_byte(vocab_size):
    with pytest.raises(ValueError, match=f"at least 256, the number of bytes, got {vocab_size}"):
        BPETokenizer.from_text("abc", vocab_size)


def test_what_utf_8_cannot_hold_is_refused_with_its_position(bpe):
    with pytest.raises(ValueError, match=r"'\\ud800' in position 2"):
        bpe.encode("ab\ud800")


# Files.


@given(text=any_text)
def test_a_saved_vocabulary_comes_back(tmp_path_factory, text):
    tokenizer = CharTokenizer.from_text(text)
    loaded = as_saved(tokenizer, tmp_path_factory.mktemp("char"))
    assert isinstance(loaded, CharTokenizer) and loaded.characters == tokenizer.characters


@pytest.mark.parametrize("text", ["\ud83d\ude00", '{"model": 1}', '"model"', "\r\n\\", "\x85\u2028"], ids=ascii)
def test_an_odd_vocabulary_comes_back(tmp_path, text):
    tokenizer = CharTokenizer.from_text(text)
    loaded = as_saved(tokenizer, tmp_path)
    assert isinstance(loaded, CharTokenizer) and loaded.characters == tokenizer.characters


def test_saved_merges_come_back(bpe, tmp_path):
    loaded, text = as_saved(bpe, tmp_path), series_corpus()[-2000:]
    assert isinstance(loaded, BPETokenizer) and loaded.vocab_size == bpe.vocab_size
    assert torch.equal(loaded.encode(text), bpe.encode(text))


@pytest.mark.parametrize("kind", [CharTokenizer, BPETokenizer])
def test_each_kind_loads_its_own_file(kind, tmp_path):
    tokenizer = kind.from_text("banana bandana")
    tokenizer.save(tmp_path / "t.json")
    assert kind.load(tmp_path / "t.json").encode("banana").equal(tokenizer.encode("banana"))


def test_a_path_may_be_a_string(tmp_path):
    CharTokenizer.from_text("ab").save(str(tmp_path / "t.json"))
    assert load_tokenizer(str(tmp_path / "t.json")).characters == "ab"


FOREIGN = {
    "empty": b"",
    "truncated": b'{"characters": "ab',
    "truncated merges": b'{"version": "1.0", "model": {"type": "BPE", "voc',
    "plain text": b"once upon a time",
    "bytes that are no text": bytes(range(256)),
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "bytes that mention a model": b'"model"\xff\xfe',
    "a list": b"[1, 2]",
    "a list about a model": b'["model"]',
    "a number": b"3",
    "null": b"null",
    "another object": b'{"vocab_size": 3}',
    "a config of a model": b'{"model": "gpt2"}',
    "an empty model": b'{"model": {}}',
    "merges without their tokens": b'{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": ["a b"]}}',
    "characters that are a number": b'{"characters": 5}',
    "characters that are a list": b'{"characters": ["a", 2]}',
    "characters that are null": b'{"characters": null}',
    "no characters": b'{"characters": ""}',
    "characters out of order": b'{"characters": "ba"}',
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_no_tokenizer_is_a_value_error_of_one_line(content, tmp_path, shapes_unchecked):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        load_tokenizer(path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("content", [FOREIGN["empty"], FOREIGN["a list"], FOREIGN["bytes that are no text"]])
@pytest.mark.parametrize("kind", [CharTokenizer, BPETokenizer])
def test_the_message_names_the_file(kind, content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="tokenizer.json is no tokenizer"):
        kind.load(path)


@pytest.mark.parametrize("kind, other", [(CharTokenizer, BPETokenizer), (BPETokenizer, CharTokenizer)])
def test_one_kind_refuses_the_file_of_the_other(kind, other, tmp_path):
    path = tmp_path / "tokenizer.json"
    other.from_text("abab").save(path)
    with pytest.raises(ValueError, match="is no (character|byte-pair) tokenizer"):
        kind.load(path)


@pytest.mark.parametrize("kind", [CharTokenizer, BPETokenizer])
def test_every_truncation_of_a_saved_file_is_refused(kind, tmp_path):
    path = tmp_path / "tokenizer.json"
    kind.from_text("abab").save(path)
    whole = path.read_bytes()
    for end in range(0, len(whole.rstrip()), max(1, len(whole) // 40)):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="is no tokenizer"):
            load_tokenizer(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.json"):
        load_tokenizer(tmp_path / "nowhere.json")


# Windows.


@given(st.integers(1, 12), st.integers(1, 30))
def test_windows_are_what_a_loop_would_cut(block_size, more):
    ids = torch.randint(0, 99, (block_size + more,))
    x, y = next_token_windows(ids, block_size)
    assert x.tolist() == [ids[i : i + block_size].tolist() for i in range(len(ids) - block_size)]
    assert y.tolist() == [ids[i + 1 : i + block_size + 1].tolist() for i in range(len(ids) - block_size)]


def test_a_text_of_one_window_and_one_token_gives_one_pair():
    x, y = next_token_windows(torch.arange(5), 4)
    assert (x.tolist(), y.tolist()) == ([[0, 1, 2, 3]], [[1, 2, 3, 4]])


def test_windows_are_views_and_cost_no_memory():
    ids = torch.arange(100)
    x, y = next_token_windows(ids, 10)
    assert x.data_ptr() == ids.data_ptr() and y.data_ptr() == ids[1:].data_ptr()
    assert x.untyped_storage().nbytes() == ids.untyped_storage().nbytes()


@pytest.mark.parametrize("length, block_size", [(0, 1), (3, 3), (3, 64)])
def test_a_text_shorter_than_a_window_says_what_is_needed(length, block_size):
    with pytest.raises(ValueError, match=f"need {block_size + 1} tokens, got a text of {length}"):
        next_token_windows(torch.arange(length), block_size)


@pytest.mark.parametrize("block_size", [0, -1])
def test_a_window_has_at_least_one_token(block_size):
    with pytest.raises(ValueError, match=f"block_size must be at least 1, got {block_size}"):
        next_token_windows(torch.arange(5), block_size)


# What is packaged.


def test_the_corpus_is_text_of_some_length():
    assert len(series_corpus()) > 1000 and series_corpus() == series_corpus()


def test_the_corpus_comes_back_from_its_own_tokenizer():
    tokenizer = CharTokenizer.from_text(series_corpus())
    assert tokenizer.decode(tokenizer.encode(series_corpus())) == series_corpus()


def test_the_batch_of_the_series_is_five_windows_of_eight():
    tokenizer, x, y = walking_batch()
    assert x.shape == y.shape == (5, 8)
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert tokenizer.decode(x.flatten()) == series_corpus()[:40]


def test_the_import_hook_checks_the_kind_of_indices():
    with pytest.raises(TypeCheckError, match="parameter 'ids'"):
        next_token_windows(torch.zeros(5), 2)
