"""What a run could leave behind, to be compared before and after (S64). Not a test by itself."""
import os
import subprocess
import time

SECONDS = 20  # in which what is ending must be gone

# bookkeeping that holds nothing when its process is gone
WORKING_FILES = ('lock', 'locks', 'leases', 'cwrun')


def cgroups():
    found = set()
    for top in ('/sys/fs/cgroup', '/sys/fs/cgroup/unified'):
        if os.path.exists(os.path.join(top, 'cgroup.procs')):
            found |= {d for d, _, _ in os.walk(top) if 'cwrun-' in d or 'codalab' in d or '/runs/' in d}
    return found


def mounts():
    with open('/proc/self/mountinfo') as f:
        return sorted(line.split(' ')[4] for line in f)


def links():
    return sorted(os.listdir('/sys/class/net'))


def processes():
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/comm' % pid) as f:
                name = f.read().strip()
        except OSError:
            continue
        if name in ('cwrun', 'cwshim', 'cworkerd', 'cwrt'):
            found.append(name)
    return sorted(found)


def tables():
    result = subprocess.run(['nft', 'list', 'tables'], capture_output=True, text=True)
    return sorted(result.stdout.split('\n'))


def files(directory):
    return sorted(os.path.join(d, f) for d, dirs, names in os.walk(directory) for f in dirs + names
                  if '/registry/' not in d + '/' and not any(w in (d + '/' + f).split('/') for w in WORKING_FILES))


def look(directory=None):
    """Everything at once; equal before and after means nothing was left."""
    return {'cgroups': cgroups(), 'mounts': mounts(), 'links': links(), 'processes': processes(), 'tables': tables(),
            'files': files(directory) if directory else []}


def since(before, directory=None):
    """What is there now and was not, and the reverse; empty when all is as it was, soon."""
    deadline = time.monotonic() + SECONDS
    while True:
        found = difference(before, look(directory))
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def difference(before, after):
    found = {}
    for key in before:
        new, gone = set(after[key]) - set(before[key]), set(before[key]) - set(after[key])
        if new or gone:
            found[key] = {'new': sorted(new)[:20], 'gone': sorted(gone)[:20]}
    return found
