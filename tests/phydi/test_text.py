"""Numbers for words: by hand on small texts, and against known counts on the real WikiText-2."""

import gzip
import os
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import phydi
from phydi.text import WIKITEXT2_SIZES, _released_words

pytestmark = pytest.mark.float32

# As the experiments read it: a folder with the publishers' `wikitext-2` in it.
PUBLISHED = Path(os.environ.get("CERTAX_DATA", "")) / "wikitext-2"
SHARED = Path(__file__).parents[3] / "shared" / "data"
PACKED = [SHARED / f"wikitext2_{part}.txt.gz" for part in WIKITEXT2_SIZES]
real = pytest.mark.skipif(
    not PUBLISHED.is_dir() and not all(path.is_file() for path in PACKED),
    reason="runs where the environment variable CERTAX_DATA is a folder with wikitext-2 in it, or "
    "../shared/data beside the checkout has wikitext2_{train,valid,test}.txt.gz",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The real WikiText-2 in its publisher's layout."""
    if PUBLISHED.is_dir():
        return PUBLISHED
    out = tmp_path_factory.mktemp("data") / "wikitext-2"
    out.mkdir()
    for part, path in zip(WIKITEXT2_SIZES, PACKED):
        (out / f"wiki.{part}.tokens").write_bytes(gzip.decompress(path.read_bytes()))
    return out


@real
def test_the_real_words_are_counted_as_their_publisher_does(folder):
    corpus = phydi.wikitext2(folder.parent)  # finds the folder of this name in it
    assert len(corpus.vocabulary) == 33_278
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [
        2_088_628,
        217_646,
        245_569,
    ]
    counts = np.bincount(corpus.train, minlength=33_278)
    assert np.all(np.diff(counts) <= 0)
    assert corpus.vocabulary[:4] == ("the", ",", ".", "of")
    # The publisher has put <unk> for all that is rare: every word of the other parts is known.
    assert np.all(counts > 0)
    lines = (folder / "wiki.valid.tokens").read_text().split("\n")
    assert corpus.text(corpus.valid).splitlines()[1] == " ".join(lines[1].split())


@real
def test_the_real_words_as_the_released_code_has_them(folder):
    corpus = phydi.wikitext2(folder, tokens="released")
    # What torchtext's own example of a language model reports; 28,782 words before the cut.
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [
        2_049_990,
        214_417,
        241_859,
    ]
    assert len(corpus.vocabulary) == 28_780
    assert "<eos>" not in corpus.vocabulary


@real
def test_a_file_that_is_not_whole_is_named(folder, tmp_path):
    for part in WIKITEXT2_SIZES:
        content = (folder / f"wiki.{part}.tokens").read_bytes()
        (tmp_path / f"wiki.{part}.tokens").write_bytes(content[: -7 if part == "valid" else None])
    with pytest.raises(ValueError, match=r"valid.tokens of 1,121,681 bytes, found 1,121,674: .* S"):
        phydi.wikitext2(tmp_path)


def test_a_file_that_is_no_text_is_named(tmp_path):
    for part, size in WIKITEXT2_SIZES.items():
        (tmp_path / f"wiki.{part}.tokens").write_bytes(b"\xff" * size)
    with pytest.raises(ValueError, match=r"wiki.train.tokens to be UTF-8, found 'utf-8'"):
        phydi.wikitext2(tmp_path)


def test_lines_of_other_systems_are_the_same_words():
    corpus = phydi.text_corpus("a b\r\nb\r\n", "a\r\n", "b")
    assert corpus.vocabulary == phydi.text_corpus("a b\nb\n", "a\n", "b").vocabulary


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"wiki.train.tokens of 10,797,148 .* Salesforce"):
        phydi.wikitext2(tmp_path)
    with pytest.raises(ValueError, match="tokens: expected one of publisher, released, got 'raw'"):
        phydi.wikitext2(tmp_path, tokens="raw")


def test_words_are_split_as_by_basic_english():
    line = ' The 12 @-@ inch gun\'s ( 305 mm ) ; " Mark VII : a " , U.S. ! '
    words = ["the", "12", "@-@", "inch", "gun", "'", "s", "(", "305", "mm", ")"]
    words += ["mark", "vii", "a", ",", "u", ".", "s", ".", "!"]
    assert _released_words(line) == words


LINES = st.lists(st.lists(st.sampled_from("abcdefg"), max_size=6).map(" ".join), min_size=1)


@settings(deadline=None, max_examples=60)
@given(train=LINES, other=LINES, most=st.none() | st.integers(1, 9))
def test_a_corpus_is_its_text(train, other, most):
    train, other = ["a", *train], ["g", *other]
    corpus = phydi.text_corpus("\n".join(train), "\n".join(other), "b", max_words=most)
    counts = Counter(word for line in train for word in [*line.split(), "<eos>"])
    size = len({*counts, "<unk>"}) if most is None else max(2, min(most, len({*counts, "<unk>"})))
    assert len(corpus.vocabulary) == len(set(corpus.vocabulary)) == size
    assert {"<unk>", "<eos>"} <= set(corpus.vocabulary)
    # No word that is left out is more frequent than one that is there.
    out = [counts[word] for word in counts.keys() - set(corpus.vocabulary)]
    kept = [counts[word] for word in set(corpus.vocabulary) - {"<unk>", "<eos>"}]
    assert max(out, default=0) <= min(kept, default=10**9)
    for part, lines in ((corpus.train, train), (corpus.valid, other)):
        known = lambda word: word if word in corpus.vocabulary else "<unk>"  # noqa: E731
        words = [known(w) for line in lines for w in [*line.split(), "<eos>"]]
        # The last empty line is the newline at the end of a file.
        words = words[:-1] if len(lines) > 1 and lines[-1] == "" else words
        assert [corpus.vocabulary[i] for i in part] == words


@settings(deadline=None, max_examples=60)
@given(size=st.integers(2, 90), columns=st.integers(1, 9), length=st.integers(1, 9))
def test_batches_are_columns_of_the_text_and_each_word_follows(size, columns, length):
    places = size // columns
    if places < 2:
        with pytest.raises(ValueError, match=f"words: expected at least two for each of {columns}"):
            phydi.text_batches(np.arange(size), columns, length)
        return
    data = phydi.text_batches(np.arange(size), columns, length)
    batches = list(data(jax.random.key(0), 0))
    assert len(batches) == data.num_batches
    words = np.concatenate([batch["words"] for batch in batches], axis=1)
    following = np.concatenate([batch["next"] for batch in batches], axis=1)
    exact = np.arange(columns)[:, None] * places + np.arange(places - 1)
    np.testing.assert_array_equal(words, exact)
    np.testing.assert_array_equal(following, exact + 1)
    assert all(batch["words"].shape == (columns, length) for batch in batches[:-1])
    # A run that resumes sees the rest.
    rest = list(data(jax.random.key(1), len(batches) // 2))
    for one, other in zip(rest, batches[len(batches) // 2 :], strict=True):
        np.testing.assert_array_equal(one["next"], other["next"])


def test_python_is_a_text():
    corpus = phydi.standard_library()
    again = phydi.standard_library()
    assert len(corpus.vocabulary) == 4000
    np.testing.assert_array_equal(corpus.train, again.train)
    assert corpus.vocabulary == again.vocabulary
    for part, least in ((corpus.train, 300_000), (corpus.valid, 15_000), (corpus.test, 15_000)):
        assert len(part) > least
        # Most of each part is known words.
        assert np.mean(part == corpus.vocabulary.index("<unk>")) < 0.2
    assert "def __init__ ( self" in corpus.text(corpus.train)


def test_the_loss_is_the_logarithm_of_the_probability():
    logits = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    label = np.array([[0, 4, 2], [1, 1, 3]])
    batch = {"words": np.zeros((2, 3), int), "next": jnp.asarray(label)}
    found = phydi.language_loss(lambda words: jnp.asarray(logits), batch)["loss"]
    shares = np.exp(logits.astype(float))
    shares /= shares.sum(-1, keepdims=True)
    exact = -np.log(np.take_along_axis(shares, label[..., None], axis=-1))[..., 0]
    np.testing.assert_allclose(found, exact, rtol=1e-5)
    half = phydi.language_loss(lambda words: jnp.asarray(logits, jnp.bfloat16), batch)["loss"]
    assert half.dtype == jnp.float32


def test_bad_input_is_named():
    for call, match in (
        (lambda: phydi.text_corpus("", "a", "a"), "train: expected a text with words, got ''"),
        (lambda: phydi.text_corpus("a", "\n\n", "a"), "valid: expected a text with words"),
        (lambda: phydi.text_corpus(b"a", "a", "a"), "train: expected a text, got bytes"),
        (lambda: phydi.text_corpus("a", "a", "a", max_words=0), "max_words: expected an integer"),
        (lambda: phydi.text_batches(np.ones(9), 2), "words: expected one row of integers, got fl"),
        (lambda: phydi.text_batches(np.arange(9), 0), "batch_size: expected an integer"),
        (
            lambda: phydi.language_loss(
                lambda words: jnp.zeros((2, 5)),
                {"words": np.zeros((2, 3), int), "next": np.zeros((2, 3), int)},
            ),
            r"model: expected logits of shape \(2, 3, 'words'\), got \(2, 5\)",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
