#!/usr/bin/env python3
# needs: root net
# timeout: 240
# rows: S05 S08 S12 S15 S16 S18 S19
"""Every fault a registry can have, injected one by one: what a pull makes of it. With --table: the table of
docs/registries.md, which must be the same as here.

Each case has a registry of its own at 10.98.0.1, in a network namespace of the test's own, where the addresses
10.98.0.2 (a named host), 10.98.0.3 (one nobody named) and 169.254.169.254 exist, too; canaries at the last two and on
loopback tell whether anybody came."""
import concurrent.futures
import email.utils
import json
import os
import re
import subprocess
import sys
import time
import traceback
import unittest

import pull_tools as tools

import bad_registry as bad  # noqa: E402
from bad_registry import BIG_BLOB, BIG_DIGEST, CREDENTIALS, DIGEST, MANIFEST  # noqa: E402

CLONE_NEWNET = 0x40000000
HOME, NAMED, STRANGER, METADATA, LOOPBACK = '10.98.0.1', '10.98.0.2', '10.98.0.3', '169.254.169.254', '127.0.0.1'
HALF = len(BIG_BLOB) // 2
PARALLEL = 12
canaries = {}
cases = []


class Case:
    """A fault, what is expected of it, and the two cells of its row."""

    def __init__(self, fault, group, what, becomes, says=None, check=None, flags=(), login=None, by_digest=False,
                 patience=60):
        self.fault, self.group, self.what, self.becomes = fault, group, what, becomes
        self.says, self.check, self.flags, self.login, self.by_digest = says, check, list(flags), login, by_digest
        self.patience = str(patience)

    def run(self, scratch, n):
        self.directory = os.path.join(scratch, str(n))
        os.mkdir(self.directory)
        store = os.path.join(self.directory, 'store')
        with self.start() as self.registry:
            name = '%s/team/image%s' % (self.registry.address, '@' + DIGEST if self.by_digest else ':v1')
            flags = [*self.trust(), '--registry-timeout', self.patience, *[f() if callable(f) else f for f in self.flags]]
            if self.login:
                flags += ['--docker-config', self.write_login()]
            start = time.monotonic()
            status, _, text = tools.pull(store, name, *flags, timeout=150)
            self.seconds = time.monotonic() - start
        left = tools.leftovers(store)
        assert left == [], left
        if self.says is None:
            assert status == 0, text
            self.check_content(store)
        else:
            assert status == 125, 'pulled, but should have said %r' % self.says
            assert re.search(self.says, text), text
            assert tools.index(store) == [], 'an image of it is in the store'
        assert 'secret' not in text and 'granted' not in text, text
        if self.check:
            self.check(self, text)

    def start(self):
        return bad.BadRegistry(self.fault, HOME)

    def trust(self):
        return ['--insecure-registry', HOME, '--insecure-registry', NAMED]

    def write_login(self):
        path = os.path.join(self.directory, 'config.json')
        entry = {'auth': CREDENTIALS.split()[1]} if self.login is True else self.login
        with open(path, 'w') as out:
            json.dump({'auths': {self.registry.address: entry}}, out)
        return path

    @staticmethod
    def check_content(store):
        entry, = tools.index(store)
        with open(os.path.join(store, 'layers', entry['layers'][1], 'fs/big'), 'rb') as source:
            assert source.read() in BIG_BLOB


def case(*args, **more):
    """Decorator: the function is the fault."""
    def add(fault):
        cases.append(Case(fault, *args, **more))
        return fault
    return add


def first(kind, do, times=1):
    """A fault of the first requests of a kind only."""
    return lambda request, k, n: k == kind and n < times and do(request)


def always(kind, do):
    return lambda request, k, n: k == kind and do(request)


def add(fault, *args, **more):
    cases.append(Case(fault, *args, **more))


def asked(kind, wanted):
    """That many requests of that kind."""
    def check(case, _):
        got = len(case.registry.of(kind))
        assert got == wanted, '%d %s requests, not %d' % (got, kind, wanted)
    return check


def at_least(seconds):
    def check(case, _):
        assert case.seconds >= seconds, '%.1f s' % case.seconds
    return check


def ranges(*wanted):
    """The Range headers of the blob's requests, in order."""
    def check(case, _):
        got = [h.get('Range') for h in case.registry.of('blob')]
        assert got == [w if w is None else 'bytes=%d-' % w for w in wanted], got
    return check


def nobody_came(*which):
    def check(case, _):
        for name in which:
            assert canaries[name].visits == 0, 'somebody came to ' + name
    return check


# ---- busy, broken and silent ----------------------------------------------------------------------------------------

GROUP = 'busy or down'
add(first('manifest', lambda r: r.answer(429, {'Retry-After': '1'})), GROUP, '429 with `Retry-After: 1`',
    'waits that long, goes on', check=at_least(1))
add(first('blob', lambda r: r.answer(429, {'Date': email.utils.formatdate(1e9, usegmt=True), 'Retry-After':
                                           email.utils.formatdate(1e9 + 2, usegmt=True)})),
    GROUP, '429 with a date in `Retry-After`', 'waits until then by the server’s clock, goes on', check=at_least(2))
add(always('manifest', lambda r: r.answer(429, {})), GROUP, '429 for ever', 'six attempts with growing pauses',
    says='too many requests', check=asked('manifest', 6))
for status in (500, 502, 503, 504):
    add(first('blob', lambda r, s=status: r.answer(s, {}), 2), GROUP, '%d twice' % status, 'asks again with back-off',
        check=asked('blob', 3))
add(always('blob', lambda r: r.answer(503, {}, '{"errors":[{"message":"out \\u001b[2J of order"}]}')), GROUP,
    '503 for ever', 'six attempts, then what the registry says, escaped', says='503 Service Unavailable',
    check=asked('blob', 6))
add(always('manifest', lambda r: r.answer(404, {}, '{"errors":[{"message":"manifest unknown"}]}')), GROUP,
    '404 of the manifest', 'at once', says='not found.*manifest unknown', check=asked('manifest', 1))
add(always('blob', lambda r: r.answer(404, {})), GROUP, '404 of a layer', 'at once', says='layer sha256:.*not found',
    check=asked('blob', 1))
add(first('manifest', lambda r: r.reset()), GROUP, 'connection reset before an answer', 'asks once more',
    check=asked('manifest', 2))
add(always('manifest', lambda r: time.sleep(30)), GROUP, 'accepts, never answers', 'given up after `--registry-timeout`',
    says='silent for 3 s|too slow', patience=3)


@case(GROUP, 'falls silent in mid-blob, once', 'given up after `--registry-timeout`, resumed', check=ranges(None, HALF), patience=12)
def silent_once(request, kind, n):
    if kind != 'blob' or n:
        return False
    request.answer(200, {}, BIG_BLOB[:HALF], length=len(BIG_BLOB))
    request.wfile.flush()
    time.sleep(40)
    return True


@case(GROUP, 'a few bytes now and then, for ever', 'too slow: given up and resumed five times', says='too slow',
      check=asked('blob', 5), patience=3)
def drip(request, kind, _):
    if kind != 'blob':
        return False
    start = request.asked_from() or 0
    request.answer(206 if start else 200, {'Content-Range': 'bytes %d-%d/%d' % (start, len(BIG_BLOB) - 1, len(BIG_BLOB))}
                   if start else {}, b'', length=len(BIG_BLOB) - start)
    for n in range(start, start + 100):
        request.wfile.write(BIG_BLOB[n:n + 1])
        time.sleep(0.2)
    return True


add(always('manifest', lambda r: r.raw(b'HTTP/1.1 500 Oh\r\n\r\n' + b'e' * 3000000)), GROUP, 'an error of three megabytes',
    'its start is read, the rest is not', says='500')

# ---- blobs ----------------------------------------------------------------------------------------------------------

GROUP = 'blobs'
add(first('blob', lambda r: r.cut(BIG_BLOB, HALF)), GROUP, 'cut in mid-blob', 'goes on from the same byte by Range',
    check=ranges(None, HALF))
add(first('blob', lambda r: r.cut(BIG_BLOB, 100000), 3), GROUP, 'cut three times',
    'goes on each time: what came is never asked for again', check=ranges(None, 100000, 200000, 300000))


@case(GROUP, 'cut, then ranges are not known (200)', 'starts again, skips what it has', check=ranges(None, HALF))
def no_ranges(request, kind, n):
    if kind != 'blob':
        return False
    return request.cut(BIG_BLOB, HALF) if n == 0 else request.answer(200, {}, BIG_BLOB)


def wrong_range(text):
    def fault(request, kind, n):
        if kind != 'blob' or n > 1:
            return False
        return request.cut(BIG_BLOB, HALF) if n == 0 else request.answer(206, {'Content-Range': text}, BIG_BLOB[HALF:])
    return fault


size = len(BIG_BLOB)
for what, text in (('another start', 'bytes %d-%d/%d' % (HALF - 512, size - 513, size)),
                   ('another total', 'bytes %d-%d/%d' % (HALF, size, size + 1)),
                   ('no total', 'bytes %d-%d/*' % (HALF, size - 1)), ('nonsense', 'bytes x')):
    add(wrong_range(text), GROUP, 'cut, then a 206 with %s' % what, 'not believed: starts again without Range',
        check=ranges(None, HALF, None))


@case(GROUP, 'cut, then 416', 'starts again without Range', check=ranges(None, HALF, None))
def not_satisfiable(request, kind, n):
    if kind != 'blob' or n > 1:
        return False
    return request.cut(BIG_BLOB, HALF) if n == 0 else request.answer(416, {})


add(always('blob', lambda r: r.answer(206, {'Content-Range': 'bytes 5-9/10'}, b'12345')), GROUP,
    'a 206 nobody asked for', 'asks again, five times', says='another range')
add(always('blob', lambda r: r.answer(200, {}, BIG_BLOB[:HALF])), GROUP, 'always ends early, with a matching length',
    'as long as bytes come it goes on', says='ended after %d of %d bytes' % (HALF, size))
add(always('blob', lambda r: r.answer(200, {}, BIG_BLOB[:-1] + b'x')), GROUP, 'other bytes of the same length',
    'refused: the digest is not right', says='digest of what came is')
add(always('blob', lambda r: r.answer(200, {}, BIG_BLOB + b'x')), GROUP, 'announces more than the manifest does',
    'refused before the first byte', says='larger than allowed')
add(always('blob', lambda r: r.raw(b'HTTP/1.1 200 OK\r\n\r\n' + BIG_BLOB + bytes(100000))), GROUP,
    'sends more than the manifest announces', 'refused at the first byte too many', says='larger than allowed|more than')
add(always('blob', lambda r: r.answer(200, {'Content-Encoding': 'gzip'}, BIG_BLOB)), GROUP,
    '`Content-Encoding: gzip` of its own account', 'refused: nothing is decoded on the way', says='encodes the blob')

# ---- documents ------------------------------------------------------------------------------------------------------

GROUP = 'documents'
add(always('manifest', lambda r: r.answer(200, {'Content-Type': bad.image.OCI['manifest']}, MANIFEST + b' ')), GROUP,
    'manifest of another digest than the one asked for', 'refused', says='of digest sha256:.*, not ' + DIGEST, by_digest=True)
add(always('manifest', lambda r: r.answer(200, {'Docker-Content-Digest': BIG_DIGEST}, MANIFEST)), GROUP,
    '`Docker-Content-Digest` that is not the body’s', 'refused', says='not ' + BIG_DIGEST)
add(always('config', lambda r: r.answer(200, {}, b'{}')), GROUP, 'configuration of another size and digest', 'refused',
    says='what came is 2 bytes')
add(always('config', lambda r: r.answer(200, {}, b'x' * 9000000)), GROUP, 'configuration larger than announced',
    'refused before it is read', says='larger than allowed')
add(always('manifest', lambda r: r.answer(200, {}, b' ' * (5 << 20))), GROUP, 'manifest of 5 MiB', 'refused before it is read',
    says='larger than allowed')
add(always('manifest', lambda r: r.answer(200, {'Content-Type': 'text/html'}, '<html>Sign in to the WiFi</html>')), GROUP,
    'a web page instead of a manifest', 'refused', says='manifest sha256:')
add(always('manifest', lambda r: r.answer(200, {'Content-Type': bad.image.DOCKER['index']}, MANIFEST)), GROUP,
    'served as another type than it says it is', 'refused', says='served as another type')

# ---- framing --------------------------------------------------------------------------------------------------------

GROUP = 'framing'
OK = 'HTTP/1.1 200 OK\r\n'
for what, text, says in (
        ('two different `Content-Length`', OK + 'Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde', 'Content-Length'),
        ('`Content-Length` and chunks', OK + 'Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
         'both Content-Length and'),
        ('a chunk that is none', OK + 'Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n', 'registry'),
        ('headers without end', OK + 'X: %s\r\n' % ('y' * 1000) * 400, 'registry'),
        ('a body shorter than announced', OK + 'Content-Length: 100\r\n\r\n{}', 'registry'),
        ('not HTTP at all', 'SSH-2.0-OpenSSH_9.2\r\n', 'registry')):
    add(always('manifest', lambda r, t=text: r.raw(t)), GROUP, what, 'refused', says=says)

# ---- redirects ------------------------------------------------------------------------------------------------------

GROUP = 'redirects'
add(always('blob', lambda r: r.redirect(r.path)), GROUP, 'in a circle', 'given up after ten', says='more than 10 redirects',
    check=asked('blob', 11))
add(always('blob', lambda r: r.redirect(None)), GROUP, 'without a location', 'refused', says='without a usable location')
for url in ('file:///etc/passwd', 'ftp://10.98.0.2/x', 'gopher://10.98.0.2/x'):
    add(always('blob', lambda r, u=url: r.redirect(u)), GROUP, 'to `%s`' % url, 'only https, or http to a named host',
        says='redirect without a usable location')
for host, what in ((STRANGER, 'a host nobody named'), (METADATA, 'the metadata address'), (LOOPBACK, 'our own loopback')):
    add(always('blob', lambda r, h=host: r.redirect('http://%s/x' % canaries[h].address)), GROUP, 'to %s by http' % what,
        'refused; nobody is connected to', says='refused: not https', check=nobody_came(host))
for host, what in ((METADATA, 'the metadata address'), (LOOPBACK, 'our own loopback')):
    add(always('blob', lambda r, h=host: r.redirect('https://%s/x' % canaries[h].address)), GROUP, 'to %s by https' % what,
        'refused by the address dialled; nobody is connected to', says='special-purpose', check=nobody_came(host))


def logged_in(request):
    return request.headers.get('Authorization') == 'Bearer granted'


def with_token(fault):
    """A registry that wants a token, with a fault behind the login."""
    def outer(request, kind, n):
        if kind == 'token':
            return False
        if not logged_in(request):
            return request.challenge('Bearer realm="http://%s/token",service="s"' % request.server.owner.address)
        return bool(fault and fault(request, kind, n))
    return outer


class Elsewhere:
    """The named host: keeps blobs, or gives tokens, and what it was told."""

    def __init__(self):
        self.other = None

    def url(self, path):
        self.other = self.other or bad.BadRegistry(self.fault, NAMED)
        return 'http://%s%s' % (self.other.address, path)

    @staticmethod
    def fault(request, kind, n):
        return False


depot = Elsewhere()
add(with_token(always('blob', lambda r: r.redirect(depot.url(r.path)))), GROUP, 'of a blob to another named host, logged in',
    'followed; no credentials go there', login=True,
    check=lambda case, _: depot.other.of('blob') and not_told(depot.other))


def not_told(registry):
    for headers in registry.of('blob') + registry.of('manifest'):
        assert headers.get('Authorization') is None, headers


wanting = Elsewhere()
wanting.fault = lambda request, kind, n: request.challenge('Basic realm="give"')
add(with_token(always('blob', lambda r: r.redirect(wanting.url(r.path)))), GROUP, 'to a host that then wants a login',
    'not answered', login=True, says='access denied', check=lambda case, _: not_told(wanting.other))

# ---- logins ---------------------------------------------------------------------------------------------------------

GROUP = 'logins'


def tells(text):
    """Challenges all but the token service with that, unless logged in."""
    return lambda request, kind, n: kind != 'token' and not logged_in(request) and request.challenge(
        [t.replace('HERE', request.server.owner.address) for t in ([text] if isinstance(text, str) else text)])


BEARER = 'Bearer realm="http://HERE/token",service="s",scope="repository:team/image:pull"'
add(tells(BEARER), GROUP, 'wants a token, we have no credentials', 'an anonymous token is asked for',
    check=lambda case, _: asked('token', 1)(case, _) or not_sent(case))
add(tells(BEARER), GROUP, 'wants a token, we have credentials', 'they go to the token service only', login=True,
    check=lambda case, _: sent(case, CREDENTIALS))
add(tells('Negotiate YII/k+8==, Basic realm="a, b", ' + BEARER), GROUP, 'several challenges in one header',
    'the one for a token is taken')
add(tells(['Digest realm="x", nonce="a\\"b", qop=auth', 'Basic realm="y"', BEARER]), GROUP, 'several headers of them',
    'the one for a token is taken')
add(tells('Bearer service="s'), GROUP, 'a challenge with an open quote', '', says='WWW-Authenticate header is malformed')
add(tells('Digest realm="x"'), GROUP, 'only challenges we do not know', '', says='access denied')


def not_sent(case):
    for kind in ('token', 'manifest', 'blob', 'config'):
        for headers in case.registry.of(kind):
            assert headers.get('Authorization') in (None, 'Bearer granted'), headers


def sent(case, wanted):
    assert [h.get('Authorization') for h in case.registry.of('token')] == [wanted]
    for kind in ('manifest', 'blob', 'config'):
        for headers in case.registry.of(kind):
            assert headers.get('Authorization') in (None, 'Bearer granted'), headers


def token_answer(*answer):
    return lambda request, kind, n: request.answer(*answer) if kind == 'token' else tells(BEARER)(request, kind, n)


add(token_answer(200, {}, '{"access_token":"granted"}'), GROUP, 'token under its other name (`access_token`)', 'taken')
for what, text, says in (('no JSON', 'granted', 'token service'), ('no token in it', '{}', 'token service'),
                         ('a line break in the token', '{"token":"granted\\r\\nX: y"}', 'token is not valid'),
                         ('a megabyte', '{"token":"%s"}' % ('x' * 1000000), 'larger than allowed')):
    add(token_answer(200, {}, text), GROUP, 'token service answers %s' % what, '', says=says)
add(token_answer(401, {}), GROUP, 'token service refuses', '', says='refuses the credentials', login=True)
add(tells('Bearer realm="http://10.98.0.3:%s/token",service="s"' % 80), GROUP, 'token realm by http at a host nobody named',
    'refused; no credentials go there', says='not at an https address', login=True, check=nobody_came(STRANGER))


def realm_at(host):
    return lambda request, kind, n: request.challenge('Bearer realm="https://%s/token"' % canaries[host].address)


for host, what in ((METADATA, 'the metadata address'), (LOOPBACK, 'our own loopback')):
    add(realm_at(host), GROUP, 'token realm at %s' % what, 'refused; nobody is connected to', says='special-purpose',
        login=True, check=nobody_came(host))
tokens = Elsewhere()
add(lambda request, kind, n: not logged_in(request) and request.challenge('Bearer realm="%s"' % tokens.url('/token')), GROUP,
    'token realm at another named host', 'asked there, with the credentials of this registry', login=True,
    check=lambda case, _: [h.get('Authorization') for h in tokens.other.of('token')] == [CREDENTIALS] or 1 / 0)


@case(GROUP, 'token expires in mid-pull', 'a new one is asked for', check=asked('token', 2))
def expires(request, kind, n):
    if kind == 'token':
        return request.answer(200, {}, '{"token":"granted%s"}' % ('' if n == 0 else '-anew'))
    if kind == 'blob':
        return request.headers.get('Authorization') != 'Bearer granted-anew' and request.challenge(
            BEARER.replace('HERE', request.server.owner.address))
    return tells(BEARER)(request, kind, n) if request.headers.get('Authorization') != 'Bearer granted-anew' else False


add(lambda request, kind, n: kind != 'token' and request.challenge(BEARER.replace('HERE', request.server.owner.address)), GROUP,
    'never content with any token', 'given up after two', says='access denied', check=asked('manifest', 3))
add(lambda request, kind, n: request.headers.get('Authorization') != CREDENTIALS and request.challenge('Basic realm="r"'),
    GROUP, 'wants user and password', 'sent when asked for, not before', login=True,
    check=lambda case, _: case.registry.of('manifest')[0].get('Authorization') is None or 1 / 0)
add(lambda request, kind, n: request.challenge('Basic realm="r"'), GROUP, 'refuses user and password', 'at once',
    says='access denied with the credentials', login=True, check=asked('manifest', 2))
add(tells(BEARER), GROUP, 'wants a token, we have an identity token', 'it goes to the token service by POST',
    login={'identitytoken': 'secret-refresh'}, check=lambda case, _: posted(case))
add(lambda request, kind, n: request.headers.get('Authorization') != 'Bearer secret-ready' and tells(BEARER)(request, kind, n),
    GROUP, 'wants a token, we have one (`registrytoken`)', 'sent as it is', login={'registrytoken': 'secret-ready'},
    check=asked('token', 0))
add(always('manifest', lambda r: r.answer(403, {}, '{"errors":[{"message":"not for you"}]}')), GROUP, '403', 'at once',
    says='access denied .not for you', check=asked('manifest', 1))


def posted(case):
    headers, = case.registry.of('token')
    assert headers.get('Authorization') is None and headers.get('Content-Type') == 'application/x-www-form-urlencoded'


# ---- mirrors --------------------------------------------------------------------------------------------------------

GROUP = 'mirrors'


class Mirror:
    """A mirror of the case's registry with a fault of its own."""

    def __init__(self, fault, down=False):
        self.mirror = bad.BadRegistry(fault, NAMED)
        if down:
            self.mirror.stop()

    def flag(self, case):
        return ['--registry-mirror', '%s=http://%s' % (case.registry.address, self.mirror.address)]


def mirror_case(fault, what, becomes, check=None, down=False, **more):
    one = Case(None, GROUP, what, becomes, **more)
    made = []

    def flag():
        made.append(Mirror(fault, down))
        return made[0].flag(one)[0]
    one.flags = [flag, lambda: made[0].flag(one)[1]]
    one.check = lambda case, text: check and check(case.registry, made[0].mirror)
    cases.append(one)


def met(condition):
    assert condition


mirror_case(None, 'works', 'the registry itself is not asked', lambda home, mirror: met(not home.seen and mirror.of('blob')))
mirror_case(None, 'does not run', 'the registry is asked', lambda home, mirror: met(home.of('blob')), down=True)
mirror_case(always('manifest', lambda r: r.answer(404, {})), 'does not have the image', 'the registry is asked',
            lambda home, mirror: met(home.of('manifest')))
mirror_case(always('blob', lambda r: r.answer(404, {})), 'lacks a layer', 'the registry is asked for that',
            lambda home, mirror: met(home.of('blob') and not home.of('manifest')))
mirror_case(first('manifest', lambda r: r.answer(200, {'Docker-Content-Digest': BIG_DIGEST}, MANIFEST)),
            'has a damaged manifest', 'the registry is asked', lambda home, mirror: met(home.of('manifest')))
mirror_case(always('blob', lambda r: r.answer(200, {}, BIG_BLOB[:-1] + b'x')), 'has a damaged layer',
            'the registry is asked for it, and for all that follows', lambda home, mirror: met(len(home.of('blob')) == 1))
mirror_case(always('blob', lambda r: r.cut(BIG_BLOB, HALF)), 'breaks off in mid-blob',
            'the registry is asked for the rest, and only that',
            lambda home, mirror: met([h.get('Range') for h in home.of('blob')] == ['bytes=%d-' % HALF]))
mirror_case(always('manifest', lambda r: r.challenge('Basic realm="m"')), 'wants a login we have only for the registry',
            'gets no credentials; the registry is asked', lambda home, mirror: met(not_told(mirror) is None), login=True)


def table(of):
    return ('| | the registry | what becomes of it |\n|---|---|---|\n' +
            ''.join('| %s | %s | %s%s |\n' % (c.group, c.what, '' if c.says is None else '**fails**: ' if c.becomes else '**fails**',
                                              c.becomes) for c in of))


def run_all(of, scratch):
    """Many at once; what did not go as told."""
    failed = []

    def run(pair):
        n, one = pair
        try:
            one.run(scratch, n)
        except Exception:
            failed.append('%s: %s\n%s' % (one.group, one.what, traceback.format_exc()))

    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(run, enumerate(of)))
    print('%d faults, %d not as told' % (len(of), len(failed)))
    return failed


TABLE = table(cases)


class RegistryFaults(unittest.TestCase):
    def test_every_fault(self):
        own_network()
        for host in (STRANGER, METADATA, LOOPBACK):
            canaries[host] = bad.Canary(host, 80 if host == STRANGER else 0)
        scratch = tools.scratch('faults.')
        failed = run_all(cases, scratch)
        tools.remove(scratch)
        self.assertEqual(failed, [], '\n'.join(failed))

    def test_the_documentation_tells_the_same(self):
        with open(os.path.join(tools.TOP, 'docs/registries.md')) as source:
            self.assertIn(TABLE, source.read(), 'make the table anew: tests/e2e/registry_faults.py --table')


def own_network():
    libc = tools.ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(tools.ctypes.get_errno(), 'unshare')
    subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
    for host in (HOME, NAMED, STRANGER, METADATA):
        subprocess.run(['ip', 'address', 'add', host + '/32', 'dev', 'lo'], check=True)


if __name__ == '__main__':
    if sys.argv[1:] == ['--table']:
        print(TABLE, end='')
        sys.exit(0)
    sys.exit(unittest.main())
