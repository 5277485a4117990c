"""tar.gz in and out: unpacking that trusts nobody, packing that leaves out what it is told."""
import fnmatch
import gzip
import os
import tarfile
import zlib

PIECE = 65536
ALWAYS_HIDDEN = ('.git', '._*', '__MACOSX')
END_OF_TAR = b'\0' * 1024


class ArchiveError(Exception):
    """The archive is malformed, or wants to leave its directory."""


class TooBig(Exception):
    """More content than allowed; args[0] is the size reached."""


class Gunzip:
    """Decompresses a gzip stream of any number of members, and insists that the last one is whole."""

    def __init__(self, source):
        self.source, self.engine = source, None
        self.pending = self.unread = b''
        self.members, self.tail = 0, b''

    def read(self, size=-1):
        while (size < 0 or len(self.unread) < size) and self._more():
            pass
        if size < 0:
            size = len(self.unread)
        data, self.unread = self.unread[:size], self.unread[size:]
        return data

    def _more(self):
        data = self.pending or self.source.read(PIECE)
        self.pending = b''
        if not data:
            if self.engine or not self.members:
                raise ArchiveError('the gzip stream ends too early')
            return False
        if not self.engine:
            self.engine = zlib.decompressobj(31)
            self.members += 1
        try:
            out = self.engine.decompress(data)
        except zlib.error as why:
            raise ArchiveError('not gzip: %s' % why) from None
        if self.engine.eof:
            self.pending, self.engine = self.engine.unused_data, None
        self.unread += out
        self.tail = (self.tail + out)[-len(END_OF_TAR):]
        return True


def gunzip(data_file, out):
    """Decompress one file object into another; returns the number of bytes."""
    source, total = Gunzip(data_file), 0
    while True:
        piece = source.read(PIECE)
        if not piece:
            return total
        out.write(piece)
        total += len(piece)


def parts_of(name):
    """Components of a member name that stays inside; ArchiveError otherwise."""
    if name.startswith('/'):
        raise ArchiveError('member %r is absolute' % name)
    parts = [p for p in name.split('/') if p not in ('', '.')]
    if '..' in parts:
        raise ArchiveError('member %r leaves the directory' % name)
    return parts


class Unpacker:
    """Unpacks a tar.gz stream into a new directory. `names` lists the members as they were named."""

    def __init__(self, directory, limit=None):
        self.directory, self.limit = directory, limit
        self.names, self.size, self._late = [], 0, []

    def run(self, source):
        os.mkdir(self.directory)
        stream = Gunzip(source)
        try:
            with tarfile.open(fileobj=stream, mode='r|', errorlevel=2) as tar:
                for member in tar:
                    self.names.append(member.name + ('/' if member.isdir() else ''))
                    self._one(tar, member)
        except tarfile.TarError as why:
            raise ArchiveError('not tar: %s' % why) from None
        while stream.read(PIECE):
            pass
        if stream.tail != END_OF_TAR:
            raise ArchiveError('the tar has no end')
        for path, mode, mtime in reversed(self._late):
            os.chmod(path, mode)
            os.utime(path, (mtime, mtime))

    def _one(self, tar, member):
        parts = parts_of(member.name)
        path = self._parents(parts)
        if member.isdir():
            if not os.path.isdir(path) or os.path.islink(path):
                os.mkdir(path)
            self._late.append((path, member.mode & 0o7777, member.mtime))
        elif member.isreg():
            self._grow(member.size)
            with open(path, 'xb') as out:
                data = tar.extractfile(member)
                for piece in iter(lambda: data.read(PIECE), b''):
                    out.write(piece)
                os.fchmod(out.fileno(), member.mode & 0o7777)
            os.utime(path, (member.mtime, member.mtime))
        elif member.issym():
            os.symlink(member.linkname, path)
        elif member.islnk():
            os.link(self._existing(member.linkname), path, follow_symlinks=False)
        elif member.isfifo():
            os.mkfifo(path, member.mode & 0o777)
        else:
            raise ArchiveError('member %r is a device' % member.name)

    def _parents(self, parts):
        path = self.directory
        for part in parts[:-1]:
            path = os.path.join(path, part)
            if os.path.islink(path):
                raise ArchiveError('member below the symlink %r' % part)
            if not os.path.isdir(path):
                os.mkdir(path)
        if not parts:
            return self.directory
        path = os.path.join(path, parts[-1])
        if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path)):
            raise ArchiveError('member %r occurs twice' % '/'.join(parts))
        return path

    def _existing(self, name):
        path = self.directory
        for part in parts_of(name):
            if os.path.islink(path):
                raise ArchiveError('hard link through a symlink: %r' % name)
            path = os.path.join(path, part)
        if not os.path.lexists(path):
            raise ArchiveError('hard link to nothing: %r' % name)
        return path

    def _grow(self, size):
        self.size += size
        if self.limit is not None and self.size > self.limit:
            raise TooBig(self.size)


def hidden(name, patterns=ALWAYS_HIDDEN):
    return any(fnmatch.fnmatchcase(name, p) for p in patterns)


def pack(directory, out, patterns=ALWAYS_HIDDEN):
    """Write `directory` as tar.gz with ./ members to a file object that need not seek."""
    def keep(member):
        return None if hidden(os.path.basename(member.name), patterns) else member

    with gzip.GzipFile(filename='', mode='wb', compresslevel=1, fileobj=out, mtime=0) as zipped, \
            tarfile.open(fileobj=zipped, mode='w|', format=tarfile.PAX_FORMAT) as tar:
        tar.add(directory, arcname='.', filter=keep)


def disk_use(path):
    """Sum of lstat sizes, as §5.9 counts."""
    total = os.lstat(path).st_size
    if os.path.isdir(path) and not os.path.islink(path):
        for entry in os.scandir(path):
            total += disk_use(entry.path)
    return total
