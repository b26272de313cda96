"""Signatures of cards by the official Python package, in both directions.

    a2a_signing.py key ES256|EdDSA FILE     a fresh private key, in PEM with PKCS#8
    a2a_signing.py jwks FILE KID            its public key, as a JSON Web Key Set
    a2a_signing.py sign FILE KID            signs the card on standard input
    a2a_signing.py verify JWKS              verifies the card on standard input
"""

import json
import sys

from a2a.types import AgentCard
from a2a.utils.signing import create_agent_card_signer, create_signature_verifier
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from google.protobuf import json_format
from jwt.algorithms import ECAlgorithm, OKPAlgorithm
from jwt.api_jwk import PyJWK


def private(path):
    with open(path, "rb") as file:
        return serialization.load_pem_private_key(file.read(), password=None)


def algorithm(key):
    return "EdDSA" if isinstance(key, ed25519.Ed25519PrivateKey) else "ES256"


def new_key(name, path):
    key = ed25519.Ed25519PrivateKey.generate() if name == "EdDSA" else ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(path, "wb") as file:
        file.write(pem)


def key_set(path, kid):
    key = private(path)
    to_jwk = OKPAlgorithm.to_jwk if algorithm(key) == "EdDSA" else ECAlgorithm.to_jwk
    jwk = json.loads(to_jwk(key.public_key()))
    print(json.dumps({"keys": [{**jwk, "kid": kid, "alg": algorithm(key), "use": "sig"}]}))


def read_card():
    return json_format.Parse(sys.stdin.read(), AgentCard())


def sign(path, kid):
    key = private(path)
    header = {"alg": algorithm(key), "kid": kid, "typ": "JOSE", "jku": None}
    header = {name: value for name, value in header.items() if value is not None}
    signer = create_agent_card_signer(signing_key=key, protected_header=header)
    print(json_format.MessageToJson(signer(read_card())))


def verify(path):
    with open(path) as file:
        keys = {key["kid"]: key for key in json.load(file)["keys"]}
    verifier = create_signature_verifier(lambda kid, jku: PyJWK(keys[kid]), ["ES256", "EdDSA"])
    verifier(read_card())
    print(json.dumps({"verified": True}))


if __name__ == "__main__":
    {"key": new_key, "jwks": key_set, "sign": sign, "verify": verify}[sys.argv[1]](*sys.argv[2:])
