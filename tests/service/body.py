"""The body of a request: Content-Length or chunked, read piece by piece, framing checked."""
import re
import time

import strict

CHUNK_LINE_MAX = 64
CHUNK_SIZE = re.compile(rb'[0-9A-Fa-f]{1,12}\Z')
PIECE = 65536


class Broken(ConnectionError):
    """The client went away in the middle of its body."""


class Body:
    """A readable object. `taken` counts the bytes read, `ended` tells that the end was seen."""

    def __init__(self, source, headers, rate=None):
        self.source, self.rate, self.taken = source, rate, 0
        coding, length = headers.get('Transfer-Encoding'), headers.get('Content-Length')
        self.chunked = coding is not None
        if self.chunked and (coding.lower() != 'chunked' or length is not None):
            strict.refuse('B113', 'Transfer-Encoding %r, Content-Length %r' % (coding, length))
        if length is not None and not re.match(r'[0-9]{1,18}\Z', length):
            strict.refuse('B113', 'Content-Length is %.40r' % length)
        self.left = 0 if self.chunked else int(length or 0)
        self.ended = not self.chunked and self.left == 0

    def read(self, size=-1):
        """As file objects do: fewer than `size` bytes only at the end."""
        parts = []
        while size and not self.ended:
            part = self._some(PIECE if size < 0 else min(size, PIECE))
            parts.append(part)
            size -= len(part) if size > 0 else 0
        return b''.join(parts)

    def read_all(self, limit):
        data = self.read(limit + 1)
        if len(data) > limit:
            raise strict.Violation([('B051', 'the body is over %d bytes' % limit)], 413)
        return data

    def _some(self, size):
        if self.chunked and self.left == 0:
            self._next_chunk()
        data = self.source.read1(min(size, self.left)) if self.left else b''
        if self.left and not data:
            raise Broken('the client closed the connection inside its body')
        self.left -= len(data)
        self.taken += len(data)
        if self.rate:
            time.sleep(len(data) / self.rate)
        if self.left == 0:
            if self.chunked and data:
                self._line_end()
            elif not self.chunked:
                self.ended = True
        return data

    def _next_chunk(self):
        line = self.source.readline(CHUNK_LINE_MAX)
        if not line:
            raise Broken('the client closed the connection between chunks')
        size = line[:-2] if line.endswith(b'\r\n') else b''
        if not CHUNK_SIZE.match(size):
            strict.refuse('B113', 'a chunk starts with %r' % line)
        self.left = int(size, 16)
        if self.left == 0:
            self._line_end()
            self.ended = True

    def _line_end(self):
        line = self.source.read(2)
        if len(line) < 2:
            raise Broken('the client closed the connection inside a chunk')
        if line != b'\r\n':
            strict.refuse('B113', 'a chunk ends with %r' % line)
