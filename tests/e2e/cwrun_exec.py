#!/usr/bin/env python3
# needs: root cgroup2 net alone
# timeout: 240
# rows: S33 S38 S39 S41 S42 S47
"""cwrun exec into a worker's run: the walls and the group of the run, a terminal with sizes, keys and signals, leaving a
program behind and coming back to it; with the worker alive and after it was killed."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import worker_lab
from worker_lab import BIN, check, equal

SECONDS = 60


class Terminal:
    """cwrun on a terminal of ours; what it shows is kept in `seen`."""

    def __init__(self, command, rows=33, columns=101):
        self.seen, self.at = '', 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            self.fd = 0
            self.size(rows, columns)
            os.execv(command[0], command)

    def size(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))

    def read(self):
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.seen += data.decode(errors='replace')
        return bool(data)

    def expect(self, pattern):
        """Wait for it behind what was found before."""
        deadline = time.monotonic() + SECONDS
        while True:
            found = re.search(pattern, self.seen[self.at:])
            if found:
                self.at += found.end()
                return found
            if time.monotonic() > deadline:
                raise AssertionError('no %r in %r' % (pattern, self.seen))
            if select.select([self.fd], [], [], 1)[0] and not self.read():
                raise AssertionError('ended without %r: %r' % (pattern, self.seen))

    def type(self, text):
        os.write(self.fd, text.encode())

    def leave(self):
        """Press the keys; the id of the program that is left."""
        self.type('\x10\x11')
        pid = int(self.expect(r'left; the program goes on .*cwrun attach .* (\d+)\s').group(1))
        equal(self.status(), 0)
        return pid

    def status(self):
        while self.read():
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def sessions(lab, run):
    return sorted(int(n[4:]) for n in os.listdir(os.path.join(lab.runtime_dir, run)) if n.startswith('tty-'))


def keepers_memory(pid):
    """Of the program's parent: what it is, and its private KiB."""
    with open('/proc/%d/stat' % pid) as f:
        parent = int(f.read().rsplit(')', 1)[1].split()[1])
    with open('/proc/%d/smaps_rollup' % parent) as f:
        fields = dict(line.split(':', 1) for line in f if ':' in line)
    return parent, os.readlink('/proc/%d/exe' % parent), sum(int(fields[n].split()[0]) for n in ('Private_Clean', 'Private_Dirty'))


def come_back(lab, run, base):
    """What is left can be come back to, by one person at a time, until it ends."""
    attach = [base[0], 'attach', *base[2:], run]
    script = ('echo first; i=0; while read x; do i=$((i + 1)); case $x in end) exit 9;; '
              'much) seq 20000; echo > much-written;; *) echo "line $i: $x, $(stty size)";; esac; done; echo hung up >> hung')

    def ended(what):
        lab.until(lambda: not sessions(lab, run), what)

    ended('the terminals of before')
    p = subprocess.run(attach, capture_output=True, text=True, timeout=SECONDS)
    equal((p.returncode, 'no program of' in p.stderr), (125, True))
    t = Terminal([*base, run, 'sh', '-c', script])
    t.expect('first')
    t.type('one\n')
    t.expect('line 1: one')
    pid = t.leave()
    equal(sessions(lab, run), [pid])
    _, program, private = keepers_memory(pid)
    equal(os.path.basename(program), 'cwshim')
    check(private < 512, private)

    # again and again: what was written is shown, the new size is told, keys arrive; as much as nobody reads is no hindrance
    for n in range(3):
        t = Terminal(attach, rows=20 + n, columns=70)
        t.expect('line 1: one, 33 101')
        t.type('back %d\n' % n)
        t.expect('line %d: back %d, %d 70' % (n + 2, n, 20 + n))
        equal(t.leave(), pid)
    t = Terminal([*attach, str(pid)])
    t.expect('line 4: back 2')
    t.type('much\n\x10\x11')
    t.expect('left; the program goes on')
    equal(t.status(), 0)

    lab.until(lambda: subprocess.run([*base, run, 'cat', 'much-written'], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL, timeout=SECONDS).returncode == 0, 'all to be written')

    # a screen of the same size is told, too: who fills it draws it again
    drawer = Terminal([*base, run, 'sh', '-c', 'trap "echo drawn" WINCH; echo up; while :; do sleep 0.1; done'])
    drawer.expect('up')
    drawing = drawer.leave()
    drawer = Terminal([*attach, str(drawing)])
    drawer.expect('drawn')
    drawer.type('\x03')
    equal(drawer.status(), 130)

    # the beginning is lost, the end is not, and begins with a whole line; who comes later takes over
    t = Terminal(attach)
    t.expect(r'\d+\r\n20000\r\n')
    first = t.seen.split('\r\n')[0]
    check(first == str(int(first)) and 1 < int(first) < 20000 and len(t.seen) < 70000, t.seen[:100])
    second = Terminal(attach)
    second.expect('20000')
    t.expect('somebody else has attached')
    equal(t.status(), 0)
    second.type('still here\n')
    second.expect(': still here')

    # a terminal that is lost, a client that is killed: the program stays
    os.close(second.fd)
    os.waitpid(second.pid, 0)
    third = Terminal(attach)
    third.type('third\n')
    third.expect(': third')
    os.kill(third.pid, signal.SIGKILL)
    equal(third.status(), -signal.SIGKILL)

    # several of them, and the end: status, and nothing is left
    other = Terminal([*base, run, 'cat'])
    other.type('here\n')
    other.expect('here\r\nhere')
    cat = other.leave()
    equal(sessions(lab, run), sorted([pid, cat]))
    p = subprocess.run(attach, capture_output=True, text=True, timeout=SECONDS)
    equal((p.returncode, '%d (cat)' % cat in p.stderr and '%d (sh)' % pid in p.stderr), (125, True))
    t = Terminal([*attach, str(pid)])
    keeper = keepers_memory(pid)[0]
    t.type('end\n')
    equal(t.status(), 9)
    lab.until(lambda: not os.path.exists('/proc/%d' % keeper), 'the keeper to end')
    equal(sessions(lab, run), [cat])
    p = subprocess.run([*attach, str(pid)], capture_output=True, text=True, timeout=SECONDS)
    equal((p.returncode, 'no terminal to come back to' in p.stderr), (125, True))
    # one that ends while nobody is there
    os.kill(cat, signal.SIGKILL)
    ended('the terminal of a program that was killed')
    p = subprocess.run([*base, '--tty', run, 'cat', 'hung'], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=SECONDS)
    check('No such file' in p.stdout, p)  # its terminal was never hung up
    # what cannot be started says so, as without a terminal
    p = subprocess.run([*base, '--tty', run, 'no-such-program'], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                       timeout=SECONDS)
    equal((p.returncode, 'not found' in p.stderr), (127, True))
    ended('the terminals of now')


def main():
    worker_lab.enter()
    with worker_lab.Lab() as lab:
        w = lab.worker()
        run = lab.run('echo $$ > pid; sleep 1000', memory='96m')
        lab.wait(run, 'running')
        base = [os.path.join(BIN, 'cwrun'), 'exec', '--runtime-dir', lab.runtime_dir]

        def execute(*words, status=0, flags=(), **kw):
            p = subprocess.run([*base, *flags, run, '--', *words], capture_output=True, text=True, timeout=SECONDS,
                               stdin=kw.pop('stdin', subprocess.DEVNULL), **kw)
            equal(p.returncode, status)
            return p.stdout + p.stderr

        lab.until(lambda: execute('cat', 'pid').strip(), 'the program of the run')
        # the same place, the same walls, nothing of the host's
        out = execute('sh', '-c', 'pwd; id -u; for n in mnt pid net ipc uts cgroup user; do readlink /proc/self/ns/$n; done; '
                      'cat /proc/self/cgroup; ls /proc/self/fd | wc -l; grep -E "^(Cap|NoNew|Seccomp:)" /proc/self/status')
        inside = execute('sh', '-c', 'cd /proc/$(cat pid); for n in mnt pid net ipc uts cgroup user; do readlink ns/$n; done; '
                         'grep -E "^(Cap|NoNew|Seccomp:)" status').splitlines()
        lines = out.splitlines()
        equal(lines[0], '/' + run)
        equal(lines[2:9], inside[:7])
        equal(lines[-len(inside[7:]):], inside[7:])
        check('0::/\n' in out and 'cworker' not in out, out)
        check('4' in lines, 'descriptors 0 1 2 and the directory itself', lines)
        execute('sh', '-c', 'mount -t tmpfs x /tmp', status=1)
        equal(execute('sh', '-c', 'echo $A $PWD; id -u', flags=['-e', 'A=b c', '-w', '/tmp', '-u', 'user']), 'b c /tmp\n1000\n')
        # limits are the run's: one that takes too much dies in the run's group, the run goes on
        if worker_lab.has_cgroup2():
            execute('memhog', '300', status=137)
        # statuses, input, signals
        execute('sh', '-c', 'exit 7', status=7)
        execute('sh', '-c', 'kill -TERM $$', status=143)
        check('not found' in execute('no-such-program', status=127))
        p = subprocess.run([*base, run, 'cat'], input='through\n', capture_output=True, text=True, timeout=SECONDS)
        equal(p.stdout, 'through\n')
        child = subprocess.Popen([*base, run, 'sh', '-c', 'trap "echo got; exit 3" TERM; echo up; while :; do sleep 0.1; done'],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        equal(child.stdout.readline(), 'up\n')
        child.send_signal(signal.SIGTERM)
        equal((child.stdout.read(), child.wait(SECONDS)), ('got\n', 3))
        child.stdout.close()

        # a terminal: its size and changes of it, the interrupt key, the end of input
        script = ('trap "echo interrupted; exit 5" INT; stty size; tty; echo mark; read x; stty size; echo again; '
                  'while :; do sleep 0.1; done')
        t = Terminal([*base, run, 'sh', '-c', script])
        t.expect(r'33 101\r\n/dev/pts/\d+\r\nmark')
        t.size(40, 120)
        t.type('\n')
        t.expect(r'40 120\r\nagain')
        t.type('\x03')
        t.expect('interrupted')
        equal(t.status(), 5)
        t = Terminal([*base, run, 'cat'])
        t.type('line\n')
        t.expect(r'line\r\nline')
        t.type('\x04')
        equal(t.status(), 0)
        # leaving: the keys alone, not one of them
        t = Terminal([*base, run, 'sh', '-c', 'echo up; while [ ! -e stop ]; do echo tick; sleep 0.1; done; echo done > left'])
        t.expect('up')
        t.type('\x10x')
        t.leave()
        execute('sh', '-c', 'sleep 1; touch stop')
        lab.until(lambda: execute('sh', '-c', 'cat left 2>/dev/null; true') == 'done\n', 'the program that was left behind')

        come_back(lab, run, base)

        # as many as one likes: they hold nothing that the worker, or the next one, needs
        many = [subprocess.Popen([*base, *flags, run, 'sh', '-c', 'echo up; sleep 1000'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
                for flags in ([], ['--tty']) for _ in range(6)]
        for child in many:
            equal(child.stdout.readline().strip(), b'up')
        equal(execute('echo', 'one more'), 'one more\n')

        # without a worker, and what must not be
        w.kill9()
        equal(execute('echo', 'alone'), 'alone\n')
        p = subprocess.run([*base, '0xnot', 'true'], capture_output=True, text=True)
        equal((p.returncode, 'no run' in p.stderr), (125, True))
        w.start()
        # a program of exec's ends with the run, also one that was left
        t = Terminal([*base, run, 'sh', '-c', 'echo up; exec sleep 1000'])
        t.expect('up')
        left = t.leave()
        child = subprocess.Popen([*base, run, 'sh', '-c', 'echo up; sleep 1000'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        equal(child.stdout.readline(), b'up\n')
        lab.client.kill(uuid=run)
        lab.wait(run, 'killed', timeout=90)
        check(child.wait(SECONDS) in (143, 137), 'neither asked to end nor killed')  # whichever comes first
        child.stdout.close()
        for child in many:
            check(child.wait(SECONDS) in (143, 137), 'neither asked to end nor killed')
            child.stdout.close()
        lab.until(lambda: not os.path.exists('/proc/%d' % left), 'the program that was left')
        lab.until(lambda: not os.path.exists(os.path.join(lab.runtime_dir, run)), "the run's directory")


if __name__ == '__main__':
    main()
