"""The images of the pull benchmark, of real packages: `ml` from wheels of PyPI, `base` from Debian packages, `one` all of `ml`
in one layer, as many images are.

Packages are kept in build/bench-cache, so that only the first run fetches them.
"""
import glob
import io
import os
import subprocess
import sys
import tarfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(TOP, 'tests/fixtures')]
import image  # noqa: E402

CACHE = os.path.join(TOP, 'build/bench-cache')
WHEELS = ['numpy', 'scipy', 'pandas', 'llvmlite', 'numba', 'sympy', 'scikit-learn', 'pyarrow', 'opencv-python-headless',
          'matplotlib', 'pillow']
SITE = 'usr/local/lib/python3.11/site-packages'


def wheels():
    where = os.path.join(CACHE, 'wheels')
    if len(glob.glob(where + '/*.whl')) < len(WHEELS):
        subprocess.run([sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '--only-binary=:all:',
                        '--platform', 'manylinux2014_x86_64', '--platform', 'manylinux_2_17_x86_64',
                        '--platform', 'manylinux_2_28_x86_64', '--python-version', '3.11', '-d', where] + WHEELS, check=True)
    return sorted(glob.glob(where + '/*.whl'))


def wheel_layer(path):
    out, seen = io.BytesIO(), set()
    with zipfile.ZipFile(path) as wheel, tarfile.open(fileobj=out, mode='w', format=tarfile.PAX_FORMAT) as tar:
        for member in wheel.infolist():
            name = os.path.join(SITE, member.filename)
            for n in range(name.count('/'), 0, -1):
                parent = name.rsplit('/', n)[0]
                if parent not in seen:
                    seen.add(parent)
                    info = tarfile.TarInfo(parent)
                    info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, 1700000000
                    tar.addfile(info)
            if member.is_dir():
                continue
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = member.file_size, 0o644, 1700000000
            tar.addfile(info, io.BytesIO(wheel.read(member)))
    return image.Layer(raw=out.getvalue())


def debian_layer():
    """What a minimal Debian holds: the packages of priority required and important of this machine."""
    where, root = os.path.join(CACHE, 'debs'), os.path.join(CACHE, 'root')
    if not os.path.isdir(root):
        names = [line.split()[0] for line in subprocess.check_output(
            ['dpkg-query', '-W', '-f', '${Package} ${Priority}\n'], text=True).splitlines()
            if line.endswith((' required', ' important'))]
        os.makedirs(where, exist_ok=True)
        subprocess.run(['apt-get', 'download', '-q'] + names, cwd=where, check=True, stdout=subprocess.DEVNULL)
        for deb in sorted(glob.glob(where + '/*.deb')):
            subprocess.run(['dpkg-deb', '-x', deb, root + '.new'], check=True)
        os.rename(root + '.new', root)
    tar = subprocess.run(['tar', '-C', root, '--sort=name', '--numeric-owner', '-c', '.'], check=True,
                         stdout=subprocess.PIPE).stdout
    return image.Layer(raw=tar)


def joined(layers):
    """One layer of several. A name comes once, as podman wants it: what a later layer has again is left out."""
    out, seen = io.BytesIO(), set()
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer.tar)) as tar:
            members = tar.getmembers()
            ends = [member.offset for member in members[1:]] + [tar.offset]
        for member, end in zip(members, ends):
            name = os.path.normpath(member.name)
            if name not in seen:
                seen.add(name)
                out.write(layer.tar[member.offset:end])
    return image.Layer(raw=out.getvalue() + bytes(1024))


def build(layout):
    """Names and what is in them; the layout is kept in the cache, too."""
    made = os.path.join(CACHE, 'images-with-one-2.txt')
    if not os.path.exists(made):
        os.makedirs(CACHE, exist_ok=True)
        base = debian_layer()
        layers = [base] + [wheel_layer(path) for path in wheels()]
        changed = layers[:-1] + [image.Layer([image.directory(SITE + '/changed'),
                                              image.file(SITE + '/changed/f', os.urandom(1 << 20))])]
        more = sum(len(x.tar) for x in layers) // 20
        much = layers[:-1] + [image.Layer([image.directory(SITE + '/changed')] + [
            image.file('%s/changed/%d' % (SITE, n), image.filler_bytes(more // 100, n)) for n in range(100)])]
        small = [image.Layer(image.SKELETON + image.busybox_entries())]
        lines = []
        for name, some in (('small', small), ('base', [base]), ('ml', layers), ('ml2', changed), ('ml5', much),
                           ('one', [joined(layers)])):
            image.Layout(layout).add(name + ':latest', image.Image(some))
            lines.append('%s %d %d %d' % (name, len(some), sum(len(x.tar) for x in some), sum(len(x.blob) for x in some)))
        with open(made, 'w') as out:
            out.write('\n'.join(lines) + '\n')
    with open(made) as source:
        return [line.split() for line in source]
