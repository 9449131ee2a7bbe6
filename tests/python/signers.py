"""Signers of models, with keys that a test makes and throws away, and what their signatures are verified with."""

import datetime
from pathlib import Path

import model_signing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM


def key_signer(folder: Path, name: str) -> tuple[model_signing.signing.Config, Path]:
    """A signer with a key of its own, and the file of its public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = folder / f"{name}.pub"
    public.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    config = model_signing.signing.Config()
    return config.use_elliptic_key_signer(private_key=private_file(folder, name, key)), public


def certified_signer(folder: Path) -> tuple[model_signing.signing.Config, Path]:
    """A signer with a certificate, and the file of the root certificate that it leads to."""
    root_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    root = write_certificate(folder / "root.pem", certificate("Root", root_key, root_key))
    leaf = write_certificate(folder / "leaf.pem", certificate("Signer of models", key, root_key))
    config = model_signing.signing.Config().use_certificate_signer(
        private_key=private_file(folder, "leaf", key), signing_certificate=leaf, certificate_chain=[root]
    )
    return config, root


def private_file(folder: Path, name: str, key: ec.EllipticCurvePrivateKey) -> Path:
    path = folder / f"{name}.key"
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(PEM, form, encryption))
    return path


def write_certificate(path: Path, certificate: x509.Certificate) -> Path:
    path.write_bytes(certificate.public_bytes(PEM))
    return path


def certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """A certificate by the root, which is its own issuer."""

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    is_root = key is issuer_key
    now = datetime.datetime.now(datetime.UTC)
    usages = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment"]
        + ["key_agreement", "encipher_only", "decipher_only"],
        False,
    )
    usage = x509.KeyUsage(digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, **usages)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name("Root"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1 + is_root))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    if not is_root:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
