#!/usr/bin/env python3
"""The daemon dies by kill -9, at random instants and at every named one, through whole runs; what becomes of the bundles
is the same as if it had never died: each is executed once, ends once, with its state, output and exit status; nothing is left.

The numbers are small here; `make soak` takes CW_SOAK_KILLS=300 and every crash point (CW_SOAK_STEP=1).
"""
# needs: root net
# timeout: 200
# rows: B186 B187 B191 B198 D15 D53 D54 D56
import os
import random
import subprocess
import sys
import time

import worker_lab
from worker_lab import check, equal

KILLS = int(os.environ.get('CW_SOAK_KILLS', '12'))
STEP = int(os.environ.get('CW_SOAK_STEP', '17'))
SEED = int(os.environ.get('CW_SOAK_SEED', str(random.randrange(10 ** 6))))
MAX_POINTS = 400
worker_lab.enter()
chance = random.Random(SEED)
print('seed %d, %d kills, every %d. crash point' % (SEED, KILLS, STEP), flush=True)


class Wish:
    """A bundle with a known end."""

    def __init__(self, lab, parent, number):
        self.seconds, self.status = chance.choice((0, 0.2, 1, 3)), chance.choice((0, 0, 7))
        self.uuid = lab.run('echo started >> log; cat dep/sub/f; sleep %s; echo ended >> log; echo %d > own; exit %d'
                            % (self.seconds, number, self.status), ('dep', parent, ''))
        self.number = number

    def look(self, lab, bundle):
        """Once it is final."""
        equal((bundle['state'], bundle['metadata'].get('exitcode')), ('failed' if self.status else 'ready', self.status))
        equal(lab.cat(self.uuid), 'of the parent\n')
        equal(lab.cat(self.uuid, 'log'), 'started\nended\n')
        equal(lab.cat(self.uuid, 'own'), '%d\n' % self.number)
        check(not any(f.startswith('dep') for f in lab.client.files(self.uuid)), 'a dependency is in the results')
        finals = [s for _, s in bundle['history'] if s in ('ready', 'failed', 'killed')]
        equal(len(finals), 1)


def final(lab, uuid):
    bundle = lab.client.info(uuid)
    return bundle if bundle['state'] in ('ready', 'failed', 'killed') else None


def kill_at_random(lab, worker, parent):
    """Two bundles under way all the time; how many ended meanwhile."""
    wishes, ended, kills = [], 0, 0
    while kills < KILLS or wishes:
        while len(wishes) < 2 and kills < KILLS:
            wishes.append(Wish(lab, parent, ended + len(wishes)))
        if kills < KILLS:
            time.sleep(chance.choice((0.02, 0.1, 0.5, 1.5)) * chance.random())
            worker.kill9()
            worker.start()
            kills += 1
        else:
            lab.wait(wishes[0].uuid, ('ready', 'failed', 'killed'), 120)
        if kills % 5 == 0:  # one that is killed again and again must get on as well
            lab.until(lambda: final(lab, wishes[0].uuid), 'bundle %s' % wishes[0].uuid, 120)
        for wish in list(wishes):
            bundle = final(lab, wish.uuid)
            if bundle:
                wish.look(lab, bundle)
                wishes.remove(wish)
                ended += 1
    return ended


def left_of(lab, uuid):
    names = os.listdir(os.path.join(lab.work_dir, 'state/w1')) + os.listdir(os.path.join(lab.work_dir, 'runs'))
    return [n for n in names if uuid in n]


def kill_at_points(lab, worker, parent):
    """The worker dies at the N-th crash point of a run; N goes up until a run passes none that kills."""
    point, met = 1 + chance.randrange(STEP), []
    while point < MAX_POINTS:
        worker.stop()
        os.environ['CW_CRASH_AT'] = str(point)
        try:
            worker.start()
        except AssertionError:
            check(worker.process.returncode == -9, 'it did not die at a crash point')
        del os.environ['CW_CRASH_AT']
        wish = Wish(lab, parent, point)
        lab.until(lambda: worker.process.poll() is not None or final(lab, wish.uuid), 'an end of %s' % wish.uuid, 90)
        # the last word about a run comes after its end
        lab.until(lambda: worker.process.poll() is not None or not left_of(lab, wish.uuid), 'it to be forgotten', 90)
        if worker.process.poll() is None:
            time.sleep(1)
        died = worker.process.poll() is not None
        if died:
            equal(worker.process.returncode, -9)
            met += [line.split('crash point ')[1] for line in worker.log().splitlines() if 'crash point ' in line]
            time.sleep(0.1)
            lab.client.worker_crashed(worker=worker.name)
            worker.start()
        wish.look(lab, lab.wait(wish.uuid, ('ready', 'failed', 'killed'), 90))
        if not died:
            return point, met
        point += STEP
    raise AssertionError('crash points without end')


def processes(directory):
    found = subprocess.run(['pgrep', '-af', 'cwshim'], capture_output=True, text=True).stdout.splitlines()
    return [line for line in found if directory in line]


with worker_lab.Lab(worker_timeout=30, starting_timeout=3) as lab:
    w = lab.worker()
    parent = lab.run('mkdir sub; echo of the parent > sub/f')
    lab.wait(parent, 'ready')
    ended = kill_at_random(lab, w, parent)
    print('%d kills at random instants: %d bundles ended as they should' % (KILLS, ended), flush=True)
    check(ended > 0 or KILLS == 0)
    last, met = kill_at_points(lab, w, parent)
    print('%d crash points met, of %d in a run: %s' % (len(met), last, ', '.join(sorted(set(met)))), flush=True)
    check(met, 'no crash point was met')
    equal(w.stop(), 0)
    equal([f for f in os.listdir(os.path.join(lab.work_dir, 'state/w1')) if f.startswith('0x')], [])
    equal(processes(lab.runtime_dir), [])
sys.stdout.flush()
