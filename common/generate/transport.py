"""What may come over the wire: bounded in bytes, never compressed."""

import httpx2

MAX_ANSWER_BYTES, MAX_BATCH_BYTES = 16_000_000, 2_000_000_000


class TooLargeError(Exception):
    """A body that is larger than any answer, or compressed, which could become so."""


async def bound_answer(response):
    """Let the body of an answer end in TooLargeError past its limit (a hook of the client)."""
    _refuse_compressed(response)
    response.stream = _Bounded(response.stream, MAX_ANSWER_BYTES)


def bound_batch(response):
    """Do the same for a batch, which is asked without asyncio."""
    _refuse_compressed(response)
    response.stream = _Bounded(response.stream, MAX_BATCH_BYTES)


def _refuse_compressed(response):
    """Raise TooLargeError for a compressed body, which nobody asked for: it may be a bomb."""
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise TooLargeError(f"a body compressed by {encoding[:40]} was not asked for")


class _Bounded(httpx2.AsyncByteStream, httpx2.SyncByteStream):
    """The bytes of a body, up to a limit; TooLargeError for one more."""

    def __init__(self, stream, limit):
        self.stream, self.left = stream, limit

    def _count(self, chunk):
        self.left -= len(chunk)
        if self.left < 0:
            raise TooLargeError("the body is larger than any answer")
        return chunk

    async def __aiter__(self):
        async for chunk in self.stream:
            yield self._count(chunk)

    def __iter__(self):
        for chunk in self.stream:
            yield self._count(chunk)

    async def aclose(self):
        await self.stream.aclose()

    def close(self):
        self.stream.close()
