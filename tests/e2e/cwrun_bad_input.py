#!/usr/bin/env python3
# needs: root cgroup2 alone
# timeout: 180
# rows: S08 S64 S67 B149
"""What cwrun says to bad input: exit status 125 (2 for the command line), a text that names the input, nothing left."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = os.environ.get('CW_TOP') or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(os.environ.get('CW_BUILD', os.path.join(TOP, 'build')), 'bin')
sys.path.insert(0, os.path.join(TOP, 'tests/fixtures'))
sys.path.insert(0, os.path.join(TOP, 'tests/e2e'))
import image  # noqa: E402
import leftovers  # noqa: E402
import registry  # noqa: E402


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.mkdtemp(prefix='badinput.')
        cls.layout = os.path.join(cls.scratch, 'layout')
        cls.digest = image.build(cls.layout, preset='busybox')
        cls.registry = registry.Registry(os.path.join(cls.scratch, 'registry')).start()
        cls.registry.push(cls.layout, 'demo:latest', 'library/demo', 'latest')
        cls.name = cls.registry.address + '/library/demo:latest'
        cls.store = os.path.join(cls.scratch, 'work/images')
        cls.run_cwrun('pull', '--quiet', cls.name)

    @classmethod
    def tearDownClass(cls):
        cls.registry.stop()
        shutil.rmtree(cls.scratch)

    @classmethod
    def run_cwrun(cls, verb, *args, **more):
        command = [os.path.join(BIN, 'cwrun'), verb]
        if verb in ('pull', 'run'):
            command += ['--store', more.pop('store', cls.store), '--insecure-registry', cls.registry.address]
        return subprocess.run(command + list(args), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100,
                              **more)

    def refused(self, status, words, verb, *args, **more):
        before = leftovers.look(self.scratch)
        result = self.run_cwrun(verb, *args, **more)
        self.assertEqual(result.returncode, status, result.stderr)
        for word in [words] if isinstance(words, str) else words:
            self.assertIn(word, result.stderr)
        self.assertNotIn('\x1b', result.stderr)
        self.assertEqual(leftovers.since(before, self.scratch), {})
        return result

    def test_unknown_image(self):
        self.refused(125, 'library/nosuch', 'pull', '-q', self.registry.address + '/library/nosuch:latest')
        self.refused(125, 'nosuchtag', 'run', '-q', self.registry.address + '/library/demo:nosuchtag')

    def test_wrong_digest(self):
        wrong = 'sha256:' + '0' * 64
        self.refused(125, wrong[:20], 'pull', '-q', self.registry.address + '/library/demo@' + wrong)

    def test_bad_reference(self):
        self.refused(125, 'UPPER', 'run', 'UPPER/Case:x')
        self.refused(125, 'sha256:12', 'run', 'demo@sha256:12')

    def test_registry_down(self):
        port = registry.free_port('127.0.0.1')
        self.refused(125, '127.0.0.1:%d' % port, 'pull', '-q', '--insecure-registry', '127.0.0.1:%d' % port,
                     '127.0.0.1:%d/library/demo:latest' % port)

    def test_disk_full(self):
        where, img = os.path.join(self.scratch, 'small'), os.path.join(self.scratch, 'small.img')
        os.mkdir(where)
        with open(img, 'wb') as f:
            f.truncate(3 << 20)
        subprocess.run(['mke2fs', '-q', '-t', 'ext2', img], check=True)
        subprocess.run(['mount', '-o', 'loop', img, where], check=True)
        try:
            with open(os.path.join(where, 'fill'), 'wb') as f:
                f.write(b'x' * (1500 << 10))
            result = self.run_cwrun('pull', '-q', self.name, store=os.path.join(where, 'images'))
            self.assertEqual(result.returncode, 125, result.stderr)
            self.assertRegex(result.stderr, r'(?i)no space|free|room')
            # nothing but empty directories and bookkeeping stays
            size = sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(where + '/images') for f in files)
            self.assertLess(size, 65536)
        finally:
            subprocess.run(['umount', where], check=True)
            os.unlink(img)
            os.rmdir(where)

    def test_command_not_there(self):
        self.refused(127, '/no/such/program', 'run', self.name, '--', '/no/such/program')
        self.refused(126, '/etc/passwd', 'run', self.name, '--', '/etc/passwd')

    def test_bad_flags(self):
        self.refused(2, '--memory', 'run', '--memory', 'lots', self.name)
        self.refused(2, 'which image', 'run')
        self.refused(2, 'nosuchverb', 'nosuchverb')
        self.refused(125, 'absolute', 'run', '--mount', 'a:b', self.name, 'true')
        self.refused(125, '/no/such/source', 'run', '--mount', '/no/such/source:/mnt', self.name, 'true')
        self.refused(125, 'nobodyhere', 'run', '--user', 'nobodyhere', self.name, 'true')
        self.refused(125, '4000', 'run', '--cpuset', '4000', self.name, 'true')

    def test_not_root(self):
        as_nobody = {'user': 65534, 'group': 65534, 'extra_groups': []}
        self.refused(125, 'needs root', 'run', self.name, 'true', **as_nobody)

    def test_malformed_bundle(self):
        path = os.path.join(self.scratch, 'bundle.json')
        good = {'bundle': {'uuid': '0x' + 'a' * 32, 'bundle_type': 'run', 'command': 'true', 'metadata': {}, 'dependencies': []},
                'resources': {'cpus': 1, 'gpus': 0, 'docker_image': self.name, 'time': 0, 'memory': 1 << 26, 'disk': 0,
                              'network': False}}
        for text, words in (('{', 'JSON'), ('[]', 'bundle.json'), ('{}', 'bundle'),
                            (json.dumps(dict(good, bundle=dict(good['bundle'], uuid='x'))), 'uuid'),
                            (json.dumps(dict(good, resources=dict(good['resources'], memory='2g'))), 'memory')):
            with open(path, 'w') as f:
                f.write(text)
            self.refused(125, words, 'bundle', '--store', self.store, path)
        os.unlink(path)
        self.refused(125, 'bundle.json', 'bundle', '--store', self.store, path)


if __name__ == '__main__':
    unittest.main(verbosity=2)
