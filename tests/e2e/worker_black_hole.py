#!/usr/bin/env python3
"""A service that takes requests and never answers: a check-in is given up in time for the next, and runs go on meanwhile."""
# needs: root net
# timeout: 120
# rows: B040 B041 S59
import os

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
# Seconds of silence that are borne in any call; of a check-in never more than 45.
os.environ['CODALAB_URLOPEN_TIMEOUT_SECONDS'] = '2'
WAIT = 'until [ -e go ]; do sleep 0.1; done; '

with worker_lab.Lab() as lab:
    c = lab.client
    w = lab.worker()
    ends, stays = lab.run(WAIT + 'echo ended'), lab.run('echo begun; ' + WAIT + 'echo later')
    for uuid in (ends, stays):
        lab.wait(uuid, 'running')

    # Every check-in from now on falls into the hole; so does the token it needs.
    c.fault(endpoint='checkin', hold=True, count=0)
    given_up = lambda: w.log().count('Disconnected from server! Failed check in: ')
    lab.until(lambda: given_up() >= 2, 'a check-in and the next to be given up')
    with open(os.path.join(lab.work_dir, 'runs', ends, 'go'), 'w'):
        pass
    lab.until(lambda: c.requests(endpoint='upload', match=ends), 'results to come though no check-in is answered')
    check(os.path.isdir(os.path.join(lab.work_dir, 'runs', stays)), 'the other run is gone')
    equal(c.info(stays)['state'], 'running')
    c.clear_faults()
    lab.wait(ends, 'ready')
    equal(lab.cat(ends), 'ended\n')

    # A token that never comes holds a check-in no longer than one that is not answered.
    before = given_up()
    c.fault(endpoint='token', hold=True, count=0)
    c.drop_tokens()
    lab.until(lambda: given_up() > before, 'a check-in without a token to be given up')
    c.clear_faults()
    with open(os.path.join(lab.work_dir, 'runs', stays, 'go'), 'w'):
        pass
    lab.wait(stays, 'ready')
    equal(lab.cat(stays), 'begun\nlater\n')
