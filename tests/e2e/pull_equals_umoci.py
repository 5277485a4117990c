#!/usr/bin/env python3
# needs: root
# timeout: 300
# rows: S22 S23 S24 S25 S27
"""Random images, pulled and mounted as overlay, are the trees that umoci unpacks from the same layers.

CW_SEEDS=FIRST:COUNT asks for other ones than those of every day.
"""
import collections
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import unittest

import pull_tools as tools

import image  # noqa: E402
import registry  # noqa: E402

FIRST, COUNT = (int(n) for n in os.environ.get('CW_SEEDS', '1:25').split(':'))
NAMES = ['a', 'b', 'c', 'dir', 'x' * 120, 'sp ace', 'new\nline', 'h\u00e9', '.hidden', '-dash', 'link',
         b'not\xffutf\xe9'.decode('utf-8', 'surrogateescape')]

seen = collections.Counter()


class Tree:
    """What the layers so far make, so that each layer can refer to it: path -> 'f', 'd', 'l', 'p', 'c'."""

    def __init__(self, rng):
        self.rng, self.kinds = rng, {}

    def dirs(self):
        return [''] + [p for p, k in self.kinds.items() if k == 'd']

    def files(self):
        return [p for p, k in self.kinds.items() if k == 'f']

    def drop(self, path):
        for p in [p for p in self.kinds if p == path or p.startswith(path + '/')]:
            del self.kinds[p]

    def new_path(self):
        parent = self.rng.choice(self.dirs())
        if parent.count('/') > 5:
            parent = ''
        return os.path.join(parent, self.rng.choice(NAMES) + self.rng.choice(['', '', '1', '2']))


def meta(rng):
    owner = rng.choice([(0, 0), (0, 0), (1000, 1000), (33, 4), (70000, 5)])
    return {'uid': owner[0], 'gid': owner[1], 'mtime': rng.randrange(1, 1700000000)}


def xattrs(rng):
    return {'user.note': rng.randbytes(8).hex().encode()} if rng.random() < 0.1 else {}


def parents_of(tree, path, rng, own):
    """Entries for the parents, as most builders write them; now and then left out."""
    made, at = [], ''
    for part in path.split('/')[:-1]:
        at = os.path.join(at, part)
        if at not in own and rng.random() < 0.6:
            made.append(image.directory(at, rng.choice([0o755, 0o700, 0o1777, 0o2755]), **meta(rng)))
            own[at] = 'd'
        else:
            own.setdefault(at, 'implied')
    return made


def make_layer(tree, rng):
    own, entries = {}, []

    def free(path):
        """Not touched in this layer yet, nor below or above it by anything but directories."""
        return path not in own and not any(p.startswith(path + '/') for p in own) and \
            all(own.get(path.rsplit('/', n)[0], 'd') in ('d', 'implied') for n in range(1, path.count('/') + 1))

    for _ in range(rng.randrange(1, 25)):
        what = rng.choice('ffffffdddlhhhpcwwwWoo')
        if what == 'W':
            # Whiteouts as hard links of each other: some builders write them so.
            pool = [p for p in tree.kinds if p not in own and free(p)]
            rng.shuffle(pool)
            if len(pool) < 2 or pool[0].startswith(pool[1] + '/') or pool[1].startswith(pool[0] + '/'):
                continue
            for n, path in enumerate(pool[:2]):
                entries += parents_of(tree, path, rng, own)
                mark = os.path.join(os.path.dirname(pool[0]), '.wh.' + os.path.basename(pool[0]))
                entries.append(image.whiteout_hardlink(path, mark) if n else image.whiteout(path))
                tree.drop(path)
                own[path] = 'w'
            continue
        if what in 'wo':
            pool = [p for p, k in tree.kinds.items() if p not in own and (what == 'w' or k == 'd')]
            pool = [p for p in pool if free(p)]
            if not pool:
                continue
            path = rng.choice(pool)
            entries += parents_of(tree, path, rng, own)
            if what == 'o':
                # Opaque hides what is below, never what the layer itself has there, whichever comes first.
                parts = [[image.opaque(path)]]
                own[path] = 'd'
                tree.drop(path)
                tree.kinds[path] = 'd'
                if rng.random() < 0.5:
                    parts.append([image.file(path + '/mine', b'mine', **meta(rng))])
                    tree.kinds[path + '/mine'] = own[path + '/mine'] = 'f'
                rng.shuffle(parts)
                entries.append(image.directory(path, 0o755, **meta(rng)))
                entries += [entry for part in parts for entry in part]
            else:
                tree.drop(path)
                again = []
                if rng.random() < 0.4:
                    # What the layer itself has under that name stays, whichever comes first.
                    again = [image.directory(path, 0o751, **meta(rng)), image.file(path + '/again', b'!', **meta(rng))]
                    tree.kinds[path], tree.kinds[path + '/again'] = 'd', 'f'
                    own[path + '/again'] = 'f'
                    if rng.random() < 0.3:
                        again.pop()
                        del tree.kinds[path + '/again']
                both = [[image.whiteout(path)], again]
                rng.shuffle(both)
                entries += both[0] + both[1]
                own[path] = 'd' if again else 'w'
            continue
        path = tree.new_path()
        if not free(path) or any(own.get(p) == 'w' for p in own if path.startswith(p + '/')):
            continue
        if what == 'h':
            targets = [p for p in tree.files() if p != path and own.get(p) != 'w' and not p.startswith(path + '/')]
            if not targets:
                continue
            target = rng.choice(targets)
            entries += parents_of(tree, path, rng, own)
            entries.append(image.hardlink(path, target))
            # Later entries of this layer must leave the file alone that the link is of.
            for n in range(target.count('/') + 1):
                own.setdefault(target.rsplit('/', n)[0], 'f' if n == 0 else 'implied')
            kind = 'f'
        else:
            entries += parents_of(tree, path, rng, own)
            kind = what
            m = meta(rng)
            if what == 'f':
                data = rng.randbytes(rng.choice([0, 1, 511, 512, 513, 5000, 70000]))
                entries.append(image.file(path, data, rng.choice([0o644, 0o600, 0o4755, 0o2711, 0o777, 0]),
                                          xattrs=xattrs(rng), **m))
            elif what == 'd':
                entries.append(image.directory(path, rng.choice([0o755, 0o700, 0o1777, 0o2770]), xattrs=xattrs(rng), **m))
            elif what == 'l':
                entries.append(image.symlink(path, rng.choice(['a', '../..', '/etc/passwd', 'x' * 200, '/']), **m))
            elif what == 'p':
                entries.append(image.fifo(path, 0o640, **m))
            else:
                entries.append(image.char_device(path, rng.randrange(1, 300), rng.randrange(1, 70000), 0o620, **m))
        if tree.kinds.get(path) != 'd' or kind != 'd':
            tree.drop(path)
        tree.kinds[path] = kind
        own[path] = kind
        for n in range(1, path.count('/') + 1):
            tree.kinds[path.rsplit('/', n)[0]] = 'd'
    return entries


def make_image(seed):
    rng = random.Random(seed)
    tree = Tree(rng)
    layers = []
    # The lowest layer has all its parents: what it leaves out no one knows.
    base = [image.directory('.', 0o755)]
    for n in range(rng.randrange(3, 12)):
        path = rng.choice(['base%d' % n, 'dir', 'dir/sub', 'dir/sub/%d' % n])
        if path in tree.kinds:
            continue
        for k in range(path.count('/'), 0, -1):
            parent = path.rsplit('/', k)[0]
            if parent not in tree.kinds:
                base.append(image.directory(parent, rng.choice([0o755, 0o711, 0o2775]), **meta(rng)))
                tree.kinds[parent] = 'd'
        if 'base' in path or path.count('/') == 2:
            base.append(image.file(path, rng.randbytes(rng.randrange(3000)), 0o644, xattrs=xattrs(rng), **meta(rng)))
            tree.kinds[path] = 'f'
        else:
            base.append(image.directory(path, **meta(rng)))
            tree.kinds[path] = 'd'
    layers.append(base)
    for _ in range(rng.randrange(1, 6)):
        layers.append(make_layer(tree, rng))
    made = []
    for entries in layers:
        fmt = rng.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
        if any('\udcff' in e.path + e.link for e in entries):
            # PAX has no way to say it that all readers know.
            fmt = tarfile.GNU_FORMAT
            for e in entries:
                e.xattrs = {}
        elif any(e.xattrs for e in entries):
            fmt = tarfile.PAX_FORMAT
        for e in entries:
            seen[kind_of(e)] += 1
        made.append(image.Layer(raw=image.tar_bytes(entries, fmt), how=rng.choice(['gzip', 'none'])))
    if rng.random() < 0.3:
        made.append(sparse_layer(rng))
    seen['layers'] += len(made)
    return image.Image(made)


def sparse_layer(rng):
    """Files with holes, as GNU tar writes them in each of its ways."""
    with tempfile.TemporaryDirectory() as where:
        os.mkdir(where + '/sparse')
        for n in range(3):
            with open('%s/sparse/%d' % (where, n), 'wb') as f:
                for _ in range(rng.randrange(0, 9)):
                    f.seek(rng.randrange(0, 4 << 20))
                    f.write(rng.randbytes(rng.randrange(1, 9000)))
                f.truncate(max(f.tell(), rng.randrange(1, 5 << 20)))
            os.utime('%s/sparse/%d' % (where, n), (1600000000, 1600000000))
            seen['sparse files'] += 1
        os.utime(where + '/sparse', (1600000000, 1600000000))
        # Not --format=gnu: umoci does not know its 'S' entries.
        how = rng.choice([['--format=posix'], ['--format=posix', '--sparse-version=0.0'],
                          ['--format=posix', '--sparse-version=0.1']])
        tar = subprocess.run(['tar', '-C', where, '-S', '-c', *how, 'sparse'], check=True, stdout=subprocess.PIPE).stdout
    return image.Layer(raw=tar)


def kind_of(e):
    name = e.path.rsplit('/', 1)[-1]
    if name == '.wh..wh..opq':
        return 'opaque marks'
    if name.startswith('.wh.'):
        return 'whiteouts' if not e.link else 'whiteouts that are hard links'
    if '\udcff' in e.path:
        return 'names that are not UTF-8'
    return {image.FILE: 'files', tarfile.DIRTYPE: 'directories', tarfile.SYMTYPE: 'symbolic links',
            tarfile.LNKTYPE: 'hard links', tarfile.FIFOTYPE: 'FIFOs', tarfile.CHRTYPE: 'devices'}.get(e.kind, 'others')


class PullEqualsUmoci(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        tools.own_mounts()
        cls.scratch = tools.scratch()
        cls.registry = registry.Registry(os.path.join(cls.scratch, 'registry')).start()

    @classmethod
    def tearDownClass(cls):
        cls.registry.stop()
        tools.remove(cls.scratch)

    def test_random_images(self):
        store = os.path.join(self.scratch, 'store')
        for seed in range(FIRST, FIRST + COUNT):
            with self.subTest(seed=seed):
                self.one(seed, store)
        print('%d random images equal what umoci makes of them: %s' % (
            COUNT, ', '.join('%d %s' % (n, what) for what, n in sorted(seen.items()))))
        if COUNT >= 25:
            for what in ('whiteouts that are hard links', 'names that are not UTF-8', 'sparse files', 'opaque marks', 'hard links'):
                self.assertGreater(seen[what], 5, what)

    def one(self, seed, store):
        layout = os.path.join(self.scratch, 'layout%d' % seed)
        unpacked = os.path.join(self.scratch, 'umoci%d' % seed)
        image.Layout(layout).add('r:%d' % seed, make_image(seed))
        self.registry.push(layout, 'r:%d' % seed, 'random', str(seed))
        name = '%s/random:%d' % (self.registry.address, seed)
        status, _, text = tools.pull(store, name)
        self.assertEqual(status, 0, text)
        subprocess.run(['umoci', 'raw', 'unpack', '--image', '%s:r:%d' % (layout, seed), unpacked], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with tools.Merged(tools.lowerdirs(store, name)) as merged:
            ours, theirs = tools.describe(merged), tools.describe(unpacked)
        for path, one in theirs.items():
            # umoci forgets to put a directory's time back after some whiteouts in it; no entry is that young.
            # The root's is that of the topmost layer, which seldom has an entry for it.
            if (one['mtime'] > 1700000000 * 10 ** 9 or path == b'.') and path in ours:
                one['mtime'] = ours[path]['mtime']
        self.assertEqual([], tools.difference(ours, theirs), '(ours / umoci)')
        self.assertEqual(tools.leftovers(store), [])
        tools.remove(layout)
        tools.remove(unpacked)


if __name__ == '__main__':
    sys.exit(unittest.main())
