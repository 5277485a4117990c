#!/usr/bin/env python3
"""A shared file system whose caches are behind: a bundle's directory is waited for, at nobody else's cost, and given up in words."""
# needs: root net
# timeout: 200
# rows: B144 B196
import os

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
GIVEN_UP = ('Bundle directory cannot be found on the shared filesystem. Please ensure the shared filesystem between the server and '
            'your worker is mounted properly or contact your administrators.')
WAITING = 'Waiting for bundle directory to be created by the server'
LATE = 10  # more than the worker makes containers at once
SMALL = {'cpus': 0, 'memory': 4 << 20}


def where(lab, uuid):
    return lab.client.info(uuid)['location_on_disk']


with worker_lab.Lab(manager_interval=0.1) as lab:
    lab.client.set(make_dirs=False)
    w = lab.worker('--shared-file-system', '--shared-dir-seconds', '600')
    late = [lab.run('echo here > f; cat f', resources=SMALL) for _ in range(LATE)]
    for uuid in late:
        lab.until(lambda: lab.client.info(uuid)['metadata'].get('run_status') == WAITING, WAITING)
        check(not os.path.exists(where(lab, uuid)), where(lab, uuid))
    # ten of them wait, and the eleventh is not kept waiting
    good = lab.run('echo good > f', resources=SMALL)
    os.mkdir(where(lab, good))
    lab.wait(good, 'ready')
    gone = late.pop()
    lab.client.kill(uuid=gone)
    lab.wait(gone, 'killed')
    for uuid in late:
        os.mkdir(where(lab, uuid))
    for uuid in late:
        lab.wait(uuid, 'ready')
        equal(lab.cat(uuid, 'f'), 'here\n')
    equal(w.stop(), 0)
    lab.worker('--shared-file-system', '--shared-dir-seconds', '2', name='w2')
    bundle = lab.wait(lab.run('true', resources=SMALL), 'failed', 120)
    equal(bundle['metadata']['failure_message'], GIVEN_UP)
