#!/usr/bin/env python3
"""Memory and CPUs: the limit is the run's, the verdict the kernel's."""
# needs: root net cgroup2 alone
# rows: B036 B037 B075 B076 B077 B079 B103 B104 D21 D22 D23 D24
import worker_lab
from worker_lab import check, equal

worker_lab.enter()
with worker_lab.Lab() as lab:
    lab.worker()
    greedy = lab.run('memhog 200; echo survived with $?', memory='64m')
    # bash survives its child: its own verdict counts
    plain = lab.run('memhog 200', memory='64m')
    own = lab.run('exit 137', memory='64m')
    one = lab.run('nproc; cat /sys/fs/cgroup/memory.max', cpus=1, memory='64m')

    bundle = lab.wait(plain, 'failed', 120)
    check('Memory limit 64m exceeded.' in bundle['metadata']['failure_message'], bundle['metadata'])
    equal(bundle['metadata']['exitcode'], 137)
    bundle = lab.wait(greedy, 'ready', 120)
    equal(lab.cat(greedy), 'survived with 137\n')
    bundle = lab.wait(own, 'failed', 120)
    equal((bundle['metadata']['exitcode'], bundle['metadata']['failure_message']), (137, 'Exit code 137'))
    lab.wait(one, 'ready', 120)
    equal(lab.cat(one), '1\n%d\n' % (64 << 20))

    busy = lab.run('until [ -e go ]; do :; done', cpus=1, memory='64m')
    lab.until(lambda: (lab.client.info(busy)['metadata'].get('cpu_usage') or 0) > 0.2, 'its use of a core to be told', 120)
    memory = lab.client.info(busy)['metadata']['memory_usage']
    check(0 < memory < 1, memory)
    lab.client.write(uuid=busy, subpath='go', string='')
    bundle = lab.wait(busy, 'ready', 120)
    check(bundle['metadata']['time_user'] > 0, bundle['metadata'])

    # Less than a program needs, and shared memory that was too small: the page says so.
    tiny, bus = lab.run('memhog 1', memory='1m'), lab.run('kill -BUS $$', memory='64m')
    text = lab.wait(tiny, 'failed', 120)['metadata']['failure_message']
    check('Memory limit 1m exceeded.' in text, text)
    bundle = lab.wait(bus, 'failed', 120)
    check('/dev/shm' in bundle['metadata']['failure_message'] and bundle['metadata']['exitcode'] == 135, bundle['metadata'])
