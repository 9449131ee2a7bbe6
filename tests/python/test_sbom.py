"""`scripts/sbom`: the bill of materials of what is shipped."""

import json
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed")

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import get_spdx_licensing
from packageurl import PackageURL

REPOSITORY = Path(__file__).resolve().parents[2]
LINUX = "x86_64-unknown-linux-gnu"
# Crates that ask others by HTTP, or bring what does.
CLIENTS = ["attohttpc", "curl", "curl-sys", "hf-hub", "hyper-rustls", "hyper-tls", "isahc", "minreq", "reqwest", "ureq"]


def write(*arguments: str, **environment: str) -> str:
    command = [REPOSITORY / "scripts" / "sbom", *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    done = subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def text() -> str:
    return write("--target", LINUX, "backstop")


@pytest.fixture(scope="module")
def document(text: str) -> dict:
    return json.loads(text)


def component(document: dict, name: str) -> dict:
    [found] = [component for component in document["components"] if component["name"] == name]
    return found


def names(document: dict) -> set[str]:
    return {component["name"] for component in document["components"]}


def features(component: dict) -> set[str]:
    values = [entry["value"] for entry in component["properties"] if entry["name"] == "cargo:features"]
    return set(",".join(values).split(","))


def all_components(document: dict) -> Iterable[dict]:
    yield document["metadata"]["component"]
    yield from document["components"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--target", LINUX),
        ("--target", "aarch64-apple-darwin", "--features", "metal"),
        ("--target", "aarch64-unknown-linux-gnu", "--features", "candle-cuda"),
        ("--target", LINUX, "--no-default-features"),
    ],
)
def test_every_build_has_a_valid_document(arguments: tuple[str, ...]) -> None:
    text = write(*arguments, "backstop", SOURCE_DATE_EPOCH="1700000000")
    faults = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert faults is None, str(faults)
    assert json.loads(text)["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_every_component_says_what_it_is_and_where_it_is_from(document: dict) -> None:
    licensing = get_spdx_licensing()
    locked = (REPOSITORY / "Cargo.lock").read_text()
    for component in all_components(document):
        package_url = PackageURL.from_string(component["purl"])
        assert package_url.to_string() == component["purl"]
        assert (package_url.name, package_url.version) == (component["name"], component["version"])
        [license] = component["licenses"]
        assert licensing.validate(license["expression"], strict=True).errors == []
        is_own = "download_url" in package_url.qualifiers
        assert is_own == component["name"].startswith("backstop"), component["name"]
        if package_url.type == "cargo" and not is_own:
            [digest] = component["hashes"]
            assert digest["alg"] == "SHA-256"
            assert f'checksum = "{digest["content"]}"' in locked


def test_dependencies_lead_from_the_binary_to_every_component(document: dict) -> None:
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    references = {component["bom-ref"] for component in all_components(document)}
    assert set(needs) == references
    reached, to_visit = set(), [document["metadata"]["component"]["bom-ref"]]
    while to_visit:
        reference = to_visit.pop()
        if reference not in reached:
            reached.add(reference)
            to_visit += needs[reference]
    assert reached == references


def test_the_server_has_no_http_client(document: dict) -> None:
    assert document["metadata"]["component"]["name"] == "backstop"
    assert {"axum", "hyper", "rust-std", "tokio"} <= names(document)
    assert not names(document).intersection(CLIENTS)
    for name in ("hyper", "hyper-util"):
        of_clients = {feature for feature in features(component(document, name)) if feature.startswith("client")}
        assert of_clients == set(), name


def test_what_only_builds_or_tests_is_not_in_it(document: dict) -> None:
    # A macro, test dependencies of several crates, and crates that are never shipped.
    not_linked = {"serde_derive", "proptest", "jsonschema", "candle-transformers", "backstop-sim", "backstop-proof"}
    assert not names(document) & not_linked
    # Neither is what another system links.
    assert "candle-metal-kernels" not in names(document)
    metal = json.loads(write("--target", "aarch64-apple-darwin", "--features", "metal", "backstop"))
    assert "candle-metal-kernels" in names(metal)


def test_the_same_sources_give_the_same_document(text: str, document: dict, tmp_path: Path) -> None:
    file = tmp_path / "backstop.cdx.json"
    assert write("--target", LINUX, "--out", str(file), "backstop") == ""
    assert file.read_text() == text
    assert "timestamp" not in document["metadata"]
    assert str(REPOSITORY) not in text
    other = json.loads(write("--target", LINUX, "--no-default-features", "backstop"))
    assert other["serialNumber"] != document["serialNumber"]
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", document["serialNumber"])


def test_a_package_that_is_not_there_is_an_error() -> None:
    done = subprocess.run([REPOSITORY / "scripts" / "sbom", "backstep"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "backstep" in done.stderr
