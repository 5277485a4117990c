#!/usr/bin/env python3
"""From the `run` message to the living command: who may start, with which rights, on which files, and what is live."""
# needs: root net
# timeout: 150
# rows: B057 B058 B059 B063 B065 B072 B073 B155 B185 B208 B209 D14 D20 D26 D79 D81 S55
import os
import tempfile

import worker_lab
from worker_lab import check, equal, registry

worker_lab.enter()
with worker_lab.Lab() as lab, registry.Registry(os.path.join(lab.directory, 'private'), user='u', password='p w') as private:
    private.push(os.path.join(lab.directory, 'layout'), 'demo:latest', 'team/demo', '1')
    config = os.path.join(lab.directory, 'docker.json')
    with open(config, 'w') as f:
        f.write(private.docker_config())
    # Its directory is there before anybody comes: what another worker left, of another owner.
    owned = lab.run('echo to the trap >&2; id -u; id -g; cat checkpoint; cat /proc/self/uid_map; touch mine; until [ -e go ]; do sleep 0.1; done')
    directory = os.path.join(lab.work_dir, 'runs', owned)
    os.makedirs(directory)
    with open(os.path.join(directory, 'checkpoint'), 'w') as f:
        f.write('kept\n')
    # Whoever wrote it before has left a trap: bash, which makes stderr, is inside already when it opens it.
    # (Inside the same path leads into the container's own /dev/shm.)
    fd, canary = tempfile.mkstemp(prefix='cw-canary.', dir='/dev/shm')
    with open(fd, 'w') as f:
        f.write('untouched')
    os.chmod(canary, 0o666)
    os.symlink(canary, os.path.join(directory, 'stderr'))
    for path in (directory, os.path.join(directory, 'checkpoint')):
        os.chown(path, 1234, 2345)

    lab.program = 'cl-worker'
    w = lab.worker('--docker-config', config, '--insecure-registry', private.address)
    with open('/proc/%d/cmdline' % w.process.pid) as f:
        check('cl-worker' in f.read(), 'the name it was called by is gone')
    lab.wait(owned, 'running')
    # Refused bundles are dropped, and harm nobody.
    for fault, text in (({'status': 403, 'body': 'User does not have permission to run bundle.'}, 'does not have permission'),
                        ({'status': 404, 'body': 'Could not find bundle.'}, 'Could not find bundle'),
                        ({'status': 200, 'body': 'false', 'headers': {'Content-Type': 'application/json'}},
                         'no longer assigned to this worker')):
        lab.client.fault(endpoint='start_bundle', **fault)
        refused = lab.run('echo never')
        lab.until(lambda: text in w.log(), text)
        check(not os.path.exists(os.path.join(lab.work_dir, 'runs', refused)), 'a refused run left a directory')
        equal(lab.client.info(refused)['state'], 'starting')
        lab.client.rm(uuid=refused, force=True)
    # Asked again until there is an answer.
    lab.client.fault(endpoint='start_bundle', status=500, count=2)
    troubled = lab.run('echo once >> n; cat n')
    lab.wait(troubled, 'ready')
    equal(lab.cat(troubled), 'once\n')

    # The directory's owner is the command's; what it makes, and what the user writes into it, belongs to that owner.
    lab.wait(owned, 'running')
    lab.until(lambda: os.path.exists(os.path.join(directory, 'mine')), 'the command')
    lab.client.write(uuid=owned, subpath='go', string='')
    mine = os.path.join(directory, 'mine')
    equal((os.stat(mine).st_uid, os.stat(mine).st_gid), (1234, 2345))
    lab.wait(owned, 'ready')
    lines = lab.cat(owned).splitlines()
    equal(lines[:3], ['1234', '2345', 'kept'])
    check(lines[3].split() != ['0', '0', '4294967295'], 'root inside is root outside', lines)
    with open(canary) as f:
        equal(f.read(), 'untouched')
    os.unlink(canary)

    # Live output, a second `run` of the same bundle, a root file system of its own; sizes that are known at the end.
    live = lab.run('echo once >> n; echo first; echo to-err >&2; echo x > /etc/marker; mkdir /opt/new && ls /etc/marker; '
                   'until [ -e go ]; do sleep 0.1; done; echo last; head -c 100000 /dev/zero > big')
    lab.wait(live, 'running')
    path = os.path.join(lab.work_dir, 'runs', live, 'stdout')
    lab.until(lambda: os.path.exists(path) and 'marker' in open(path).read(), 'live output')
    equal(lab.cat(live), 'first\n/etc/marker\n')
    equal(lab.cat(live, 'stderr'), 'to-err\n')
    check(lab.client.send(worker='w1', message=lab.client.run_message(uuid=live)), 'not delivered')
    lab.until(lambda: 'run=%s is held already' % live in w.log(), 'the second run message')
    lab.client.write(uuid=live, subpath='go', string='')
    bundle = lab.wait(live, 'ready')
    equal(lab.cat(live), 'first\n/etc/marker\nlast\n')
    equal(lab.cat(live, 'n'), 'once\n')
    check(100000 <= bundle['metadata']['data_size'] < 200000, bundle['metadata']['data_size'])
    lab.wait(lab.run('[ ! -e /etc/marker ] && [ ! -e /opt/new ]'), 'ready')

    # Orphans are reaped, those left at the end die with it, and the status is the command's.
    orphans = lab.run('for i in 1 2 3; do (sleep 0.1 &) ; done; sleep 1.5; for i in $(seq 100); do '
                      'n=$(cat /proc/[0-9]*/stat | grep -c ") Z "); [ $n = 0 ] && break; sleep 0.1; done; echo $n; '
                      '(sleep 76543 &); exit 4')
    bundle = lab.wait(orphans, 'failed')
    equal((bundle['metadata']['exitcode'], lab.cat(orphans)), (4, '0\n'))

    # A registry that asks for a password; by tag and by digest.
    by_tag = lab.run('echo private', image=private.address + '/team/demo:1')
    bundle = lab.wait(by_tag, 'ready')
    digest = bundle['metadata']['docker_image']
    check(digest.startswith(private.address + '/team/demo@sha256:'), digest)
    by_digest = lab.run('echo the same', image=digest)
    equal(lab.wait(by_digest, 'ready')['metadata']['docker_image'], digest)
    equal(w.stop(), 0)

    # The number of runs is limited: the next is not even asked for.
    w = lab.worker('--exit-after-num-runs', '1', name='w2')
    only = lab.run('until [ -e go ]; do sleep 0.1; done')
    lab.wait(only, 'running')
    extra = lab.run('echo too much')
    lab.client.send(worker='w2', message=lab.client.run_message(uuid=extra))
    lab.until(lambda: 'Worker has finished starting the number of jobs allowed to run on: 1. Stop starting further runs.'
              in w.log(), 'the refusal')
    equal(lab.client.requests(endpoint='start_bundle', match=extra), [])
    lab.client.write(uuid=only, subpath='go', string='')
    lab.wait(only, 'ready')
    equal(w.process.wait(60), 0)
    equal(lab.client.info(extra)['state'], 'staged')
