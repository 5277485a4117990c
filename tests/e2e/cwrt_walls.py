#!/usr/bin/env python3
# needs: root cgroup2 alone
# timeout: 180
# rows: S01 S02 S03 S08 S26 S32 S33 S34 S35 S36 S37 S38 S39 S40 S41 S42 S50
"""Attacks from inside a container and from an image; and what a failed start leaves behind: nothing."""
import hashlib
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ctr_lab import CGROUPS, CWRT, STATE, TOP, Bundle, cwrt, main


def sh(script):
    return Bundle('/bin/sh', '-c', script)


def no_descriptor_leaks():
    fd = os.open(TOP, os.O_RDONLY)
    os.set_inheritable(fd, True)
    b = sh('for f in /proc/self/fd/*; do echo ${f##*/}:$(readlink $f); done')
    out = b.run(pass_fds=(fd,)).stdout.splitlines()
    os.close(fd)
    # the shell's own directory handle comes and goes
    assert out and all(o.split(':')[0] in ('0', '1', '2') or o.endswith(':') or '/proc/' in o for o in out), out


def preserved_descriptors_arrive():
    r, w = os.pipe()
    if r != 3:
        os.dup2(r, 3)
    os.write(w, b'hello\n')
    os.set_inheritable(3, True)
    p = sh('head -n 1 <&3').run('--preserve-fds', '1', pass_fds=(3,))
    assert p.stdout == 'hello\n', p


def binary_cannot_be_overwritten():
    before = hashlib.sha256(open(CWRT, 'rb').read()).hexdigest()
    b = sh('for p in /proc/[0-9]*; do cat $p/exe | head -c 4 >/dev/null 2>&1 && readlink $p/exe; done; '
           '(echo x > /proc/1/exe) 2>&1; exit 0').isolate()
    out = b.run().stdout
    assert 'cwrt' not in out, out
    # a program that is the runtime itself by another name runs nothing of the host's
    b = Bundle('/proc/self/exe')
    p = b.run()
    assert p.returncode != 0 or 'OCI' not in p.stdout, p
    assert hashlib.sha256(open(CWRT, 'rb').read()).hexdigest() == before


def masks_mask():
    b = sh('for f in /proc/kcore /proc/keys /proc/timer_list; do [ -e $f ] && wc -c < $f; done; ls /proc/acpi /sys/firmware 2>&1; '
           'for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/irq/default_smp_affinity; do '
           '(echo 1 > $f) 2>/dev/null && echo wrote $f; done; mount -o remount,rw /proc/sys 2>/dev/null && echo remounted; '
           'umount /proc/kcore 2>/dev/null && echo unmasked').isolate()
    out = b.run().stdout
    assert not set(out.split()) - {'0', '/proc/acpi:', '/sys/firmware:'}, out


def walls_of_a_bundle():
    b = sh('cat /proc/self/status; for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done').isolate()
    b.c['process']['capabilities'] = {}
    out = b.run().stdout
    for want in ('CapEff:\t0000000000000000', 'CapBnd:\t0000000000000000', 'NoNewPrivs:\t1', 'Seccomp:\t2'):
        assert want in out, (want, out)
    for n in ('user', 'mnt', 'pid', 'net', 'ipc', 'uts', 'cgroup'):
        assert os.readlink('/proc/self/ns/' + n) not in out, n


def seccomp_denies():
    b = sh('unshare -U true 2>&1 && echo escaped; mount -t tmpfs x /tmp 2>&1 && echo mounted').isolate()
    out = b.run().stdout
    assert 'escaped' not in out and 'mounted' not in out, out


def devices_are_ours():
    b = sh('for d in null zero full random urandom tty; do stat -c %F:%t:%T /dev/$d; done; ls /dev/pts; '
           'mknod /tmp/mem c 1 1 2>/dev/null && head -c 1 /tmp/mem >/dev/null 2>&1 && echo read; exit 0').isolate()
    p = b.run()
    want = ['character special file:%x:%x' % d for d in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0))]
    assert [line for line in p.stdout.splitlines() if ':' in line] == want and 'read' not in p.stdout, p


def links_for_proc_are_refused():
    for name in ('proc', 'sys', 'dev'):
        b = sh('true')
        os.rmdir(os.path.join(b.root, name))
        os.symlink('/tmp', os.path.join(b.root, name))
        p = b.run()
        assert p.returncode == 1 and 'symbolic link' in p.stderr, (name, p)


def mounts_stay_inside():
    target = os.path.join(TOP, 'victim')
    os.makedirs(target, exist_ok=True)
    source = os.path.join(TOP, 'source')
    with open(source, 'w') as f:
        f.write('data\n')
    b = sh('cat /esc/a /etc/resolv.conf')
    os.symlink(target, os.path.join(b.root, 'esc'))
    # dangling, as in many images: what it names inside is made
    os.symlink('../run/systemd/resolve/stub-resolv.conf', os.path.join(b.root, 'etc/resolv.conf'))
    os.makedirs(os.path.join(b.root, target.lstrip('/')))
    for place in ('/esc/a', '/etc/resolv.conf'):
        b.c['mounts'].append({'destination': place, 'type': 'bind', 'source': source, 'options': ['bind', 'ro']})
    p = b.run()
    assert p.stdout == 'data\ndata\n', p
    assert not os.listdir(target)
    assert os.path.exists(os.path.join(b.root, 'run/systemd/resolve/stub-resolv.conf'))


def working_directory_stays_inside():
    for cwd in ('/proc/self/fd/3', '/proc/self/fd/7/../..', '/proc/1/cwd'):
        b = sh('pwd; ls')
        b.c['process']['cwd'] = cwd
        p = b.run()
        assert p.returncode != 0, (cwd, p)


def files_belong_to_the_owner():
    base = os.environ.get('TMPDIR', TOP)
    work, dep = os.path.join(base, 'work'), os.path.join(base, 'dep')
    os.makedirs(work)
    os.makedirs(dep)
    os.chown(work, 4242, 4343)
    with open(os.path.join(dep, 'f'), 'w') as f:
        f.write('shared\n')
    os.chmod(os.path.join(dep, 'f'), 0o600)
    b = sh('cat /dep/f; echo x > /work/new; stat -c %u:%g /work /work/new /dep/f; (echo y > /dep/f) 2>/dev/null; echo z > /root/z').isolate()
    b.c['mounts'] += [{'destination': '/work', 'type': 'bind', 'source': work, 'options': ['rbind', 'x-cworker.owner']},
                      {'destination': '/dep', 'type': 'bind', 'source': dep, 'options': ['rbind', 'ro', 'idmap']}]
    caps = ['CAP_DAC_OVERRIDE', 'CAP_CHOWN']
    b.c['process']['capabilities'] = {'bounding': caps, 'effective': caps, 'permitted': caps}
    p = b.run()
    assert p.stdout.split() == ['shared', '0:0', '0:0', '0:0'], p
    st = os.stat(os.path.join(work, 'new'))
    assert (st.st_uid, st.st_gid) == (4242, 4343)
    assert open(os.path.join(dep, 'f')).read() == 'shared\n'
    assert os.stat(os.path.join(b.path, 'overlay/upper/root/z')).st_uid == 1000000
    assert not os.path.exists(os.path.join(b.root, 'root/z')), 'the layer itself must not change'


def many_layers():
    b = sh('cat /f0 /f149').isolate()
    layers = []
    for i in range(150):
        layer = os.path.join(b.path, 'layer-%d' % i)
        os.makedirs(layer)
        with open(os.path.join(layer, 'f%d' % i), 'w') as f:
            f.write('%d\n' % i)
        layers.append(layer)
    b.c['annotations']['org.codalab.cworker.overlay.lower'] = json.dumps(layers + [b.root])
    assert b.run().stdout == '0\n149\n'


def snapshot():
    groups = sorted(d for d, _, _ in os.walk(os.path.join(CGROUPS, 'cwrt')))
    mounts = sorted(line.split(' ', 3)[3] for line in open('/proc/self/mountinfo'))
    mine = subprocess.run(['ps', '-o', 'pid=,args=', '--ppid', str(os.getpid())], stdout=subprocess.PIPE, text=True).stdout
    return groups, mounts, [p for p in mine.splitlines() if ' ps ' not in p and 'defunct' not in p], os.listdir(STATE)


def failures_leave_nothing():
    Bundle('/bin/true').run()
    before = snapshot()

    def break_it(change, isolate=True):
        b = Bundle('/bin/true')
        if isolate:
            b.isolate()
        change(b.c)
        p = b.run()
        assert p.returncode == 1 and p.stderr, p
        assert snapshot() == before, (p.stderr, snapshot(), before)
        if isolate:
            assert not os.listdir(os.path.join(b.path, 'overlay')) or p.stderr.find('layer') < 0, p
    bad = {'destination': '/x', 'type': 'bind', 'source': '/nonexistent', 'options': ['rbind']}
    break_it(lambda c: c['mounts'].append(bad))
    break_it(lambda c: c['process'].update(args=['/no/such/program']))
    break_it(lambda c: c['process'].update(user={'uid': 70000, 'gid': 0}))
    break_it(lambda c: c['mounts'].append({'destination': '/x', 'type': 'nosuchfs', 'source': 'x'}))
    break_it(lambda c: c['annotations'].update({'org.codalab.cworker.overlay.lower': '["/nonexistent"]'}))
    break_it(lambda c: c['annotations'].update({'org.codalab.cworker.user': 'nobody-here'}))
    break_it(lambda c: c.update(hooks={'createRuntime': [{'path': '/bin/false'}]}))
    break_it(lambda c: c['process']['capabilities'].update(bounding=['CAP_NO_SUCH']), isolate=False)
    break_it(lambda c: c['linux'].update(sysctl={'kernel.panic': '1'}), isolate=False)
    break_it(lambda c: c['linux']['namespaces'].append({'type': 'network', 'path': '/proc/self/ns/net'}), isolate=False)


def hooks_get_the_state():
    log = os.path.join(TOP, 'hooks')
    b = sh('true')
    kinds = ('createRuntime', 'createContainer', 'poststart', 'poststop')
    b.c['hooks'] = {k: [{'path': '/bin/sh', 'args': ['sh', '-c', 'cat >> %s; env >> %s; echo " %s" >> %s' % (log, log, k, log)],
                         'env': ['A=b'], 'timeout': 60}] for k in kinds}
    assert b.run().returncode == 0
    text = open(log).read()
    assert [k for k in text.split() if k in kinds] == list(kinds), text
    assert '"id":"%s"' % b.id in text and 'A=b' in text and 'HOME' not in text, text
    b = sh('true')
    b.c['hooks'] = {'createRuntime': [{'path': '/bin/sleep', 'args': ['sleep', '60'], 'timeout': 1}]}
    p = b.run()
    assert p.returncode == 1 and 'no end' in p.stderr, p


if __name__ == '__main__':
    main([no_descriptor_leaks, preserved_descriptors_arrive, binary_cannot_be_overwritten, masks_mask, walls_of_a_bundle,
          seccomp_denies, devices_are_ours, links_for_proc_are_refused, mounts_stay_inside, working_directory_stays_inside,
          files_belong_to_the_owner, many_layers, failures_leave_nothing, hooks_get_the_state])
