"""A fresh ext4 in a file: a root file system without a journal measures something else. Past the page cache of the file system
below, as a disk is: else what was handed to this disk early is written only when it is flushed, and copied on our processors."""
import os
import subprocess


class Disk:
    def __init__(self, scratch, mib):
        self.path, self.where = os.path.join(scratch, 'fs.img'), os.path.join(scratch, 'fs')
        with open(self.path, 'wb') as f:
            f.truncate(mib << 20)
        subprocess.run(['mke2fs', '-q', '-t', 'ext4', '-E', 'lazy_itable_init=0,lazy_journal_init=0', self.path], check=True)
        os.makedirs(self.where, exist_ok=True)
        self.loop = subprocess.check_output(['losetup', '--find', '--show', '--direct-io=on', self.path], text=True).strip()
        subprocess.run(['mount', self.loop, self.where], check=True)

    def written(self):
        with open('/sys/block/%s/stat' % os.path.basename(self.loop)) as f:
            return int(f.read().split()[6]) * 512

    def sync(self):
        subprocess.run(['sync', '-f', self.where], check=True)

    def close(self):
        subprocess.run(['umount', '-R', self.where], check=True)
        subprocess.run(['losetup', '-d', self.loop], check=True)
        os.unlink(self.path)
