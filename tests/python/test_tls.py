"""TLS and mutual TLS with real clients: who is let in, and how certificates change while requests run."""

import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from openai import OpenAI

from backstop_process import BackstopProcess, eventually
from certificates import KEYS, LOCALHOST, Authority, pem_of_key
from requests_made import chat


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def trusting(authority: Authority, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    # The tests' authorities are smaller than real ones.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if certificate:
        context.load_cert_chain(*certificate)
    return context


class SecureServer:
    """A server that speaks TLS."""

    def __init__(self, process: BackstopProcess, authority: Authority) -> None:
        self.process = process
        self.authority = authority
        self.root = f"https://127.0.0.1:{process.port}"

    def client(self, certificate: tuple[Path, Path] | None = None, **options: Any) -> httpx.Client:
        return httpx.Client(verify=trusting(self.authority, certificate), base_url=self.root, timeout=60, **options)

    def openai(self, certificate: tuple[Path, Path] | None = None) -> OpenAI:
        return OpenAI(
            base_url=f"{self.root}/v1", api_key="unused", http_client=self.client(certificate), max_retries=0
        )

    def wait_until_ready(self, certificate: tuple[Path, Path] | None = None) -> "SecureServer":
        def is_ready() -> bool:
            assert self.process.is_running(), self.process.log()
            try:
                with self.client(certificate) as client:
                    return client.get("/ready").status_code == 200
            except httpx.TransportError:
                return False

        eventually(is_ready, patience_s=60)
        return self

    def serial(self) -> int:
        """Of the certificate that it shows now."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.process.port)) as plain:
            with context.wrap_socket(plain) as stream:
                return x509.load_der_x509_certificate(stream.getpeercert(binary_form=True)).serial_number


@pytest.fixture
def secure(start: Callable[..., BackstopProcess], authority: Authority) -> Callable[..., SecureServer]:
    def start_one(*arguments: str, **options: Any) -> SecureServer:
        certificate, key = authority.files("server", **options)
        process = start("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), *arguments)
        return SecureServer(process, authority)

    return start_one


@pytest.mark.parametrize(
    ("kind", "traditional"), [*((kind, False) for kind in KEYS), ("rsa", True), ("p256", True)]
)
def test_the_vendor_s_client_asks_over_https(secure: Callable[..., SecureServer], kind: str, traditional: bool) -> None:
    server = secure(kind=kind, traditional=traditional).wait_until_ready()
    with server.openai() as client:
        assert client.chat.completions.create(**chat(max_tokens=4)).usage.completion_tokens == 4
        stream = client.chat.completions.create(**chat(max_tokens=4), stream=True)
        assert [chunk for chunk in stream][-1].choices[0].finish_reason == "length"
    assert f"listening on {server.root}\n" in server.process.log()
    # Who does not know the authority does not speak to it.
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{server.root}/health")


def test_versions_and_protocols(secure: Callable[..., SecureServer], authority: Authority) -> None:
    server = secure().wait_until_ready()

    def handshake(context: ssl.SSLContext) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", server.process.port))
        return context.wrap_socket(plain, server_hostname="localhost")

    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = trusting(authority)
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        with handshake(context) as stream:
            assert stream.version() == version.name.replace("_", ".")
            assert stream.selected_alpn_protocol() == "http/1.1"
    context = trusting(authority)
    context.set_alpn_protocols(["h2"])
    with pytest.raises(ssl.SSLError):
        handshake(context)


def test_plain_http_is_told_to_use_https(secure: Callable[..., SecureServer]) -> None:
    server = secure().wait_until_ready()
    answer = httpx.post(f"{server.process.base_url}/chat/completions", json=chat())
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "https_required"
    assert "https://" in answer.json()["error"]["message"]


def test_probes_on_an_address_of_their_own_stay_plain(secure: Callable[..., SecureServer]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % probe.getsockname()[1]
    secure("--probe-address", address).wait_until_ready()
    assert httpx.get(f"http://{address}/ready").status_code == 200


def test_every_client_must_show_a_certificate(secure: Callable[..., SecureServer], tmp_path: Path) -> None:
    own = Authority(tmp_path, "clients")
    known = own.files("gateway", [x509.UniformResourceIdentifier("spiffe://example/gateway")])
    unknown = Authority(tmp_path, "others").files("stranger", [])
    audit_log = tmp_path / "audit" / "audit.jsonl"
    audit_log.parent.mkdir()
    arguments = ["--ssl-ca-certs", str(own.file), "--log-level", "debug", "--audit-log", str(audit_log)]
    server = secure(*arguments).wait_until_ready(known)
    with server.openai(known) as client:
        client.chat.completions.create(**chat(max_tokens=4))
    for certificate in (None, unknown):
        with server.client(certificate) as client, pytest.raises(httpx.TransportError):
            client.get("/health")
    assert 'client_name="spiffe://example/gateway"' in server.process.log()
    eventually(lambda: '"certificate":"spiffe://example/gateway"' in audit_log.read_text())
    with server.client(known) as client:
        metrics = client.get("/metrics").text
    failed = next(line for line in metrics.splitlines() if line.startswith("backstop:tls_handshakes_failed_total"))
    assert float(failed.split()[1]) >= 2


def test_clients_may_show_a_certificate(secure: Callable[..., SecureServer], tmp_path: Path) -> None:
    own = Authority(tmp_path, "clients")
    known = own.files("gateway", [])
    unknown = Authority(tmp_path, "others").files("stranger", [])
    server = secure("--ssl-ca-certs", str(own.file), "--ssl-cert-reqs", "1").wait_until_ready()
    with server.openai(known) as client:
        client.chat.completions.create(**chat(max_tokens=4))
    eventually(lambda: 'client_name="gateway"' in server.process.log())
    with server.client(unknown) as client, pytest.raises(httpx.TransportError):
        client.get("/health")


def replace(pair: tuple[Path, Path], made: tuple[bytes, bytes]) -> None:
    """Puts others in the place of a certificate and its key, one after the other, as tools do."""
    for path, content in zip(pair, made, strict=True):
        new = path.with_suffix(".new")
        new.touch(0o600)
        new.write_bytes(content)
        new.rename(path)


def test_certificates_change_under_load_and_no_answer_is_lost(
    secure: Callable[..., SecureServer], authority: Authority
) -> None:
    server = secure().wait_until_ready()
    files = authority.directory / "server.crt", authority.directory / "server.key"
    stop = threading.Event()
    failures: list[Exception] = []
    answers: list[int] = []

    def ask(kept: bool) -> None:
        client = server.openai()
        while not stop.is_set():
            try:
                stream = client.chat.completions.create(**chat(max_tokens=8), stream=True)
                answers.append(sum(1 for _ in stream))
            except Exception as error:
                failures.append(error)
            if not kept:
                client.close()
                client = server.openai()

    threads = [threading.Thread(target=ask, args=(kept,)) for kept in (True, True, False, False)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            made = authority.sign("server", LOCALHOST)
            replace(files, made)
            serial = x509.load_pem_x509_certificate(made[0]).serial_number
            server.process.process.send_signal(signal.SIGHUP)
            eventually(lambda: server.serial() == serial)
            so_far = len(answers)
            eventually(lambda: len(answers) > so_far + len(threads) or bool(failures), patience_s=60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_files_are_followed_without_a_signal_and_broken_ones_leave_the_certificate(
    secure: Callable[..., SecureServer], authority: Authority
) -> None:
    server = secure().wait_until_ready()
    files = authority.directory / "server.crt", authority.directory / "server.key"
    first = server.serial()
    files[0].write_text("nonsense")
    eventually(lambda: "the certificates were not accepted" in server.process.log())
    assert "there is no certificate in PEM" in server.process.log()
    assert server.serial() == first
    made = authority.sign("server", LOCALHOST)
    replace(files, made)
    eventually(lambda: server.serial() == x509.load_pem_x509_certificate(made[0]).serial_number)
    # Another's key.
    replace(files, (made[0], authority.sign("server", LOCALHOST)[1]))
    eventually(lambda: "this is not the key of the server's certificate" in server.process.log())
    assert server.serial() == x509.load_pem_x509_certificate(made[0]).serial_number
    with server.client() as client:
        metrics = client.get("/metrics").text
    assert 'backstop:certificate_reloads_total{outcome="refused"}' in metrics


@pytest.mark.parametrize(
    ("days", "said"), [(12.5, "expires in 12 days"), (-1, "has expired: clients will refuse it"), (90, "")]
)
def test_the_end_of_a_certificate_is_told(
    secure: Callable[..., SecureServer], authority: Authority, days: float, said: str
) -> None:
    server = secure("--log-level", "info", days=days)
    if days > 0:
        server.wait_until_ready()
        with server.client() as client:
            metrics = client.get("/metrics").text
        [line] = [line for line in metrics.splitlines() if line.startswith("backstop:certificate_expiry_timestamp")]
        assert abs(float(line.split()[1]) - (time.time() + days * 86400)) < 300
    if said:
        eventually(lambda: said in server.process.log())
    else:
        assert "expire" not in server.process.log()
    eventually(lambda: "ready after" in server.process.log(), patience_s=60)


def test_certificate_and_key_may_share_a_file_and_one_that_others_can_read_is_warned_of(
    start: Callable[..., BackstopProcess], authority: Authority
) -> None:
    both = authority.directory / "both.pem"
    both.write_bytes(b"".join(authority.sign("both", LOCALHOST)))
    os.chmod(both, 0o644)
    process = start("--ssl-certfile", str(both))
    SecureServer(process, authority).wait_until_ready()
    assert f"the TLS key {both}: others than its owner can read it: permissions 0644 are too open" in process.log()


def start_error(start: Callable[..., BackstopProcess], *arguments: str) -> str:
    server = start(*arguments)
    assert server.wait() == 1
    return server.log()


def test_what_cannot_be_used_ends_the_start(
    start: Callable[..., BackstopProcess], authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.files("server")
    other = authority.files("other")[1]
    encrypted, empty = tmp_path / "encrypted", tmp_path / "empty"
    encrypted.write_bytes(pem_of_key(KEYS["p256"](), password=b"secret"))
    empty.touch()
    pairs = [
        ((certificate, other), "this is not the key of the server's certificate"),
        ((certificate, encrypted), "the key is encrypted"),
        ((certificate, empty), "there is no private key in PEM"),
        ((empty, key), "there is no certificate in PEM"),
        ((tmp_path / "nowhere", key), "nowhere"),
    ]
    for (first, second), said in pairs:
        assert said in start_error(start, "--ssl-certfile", str(first), "--ssl-keyfile", str(second))
    assert "needs --ssl-certfile" in start_error(start, "--ssl-keyfile", str(key))
    alone = start_error(start, "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--uds", "/tmp/nobody")
    assert "--uds alone has none" in alone
