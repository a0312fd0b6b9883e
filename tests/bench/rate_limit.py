"""900 requests at 1,800 a minute (a burst of 180).

What was refused, and how long it took; the least is 24 s and an answer.

    python -m tests.bench.rate_limit

With the server's x-ratelimit headers, with Retry-After alone, and with neither.
"""

import tempfile

from tests.bench.collect import ours, serve, stats

FORMS = {
    "headers and Retry-After": {"limit_headers": True},
    "Retry-After": {},
    "neither": {"retry_after": None},
}

if __name__ == "__main__":
    for name, options in FORMS.items():
        server, url = serve(**({"latency": "lognormal", "rpm": 1800} | options))
        with tempfile.TemporaryDirectory() as folder:
            seconds, _, status = ours(folder, url, 900)
        told = stats(url)
        print(
            f"{name}: {seconds:.1f} s, status {status}, {told['good']} of 900 answered, "
            f"{told['refused']} refused ({told['refused'] / 9:.1f} %)"
        )
        server.kill()
