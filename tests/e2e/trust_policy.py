#!/usr/bin/env python3
# needs: root
# timeout: 300
# rows: S05 S12
"""The trust policy: allowed registries, digests only, signatures made by openssl and kept where cosign keeps them, in both of its
formats."""
import base64
import json
import os
import subprocess
import sys
import unittest
import urllib.parse

import pull_tools as tools

import bad_registry as bad  # noqa: E402
import image  # noqa: E402
import registry  # noqa: E402

SIGNATURE = 'application/vnd.dev.cosign.artifact.sig.v1+json'
PAYLOAD = 'application/vnd.dev.cosign.simplesigning.v1+json'
BUNDLE = 'application/vnd.dev.sigstore.bundle.v0.3+json'
SIGNED = 'https://sigstore.dev/cosign/sign/v1'
STATEMENT = 'application/vnd.in-toto+json'
KINDS = {'ecdsa': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'], 'p384': ['-algorithm', 'EC', '-pkeyopt',
                                                                                    'ec_paramgen_curve:P-384'],
         'rsa': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'], 'ed25519': ['-algorithm', 'ED25519']}
WEAK = {'rsa1024': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024'],
        'p224': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-224'], 'x25519': ['-algorithm', 'X25519']}


def openssl(*args, **more):
    return subprocess.run(['openssl', *args], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **more).stdout


def image_digest(test, repository):
    return test.client.request('GET', '/v2/%s/manifests/v1' % repository, headers={'Accept': image.OCI['manifest']})[1][
        'Docker-Content-Digest']


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

    @staticmethod
    def signature_manifest(signatures, **more):
        """signatures: (payload, base64 of the signature)."""
        layers = [image.descriptor(PAYLOAD, payload, annotations={'dev.cosignproject.cosign/signature': signature})
                  for payload, signature in signatures]
        return json.dumps({'schemaVersion': 2, 'mediaType': image.OCI['manifest'],
                           'config': image.descriptor(image.OCI['config'], b'{}'), 'layers': layers, **more}).encode()

    def put_manifest(self, repository, reference, data, kind='manifest'):
        self.client.expect(201, 'PUT', '/v2/%s/manifests/%s' % (repository, reference), data, {'Content-Type': image.OCI[kind]})

    def put_signatures(self, repository, digest, *signatures, **more):
        for blob in [b'{}'] + [payload for payload, _ in signatures]:
            registry.push_blob(self.client, repository, image.digest(blob), blob)
        data = self.signature_manifest(signatures, **more)
        self.put_manifest(repository, image.digest(data) if more else digest.replace(':', '-') + '.sig', data)
        return data

    def sign(self, repository, digest, *keys):
        payload = self.payload(repository, digest)
        self.put_signatures(repository, digest, *[(payload, base64.b64encode(self.sign_bytes(k, payload)).decode()) for k in keys])

    def signed(self, key, payload):
        return payload, base64.b64encode(self.sign_bytes(key, payload)).decode()

    def bundle(self, key, digest, subject=None, kind=SIGNED, wrapped=STATEMENT, signed=None, **changed):
        """As cosign 3 makes them with --key: the statement, in an envelope, in a bundle."""
        algorithm, value = digest.split(':')
        text = json.dumps({'_type': 'https://in-toto.io/Statement/v1', 'predicateType': kind, 'predicate': {},
                           'subject': [{'digest': {algorithm: value}, **(subject or {})}]}).encode()
        over = b'DSSEv1 %d %s %d %s' % (len(wrapped), wrapped.encode(), len(text), text)
        signature = base64.b64encode(self.sign_bytes(key, over if signed is None else signed)).decode()
        return json.dumps({'mediaType': BUNDLE, 'verificationMaterial': {'publicKey': {'hint': 'h'}, 'tlogEntries': []}, 'dsseEnvelope': {
            'payload': base64.b64encode(text).decode(), 'payloadType': wrapped, 'signatures': [{'sig': signature}]}, **changed}).encode()

    def put_bundles(self, repository, digest, *bundles, notes=None):
        """Where they are at a registry without the referrers API."""
        listed = []
        for data in bundles:
            for blob in (b'{}', data):
                registry.push_blob(self.client, repository, image.digest(blob), blob)
            manifest = json.dumps({'schemaVersion': 2, 'mediaType': image.OCI['manifest'], 'artifactType': BUNDLE,
                                   'config': image.descriptor('application/vnd.oci.empty.v1+json', b'{}'),
                                   'layers': [image.descriptor(BUNDLE, data)]}).encode()
            self.put_manifest(repository, image.digest(manifest), manifest)
            listed.append(image.descriptor(image.OCI['manifest'], manifest, artifactType=BUNDLE, annotations=notes or {}))
        self.put_manifest(repository, digest.replace(':', '-'), json.dumps(
            {'schemaVersion': 2, 'mediaType': image.OCI['index'], 'manifests': listed}).encode(), 'index')

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

    def test_signatures_that_refer_to_the_image(self):
        """OCI 1.1, at a registry without the API: an index under the tag that stands in for it."""
        for repository, key, text in (('ref/x', 'ecdsa', 'x'), ('ref/other', 'other', 'y')):
            digest = self.push(repository, text)
            data = self.put_signatures(repository, digest, self.signed(key, self.payload(repository, digest)), artifactType=SIGNATURE,
                                       subject={'mediaType': image.OCI['manifest'], 'digest': digest, 'size': 1})
            strange = {'mediaType': image.OCI['manifest'], 'digest': image.digest(data), 'size': len(data), 'artifactType': 'a/sbom'}
            listed = [strange, dict(strange, artifactType=SIGNATURE)]
            self.put_manifest(repository, digest.replace(':', '-'), json.dumps(
                {'schemaVersion': 2, 'mediaType': image.OCI['index'], 'manifests': listed}).encode(), 'index')
        policy = self.signed_by('ecdsa')
        self.ok('ref/x:v1', policy)
        self.refused('ref/other:v1', policy, 'not signed by a key', left=tools.index(self.store))
        self.sign('ref/other', image_digest(self, 'ref/other'), 'ecdsa')  # both places are looked at
        self.ok('ref/other:v1', policy)

    def test_the_referrers_api(self):
        """Page by page; what is listed may be something else; a registry that fails at it is none without."""
        pages = {'first': [], 'second': []}
        blobs = {}

        def fault(request, kind, n):
            path = request.path.split('?')[0]
            if '/referrers/' in path:
                self.assertIn(bad.DIGEST, path)
                second = 'page=2' in request.path
                self.assertTrue(second or 'artifactType=' in request.path, request.path)
                body = json.dumps({'schemaVersion': 2, 'mediaType': image.OCI['index'], 'manifests': pages['second' if second else 'first']})
                return request.answer(200, {'Content-Type': image.OCI['index'], **(
                    {} if second else {'Link': '<%s?page=2>; rel="next"' % path})}, body)
            if path.endswith('.sig') or (kind == 'manifest' and '/sha256-' in path):
                return request.answer(404, {})
            found = blobs.get(path.rsplit('/', 1)[1])
            return found is not None and request.answer(200, {'Content-Type': image.OCI['manifest']} if kind == 'manifest' else {}, found)

        with bad.BadRegistry(fault) as one:
            payload = json.dumps({'critical': {'identity': {'docker-reference': one.address + '/ref/z'}, 'image': {
                'docker-manifest-digest': bad.DIGEST}, 'type': 'cosign container image signature'}}).encode()
            data = self.signature_manifest([self.signed('ecdsa', payload)], artifactType=SIGNATURE)
            blobs.update({image.digest(data): data, image.digest(payload): payload})
            name, policy = one.address + '/ref/z:v1', self.signed_by('ecdsa', scope=one.address)

            def pull():
                return tools.pull(self.store, name, '--trust-policy', policy)
            self.assertRegex(pull()[2], 'not signed')
            pages['second'] = [{'mediaType': image.OCI['manifest'], 'digest': image.digest(data), 'size': len(data), 'artifactType': SIGNATURE}]
            status, _, text = pull()
            self.assertEqual(status, 0, text)
            self.assertEqual(len([p for _, p, _ in one.seen if '/referrers/' in p]), 8)  # two pages of two kinds, twice
            pages['first'] = 'nonsense'
            self.assertRegex(pull()[2], 'not signed')

    def test_bundles_of_every_kind_of_key(self):
        for key in KINDS:
            with self.subTest(key):
                repository = 'bundle/' + key
                digest = self.push(repository, 'bundle ' + key)
                self.put_bundles(repository, digest, self.bundle('other', digest), self.bundle(key, digest))
                self.ok(repository + ':v1', self.signed_by(key, identity='any'))
                self.store += key
                self.refused(repository + ':v1', self.signed_by('rsa' if key == 'ecdsa' else 'ecdsa', identity='any'), 'not signed by a key')

    def test_a_bundle_and_the_repository(self):
        """What cosign signs names none: that is for the operator to allow."""
        digest = self.push('named/x', 'named')
        here = self.registry.address + '/named/x'
        self.put_bundles('named/x', digest, self.bundle('ecdsa', digest))
        self.refused('named/x:v1', self.signed_by('ecdsa'), 'names no repository', 'identity')
        for name, good in ((here + '/y', False), (here, True)):
            self.put_bundles('named/x', digest, self.bundle('ecdsa', digest, subject={'name': name}))
            if good:
                self.ok('named/x:v1', self.signed_by('ecdsa'))
            else:
                self.refused('named/x:v1', self.signed_by('ecdsa'), 'made for another repository')

    def test_bundles_that_prove_nothing(self):
        digest, other = self.push('attest/x', 'right'), 'sha256:' + '0' * 64
        envelope = json.loads(self.bundle('ecdsa', digest))['dsseEnvelope']
        cases = {
            'an attestation': (self.bundle('ecdsa', digest, kind='https://slsa.dev/provenance/v1'), 'of another kind'),
            'of another image': (self.bundle('ecdsa', other), 'of another image'),
            'of no digest': (self.bundle('ecdsa', digest, subject={'digest': {}}), 'of another image'),
            'of another sum': (self.bundle('ecdsa', digest, subject={'digest': {'sha512': digest.split(':')[1]}}), 'of another image'),
            'no statement inside': (self.bundle('ecdsa', digest, wrapped='text/plain'), 'of another kind'),
            'signed without its envelope': (self.bundle('ecdsa', digest, signed=b'x'), 'not signed by a key'),
            'the payload alone signed': (self.bundle('ecdsa', digest, signed=base64.b64decode(envelope['payload'])), 'not signed by a key'),
            'two signatures': (self.bundle('ecdsa', digest, dsseEnvelope={**envelope, 'signatures': envelope['signatures'] * 2}), 'signatures'),
            'no signature': (self.bundle('ecdsa', digest, dsseEnvelope={**envelope, 'signatures': []}), 'no signature'),
            'not an object': (self.bundle('ecdsa', digest, dsseEnvelope={**envelope, 'signatures': ['x']}), 'no signature'),
            'no base64': (self.bundle('ecdsa', digest, dsseEnvelope={**envelope, 'payload': '***'}), 'not base64'),
            'a signature of bytes': (self.bundle('ecdsa', digest, dsseEnvelope=None, messageSignature={}), 'no signed statement'),
            'another version': (self.bundle('ecdsa', digest, mediaType='application/vnd.dev.sigstore.bundle.v9+json'), 'version 0.3'),
            'not JSON': (b'{', 'its signature'),
            'too large': (self.bundle('ecdsa', digest, more=' ' * 70000), 'it is not signed'),
        }
        for what, (data, words) in cases.items():
            with self.subTest(what):
                self.put_bundles('attest/x', digest, data)
                self.refused('attest/x:v1', self.signed_by('ecdsa', identity='any'), 'refused by the trust policy', words)
        self.put_bundles('attest/x', digest, *[data for data, _ in cases.values()], self.bundle('ecdsa', digest))
        self.ok('attest/x:v1', self.signed_by('ecdsa', identity='any'))
        self.store += '-said'
        self.put_bundles('attest/x', digest, self.bundle('ecdsa', digest), notes={'dev.sigstore.bundle.predicateType': 'https://spdx.dev/Document'})
        self.refused('attest/x:v1', self.signed_by('ecdsa', identity='any'), 'it is not signed')

    def test_bundles_by_the_referrers_api(self):
        """Asked by kind, so that a crowd of other things is not in the way; both kinds are."""
        found, blobs = {BUNDLE: [], SIGNATURE: []}, {}

        def fault(request, kind, n):
            path, _, query = request.path.partition('?')
            if '/referrers/' in path:
                wanted = urllib.parse.parse_qs(query)['artifactType'][0]
                return request.answer(200, {'Content-Type': image.OCI['index'], 'OCI-Filters-Applied': 'artifactType'}, json.dumps(
                    {'schemaVersion': 2, 'mediaType': image.OCI['index'], 'manifests': found[wanted]}))
            if path.endswith('.sig') or (kind == 'manifest' and '/sha256-' in path):
                return request.answer(404, {})
            body = blobs.get(path.rsplit('/', 1)[1])
            return body is not None and request.answer(200, {'Content-Type': image.OCI['manifest']} if kind == 'manifest' else {}, body)

        with bad.BadRegistry(fault) as one:
            name, policy = one.address + '/ref/b:v1', self.signed_by('ecdsa', scope=one.address, identity='any')
            data = self.bundle('ecdsa', bad.DIGEST)
            manifest = json.dumps({'schemaVersion': 2, 'mediaType': image.OCI['manifest'], 'artifactType': BUNDLE,
                                   'config': image.descriptor('application/vnd.oci.empty.v1+json', b'{}'),
                                   'layers': [image.descriptor(BUNDLE, data)]}).encode()
            blobs.update({image.digest(manifest): manifest, image.digest(data): data})
            status, _, text = tools.pull(self.store, name, '--trust-policy', policy)
            self.assertEqual(status, 125)
            self.assertIn('not signed', text)
            found[BUNDLE] = [image.descriptor(image.OCI['manifest'], manifest, artifactType=BUNDLE)]
            status, _, text = tools.pull(self.store, name, '--trust-policy', policy)
            self.assertEqual(status, 0, text)

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
