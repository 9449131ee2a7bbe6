"""An endpoint picker as the Gateway API's inference extension has it: Envoy asks where each request is to go, and it answers by
what the servers' metrics say. It stands in for those that come as images, and reads the same three metrics."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import httpx
from envoy_data_plane.envoy.config.core.v3 import HeaderValue, HeaderValueOption
from envoy_data_plane.envoy.service.ext_proc.v3 import (
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ProcessingRequest,
    ProcessingResponse,
)
from prometheus_client.parser import text_string_to_metric_families

# The header by which such a picker says where a request goes.
DESTINATION = "x-gateway-destination-endpoint"
METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
SCRAPE_S = 0.05
# Numbers that are older count as none: the server is not chosen.
STALE_S = 2
WAITING, RUNNING, CACHE = "vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"


@dataclass(frozen=True)
class Load:
    waiting: float
    running: float
    cache: float
    at: float


class EndpointPicker(grpc.GenericRpcHandler):
    def __init__(self, endpoints: list[str]):
        self.endpoints = endpoints
        self.loads: dict[str, Load] = {}
        # How long each scrape took, in seconds.
        self.scrapes: list[float] = []
        self.ended = threading.Event()

    def watch(self, endpoint: str) -> None:
        with httpx.Client(timeout=1) as client:
            while not self.ended.wait(SCRAPE_S):
                started = time.monotonic()
                try:
                    text = client.get(f"http://{endpoint}/metrics").raise_for_status().text
                except httpx.HTTPError:
                    self.loads.pop(endpoint, None)
                    continue
                self.scrapes.append(time.monotonic() - started)
                found = {sample.name: sample.value for f in text_string_to_metric_families(text) for sample in f.samples}
                self.loads[endpoint] = Load(found[WAITING], found[RUNNING], found[CACHE], started)

    def pick(self) -> str:
        """Where least waits, then runs, then is kept; of equals the first."""
        now = time.monotonic()
        fresh = {endpoint: load for endpoint, load in dict(self.loads).items() if now - load.at < STALE_S}
        return min(fresh or self.endpoints, key=lambda endpoint: self.rank(fresh.get(endpoint)))

    @staticmethod
    def rank(load: Load | None) -> tuple[float, float, float]:
        return (load.waiting, load.running, load.cache) if load else (0, 0, 0)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != METHOD:
            return None
        return grpc.stream_stream_rpc_method_handler(
            self.process, request_deserializer=ProcessingRequest.FromString, response_serializer=bytes
        )

    def process(self, messages: Iterator[ProcessingRequest], _context: grpc.ServicerContext) -> Iterator[ProcessingResponse]:
        for _request_headers in messages:
            value = HeaderValue(key=DESTINATION, raw_value=self.pick().encode())
            mutation = HeaderMutation(set_headers=[HeaderValueOption(header=value)])
            common = CommonResponse(header_mutation=mutation, clear_route_cache=True)
            yield ProcessingResponse(request_headers=HeadersResponse(response=common))


@contextmanager
def endpoint_picker(endpoints: list[str]) -> Iterator[tuple[EndpointPicker, int]]:
    """A picker that runs, and its port."""
    picker = EndpointPicker(endpoints)
    watching = [threading.Thread(target=picker.watch, args=[endpoint]) for endpoint in endpoints]
    server = grpc.server(ThreadPoolExecutor(8), handlers=[picker])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    for thread in watching:
        thread.start()
    try:
        yield picker, port
    finally:
        picker.ended.set()
        for thread in watching:
            thread.join()
        server.stop(grace=None)
