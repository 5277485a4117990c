#!/usr/bin/env python3
# needs: root cgroup2 net alone
# timeout: 200
# rows: S48 S49
"""A process that cannot be killed (stuck in the kernel, on a file system that does not answer): its run ends all the same, it
is reported, its CPU and GPU go to nobody else until it is gone, and what comes after it is not held up."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import gpu_lab
import worker_lab
from worker_lab import check, equal
import hung_fs

LOOK = 'cd /dev; echo nvidia?'


def main():
    worker_lab.enter()
    gpu_lab.pretend()
    os.environ['FAKE_NVML'] = '/usr/local/fake'
    with worker_lab.Lab() as lab:
        os.environ['LD_LIBRARY_PATH'] = gpu_lab.fake_nvml(lab.directory)
        w = lab.worker()
        parent = lab.run('echo there > file', memory='64m')
        lab.wait(parent, 'ready', timeout=90)
        first = lab.run('cat d/file', ('d', parent, ''), memory='64m')
        lab.wait(first, 'ready', timeout=90)
        # what the worker keeps of the parent is covered by something that does not answer
        kept = [d for d, _, files in os.walk(os.path.join(lab.work_dir, 'dependencies')) if 'file' in files]
        equal(len(kept), 1)
        fs = hung_fs.HungFs(kept[0])
        try:
            stuck = lab.run('echo up; cat d/file', ('d', parent, ''), gpus=1, memory='64m')
            lab.wait(stuck, 'running', timeout=90)
            check(fs.asked.wait(60), 'nobody read')
            lab.client.kill(uuid=stuck)
            # others are served while it is waited for, and after that
            other = lab.run(LOOK, gpus=1, memory='64m')
            lab.wait(other, 'ready', timeout=90)
            equal(lab.cat(other), 'nvidia1\n')
            lab.wait(stuck, 'killed', timeout=90)
            equal(lab.cat(stuck), 'up\n')
            check('does not die' in w.log() and 'stuck in the kernel' in w.log(), w.log())
            # its GPU is not offered any more, its CPU given to nobody
            lab.until(lambda: [r['checkin']['gpus'] for r in lab.client.workers()] == [1], 'the check-in that offers one GPU')
            again = lab.run(LOOK, gpus=1, memory='64m')
            lab.wait(again, 'ready', timeout=90)
            equal(lab.cat(again), 'nvidia1\n')
            all_cpus = len(os.sched_getaffinity(0))
            check(all_cpus > 1, 'this test needs two CPUs')
            wide = lab.run(LOOK, cpus=all_cpus, memory='64m')
            lab.until(lambda: 'CPUs' in str(lab.client.info(uuid=wide)['metadata'].get('run_status')), 'the wait for the CPU')
        finally:
            fs.release()
        # the kernel lets go: what waits for the CPU gets it, and the GPU is offered again
        lab.wait(wide, 'ready', timeout=90)
        lab.until(lambda: [r['checkin']['gpus'] for r in lab.client.workers()] == [2], 'the check-in that offers both GPUs')
        both = lab.run(LOOK, gpus=2, memory='64m')
        lab.wait(both, 'ready', timeout=90)
        equal(lab.cat(both), 'nvidia0 nvidia1\n')
        check('is gone; its CPUs and GPUs are free again' in w.log(), w.log())
        check(not os.path.exists(os.path.join(lab.runtime_dir, stuck)), 'something is left of the one that was stuck')
        # and one that starts again finds nothing of it
        equal(w.stop(), 0)
        w.start()
        again = lab.run(LOOK, gpus=2, memory='64m')
        lab.wait(again, 'ready', timeout=90)
        equal(lab.cat(again), 'nvidia0 nvidia1\n')


if __name__ == '__main__':
    main()
