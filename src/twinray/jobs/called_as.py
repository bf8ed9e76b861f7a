"""What files, UIDs and messages are called in results: as they are, or under a key by pseudonyms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from twinray.data.pseudonyms import Censor, Pseudonyms, key_mark, read_key
from twinray.errors import InputError
from twinray.records import Skipped


class CalledAs:
    """Names of the files that a verb was given.

    Attributes:
        pseudonyms: those that are given; None where names stay as they are.
        key: the secret; empty where names stay.
    """

    def __init__(self, key: Path | None, paths: Sequence[Path]) -> None:
        """Take the file that holds the key, if there is one, and the files and folders that are read.

        Raises:
            InputError: the key cannot be read.
        """
        self.key = "" if key is None else read_key(key)
        self.pseudonyms = None if key is None else Pseudonyms(self.key)
        self._folders = [path for path in paths if path.is_dir()]
        self._censor = Censor()
        for path in paths if key is not None else ():
            if path.is_dir():
                self._censor.walk(path)
            else:
                self._censor.add((str(path), str(path.absolute()), path.name))

    @property
    def mark(self) -> str:
        """What tells one key from another; empty where names stay."""
        return key_mark(self.key) if self.key else ""

    def of(self, file: Path | str) -> str:
        """A file's name; under a key the pseudonym of its path in the folder that was given, as in a pack of that folder."""
        if self.pseudonyms is None:
            return str(file)
        path = Path(file)
        inside = next((path.relative_to(f) for f in self._folders if path.is_relative_to(f)), None)
        return self.pseudonyms.of_path(path.name if inside is None else inside.as_posix())

    def know(self, names: Iterable[str]) -> None:
        """Keep further names out of messages, such as those that a file of true boxes holds."""
        self._censor.add(name for name in names if name)

    def uids(self, uids: tuple[str, str, str]) -> tuple[str, str, str]:
        """Study, series and SOP instance UID."""
        if self.pseudonyms is None:
            return uids
        study, series, sop = (self.pseudonyms.of(uid, "uid") if uid else "" for uid in uids)
        return study, series, sop

    def said(self, text: str) -> str:
        """A message."""
        return text if self.pseudonyms is None else self._censor(text)

    @contextmanager
    def in_refusals(self) -> Iterator[None]:
        """Keep names of files out of what ends the job inside the block."""
        try:
            yield
        except InputError as error:
            if self.pseudonyms is None:
                raise
            raise InputError(self.said(str(error))) from None

    def aside(self, item: Skipped) -> Skipped:
        """Something that was set aside."""
        return Skipped(self.of(item.where), self.said(item.reason))
