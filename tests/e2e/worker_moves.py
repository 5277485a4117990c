#!/usr/bin/env python3
"""A worker that comes back after others have decided: preempted, given again, its record damaged, its id made up."""
# needs: root net
# timeout: 200
# rows: B192 B197 B198 D18 D20 D55 D67 D68 D69 D70 D80
import glob
import os

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
TWICE = 'cat n 2>/dev/null; echo x >> n; [ $(wc -l < n) -ge 2 ] || sleep 1000; until [ -e go ]; do sleep 0.1; done; cat n'


# The first one does not heed SIGTERM and beats as long as it lives; who comes behind it says whether it is alone.
ANEW = ('echo x >> n; if [ $(wc -l < n) = 1 ]; then trap "" TERM; while :; do echo $SECONDS.$RANDOM > beat; sleep 0.1; done; fi; '
        'a=$(cat beat); sleep 1; [ "$a" = "$(cat beat)" ] && echo alone; until [ -e go ]; do sleep 0.1; done; cat n')


def given_again(lab, w):
    """Preempted, and given back to the worker while it still ends the old container: a run, and whether it went so."""
    for _ in range(5):
        run = lab.run(ANEW)
        lab.wait(run, 'running')
        begun(lab, run, 'beat', '.')
        w.kill9()
        lab.wait(run, 'staged')
        w.start()
        text = 'run=%s is given to us again: it begins anew' % run
        others = ['run=%s %s' % (run, end) for end in ('accepted', 'is held already')]
        lab.until(lambda: any(t in w.log() for t in [text] + others), 'the bundle to come back')
        if text in w.log():
            return run
        lab.client.kill(uuid=run)  # the old one was gone before: a slow machine
        lab.wait(run, 'killed')
    raise AssertionError('never given back in time')


def begun(lab, uuid, name='n', text='x'):
    path = os.path.join(lab.work_dir, 'runs', uuid, name)
    lab.until(lambda: os.path.exists(path) and text in open(path).read(), 'the command of ' + uuid)


def states(lab, worker):
    return glob.glob(os.path.join(lab.work_dir, 'state', worker, '0x*.json'))


with worker_lab.Lab(worker_timeout=10) as lab:
    # Preempted: the next worker on the same directories ends the old container and goes on in the same bundle directory.
    w1 = lab.worker('--preemptible')
    run = lab.run(TWICE)
    lab.wait(run, 'running')
    begun(lab, run)
    w1.kill9()
    w2 = lab.worker(name='w2')
    begun(lab, run, text='x\nx')
    # The first is back while the second has it: it leaves both alone.
    w1.start()
    check('run=%s another worker has it now' % run in w1.log(), w1.log())
    lab.until(lambda: not states(lab, 'w1'), 'its record to go')
    lab.client.write(uuid=run, subpath='go', string='')
    lab.wait(run, 'ready')
    equal(lab.cat(run), 'x\nx\nx\n')
    equal(w2.stop(), 0)

    # Ended by its owner while the worker was away: it is not brought back to life, and nothing of it stays.
    run = lab.run('echo x > n; sleep 1000')
    lab.wait(run, 'running')
    begun(lab, run)
    w1.kill9()
    lab.wait(run, 'staged')  # it was preemptible
    lab.client.kill(uuid=run)
    w1.start()
    lab.until(lambda: not states(lab, 'w1') and not os.path.exists(os.path.join(lab.work_dir, 'runs', run)), 'it to go')
    equal(lab.client.info(run)['state'], 'killed')

    # Given back to the worker that still ends the old container: it begins anew behind it, and a kill is for the new one.
    run = given_again(lab, w1)
    lab.wait(run, 'running')  # what is written to the old one is lost with it
    lab.client.write(uuid=run, subpath='go', string='')
    lab.wait(run, 'ready')
    equal(lab.cat(run), 'alone\nx\nx\n')
    run = given_again(lab, w1)
    lab.client.kill(uuid=run)
    equal(lab.wait(run, 'killed')['metadata']['failure_message'], 'Kill requested')
    equal(w1.stop(), 0)

    # The record of a run is damaged: it ends, says so, and what it had written is kept. Its neighbour goes on.
    w = lab.worker('--bundle-check-seconds', '1', name='w3')
    damaged, whole = lab.run('echo partial | tee n; sleep 1000'), lab.run(TWICE)
    for uuid, text in ((damaged, 'partial'), (whole, 'x')):
        lab.wait(uuid, 'running')
        begun(lab, uuid, text=text)
    record = os.path.join(lab.work_dir, 'state/w3', whole + '.json')

    def stays():
        before, seen = os.stat(record).st_mtime_ns, len(lab.client.requests(endpoint='checkin'))
        lab.until(lambda: len(lab.client.requests(endpoint='checkin')) > seen + 2, 'some check-ins')
        return os.stat(record).st_mtime_ns == before
    # a run that does not change is not written again; the last change may still be on its way to the disk
    lab.until(stays, 'the record to stay as it is')
    w.kill9()
    with open(os.path.join(lab.work_dir, 'state/w3', damaged + '.json'), 'r+') as f:
        f.truncate(100)
    w.start()
    bundle = lab.wait(damaged, 'failed')
    check('record of this run was damaged' in bundle['metadata']['failure_message'], bundle['metadata'])
    equal(lab.cat(damaged), 'partial\n')
    check(glob.glob(os.path.join(lab.work_dir, 'state/w3', damaged + '.json.bad-*')), 'the damaged file is not kept aside')
    # A bundle that is deleted under the worker's hands is ended and forgotten.
    equal(lab.client.info(whole)['state'], 'running')
    deleted = lab.run('echo x > n; sleep 1000')
    lab.wait(deleted, 'running')
    begun(lab, deleted)
    lab.client.rm(uuid=deleted, force=True)
    lab.until(lambda: not os.path.exists(os.path.join(lab.work_dir, 'runs', deleted)), 'the deleted bundle to go')
    lab.client.kill(uuid=whole)
    lab.wait(whole, 'killed')
    equal(w.stop(), 0)

    # Without --id: the id that was made is taken again, and with it the runs.
    w = lab.worker(name=None)
    mine = w.id()
    run = lab.run('echo x > n; until [ -e go ]; do sleep 0.1; done')
    lab.wait(run, 'running')
    begun(lab, run)
    w.kill9()
    w.start()
    equal(w.id(), mine)
    lab.wait(run, 'running')
    lab.client.write(uuid=run, subpath='go', string='')
    lab.wait(run, 'ready')
