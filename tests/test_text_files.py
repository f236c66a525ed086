"Any files become the tokens of their text, in little memory, once; and nothing that lies on the disk is believed."

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import transformer_nb.data.text_files as text_files
from transformer_nb.data.text_files import (
    TYPES,
    as_json,
    content_digest,
    encode_files,
    find_files,
    joined_pieces,
    kind_of,
    open_tokens,
    read_pieces,
    read_texts,
    write_tokens,
)
from transformer_nb.tokenization import (
    BPETokenizer,
    CharTokenizer,
    load_tokenizer,
    series_corpus,
    whole_words,
)

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-7", "gb18030"]  # which have all characters
bpe300 = partial(BPETokenizer.from_text, vocab_size=300)
any_text = st.text(st.one_of(st.sampled_from("ab .,'!0\n\r\té東🙂\u2003\x85\x1c"), st.characters(exclude_categories=["Cs"])))


@pytest.fixture(autouse=True)
def temporary_files(tmp_path_factory, monkeypatch):
    "A place of each test's own for temporary files."
    place = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def one_line(error):
    return len(str(error.value).splitlines()) == 1


def tokens_beside(path):
    return sorted(p.name for p in path.parent.iterdir() if ".tokens" in p.name)


def written(path, *texts, encoding="utf-8"):
    "Files with texts, of which every byte is as it was given."
    files = [path / f"{i}.txt" for i in range(len(texts))]
    for file, text in zip(files, texts):
        file.write_bytes(text.encode(encoding))
    return files


# Files.


def test_files_and_directories_are_joined_in_order(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, text in {"b.txt": "two", "a.md": "one", "sub/c.py": "three", "d.bin": "never"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_texts([tmp_path]) == "one\ntwo\nthree"
    assert read_texts([tmp_path / "b.txt", tmp_path / "a.md"]) == "two\none"
    assert read_texts([str(tmp_path / "d.bin")]) == "never"


def test_what_is_hidden_is_left_out_unless_it_is_named(tmp_path):
    hidden = [tmp_path / name for name in (".git/a.txt", "sub/.ipynb_checkpoints/b.md", "sub/.c.txt")]
    for path in [*hidden, tmp_path / "sub" / "d.txt"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "directory.txt").mkdir()
    assert find_files([tmp_path]) == [tmp_path / "sub" / "d.txt"]
    assert find_files([hidden[0], hidden[0].parent]) == [hidden[0], hidden[0]]


@pytest.mark.parametrize("make, message", [
    (lambda p: p / "missing.txt", "cannot read .*missing.txt: No such file.*name a file"),
    (lambda p: (p / "empty.txt").write_text("") or p / "empty.txt", "empty.txt: there is no text in it"),
    (lambda p: p, "has no .txt, .md, .py or .ipynb files: name"),
])
@pytest.mark.parametrize("read", [read_texts, partial(encode_files, tokenizer=CharTokenizer.from_text)])
def test_a_text_that_is_not_there_is_named(tmp_path, read, make, message):
    with pytest.raises(ValueError, match=message) as error:
        read([make(tmp_path)])
    assert one_line(error)


def test_no_files_at_all():
    with pytest.raises(ValueError, match="no text is named"):
        read_texts([])


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (file,) = written(tmp_path, "text")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ValueError, match="cannot read .*0.txt: Permission denied"):
        list(read_pieces(file))


# Pieces.


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 9000])
def test_no_character_is_cut(tmp_path, encoding, size):
    text = "aé東🙂\r\nb\rc" * 1300
    for shift in range(3):
        (file,) = written(tmp_path, "x" * shift + text, encoding=encoding)
        pieces = list(read_pieces(file, encoding, size))
        assert "".join(pieces) == file.read_text(encoding=encoding) == "x" * shift + "aé東🙂\nb\nc" * 1300
        assert {len(piece) for piece in pieces[:-1]} == {size} and 0 < len(pieces[-1]) <= size


@given(any_text, st.sampled_from(ENCODINGS), st.integers(1, 7))
def test_any_text_is_read_as_python_reads_it(text, encoding, size):
    with tempfile.TemporaryDirectory() as folder:
        (file,) = written(Path(folder), text, encoding=encoding)
        assert "".join(read_pieces(file, encoding, size)) == file.read_text(encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "ascii", "gb18030", "shift_jis", "euc_kr"])
@pytest.mark.parametrize("length", [3, 5000, 40_000])
@pytest.mark.parametrize("cut", [False, True], ids=["wrong", "cut"])
def test_a_wrong_byte_is_named_with_its_place_in_the_file(tmp_path, encoding, length, cut):
    good = ("a" * 7 if encoding == "ascii" else "a漢7" if encoding != "euc_kr" else "a한7") * length
    data = good.encode(encoding)
    data += "漢字"[:1].encode(encoding)[:1] if cut and encoding != "ascii" else b"\xff\xdb\xff\xff" + b"and so on"
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UnicodeDecodeError) as expected:
        data.decode(encoding)
    for size in (100, 2**20):
        with pytest.raises(ValueError) as error:
            list(read_pieces(tmp_path / "a.txt", encoding, size))
        assert f"a.txt is not {encoding}: byte {expected.value.start} cannot be read; name its encoding" in str(error.value)


def test_an_encoding_is_honoured_and_a_wrong_one_named_with_its_byte(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("café".encode("latin-1"))
    assert read_texts([path], "latin-1") == "café"
    with pytest.raises(ValueError, match="is not utf-8: byte 3"):
        read_texts([path])
    with pytest.raises(ValueError, match="is not utf-16: byte 0"):  # it does not say which byte comes first
        read_texts([path], "utf-16")


@pytest.mark.parametrize("name", ["klingon", "rot13"])
def test_an_unknown_encoding_is_named(tmp_path, name):
    files = written(tmp_path, "a")
    for read in (read_texts, partial(encode_files, tokenizer=CharTokenizer.from_text)):
        with pytest.raises(ValueError, match=f"{name}.*: use a name that Python knows") as error:
            read(files, encoding=name)
        assert one_line(error)


def test_all_bytes_are_reported(tmp_path):
    (file,) = written(tmp_path, "aé東🙂\r\n" * 5000)
    seen = []
    assert len(list(read_pieces(file, "utf-8", 1000, seen.append))) > 10
    assert sum(seen) == file.stat().st_size and max(seen) < file.stat().st_size / 2


# Notebooks.


def notebook(*cells):
    return json.dumps({"cells": [{"cell_type": kind, "source": source, "outputs": ["never"]} for kind, source in cells]}, ensure_ascii=False)


def test_a_notebook_is_its_notes_and_code(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text(notebook(("markdown", ["# Tïtle\n", "more"]), ("raw", "never"), ("code", "1 + 1")), encoding="utf-8")
    assert read_texts([path], "latin-1") == "# Tïtle\nmore\n\n1 + 1"
    assert list(read_pieces(path, size=7)) == ["# Tïtle", "\nmore\n\n", "1 + 1"]


@pytest.mark.parametrize("content", [
    "", "{", "[]", "{}", '{"cells": 3}', '{"cells": [3]}', '{"cells": [{"cell_type": "code"}]}', "null", "[" * 100_000,
    '{"cells": [{"cell_type": "code", "source": 3}]}', '{"cells": [{"cell_type": "code", "source": "\\ud800"}]}',
])
def test_what_is_no_notebook_is_named(tmp_path, content):
    (tmp_path / "a.ipynb").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="a.ipynb is no notebook") as error:
        read_texts([tmp_path])
    assert one_line(error)


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
        pieces = whole_words(joined_pieces(files, encoding, size), 64)
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
            assert as_json(made.tokenizer) == as_json(make(whole))
            assert made.ids.tolist() == made.tokenizer.encode(whole).tolist() and made.beginning == whole[:300]
            assert encode_files(files, made.tokenizer, encoding).ids.equal(made.ids)


def test_a_large_text_is_encoded_in_many_pieces(tmp_path):
    text = series_corpus() * 3
    files = written(tmp_path, text, text[:100_000])
    whole = read_texts(files)
    for make in (CharTokenizer.from_text, partial(BPETokenizer.from_text, vocab_size=600)):
        made = encode_files(files, make)
        assert as_json(made.tokenizer) == as_json(make(whole)) and made.ids.equal(made.tokenizer.encode(whole).to(made.ids.dtype))


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
    monkeypatch.setattr(text_files, "write_tokens", None)
    for tokenizer in (make, first.tokenizer, load_tokenizer_of(first, tmp_path.parent)):
        again = encode_files(files, tokenizer)
        assert again.ids.equal(first.ids) and again.digest == first.digest and as_json(again.tokenizer) == as_json(first.tokenizer)
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
    assert kind_of(lambda pieces: given) is None and kind_of(given) == "char" and kind_of(bpe300("a")) == "bpe256"


def test_a_tokenizer_of_another_make_is_used_as_it_is(tmp_path):
    odd = BPETokenizer(tokenizers.Tokenizer(tokenizers.models.BPE({"b": 0, "a": 1}, [])))  # without the bytes: `load` would refuse it
    for _ in range(2):
        assert encode_files(written(tmp_path, "abba"), odd).ids.tolist() == [1, 0, 0, 1]


def test_a_disk_that_forgets_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "open_tokens", lambda *_: None)
    with pytest.raises(OSError, match="does not hold what was written there"):
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
    monkeypatch.setattr(text_files, "as_json", lambda tokenizer: content)
    write_tokens(tmp_path / "a.tokens", "0", CharTokenizer("ab"), ["abba"])
    assert open_tokens(tmp_path / "a.tokens", "0") is None


def test_where_nobody_may_write_the_tokens_go_elsewhere(tmp_path, monkeypatch, temporary_files, capsys):
    files = written(tmp_path, "some text")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    made = encode_files(files, CharTokenizer.from_text)
    said = capsys.readouterr().err
    assert f"cannot write into {tmp_path}: the tokens of the text go into {temporary_files}" in said and said.count("\n") == 1
    assert not tokens_beside(files[0]) and len(list(temporary_files.glob("0.txt.char.*.tokens"))) == 1
    monkeypatch.setattr(text_files, "write_tokens", None)
    assert encode_files(files, CharTokenizer.from_text).ids.equal(made.ids)  # they are found there, and nothing is said
    assert not capsys.readouterr().err


FULL_DISK = """
import resource, signal, sys
from transformer_nb.data.text_files import encode_files
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
    with pytest.raises(ValueError, match="pipe cannot be read twice: write what it gives into a file first"):
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
from transformer_nb.data.text_files import encode_files
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
    assert made.ids.equal(before) and set(TYPES.values()) >= {made.ids.dtype}
