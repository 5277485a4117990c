#!/usr/bin/env python3
"""A shared file system whose caches are behind: the bundle's directory is waited for, and given up in words after a while."""
# needs: root net
# timeout: 200
# rows: B144
import os

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
GIVEN_UP = ('Bundle directory cannot be found on the shared filesystem. Please ensure the shared filesystem between the server and '
            'your worker is mounted properly or contact your administrators.')
WAITING = 'Waiting for bundle directory to be created by the server'

with worker_lab.Lab(manager_interval=0.1) as lab:
    lab.client.set(make_dirs=False)
    lab.worker('--shared-file-system', '--shared-dir-seconds', '20')
    never, late = lab.run('true'), lab.run('echo here > f; cat f')
    for uuid in (never, late):
        lab.until(lambda: lab.client.info(uuid)['metadata'].get('run_status') == WAITING, WAITING)
    where = lab.client.info(late)['location_on_disk']
    check(not os.path.exists(where), where)
    os.mkdir(where)
    lab.wait(late, 'ready')
    equal(lab.cat(late, 'f'), 'here\n')
    bundle = lab.wait(never, 'failed', 120)
    equal(bundle['metadata']['failure_message'], GIVEN_UP)
