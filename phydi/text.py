"""Text for language models: WikiText-2 from the publisher's files, or Python's own sources.

A text becomes numbers: each line's words and `<eos>`; words are numbered by how often the training
part has them, and what the vocabulary lacks is `<unk>`. Batches are the released code's: the text
is cut into as many long columns as a batch has examples, and a batch is the next few words of each.
"""

import dataclasses
import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from phydi.checking import check_option, check_positive_integer

UNKNOWN, END = "<unk>", "<eos>"
WIKITEXT2_SIZES = {"train": 10_797_148, "valid": 1_121_681, "test": 1_256_449}
WIKITEXT2_SOURCE = (
    "WikiText-2 (wikitext-2-v1, word level) is published by Salesforce Research: Merity et al., "
    "Pointer Sentinel Mixture Models, 2016; unzipped it has wiki.train.tokens, wiki.valid.tokens "
    "and wiki.test.tokens"
)
# Modules without platform-dependent contents, large enough together, in a fixed order.
_TRAIN = (
    *("argparse", "ast", "bdb", "calendar", "cmd", "configparser", "contextlib", "copy", "csv"),
    *("dataclasses", "datetime", "decimal", "difflib", "dis", "doctest", "enum", "fileinput"),
    *("fractions", "ftplib", "functools", "gettext", "gzip", "heapq", "imaplib", "inspect"),
    *("ipaddress", "locale", "mailbox", "mimetypes", "optparse", "pdb", "pickle", "pickletools"),
    *("plistlib", "poplib", "pprint", "profile", "pydoc", "queue", "random", "sched", "shelve"),
    *("shlex", "shutil", "smtplib", "socketserver", "ssl", "statistics", "string", "subprocess"),
    *("tarfile", "tempfile", "textwrap", "threading", "timeit", "tokenize", "trace", "traceback"),
)
_VALID, _TEST = ("typing", "uuid", "weakref"), ("warnings", "zipfile", "turtle")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Three parts of a text as numbers of words.

        train[i] = j      if the i-th word is vocabulary[j]

    Attributes:
      train: (words,) int32.
      valid: likewise.
      test: likewise.
      vocabulary: the words, the most frequent first.

    Examples:
      >>> import phydi
      >>> corpus = phydi.text_corpus("a b a\\nb a", "b c", "a")
      >>> corpus.vocabulary, corpus.valid.tolist()
      (('a', '<eos>', 'b', '<unk>'), [2, 3, 1])
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    vocabulary: tuple[str, ...]

    def text(self, words) -> str:
        """The words of some numbers, a line for each `<eos>`."""
        found = " ".join(self.vocabulary[int(word)] for word in np.asarray(words).ravel())
        return re.sub(f" ?{END} ?", "\n", found)


jax.tree_util.register_dataclass(Corpus, ["train", "valid", "test"], ["vocabulary"])


def text_corpus(
    train: str,
    valid: str,
    test: str,
    *,
    split_fn: Callable = str.split,
    max_words: int | None = None,
    end: bool = True,
) -> Corpus:
    """A corpus of any text.

        vocabulary: the words of `train`, `<eos>` and `<unk>`, by frequency, then by the alphabet

    Args:
      train: the part to learn from, lines separated by a newline.
      valid: the part to choose by.
      test: the part for the last word.
      split_fn: from a line to its words.
      max_words: the size of the vocabulary, `<eos>` and `<unk>` included; None for all words.
      end: whether a line ends with `<eos>`.

    Returns:
      A `Corpus`.

    Raises:
      ValueError: a part without words, or a vocabulary of no positive size.

    Reference:
      Section 4.3 names the data; how words are numbered changes no perplexity.

    Examples:
      >>> import phydi
      >>> corpus = phydi.text_corpus("a b a", "b c", "a", max_words=3)
      >>> corpus.text(corpus.valid)
      '<unk> <unk>\\n'
    """
    parts = {}
    for name, text in (("train", train), ("valid", valid), ("test", test)):
        if not isinstance(text, str):
            raise ValueError(f"{name}: expected a text, got {type(text).__name__}")
        words = parts[name] = []
        for line in text.removesuffix("\n").split("\n"):
            words.extend(split_fn(line))
            if end:
                words.append(END)
        if not set(words) - {END}:
            raise ValueError(f"{name}: expected a text with words, got {text[:40]!r}")
    counts = Counter(parts["train"])
    always = (UNKNOWN, END) if end else (UNKNOWN,)
    ranked = sorted(counts.keys() - set(always), key=lambda word: (-counts[word], word))
    if max_words is not None:
        ranked = ranked[: max(check_positive_integer("max_words", max_words) - len(always), 0)]
    vocabulary = sorted((*ranked, *always), key=lambda word: (-counts[word], word))
    number = {word: j for j, word in enumerate(vocabulary)}
    unknown = number[UNKNOWN]
    arrays = (
        np.fromiter((number.get(word, unknown) for word in words), np.int32, len(words))
        for words in parts.values()
    )
    return Corpus(*arrays, tuple(vocabulary))


def _released_words(line: str) -> list[str]:
    """torchtext's `basic_english`, which the released code applies to words already split."""
    line = re.sub(r"(['.,()!?])", r" \1 ", line.lower().replace('"', ""))
    return re.sub(r"[;:]", " ", line).split()


def wikitext2(folder, *, tokens: str = "publisher", max_words: int | None = None) -> Corpus:
    """WikiText-2, word level.

        2,088,628, 217,646 and 245,569 words with `<eos>`; a vocabulary of 33,278

    Args:
      folder: `wikitext-2`, where wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens are, or
        the folder with it in it.
      tokens: `publisher` for the words as they are; `released` as the released code has them: in
        lower case, some punctuation left out, split further, without `<eos>`, the 28,780 most
        frequent: an easier text, whose perplexities do not compare with the others.
      max_words: the size of the vocabulary, if it is to be smaller; the others are `<unk>`.

    Returns:
      A `Corpus`.

    Raises:
      FileNotFoundError: a file that is not there.
      ValueError: a file of another size than the publisher's, or unknown `tokens`.

    Reference:
      Section 4.3; Merity et al., Pointer Sentinel Mixture Models (2016).

    Examples:
      >>> import phydi
      >>> phydi.wikitext2("nowhere")
      Traceback (most recent call last):
      FileNotFoundError: folder: expected nowhere/wiki.train.tokens of 10,797,148 bytes, ...
    """
    check_option("tokens", tokens, ("publisher", "released"))
    folder, texts = Path(folder), []
    folder = folder / "wikitext-2" if (folder / "wikitext-2").is_dir() else folder
    for part, size in WIKITEXT2_SIZES.items():
        path = folder / f"wiki.{part}.tokens"
        if not path.is_file():
            raise FileNotFoundError(
                f"folder: expected {path} of {size:,} bytes, found no such file; {WIKITEXT2_SOURCE}"
            )
        content = path.read_bytes()
        if len(content) != size:
            raise ValueError(
                f"folder: expected {path} of {size:,} bytes, found {len(content):,}: it is not "
                f"whole, or another text; {WIKITEXT2_SOURCE}"
            )
        try:
            texts.append(content.decode())
        except UnicodeDecodeError as error:
            raise ValueError(
                f"folder: expected {path} to be UTF-8, found {error}; {WIKITEXT2_SOURCE}"
            ) from error
    if tokens == "publisher":
        return text_corpus(*texts, max_words=max_words)
    most = 28_780 if max_words is None else max_words
    return text_corpus(*texts, split_fn=_released_words, max_words=most, end=False)


def standard_library(*, max_words: int | None = 4000) -> Corpus:
    """The sources of modules of Python's standard library: a real text with nothing to download.

        words: names, numbers, each sign by itself; comments and indentation are left out

    The same on every machine with the same version of Python.

    Args:
      max_words: the size of the vocabulary; None for all words.

    Returns:
      A `Corpus`: 58 modules to learn from, three to choose by and three to test.

    Raises:
      FileNotFoundError: Python was installed without the sources.
      ValueError: `max_words` is not positive.

    Reference:
      Nothing in the paper.

    Examples:
      >>> import phydi
      >>> corpus = phydi.standard_library(max_words=1000)
      >>> len(corpus.vocabulary), len(corpus.train) > 300_000, "self" in corpus.vocabulary
      (1000, True, True)
    """

    def source(name: str) -> str:
        spec = importlib.util.find_spec(name)
        path = Path(spec.origin) if spec and spec.origin else Path(f"{name}.py")
        if path.suffix != ".py" or not path.is_file():
            raise FileNotFoundError(
                f"expected the source of the module {name}, found {path}: this Python was "
                f"installed without its sources; use wikitext2 or text_corpus"
            )
        lines = (re.sub(r"^\s*#.*", "", line) for line in path.read_text("utf-8").splitlines())
        return "\n".join(line for line in lines if line.strip())

    parts = ("\n".join(map(source, names)) for names in (_TRAIN, _VALID, _TEST))
    split_fn = re.compile(r"\w+|[^\w\s]").findall
    return text_corpus(*parts, split_fn=split_fn, max_words=max_words)


def text_batches(words, batch_size: int, length: int = 35) -> Callable:
    """Data for `fit`: the next words of `batch_size` columns of a text, and what follows them.

        column c: words[c m … c m + m - 1], m = ⌊len(words) / batch_size⌋
        batch i: places i · length … of each column, and the places one further

    The order is the text's own, whatever the key. The last batch is shorter, of what is left.

    Args:
      words: (words,) integers.
      batch_size: the number of columns.
      length: the number of words of each in a batch.

    Returns:
      `(key, start) -> iterator` over the batches of an epoch from number `start` on, dictionaries
      with `words` and `next`, (batch_size, length) each; without arguments, all of them, as for
      `test_data`. Its attribute `num_batches` is how many there are.

    Raises:
      ValueError: words that are not one row of integers, or too few for two to a column.

    Reference:
      The released code's batches, its columns as rows.

    Examples:
      >>> import numpy as np, phydi
      >>> [batch["next"].tolist() for batch in phydi.text_batches(np.arange(9), 2, 2)()]
      [[[1, 2], [5, 6]], [[3], [7]]]
    """
    words = np.asarray(words)
    batch_size = check_positive_integer("batch_size", batch_size)
    length = check_positive_integer("length", length)
    if words.ndim != 1 or not np.issubdtype(words.dtype, np.integer):
        raise ValueError(f"words: expected one row of integers, got {words.dtype} {words.shape}")
    places = len(words) // batch_size
    if places < 2:
        raise ValueError(
            f"words: expected at least two for each of {batch_size} columns, got {len(words)}"
        )
    columns = words[: places * batch_size].reshape(batch_size, places)
    num_batches = -(-(places - 1) // length)

    def batches(key=None, start: int = 0) -> Iterator:
        for i in range(start, num_batches):
            first, last = i * length, min((i + 1) * length, places - 1)
            yield {"words": columns[:, first:last], "next": columns[:, first + 1 : last + 1]}

    batches.num_batches = num_batches
    return batches


def language_loss(model, batch) -> dict[str, Array]:
    """The loss of a language model; the perplexity is the exponential of its mean.

        loss = -log softmax(model(words))[next]

    Args:
      model: from words to the logits of those that follow.
      batch: a dictionary with `words` and `next`.

    Returns:
      A dictionary with `loss`, one number per word.

    Raises:
      ValueError: the model does not return one row of logits per word.

    Reference:
      Section 4.3: the target is a perplexity of 200.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> batch = {"words": jnp.array([[0, 1]]), "next": jnp.array([[1, 2]])}
      >>> loss = phydi.language_loss(lambda words: jnp.zeros((*words.shape, 200)), batch)["loss"]
      >>> jnp.exp(loss).round(2)
      Array([[200., 200.]], dtype=...)
    """
    logits, label = model(batch["words"]), batch["next"]
    if logits.shape[:-1] != label.shape:
        raise ValueError(
            f"model: expected logits of shape {(*label.shape, 'words')}, got {logits.shape}"
        )
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return {"loss": optax.softmax_cross_entropy_with_integer_labels(logits, label)}
