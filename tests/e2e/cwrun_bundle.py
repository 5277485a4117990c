#!/usr/bin/env python3
# needs: root cgroup2 net alone
# timeout: 200
# rows: B064 B068 B069 B083 B091 B096 B102 B103 B109 S64
"""cwrun bundle: a bundle description in the worker's environment; statuses, texts and results as the worker reports them."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = os.environ.get('CW_TOP') or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(os.environ.get('CW_BUILD', os.path.join(TOP, 'build')), 'bin')
sys.path[:0] = [os.path.join(TOP, 'tests/fixtures'), os.path.join(TOP, 'tests/e2e')]
import image  # noqa: E402
import leftovers  # noqa: E402
import registry  # noqa: E402

PARENT = '0x' + 'b' * 32


class Bundle(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.mkdtemp(prefix='bundle.')
        layout = os.path.join(cls.scratch, 'layout')
        image.build(layout)
        cls.store = os.path.join(cls.scratch, 'work/images')
        with registry.Registry(os.path.join(cls.scratch, 'registry')) as r:
            r.push(layout, 'demo:latest', 'library/demo', 'latest')
            cls.name = r.address + '/library/demo:latest'
            subprocess.run([os.path.join(BIN, 'cwrun'), 'pull', '-q', '--store', cls.store, '--insecure-registry', r.address,
                            cls.name], check=True)
        os.mkdir(os.path.join(cls.scratch, 'parent'))
        with open(os.path.join(cls.scratch, 'parent/f'), 'w') as f:
            f.write('from the parent\n')

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.scratch)

    def bundle(self, command, status=0, dependencies=(), flags=(), **resources):
        """Run it; returns what was printed and the results directory."""
        uuid = '0x%032x' % abs(hash(self.id()) % (1 << 60))
        wish = {'cpus': 1, 'gpus': 0, 'docker_image': self.name, 'time': 0, 'memory': 256 << 20, 'disk': 0, 'network': False}
        wish.update(resources)
        deps = [{'parent_uuid': PARENT, 'parent_path': path, 'child_path': child, 'parent_name': None, 'child_uuid': uuid,
                 'location': os.path.join(self.scratch, 'parent')} for child, path in dependencies]
        text = json.dumps({'bundle': {'uuid': uuid, 'bundle_type': 'run', 'command': command, 'metadata': {},
                                      'dependencies': deps}, 'resources': wish})
        path, out = os.path.join(self.scratch, 'bundle.json'), os.path.join(self.scratch, 'out')
        with open(path, 'w') as f:
            f.write(text)
        shutil.rmtree(out, ignore_errors=True)
        before = leftovers.look()
        result = subprocess.run([os.path.join(BIN, 'cwrun'), 'bundle', '--store', self.store, '--pull', 'never', '--output', out,
                                 *flags, path], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        self.assertEqual(leftovers.since(before), {})
        return result.stdout + result.stderr, out

    def test_plain(self):
        text, out = self.bundle('echo hi; echo $HOME $CODALAB $IMAGE_ENV; pwd; echo made > file')
        self.assertIn('hi', text)
        with open(os.path.join(out, 'stdout')) as f:
            lines = f.read().splitlines()
        self.assertEqual(lines[0], 'hi')
        self.assertRegex(lines[1], r'^/0x[0-9a-f]{32} true from the image$')
        self.assertEqual(lines[2], lines[1].split()[0])
        self.assertEqual(sorted(os.listdir(out)), ['file', 'stderr', 'stdout'])
        self.assertEqual(os.stat(os.path.join(out, 'file')).st_uid, os.stat(out).st_uid)

    def test_dependencies(self):
        _, out = self.bundle('cat d/f f1; echo x > d/f', 1, [('d', ''), ('f1', 'f')])
        with open(os.path.join(out, 'stdout')) as f:
            self.assertEqual(f.read(), 'from the parent\n' * 2)
        self.assertEqual(sorted(os.listdir(out)), ['stderr', 'stdout'])

    def test_keep(self):
        """The writable layer is left for people to look into, and they are told where."""
        text, out = self.bundle('echo layer > /opt/made; echo mine > own', flags=['--keep'])
        kept = re.search('^cwrun: kept (.*)$', text, re.MULTILINE).group(1)
        found = [os.path.join(d, 'made') for d, _, files in os.walk(kept) if 'made' in files]
        self.assertEqual(len(found), 1, kept)
        with open(found[0]) as f:
            self.assertEqual(f.read(), 'layer\n')
        self.assertEqual(sorted(os.listdir(out)), ['own', 'stderr', 'stdout'])
        shutil.rmtree(kept)
        text, _ = self.bundle('echo layer > /opt/made')
        self.assertNotIn('kept', text)
        self.assertEqual(os.listdir(os.path.dirname(kept)), [])

    def test_exit_status(self):
        text, _ = self.bundle('exit 3', 3)
        self.assertIn('failed', text)

    def test_memory(self):
        text, _ = self.bundle('memhog 200', 137, memory=64 << 20)
        self.assertIn('Memory limit 64m exceeded.', text)

    def test_time(self):
        text, _ = self.bundle('sleep 60', 137, time=2)
        self.assertIn('Time limit exceeded.', text)


if __name__ == '__main__':
    unittest.main(verbosity=2)
