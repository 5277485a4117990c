#!/usr/bin/env python3
# needs: root
# timeout: 240
# rows: S05 S12
"""The trust policy: allowed registries, digests only, signatures made by openssl and kept where cosign keeps them."""
import base64
import json
import os
import subprocess
import sys
import unittest

import pull_tools as tools

import image  # noqa: E402
import registry  # noqa: E402

PAYLOAD = 'application/vnd.dev.cosign.simplesigning.v1+json'
KINDS = {'ecdsa': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'], 'p384': ['-algorithm', 'EC', '-pkeyopt',
                                                                                    'ec_paramgen_curve:P-384'],
         'rsa': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'], 'ed25519': ['-algorithm', 'ED25519']}
WEAK = {'rsa1024': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024'],
        'p224': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-224'], 'x25519': ['-algorithm', 'X25519']}


def openssl(*args, **more):
    return subprocess.run(['openssl', *args], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **more).stdout


class TrustPolicy(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        tools.own_mounts()
        cls.scratch = tools.scratch('trust.')
        for name, how in {**KINDS, **WEAK, 'other': KINDS['ecdsa']}.items():
            openssl('genpkey', *how, '-out', cls.file(name + '.key'))
            openssl('pkey', '-in', cls.file(name + '.key'), '-pubout', '-out', cls.file(name + '.pub'))
        cls.registry = registry.Registry(cls.file('registry')).start()
        cls.layout = image.Layout(cls.file('layout'))
        cls.client = registry.Client(cls.registry.address)

    @classmethod
    def tearDownClass(cls):
        cls.registry.stop()
        tools.remove(cls.scratch)

    @classmethod
    def file(cls, name):
        return os.path.join(cls.scratch, name)

    def setUp(self):
        self.store = self.file('store-' + self.id().rsplit('.', 1)[1])

    # ---- making

    def push(self, repository, text, tag='v1'):
        """A new image; its digest."""
        name = '%s:%s' % (repository, tag)
        what = image.Image([image.Layer([image.directory('etc'), image.file('etc/text', text)])])
        self.layout.add(name, what)
        return self.registry.push(self.layout.path, name, repository, tag)

    def payload(self, repository, digest, **changed):
        critical = {'identity': {'docker-reference': '%s/%s' % (self.registry.address, repository)},
                    'image': {'docker-manifest-digest': digest}, 'type': 'cosign container image signature', **changed}
        return json.dumps({'critical': critical, 'optional': None}).encode()

    def sign_bytes(self, key, data):
        if key == 'ed25519':
            with open(self.file('payload'), 'wb') as out:
                out.write(data)
            return openssl('pkeyutl', '-sign', '-rawin', '-inkey', self.file(key + '.key'), '-in', self.file('payload'))
        return openssl('dgst', '-sha256', '-sign', self.file(key + '.key'), input=data)

    def put_signatures(self, repository, digest, *signatures):
        """signatures: (payload, base64 of the signature)."""
        config = b'{}'
        registry.push_blob(self.client, repository, image.digest(config), config)
        layers = []
        for payload, signature in signatures:
            registry.push_blob(self.client, repository, image.digest(payload), payload)
            layers.append(image.descriptor(PAYLOAD, payload, annotations={'dev.cosignproject.cosign/signature': signature}))
        manifest = {'schemaVersion': 2, 'mediaType': image.OCI['manifest'],
                    'config': image.descriptor(image.OCI['config'], config), 'layers': layers}
        self.client.expect(201, 'PUT', '/v2/%s/manifests/%s.sig' % (repository, digest.replace(':', '-')),
                           json.dumps(manifest).encode(), {'Content-Type': image.OCI['manifest']})

    def sign(self, repository, digest, *keys):
        payload = self.payload(repository, digest)
        self.put_signatures(repository, digest, *[(payload, base64.b64encode(self.sign_bytes(k, payload)).decode()) for k in keys])

    def policy(self, **rules):
        path = self.file('policy-%s.json' % self.id().rsplit('.', 1)[1])
        with open(path, 'w') as out:
            json.dump(rules, out)
        os.chmod(path, 0o644)
        return path

    def signed_by(self, *keys, scope=None, **more):
        return self.policy(signatures=[{'scope': scope or self.registry.address, 'keys': [k + '.pub' for k in keys], **more}])

    # ---- asking

    def pull(self, name, policy):
        flags = ['--trust-policy', policy] if policy else []
        if not name.startswith('oci:'):
            name = '%s/%s' % (self.registry.address, name)
        return tools.pull(self.store, name, *flags)

    def ok(self, name, policy):
        status, _, text = self.pull(name, policy)
        self.assertEqual(status, 0, text)

    def refused(self, name, policy, *words, left=()):
        status, out, text = self.pull(name, policy)
        self.assertEqual(status, 125, out + text)
        for word in ('refused by the trust policy',) * (not words) + words:
            self.assertIn(word, text)
        self.assertEqual(tools.leftovers(self.store), [])
        self.assertEqual(tools.index(self.store), list(left))

    # ---- the rules

    def test_no_policy_no_question(self):
        self.push('free/x', 'free')
        self.ok('free/x:v1', None)
        self.ok('free/x:v1', self.policy())

    def test_registries(self):
        self.push('team/x', 'x')
        self.push('teammate/x', 'y')
        here = self.registry.address
        self.ok('team/x:v1', self.policy(registries=['quay.io', here]))
        self.ok('team/x:v1', self.policy(registries=[here + '/team']))
        self.ok('team/x:v1', self.policy(registries=[here + '/team/x']))
        self.store += '-refused'
        self.refused('teammate/x:v1', self.policy(registries=[here + '/team']), 'refused by the trust policy', 'teammate/x is not among')
        self.refused('team/x:v1', self.policy(registries=['quay.io']))
        self.refused('team/x:v1', self.policy(registries=[]))

    def test_digests_only(self):
        digest = self.push('pinned/x', 'pinned')
        policy = self.policy(digestsOnly=True)
        self.refused('pinned/x:v1', policy, 'only images named by digest')
        self.ok('pinned/x@' + digest, policy)

    def test_files(self):
        self.push('file/x', 'file')
        self.refused('oci:%s:file/x:v1' % self.layout.path, self.policy(files=False), 'no images of files')
        self.ok('oci:%s:file/x:v1' % self.layout.path, self.policy(files=True, registries=['quay.io'], digestsOnly=True))

    # ---- signatures

    def test_every_kind_of_key(self):
        for key in KINDS:
            with self.subTest(key):
                repository = 'signed/' + key
                digest = self.push(repository, key)
                self.sign(repository, digest, key)
                self.ok(repository + ':v1', self.signed_by(key))
                self.ok(repository + '@' + digest, self.signed_by('other', key))
                self.store += key
                self.refused(repository + ':v1', self.signed_by('other'), 'not signed by a key of its rule')

    def test_one_of_several_signatures_will_do(self):
        digest = self.push('several/x', 'several')
        self.sign('several/x', digest, 'other', 'rsa', 'ecdsa')
        self.ok('several/x:v1', self.signed_by('ecdsa'))

    def test_not_signed(self):
        self.push('bare/x', 'bare')
        self.refused('bare/x:v1', self.signed_by('ecdsa'), 'it is not signed')
        self.ok('bare/x:v1', self.signed_by('ecdsa', scope=self.registry.address + '/other'))

    def test_the_longest_scope_counts(self):
        digest = self.push('scope/sub/x', 'scope')
        self.sign('scope/sub/x', digest, 'rsa')
        keys = [{'scope': '*', 'keys': ['other.pub']}, {'scope': self.registry.address + '/scope/sub', 'keys': ['rsa.pub']},
                {'scope': self.registry.address + '/scope', 'keys': ['ecdsa.pub']}]
        self.ok('scope/sub/x:v1', self.policy(signatures=keys))
        self.store += '-refused'
        self.refused('scope/sub/x:v1', self.policy(signatures=keys[:1] + keys[2:]))
        self.refused('scope/sub/x:v1', self.policy(signatures=keys[:1]))

    def test_a_whole_index_is_signed(self):
        arch = {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(os.uname().machine, os.uname().machine)
        self.layout.add('index/x:v1', [image.Image([image.Layer([image.file('f', p)])], platform=p)
                                       for p in ('linux/s390x', 'linux/' + arch)])
        digest = self.registry.push(self.layout.path, 'index/x:v1', 'index/x', 'v1')
        self.refused('index/x:v1', self.signed_by('ecdsa'), 'it is not signed')
        self.sign('index/x', digest, 'ecdsa')
        self.ok('index/x:v1', self.signed_by('ecdsa'))

    def test_attacks(self):
        digest = self.push('attack/x', 'right')
        other = self.push('attack/y', 'another image, rightly signed')
        self.sign('attack/y', other, 'ecdsa')
        right = self.payload('attack/x', digest)

        def by(key, payload):
            return payload, base64.b64encode(self.sign_bytes(key, payload)).decode()
        cases = {
            'of another image': ([by('ecdsa', self.payload('attack/x', other))], 'of another image'),
            'of another repository': ([by('ecdsa', self.payload('attack/y', digest))], 'made for another repository'),
            'of another kind': ([by('ecdsa', self.payload('attack/x', digest, type='a poem'))], 'of another kind'),
            'by an unknown key': ([by('other', right)], 'not signed by a key'),
            'of other bytes': ([(right + b' ', by('ecdsa', right)[1])], 'not signed by a key'),
            'cut': ([(right, by('ecdsa', right)[1][:-8])], 'not signed by a key'),
            'no base64': ([(right, '***')], 'is not base64'),
            'empty': ([(right, '')], 'is not base64'),
            'no JSON': ([by('ecdsa', b'signed, but what?')], 'refused by the trust policy: its signature'),
            'a megabyte': ([by('ecdsa', right + b' ' * 1000000)], 'size'),
            'of none': ([], 'it is not signed'),
            'too many': ([by('other', right + b' ' * n) for n in range(101)], 'layers'),
        }
        for what, (signatures, words) in cases.items():
            with self.subTest(what):
                self.put_signatures('attack/x', digest, *signatures)
                self.refused('attack/x:v1', self.signed_by('ecdsa'), words)
        self.put_signatures('attack/x', digest, by('ecdsa', self.payload('attack/y', digest)))
        self.ok('attack/x:v1', self.signed_by('ecdsa', identity='any'))

    def test_a_tag_that_moved_to_something_unsigned(self):
        digest = self.push('moved/x', 'signed')
        self.sign('moved/x', digest, 'ecdsa')
        self.ok('moved/x:v1', self.signed_by('ecdsa'))
        before = tools.index(self.store)
        self.push('moved/x', 'not signed')
        self.refused('moved/x:v1', self.signed_by('ecdsa'), 'it is not signed', left=before)

    def test_what_is_here_already_is_no_way_round(self):
        """An image pulled before there was a policy is not run under it."""
        self.push('here/x', 'here')
        self.ok('here/x:v1', None)
        for rule in (self.signed_by('ecdsa'), self.policy(registries=['quay.io']), self.policy(digestsOnly=True)):
            for policy in ('missing', 'never', 'always'):
                done = subprocess.run([os.path.join(tools.BIN, 'cwrun'), 'run', '-q', '--store', self.store, '--docker-config',
                                       '/dev/null', '--trust-policy', rule, '--pull', policy, self.registry.address + '/here/x:v1'],
                                      stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, 125)
                self.assertIn('refused by the trust policy', done.stderr)

    def test_policies_that_are_none(self):
        self.push('policy/x', 'x')
        with open(self.file('text.pub'), 'w') as out:
            out.write('-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n')
        cases = [({'registry': ['x.org']}, 'no such rule: registry'), ({'digestsOnly': 'yes'}, 'digestsOnly'),
                 ({'registries': ['a b']}, 'not a registry'), ({'registries': ['x.org/y:v1']}, 'not a registry'),
                 ({'registries': ['library']}, 'not a registry'), ({'registries': ['x.org/y@sha256:' + '0' * 64]}, 'not a registry'),
                 ({'signatures': [{'scope': '*', 'keys': []}]}, 'names no keys'),
                 ({'signatures': [{'scope': '*', 'keys': ['nowhere.pub']}]}, 'No such file'),
                 ({'signatures': [{'scope': '*', 'keys': ['text.pub']}]}, 'not a public key'),
                 ({'signatures': [{'scope': '*', 'keys': ['ecdsa.key']}]}, 'not a public key'),
                 ({'signatures': [{'scope': '*', 'keys': ['ecdsa.pub'], 'identity': 'maybe'}]}, 'identity is'),
                 ({'signatures': [{'scope': '*', 'key': 'ecdsa.pub'}]}, 'no such rule: key')]
        cases += [({'signatures': [{'scope': '*', 'keys': [k + '.pub']}]}, 'kind that is taken') for k in WEAK]
        for rules, words in cases:
            with self.subTest(words):
                self.refused('policy/x:v1', self.policy(**rules), 'trust policy', words)
        path = self.policy()
        for mode in (0o664, 0o646):
            os.chmod(path, mode)
            self.refused('policy/x:v1', path, 'may be written by others')
        with open(path, 'w') as out:
            out.write('{"registries": ["x.org"]} trailing')
        os.chmod(path, 0o644)
        self.refused('policy/x:v1', path, 'trust policy ' + path)
        self.refused('policy/x:v1', self.file('nowhere.json'), 'No such file')


if __name__ == '__main__':
    sys.exit(unittest.main())
