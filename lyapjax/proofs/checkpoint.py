"""The state of an unfinished proof in a file, so that a run that is killed goes on where it was.

A state is what the branch and bound knows between two rounds: the open boxes, those that are done,
and a few numbers. It goes on in the same order, so that it comes to the same boxes and the same
verdict as a run that was never stopped.
"""

import hashlib
import time
import zipfile
from pathlib import Path

import numpy as np

from lyapjax import archive
from lyapjax.readers.program import Program

SECONDS = 30.0  # between two states


def stamp(*parts) -> str:
    """A digest of what determines a proof: programs, arrays, and what has a plain repr."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Program):
            found.update(repr((part.steps, part.outputs)).encode())
            part = part.constants
        for value in part if isinstance(part, tuple) else (part,):
            is_array = isinstance(value, np.ndarray)
            found.update(value.tobytes() if is_array else repr(value).encode())
            found.update(repr(np.shape(value)).encode())
    return found.hexdigest()


class Checkpoint:
    """A file of states of one proof."""

    def __init__(self, path, what: str):
        self.path, self.what, self.last = Path(path), what, time.perf_counter()

    def load(self) -> dict | None:
        """The state in the file, None if there is none; ValueError if it is of another proof."""
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as found:
                state = {name: found[name] for name in found.files}
            what = str(state.pop("what"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"checkpoint: {self.path} is no state of a proof: {error}") from error
        if what != self.what:
            raise ValueError(
                f"checkpoint: expected the state of this proof in {self.path}, got one of another "
                "statement; remove it or name another file"
            )
        return state

    @property
    def is_due(self) -> bool:
        """Whether the last state is old."""
        return time.perf_counter() - self.last >= SECONDS

    def save(self, state: dict) -> None:
        """Write a state."""
        archive.write(self.path, {"what": np.array(self.what), **state})
        self.last = time.perf_counter()

    def remove(self) -> None:
        """Forget a proof that has ended."""
        self.path.unlink(missing_ok=True)

    def ended(self, state: dict) -> None:
        """Forget it: as `remove`."""
        self.remove()


class States:
    """The states of proofs that belong together in one file, each by the stamp of its statement.

    Those that have ended are kept too: a run that goes on finds them, and does not make them again.
    """

    def __init__(self, path, what: str):
        self.file = Checkpoint(path, what)
        self.known: dict[str, dict] = {}
        for name, value in (self.file.load() or {}).items():
            what, name = name.split(" ", 1)
            self.known.setdefault(what, {})[name] = value

    def of(self, what: str) -> "State":
        """The one of a statement."""
        return State(self, what)

    def save(self) -> None:
        """Write all."""
        rows = ((what, state.items()) for what, state in self.known.items())
        self.file.save({f"{what} {name}": value for what, row in rows for name, value in row})


class State:
    """One of several `States`, to be used like a `Checkpoint`."""

    def __init__(self, whole: States, what: str):
        self.whole, self.what = whole, what

    def load(self) -> dict | None:
        """The state in the file, None if there is none."""
        return self.whole.known.get(self.what)

    @property
    def is_due(self) -> bool:
        """Whether the last state is old."""
        return self.whole.file.is_due

    def save(self, state: dict) -> None:
        """Write a state, beside the others."""
        self.ended(state)
        self.whole.save()

    def ended(self, state: dict) -> None:
        """Keep it for when the next is written."""
        self.whole.known[self.what] = state


def packed(name: str, parts: list[tuple]) -> dict:
    """A list of tuples of arrays, by the numbers of their rows and their columns put together."""
    lengths = np.array([len(part[0]) for part in parts], int)
    columns = {f"{name} {k}": np.concatenate(column) for k, column in enumerate(zip(*parts))}
    return {f"{name} lengths": lengths, **columns}


def unpacked(name: str, state: dict) -> list[tuple]:
    """The list again."""
    places = np.cumsum(state[f"{name} lengths"])[:-1]
    count = sum(key.startswith(f"{name} ") for key in state) - 1
    return list(zip(*(np.split(state[f"{name} {k}"], places) for k in range(count))))


def state_from(stack: list, done: list, count: int) -> dict:
    """What a branch and bound knows, to be saved."""
    return {**packed("open", stack), **packed("done", done), "count": np.array(count)}


def state_of(known: dict) -> tuple[list, list, int]:
    """The same from a file: the open boxes, those done, and how many were bounded."""
    return unpacked("open", known), unpacked("done", known), int(known["count"])
