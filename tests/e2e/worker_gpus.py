#!/usr/bin/env python3
# needs: root cgroup2 net alone
# timeout: 240
# rows: B078 S45
"""A worker with two pretended GPUs: each bundle gets its own, and one that turns out faulty behind a run is withdrawn with a
reason and offered no more."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import gpu_lab
import worker_lab
from worker_lab import check, equal

LOOK = 'cd /dev; echo nvidia?; echo $NVIDIA_VISIBLE_DEVICES'


def gpus_told(lab):
    return [w['checkin']['gpus'] for w in lab.client.workers()][-1]


def main():
    worker_lab.enter()
    gpu_lab.pretend()
    os.environ['FAKE_NVML'] = '/usr/local/fake'
    with worker_lab.Lab() as lab:
        os.environ['LD_LIBRARY_PATH'] = gpu_lab.fake_nvml(lab.directory)
        w = lab.worker('--cpuset', '0')
        # both GPUs at the same time, one each
        first = lab.run('sleep 1; ' + LOOK, gpus=1, memory='64m')
        second = lab.run(LOOK, gpus=1, memory='64m')
        seen = set()
        for uuid in (first, second):
            lab.wait(uuid, 'ready', timeout=90)
            seen.add(lab.cat(uuid).split()[0])
        check(seen <= {'nvidia0', 'nvidia1'}, seen)
        none = lab.run(LOOK, memory='64m')
        lab.wait(none, 'ready', timeout=90)
        check(lab.cat(none).startswith('nvidia?\n'), lab.cat(none))
        equal(w.log().count('withdrawn'), 0)

        # the hardware fails under a run: its end stands, the GPU gets no other
        uuid = lab.run('echo up; until [ -e /dev/shm/x ]; do sleep 0.2; [ $((i+=1)) = 20 ] && touch /dev/shm/x; done; ' + LOOK,
                       gpus=1, memory='64m')
        lab.wait(uuid, 'running', timeout=60)
        with open('/dev/kmsg', 'w') as kmsg:
            kmsg.write('NVRM: Xid (PCI:fffe:01:00): 31, pid=1, a test of cworker: a program\'s own fault\n')
        with open('/dev/kmsg', 'w') as kmsg:
            kmsg.write('NVRM: Xid (PCI:fffe:01:00): 79, pid=1, a test of cworker: GPU has fallen off the bus.\n')
        lab.wait(uuid, 'ready', timeout=90)
        check(lab.cat(uuid).startswith('up\nnvidia0\n'), lab.cat(uuid))
        lab.until(lambda: 'GPU GPU-fake-0 cannot be used: the driver reported Xid 79' in w.log(), 'the withdrawal')
        equal(w.log().count('withdrawn'), 1)

        # the other one goes on; when it is gone before a run, that run fails with the reason, and it is withdrawn, too
        uuid = lab.run(LOOK, gpus=1, memory='64m')
        lab.wait(uuid, 'ready', timeout=90)
        check(lab.cat(uuid).startswith('nvidia1\n'), lab.cat(uuid))
        lab.until(lambda: gpus_told(lab) == 1, 'the check-in that offers one GPU')
        os.unlink('/dev/nvidia1')
        uuid = lab.run(LOOK, gpus=1, memory='64m')
        bundle = lab.wait(uuid, 'failed', timeout=90)
        check('/dev/nvidia1 does not open' in bundle['metadata']['failure_message'], bundle['metadata'])
        lab.until(lambda: gpus_told(lab) == 0, 'the check-in that offers none')


if __name__ == '__main__':
    main()
