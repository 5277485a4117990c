"""The user's side of reads, write and netcat on a bundle (§9), and the check of what comes back.

While a bundle runs, its worker is asked; otherwise, or when the worker says `Bundle no longer
running`, the service's own copy is read. A 404 whose path starts with a dependency key is read from
the parent bundle instead.
"""
import io
import os
import re
import stat
import tarfile
import tempfile

import archive
import strict
from contents import Problem, kind_of

PIECE = 65536
STREAMS = ('stream_directory', 'stream_file', 'read_file_section', 'summarize_file')
LINE_ENDS = re.compile('[^\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]*'
                       '(?:[\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]|\\Z)')
UNREACHABLE = 'Unable to reach worker'


class Reads:
    def __init__(self, store, workers, contents, config):
        self.store, self.workers, self.contents, self.config = store, workers, contents, config

    def read(self, uuid, path, args, gone=None):
        """Returns ('json', target_info) or ('data', bytes); raises Problem."""
        bundle = self.contents.bundle(uuid)
        if bundle['state'] != 'running' or not bundle['worker']:
            return self._from_store(uuid, path, args)
        message = {'type': 'read', 'uuid': uuid, 'path': path, 'read_args': args}
        try:
            return self._result(self.workers.ask(bundle['worker'], message, gone), bundle)
        except Problem as why:
            if why.text == 'Bundle no longer running':
                return self._from_store(uuid, path, args)
            if why.status == 404:
                return self._from_parent(bundle, path, args, why)
            raise

    def netcat(self, uuid, port, text):
        bundle = self.contents.bundle(uuid)
        if bundle['state'] != 'running' or not bundle['worker']:
            raise Problem(403, 'Cannot netcat bundle %s, bundle not running' % uuid)
        message = {'type': 'netcat', 'uuid': uuid, 'port': port, 'message': text}
        return self._result(self.workers.ask(bundle['worker'], message), bundle, zipped=False)[1]

    def _result(self, answer, bundle, zipped=True):
        if answer is None:
            raise Problem(500, '%s of running bundle with bundle state %s' % (
                UNREACHABLE, bundle['state']))
        kind, value = answer
        if kind == 'data':
            with value:
                value.seek(0)
                out = io.BytesIO()
                if zipped:
                    archive.gunzip(value, out)
                return 'data', out.getvalue() if zipped else value.read()
        if 'error_code' in value:
            raise Problem(value['error_code'], value['error_message'])
        return 'json', value['target_info']

    def _from_parent(self, bundle, path, args, why):
        first, _, rest = path.partition('/')
        for edge in bundle['dependencies']:
            if edge['child_path'] == first:
                below = '/'.join(p for p in (edge['parent_path'], rest) if p)
                return self._from_store(edge['parent_uuid'], below, args)
        raise why

    def _from_store(self, uuid, path, args):
        _, at, status = self.contents.locate(None, uuid, path)
        if args['type'] == 'get_target_info':
            info = self._describe(at, os.path.basename(path) or uuid, args['depth'])
            return 'json', dict(info, resolved_target={'bundle_uuid': uuid, 'subpath': path})
        if args['type'] == 'stream_directory':
            out = io.BytesIO()
            archive.pack(at, out)
            return 'data', archive.Gunzip(io.BytesIO(out.getvalue())).read()
        if kind_of(status) != 'file':
            raise Problem(404, '%s/%s is not a file' % (uuid, path))
        with open(at, 'rb') as source:
            data = source.read()
        if args['type'] == 'read_file_section':
            data = data[args['offset']:args['offset'] + args['length']]
        elif args['type'] == 'summarize_file':
            data = summary(data, args['num_head_lines'], args['num_tail_lines'], args['max_line_length'],
                           args['truncation_text']).encode()
        return 'data', data

    def _describe(self, at, name, depth):
        status = os.lstat(at)
        made = {'name': name, 'type': kind_of(status), 'size': status.st_size,
                'perm': stat.S_IMODE(status.st_mode) & 0o777}
        if made['type'] == 'link':
            made['link'] = os.readlink(at)
        if made['type'] == 'directory' and depth > 0:
            made['contents'] = [self._describe(e.path, e.name, depth - 1) for e in os.scandir(at)]
        return made


def summary(data, head, tail, longest, middle):
    """summarize_file as §9.5 has it, with D62 put right; the tests hold the worker's answer to it."""
    if not decodes(data):
        return '<binary>'
    text = data.decode().replace('\r\n', '\n').replace('\r', '\n')
    if len(data) > (head + tail) * longest:
        first = lines(text[:head * longest])[:head]
        if first and not ends(first[-1]):
            first.pop()
        last = lines(end_of(data, tail * longest + 1))[1:] if tail else []
        last = last[-tail:] if tail else []
        if last and not ends(last[-1]):
            last[-1] += '\n'
        return ''.join(first) + (middle if head and tail else '') + ''.join(last)
    every = lines(text)
    if every and not ends(every[-1]):
        every[-1] += '\n'
    if len(every) > head + tail:
        between = [middle] if head and tail else []
        every = every[:head] + between + (every[-tail:] if tail else [])
    return ''.join(every)


def end_of(data, size):
    """The text in the last `size` bytes, from the first whole character."""
    part = data[-size:]
    while part and part[0] & 0xc0 == 0x80:
        part = part[1:]
    return part.decode().replace('\r\n', '\n').replace('\r', '\n')


def decodes(data):
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        return False


def lines(text):
    return [line for line in LINE_ENDS.findall(text) if line]


def ends(line):
    return line[-1:] in '\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029'


def data_errors(message, bundle, data):
    """What is wrong with the body of a reply_data; `data` is a file object, rewound afterwards."""
    if message['type'] == 'netcat':
        return []
    kind = message['read_args']['type']
    if message['type'] != 'read' or kind not in STREAMS:
        return [('B165', 'a stream of bytes is no reply to ' + kind)]
    data.seek(0)
    try:
        with tempfile.TemporaryFile() as plain:
            size = archive.gunzip(data, plain)
            plain.seek(0)
            if kind == 'read_file_section' and size > message['read_args']['length']:
                return [('B167', '%d bytes where at most %d were asked' % (
                    size, message['read_args']['length']))]
            return tar_errors(message, bundle, plain) if kind == 'stream_directory' else []
    except archive.ArchiveError as why:
        return [('B165', '%s: %s' % (kind, why))]
    except tarfile.TarError as why:
        return [('B166', '%s: %s' % (kind, why))]
    finally:
        data.seek(0)


def tar_errors(message, bundle, plain):
    keys = [d['child_path'] for d in bundle['dependencies']] if message['path'].strip('/') == '' else []
    found, names = [], []
    with tarfile.open(fileobj=plain, mode='r:') as tar:
        for member in tar:
            names.append(member.name)
            parts = [p for p in member.name.split('/') if p != '.']
            if any(archive.hidden(p) for p in parts):
                found.append(('B166', 'stream_directory holds ' + member.name))
            if '/'.join(parts) in keys:
                found.append(('B091', 'stream_directory holds dependency ' + member.name))
            if member.name != '.' and not member.name.startswith('./'):
                found.append(('B166', 'member %r does not start with ./' % member.name))
    if not names:
        found.append(('B166', 'an empty tar, without even ./'))
    return found


def info_errors(message, bundle, body):
    """What a target_info reply may get wrong beyond its schema."""
    if 'target_info' not in body:
        return []
    hidden = {d['child_path'] for d in bundle['dependencies']}
    return strict.resolved_errors(body['target_info'], message['uuid'], message['path'], hidden)
