#!/usr/bin/env python3
"""Dependencies from a service that redirects, cuts off, forgets and refuses; one cache for two workers; a shared file system."""
# needs: root net
# timeout: 200
# rows: B020 B126 B127 B128 B129 B130 B131 B132 B134 B135 B136 B141 B142 B143 B145
# rows: D06 D11 D39 D40 D41 D42 D43 D44 D45 D46 D47 D49 D86 D87 S61
import gzip
import hashlib
import io
import os
import tarfile

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
NOISE = os.urandom(3 << 20)
DIGEST = hashlib.sha256(NOISE).hexdigest()


def archive(*members):
    """A tar.gz of (name, type, data or link, mode)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz') as tar:
        for name, kind, data, mode in members:
            m = tarfile.TarInfo(name)
            m.type, m.mode = kind, mode
            if kind == tarfile.REGTYPE:
                m.size = len(data)
            elif data:
                m.linkname = data
            tar.addfile(m, io.BytesIO(data) if kind == tarfile.REGTYPE else None)
    return out.getvalue()


TREE = archive(('./', tarfile.DIRTYPE, None, 0o755), ('./a b', tarfile.REGTYPE, b'blank\n', 0o644),
               ('./empty', tarfile.DIRTYPE, None, 0o755), ('./link', tarfile.SYMTYPE, 'a b', 0o777),
               ('./out', tarfile.SYMTYPE, '/etc/passwd', 0o777), ('./su', tarfile.REGTYPE, b'x', 0o4755),
               ('./\u00e4/b', tarfile.REGTYPE, b'umlaut\n', 0o600))


def cached(lab):
    return sorted(os.listdir(os.path.join(lab.work_dir, 'dependencies')))


def failure(lab, uuid):
    return lab.wait(uuid, 'failed')['metadata']['failure_message']


def attempts(client, endpoint, uuid):
    return [r for r in client.requests(endpoint=endpoint) if uuid in r['target']]


def kinds(lab, client):
    """Files and directories, by redirect or not, packed once or twice."""
    file = client.upload(NOISE)
    packed = client.upload(gzip.compress(b'packed'))
    tree = client.upload(TREE, kind='directory')
    blob_file = client.upload(b'in the blob store\n', blob='1')
    blob_tree = client.upload(TREE, kind='directory', blob='1')
    client.set(gzip_members=3, json='gzip')
    # cut off twice: the rest is asked for, not all of it again
    client.fault(endpoint='blob', match=file, truncate=1 << 20)
    client.fault(endpoint='blob', match=file, truncate=1 << 20)
    # a label that says something else; an end that is none
    client.fault(endpoint='blob', match=packed, content_type='application/gzip')
    client.fault(endpoint='blob', match=tree, truncate=200, framed=True)
    client.fault(endpoint='storage', match=blob_tree, truncate=100)
    uuid = lab.run('sha256sum file; gzip -dc packed; echo; ls tree bt; cat "tree/a b" tree/link blank umlaut blob; readlink tree/out; '
                   'stat -c %a tree/su; ls -d tree/empty; echo x 2>/dev/null > tree/empty/x || echo read-only',
                   ('file', file, ''), ('packed', packed, ''), ('tree', tree, ''), ('blank', tree, 'a b'),
                   ('umlaut', tree, '\u00e4/b'), ('blob', blob_file, ''), ('bt', blob_tree, ''))
    lab.wait(uuid, 'ready')
    listing = 'a b\nempty\nlink\nout\nsu\n??\n'  # as busybox shows it
    equal(lab.cat(uuid), '%s  file\npacked\nbt:\n%s\ntree:\n%sblank\nblank\nblank\numlaut\nin the blob store\n/etc/passwd\n755\n'
          'tree/empty\nread-only\n' % (DIGEST, listing, listing))
    asked = [r['range'] for r in attempts(client, 'blob', file)]
    equal((len(asked), asked[0]), (3, None))
    begins = [int(a.split('=')[1].split('-')[0]) for a in asked[1:]]
    check(0 < begins[0] < begins[1] < len(NOISE) and all(a.endswith('-%d' % (len(NOISE) - 1)) for a in asked[1:]), asked)
    return file, tree


def refusals(lab, client):
    """What cannot get better is not asked again; what can, is, as often as allowed; then it is forgotten."""
    cap = 'Failed to download dependency d: Dependency download failed: Unable to get bundle '
    bad = client.upload(b'x')
    client.fault(endpoint='blob', match=bad, status=403, body='no', count=0)
    equal(failure(lab, lab.run('true', ('d', bad, ''))), cap + 'contents from bundle service: Forbidden - no ')
    equal(len(attempts(client, 'blob', bad)), 1)
    flaky = client.upload(b'at last\n')
    client.fault(endpoint='info', match=flaky, status=503, body='later', count=2)
    equal(failure(lab, lab.run('true', ('d', flaky, ''))), cap + 'info from bundle service: Service Unavailable - later ')
    equal(len(attempts(client, 'info', flaky)), 2)  # --download-dependencies-max-retries 2
    check(not [n for n in cached(lab) if bad in n or flaky in n], cached(lab))  # D46
    # At once: the failure is remembered. Later: a new run tries again.
    uuid = lab.run('cat d', ('d', flaky, ''))
    if 'Unavailable' in lab.wait(uuid, ('ready', 'failed'))['metadata'].get('failure_message', ''):
        lab.until(lambda: lab.wait(lab.run('cat d', ('d', flaky, '')), ('ready', 'failed'))['state'] == 'ready', 'a new try')
    not_a_tree = client.upload(b'file\n')
    equal(failure(lab, lab.run('true', ('.', not_a_tree, ''))).rpartition(': ')[0],
          'Key value . is not compatible with non-directories')


def waiting(lab, client):
    """One download for all who wait, told with its progress; cancelled when nobody is left."""
    slow = client.upload(os.urandom(1 << 20))
    other = client.upload(b'other\n')
    client.fault(endpoint='blob', match=slow, hold=True)
    client.fault(endpoint='blob', match=other, hold=True)
    runs = [lab.run('cat o; stat -Lc %s s', ('s', slow, ''), ('o', other, '')) for _ in range(2)]
    status = 'Downloading dependency o: 0 done (archived size)(and downloading 1 other dependencies and docker images)'
    for uuid in runs:
        lab.until(lambda: client.info(uuid)['metadata'].get('run_status') == status, status)
    client.clear_faults()
    for uuid in runs:
        lab.wait(uuid, 'ready')
        equal(lab.cat(uuid), 'other\n1048576\n')
    equal((len(attempts(client, 'blob', slow)), len(attempts(client, 'blob', other))), (1, 1))

    dropped = client.upload(b'never\n')
    client.fault(endpoint='blob', match=dropped, hold=True)
    uuid = lab.run('true', ('d', dropped, ''))
    lab.until(lambda: client.held() == 1, 'the download')
    client.kill(uuid=uuid)
    lab.wait(uuid, 'killed')
    lab.until(lambda: not [n for n in cached(lab) if dropped in n], 'the cancelled download to go')
    client.clear_faults()
    uuid = lab.run('cat d', ('d', dropped, ''))  # and wanted again
    lab.wait(uuid, 'ready')
    equal(lab.cat(uuid), 'never\n')


def two_workers(lab, client, file):
    """On one work directory: what one has the other does not fetch, and what one dies over the other takes up."""
    lab.worker('--tag', 'two', name='w2')
    before = len(attempts(client, 'blob', file))
    uuid = lab.run('sha256sum f', ('f', file, ''), queue='tag=two')
    lab.wait(uuid, 'ready')
    equal(lab.cat(uuid), '%s  f\n' % DIGEST)
    equal(len(attempts(client, 'blob', file)), before)
    common = client.upload(os.urandom(1 << 20))
    client.fault(endpoint='blob', match=common, hold=True)
    first = lab.run('stat -Lc %s c', ('c', common, ''), queue='tag=one')
    lab.until(lambda: client.held() == 1, 'the first worker to download')
    second = lab.run('stat -Lc %s c', ('c', common, ''), queue='tag=two')
    lab.until(lambda: client.info(second)['metadata'].get('run_status', '').startswith('Downloading dependency c'), 'the second to wait')
    lab.workers[0].kill9()
    lab.wait(second, 'ready')
    client.clear_faults()
    check([n for n in cached(lab) if common in n] == [common], cached(lab))
    lab.workers[0].start()
    check([n for n in cached(lab) if common in n] == [common], cached(lab))
    lab.wait(first, 'ready')
    equal(len(attempts(client, 'blob', common)), 2)
    equal(lab.workers[1].stop(), 0)


def full_cache(lab, client, tree):
    """The limit holds on disk, at the unpacked size; what was used last stays."""
    w = lab.workers[0]
    equal(w.stop(), 0)
    w.flags = ('--tag', 'one', '--max-work-dir-size', '6m', '--download-dependencies-max-retries', '2')
    w.start()
    zeros = [client.upload(archive(('./z', tarfile.REGTYPE, b'\0' * (2 << 20), 0o644)), kind='directory') for _ in range(4)]
    for z in zeros:
        uuid = lab.run('stat -c %s d/z', ('d', z, ''), queue='tag=one')
        lab.wait(uuid, 'ready')
    lab.until(lambda: sum(len(d) for d in [[n for n in cached(lab) if n in zeros]]) <= 2, 'eviction')
    check(zeros[-1] in cached(lab), cached(lab))
    lab.until(lambda: on_disk(lab) <= 6 << 20, 'the limit to be kept')
    told = [d for row in client.workers() if row['id'] == 'w1' for d in row['checkin']['dependencies']]
    lab.until(lambda: sorted(d[0] for row in client.workers() if row['id'] == 'w1' for d in row['checkin']['dependencies'] if not d[1]) ==
              sorted(n for n in cached(lab) if '_' not in n), 'the list to be told')
    check(all(len(d) == 2 for d in told), told)


def on_disk(lab):
    total = 0
    for top, _, files in os.walk(os.path.join(lab.work_dir, 'dependencies')):
        for name in files:
            try:
                total += os.lstat(os.path.join(top, name)).st_size
            except FileNotFoundError:
                pass  # it is being removed
    return total


def kept(lab, suffix):
    state = os.listdir(os.path.join(lab.work_dir, 'dependencies-state'))
    return sorted(n[:-len(suffix)] for n in state if n.endswith(suffix))


def one_limit_for_all(lab, client):
    """Two workers fill one cache: the limit holds for both together, and nothing is left of what went."""
    other = lab.worker('--tag', 'three', '--max-work-dir-size', '6m', name='w4')
    for k in range(4):
        z = client.upload(archive(('./z', tarfile.REGTYPE, b'\0' * (2 << 20), 0o644)), kind='directory')
        lab.wait(lab.run('stat -c %s d/z', ('d', z, ''), queue='tag=' + ('one', 'three')[k % 2]), 'ready')
    lab.until(lambda: on_disk(lab) <= 6 << 20, 'the limit of both together')
    lab.until(lambda: kept(lab, '.lock') == kept(lab, '.json') == cached(lab), 'locks to go with what they lock')
    check(z in cached(lab), cached(lab))
    equal(other.stop(), 0)


def shared_file_system(lab, client):
    """Nothing is fetched: parents are read where they are, and nothing is told as cached."""
    equal(lab.workers[0].stop(), 0)
    file, tree = client.upload(b'shared\n'), client.upload(TREE, kind='directory')
    w = lab.worker('--shared-file-system', name='w3')
    before = len(client.requests(endpoint='blob'))
    uuid = lab.run('cat f t/link sub; echo result > r', ('f', file, ''), ('t', tree, ''), ('sub', tree, 'a b'))
    lab.wait(uuid, 'ready')
    equal((lab.cat(uuid), lab.cat(uuid, 'r')), ('shared\nblank\nblank\n', 'result\n'))
    equal(len(client.requests(endpoint='blob')), before)
    check(all(row['checkin']['dependencies'] == [] for row in client.workers() if row['id'] == 'w3'), client.workers())
    equal(w.stop(), 0)


with worker_lab.Lab(manager_interval=0.1, worker_timeout=60) as lab:
    lab.worker('--tag', 'one')
    c = lab.client
    file, tree = kinds(lab, c)
    equal(lab.workers[0].stop(), 0)
    lab.workers[0].flags = ('--tag', 'one', '--download-dependencies-max-retries', '2')
    lab.workers[0].start()
    refusals(lab, c)
    waiting(lab, c)
    two_workers(lab, c, file)
    full_cache(lab, c, tree)
    one_limit_for_all(lab, c)
    shared_file_system(lab, c)
