"""Load: a mix of all kinds of clients, and more requests than there is room for."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from clients import KINDS, TIMEOUT_S, Client, Refused, Unexpected, heavy, ordinary

# Unlike requests of which nothing came, these are kept in words.
KEPT_MAX = 20
# Clients that ask one after the other while the capacity is looked for.
CAPACITY_CLIENTS = (1, 4, 16, 64)
CAPACITY_SECONDS = 15.0
# Requests of an overload that have not been answered; a server that refuses in time never has so many.
OUTSTANDING_MAX = 900


@dataclass
class Record:
    """What happened since the last look, and what must not have happened."""

    outcomes: Counter[str] = field(default_factory=Counter)
    ordinary_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    wrong_count: int = 0

    def note_wrong(self, what: str) -> None:
        self.wrong_count += 1
        if len(self.wrong) < KEPT_MAX:
            self.wrong.append(what)


class Load:
    def __init__(self, root: str, model: str, seed: int, record: Record):
        self.root, self.model, self.seed, self.record = root, model, seed, record

    def client(self, name: str, http: httpx.AsyncClient) -> Client:
        return Client(http, random.Random(f"{self.seed} {name}"), self.model)

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.root, timeout=TIMEOUT_S, limits=httpx.Limits(max_connections=None, max_keepalive_connections=64))

    async def mixed(self, clients: int, seconds: float) -> None:
        """So many clients, each of which is of another kind with every request; and one ordinary client, which is timed."""
        deadline = time.monotonic() + seconds
        async with self.http() as http:
            workers = [self._worker(self.client(f"mixed {number}", http), deadline) for number in range(clients)]
            await asyncio.gather(*workers, self._ordinary(self.client("ordinary", http), deadline))

    async def _worker(self, client: Client, deadline: float) -> None:
        kinds, weights = list(KINDS), list(KINDS.values())
        while time.monotonic() < deadline:
            [kind] = client.dice.choices(kinds, weights)
            try:
                outcome = await kind(client)
            except Unexpected as unexpected:
                outcome = "wrong"
                self.record.note_wrong(f"{kind.__name__}: {unexpected}")
            except (httpx.HTTPError, OSError, ValueError) as error:
                outcome = "wrong"
                self.record.note_wrong(f"{kind.__name__}: {error!r}")
                # If the server is gone, this is no time to ask it faster.
                await asyncio.sleep(0.5)
            self.record.outcomes[f"{kind.__name__}: {outcome}"] += 1

    async def _ordinary(self, client: Client, deadline: float) -> None:
        while time.monotonic() < deadline:
            await self._timed(ordinary, client)
            await asyncio.sleep(0.2)

    async def _timed(self, kind: Callable[[Client], Awaitable[str]], client: Client) -> bool:
        """One request that is timed if it is answered."""
        began = time.monotonic()
        try:
            await kind(client)
        except Refused as refused:
            self.record.outcomes[f"{kind.__name__}: {refused}"] += 1
            return False
        except (Unexpected, httpx.HTTPError, OSError, ValueError) as error:
            self.record.outcomes[f"{kind.__name__}: wrong"] += 1
            self.record.note_wrong(f"{kind.__name__}: {error!r}")
            await asyncio.sleep(0.5)
            return False
        self.record.ordinary_s.append(time.monotonic() - began)
        self.record.outcomes[f"{kind.__name__}: answered"] += 1
        return True

    async def capacity(self) -> float:
        """The most heavy requests per second that clients get answered who ask one after the other."""
        best = 0.0
        for clients in CAPACITY_CLIENTS:
            rate = await self._closed_loop(clients)
            print(f"{clients} clients: {rate:.2f} answers per second", flush=True)
            best = max(best, rate)
        return best

    async def _closed_loop(self, clients: int) -> float:
        deadline = time.monotonic() + CAPACITY_SECONDS
        answered = 0

        async def ask(client: Client) -> None:
            nonlocal answered
            while time.monotonic() < deadline:
                # Not `answered += await …`, which would forget what others have added meanwhile.
                was_answered = await self._timed(heavy, client)
                answered += was_answered

        began = time.monotonic()
        async with self.http() as http:
            await asyncio.gather(*(ask(self.client(f"capacity {clients} {number}", http)) for number in range(clients)))
        return answered / (time.monotonic() - began)

    async def overload(self, per_second: float, seconds: float) -> float:
        """Heavy requests that arrive at random, so many per second, whether or not earlier ones were answered. Returns how
        many did arrive per second: fewer, if this machine has no time to send them."""
        began, sent = time.monotonic(), 0
        deadline = time.monotonic() + seconds
        dice = random.Random(f"{self.seed} arrivals")
        outstanding: set[asyncio.Task[bool]] = set()
        async with self.http() as http:
            client = self.client("overload", http)
            next_arrival = time.monotonic()
            while time.monotonic() < deadline:
                next_arrival += dice.expovariate(per_second)
                await asyncio.sleep(max(0.0, next_arrival - time.monotonic()))
                if len(outstanding) >= OUTSTANDING_MAX:
                    self.record.outcomes["overload: not sent, for too many are outstanding"] += 1
                    continue
                sent += 1
                task = asyncio.create_task(self._timed(heavy, client))
                outstanding.add(task)
                task.add_done_callback(outstanding.discard)
            rate = sent / (time.monotonic() - began)
            if outstanding:
                await asyncio.wait(outstanding)
        return rate

    async def probe(self, end: asyncio.Event) -> None:
        """Asks for `/health` every second, on a connection of its own each time, as a supervisor does."""
        while not end.is_set():
            began = time.monotonic()
            try:
                async with httpx.AsyncClient() as http:
                    response = await http.get(f"{self.root}/health", timeout=60)
                self.record.health_s.append(time.monotonic() - began)
                if response.status_code != 200:
                    self.record.note_wrong(f"/health: {response.status_code}: {response.text[:200]}")
            except httpx.HTTPError as error:
                self.record.note_wrong(f"/health: {error!r}")
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - began)))
