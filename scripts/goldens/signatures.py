"""Writes tests/goldens/signatures: signatures by the `model-signing` package (by OpenSSF) over a model of three small
files, the public keys and certificates that they are by, and what the good ones say was signed.

    pip install model-signing==1.1.1 pyOpenSSL==26.4.0
    python scripts/goldens/signatures.py

Private keys are made anew and thrown away, so every run writes other bytes.
"""

import base64
import datetime
import json
import tempfile
from pathlib import Path

import model_signing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from model_signing._signing import sign_sigstore_pb

OUT = Path(__file__).resolve().parents[2] / "tests/goldens/signatures"
FILES = {
    "config.json": b'{"model_type": "llama"}\n',
    "model.safetensors": bytes(range(64)),
    "1_Pooling/config.json": b"{}\n",
}
CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}
# Certificates that have expired long ago: what was signed within their time stays signed.
NOT_BEFORE, NOT_AFTER = datetime.datetime(2024, 1, 1), datetime.datetime(2024, 3, 1)
PEM = serialization.Encoding.PEM


def key_file(folder: Path, name: str, key) -> Path:
    """Writes a private key for this run alone."""
    path = folder / f"{name}.key"
    path.write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def write_public_key(name: str, key) -> None:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (OUT / f"{name}.pub").write_bytes(key.public_key().public_bytes(PEM, form))


def certificate(subject: str, key, issuer: str, issuer_key, usage: str, purposes=()) -> x509.Certificate:
    """A certificate whose key is for this usage."""

    def name(text: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example")
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, text)])

    usages = dict.fromkeys(
        ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
        + ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"],
        False,
    )
    authority = x509.BasicConstraints(ca=usage == "key_cert_sign", path_length=None)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(authority, critical=True)
        .add_extension(x509.KeyUsage(**usages | {usage: True}), critical=True)
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def write_pem(path: Path, *certificates: x509.Certificate) -> Path:
    path.write_bytes(b"".join(each.public_bytes(PEM) for each in certificates))
    return path


def sign_with_keys(folder: Path, model: Path) -> None:
    """One signature for each curve, and with the first key those that are made in other ways."""
    for name, curve in CURVES.items():
        key = ec.generate_private_key(curve)
        write_public_key(name, key)
        sign = model_signing.signing.Config().use_elliptic_key_signer(private_key=key_file(folder, name, key))
        ignoring = model_signing.hashing.Config().set_ignored_paths(paths=["model.sig"])
        sign.set_hashing_config(ignoring).sign(model, OUT / f"{name}.sig")
        if name == "p256":
            sign_in_other_ways(sign, model, key)
    write_public_key("foreign", ec.generate_private_key(CURVES["p256"]))
    write_public_key("ed25519", ed25519.Ed25519PrivateKey.generate())


def sign_in_other_ways(sign: model_signing.signing.Config, model: Path, key) -> None:
    hashing = model_signing.hashing.Config
    ways = {
        "shards": hashing().use_shard_serialization(shard_size=32),
        "blake2": hashing().use_file_serialization(hashing_algorithm="blake2"),
        "blake3": hashing().use_file_serialization(hashing_algorithm="blake3"),
    }
    for name, way in ways.items():
        sign.set_hashing_config(way).sign(model, OUT / f"{name}.sig")
    sign.set_hashing_config(hashing()).sign(model / "config.json", OUT / "single_file.sig")
    tamper()
    sign_other_payloads(key)


def tamper() -> None:
    """A statement with another digest, under the signature over what it was."""
    bundle = json.loads((OUT / "p256.sig").read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["predicate"]["resources"][0]["digest"] = "00" * 32
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (OUT / "tampered.sig").write_text(json.dumps(bundle))


def sign_other_payloads(key) -> None:
    """What the key signed, but not as a statement about a model."""
    bundle = json.loads((OUT / "p256.sig").read_text())
    envelope = bundle["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])

    def write(name: str, kind: str, payload: bytes) -> None:
        encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
        signature = key.sign(encoded, ec.ECDSA(hashes.SHA256()))
        envelope["payloadType"], envelope["payload"] = kind, base64.b64encode(payload).decode()
        envelope["signatures"] = [{"sig": base64.b64encode(signature).decode(), "keyid": ""}]
        (OUT / f"{name}.sig").write_text(json.dumps(bundle))

    write("payload_type", "text/plain", payload)
    write("no_json", "application/vnd.in-toto+json", b"[" * 1000)


def sign_with_certificates(folder: Path, model: Path) -> None:
    """A root, an intermediate, and leaves of several kinds; and a root that has nothing to do with them."""
    root_key, intermediate_key, key = (ec.generate_private_key(CURVES["p384"]) for _ in range(3))
    root = certificate("Root", root_key, "Root", root_key, "key_cert_sign")
    intermediate = certificate("Intermediate", intermediate_key, "Root", root_key, "key_cert_sign")
    foreign = certificate("Root", key, "Root", key, "key_cert_sign")
    for name, certificates in {
        "root": [root], "intermediate": [intermediate], "chain": [intermediate, root], "foreign_root": [foreign]
    }.items():
        write_pem(OUT / f"{name}.pem", *certificates)

    def sign(name: str, leaf: x509.Certificate, *chain: x509.Certificate) -> None:
        config = model_signing.signing.Config().use_certificate_signer(
            private_key=key_file(folder, "leaf", key),
            signing_certificate=write_pem(folder / "leaf.pem", leaf),
            certificate_chain=[write_pem(folder / "chain.pem", *chain)],
        )
        config.sign(model, OUT / f"{name}.sig")

    def issue(usage: str, *purposes) -> x509.Certificate:
        return certificate("Signer of models", key, "Intermediate", intermediate_key, usage, purposes)

    leaf = issue("digital_signature", ExtendedKeyUsageOID.CODE_SIGNING)
    sign("certificate", leaf, intermediate)
    sign("tls_certificate", issue("digital_signature", ExtendedKeyUsageOID.SERVER_AUTH), intermediate)
    sign("encryption_certificate", issue("key_encipherment"), intermediate)
    sign("authority", issue("key_cert_sign", ExtendedKeyUsageOID.CODE_SIGNING), intermediate)
    write_pem(OUT / "leaf_and_root.pem", leaf, root)
    another = certificate("Somebody else", key, "Signer of models", key, "digital_signature")
    sign("issued_by_signer", another, leaf, intermediate)
    bundle = json.loads((OUT / "certificate.sig").read_text())
    del bundle["verificationMaterial"]["x509CertificateChain"]["certificates"][1:]
    (OUT / "certificate_alone.sig").write_text(json.dumps(bundle))


def write_expected() -> None:
    """What model-signing reads from the good signatures."""
    expected = {}
    for name in ["p256", "p384", "certificate"]:
        signature = sign_sigstore_pb.Signature.read(OUT / f"{name}.sig")
        statement = json.loads(signature.bundle.dsse_envelope.payload)
        files = {each["name"]: each["digest"] for each in statement["predicate"]["resources"]}
        ignored = statement["predicate"]["serialization"]["ignore_paths"]
        expected[name] = {"digests": files, "ignored_paths": ignored, "model_name": statement["subject"][0]["name"]}
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def verify_with_model_signing(model: Path) -> None:
    """Asks model-signing itself whether they are good."""
    for name in ["p256", "p384"]:
        config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=OUT / f"{name}.pub")
        config.verify(model, OUT / f"{name}.sig")
    config = model_signing.verifying.Config().use_certificate_verifier(certificate_chain=[OUT / "root.pem"])
    config.verify(model, OUT / "certificate.sig")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "small"
        for name, content in FILES.items():
            (model / name).parent.mkdir(parents=True, exist_ok=True)
            (model / name).write_bytes(content)
        sign_with_keys(Path(temporary), model)
        sign_with_certificates(Path(temporary), model)
        write_expected()
        verify_with_model_signing(model)


if __name__ == "__main__":
    main()
