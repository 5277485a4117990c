#!/usr/bin/env python3
# needs: root cgroup2 alone
# timeout: 180
# rows: S08 S33 S46 S47 S48
"""create, start, state, kill, delete, exec, pause, update: statuses and output as a caller of runc expects them."""
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ctr_lab import CGROUPS, STATE, TOP, Bundle, cwrt, main


def status(b):
    return json.loads(cwrt('state', b.id, check=True).stdout)['status']


def wait_for(what, seconds=60):
    end = time.time() + seconds
    while not what():
        assert time.time() < end, 'waited in vain'
        time.sleep(0.02)


def exit_status_is_the_programs():
    for script, want in (('exit 0', 0), ('exit 7', 7), ('kill -9 $$', 137), ('kill -TERM $$', 143)):
        p = Bundle('/bin/sh', '-c', script).isolate().run()
        assert p.returncode == want, (script, p)
    assert Bundle('/bin/sh', '-c', 'exit 3').run().returncode == 3


def two_steps():
    b = Bundle('/bin/sh', '-c', 'echo started > /started; sleep 100').save()
    pid_file = os.path.join(b.path, 'pid')
    cwrt('create', '--bundle', b.path, '--pid-file', pid_file, b.id, check=True)
    assert status(b) == 'created'
    assert not os.path.exists(os.path.join(b.root, 'started'))
    state = json.loads(cwrt('state', b.id).stdout)
    assert state['pid'] == int(open(pid_file).read()) and state['bundle'] == b.path
    assert cwrt('delete', b.id).returncode != 0, 'a container that is created is not stopped'
    again = cwrt('create', '--bundle', b.path, b.id)
    assert again.returncode == 1 and 'exists' in again.stderr, again
    assert status(b) == 'created', 'a refused create must not hurt the one there is'
    cwrt('start', b.id, check=True)
    wait_for(lambda: os.path.exists(os.path.join(b.root, 'started')))
    assert status(b) == 'running'
    assert cwrt('start', b.id).returncode == 1
    assert b.id in cwrt('list', '-q').stdout.split()
    assert cwrt('delete', b.id).returncode == 1
    cwrt('kill', b.id, 'KILL', check=True)
    wait_for(lambda: status(b) == 'stopped')
    assert cwrt('kill', b.id, 'TERM').returncode == 1
    cwrt('delete', b.id, check=True)
    assert cwrt('state', b.id).returncode == 1
    assert not os.path.exists(b.cgroup())


def exec_has_the_same_walls():
    b = Bundle('/bin/sleep', '100').isolate()
    cwrt('run', '-d', '--bundle', b.save().path, b.id, check=True)
    p = cwrt('exec', b.id, '/bin/sh', '-c', 'id -u; cat /proc/self/uid_map; grep -E "^(Seccomp|NoNewPrivs|CapEff):" '
             '/proc/self/status; readlink /proc/1/exe; ls /proc/self/fd | wc -l; exit 9')
    assert p.returncode == 9, p
    assert '1000000' in p.stdout and 'Seccomp:\t2' in p.stdout and 'NoNewPrivs:\t1' in p.stdout, p.stdout
    assert CGROUPS not in p.stdout and 'cwrt' not in p.stdout, p.stdout
    p = cwrt('exec', '--user', 'alice', b.id, 'id')
    assert 'uid=1000(alice) gid=1000(alice) groups=50(staff)' in p.stdout, p
    assert cwrt('exec', '--user', 'mallory', b.id, 'id').returncode == 1
    p = cwrt('exec', b.id, 'nosuchprogram')
    assert p.returncode == 1 and 'not found' in p.stderr, p
    p = cwrt('exec', '--env', 'A=b c', '--cwd', '/tmp', b.id, 'sh', '-c', 'echo "$A $PWD"')
    assert p.stdout == 'b c /tmp\n', p
    p = cwrt('exec', b.id, 'cat', '/proc/1/cmdline')
    assert p.stdout.strip('\0') == 'init', p.stdout
    cwrt('delete', '--force', b.id, check=True)


def init_reaps_and_forwards():
    b = Bundle('/bin/sh', '-c', 'trap "echo got; exit 5" USR1; (sleep 0.1 & exit 0); echo up; '
               'while :; do sleep 0.05; done').isolate()
    p = subprocess.Popen([sys.argv[0], 'child', b.save().path, b.id], stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'up\n'
    # the shell's own children are zombies for a moment; an orphan that nobody reaps is one for ever
    wait_for(lambda: 'Z' not in cwrt('exec', b.id, 'ps', '-o', 'stat').stdout)
    p.send_signal(signal.SIGUSR1)
    assert p.stdout.read() == 'got\n' and p.wait() == 5


def pause_and_resume():
    b = Bundle('/bin/sh', '-c', 'while :; do sleep 1; done')
    cwrt('run', '-d', '--bundle', b.save().path, b.id, check=True)
    cwrt('pause', b.id, check=True)
    assert status(b) == 'paused'
    assert cwrt('exec', b.id, 'true').returncode == 1
    cwrt('resume', b.id, check=True)
    assert status(b) == 'running'
    cwrt('delete', '--force', b.id, check=True)


def limits_hold_and_change():
    if not os.path.exists('/sys/fs/cgroup/cgroup.controllers'):
        raise AssertionError('needs cgroup v2 controllers')
    b = Bundle('/bin/sleep', '100')
    b.c['linux']['resources'].update(memory={'limit': 64 << 20}, pids={'limit': 20}, cpu={'cpus': '0'})
    cwrt('run', '-d', '--bundle', b.save().path, b.id, check=True)

    def read(name):
        return open(os.path.join(b.cgroup(), name)).read().strip()
    assert (read('memory.max'), read('pids.max'), read('cpuset.cpus')) == (str(64 << 20), '20', '0')
    cwrt('update', '--memory', str(96 << 20), '--pids-limit', '30', b.id, check=True)
    assert (read('memory.max'), read('pids.max')) == (str(96 << 20), '30')
    event = json.loads(cwrt('events', '--stats', b.id, check=True).stdout)
    assert event['type'] == 'stats' and event['data']['pids']['current'] == 1, event
    cwrt('delete', '--force', b.id, check=True)


def terminal():
    b = Bundle('/bin/sh', '-c', 'readlink /proc/self/fd/0; test -t 1 && echo tty; ls -l /dev/console | cut -c1', terminal=True)
    p = b.run(stdin=subprocess.DEVNULL)
    assert p.stdout.split() == ['/dev/pts/0', 'tty', 'c'], p


def pidfds_are_handed_out():
    """--pidfd-socket, as runc has it since 1.2."""
    path = os.path.join(TOP, 'pidfd.sock')
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(4)
    listener.settimeout(60)

    def handed():
        conn, _ = listener.accept()
        with conn:
            text, fds, _, _ = socket.recv_fds(conn, 64, 4)
        assert len(fds) == 1, fds
        with open('/proc/self/fdinfo/%d' % fds[0]) as f:
            pid = int(dict(line.split(':') for line in f)['Pid'])
        return text, fds[0], pid
    b = Bundle('/bin/sleep', '1000').save()
    cwrt('create', '--pidfd-socket', path, '--bundle', b.path, b.id, check=True)
    text, fd, pid = handed()
    assert (text, pid) == (b'standard', json.loads(cwrt('state', b.id, check=True).stdout)['pid']), (text, pid)
    cwrt('start', b.id, check=True)
    pid_file = os.path.join(b.path, 'exec.pid')
    cwrt('exec', '--detach', '--pid-file', pid_file, '--pidfd-socket', path, b.id, '/bin/sleep', '1000', check=True)
    text, other, pid = handed()
    assert (text, pid) == (b'setns', int(open(pid_file).read())), (text, pid)
    cwrt('kill', b.id, 'KILL', check=True)
    for ended in (fd, other):
        assert select.select([ended], [], [], 60)[0], 'a pidfd tells the end of its process'
        os.close(ended)
    cwrt('delete', '--force', b.id, check=True)
    p = cwrt('create', '--pidfd-socket', path + '.none', '--bundle', b.path, b.id)
    assert p.returncode == 1 and '--pidfd-socket' in p.stderr, p
    assert not os.path.exists(b.cgroup()), 'something is left'


def bad_ids_are_refused():
    b = Bundle('/bin/true').save()
    for bad in ('../x', 'a/b', '.x', '-x', '', 'a' * 300, 'x\ny'):
        p = cwrt('create', '--bundle', b.path, '--', bad)
        assert p.returncode == 1, (bad, p)
    assert not os.path.exists(os.path.join(TOP, 'x'))
    assert not os.listdir(STATE)


def command_line():
    f = json.loads(cwrt('features', check=True).stdout)
    assert f['ociVersionMax'] == '1.3.0' and len(f['hooks']) == 6 and 'idmap' in f['mountOptions'], f
    assert {'user', 'time'} <= set(f['linux']['namespaces']) and 'CAP_BPF' in f['linux']['capabilities'], f
    assert 'MPOL_BIND' in f['linux']['memoryPolicy']['modes'] and f['linux']['netDevices']['enabled'], f
    for action in f['linux']['seccomp']['actions']:  # what is told is understood
        b = Bundle('/bin/true')
        b.c['linux']['seccomp'] = {'defaultAction': 'SCMP_ACT_ALLOW', 'listenerPath': '/nowhere', 'syscalls': [
            {'names': ['swapon'], 'action': action}]}
        p = b.run()
        assert p.returncode == (1 if action == 'SCMP_ACT_NOTIFY' else 0), (action, p)
    place = os.path.join(TOP, 'rootless')
    os.mkdir(place)
    cwrt('spec', '--rootless', '--bundle', place, check=True)
    c = json.load(open(os.path.join(place, 'config.json')))
    assert c['linux']['uidMappings'] == [{'containerID': 0, 'hostID': 0, 'size': 1}], c
    assert cwrt('--cgroup-manager', 'disabled', 'list').returncode == 1
    log = os.path.join(TOP, 'log.json')
    assert cwrt('--systemd-cgroup', '--log', log, '--log-format', 'json', 'state', 'nobody').returncode == 1
    assert 'does not exist' in json.loads(open(log).read())['msg']


def systemd_names():
    """slice:prefix:name, as podman and containerd pass it on hosts of systemd's: the slices are levels, the scope the group."""
    slices = 'cw%d.slice' % os.getpid(), 'cw%d-a.slice' % os.getpid()
    groups = os.path.join(CGROUPS, *slices)
    system = os.path.join(CGROUPS, 'system.slice')
    was_there = os.path.isdir(system)
    try:
        b = Bundle('/bin/sh', '-c', 'sleep 100')
        b.c['linux']['cgroupsPath'] = slices[1] + ':test:' + b.id
        b.save()
        for flag in ('--systemd-cgroup', '--cgroup-manager=systemd'):
            cwrt(flag, 'run', '--detach', '--bundle', b.path, b.id, check=True)
            pid = json.loads(cwrt('state', b.id, check=True).stdout)['pid']
            group = os.path.join(groups, 'test-%s.scope' % b.id)
            assert open(os.path.join(group, 'cgroup.procs')).read().split() == [str(pid)]
            cwrt('delete', '--force', b.id, check=True)
            assert os.listdir(groups).count(os.path.basename(group)) == 0
        for path, manager, said in (('/a/path', '--systemd-cgroup', 'slice:prefix:name'), ('/a/path', '--cgroup-manager=systemd', '/a/path'),
                                    ('noslice:a:b', '--systemd-cgroup', 'slice:prefix:name')):
            b.c['linux']['cgroupsPath'] = path
            b.save()
            p = cwrt(manager, 'run', '--bundle', b.path, b.id)
            assert p.returncode == 1 and said in p.stderr and 'cgroupsPath' in p.stderr, p
        del b.c['linux']['cgroupsPath']
        b.c['process']['args'] = ['/bin/cat', '/proc/1/cgroup']
        b.c['linux']['namespaces'] = [n for n in b.c['linux']['namespaces'] if n['type'] != 'cgroup']
        b.save()
        p = cwrt('--systemd-cgroup', 'run', '--bundle', b.path, b.id)
        assert 'system.slice/cwrt-%s.scope' % b.id in p.stdout, p
    finally:
        cwrt('delete', '--force', b.id)
        for depth in (2, 1):
            group = os.path.join(CGROUPS, *slices[:depth])
            if os.path.isdir(group):
                os.rmdir(group)
        if not was_there and os.path.isdir(system):
            os.rmdir(system)


if __name__ == '__main__':
    if sys.argv[1:2] == ['child']:
        from ctr_lab import CWRT, PARTIAL
        os.execv(CWRT, [CWRT, '--root', os.path.join(os.path.dirname(sys.argv[2]), 'state')] +
                 (['--cgroup=partial'] if PARTIAL else []) + ['run', '--bundle', sys.argv[2], sys.argv[3]])
    main([systemd_names, exit_status_is_the_programs, two_steps, exec_has_the_same_walls, init_reaps_and_forwards, pause_and_resume,
          limits_hold_and_change, terminal, pidfds_are_handed_out, bad_ids_are_refused, command_line])
