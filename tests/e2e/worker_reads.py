#!/usr/bin/env python3
"""Reads and writes of a running bundle: the exact answers, no way out of the bundle, and nobody waits for a slow reader."""
# needs: root net
# timeout: 200
# rows: B047 B065 B157 B158 B160 B161 B162 B163 B164 B165 B166 B167 B168 B169 B170 B171 B172 B173 B174
# rows: D57 D58 D59 D60 D61 D62 D63 D64 D65 S53 S55 S63
import concurrent.futures
import ctypes
import io
import os
import stat
import tarfile
import threading

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
import reads  # noqa: E402
from client import Refused  # noqa: E402

RENAME_EXCHANGE, AT_FDCWD = 2, -100
UNKNOWN = '0x' + '1' * 32
COMMAND = r'''
printf '1\n2\n3\n4\n5\n' > five; printf 'aaa\nbbb\n' > ab; printf abc > abc; : > empty
printf 'aaaa\nbbbb\ncccc\nddd' > noend; printf 'one\r\ntwo\rthree' > crlf; printf 'x\xff\n' > binary
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do printf 'line %s \303\244\303\266\303\274\n' $i; done > umlauts
mkdir -p sub/deep .git __MACOSX; echo f > sub/deep/f; echo g > .git/g; echo y > ._y; echo m > __MACOSX/m; echo v > .visible
ln -s five link; ln -s sub inside; ln -s / escape; ln -s ../.. up; ln -s sub/../../x climb; ln -s link2 link2
mkfifo fifo; echo n > $'not \xff utf'; truncate -s 10G huge; printf end >> huge
dd if=/dev/urandom of=noise bs=1M count=1 2>/dev/null
mkdir real other; echo inside > real/secret; echo mine > own; echo live
(while :; do echo grow >> growing; done) &
while [ "$(cat go 2>/dev/null)" != now ]; do sleep 0.1; done
kill $!; cat message; ls -ln message own | awk '{print $3}' | sort -u | wc -l
'''


def refused(status, text, what, *args, **more):
    try:
        got = what(*args, **more)
    except Refused as why:
        equal((why.status, why.text), (status, text))
    else:
        check(False, 'not refused but', repr(got)[:200], 'instead of', status, text)


def swap_for_ever(one, other, stop):
    libc = ctypes.CDLL(None, use_errno=True)
    while not stop.is_set():
        libc.renameat2(AT_FDCWD, one.encode(), AT_FDCWD, other.encode(), RENAME_EXCHANGE)


def exact_answers(client, uuid, parent):
    info = client.read(uuid, 'sub', type='get_target_info', depth=1)
    equal((info['name'], info['type'], info['resolved_target'], [c['name'] for c in info['contents']]),
          ('sub', 'directory', {'bundle_uuid': uuid, 'subpath': 'sub'}, ['deep']))
    check('contents' not in client.read(uuid, 'sub', type='get_target_info', depth=0), 'contents at depth 0')
    top = {c['name']: c for c in client.read(uuid, '', type='get_target_info', depth=1)['contents']}
    equal(top['link'], {'name': 'link', 'type': 'link', 'size': 4, 'perm': 0o777, 'link': 'five'})
    equal((top['fifo']['type'], top['five']['type'], top['five']['size'], top['five']['perm']), ('', 'file', 10, 0o644))
    check({'.git', '._y', '__MACOSX', 'not \udcff utf'} <= set(top), sorted(top))  # D64: listed
    check('dep' not in top, 'the root listing shows a dependency')

    # 9.1: the texts
    everything = ({'type': 'get_target_info', 'depth': 0}, {'type': 'stream_file'}, {'type': 'stream_directory'},
                  {'type': 'read_file_section', 'offset': 0, 'length': 9},
                  {'type': 'summarize_file', 'num_head_lines': 1, 'num_tail_lines': 1, 'max_line_length': 9,
                   'truncation_text': None})
    for args in everything:
        some = None if args is everything[0] else 2  # each costs a check-in
        for path in ('escape/etc/passwd', '../' + uuid + 'x', 'sub/../../five', 'climb/y', 'up/x')[:some]:
            refused(404, '%s/%s is not inside the bundle.' % (uuid, path), client.read, uuid, path, **args)
        if args['type'] != 'summarize_file':
            for path in ('no/such', '/etc/passwd', 'five/x')[:some]:
                refused(404, "Path '%s' in bundle %s not found" % (path, uuid), client.read, uuid, path, **args)
        for path in ('dep/f1', 'dep', './dep//f1')[:some]:  # the service then asks the parent
            answer = client.ask(worker='w1', message={'type': 'read', 'uuid': uuid, 'path': path, 'read_args': args})
            equal(answer, {'json': {'error_code': 404, 'error_message': '%s not found in bundle %s' % (path, uuid)}})
    for args in everything[1:]:
        for path in ('link', 'link2', 'sub/../link', 'escape')[:4 if args is everything[1] else 1]:
            refused(404, '%s/%s is a symlink and following symlinks is not allowed.' % (uuid, path), client.read, uuid,
                    path, **args)
    equal(client.read(uuid, 'dep/f1', type='stream_file'), b'of the parent\n')
    equal(client.read(uuid, 'dep', type='get_target_info', depth=0)['resolved_target']['bundle_uuid'], parent)
    refused(404, "Path 'fifo' in bundle %s is not a file" % uuid, client.read, uuid, 'fifo', type='stream_file')
    refused(404, "Path 'sub' in bundle %s is not a file" % uuid, client.read, uuid, 'sub', type='stream_file')
    refused(400, 'Unsupported read_type for read: no_such', client.read, uuid, 'five', type='no_such')
    refused(400, 'Unsupported read_type for read: ', client.read, uuid, 'five', type=None)
    for args in ({'offset': -1, 'length': 1}, {'offset': 0, 'length': -1}, {'offset': 0.5, 'length': 1}, {'offset': '0', 'length': 1}):
        refused(400, 'read_file_section: offset and length must be whole numbers of at least 0', client.read, uuid, 'five',
                type='read_file_section', **args)
    refused(400, 'get_target_info: depth is not a whole number', client.read, uuid, '', type='get_target_info', depth=-1)

    # 9.3, 9.4
    for path in ('five', '/five', 'sub/../five', 'inside/../five', './/five/'):
        equal(client.read(uuid, path, type='stream_file'), b'1\n2\n3\n4\n5\n')
    equal(client.read(uuid, 'inside/deep/f', type='stream_file'), b'f\n')
    equal(client.read(uuid, 'stdout', type='stream_file'), b'live\n')  # as it runs (B065)
    huge = 10 << 30
    for path, offset, length, wanted in (('five', 2, 3, b'2\n3'), ('five', 8, 100, b'5\n'), ('five', 10, 5, b''),
                                         ('five', 1 << 60, 5, b''), ('five', 0, 0, b''),
                                         ('huge', huge, 1 << 62, b'end'), ('huge', huge - 2, 4, b'\0\0en')):
        equal(client.read(uuid, path, type='read_file_section', offset=offset, length=length), wanted)
    big = client.read(uuid, 'huge', type='read_file_section', offset=huge - (2 << 20), length=1 << 40)
    equal((len(big), big.rstrip(b'\0')[-3:], big.strip(b'\0')), ((2 << 20) + 3, b'end', b'end'))
    equal(set(client.read(uuid, 'growing', type='stream_file').split(b'\n')[:-1]), {b'grow'})
    with tarfile.open(fileobj=io.BytesIO(client.read(uuid, 'sub', type='stream_directory'))) as tar:
        equal(tar.getnames(), ['.', './deep', './deep/f'])

    # 9.5
    def summary(path, head, tail, longest, text=None):
        return client.read(uuid, path, type='summarize_file', num_head_lines=head, num_tail_lines=tail,
                           max_line_length=longest, truncation_text=text).decode()
    for path, head, tail, longest, text, wanted in (
            ('ab', 1, 0, 4, None, 'aaa\n'), ('ab', 0, 1, 4, None, 'bbb\n'), ('ab', 1, 1, 4, None, 'aaa\nbbb\n'),
            ('ab', 1, 0, 3, None, ''), ('ab', 1, 1, 3, '....', '....'), ('five', 1, 1, 128, 'X', '1\nX5\n'),
            ('empty', 5, 5, 128, 'X', ''), ('abc', 5, 5, 128, 'X', 'abc\n'), ('noend', 0, 1, 5, None, 'ddd\n'),
            ('crlf', 9, 9, 99, None, 'one\ntwo\nthree\n'), ('binary', 9, 9, 99, None, '<binary>'),
            ('no/such', 9, 9, 99, None, '<none>'), ('huge', 1, 0, 9, None, '')):
        equal((path, head, tail, summary(path, head, tail, longest, text)), (path, head, tail, wanted))
    data = client.read(uuid, 'umlauts', type='stream_file')
    for head, tail in ((2, 0), (0, 2), (3, 3)):
        for longest in (9, 12, 15, 40):
            equal((head, tail, longest, summary('umlauts', head, tail, longest, '\u2026')),
                  (head, tail, longest, reads.summary(data, head, tail, longest, '\u2026')))


def one_reply_each(client, uuid):
    """What is for nobody, or for somebody who has gone, is dropped."""
    stale = {'type': 'read', 'uuid': uuid, 'socket_id': 987654, 'path': 'five', 'read_args': {'type': 'stream_file'}}
    for message in (stale, dict(stale, path='no/such'), dict(stale, read_args={'type': 'get_target_info', 'depth': 1}),
                    dict(stale, type='netcat', port=1, message='x'), dict(stale, uuid=UNKNOWN)):
        check(client.send(worker='w1', message=message), 'not taken')
    gone = {'json': {'error_code': 500, 'error_message': 'Bundle no longer running'}}
    equal(client.ask(worker='w1', message={'type': 'read', 'uuid': UNKNOWN, 'path': '', 'read_args': {'type': 'stream_file'}}), gone)
    equal(client.ask(worker='w1', message={'type': 'netcat', 'uuid': UNKNOWN, 'port': 80, 'message': ''}), gone)
    # A token that the service forgot costs neither a small answer nor a stream (B007).
    for args in ({'type': 'get_target_info', 'depth': 0}, {'type': 'stream_file'}):
        client.fault(endpoint='reply' if 'depth' in args else 'reply_data', status=401)
        check(client.read(uuid, 'five', **args), args)


def races(lab, client, uuid, directory):
    """A name that is now a directory, now a link out of the bundle."""
    outside = os.path.join(lab.directory, 'outside')
    os.mkdir(outside)
    with open(os.path.join(outside, 'secret'), 'w') as f:
        f.write('outside\n')
    os.symlink(outside, os.path.join(directory, 'swap'))
    stop = threading.Event()
    swapper = threading.Thread(target=swap_for_ever, args=(os.path.join(directory, 'real'), os.path.join(directory, 'swap'), stop))
    swapper.start()
    seen = set()
    try:
        for n in range(200):
            if n >= 15 and seen >= {'stream_file', 'get_target_info'}:
                break
            for path, args in (('real/secret', {'type': 'stream_file'}), ('swap', {'type': 'stream_directory'}),
                               ('real', {'type': 'get_target_info', 'depth': 2}),
                               ('swap/secret', {'type': 'read_file_section', 'offset': 0, 'length': 99})):
                try:
                    got = client.read(uuid, path, **args)
                    seen.add(args['type'])
                except Refused as why:
                    equal(why.status, 404)
                    continue
                if isinstance(got, bytes):
                    check(b'outside' not in got, args, got)
                else:
                    for child in got.get('contents', ()):
                        check(child['name'] == 'written' or (child['name'], child['size']) == ('secret', 7), got)
            client.write(uuid=uuid, subpath='real/written', string='w')
    finally:
        stop.set()
        swapper.join()
    check(seen >= {'stream_file', 'get_target_info'}, 'the race was never won', seen)
    equal(os.listdir(outside), ['secret'])


def writes(lab, client, uuid, directory):
    target = os.path.join(lab.directory, 'target')
    with open(target, 'w') as f:
        f.write('untouched')
    os.symlink(target, os.path.join(directory, 'out'))
    for path in ('out', 'escape/etc/cw-written', '../written', '../' + uuid + 'x/y', '', '.', '..', 'fifo', 'sub', 'dep', 'dep/new',
                 'no/such/dir', '/../x'):
        client.write(uuid=uuid, subpath=path, string='no')
    for n in range(15):
        client.write(uuid=uuid, subpath='message', string='message %d' % n)
    client.write(uuid=uuid, subpath='own', string='')
    client.write(uuid=uuid, subpath='sub/deep/../umlaut', string='\u00e4\u20ac\n')
    lab.until(lambda: client.read(uuid, 'sub/umlaut', type='summarize_file', num_head_lines=9, num_tail_lines=0,
                                  max_line_length=99, truncation_text=None) == '\u00e4\u20ac\n'.encode(), 'the write')
    equal(client.read(uuid, 'message', type='stream_file'), b'message 14')  # the last one won
    with open(target) as f:
        equal(f.read(), 'untouched')
    check(not os.path.exists('/etc/cw-written'), 'a write left the bundle')
    equal(sorted(os.listdir(os.path.dirname(directory))), sorted([uuid]))
    check(stat.S_ISFIFO(os.lstat(os.path.join(directory, 'fifo')).st_mode), 'the fifo is gone')


def slow_readers(lab, client, uuid):
    """A hundred reads at once, most of them held up by their reader: runs, small reads and check-ins go on."""
    client.fault(endpoint='reply_data', hold=True, count=24)
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        slow = [pool.submit(client.read, uuid, 'noise', type='stream_file') for _ in range(24)]
        lab.until(lambda: client.held() >= 16, 'slow readers')
        small = [pool.submit(client.read, uuid, 'five', type='get_target_info', depth=0) for _ in range(76)]
        other = lab.run('echo quick')
        lab.wait(other, 'ready')
        check(all(s.result()['size'] == 10 for s in small), 'small reads')
        check(not any(s.done() for s in slow[:8]), 'the slow ones were not slow')
        client.clear_faults()
        equal({len(s.result()) for s in slow}, {1 << 20})
    lab.cat(other)


with worker_lab.Lab(manager_interval=0.1, checkin_hold=0.3, reply_timeout=150) as lab:
    lab.worker()
    c = lab.client
    parent = lab.run('echo of the parent > f1')
    lab.wait(parent, 'ready')
    uuid = lab.run(COMMAND, ('dep', parent, ''))
    lab.wait(uuid, 'running')
    directory = os.path.join(lab.work_dir, 'runs', uuid)
    lab.until(lambda: os.path.exists(os.path.join(directory, 'growing')), 'the command to begin')

    exact_answers(c, uuid, parent)
    one_reply_each(c, uuid)
    races(lab, c, uuid, directory)
    writes(lab, c, uuid, directory)
    slow_readers(lab, c, uuid)

    # While results are uploaded the bundle is still read here.
    c.fault(endpoint='upload', hold=True)
    os.unlink(os.path.join(directory, 'huge'))
    c.write(uuid=uuid, subpath='go', string='now')
    lab.until(lambda: c.held() == 1, 'the upload')
    equal(c.read(uuid, 'five', type='read_file_section', offset=0, length=2), b'1\n')
    equal(c.read(uuid, 'stdout', type='stream_file'), b'live\nmessage 141\n')
    refused(500, 'Bundle no longer running', c.netcat, uuid, 80, '')
    c.clear_faults()
    lab.wait(uuid, 'ready')
    equal(lab.cat(uuid, 'message'), 'message 14')
