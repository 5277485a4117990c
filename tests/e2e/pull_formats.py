#!/usr/bin/env python3
# needs: root
# timeout: 240
# rows: S12 S13 S14 S58 B146
"""Every form an image comes in: what compressors write, indexes in indexes, 500 layers, layouts, archives, docker save."""
import gzip
import io
import json
import os
import random
import struct
import subprocess
import sys
import tarfile
import unittest

import pull_tools as tools

import image  # noqa: E402
import registry  # noqa: E402


def small(text='hello', **more):
    return image.Layer([image.directory('etc'), image.file('etc/text', text)], **more)


def zstd(data, *flags):
    return subprocess.run(['zstd', '-q', '-c', *flags], input=data, stdout=subprocess.PIPE, check=True).stdout


def skippable(data, kind=0):
    return struct.pack('<II', 0x184D2A50 + kind, len(data)) + data


def tar_of(members):
    """A tar of {name: bytes, or ('->', target)}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, tuple):
                info.type, info.linkname = tarfile.SYMTYPE, data[1]
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Base(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        tools.own_mounts()
        cls.scratch = tools.scratch()

    @classmethod
    def tearDownClass(cls):
        tools.remove(cls.scratch)

    def setUp(self):
        self.here = os.path.join(self.scratch, self.id().rsplit('.', 1)[1])
        os.makedirs(self.here)
        self.store = os.path.join(self.here, 'store')

    def path(self, name, data=None):
        path = os.path.join(self.here, name)
        if data is not None:
            with open(path, 'wb') as out:
                out.write(data)
        return path

    def ok(self, name, *flags):
        status, out, text = tools.pull(self.store, name, *flags)
        self.assertEqual(status, 0, text)
        self.assertEqual(tools.leftovers(self.store), [])
        return out.strip()

    def fails(self, name, *words):
        status, out, text = tools.pull(self.store, name)
        self.assertEqual(status, 125, out + text)
        for word in words:
            self.assertIn(word, text)
        self.assertEqual(tools.leftovers(self.store), [])
        self.assertEqual(tools.index(self.store), [])

    def text_of(self, name, path='etc/text'):
        with tools.Merged(tools.lowerdirs(self.store, name)) as merged:
            with open(os.path.join(merged, path)) as source:
                return source.read()

    def names(self):
        return sorted(ref['ref'] for entry in tools.index(self.store) for ref in entry['refs'])


class FromRegistry(Base):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.registry = registry.Registry(os.path.join(cls.scratch, 'registry')).start()

    @classmethod
    def tearDownClass(cls):
        cls.registry.stop()
        super().tearDownClass()

    def push(self, name, what):
        layout = image.Layout(self.path('layout'))
        layout.add(name, what)
        self.registry.push(layout.path, name, *name.split(':'))
        return '%s/%s' % (self.registry.address, name)

    def test_what_compressors_write(self):
        tar = image.tar_bytes([image.directory('etc'), image.file('etc/text', 'whole'),
                               image.file('noise', image.random.Random(5).randbytes(300000))])
        third = len(tar) // 3
        parts = [tar[:third], tar[third:2 * third], tar[2 * third:]]
        table = b'{"version":1,"entries":[]}'
        footer = b'\0' * 32 + b'GNUlInUx'
        forms = {
            'gzip-members': ('gzip', b''.join(gzip.compress(p, 6, mtime=0) for p in parts)),
            'gzip-empty-member': ('gzip', gzip.compress(b'', mtime=0) + gzip.compress(tar, mtime=0)),
            'gzip-named': ('gzip', gzip_named(tar)),
            'gzip-stored': ('gzip', gzip.compress(tar, 0, mtime=0)),
            'zstd-frames': ('zstd', b''.join(zstd(p) for p in parts)),
            'zstd-no-checksum': ('zstd', zstd(tar, '--no-check')),
            'zstd-unknown-size': ('zstd', subprocess.run(['sh', '-c', 'cat | zstd -q -c -3'], input=tar, check=True,
                                                         stdout=subprocess.PIPE).stdout),
            'zstd-long': ('zstd', zstd(tar, '--long=27', '-19')),
            'zstd-skippable': ('zstd', skippable(b'note') + zstd(parts[0]) + skippable(b'x' * 70000, 5) + zstd(tar[third:])),
            # zstd:chunked: frames by file, then the table of contents and a footer in skippable frames
            'zstd-chunked': ('zstd', b''.join(zstd(p) for p in parts) + skippable(zstd(table)) + skippable(footer)),
            'plain': ('none', tar),
        }
        for form, (how, blob) in forms.items():
            for fmt in ('oci', 'docker'):
                with self.subTest(form=form, fmt=fmt):
                    name = self.push('forms:%s-%s' % (fmt, form), image.Image(
                        [image.Layer(blob=blob, how=how, diff_id=image.digest(tar))], fmt=fmt))
                    self.ok(name)
                    self.assertEqual(self.text_of(name), 'whole')

    def test_empty_layers(self):
        empty_tar = bytes(1024)
        layers = [image.Layer(blob=gzip.compress(empty_tar, mtime=0), diff_id=image.digest(empty_tar)), small('x'),
                  image.Layer(blob=b'', how='none', diff_id=image.digest(b''))]
        for n in range(1, 4):
            name = self.push('empty:%d' % n, image.Image(layers[:n]))
            self.ok(name)
        self.assertEqual(self.text_of('/empty:3'), 'x')

    def test_indexes_in_indexes(self):
        layout = image.Layout(self.path('layout'))
        entry = layout.add('deep:0', image.Image([small('deep')])) and layout.find('deep:0')
        entry = {k: entry[k] for k in ('mediaType', 'digest', 'size', 'platform')}
        for depth in range(1, 5):
            data = json.dumps({'schemaVersion': 2, 'mediaType': image.OCI['index'], 'manifests': [entry]}).encode()
            name = 'deep:%d' % depth
            layout.add_manifest(name, image.OCI['index'], data)
            entry = image.descriptor(image.OCI['index'], data)
            self.registry.push(layout.path, name, *name.split(':'))
            if depth <= 3:
                self.ok('%s/%s' % (self.registry.address, name))
                self.assertEqual(self.text_of('/' + name), 'deep')
        self.store = self.path('other-store')
        self.fails(self.registry.address + '/deep:4', 'nested more than 3 deep')

    def test_variants(self):
        """Of several variants the best this processor runs; attestations and unknown platforms are passed over."""
        arch = {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(os.uname().machine, os.uname().machine)
        offered = ['unknown/unknown', 'linux/%s/v99' % arch, 'linux/' + arch, 'linux/s390x']
        name = self.push('variant:v1', [image.Image([small(p)], platform=p) for p in offered])
        self.ok(name)
        self.assertEqual(self.text_of(name), 'linux/' + arch)

    def test_unknown_types_by_name(self):
        for kind, wanted in (('application/vnd.oci.image.layer.v1.tar+bzip2', 'tar+bzip2'),
                             ('application/vnd.in-toto+json', 'in-toto'),
                             ('application/vnd.oci.image.layer.v1.tar+zstd+encrypted', 'encrypted')):
            with self.subTest(kind):
                one = image.Image([small()])
                manifest = one.manifest()
                manifest['layers'][0]['mediaType'] = kind
                layout = image.Layout(self.path('layout'))
                layout.add('odd:v1', one)
                layout.add_manifest('odd:v1', manifest['mediaType'], json.dumps(manifest).encode())
                self.registry.push(layout.path, 'odd:v1', 'odd', 'v1')
                self.fails(self.registry.address + '/odd:v1', 'layer 1', 'of a type we do not know', wanted)


def gzip_named(data):
    """With a name, a comment and an extra field in its header."""
    plain = gzip.compress(data, 6, mtime=0)
    return plain[:3] + bytes([4 | 8 | 16]) + plain[4:10] + struct.pack('<H', 6) + b'xx\2\0ab' + b'layer.tar\0note\0' + plain[10:]


def tail_of(path):
    with open(path, 'rb') as f:
        f.seek(max(0, os.path.getsize(path) - (16 << 20)))
        return f.read()


class FromFiles(Base):
    def layout(self, **images):
        layout = image.Layout(self.path('layout'))
        for name, what in images.items():
            layout.add(name, what)
        return layout.path

    def test_a_layout(self):
        path = self.layout(v1=image.Image([small('one')]))
        self.assertRegex(self.ok('oci:' + path), '^sha256:')
        self.assertEqual(self.text_of('oci:' + path), 'one')
        self.ok('oci:%s:v1' % path)
        image.Layout(path).add('v2', image.Image([small('two')]))
        self.ok('oci:%s:v2' % path)
        self.assertEqual(self.text_of(':v2'), 'two')
        self.store = self.path('other-store')
        self.fails('oci:' + path, 'several images', 'v1, v2')
        self.fails('oci:%s:v3' % path, 'no image of that name')
        self.fails('oci:' + self.here + '/nowhere', 'No such file')
        self.fails('oci:' + self.here, 'no OCI layout')

    def test_a_layout_of_several_platforms(self):
        arch = {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(os.uname().machine, os.uname().machine)
        path = self.layout(v1=[image.Image([small(p)], platform=p) for p in ('linux/s390x', 'linux/' + arch)])
        self.ok('oci:' + path)
        self.assertEqual(self.text_of('oci:' + path), 'linux/' + arch)

    def test_sparse_files_as_gnu_tar_makes_them_of_its_own(self):
        """Old GNU entries (with more pieces than one header holds), and the three ways of PAX: the same bytes, the same holes."""
        top = self.path('files')
        os.makedirs(top + '/d')
        rng = random.Random(9)
        for name, pieces, size in (('many', 60, 8 << 20), ('few', 3, 1 << 20), ('hole-only', 0, 1 << 20), ('hole-last', 1, 3 << 20),
                                   ('large', 2, 9 << 30), ('none', 1, 5000)):
            with open('%s/d/%s' % (top, name), 'wb') as f:
                f.truncate(size)
                for n in range(pieces):
                    f.seek(size // 100 * (n + (name != 'none')) * (1 if name == 'many' else 20))
                    f.write(rng.randbytes(4096 if n % 2 else 5000))
            os.utime('%s/d/%s' % (top, name), (1600000000, 1600000000))
        for n, how in enumerate((['--format=gnu'], ['--format=posix', '--sparse-version=0.0'],
                                 ['--format=posix', '--sparse-version=0.1'], ['--format=posix', '--sparse-version=1.0'])):
            with self.subTest(how=how):
                data = subprocess.run(['tar', '-C', top, '-S', '-c', *how, 'd'], check=True, stdout=subprocess.PIPE).stdout
                self.assertEqual(any(data[at + 156:at + 157] == b'S' and data[at + 257:at + 262] == b'ustar'
                                     for at in range(0, len(data), 512)), n == 0)
                theirs = self.path('theirs%d' % n)
                os.mkdir(theirs)
                subprocess.run(['tar', '-C', theirs, '-x'], input=data, check=True)
                layout = image.Layout(self.path('layout%d' % n))
                layout.add('v1', image.Image([image.Layer(raw=data)]))
                self.ok('oci:%s:v1' % layout.path)
                where, = tools.lowerdirs(self.store, 'layout%d:v1' % n)
                for name in os.listdir(top + '/d'):
                    a, b = ('%s/d/%s' % (at, name) for at in (where, theirs))
                    st, other = os.stat(a), os.stat(b)
                    self.assertEqual((name, st.st_size, st.st_mtime), (name, other.st_size, other.st_mtime))
                    self.assertLessEqual(st.st_blocks, other.st_blocks + 16, name)
                    self.assertEqual(subprocess.run(['cmp', '-n', str(64 << 20), a, b], check=False).returncode, 0, name)
                    self.assertEqual(image.digest(tail_of(a)), image.digest(tail_of(b)), name)

    def test_500_layers_and_501(self):
        layers = [image.Layer([image.directory('d'), image.file('d/%03d' % n, str(n))], how='none') for n in range(501)]
        path = self.layout(v1=image.Image(layers[:500]), v2=image.Image(layers))
        self.fails('oci:%s:v2' % path, 'layers')
        self.ok('oci:%s:v1' % path)
        self.assertEqual(len(tools.lowerdirs(self.store, ':v1')), 500)

    def test_archives(self):
        path = self.layout(v1=image.Image([small('packed'), small('more', how='zstd')]))
        forms = {'plain.tar': [], 'named.tar.gz': ['-z'], 'zst.tar': ['--zstd'], 'pax.tar': ['--format=pax'],
                 'v7.tar': ['--format=gnu', '-b', '1']}
        for name, flags in forms.items():
            with self.subTest(name):
                file = self.path(name)
                subprocess.run(['tar', '-c', *flags, '-f', file, '-C', path, '.'], check=True)
                self.ok('oci-archive:' + file)
                self.ok('oci-archive:%s:v1' % file)
                self.assertEqual(self.text_of(file), 'more')
        subprocess.run(['skopeo', 'copy', '--quiet', '--insecure-policy', 'oci:%s:v1' % path, 'oci-archive:' + self.path('by-skopeo')],
                       check=True)
        self.ok('oci-archive:' + self.path('by-skopeo'))

    def docker_old(self, how='none'):
        """As docker before 25 wrote it; the third layer is a link to the first."""
        layers = [small('base'), small('saved'), small('base')]
        one = image.Image(layers)
        config = one.config_bytes()
        names = ['%064x/layer.tar' % n for n in range(3)]
        members = {names[n]: image.compress(layers[n].tar, how) for n in range(2)}
        members[names[2]] = ('->', '../' + names[0])
        members['cfg.json'] = config
        members['repositories'] = b'{}'
        members['manifest.json'] = json.dumps([{'Config': 'cfg.json', 'RepoTags': ['saved:v1', 'registry.org/team/saved:v2'],
                                                'Layers': names}]).encode()
        return members

    def test_docker_save_in_its_old_form(self):
        for how in ('none', 'gzip', 'zstd'):
            for packed in (False, True):
                with self.subTest(how=how, packed=packed):
                    self.store = self.path('store-%s-%d' % (how, packed))
                    data = tar_of(self.docker_old(how))
                    file = self.path('old-%s-%d.tar' % (how, packed), gzip.compress(data, mtime=0) if packed else data)
                    self.ok('docker-archive:' + file)
                    self.assertEqual(self.text_of('docker.io/library/saved:v1'), 'base')
                    self.assertEqual(self.names(), ['docker-archive:' + file, 'docker.io/library/saved:v1',
                                                    'registry.org/team/saved:v2'])
                    self.ok('docker-archive:%s:registry.org/team/saved:v2' % file)

    def test_docker_save_in_its_new_form(self):
        path = self.layout(**{'docker.io/library/new:v1': image.Image([small('new', how='none'), small('newer')])})
        layout = image.Layout(path)
        manifest = json.loads(image.read(layout.blob_path(layout.find(None)['digest'])))
        blob = ['blobs/sha256/' + d['digest'][7:] for d in [manifest['config']] + manifest['layers']]
        with open(os.path.join(path, 'manifest.json'), 'w') as out:
            json.dump([{'Config': blob[0], 'RepoTags': ['new:v1'], 'Layers': blob[1:]}], out)
        file = self.path('new.tar')
        subprocess.run(['tar', '-cf', file, '-C', path, '.'], check=True)
        for transport in ('docker-archive:', 'oci-archive:'):
            self.ok(transport + file)
            self.assertEqual(self.text_of(transport + file), 'newer')
        self.assertIn('docker.io/library/new:v1', self.names())

    def test_docker_archive_by_skopeo(self):
        path = self.layout(v1=image.Image([small('by skopeo')]))
        file = self.path('skopeo.tar')
        subprocess.run(['skopeo', 'copy', '--quiet', '--insecure-policy', 'oci:%s:v1' % path,
                        'docker-archive:%s:example.org/a/b:v9' % file], check=True)
        self.ok('docker-archive:' + file)
        self.assertEqual(self.text_of('example.org/a/b:v9'), 'by skopeo')

    def test_only_an_import_gives_names(self):
        """cwrun run of an archive must not make "ubuntu" what the archive calls so."""
        file = self.path('old.tar', tar_of(self.docker_old()))
        subprocess.run([os.path.join(tools.BIN, 'cwrun'), 'run', '-q', '--store', self.store, 'docker-archive:' + file, '/none'],
                       stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        self.assertEqual(self.names(), ['docker-archive:' + file])

    def test_lies_in_files(self):
        """S12, S13: a file's image is believed no more than a registry's."""
        good = self.docker_old()
        config = json.loads(good['cfg.json'])
        manifest = json.loads(good['manifest.json'])[0]

        def docker(**changed):
            members = dict(good, **{k: v for k, v in changed.items() if '.' in k})
            return tar_of({k: v for k, v in members.items() if v is not None})

        def listed(**more):
            return json.dumps([dict(manifest, **more)]).encode()
        name = manifest['Layers'][1]
        cases = {
            'other-layer': (docker(**{name: image.tar_bytes([image.file('x', 'y')])}), 'digest of what came is'),
            'no-layer': (docker(**{name: None}), 'layer 2: there is no ' + name),
            'no-config': (docker(**{'cfg.json': None}), 'there is no cfg.json'),
            'no-manifest': (docker(**{'manifest.json': None}), 'not what docker save writes'),
            'fewer': (docker(**{'manifest.json': listed(Layers=manifest['Layers'][:2])}), 'names 2 layers, the configuration 3'),
            'outside': (docker(**{'manifest.json': listed(Config='/etc/passwd')}), 'there is no /etc/passwd'),
            'above': (docker(**{'manifest.json': listed(Config='../../etc/passwd')}), 'there is no ../../etc/passwd'),
            'circle': (docker(**{'cfg.json': ('->', 'cfg.json')}), 'there is no cfg.json'),
            'way-out': (docker(**{'cfg.json': ('->', '/etc/hostname')}), 'there is no cfg.json'),
            'two': (docker(**{'manifest.json': json.dumps([manifest, manifest]).encode()}), '2 images in it'),
            'digest': (docker(**{'cfg.json': json.dumps(dict(config, rootfs={'type': 'layers', 'diff_ids': [
                'sha256:../../../etc'] * 3})).encode()}), 'not a digest'),
            'cut': (docker()[:2000], 'cut off'),
            'garbage': (b'no tar ' * 1000, 'docker-archive'),
            'empty': (b'', 'not what docker save writes'),
        }
        for what, (data, words) in cases.items():
            with self.subTest(what):
                self.fails('docker-archive:' + self.path(what + '.tar', data), words)
        path = self.layout(v1=image.Image([small('right', how='none')]))
        layout = image.Layout(path)
        entry = layout.find('v1')
        for which in ('manifest', 'config', 'layer'):
            doc = json.loads(image.read(layout.blob_path(entry['digest'])))
            digest = {'manifest': entry, 'config': doc['config'], 'layer': doc['layers'][0]}[which]['digest']
            right = image.read(layout.blob_path(digest))
            with open(layout.blob_path(digest), 'wb') as out:
                out.write(right.replace(b'right', b'wrong') if which == 'layer' else right.replace(b'{', b'{ ', 1))
            with self.subTest(which):
                self.fails('oci:' + path, 'digest')
            with open(layout.blob_path(digest), 'wb') as out:
                out.write(right)
            os.rename(layout.blob_path(digest), layout.blob_path(digest) + 'x')
            os.symlink('/etc/hostname', layout.blob_path(digest))
            with self.subTest(which + ' is a link'):
                self.fails('oci:' + path)
            os.rename(layout.blob_path(digest) + 'x', layout.blob_path(digest))
        with open(layout.index_path, 'w') as out:
            json.dump({'schemaVersion': 2, 'manifests': [dict(entry, digest='sha256:../../x')]}, out)
        self.fails('oci:' + path, 'not a digest')

    def test_names_that_could_be_either(self):
        """"oci:latest" is an image of a registry, unless there is such a directory."""
        self.fails('oci:latest', 'registry')
        here = os.getcwd()
        path = self.layout(v1=image.Image([small('local')]))
        os.chdir(self.here)
        try:
            self.ok('oci:layout')
            self.ok('oci:./layout:v1')
        finally:
            os.chdir(here)
        self.assertEqual(self.names(), ['oci:' + path, 'oci:%s:v1' % path])

    def test_listed_inspected_and_removed_by_its_name(self):
        path = self.layout(v1=image.Image([small('local')]))
        self.ok('oci:%s:v1' % path)
        tools.remove(path)

        def cwrun(verb, *args):
            return subprocess.run([os.path.join(tools.BIN, 'cwrun'), verb, '--store', self.store, *args], check=True,
                                  capture_output=True, text=True).stdout
        self.assertIn('oci:%s:v1' % path, cwrun('images'))
        self.assertIsNone(json.loads(cwrun('inspect', 'oci:%s:v1' % path))['repoDigest'])
        cwrun('rmi', 'oci:%s:v1' % path)
        self.assertEqual(tools.index(self.store), [])

    def test_a_bundle_cannot_name_files(self):
        """S58: what a service says names registries only."""
        path = self.layout(v1=image.Image([small('local')]))
        bundle = {'uuid': '0x' + '1' * 32, 'bundle_type': 'run', 'command': 'true', 'owner': {'id': '1'},
                  'metadata': {}, 'dependencies': []}
        for name in ('oci:' + path, 'oci-archive:/etc/hostname', 'docker-archive:/etc/hostname', 'dir:/etc', path):
            with self.subTest(name):
                resources = {'cpus': 1, 'gpus': 0, 'docker_image': name, 'time': 10, 'memory': 100 << 20, 'disk': 1 << 30,
                             'network': False}
                file = self.path('bundle.json', json.dumps({'bundle': bundle, 'resources': resources}).encode())
                done = subprocess.run([os.path.join(tools.BIN, 'cwrun'), 'bundle', '--store', self.store, '--output',
                                       self.path('out'), file], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                      timeout=60)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn('image reference', done.stderr)
        self.assertEqual(tools.index(self.store) if os.path.isdir(self.store) else [], [])


if __name__ == '__main__':
    sys.exit(unittest.main())
