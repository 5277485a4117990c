#!/usr/bin/env python3
# needs: root cgroup2 net alone
# timeout: 240
# rows: S33 S37 S38 S39 S41 S42 S64
"""cwrun run on a pulled image: statuses, limits, ids, mounts, network; nothing left behind."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

TOP = os.environ.get('CW_TOP') or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(os.environ.get('CW_BUILD', os.path.join(TOP, 'build')), 'bin')
sys.path[:0] = [os.path.join(TOP, 'tests/fixtures'), os.path.join(TOP, 'tests/e2e')]
import image  # noqa: E402
import leftovers  # noqa: E402
import registry  # noqa: E402


class Run(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.mkdtemp(prefix='cwrun.')
        layout = os.path.join(cls.scratch, 'layout')
        image.build(layout)
        cls.store = os.path.join(cls.scratch, 'work/images')
        with registry.Registry(os.path.join(cls.scratch, 'registry')) as r:
            r.push(layout, 'demo:latest', 'library/demo', 'latest')
            cls.name = r.address + '/library/demo:latest'
            subprocess.run([os.path.join(BIN, 'cwrun'), 'pull', '-q', '--store', cls.store, '--insecure-registry', r.address,
                            cls.name], check=True)
        cls.before = leftovers.look(cls.scratch)

    @classmethod
    def tearDownClass(cls):
        found = leftovers.since(cls.before, cls.scratch)
        shutil.rmtree(cls.scratch)
        if found:
            raise AssertionError('left behind: %s' % found)

    def command(self, flags, words):
        return [os.path.join(BIN, 'cwrun'), 'run', '--store', self.store, *flags, self.name, '--', *words]

    def sh(self, script, *flags, status=0):
        result = subprocess.run(self.command(flags, ['/bin/sh', '-c', script]), stdin=subprocess.DEVNULL, capture_output=True,
                                text=True, timeout=60)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        return result.stdout

    def test_statuses(self):
        self.assertEqual(self.sh('echo hi'), 'hi\n')
        self.sh('exit 3', status=3)
        self.sh('kill -9 $$', status=137)
        self.sh('kill -TERM $$; sleep 5', status=143)

    def test_namespaces_are_its_own(self):
        out = self.sh('for n in pid net ipc uts mnt user cgroup; do readlink /proc/self/ns/$n; done')
        for line in out.split():
            name = line.split(':')[0]
            self.assertNotEqual(line, os.readlink('/proc/self/ns/' + name), name)
        self.assertNotIn('cwrun', self.sh('cat /proc/self/cgroup'))

    def test_user_namespace_and_ownership(self):
        self.assertEqual(self.sh('id -u; id -g; stat -c %u /etc/passwd /home/user'), '0\n0\n0\n1000\n')
        shared = os.path.join(self.scratch, 'shared')
        os.mkdir(shared)
        self.sh('echo x > /mnt/made; id -u', '--mount', shared + ':/mnt', '--userns', 'none')
        self.assertEqual(os.stat(os.path.join(shared, 'made')).st_uid, 0)
        shutil.rmtree(shared)

    def test_walls(self):
        status = dict(line.split(':', 1) for line in self.sh('cat /proc/self/status').splitlines())
        self.assertEqual(status['NoNewPrivs'].strip(), '1')
        self.assertEqual(status['Seccomp'].strip(), '2')
        self.assertEqual(int(status['CapBnd'], 16) & (1 << 21), 0)  # CAP_SYS_ADMIN
        self.assertEqual(status['Groups'].strip(), '')
        self.assertEqual(self.sh('ls /proc/self/fd | wc -l'), '4\n')  # 0 1 2 and the directory itself
        self.sh('mount -t tmpfs x /mnt', status=1)
        self.sh('echo 1 > /proc/sys/kernel/panic', status=1)
        self.sh('mkdir /sys/fs/cgroup/x', status=1)

    def test_limits(self):
        self.sh('memhog 100', '--memory', '40m', status=137)
        self.assertEqual(self.sh('nproc', '--cpuset', '0'), '1\n')
        self.assertEqual(self.sh('cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max', '--pids', '33', '--memory', '64m'),
                         '33\n%d\n' % (64 << 20))
        self.assertIn('2.0M', self.sh('df -h /dev/shm', '--shm', '2m'))

    def test_process(self):
        self.assertEqual(self.sh('pwd', '--workdir', '/usr/bin'), '/usr/bin\n')
        self.assertEqual(self.sh('echo $A$B', '--env', 'A=1', '-e', 'B=2'), '12\n')
        self.assertEqual(self.sh('id -u; id -g; id -G', '--user', 'user'), '1000\n1000\n1000 44\n')
        self.assertEqual(self.sh('id -u; id -g', '--user', '7:9'), '7\n9\n')
        self.sh('echo x > /x', '--read-only', status=1)
        self.assertEqual(self.sh('echo x > /x; cat /x'), 'x\n')
        self.sh('cat /x', status=1)  # the next one has a fresh root

    def test_images_of_files(self):
        """From a layout, of 500 layers, the most overlayfs takes: more than a page of lower directories."""
        where = tempfile.mkdtemp(prefix='files.')
        self.addCleanup(shutil.rmtree, where)
        layout = os.path.join(where, 'many')
        layers = [image.Layer(image.SKELETON + image.busybox_entries(), 'none')] + [
            image.Layer([image.file('layer', str(n))], 'none') for n in range(1, 500)]
        image.Layout(layout).add('v1', image.Image(layers))
        image.Layout(layout).add('v2', image.Image([layers[0], layers[499]]))
        archive = os.path.join(where, 'two.tar')
        subprocess.run(['skopeo', 'copy', '-q', '--insecure-policy', 'oci:%s:v2' % layout, 'docker-archive:%s:two:v1' % archive],
                       check=True, timeout=100)
        for name in ('oci:%s:v1' % layout, 'docker-archive:' + archive):
            done = subprocess.run([os.path.join(BIN, 'cwrun'), 'run', '-q', '--store', os.path.join(where, 'work/images'), name, 'cat', '/layer'],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
            self.assertEqual((done.returncode, done.stdout), (0, '499'), done.stderr)

    def test_network(self):
        self.assertEqual(self.sh('ls /sys/class/net'), 'lo\n')
        out = self.sh('ls /sys/class/net; ip route; cat /proc/net/route', '--network', 'internal')
        self.assertIn('eth0', out)
        self.assertNotIn('default', out)
        out = self.sh('ip route; cat /etc/resolv.conf; grep -c "$(hostname)" /etc/hosts; echo x >> /etc/hosts || echo fixed',
                      '--network', 'external')
        self.assertIn('default', out)
        self.assertIn('nameserver ', out)
        self.assertTrue(out.endswith('\n2\nfixed\n') or out.endswith('\n1\nfixed\n'), out)
        self.assertNotIn('nameserver', self.sh('cat /etc/resolv.conf', '--network', 'internal'))

    def test_signals_are_forwarded(self):
        child = subprocess.Popen(self.command([], ['/bin/sh', '-c', 'trap "echo got; exit 7" TERM; echo up; while :; do sleep 0.1; done']),
                                 stdout=subprocess.PIPE, text=True)
        self.assertEqual(child.stdout.readline(), 'up\n')
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.stdout.read(), 'got\n')
        self.assertEqual(child.wait(30), 7)
        child.stdout.close()

    def test_everything_dies_with_the_main_process(self):
        self.sh('(trap "" TERM HUP; sleep 1000) & exit 0')
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open('/proc/%s/cmdline' % pid, 'rb') as f:
                    self.assertNotIn(b'sleep\x001000', f.read())
            except OSError:
                pass


if __name__ == '__main__':
    unittest.main(verbosity=2)
