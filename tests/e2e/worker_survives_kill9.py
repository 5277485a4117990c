#!/usr/bin/env python3
"""cworkerd is killed with SIGKILL while runs prepare, run and end; the next start goes on: none lost, none run twice."""
# needs: root net
# rows: B186 B187 B191 B198 D53 D56
import os
import time

import worker_lab
from worker_lab import check, equal

# Appends, so that a second execution would show.
COUNT = 'echo started >> log; for i in 1 2 3 4 5 6 7 8; do sleep 0.5; done; echo ended >> log; cat log'

worker_lab.enter()
with worker_lab.Lab(worker_timeout=60) as lab:
    w = lab.worker()

    running = lab.run(COUNT)
    lab.wait(running, 'running')
    path = os.path.join(lab.work_dir, 'runs', running, 'log')
    lab.until(lambda: os.path.exists(path), 'the command to begin')
    w.kill9()
    w.start()
    check('found stage=RUN_STAGE.RUNNING' in w.log(), 'not adopted')
    lab.wait(running, 'ready')
    equal(lab.cat(running), 'started\nended\n')

    # It ends while nobody looks.
    missed = lab.run('echo started >> log; until [ -e go ]; do sleep 0.1; done; cat log; exit 7')
    lab.wait(missed, 'running')
    path = os.path.join(lab.work_dir, 'runs', missed, 'log')
    lab.until(lambda: os.path.exists(path), 'the command to begin')
    w.kill9()
    with open(os.path.join(os.path.dirname(path), 'go'), 'w'):
        pass
    lab.until(lambda: os.path.exists(os.path.join(lab.runtime_dir, missed, 'exit.json')), 'the exit record')
    w.start()
    bundle = lab.wait(missed, 'failed')
    equal(bundle['metadata']['exitcode'], 7)
    equal(lab.cat(missed), 'started\n')

    # At any instant of a short life.
    for delay in (0.05, 0.15, 0.3, 0.5, 0.8):
        uuid = lab.run('echo once >> log; cat log; echo x > d')
        lab.wait(uuid, ('preparing', 'running', 'finalizing', 'ready'))
        time.sleep(delay)
        w.kill9()
        w.start()
        lab.wait(uuid, 'ready')
        equal(lab.cat(uuid), 'once\n')
