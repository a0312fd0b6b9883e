"""The server's list of models, asked once: does it say when ours will be shut down?"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date, timedelta

import httpx2

from common.generate.prices import describe_shutdown, parse_day

SECONDS = 5
NOTICE = timedelta(days=60)


def warn_of_shutdown(client):
    """Print the day of the model's shutdown if the server names one within NOTICE, or past."""
    budget = client.budget
    if budget.server_asked:
        return
    budget.server_asked = True
    with ThreadPoolExecutor(1) as thread:  # a notebook's thread has a loop that runs
        day = thread.submit(asyncio.run, _ask_shutdown(client)).result()
    if day and day - date.today() <= NOTICE and day != budget.shutdown:
        print(f"{describe_shutdown(client.model, day)}, says {client.server}")


async def _ask_shutdown(client):
    """Return the day that GET /v1/models has as shutdown_date of the model, None without one.

    It is a courtesy: a server that does not know the route, refuses, takes long or answers in
    another form is as good as any.
    """
    with suppress(Exception):  # whatever a stranger's server may cause
        async with asyncio.timeout(SECONDS), client.open_api() as api:
            response = await api.get("/models", cast_to=httpx2.Response)
        for entry in response.json()["data"]:
            if entry["id"] == client.model:
                return parse_day(entry.get("shutdown_date"))
    return None
