"""Cleaning, padding and the word tokenizer; the official tokenizer's file format through Hugging Face."""

import json
import sys
import warnings

import pytest
import torch

from wan_model import tokenizer
from wan_model.tokenizer import Tokenizer, build_word_tokenizer, clean_text

WORDS = ["a", "Red", "circle", "moves", "right", "红色", "圆形", "left-of"]


@pytest.fixture
def directory(tmp_path):
    build_word_tokenizer(WORDS, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  a \n\t cat ", "a cat"),
        ("&amp;lt;b&amp;gt;", "<b>"),
        ("schÃ¶n", "schön"),
        ("“quoted”，全角", '"quoted",全角'),
        ("a\u3000b", "a b"),
        ("", ""),
    ],
)
def test_text_is_cleaned_as_the_official_code_does(text, cleaned):
    pytest.importorskip("ftfy", reason="the official cleaning uses ftfy")
    assert clean_text(text) == cleaned


def test_ids_are_padded_and_end_marked(directory):
    ids, mask = Tokenizer(directory, text_len=8)(["A red circle!", ""])
    assert ids.tolist() == [[3, 4, 5, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert mask.tolist() == [[True] * 4 + [False] * 4, [True] + [False] * 7]
    assert ids.dtype == torch.int64
    assert mask.dtype == torch.bool


def test_long_text_is_cut_and_still_end_marked(directory):
    ids, mask = Tokenizer(directory, text_len=5)(["a red circle moves right a red circle"])
    assert ids.tolist() == [[3, 4, 5, 6, 1]]
    assert mask.all()


def test_each_chinese_character_is_a_token(directory):
    ids, _ = Tokenizer(directory, text_len=8)(["红圆 形色，red蓝"])
    assert ids.tolist() == [[8, 10, 11, 9, 4, 2, 1, 0]]


def test_unknown_words_and_compound_words(directory):
    ids, _ = Tokenizer(directory, text_len=6)(["left OF zebra"])
    assert ids.tolist() == [[12, 13, 2, 1, 0, 0]]


def test_writing_twice_gives_the_same_file(tmp_path):
    first = build_word_tokenizer(WORDS, tmp_path / "one").read_bytes()
    assert build_word_tokenizer(WORDS, tmp_path / "two").read_bytes() == first
    assert json.loads(first)["model"]["vocab"]["<pad>"] == 0


def test_equals_transformers_on_the_same_file(directory):
    transformers = pytest.importorskip("transformers", reason="transformers is the other side of this parity test")
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "tokenizer.json"), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    texts = ["a red circle moves right", "红色的圆形", "", "a " * 40]
    batch = theirs(texts, padding="max_length", truncation=True, max_length=12, return_tensors="pt")
    ids, mask = Tokenizer(directory, text_len=12)(texts)
    assert torch.equal(ids, batch["input_ids"])
    assert torch.equal(mask, batch["attention_mask"].bool())


def test_one_string_is_refused(directory):
    with pytest.raises(TypeError, match=r"^\[tokenizer\] texts must be a list of strings, got one string$"):
        Tokenizer(directory)("a red circle")


def test_directory_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^\[tokenizer\] directory must hold tokenizer.json or spiece.model"):
        Tokenizer(tmp_path)


def test_broken_file_is_refused(directory):
    (directory / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"^\[tokenizer\] .*tokenizer.json must be a readable tokenizer, got: [^\n]+$"):
        Tokenizer(directory)


def test_sentencepiece_model_alone_gives_the_same_ids(tmp_path):
    """The same unigram vocabulary, once as spiece.model and once as tokenizer.json."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="reads spiece.model")
    tokenizers = pytest.importorskip("tokenizers", reason="reads tokenizer.json")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a red circle moves right over a blue background\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "spiece"), vocab_size=40, pad_id=0, eos_id=1, unk_id=2,
        bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
    fast = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, unk_id=2))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    fast.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast.add_special_tokens(["<pad>", "</s>", "<unk>"])
    (tmp_path / "json").mkdir()
    fast.save(str(tmp_path / "json" / "tokenizer.json"))

    texts = ["a  red circle", "moves right over a blue background " * 3, "", "blue zebra"]
    ids, mask = Tokenizer(tmp_path, text_len=24)(texts)
    expected_ids, expected_mask = Tokenizer(tmp_path / "json", text_len=24)(texts)
    assert torch.equal(ids, expected_ids)
    assert torch.equal(mask, expected_mask)


def test_broken_sentencepiece_model_is_refused(tmp_path):
    pytest.importorskip("sentencepiece", reason="reads spiece.model")
    (tmp_path / "spiece.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"spiece.model must be a readable SentencePiece model, got: "):
        Tokenizer(tmp_path)


def test_missing_sentencepiece_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "spiece.model").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(RuntimeError, match=r"^\[tokenizer\] .*spiece.model must be read with sentencepiece, got: "):
        Tokenizer(tmp_path)


def test_missing_ftfy_is_said_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    tokenizer._fix_unicode.cache_clear()
    try:
        with pytest.warns(UserWarning, match="text is not repaired"):
            assert clean_text(" a  b &amp;amp; c") == "a b & c"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clean_text("a")
    finally:
        tokenizer._fix_unicode.cache_clear()
