"""Time whole commands, in turn, and print medians and ratios."""
import os
import statistics
import subprocess
import time


class Sample:
    def __init__(self):
        self.wall, self.cpu = [], []

    def median(self, name):
        return statistics.median(getattr(self, name))


def once(command, sample, **more):
    """One run: wall seconds, CPU seconds of it and what it waited for. (Peak memory is not taken: what wait4 tells of a
    small child is the memory of the Python that forked it.)"""
    begin = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more)
    errors = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    sample.wall.append(time.monotonic() - begin)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit('bench: %s failed (%d): %s' % (' '.join(command), child.returncode, errors.decode(errors='replace')))
    sample.cpu.append(usage.ru_utime + usage.ru_stime)


def table(title, samples, against, unit='ms'):
    """Markdown: a row a contestant, its ratio to `against`."""
    scale = 1000 if unit == 'ms' else 1
    base = samples[against].median('wall')
    lines = ['', '### ' + title, '', '| | wall %s (median) | min | max | CPU %s | x %s |' % (unit, unit, against),
             '|---|---|---|---|---|---|']
    for name, s in samples.items():
        lines.append('| %s | %.1f | %.1f | %.1f | %.1f | %.2f |' % (
            name, s.median('wall') * scale, min(s.wall) * scale, max(s.wall) * scale, s.median('cpu') * scale,
            s.median('wall') / base))
    print('\n'.join(lines), flush=True)
