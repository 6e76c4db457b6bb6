"""A Kafka that asks who is there: certificates made by openssl, SCRAM users, the ACLs of deploy/acls.py."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

from bus.broker import EmbeddedBroker, Secured
from config.settings import BrokerSettings
from deploy.acls import WRITES, user
from tests.conftest import free_port

PROPERTIES = """
listeners=SASL_SSL://127.0.0.1:{port},SSL://127.0.0.1:MTLS_PORT,CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=SASL_SSL://127.0.0.1:{port},SSL://127.0.0.1:MTLS_PORT
listener.security.protocol.map=SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule \
required username="admin" password="PASSWORD";
ssl.keystore.type=PEM
ssl.keystore.location=FOLDER/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=FOLDER/ca.crt
listener.name.ssl.ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^CN=([a-z-]+).*$/$1/,DEFAULT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:admin;User:ANONYMOUS
"""
# ANONYMOUS is the broker itself on its controller listener; both listeners for clients want a name.


def openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def make_certificate(folder: Path, name: str, alternative: str = "") -> None:
    """NAME.key, NAME.crt and NAME.pem, signed by the CA of the folder."""
    openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-subj", f"/CN={name}")  # fmt: skip
    extensions = folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName={alternative}\n" if alternative else "basicConstraints=CA:FALSE\n")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-out", f"{name}.crt", "-extfile", extensions.name)  # fmt: skip
    (folder / f"{name}.pem").write_text((folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text())


class SecuredKafka:
    """The broker, its users' password files, and settings for each of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passwords = {name: f"canary-{secrets.token_hex(16)}" for name in ("admin", *map(user, WRITES))}
        self.mtls_port = free_port()
        openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
                "-subj", "/CN=test-ca")  # fmt: skip
        make_certificate(folder, "server", "IP:127.0.0.1,DNS:localhost")
        for name, word in self.passwords.items():
            (folder / f"{name}.password").write_text(word + "\n")
        properties = PROPERTIES.replace("FOLDER", str(folder)).replace("PASSWORD", self.passwords["admin"])
        client = {
            "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "admin",
            "sasl.password": self.passwords["admin"], "ssl.ca.location": str(folder / "ca.crt"),
        }  # fmt: skip
        self.broker = EmbeddedBroker(
            BrokerSettings(data_dir=folder / "kafka", port=free_port(), heap_mb=256, start_timeout_s=120),
            log=lambda line: print(line, file=sys.stderr, flush=True),
            secured=Secured(
                properties.replace("MTLS_PORT", str(self.mtls_port)), client,
                ("--add-scram", f"SCRAM-SHA-512=[name=admin,password={self.passwords['admin']}]"),
            ),
        )  # fmt: skip

    def start(self) -> None:
        """Start it and make the rooms' users."""
        from confluent_kafka.admin import (
            AdminClient,
            ScramCredentialInfo,
            ScramMechanism,
            UserScramCredentialUpsertion,
        )  # fmt: skip

        self.address = self.broker.start()
        admin = AdminClient({"bootstrap.servers": self.address, **self.broker._secured.client})
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        wanted = [
            UserScramCredentialUpsertion(name, info, word.encode())
            for name, word in self.passwords.items() if name != "admin"
        ]  # fmt: skip
        for future in admin.alter_user_scram_credentials(wanted).values():
            future.result(timeout=30)

    def kafka(self, name: str) -> dict[str, Any]:
        """The [kafka] section of a user with a password."""
        return {
            "bootstrap_servers": self.address, "security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": name, "sasl_password_file": self.folder / f"{name}.password",
            "ssl_ca_file": self.folder / "ca.crt", "market_partitions": 4,
        }  # fmt: skip

    def mtls(self, name: str) -> dict[str, Any]:
        """The [kafka] section of a user with a certificate."""
        if not (self.folder / f"{name}.crt").exists():
            make_certificate(self.folder, name)
        return {
            "bootstrap_servers": f"127.0.0.1:{self.mtls_port}", "security_protocol": "SSL",
            "ssl_ca_file": self.folder / "ca.crt", "ssl_certificate_file": self.folder / f"{name}.crt",
            "ssl_key_file": self.folder / f"{name}.key", "market_partitions": 4,
        }  # fmt: skip
