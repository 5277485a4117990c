#!/usr/bin/env python3
"""The inner half of tests/conformance/run: runs the programs of a plan on one runtime, where cgroup v2 is.

    inside.py PLAN.json        writes the plan's "result": a list of {suite, test, verdict, ok, not_ok, skip, failures}

pass: assertions, none failed.  fail: one failed, or the program did.  no assertion: the program's plan is empty.
n/a: it asks for cgroup v1, which the host has not.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

LIMIT_S = 150
# what a program says that can do nothing on a version 2 hierarchy; linux_cgroups_* ask for v1 files without saying it
V1 = re.compile(r'cgroupv2 is not supported yet|/sys/fs/cgroup/[a-z,_]+/[^ ]*: no such file', re.IGNORECASE)
V1_NAME = re.compile(r'linux_cgroups_|delete_(only_create_)?resources$')

# ociVersion: what peers of this age refuse, although they know the fields
PEER = '''#!/bin/sh
b=.; prev=
for a in "$@"; do [ "$prev" = --bundle ] && b=$a; prev=$a; done
[ ! -f "$b/config.json" ] || sed -i 's/"ociVersion": *"1\\.[123]\\.[0-9]"/"ociVersion":"1.0.2"/' "$b/config.json"
exec %s "$@"
'''
# crun's programs give options that runc has not
RUNC = '''#!/bin/bash
a=()
while [ $# -gt 0 ]; do
    case $1 in --cgroup-manager|--config|-f) shift 2 ;; *) a+=("$1"); shift ;; esac
done
exec %s "${a[@]}"
'''
# bookworm has no Python module libmount; what the tests ask of it
LIBMOUNT = '''
class _Fs:
    def __init__(self, line):
        f = line.split()
        dash = f.index('-')
        self.id, self.target, self.vfs_options, self.fs_options = int(f[0]), f[4], f[5], f[dash + 3]
        self.root, self.fstype, self.source = f[3], f[dash + 1], f[dash + 2]
        self.optional = f[6:dash]
        self.options = self.vfs_options + ',' + self.fs_options
        self.propagation = 0
class Table:
    def __init__(self, path):
        with open(path) as f:
            self.all = [_Fs(l) for l in f if ' - ' in l]
    def find_target(self, path):
        return [m for m in self.all if m.target == path][-1]
    def __iter__(self):
        return iter(self.all)
'''


def script(directory, name, text):
    path = os.path.join(directory, name)
    with open(path, 'w') as f:
        f.write(text)
    os.chmod(path, 0o755)
    return path


def count(text):
    """TAP: passed, failed, skipped, names of what failed. Skipped ones are not counted as passed."""
    ok = not_ok = skip = 0
    failures = []
    for line in text.splitlines():
        line = line.strip()
        m = re.match(r'(not )?ok \d+\s*-?\s*(.*)', line)
        if not m:
            continue
        if re.search(r'# ?skip', line, re.IGNORECASE):
            skip += 1
        elif m.group(1):
            not_ok += 1
            failures.append(m.group(2).strip() or line)
        else:
            ok += 1
    return ok, not_ok, skip, failures


def verdict(suite, test, status, out):
    ok, not_ok, skip, failures = count(out)
    if suite == 'runtime-tools' and V1_NAME.match(test):
        return dict(verdict='n/a', ok=0, not_ok=0, skip=0, failures=[])
    if not_ok or status:
        if not failures:
            lines = [line for line in out.splitlines() if line.strip()]
            failures = ['exit status %s: %s' % (status, lines[-1] if lines else '')]
        word = 'fail'
    elif ok:
        word = 'pass'
    else:
        word = 'skip' if skip else 'no assertion'
        # a failure shows as a diagnostic only
        failures = ['diagnostic: ' + m.strip()[:200] for m in re.findall(r'"?error"?: (.+)', out)]
    return dict(verdict=word, ok=ok, not_ok=not_ok, skip=skip, failures=failures)


class Inside:
    def __init__(self, plan):
        self.plan = plan
        self.scratch = tempfile.mkdtemp(prefix='conformance.')
        self.copies = {}
        peer = plan['program'] if plan['runtime'] == 'cwrt' else script(self.scratch, 'peer', PEER % plan['program'])
        self.runtime = {'runtime-tools': peer, 'crun': plan['program']}
        if plan['runtime'] == 'runc':
            self.runtime['crun'] = script(self.scratch, 'runc-for-crun', RUNC % plan['program'])
        for suite in {t[0] for t in plan['tests']}:
            # on the scratch disk: a shared directory is slow, and an overlay or an id-mapped mount cannot lie on it
            self.copies[suite] = os.path.join(self.scratch, suite)
            shutil.copytree(os.path.join(plan['cache'], suite), self.copies[suite],
                            ignore=lambda d, names: [n for n in names if n.endswith('.t')])
        if 'crun' in self.copies:
            script(os.path.join(self.copies['crun'], 'tests'), 'libmount.py', LIBMOUNT)
            shutil.copy(os.path.join(self.copies['crun'], 'init'), os.path.join(self.copies['crun'], 'tests'))

    def command(self, suite, test):
        env = dict(os.environ, TMPDIR=os.environ.get('TMPDIR', self.scratch))
        if suite == 'runtime-tools':
            env['RUNTIME'] = self.runtime[suite]
            return [os.path.join(self.plan['cache'], suite, test + '.t')], env
        env.update(OCI_RUNTIME=self.runtime[suite], INIT=os.path.join(self.copies[suite], 'init'))
        return [sys.executable, 'tests/test_%s.py' % test], env

    def one(self, item):
        suite, test = item
        command, env = self.command(suite, test)
        with tempfile.TemporaryFile('w+', errors='replace') as out:
            try:
                status = subprocess.run(command, cwd=self.copies[suite], env=env, stdin=subprocess.DEVNULL, stdout=out,
                                        stderr=subprocess.STDOUT, timeout=LIMIT_S, start_new_session=True).returncode
            except subprocess.TimeoutExpired:
                status = 'none in %d s' % LIMIT_S
            out.seek(0)
            text = out.read()
        result = dict(suite=suite, test=test, **verdict(suite, test, status, text))
        print(suite, test, result['verdict'], *result['failures'], sep=': ', flush=True)
        logs = os.path.join(self.plan['cache'], 'logs-' + self.plan['runtime'])
        os.makedirs(logs, exist_ok=True)
        with open(os.path.join(logs, '%s.%s' % (suite, test)), 'w') as f:
            f.write(text)
        return result

    def run(self):
        with ThreadPoolExecutor(self.plan['jobs']) as pool:
            results = list(pool.map(self.one, self.plan['tests']))
        with open(self.plan['result'], 'w') as f:
            json.dump(results, f, indent=1)


if __name__ == '__main__':
    with open(sys.argv[1]) as plan_file:
        Inside(json.load(plan_file)).run()
