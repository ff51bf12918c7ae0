"""The readers of images: what they read, and what they say of files that are not what they seem."""

import gzip
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import phydi
from phydi.pickles import array_of_bytes, read_pickle

pytestmark = pytest.mark.float32
# As the experiments read it: a folder with the publishers' `cifar-10-batches-bin` in it.
PUBLISHED = Path(os.environ.get("CERTAX_DATA", "")) / "cifar-10-batches-bin"
SHARED = Path(__file__).parents[3] / "shared" / "data"
WORDS = b"airplane automobile bird cat deer dog frog horse ship truck".split()


def batches():
    """Six batches of 10,000 random images, compressible: rows repeat."""
    generator = np.random.default_rng(0)
    few = generator.integers(0, 256, (10, 3072), np.uint8)
    for i in range(6):
        yield np.tile(few + np.uint8(i), (1000, 1)), generator.integers(0, 10, 10_000)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The same random images in both layouts, and the images."""
    folder = tmp_path_factory.mktemp("cifar")
    binary, python = folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"
    binary.mkdir(), python.mkdir()
    kept = []
    for i, (image, label) in enumerate(batches()):
        name = "test_batch" if i == 5 else f"data_batch_{i + 1}"
        rows = np.concatenate([label[:, None].astype(np.uint8), image], 1)
        (binary / f"{name}.bin").write_bytes(rows.tobytes())
        content = {b"data": image, b"labels": label.tolist(), b"batch_label": b"batch"}
        (python / name).write_bytes(pickle.dumps(content, protocol=2))
        kept.append((image, label))
    (binary / "batches.meta.txt").write_bytes(b"\n".join(WORDS) + b"\n\n")
    (python / "batches.meta").write_bytes(pickle.dumps({b"label_names": WORDS}, protocol=2))
    return folder, kept


@pytest.mark.parametrize("layout", ["bin", "py"])
def test_both_layouts_of_cifar_10_are_read_pixel_by_pixel(stored, layout):
    folder, kept = stored
    train, test = phydi.cifar10(folder / f"cifar-10-batches-{layout}")
    assert train.image.shape == (50_000, 32, 32, 3)
    assert test.image.shape == (10_000, 32, 32, 3)
    for image, (planes, label), offset in (
        (train, kept[3], 30_000),
        (test, kept[5], 0),
    ):
        np.testing.assert_array_equal(image.label[offset : offset + 10_000], label)
        for i, row, column, colour in ((0, 0, 0, 0), (7, 5, 31, 1), (9999, 31, 2, 2)):
            expected = planes[i, 1024 * colour + 32 * row + column]
            assert image.image[offset + i, row, column, colour] == expected
    assert train.names[3] == "cat"


def test_the_folder_above_serves_too(stored):
    folder, _ = stored
    assert phydi.cifar10(folder)[1].names[-1] == "truck"


class Evil:
    """A pickle that runs a program."""

    def __reduce__(self):
        return os.system, ("echo robbed > robbed",)


def write_batches(folder, first: bytes):
    folder.mkdir()
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": WORDS}, protocol=2))
    (folder / "data_batch_1").write_bytes(first)
    return folder


def test_a_malicious_pickle_is_refused_by_name_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({b"data": Evil(), b"labels": []})
    with pytest.raises(ValueError, match=r"data_batch_1: refused to load (posix|nt).system"):
        phydi.cifar10(write_batches(tmp_path / "a", content))
    # By other doors: builtins, numpy's own pickle, an object array that hides the call.
    for number, (module, name) in enumerate(
        (("builtins", "eval"), ("numpy", "load"), ("functools", "partial"), ("numpy", "f2py"))
    ):
        content = f"c{module}\n{name}\n(S'1'\ntR.".encode()
        with pytest.raises(ValueError, match=f"refused to load {module}.{name}"):
            phydi.cifar10(write_batches(tmp_path / f"b{number}", content))
    hidden = pickle.dumps({b"data": np.array([Evil()], object), b"labels": []})
    with pytest.raises(ValueError, match="refused to load"):
        phydi.cifar10(write_batches(tmp_path / "c", hidden))
    assert not (tmp_path / "robbed").exists()


def test_broken_pickles_are_refused_by_name_and_change_nothing(tmp_path):
    content = {b"data": np.zeros((20, 30), np.uint8), b"labels": list(range(20))}
    whole, path = pickle.dumps(content, protocol=2), tmp_path / "data_batch_1"
    generator, messages = np.random.default_rng(0), []
    for _ in range(300):
        broken = bytearray(whole)
        for place in generator.integers(0, 200, 3):  # where the instructions are
            broken[place] = generator.integers(256)
        try:
            found = read_pickle(path, bytes(broken), "there")
        except ValueError as error:
            messages.append(str(error))
        else:
            found = found.get(b"data") if isinstance(found, dict) else None
            assert array_of_bytes(found) is None or array_of_bytes(found).dtype == np.uint8
    assert len(messages) > 100
    assert all(message.startswith(str(path)) for message in messages)
    # NumPy's own dtype takes a broken state, and arrays of bytes then end the process.
    assert not np.zeros(3, np.uint8).any()
    columns = np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    found = array_of_bytes(read_pickle(path, pickle.dumps(columns, protocol=2), "there"))
    np.testing.assert_array_equal(found, columns)


def test_files_that_are_not_whole_are_named_with_their_sizes(stored, tmp_path):
    folder, _ = stored
    copy = tmp_path / "cifar-10-batches-bin"
    copy.mkdir()
    for path in (folder / copy.name).iterdir():
        (copy / path.name).symlink_to(path)
    short = copy / "data_batch_3.bin"
    short.unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3.bin: expected a file of 30,730,000"):
        phydi.cifar10(copy)
    short.write_bytes(bytes(1000))
    words = r"data_batch_3.bin: expected 30,730,000 bytes, found 1,000; .*www.cs.toronto.edu"
    with pytest.raises(ValueError, match=words):
        phydi.cifar10(copy)
    wrong = np.zeros((10_000, 3073), np.uint8)
    wrong[5, 0] = 10
    short.write_bytes(wrong.tobytes())
    with pytest.raises(ValueError, match="expected labels from 0 to 9, found 10"):
        phydi.cifar10(copy)
    with pytest.raises(FileNotFoundError, match="CIFAR-10 comes from"):
        phydi.cifar10(tmp_path / "nowhere")
    whole = (folder / "cifar-10-batches-py" / "data_batch_1").read_bytes()
    for number, (content, words) in enumerate(
        (
            (whole[:-1000], "bytes that end early or are none"),
            (gzip.compress(b"x" * 50), "bytes that end early or are none"),
            (pickle.dumps([1]), "expected 10,000 images of 3,072 bytes"),
            (
                pickle.dumps({b"data": np.zeros((10_000, 3072)), b"labels": [0] * 10_000}),
                "expected 10,000 images of 3,072 bytes .* found None and 10000 labels",
            ),
            (pickle.dumps({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0]}), "found .3, 3"),
        )
    ):
        with pytest.raises(ValueError, match=words):
            phydi.cifar10(write_batches(tmp_path / str(number), content))


def test_a_folder_of_pictures(tmp_path):
    for name, colour in (("dog", (9, 8, 7)), ("cat", (1, 2, 3))):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 30), colour).save(tmp_path / name / "a.png")
        (tmp_path / name / ".hidden").write_text("no picture")
    images = phydi.image_folder(tmp_path, size=8)
    assert images.names == ("cat", "dog")
    np.testing.assert_array_equal(images.label, [0, 1])
    assert images.image.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(images.image[1], np.broadcast_to([9, 8, 7], (8, 8, 3)))
    for name in ("a.png", ".hidden"):
        (tmp_path / "dog" / name).unlink()
    (tmp_path / ".cache").mkdir()
    # A grey one, one with transparency, and one that says which way is up.
    Image.new("L", (5, 9), 77).save(tmp_path / "dog" / "a.png")
    Image.new("RGBA", (5, 9), (9, 8, 7, 128)).save(tmp_path / "dog" / "b.png")
    lying, exif = Image.new("RGB", (8, 8)), Image.Exif()
    lying.paste((255, 255, 255), (0, 0, 4, 8))
    exif[0x0112] = 6  # to be turned clockwise
    lying.save(tmp_path / "dog" / "c.png", exif=exif)
    images = phydi.image_folder(tmp_path, size=8)
    assert images.names == ("cat", "dog")
    assert images.image[1:3, 4, 4].tolist() == [[77, 77, 77], [9, 8, 7]]
    assert images.image[3, :, :, 0].tolist() == [[255] * 8] * 4 + [[0] * 8] * 4
    deep = tmp_path / "dog" / "b.png"
    Image.fromarray(np.full((9, 9), 30_000, np.uint16)).save(deep)
    with pytest.raises(ValueError, match=r"b.png: expected a picture, .* more than 8 bits"):
        phydi.image_folder(tmp_path)
    deep.write_text("no picture")
    with pytest.raises(ValueError, match=r"b.png: expected a picture, found 10 bytes"):
        phydi.image_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a folder of pictures for each class"):
        phydi.image_folder(tmp_path / "cat")


def test_pillow_and_scikit_learn_are_asked_for_by_name():
    code = """
import sys
sys.modules["PIL"] = sys.modules["sklearn.datasets"] = sys.modules["tensorboard"] = None
import phydi
for call, words in (
    (lambda: phydi.image_folder("."), "image_folder needs Pillow: pip install Pillow"),
    (phydi.digits, "digits needs scikit-learn: pip install scikit-learn"),
    (lambda: phydi.tensorboard_callback("x"), "needs TensorBoard: pip install tensorboard"),
):
    try:
        call()
    except ImportError as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_digits_are_scikit_learns():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    train, test = phydi.digits()
    raw = datasets.load_digits()
    assert len(train.image) + len(test.image) == len(raw.images) == 1797
    np.testing.assert_array_equal(test.label, raw.target[::5])
    np.testing.assert_array_equal(test.image[3, ..., 1], np.minimum(16 * raw.images[15], 255))


def test_the_zero_channel_comes_first_and_colours_are_standardised():
    image = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3)).astype(np.uint8)
    images = phydi.Images(image, np.arange(6, dtype=np.int32), ())
    mean, deviation = image.mean((0, 1, 2)) / 255, image.std((0, 1, 2)) / 255
    for n, extra in ((1, 0), (2, 1), (3, 0), (4, 1), (5, 2)):
        found = phydi.prepare(images, n=n, mean=mean, deviation=deviation)["image"]
        assert found.shape[-1] == 3 + extra
        assert found.dtype == np.float32
        assert np.all(found[..., :extra] == 0)
        np.testing.assert_allclose(found[..., extra:].mean((0, 1, 2)), 0, atol=1e-6)
        np.testing.assert_allclose(found[..., extra:].std((0, 1, 2)), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="images: expected bytes of shape"):
        phydi.prepare(images._replace(image=image / 255), n=4)


@pytest.mark.slow
def test_the_real_images_come_through_the_publishers_layout(tmp_path):
    script, folder = SHARED / "unpack.py", PUBLISHED.parent
    if not PUBLISHED.is_dir():
        if not script.exists():
            pytest.skip("the real CIFAR-10 is neither in CERTAX_DATA nor packed in ../shared/data")
        folder = tmp_path
        subprocess.run([sys.executable, str(script), str(folder)], check=True)
    train, test = phydi.cifar10(folder)
    assert np.bincount(train.label).tolist() == [5000] * 10
    assert np.bincount(test.label).tolist() == [1000] * 10
    if script.exists():
        # The first picture, decoded again by hand.
        with np.load(SHARED / "cifar10_jpeg_test.npz") as packed:
            content = packed["jpeg"][packed["offset"][0] : packed["offset"][1]].tobytes()
        first = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(test.image[0], first)
    few = phydi.Images(train.image[::10], train.label[::10], train.names)
    colours = phydi.prepare(few, n=3)["image"].astype(float)
    np.testing.assert_allclose(colours.mean((0, 1, 2)), 0, atol=0.02)
    np.testing.assert_allclose(colours.std((0, 1, 2)), 1, atol=0.01)
