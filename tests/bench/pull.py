#!/usr/bin/env python3
"""Registry to ready, synced root: cwrun pull against skopeo + umoci; cold each time, on a fresh loop file system."""
import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, 'tests/fixtures')]
import image  # noqa: E402
import registry  # noqa: E402
import timing  # noqa: E402

CWRUN = os.path.join(TOP, 'build/bin/cwrun')


@contextlib.contextmanager
def journaled(scratch, mib):
    """A fresh ext4 in a file: a root file system without a journal measures something else."""
    path, where = os.path.join(scratch, 'fs.img'), os.path.join(scratch, 'fs')
    with open(path, 'wb') as f:
        f.truncate(mib << 20)
    subprocess.run(['mke2fs', '-q', '-t', 'ext4', '-E', 'lazy_itable_init=0,lazy_journal_init=0', path], check=True)
    os.mkdir(where)
    subprocess.run(['mount', '-o', 'loop', path, where], check=True)
    try:
        yield where
    finally:
        subprocess.run(['umount', where], check=True)
        os.unlink(path)
        os.rmdir(where)


def tree_layer(n, files, size):
    entries = [image.directory('data'), image.directory('data/%d' % n)]
    noise = image.filler_bytes(size * 4, n)
    for i in range(files):
        if i % 100 == 0:
            entries.append(image.directory('data/%d/%d' % (n, i // 100)))
        start = (i * 997) % (len(noise) - size)
        entries.append(image.file('data/%d/%d/f%d' % (n, i // 100, i), noise[start:start + size]))
    return image.Layer(entries)


def images(layout):
    """small: one layer of 1 MB; multi: 8 layers, 24000 files, some 400 MB of tar."""
    image.build(layout, 'small:latest', 'busybox')
    layers = image.preset_bash() + [tree_layer(n, 3000, 16384) for n in range(8)]
    image.Layout(layout).add('multi:latest', image.Image(layers))
    image.Layout(layout).add('single:latest', image.Image([tree_layer(99, 6000, 16384)]))


def contest(scratch, address, name, runs):
    reference = '%s/library/%s:latest' % (address, name)
    samples = {'skopeo + umoci': timing.Sample(), 'cwrun pull': timing.Sample()}
    for _ in range(runs):
        with journaled(scratch, 4096) as fs:
            timing.once(['sh', '-c', 'skopeo copy --quiet --insecure-policy --src-tls-verify=false docker://%s oci:%s/o:x && '
                         'umoci unpack --image %s/o:x %s/b && sync -f %s' % (reference, fs, fs, fs, fs)],
                        samples['skopeo + umoci'])
        with journaled(scratch, 4096) as fs:
            # cwrun syncs by itself before an image counts as there
            timing.once([CWRUN, 'pull', '--quiet', '--store', fs + '/images', '--insecure-registry', address, reference],
                        samples['cwrun pull'])
    timing.table('pull to ready and synced root: %s' % name, samples, 'skopeo + umoci')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--only')
    args = parser.parse_args()
    scratch = tempfile.mkdtemp(prefix='bench.', dir='/var/tmp')
    try:
        layout = os.path.join(scratch, 'layout')
        images(layout)
        with registry.Registry(os.path.join(scratch, 'registry')) as r:
            for name in ('small', 'single', 'multi'):
                if args.only in (None, name):
                    r.push(layout, name + ':latest', 'library/' + name, 'latest')
                    contest(scratch, r.address, name, args.runs)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == '__main__':
    main()
