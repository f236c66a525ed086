"The parts from which files of tokenizers are read and checked; what they do together is in test_tokenization."

import json

import pytest
import tokenizers
import torch
from helpers import one_line

from transformer_nb.data.token_ids import check_indices
from transformer_nb.data.tokenizer_files import (
    bpe_from_json,
    bytes_of_tokens,
    bytes_to_unicode,
    check_characters,
    check_utf8_encodable,
    check_vocabulary,
    find_tokenizer_file,
    library_errors,
    parse_merge,
    read_bpe,
    read_characters,
    read_merges,
    train_bpe,
    write_vocab_and_merges,
)

VOCABULARY = {character: byte for byte, character in bytes_to_unicode().items()}


@pytest.fixture
def trained():
    return train_bpe(["low lower lowest newest widest"], 261)


def test_the_characters_of_bytes_are_those_of_transformers():
    from transformers.convert_slow_tokenizer import bytes_to_unicode as published

    assert bytes_to_unicode() == published()


def test_the_characters_of_bytes_are_the_alphabet_of_the_library():
    assert sorted(bytes_to_unicode().values()) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def test_each_token_has_its_bytes(trained):
    trained.add_special_tokens(["<Ġ>"])
    tokens = bytes_of_tokens(trained)
    assert sorted(tokens[:256]) == [bytes([byte]) for byte in range(256)]
    assert tokens[256:] == [b"es", b"lo", b"est", b"low", b" low", "<Ġ>".encode()]


def test_a_text_that_can_be_encoded_is_returned_unchanged():
    for text in ("", "é🙂\0"):
        assert check_utf8_encodable(text) is text
    with pytest.raises(UnicodeEncodeError, match="position 1: a lone surrogate"):
        check_utf8_encodable("é\udfff\ud800")


@pytest.mark.parametrize("ids", [[0, 2], torch.tensor([0, 2]), torch.tensor([0, 2], dtype=torch.int16)])
def test_indices_inside_come_back_as_a_tensor(ids):
    checked = check_indices(ids, 3)
    assert checked.dtype == torch.long and checked.tolist() == [0, 2]
    with pytest.raises(ValueError, match="index 2 is outside the vocabulary: indices are 0 to 1"):
        check_indices(ids, 2)


def test_the_characters_of_a_vocabulary_are_sorted():
    check_characters("abc")
    for wrong in ("", "acb", "abb"):
        with pytest.raises(ValueError, match=f"got '{wrong}'"):
            check_characters(wrong)


def test_a_directory_stands_for_the_first_file_that_it_has(tmp_path):
    with pytest.raises(ValueError, match="the directory holds neither"):
        find_tokenizer_file(tmp_path)
    for name in ("merges.txt", "vocab.json", "tokenizer.json"):
        (tmp_path / name).touch()
        if name != "merges.txt":
            assert find_tokenizer_file(str(tmp_path)) == tmp_path / name
    assert find_tokenizer_file(tmp_path / "merges.txt") == tmp_path / "merges.txt"


def test_a_vocabulary_has_each_byte_and_each_index_once():
    check_vocabulary(VOCABULARY, "vocab.json")
    for wrong in ({**VOCABULARY, "new": 300}, {**VOCABULARY, "new": 0}, {**VOCABULARY, "new": "256"}, {"a": 0}):
        with pytest.raises(ValueError, match="vocab.json") as error:
            check_vocabulary(wrong, "vocab.json")
        assert one_line(error)


def test_a_merge_is_two_tokens_of_the_vocabulary():
    assert parse_merge("a b", {"a": 0, "b": 1, "ab": 2}, "here") == ("a", "b")
    for line in ("ab", "a  b", "a b c", " b", ""):
        with pytest.raises(ValueError, match="here: a merge is two tokens with a space between them"):
            parse_merge(line, {"a": 0, "b": 1, "ab": 2, "": 3}, "here")
    with pytest.raises(ValueError, match="here: 'ab' is not in the vocabulary"):
        parse_merge("a b", {"a": 0, "b": 1}, "here")


def test_a_wrong_merge_is_named_with_its_line(tmp_path):
    vocabulary = {"#": 0, "##": 1}
    (tmp_path / "merges.txt").write_text("#version: 0.2\n# #\n# a\n")
    with pytest.raises(ValueError, match="merges.txt, line 3: 'a' is not in the vocabulary"):
        read_merges(tmp_path / "merges.txt", vocabulary)
    (tmp_path / "merges.txt").write_text("#version: 0.2\n# #\n")
    assert read_merges(tmp_path / "merges.txt", vocabulary) == [("#", "#")]


def test_what_the_library_says_is_one_line():
    with pytest.raises(ValueError, match="a.json is not a BPE tokenizer: two lines") as error:
        with library_errors("a.json"):
            raise Exception("two\n  lines")
    assert one_line(error)


def test_both_kinds_of_files_give_the_same_tokenizer(trained, tmp_path):
    trained.add_special_tokens(["<|endoftext|>"])
    write_vocab_and_merges(trained, tmp_path)
    text = " slowest<|endoftext|> newest"
    assert read_bpe(tmp_path).encode(text).ids == trained.encode(text).ids
    assert bpe_from_json(json.loads(trained.to_str()), tmp_path).to_str() == trained.to_str()
    assert json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8")) == trained.get_vocab()


def test_characters_are_read_from_a_list(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"characters": ["a", "\\ud800"]}')
    assert read_characters(tmp_path / "tokenizer.json") == "a\ud800"
    (tmp_path / "tokenizer.json").write_text('{"characters": "ab"}')
    with pytest.raises(ValueError, match="tokenizer.json is not a character tokenizer"):
        read_characters(tmp_path / "tokenizer.json")
