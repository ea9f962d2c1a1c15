"""Log files on disk: which are there, what they hold, and how far each was read.

A *generation* is what was written under one path between two rotations. It is known by device and
inode, and recognised by its content: a digest of its first bytes (head) and one of the bytes just
before the position (anchor), also where it was copied or compressed meanwhile.
"""

from __future__ import annotations

import bz2
import dataclasses
import errno
import fnmatch
import glob
import gzip
import hashlib
import io
import json
import lzma
import os
import pwd
import re
import resource
import stat
import zlib
from typing import BinaryIO, Callable, Iterable, Iterator, Sequence, Tuple, cast

from agent_client.config import LogSource

#: Bytes by which content is recognised.
FINGERPRINT = 256
#: And where there are fewer: as many of these as there are.
_SHORTER = (128, 64)
#: What rotation may compress with; read where Python's own library can.
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")
READABLE_ARCHIVES = (".gz", ".bz2", ".xz")

_ROTATED = re.compile(r"[.-](?:\d[\dT:._Z-]*|old|bak|prev)$")
_ROTATED_DATE = re.compile(r"[.-](?:\d{8}[\dT:._Z-]*|\d{1,3})$")

#: Bytes unpacked at once, and kept of what was unpacked last.
_STEP = 64 * 1024
_WINDOW = 1024 * 1024
#: What an archive may unpack to, and the memory that unpacking may take: `xz -9` takes 65 MiB.
MOST_UNPACKED = 64 * 1024**3
_XZ_MEMORY = 80 * 1024**2

#: A place on the way to a file: nothing is read, and nothing happens by opening it.
_PLACE = os.O_PATH | os.O_CLOEXEC
_MOST_LINKS = 40

Key = Tuple[str, int, int]
Inode = Tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Position:
    """How far one generation is read, and by what it is recognised."""

    path: str  # the configured path it was written under
    device: int
    inode: int
    offset: int = 0
    head: str = ""
    head_length: int = 0
    anchor: str = ""
    anchor_length: int = 0
    #: The bytes up to the next newline belong to a line that is already dealt with.
    skipping: bool = False
    #: Size when last looked at: a file that stopped growing holds no half-written event.
    size: int = 0
    #: It had the configured name itself when last looked at; it was not rotated away yet.
    main: bool = True
    #: When the file was found to be gone; None while it is there.
    gone_at: float | None = None
    #: Since when no source asks for it; None while one does.
    unfollowed_at: float | None = None
    #: Size of the archive that it is in by now; 0 while it is a plain file.
    packed: int = 0
    #: Digests of its first bytes, by their number.
    starts: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What names it among all positions."""
        return (self.path, self.device, self.inode)

    @property
    def name(self) -> str:
        """Under which it is stored."""
        return name_of(self.key)

    def stored(self) -> str:
        """As it is stored."""
        return json.dumps(dataclasses.asdict(self))


def name_of(key: Key) -> str:
    """Under which name a position is stored."""
    return f"file:{key[0]}:{key[1]}:{key[2]}"


def read_position(value: str) -> Position:
    """A position as it was stored, also by an older or newer agent."""
    known = {field.name for field in dataclasses.fields(Position)}
    return Position(**{name: said for name, said in json.loads(value).items() if name in known})


class Content:
    """The bytes of one open file, at any place. Raises OSError where they cannot be read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, start: int, length: int) -> bytes:
        """So many bytes from `start`; fewer only at the end."""
        if length <= 0:
            return b""
        descriptor = self._file.fileno()
        data = os.pread(descriptor, length, start)
        while data and len(data) < length:
            further = os.pread(descriptor, length - len(data), start + len(data))
            if not further:
                break
            data += further
        return data

    def size(self) -> int:
        """Its length now, in bytes."""
        return self.status().st_size

    def written_from(self, start: int) -> int | None:
        """Where what was written begins from `start` on: after a hole; None where all is one."""
        try:
            return os.lseek(self._file.fileno(), start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return start  # this filesystem does not tell
            if error.errno == errno.ENXIO:
                return None
            raise

    def status(self) -> os.stat_result:
        """Of the open file itself, whatever its name is by now."""
        return os.fstat(self._file.fileno())

    def close(self) -> None:
        """Close it."""
        self._file.close()


class Archive(Content):
    """A compressed file, unpacked step by step; only the last megabyte of it is in memory.

    What it holds may be a thousand times its size and more, so `prepare` unpacks a part at a time.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(file)
        self._plain = _OPENERS[os.path.splitext(name)[1]](file)
        self._size: int | None = None
        self._head = b""
        self._window = b""
        self._window_at = 0

    def prepare(self, start: int | None, most: int) -> tuple[bool, int]:
        """Unpack on, `most` bytes about: whether that was enough, and how many it were.

        Enough is when neither `size` nor, where it is given, a read from `start` on has to unpack
        what comes before. Raises OSError.
        """
        spent = 0
        while self._size is None or not (start is None or self._reaches(start)):
            if spent >= most:
                return False, spent
            if self._size is not None and start is not None and start < self._window_at:
                self._rewind()
            before = self._end
            if not self._further():
                if self._size is not None:
                    break  # it ends before `start`
                self._size = self._end
            spent += self._end - before
        return True, spent

    def _reaches(self, start: int) -> bool:
        return self._window_at <= start <= self._end

    def read(self, start: int, length: int) -> bytes:
        if start + length <= len(self._head):
            return self._head[start : start + max(0, length)]
        if start < self._window_at:
            self._rewind()
        while self._end < start + length and self._further():
            pass
        at = start - self._window_at
        return self._window[at : at + length] if length > 0 else b""

    def size(self) -> int:
        """What it is unpacked. Raises OSError while it is still being written."""
        if self._size is None:
            while self._further():
                pass
            self._size = self._end
        return self._size

    def written_from(self, start: int) -> int | None:
        return start

    def close(self) -> None:
        self._plain.close()
        super().close()

    @property
    def _end(self) -> int:
        return self._window_at + len(self._window)

    def _rewind(self) -> None:
        self._plain.seek(0)
        self._window, self._window_at = b"", 0

    def _further(self) -> bool:
        try:
            plain = self._plain.read(_STEP)
        except (zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
            raise OSError(errno.EBADMSG, f"no whole archive: {error}") from None
        self._window += plain
        if self._end > MOST_UNPACKED:
            raise Bomb(errno.EFBIG, f"it unpacks to more than {MOST_UNPACKED // 1024**3} GiB")
        if not self._window_at and len(self._head) < FINGERPRINT:
            self._head = self._window[:FINGERPRINT]
        surplus = len(self._window) - _WINDOW
        if surplus > _STEP:
            self._window = self._window[surplus:]
            self._window_at += surplus
        return bool(plain)


class Bomb(OSError):
    """An archive that holds more, or needs more memory to be unpacked, than any log does."""


class _Xz(io.RawIOBase):
    """An .xz file, unpacked within a bound of memory; Python's own reader has none."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start()

    def _start(self) -> None:
        self._unpacker = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
        self._packed = b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To the beginning; there is no other place to go to."""
        self._file.seek(0)
        self._start()
        return 0

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes. Raises EOFError where the file is cut, LZMAError, Bomb."""
        while True:
            if self._unpacker.eof:
                rest = self._unpacker.unused_data.lstrip(b"\0")  # padding between streams
                rest = rest or self._file.read(_STEP).lstrip(b"\0")
                if not rest:
                    return b""
                self._start()
                self._packed = rest
            elif self._unpacker.needs_input and not self._packed:
                self._packed = self._file.read(_STEP)
                if not self._packed:
                    raise EOFError("it ends before its end was marked")
            packed, self._packed = self._packed, b""
            try:
                plain = self._unpacker.decompress(packed, size)
            except lzma.LZMAError as error:
                if "emory" in str(error):
                    limit = f"more than {_XZ_MEMORY // 1024**2} MiB of memory"
                    raise Bomb(errno.EFBIG, f"unpacking it takes {limit}") from None
                raise
            if plain:
                return plain


_OPENERS: dict[str, Callable[[BinaryIO], BinaryIO]] = {
    ".gz": lambda file: cast(BinaryIO, gzip.GzipFile(fileobj=file)),
    ".bz2": lambda file: cast(BinaryIO, bz2.BZ2File(file)),
    ".xz": lambda file: cast(BinaryIO, _Xz(file)),
}


@dataclasses.dataclass
class File:
    """A file found on disk in one look."""

    name: str
    status: os.stat_result
    path: str
    source: LogSource
    #: It has the configured name itself; it is not a rotated one.
    main: bool
    position: Position | None = None

    @property
    def inode(self) -> Inode:
        """What it is, whatever it is called."""
        return (self.status.st_dev, self.status.st_ino)

    @property
    def archive(self) -> bool:
        """It is compressed."""
        return not self.main and self.name.endswith(COMPRESSED)

    @property
    def seen(self) -> tuple[int, int]:
        """What changes whenever it is written to."""
        return (self.status.st_size, self.status.st_mtime_ns)

    def open(self) -> Content | None:
        """Its content; None where the name stands for another file by now. Raises OSError."""
        descriptor = open_log(self.name)
        if descriptor is None:
            return None
        handle = os.fdopen(descriptor, "rb", buffering=0)
        status = os.fstat(handle.fileno())
        if (status.st_dev, status.st_ino) != self.inode:
            handle.close()
            return None
        return Archive(handle, self.name) if self.archive else Content(handle)

    def size(self, content: Content) -> int:
        """What it holds, as seen in this look; of an archive what that unpacks to."""
        return content.size() if self.archive else self.status.st_size


class Listings:
    """Directories as they are in this look, each listed once."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def of(self, directory: str) -> list[str]:
        """The names in a directory; none where it cannot be listed."""
        if directory not in self._names:
            try:
                self._names[directory] = os.listdir(directory)
            except OSError:
                self._names[directory] = []
        return self._names[directory]


def most_files() -> int:
    """So many current files are followed: each is open, and others need descriptors too."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


def find(
    sources: Sequence[LogSource],
    known: Sequence[str],
    source_of: Callable[[str], LogSource | None],
) -> tuple[dict[Inode, File], set[str]]:
    """Every file of every source, rotated ones too, by inode; a current file comes first.

    `known` are paths that were written under before, though nothing may bear the name now. Where
    there are too many they go first, then the newest; the patterns that name the rest are returned.
    """
    found: dict[Inode, File] = {}
    mains: dict[str, LogSource] = {}
    for source in sources:
        for path in glob.glob(source.pattern, recursive=True):
            if not path.endswith(COMPRESSED):
                mains.setdefault(path, source)
    left_out = _beyond(most_files(), mains, known)
    for path, source in mains.items():
        if path not in left_out:
            _add(found, path, path, source, main=True)
    listings = Listings()
    followed: dict[str, LogSource] = {
        path: source for path, source in mains.items() if path not in left_out
    }
    for path in [*known, *_rotated_away(sources, listings)]:
        if path not in followed and path not in left_out:
            asking = source_of(path)
            if asking is not None:
                followed[path] = asking
    places = {path: place for place, path in enumerate(followed)}
    rotated = []
    for directory in dict.fromkeys(os.path.dirname(path) for path in followed):
        for name in listings.of(directory):
            full = os.path.join(directory, name)
            bases = [path for path in _bases(directory, name) if path in places]
            if bases and full not in mains:
                rotated.append((min(places[path] for path in bases), full))
    paths = list(followed)
    for place, full in sorted(rotated):
        _add(found, full, paths[place], followed[paths[place]], main=False)
    return found, {mains[path].pattern for path in left_out}


def _beyond(most: int, mains: Iterable[str], known: Iterable[str]) -> set[str]:
    """The paths that are too many."""
    paths = set(mains)
    if len(paths) <= most:
        return set()
    first = paths.intersection(known)
    newest = sorted(paths - first, key=_written_at, reverse=True)
    return set(newest[max(0, most - len(first)) :])


def _written_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0  # gone since it was listed


def _bases(directory: str, name: str) -> Iterator[str]:
    """Of which paths a file may be a rotated one, by its name."""
    plain = _unpacked_name(name)
    stem, extension = os.path.splitext(plain)
    for at in (place for place, letter in enumerate(plain) if letter in ".-"):
        if _ROTATED.match(plain, at):
            yield os.path.join(directory, plain[:at])
        if extension and at < len(stem) and _ROTATED_DATE.match(stem[at:]):
            base = stem[:at] + extension
            if os.path.splitext(base)[1]:
                yield os.path.join(directory, base)


def _rotated_away(sources: Iterable[LogSource], listings: Listings) -> set[str]:
    """Paths whose file was made and rotated away before anybody looked."""
    paths = set()
    for source in sources:
        where, wanted = os.path.split(source.pattern)
        for directory in glob.glob(where, recursive=True):
            for name in listings.of(directory):
                base = _ROTATED.sub("", _unpacked_name(name))
                if base != name and fnmatch.fnmatchcase(base, wanted):
                    paths.add(os.path.join(directory, base))
    return paths


def _add(found: dict[Inode, File], name: str, path: str, source: LogSource, main: bool) -> None:
    try:
        status = os.stat(name)
    except OSError:
        return  # gone since it was listed
    if stat.S_ISREG(status.st_mode) and source.owner in (None, status.st_uid):
        found.setdefault((status.st_dev, status.st_ino), File(name, status, path, source, main))


def _unpacked_name(name: str) -> str:
    stem, extension = os.path.splitext(name)
    return stem if extension in COMPRESSED else name


def is_rotated(base: str, name: str) -> bool:
    """Whether a file is a rotated one of `base`: log.1, log.2.gz, or app-20261122.log."""
    name = _unpacked_name(name)
    if name.startswith(base):
        return _ROTATED.match(name[len(base) :]) is not None
    stem, extension = os.path.splitext(base)
    if extension and name.startswith(stem) and name.endswith(extension):
        return _ROTATED_DATE.match(name[len(stem) : -len(extension)]) is not None
    return False


def matches(path: str, pattern: str) -> bool:
    """Whether glob would find `path` by `pattern`."""
    if "**" in pattern:
        return fnmatch.fnmatchcase(path, pattern)
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def is_related(path: str, file: File) -> bool:
    """Whether `file` may hold what was written under `path`."""
    if path == file.path:
        return True
    directory, name = os.path.split(file.path)
    return os.path.dirname(path) == directory and is_rotated(os.path.basename(path), name)


def in_order(files: Iterable[File]) -> list[File]:
    """The generations of one path, oldest first."""
    return sorted(files, key=lambda file: (file.main, file.status.st_mtime_ns, -_number(file.name)))


def _number(name: str) -> int:
    """The number of a rotation, where the name ends in one: the greater, the older."""
    match = re.search(r"[.-](\d{1,6})$", _unpacked_name(name))
    return int(match.group(1)) if match else 0


def digest(data: bytes) -> str:
    """By which content is recognised again."""
    return hashlib.blake2b(data, digest_size=8).hexdigest() if data else ""


def fingerprinted(position: Position, content: Content) -> Position:
    """The position with digests of the content as it is now."""
    head = content.read(0, min(FINGERPRINT, max(position.size, position.offset)))
    head = head.rstrip(b"\0") or head  # room that was made in advance will be written yet
    length = min(FINGERPRINT, position.offset)
    anchor = content.read(position.offset - length, length)
    return dataclasses.replace(
        position,
        head=digest(head),
        head_length=len(head),
        anchor=digest(anchor),
        anchor_length=len(anchor),
        starts={str(length): digest(head[:length]) for length in _SHORTER if length <= len(head)},
    )


def holds(content: Content, position: Position) -> bool:
    """Whether the content is still, at both places, what was read of it."""
    start = position.offset - position.anchor_length
    return (
        digest(content.read(0, position.head_length)) == position.head
        and digest(content.read(start, position.anchor_length)) == position.anchor
    )


def open_log(path: str) -> int | None:
    """A descriptor of a log file, whoever may write to its folders. Raises OSError.

    A service owns the folder of its logs, and could link from there to what only the agent and
    root may read. So a link leads only to files of the link's own user, as the kernel's
    fs.protected_symlinks has it, root's and our own links anywhere. What is no plain file is not
    opened (None): a pipe would hold us up.
    """
    where = os.open("/", _PLACE)
    try:
        left, links = [*reversed(path.split("/"))], 0
        users: set[int] = set()
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            here = os.open(part, _PLACE | os.O_NOFOLLOW, dir_fd=where)
            status = os.fstat(here)
            if not stat.S_ISLNK(status.st_mode):
                os.close(where)
                where = here
                continue
            try:
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if status.st_uid not in (0, os.geteuid()):
                    users.add(status.st_uid)
                target = os.readlink("", dir_fd=here)
            finally:
                os.close(here)
            if status.st_dev == _proc_device():
                # Another root, or an open file: more than the text of the link says.
                there = os.open(part, _PLACE, dir_fd=where)
            elif target.startswith("/"):
                there = os.open("/", _PLACE)
            else:
                there = os.dup(where)
            os.close(where)
            where = there
            if status.st_dev != _proc_device():
                left.extend(reversed(target.split("/")))
        status = os.fstat(where)
        if not stat.S_ISREG(status.st_mode):
            return None
        strangers = users - {status.st_uid}
        if strangers:
            raise OSError(
                errno.ELOOP,
                f"a link of user {min(strangers)} leads to a file of user {status.st_uid}: not"
                " followed; name the file itself in the agent's configuration if it is right",
            )
        return os.open(f"/proc/self/fd/{where}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(where)


def _proc_device() -> int:
    return os.stat("/proc").st_dev


def user_name(uid: int | None = None) -> str:
    """A user's name, or number where it has none; without `uid` whose rights the agent has."""
    uid = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def begins_alike(content: Content, size: int, position: Position) -> bool:
    """Whether so much of the content as there is begins as what was read did."""
    if size >= position.head_length:
        return digest(content.read(0, position.head_length)) == position.head
    for length in _SHORTER:
        if length <= size:
            return digest(content.read(0, length)) == position.starts.get(str(length))
    return False
