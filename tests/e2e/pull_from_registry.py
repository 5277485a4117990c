#!/usr/bin/env python3
# needs: root
# timeout: 300
# rows: S08 S12 S14 S17 B146 B147 B151
"""Pulling from Debian's docker-registry: names, digests, formats, TLS, logins, crashes, full disks."""
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import unittest

import pull_tools as tools

import image  # noqa: E402
import registry  # noqa: E402


def small(text='hello', **more):
    return image.Layer([image.directory('etc'), image.file('etc/text', text)], **more)


class PullFromRegistry(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        tools.own_mounts()
        cls.scratch = tools.scratch()
        cls.layout = os.path.join(cls.scratch, 'layout')
        image.Layout(cls.layout)
        cls.registry = registry.Registry(os.path.join(cls.scratch, 'registry')).start()

    @classmethod
    def tearDownClass(cls):
        cls.registry.stop()
        tools.remove(cls.scratch)

    def setUp(self):
        self.store = os.path.join(self.scratch, 'store-' + self.id().rsplit('.', 1)[1])

    def add(self, name, what):
        image.Layout(self.layout).add(name, what)
        return self.registry.push(self.layout, name, *name.split(':'))

    def ok(self, name, *flags):
        status, out, text = tools.pull(self.store, name, *flags)
        self.assertEqual(status, 0, text)
        self.assertEqual(tools.leftovers(self.store), [])
        return out.strip()

    def fails(self, name, *words, flags=()):
        status, out, text = tools.pull(self.store, name, *flags)
        self.assertEqual(status, 125, out + text)
        for word in words:
            self.assertIn(word, text)
        self.assertEqual(tools.leftovers(self.store), [])
        return text

    def text_of(self, name, path='etc/text'):
        with tools.Merged(tools.lowerdirs(self.store, name)) as merged:
            with open(os.path.join(merged, path)) as source:
                return source.read()

    def test_by_tag_and_by_digest(self):
        digest = self.add('one:v1', image.Image([small()]))
        name = self.registry.address + '/one'
        self.assertEqual(self.ok(name + ':v1'), '%s@%s' % (name, digest))
        self.assertEqual(self.ok('%s@%s' % (name, digest)), '%s@%s' % (name, digest))
        self.assertEqual(self.text_of('/one:v1'), 'hello')
        self.assertEqual(len(tools.index(self.store)), 1)

    def test_a_moved_tag_is_followed(self):
        name = self.registry.address + '/moved:latest'
        first = self.add('moved:latest', image.Image([small('old')]))
        self.assertIn(first, self.ok(name))
        second = self.add('moved:latest', image.Image([small('new')]))
        self.assertIn(second, self.ok(self.registry.address + '/moved'))
        self.assertEqual(self.text_of('/moved:latest'), 'new')

    def test_formats(self):
        for fmt in ('oci', 'docker'):
            for how in ('gzip', 'zstd', 'none'):
                with self.subTest(fmt=fmt, how=how):
                    name = 'formats:%s-%s' % (fmt, how)
                    self.add(name, image.Image([small(name, how=how)], fmt=fmt))
                    self.ok('%s/%s' % (self.registry.address, name))
                    self.assertEqual(self.text_of('/' + name), name)

    def test_index_gives_this_platform(self):
        machine = {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(os.uname().machine, os.uname().machine)
        for fmt in ('oci', 'docker'):
            images = [image.Image([small(p)], platform=p, fmt=fmt) for p in
                      ('linux/s390x', 'windows/' + machine, 'linux/' + machine, 'linux/arm/v5')]
            digest = self.add('index:' + fmt, images)
            self.assertIn(digest, self.ok(self.registry.address + '/index:' + fmt))
            self.assertEqual(self.text_of('/index:' + fmt), 'linux/' + machine)
        self.add('index:none', [image.Image([small(p)], platform=p) for p in ('linux/s390x', 'plan9/' + machine)])
        self.fails(self.registry.address + '/index:none', 'has no image for linux/', 'linux/s390x')

    def test_another_platform(self):
        """By flag or by Docker's variable; what is here for one platform is not run for another."""
        machine = {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(os.uname().machine, os.uname().machine)
        self.add('many:v1', [image.Image([small(p)], platform=p) for p in ('linux/' + machine, 'linux/s390x', 'linux/arm/v6')])
        self.add('single:v1', image.Image([small('single')], platform='linux/s390x'))
        name, single = (self.registry.address + x for x in ('/many:v1', '/single:v1'))
        for asked, got in (('linux/s390x', 'linux/s390x'), ('linux/arm', 'linux/arm/v6'), ('linux/arm/v6', 'linux/arm/v6'),
                           ('linux/' + os.uname().machine, 'linux/' + machine)):
            with self.subTest(asked=asked):
                self.ok(name, '--platform', asked)
                self.assertEqual(self.text_of('/many:v1'), got)
        os.environ['DOCKER_DEFAULT_PLATFORM'] = 'linux/s390x'
        try:
            self.ok(name)
            self.assertEqual(self.text_of('/many:v1'), 'linux/s390x')
        finally:
            del os.environ['DOCKER_DEFAULT_PLATFORM']
        self.fails(name, 'has no image for linux/riscv64; there is: linux/', flags=['--platform', 'linux/riscv64'])
        self.fails(single, 'is for linux/s390x, not for linux/' + machine, flags=['--platform', 'linux/' + machine])
        self.ok(single, '--platform', 'linux/s390x')
        self.ok(single)  # nobody asked for anything: a warning
        for bad_one in ('linux', 'linux/', '/x', 'a/b/c/d', 'linux/x y', 'Linux/amd64', ''.join(['linux/', 'a' * 40])):
            self.fails(name, 'not a platform', flags=['--platform', bad_one])
        self.assertIn('s390x', self.list('linux/s390x'))
        self.assertNotIn('/many', self.list('linux/' + machine))
        inspect = tools.program('inspect', '--store', self.store)
        seen = subprocess.run(inspect + [name], capture_output=True, text=True, check=True)
        self.assertEqual(json.loads(seen.stdout)['platform'], 'linux/s390x')
        seen = subprocess.run(inspect + ['--platform', 'linux/' + machine, name], capture_output=True, text=True, check=False)
        self.assertIn('the image here is for linux/s390x', seen.stderr)

    def list(self, platform):
        return subprocess.run(tools.program('images', '--store', self.store, '--platform', platform), check=True,
                              capture_output=True, text=True).stdout

    def test_one_layer_twice_and_none(self):
        layer = small()
        self.add('twice:v1', image.Image([layer, small('between'), layer]))
        self.ok(self.registry.address + '/twice:v1')
        self.assertEqual(len(tools.lowerdirs(self.store, '/twice:v1')), 2)
        self.assertEqual(self.text_of('/twice:v1'), 'hello')
        self.add('none:v1', image.Image([]))
        self.ok(self.registry.address + '/none:v1')

    def test_layers_are_fetched_once(self):
        shared = small('shared')
        self.add('share:a', image.Image([shared, small('a')]))
        self.add('share:b', image.Image([shared, small('b')]))
        self.ok(self.registry.address + '/share:a')
        blob = image.digest(shared.blob)[7:]
        path = os.path.join(self.registry.directory, 'storage/docker/registry/v2/blobs/sha256', blob[:2], blob, 'data')
        os.rename(path, path + '.gone')
        try:
            self.ok(self.registry.address + '/share:b')
        finally:
            os.rename(path + '.gone', path)
        self.assertEqual(self.text_of('/share:b'), 'b')

    def test_unknown_names(self):
        self.fails(self.registry.address + '/one:nope', self.registry.address + '/one:nope', 'not found')
        self.fails(self.registry.address + '/nobody/knows', 'not found')
        self.fails(self.registry.address + '/One', 'repository name')
        self.fails('one@sha256:1234', 'not a digest')

    def test_nobody_answers(self):
        port = registry.free_port('127.0.0.1')
        start = time.monotonic()
        self.fails('127.0.0.1:%d/x' % port, '127.0.0.1:%d' % port, 'onnect')
        self.assertLess(time.monotonic() - start, 90)

    def test_lies_are_found(self):
        good, other = small('good'), small('other')
        cases = {
            'diffid': ('uncompressed layer', image.Image([small('x', diff_id=other.diff_id)])),
            'garbage': ('not a valid tar', image.Image([image.Layer(raw=b'no tar at all' * 100)])),
            'cut': ('gzip', image.Image([image.Layer(blob=good.blob[:-20], diff_id=good.diff_id)])),
            'trailing': ('gzip', image.Image([image.Layer(blob=good.blob + b'more', diff_id=good.diff_id)])),
            'zstd': ('zstd', image.Image([image.Layer(
                blob=image.compress(good.tar, 'zstd')[:-4], how='zstd', diff_id=good.diff_id)])),
        }
        for tag, (words, what) in cases.items():
            with self.subTest(tag):
                self.add('lies:' + tag, what)
                self.fails(self.registry.address + '/lies:' + tag, words, 'layer sha256:')
        self.assertEqual(os.listdir(os.path.join(self.store, 'layers')), [])
        self.assertEqual(tools.index(self.store), [])

    def test_a_blob_that_changed_at_the_registry(self):
        what = image.Image([small('right' * 1000, how='none')])
        self.add('rotten:v1', what)
        blob = image.digest(what.layers[0].blob)[7:]
        path = os.path.join(self.registry.directory, 'storage/docker/registry/v2/blobs/sha256', blob[:2], blob, 'data')
        with open(path, 'r+b') as out:
            out.seek(2000)
            out.write(b'X')
        self.fails(self.registry.address + '/rotten:v1', 'digest of what came is')

    def test_documents_that_are_two_things(self):
        """S14: a hand-written manifest is refused, whatever a tool made of it."""
        config = image.Image([]).config_bytes()
        types = image.OCI
        base = {'schemaVersion': 2, 'mediaType': types['manifest'],
                'config': image.descriptor(types['config'], config), 'layers': []}
        layer = image.descriptor('application/x-tape', b'x')
        cases = {
            'both': (json.dumps(dict(base, manifests=[])), 'both manifests and layers'),
            'twice': (json.dumps(base)[:-1] + ', "layers": []}', 'twice'),
            'layer': (json.dumps(dict(base, layers=[layer])), 'application/x-tape'),
            'chart': (json.dumps(dict(base, config=image.descriptor('application/vnd.cncf.helm.config.v1+json', config))),
                      'not a container image'),
            'negative': (json.dumps(dict(base, layers=[dict(layer, mediaType=types['none'], size=-1)])), 'size'),
            'count': (json.dumps(dict(base, layers=[image.descriptor(types['none'], b'')])), 'names 0 layers'),
        }
        for tag, (text, words) in cases.items():
            with self.subTest(tag):
                fake = FakeRegistry(text.encode(), types['manifest'], {image.digest(config): config})
                try:
                    status, _, said = tools.pull(self.store, fake.address + '/x:' + tag)
                finally:
                    fake.stop()
                self.assertEqual(status, 125, said)
                self.assertRegex(said, words if tag != 'twice' else 'twice|duplicate|layers')

    def test_https_with_a_private_authority(self):
        with registry.Registry(os.path.join(self.scratch, 'tls'), tls=True) as other:
            image.Layout(self.layout).add('tls:v1', image.Image([small('tls')]))
            other.push(self.layout, 'tls:v1', 'tls', 'v1')
            certs = os.path.join(self.scratch, 'certs.d')
            os.makedirs(os.path.join(certs, other.address))
            name = other.address + '/tls:v1'
            # An authority we do not know, but loopback: taken as Docker does. One of another host: not taken.
            with open(os.path.join(self.make_ca(), 'ca.pem')) as source, \
                    open(os.path.join(certs, other.address, 'ca.crt'), 'w') as out:
                out.write(source.read())
            self.fails(name, 'certificate', flags=['--certs-dir', certs])
            with open(other.ca) as source, open(os.path.join(certs, other.address, 'ca.crt'), 'w') as out:
                out.write(source.read())
            self.ok(name, '--certs-dir', certs)
            self.assertEqual(self.text_of('/tls:v1'), 'tls')

    def make_ca(self):
        where = os.path.join(self.scratch, 'other-ca')
        os.makedirs(where, exist_ok=True)
        subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=other', '-days', '2',
                        '-keyout', os.path.join(where, 'key.pem'), '-out', os.path.join(where, 'ca.pem')], check=True,
                       stderr=subprocess.DEVNULL)
        return where

    def test_logins(self):
        for auth in ('basic', 'token'):
            with self.subTest(auth), registry.Registry(os.path.join(self.scratch, auth), user='user', password='pass word:x',
                                                       auth=auth) as other:
                image.Layout(self.layout).add('auth:v1', image.Image([small(auth)]))
                other.push(self.layout, 'auth:v1', 'team/auth', 'v1')
                name = other.address + '/team/auth:v1'
                self.fails(name, 'no credentials' if auth == 'basic' else 'credentials')
                config = os.path.join(self.scratch, 'config.json')
                with open(config, 'w') as out:
                    out.write(other.docker_config())
                text = self.fails(other.address + '/team/nope', 'not found', flags=['--docker-config', config])
                self.assertNotIn('pass word', text)
                self.ok(name, '--docker-config', config)
                self.assertEqual(self.text_of(name), auth)
                with open(config, 'w') as out:
                    out.write(other.docker_config().replace(registry.base64.b64encode(b'user:pass word:x').decode(),
                                                            registry.base64.b64encode(b'user:wrong').decode()))
                self.fails(name, 'denied' if auth == 'basic' else 'refuses', flags=['--docker-config', config])

    def test_credential_helper(self):
        with registry.Registry(os.path.join(self.scratch, 'helper'), user='user', password='secret', auth='basic') as other:
            image.Layout(self.layout).add('helper:v1', image.Image([small('helped')]))
            other.push(self.layout, 'helper:v1', 'helper', 'v1')
            helper = '/usr/local/bin/docker-credential-cwtest%d' % os.getpid()
            with open(helper, 'w') as out:
                out.write('#!/bin/sh\nread -r server\n[ "$1 $server" = "get %s" ] || exit 1\n'
                          'echo \'{"ServerURL":"x","Username":"user","Secret":"secret"}\'\n' % other.address)
            os.chmod(helper, 0o755)
            config = os.path.join(self.scratch, 'helper.json')
            with open(config, 'w') as out:
                json.dump({'credHelpers': {other.address: os.path.basename(helper)[len('docker-credential-'):]}}, out)
            try:
                self.ok(other.address + '/helper:v1', '--docker-config', config)
            finally:
                os.unlink(helper)

    def test_mirror_first_then_the_registry(self):
        self.add('mirrored:v1', image.Image([small('from upstream')]))
        with registry.Registry(os.path.join(self.scratch, 'mirror')) as mirror:
            flags = ['--registry-mirror', '%s=http://%s' % (self.registry.address, mirror.address)]
            self.ok(self.registry.address + '/mirrored:v1', *flags)
            image.Layout(self.layout).add('mirrored:v2', image.Image([small('from the mirror')]))
            mirror.push(self.layout, 'mirrored:v2', 'mirrored', 'v2')
            self.ok(self.registry.address + '/mirrored:v2', *flags)
            self.assertEqual(self.text_of('/mirrored:v2'), 'from the mirror')

    def test_killed_at_any_time_then_pulled_again(self):
        rng = image.random.Random(1)
        layers = [image.Layer([image.directory('d%d' % n)] + [
            image.file('d%d/%d' % (n, k), rng.randbytes(60000)) for k in range(60)]) for n in range(4)]
        self.add('killed:v1', image.Image(layers))
        name = self.registry.address + '/killed:v1'
        killed = 0
        for n in range(12):
            pull = subprocess.Popen(tools.command(self.store, name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.01 + 0.015 * n)
            killed += pull.poll() is None
            pull.kill()
            pull.wait()
            for entry in tools.index(self.store) if os.path.isdir(os.path.join(self.store, 'images')) else []:
                for key in entry['layers']:
                    self.assertTrue(os.path.isdir(os.path.join(self.store, 'layers', key, 'fs')))
        self.assertGreater(killed, 0)
        self.ok(name)
        with tools.Merged(tools.lowerdirs(self.store, '/killed:v1')) as merged:
            for n, layer in enumerate(layers):
                with tarfile.open(fileobj=image.io.BytesIO(layer.tar)) as tar:
                    for member in tar:
                        if member.isfile():
                            with open(os.path.join(merged, member.name), 'rb') as source:
                                self.assertEqual(source.read(), tar.extractfile(member).read())

    def test_many_at_once_share_the_work(self):
        rng = image.random.Random(2)
        layers = [image.Layer([image.file('f%d' % n, rng.randbytes(3000000))]) for n in range(3)]
        self.add('shared:v1', image.Image(layers))
        name = self.registry.address + '/shared:v1'
        before = self.blob_requests()
        pulls = [subprocess.Popen(tools.command(self.store, name), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                 for _ in range(4)]
        for pull in pulls:
            _, text = pull.communicate(timeout=120)
            self.assertEqual(pull.returncode, 0, text)
        wanted = {image.digest(layer.blob) for layer in layers}

        def requests():
            return [r for r in self.blob_requests()[len(before):] if any(d in r for d in wanted)]
        deadline = time.monotonic() + 60
        while len(requests()) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)  # a request is logged when it has been answered
        self.assertEqual(len(requests()), 3, requests())
        self.assertEqual(tools.leftovers(self.store), [])

    def blob_requests(self):
        with open(os.path.join(self.registry.directory, 'registry.log')) as log:
            return [line for line in log if '"GET /v2/' in line and '/blobs/' in line and ' 200 ' in line]

    def test_ends_soon_when_told_to(self):
        fake = FakeRegistry(None, None, {}, stall=True)
        try:
            pull = subprocess.Popen(tools.command(self.store, fake.address + '/x:y'), stderr=subprocess.PIPE)
            self.assertTrue(fake.asked.wait(60))
            pull.send_signal(signal.SIGTERM)
            pull.wait(timeout=40)
            self.assertNotEqual(pull.returncode, 0)
        finally:
            pull.kill()
            pull.communicate()
            fake.stop()

    def test_full_disk(self):
        """Refused before the first byte when it cannot fit; a disk that fills half-way leaves nothing."""
        loop, where = os.path.join(self.scratch, 'disk'), os.path.join(self.scratch, 'full')
        with open(loop, 'wb') as out:
            out.truncate(24 << 20)
        os.mkdir(where)
        subprocess.run(['mkfs.ext4', '-q', loop], check=True)
        subprocess.run(['mount', '-o', 'loop', loop, where], check=True)
        self.store = os.path.join(where, 'store')
        try:
            big = image.Image([image.Layer([image.file('f', image.random.Random(3).randbytes(30 << 20))])])
            self.add('big:v1', big)
            self.fails(self.registry.address + '/big:v1', 'needs about', 'free in ' + self.store)
            zeros = image.Image([image.Layer([image.file('f%d' % n, bytes(4 << 20)) for n in range(12)])])
            self.add('zeros:v1', zeros)
            self.fails(self.registry.address + '/zeros:v1', 'No space left on device')
            self.add('fits:v1', image.Image([small('fits')]))
            self.ok(self.registry.address + '/fits:v1')
        finally:
            subprocess.run(['umount', where], check=True)


class FakeRegistry:
    """One manifest and a few blobs, served as they are."""

    def __init__(self, manifest, media_type, blobs, stall=False):
        import http.server
        import threading
        self.asked = asked = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_GET(self):
                asked.set()
                if stall:
                    time.sleep(60)
                data = manifest if '/manifests/' in self.path else blobs.get(self.path.rsplit('/', 1)[1])
                self.send_response(200 if data is not None else 404)
                self.send_header('Content-Length', str(len(data or b'')))
                if '/manifests/' in self.path:
                    self.send_header('Content-Type', media_type)
                self.end_headers()
                self.wfile.write(data or b'')

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        self.address = '127.0.0.1:%d' % self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


if __name__ == '__main__':
    sys.exit(unittest.main())
