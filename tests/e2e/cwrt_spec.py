#!/usr/bin/env python3
# needs: root cgroup2 net alone
# timeout: 180
"""Fields of config.json whose effect is seen only in a running container: beside tests/unit/runtime_fields.c."""
import array
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import ctr_lab
from ctr_lab import TOP, Bundle, cwrt, main

SCRATCH = os.environ.get('TMPDIR', TOP)


def sh(script):
    return Bundle('/bin/sh', '-c', script)


def namespaces(b, **paths):
    """Replace or add entries: type=None new, type='' none, else the path."""
    kept = [n for n in b.c['linux']['namespaces'] if n['type'] not in paths]
    b.c['linux']['namespaces'] = kept + [{'type': t, **({'path': p} if p else {})} for t, p in paths.items() if p != '']
    return b


def start(b):
    cwrt('run', '-d', '--bundle', b.save().path, b.id, check=True)
    return json.loads(cwrt('state', b.id, check=True).stdout)['pid']


def time_namespace():
    b = namespaces(sh('cut -d. -f1 /proc/uptime'), time=None)
    b.c['linux']['timeOffsets'] = {'boottime': {'secs': 7000000}}
    assert int(b.run().stdout) >= 7000000
    first = namespaces(Bundle('/bin/sleep', '100'), time=None)
    first.c['linux']['timeOffsets'] = {'boottime': {'secs': 7000000}}
    pid = start(first)
    b = namespaces(sh('cut -d. -f1 /proc/uptime'), time='/proc/%d/ns/time' % pid)
    assert int(b.run().stdout) >= 7000000
    cwrt('delete', '--force', first.id, check=True)


def user_namespace_by_path():
    first = Bundle('/bin/sleep', '100').isolate()
    pid = start(first)
    b = namespaces(sh('readlink /proc/self/ns/user; cat /proc/self/uid_map; id -u; echo x > /new; ls /dev'),
                   user='/proc/%d/ns/user' % pid)
    os.chmod(b.root, 0o777)
    p = b.run()
    lines = p.stdout.splitlines()
    assert lines and lines[0] == os.readlink('/proc/%d/ns/user' % pid), p
    assert lines[1].split() == ['0', '1000000', '65536'] and lines[2] == '0' and 'null' in lines, p
    assert os.stat(os.path.join(b.root, 'new')).st_uid == 1000000
    cwrt('delete', '--force', first.id, check=True)


def no_mount_namespace():
    b = namespaces(sh('readlink /proc/self/ns/mnt; ls /proc/self/status /dev/null; pwd'), mount='')
    before = open('/proc/self/mountinfo').read()
    p = b.run()
    assert p.stdout.split() == [os.readlink('/proc/self/ns/mnt'), '/dev/null', '/proc/self/status', '/'], p
    assert open('/proc/self/mountinfo').read() == before, 'something stayed mounted'
    b = namespaces(Bundle('/no/such/program'), mount='')
    assert b.run().returncode == 1
    assert open('/proc/self/mountinfo').read() == before, 'something stayed mounted after a failure'


def mount_namespace_by_path():
    holder = subprocess.Popen(['unshare', '-m', '--propagation', 'private', 'sleep', '100'])
    want = os.readlink('/proc/self/ns/mnt')
    path = '/proc/%d/ns/mnt' % holder.pid
    while os.readlink(path) == want:
        time.sleep(0.02)
    p = namespaces(sh('readlink /proc/self/ns/mnt'), mount=path).run()
    assert p.stdout.strip() == os.readlink(path), p
    holder.kill()
    holder.wait()


def copy_up_and_remount():
    b = sh('cat /data/sub/f; readlink /data/l; stat -c %u:%g:%a /data/sub/f; echo x > /data/new && echo written; '
           '(echo x > /late/y) 2>/dev/null || echo read-only')
    os.makedirs(os.path.join(b.root, 'data/sub'))
    with open(os.path.join(b.root, 'data/sub/f'), 'w') as f:
        f.write('of the image\n')
    os.chown(f.name, 5, 6)
    os.chmod(f.name, 0o4755)
    os.symlink('sub/f', os.path.join(b.root, 'data/l'))
    b.c['mounts'] += [{'destination': '/data', 'type': 'tmpfs', 'source': 'tmpfs', 'options': ['tmpcopyup', 'size=1m']},
                      {'destination': '/late', 'type': 'tmpfs', 'source': 'tmpfs', 'options': ['size=1m']},
                      {'destination': '/late', 'type': 'tmpfs', 'source': 'tmpfs', 'options': ['remount', 'ro', 'size=2m']}]
    p = b.run()
    assert p.stdout.split('\n')[:5] == ['of the image', 'sub/f', '5:6:4755', 'written', 'read-only'], p
    assert not os.path.exists(os.path.join(b.root, 'data/new'))


def devices_in_a_user_namespace():
    b = sh('stat -c %F:%t:%T:%u:%g:%a /dev/mine; head -c 3 /dev/mine | od -An -tx1').isolate()
    b.c['linux']['devices'] = [{'path': '/dev/mine', 'type': 'c', 'major': 1, 'minor': 5, 'fileMode': 0o644, 'uid': 3, 'gid': 4}]
    p = b.run()
    assert p.stdout.splitlines() == ['character special file:1:5:3:4:644', ' 00 00 00'], p


def hooks_run_where_they_should():
    log = os.path.join(SCRATCH, 'hook-log')
    b = sh('cat /said').isolate()
    tell = 'cat >/dev/null; echo $0 $(readlink /proc/self/ns/%s) $(id -u) $(cut -d: -f3 /proc/self/cgroup | tail -n 1) >> %s'

    def hook(kind, ns, path='/bin/sh', to=log):
        return [{'path': path, 'args': [kind, '-c', tell % (ns, to)]}]
    b.c['hooks'] = {'prestart': hook('prestart', 'pid'), 'createRuntime': hook('createRuntime', 'pid'),
                    'createContainer': [{'path': '/bin/sh', 'args': ['createContainer', '-c', 'readlink /proc/self/ns/uts >/dev/null; '
                                                                    'cat >/dev/null; hostname > /dev/null']}],
                    'startContainer': [{'path': '/bin/sh', 'args': ['sh', '-c', 'cat > /said; echo >> /said; readlink /proc/self/ns/pid >> /said; '
                                                                   'id -u >> /said; cat /proc/self/uid_map >> /said']}],
                    'poststart': hook('poststart', 'pid'), 'poststop': hook('poststop', 'pid')}
    p = b.run()
    said = p.stdout.splitlines()
    assert p.returncode == 0 and json.loads(said[0])['status'] == 'created', p
    ours = os.readlink('/proc/self/ns/pid')
    assert said[1] != ours and said[2] == '0' and said[3].split()[1] == '1000000', p
    lines = open(log).read().splitlines()
    assert [line.split()[0] for line in lines] == ['prestart', 'createRuntime', 'poststart', 'poststop'], lines
    assert all(line.split()[1] == ours for line in lines), lines


def hooks_that_fail():
    log = os.path.join(SCRATCH, 'fail-log')
    note = [{'path': '/bin/sh', 'args': ['sh', '-c', 'cat > /dev/null; echo poststop >> %s' % log]}]
    for kind in ('prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart'):
        b = Bundle('/bin/sleep', '100')
        b.c['hooks'] = {kind: [{'path': '/bin/false'}], 'poststop': note}
        p = b.run('-d')
        assert p.returncode == 1 and kind in p.stderr, (kind, p)
        assert cwrt('state', b.id).returncode == 1, kind + ': the container is still there'
        assert not os.path.exists(b.cgroup()), kind
    assert open(log).read().split() == ['poststop'] * 5, open(log).read()
    b = sh('true')
    b.c['hooks'] = {'poststop': [{'path': '/bin/false'}] + note}
    p = b.run()
    assert p.returncode == 0 and 'warning' in p.stderr, p
    assert open(log).read().split() == ['poststop'] * 6, ('hooks after one that failed run too', open(log).read())


def no_process_to_start():
    b = sh('true')
    del b.c['process']
    cwrt('create', '--bundle', b.save().path, b.id, check=True)
    p = cwrt('start', b.id)
    assert p.returncode == 1 and 'process' in p.stderr, p
    assert json.loads(cwrt('state', b.id).stdout)['status'] == 'created'
    cwrt('delete', '--force', b.id, check=True)


class Agent(threading.Thread):
    """A seccomp agent: takes one listener, answers every call with an errno, keeps the message."""

    def __init__(self, path, count):
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(path)
        self.sock.listen(4)
        self.count, self.messages = count, []

    def run(self):
        for _ in range(self.count):
            conn, _ = self.sock.accept()
            data, control, _, _ = conn.recvmsg(65536, socket.CMSG_LEN(4))
            fds = array.array('i')
            fds.frombytes(control[0][2][:4])
            self.messages.append(json.loads(data))
            assert conn.recv(1) == b'', 'the connection is closed after one state'
            threading.Thread(target=self.answer, args=(fds[0],), daemon=True).start()

    @staticmethod
    def answer(fd):
        # struct seccomp_notif is 80 bytes, its answer 24: id, val, error, flags (seccomp_unotify(2))
        import fcntl
        while True:
            notif = bytearray(80)
            try:
                fcntl.ioctl(fd, 0xc0502100, notif)
                answer = bytearray(24)
                answer[0:8] = notif[0:8]
                answer[16:20] = (-95).to_bytes(4, 'little', signed=True)
                fcntl.ioctl(fd, 0xc0182101, answer)
            except OSError:
                return


def seccomp_listener():
    path = os.path.join(SCRATCH, 'agent.sock')
    agent = Agent(path, 3)
    agent.start()
    for nnp in (True, False):
        b = sh('mkdir /tmp/x 2>&1; true')
        b.c['process']['noNewPrivileges'] = nnp
        b.c['process']['capabilities'] = {k: ['CAP_KILL'] for k in ('bounding', 'effective', 'permitted')}
        b.c['linux']['seccomp'] = {'defaultAction': 'SCMP_ACT_ALLOW', 'listenerPath': path, 'listenerMetadata': 'meta',
                                   'syscalls': [{'names': ['mkdir', 'mkdirat'], 'action': 'SCMP_ACT_NOTIFY'}]}
        p = b.run()
        assert 'Operation not supported' in p.stdout, p
        m = agent.messages[-1]
        assert m['fds'] == ['seccompFd'] and m['metadata'] == 'meta' and m['state']['id'] == b.id and m['pid'] > 0, m
    b.c['process']['args'] = ['/bin/sleep', '100']
    start(b)
    b.c['linux']['seccomp']['listenerPath'] = path + '.nobody'
    cwrt('delete', '--force', b.id, check=True)
    agent.join(60)
    assert len(agent.messages) == 3
    p = b.run()
    assert p.returncode == 1 and 'listenerPath' in p.stderr, p


def filter_does_not_hinder_us():
    """A profile of Docker's kind, older than our system calls, without no_new_privs: CVE-free but common."""
    b = sh('echo fine')
    b.c['process']['noNewPrivileges'] = False
    b.c['linux']['seccomp'] = {'defaultAction': 'SCMP_ACT_ALLOW', 'syscalls': [
        {'names': ['faccessat2', 'openat2', 'close_range', 'getcwd', 'setresuid', 'accept4', 'sendto', 'recvfrom'],
         'action': 'SCMP_ACT_ERRNO'}]}
    p = b.run()
    assert p.stdout == 'fine\n', p


def capabilities_by_default():
    b = sh('grep Cap /proc/self/status')
    b.c['process'].pop('capabilities')
    p = b.run()
    assert len(p.stdout.splitlines()) == 5 and all(set(line.split()[1]) == {'0'} for line in p.stdout.splitlines()), p


def limits_of_other_controllers():
    with open('/sys/fs/cgroup/cgroup.controllers') as f:
        have = f.read().split()
    b = Bundle('/bin/sleep', '100')
    want = {'hugetlb.2MB.max': str(4 << 20)} if 'hugetlb' in have else {}
    b.c['linux']['resources']['unified'] = {'memory.high': str(64 << 20), 'pids.max': '77', **want}
    b.c['linux']['resources']['cpu'] = {'shares': 512, 'quota': 50000, 'period': 100000}
    start(b)

    def read(name):
        return open(os.path.join(b.cgroup(), name)).read().strip()
    for name, value in {'memory.high': str(64 << 20), 'pids.max': '77', 'cpu.max': '50000 100000', **want}.items():
        assert read(name) == value, (name, read(name))
    check = os.path.join(b.path, 'r.json')
    with open(check, 'w') as f:
        json.dump({'memory': {'limit': 4096, 'checkBeforeUpdate': True}}, f)
    p = cwrt('update', '--resources', check, b.id)
    assert p.returncode == 1 and 'in use' in p.stderr and read('memory.max') == 'max', p
    os.mkdir(os.path.join(b.cgroup(), 'sub'))
    p = cwrt('exec', '--cgroup', '/sub', b.id, 'cat', '/proc/self/cgroup')
    assert p.stdout.strip() == '0::/sub', p
    assert cwrt('exec', '--cgroup', '../..', b.id, 'true').returncode == 1
    cwrt('delete', '--force', '--regex', b.id[:-1] + '[%s]$' % b.id[-1], check=True)
    assert cwrt('state', b.id).returncode == 1


def affinity_is_for_exec():
    if (os.cpu_count() or 1) < 2:
        raise AssertionError('needs two processors')
    b = Bundle('/bin/sleep', '100')
    b.c['process']['execCPUAffinity'] = {'initial': '0', 'final': '1'}
    pid = start(b)
    assert len(os.sched_getaffinity(pid)) > 1
    p = cwrt('exec', b.id, 'grep', 'Cpus_allowed_list', '/proc/self/status')
    assert p.stdout.split() == ['Cpus_allowed_list:', '1'], p
    cwrt('delete', '--force', b.id, check=True)


def network_devices_move_in():
    def ip(*args):
        subprocess.run(['ip', *args], check=True)
    ip('link', 'add', 'cwtest0', 'type', 'veth', 'peer', 'name', 'cwtest1')
    ip('address', 'add', '192.0.2.7/24', 'dev', 'cwtest0')
    ip('address', 'add', '2001:db8::7/64', 'dev', 'cwtest0')
    b = sh('ip -o address show; ip -o link show')
    b.c['linux']['netDevices'] = {'cwtest0': {'name': 'in0'}, 'cwtest1': {'name': 'x%d'}}
    p = b.run()
    out = p.stdout
    assert 'in0' in out and '192.0.2.7/24' in out and '2001:db8::7/64' in out, p
    assert [line for line in out.splitlines() if ' in0' in line and 'UP' in line], p
    assert [line for line in out.splitlines() if ' x0' in line and 'UP' in line], p
    p = b.run()
    assert p.returncode == 1 and 'no cwtest0' in p.stderr, p
    ip('link', 'add', 'cwtest2', 'type', 'veth', 'peer', 'name', 'cwtest3')
    b.c['linux']['netDevices'] = {'cwtest2': {'name': 'lo'}}
    p = b.run()
    assert p.returncode == 1 and 'already' in p.stderr, p
    ip('link', 'del', 'cwtest2')


def mapped_ids_of_a_mount():
    source = os.path.join(SCRATCH, 'mapped')
    os.makedirs(source)
    os.chown(source, 0, 0)
    b = sh('stat -c %u:%g /m /n')
    maps = {'uidMappings': [{'containerID': 0, 'hostID': 500, 'size': 10}], 'gidMappings': [{'containerID': 0, 'hostID': 600, 'size': 10}]}
    b.c['mounts'] += [{'destination': '/m', 'type': 'bind', 'source': source, 'options': ['bind'], **maps},
                      {'destination': '/n', 'type': 'bind', 'source': source, 'options': ['bind', 'idmap=uids=0-7-10;gids=0-8-10']}]
    p = b.run()
    assert p.stdout.split() == ['500:600', '7:8'], p


def the_process_is_what_was_said():
    """Attributes of the process, as it finds them itself."""
    b = sh('echo umask $(umask); echo files $(ulimit -Sn) $(ulimit -Hn); echo personality $(cat /proc/self/personality); '
           'echo oom $(cat /proc/self/oom_score_adj); echo ioprio $(ionice -p $$); echo sched $(cut -d" " -f19,41 /proc/self/stat); '
           'echo policy $(grep -m1 -o bind:0 /proc/self/numa_maps); echo $(hostname) $(cat /proc/sys/kernel/domainname); '
           'echo sysctl $(cat /proc/sys/net/core/somaxconn) $(cat /proc/sys/kernel/msgmax); echo nnp $(grep NoNewPrivs /proc/self/status); '
           'echo ids $(id -u):$(id -g) $(id -G); pwd')
    b.c['process'].update(
        user={'uid': 5, 'gid': 6, 'additionalGids': [6, 7, 8], 'umask': 0o27}, cwd='/tmp', oomScoreAdj=321, noNewPrivileges=True,
        rlimits=[{'type': 'RLIMIT_NOFILE', 'soft': 100, 'hard': 200}], ioPriority={'class': 'IOPRIO_CLASS_BE', 'priority': 6},
        scheduler={'policy': 'SCHED_BATCH', 'nice': 3})
    b.c['linux'].update(personality={'domain': 'LINUX32'}, memoryPolicy={'mode': 'MPOL_BIND', 'nodes': '0'},
                        sysctl={'net.core.somaxconn': '77', 'kernel.msgmax': '4321', 'kernel.domainname': 'realm'})
    b.c.update(hostname='box', domainname='realm')
    p = b.run()
    assert p.returncode == 0, p
    lines = p.stdout.splitlines()
    for want in ('umask 0027', 'files 100 200', 'personality 00000008', 'oom 321', 'policy bind:0', 'box realm', 'sysctl 77 4321',
                 'nnp NoNewPrivs: 1', 'sched 3 3', 'ids 5:6 6 7 8', '/tmp'):
        assert want in lines, (want, p.stdout)
    assert 'best-effort: prio 6' in p.stdout, p.stdout
    b.c['domainname'] = 'other'
    p = b.run()
    assert p.returncode == 1 and 'kernel.domainname' in p.stderr and 'other' in p.stderr, p


def the_roots_propagation():
    for kind, mark in (('shared', 'shared:'), ('slave', 'master:'), ('private', '')):
        b = sh("awk '$5 == \"/\"' /proc/self/mountinfo")
        b.c['linux']['rootfsPropagation'] = kind
        p = b.run()
        fields = p.stdout.split(' - ')[0].split()[6:]
        # a slave of nobody is private
        assert p.returncode == 0 and (any(f.startswith(mark) for f in fields) if kind == 'shared' else not fields), (kind, p)


def descriptors_of_a_service_manager():
    """LISTEN_FDS is handed on as sd_listen_fds(3) wants it, whoever stands between."""
    read, write = os.pipe()
    os.write(write, b'through\n')
    os.close(write)
    b = sh('echo $LISTEN_FDS $LISTEN_PID; cat <&3; ls /proc/self/fd | wc -l').save()
    # the descriptor is to be number 3
    p = subprocess.run(['/bin/sh', '-c', 'exec 3<&%d %d<&-; exec "$@"' % (read, read) if read != 3 else 'exec "$@"', 'sh', ctr_lab.CWRT, '--root', ctr_lab.STATE,
                        *(['--cgroup=partial'] if ctr_lab.PARTIAL else []), 'run', '--bundle', b.path, b.id], pass_fds=[read],
                       env={**os.environ, 'LISTEN_FDS': '1'}, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    os.close(read)
    assert p.stdout.split() == ['1', '1', 'through', '5'], p  # 0 to 3, and the directory that ls reads


def console_socket():
    """The master comes over the socket; the size is the one of consoleSize."""
    path = os.path.join(SCRATCH, 'console')
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    listener.settimeout(60)
    b = Bundle('/bin/sh', '-c', 'test -t 0 && test -t 1 && test -t 2 && stty size && tty && cat', terminal=True)
    b.c['process']['consoleSize'] = {'height': 31, 'width': 97}
    p = cwrt('create', '--bundle', b.save().path, b.id)
    assert p.returncode == 1 and '--console-socket' in p.stderr, p
    cwrt('create', '--bundle', b.path, '--console-socket', path, b.id, check=True)
    connection = listener.accept()[0]
    _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
    cwrt('start', b.id, check=True)
    seen, deadline = b'', time.time() + 60
    os.write(fds[0], b'typed\n')
    while seen.count(b'typed') < 2 and time.time() < deadline:
        if select.select([fds[0]], [], [], 1)[0]:
            seen += os.read(fds[0], 4096)
    assert b'31 97\r\n' in seen and b'/dev/' in seen and seen.count(b'typed') == 2, seen
    cwrt('delete', '--force', b.id, check=True)
    for what in (connection, listener):
        what.close()
    os.close(fds[0])


if __name__ == '__main__':
    main([the_process_is_what_was_said, the_roots_propagation, descriptors_of_a_service_manager, console_socket,
          time_namespace, user_namespace_by_path, no_mount_namespace, mount_namespace_by_path, copy_up_and_remount,
          devices_in_a_user_namespace, hooks_run_where_they_should, hooks_that_fail, no_process_to_start, seccomp_listener,
          filter_does_not_hinder_us, capabilities_by_default, limits_of_other_controllers, affinity_is_for_exec,
          network_devices_move_in, mapped_ids_of_a_mount])
