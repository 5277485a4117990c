#!/usr/bin/env python3
# needs: root
# timeout: 300
# rows: S20
"""cwrun pull, killed before each call that changes a file: nothing that has a name is ever wrong, and the next pull
puts all right.

CW_CRASH_POINTS=all kills at every one; every day a part of them, and those that name things, is enough.
"""
import os
import signal
import subprocess
import sys
import unittest

import pull_tools as tools

import image  # noqa: E402
import registry  # noqa: E402

EVERY_DAY = 40
NAMING = ('renameat', 'renameat2', 'syncfs', 'fsync')


def layers():
    rng = image.random.Random(4)
    base = [image.directory('.')] + [image.directory('d%d' % n, 0o750) for n in range(3)]
    base += [image.file('d%d/f%d' % (n, k), rng.randbytes(3000), 0o600 + k) for n in range(3) for k in range(2)]
    # Takes a file and attributes from below, so it is completed at the end of the pull.
    upper = [image.hardlink('d0/again', 'd1/f0'), image.whiteout('d2/f1'), image.file('d2/new', b'new', uid=7)]
    last = [image.directory('d1', 0o711), image.opaque('d1'), image.symlink('l', 'd0'), image.fifo('p'),
            image.file('x', b'x'), image.file('x', b'again')]
    return [image.Layer(entries) for entries in (base, upper, last)]


class CrashPoints(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        tools.own_mounts()
        cls.scratch = tools.scratch()
        # Memory: what a kill leaves does not depend on the file system, and syncfs waits for nobody else's data.
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'mode=700', 'tmpfs', cls.scratch], check=True)
        cls.registry = registry.Registry(os.path.join(cls.scratch, 'registry')).start()
        layout = os.path.join(cls.scratch, 'layout')
        image.Layout(layout).add('crash:v1', image.Image(layers()))
        cls.registry.push(layout, 'crash:v1', 'crash', 'v1')
        cls.name = cls.registry.address + '/crash:v1'
        cls.library = os.path.join(cls.scratch, 'crashpoint.so')
        subprocess.run(['gcc', '-O1', '-shared', '-fPIC', '-o', cls.library,
                        os.path.join(tools.TOP, 'tests/fixtures/crashpoint.c'), '-ldl'], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.registry.stop()
        subprocess.run(['umount', '-l', cls.scratch], check=True)
        os.rmdir(cls.scratch)

    def pull(self, store, at=0, log=None):
        # a sanitizer's build wants its own library first, unless told
        env = dict(os.environ, LD_PRELOAD=self.library, CW_CRASH_AT=str(at), ASAN_OPTIONS='verify_asan_link_order=0')
        if log:
            env['CW_CRASH_LOG'] = log
        return subprocess.run(tools.command(store, self.name), env=env, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=120, check=False)

    def calls(self, store):
        log = os.path.join(self.scratch, 'log')
        if os.path.exists(log):
            os.unlink(log)
        done = self.pull(store, log=log)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(log) as source:
            return source.read().rstrip('\0').split()

    def tree(self, store):
        with tools.Merged(tools.lowerdirs(store, '/crash:v1')) as merged:
            found = tools.describe(merged)
        for one in found.values():
            if one['mode'].startswith('0o4'):
                del one['mtime']  # the root's, and of directories that get their time when the image is whole
        return found

    def test_killed_at_every_call(self):
        store = os.path.join(self.scratch, 'whole')
        calls = self.calls(store)
        wanted = self.tree(store)
        self.assertGreater(len(calls), 100)
        step = 1 if os.environ.get('CW_CRASH_POINTS') == 'all' else max(1, len(calls) // EVERY_DAY)
        points = [n for n, call in enumerate(calls, 1) if n % step == 0 or call in NAMING]
        killed = 0
        for at in points + sorted(set(calls)):
            with self.subTest(at=at):
                store = os.path.join(self.scratch, 'store-%s' % at)
                status = self.pull(store, at).returncode
                # Data come in other pieces each time, so there may be fewer calls than were counted; but none of a kind less.
                self.assertIn(status, (-signal.SIGKILL, 0) if at in points else (-signal.SIGKILL,))
                killed += status == -signal.SIGKILL
                self.check(store, wanted)
                tools.remove(store)
        self.assertGreater(killed, len(set(calls)))  # so numbers are hit as well
        print('killed at %d of %d calls' % (killed, len(calls)))

    def check(self, store, wanted):
        if os.path.isdir(os.path.join(store, 'images')):
            sound = subprocess.run(tools.program('doctor', '--images', '--store', store), capture_output=True, text=True,
                                   check=False)
            self.assertEqual(sound.returncode, 0, sound.stdout + sound.stderr)
            for entry in tools.index(store):
                self.assertEqual(len(entry['layers']), 3)
        status, _, text = tools.pull(store, self.name)
        self.assertEqual(status, 0, text)
        self.assertEqual(self.tree(store), wanted)
        self.assertEqual(tools.leftovers(store), [])
        self.assertEqual(len(os.listdir(os.path.join(store, 'layers'))), 3)

    def test_what_was_not_synced_is_synced_by_who_names_it(self):
        """A pull killed when all its layers have names, but were not written to disk: the next one must do that."""
        store = os.path.join(self.scratch, 'unsynced')
        killed = self.pull(store, 'syncfs')
        self.assertEqual(killed.returncode, -signal.SIGKILL)
        self.assertEqual(len(os.listdir(os.path.join(store, 'layers'))), 3)
        self.assertIn('syncfs', self.calls(store))
        self.assertNotIn('syncfs', self.calls(store))

    def test_layers_of_a_crashed_machine_are_not_trusted(self):
        """Named, of another boot, and of no image: they may lack data that was never written."""
        store = os.path.join(self.scratch, 'power')
        self.calls(store)
        wanted = self.tree(store)
        tools.remove(store)
        self.pull(store, 'syncfs')
        for key in os.listdir(os.path.join(store, 'layers')):
            path = os.path.join(store, 'layers', key, 'layer.json')
            with open(path) as source:
                text = source.read()
            with open('/proc/sys/kernel/random/boot_id') as source:
                boot = source.read().strip()
            self.assertIn(boot, text)
            with open(path, 'w') as out:
                out.write(text.replace(boot, '0' * 8 + boot[8:]))
        subprocess.run(tools.program('images', '--store', store), check=True, stdout=subprocess.DEVNULL)
        self.assertEqual(os.listdir(os.path.join(store, 'layers')), [])
        self.check(store, wanted)


if __name__ == '__main__':
    sys.exit(unittest.main())
