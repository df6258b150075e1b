"""The other side of the recipes: a bank whose WSDL has the policy that RECIPE names."""

import os
from dataclasses import replace

import castile
from castile.policy import USERNAME

X509 = castile.policy_set("trust-default")
POLICIES = {
    "wshttp": castile.policy_set("wcf-wshttp-username-direct"),
    "reliable_2005": castile.policy_set("wcf-wshttp-username-direct-reliable"),
    "encrypted_body": X509,
    "reply_certificate": X509,
    "signed_username": replace(X509, application=replace(X509.application, supporting=(USERNAME,))),
}
service = castile.Service(
    "bank.wsdl",
    policy=POLICIES[os.environ["RECIPE"]],
    credentials=castile.Certificate("service.pem"),
    users={"ada": "secret"},
    trust="ada.crt",
    partial=True,
)


@service.operation
def Transfer(debtor, creditor, amount):
    return f"{debtor} gave {creditor} {amount}"


app = service.asgi()
