#!/usr/bin/env python3
# needs: root
# timeout: 120
"""How cwrun pull shows what it does: JSON events, lines, bars on a terminal."""
import json
import os
import pty
import re
import subprocess
import sys
import unittest

import pull_tools as tools

import image  # noqa: E402
import registry  # noqa: E402


class Progress(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        tools.own_mounts()
        cls.scratch = tools.scratch()
        cls.registry = registry.Registry(os.path.join(cls.scratch, 'registry')).start()
        rng = image.random.Random(6)
        cls.layers = [image.Layer([image.file('f%d' % n, rng.randbytes(300000 * (n + 1)))], how='none') for n in range(3)]
        layout = os.path.join(cls.scratch, 'layout')
        image.Layout(layout).add('p:v1', image.Image(cls.layers))
        cls.digest = cls.registry.push(layout, 'p:v1', 'p', 'v1')
        cls.name = cls.registry.address + '/p:v1'

    @classmethod
    def tearDownClass(cls):
        cls.registry.stop()
        tools.remove(cls.scratch)

    def command(self, *flags):
        store = os.path.join(self.scratch, 'store-' + self.id().rsplit('.', 1)[1])
        return tools.program('pull', '--store', store, '--docker-config', '/dev/null', *flags)

    def test_events(self):
        done = subprocess.run(self.command('--json', self.name), capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, '')
        events = [json.loads(line) for line in done.stdout.splitlines()]
        total = sum(len(layer.blob) for layer in self.layers)
        sums = [e for e in events if e['event'] == 'progress']
        self.assertEqual([sums[0]['phase'], sums[-1]['phase']], ['resolving', 'done'])
        self.assertEqual((sums[-1]['bytes'], sums[-1]['total'], sums[-1]['layersDone'], sums[-1]['layers']),
                         (total, total, 3, 3))
        for layer in self.layers:
            mine = [e for e in events if e.get('digest') == image.digest(layer.blob)]
            self.assertEqual([e['state'] for e in mine], ['started', 'done'])
            self.assertEqual((mine[1]['bytes'], mine[1]['total']), (len(layer.blob), len(layer.blob)))
        self.assertEqual(events[-1]['event'], 'image')
        self.assertEqual(events[-1]['repoDigest'], '%s/p@%s' % (self.registry.address, self.digest))
        self.assertEqual(events[-1]['compressedSize'], total)

    def test_a_failure_is_an_event(self):
        done = subprocess.run(self.command('--json', self.registry.address + '/nope'), capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertEqual(done.returncode, 125)
        last = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(last['event'], 'error')
        self.assertIn('not found', last['message'])

    def test_lines(self):
        done = subprocess.run(self.command(self.name), capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('@' + self.digest, done.stdout)
        self.assertEqual(len(re.findall(r'^layer [0-9a-f]{12} done, [0-9.]+[kM]B$', done.stderr, re.M)), 3, done.stderr)
        self.assertRegex(done.stderr, r'(?m)^done 1.8[0-9]*MB/1.8[0-9]*MB \(100%\), 3 of 3 layers$')
        self.assertNotIn('\033', done.stderr)

    def test_bars(self):
        main, other = pty.openpty()
        with subprocess.Popen(self.command(self.name), stdout=subprocess.PIPE, stderr=other) as pull:
            os.close(other)
            text = b''
            while True:
                try:
                    piece = os.read(main, 65536)
                except OSError:
                    break
                if not piece:
                    break
                text += piece
            pull.stdout.read()
        os.close(main)
        self.assertEqual(pull.returncode, 0, text)
        text = text.decode()
        self.assertIn('\033[A\033[2K', text)
        self.assertRegex(text, r'[0-9a-f]{12} \[=*>? *\] [0-9.]+[kM]?B/[0-9.]+[kM]B')
        self.assertTrue(text.rstrip().endswith('3 of 3 layers'), text[-200:])


if __name__ == '__main__':
    sys.exit(unittest.main())
