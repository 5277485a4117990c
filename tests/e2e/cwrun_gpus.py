#!/usr/bin/env python3
# needs: root cgroup2 alone
# timeout: 240
# rows: S40 S43 S44 S45 S52
"""cwrun run --gpus on a host that pretends to have two GPUs: each run sees its own, with the host's driver, and nothing of
the image's is executed or believed on the way."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = os.environ.get('CW_TOP') or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(os.environ.get('CW_BUILD', os.path.join(TOP, 'build')), 'bin')
sys.path[:0] = [os.path.join(TOP, 'tests/fixtures'), os.path.join(TOP, 'tests/e2e')]
import gpu_lab  # noqa: E402
import image  # noqa: E402
import leftovers  # noqa: E402
import registry  # noqa: E402
from gpu_lab import NODES, VERSION, compile_c, pretend, write  # noqa: E402

PROBE = r'''
#include <dlfcn.h>
#include <stdio.h>
int main(void)
{
    void *l = dlopen("libcuda.so.1", RTLD_NOW);
    int (*init)(unsigned) = l ? (int (*)(unsigned))dlsym(l, "cuInit") : 0;
    if (!init)
        return puts(dlerror()), 1;
    printf("cuInit %d\n", init(0));
    return 0;
}
'''
LOOK = '''
cd /dev; echo nodes: nvidia*
for d in nvidia0 nvidia1; do [ -c $d ] && { : > $d; } 2>/dev/null && echo opens $d; done
rm -f /tmp/n; mknod /tmp/n c %d %d 2>/dev/null && { : > /tmp/n; } 2>/dev/null && echo ESCAPED
probe; [ -e /ran ] && echo RAN; ls /run/nvidia* 2>/dev/null; exit 0
'''


class Gpus(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.mkdtemp(prefix='gpus.')
        cls.canary = os.path.join(cls.scratch, 'canary')
        write(cls.canary, 'untouched')
        os.mkdir(cls.canary + '.d')
        pretend()
        probe = os.path.join(cls.scratch, 'probe')
        compile_c(PROBE, probe)
        entries = [e for e in image.program_entries(probe) if not e.path.endswith('/probe')]
        ran = '#!/bin/sh\ntouch /ran\n'
        layers = [image.Layer(image.SKELETON + image.busybox_entries() + entries + [
            image.file('bin/probe', image.read(probe), 0o755),
            # what a container hook of other runtimes would start, or believe
            image.file('sbin/ldconfig', ran, 0o755), image.file('sbin/ldconfig.real', ran, 0o755),
            # where files of the host are put: links out of the root
            image.symlink('etc/ld.so.cache', cls.canary), image.symlink('usr/local/nvidia', cls.canary + '.d'),
            image.symlink('opt/driver', '../' * 20 + cls.canary.lstrip('/') + '.d'),
        ])]
        config = {'Cmd': ['/bin/sh'], 'Volumes': {'/etc/host': {}}, 'Labels': {'com.nvidia.volumes.needed': 'nvidia_driver'},
                  'Env': ['PATH=/usr/bin:/bin', 'NVIDIA_VISIBLE_DEVICES=all', 'NVIDIA_DRIVER_CAPABILITIES=all',
                          'CUDA_VISIBLE_DEVICES=0,1', 'LD_PRELOAD=/evil.so']}
        layout = os.path.join(cls.scratch, 'layout')
        image.Layout(layout).add('gpu:latest', image.Image(layers, config))
        cls.store = os.path.join(cls.scratch, 'work/images')
        with registry.Registry(os.path.join(cls.scratch, 'registry')) as r:
            r.push(layout, 'gpu:latest', 'library/gpu', 'latest')
            cls.name = r.address + '/library/gpu:latest'
            subprocess.run([os.path.join(BIN, 'cwrun'), 'pull', '-q', '--store', cls.store, '--insecure-registry', r.address,
                            cls.name], check=True)
        cls.nvml = gpu_lab.fake_nvml(cls.scratch)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.scratch)

    def tearDown(self):
        """CVE-2024-0132, CVE-2025-23359, CVE-2025-23267: what the image's links point to on the host stays as it is."""
        self.assertEqual(image.read(self.canary), b'untouched')
        self.assertEqual(os.listdir(self.canary + '.d'), [])

    def cwrun(self, *args, nvml=True, say=None):
        env = dict(os.environ, FAKE_NVML=self.nvml)
        if nvml:
            env['LD_LIBRARY_PATH'] = self.nvml
        for name in ('lost', 'mig'):
            if os.path.exists(os.path.join(self.nvml, name)):
                os.unlink(os.path.join(self.nvml, name))
        if say:
            write(os.path.join(self.nvml, say), '')
        return subprocess.run([os.path.join(BIN, 'cwrun'), *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=90, env=env)

    def look(self, gpus, *flags, other='nvidia1', nvml=True):
        p = self.cwrun('run', '--store', self.store, '--gpus', gpus, *flags, self.name, '--', '/bin/sh', '-c',
                       LOOK % NODES[other], nvml=nvml)
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
        return p

    def expect(self, p, own):
        """Its own node, the control node, the host's driver; nothing else, nothing of the image's."""
        self.assertEqual(p.stdout.splitlines(), ['nodes: %s nvidiactl' % own, 'opens ' + own, 'cuInit 42'], p.stderr)

    def test_each_run_sees_its_own(self):
        before = leftovers.look()
        self.expect(self.look('GPU-fake-0'), 'nvidia0')
        self.expect(self.look('GPU-fake-1', other='nvidia0'), 'nvidia1')
        self.expect(self.look('1', nvml=False), 'nvidia0')  # by the driver's files alone
        # as Docker's users write it
        self.expect(self.look('device=1', other='nvidia0'), 'nvidia1')
        self.expect(self.look('"device=GPU-fake-1"', other='nvidia0'), 'nvidia1')
        self.assertIn('opens nvidia0\nopens nvidia1\n', self.look('device=1,0').stdout)
        self.expect(self.look('count=1'), 'nvidia0')
        self.expect(self.look('GPU-fake-0', '--userns', 'none'), 'nvidia0')
        both = self.look('all').stdout
        self.assertIn('opens nvidia0\nopens nvidia1\n', both)
        p = self.cwrun('run', '--store', self.store, self.name, '--', '/bin/sh', '-c', LOOK % NODES['nvidia0'])
        self.assertIn('nodes: nvidia*\n', p.stdout)  # none asked for, none given, whatever the image's environment says
        self.assertNotIn('opens', p.stdout)
        self.assertEqual(leftovers.since(before), {})

    def test_a_cdi_specification_is_followed_and_judged(self):
        lib = '/usr/local/nvidia/lib64/libcuda.so.' + VERSION
        spec = '''
cdiVersion: 0.6.0
kind: nvidia.com/gpu
containerEdits:
  env: [FROM_CDI=yes]
  deviceNodes: [{path: /dev/nvidiactl}]
  mounts:
  - {hostPath: %s, containerPath: /opt/driver/libcuda.so.%s, options: [ro, nosuid]}
  - {hostPath: /run/nvidia-persistenced, containerPath: /run/nvidia-persistenced}
  hooks:
  - {hookName: createContainer, path: /usr/local/hook, args: [nvidia-cdi-hook, update-ldcache, --folder, /opt/driver]}
devices:
- {name: "0", containerEdits: {deviceNodes: [{path: /dev/nvidia0, major: %d, minor: %d}]}}
- {name: "1", containerEdits: {deviceNodes: [{path: /dev/nvidia1}]}}
'''
        write('/usr/local/hook', '#!/bin/sh\ntouch /run/hook-ran\n')
        os.chmod('/usr/local/hook', 0o755)
        shutil.rmtree('/run/nvidia-persistenced')
        os.mkdir('/run/nvidia-persistenced')
        try:
            write('/run/cdi/nvidia.yaml', spec % (lib, VERSION, *NODES['nvidia0']))
            self.assertIn('CDI specification: /run/cdi/nvidia.yaml', self.cwrun('doctor').stdout)
            p = self.cwrun('run', '--store', self.store, '--gpus', 'GPU-fake-0', self.name, '--', '/bin/sh', '-c',
                           'echo $FROM_CDI; ls /opt/driver/ /usr/local/nvidia/ 2>&1; probe')
            self.assertEqual(p.stdout.split(), ['yes', '/opt/driver/:', 'libcuda.so.1', 'libcuda.so.' + VERSION,
                                                '/usr/local/nvidia/:', 'libcuda.so.1', 'libcuda.so.' + VERSION, 'cuInit',
                                                '42'],
                             p.stderr)
            self.assertFalse(os.path.exists('/run/hook-ran'), 'no hook is executed')
            # the driver is updated, the specification is not: it is noticed, and the run works all the same
            write('/run/cdi/nvidia.yaml', spec % (lib, VERSION, 195, 0))
            p = self.look('GPU-fake-0')
            self.assertIn('CDI specification not used: ', p.stderr)
            self.assertIn('not the 195:0', p.stderr)
            self.expect(p, 'nvidia0')
            self.assertIn('CDI specification: stale', self.cwrun('doctor').stdout)
        finally:
            shutil.rmtree('/run/cdi')

    def test_what_cannot_be_used_is_not_offered(self):
        p = self.cwrun('run', '--store', self.store, '--gpus', '3', self.name, '--', 'true')
        self.assertEqual((p.returncode, '2 that can be used' in p.stderr), (125, True), p.stderr)
        p = self.cwrun('run', '--store', self.store, '--gpus', 'GPU-none', self.name, '--', 'true')
        self.assertIn('GPU-none is not on this host', p.stderr)
        p = self.cwrun('run', '--store', self.store, '--gpus', 'device=0,7', self.name, '--', 'true')
        self.assertEqual((p.returncode, 'no GPU 7' in p.stderr), (125, True), p.stderr)
        p = self.cwrun('run', '--store', self.store, '--gpus', 'device=0', self.name, '--', 'true', say='lost')
        self.assertEqual((p.returncode, 'GPU is lost' in p.stderr), (125, True), p.stderr)
        p = self.cwrun('doctor', say='lost')
        self.assertIn('GPU-fake-0', p.stdout)
        self.assertIn('GPU is lost', p.stdout)
        p = self.cwrun('run', '--store', self.store, '--gpus', '2', self.name, '--', 'true', say='lost')
        self.assertIn('1 that can be used', p.stderr)
        p = self.cwrun('doctor', say='mig')
        self.assertEqual([w for w in p.stdout.split() if '-fake-' in w], ['GPU-fake-0', 'MIG-fake-1-0', 'MIG-fake-1-1'])


if __name__ == '__main__':
    unittest.main()
