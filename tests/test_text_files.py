"Text files are found and read in pieces, whatever their encoding; pieces end where words end."

import json
import os
import re
import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
import torch
from helpers import one_line
from hypothesis import given
from hypothesis import strategies as st

from transformer_nb.data.text_files import (
    find_files,
    read_pieces,
    read_texts,
    split_at_word_ends,
)
from transformer_nb.data.token_files import encode_files
from transformer_nb.tokenization import BPETokenizer, CharTokenizer, series_corpus

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-7", "gb18030"]  # which have all characters
any_text = st.text(st.one_of(st.sampled_from("ab .,'!0\n\r\té東🙂\u2003\x85\x1c"), st.characters(exclude_categories=["Cs"])))


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
    with pytest.raises(ValueError, match="no files are named"):
        read_texts([])


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (file,) = written(tmp_path, "text")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ValueError, match="cannot read .*0.txt: Permission denied"):
        list(read_pieces(file))


@pytest.mark.parametrize("name", ["BOOK.TXT", "Book.Txt", "a.MD", "b.PY", "名前 with space.txt", "new\nline.txt"])
def test_a_directory_stands_for_files_of_any_name(tmp_path, name):
    (tmp_path / name).write_text("to be", encoding="utf-8")
    for path in (tmp_path, str(tmp_path) + "/", tmp_path / ".." / tmp_path.name):
        assert [file.name for file in find_files([path])] == [name] and read_texts([path]) == "to be"
    assert find_files(str(tmp_path)) == find_files(tmp_path) == find_files([tmp_path])


def test_the_place_where_one_stands_and_the_home_directory_are_paths(tmp_path, monkeypatch):
    written(tmp_path, "to be")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sub").mkdir()
    for place, paths in ((tmp_path, [".", "./", "0.txt"]), (tmp_path / "sub", ["..", "../0.txt", "~", "~/0.txt"])):
        monkeypatch.chdir(place)
        for path in paths:
            assert read_texts([path]) == "to be", path
            assert encode_files([path], CharTokenizer.from_text, progress=False).ids.tolist() == [4, 3, 0, 1, 2]


def test_links_are_followed_once(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "b.txt").write_text("far")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "data" / "circle").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "a.txt").symlink_to(tmp_path / "far" / "b.txt")
    assert [str(file.relative_to(tmp_path)) for file in find_files([tmp_path / "data"])] == ["data/a.txt", "data/link/b.txt"]
    (tmp_path / "data" / "broken.txt").symlink_to(tmp_path / "nothing")
    with pytest.raises(ValueError, match="broken.txt: it links to a file that is not there") as error:
        find_files([tmp_path / "data"])
    assert one_line(error)


@pytest.mark.parametrize("path", ["/dev/null", "a\0b", "x" * 5000, ""])
def test_what_is_no_file_is_said_in_one_line(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cannot (be )?read") as error:
        find_files([path])
    assert one_line(error)


def test_a_directory_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def walk(directory, onerror, **_):
        onerror(PermissionError(13, "Permission denied", str(directory)))
        return iter(())

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(ValueError, match="cannot read .*: Permission denied; give access") as error:
        find_files([tmp_path])
    assert one_line(error)


# Byte order marks.


MARKED = [("utf-8", b"\xef\xbb\xbf"), ("utf-8-sig", b"\xef\xbb\xbf"), ("utf-16", b""), ("utf-32", b""), ("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff"), ("gb18030", b"\x84\x31\x95\x33")]


@pytest.mark.parametrize("encoding, mark", MARKED)
@pytest.mark.parametrize("size", [1, 3, 2**20])
def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path, encoding, mark, size):
    files = written(tmp_path, "to be", "é\ufeff東", "")
    for file, text in zip(files, ("to be", "é\ufeff東", "")):
        file.write_bytes(mark + text.encode("utf-8" if encoding == "utf-8-sig" else encoding))
    assert "".join(read_pieces(files[0], encoding, size)) == "to be"
    assert read_texts(files, encoding) == "to be\né\ufeff東\n"  # inside of a text it is a character
    made = encode_files(files, CharTokenizer.from_text, encoding, progress=False)
    assert made.tokenizer.decode(made.ids.long()) == "to be\né\ufeff東\n"


def test_a_mark_alone_is_no_text_and_bytes_are_counted_with_it(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(ValueError, match="there is no text in it"):
        read_texts([tmp_path])
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfab\xff")
    with pytest.raises(ValueError, match="byte 5 cannot be read"):
        read_texts([tmp_path])


@pytest.mark.parametrize("text, encoding, says", [
    ("to be or not to be", "utf-16", "is not utf-8: every second byte is 0; name its encoding, probably utf-16$"),
    ("你好世界", "utf-16", "is not utf-8: byte 0 cannot be read; name its encoding, utf-16 by its first bytes"),
    ("to be or not to be", "utf-32", "utf-32 by its first bytes"),
    ("to be or not to be", "utf-16-le", "every second byte is 0; name its encoding, probably utf-16-le"),
    ("to be or not to be", "utf-16-be", "probably utf-16-be"),
])
def test_another_encoding_is_recognized(tmp_path, text, encoding, says):
    files = written(tmp_path, text, encoding=encoding)
    with pytest.raises(ValueError, match=says) as error:
        read_texts(files)
    assert one_line(error) and read_texts(files, encoding) == text


@pytest.mark.parametrize("text", ["\0", "a\0b\0" * 3, "\0" * 50, "to be\0or not" * 9, "a" * 20_000, "\x1a\x0c\x85\u2028"])
def test_rare_characters_are_characters(tmp_path, text):
    assert read_texts(written(tmp_path, text)) == text
    made = encode_files(written(tmp_path, text), BPETokenizer.from_text, progress=False)
    assert made.tokenizer.decode(made.ids.long()) == text and made.ids.tolist() == made.tokenizer.encode(text).tolist()


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
        expected = file.read_text(encoding=encoding).lstrip("\ufeff")  # of all marks, Python removes some
        assert "".join(read_pieces(file, encoding, size)) == expected


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


def test_a_notebook_from_windows_is_read_as_any_other(tmp_path):
    content = notebook(("markdown", ["# T\r\n", "more\rend"]), ("code", "1"))
    (tmp_path / "A.IPYNB").write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert read_texts([tmp_path]) == "# T\nmore\nend\n\n1"


@pytest.mark.parametrize("content", [
    "", "{", "[]", "{}", '{"cells": 3}', '{"cells": [3]}', '{"cells": [{"cell_type": "code"}]}', "null", "[" * 100_000,
    '{"cells": [{"cell_type": "code", "source": 3}]}', '{"cells": [{"cell_type": "code", "source": "\\ud800"}]}',
])
def test_what_is_no_notebook_is_named(tmp_path, content):
    (tmp_path / "a.ipynb").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="a.ipynb is not a notebook") as error:
        read_texts([tmp_path])
    assert one_line(error)


# Pieces that end where words end.


@pytest.fixture(scope="module")
def joiner():
    "A tokenizer of byte pairs whose merges join whatever may be joined."
    return BPETokenizer.from_text("ab ab. 1_1 . ' \n\n\n  \u2003\u2003\x1c\x1c\x85.\x1c.\x1c aé 東東 " * 9, 300)


@given(text=st.text(st.sampled_from("ab1_.' \n\t\u2003\x1c\x85é東"), min_size=1, max_size=60), size=st.integers(1, 12), step=st.integers(1, 5))
def test_pieces_that_end_where_words_end_have_the_tokens_of_the_whole(joiner, text, size, step):
    pieces = list(split_at_word_ends((text[i : i + step] for i in range(0, len(text), step)), size))
    assert "".join(pieces) == text and "" not in pieces
    for before, after in pairwise(pieces):
        if before[-1].strip() and after[0] in " \n":
            assert joiner.encode(before + after).tolist() == joiner.encode(before).tolist() + joiner.encode(after).tolist()
        else:
            assert not re.search(r"\S[ \n]", before)  # there was no better place


def test_words_of_other_tokenizers_are_not_cut_between_words():
    tokenizer = BPETokenizer.from_text(series_corpus(), 600)
    newer = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # as GPT-4 splits
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(newer), "isolated")
    tokenizer.tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, tokenizers.pre_tokenizers.ByteLevel(False, use_regex=False)])
    text = series_corpus()[:30_000]
    pieces = list(split_at_word_ends((text[i : i + 50] for i in range(0, len(text), 50)), 200))
    assert len(pieces) > 100
    assert torch.cat([tokenizer.encode(piece) for piece in pieces]).equal(tokenizer.encode(text))


def test_a_word_is_never_cut_however_long():
    assert list(split_at_word_ends(iter(["x" * 10] * 10), 25)) == ["x" * 100]
    assert list(split_at_word_ends(iter(["x" * 10] * 10), 25, longest=25)) == ["x" * 30] * 3 + ["x" * 10]  # unless it is asked for
    pieces = list(split_at_word_ends(iter(["你好" * 9, "，世界"] * 40), 25))
    assert "".join(pieces) == ("你好" * 9 + "，世界") * 40 and len(pieces) > 20 and all(p[0] == "，" for p in pieces[1:])
