#!/usr/bin/env python3
# needs: root net
# timeout: 240
# rows: S09 S10 S15 S16 S17 B018
"""The way to a registry: HTTP/2, private authorities, client certificates, proxies, and where credentials come from."""
import base64
import json
import os
import re
import select
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
import time
import unittest
import urllib.parse

import pull_tools as tools

import bad_registry as bad  # noqa: E402
import certs  # noqa: E402
import image  # noqa: E402
import registry  # noqa: E402

HOME, OTHER, PROXY = '10.98.0.1', '10.98.0.2', '10.98.0.3'


def pump(a, b):
    """Bytes both ways until one side ends."""
    while True:
        ready, _, _ = select.select([a, b], [], [], 60)
        if not ready:
            return
        for one in ready:
            data = one.recv(65536)
            if not data:
                return
            (b if one is a else a).sendall(data)


def server_context(cert, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


class Proxy(socketserver.ThreadingTCPServer):
    """HTTP (forwarding and CONNECT) and SOCKS5, told apart by the first byte. seen: what was asked of it."""
    daemon_threads = allow_reuse_address = True

    def __init__(self, login=None):
        self.seen, self.login = [], login
        super().__init__((PROXY, 0), self.Handler)
        self.address = '%s:%d' % self.server_address
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        pass

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            first = self.request.recv(1, socket.MSG_PEEK)
            if first == b'\5':
                self.socks()
            elif first:
                self.http()

        def take(self, n):
            data = b''
            while len(data) < n:
                more = self.request.recv(n - len(data))
                if not more:
                    raise OSError('ended')
                data += more
            return data

        def socks(self):
            _, methods = self.take(2)
            self.take(methods)
            self.request.sendall(b'\5\0')
            _, _, _, kind = self.take(4)
            host = self.take(self.take(1)[0]).decode() if kind == 3 else socket.inet_ntoa(self.take(4))
            port, = struct.unpack('>H', self.take(2))
            self.server.seen.append('SOCKS%s %s:%d' % ('-name' if kind == 3 else '', host, port))
            with socket.create_connection((host, port)) as peer:
                self.request.sendall(b'\5\0\0\1\0\0\0\0\0\0')
                pump(self.request, peer)

        def http(self):
            head = b''
            while not head.endswith(b'\r\n\r\n'):
                head += self.take(1)
            lines = head.decode('latin-1').split('\r\n')
            method, target, _ = lines[0].split()
            self.server.seen.append(head.decode('latin-1'))
            if self.server.login and 'proxy-authorization: ' + self.server.login.lower() not in head.decode().lower():
                self.request.sendall(b'HTTP/1.1 407 Log In\r\nProxy-Authenticate: Basic realm="p"\r\nContent-Length: 0\r\n\r\n')
                return
            if method == 'CONNECT':
                host, port = target.rsplit(':', 1)
                with socket.create_connection((host, int(port))) as peer:
                    self.request.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
                    pump(self.request, peer)
                return
            url = urllib.parse.urlsplit(target)
            kept = [line for line in lines[1:] if line and not line.lower().startswith(('proxy-', 'connection'))]
            with socket.create_connection((url.hostname, url.port)) as peer:
                peer.sendall(('\r\n'.join(['%s %s HTTP/1.1' % (method, url.path)] + kept + ['Connection: close', '', ''])).encode())
                pump(peer, self.request)


class Access(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        libc = tools.ctypes.CDLL(None, use_errno=True)
        if libc.unshare(0x40000000):
            raise OSError(tools.ctypes.get_errno(), 'unshare')
        subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
        for host in (HOME, OTHER, PROXY):
            subprocess.run(['ip', 'address', 'add', host + '/32', 'dev', 'lo'], check=True)
        cls.scratch, cls.registries = tools.scratch('access.'), {}
        certs.SERVER_EXTENSIONS = certs.SERVER_EXTENSIONS.replace('IP:127.0.0.1', 'IP:127.0.0.1,IP:%s,IP:%s' % (HOME, OTHER))
        cls.layout = image.Layout(cls.file('layout'))
        cls.layout.add('x:v1', image.Image([image.Layer([image.directory('etc'), image.file('etc/text', 'there')])]))

    @classmethod
    def tearDownClass(cls):
        for one in cls.registries.values():
            one.stop()
        tools.remove(cls.scratch)

    @classmethod
    def file(cls, name):
        return os.path.join(cls.scratch, name)

    def setUp(self):
        self.mine = self.file(self.id().rsplit('.', 1)[1])
        os.mkdir(self.mine)
        self.pulls = 0

    def path(self, *names):
        return os.path.join(self.mine, *names)

    def write(self, name, text, mode=0o600):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w') as out:
            out.write(text)
        os.chmod(path, mode)
        return path

    @classmethod
    def registry(cls, host=HOME, **more):
        """One of that kind: started once, and kept for the other tests."""
        kind = (host, *sorted(more.items()))
        if kind not in cls.registries:
            made = registry.Registry(cls.file('registry-%d' % len(cls.registries)), host=host, **more).start()
            cls.registries[kind] = made
            made.push(cls.layout.path, 'x:v1', 'team/x', 'v1')
        return cls.registries[kind]

    def pull(self, address, *flags, env=None, login='/dev/null', name='team/x:v1'):
        self.pulls += 1
        command = [os.path.join(tools.BIN, 'cwrun'), 'pull', '-q', '--store', self.path('store-%d' % self.pulls), *flags]
        if login:
            command += ['--docker-config', login]
        done = subprocess.run(command + ['%s/%s' % (address, name)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=100, env={'PATH': os.environ['PATH'], 'HOME': self.path('home'), **(env or {})})
        return done.returncode, done.stdout + done.stderr

    def ok(self, *args, **more):
        status, text = self.pull(*args, **more)
        self.assertEqual(status, 0, text)

    def fails(self, words, *args, **more):
        status, text = self.pull(*args, **more)
        self.assertEqual(status, 125, text)
        self.assertRegex(text, words)
        return text

    # ---- TLS

    def trust(self, *registries, **more):
        """A certs.d that holds the authority of each."""
        for one in registries:
            self.write(os.path.join('certs.d', one.address, 'ca.crt'), image.read(more.get('ca', one.ca)).decode())
        return ['--certs-dir', self.path('certs.d')]

    def test_http2_where_it_is_spoken(self):
        one = self.registry(tls=True)
        self.ok(one.address, *self.trust(one))
        with open(os.path.join(one.directory, 'registry.log')) as log:
            deadline, asked = time.monotonic() + 60, []
            while {kind for kind, _ in asked} < {'manifests', 'blobs'} and time.monotonic() < deadline:
                time.sleep(0.05)  # a request is logged when it has been answered
                log.seek(0)
                asked = re.findall(r'"GET /v2/team/x/(manifests|blobs)/\S+ (HTTP/\S+)"', log.read())
        self.assertEqual({kind for kind, _ in asked}, {'manifests', 'blobs'})
        self.assertEqual({proto for _, proto in asked}, {'HTTP/2.0'})

    def test_authorities_are_by_host(self):
        one, two = self.registry(tls=True), self.registry(OTHER, tls=True)
        self.fails('certificate', one.address)
        self.ok(one.address, *self.trust(one))
        self.fails('certificate', two.address, *self.trust(one))  # that of one host does not count for another
        self.ok(two.address, *self.trust(one, two))
        self.fails('certificate', two.address, *self.trust(one), *self.trust(two, ca=one.ca))
        self.ok(one.address, '--insecure-registry', one.address)
        self.fails('certificate', two.address, '--insecure-registry', one.address)

    def test_the_name_must_be_that_of_the_certificate(self):
        ca, cert, key = certs.make(self.path('tls'))
        with bad.BadRegistry(host=PROXY) as one:  # an address the certificate does not name
            one.server.socket = server_context(cert, key).wrap_socket(one.server.socket, server_side=True)
            self.write(os.path.join('certs.d', one.address, 'ca.crt'), image.read(ca).decode())
            self.fails('subject name|does not match|no alternative', one.address, '--certs-dir', self.path('certs.d'))

    def test_client_certificates(self):
        ca, cert, key = certs.make(self.path('tls'))
        for who, signer in (('us', 'ca'), ('them', 'us')):
            certs.openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=' + who, '-keyout', self.path(who + '.key'),
                          '-out', self.path(who + '.csr'))
            at = (self.path('tls/ca.crt'), self.path('tls/ca.key')) if signer == 'ca' else (self.path('us.crt'), self.path('us.key'))
            certs.openssl('x509', '-req', '-in', self.path(who + '.csr'), '-CA', at[0], '-CAkey', at[1], '-CAcreateserial',
                          '-days', '30', '-out', self.path(who + '.crt'))
        with bad.BadRegistry(host=HOME) as one:
            context = server_context(cert, key)
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_REQUIRED
            one.server.socket = context.wrap_socket(one.server.socket, server_side=True)
            folder = os.path.join('certs.d', one.address)
            self.write(os.path.join(folder, 'ca.crt'), image.read(ca).decode())
            flags = ['--certs-dir', self.path('certs.d')]
            self.fails('registry ' + one.address, one.address, *flags)
            for who, fine in (('them', False), ('us', True)):
                self.write(os.path.join(folder, 'client.cert'), image.read(self.path(who + '.crt')).decode())
                self.write(os.path.join(folder, 'client.key'), image.read(self.path(who + '.key')).decode())
                (self.ok if fine else lambda *a: self.fails('registry', *a))(one.address, *flags)
            os.unlink(self.path(folder, 'client.key'))
            self.fails('TLS|key|certificate', one.address, *flags)

    def test_several_authorities_and_certificates(self):
        """As Docker reads certs.d: every *.crt counts, and of several pairs the one of an authority that the server names."""
        ca = certs.make(self.path('clients'), 'CA of clients')[0]
        other = certs.make(self.path('others'), 'another CA')[0]
        pairs = {}
        for who, folder in (('us', 'clients'), ('them', 'others')):
            certs.openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=' + who, '-keyout', self.path(who + '.key'),
                          '-out', self.path(who + '.csr'))
            certs.openssl('x509', '-req', '-in', self.path(who + '.csr'), '-CA', self.path(folder, 'ca.crt'), '-CAkey',
                          self.path(folder, 'ca.key'), '-CAcreateserial', '-days', '30', '-out', self.path(who + '.crt'))
            pairs[who] = [(s, image.read(self.path(who + '.' + f)).decode()) for s, f in (('cert', 'crt'), ('key', 'key'))]
        one = self.registry(tls=True, client_ca=ca, client=(self.path('us.crt'), self.path('us.key')))
        folder, flags = os.path.join('certs.d', one.address), ['--certs-dir', self.path('certs.d')]

        def put(*names):
            """Pairs called so; the name's end says whose."""
            for name in os.listdir(self.path(folder)):
                if name.endswith(('.cert', '.key')):
                    os.unlink(self.path(folder, name))
            for name in names:
                for suffix, text in pairs[name[2:]]:
                    self.write('%s/%s.%s' % (folder, name, suffix), text)

        self.write(folder + '/a.crt', image.read(other).decode())
        put('1-us')
        self.fails('certificate', one.address, *flags)  # a.crt alone is of the wrong authority
        self.write(folder + '/b.crt', image.read(one.ca).decode())
        self.ok(one.address, *flags)
        for names in (('1-them', '2-us'), ('1-us', '2-them')):
            put(*names)
            self.ok(one.address, *flags)
        put('1-them')  # none suits, so none is sent
        self.fails('registry', one.address, *flags)
        self.write(folder + '/1-them.key', dict(pairs['us'])['key'])
        self.fails('cannot be used with its key', one.address, *flags)

    def test_files_of_docker(self):
        """/etc/docker/daemon.json: insecure registries and mirrors of Docker Hub; told by the doctor."""
        one = self.registry()
        one.push(self.layout.path, 'x:v1', 'library/x', 'v1')
        tools.own_mounts()
        subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', self.path()], check=True)
        for name in ('upper', 'work'):
            os.mkdir(self.path(name))
        subprocess.run(['mount', '-t', 'overlay', 'overlay', '-o', 'lowerdir=/etc,upperdir=%s,workdir=%s' % (
            self.path('upper'), self.path('work')), '/etc'], check=True)
        try:
            self.fails('registry', one.address)
            os.makedirs('/etc/docker', exist_ok=True)
            os.makedirs('/etc/cworker', exist_ok=True)

            def write(path, text):
                with open(path, 'w') as out:
                    out.write(text)
            write('/etc/docker/daemon.json', json.dumps({'insecure-registries': [one.address], 'registry-mirrors': ['http://' + one.address],
                                                         'log-level': 'debug'}))
            write('/etc/cworker/cworkerd.conf', 'insecure-registry = lab.example:5000\n')
            self.ok(one.address)
            self.ok('docker.io', name='x:v1')
            doctor = [os.path.join(tools.BIN, 'cwrun'), 'doctor']
            said = subprocess.run(doctor, capture_output=True, text=True, timeout=60).stdout
            self.assertRegex(said, 'warn +registries: not verified, or by http: %s .*daemon.json' % re.escape(one.address))
            self.assertRegex(said, 'warn +registries: not verified, or by http: lab.example:5000 .*cworkerd.conf')
            for text in ('{', '{"insecure-registries": 7}', '{"registry-mirrors": ["ftp://x"]}'):
                write('/etc/docker/daemon.json', text)
                self.fails('/etc/docker/daemon.json', one.address)
                self.assertIn('MISSING  registries: /etc/docker/daemon.json', subprocess.run(
                    doctor, capture_output=True, text=True, timeout=60).stdout)
        finally:
            subprocess.run(['umount', '/etc'], check=True)
            subprocess.run(['umount', self.path()], check=True)

    # ---- proxies

    def test_proxies(self):
        plain, tls = self.registry(), self.registry(tls=True)
        plain_flags, tls_flags = ['--insecure-registry', plain.address], self.trust(tls)
        with Proxy() as proxy:
            for one, flags, scheme, variable in (
                    (plain, plain_flags, 'http', 'http_proxy'), (tls, tls_flags, 'http', 'https_proxy'),
                    (tls, tls_flags, 'socks5', 'HTTPS_PROXY'), (plain, plain_flags, 'socks5h', 'all_proxy')):
                with self.subTest(scheme=scheme, variable=variable):
                    proxy.seen.clear()
                    self.ok(one.address, *flags, env={variable: '%s://%s' % (scheme, proxy.address)})
                    self.assertTrue(any(one.address in line for line in proxy.seen), proxy.seen)
            proxy.seen.clear()
            for no in (HOME, '10.98.0.0/16', '*'):
                self.ok(plain.address, *plain_flags, env={'all_proxy': 'http://' + proxy.address, 'no_proxy': 'x.org,' + no})
            self.assertEqual(proxy.seen, [])
            proxy.seen.clear()
            self.ok(plain.address, *plain_flags, env={'HTTP_PROXY': 'http://' + proxy.address})  # CVE-2016-5385: not read
            self.assertEqual(proxy.seen, [])

    def test_a_proxy_that_wants_a_login_and_one_that_is_gone(self):
        one = self.registry(tls=True, user='user', password='secret', auth='basic')
        login = self.write('login.json', one.docker_config())
        flags = self.trust(one)
        with Proxy(registry.basic('me', 'proxy-secret')) as proxy:
            address = proxy.address
            self.ok(one.address, *flags, login=login, env={'https_proxy': 'http://me:proxy-secret@' + address})
            for head in proxy.seen:  # what is for the registry is not shown to the proxy
                self.assertNotIn('\nauthorization:', head.lower())
            text = self.fails('registry', one.address, *flags, login=login, env={'https_proxy': 'http://me:wrong-secret@' + address})
            self.assertNotIn('wrong-secret', text)
        self.fails('registry ' + one.address, one.address, *flags, env={'https_proxy': 'http://' + address})

    # ---- credentials

    def test_where_credentials_are_looked_for(self):
        one = self.registry(user='user', password='secret', auth='basic')
        right, flags = one.docker_config(), ['--insecure-registry', one.address]
        wrong = right.replace(base64.b64encode(b'user:secret').decode(), base64.b64encode(b'user:wrong').decode())
        right_file, wrong_file = self.write('right.json', right), self.write('wrong.json', wrong)
        self.fails('no credentials', one.address, *flags, login=None)
        self.write('home/.docker/config.json', right)
        self.ok(one.address, *flags, login=None)
        self.write('elsewhere/config.json', wrong)
        self.fails('access denied', one.address, *flags, login=None, env={'DOCKER_CONFIG': self.path('elsewhere')})
        self.ok(one.address, *flags, login=None, env={'DOCKER_CONFIG': self.path('elsewhere'), 'REGISTRY_AUTH_FILE': right_file})
        self.ok(one.address, *flags, login=None, env={'REGISTRY_AUTH_FILE': wrong_file, 'DOCKER_AUTH_CONFIG': right})
        self.fails('access denied', one.address, *flags, login=None, env={'DOCKER_AUTH_CONFIG': wrong})
        self.ok(one.address, *flags, login=None, env={'DOCKER_AUTH_CONFIG': '{"auths":{"other":{"auth":"YTpi"}}}'})
        self.ok(one.address, *flags, login=right_file, env={'DOCKER_AUTH_CONFIG': wrong})  # the flag is all there is
        for text in ('{', '[]', '{"auths":7}'):
            self.fails('DOCKER_AUTH_CONFIG', one.address, *flags, login=None, env={'DOCKER_AUTH_CONFIG': text})
            self.fails('broken.json', one.address, *flags, login=self.write('broken.json', text))

    def helper(self, script):
        """docker-credential-… in the fixed path, with that script; its short name."""
        name = 'cwtest-%d-%d' % (os.getpid(), len(os.listdir(self.mine)))
        path = '/usr/local/bin/docker-credential-' + name
        with open(path, 'w') as out:
            out.write('#!/bin/sh\n' + script)
        os.chmod(path, 0o755)
        self.addCleanup(os.unlink, path)
        return name

    def test_credential_helpers(self):
        one = self.registry(user='user', password='secret', auth='basic')
        flags = ['--insecure-registry', one.address]
        seen = self.path('seen')
        answer = 'echo \'{"ServerURL":"x","Username":"user","Secret":"secret"}\'\n'
        good = self.helper('{ read -r server; echo "$# $1 $server"; env; ls /proc/$$/fd; } > %s\n%s' % (seen, answer))

        def with_config(**config):
            return self.write('config.json', json.dumps(config))
        os.set_inheritable(sys.stderr.fileno(), True)
        self.ok(one.address, *flags, login=with_config(credHelpers={one.address: good}),
                env={'SECRET_OF_OURS': 'planted', 'https_proxy': 'http://proxy', 'LD_PRELOAD': '', 'LC_ALL': 'de_DE'})
        with open(seen) as source:
            lines = source.read().splitlines()
        self.assertEqual(lines[0], '1 get ' + one.address)
        names = {line.split('=')[0] for line in lines if '=' in line}
        self.assertEqual(names - {'PWD', '_', 'SHLVL', 'OLDPWD'}, {'PATH', 'LC_ALL', 'HOME', 'https_proxy'})
        self.assertIn('PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', lines)
        self.assertIn('LC_ALL=C', lines)
        self.assertLessEqual({line for line in lines if line.isdigit()} - {'10', '11'}, {'0', '1', '2'})
        self.ok(one.address, *flags, login=with_config(credsStore=good))
        # A helper of the registry's own comes before that of all, which comes before what is written.
        bad_one = self.helper('echo \'{"Username":"user","Secret":"wrong"}\'\n')
        self.fails('access denied', one.address, *flags, login=with_config(credHelpers={one.address: bad_one}, credsStore=good))
        self.fails('access denied', one.address, *flags, login=with_config(credsStore=bad_one, **json.loads(one.docker_config())))
        faults = {
            'exit 1': 'no credentials',  # it has none
            'sleep 60': 'no end within its time',
            'cat /dev/zero': 'more output than',
            'echo nonsense': 'docker-credential-',
            'echo \'{"Username":"user"}\'': 'Secret',
            'kill -9 $$': 'no credentials',
        }
        for script, words in faults.items():
            with self.subTest(script):
                name = self.helper('exec ' * (script[0] in 'sc') + script + '\n')
                patience = '5' if script == 'sleep 60' else '60'
                text = self.fails(words, one.address, *flags, '--registry-timeout', patience, login=with_config(credsStore=name))
                self.assertNotIn('secret', text.replace('Secret', ''))
        self.fails('docker-credential-nowhere.* is not installed', one.address, *flags, login=with_config(credsStore='nowhere'))
        self.fails('name is not valid', one.address, *flags, login=with_config(credsStore='../../bin/sh'))

    def test_an_identity_token_of_a_helper(self):
        posted = []

        def fault(request, kind, n):
            if kind == 'token':
                posted.append(request.form.decode())
            elif request.headers.get('Authorization') != 'Bearer granted':
                return request.challenge('Bearer realm="http://%s/token",service="s"' % request.server.owner.address)
            return False
        with bad.BadRegistry(fault, HOME) as one:
            name = self.helper('echo \'{"Username":"<token>","Secret":"refresh&me"}\'\n')
            self.ok(one.address, '--insecure-registry', one.address,
                    login=self.write('config.json', json.dumps({'credsStore': name})))
            self.assertEqual(urllib.parse.parse_qs(posted[0]), {
                'grant_type': ['refresh_token'], 'service': ['s'], 'client_id': ['cworker'],
                'scope': ['repository:team/x:pull'], 'refresh_token': ['refresh&me']})

    def test_a_mirror_that_keeps_others_under_a_prefix(self):
        one = self.registry()
        one.push(self.layout.path, 'x:v1', 'hub/team/x', 'v1')
        self.ok('nowhere.invalid:5000', '--insecure-registry', HOME, '--registry-mirror',
                'nowhere.invalid:5000=http://%s/v2/hub' % one.address)


if __name__ == '__main__':
    sys.exit(unittest.main())
