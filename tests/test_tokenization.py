"Any text comes back unchanged, any file is either a tokenizer or refused, windows are what a loop would cut."

import json
import math
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter

import pytest
import regex
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from helpers import one_line

from transformer_nb.data.tokenizer_files import bytes_to_unicode
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
    for refused in (bpe.encode, BPETokenizer.from_text):
        with pytest.raises(ValueError, match=r"'\\ud800' in position 2: a lone surrogate: .*errors='replace'"):
            refused("ab\ud800\udc00")


@given(raw=st.binary())
def test_bytes_smuggled_into_a_text_are_refused_by_name(bpe, raw):
    text = raw.decode("utf-8", "surrogateescape")
    smuggled = [position for position, character in enumerate(text) if "\ud800" <= character <= "\udfff"]
    if not smuggled:
        assert bpe.decode_bytes(bpe.encode(text)) == raw
        return
    with pytest.raises(UnicodeEncodeError) as error:
        bpe.encode(text)
    assert f"{text[smuggled[0]]!a} in position {smuggled[0]}: " in str(error.value).replace('"', "'")
    assert len(str(error.value).splitlines()) == 1


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
    with pytest.raises(ValueError, match="tokenizer.json is not a tokenizer"):
        kind.load(path)


@pytest.mark.parametrize("kind, other", [(CharTokenizer, BPETokenizer), (BPETokenizer, CharTokenizer)])
def test_one_kind_refuses_the_file_of_the_other(kind, other, tmp_path):
    path = tmp_path / "tokenizer.json"
    other.from_text("abab").save(path)
    with pytest.raises(ValueError, match="is not a (character|BPE) tokenizer"):
        kind.load(path)


@pytest.mark.parametrize("kind", [CharTokenizer, BPETokenizer])
def test_every_truncation_of_a_saved_file_is_refused(kind, tmp_path):
    path = tmp_path / "tokenizer.json"
    kind.from_text("abab").save(path)
    whole = path.read_bytes()
    for end in range(0, len(whole.rstrip()), max(1, len(whole) // 40)):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="is not a tokenizer"):
            load_tokenizer(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.json"):
        load_tokenizer(tmp_path / "nowhere.json")


# As in GPT-2: the package, the library, `transformers`, and the definition written out, on the same two files.

END = "<|endoftext|>"
PATTERN = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
SEEN = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
UNSEEN = [byte for byte in range(256) if byte not in SEEN]
LETTER = {**{byte: chr(byte) for byte in SEEN}, **{byte: chr(256 + n) for n, byte in enumerate(UNSEEN)}}
EMOJI = "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇩🇪 🙂 🧑🏿‍🚀 ❤️ 1️⃣ \u200d \ufe0f 🏽".split(" ")
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'l", " 's", "’s", "don't", "we'll've", "''s", "'sx"]
RUNS = [" ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2028", "\x85", "\x1c", "!", "=", "-", "a", "0", "é", "東", "🙂"]
BLOCKS = "0000 0080 0100 0300 0370 0400 0590 0600 0900 0e00 1100 1e00 2000 2070 2100 2460 3040 4e00 ac00 e000 fb00 fe00 ff00"
BLOCKS += " 10300 1d400 1f300 1f900 20000 e0000 100000"
in_a_block = st.sampled_from(BLOCKS.split()).flatmap(
    lambda first: st.text(st.characters(min_codepoint=int(first, 16), max_codepoint=int(first, 16) + 255, codec="utf-8"))
)
pieces = st.one_of(
    st.just(END),
    st.text(max_size=8),
    in_a_block,
    st.sampled_from(EMOJI + CONTRACTIONS),
    st.sampled_from([END[:-1], "|>", " the", "Model", "e\u0301\u0323", "\u0301", "\u202e", "\ufeff"]),
    st.builds(lambda run, n: run * n, st.sampled_from(RUNS), st.integers(1, 40)),
    st.text("0123456789٣²½Ⅷ.,", max_size=12),
    st.text(st.characters(categories=["Cc", "Cf", "Zs", "Zl", "Zp", "Mn"]), max_size=8),
    st.binary(max_size=16).map(lambda raw: raw.decode("latin-1")),
    st.binary(max_size=16).map(lambda raw: raw.decode("utf-8", "replace")),
)
all_sorts = st.lists(pieces, max_size=8).map("".join)


def plain_encode(text, vocabulary, merges):
    "GPT-2's encoder from its definition: words, bytes, and the merge of lowest rank again and again."
    rank, ids = {pair: i for i, pair in enumerate(merges)}, []
    for part in regex.split(f"({regex.escape(END)})", text):
        for word in [] if part == END else PATTERN.findall(part):
            tokens = [LETTER[byte] for byte in word.encode()]
            while (best := min(zip(tokens, tokens[1:]), key=lambda p: rank.get(p, math.inf), default=None)) in rank:
                tokens = plain_merge(tokens, best)
            ids += [vocabulary[token] for token in tokens]
        ids += [vocabulary[END]] if part == END else []
    return ids


def plain_merge(tokens, pair):
    "The tokens with each occurrence of the pair joined, from left to right."
    merged, i = [], 0
    while i < len(tokens):
        step = 2 if tuple(tokens[i : i + 2]) == pair else 1
        merged.append("".join(tokens[i : i + step]))
        i += step
    return merged


def plain_merges(text, n):
    "The first n merges that a text teaches, by counting pairs anew for each; without those that occur once."
    words = Counter(tuple(LETTER[byte] for byte in word.encode()) for word in PATTERN.findall(text))
    place, merges = {letter: i for i, letter in enumerate(sorted(LETTER.values()))}, []
    for _ in range(n):
        counts = Counter()
        for word, times in words.items():
            for pair in zip(word, word[1:]):
                counts[pair] += times
        pair = max(counts, key=lambda p: (counts[p], -place[p[0]], -place[p[1]]), default=None)
        if counts[pair] < 2:
            break
        merges.append(pair)
        place.setdefault("".join(pair), len(place))
        words = Counter({tuple(plain_merge(word, pair)): times for word, times in words.items()})
    return merges


def merges_of(tokenizer):
    return [tuple(pair) for pair in json.loads(tokenizer.tokenizer.to_str())["model"]["merges"]]


class Published:
    "A directory with vocab.json and merges.txt, written by the library, and all that reads them without our help."

    def __init__(self, directory):
        from transformers import GPT2TokenizerFast

        text = series_corpus()[:40_000] + "model\ncharacters\n<|end|>\n" * 30
        text += " ".join(EMOJI + CONTRACTIONS + ["東京", "naïve"]) * 9
        trained = tokenizers.ByteLevelBPETokenizer()
        trained.train_from_iterator([text], vocab_size=700, show_progress=False)
        trained.save_model(str(directory))
        self.directory, self.vocab, self.merges = directory, directory / "vocab.json", directory / "merges.txt"
        self.vocabulary = json.loads(self.vocab.read_text(encoding="utf-8"))
        self.vocabulary[END] = len(self.vocabulary)
        self.vocab.write_text(json.dumps(self.vocabulary), encoding="utf-8")
        self.lines = self.merges.read_text(encoding="utf-8").split("\n")
        self.pairs = [tuple(line.split(" ")) for line in self.lines[1:-1]]
        self.library = tokenizers.ByteLevelBPETokenizer(str(self.vocab), str(self.merges))
        self.library.add_special_tokens([END])
        self.transformers = GPT2TokenizerFast.from_pretrained(directory, clean_up_tokenization_spaces=False)
        self.ours = BPETokenizer.load(directory)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return Published(tmp_path_factory.mktemp("gpt2"))


def test_the_letters_are_those_of_gpt_2():
    assert bytes_to_unicode() == LETTER


def test_the_published_files_have_what_the_tests_want(gpt2):
    assert gpt2.ours.vocab_size == len(gpt2.vocabulary) == len(gpt2.transformers) == 701 and len(gpt2.pairs) == 444
    assert {"model", "characters"} <= gpt2.vocabulary.keys()
    assert len(gpt2.ours.encode("👍🏽")) < 8 and len(gpt2.ours.encode("𝄞")) == 4  # an emoji is merged, a clef is not


@settings(max_examples=400)
@given(text=all_sorts)
def test_any_text_is_encoded_as_the_library_and_transformers_do(gpt2, text):
    ids = gpt2.ours.encode(text).tolist()
    assert ids == gpt2.library.encode(text).ids == gpt2.transformers(text)["input_ids"]
    assert gpt2.ours.decode(ids) == gpt2.ours.decode_bytes(ids).decode() == text
    assert gpt2.library.decode(ids, skip_special_tokens=False) == gpt2.transformers.decode(ids) == text


@settings(max_examples=400)
@given(text=all_sorts)
def test_any_text_is_encoded_as_the_definition_says(gpt2, text):
    # The library and `regex` know different versions of Unicode: what the third had named is settled.
    settled = (c for c in text if c in "".join(EMOJI) or unicodedata.ucd_3_2_0.category(c) != "Cn")
    text = "".join(settled)
    assert gpt2.ours.encode(text).tolist() == plain_encode(text, gpt2.vocabulary, gpt2.pairs)


ODD = [*EMOJI, *CONTRACTIONS, " " * 50, "\n" * 50, "a  b", "a \n b ", f" {END}\n{END}{END}", END[:-1]]


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_texts_that_break_tokenizers_are_encoded_alike_by_all(gpt2, text):
    expected = plain_encode(text, gpt2.vocabulary, gpt2.pairs)
    assert gpt2.ours.encode(text).tolist() == gpt2.library.encode(text).ids == gpt2.transformers(text)["input_ids"] == expected


@settings(max_examples=200)
@given(data=st.data())
def test_any_row_of_indices_is_decoded_as_the_library_and_transformers_do(gpt2, data):
    ids = data.draw(st.lists(st.integers(0, 700) | st.integers(128, 255), max_size=20))
    text = gpt2.ours.decode(ids)
    assert text == gpt2.library.decode(ids, skip_special_tokens=False) == gpt2.transformers.decode(ids)
    assert text == gpt2.ours.decode_bytes(ids).decode("utf-8", "replace")


@given(text=all_sorts, data=st.data())
def test_a_row_cut_anywhere_can_be_joined_as_bytes(gpt2, text, data):
    ids = gpt2.ours.encode(text)
    cut = data.draw(st.integers(0, len(ids)))
    assert gpt2.ours.decode_bytes(ids[:cut]) + gpt2.ours.decode_bytes(ids[cut:].tolist()) == text.encode()


@pytest.mark.parametrize("ids, outside", [([0, 701], 701), ([-1], -1), ([2**40], 2**40)])
def test_an_index_outside_has_no_bytes(gpt2, ids, outside):
    with pytest.raises(ValueError, match=f"index {outside} is outside the vocabulary: indices are 0 to 700"):
        gpt2.ours.decode_bytes(ids)


def test_a_special_token_has_the_bytes_of_its_text_whatever_its_letters():
    tokenizer = BPETokenizer.from_text("abab", 256)
    tokenizer.tokenizer.add_special_tokens(["<é>", "<a 東>"])
    text = "x<é> <a 東>"
    assert len(tokenizer.encode(text)) == 4 and tokenizer.decode_bytes(tokenizer.encode(text)) == text.encode()


# Learning.


def test_the_merges_are_those_of_the_library_set_up_by_itself():
    text = series_corpus()[:60_000] + "".join(EMOJI) * 20
    library = tokenizers.ByteLevelBPETokenizer()
    library.train_from_iterator([text], vocab_size=600, min_frequency=2, show_progress=False)
    learned = BPETokenizer.from_text(text, 600)
    assert json.loads(library.to_str())["model"]["merges"] == list(map(list, merges_of(learned)))
    assert library.get_vocab() == learned.tokenizer.get_vocab()


SYLLABLES = ["ab", "abc", " ", "the ", "é", "🙂", "🙃", "\n", "'s", "11", "aaaa"]


@settings(max_examples=100)
@given(text=st.lists(st.sampled_from(SYLLABLES), min_size=1, max_size=60).map("".join))
def test_the_merges_are_those_of_the_definition(text):
    assert merges_of(BPETokenizer.from_text(text, 276)) == plain_merges(text, 20)


def test_another_process_learns_the_same_merges():
    program = (
        "import hashlib; from transformer_nb.tokenization import BPETokenizer, series_corpus;"
        "print(hashlib.sha256(BPETokenizer.from_text(series_corpus(), 500).tokenizer.to_str().encode()).hexdigest())"
    )
    shown = set()
    for seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
        shown.add(done.stdout)
    assert len(shown) == 1 and len(*shown) == 65


# The two files.


def copied(gpt2, directory, vocabulary=None, lines=None):
    "The files of `gpt2` in another directory, one of them changed."
    vocabulary = gpt2.vocabulary if vocabulary is None else vocabulary
    content = vocabulary if isinstance(vocabulary, str) else json.dumps(vocabulary)
    (directory / "vocab.json").write_text(content, encoding="utf-8")
    (directory / "merges.txt").write_text("\n".join(gpt2.lines if lines is None else lines), encoding="utf-8")
    return directory


SAMPLE = f"The model's 3 characters,\n\n  naïve 🙂🏽 {END} don't"


@pytest.mark.parametrize("load", [BPETokenizer.load, load_tokenizer])
@pytest.mark.parametrize("where", ["", "vocab.json"])
def test_two_files_are_found_by_their_directory_or_by_the_first(gpt2, load, where):
    assert load(gpt2.directory / where).encode(SAMPLE).tolist() == gpt2.library.encode(SAMPLE).ids
    assert load(str(gpt2.directory / where)).vocab_size == 701


def test_merges_may_lie_anywhere(gpt2, tmp_path):
    moved = copied(gpt2, tmp_path) / "merges.txt"
    moved = moved.rename(tmp_path / "pairs of tokens")
    for path in (tmp_path, tmp_path / "vocab.json"):
        assert BPETokenizer.load(path, moved).encode(SAMPLE).equal(gpt2.ours.encode(SAMPLE))
        assert BPETokenizer.load(str(path), str(moved)).vocab_size == 701


@pytest.mark.parametrize("end", [[], [""], ["", ""]], ids=["none", "one", "two"])
@pytest.mark.parametrize("head", [[], ["#version: 0.2"], ["#version: 0.2 - Trained by hand"]], ids=["none", "short", "long"])
def test_the_first_line_and_the_last_line_end_do_not_matter(gpt2, tmp_path, head, end):
    lines = head + gpt2.lines[1:-1] + end
    assert BPETokenizer.load(copied(gpt2, tmp_path, lines=lines)).encode(SAMPLE).equal(gpt2.ours.encode(SAMPLE))


def test_line_ends_of_windows_do_not_matter(gpt2, tmp_path):
    copied(gpt2, tmp_path)
    (tmp_path / "merges.txt").write_bytes(gpt2.merges.read_bytes().replace(b"\n", b"\r\n"))
    assert merges_of(BPETokenizer.load(tmp_path)) == gpt2.pairs


def test_the_order_of_the_vocabulary_does_not_matter(gpt2, tmp_path):
    turned = dict(sorted(gpt2.vocabulary.items(), key=lambda entry: -entry[1]))
    assert BPETokenizer.load(copied(gpt2, tmp_path, turned)).encode(SAMPLE).equal(gpt2.ours.encode(SAMPLE))


def test_a_hash_sign_begins_a_merge_like_any_other(tmp_path):
    learned = BPETokenizer.from_text("## ## ### ###", 259)
    learned.save_files(tmp_path)
    assert ("#", "#") in merges_of(learned) and merges_of(BPETokenizer.load(tmp_path)) == merges_of(learned)


@pytest.mark.parametrize("text, size", [("abab", 256), (SAMPLE * 5, 300)])
def test_what_was_learned_comes_back_from_two_files(text, size, tmp_path):
    learned = BPETokenizer.from_text(text, size)
    learned.save_files(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert merges_of(loaded) == merges_of(learned) and loaded.vocab_size == learned.vocab_size
    assert loaded.encode(SAMPLE * 2).equal(learned.encode(SAMPLE * 2))


def test_special_tokens_survive_both_kinds_of_files(gpt2, tmp_path):
    gpt2.ours.save(tmp_path / "tokenizer.json")
    (tmp_path / "two").mkdir()
    gpt2.ours.save_files(tmp_path / "two")
    for path in (tmp_path, tmp_path / "tokenizer.json", tmp_path / "two"):
        for loaded in (BPETokenizer.load(path), load_tokenizer(path)):
            assert loaded.encode(SAMPLE).equal(gpt2.ours.encode(SAMPLE)) and loaded.vocab_size == 701
            assert loaded.decode(loaded.encode(SAMPLE)) == SAMPLE
    assert json.loads((tmp_path / "two" / "vocab.json").read_text(encoding="utf-8")) == gpt2.vocabulary


def test_a_special_token_that_was_added_later_is_written_too(tmp_path):
    learned = BPETokenizer.from_text("abab", 257)
    learned.tokenizer.add_special_tokens([END])
    learned.save_files(tmp_path)
    assert BPETokenizer.load(tmp_path).encode(f"ab{END}").tolist() == learned.encode(f"ab{END}").tolist() == [256, 257]


def test_of_both_kinds_in_a_directory_the_one_file_is_read(gpt2, tmp_path):
    copied(gpt2, tmp_path)
    BPETokenizer.from_text("abab", 257).save(tmp_path / "tokenizer.json")
    assert BPETokenizer.load(tmp_path).vocab_size == load_tokenizer(tmp_path).vocab_size == 257


def test_what_transformers_saves_is_read(gpt2, tmp_path):
    gpt2.transformers.save_pretrained(tmp_path)
    assert BPETokenizer.load(tmp_path).encode(SAMPLE).equal(gpt2.ours.encode(SAMPLE))


def test_a_file_that_cuts_or_fills_texts_is_read_without_that(gpt2, tmp_path):
    cutting = tokenizers.Tokenizer.from_str(gpt2.ours.tokenizer.to_str())
    cutting.enable_truncation(3)
    cutting.enable_padding(length=50)
    cutting.post_processor = tokenizers.processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 700)])
    cutting.save(str(tmp_path / "tokenizer.json"))
    assert BPETokenizer.load(tmp_path).encode(SAMPLE).equal(gpt2.ours.encode(SAMPLE))


def changed(vocabulary, **entries):
    return {**vocabulary, **entries}


NO_INDEX = "vocab.json is not a BPE tokenizer: it holds neither a model nor an index for each token"
TWO = "a merge is two tokens with a space between them, not "
BROKEN = {
    "no merges": (None, None, r"merges.txt cannot be read \(No such file or directory\): a vocab.json needs its merges"),
    "a gap": (lambda v: changed(v, new=999), None, "vocab.json: its 702 tokens do not have the indices 0 to 701, each once"),
    "a double": (lambda v: changed(v, model=5), None, "vocab.json: its 701 tokens do not have the indices 0 to 700, each once"),
    "a negative index": (lambda v: changed(v, model=-1), None, "do not have the indices 0 to 700"),
    "a large index": (lambda v: changed(v, model=2**80), None, "do not have the indices 0 to 700"),
    "an index that is text": (lambda v: changed(v, model="5"), None, NO_INDEX),
    "an index that is true": (lambda v: changed(v, model=True), None, NO_INDEX),
    "an index that is broken": (lambda v: changed(v, model=5.0), None, NO_INDEX),
    "a byte missing": (lambda v: {t: i for t, i in v.items() if t != "Ġ"}, None, "vocab.json .* no 'Ġ', for byte 32"),
    "tokens of another kind": (lambda v: {"[PAD]": 0, "the": 1, "##s": 2}, None, "vocab.json is not a byte-level BPE tokenizer"),
    "a config": (lambda v: {"model_type": "gpt2", "n_layer": 12}, None, "vocab.json is not a BPE tokenizer"),
    "a list": (lambda v: '["a"]', None, "vocab.json is not a tokenizer: it holds no JSON object"),
    "half a vocabulary": (lambda v: json.dumps(v)[:500], None, "vocab.json is not a tokenizer"),
    "half a character": (lambda v: {**v, "\ud800": 701}, None, "vocab.json is not a BPE tokenizer"),
    "a token of a strange text": (lambda v: changed(v, 東=701), None, "merges.txt makes no '東', which is in the vocabulary"),
    "a token without letters": (lambda v: {**v, "": 701}, None, "merges.txt makes no '', which is in the vocabulary"),
    "one word": (None, lambda m: [*m[:5], "word", *m[5:]], f"merges.txt, line 6: {TWO}'word'"),
    "three words": (None, lambda m: [*m[:5], "t h e"], f"merges.txt, line 6: {TWO}"),
    "an empty line": (None, lambda m: [*m[:5], "", *m[5:]], f"merges.txt, line 6: {TWO}"),
    "half a merge": (None, lambda m: [*m[:5], "t "], f"merges.txt, line 6: {TWO}"),
    "a strange part": (None, lambda m: [*m[:5], "x 東"], "merges.txt, line 6: '東' is not in the vocabulary"),
    "a strange whole": (None, lambda m: [*m[:5], "Q Q"], "merges.txt, line 6: 'QQ' is not in the vocabulary"),
    "cut short": (None, lambda m: m[:-40], "merges.txt makes no '.*', which is in the vocabulary: is it cut short"),
    "empty": (None, lambda m: [], "merges.txt makes no '.*', which is in the vocabulary: is it cut short"),
}


@pytest.mark.parametrize("vocabulary, lines, says", BROKEN.values(), ids=BROKEN)
def test_two_files_that_are_not_one_tokenizer_are_refused_in_one_line(gpt2, tmp_path, shapes_unchecked, vocabulary, lines, says):
    copied(gpt2, tmp_path, vocabulary and vocabulary(gpt2.vocabulary), lines and lines(gpt2.lines))
    if says.startswith("merges.txt cannot"):
        (tmp_path / "merges.txt").unlink()
    for load in (BPETokenizer.load, load_tokenizer):
        for path in (tmp_path, tmp_path / "vocab.json"):
            with pytest.raises(ValueError, match=says) as error:
                load(path)
            assert len(str(error.value).splitlines()) == 1


def test_merges_that_are_no_text_are_refused(gpt2, tmp_path):
    copied(gpt2, tmp_path)
    (tmp_path / "merges.txt").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match="merges.txt holds no merges: 'utf-8' codec"):
        BPETokenizer.load(tmp_path)
    with pytest.raises(ValueError, match="nowhere cannot be read"):
        BPETokenizer.load(tmp_path, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot be read"):
        BPETokenizer.load(tmp_path, tmp_path)


def test_a_directory_without_a_tokenizer_is_refused(tmp_path):
    for load in (BPETokenizer.load, load_tokenizer):
        with pytest.raises(ValueError, match="the directory holds neither a tokenizer.json nor a vocab.json"):
            load(tmp_path)


def test_a_file_with_its_merges_wants_no_others(gpt2, tmp_path):
    gpt2.ours.save(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="tokenizer.json holds its merges itself: leave out .*merges.txt"):
        BPETokenizer.load(tmp_path / "tokenizer.json", gpt2.merges)


@pytest.mark.parametrize("kind", ["WordPiece", "WordLevel", "Unigram", "BPE"])
def test_other_kinds_of_the_library_are_refused(kind, tmp_path):
    tokenizers.Tokenizer(getattr(tokenizers.models, kind)()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="tokenizer.json is not a (byte-level )?BPE tokenizer") as error:
        BPETokenizer.load(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_bytes_without_tokens_are_refused_in_any_file(tmp_path):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, []))
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="tokenizer.json is not a byte-level BPE tokenizer like GPT-2's: it has no"):
        BPETokenizer.load(tmp_path)


def test_the_tokenizer_of_characters_is_found_by_its_directory(tmp_path):
    CharTokenizer.from_text("abc").save(tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path).characters == "abc"


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_merges_learned_from_pieces_are_those_of_the_whole(step):
    text = series_corpus()[:20_000] + "\n  東京 東京 café café"
    pieces = (text[i : i + step] for i in range(0, len(text), step))
    assert BPETokenizer.from_text(pieces, 400).tokenizer.to_str() == BPETokenizer.from_text(text, 400).tokenizer.to_str()
    pieces = (text[i : i + step] for i in range(0, len(text), step))
    assert CharTokenizer.from_text(pieces).characters == CharTokenizer.from_text(text).characters


@pytest.mark.parametrize("pieces", [[], [""], ["", ""]])
def test_pieces_without_a_character_are_refused(pieces):
    with pytest.raises(ValueError, match="cannot make a vocabulary from an empty text"):
        CharTokenizer.from_text(iter(pieces))
    with pytest.raises(ValueError, match="cannot learn merges from an empty text"):
        BPETokenizer.from_text(iter(pieces))


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


# What users hand over.


@pytest.fixture(params=["characters", "byte pairs"])
def either(request):
    "A tokenizer of each kind."
    text = "to be or not to be, 你好 "
    return CharTokenizer.from_text(text) if request.param == "characters" else BPETokenizer.from_text(text * 9, 270)


@pytest.mark.usefixtures("shapes_unchecked")
def test_ids_may_come_in_any_form(either):
    text = "to be"
    ids = either.encode(text)
    for same in (ids, ids.tolist(), tuple(ids.tolist()), ids.numpy(), list(ids), list(ids.numpy()), ids.to(torch.uint8 if ids.max() < 256 else torch.int16), ids.int(), ids.numpy().astype("uint16")):
        assert either.decode(same) == text
    assert either.decode(ids[0]) == either.decode(ids[0].item()) == either.decode(ids.numpy()[0]) == either.decode([ids[0]])
    assert either.decode([]) == either.decode(torch.tensor([])) == ""


@pytest.mark.usefixtures("shapes_unchecked")
def test_a_batch_of_ids_is_a_list_of_texts(either):
    rows = [either.encode(text) for text in ("to be", "or not", "")]
    assert either.decode(rows) == either.decode([row.tolist() for row in rows]) == ["to be", "or not", ""]
    batch = torch.stack((rows[0][:3], rows[1][:3]))
    assert either.decode(batch) == either.decode(batch.numpy()) == [either.decode(row) for row in batch]
    assert either.decode(torch.zeros(0, 5, dtype=torch.long)) == []


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("ids, kind, says", [
    ([1.0, 2.0], TypeError, "ids must be whole numbers, got torch.float32"),
    (torch.tensor([1.5]), TypeError, "convert them with .long()"),
    (torch.tensor([True]), TypeError, "torch.bool"),
    (["a"], TypeError, "ids must be whole numbers, got list"),
    ("ab", TypeError, "ids must be whole numbers, got str"),
    (None, TypeError, "ids must be whole numbers, got NoneType"),
    ([2**70], TypeError, "ids must be whole numbers"),
    ([-1], ValueError, "index -1 is outside the vocabulary"),
    ([[0], [10**6]], ValueError, "index 1000000 is outside the vocabulary"),
    (torch.zeros(2, 2, 2, dtype=torch.long), ValueError, "got the shape (2, 2, 2)"),
])
def test_what_are_no_ids_is_said_in_one_line(either, ids, kind, says):
    with pytest.raises(kind, match=re.escape(says)) as error:
        either.decode(ids)
    assert one_line(error)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("text, says", [(b"to be", "got bytes: decode it first"), (5, "got int"), (None, "got NoneType"), (["to", "be"], "got list: encode one text at a time")])
def test_what_is_no_text_is_said_in_one_line(either, text, says):
    with pytest.raises(TypeError, match=says) as error:
        either.encode(text)
    assert one_line(error)


# A token of one letter, such as "č" for byte 13, has the id of that byte: the byte itself does not come back.
ADDED = ["café", "đem", "č", "<|x|>", "New York", "Ġa", "éé", "Ċ<"]


@given(st.lists(st.sampled_from([*"cafédemčĠĊ <|x>NewYork\n\u00ad", *ADDED]), max_size=20).map("".join))
def test_added_tokens_of_any_letters_come_back(text):
    library = tokenizers.Tokenizer.from_str(BPETokenizer.from_text("to be or not " * 50, 270).to_json())
    library.add_tokens(ADDED)
    tokenizer = BPETokenizer(library)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text == tokenizer.decode_bytes(ids).decode() == "".join(map(tokenizer.decode, [ids]))


def test_what_two_files_cannot_hold_is_refused_and_nothing_is_written(tmp_path):
    def changed(**parts):
        library = tokenizers.Tokenizer.from_str(BPETokenizer.from_text("to be or not " * 50, 270).to_json())
        for name, value in parts.items():
            library.add_tokens(value) if name == "tokens" else setattr(library, name, value)
        return BPETokenizer(library)

    newer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    for tokenizer, part in (
        (changed(tokens=["café"]), "added tokens"),
        (changed(tokens=[tokenizers.AddedToken("<|x|>", lstrip=True)]), "added tokens"),
        (changed(normalizer=tokenizers.normalizers.NFC()), "normalizer"),
        (changed(pre_tokenizer=newer), "split into words"),
    ):
        with pytest.raises(ValueError, match=f"vocab.json and merges.txt cannot hold the {part}") as error:
            tokenizer.save_files(tmp_path)
        assert one_line(error) and not list(tmp_path.iterdir())
        tokenizer.save(tmp_path / "tokenizer.json")
        assert load_tokenizer(tmp_path).to_json() == tokenizer.to_json()
        (tmp_path / "tokenizer.json").unlink()
    changed(tokens=["<|x|>"]).save_files(tmp_path)
    assert load_tokenizer(tmp_path).encode("to<|x|>").tolist() == changed(tokens=["<|x|>"]).encode("to<|x|>").tolist()


def test_nothing_of_a_text_is_cut_filled_or_left_to_chance():
    library = tokenizers.Tokenizer.from_str(BPETokenizer.from_text("to be or not " * 50, 270).to_json())
    library.enable_truncation(3)
    library.enable_padding(length=9)
    library.model.dropout = 0.5
    tokenizer, text = BPETokenizer(library), "to be or not " * 20
    assert tokenizer.decode(tokenizer.encode(text)) == text and len({tuple(tokenizer.encode(text).tolist()) for _ in range(5)}) == 1
    assert library.truncation and library.padding and library.model.dropout == 0.5  # that of the caller


def test_a_tokenizer_with_a_mark_before_its_file_is_read(tmp_path):
    tokenizer = CharTokenizer.from_text("abc")
    (tmp_path / "tokenizer.json").write_bytes(b"\xef\xbb\xbf" + tokenizer.to_json().encode())
    assert load_tokenizer(tmp_path).characters == "abc"
