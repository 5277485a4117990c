#!/usr/bin/env python3
"""Kills by the user and by limits: the container dies, partial results are kept, the texts are right."""
# needs: root net
# rows: B093 B099 B100 B102 B105 B109 B111
import os
import subprocess

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
with worker_lab.Lab() as lab:
    w = lab.worker('--exit-after-num-runs', '100')
    marker = 'sleep 98765'
    running = lab.run('echo partial; (%s &); (%s &); %s' % (marker, marker, marker))
    lab.wait(running, 'running')
    stdout = os.path.join(lab.work_dir, 'runs', running, 'stdout')
    lab.until(lambda: os.path.exists(stdout) and os.path.getsize(stdout), 'stdout')
    lab.client.kill(uuid=running)
    bundle = lab.wait(running, 'killed')
    equal(bundle['metadata'].get('failure_message'), 'Kill requested')
    equal(bundle['metadata'].get('exitcode'), None)
    equal(lab.cat(running), 'partial\n')
    check(subprocess.run(['pgrep', '-f', marker]).returncode == 1, 'a process of the killed run lives')

    # Killed while the worker still asks whether it may have it: the service sends that once.
    lab.client.fault(endpoint='start_bundle', hold=True)
    asked = lab.run('echo never')
    lab.until(lambda: lab.client.held() == 1, 'the question')
    lab.client.kill(uuid=asked)
    lab.until(lambda: 'run=%s is killed before it is ours' % asked in w.log(), 'the kill')
    lab.client.clear_faults()
    equal(lab.wait(asked, 'killed')['metadata'].get('failure_message'), 'Kill requested')

    # it is told first, and has some seconds; one that does not listen is ended all the same
    saves = lab.run('trap "echo saved; exit 0" TERM; echo up; while :; do sleep 0.1; done')
    deaf = lab.run('trap "" TERM; echo up; while :; do sleep 0.1; done')
    for run in (saves, deaf):
        lab.wait(run, 'running')
        stdout = os.path.join(lab.work_dir, 'runs', run, 'stdout')
        lab.until(lambda path=stdout: os.path.exists(path) and os.path.getsize(path), 'the first word')
        lab.client.kill(uuid=run)
    for run, text in ((saves, 'up\nsaved\n'), (deaf, 'up\n')):
        bundle = lab.wait(run, 'killed')
        equal(bundle['metadata'].get('failure_message'), 'Kill requested')
        equal(lab.cat(run), text)

    late = lab.run('sleep 100', time='2s')
    bundle = lab.wait(late, 'failed')
    check(bundle['metadata']['failure_message'].startswith('Time limit exceeded. (Container uptime '),
          bundle['metadata'])
    check(bundle['metadata']['failure_message'].endswith(' > time limit 2.0s)'), bundle['metadata'])

    fat = lab.run('dd if=/dev/zero of=big bs=1M count=3 2>/dev/null; sleep 100', disk='2m')
    bundle = lab.wait(fat, 'failed')
    equal(bundle['metadata']['failure_message'], 'Disk limit 2mb exceeded.')
