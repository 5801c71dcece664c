"""The commands ``sign`` and ``keygen``: who made an artifact."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import Any, get_args

from lightning_trt_windows.artifact.signing import KeyKind, make_key, sign
from lightning_trt_windows.cli.console import print_json

__all__ = ["add"]

_PASSWORD = "LIGHTNING_TRT_WINDOWS_KEY_PASSWORD"
"""Environment variable with the password of a private key: it must not stand in a command line, which others see."""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to ``commands``."""
    parser = commands.add_parser(
        "sign",
        parents=[common],
        help="sign an artifact",
        description="With an Ed25519 key write NAME.windows.json.sig: a signature of the manifest, which has the "
        "hashes of all files. With a key of one of NIST's elliptic curves write NAME.windows.sigstore.json: a "
        "signature of OpenSSF's model signing, of the .ep and the manifest. The password of the key, where it has one, "
        f"is taken from {_PASSWORD}.",
    )
    parser.add_argument("file", metavar="FILE", help="the .windows.ep or the .windows.json")
    parser.add_argument("--key", required=True, metavar="KEY", help="private key, as keygen writes it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_sign)
    parser = commands.add_parser(
        "keygen",
        parents=[common],
        help="make a pair of keys to sign with",
        description="Write a private key to FILE and the public key to FILE.pub, which goes to those who load. "
        f"A password in {_PASSWORD} encrypts the private key.",
    )
    parser.add_argument("file", metavar="FILE", help="where the private key goes; must not exist")
    parser.add_argument(
        "--kind",
        choices=get_args(KeyKind),
        default="ed25519",
        help="of what it signs: this package's signatures, or those of OpenSSF's model signing (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_keygen)


def _sign(arguments: argparse.Namespace) -> int:
    signature = sign(arguments.file, arguments.key, password=os.environ.get(_PASSWORD))
    if arguments.json:
        print_json({"signature": str(signature)})
    else:
        print(f"wrote {signature}")
    return 0


def _keygen(arguments: argparse.Namespace) -> int:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        public = make_key(arguments.file, password=os.environ.get(_PASSWORD), kind=arguments.kind)
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    if arguments.json:
        print_json({"private_key": str(arguments.file), "public_key": str(public)})
    else:
        print(f"wrote {arguments.file} (keep it secret) and {public} (give it to those who load)")
    return 0
