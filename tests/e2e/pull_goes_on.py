#!/usr/bin/env python3
# needs: root
# timeout: 120
# rows: S19
"""A big layer, its puller killed or its line cut in the middle: the next pull goes on there, and fetches little twice."""
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import unittest

import pull_tools as tools

import image  # noqa: E402

SIZE = 56 << 20


class Slow:
    """A registry of one image that stops talking after `stop_after` bytes of the blob, until told to go on."""

    def __init__(self, made):
        blobs = {image.digest(layer.blob): layer.blob for layer in made.layers}
        config, manifest = made.config_bytes(), json.dumps(made.manifest()).encode()
        blobs[image.digest(config)] = config
        slow = self
        self.stop_after, self.stopped, self.go_on, self.ranges, self.sent = None, threading.Event(), threading.Event(), [], 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_GET(self):
                is_manifest = '/manifests/' in self.path
                data = manifest if is_manifest else blobs.get(self.path.rsplit('/', 1)[1])
                wanted = re.match(r'bytes=(\d+)-', self.headers.get('Range', ''))
                start = int(wanted[1]) if wanted else 0
                self.send_response(404 if data is None else 206 if wanted else 200)
                data = data or b''
                if wanted:
                    self.send_header('Content-Range', 'bytes %d-%d/%d' % (start, len(data) - 1, len(data)))
                self.send_header('Content-Length', str(len(data) - start))
                if is_manifest:
                    self.send_header('Content-Type', made.manifest()['mediaType'])
                self.end_headers()
                if len(data) < SIZE // 2:
                    self.wfile.write(data[start:])
                    return
                slow.ranges.append(start)
                for at in range(start, len(data), 65536):
                    if slow.stop_after is not None and at >= slow.stop_after:
                        slow.stopped.set()
                        slow.go_on.wait(60)
                        return
                    self.wfile.write(data[at:at + 65536])
                    slow.sent += min(65536, len(data) - at)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # the other end was killed
        self.address = '127.0.0.1:%d' % self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()


class GoesOn(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        tools.own_mounts()
        cls.scratch = tools.scratch()
        rng = image.random.Random(5)
        entries = [image.directory('d%d' % n, 0o700 + n) for n in range(8)]
        entries += [image.file('d%d/f%d' % (n % 8, n), rng.randbytes(SIZE // 280)) for n in range(280)]
        cls.image = image.Image([image.Layer(raw=image.tar_bytes(entries), how='none')])
        with open('/proc/sys/kernel/random/boot_id') as source:
            cls.boot = source.read().strip().encode()

    @classmethod
    def tearDownClass(cls):
        tools.remove(cls.scratch)

    def setUp(self):
        self.store = os.path.join(self.scratch, 'store-' + self.id().rsplit('.', 1)[1])
        self.registry = Slow(self.image)
        self.name = self.registry.address + '/big:v1'

    def tearDown(self):
        self.registry.stop()

    def break_off(self, how):
        self.registry.stop_after = SIZE * 3 // 4
        pull = subprocess.Popen(tools.command(self.store, self.name), stderr=subprocess.PIPE)
        self.assertTrue(self.registry.stopped.wait(60))
        pull.send_signal(how)
        pull.communicate(timeout=60)
        self.assertEqual(pull.returncode, -how)
        self.registry.stop_after = None
        self.registry.go_on.set()

    def partial(self):
        return os.listdir(os.path.join(self.store, 'partial'))

    def finish(self):
        status, _, text = tools.pull(self.store, self.name)
        self.assertEqual(status, 0, text)
        self.assertEqual(tools.leftovers(self.store) + self.partial(), [])
        sound = subprocess.run(tools.program('doctor', '--images', '--store', self.store), check=False)
        self.assertEqual(sound.returncode, 0)
        with tools.Merged(tools.lowerdirs(self.store, '/big:v1')) as merged:
            found = tools.describe(merged)
        found.pop(b'.')
        if not hasattr(GoesOn, 'wanted'):
            GoesOn.wanted = found
        self.assertEqual(GoesOn.wanted, found)

    def test_0_the_whole_at_once(self):
        self.finish()
        self.assertEqual(self.registry.ranges, [0])

    def test_killed(self):
        self.break_off(signal.SIGKILL)
        self.finish()
        again = self.registry.ranges[-1]
        self.assertGreater(again, SIZE * 3 // 4 - (22 << 20), self.registry.ranges)
        self.assertLess(self.registry.sent, len(self.image.layers[0].blob) + (22 << 20))

    def test_told_to_end(self):
        """Ctrl-C: it ends soon, with the signal, and keeps what it has."""
        self.break_off(signal.SIGINT)
        self.assertEqual(tools.leftovers(self.store), [])
        self.assertEqual(self.partial(), [self.image.layers[0].diff_id[7:]])
        self.finish()
        self.assertGreater(self.registry.ranges[-1], SIZE * 3 // 4 - (22 << 20), self.registry.ranges)

    def test_the_rest_from_a_file(self):
        self.break_off(signal.SIGKILL)
        layout = image.Layout(os.path.join(self.scratch, 'big'))
        layout.add('v1', self.image)
        self.name = 'oci:%s:v1' % layout.path
        self.finish()
        self.assertEqual(len(self.registry.ranges), 1)

    def test_after_a_restart_of_the_machine_it_begins_anew(self):
        self.break_off(signal.SIGKILL)
        found = False
        for where, _, files in os.walk(os.path.join(self.store, 'tmp')):
            for name in files:
                if name == 'checkpoint':
                    with open(os.path.join(where, name), 'r+b') as f:
                        data = f.read()
                        found = self.boot in data
                        f.seek(data.index(self.boot))
                        f.write(b'another boot')
        self.assertTrue(found)
        self.finish()
        self.assertEqual(self.registry.ranges, [0, 0])

    def test_what_is_kept_can_be_pruned(self):
        self.break_off(signal.SIGKILL)
        subprocess.run(tools.program('images', '--store', self.store), check=True, stdout=subprocess.DEVNULL)
        self.assertEqual(self.partial(), [self.image.layers[0].diff_id[7:]])
        subprocess.run(tools.program('prune', '--store', self.store), check=True, stdout=subprocess.DEVNULL)
        self.assertEqual(self.partial(), [])
        self.finish()


if __name__ == '__main__':
    sys.exit(unittest.main())
