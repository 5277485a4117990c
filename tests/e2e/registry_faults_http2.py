#!/usr/bin/env python3
# needs: root net
# timeout: 180
# rows: S18 S19
"""The faults that only HTTP/2 has, injected by a real server of it (Debian's h2) over TLS, as registry_faults.py does those
of HTTP/1.1. With --table: the table of docs/registries.md, which must be the same as here."""
import os
import sys
import unittest

import registry_faults as faults

import bad_http2  # noqa: E402
import bad_registry as bad  # noqa: E402
import certs  # noqa: E402
from bad_registry import BIG_BLOB, MANIFEST  # noqa: E402
from registry_faults import HOME, tools  # noqa: E402

HALF = len(BIG_BLOB) // 2
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, ENHANCE_YOUR_CALM = 0, 1, 2, 7, 11
DATA, HEADERS, CONTINUATION, END_HEADERS = 0, 1, 9, 4
GROUP = 'HTTP/2'
cases = []
tls = {}


class Case(faults.Case):
    """As there, with the registry in HTTP/2 and an authority of its own."""
    settings = None

    def start(self):
        return bad_http2.BadHttp2(self.fault, HOME, tls['cert'], tls['key'], self.settings)

    def trust(self):
        folder = os.path.join(self.directory, 'certs.d', self.registry.address)
        os.makedirs(folder)
        os.link(tls['ca'], os.path.join(folder, 'ca.crt'))
        return ['--certs-dir', os.path.dirname(folder)]


def add(fault, what, becomes, **more):
    settings = more.pop('settings', None)
    cases.append(Case(fault, GROUP, what, becomes, **more))
    cases[-1].settings = settings


def once(kind, do):
    return lambda request, k, n: k == kind and n == 0 and do(request)


def always(kind, do):
    return lambda request, k, n: k == kind and do(request)


def half(then):
    """A blob announced in full; half of it comes, then that."""
    def fault(request):
        request.begin(BIG_BLOB, HALF)
        return then(request)
    return fault


def went_on(case, _):
    """Asked for twice, the second time from what had come. (libcurl may drop what came last before a stream was reset.)"""
    got = [h.get('range', 'bytes=0-') for h in case.registry.of('blob')]
    starts = [int(text[len('bytes='):-1]) for text in got]
    assert len(starts) == 2 and starts[0] == 0 < starts[1] <= HALF, got


def asked(kind, wanted):
    def check(case, _):
        got = len(case.registry.of(kind))
        assert got == wanted, '%d %s requests, not %d' % (got, kind, wanted)
    return check


def on_another(kind):
    """What was asked for after the first request of that kind came on a connection of its own."""
    def check(case, _):
        numbers = [number for k, number, _ in case.registry.seen if k == kind]
        first = next(number for k, number, _ in case.registry.seen)
        assert len(numbers) == 1 and all(n != first for k, n, _ in case.registry.seen if k != 'manifest'), case.registry.seen
    return check


def hang_up(request):
    request.hang_up()


add(None, 'works', 'every request on it', check=lambda case, _: case.registry.of('blob')[0][':scheme'] == 'https' or 1 / 0)
add(once('manifest', lambda r: r.goaway(0) and hang_up(r)), 'GOAWAY instead of an answer', 'asks once more, on a new connection',
    check=asked('manifest', 2))


@lambda fault: add(fault, 'GOAWAY while it answers, which it does to the end', 'nothing is asked for twice; the next request '
                   'goes over a new connection', check=on_another('manifest'))
def graceful(request, kind, n):
    if kind != 'manifest':
        return False
    request.goaway(request.stream)
    request.behave(kind)
    return hang_up(request)


add(once('blob', half(lambda r: r.goaway(0, ENHANCE_YOUR_CALM) and hang_up(r))), 'GOAWAY in mid-blob, with an error',
    'goes on from there by Range', check=went_on)
add(once('blob', half(hang_up)), 'connection ends in mid-blob', 'goes on from there by Range', check=went_on)
add(once('manifest', lambda r: r.reset(REFUSED_STREAM)), 'RST_STREAM (refused) instead of an answer', 'asks once more',
    check=asked('manifest', 2))
add(always('manifest', lambda r: r.reset(INTERNAL_ERROR)), 'RST_STREAM instead of an answer, for ever', 'asked twice', says='registry',
    check=asked('manifest', 2))
add(once('blob', half(lambda r: r.reset(INTERNAL_ERROR))), 'RST_STREAM in mid-blob', 'goes on from there by Range',
    check=went_on)
add(always('blob', lambda r: r.begin(BIG_BLOB, 0) and r.reset(INTERNAL_ERROR)), 'RST_STREAM before the first byte of a blob, for ever',
    'five attempts that bring nothing', says='stream', check=asked('blob', 5))
add(once('blob', half(lambda r: r.data(b'', end=True))), 'ends the stream before the length it announced',
    'goes on from there by Range', check=went_on)
add(once('blob', half(lambda r: r.wait())), 'stream falls silent in mid-blob, its connection does not',
    'given up after `--registry-timeout`, resumed', patience=12, check=went_on)
add(always('manifest', lambda r: r.wait()), 'never answers, but its connection does', 'given up after `--registry-timeout`',
    says='silent for 3 s|too slow', patience=3)
add(None, 'allows no streams at all', 'given up after `--registry-timeout`', says='registry', patience=3,
    settings={3: 0})
add(always('blob', lambda r: r.answer(200, {}, BIG_BLOB + b'x', length=len(BIG_BLOB))),
    'sends more than it announced', 'what it announced is taken, as the digest is right')


def frames(kind, data):
    return always(kind, lambda r: r.raw(data(r.stream)) and r.wait())


add(frames('manifest', lambda s: bad_http2.frame(HEADERS, END_HEADERS, s, b'\xff\xff\xff\xff\xff\xff')),
    'headers that cannot be decoded', '', says='registry')
add(frames('manifest', lambda s: bad_http2.frame(DATA, 0, s, b'{}')), 'a body without a head', '', says='registry')
add(frames('manifest', lambda s: bad_http2.frame(DATA, 0, s + 1000, b'{}')), 'a frame of a stream that is none', '', says='registry')
add(frames('manifest', lambda s: b'\xff\xff\xff' + bytes([DATA, 0]) + s.to_bytes(4, 'big')), 'a frame larger than is allowed', '',
    says='registry')
add(frames('manifest', lambda s: b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % len(MANIFEST) + MANIFEST), 'HTTP/1.1 after all', '',
    says='registry')


@lambda fault: add(fault, 'headers without end (CONTINUATION)', 'refused', says='registry')
def flood(request, kind, n):
    if kind != 'manifest':
        return False
    request.raw(bad_http2.frame(HEADERS, 0, request.stream, b'\x88'))
    for _ in range(5000):  # a literal header of 4000 bytes each, never indexed
        request.raw(bad_http2.frame(CONTINUATION, 0, request.stream, b'\x10\x01x\x7f\xa1\x1e' + b'y' * 4000))
    return request.wait()


TABLE = faults.table(cases)


class Http2Faults(unittest.TestCase):
    def test_every_fault(self):
        faults.own_network()
        scratch = tools.scratch('faults2.')
        certs.SERVER_EXTENSIONS = certs.SERVER_EXTENSIONS.replace('IP:127.0.0.1', 'IP:' + HOME)
        tls['ca'], tls['cert'], tls['key'] = certs.make(os.path.join(scratch, 'tls'))
        failed = faults.run_all(cases, scratch)
        tools.remove(scratch)
        self.assertEqual(failed, [], '\n'.join(failed))

    def test_the_documentation_tells_the_same(self):
        with open(os.path.join(tools.TOP, 'docs/registries.md')) as source:
            self.assertTrue(TABLE in source.read(), 'make the table anew: tests/e2e/registry_faults_http2.py --table')


if __name__ == '__main__':
    if sys.argv[1:] == ['--table']:
        print(TABLE, end='')
        sys.exit(0)
    sys.exit(unittest.main())
