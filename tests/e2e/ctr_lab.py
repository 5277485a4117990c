"""Bundles with a busybox root for tests/e2e/cwrt_*, and cwrt run on them. Not a test by itself."""
import json
import os
import shutil
import subprocess
import tempfile

CWRT = os.path.join(os.environ.get('CW_BUILD', 'build'), 'bin', 'cwrt')
TOP = tempfile.mkdtemp(prefix='ctr-')
STATE = os.path.join(TOP, 'state')
# on a hybrid host the same, but for limits
PARTIAL = not os.path.exists('/sys/fs/cgroup/cgroup.controllers')
CGROUPS = '/sys/fs/cgroup' + ('/unified' if PARTIAL else '')
ANNOTATION = 'org.codalab.cworker.'


def cwrt(*args, check=False, timeout=60, **kw):
    command = [CWRT, '--root', STATE] + (['--cgroup=partial'] if PARTIAL else []) + list(args)
    kw.setdefault('stdin', subprocess.DEVNULL)
    # files, not pipes: a container that lives on would hold them open
    with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
        p = subprocess.run(command, stdout=out, stderr=err, timeout=timeout, **kw)
        for f in (out, err):
            f.seek(0)
        p.stdout, p.stderr = out.read(), err.read()
    assert not check or p.returncode == 0, (args, p.returncode, p.stdout, p.stderr)
    return p


def make_root(path):
    for d in ('bin', 'etc', 'tmp', 'proc', 'sys', 'dev', 'root'):
        os.makedirs(os.path.join(path, d), exist_ok=True)
    shutil.copy('/bin/busybox', os.path.join(path, 'bin/busybox'))
    for name in subprocess.check_output(['/bin/busybox', '--list'], text=True).split():
        if name != 'busybox':
            os.symlink('busybox', os.path.join(path, 'bin', name))
    with open(os.path.join(path, 'etc/passwd'), 'w') as f:
        f.write('root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n')
    with open(os.path.join(path, 'etc/group'), 'w') as f:
        f.write('root:x:0:\nalice:x:1000:\nstaff:x:50:alice\n')
    return path


class Bundle:
    """A directory with config.json and rootfs; `c` is the document, save() writes it."""
    count = 0

    def __init__(self, *args, root=None, terminal=False):
        Bundle.count += 1
        self.id = '%s-%d' % (os.path.basename(TOP), Bundle.count)
        self.path = os.path.join(TOP, self.id)
        os.makedirs(self.path)
        self.root = root or make_root(os.path.join(self.path, 'rootfs'))
        cwrt('spec', '--bundle', self.path, check=True)
        with open(os.path.join(self.path, 'config.json')) as f:
            self.c = json.load(f)
        self.c['root'] = {'path': self.root, 'readonly': False}
        self.c['process']['terminal'] = terminal
        self.c['process']['args'] = list(args)

    def save(self):
        with open(os.path.join(self.path, 'config.json'), 'w') as f:
            json.dump(self.c, f)
        return self

    def isolate(self, first_id=1000000):
        """As bundles run: overlay, user namespace, init, our seccomp filter."""
        overlay = os.path.join(self.path, 'overlay')
        os.makedirs(overlay)
        del self.c['root']
        ids = [{'containerID': 0, 'hostID': first_id, 'size': 65536}]
        self.c['linux'].update(uidMappings=ids, gidMappings=ids)
        self.c['linux']['namespaces'].append({'type': 'user'})
        self.c.setdefault('annotations', {}).update({
            ANNOTATION + 'overlay.lower': json.dumps([self.root]), ANNOTATION + 'overlay.dir': overlay,
            ANNOTATION + 'init': 'true', ANNOTATION + 'seccomp.default': 'true'})
        return self

    def run(self, *flags, **kw):
        self.save()
        return cwrt('run', '--bundle', self.path, *flags, self.id, **kw)

    def cgroup(self):
        return os.path.join(CGROUPS, 'cwrt', self.id)


def cleanup():
    for name in os.listdir(STATE) if os.path.isdir(STATE) else []:
        cwrt('delete', '--force', name)
    shutil.rmtree(TOP, ignore_errors=True)


def main(cases):
    """Run the functions; one line each."""
    failed = 0
    try:
        for case in cases:
            try:
                case()
                print('ok', case.__name__, flush=True)
            except Exception as e:  # a test's own failure of any kind
                failed += 1
                print('not ok', case.__name__, type(e).__name__, e, flush=True)
    finally:
        cleanup()
    raise SystemExit(1 if failed else 0)
