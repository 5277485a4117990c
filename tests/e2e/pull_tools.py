"""What the pull tests share: cwrun pull, the store it fills, an image's merged tree, descriptions of trees."""
import ctypes
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile

TOP = os.environ.get('CW_TOP') or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(os.environ.get('CW_BUILD', os.path.join(TOP, 'build')), 'bin')
sys.path[:0] = [os.path.join(TOP, 'tests/fixtures')]

CLONE_NEWNS = 0x20000


def own_mounts():
    """From here on mounts are this process's own and end with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), 'unshare')
    subprocess.run(['mount', '--make-rprivate', '/'], check=True)


def scratch(prefix='pull.'):
    return tempfile.mkdtemp(prefix=prefix)


def program(*words):
    return [os.path.join(BIN, 'cwrun'), *words]


def command(store, name, *flags):
    return [os.path.join(BIN, 'cwrun'), 'pull', '-q', '--store', store, '--docker-config', '/dev/null', *flags, name]


def pull(store, name, *flags, timeout=120):
    """(exit status, stdout, stderr)"""
    done = subprocess.run(command(store, name, *flags), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=timeout)
    return done.returncode, done.stdout, done.stderr


def index(store):
    """The store's index entries."""
    found = []
    for name in sorted(os.listdir(os.path.join(store, 'images'))):
        if name.endswith('.json') and not name.startswith('.'):
            with open(os.path.join(store, 'images', name)) as source:
                found.append(json.load(source))
    return found


def lowerdirs(store, name):
    """As overlay takes them: topmost first, none twice."""
    for entry in index(store):
        if any(ref['ref'].endswith(name) for ref in entry.get('refs', [])):
            dirs = [os.path.join(store, 'layers', key, 'fs') for key in reversed(entry['layers'])]
            return list(dict.fromkeys(dirs)) or [os.path.join(store, 'empty')]
    raise KeyError(name)


class Merged:
    """with Merged(dirs) as path: the merged tree, read-only. Needs own_mounts()."""

    def __init__(self, dirs):
        self.dirs = dirs

    def __enter__(self):
        self.path = scratch('merged.')
        self.empty = scratch('empty.')
        lower = ':'.join(self.dirs + [self.empty])
        subprocess.run(['mount', '-t', 'overlay', 'overlay', '-o', 'ro,lowerdir=' + lower, self.path], check=True)
        return self.path

    def __exit__(self, *_):
        subprocess.run(['umount', self.path], check=True)
        os.rmdir(self.path)
        os.rmdir(self.empty)


def describe(top, dir_times=True):
    """path -> everything about it that an image can say."""
    found = {}
    for where, dirs, files in os.walk(top.encode()):
        for name in [b'.'] * (where == top.encode()) + dirs + files:
            path = os.path.join(where, name)
            st = os.lstat(path)
            is_dir = stat.S_ISDIR(st.st_mode)
            one = {'mode': oct(st.st_mode), 'owner': (st.st_uid, st.st_gid)}
            if not is_dir or dir_times:
                one['mtime'] = st.st_mtime_ns
            if stat.S_ISREG(st.st_mode):
                one['size'] = st.st_size
                with open(path, 'rb') as source:
                    one['content'] = hashlib.sha256(source.read()).hexdigest()
            elif stat.S_ISLNK(st.st_mode):
                one['target'] = os.readlink(path)
            elif stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
                one['device'] = st.st_rdev
            one['xattrs'] = {n: os.getxattr(path, n, follow_symlinks=False)
                             for n in os.listxattr(path, follow_symlinks=False)
                             if not n.startswith('trusted.overlay.')}
            found[os.path.relpath(path, top.encode())] = one
    return found


def link_groups(top):
    """The sets of names of one file, of more than one name."""
    groups = {}
    for where, _, files in os.walk(top.encode()):
        for name in files:
            path = os.path.join(where, name)
            groups.setdefault(os.lstat(path).st_ino, set()).add(os.path.relpath(path, top.encode()))
    return sorted(sorted(g) for g in groups.values() if len(g) > 1)


def difference(a, b):
    """Lines of what differs between two descriptions."""
    lines = []
    for path in sorted(set(a) | set(b)):
        if a.get(path) != b.get(path):
            x, y = a.get(path) or {}, b.get(path) or {}
            keys = [k for k in sorted(set(x) | set(y)) if x.get(k) != y.get(k)]
            lines.append('%r: %s' % (path, ', '.join('%s %r / %r' % (k, x.get(k), y.get(k)) for k in keys)))
    return lines


def leftovers(store):
    """What must not be there after a pull has ended, well or not."""
    return os.listdir(os.path.join(store, 'tmp')) + os.listdir(os.path.join(store, 'locks'))


def remove(path):
    shutil.rmtree(path, ignore_errors=True)
