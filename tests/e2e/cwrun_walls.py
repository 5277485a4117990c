#!/usr/bin/env python3
# needs: root cgroup2 net alone
# timeout: 240
# rows: S11 S33 S36 S38 S39 S40 S41 S43 S44 S50 S52 S65
"""A program inside a container tries every door, with a user namespace and without one; an image asks for more than it gets;
another user of the host looks for what containers leave open."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = os.environ.get('CW_TOP') or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(os.environ.get('CW_BUILD', os.path.join(TOP, 'build')), 'bin')
sys.path[:0] = [os.path.join(TOP, 'tests/fixtures'), os.path.join(TOP, 'tests/e2e')]
import image  # noqa: E402
import registry  # noqa: E402


NO_ONE = 65534
# a user namespace makes its root harmless, so that these are left to it; everything else is denied to both
ALLOWED = {'chroot'}
DENIED = {'EPERM', 'EACCES', 'EROFS', 'ENOENT', 'ENOSYS', 'empty'}
UNKNOWN = {'unknown-call', 'x32-call', 'clone3'}
DOORS = 85  # so many does the probe try on x86-64
FOURTEEN, TEN = '00000000a80425fb', '00000000800005fb'


def probe_bytes():
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([os.environ.get('CC', 'cc'), '-O1', '-D_GNU_SOURCE', '-static', '-s', '-o', d + '/probe',
                        os.path.join(TOP, 'tests/fixtures/probe.c')], check=True)
        return image.read(d + '/probe')


class Walls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        where = '/scratch' if os.path.isdir('/scratch') else '/var/tmp'
        cls.scratch = tempfile.mkdtemp(prefix='walls.', dir=where)
        cls.store = os.path.join(cls.scratch, 'work/images')
        cls.canary = os.path.join(cls.scratch, 'canary')
        with open(cls.canary, 'w') as f:
            f.write('untouched')
        layout = os.path.join(cls.scratch, 'layout')
        base = image.Layer(image.SKELETON + image.busybox_entries() + [image.file('bin/probe', probe_bytes(), 0o755)])
        out = '../' * 20 + cls.canary.lstrip('/')
        traps = image.Layer(image.program_entries('/bin/bash') + [
            # whatever is written or mounted there must stay inside
            image.symlink('etc/resolv.conf', out), image.symlink('etc/hosts', cls.canary), image.symlink('etc/hostname', out),
            image.symlink('etc/mtab', '/proc/1/mounts'), image.file('home/evil', b'\x7fELF', 0o4755),
        ])
        greedy = {
            'Volumes': {'/etc': {}, '/vol': {}, '../../host': {}}, 'ExposedPorts': {'22/tcp': {}, '80': {}},
            'Labels': {'org.codalab.cworker.overlay.lower': '["/"]', 'org.codalab.cworker.seccomp.default': 'false',
                       'io.kubernetes.cri.privileged': 'true', 'run.oci.hooks': '/bin/sh', 'com.nvidia.volumes.needed': 'x'},
            'Healthcheck': {'Test': ['CMD', 'touch', '/healthcheck-ran']}, 'OnBuild': ['RUN touch /onbuild-ran'],
            'Shell': ['/bin/evil'], 'Domainname': 'evil', 'Hostname': 'evil', 'Memory': -1, 'Privileged': True,
            'HostConfig': {'Privileged': True, 'Binds': ['/:/host']}, 'AttachStdin': True, 'Tty': True,
            'Cmd': ['/bin/sh'], 'Env': ['PATH=/bin', 'NVIDIA_VISIBLE_DEVICES=all', 'CWORKER_SECCOMP=off'],
        }
        images = {'plain': image.Image([base], {'Cmd': ['/bin/sh'], 'Env': ['PATH=/bin']}),
                  'greedy': image.Image([base], greedy), 'traps': image.Image([base, traps], {'Cmd': ['/bin/sh']})}
        cls.names = {}
        with registry.Registry(os.path.join(cls.scratch, 'registry')) as r:
            for name, what in images.items():
                image.Layout(layout).add(name + ':latest', what)
                r.push(layout, name + ':latest', 'library/' + name, 'latest')
                cls.names[name] = r.address + '/library/' + name + ':latest'
                subprocess.run([os.path.join(BIN, 'cwrun'), 'pull', '-q', '--store', cls.store, '--insecure-registry',
                                r.address, cls.names[name]], check=True)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.scratch)

    def run_in(self, name, *words, flags=(), **kw):
        p = subprocess.run([os.path.join(BIN, 'cwrun'), 'run', '--store', self.store, *flags, self.names[name], '--', *words],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=90, **kw)
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
        return p.stdout

    def judge(self, text, caps, allowed):
        lines = dict(line.rsplit(' ', 1) for line in text.splitlines() if not line.startswith('status '))
        status = dict(line[7:].split(':', 1) for line in text.splitlines() if line.startswith('status '))
        status = {k: v.strip() for k, v in status.items()}
        self.assertEqual(status, {'Groups': '', 'CapInh': '0' * 16, 'CapPrm': caps, 'CapEff': caps, 'CapBnd': caps,
                                  'CapAmb': '0' * 16, 'NoNewPrivs': '1', 'Seccomp': '2'})
        self.assertEqual([lines.pop(k) for k in ('descriptors', 'signals', 'cwd')], ['0', '0', '/'])
        self.assertEqual({n for n, r in lines.items() if r == 'ok'}, allowed, 'doors that are open')
        self.assertEqual({n: r for n, r in lines.items() if r not in DENIED | {'ok'}}, {})
        self.assertEqual({n: r for n, r in lines.items() if n in UNKNOWN}, dict.fromkeys(UNKNOWN, 'ENOSYS'))
        self.assertGreaterEqual(len(lines), DOORS)

    def test_every_door_is_tried(self):
        self.judge(self.run_in('plain', 'probe'), FOURTEEN, ALLOWED)
        self.judge(self.run_in('plain', 'probe', flags=['--userns', 'none']), TEN, set())
        # other ids than root's have no more
        text = self.run_in('plain', 'probe', flags=['--user', '7:9'])
        self.assertIn('status CapEff:\t' + '0' * 16, text)
        self.assertNotIn(' ok\n', text)

    def test_an_image_gets_no_more_than_it_is(self):
        look = ('cut -d" " -f4- /proc/self/mountinfo; ls -a / /dev /host /vol 2>&1; hostname; cat /proc/self/status '
                '| grep -E "^(Cap|Seccomp|NoNew|Uid|Gid)"; cat /proc/net/tcp; ls /sys/class/net; wc -l < /proc/self/uid_map')
        plain, greedy = self.run_in('plain', 'sh', '-c', look), self.run_in('greedy', 'sh', '-c', look)

        def comparable(text):
            # ids differ by the range that the run got, and by the numbers of the kernel's anonymous devices
            return [' '.join(w for w in line.split() if 'id=' not in w) for line in text.splitlines()]
        self.assertEqual(comparable(plain), comparable(greedy))
        self.assertIn('No such file', plain)  # /host and /vol are in neither

    def test_links_in_the_image_lead_nowhere(self):
        """The files that the worker writes for a bundle, where the image has links out of its root."""
        uuid = '0x' + 'c' * 32
        wish = {'cpus': 1, 'gpus': 0, 'docker_image': self.names['traps'], 'time': 0, 'memory': 256 << 20, 'disk': 0,
                'network': False}
        path, out = os.path.join(self.scratch, 'bundle.json'), os.path.join(self.scratch, 'out')
        with open(path, 'w') as f:
            json.dump({'bundle': {'uuid': uuid, 'bundle_type': 'run', 'metadata': {}, 'dependencies': [], 'command':
                                  'cat /etc/resolv.conf /etc/hosts; echo x > /etc/hostname; cat %s; true' % self.canary},
                       'resources': wish}, f)
        p = subprocess.run([os.path.join(BIN, 'cwrun'), 'bundle', '--store', self.store, '--pull', 'never', '--output', out,
                            path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           timeout=100)
        self.assertEqual(p.returncode, 0, p.stdout)
        self.assertEqual(image.read(self.canary), b'untouched', p.stdout)
        self.assertNotIn('untouched', p.stdout)
        self.assertIn('localhost', image.read(os.path.join(out, 'stdout')).decode(), p.stdout)

    def test_host_facts_and_services_stay_outside(self):
        out = self.run_in('plain', 'sh', '-c', 'find / -type s 2>/dev/null; cat /proc/net/unix | tail -n +2; '
                          'cat /proc/self/mountinfo /proc/self/cgroup /proc/1/environ; tail -n +2 /proc/sysvipc/shm; '
                          'ls /proc | grep -c "^[0-9]"; dmesg 2>&1 | tail -n 1; env')
        self.assertNotIn(self.scratch, out)
        self.assertNotIn('cwrun', out)
        self.assertNotIn('.sock', out)
        self.assertLess(int([line for line in out.splitlines() if line.isdigit()][0]), 6)  # its own processes only
        self.assertIn('not permitted', out)

    def test_others_on_the_host_see_nothing(self):
        """S11: layers with setuid programs, writable layers, runtime files: closed to every other user while a run lives."""
        os.chmod(self.scratch, 0o711)
        child = subprocess.Popen([os.path.join(BIN, 'cwrun'), 'run', '--store', self.store, self.names['traps'], '--', '/bin/sh',
                                  '-c', 'echo secret > /s; echo up; read x'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self.assertEqual(child.stdout.readline(), b'up\n')
            places = [self.store, os.path.join(self.scratch, 'work/cwrun'), '/run/cworker', '/run/cworker-seccomp']
            find = ['find', *places, '-ignore_readdir_race', '-mindepth', '1', '-readable']
            mine = subprocess.run(find, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
            self.assertIn('/layers/', mine)
            self.assertIn('/home/evil', mine)
            theirs = subprocess.run(find, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, user=NO_ONE,
                                    group=NO_ONE, extra_groups=[]).stdout
            self.assertEqual(theirs, '')
            with open('/proc/net/unix') as f:
                self.assertEqual([line for line in f if '@' in line and ('cwork' in line or 'cwrun' in line)], [])
            environ = subprocess.run(['cat', '/proc/%d/environ' % child.pid], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                     user=NO_ONE, group=NO_ONE, extra_groups=[])
            self.assertNotEqual(environ.returncode, 0)
        finally:
            child.stdin.close()
            child.wait(60)
            child.stdout.close()


if __name__ == '__main__':
    unittest.main()
