"""Images from disk: CIFAR-10 in either of its layouts, folders of pictures, scikit-learn's digits.

An `Images` holds bytes; `prepare` makes the arrays that a network takes: numbers in [0, 1] less the
mean and over the deviation of the training images, channels last, and as many zero channels before
the colours as make the number a multiple of n (one for n = 2 and 4, none for n = 3).

The Python layout of CIFAR-10 is pickled, and a pickle can run any program when it is loaded: see
`pickles` for the reader, which knows bytes and nothing else.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from phydi.checking import check_positive_integer
from phydi.pickles import array_of_bytes, read_pickle
from phydi.resnet import image_channels

_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_RECORD = 1 + 3 * 32 * 32
_BINARY = ([f"data_batch_{k}.bin" for k in range(1, 6)], ["test_batch.bin"])
_PYTHON = ([f"data_batch_{k}" for k in range(1, 6)], ["test_batch"])
_BATCH = 10_000
# Of the training images, in [0, 1].
_MEAN = (0.4914, 0.4822, 0.4465)
_DEVIATION = (0.2470, 0.2435, 0.2616)


class Images(NamedTuple):
    """Pictures and what they show.

        image[i] shows names[label[i]]

    Attributes:
      image: (num, height, width, channels) bytes.
      label: (num,) int32.
      names: of the classes.

    Examples:
      >>> import numpy as np, phydi
      >>> phydi.Images(np.zeros((5, 32, 32, 3), np.uint8), np.zeros(5, np.int32), ("cat",)).names
      ('cat',)
    """

    image: np.ndarray
    label: np.ndarray
    names: tuple


def _read(path: Path, size: int | None) -> bytes:
    """The content of a file of CIFAR-10, or an error that says what was expected and whence."""
    origin = f"CIFAR-10 comes from {_SOURCE}"
    if not path.is_file():
        wanted = "" if size is None else f" of {size:,} bytes"
        raise FileNotFoundError(f"{path}: expected a file{wanted}, found none; {origin}")
    content = path.read_bytes()
    if size is not None and len(content) != size:
        raise ValueError(
            f"{path}: expected {size:,} bytes, found {len(content):,}; fetch it again: {origin}"
        )
    return content


def _unpickled(path: Path) -> dict:
    found = read_pickle(path, _read(path, None), _SOURCE)
    return found if isinstance(found, dict) else {}


def _python_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    found = _unpickled(path)
    image, label = array_of_bytes(found.get(b"data")), found.get(b"labels")
    shape = None if image is None else image.shape
    whole = isinstance(label, list) and len(label) == _BATCH
    if shape != (_BATCH, _RECORD - 1) or not whole or {type(one) for one in label} != {int}:
        raise ValueError(
            f"{path}: expected {_BATCH:,} images of {_RECORD - 1:,} bytes and their labels, found "
            f"{shape} and {len(label) if isinstance(label, list) else 'no'} labels; "
            f"fetch it again from {_SOURCE}"
        )
    return image, np.asarray(label)


def _python_names(path: Path) -> tuple[str, ...]:
    names = _unpickled(path).get(b"label_names")
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise ValueError(f"{path}: expected the names of the classes, fetch it from {_SOURCE}")
    return tuple(name.decode() for name in names)


def _binary_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = _read(path, _BATCH * _RECORD)
    rows = np.frombuffer(content, np.uint8).reshape(_BATCH, _RECORD)
    return rows[:, 1:], rows[:, 0]


def cifar10(folder) -> tuple[Images, Images]:
    """CIFAR-10, from the files of its publisher.

        50,000 training and 10,000 test images of 32 × 32 × 3 bytes in 10 classes

    Args:
      folder: `cifar-10-batches-bin` (the binary files) or `cifar-10-batches-py` (the pickles), or
        the folder with either in it.

    Returns:
      The training and the test `Images`.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is truncated, has labels beyond 9, or is a pickle of anything else.

    Reference:
      Krizhevsky, Learning multiple layers of features from tiny images (2009); Section 4.2.

    Examples:
      >>> import phydi
      >>> try:
      ...     phydi.cifar10("nowhere")
      ... except FileNotFoundError as error:
      ...     print(error)
      nowhere: expected data_batch_1.bin ... found none; CIFAR-10 comes from ...
    """
    folder = Path(folder)
    candidates = [folder, folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"]
    for place in candidates:
        if any((place / name).exists() for names in _BINARY for name in names):
            batch, files, meta = _binary_batch, _BINARY, place / "batches.meta.txt"
            break
        if any((place / name).exists() for names in _PYTHON for name in names):
            batch, files, meta = _python_batch, _PYTHON, place / "batches.meta"
            break
    else:
        raise FileNotFoundError(
            f"{folder}: expected data_batch_1.bin … test_batch.bin, or the same without .bin, "
            f"found none; CIFAR-10 comes from {_SOURCE}"
        )
    if batch is _binary_batch:
        names = tuple(_read(meta, None).decode().split())
    else:
        names = _python_names(meta)
    parts = []
    for group in files:
        found = [batch(place / name) for name in group]
        image = np.concatenate([image for image, _ in found]).reshape(-1, 3, 32, 32)
        label = np.concatenate([label for _, label in found]).astype(np.int32)
        if label.min() < 0 or label.max() > 9:
            raise ValueError(f"{place}: expected labels from 0 to 9, found {label.max()}")
        image = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
        parts.append(Images(image, label, names))
    return parts[0], parts[1]


def image_folder(folder, *, size: int = 32) -> Images:
    """Pictures in one folder for each class, cut to squares and scaled.

        folder/<name of the class>/<any picture>

    Args:
      folder: has a folder for each class; classes and files are in the order of their names.
      size: pixels a side.

    Returns:
      The `Images`.

    Raises:
      FileNotFoundError: there is no such folder, or it has no folders of pictures.
      ValueError: a file is no picture of 8 bits a channel that Pillow can read; the message names
        it. Pictures are turned upright; transparency is ignored.
      ImportError: Pillow is not installed.

    Reference:
      None.

    Examples:
      >>> import pathlib, tempfile, phydi
      >>> from PIL import Image
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> (folder / "cat").mkdir()
      >>> Image.new("RGB", (40, 50)).save(folder / "cat" / "tom.png")
      >>> phydi.image_folder(folder).image.shape
      (1, 32, 32, 3)
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("image_folder needs Pillow: pip install Pillow") from error
    size, folder = check_positive_integer("size", size), Path(folder)
    classes = _shown(folder, Path.is_dir) if folder.is_dir() else []
    files = [
        (path, label) for label, place in enumerate(classes) for path in _shown(place, Path.is_file)
    ]
    if not files:
        raise FileNotFoundError(f"{folder}: expected a folder of pictures for each class")
    pictures = []
    for path, _ in files:
        try:
            with Image.open(path) as file:
                # Pillow would cut these off at 255.
                if file.mode[0] in "IF":
                    raise ValueError(f"mode {file.mode}, more than 8 bits a channel")
                upright = ImageOps.exif_transpose(file).convert("RGB")
                picture = ImageOps.fit(upright, (size, size))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"{path}: expected a picture, found {path.stat().st_size:,} bytes that Pillow "
                f"cannot read: {error}"
            ) from error
        pictures.append(np.asarray(picture))
    labels = np.asarray([label for _, label in files], np.int32)
    return Images(np.stack(pictures), labels, tuple(place.name for place in classes))


def _shown(folder: Path, is_wanted) -> list[Path]:
    """What is in a folder and not hidden, by name."""
    return sorted(path for path in folder.iterdir() if is_wanted(path) and path.name[0] != ".")


def digits() -> tuple[Images, Images]:
    """Scikit-learn's handwritten digits, which come with it: nothing to download.

        1,437 training and 360 test images of 8 × 8 grey values, every fifth one a test image

    Args:
      None.

    Returns:
      The training and the test `Images`, of three equal channels.

    Raises:
      ImportError: scikit-learn is not installed.

    Reference:
      Alpaydin & Kaynak, Optical recognition of handwritten digits (1998), the test part.

    Examples:
      >>> import importlib.util, phydi
      >>> if importlib.util.find_spec("sklearn"):
      ...     assert phydi.digits()[0].image.shape == (1437, 8, 8, 3)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("digits needs scikit-learn: pip install scikit-learn") from error
    found = load_digits()
    grey = np.minimum(found.images * 16, 255).astype(np.uint8)
    image = np.repeat(grey[..., None], 3, axis=-1)
    label, names = found.target.astype(np.int32), tuple(str(name) for name in found.target_names)
    test = np.arange(len(label)) % 5 == 0
    return Images(image[~test], label[~test], names), Images(image[test], label[test], names)


def prepare(images: Images, *, n: int, mean=_MEAN, deviation=_DEVIATION) -> dict[str, np.ndarray]:
    """The arrays that a network for n components takes, for `shuffled_batches`.

        (image/255 - mean) / deviation, after the channels of zeros that n asks for

    Args:
      images: of three channels.
      n: the number of components.
      mean: (3,) of the training images, in [0, 1]; those of CIFAR-10 if not given.
      deviation: (3,) standard deviations, likewise.

    Returns:
      A dictionary of `image`, (num, height, width, channels) float32, and `label`, int32.

    Raises:
      ValueError: the images do not have three channels of bytes.

    Reference:
      The released code, which puts a zero channel first with n = 2 and 4.

    Examples:
      >>> import numpy as np, phydi
      >>> images = phydi.Images(np.zeros((5, 8, 8, 3), np.uint8), np.zeros(5, np.int32), ("0",))
      >>> [phydi.prepare(images, n=n)["image"].shape[-1] for n in (2, 3, 4)]
      [4, 3, 4]
    """
    n = check_positive_integer("n", n)
    image = np.asarray(images.image)
    if image.ndim != 4 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"images: expected bytes of shape (num, height, width, 3), got {image.dtype} of "
            f"shape {image.shape}"
        )
    mean, deviation = np.asarray(mean, np.float32), np.asarray(deviation, np.float32)
    found = np.zeros((*image.shape[:-1], image_channels(n)), np.float32)
    found[..., -3:] = (image / np.float32(255) - mean) / deviation
    return {"image": found, "label": np.asarray(images.label, np.int32)}
