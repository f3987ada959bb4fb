"""Text to token ids: cleaning as the official code does it, and a Hugging Face tokenizer from a local directory."""

import html
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"

# Texts, and the number of tokens to pad and cut each to, to ids and mask.
_Encode = Callable[[list[str], int], tuple[list[list[int]], list[list[int]]]]


class Tokenizer:
    """Turns prompts into padded token ids with the tokenizer stored in `directory`.

    directory: holds `tokenizer.json` (read with `tokenizers`), or only `spiece.model` (read with `sentencepiece`).
    text_len: tokens per prompt, the end-of-text token included; longer prompts are cut, shorter ones padded.
    Raises: FileNotFoundError where there is no tokenizer; ValueError where its file cannot be read.
    """

    def __init__(self, directory: str | Path, *, text_len: int = 512) -> None:
        directory = Path(directory)
        self.text_len = text_len
        if (directory / "tokenizer.json").is_file():
            self._encode = _load_tokenizer_json(directory / "tokenizer.json")
        elif (directory / "spiece.model").is_file():
            self._encode = _load_sentencepiece(directory / "spiece.model")
        else:
            raise FileNotFoundError(
                f"[tokenizer] directory must hold tokenizer.json or spiece.model, got {directory} with neither"
            )

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Cleaned texts as token ids.

        texts: B strings. Returns ids [B, text_len] int64, and mask [B, text_len] bool, true on text and its end token.
        """
        if isinstance(texts, str):
            raise TypeError("[tokenizer] texts must be a list of strings, got one string")
        ids, mask = self._encode([clean_text(text) for text in texts], self.text_len)
        return torch.tensor(ids, dtype=torch.int64), torch.tensor(mask, dtype=torch.bool)


def clean_text(text: str) -> str:
    """Repair broken Unicode (ftfy), unescape HTML twice, and collapse white space.

    Source: `basic_clean` and `whitespace_clean` of Wan2.1 `modules/tokenizers.py` at 9737cba.
    """
    text = html.unescape(html.unescape(_fix_unicode()(text)))
    return re.sub(r"\s+", " ", text).strip()


@cache
def _fix_unicode() -> Callable[[str], str]:
    try:
        import ftfy
    except ModuleNotFoundError as error:
        warnings.warn(f"[tokenizer] text is not repaired as the official code does: {error}", stacklevel=3)
        return str
    return ftfy.fix_text


def _load_tokenizer_json(path: Path) -> _Encode:
    from tokenizers import Tokenizer as FastTokenizer

    try:
        tokenizer = FastTokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"[tokenizer] {path} must be a readable tokenizer, got: {_first_line(error)}") from error
    pad_id = tokenizer.token_to_id(PAD)
    if pad_id is None:
        raise ValueError(f"[tokenizer] vocabulary must hold the token {PAD}, {path} does not")

    def encode(texts: list[str], text_len: int) -> tuple[list[list[int]], list[list[int]]]:
        tokenizer.enable_truncation(text_len)
        tokenizer.enable_padding(length=text_len, pad_id=pad_id, pad_token=PAD)
        encodings = tokenizer.encode_batch(texts)
        return [e.ids for e in encodings], [e.attention_mask for e in encodings]

    return encode


def _load_sentencepiece(path: Path) -> _Encode:
    try:
        from sentencepiece import SentencePieceProcessor
    except ModuleNotFoundError as error:
        raise RuntimeError(f"[tokenizer] {path} must be read with sentencepiece, got: {error}; install it") from error
    try:
        processor = SentencePieceProcessor(model_file=str(path))
    except Exception as error:  # RuntimeError or OSError, depending on what is broken
        raise ValueError(
            f"[tokenizer] {path} must be a readable SentencePiece model, got: {_first_line(error)}"
        ) from error
    pad_id, end_id = max(processor.pad_id(), 0), processor.eos_id()

    def encode(texts: list[str], text_len: int) -> tuple[list[list[int]], list[list[int]]]:
        rows = [[*processor.encode(text)[: text_len - 1], end_id] for text in texts]
        ids = [row + [pad_id] * (text_len - len(row)) for row in rows]
        return ids, [[1] * len(row) + [0] * (text_len - len(row)) for row in rows]

    return encode


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def build_word_tokenizer(words: Iterable[str], directory: str | Path) -> Path:
    """Write a `tokenizer.json` with one token per word, and one per Chinese character.

    Case and punctuation are ignored; ids 0, 1 and 2 are padding, end of text and unknown; the other ids follow the
    order of `words`, each cut the way the tokenizer will cut a prompt. Returns the path written.
    """
    from tokenizers import Regex, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers.models import WordLevel

    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(behavior="removed"),
            pre_tokenizers.Split(Regex(r"\p{Han}"), behavior="isolated"),
        ]
    )
    vocabulary = {PAD: 0, END: 1, UNKNOWN: 2}
    for word in words:
        for piece, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(word)):
            vocabulary.setdefault(piece, len(vocabulary))

    tokenizer = FastTokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    tokenizer.add_special_tokens([PAD, END, UNKNOWN])
    path = Path(directory) / "tokenizer.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return path
