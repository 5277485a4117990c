#!/usr/bin/env python3
# needs: root
# timeout: 300
# rows: S19
"""A big layer, its puller killed or its line cut in the middle: the next pull goes on there, and fetches little twice."""
import http.server
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import unittest

import pull_tools as tools

import image  # noqa: E402

SIZE = 56 << 20
STOP = SIZE * 3 // 4
LOST = 22 << 20  # at most: what lies between two checkpoints, and then some


class Slow:
    """A registry of one image that stops talking after `stop_after` bytes of the blob, until told to go on; with cuts, a list
    of byte counts, the connection ends after so many bytes of each answer, the last one again and again."""

    def __init__(self, made):
        blobs = {image.digest(layer.blob): layer.blob for layer in made.layers}
        config, manifest = made.config_bytes(), json.dumps(made.manifest()).encode()
        blobs[image.digest(config)] = config
        slow = self
        self.stop_after, self.stopped, self.go_on, self.ranges, self.sent = None, threading.Event(), threading.Event(), [], 0
        self.cuts = []

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
                if slow.cuts:
                    n = slow.cuts.pop(0) if len(slow.cuts) > 1 else slow.cuts[0]
                    self.wfile.write(data[start:start + n])
                    self.close_connection = True
                    slow.sent += n
                    return
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
        cls.zstd = image.Image([image.Layer(raw=cls.image.layers[0].tar, how='zstd')])
        with open('/proc/sys/kernel/random/boot_id') as source:
            cls.boot = source.read().strip().encode()

    @classmethod
    def tearDownClass(cls):
        tools.remove(cls.scratch)

    def setUp(self):
        self.store = os.path.join(self.scratch, 'store-' + self.id().rsplit('.', 1)[1])
        self.registry = None
        self.serve(self.image)

    def serve(self, made):
        if self.registry:
            self.registry.stop()
        self.registry = Slow(made)
        self.name = self.registry.address + '/big:v1'

    def tearDown(self):
        self.registry.stop()

    def break_off(self, how, after=STOP):
        self.registry.stop_after = after
        pull = subprocess.Popen(tools.command(self.store, self.name), stderr=subprocess.PIPE)
        self.assertTrue(self.registry.stopped.wait(60))
        deadline = time.monotonic() + 60
        while self.saved() <= after - LOST and time.monotonic() < deadline:
            time.sleep(0.02)  # what was sent is still on its way to the disk
        pull.send_signal(how)
        pull.communicate(timeout=60)
        self.assertEqual(pull.returncode, -how)
        self.registry.stop_after = None
        self.registry.go_on.set()

    def saved(self):
        """How many bytes need not be fetched again: what the checkpoint tells (oci/layer_checkpoint.c), or most of the spool."""
        for path in self.kept('checkpoint'):
            data, at = image.read(path), 24
            if data[:7] == b'cwlayer':
                for _ in range(4):  # version, boot, two digests
                    at += 8 + struct.unpack_from('<Q', data, at)[0]
                return struct.unpack_from('<Q', data, at + 8)[0]
        return sum(os.path.getsize(path) for path in self.kept('spool')) - LOST + (4 << 20)

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
        self.assertGreater(again, STOP - LOST, self.registry.ranges)
        self.assertLess(self.registry.sent, len(self.image.layers[0].blob) + LOST)

    def test_told_to_end(self):
        """Ctrl-C: it ends soon, with the signal, and keeps what it has."""
        self.break_off(signal.SIGINT)
        self.assertEqual(tools.leftovers(self.store), [])
        self.assertEqual(self.partial(), [self.image.layers[0].diff_id[7:]])
        self.finish()
        self.assertGreater(self.registry.ranges[-1], STOP - LOST, self.registry.ranges)

    def test_the_rest_from_a_file(self):
        self.break_off(signal.SIGKILL)
        layout = image.Layout(os.path.join(self.scratch, 'big'))
        layout.add('v1', self.image)
        self.name = 'oci:%s:v1' % layout.path
        self.finish()
        self.assertEqual(len(self.registry.ranges), 1)

    def test_a_single_zstd_frame(self):
        """It has no state to be put aside, so its bytes were: they are decoded again, not fetched again."""
        self.serve(self.zstd)
        self.break_off(signal.SIGTERM)
        self.assertEqual(self.partial(), [self.zstd.layers[0].diff_id[7:]])
        self.finish()
        self.assertGreater(self.registry.ranges[-1], STOP - LOST, self.registry.ranges)
        self.assertEqual(len(self.registry.ranges), 2)

    def test_zstd_of_several_frames(self):
        """Cut in the middle of one, with frames between that are to be skipped, as zstd:chunked has them: not a byte is fetched again
        that was kept, and what is decoded again is not written twice."""
        tar, frames = self.image.layers[0].tar, []
        for at in range(0, len(tar), 5 << 20):
            frames += [image.compress(tar[at:at + (5 << 20)], 'zstd'), b'\x50\x2a\x4d\x18' + struct.pack('<I', 9) + b'skip this']
        self.serve(image.Image([image.Layer(raw=tar, how='zstd', blob=b''.join(frames))]))
        self.break_off(signal.SIGKILL)
        self.finish()
        self.assertGreater(self.registry.ranges[-1], STOP - LOST, self.registry.ranges)
        self.assertEqual(len(self.registry.ranges), 2)

    def test_a_single_zstd_frame_broken_off_twice(self):
        self.serve(self.zstd)
        self.break_off(signal.SIGKILL)
        self.registry.stopped.clear()
        self.registry.go_on.clear()
        self.break_off(signal.SIGKILL, SIZE * 7 // 8)
        self.finish()
        self.assertGreater(self.registry.ranges[1], STOP - LOST)
        self.assertGreater(self.registry.ranges[2], SIZE * 7 // 8 - LOST)

    def test_kept_bytes_that_are_wrong(self):
        """They cost a second fetch, not the pull."""
        self.serve(self.zstd)
        self.break_off(signal.SIGKILL)
        path, = self.kept('spool')
        with open(path, 'r+b') as f:
            f.seek(SIZE // 2)
            f.write(b'not what came')
        self.finish()
        self.assertEqual((self.registry.ranges[0], self.registry.ranges[-1]), (0, 0))

    def test_cut_more_often_than_is_borne(self):
        """The pull fails, and says so; the next one goes on where it was."""
        self.serve(self.zstd)
        self.registry.cuts = [SIZE // 2, 1000]
        status, _, text = tools.pull(self.store, self.name)
        self.assertEqual(status, 125)
        self.assertRegex(text, r'image %s: layer sha256:\w+: registry %s: .*(outstanding|remaining)' % (
            re.escape(self.name), re.escape(self.registry.address)))
        self.assertEqual(len(self.registry.ranges), 6)
        self.assertEqual(self.partial(), [self.zstd.layers[0].diff_id[7:]])
        self.registry.cuts = []
        self.finish()
        self.assertEqual(self.registry.ranges[-1], SIZE // 2 + 5 * 1000)
        self.assertEqual(len(self.registry.ranges), 7)

    def kept(self, what):
        """Files of that name in what the broken pull left."""
        return [os.path.join(where, what) for where, _, files in os.walk(os.path.join(self.store, 'tmp')) if what in files]

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

    def test_so_do_kept_bytes(self):
        self.serve(self.zstd)
        self.break_off(signal.SIGKILL)
        path, = self.kept('spool')
        with open(path, 'r+b') as f:
            data = f.read(1024)
            f.seek(data.index(self.boot))
            f.write(b'another boot')
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
