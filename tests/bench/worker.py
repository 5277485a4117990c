#!/usr/bin/env python3
"""What cworkerd costs: idle with many sleeping runs, from a message to the command, from its end to the report, and per
bundle in a crowd. Against the reference service, which is Python and takes most of the machine: hence CPU time as well.

    tests/bench/worker.py [--sleeping N] [--latency N] [--crowds 10,100,1000]

Everything lies on a fresh journaled file system, but for the runtime directory, which is on a tmpfs as /run is. Where
cgroup v2 is, as in the virtual machine, the latency is also told as a multiple of crun's create to exit of a static `true`.

On a host without cgroup v2 controllers the runs have no groups (--cgroup partial): what that saves is in no figure here.
"""
import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, 'tests/e2e')]
import worker_lab  # noqa: E402
import start  # noqa: E402
import timing  # noqa: E402
from bench_lab import bench_lab  # noqa: E402

TICK = os.sysconf('SC_CLK_TCK')
NOTHING = {'cpus': 0, 'memory': 4 << 20}  # so that a machine of few CPUs takes many


def cpu_seconds(pid):
    """Of the process itself, and of the shims it has spawned and reaped."""
    with open('/proc/%d/stat' % pid) as f:
        fields = f.read().rsplit(') ', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident(pid):
    with open('/proc/%d/status' % pid) as f:
        return int(re.search(r'VmRSS:\s+(\d+)', f.read()).group(1)) / 1024


def wait_all(lab, uuids, states, timeout):
    deadline = time.monotonic() + timeout
    while True:
        bundles = {b['uuid']: b['state'] for b in lab.client.bundles()}
        left = [u for u in uuids if bundles[u] not in states]
        if not left:
            return
        if time.monotonic() > deadline:
            raise SystemExit('bench: %d of %d bundles are not %s: %s' % (len(left), len(uuids), states, bundles[left[0]]))
        time.sleep(0.5)


def stamps(worker, uuid, what):
    """Epoch of the first line of the worker's log that says `what` of a run."""
    for line in worker.log().splitlines():
        if uuid in line and what in line:
            day, clock = line.split()[:2]
            seconds = time.mktime(time.strptime(day + ' ' + clock.split(',')[0], '%Y-%m-%d %H:%M:%S'))
            return seconds + int(clock.split(',')[1]) / 1000
    raise SystemExit('bench: no "%s" of %s in the log' % (what, uuid))


def row(*cells):
    print('| ' + ' | '.join(str(c) for c in cells) + ' |', flush=True)


def idle(n):
    with bench_lab(checkin_hold=5, worker_timeout=600) as lab:
        w = lab.worker('--checkin-frequency-seconds', '5', '--pass-down-termination')
        begin = time.monotonic()
        uuids = [lab.run('sleep 100000', resources=NOTHING) for _ in range(n)]
        wait_all(lab, uuids, ('running',), 1200)
        took = time.monotonic() - begin
        time.sleep(60)
        cpu, begin = cpu_seconds(w.process.pid), time.monotonic()
        time.sleep(30)
        share = (cpu_seconds(w.process.pid) - cpu) / (time.monotonic() - begin) * 100
        row('%d sleeping runs: CPU of the worker' % n, '%.2f %% of a core' % share, 'under 1 %')
        row('%d sleeping runs: resident memory' % n, '%.1f MiB' % resident(w.process.pid), 'under 32 MiB')
        row('%d runs begun in' % n, '%.0f s' % took, '')
        looks(lab, w, n)
        worker_lab.STOP_SECONDS = 600
        begin = time.monotonic()
        w.process.send_signal(signal.SIGTERM)
        w.process.wait(600)
        row('%d runs ended and handed back in' % n, '%.0f s' % (time.monotonic() - begin), '')
        shutil.rmtree(os.path.join(lab.work_dir, 'runs'))  # kept for who goes on with them


def looks(lab, w, n):
    """`cwrun stats`: two looks at all runs, half a second apart."""
    command = [os.path.join(worker_lab.BIN, 'cwrun'), 'stats', '--json', '--runtime-dir', lab.runtime_dir]
    took, cpu = [], cpu_seconds(w.process.pid)
    for _ in range(5):
        begin = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        took.append((time.monotonic() - begin - 0.5) / 2)
    share = (cpu_seconds(w.process.pid) - cpu) / 10
    row('one look of `cwrun stats` at %d runs' % n, '%.0f ms, worker CPU %.0f ms' % (statistics.median(took) * 1000, share * 1000), '')


def latency(n):
    began, end, report, held = [], [], [], []
    for hold in (0.05, 5):
        with bench_lab(checkin_hold=hold) as lab:
            w = lab.worker('--checkin-frequency-seconds', '5')
            for k in range(n + 1):
                uuid = lab.run('echo $EPOCHREALTIME', cpus=1)
                bundle = lab.wait(uuid, 'ready')
                if k == 0:
                    continue  # the image is pulled
                ran = float(lab.cat(uuid))
                finalizing = next(t for t, s in bundle['history'] if s == 'finalizing')
                (report if hold < 1 else held).append(finalizing - stamps(w, uuid, 'container ended'))
                if hold < 1:
                    began.append(ran - stamps(w, uuid, 'offered'))
                    end.append(stamps(w, uuid, 'stage=RUN_STAGE.FINALIZING') - stamps(w, uuid, 'container ended'))
    ms = lambda values: '%.0f ms' % (statistics.median(values) * 1000)  # noqa: E731
    row('run message to the command executing, image cached (median)', ms(began), 'under 25 ms')
    if worker_lab.has_cgroup2():
        alone = crun_alone(n)
        row('the same against crun alone, create to exit of a static true (median %s)' % ms(alone),
            'x %.2f' % (statistics.median(began) / statistics.median(alone)), '')
    row('end of the command to stage FINALIZING (median)', ms(end), '')
    row('end of the command to FINALIZING reported, no check-in held (median)', ms(report), 'under 100 ms')
    row('the same while the server may hold a check-in for 5 s (median)', ms(held), '')


def crun_alone(n):
    with tempfile.TemporaryDirectory(dir='/scratch' if os.path.isdir('/scratch') else '/var/tmp', prefix='bench.') as scratch:
        directory, sample = start.bundle(scratch, False), timing.Sample()
        for k in range(n + 1):
            timing.once(['crun', 'run', '--bundle', directory, 'alone-%d' % k], sample)
        return sample.wall[1:]


def crowd(n):
    with bench_lab(checkin_hold=5, worker_timeout=600) as lab:
        w = lab.worker('--checkin-frequency-seconds', '1')
        lab.wait(lab.run('true'), 'ready')
        cpu, begin = cpu_seconds(w.process.pid), time.monotonic()
        uuids = [lab.run('echo hi', resources=NOTHING) for _ in range(n)]
        wait_all(lab, uuids, ('ready',), 1200)
        took = time.monotonic() - begin
        cost = (cpu_seconds(w.process.pid) - cpu) / n * 1000
        row('%d short bundles, whole cycle' % n, '%.1f a second; worker CPU %.1f ms a bundle' % (n / took, cost), '')


def main():
    parser = argparse.ArgumentParser(description='what cworkerd costs')
    parser.add_argument('--sleeping', type=int, default=1000)
    parser.add_argument('--latency', type=int, default=15)
    parser.add_argument('--crowds', default='10,100,500,1000')
    args = parser.parse_args()
    worker_lab.enter()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('bench: ended'))  # nothing is left behind
    print('\n### worker: against the reference service, %d CPUs\n' % os.cpu_count())
    row('what', 'measured', 'bar')
    row('---', '---', '---')
    if args.latency:
        latency(args.latency)
    for n in [int(c) for c in args.crowds.split(',') if c]:
        crowd(n)
    if args.sleeping:
        idle(args.sleeping)


if __name__ == '__main__':
    main()
