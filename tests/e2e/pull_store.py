#!/usr/bin/env python3
# needs: root
# timeout: 120
# rows: S20 S28 B153
"""The image store: sizes, damage found and repaired, views of images, pins, removal, least recently used first."""
import os
import re
import signal
import stat
import subprocess
import sys
import unittest

import pull_tools as tools

import image  # noqa: E402
import registry  # noqa: E402


def some(n, size):
    return image.Layer([image.directory('d%d' % n), image.file('d%d/f' % n, image.random.Random(n).randbytes(size), 0o4755),
                        image.hardlink('d%d/link' % n, 'd%d/f' % n), image.symlink('d%d/s' % n, 'f'),
                        image.file('d%d/empty' % n), image.char_device('d%d/null' % n, 1, 3)])


class PullStore(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        tools.own_mounts()
        cls.scratch = tools.scratch()
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'mode=700', 'tmpfs', cls.scratch], check=True)
        cls.layout = os.path.join(cls.scratch, 'layout')
        image.Layout(cls.layout)
        cls.registry = registry.Registry(os.path.join(cls.scratch, 'registry')).start()
        cls.shared = some(0, 300000)
        for n in (1, 2, 3):
            name = 'i%d:v1' % n
            image.Layout(cls.layout).add(name, image.Image([cls.shared, some(n, 100000 * n)]))
            cls.registry.push(cls.layout, name, *name.split(':'))

    @classmethod
    def tearDownClass(cls):
        cls.registry.stop()
        subprocess.run(['umount', '-l', cls.scratch], check=True)
        os.rmdir(cls.scratch)

    def setUp(self):
        self.store = os.path.join(self.scratch, 'store-' + self.id().rsplit('.', 1)[1])

    def name(self, n):
        return '%s/i%d:v1' % (self.registry.address, n)

    def pull(self, *numbers):
        for n in numbers:
            status, _, text = tools.pull(self.store, self.name(n))
            self.assertEqual(status, 0, text)

    def cwrun(self, *words, wanted=0):
        done = subprocess.run(tools.program(words[0], '--store', self.store, *words[1:]), capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertEqual(done.returncode, wanted, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def names(self):
        return sorted(re.findall(r'/(i[0-9]):v1', self.cwrun('images')))

    def bytes_on_disk(self):
        """Of files, each inode once."""
        seen = {}
        for where, _, files in os.walk(os.path.join(self.store, 'layers')):
            for name in files:
                st = os.lstat(os.path.join(where, name))
                if stat.S_ISREG(st.st_mode) and name != 'layer.json':
                    seen[st.st_ino] = st.st_size
        return sum(seen.values())

    def test_sizes_are_exact_and_shared_layers_count_once(self):
        self.pull(1, 2, 3)
        self.assertEqual(self.bytes_on_disk(), 300000 + 100000 + 200000 + 300000)
        text = self.cwrun('images')
        self.assertRegex(text, r'3 images, 900kB on disk')
        for n in (1, 2, 3):
            self.assertRegex(text, r'/i%d:v1 +[0-9a-f]{16} +linux/\w+ +%dkB +%dkB' % (n, 300 + 100 * n, 100 * n))
        self.cwrun('rmi', self.name(2))
        self.assertRegex(self.cwrun('images'), r'2 images, 700kB on disk')
        self.assertEqual(self.bytes_on_disk(), 700000)
        self.cwrun('rmi', self.name(1), self.name(3))
        self.assertEqual(os.listdir(os.path.join(self.store, 'layers')), [])
        self.assertEqual(self.bytes_on_disk(), 0)

    def test_least_recently_used_go_first_and_pinned_ones_stay(self):
        self.pull(1, 2, 3)
        for age, entry in enumerate(sorted(tools.index(self.store), key=lambda e: -e['size'])):
            path = os.path.join(self.store, 'images', entry['id'][7:] + '.json')
            os.utime(path, (1700000000 + age, 1700000000 + age))  # i3 is the oldest, then i2
        self.cwrun('pin', self.name(3))
        self.assertIn('freed 200kB', self.cwrun('prune', '--keep', '800000'))
        self.assertEqual(self.names(), ['i1', 'i3'])
        self.assertIn('pinned', self.cwrun('images'))
        self.cwrun('unpin', self.name(3))
        self.cwrun('prune', '--keep', '500000')
        self.assertEqual(self.names(), ['i1'])

    def removal(self, n, **more):
        """cwrun rmi with tests/fixtures/crashpoint.c in it."""
        library = os.path.join(self.scratch, 'crashpoint.so')
        if not os.path.exists(library):
            subprocess.run(['gcc', '-O1', '-shared', '-fPIC', '-o', library, os.path.join(tools.TOP, 'tests/fixtures/crashpoint.c'), '-ldl'],
                           check=True)
        return subprocess.Popen(tools.program('rmi', '--store', self.store, self.name(n)), stdout=subprocess.DEVNULL, env=dict(
            os.environ, LD_PRELOAD=library, ASAN_OPTIONS='verify_asan_link_order=0', **more))

    def test_a_removal_is_in_nobodys_way(self):
        """Stopped in the middle of its files, for as long as one likes, it keeps nobody from pulling, using or removing images."""
        self.pull(1, 2, 3)
        log = os.path.join(self.scratch, 'calls')
        self.assertEqual(self.removal(3, CW_CRASH_LOG=log).wait(timeout=60), 0)
        with open(log) as source:
            calls = source.read().rstrip('\0').split()
        buried = max(n for n, call in enumerate(calls) if call.startswith('rename'))
        files = [n for n, call in enumerate(calls) if call == 'unlinkat' and n > buried]
        self.assertGreater(len(files), 5)
        removal = self.removal(2, CW_CRASH_AT=str(files[2] + 1), CW_CRASH_STOP='1')
        try:
            self.assertTrue(os.WIFSTOPPED(os.waitpid(removal.pid, os.WUNTRACED)[1]))
            self.assertEqual(self.names(), ['i1'])
            self.pull(1, 2, 3)
            self.assertEqual(self.names(), ['i1', 'i2', 'i3'])
            view = os.path.join(self.scratch, 'removal-view')
            os.mkdir(view)
            self.cwrun('mount', self.name(2), view)
            self.assertEqual(os.stat(view + '/d2/f').st_size, 200000)
            subprocess.run(tools.program('umount', view), check=True, timeout=60)
            self.cwrun('rmi', self.name(3))
            self.cwrun('rmi', self.name(1))
        finally:
            os.kill(removal.pid, signal.SIGCONT)
        self.assertEqual(removal.wait(timeout=60), 0)
        self.assertEqual(self.names(), ['i2'])
        self.cwrun('doctor', '--images')
        self.assertEqual(tools.leftovers(self.store), [])

    def test_a_view_keeps_its_image(self):
        self.pull(1)
        view = os.path.join(self.scratch, 'view')
        os.makedirs(view)
        self.cwrun('mount', self.name(1), view)
        try:
            self.assertEqual(sorted(os.listdir(view)), ['d0', 'd1'])
            with self.assertRaises(OSError):
                open(os.path.join(view, 'new'), 'wb')
            options = set(subprocess.check_output(['findmnt', '-no', 'OPTIONS', view], text=True).strip().split(','))
            self.assertLessEqual({'ro', 'nosuid', 'nodev', 'noexec'}, options)
            self.assertIn('in use', self.cwrun('rmi', self.name(1), wanted=125))
            self.cwrun('prune')
            self.assertEqual(self.names(), ['i1'])
        finally:
            subprocess.run(tools.program('umount', view), check=True)
        self.assertEqual(os.listdir(view), [])
        refused = subprocess.run(tools.program('umount', '/proc'), capture_output=True, text=True, check=False)
        self.assertEqual(refused.returncode, 125)
        self.assertIn('no image is mounted there', refused.stderr)
        self.cwrun('prune')
        self.assertEqual(self.names(), [])

    def damage(self, how):
        """In the shared layer of images 1 and 2; returns what doctor must name."""
        key = self.shared.diff_id[7:]
        layer = os.path.join(self.store, 'layers', key)
        path = os.path.join(layer, 'fs/d0/f')
        if how == 'bit':
            with open(path, 'r+b') as f:
                f.seek(200000)
                byte = f.read(1)
                f.seek(200000)
                f.write(bytes([byte[0] ^ 1]))
        elif how == 'cut':
            os.truncate(path, 4096)
        elif how == 'zeros':
            os.truncate(path, 0)
            os.truncate(path, 300000)
        elif how == 'mode':
            os.chmod(path, 0o755)
        elif how == 'owner':
            os.chown(path, 5, 5)
        elif how == 'lost':
            os.unlink(os.path.join(layer, 'fs/d0/empty'))
        elif how == 'link':
            os.unlink(os.path.join(layer, 'fs/d0/s'))
            os.symlink('/etc', os.path.join(layer, 'fs/d0/s'))
        elif how == 'more':
            os.mkdir(os.path.join(layer, 'fs/more'))
        elif how == 'record':
            os.truncate(os.path.join(layer, 'layer.json'), 0)
        elif how == 'tree':
            tools.remove(os.path.join(layer, 'fs'))
        elif how == 'layer':
            tools.remove(layer)
        return key

    def test_damage_is_found_and_repaired(self):
        for how in ('bit', 'cut', 'zeros', 'mode', 'owner', 'lost', 'link', 'more', 'record', 'tree', 'layer'):
            with self.subTest(how):
                self.pull(1, 2)
                self.assertRegex(self.cwrun('doctor', '--images'), r'ok +images: 2 images, 3 layers')
                key = self.damage(how)
                text = self.cwrun('doctor', '--images', wanted=1)
                self.assertIn(key, text)
                self.assertIn('--repair removes', text)
                text = self.cwrun('doctor', '--images', '--repair')
                self.assertIn('must be pulled again', text)
                self.assertEqual(self.names(), [])
                # What was sound and needed stays in place until it is clear that nobody wants it.
                self.pull(1, 2)
                self.assertRegex(self.cwrun('doctor', '--images'), r'ok +images: 2 images, 3 layers')

    def test_a_damaged_index_file_is_found_and_repaired(self):
        self.pull(1, 2)
        entry = tools.index(self.store)[0]
        other = tools.index(self.store)[1]
        path = os.path.join(self.store, 'images', entry['id'][7:] + '.json')
        with open(path) as source:
            text = source.read()
        for wrong in ('', text[:100], text.replace(entry['id'], other['id']), text.replace(entry['layers'][0], '../../etc')):
            with self.subTest(wrong[:40]):
                with open(path, 'w') as out:
                    out.write(wrong)
                self.assertIn(entry['id'][7:], self.cwrun('doctor', '--images', wanted=1))
                self.cwrun('doctor', '--images', '--repair')
                self.assertEqual(len(self.names()), 1)
                self.pull(1, 2)

    def test_damage_in_use_is_told_and_left(self):
        self.pull(1, 2)
        view = os.path.join(self.scratch, 'view2')
        os.makedirs(view)
        self.cwrun('mount', self.name(1), view)
        try:
            self.damage('bit')
            self.assertIn('in use', self.cwrun('doctor', '--images', '--repair', wanted=1))
            self.assertEqual(self.names(), ['i1'])
        finally:
            subprocess.run(tools.program('umount', view), check=True)
        self.cwrun('doctor', '--images', '--repair')
        self.assertEqual(self.names(), [])


if __name__ == '__main__':
    sys.exit(unittest.main())
