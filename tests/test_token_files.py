"Any files become the tokens of their text, in little memory, once; and nothing that lies on the disk is believed."

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
import tokenizers
import torch
from helpers import one_line
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_text_files import ENCODINGS, any_text, written

import transformer_nb.data.token_files as token_files
from transformer_nb.data.text_files import (
    joined_pieces,
    read_texts,
    split_at_word_ends,
)
from transformer_nb.data.token_pieces import pieces_for
from transformer_nb.data.token_files import (
    TOKEN_DTYPES,
    content_digest,
    encode_files,
    open_tokens,
    token_file_kind,
    write_tokens,
)
from transformer_nb.tokenization import (
    BPETokenizer,
    CharTokenizer,
    load_tokenizer,
    series_corpus,
)

bpe300 = partial(BPETokenizer.from_text, vocab_size=300)


@pytest.fixture(autouse=True)
def temporary_files(tmp_path_factory, monkeypatch):
    "A place of each test's own for temporary files."
    place = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def tokens_beside(path):
    return sorted(p.name for p in path.parent.iterdir() if ".tokens" in p.name)


# Tokens.


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 64])
def test_the_tokens_are_those_of_the_whole_text(tmp_path, monkeypatch, size, encoding, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    text = "To be, or not\r\nto be: that's the  question!\n\n  東京 café 🙂🙂 1603\t" * 4
    files = written(tmp_path, "", text, "", text[:50], text[1:60] + "\r", encoding=encoding)
    whole = read_texts(files, encoding)
    assert whole == "\n".join(file.read_text(encoding=encoding) for file in files)
    for tokenizer in (CharTokenizer.from_text(whole), bpe300(whole)):
        pieces = split_at_word_ends(joined_pieces(files, encoding, size), 64)
        write_tokens(tmp_path / "a.tokens", "0", tokenizer, pieces)
        assert open_tokens(tmp_path / "a.tokens", "0").ids.tolist() == tokenizer.encode(whole).tolist()


@given(st.lists(any_text, min_size=1, max_size=3), st.sampled_from(ENCODINGS))
def test_any_files_give_the_tokens_of_their_text(texts, encoding):
    with tempfile.TemporaryDirectory() as folder:
        files = written(Path(folder), *texts, encoding=encoding)
        try:
            whole = read_texts(files, encoding)
        except ValueError as error:
            assert "no text in it" in str(error)
            return
        for make in (CharTokenizer.from_text, bpe300):
            made = encode_files(files, make, encoding)
            assert made.tokenizer.to_json() == make(whole).to_json()
            assert made.ids.tolist() == made.tokenizer.encode(whole).tolist() and made.beginning == whole[:300]
            assert encode_files(files, made.tokenizer, encoding).ids.equal(made.ids)


def test_a_large_text_is_encoded_in_many_pieces(tmp_path):
    text = series_corpus() * 3
    files = written(tmp_path, text, text[:100_000])
    whole = read_texts(files)
    for make in (CharTokenizer.from_text, partial(BPETokenizer.from_text, vocab_size=600)):
        made = encode_files(files, make)
        assert made.tokenizer.to_json() == make(whole).to_json() and made.ids.equal(made.tokenizer.encode(whole).to(made.ids.dtype))


@pytest.mark.parametrize("size, dtype", [(256, torch.uint8), (257, torch.int16), (2**15, torch.int16), (2**15 + 1, torch.int32)])
def test_tokens_take_the_fewest_bytes(tmp_path, size, dtype):
    text = "".join(map(chr, range(0x10000, 0x10000 + size)))
    made = encode_files(written(tmp_path, text), CharTokenizer.from_text)
    assert made.ids.dtype == dtype and made.ids.tolist() == list(range(size))
    (file,) = tmp_path.glob("*.tokens")
    assert load_file(file)["ids"].equal(made.ids)
    assert made.ids.data_ptr() % made.ids.element_size() == 0


def test_an_unknown_character_is_named_with_its_place_in_the_text(tmp_path):
    files = written(tmp_path, "a" * 100_000, "a" * 100_000 + "Ω")
    with pytest.raises(ValueError, match="character 'Ω' at position 200001 is not among the 2 "):
        encode_files(files, CharTokenizer("\na"))
    assert not tokens_beside(files[0])


@pytest.mark.parametrize("make", [CharTokenizer.from_text, bpe300])
def test_a_wrong_byte_in_the_middle_leaves_nothing_behind(tmp_path, make):
    (tmp_path / "a.txt").write_bytes(b"abc " * 100_000 + b"\xff" + b"abc " * 1000)
    for tokenizer in (make, make("abc ")):
        with pytest.raises(ValueError, match="byte 400000 ") as error:
            encode_files([tmp_path / "a.txt"], tokenizer)
        assert one_line(error) and not tokens_beside(tmp_path / "a.txt")


# The file of the tokens.


def stamps(path):
    return {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in path.iterdir()}


@pytest.mark.parametrize("make, kind", [(CharTokenizer.from_text, "char"), (bpe300, "bpe300"), (BPETokenizer.from_text, "bpe512")])
def test_a_text_is_encoded_once(tmp_path, monkeypatch, make, kind):
    files = written(tmp_path, series_corpus()[:20_000])
    first = encode_files(files, make)
    (name,) = tokens_beside(files[0])
    assert name == f"0.txt.{kind}.{content_digest(files, 'utf-8')[:16]}.tokens"
    before = stamps(tmp_path)
    monkeypatch.setattr(token_files, "write_tokens", None)
    for tokenizer in (make, first.tokenizer, load_tokenizer_of(first, tmp_path.parent)):
        again = encode_files(files, tokenizer)
        assert again.ids.equal(first.ids) and again.digest == first.digest and again.tokenizer.to_json() == first.tokenizer.to_json()
    assert stamps(tmp_path) == before


def load_tokenizer_of(text, folder):
    "The tokenizer as a checkpoint gives it back."
    text.tokenizer.save(folder / "tokenizer.json")
    return load_tokenizer(folder / "tokenizer.json")


def test_another_tokenizer_has_another_file(tmp_path):
    files = written(tmp_path, "abab abc")
    given = CharTokenizer(" !abc")
    assert encode_files(files, CharTokenizer.from_text).tokenizer.vocab_size == 4
    made = encode_files(files, given)
    assert made.tokenizer is given and made.ids.tolist() == given.encode("abab abc").tolist()
    assert encode_files(files, CharTokenizer.from_text).tokenizer.vocab_size == 4
    assert encode_files(files, lambda pieces: given).tokenizer is given
    assert encode_files(files, lambda pieces: BPETokenizer.from_text(pieces, 257)).tokenizer.vocab_size == 257
    assert token_file_kind(lambda pieces: given) is None and token_file_kind(given) == "char" and token_file_kind(bpe300("a")) == "bpe256"


def test_a_tokenizer_of_another_make_is_used_as_it_is(tmp_path):
    odd = BPETokenizer(tokenizers.Tokenizer(tokenizers.models.BPE({"b": 0, "a": 1}, [])))  # without the bytes: `load` would refuse it
    for _ in range(2):
        assert encode_files(written(tmp_path, "abba"), odd).ids.tolist() == [1, 0, 0, 1]


def test_a_disk_that_forgets_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "open_tokens", lambda *_: None)
    with pytest.raises(OSError, match="does not contain what was written to it"):
        encode_files(written(tmp_path, "abba"), CharTokenizer.from_text)


def test_a_changed_text_is_encoded_anew_and_its_old_tokens_are_deleted(tmp_path):
    (file,) = written(tmp_path, "one text")
    others = [tmp_path / name for name in ("0.txt.char.0123.tokens", "0.txt.charter.0123456789abcdef.tokens", "1.txt.char.0123456789abcdef.tokens")]
    for other in others:
        other.write_text("somebody else's")
    stamp = file.stat()
    encode_files([file], CharTokenizer.from_text)
    encode_files([file], bpe300)
    file.write_text("two text")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as long, and as old
    made = encode_files([file], CharTokenizer.from_text)
    assert made.tokenizer.decode(made.ids.long()) == "two text"
    names = tokens_beside(file)
    assert len(names) == 5 and all(other.exists() for other in others)
    assert [n for n in names if made.digest[:16] in n] == [n for n in names if n.startswith("0.txt.char.") and len(n) == 34]


def test_the_same_bytes_in_another_encoding_or_order_are_another_text(tmp_path):
    one, other = written(tmp_path, "é", "aé")
    digests = {content_digest(*text) for text in [([one], "utf-8"), ([one], "latin-1"), ([one, other], "utf-8"), ([other, one], "utf-8")]}
    page = tmp_path / "0.ipynb"
    page.write_bytes(one.read_bytes())
    assert len(digests | {content_digest([page], "utf-8")}) == 5
    one.write_bytes(b"a"), other.write_bytes(b"bc")
    before = content_digest([one, other], "utf-8")
    one.write_bytes(b"ab"), other.write_bytes(b"c")
    assert content_digest([one, other], "utf-8") != before
    assert encode_files([one], CharTokenizer.from_text, "latin-1").beginning == "ab"


DAMAGES = {
    "empty": lambda data: b"",
    "short": lambda data: data[:7],
    "a header without end": lambda data: b"\xff" * 8 + data[8:],
    "zeros": lambda data: bytes(len(data)),
    "text": lambda data: b"to be or not to be",
    "longer": lambda data: data + b"\0",
    "shorter": lambda data: data[:-1],
    "another token": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "another tokenizer": lambda data: data.replace(b'\\"o\\"', b'\\"p\\"'),
    "another digest": lambda data: data.replace(b'digest": "', b'digest": "0'),
    "no checksum": lambda data: data.replace(b"checksum", b"chequsum"),
    "other numbers": lambda data: data.replace(b'"U8"', b'"I8"'),
    "another name": lambda data: data.replace(b'"ids"', b'"odd"'),
    "no metadata": lambda data: data.replace(b"__metadata__", b"__metodata__"),
}


def test_the_tokens_of_another_text_are_not_taken(tmp_path):
    write_tokens(tmp_path / "a.tokens", "0", CharTokenizer("ab"), ["abba"])
    assert open_tokens(tmp_path / "a.tokens", "0").ids.tolist() == [0, 1, 1, 0]
    assert open_tokens(tmp_path / "a.tokens", "1") is None


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_made_anew(tmp_path, damage):
    files = written(tmp_path, "to be or not to be")
    good = encode_files(files, CharTokenizer.from_text)
    path = next(tmp_path.glob("*.tokens"))
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(data))
    assert path.read_bytes() != data and open_tokens(path, good.digest) is None
    assert encode_files(files, CharTokenizer.from_text).ids.tolist() == good.ids.tolist() and path.read_bytes() == data


@given(st.integers(0, 10**6), st.binary(max_size=8), st.booleans())
def test_no_bytes_in_its_place_are_believed(place, new, cut):
    with tempfile.TemporaryDirectory() as folder:
        files = written(Path(folder), "to be or not to be")
        good = encode_files(files, CharTokenizer.from_text)
        path = next(Path(folder).glob("*.tokens"))
        data = path.read_bytes()
        place %= len(data)
        damaged = data[:place] + new + (b"" if cut else data[place + len(new) :])
        path.unlink()
        path.write_bytes(damaged)
        found = open_tokens(path, good.digest)
        assert found is None or found.ids.equal(good.ids) and found.tokenizer.characters == good.tokenizer.characters


@pytest.mark.parametrize("ids, about", [
    (torch.arange(3), None), (torch.arange(3, dtype=torch.uint8), {"digest": "0"}),
    (torch.zeros(2, 2, dtype=torch.uint8), {"digest": "0"}), (torch.zeros(3), {"digest": "0", "tokenizer": "[]", "checksum": "0"}),
])
def test_a_foreign_file_is_not_believed(tmp_path, ids, about):
    save_file({"ids": ids}, tmp_path / "a.tokens", about)
    assert open_tokens(tmp_path / "a.tokens", "0") is None
    assert open_tokens(tmp_path, "0") is None and open_tokens(tmp_path / "missing", "0") is None


@pytest.mark.parametrize("content", ["3", "[]", "{}", "null", '{"characters": 3}', '{"characters": [3]}', '{"characters": ["b", "a"]}', '{"model": {}}'])
def test_a_tokenizer_that_is_none_is_not_believed(tmp_path, monkeypatch, content):
    monkeypatch.setattr(CharTokenizer, "to_json", lambda self: content)
    write_tokens(tmp_path / "a.tokens", "0", CharTokenizer("ab"), ["abba"])
    assert open_tokens(tmp_path / "a.tokens", "0") is None


def test_where_nobody_may_write_the_tokens_go_elsewhere(tmp_path, monkeypatch, temporary_files, capsys):
    files = written(tmp_path, "some text")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    made = encode_files(files, CharTokenizer.from_text)
    said = capsys.readouterr().err
    assert f"cannot write into {tmp_path}: the tokens of the text go into {temporary_files}" in said and said.count("\n") == 1
    assert not tokens_beside(files[0]) and len(list(temporary_files.glob("0.txt.char.*.tokens"))) == 1
    monkeypatch.setattr(token_files, "write_tokens", None)
    assert encode_files(files, CharTokenizer.from_text).ids.equal(made.ids)  # they are found there, and nothing is said
    assert not capsys.readouterr().err


FULL_DISK = """
import resource, signal, sys
from transformer_nb.data.token_files import encode_files
from transformer_nb.tokenization import CharTokenizer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    encode_files(sys.argv[1:], CharTokenizer.from_text)
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits there")
def test_a_disk_that_is_full_is_one_line_and_nothing_is_left(tmp_path):
    files = written(tmp_path, "ab" * 100_000)
    done = subprocess.run([sys.executable, "-c", FULL_DISK, files[0]], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cannot write ") and "free some space" in done.stdout and done.stdout.count("\n") == 1
    assert os.listdir(tmp_path) == ["0.txt"]


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    def pieces():
        yield "ab" * 1000
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path / "a.tokens", "0", CharTokenizer("ab"), pieces())
    assert not os.listdir(tmp_path)


def test_a_text_that_changes_while_it_is_read_is_refused(tmp_path):
    (file,) = written(tmp_path, "ab" * 1000)

    def make(pieces):
        made = CharTokenizer.from_text(["ab"])
        for _ in pieces:
            file.write_text("ba" * 1001)
        return made

    with pytest.raises(ValueError, match="0.txt was changed while it was read: try again"):
        encode_files([file], make)
    assert os.listdir(tmp_path) == ["0.txt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes there")
def test_a_pipe_cannot_be_read_twice(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe cannot be read twice: write its output into a file first"):
        encode_files([tmp_path / "pipe"], CharTokenizer.from_text)


@pytest.mark.parametrize("name", ["a[1]*?.txt", "ü" * 100 + ".txt", "a b.txt"])
def test_odd_names(tmp_path, name):
    for text in ("one", "two"):
        (tmp_path / name).write_text(text)
        made = encode_files([tmp_path / name], CharTokenizer.from_text)
        assert made.tokenizer.decode(made.ids.long()) == text
    assert len(list(tmp_path.iterdir())) == 2


def test_a_directory_has_its_tokens_beside_it(tmp_path, monkeypatch):
    (tmp_path / "texts").mkdir()
    written(tmp_path / "texts", "one", "two")
    monkeypatch.chdir(tmp_path / "texts")
    for path in (".", tmp_path / "texts", "../texts/"):
        made = encode_files([path], CharTokenizer.from_text)
        assert made.tokenizer.decode(made.ids.long()) == "one\ntwo"
        assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [f"texts.char.{made.digest[:16]}.tokens"]


# Memory.

MEASURED = """
import sys
from functools import partial
from pathlib import Path
import torch
from transformer_nb.data.token_files import encode_files
from transformer_nb.tokenization import BPETokenizer, CharTokenizer

def megabytes(name):
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0]) / 1024

torch.set_num_threads(2)
small, file, make = sys.argv[1], sys.argv[2], {"char": CharTokenizer.from_text, "bpe": BPETokenizer.from_text}[sys.argv[3]]
encode_files([small], make)  # what is needed once
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
before = megabytes("VmRSS")
text = encode_files([file], make)
peak = megabytes("VmHWM") - before
text.release()
before, most, generator = megabytes("VmRSS"), 0, torch.Generator().manual_seed(0)
for i in range(500):
    text.ids[torch.randint(len(text.ids) - 65, (12, 1), generator=generator) + torch.arange(65)].long()
    if i % 10 == 9:
        most = max(most, megabytes("VmRSS") - before)
        text.release()
print(len(text.ids), peak, most)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system does not tell")
@pytest.mark.parametrize("kind, size, allowed", [("char", 60, 30), ("bpe", 5, 60)])
def test_a_text_is_never_in_the_memory(tmp_path, kind, size, allowed):
    corpus = series_corpus()
    small, large = written(tmp_path, corpus, corpus * (size * 10**6 // len(corpus)))
    done = subprocess.run([sys.executable, "-c", MEASURED, small, large, kind], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    length, peak, most = map(float, done.stdout.split())
    assert length > size * 10**5 and peak < allowed  # as a string, and eight bytes a token, ten times and more
    assert most < 20  # a third of what has been looked at


def test_released_tokens_are_read_again(tmp_path):
    made = encode_files(written(tmp_path, series_corpus()), CharTokenizer.from_text)
    before = made.ids.clone()
    made.release()
    assert made.ids.equal(before) and set(TOKEN_DTYPES.values()) >= {made.ids.dtype}


# Pieces for any tokenizer.


def library_of(text, vocab_size=400):
    "A tokenizer of the library, to be changed."
    return tokenizers.Tokenizer.from_str(BPETokenizer.from_text(text, vocab_size).to_json())


def with_added_tokens(library):
    library.add_tokens(["New York", "，世界", tokenizers.AddedToken(" be", lstrip=True), tokenizers.AddedToken("to", single_word=True), "好，世"])


def with_prefix_space(library):
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)


def with_normalizer(library):
    library.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.NFC(), tokenizers.normalizers.Lowercase()])


def with_prepended_sign(library):
    library.normalizer = tokenizers.normalizers.Prepend("_")


def with_newer_words(library):
    newer = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(newer), "isolated")
    library.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, tokenizers.pre_tokenizers.ByteLevel(False, use_regex=False)])


def with_one_word(library):
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(False, use_regex=False)


KINDS = [lambda library: None, with_added_tokens, with_prefix_space, with_normalizer, with_prepended_sign, with_newer_words, with_one_word]
LONG = {
    "Chinese": "你好世界，今天天气很好。" * 900,
    "no punctuation": "你好世界" * 2500,
    "marks": "e\u0301\u0302a\u0300" * 1500 + " to be " * 400,
    "words": "we went to New York,  to be\n\n or not to be in New York. " * 200,
    "digits": "1234567890" * 1500,
    "spaces": "a" + " " * 9000 + "b" * 10 + "\n" * 4000 + "to be",
    "contractions": "it's she'll 'sam' x'd。's" * 500,
}


@pytest.mark.parametrize("change", KINDS, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", LONG)
def test_pieces_have_the_tokens_of_the_whole_for_any_tokenizer(change, name):
    text = LONG[name]
    library = library_of(text[:3000] + " to be New York " * 9)
    change(library)
    tokenizer = BPETokenizer(library)
    for size, step in ((700, 61), (2**11, 2**10)):
        pieces = list(pieces_for(tokenizer, [text[i : i + step] for i in range(0, len(text), step)], size))
        assert "".join(pieces) == text and "" not in pieces
        assert [i for piece in pieces for i in tokenizer.encode(piece).tolist()] == tokenizer.encode(text).tolist()
    if change in KINDS[:3] + KINDS[5:6] and name in ("words", "marks"):
        assert len(pieces) > 2, "a text that could be cut"


@pytest.mark.parametrize("text", ["你好世界，今天天气很好。" * 9000, "x" * 80_000])
def test_a_long_text_without_spaces_has_the_tokens_of_the_whole(tmp_path, text):
    files, tokenizer = written(tmp_path, text), BPETokenizer.from_text(text[:20_000], 400)
    for make in (tokenizer, CharTokenizer.from_text(text), partial(BPETokenizer.from_text, vocab_size=400)):
        made = encode_files(files, make, progress=False)
        assert made.ids.tolist() == made.tokenizer.encode(text).tolist()
    if "，" in text:  # learning from a word of 80,000 letters at once would take too long
        assert made.tokenizer.to_json() == BPETokenizer.from_text(text, 400).to_json()


def test_tokens_of_an_earlier_version_are_made_again(tmp_path, monkeypatch):
    files = written(tmp_path, "to be or not")
    monkeypatch.setattr(token_files, "VERSION", "1")
    first = encode_files(files, CharTokenizer.from_text)
    monkeypatch.undo()
    assert open_tokens(next(tmp_path.glob("*.tokens")), first.digest) is None
    assert encode_files(files, CharTokenizer.from_text).ids.equal(first.ids)
    assert open_tokens(next(tmp_path.glob("*.tokens")), first.digest) is not None


def test_one_encoding_has_one_digest_whatever_its_name(tmp_path):
    files = written(tmp_path, "to be")
    assert len({content_digest(files, name) for name in ("utf-8", "utf8", "UTF-8", "U8")}) == 1 != len({content_digest(files, name) for name in ("utf-8", "latin-1")})


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there alone")
def test_names_that_are_no_text_are_names(tmp_path, capsys):
    for place in (os.fsencode(tmp_path), os.fsencode(tmp_path) + b"/\xff"):
        os.makedirs(place, exist_ok=True)
        with open(place + b"/\xfe.txt", "wb") as file:
            file.write(b"to be or not")
        path = os.fsdecode(place + b"/\xfe.txt")
        for _ in range(2):
            assert encode_files([path], CharTokenizer(" benort"), progress=False).ids.tolist()[:2] == [6, 4]
