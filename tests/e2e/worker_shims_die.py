#!/usr/bin/env python3
"""kill -9 of a shim, of worker and shim together, and a reboot: each run ends with what is true, nothing of it lives on, and
the next ones are served. (Of the worker alone: worker_survives_kill9.)"""
# needs: root net
# timeout: 180
# rows: B187 B191 B198 S48 S56
import os
import shutil
import signal
import subprocess

import worker_lab
from worker_lab import check, equal

LOST = 'Docker container not found'


def pid_file(lab, uuid):
    return os.path.join(lab.runtime_dir, uuid, 'pid')


def shim_of(lab, uuid):
    with open(pid_file(lab, uuid)) as f:
        return int(f.read())


def program_of(uuid):
    """The process of that run's `sleep`, by its working directory as we see it."""
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/cmdline' % pid, 'rb') as f:
                if f.read() == b'sleep\x001000\x00' and os.readlink('/proc/%s/cwd' % pid).endswith(uuid):
                    return int(pid)
        except OSError:
            continue
    return None


def alive(pid):
    try:
        with open('/proc/%d/stat' % pid) as f:
            return f.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except OSError:
        return False


def start(lab, command='echo up; sleep 1000'):
    uuid = lab.run(command)
    lab.wait(uuid, 'running', timeout=90)
    lab.until(lambda: program_of(uuid), 'the program of ' + uuid)
    return uuid, shim_of(lab, uuid), program_of(uuid)


def ended(lab, uuid, program):
    bundle = lab.wait(uuid, 'failed', timeout=90)
    equal(bundle['metadata']['failure_message'], LOST)
    equal(lab.cat(uuid), 'up\n')  # what it had written is there
    lab.until(lambda: not alive(program), 'the death of the program')


def main():
    worker_lab.enter()
    with worker_lab.Lab(worker_timeout=60) as lab:
        w = lab.worker()
        neighbour, _, _ = start(lab, 'echo up; sleep 1000 & until [ -e stop ]; do sleep 0.1; done; kill $!; echo whole')
        # a file that looks like a record changes nothing
        lost, shim, program = start(lab, 'echo up; echo \'{"status": 0}\' >exit.json; sleep 1000')
        os.kill(shim, signal.SIGKILL)
        ended(lab, lost, program)

        both, shim, program = start(lab)
        w.kill9()
        os.kill(shim, signal.SIGKILL)
        lab.until(lambda: not alive(shim), 'the death of the shim')
        w.start()
        ended(lab, both, program)
        with open(os.path.join(lab.work_dir, 'runs', neighbour, 'stop'), 'w'):
            pass
        lab.wait(neighbour, 'ready', timeout=90)
        equal(lab.cat(neighbour), 'up\nwhole\n')

        # a reboot: no process, no link, nothing in /run
        rebooted, shim, program = start(lab)
        w.kill9()
        for pid in (shim, program):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # the one ended with the other
        lab.until(lambda: not alive(shim) and not alive(program), 'the end of everything')
        lab.until(lambda: not any(alive(int(p)) and 'cwshim' in read_comm(p) for p in filter(str.isdigit, os.listdir('/proc'))
                                  if is_ours(p, rebooted)), 'the end of the shims')
        shutil.rmtree(lab.runtime_dir)
        for line in subprocess.run(['ip', '-o', 'link'], capture_output=True, text=True).stdout.splitlines():
            name = line.split(':')[1].strip().split('@')[0]
            if name != 'lo':
                subprocess.run(['ip', 'link', 'del', name], stderr=subprocess.DEVNULL)
        subprocess.run(['nft', 'flush', 'ruleset'], check=True)
        w.start()
        bundle = lab.wait(rebooted, 'failed', timeout=90)
        equal(bundle['metadata']['failure_message'], LOST)
        equal(lab.cat(rebooted), 'up\n')
        after = lab.run('echo after')
        lab.wait(after, 'ready', timeout=90)
        check('after' in lab.cat(after))


def read_comm(pid):
    try:
        with open('/proc/%s/comm' % pid) as f:
            return f.read()
    except OSError:
        return ''


def is_ours(pid, uuid):
    try:
        with open('/proc/%s/cmdline' % pid) as f:
            return uuid in f.read()
    except OSError:
        return False


if __name__ == '__main__':
    main()
