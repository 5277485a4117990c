#!/usr/bin/env python3
"""The server holds check-ins open for much longer than the test lives: the end of a run is told all the same."""
# needs: root net
# timeout: 200
# rows: B040 D12
import os
import signal
import time

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
HELD = 1000  # seconds: nothing but a message ends a check-in
WAIT = 'until [ -e go ]; do sleep 0.1; done; '


def let_go(lab, uuid):
    with open(os.path.join(lab.work_dir, 'runs', uuid, 'go'), 'w'):
        pass


def release(lab, condition, what):
    """Messages nobody knows end the check-ins in which the worker has not told yet what we wait for."""
    def met():
        if condition():
            return True
        lab.client.send(worker='w1', message={'type': 'nothing'}, seconds=1)
        return condition()
    lab.until(met, what)


def is_running(lab, uuid):
    return lab.client.info(uuid)['state'] == 'running'


with worker_lab.Lab(checkin_hold=HELD, worker_timeout=2 * HELD) as lab:
    w = lab.worker('--checkin-frequency-seconds', '1')
    lab.until(lab.client.workers, 'the first check-in')
    uuids = [lab.run(WAIT + 'echo %d; exit %d' % (k, k), memory='64m', resources={'cpus': 0}) for k in range(4)]
    for uuid in uuids:
        release(lab, lambda: is_running(lab, uuid), 'a run to be told')
    # all are told now; a check-in is held, and nobody sends anything
    for k, uuid in enumerate(uuids[:3]):
        let_go(lab, uuid)
        bundle = lab.wait(uuid, ('ready', 'failed'))
        equal(bundle['metadata']['exitcode'], k)
        equal(lab.cat(uuid), '%d\n' % k)
    time.sleep(2)  # one look an end, and no more of them while the last one goes on
    looks = lab.client.requests(endpoint='live_info')
    check(0 < len(looks) <= 12, 'looked at its own bundles', len(looks))
    let_go(lab, uuids[3])
    lab.wait(uuids[3], 'failed')
    equal(lab.client.requests(endpoint='reply')[0]['status'], 200)
    w.process.send_signal(signal.SIGTERM)
    release(lab, lambda: w.process.poll() is not None, 'the worker to end')
