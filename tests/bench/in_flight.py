"""CPU time per request with 1,000 requests in flight.

The kit's engine against the openai client as it comes, in one run.

    python -m tests.bench.in_flight [requests] [in flight]

The server (a process of its own) answers each request after 2 s. Both clients are processes of
their own; imports are included in the times, and counted apart by a run of one request.
"""

import resource
import subprocess
import sys
import tempfile
import time

from tests.bench.collect import ROOT, ours, serve, stats

PLAIN = """
import asyncio, sys
import openai

async def main(url, n, most):
    gate = asyncio.Semaphore(most)
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        async def ask(i):
            async with gate:
                prompt = f"What is {i} + 1?" + "x" * 500
                messages = [{"role": "user", "content": prompt}]
                done = await client.chat.completions.create(
                    model="teacher", messages=messages, max_tokens=3200)
                return done.choices[0].message.content
        await asyncio.gather(*map(ask, range(n)))

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def plain(url, n, most):
    """The openai client with a semaphore. -> (seconds, CPU seconds)."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-c", PLAIN, url, str(n), str(most)], cwd=ROOT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        time.monotonic() - began,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )


if __name__ == "__main__":
    n, most = int((sys.argv[1:] or [5000])[0]), int((sys.argv[2:] or [1000])[0])
    cpu = {}
    for name in ("the kit", "the openai client as it comes"):
        for requests in (1, n):
            server, url = serve(latency=2.0)
            with tempfile.TemporaryDirectory() as folder:
                result = (
                    ours(folder, url, requests, "--concurrency", str(most))
                    if name == "the kit"
                    else plain(url, requests, most)
                )
            cpu[name, requests] = result[1]
            print(
                f"{name}, {requests} requests: {result[0]:.1f} s, {result[1]:.1f} s CPU; "
                f"the server saw at most {stats(url)['peak']} at once"
            )
            server.kill()
        print(f"{name}: {1000 * (cpu[name, n] - cpu[name, 1]) / (n - 1):.2f} ms CPU a request")
    kit, plain_client = (
        cpu[name, n] - cpu[name, 1] for name in ("the kit", "the openai client as it comes")
    )
    print(f"ratio: {plain_client / kit:.1f}")
