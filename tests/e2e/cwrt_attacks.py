#!/usr/bin/env python3
# needs: root cgroup2 alone
# timeout: 240
# rows: S01 S02 S03 S04 S05 S34 S35 S36 S42 S47 S63
"""Root file systems made to betray whoever starts a container in them: links that are swapped while mounts are made, devices
and user files that are something else, a proc that is not one. ROUNDS in the environment makes the races longer."""
import ctypes
import os
import shutil
import stat
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ctr_lab import TOP, Bundle, cwrt, main, make_root

ROUNDS = int(os.environ.get('ROUNDS', '12'))
EXCHANGE = 2
VICTIM = os.path.join(TOP, 'victim')
LIBC = ctypes.CDLL(None)


def host_mounts():
    with open('/proc/self/mountinfo') as f:
        return sorted(line.split(' ')[4] for line in f)


def tree(path):
    return sorted(os.path.join(d, n) for d, dirs, files in os.walk(path) for n in dirs + files)


class Swap(threading.Thread):
    """Exchanges two names for ever, atomically: what was a directory is a link out at the next look, and back."""

    def __init__(self, *pairs):
        super().__init__(daemon=True)
        self.pairs, self.on = [(a.encode(), b.encode()) for a, b in pairs], True

    def run(self):
        while self.on:
            for a, b in self.pairs:
                LIBC.renameat2(-100, a, -100, b, EXCHANGE)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.on = False
        self.join()


def mount_targets_swapped_while_mounting():
    """CVE-2021-30465, CVE-2024-45310: parents and targets of mounts turn into links to the host's files and back."""
    os.makedirs(os.path.join(VICTIM, 'sub'), exist_ok=True)
    with open(os.path.join(VICTIM, 'file'), 'w') as f:
        f.write('untouched')
    source = os.path.join(TOP, 'race-source')
    os.makedirs(source, exist_ok=True)
    root = make_root(os.path.join(TOP, 'race-root'))
    os.makedirs(os.path.join(root, 'a/sub'))
    os.makedirs(os.path.join(root, 'b'))
    with open(os.path.join(root, 'b/file'), 'w'):
        pass
    os.symlink(VICTIM, os.path.join(root, 'a.link'))
    os.symlink('../' * 20 + VICTIM.lstrip('/'), os.path.join(root, 'b.link'))
    os.symlink('/proc/self/cwd', os.path.join(root, 'c.link'))
    os.makedirs(os.path.join(root, 'c'))
    before, mounts = tree(VICTIM), host_mounts()
    ran = 0
    with Swap(*((os.path.join(root, n), os.path.join(root, n + '.link')) for n in 'abc')):
        for n in range(20 * ROUNDS):
            if n >= ROUNDS and ran:  # few get through where the two run side by side
                break
            b = Bundle('/bin/sh', '-c', 'echo ran', root=root)
            if n % 2:
                b.isolate()
            b.c['mounts'] += [
                {'destination': '/a/sub', 'type': 'bind', 'source': source, 'options': ['rbind', 'ro']},
                {'destination': '/a/new/deep', 'type': 'tmpfs', 'source': 'tmpfs'},
                {'destination': '/b/file', 'type': 'bind', 'source': '/etc/hostname', 'options': ['bind', 'ro']},
                {'destination': '/b/made', 'type': 'bind', 'source': '/etc/hostname', 'options': ['bind', 'ro']},
                {'destination': '/c/x', 'type': 'tmpfs', 'source': 'tmpfs'}]
            p = b.run()
            ran += p.stdout == 'ran\n'
            assert p.returncode == 0 or p.stderr, p
            assert tree(VICTIM) == before and host_mounts() == mounts, (p.stderr, tree(VICTIM))
    with open(os.path.join(VICTIM, 'file')) as f:
        assert f.read() == 'untouched'
    assert ran, 'no round got as far as the program'


def exec_while_the_root_changes():
    """CVE-2024-21626: the working directory of what is executed later is inside, however it is reached."""
    b = Bundle('/bin/sleep', '100').isolate()
    os.makedirs(os.path.join(b.root, 'w'))
    os.symlink('/proc/self/fd/7', os.path.join(b.root, 'w.link'))
    cwrt('run', '-d', '--bundle', b.save().path, b.id, check=True)
    for cwd in ('/proc/self/fd/3', '/proc/self/fd/7', '/proc/1/root/..', '/w.link', '/w.link/../..'):
        p = cwrt('exec', '--cwd', cwd, b.id, '/bin/sh', '-c', 'pwd; ls ../../../../../..')
        assert TOP not in p.stdout and 'config.json' not in p.stdout, (cwd, p)
        assert p.returncode != 0 or '\nbin\n' in p.stdout, (cwd, p)
    cwrt('delete', '--force', b.id, check=True)


def devices_of_the_image_are_not_used():
    """CVE-2025-31133, CVE-2025-52565: null, console and terminals are links to what shall be overwritten."""
    canary = os.path.join(TOP, 'dev-canary')
    with open(canary, 'w') as f:
        f.write('untouched')
    for terminal in (False, True):
        for isolated in (False, True):
            b = Bundle('/bin/sh', '-c', 'stat -c %F:%t:%T /dev/null; ls -l /proc/kcore /dev/console 2>&1; '
                       'echo x > /dev/null; cat /proc/keys; (echo 1 > /proc/sysrq-trigger) 2>/dev/null && echo wrote',
                       terminal=terminal)
            for name in ('null', 'console', 'ptmx', 'pts', 'shm', 'mqueue', 'tty', 'zero'):
                os.symlink('/proc/sys/kernel/core_pattern' if name == 'console' else canary,
                           os.path.join(b.root, 'dev', name))
            if isolated:
                b.isolate()
            p = b.run()
            assert 'character special file:1:3' in p.stdout, p
            assert 'wrote' not in p.stdout and 'core_pattern' not in p.stdout, p
    with open(canary) as f:
        assert f.read() == 'untouched'


def user_files_that_are_something_else():
    """CVE-2024-9676, CVE-2026-47262: names are looked up without following, blocking or reading for ever."""
    secret = os.path.join(TOP, 'secret-passwd')
    with open(secret, 'w') as f:
        f.write('evil:x:0:0::/:/bin/sh\n')

    def fifo(path):
        os.mkfifo(path)

    def endless(path):
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))

    def out(path):
        os.symlink(secret, path)

    def loop(path):
        os.symlink('passwd', path)

    def magic(path):
        os.symlink('/proc/self/root' + secret, path)

    def huge(path):
        with open(path, 'w') as f:
            f.truncate(1 << 40)

    def long_line(path):
        with open(path, 'w') as f:
            f.write('evil:x:' + '0' * (8 << 20) + ':0::/:\n')

    def overflow(path):
        with open(path, 'w') as f:
            f.write('evil:x:4294967296:0::/:/bin/sh\nevil2:x:-1:0::/:/bin/sh\n')
    for make in (fifo, endless, out, loop, magic, huge, long_line, overflow, os.mkdir):
        for user in ('evil', 'evil2:root'):
            b = Bundle('/bin/id', '-u').isolate()
            path = os.path.join(b.root, 'etc/passwd')
            os.unlink(path)
            make(path)
            b.c['annotations']['org.codalab.cworker.user'] = user
            p = b.run(timeout=60)
            assert p.returncode == 1 and p.stderr and not p.stdout, (make.__name__, user, p)
            shutil.rmtree(b.path)


def a_proc_that_is_none():
    """CVE-2019-16884, CVE-2019-19921, CVE-2023-27561: proc as a link, as a volume, under a path of the image's."""
    fake = os.path.join(TOP, 'fake-proc')
    os.makedirs(os.path.join(fake, 'self/attr'), exist_ok=True)
    for name in ('self/attr/exec', 'self/oom_score_adj', 'sysrq-trigger'):
        with open(os.path.join(fake, name), 'w'):
            pass
    before = tree(fake)
    # the image has its own idea of proc; ours lies over it, or the start is refused
    b = Bundle('/bin/sh', '-c', 'stat -f -c %T /proc; cat /proc/self/comm')
    shutil.copytree(fake, os.path.join(b.root, 'proc'), dirs_exist_ok=True)
    b.c['process']['oomScoreAdj'] = 100
    p = b.run()
    assert p.stdout == 'proc\nsh\n' or p.stdout.split()[-1] == 'cat', p
    # a bind at /proc or below it is no way to lend the container another one
    for place in ('/proc/self/attr', '/proc/self', '/proc/../proc/self/exe'):
        b = Bundle('/bin/true')
        b.c['process']['oomScoreAdj'] = 100
        b.c['mounts'].append({'destination': place, 'type': 'bind', 'source': fake, 'options': ['rbind']})
        p = b.run()
        assert p.returncode != 0 and p.stderr, (place, p)
    b = Bundle('/bin/true')
    os.rmdir(os.path.join(b.root, 'proc'))
    os.symlink('sys', os.path.join(b.root, 'proc'))
    assert b.run().returncode != 0
    assert tree(fake) == before
    for name in before:
        assert os.path.isdir(name) or os.path.getsize(name) == 0, name


def images_cannot_hide_programs_behind_ours():
    """CVE-2019-5736: the interpreter of a script, a library, the program itself are our binary by a magic link."""
    for how in ('#!/proc/self/exe\n', '#!/proc/1/exe\n', '#!/proc/self/fd/3\n'):
        b = Bundle('/run-me')
        with open(os.path.join(b.root, 'run-me'), 'w') as f:
            f.write(how)
        os.chmod(os.path.join(b.root, 'run-me'), 0o755)
        p = b.run()
        assert p.returncode != 0 and 'OCI' not in p.stdout, (how, p)


if __name__ == '__main__':
    main([mount_targets_swapped_while_mounting, exec_while_the_root_changes, devices_of_the_image_are_not_used,
          user_files_that_are_something_else, a_proc_that_is_none, images_cannot_hide_programs_behind_ours])
